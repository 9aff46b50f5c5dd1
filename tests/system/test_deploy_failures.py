"""Deployments that fail: a clear error, the disk spared if it can be, nothing left behind."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_core.image.tasks import UNSERVED
from tests import node
from tests.system import guests
from tests.system.site import (
    DISK_BYTES,
    MIB,
    Event,
    Outcome,
    Site,
    processes_of,
    qemu,
    stopped,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NIC = node.bridged_nic("198.51.100.10", "198.51.100.0/24", "198.51.100.1")
BASE64 = base64.b64encode(b"#cloud-config").decode()
HASH = "$6$saltsalt$" + "X" * 86


def properties(**values: str | int) -> str:
    return json.dumps(values)


@dataclass(frozen=True)
class Bad:
    """Something wrong in what Ganeti says."""

    environment: Mapping[str, str]
    said: str
    """What the error must name."""
    absent: tuple[str, ...] = field(default=())
    """Variables to leave out."""


BAD_IMAGES = {
    "missing": Bad({"OSP_IMG_ID": "local://not-there"}, "there is no image 'local://not-there'"),
    "parent": Bad({"OSP_IMG_ID": "../secret"}, "image '../secret' leads out"),
    "detour": Bad(
        {"OSP_IMG_ID": "local://folder/../../secret"}, "leads out of the image directory"
    ),
    "link out": Bad({"OSP_IMG_ID": "local://outside"}, "image 'local://outside' leads out"),
    "absolute link": Bad({"OSP_IMG_ID": "absolute"}, "image 'absolute' leads out"),
    "absolute path": Bad({"OSP_IMG_ID": "/dev/zero"}, "there is no image '/dev/zero'"),
    "directory": Bad({"OSP_IMG_ID": "folder"}, "image 'folder' is a directory"),
    "FIFO": Bad({"OSP_IMG_ID": "fifo"}, "image 'fifo' is a FIFO"),
    "device": Bad({"OSP_IMG_ID": "device"}, "image 'device' is a character device"),
    "zero bytes": Bad({"OSP_IMG_ID": "empty"}, "image 'empty' is empty"),
    "too large": Bad({"OSP_IMG_ID": "large"}, "larger than disk"),
    "no source": Bad({"OSP_IMG_ID": "gopher://host/x"}, "no image source accepts"),
}
"""Refused by create before anything is written."""

BAD_DISKS = {
    "vanished": Bad({"DISK_0_PATH": "/run/snf-test-no-such-disk"}, "/run/snf-test-no-such-disk"),
    "directory": Bad({"DISK_0_PATH": "/etc"}, "disk /etc is a directory"),
    "character device": Bad({"DISK_0_PATH": "/dev/zero"}, "disk /dev/zero is a character device"),
    "no size": Bad({"DISK_0_PATH": "/proc/version"}, "disk /proc/version"),
    "relative": Bad({"DISK_0_PATH": "disk0"}, "DISK_0_PATH"),
    "none": Bad({}, "DISK_0_PATH", absent=("DISK_0_PATH",)),
}

BAD_PARAMETERS = {
    "no image": Bad({"OSP_IMG_ID": ""}, "parameter img_id is missing"),
    "no format": Bad({}, "parameter img_format is missing", absent=("OSP_IMG_FORMAT",)),
    "unknown format": Bad({"OSP_IMG_FORMAT": "vhd"}, "parameter img_format"),
    "later format": Bad({"OSP_IMG_FORMAT": "ntfsdump"}, "parameter img_format: ntfsdump"),
    "both passwords": Bad(
        {"OSP_IMG_PASSWD": "secret", "OSP_IMG_PASSWD_HASH": HASH},
        "parameters img_passwd and img_passwd_hash",
    ),
    "empty password": Bad({"OSP_IMG_PASSWD": ""}, "parameter img_passwd is empty"),
    "password of two lines": Bad({"OSP_IMG_PASSWD": "a\nroot::"}, "parameter img_passwd"),
    "empty hash": Bad({"OSP_IMG_PASSWD_HASH": ""}, "parameter img_passwd_hash"),
    "no hash": Bad({"OSP_IMG_PASSWD_HASH": "secret"}, "parameter img_passwd_hash"),
    "properties": Bad({"OSP_IMG_PROPERTIES": "{'a': 1"}, "parameter img_properties is not valid"),
    "list": Bad({"OSP_IMG_PROPERTIES": "[]"}, "parameter img_properties is not a JSON object"),
    "nested": Bad({"OSP_INST_PROPERTIES": '{"OS": {}}'}, "parameter inst_properties: property OS"),
    "twice": Bad({"OSP_INST_PROPERTIES": '{"OS": 1, "os": 2}'}, "property OS is given twice"),
    "overriding": Bad({"OSP_INST_PROPERTIES": "no"}, "parameter inst_properties is not valid JSON"),
    "personality": Bad({"OSP_IMG_PERSONALITY": "]"}, "parameter img_personality"),
    "personality elsewhere": Bad(
        {"OSP_IMG_PERSONALITY": json.dumps([{"path": "/a/../b", "contents": BASE64}])},
        "parameter img_personality: file 1: its path is not",
    ),
    "keys": Bad({"OSP_AUTH_KEYS": "ssh-ed25519 ***"}, "parameter auth_keys: line 1"),
    "user data": Bad({"OSP_CLOUD_USERDATA": "***"}, "parameter cloud_userdata is not valid base64"),
    "user data for nobody": Bad(
        {
            "OSP_CLOUD_USERDATA": BASE64,
            "OSP_INST_PROPERTIES": properties(OSFAMILY="linux"),
        },
        "parameter cloud_userdata: no task of linux guests serves it",
    ),
    "product key": Bad({"OSP_OS_PRODUCT_KEY": "AAAAA"}, "parameter os_product_key is not"),
    "answer file": Bad({"OSP_OS_ANSWER_FILE": "gopher://x"}, "parameter os_answer_file is not"),
    "answer file of the node": Bad(
        {"OSP_OS_ANSWER_FILE": "file:///etc/secret"},
        "parameter os_answer_file: a file:// URL would name a file of the node itself",
    ),
    "answer file by FTP": Bad(
        {"OSP_OS_ANSWER_FILE": "ftp://u:secret@example.org/x"},
        "parameter os_answer_file: ftp:// is not served",
    ),
    "configuration": Bad({"OSP_CONFIG_URL": "/etc/passwd"}, "parameter config_url is not"),
    "later configuration": Bad(
        {"OSP_CONFIG_URL": "https://example.org/x"}, "parameter config_url is not served"
    ),
    "variant": Bad({"OS_VARIANT": "unheard-of"}, "there is no variant 'unheard-of'"),
    "variant elsewhere": Bad({"OS_VARIANT": "../snf"}, "'../snf' is not the name of a variant"),
    "version": Bad({"OS_API_VERSION": "15"}, "OS_API_VERSION is '15'"),
    "no version": Bad({}, "OS_API_VERSION", absent=("OS_API_VERSION",)),
    **{
        name: Bad({"OSP_IMG_PROPERTIES": properties(**{key: value})}, f"{key}")
        for name, key, value in (
            ("unknown property", "NO_SUCH_PROPERTY", "1"),
            ("misspelt exclusion", "EXCLUDE_TASK_ASIGNHOSTNAME", "yes"),
            ("family", "OSFAMILY", "plan9"),
            ("root partition", "ROOT_PARTITION", "sda1"),
            ("users", "USERS", "root a:b"),
            ("boolean", "EXCLUDE_ALL_TASKS", "perhaps"),
            ("weak hash", "PASSWD_HASHING_METHOD", "md5"),
        )
    },
    **{
        f"later property {name}": Bad({"OSP_IMG_PROPERTIES": properties(**{name: "1:512"})}, name)
        for name in UNSERVED
    },
}
"""Refused by verify as well."""

UNREACHABLE = {
    "loopback": "http://u:secret@127.0.0.1:8080/secret",
    "metadata": "http://169.254.169.254/secret",
    "private": "https://10.0.0.1/secret",
    "mapped": "http://[::ffff:127.0.0.1]:8080/secret",
}
"""Answer files that only create looks for."""

BAD_INSTANCES = {
    "version": Bad({"OS_API_VERSION": "15"}, "OS_API_VERSION is '15'"),
    **{
        f"no {name}": Bad({}, name, absent=(name,))
        for name in ("INSTANCE_NAME", "HYPERVISOR", "DISK_COUNT", "NIC_0_MAC", "NIC_0_MODE")
    },
    **{
        f"{name} {value}": Bad({name: value}, f"{name}: ")
        for name, value in (
            ("INSTANCE_NAME", "web1;reboot"),
            ("INSTANCE_UUID", "1"),
            ("DISK_COUNT", "-1"),
            ("DISK_COUNT", "0"),
            ("DISK_COUNT", "many"),
            ("NIC_COUNT", "1000000"),
            ("NIC_0_MAC", "aa:00:00:5e:00"),
            ("NIC_0_MAC", "01:00:5e:00:00:01"),
            ("NIC_0_MODE", "token-ring"),
            ("NIC_0_IP", "198.51.100.300"),
            ("NIC_0_NETWORK_SUBNET", "198.51.100.7/24"),
            ("NIC_0_NETWORK_GATEWAY", "2001:db8::1"),
            ("NIC_0_NETWORK_SUBNET6", "2001:db8::/200"),
            ("NIC_0_NETWORK_TAGS", "good bad;tag"),
        )
    },
    "NIC_0_LINK": Bad({"NIC_0_LINK": "a bridge"}, "NIC_0_LINK: "),
    "HYPERVISOR": Bad({"HYPERVISOR": "chroot"}, "'chroot'"),
}


@pytest.fixture(name="disk", scope="module")
def _disk(place: Site) -> Path:
    """A disk that no test here may change."""
    disk = place.disk("spared", stale=False)
    disk.write_bytes(b"an earlier tenant's")
    os.truncate(disk, DISK_BYTES)
    return disk


def refused(
    place: Site, disk: Path, bad: Bad, script: str = "create", *arguments: str
) -> list[Event]:
    """Run a script that must fail as ``bad`` says, with the disk as it was; return its events."""
    environment = {
        **place.environment(disk, "linux", nics=[NIC]),
        **bad.environment,
    }
    for name in bad.absent:
        del environment[name]
    before = disk.stat()
    with place.started(environment, *arguments, script=script) as deployment:
        outcome = deployment.finish()
    assert outcome.status == 1, outcome
    # The error and its remedy, each once.
    said = re.findall(r"^snf: (error|remedy): (.*)$", outcome.stderr, re.MULTILINE)
    assert [kind for kind, _ in said] == ["error", "remedy"], outcome
    assert bad.said in " ".join(text for _, text in said), outcome
    assert "Traceback" not in outcome.stderr
    reads_well(outcome.stderr)
    assert "secret" not in outcome.stderr.replace("../secret", "").replace("/secret", "")
    after = disk.stat()
    assert (after.st_mtime_ns, after.st_blocks) == (before.st_mtime_ns, before.st_blocks)
    return deployment.events


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image(place: Site, disk: Path, name: str) -> None:
    events = refused(place, disk, BAD_IMAGES[name])
    assert [event["type"] for event in events] == ["image-error"]
    assert BAD_IMAGES[name].said in events[0]["messages"][0]


@pytest.mark.parametrize("name", BAD_DISKS)
def test_bad_disk(place: Site, disk: Path, name: str) -> None:
    refused(place, disk, BAD_DISKS[name])


@pytest.mark.parametrize("script", ["create", "verify"])
@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_bad_parameter(place: Site, disk: Path, name: str, script: str) -> None:
    refused(place, disk, BAD_PARAMETERS[name], script, *(["parameters"][: script == "verify"]))


@pytest.mark.parametrize("name", UNREACHABLE)
def test_answer_file_that_must_not_be_reached(place: Site, disk: Path, name: str) -> None:
    bad = Bad({"OSP_OS_ANSWER_FILE": UNREACHABLE[name]}, "parameter os_answer_file: http")
    events = refused(place, disk, bad)
    assert "not on the public Internet" in events[0]["messages"][0]
    environment = place.environment(disk, "linux", os_answer_file=UNREACHABLE[name])
    assert place.run(environment, "parameters", script="verify").status == 0


@pytest.mark.parametrize("name", BAD_INSTANCES)
def test_bad_instance(place: Site, disk: Path, name: str) -> None:
    refused(place, disk, BAD_INSTANCES[name])


def test_a_refusal_is_reported_too(place: Site, disk: Path) -> None:
    report = place.disks / "refused.json"
    events = refused(
        place, disk, BAD_PARAMETERS["empty password"], "create", "--report", str(report)
    )
    written = json.loads(report.read_text())
    assert written["result"] == "failure"
    assert written["events"] == events
    assert [event["type"] for event in events] == ["image-error"]


@pytest.mark.parametrize(
    ("group", "options", "said"),
    [
        ("image", {"verfy": "yes"}, "unknown option 'verfy' in group [image]"),
        ("image", {"verify": "perhaps"}, "option 'verify' in group [image]"),
        ("imagine", {"verify": "yes"}, "unknown group [imagine]"),
        ("image.source.local", {"folder": "/"}, "unknown option 'folder'"),
        ("image.source.local", {"directory": "/nowhere"}, "image directory /nowhere"),
        ("hypervisor.kvm", {"qemu": "/nowhere/qemu"}, "/nowhere/qemu cannot be run"),
        ("hypervisor.kvm", {"accelerator": "hvf"}, "option 'accelerator'"),
        ("appliance", {"memory": "1"}, "option 'memory' in group [appliance]"),
        ("appliance", {"user": "nobody-of-this-name"}, "user 'nobody-of-this-name'"),
        ("appliance", {"user": "root"}, "must not run as 'root'"),
        ("directories", {"state": "/nowhere"}, "/nowhere/appliance/kernel is missing"),
        ("parameters", {"auth_keys": "rsa"}, "parameter auth_keys: line 1"),
    ],
    ids=str,
)
def test_bad_configuration(
    place: Site, disk: Path, group: str, options: dict[str, str], said: str
) -> None:
    with place.configured(group, **options):
        refused(place, disk, Bad({}, said))


@pytest.mark.parametrize("kind", ["missing", "directory", "not text", "no assignment"])
def test_unreadable_configuration(place: Site, disk: Path, kind: str) -> None:
    file = place.node.config_file
    kept = file.rename(file.with_suffix(".kept"))
    try:
        if kind == "directory":
            file.mkdir()
        elif kind != "missing":
            file.write_bytes(b"\xff\xfe" if kind == "not text" else b"[image]\nverify\n")
        refused(place, disk, Bad({}, str(file)))
    finally:
        if kind == "directory":
            file.rmdir()
        kept.rename(file)


@pytest.mark.parametrize("report", ["/nowhere/report.json", "/etc"])
def test_report_that_cannot_be_written(place: Site, disk: Path, report: str) -> None:
    refused(place, disk, Bad({}, f"cannot write the report {report}"), "create", "--report", report)


# -- guests that are not what they should be --------------------------------------------------


BAD_GUESTS: dict[str, tuple[str, dict[str, str], str]] = {
    "no partition table": ("blank", {}, "/dev/sda: the disk has no partition table"),
    "damaged GPT": ("bad-primary", {}, "/dev/sda: the disk has no partition table, or a damaged"),
    "damaged GPTs": ("bad-both", {}, "/dev/sda: the disk has no partition table, or a damaged"),
    "no Linux": ("no-linux", {}, "knows the operating system on this disk"),
    "no system": ("no-etc", {}, "holds no /etc directory: it is not a Linux root file system"),
    "no such partition": ("linux", {"ROOT_PARTITION": "7"}, "ROOT_PARTITION"),
    "no such user": ("linux", {"USERS": "bob"}, "user 'bob' does not exist in the guest"),
}
_FEW = {"EXCLUDE_TASK_FixPartitionTable": "yes", "EXCLUDE_FilesystemResize_TASKS": "yes"}


@pytest.fixture(name="bad_guests", scope="module")
def _bad_guests(place: Site) -> dict[str, tuple[Outcome, list[Event]]]:
    """How the deployment of each ended; some at a time, as a node would."""

    def deploy(name: str) -> tuple[Outcome, list[Event]]:
        image, asked, _ = BAD_GUESTS[name]
        environment = place.environment(
            place.disk(f"bad {name}"), image, properties={**asked, **_FEW}, img_passwd_hash=HASH
        )
        with place.started(environment) as deployment:
            return deployment.finish(), deployment.events

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(BAD_GUESTS, pool.map(deploy, BAD_GUESTS), strict=True))


@pytest.mark.parametrize("name", BAD_GUESTS)
def test_bad_guest(bad_guests: dict[str, tuple[Outcome, list[Event]]], name: str) -> None:
    outcome, events = bad_guests[name]
    assert outcome.status == 1
    failed(outcome, events, BAD_GUESTS[name][2])


def failed(outcome: Outcome, events: list[Event], said: str) -> None:
    """A deployment that failed says so once to programs, and to people with a remedy."""
    assert outcome.status == 1, outcome
    assert f"{said}" in outcome.stderr, outcome
    assert "Traceback" not in outcome.stderr, outcome
    reads_well(outcome.stderr)
    errors = [event for event in events if event["type"] == "image-error"]
    assert len(errors) == 1, events
    assert events[-1] is errors[0]
    assert said in errors[0]["messages"][0]
    assert HASH not in outcome.stderr + json.dumps(events)


def reads_well(log: str) -> None:
    """What Ganeti shows of a failed script's log, which must be ASCII, ends in reason and remedy.

    They are said nowhere else in it.

    Of the last 4 KiB, the last 20 lines.
    """
    lines = log.encode()[-4096:].decode("ascii").splitlines()[-20:]
    assert re.fullmatch("snf: error: .+", lines[-2]), lines
    assert re.fullmatch("snf: remedy: .+", lines[-1]), lines
    assert [line for line in lines if "snf: error: " in line] == [lines[-2]]
    assert log.count(lines[-2].removeprefix("snf: error: ")) == 1, log
    assert "[ERROR]" not in log, log
    assert all(line.isprintable() for line in lines), lines


def test_an_endless_reason_does_not_hide_the_remedy(place: Site, disk: Path) -> None:
    name = "\N{SNOWMAN}\r" + "x" * 100_000
    outcome = place.run(place.environment(disk, name))
    assert outcome.status == 1
    assert "image '\\u2603\\rxxx" in outcome.stderr
    reads_well(outcome.stderr)


_DEFECTIVE = """
from snf_core import contract


