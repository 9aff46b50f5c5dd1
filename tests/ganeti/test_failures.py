"""What fails on a real cluster: what Ganeti shows of it, and that nothing is left behind.

Ganeti's hypervisor ``fake`` runs the scripts of the OS definition as any other does.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests import workspace
from tests.ganeti.commands import each, failure, instances, parameters
from tests.ganeti.remains import remains
from tests.images.debian import cache_directory
from tests.system.guests import LARGE_BYTES, make_images

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tests.ganeti.cluster import Cluster
    from tests.ganeti.node import Node, Outcome

OS = "snf-image+default"
IMAGE = {"img_id": "linux.diskdump", "img_format": "diskdump"}
LARGE = {**IMAGE, "img_id": "large"}
DISK_MIB, LARGE_MIB, SMALL_MIB = 128, 1024, 32
CUT = 20_000_000
"""Bytes that are left of an export."""
STORAGE = "/srv/ganeti/file-storage"
EXPORTS = "/var/lib/ganeti/export"
SECRET, PRIVATE = "Tr0ub4dor&3-secret", "correct-horse-private"
"""Passwords given as the parameters of these kinds."""

VERIFY = "OS Parameters validation failed on node node1.gnt.test: "
SCRIPT = "OS validation script failed (exited with exit code 1), output: "
CREATE = (
    "Could not add os for instance {} on node node1.gnt.test: OS create script failed ({}), last "
    "lines in the log file:"
)


@dataclass(frozen=True)
class Wrong:
    """Parameters that are not acceptable; reason and remedy, as they are to be shown."""

    values: Mapping[str, str]
    reason: str
    remedy: str
    words: tuple[str, ...] = ()
    """Further arguments of ``gnt-instance add``."""
    os: str = OS

    @property
    def shown(self) -> list[str]:
        """The two lines that say so."""
        return [f"snf: error: {self.reason}", f"snf: remedy: {self.remedy}"]


def _properties(**properties: str) -> dict[str, str]:
    return {**IMAGE, "img_properties": json.dumps(properties)}


_UNKNOWN = "parameters img_properties, inst_properties: no task knows the properties "
_CORRECT = "correct them, or set [image] unknown_properties = warning"
PLAIN = Wrong(IMAGE, "", "")
"""Nothing is."""

REFUSED = {
    "no image": Wrong(
        {"img_format": "diskdump"},
        "parameter img_id is missing",
        "give the image: local://NAME, or null to keep what is on the disk",
    ),
    "unknown format": Wrong(
        {**IMAGE, "img_format": "vhd"},
        "parameter img_format: there is no format 'vhd'",
        "use one of diskdump",
    ),
    "bad JSON": Wrong(
        {**IMAGE, "img_properties": '{"USERS": "alice"'},
        "parameter img_properties is not valid JSON at character 17",
        "give a JSON object",
    ),
    "unknown property": Wrong(_properties(COLOUR="red"), f"{_UNKNOWN}COLOUR", _CORRECT),
    "misspelt property": Wrong(
        _properties(OSFAMILY="linux", EXCLUDE_TASK_ASIGNHOSTNAME="yes"),
        f"{_UNKNOWN}EXCLUDE_TASK_ASIGNHOSTNAME",
        _CORRECT,
    ),
    "both passwords": Wrong(
        IMAGE,
        "parameters img_passwd and img_passwd_hash are both given",
        "give one of them",
        (f"--os-parameters-private=img_passwd={PRIVATE},img_passwd_hash={PRIVATE}",),
    ),
    "no hash": Wrong(
        IMAGE,
        "parameter img_passwd_hash is not a password hash",
        'give one as "mkpasswd -m sha-512" or "openssl passwd -6" print it',
        (f"--os-parameters-secret=img_passwd_hash={SECRET}",),
    ),
    "bad key": Wrong(
        {**IMAGE, "auth_keys": "ssh-ed25519 garbage alice"},
        "parameter auth_keys: line 1 is not an SSH public key",
        "give lines as in authorized_keys: TYPE BASE64 COMMENT",
    ),
    "no such variant": Wrong(
        IMAGE,
        "there is no variant 'unheard-of'",
        "put its parameters into /etc/snf/variants/unheard-of.conf",
        ("--force-variant",),
        os="snf-image+unheard-of",
    ),
}
"""Refused by ``verify``, before anything is created."""

REFUSED_BY_GANETI = {
    "parameter": Wrong(
        {"img_idd": "x"},
        "The following parameters are not supported by the OS snf-image: img_idd",
        "",
    ),
    "variant": Wrong(
        IMAGE, "OS 'snf-image' does not support variant 'unheard-of'", "", os="snf-image+unheard-of"
    ),
    "no variant": Wrong(IMAGE, "OS name 'snf-image' must include a variant", "", os="snf-image"),
}
"""By what we have told it of our parameters and variants."""

_INTACT = "deploy a whole-disk image with an intact GPT or MBR"
_DAMAGED = "/dev/sda: the disk has no partition table, or a damaged one: "
FAILING = {
    "missing": Wrong(
        {**IMAGE, "img_id": "local://not-there"},
        "there is no image 'local://not-there' in {images}",
        "check its name, or put the image file there",
    ),
    "large": Wrong(
        LARGE,
        f"the image, of {LARGE_BYTES} bytes ({LARGE_BYTES >> 20}.0 MiB), is larger than disk "
        f"{{disk}}, of {DISK_MIB << 20} bytes ({DISK_MIB}.0 MiB)",
        "give the instance a larger disk",
    ),
    "blank": Wrong(
        {**IMAGE, "img_id": "blank"}, f"{_DAMAGED}its first sector has no signature", _INTACT
    ),
    "damaged": Wrong(
        {**IMAGE, "img_id": "bad-both"},
        f"{_DAMAGED}the checksum of the GPT's header is wrong",
        _INTACT,
    ),
    "unknown": Wrong(
        {**IMAGE, "img_id": "no-linux"},
        "no installed guest family (linux, windows, windows-legacy) knows the operating system on "
        "this disk",
        "set the properties OSFAMILY and ROOT_PARTITION, install the plugin for it, or set "
        "EXCLUDE_ALL_TASKS",
    ),
    "empty": Wrong(
        {**IMAGE, "img_id": "no-etc"},
        "MountImage: /dev/sda1 holds no /etc directory: it is not a Linux root file system",
        "give the number of the root partition in property ROOT_PARTITION",
    ),
    "user": Wrong(
        _properties(USERS="bob"),
        "ChangePassword: user 'bob' does not exist in the guest",
        "name existing users in property USERS",
    ),
}
"""What only ``create`` can find: the source, the copy, the guest, a task."""


@pytest.fixture(name="before", scope="module", autouse=True)
def _before(cluster: Cluster) -> Iterator[set[str]]:
    """What there is on the node when nothing is left. It has images then."""
    with workspace.private(cache_directory() / "ganeti") as directory:
        made = make_images(directory).directory
        for wrong in [*REFUSED.values(), *FAILING.values()]:
            name = wrong.values.get("img_id", "")
            if name and not (cluster.images / name).exists() and (made / name).exists():
                cluster.add_image(made / name, name)
        yield remains(cluster.master)


@pytest.fixture(autouse=True)
def _nothing_remains(cluster: Cluster, before: set[str]) -> Iterator[None]:
    yield
    assert remains(cluster.master) - before == set()


def add(
    cluster: Cluster, name: str, wrong: Wrong, *words: str, disk_mib: int = DISK_MIB
) -> Outcome:
    """``gnt-instance add`` of an instance that runs nothing."""
    return cluster.run(
        *("gnt-instance", "add", "-t", "file", "-H", "fake", "--no-name-check", "--no-ip-check"),
        *("-n", cluster.master.name, "-B", "memory=64", "--no-nics", "--no-start"),
        *("-o", wrong.os, "-O", parameters(wrong.values), *wrong.words),
        *("--disk", f"0:size={disk_mib}", *words, f"{name}.gnt.test"),
        check=False,
    )


def reinstalled(cluster: Cluster, names: Iterable[str]) -> None:
    """Instances whose creation failed are installed by Ganeti's next attempt, and removed.

    It takes what is not said again from the attempt before.
    """
    instance_names = [f"{name}.gnt.test" for name in names]
    cluster.run(
        *("gnt-instance", "reinstall", "-f", "--force-multiple", "-O", parameters(_properties())),
        f"--os-parameters-secret=img_passwd={SECRET}",
        *instance_names,
    )
    for name in instance_names:
        cluster.run("gnt-instance", "remove", "-f", name)
    assert disks(cluster.master) == []


def disks(node: Node) -> list[Path]:
    """The directories of instances."""
    return sorted(node.path(STORAGE).glob("*.gnt.test"))


@contextlib.contextmanager
def configured(node: Node, group: str, **options: str) -> Iterator[None]:
    """Further options of ours while the block runs."""
    file = "/etc/snf/snf.conf.d/test.conf"
    lines = [f"[{group}]", *(f"{key} = {value}" for key, value in options.items()), ""]
    node.write(file, "\n".join(lines))
    try:
        yield
    finally:
        node.path(file).unlink()


# -- refused before anything is created --------------------------------------------------------


@pytest.fixture(name="refused", scope="module")
def _refused(cluster: Cluster) -> dict[str, Outcome]:
    known = REFUSED | REFUSED_BY_GANETI
    return each(known, lambda name: add(cluster, f"refused{list(known).index(name)}", known[name]))


@pytest.mark.parametrize("name", REFUSED)
def test_refused(refused: dict[str, Outcome], name: str) -> None:
    reason, remedy = REFUSED[name].shown
    assert failure(refused[name]) == [f"{VERIFY}{SCRIPT}{reason}", remedy]


@pytest.mark.parametrize("name", REFUSED_BY_GANETI)
def test_refused_by_ganeti(refused: dict[str, Outcome], name: str) -> None:
    assert failure(refused[name]) == [f"{VERIFY}{REFUSED_BY_GANETI[name].reason}"]


def test_nothing_was_created(cluster: Cluster, refused: dict[str, Outcome]) -> None:
    assert len(refused) == len(REFUSED) + len(REFUSED_BY_GANETI)
    assert instances(cluster) == {}
    assert disks(cluster.master) == []
    assert list(cluster.master.path("/var/log/ganeti/os").glob("*")) == []


# -- create fails ------------------------------------------------------------------------------


@pytest.fixture(name="failed", scope="module")
def _failed(cluster: Cluster) -> dict[str, Outcome]:
    secret = f"--os-parameters-secret=img_passwd={SECRET}"
    return each(FAILING, lambda name: add(cluster, name, FAILING[name], secret))


def assert_create_failed(
    outcome: Outcome, name: str, shown: list[str], how: str = "exited with exit code 1"
) -> None:
    """Ganeti's words, some of ours, and reason and remedy as the last ones, once."""
    lines = failure(outcome)
    assert lines[0] == CREATE.format(f"{name}.gnt.test", how)
    assert lines[-len(shown) :] == shown
    reason = shown[0].removeprefix("snf: error: ")
    assert [line for line in lines if reason in line] == [shown[0]]
    assert not [line for line in lines if "Traceback" in line]


