"""The appliance resumed from its saved state: what it is like, and what happens if it cannot be."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_core import config
from snf_core.appliance import locate
from snf_kvm import saved
from tests import appliances
from tests.images.debian import cache_directory
from tests.system.site import MIB, PATIENCE, processes_of, site
from tests.system.test_copy_devices import loop_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from snf_core.appliance import Appliance
    from snf_core.image.guest import Guest
    from tests.system.guests import Images
    from tests.system.site import Outcome, Site

ACCELERATOR = "tcg"


@pytest.fixture(name="place", scope="module")
def _place(images: Images) -> Iterator[Site]:
    """A node that emulates, whatever it could do: what is saved is the same everywhere."""
    settings = {"hypervisor.kvm": {"accelerator": ACCELERATOR}}
    with site(images.directory, settings) as made:
        yield made


# -- a state that fits ------------------------------------------------------------------------


@contextlib.contextmanager
def resumed(place: Site, directory: Path, disks: Sequence[Path]) -> Iterator[Guest]:
    """A resumed appliance with these disks, without the confinement of deployments."""
    loaded = config.load(place.node.config_file)
    found = locate(loaded)
    launcher = appliances.kvm_launcher(loaded, found)
    assert launcher.fallback, launcher.warning
    with appliances.opened(found, launcher, directory, disks) as guest:
        yield guest
    place.await_orphans()  # processes of libguestfs's, whose parents have ended


def ask(guest: Guest, *words: str) -> str:
    """What a command prints in the appliance: only tests run commands there."""
    return str(guest._handle.debug("sh", list(words))).strip()


def test_no_two_are_alike_and_all_know_the_time(place: Site, tmp_path: Path) -> None:
    seeds = set()
    for number in range(2):
        directory = tmp_path / str(number)
        directory.mkdir()
        disk = place.disk(f"clock{number}", MIB, stale=False)
        before = time.time()
        with resumed(place, directory, [disk]) as guest:
            assert before - 1 <= int(ask(guest, "date", "+%s")) <= time.time() + 1
            seeds.add(ask(guest, "od", "-An", "-tx1", "-N16", "/dev/urandom"))
    assert len(seeds) == 2


def test_the_disks_are_there_in_the_order_given(place: Site, tmp_path: Path) -> None:
    """At once, files and block devices alike; and nobody but tasks looks at them."""
    disks = []
    for number in range(4):
        disks.append(place.disk(f"order{number}", (number + 1) * MIB, stale=False))
        with disks[-1].open("r+b") as file:
            file.write(f"disk {number}".encode())
    with loop_device(disks[1]) as device:
        disks[1] = Path(device)
        with resumed(place, tmp_path, disks) as guest:
            for number in range(4):
                name = f"/dev/sd{'abcd'[number]}"
                content = guest._handle.pread_device(name, 6, 0)
                assert content == f"disk {number}".encode()
                assert guest._handle.blockdev_getsize64(name) == (number + 1) * MIB
                guest._handle.pwrite_device(name, b"seen", 0)
            assert guest._handle.list_devices() == [f"/dev/sd{letter}" for letter in "abcd"]
            running = ask(guest, "cat", "/proc/[0-9]*/comm").split()
            guest._handle.shutdown()
    assert "guestfsd" in running
    assert not [name for name in running if "udev" in name]
    for disk in disks[:1] + disks[2:]:
        assert disk.read_bytes()[:4] == b"seen"


def test_partitions_are_found_as_after_a_boot(place: Site, images: Images, tmp_path: Path) -> None:
    disk = place.disk("partitions", images.linux.stat().st_size, stale=False)
    shutil.copy(images.linux, disk)
    with resumed(place, tmp_path, [disk]) as guest:
        listed = guest._handle.list_partitions()
        assert listed == [f"/dev/sda{partition.number}" for partition in guest.partitions()]
        assert guest.find_filesystem("UUID", ask(guest, "blkid", "-s", "UUID", "-o", "value",
                                                 listed[-1])) == listed[-1]  # fmt: skip


def test_a_deployment_resumes_and_warns_of_nothing(place: Site, images: Images) -> None:
    with place.started(_wanted(place, images, "plain")) as deployment:
        deployment.wait_for(type="image-info")
        arguments = _qemu_arguments(place)
        outcome = deployment.finish()
    assert outcome.status == 0, outcome.stderr
    assert "-incoming" in arguments
    assert _warnings(outcome) == []


# -- a state that does not ----------------------------------------------------------------------


@pytest.fixture(name="private")
def _private(place: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """The node with a saved state of its own, to be spoilt; the rest of the appliance is shared."""
    state = Path(place.node.directory) / "private-state"
    shared = cache_directory() / "appliance"
    own = state / "appliance.private"
    own.mkdir(parents=True)
    for name in ("kernel", "initrd", "root", "README.fixed"):
        (own / name).symlink_to((shared / name).resolve())
    shutil.copytree(shared.resolve() / "kvm", own / "kvm")
    (state / "appliance").symlink_to(own.name)
    with place.configured("directories", state=str(state)):
        yield locate(config.load(place.node.config_file))
    shutil.rmtree(state)


def _flip(found: Appliance) -> None:
    """One byte of the saved memory is another one."""
    file = saved.location(found, ACCELERATOR) / "state"
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        byte = opened.read(1)[0]
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 1]))


def _truncate(found: Appliance) -> None:
    """The state ends early, and its checksum says that this is right."""
    directory = saved.location(found, ACCELERATOR)
    os.truncate(directory / "state", 100 * MIB)
    _approve(found)


def _other_machine(found: Appliance) -> None:
    """The state is of a machine with other devices."""
    file = saved.location(found, ACCELERATOR) / "manifest.json"
    file.write_text(re.sub(r"pc-i440fx-[0-9.]+", "pc-q35-7.2", file.read_text()))


def _remove(found: Appliance) -> None:
    shutil.rmtree(found.directory / "kvm")


def _approve(found: Appliance, qemu: str = "/usr/bin/qemu-system-x86_64") -> None:
    directory = saved.location(found, ACCELERATOR)
    fit = saved.conditions(Path(qemu), ACCELERATOR, found)
    facts = {"machine": "pc-i440fx-7.2", "date": "2026-01-01T00:00:00+00:00"}
    saved.write_manifest(directory, fit, facts)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_flip, "is damaged: .*state has another checksum"),
        (_remove, "there is no saved state of the appliance for tcg"),
        (_truncate, "the appliance did not start"),
        (_other_machine, "the appliance did not start"),
    ],
)
def test_it_is_booted_instead_with_one_warning(
    place: Site,
    images: Images,
    private: Appliance,
    spoil: Callable[[Appliance], None],
    reason: str,
) -> None:
    spoil(private)
    outcome = deploy(place, images, "spoilt")
    assert outcome.status == 0, outcome.stderr
    [warning] = _warnings(outcome)
    assert re.search(reason, warning)
    examined = place.snf("doctor").stdout
    assert re.search(r"warn +kvm: the appliance is booted, which takes seconds: ", examined)
    assert 'run "snf appliance build"' in examined


def test_other_memory_than_was_saved(place: Site, images: Images) -> None:
    with place.configured("appliance", memory="600"):
        outcome = deploy(place, images, "memory")
    assert outcome.status == 0, outcome.stderr
    [warning] = _warnings(outcome)
    assert "the appliance's memory changed since it was saved" in warning


def test_one_that_never_gets_ready_is_given_up(
    place: Site, images: Images, private: Appliance
) -> None:
    """A QEMU that hangs when it resumes, and works when it boots."""
    hanging = place.node.directory / "hanging"
    hanging.write_text(
        '#!/bin/sh\ncase "$*" in *-incoming*) exec sleep 1000;; esac\n'
        'exec /usr/bin/qemu-system-x86_64 "$@"\n'
    )
    hanging.chmod(0o755)
    _approve(private, str(hanging))
    options = {"qemu": str(hanging), "resume_timeout": "1", "accelerator": ACCELERATOR}
    with place.configured("hypervisor.kvm", **options):
        outcome = deploy(place, images, "hangs")
    assert outcome.status == 0, outcome.stderr
    [warning] = _warnings(outcome)
    assert "the appliance was not ready within 1 s" in warning


def deploy(place: Site, images: Images, name: str) -> Outcome:
    """A deployment that warns of nothing by itself."""
    return place.run(_wanted(place, images, name))


def _wanted(place: Site, images: Images, name: str) -> dict[str, str]:
    disk = place.disk(name, stale=False)
    return place.environment(
        disk, images.linux.name, properties={"USERS": "root"}, img_passwd="correct horse battery"
    )


def _warnings(outcome: Outcome) -> list[str]:
    return [line for line in outcome.stderr.splitlines() if line.startswith("[WARNING]")]


def _qemu_arguments(place: Site) -> list[str]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for words in processes_of(place.node.runtime).values():
            if words[0].endswith("qemu-system-x86_64"):
                return words
    raise AssertionError("no appliance was started")


# -- building -----------------------------------------------------------------------------------


def test_what_is_saved_belongs_to_root_and_nobody_else_may_write_it(place: Site) -> None:
    found = locate(config.load(place.node.config_file))
    looked = [path for path in found.directory.rglob("*") if not path.is_symlink()]
    assert saved.location(found, ACCELERATOR) / "state" in looked
    for path in [found.directory, *looked]:
        status = path.stat()
        assert (status.st_uid, status.st_mode & 0o022) == (0, 0), path
        assert status.st_mode & 0o004, path