class Defective(contract.Format):
    api_version = "1.0"

    def disk(self, image):
        raise KeyError("nobody foresaw this")
"""


def test_a_defect_is_reported_with_its_traceback_first(place: Site, disk: Path) -> None:
    """A plugin does what it should not, deep in a deployment."""
    directory = place.node.directory / "defective"
    information = directory / "defective-1.dist-info"
    information.mkdir(parents=True)
    (directory / "defective.py").write_text(_DEFECTIVE)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: defective\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[snf.image.format]\nextdump = defective:Defective\n"
    )
    code = f"import sys; sys.path.append({str(directory)!r}); from snf_core.cli import main; "
    code += "sys.exit(main(sys.argv[1:]))"
    words = place.node.command("ganeti", "os", "create")
    done = subprocess.run(
        [words[0], "-I", "-c", code, *words[words.index("--config") :]],
        env={**place.environment(disk, "linux.diskdump"), "OSP_IMG_FORMAT": "extdump"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback (most recent call last):\n" in done.stderr
    assert "\nsnf: error: internal error: KeyError: 'nobody foresaw this'\n" in done.stderr
    reads_well(done.stderr)


# -- what goes wrong meanwhile ----------------------------------------------------------------


def test_appliance_killed_while_it_starts(place: Site) -> None:
    environment = place.environment(place.disk(stale=False), "linux")
    with (
        place.configured("hypervisor.kvm", resume="no"),  # a resumed one would be booted instead
        place.started(environment) as deployment,
    ):
        os.kill(qemu(place.node.runtime), signal.SIGKILL)
        outcome = deployment.finish()
    failed(outcome, deployment.events, "the appliance did not start")


def test_appliance_killed_during_tasks(place: Site) -> None:
    environment = place.environment(place.disk(stale=False), "linux", properties=_FEW)
    with place.started(environment) as deployment:
        deployment.wait_for(subtype="task-start", task="MountImage")
        os.kill(qemu(place.node.runtime), signal.SIGKILL)
        outcome = deployment.finish()
    failed(outcome, deployment.events, "the appliance died during")


def test_appliance_that_stands_still(place: Site) -> None:
    environment = place.environment(place.disk(stale=False), "linux")
    with (
        place.configured("appliance", timeout="10"),
        place.started(environment) as deployment,
        stopped(qemu(place.node.runtime)),
    ):
        outcome = deployment.finish()
    failed(outcome, deployment.events, "customization did not end within 10 s")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_during_the_copy(place: Site, number: signal.Signals) -> None:
    disk = place.disk(size=guests.LARGE_BYTES + MIB, stale=False)
    with place.started(place.environment(disk, "large")) as deployment:
        deployment.wait_for(message="Starting image copy")
        while disk.stat().st_blocks * 512 < 32 * MIB:
            time.sleep(0.001)
        deployment.process.send_signal(number)
        outcome = deployment.finish()
    failed(outcome, deployment.events, f"the deployment was interrupted by {number.name}")
    assert "Image copy finished." not in outcome.stderr
    with disk.open("rb") as file:
        assert file.read(MIB) == bytes(MIB), "it could be taken for a good disk"


def test_signal_during_tasks(place: Site) -> None:
    environment = place.environment(place.disk(stale=False), "linux", properties=_FEW)
    with place.started(environment) as deployment:
        deployment.wait_for(subtype="task-start", task="MountImage")
        deployment.process.terminate()
        outcome = deployment.finish()
    failed(outcome, deployment.events, "the deployment was interrupted by SIGTERM")


def test_killed_deployment_takes_all_with_it(place: Site) -> None:
    environment = place.environment(place.disk(stale=False), "linux")
    with place.started(environment) as deployment:
        qemu(place.node.runtime)
        deployment.process.kill()
        assert deployment.finish().status == -signal.SIGKILL
    place.await_orphans()
    assert place.remains() == []


@contextlib.contextmanager
def _small_storage(place: Site, size: int) -> Iterator[Path]:
    """A sparse disk on storage of ``size`` bytes, as the scripts see it."""
    directory = place.disks / "small"
    directory.mkdir(exist_ok=True)
    place.inside("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory)
    try:
        place.inside("truncate", "-s", str(4 * guests.LARGE_BYTES), directory / "disk")
        yield directory / "disk"
    finally:
        place.inside("umount", directory)


def test_storage_full_during_the_copy(place: Site, disk: Path) -> None:
    with _small_storage(place, 16 * MIB) as small:
        environment = place.environment(disk, "large") | {"DISK_0_PATH": str(small)}
        with place.started(environment) as deployment:
            outcome = deployment.finish()
    failed(outcome, deployment.events, f"disk {small} cannot be written: No space left on device")


def test_storage_full_during_tasks(place: Site, disk: Path) -> None:
    """An error, and not a machine that waits for somebody to make room."""
    with _small_storage(place, 2 * guests.IMAGE_BYTES) as small:
        environment = place.environment(disk, "linux") | {"DISK_0_PATH": str(small)}
        bare = {"OSP_IMG_PROPERTIES": properties(EXCLUDE_ALL_TASKS="yes")}
        assert place.run(environment | bare).status == 0
        used = Path(f"/proc/{place.keeper}/root{small}").stat().st_blocks * 512
        options = f"remount,size={used + MIB // 16}"
        place.inside("mount", "-o", options, small.parent)
        with (
            place.configured("appliance", timeout="120"),
            place.started(environment) as deployment,
        ):
            outcome = deployment.finish()
    failed(outcome, deployment.events, f"the storage that holds disk {small} is full: ")


# -- listeners that do not listen -------------------------------------------------------------

_DEAF = """#!/usr/bin/python3 -IS
import os, signal
own = os.open("/proc/self/fd/0", os.O_WRONLY | os.O_NONBLOCK)
try:
    while True:
        os.write(own, b"x" * 4096)
