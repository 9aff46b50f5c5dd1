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
from snf_core.image import layout
from snf_core.image.ext import Superblock
from snf_core.image.files import READ_LIMIT
from snf_core.image.guest import Guest
from snf_core.image.layout import SECTOR, Move, Partition, Resize, Table
from snf_core.image.ntfs import Volume
from snf_core.image.status import Status, absolute
from tests.fakes.registry import FakeRegistry, Keys
from tests.images import windows_trees
from tests.images.windows import VERSIONS, contents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from snf_core.image.customization import File
    from snf_core.image.layout import Change
    from tests.images.windows import Image

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
    ignores_case: bool = False
    """Whether names are found, and listed, without regard to case: as volumes of Windows are."""

    def spelled(self, path: str) -> str:
        """A path as what lies there is called, where something does."""
        if not self.ignores_case:
            return path
        known = {node.lower(): node for node in self.nodes}
        found = "/"
        for name in [part for part in path.split("/") if part]:
            step = posixpath.join(found, name)
            found = known.get(step.lower(), step)
        return found


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


class FakeGuest(FakeRegistry, Guest):
    """The facade over ``filesystems``: device -> file system. Every public method is replaced."""

    def __init__(self, filesystems: Mapping[str, FakeFilesystem]) -> None:
        self.filesystems = dict(filesystems)
        self.mounts: dict[str, FakeFilesystem] = {}
        self._windows = False
        self.read_only = False
        self.hives: dict[str, Keys] = {}
        """Path -> keys of a hive."""
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
        self.volume = Volume(16 * MIB - SECTOR, 4096, (3, 1), False, 2048)
        self.state = "clean"
        self.calls: list[tuple[object, ...]] = []
        """What was done to disks and partitions: name of the method, its arguments."""

    @classmethod
    def mounted(cls, files: Mapping[str, str | Node]) -> FakeGuest:
        """A guest whose only file system is mounted already."""
        guest = cls({"/dev/sda1": filesystem(files)})
        guest.mount("/dev/sda1", "/")
        return guest

    @classmethod
    def with_windows(cls, image: Image) -> FakeGuest:
        """A guest with the system volume of such an image mounted, and with its hives."""
        version = VERSIONS[image.version]
        tree = windows_trees.windows(version, image)
        texts = {
            path: directory(0o777) if content is None else file(content.decode("latin-1"), 0o777)
            for path, content in tree.items()
        }
        guest = cls({"/dev/sda1": filesystem(texts, "ntfs")})
        guest.disk = Table("msdos", 1024 * MIB, (Partition(1, MIB, 512 * MIB - 1, "07"),))
        guest.mount_windows("/dev/sda1")
        for path, content in image.files.items():
            guest.make_directory(posixpath.dirname(path))
            text = content if isinstance(content, str) else content.decode(errors="surrogateescape")
            guest.write(path, text)
        for name, keys in contents(version, image).items():
            path = f"/Windows/System32/config/{name}"
            guest.write(path, "regf")
            guest.hives[path] = {key: dict(values) for key, values in keys.items()}
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

    def grow_table(self, device: str, changes: Sequence[Change]) -> None:
        """Done to ``disk``, and noted."""
        self.calls.append(("grow_table", device, *changes))
        partitions = {partition.number: partition for partition in self.disk.partitions}
        for change in changes:
            number, end = change.number, (change.last_sector + 1) * SECTOR - 1
            if isinstance(change, Resize):
                partitions[number] = replace(partitions[number], end=end)
                continue
            start = change.first_sector * SECTOR
            if isinstance(change, Move):
                partitions[number] = replace(partitions[number], start=start, end=end)
            else:
                partitions[number] = Partition(number, start, end, change.type, name=change.name)
        self.disk = replace(self.disk, partitions=tuple(partitions.values()))

    def add_partition(
        self, device: str, *, sectors: int, type: str, name: str = "", attributes: int = 0
    ) -> int:
        """Done to ``disk``, and noted. It holds nothing yet."""
        addition = layout.add(self.disk, sectors, type, name, attributes)
        self.grow_table(device, [addition])
        self.filesystems[f"{device}{addition.number}"] = filesystem({}, "")
        return addition.number

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

    def ntfs(self, device: str) -> Volume:
        """``volume``, to be set by the test where it matters."""
        if self._device(device).type != "ntfs":
            raise GuestError("the NTFS file system is damaged")
        return self.volume

    def ntfs_state(self, device: str) -> str:
        """``state``, to be set by the test where it matters."""
        kind = self._device(device).type
        return self.state if kind == "ntfs" else "encrypted" if kind == "BitLocker" else "damaged"

    def grow_ntfs(self, device: str) -> None:
        """Done to ``volume``, and noted."""
        self.calls.append(("grow_ntfs", device))
        [size] = [p.size for p in self.disk.partitions if device == f"/dev/sda{p.number}"]
        self.volume = replace(self.volume, size=size - SECTOR, dirty=True)

    def mark_ntfs(self, device: str, *, dirty: bool) -> None:
        """Done to ``volume``, and noted."""
        self.calls.append(("mark_ntfs", device, f"dirty={dirty}"))
        self.volume = replace(self.volume, dirty=dirty)

    def format_fat(self, device: str, label: str) -> None:
        """An empty file system."""
        self._device(device)
        self.filesystems[device] = filesystem({}, "vfat", LABEL=label)

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
        system.ignores_case = False
        self.mounts[mountpoint] = system
        self.read_only = read_only
        self._windows = False

    def mount_windows(self, device: str, *, read_only: bool = False, recover: bool = False) -> None:
        """Mount at ``/``, as ``state`` lets."""
        if self._device(device).type != "ntfs" or self.ntfs_state(device) == "damaged":
            raise GuestError(f"mount vfs {device}: Invalid argument")
        shut = {"hibernated"} if recover else {"hibernated", "unclean"}
        if self.ntfs_state(device) in shut and not read_only:
            raise GuestError(f"mount vfs {device}: Operation not permitted")
        self.mount(device, "/", "recover" if recover else "norecover", read_only=read_only)
        self.mounts["/"].ignores_case = self._windows = True

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
        names = [posixpath.basename(path) for path in inside]
        return sorted(name.lower() for name in names) if system.ignores_case else sorted(names)

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

    def rename(self, path: str, name: str) -> None:
        """Under another name."""
        new = posixpath.join(posixpath.dirname(absolute(path)), name)
        self._checked_parent(path)
        if "/" in name or self.status(new):
            raise GuestError(f"{path} in the guest cannot be renamed: {name!r} is not a free name")
        node = self.node(absolute(path))
        self.remove(path)
        self._put(new, node)

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
        if self._windows:
            if old and not old.is_file:
                raise GuestError(f"{path} in the guest is a reparse point, not a file")
            return file(content, 0o777)
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
        system = self.mounts[mountpoint]
        return system, system.spelled(inner or "/")

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