@pytest.mark.parametrize("name", FAILING)
def test_create_fails(cluster: Cluster, failed: dict[str, Outcome], name: str) -> None:
    (disk,) = cluster.master.path(f"{STORAGE}/{name}.gnt.test").iterdir()
    places = {"images": cluster.images, "disk": f"{STORAGE}/{name}.gnt.test/{disk.name}"}
    shown = [line.format_map(places) for line in FAILING[name].shown]
    assert_create_failed(failed[name], name, shown)


def test_reinstalled_with_correct_parameters(cluster: Cluster, failed: dict[str, Outcome]) -> None:
    """Ganeti has kept them all, and each is as good as new."""
    assert instances(cluster) == {f"{name}.gnt.test": "ADMIN_down" for name in failed}
    reinstalled(cluster, failed)


def test_storage_full(cluster: Cluster) -> None:
    """Where there is room again, it can be installed: the remedy is one."""
    node, place = cluster.master, f"{STORAGE}/small"
    node.run("mkdir", place)
    node.run("mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", place)
    try:
        outcome = add(
            *(cluster, "full", Wrong(LARGE, "", ""), "--file-storage-dir=small"), disk_mib=LARGE_MIB
        )
        (disk,) = node.path(f"{place}/full.gnt.test").iterdir()
        reason = (
            f"disk {place}/full.gnt.test/{disk.name} cannot be written: No space left on device"
        )
        assert_create_failed(
            outcome,
            "full",
            [f"snf: error: {reason}", "snf: remedy: make room on the storage that holds it"],
        )
        node.run("mount", "-o", "remount,size=256M", place)
        reinstalled(cluster, ["full"])
    finally:
        node.run("umount", place)
        node.run("rmdir", place)


