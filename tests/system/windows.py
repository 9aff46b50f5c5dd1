"""Windows images for whole deployments, and a look at what became of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snf_core import config
from snf_core.appliance import held
from tests import appliances
from tests.images import hive, windows, windows_hives, windows_trees
from tests.images.debian import cache_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from snf_core.image.guest import Guest
    from snf_core.image.layout import Partition, Table

MIB = 1 << 20
_CHUNK = 4 * MIB
_LIST = "images.json"


@contextlib.contextmanager
def opened(disks: Sequence[Path]) -> Iterator[Guest]:
    """An appliance of the tests' own, with these disks."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="windows-", dir=cache_directory()) as name:
        directory = Path(name)
        file = directory / "snf.conf"
        file.write_text(
            f"[directories]\nstate = {cache_directory()}\nruntime = {directory}\n"
            "[hypervisor.kvm]\naccelerator = tcg\n"
        )
        loaded = config.load(file)
        appliances.provide(loaded)
        with held(loaded) as found:
            launcher = appliances.kvm_launcher(loaded, found)
            with appliances.opened(found, launcher, directory, disks) as guest:
                qemu = guest._handle.get_pid()
                yield guest
            # libguestfs kills it, and leaves its burial to us.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(qemu, 0)


@dataclass(frozen=True)
class Images:
    """A directory of images, and where things lie in each."""

    directory: Path
    built: Mapping[str, windows.Built]


def make_images(images: Mapping[str, windows.Image]) -> Images:
    """Images by their files' names, from the tests' cache or newly made, which takes a minute."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    finished = cache_directory() / f"windows-{_recipe_digest(images)}"
    if not finished.is_dir():
        work = Path(tempfile.mkdtemp(prefix="windows.building-", dir=cache_directory()))
        try:
            built = _make(work, images)
            listed = {name: [one.root, dict(one.partitions)] for name, one in built.items()}
            (work / _LIST).write_text(json.dumps(listed))
            work.chmod(0o755)
            with contextlib.suppress(FileExistsError):  # somebody else was faster
                work.rename(finished)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    listed = json.loads((finished / _LIST).read_text())
    return Images(finished, {name: windows.Built(*one) for name, one in listed.items()})


def _recipe_digest(images: Mapping[str, windows.Image]) -> str:
    modules = (hive, windows, windows_hives, windows_trees)
    sources = [__file__, *(str(module.__file__) for module in modules)]
    recipe = b"".join(Path(source).read_bytes() for source in sources)
    return hashlib.sha256(recipe + repr(images).encode()).hexdigest()[:16]


def _make(directory: Path, images: Mapping[str, windows.Image]) -> dict[str, windows.Built]:
    made = {}
    scratch = directory / "scratch"
    scratch.touch()
    size = max(image.size for image in images.values()) * MIB
    os.truncate(scratch, size)
    with opened([scratch]) as guest:
        for name, image in images.items():
            made[name] = windows.build(guest._handle, "/dev/sda", image)
            guest._handle.sync()
            _copy(scratch, directory / name, image.size * MIB)
            os.truncate(scratch, 0)
            os.truncate(scratch, size)
            guest.reread("/dev/sda")
            guest.unmount_all()
            guest._handle.drop_caches(3)
    scratch.unlink()
    return made


def _copy(source: Path, destination: Path, size: int) -> None:
    """The first bytes of a file, holes kept."""
    with destination.open("wb") as file:
        file.truncate(size)
        for position, chunk in _chunks(source):
            if position < size:
                os.pwrite(file.fileno(), chunk[: size - position], position)


def _chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    """What is in a sparse file, and where."""
    with path.open("rb") as file:
        size, position = os.fstat(file.fileno()).st_size, 0
        while position < size:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:  # holes only
                return
            end = os.lseek(file.fileno(), position, os.SEEK_HOLE)
            while position < end:
                chunk = os.pread(file.fileno(), min(_CHUNK, end - position), position)
                yield position, chunk
                position += len(chunk)


def holding(path: Path, needles: Iterable[bytes]) -> set[bytes]:
    """Which of the needles a sparse file holds."""
    found: set[bytes] = set()
    needles = list(needles)
    longest = max(map(len, needles))
    end, tail = 0, b""
    for position, chunk in _chunks(path):
        window = tail + chunk if position == end else chunk
        found |= {needle for needle in needles if needle in window}
        end, tail = position + len(chunk), chunk[-longest:]
    return found


@dataclass(frozen=True)
class Disk:
    """What a disk holds, as an appliance of the tests' own reads it."""

    table: Table
    volumes: Mapping[int, Mapping[str, bytes]]
    """Number of a partition with NTFS or FAT -> its files: path in lower case -> content."""
    labels: Mapping[int, str]
    """Of FAT volumes."""
    probed: Mapping[int, int]
    """What ntfs-3g.probe(8) answers for writing to each NTFS: 0 where it is well."""
    full: frozenset[int]
    """Partitions that their NTFS fills."""

    def partition(self, number: int) -> Partition:
        """By its number."""
        [found] = [p for p in self.table.partitions if p.number == number]
        return found


def read_disk(guest: Guest, device: str) -> Disk:
    """Read all of a disk. Nothing is mounted before or afterwards."""
    handle = guest._handle
    table = guest.table(device)
    kinds = {p.number: handle.vfs_type(f"{device}{p.number}") for p in table.partitions}
    volumes = {
        number: _tree(handle, f"{device}{number}")
        for number, kind in kinds.items()
        if kind in {"ntfs", "vfat"}
    }
    ntfs = [number for number, kind in kinds.items() if kind == "ntfs"]
    full = [n for n in ntfs if guest.ntfs(f"{device}{n}").fills(_size(table, n))]
    return Disk(
        table,
        volumes,
        {n: handle.vfs_label(f"{device}{n}") for n, kind in kinds.items() if kind == "vfat"},
        {number: handle.ntfs_3g_probe(True, f"{device}{number}") for number in ntfs},
        frozenset(full),
    )


def _size(table: Table, number: int) -> int:
    return next(p.size for p in table.partitions if p.number == number)


def _tree(handle: Any, device: str) -> dict[str, bytes]:
    """All regular files of a volume, in one archive."""
    handle.mount_ro(device, "/")
    try:
        with tempfile.NamedTemporaryFile() as file:
            handle.tar_out("/", file.name)
            with tarfile.open(file.name) as tar:
                return {
                    member.name.removeprefix(".").lower(): _content(tar, member)
                    for member in tar
                    if member.isreg()
                }
    finally:
        handle.umount_all()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file
    return file.read()
