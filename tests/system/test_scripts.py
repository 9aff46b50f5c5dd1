"""The OS definition: what Ganeti finds, and its scripts beside create's deployments."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from snf_core.image.parameters import NAMES
from tests import node
from tests.system import guests
from tests.system.inspection import FileSystem
from tests.system.site import DISK_BYTES, MIB, NAME, PATIENCE, Site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.guests import Images

SCRIPTS = {"create", "import", "export", "rename", "verify"}
NO_TASKS = {"EXCLUDE_ALL_TASKS": "yes"}


def test_files_are_those_of_ganetis_interface(place: Site) -> None:
    definition = place.node.definition
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in definition.iterdir()}
    lists = {"ganeti_api_version", "variants.list", "parameters.list"}
    assert modes == {**dict.fromkeys(SCRIPTS, 0o755), **dict.fromkeys(lists, 0o644)}
    assert (definition / "ganeti_api_version").read_text() == "20\n"
    assert (definition / "variants.list").read_text() == "default\n"
    lines = (definition / "parameters.list").read_text().splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == list(NAMES)
    assert all(line.split(" ", 1)[1].strip() for line in lines)


def test_installed_checked_and_installed_again(place: Site) -> None:
    root = node.furnish(place.node.directory / "root")
    words = ("ganeti", "install", "--root", str(root))
    assert place.snf(*words, "--check").status == 3
    outcome = place.snf(*words)
    assert outcome.status == 0, outcome
    installed = root / "usr/share/ganeti/os/snf-image"
    for name in ("ganeti_api_version", "parameters.list", "variants.list"):
        assert (installed / name).read_text() == (place.node.definition / name).read_text()
    hooks = sorted(path.parent.name for path in root.glob("etc/ganeti/hooks/*/snf"))
    assert "instance-stop-post.d" in hooks
    for again in (place.snf(*words, "--check"), place.snf(*words)):
        assert (again.status, again.stdout, again.stderr) == (0, "", "")
    hook = subprocess.run(
        [root / "etc/ganeti/hooks/instance-stop-post.d/snf"],
        env={"PATH": "/sbin:/bin:/usr/sbin:/usr/bin"},
        umask=0o077,
        capture_output=True,
        check=False,
    )
    assert hook.returncode == 1
    assert b"snf: error: GANETI_HOOKS_PATH" in hook.stderr, "it is run, and told nothing"


def test_what_somebody_else_installed_stays(place: Site) -> None:
    root = node.furnish(place.node.directory / "foreign")
    theirs = root / "usr/share/ganeti/os/snf-image/create"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("#!/bin/sh\n")
    outcome = place.snf("ganeti", "install", "--root", str(root))
    assert outcome.status == 1
    assert f"{theirs} was not made by snf" in outcome.stderr
    assert "snf: remedy: " in outcome.stderr
    assert [path.name for path in theirs.parent.iterdir()] == ["create"]
    assert theirs.read_text() == "#!/bin/sh\n"


def test_verify_accepts_what_create_does(place: Site) -> None:
    environment = {
        "OS_API_VERSION": "20",
        "OS_NAME": "snf-image",
        "OS_VARIANT": "default",
        "OSP_IMG_ID": "local://linux",
        "OSP_IMG_FORMAT": "diskdump",
        "OSP_IMG_PROPERTIES": json.dumps({"OSFAMILY": "linux", "USERS": "root", "GUI": "none"}),
        "OSP_IMG_PASSWD": "a password",
    }
    outcome = place.run(environment, "parameters", script="verify")
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("variant", "given", "deployed"),
    [("default", "", "small-a"), ("debian", "", "small-b"), ("debian", "small-c", "small-c")],
)
def test_configuration_then_variant_then_parameter(
    place: Site, images: Images, variant: str, given: str, deployed: str
) -> None:
    """The variant's file is what snf-image-creator writes."""
    for name in ("small-a", "small-b", "small-c"):
        (images.directory / name).write_bytes(name.encode() * 4096)
    variants = place.node.directory / "variants"
    variants.mkdir(exist_ok=True)
    (variants / "debian.conf").write_text(
        "IMG_ID=local://small-b\nIMG_FORMAT=diskdump\n"
        """IMG_PROPERTIES='{"USERS": "root user", "DESCRIPTION": "it'"'"'s", """
        """"EXCLUDE_ALL_TASKS": "yes"}'\n"""
    )
    disk = place.disk(size=4 * MIB)
    environment = place.environment(disk)
    for name in ("OSP_IMG_ID", "OSP_IMG_FORMAT", "OSP_IMG_PROPERTIES"):
        del environment[name]
    environment |= {"OS_VARIANT": variant} | ({"OSP_IMG_ID": given} if given else {})
    defaults = {"img_id": "small-a", "img_format": "diskdump"}
    with (
        place.configured("image", variants=str(variants)),
        place.configured("parameters", **defaults, img_properties=json.dumps(NO_TASKS)),
    ):
        outcome = place.run(environment)
    assert outcome.status == 0, outcome
    content = deployed.encode() * 4096
    assert disk.read_bytes() == content + bytes(4 * MIB - len(content))


