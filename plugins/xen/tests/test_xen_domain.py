"""Helper domains: what xl is told and says, locks, memory and left-overs; without any Xen."""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path

import pytest

from snf_core.errors import ApplianceError, DeadlineError
from snf_xen import domain, loop, usage
from snf_xen.usage import Identity

PLAN = domain.Plan(
    "snf-appliance-0123", Path("/srv/kernel"), Path("/srv/initrd"), 384, "/dev/loop0",
    ["/dev/loop1", "/dev/loop7"],
)  # fmt: skip


def test_the_domain_has_its_disks_in_order_and_nothing_else() -> None:
    """No NIC, no screen; not started again, whatever happens to it."""
    words = PLAN.words()
    assert {'type="pv"', "memory=384", "maxmem=384", "vcpus=1", "vif=[]"} <= set(words)
    assert [word for word in words if word.startswith("on_")] == [
        'on_poweroff="destroy"', 'on_reboot="destroy"', 'on_crash="destroy"',
        'on_watchdog="destroy"',
    ]  # fmt: skip
    disks = next(word for word in words if word.startswith("disk="))
    found = re.findall(r"vdev=(\w+),access=(\w),backendtype=phy,[^\"]*target=([^\"]+)", disks)
    assert found == [
        ("xvda", "r", "/dev/loop0"), ("xvdb", "w", "/dev/loop1"), ("xvdc", "w", "/dev/loop7"),
    ]  # fmt: skip
    assert "snf_disks=2" in next(word for word in words if word.startswith("extra="))


def test_a_path_that_cannot_be_told_to_xl_is_refused() -> None:
    """It would end the string, and what follows would be read as more."""
    plan = domain.Plan("n", Path('/srv/a"\nextra="b'), Path("/srv/initrd"), 384, "/dev/loop0", [])
    with pytest.raises(ApplianceError, match="takes no such path"):
        plan.words()


def test_what_xl_lists() -> None:
    """A domain that has shut down, crashed or is about to go does not run."""
    said = """Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0   960     1     r-----      55.4
snf-appliance-aa                             1   384     1     -b----       5.4
snf-appliance-bb                             2   384     1     ---s--       5.4
snf-appliance-cc                             3   384     1     ----c-       5.4
snf-appliance-dd                             4   384     1     --p--d       5.4
(null)                                       5     0     1     ------       0.0
"""
    assert domain.parse_running(said) == {"Domain-0", "snf-appliance-aa", "(null)"}


def test_one_at_a_time(tmp_path: Path) -> None:
    """And nobody waits for ever."""
    with (
        domain.turn(tmp_path / "xen", time.monotonic()),
        pytest.raises(DeadlineError, match="others are being made"),
        domain.turn(tmp_path / "xen", time.monotonic() + 0.15),
    ):
        pass
    with domain.turn(tmp_path / "xen", time.monotonic()):
        pass


def test_only_what_nobody_looks_after_is_left_over(tmp_path: Path) -> None:
    """Held by its lock; a domain of somebody else's is never ours, whatever we hold."""
    alive = domain.lock(tmp_path / "snf-appliance-alive")
    (tmp_path / "snf-appliance-dead").touch()
    held = domain.held(tmp_path)
    assert held == {"snf-appliance-alive"}
    assert [file.name for file in tmp_path.iterdir()] == ["snf-appliance-alive"]
    listed = ["Domain-0", "web1", "snf-appliance-alive", "snf-appliance-dead", "snf-appliance-old"]
    assert domain.left_over(listed, held) == ["snf-appliance-dead", "snf-appliance-old"]
    os.close(alive)
    assert domain.held(tmp_path) == set()