@pytest.mark.parametrize(
    ("group", "options", "reason", "remedy"),
    [
        (
            "directories",
            {"state": "/nowhere"},
            "there is no fixed appliance on this node: /nowhere/appliance/kernel is missing",
            'run "snf appliance build"',
        ),
        (
            "hypervisor.fake",
            {"qemu": "/bin/false", "resume": "no"},
            "the appliance did not start: /run/snf/deployment/launcher0 exited with error status "
            "1.",
            'run "snf doctor" on the node',
        ),
    ],
    ids=["missing", "broken"],
)
def test_appliance(
    cluster: Cluster, group: str, options: dict[str, str], reason: str, remedy: str
) -> None:
    with configured(cluster.master, group, **options):
        outcome = add(cluster, group, PLAIN)
    assert_create_failed(outcome, group, [f"snf: error: {reason}", f"snf: remedy: {remedy}"])
    reinstalled(cluster, [group])


_KILLER = """\
#!/bin/sh
# A progress monitor that kills whoever tells it that the first task begins.
while read -r event; do
    case $event in *'"task-start"'*) kill -s {signal} $PPID ;; esac
done
"""


@pytest.mark.parametrize(
    ("signal", "how", "last"),
    [
        (
            "TERM",
            "exited with exit code 1",
            [
                "snf: error: the deployment was interrupted by SIGTERM",
                "snf: remedy: deploy again: the disk is not usable",
            ],
        ),
        ("KILL", "terminated by signal 9", ["[INFO] Task FixPartitionTable ..."]),
    ],
)
def test_killed(cluster: Cluster, signal: str, how: str, last: list[str]) -> None:
    """Ended by somebody in the middle of a task, politely or not."""
    name = f"killed-{signal.lower()}"
    monitor = "/usr/local/bin/killer"
    cluster.master.write(monitor, _KILLER.format(signal=signal), 0o755)
    with configured(cluster.master, "image", progress_monitor=monitor):
        outcome = add(cluster, name, PLAIN)
    assert_create_failed(outcome, name, last, how)
    reinstalled(cluster, [name])