def test_export_and_import_carry_a_disk_over(place: Site, images: Images) -> None:
    source = place.disk("exported", guests.IMAGE_BYTES, stale=False)
    source.write_bytes(images.linux.read_bytes())
    target = place.disk("imported", DISK_BYTES)
    sizes, size_fd = os.pipe()
    common = place.environment(source)
    exporting = place.node.script(
        "export",
        {**common, "EXPORT_DEVICE": str(source), "EXPORT_INDEX": "0", "EXP_SIZE_FD": str(size_fd)},
        pass_fds=[size_fd],
    )
    os.close(size_fd)
    assert exporting.stdout
    importing = place.node.script(
        "import",
        {**common, "IMPORT_DEVICE": str(target), "IMPORT_INDEX": "0"},
        stdin=exporting.stdout.fileno(),
    )
    exporting.stdout.close()
    exporting.stdout = None
    for process in (importing, exporting):
        _, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, stderr
    with os.fdopen(sizes) as announced:
        assert announced.read() == f"{guests.IMAGE_BYTES}\n"
    assert target.read_bytes() == images.linux.read_bytes() + bytes(DISK_BYTES - guests.IMAGE_BYTES)


def test_import_of_nothing_and_of_too_much(place: Site) -> None:
    target = place.disk("narrow", 4 * MIB)
    environment = {**place.environment(target), "IMPORT_DEVICE": str(target)}
    for given, said in (
        (b"", f"nothing was given to import on disk {target}"),
        (b"x" * (4 * MIB + 1), f"what is imported is larger than disk {target}"),
    ):
        process = place.node.script("import", environment, stdin=subprocess.PIPE)
        _, stderr = process.communicate(given, timeout=PATIENCE)
        assert process.returncode == 1
        assert f"snf: error: {said}" in stderr.decode()
        assert "snf: remedy: " in stderr.decode()


def test_export_and_import_want_nothing_but_their_disk(place: Site) -> None:
    """No image parameters, and nothing of the instance, however odd it is."""
    source, target = place.disk("bare", 4 * MIB), place.disk("copy", 4 * MIB, stale=False)
    odd = {"OS_API_VERSION": "20", "NIC_COUNT": "1", "NIC_0_MODE": "?", "OSP_IMG_PASSWD": ""}
    exporting = place.node.script("export", {**odd, "EXPORT_DEVICE": str(source)})
    data, stderr = exporting.communicate(timeout=PATIENCE)
    assert (exporting.returncode, stderr, data) == (0, b"", source.read_bytes())
    importing = place.node.script(
        "import", {**odd, "IMPORT_DISK_PATH": str(target)}, stdin=subprocess.PIPE
    )
    _, stderr = importing.communicate(data, timeout=PATIENCE)
    assert (importing.returncode, stderr) == (0, b"")
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("script", ["create", "rename"])
@pytest.mark.parametrize(("root", "chosen"), [("/dev/vdb1", 1), ("/dev/vda1", 0)])
def test_the_disk_of_the_root_device_and_no_other(
    place: Site, images: Images, script: str, root: str, chosen: int
) -> None:
    """Ganeti says so of instances that boot the node's kernel."""
    disks = [place.disk(f"several{index}", guests.IMAGE_BYTES) for index in range(3)]
    if script == "rename":
        disks[chosen].write_bytes(images.linux.read_bytes())
    before = [disk.read_bytes() for disk in disks]
    environment = place.environment(disks[0], "linux") | {
        "DISK_COUNT": "3",
        "INSTANCE_HV_kernel_path": "/boot/vmlinuz",
        "INSTANCE_HV_root_path": root,
    }
    for index, disk in enumerate(disks):
        environment[f"DISK_{index}_PATH"] = str(disk)
        environment[f"DISK_{index}_FRONTEND_TYPE"] = "paravirtual"
    outcome = place.run(environment, script=script)
    assert outcome.status == 0, outcome
    assert FileSystem(disks[chosen], images.root.start).read("/etc/hostname") == f"{NAME}\n"
    for index, disk in enumerate(disks):
        assert (disk.read_bytes() == before[index]) == (index != chosen)


def test_rename_changes_the_guests_name_only(place: Site, images: Images, tmp_path: Path) -> None:
    disk = place.disk("renamed", guests.IMAGE_BYTES, stale=False)
    disk.write_bytes(images.linux.read_bytes())
    environment = {**place.environment(disk), "OLD_INSTANCE_NAME": "template"}
    for name in [name for name in environment if name.startswith("OSP_")]:
        del environment[name]
    outcome = place.run(environment, script="rename")
    assert outcome.status == 0, outcome
    root = FileSystem(disk, images.root.start)
    root.check()
    before = FileSystem(images.linux, images.root.start).tree(tmp_path / "before")
    after = root.tree(tmp_path / "after")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {"etc/hostname", "etc/hosts"}
    assert root.read("/etc/hostname") == f"{NAME}\n"
    assert "template" not in root.read("/etc/hosts")