except BlockingIOError:
    signal.pause()
"""


@pytest.mark.parametrize("kind", ["dead", "deaf", "missing"])
def test_useless_monitor_harms_nothing(place: Site, images: guests.Images, kind: str) -> None:
    monitor = place.disks / f"{kind}-monitor"
    if kind != "missing":
        monitor.write_text(_DEAF if kind == "deaf" else "#!/bin/sh\nexit 1\n")
        monitor.chmod(0o755)
    target = place.disk(stale=False)
    environment = place.environment(target, "linux", properties={"EXCLUDE_ALL_TASKS": "yes"})
    with (
        place.configured("image", progress_monitor=str(monitor)),
        place.started(environment) as deployment,
    ):
        outcome = deployment.finish()
    assert outcome.status == 0, outcome
    assert deployment.events[-1]["messages"] == ["Image customization finished successfully."]
    if kind == "missing":
        assert "the progress monitor is not used" in outcome.stderr
    assert processes_of(monitor) == {}


def test_nobody_at_the_progress_descriptor(place: Site) -> None:
    target = place.disk(stale=False)
    environment = place.environment(target, "linux", properties={"EXCLUDE_ALL_TASKS": "yes"})
    for descriptor in ("99", None):
        arguments = ["--progress-fd", descriptor] if descriptor else []
        with place.started(environment, *arguments) as deployment:
            os.close(deployment.progress)
            deployment.progress = os.open("/dev/null", os.O_RDONLY)
            assert deployment.finish().status == 0