# -- import fails ------------------------------------------------------------------------------


@pytest.fixture(name="imported", scope="module")
def _imported(cluster: Cluster) -> Iterator[dict[str, Outcome]]:
    """Imports of an export that is not whole, and on a disk that is too small."""
    node, whole = cluster.master, f"{EXPORTS}/whole.gnt.test"
    assert add(cluster, "whole", PLAIN).status == 0
    cluster.run("gnt-backup", "export", "-n", node.name, "whole.gnt.test")
    for name, size in (("broken-off", CUT), ("nothing", 0)):
        node.run("cp", "-a", whole, f"{EXPORTS}/{name}")
        (dump,) = (path for path in node.path(f"{EXPORTS}/{name}").iterdir() if not path.suffix)
        os.truncate(dump, size)

    def bring_in(name: str) -> Outcome:
        small = name == "small"
        source = whole if small else f"{EXPORTS}/{name}"
        return cluster.run(
            *("gnt-backup", "import", "-t", "file", "-H", "fake", "--no-nics"),
            *("--no-name-check", "--no-ip-check", "-n", node.name, f"--src-node={node.name}"),
            *(f"--src-dir={source}", "--disk", f"0:size={SMALL_MIB if small else DISK_MIB}"),
            f"{name}.gnt.test",
        )

    yield each(IMPORTS, bring_in)
    for name in ("whole", *IMPORTS):
        cluster.run("gnt-instance", "remove", "-f", f"{name}.gnt.test")
    node.run("rm", "-r", EXPORTS)


IMPORTS = {
    "broken-off": Wrong(
        {},
        f"what is imported on disk {{disk}} breaks off after {CUT} bytes",
        "check the export that this is the import of: a part of it is missing",
    ),
    "nothing": Wrong(
        {},
        "nothing was given to import on disk {disk}",
        "check the export that this is the import of",
    ),
    "small": Wrong(
        {},
        f"what is imported is larger than disk {{disk}}, of {SMALL_MIB << 20} bytes",
        "import it on an instance with a larger disk",
    ),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_import_fails(cluster: Cluster, imported: dict[str, Outcome], name: str) -> None:
    """To Ganeti it is no failure, so the words count. It shows them on one line."""
    (disk,) = cluster.master.path(f"{STORAGE}/{name}.gnt.test").iterdir()
    shown = "\\n".join(IMPORTS[name].shown)
    shown = shown.format(disk=f"{STORAGE}/{name}.gnt.test/{disk.name}")
    said = imported[name].output
    (line,) = (line for line in said.splitlines() if "failed to receive data: " in line)
    assert "failed to receive data: Exited with status 1 (recent output: " in line
    assert shown in line
    with disk.open("rb") as opened:
        assert not any(opened.read(1 << 20)), "it could be taken for a good disk"


def test_no_secret_was_kept(cluster: Cluster) -> None:
    """In no log, no job and no file of ours."""
    for secret in (SECRET, PRIVATE):
        found = cluster.run(
            *("grep", "--recursive", "--files-with-matches", "--devices=skip", "--fixed-strings"),
            # What was written to /tmp is below /run here (see ``Node``).
            *("-e", secret, "/var/log/ganeti", "/var/lib/ganeti", "/run", "/etc/snf"),
            check=False,
        )
        assert (found.status, found.output) == (1, "")