def test_the_locks_of_a_killed_process_are_free(tmp_path: Path) -> None:
    """As long as any process of the deployment lives, they are not."""
    file = tmp_path / "snf-appliance-x"
    there, ours = os.pipe()
    child = os.fork()
    if child == 0:
        domain.lock(file)
        os.write(ours, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(there, 1)
    assert domain.held(tmp_path) == {file.name}
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert domain.held(tmp_path) == set()
    os.close(there)
    os.close(ours)


@pytest.fixture(name="free")
def _free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What Xen says is free, time after time; the last for ever."""
    said: list[int] = []
    monkeypatch.setattr(domain, "free_memory", lambda: said.pop(0) if len(said) > 1 else said[0])
    monkeypatch.setattr(domain, "_WATCH", 0.001)
    return said


def test_enough_memory(free: list[int], tmp_path: Path) -> None:
    """There is nothing to wait for."""
    free.append(400)
    domain.await_memory(400, tmp_path, time.monotonic())


def test_memory_that_nobody_will_give_back(free: list[int], tmp_path: Path) -> None:
    """Is not waited for; the error has the figures, and what to do."""
    free.append(100)
    with pytest.raises(
        ApplianceError, match=r"Xen has 100 MiB of memory free.* needs 400"
    ) as caught:
        domain.await_memory(400, tmp_path, time.monotonic() + 3600)
    assert "dom0_mem=" in caught.value.remedy


def test_memory_that_another_appliance_gives_back(free: list[int], tmp_path: Path) -> None:
    """Is waited for, and no longer than one may."""
    other = domain.lock(tmp_path / "snf-appliance-other")
    free += [100, 100, 450]
    domain.await_memory(400, tmp_path, time.monotonic() + 3600)
    assert free == [450]
    free[:] = [100]
    with pytest.raises(ApplianceError, match="1 of our domains have the rest"):
        domain.await_memory(400, tmp_path, time.monotonic())
    os.close(other)


def status(kind: int, device: int = 0, inode: int = 0, number: int = 0) -> os.stat_result:
    """What os.stat might say."""
    return os.stat_result(
        (kind, inode, device, 1, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, number)
    )


def test_a_disk_is_known_by_what_it_is(tmp_path: Path) -> None:
    """A block device by its number, a file by its place."""
    assert usage.identity(os.stat(tmp_path)) == Identity(
        0, tmp_path.stat().st_dev, tmp_path.stat().st_ino
    )
    null = os.stat("/dev/null")
    assert not stat.S_ISBLK(null.st_mode)


def test_a_loop_device_is_what_it_is_made_of() -> None:
    """Of a file, of a block device, of another loop device."""
    made = {
        os.makedev(7, 0): (os.makedev(8, 1), 17, 0),
        os.makedev(7, 1): (5, 99, os.makedev(254, 3)),
        os.makedev(7, 2): (5, 98, os.makedev(7, 0)),
    }
    file = Identity(0, os.makedev(8, 1), 17)
    first = Identity(os.makedev(7, 0))
    assert list(usage.known_as(first, made.__getitem__)) == [first, file]
    assert list(usage.known_as(Identity(os.makedev(7, 1)), made.__getitem__))[1] == Identity(
        os.makedev(254, 3)
    )
    assert list(usage.known_as(Identity(os.makedev(7, 2)), made.__getitem__))[1:] == [first, file]


def test_what_a_backend_says_it_uses(tmp_path: Path) -> None:
    """By number, by path, by path behind the name of a driver; nonsense is nothing."""
    disk = tmp_path / "disk"
    disk.touch()
    file = Identity(0, disk.stat().st_dev, disk.stat().st_ino)
    assert usage.identities("fe:3", "") == {Identity(os.makedev(0xFE, 3))}
    assert usage.identities("", f"aio:{disk}") == {file}
    assert usage.identities("", str(disk)) == {file}
    assert usage.identities("x:y", "aio:relative") == set()
    assert usage.identities("", "/none/at/all") == set()


def test_device_numbers_as_the_kernel_encodes_them() -> None:
    """huge_encode_dev() of Linux: twelve bits of major number within the minor's twenty."""
    for major, minor in ((7, 3), (254, 255), (259, 70000)):
        encoded = (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
        assert loop._plain(encoded) == os.makedev(major, minor)
