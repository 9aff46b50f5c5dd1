"""A guest without an appliance: file systems in dictionaries, behind the facade's interface.

It refuses what the facade refuses: paths through symbolic links for writing, ``..``, what is not
a regular file for reading, mount points that are no directories.
"""

from __future__ import annotations

import posixpath
import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from snf_core.errors import GuestError
from snf_core.image.ext import Superblock
from snf_core.image.files import READ_LIMIT
from snf_core.image.guest import Guest
from snf_core.image.layout import SECTOR, Partition, Table
from snf_core.image.status import Status, absolute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from snf_core.image.customization import File
    from snf_core.image.layout import Resize

MIB = 1 << 20
_LINKS_FOLLOWED = 40


@dataclass(frozen=True)
class Node:
    """A file, directory, symbolic link or FIFO; ``content`` is a link's target for links."""

    mode: int
    content: str = ""
    uid: int = 0
    gid: int = 0


def file(content: str, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Node:
    """A regular file."""
    return Node(stat.S_IFREG | mode, content, uid, gid)


def directory(mode: int = 0o755, uid: int = 0, gid: int = 0) -> Node:
    """A directory."""
    return Node(stat.S_IFDIR | mode, "", uid, gid)


def link(target: str) -> Node:
    """A symbolic link."""
    return Node(stat.S_IFLNK | 0o777, target)


def fifo() -> Node:
    """A named pipe."""
    return Node(stat.S_IFIFO | 0o644)


@dataclass
class FakeFilesystem:
    """A file system on a partition. ``nodes``: absolute path inside it -> node."""

    type: str = "ext4"
    nodes: dict[str, Node] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """UUID, LABEL, PARTUUID, PARTLABEL."""
    options: str = ""
    """Those of the last mount."""


def filesystem(files: Mapping[str, str | Node], kind: str = "ext4", **names: str) -> FakeFilesystem:
    """A file system with files (path -> content or node) and the directories they lie in."""
    nodes: dict[str, Node] = {"/": directory()}
    for path, what in files.items():
        parent = posixpath.dirname(path)
        while parent not in nodes:
            nodes[parent] = directory()
            parent = posixpath.dirname(parent)
        nodes[path] = file(what) if isinstance(what, str) else what
    return FakeFilesystem(kind, nodes, names)


class FakeGuest(Guest):
    """The facade over ``filesystems``: device -> file system. Every public method is replaced."""

    def __init__(self, filesystems: Mapping[str, FakeFilesystem]) -> None:
        self.filesystems = dict(filesystems)
        self.mounts: dict[str, FakeFilesystem] = {}
        self.read_only = False
        numbers = [
            int(name.removeprefix("/dev/sda")) for name in filesystems if name[:8] == "/dev/sda"
        ]
        self.disk = Table(
            "gpt",
            1024 * MIB,
            tuple(
                Partition(number, (index * 16 + 1) * MIB, (index * 16 + 17) * MIB - 1, "")
                for index, number in enumerate(numbers)
            ),
        )
        self.superblock = Superblock("ext4", "clean", False, 4096, 4096, 32768, 1 << 40)
        self.calls: list[tuple[object, ...]] = []
        """What was done to disks and partitions: name of the method, its arguments."""

    @classmethod
    def mounted(cls, files: Mapping[str, str | Node]) -> FakeGuest:
        """A guest whose only file system is mounted already."""
        guest = cls({"/dev/sda1": filesystem(files)})
        guest.mount("/dev/sda1", "/")
        return guest

    def node(self, path: str) -> Node:
        """The node at a path, for assertions. Raises KeyError."""
        system, inner = self._locate(path)
        return system.nodes[inner]

    def flush(self) -> None:
        """Stop."""
        self.mounts.clear()

    # -- disks and partitions ---------------------------------------------------------------

    def reread(self, device: str) -> None:
        """Noted."""
        self.calls.append(("reread", device))

    def table(self, device: str) -> Table:
        """``disk``, to be set by the test where it matters."""
        del device
        return self.disk

    def partitions(self, device: str = "/dev/sda") -> tuple[Partition, ...]:
        """Those of ``disk``."""
        return self.table(device).partitions

    def grow_table(self, device: str, resizes: Sequence[Resize]) -> None:
        """Done to ``disk``, and noted."""
        self.calls.append(("grow_table", device, *resizes))
        ends = {resize.number: (resize.last_sector + 1) * SECTOR - 1 for resize in resizes}
        self.disk = replace(
            self.disk,
            partitions=tuple(
                replace(p, end=ends.get(p.number, p.end)) for p in self.disk.partitions
            ),
        )

    # -- file systems -----------------------------------------------------------------------

    def filesystem(self, device: str) -> str:
        """The type."""
        return self._device(device).type

    def find_filesystem(self, attribute: str, value: str) -> str | None:
        """By the names that the file systems were given."""
        for device, system in self.filesystems.items():
            if system.names.get(attribute) == value:
                return device
        return None

    def ext_superblock(self, device: str) -> Superblock:
        """``superblock``, to be set by the test where it matters."""
        return replace(self.superblock, kind=self._device(device).type)

    def check_ext(self, device: str) -> None:
        """Noted."""
        self.calls.append(("check_ext", device))

    def grow_ext(self, device: str) -> None:
        """Done to ``superblock``, and noted."""
        self._grow_ext("grow_ext", device)

    def grow_ext_mounted(self, device: str) -> None:
        """Done to ``superblock``, and noted."""
        self._grow_ext("grow_ext_mounted", device)

    def _grow_ext(self, call: str, device: str) -> None:
        self.calls.append((call, device))
        [size] = [p.size for p in self.disk.partitions if device == f"/dev/sda{p.number}"]
        self.superblock = replace(self.superblock, blocks=size // self.superblock.block_size)

    def mount(
        self, device: str, mountpoint: str, options: str = "", *, read_only: bool = False
    ) -> None:
        """Mount on a directory."""
        system = self._device(device)
        if system.type in {"", "swap", "crypto_LUKS", "LVM2_member"}:
            raise GuestError(f"mount options {device}: unknown filesystem type {system.type!r}")
        if mountpoint != "/":
            self._checked_parent(posixpath.join(absolute(mountpoint), "."))
        system.options = options
        self.mounts[mountpoint] = system
        self.read_only = read_only

    def unmount_all(self) -> None:
        """Unmount."""
        self.mounts.clear()

    # -- reading ----------------------------------------------------------------------------

    def status(self, path: str) -> Status | None:
        """What is there."""
        node = self._find(absolute(path))
        if node is None:
            return None
        return Status(node.mode, node.uid, node.gid, len(node.content))

    def statuses(self, paths: Iterable[str]) -> dict[str, Status]:
        """What is there of them."""
        found = {path: self.status(path) for path in paths}
        return {path: status for path, status in found.items() if status}

    def is_file(self, path: str) -> bool:
        """Whether it is a regular file."""
        found = self.status(path)
        return found is not None and found.is_file

    def is_directory(self, path: str) -> bool:
        """Whether it is a directory."""
        found = self.status(path)
        return found is not None and found.is_directory

    def read(self, path: str) -> str | None:
        """The text of a file, links followed."""
        node = self._find(absolute(path), follow_last=True)
        if node is None:
            return None
        if not stat.S_ISREG(node.mode):
            raise GuestError(f"{path} in the guest is not a regular file")
        if len(node.content) > READ_LIMIT:
            raise GuestError(f"{path} in the guest is larger than {READ_LIMIT} bytes")
        return node.content

    def list(self, directory: str) -> list[str]:
        """The names in a directory, links followed."""
        node = self._find(absolute(directory), follow_last=True)
        if node is None or not stat.S_ISDIR(node.mode):
            return []
        system, inner = self._locate(self._resolved(absolute(directory), follow_last=True))
        inside = [path for path in system.nodes if posixpath.dirname(path) == inner != path]
        return sorted(posixpath.basename(path) for path in inside)

    def link_target(self, path: str) -> str:
        """Where a link points."""
        node = self._find(absolute(path))
        if node is None or not stat.S_ISLNK(node.mode):
            raise GuestError(f"{path} in the guest is not a symbolic link")
        return node.content

    def link_targets(self, paths: Iterable[str]) -> dict[str, str]:
        """Where the links among them point."""
        links = [path for path, status in self.statuses(paths).items() if status.is_symlink]
        return {path: self.link_target(path) for path in links}

    # -- writing ----------------------------------------------------------------------------

    def write(
        self,
        path: str,
        content: str,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """Write a file."""
        node = self._written(path, content, mode, owner)
        self._put(absolute(path), node)

    def write_files(self, files: Iterable[File]) -> None:
        """Write all or none."""
        nodes = [
            (absolute(file.path), self._written(file.path, file.content, file.mode, file.owner))
            for file in files
        ]
        for path, node in nodes:
            self._put(path, node)

    def make_directory(
        self, path: str, *, mode: int = 0o755, owner: tuple[int, int] = (0, 0)
    ) -> None:
        """Make a directory and its parents."""
        path = absolute(path)
        found = self.status(path)
        if found and found.is_directory:
            return
        if found:
            raise GuestError(f"{path} in the guest is not a directory")
        if not self.status(posixpath.dirname(path)):
            self.make_directory(posixpath.dirname(path))
        self._checked_parent(path)
        self._put(path, Node(stat.S_IFDIR | mode, "", *owner))

    def symlink(self, target: str, path: str) -> None:
        """Make a link."""
        path = absolute(path)
        self._checked_parent(path)
        if self.is_directory(path):
            raise GuestError(f"rename {path}: Is a directory")
        self._put(path, link(target))

    def remove(self, path: str) -> None:
        """Remove a file or link."""
        path = absolute(path)
        if self.status(path) is None:
            return
        self._checked_parent(path)
        if self.is_directory(path):
            raise GuestError(f"rm {path}: Is a directory")
        system, inner = self._locate(path)
        del system.nodes[inner]

    # -- inside -----------------------------------------------------------------------------

    def _written(
        self, path: str, content: str, mode: int | None, owner: tuple[int, int] | None
    ) -> Node:
        """The file that is to lie at a path, given what lies there now."""
        path = absolute(path)
        self._checked_parent(path)
        old = self.status(path)
        if old and old.is_directory:
            raise GuestError(f"{path} in the guest is a directory, not a file")
        kept = old if old and old.is_file else None
        uid, gid = owner or ((kept.uid, kept.gid) if kept else (0, 0))
        bits = mode if mode is not None else (stat.S_IMODE(kept.mode) if kept else 0o644)
        return Node(stat.S_IFREG | bits, content, uid, gid)

    def _device(self, device: str) -> FakeFilesystem:
        if device not in self.filesystems:
            raise GuestError(f"{device}: No such file or directory")
        return self.filesystems[device]

    def _put(self, path: str, node: Node) -> None:
        if self.read_only:
            raise GuestError(f"{path}: Read-only file system")
        system, inner = self._locate(path)
        system.nodes[inner] = node

    def _locate(self, path: str) -> tuple[FakeFilesystem, str]:
        """The mounted file system that a path without links lies in, and the path inside it."""
        inside = [m for m in self.mounts if m in ("/", path) or path.startswith(m + "/")]
        if not inside:
            raise GuestError(f"{path}: nothing is mounted")
        mountpoint = max(inside, key=len)
        inner = path if mountpoint == "/" else path.removeprefix(mountpoint)
        return self.mounts[mountpoint], inner or "/"

    def _find(self, path: str, *, follow_last: bool = False) -> Node | None:
        try:
            system, inner = self._locate(self._resolved(path, follow_last=follow_last))
        except FileNotFoundError:
            return None
        return system.nodes.get(inner)

    def _resolved(self, path: str, *, follow_last: bool) -> str:
        """The path with links followed. Raises FileNotFoundError for a dead end."""
        rest = [part for part in path.split("/") if part]
        done = "/"
        for _ in range(_LINKS_FOLLOWED * len(path)):
            if not rest:
                return done
            step = posixpath.normpath(posixpath.join(done, rest.pop(0)))
            system, inner = self._locate(step)
            node = system.nodes.get(inner)
            if node is None or (rest and stat.S_ISREG(node.mode)):
                raise FileNotFoundError(step)
            if stat.S_ISLNK(node.mode) and (rest or follow_last):
                target = posixpath.normpath(posixpath.join(posixpath.dirname(step), node.content))
                rest = [part for part in target.split("/") if part] + rest
                done = "/"
            else:
                done = step
        raise FileNotFoundError(path)

    def _checked_parent(self, path: str) -> str:
        step = ""
        for name in [part for part in posixpath.dirname(path).split("/") if part]:
            step = f"{step}/{name}"
            found = self.status(step)
            if found is None or not found.is_directory:
                kind = "a symbolic link" if found and found.is_symlink else "not a directory"
                raise GuestError(f"{step} in the guest is {kind}; nothing is written through it")
        return posixpath.dirname(path)
