"""Guests opened in a helper domain of a real Xen: what it does, and that nothing of it stays.

The figures that are printed are those of an emulated machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from snf_core import appliance as appliances
from snf_core import config
from snf_core.appliance import Launcher
from snf_core.errors import ApplianceError, DiskError
from snf_core.report import Reporter
from snf_xen import domain, helper
from tests import node
from tests.images.debian import debian_image
from tests.xen import domu
from tests.xen.place import (
    LOCKS,
    MIB,
    PATIENCE,
    PLACE,
    Kept,
    Place,
    disk,
    furnished,
    opened,
    remains,
    started,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snf_core.config import Config
    from snf_core.image.guest import Guest

LAUNCH = 20
"""Seconds that a launch takes at most where nobody else is busy."""
BUSY = 2
"""How much slower a machine may be that others use, too."""


@pytest.fixture(name="place", scope="module")
def _place() -> Iterator[Place]:
    with furnished(debian_image().path.parent) as place:
        yield place


@pytest.fixture(autouse=True)
def _nothing_remains(place: Place) -> Iterator[None]:
    """After each test nothing of ours is left."""
    del place
    yield
    assert remains() == []


@contextlib.contextmanager
def looped(path: Path) -> Iterator[Path]:
    """A block device made of a file."""
    made = subprocess.run(
        ["losetup", "--find", "--show", path], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        yield Path(made)
    finally:
        subprocess.run(["losetup", "--detach", made], check=True)


@contextlib.contextmanager
def mounted(path: Path, offset: int) -> Iterator[Path]:
    """The file system that begins at ``offset``, read by dom0's own kernel."""
    target = PLACE / "mounted"
    target.mkdir()
    subprocess.run(["mount", "-o", f"loop,ro,offset={offset}", path, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)
        target.rmdir()


def work(guest: Guest, reporter: Reporter) -> None:
    """Partitions, file systems, LVM and files, by way of libguestfs's own handle; with figures."""
    handle = guest._handle
    sizes = [handle.blockdev_getsize64(device) // MIB for device in handle.list_devices()]
    reporter.info(f"devices {handle.list_devices()} {sizes}")
    reporter.info(f"early {handle.pread_device('/dev/sda', 5, 48 * MIB)!r}")
    for device in ("/dev/sda", "/dev/sdc"):
        handle.part_disk(device, "gpt")
        handle.mkfs("ext4", f"{device}1")
    handle.mount("/dev/sdc1", "/")
    handle.write("/third", b"third")
    handle.umount_all()
    handle.mount("/dev/sda1", "/")
    begin = time.monotonic()
    for number in range(100):
        handle.write(f"/file{number}", b"%d" % number)
    reporter.info(f"figure: 100 writes in {time.monotonic() - begin:.2f} s")
    scratch = Path(os.environ["TMPDIR"])
    blob = os.urandom(2 * MIB)
    (scratch / "blob").write_bytes(blob)
    begin = time.monotonic()
    handle.upload(str(scratch / "blob"), "/blob")
    reporter.info(f"figure: to the appliance {2048 / (time.monotonic() - begin):.0f} KiB/s")
    begin = time.monotonic()
    handle.download("/blob", str(scratch / "back"))
    reporter.info(f"figure: from the appliance {2048 / (time.monotonic() - begin):.0f} KiB/s")
    assert (scratch / "back").read_bytes() == blob
    handle.umount_all()
    handle.part_disk("/dev/sdb", "mbr")
    handle.pvcreate("/dev/sdb1")
    handle.vgcreate("tenants", ["/dev/sdb1"])
    handle.lvcreate("root", "tenants", 20)
    handle.mkfs("ext4", "/dev/tenants/root")
    reporter.info(f"volumes {handle.lvs()} {sorted(handle.list_partitions())}")


def test_three_disks_in_their_order(place: Place) -> None:
    """Files and a block device; what was done is on them, what others write meanwhile is seen."""
    paths = [disk("first", 64), disk("second", 80), disk("third", 96)]
    kept = Kept()
    reporter = Reporter([kept])
    with looped(paths[1]) as device, opened(paths[0], device, paths[2]) as disks:
        begin = time.monotonic()
        with started(place, place.launcher, disks, work) as made:
            print(f"\nfigure: the domain is there after {time.monotonic() - begin:.1f} s")
            assert [name for name in domain.listing() if name.startswith(domain.PREFIX)]
            # As a deployment's copy, while the appliance starts.
            os.pwrite(disks[0], b"early", 48 * MIB)
            made.finish(reporter)
    said = kept.said()
    print("\n".join(line for line in said if line.startswith("figure")))
    assert said[0] == "devices ['/dev/sda', '/dev/sdb', '/dev/sdc'] [64, 80, 96]"
    assert "early b'early'" in said
    assert "volumes ['/dev/tenants/root'] ['/dev/sda1', '/dev/sdb1', '/dev/sdc1']" in said
    with mounted(paths[0], 64 * 1024) as tree:
        assert [(tree / f"file{n}").read_text() for n in range(100)] == list(map(str, range(100)))
        assert (tree / "blob").stat().st_size == 2 * MIB
    with mounted(paths[2], 64 * 1024) as tree:
        assert (tree / "third").read_text() == "third"
    assert b"LABELONE" in paths[1].read_bytes()[:MIB]  # the label of LVM's volume


def test_launch_time(place: Place) -> None:
    """From nothing to an appliance that answers, and to nothing again."""
    with opened(disk("disk")) as disks:
        begin = time.monotonic()
        with started(place, place.launcher, disks) as made:
            made.finish(Reporter([]))
            launched = time.monotonic() - begin
        left = time.monotonic() - begin - launched
    load = max(1.0, os.getloadavg()[0])
    print(f"\nfigure: launch {launched:.1f} s, end {left:.1f} s (load of dom0 {load:.1f})")
    assert launched < LAUNCH * BUSY


def test_the_disk_of_a_running_guest_is_refused(place: Place) -> None:
    """By its file, and by a loop device of the same file; which guest has it is said."""
    path = disk("taken")
    line = f'disk=["file:{path},xvda,w"]'
    with domu.Guest("web7", [], lines=[line]), opened(path) as disks:
        with pytest.raises(DiskError, match="domain web7"), started(place, place.launcher, disks):
            pass
        with looped(path) as device, opened(device) as devices:
            refused = pytest.raises(DiskError, match="domain web7")
            with refused, started(place, place.launcher, devices):
                pass


def test_a_guest_that_takes_the_disk_meanwhile_is_noticed(place: Place) -> None:
    """The deployment fails, rather than that both have written and nobody knows."""
    path = disk("taken")
    attendant = place.launcher.attendant
    assert attendant
    with looped(path) as device, opened(path) as disks, contextlib.ExitStack() as stack:
        line = f'disk=["phy:{device},xvda,w"]'
        helping = stack.enter_context(contextlib.ExitStack())
        helping.enter_context(attendant(disks))
        stack.enter_context(domu.Guest("web7", [], lines=[line]))
        with pytest.raises(DiskError, match="domain web7"):
            helping.close()


class Launched(NamedTuple):
    """A process that has a helper domain."""

    parent: int
    reaper: int
    keeper: int


@contextlib.contextmanager
def launched(place: Place, path: Path) -> Iterator[Launched]:
    """A process of its own in the place of a deployment."""
    there, ours = os.pipe()
    parent = os.fork()
    if parent == 0:
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            attendant = place.launcher.attendant
            assert attendant
            with opened(path) as disks, attendant(disks):
                os.write(ours, b"x")
                # In short naps: Python looks for a signal that came just before one only after it.
                end = time.monotonic() + PATIENCE
                while time.monotonic() < end:
                    time.sleep(0.1)
        os._exit(0)
    os.close(ours)
    try:
        assert os.read(there, 1) == b"x"
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        yield Launched(parent, *map(int, children))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        os.close(there)


def await_nothing() -> float:
    """Wait until nothing is left; how long that took."""
    begin = time.monotonic()
    while left := remains():
        assert time.monotonic() - begin < PATIENCE, left
        time.sleep(0.2)
        domain.held(LOCKS)  # the lock of a killed process is a file that the next one removes
    return time.monotonic() - begin


@pytest.mark.parametrize("killed", [("parent",), ("parent", "keeper"), ("keeper", "parent")])
def test_killed_processes_take_the_domain_with_them(place: Place, killed: Sequence[str]) -> None:
    """Whichever of them is left destroys it."""
    with launched(place, disk("disk")) as found:
        for name in killed:
            os.kill(getattr(found, name), signal.SIGKILL)
        print(f"\nfigure: nothing left {await_nothing():.1f} s after {killed} died")


def test_a_killed_keeper_is_noticed_when_the_deployment_ends(place: Place) -> None:
    """As it does at once: the launcher's program hears of it, and libguestfs of that."""
    with launched(place, disk("disk")) as found:
        os.kill(found.keeper, signal.SIGKILL)
        os.kill(found.parent, signal.SIGTERM)
        await_nothing()


def test_what_nobody_looks_after_goes_with_the_next_launch(place: Place) -> None:
    """Every process of ours killed: as after a node's domains were saved and restored."""
    with launched(place, disk("disk")) as found:
        for pid in (found.reaper, found.keeper, found.parent):
            os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, found.parent, os.WEXITED | os.WNOWAIT)
        [left] = [name for name in domain.listing() if name.startswith(domain.PREFIX)]
        findings = list(helper.tidy(place.appliance.boot_cache))
        assert any(left in finding.statement for finding in findings)
        await_nothing()


def test_no_memory(place: Place) -> None:
    """Said with figures, and at once where nobody would give any back."""
    with opened(disk("disk")) as disks:
        conf = ConfOf(place.hypervisor.conf, 8000)
        launcher = helper.launcher(place.appliance, conf)
        wanted = r"Xen has [0-9]+ MiB of memory free, and the appliance needs 8016"
        with pytest.raises(ApplianceError, match=wanted), started(place, launcher, disks):
            pass


class ConfOf:
    """The plugin's options, but for the memory, and with as much time as it takes."""

    memory_timeout = 2 * PATIENCE

    def __init__(self, conf: object, memory: int) -> None:
        self._conf = conf
        self.appliance_memory = memory

    def __getattr__(self, name: str) -> object:
        return getattr(self._conf, name)


def test_twenty_at_once(place: Place) -> None:
    """Xen has memory for a few of them: the others wait for it, and all come to their end."""
    launcher = helper.launcher(place.appliance, ConfOf(place.hypervisor.conf, 256))
    attendant = launcher.attendant
    assert attendant
    begin = time.monotonic()
    free = domain.free_memory()
    children = []
    for number in range(20):
        child = os.fork()
        if child == 0:
            status = 1
            with (
                contextlib.suppress(BaseException),
                opened(disk(f"disk{number}", 8)) as disks,
                attendant(disks),
            ):
                time.sleep(10)  # as long as it takes to make another: Xen's memory gets short
                names = [name for name in domain.listing() if name.startswith(domain.PREFIX)]
                status = 100 + len(names)
            os._exit(status)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(f"\nfigure: twenty helper domains in {time.monotonic() - begin:.0f} s, "
          f"{max(statuses) - 100} at most at once with {free} MiB free")  # fmt: skip
    assert all(101 <= status <= 100 + free // 256 for status in statuses), statuses


def test_a_domain_that_is_not_ready_in_time_gives_way(place: Place) -> None:
    """To the next launcher, once it has gone: never both with one disk."""
    program = "#!/bin/sh\nls /sys/block/*/loop >&2\nexit 1\n"
    last = Launcher(program, 256, warning="the second one")
    first = replace(place.launcher, patience=0.5, fallback=last)
    kept = Kept()
    with (
        opened(disk("disk")) as disks,
        pytest.raises(ApplianceError),
        started(place, first, disks) as made,
    ):
        made.finish(Reporter([kept]))
    assert any("not ready within 0.5 s" in line for line in kept.said())
    assert "the second one" in kept.said()


def test_an_appliance_that_is_not_prepared_is_emulated(place: Place, tmp_path: Path) -> None:
    """With the reason in the warning that whoever deploys gets to read."""
    bare = replace(place.appliance, directory=tmp_path)
    for file in (bare.kernel, bare.initrd, bare.root):
        file.touch()
    qemu = tmp_path / "qemu"
    with pytest.raises(ApplianceError, match=r"not prepared for Xen.*kvm: .*qemu"):
        appliances.launcher(place.hypervisor, bare, configured(place, qemu))
    qemu.touch(0o755)
    found = appliances.launcher(place.hypervisor, bare, configured(place, qemu))
    assert "started by kvm: the appliance is not prepared for Xen" in found.warning


def configured(place: Place, qemu: Path) -> Config:
    """The node's configuration with another QEMU."""
    file = qemu.with_name("snf.conf")
    text = place.node.config_file.read_text()
    file.write_text(
        text.replace("[hypervisor.kvm]", f"[hypervisor.kvm]\nqemu = {qemu}\naccelerator = tcg")
    )
    return config.load(file)


def deployment(place: Place, path: Path) -> subprocess.Popen[bytes]:
    """Ganeti's create script with the Debian image, under way."""
    environment = node.instance_environment("web1.example.org", path) | {
        "HYPERVISOR": "xen-pvm",
        "OSP_IMG_ID": debian_image().path.name,
        "OSP_IMG_FORMAT": "diskdump",
        "OSP_IMG_PROPERTIES": '{"OSFAMILY": "linux", "USERS": "root"}',
        "OSP_IMG_PASSWD": "correct horse",
    }
    return place.node.script("create", environment, stderr=subprocess.STDOUT)


def test_the_debian_guest_from_end_to_end(place: Place) -> None:
    """The whole list of tasks, and what they wrote on the disk."""
    path = disk("debian", 3 << 10)
    begin = time.monotonic()
    said = deployment(place, path).communicate(timeout=PATIENCE)[0].decode(errors="replace")
    print(f"\nfigure: the whole deployment in {time.monotonic() - begin:.0f} s\n{said}")
    assert "finished successfully" in said
    assert "slower" not in said
    number = debian_image().root_partition
    with looped(path) as device:
        subprocess.run(["partx", "--add", device], check=True)
        dump = subprocess.run(
            ["debugfs", "-R", "cat /etc/hostname", f"{device}p{number}"],
            capture_output=True,
            check=True,
        )
        subprocess.run(["partx", "--delete", device], check=True)
    assert dump.stdout.decode().strip() in {"web1", "web1.example.org"}


def test_a_deployment_that_is_told_to_stop(place: Place) -> None:
    """While its domain boots."""
    path = disk("debian", 3 << 10)
    with deployment(place, path) as process:
        while not any(name.startswith(domain.PREFIX) for name in domain.listing()):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)
        process.terminate()
        said = process.communicate(timeout=PATIENCE)[0].decode(errors="replace")
    assert process.returncode != 0
    assert "interrupted by SIGTERM" in said
