"""Synthetic Windows images: real partition tables, real NTFS, real hives, no Microsoft bytes.

``build`` lays a disk out as the Setup of that version does, makes its file systems in a running
appliance, and fills them with the directories that it makes, files that stand for its own, and
hives with the keys and values that deployment reads. Every option is one way in which images of
operators differ, or are broken.
"""

from __future__ import annotations

import io
import os
import posixpath
import struct
import subprocess
import tarfile
import tempfile
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tests.images import hive
from tests.images import windows_hives as hives
from tests.images import windows_trees as trees

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.images.hive import Keys

_made: dict[str, bytes] = {}
"""Hives by what they hold."""

_SPOILED = frozenset(["dirty", "checksum", "truncated"])

GPT_TYPES = {
    "esp": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "msr": "e3c9e316-0b5c-4db8-817d-f92df00215ae",
    "windows": "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
    "recovery": "de94bba4-06d1-4d40-a16a-bfd50179d6ac",
}
MBR_TYPES = {"reserved": "7", "windows": "7", "recovery": "27"}
NAMES = {
    "esp": "EFI system partition",
    "msr": "Microsoft reserved partition",
    "windows": "Basic data partition",
    "recovery": "Basic data partition",
}

Layout = Literal["gpt", "gpt-old", "mbr-reserved", "mbr", "mbr-recovery"]
"""``gpt``: EFI system, MSR, C:, recovery last (10 2004 and later). ``gpt-old``: recovery, EFI
system, MSR, C: last (8 to 10). ``mbr-reserved``: System Reserved, C:. ``mbr``: C: alone.
``mbr-recovery``: System Reserved, C:, recovery last."""


class _Part(NamedTuple):
    role: str
    size: int
    """MiB; 0 for what is left."""


_LAYOUTS: Mapping[Layout, tuple[_Part, ...]] = {
    "gpt": (_Part("esp", 100), _Part("msr", 16), _Part("windows", 0), _Part("recovery", 64)),
    "gpt-old": (_Part("recovery", 64), _Part("esp", 100), _Part("msr", 16), _Part("windows", 0)),
    "mbr-reserved": (_Part("reserved", 64), _Part("windows", 0)),
    "mbr": (_Part("windows", 0),),
    "mbr-recovery": (_Part("reserved", 64), _Part("windows", 0), _Part("recovery", 64)),
}


@dataclass(frozen=True)
class Version:
    """What a version of Windows says of itself."""

    nt: tuple[int, int]
    build: int
    product: str
    edition: str = ""
    architecture: str = "amd64"
    installation: str = "Client"
    layout: Layout = "mbr-reserved"
    powershell: bool = True

    @property
    def legacy(self) -> bool:
        """XP and Server 2003."""
        return self.nt < (6, 0)

    @property
    def family(self) -> str:
        """The guest family that serves it."""
        return "windows-legacy" if self.legacy else "windows"


VERSIONS: Mapping[str, Version] = {
    "xp": Version(
        (5, 1), 2600, "Microsoft Windows XP", "", "x86", "", layout="mbr", powershell=False
    ),
    "2003": Version(
        (5, 2), 3790, "Microsoft Windows Server 2003", "", "x86", "", "mbr", powershell=False
    ),
    "vista": Version(
        (6, 0), 6002, "Windows Vista (TM) Business", "Business", layout="mbr", powershell=False
    ),
    "7-x86": Version((6, 1), 7601, "Windows 7 Professional", "Professional", "x86"),
    "7": Version((6, 1), 7601, "Windows 7 Enterprise", "Enterprise"),
    "2008r2": Version(
        (6, 1), 7601, "Windows Server 2008 R2 Datacenter", "ServerDatacenter", "amd64", "Server"
    ),
    "2012": Version(
        (6, 2), 9200, "Windows Server 2012 Standard", "ServerStandard", "amd64", "Server"
    ),
    "8.1": Version((6, 3), 9600, "Windows 8.1 Pro", "Professional", layout="gpt-old"),
    "2012r2": Version(
        (6, 3),
        9600,
        "Windows Server 2012 R2 Datacenter",
        "ServerDatacenter",
        "amd64",
        "Server",
        layout="gpt-old",
    ),
    "2016": Version(
        (10, 0),
        14393,
        "Windows Server 2016 Datacenter",
        "ServerDatacenter",
        "amd64",
        "Server",
        layout="gpt-old",
    ),
    "10": Version((10, 0), 19045, "Windows 10 Pro", "Professional", layout="gpt"),
    "2019": Version(
        (10, 0),
        17763,
        "Windows Server 2019 Standard",
        "ServerStandard",
        "amd64",
        "Server Core",
        layout="gpt-old",
    ),
    "2022": Version(
        (10, 0),
        20348,
        "Windows Server 2022 Datacenter",
        "ServerDatacenter",
        "amd64",
        "Server",
        layout="gpt",
    ),
    "2025": Version(
        (10, 0),
        26100,
        "Windows Server 2025 Standard",
        "ServerStandard",
        "amd64",
        "Server",
        layout="gpt",
    ),
    # It says of itself that it is 10; the build tells.
    "11": Version((10, 0), 22631, "Windows 10 Pro", "Professional", layout="gpt"),
    "11-arm64": Version((10, 0), 26100, "Windows 10 Pro", "Professional", "arm64", layout="gpt"),
}
"""By the names that tests use."""


@dataclass(frozen=True)
class Image:
    """A template to make; the defaults are a generalised one that was shut down fully."""

    version: str
    """One of VERSIONS."""
    layout: Layout | Literal[""] = ""
    """Empty: the usual one of the version."""
    size: int = 1024
    """MiB of the disk that the partitions take up; the rest of the disk stays free."""
    administrator: str = "Administrator"
    """The localised name of the account with RID 500."""
    users: tuple[str, ...] = ()
    """Accounts beside those that every Windows has; RIDs from 1001 on."""
    files: Mapping[str, bytes | str] = field(default_factory=dict)
    """Path -> content, of files that are written last: answer files, say, in any letter case."""
    drivers: tuple[str, ...] = ("viostor", "vioscsi", "netkvm")
    """Services of paravirtual devices: those of virtio-win, and xenvbd, xennet, xenbus, xenvif,
    xendisk. Boot-critical ones start at boot, with a driver file and an entry for their devices."""
    cloudbase: bool = False
    """Whether cloudbase-init is installed, with what its installer writes."""
    generalised: bool = True
    """Whether sysprep prepared it. Legacy: whether the mini-setup is what starts next."""
    image_state: str = ""
    """Empty: that of a template, or of a machine in use, as ``generalised`` says."""
    powershell: bool | None = None
    """None: as the version has it."""
    remote_desktop: int | None = 1
    """fDenyTSConnections; None: there is no such value."""
    control_set: int = 1
    """Select\\Current: the number of the control set that is used next."""
    hives: Mapping[str, Literal["dirty", "checksum", "truncated", "missing"]] = field(
        default_factory=dict
    )
    """SYSTEM, SOFTWARE or SAM -> what is wrong with it."""
    hibernated: bool = False
    """By Fast Startup, or shut down into hibernation."""
    dirty: bool = False
    """Scheduled for chkdsk."""
    bitlocker: bool = False
    """The system volume begins as one of BitLocker's does; nothing in it is a file system."""
    extra_software: Keys = field(default_factory=dict)
    """Keys and values of the SOFTWARE hive that are added last."""
    extra_system: Keys = field(default_factory=dict)
    """Keys and values of the SYSTEM hive that are added last."""


@dataclass(frozen=True)
class Built:
    """Where things came to lie."""

    root: str
    """The device of C:, /dev/sda3 for example."""
    partitions: Mapping[str, int]
    """``reserved``, ``esp``, ``msr``, ``windows``, ``recovery`` -> number, of those there are."""


def build(handle: Any, device: str, image: Image) -> Built:
    """Make an image on a blank disk of an appliance. Nothing is mounted before or afterwards.

    ``handle`` is the guestfs handle (``laboratory.handle``), whose disk is at least ``image.size``
    MiB; whoever reads it with a Guest calls ``reread`` first.
    """
    version = VERSIONS[image.version]
    layout = image.layout or version.layout
    _partition(handle, device, layout, image.size)
    numbers = {part.role: number for number, part in enumerate(_LAYOUTS[layout], 1)}
    for role, number in numbers.items():
        if role == "windows":
            tree = trees.windows(version, image)
            if len(numbers) == 1:
                tree |= trees.beside("ntldr" if version.legacy else "reserved")
            _format(handle, f"{device}{number}", "ntfs", tree)
        elif role != "msr":
            kind = "vfat" if role == "esp" else "ntfs"
            _format(handle, f"{device}{number}", kind, trees.beside(role))
    root = f"{device}{numbers['windows']}"
    _finish(handle, root, version, image)
    return Built(root, numbers)


def contents(version: Version, image: Image) -> dict[str, Keys]:
    """What the hives of an image hold, by their names."""
    return {
        "SYSTEM": {**hives.system(version, image), **image.extra_system},
        "SOFTWARE": {**hives.software(version, image), **image.extra_software},
        "SAM": hives.sam(version, image),
        "SECURITY": {"Policy": {}},
        "DEFAULT": {"Environment": {}},
    }


def _partition(handle: Any, device: str, layout: Layout, size: int) -> None:
    """Write the partition table that sfdisk makes: the appliance's tools take half a second."""
    gpt = layout.startswith("gpt")
    lines = [f"label: {'gpt' if gpt else 'dos'}", "label-id: 0x5e5e5e5e" if not gpt else ""]
    parts = _LAYOUTS[layout]
    free = size - 2 - sum(part.size for part in parts)
    start = 1
    for part in parts:
        length = part.size or free
        types = GPT_TYPES if gpt else MBR_TYPES
        line = f"start={start}MiB, size={length}MiB, type={types[part.role]}"
        line += f', name="{NAMES[part.role]}"' if gpt else ""
        line += ", attrs=RequiredPartition" if gpt and part.role == "recovery" else ""
        line += ", bootable" if not gpt and part is parts[0] else ""
        lines.append(line)
        start += length
    with tempfile.NamedTemporaryFile() as disk:
        disk.truncate(size << 20)
        argv = ["/usr/sbin/sfdisk", "--quiet", disk.name]
        subprocess.run(argv, check=True, input="\n".join(lines), text=True)
        for offset, length in ((0, 1 << 20), ((size << 20) - (1 << 20), 1 << 20)):
            handle.pwrite_device(device, os.pread(disk.fileno(), length, offset), offset)
    handle.blockdev_rereadpt(device)


def _format(handle: Any, device: str, kind: str, tree: trees.Tree) -> None:
    handle.mkfs(kind, device)
    handle.mount(device, "/")
    _unpack(handle, tree)
    handle.umount_all()


def _unpack(handle: Any, tree: trees.Tree) -> None:
    """Files and directories in one archive: one by one they would take seconds."""
    with tempfile.NamedTemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for path in sorted(_with_parents(tree)):
                content = tree.get(path)
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
                entry.size, entry.mode = len(content or b""), 0o777
                tar.addfile(entry, io.BytesIO(content or b""))
        file.flush()
        handle.tar_in(file.name, "/")


def _with_parents(tree: trees.Tree) -> set[str]:
    paths = set(tree)
    for path in tree:
        while (path := posixpath.dirname(path)) != "/":
            paths.add(path)
    return paths


def _finish(handle: Any, root: str, version: Version, image: Image) -> None:
    """What is made in the mounted system volume, and to the volume itself."""
    config = "/WINDOWS/system32/config" if version.legacy else "/Windows/System32/config"
    handle.mount(root, "/")
    for name, content in _hives(handle, version, image).items():
        if image.hives.get(name) != "missing":
            handle.write(f"{config}/{_spelling(version, name)}", content)
    if not version.legacy:
        _junction(handle, "/Documents and Settings", "C:\\Users")
        _junction(handle, "/Users/Default User", "C:\\Users\\Default")
    handle.umount_all()
    # Files may be called in any letter case.
    handle.mount_vfs("rw,ignore_case", "lowntfs-3g", root, "/")
    _unpack(handle, {path: _bytes(content) for path, content in image.files.items()})
    if image.hibernated:
        handle.write("/hiberfil.sys", b"hibr" + bytes(8188))
    handle.umount_all()
    if image.dirty:
        handle.ntfsfix(root)
    if image.bitlocker:
        handle.pwrite_device(root, _bitlocker(), 0)


def _hives(handle: Any, version: Version, image: Image) -> dict[str, bytes]:
    """The hives by name, made once for all images that hold the same."""
    made = {}
    for name, keys in contents(version, image).items():
        known = repr((name, keys))
        if known not in _made:
            scratch = "/snf-hive"
            handle.write(scratch, hive.empty(name, minor=3 if version.legacy else 5))
            hive.fill(handle, scratch, keys)
            _made[known] = handle.read_file(scratch)
            handle.rm(scratch)
        how = image.hives.get(name, "")
        made[name] = hive.spoiled(_made[known], how) if how in _SPOILED else _made[known]
    return made


def _spelling(version: Version, name: str) -> str:
    """XP's Setup wrote some of the names in lower case."""
    return name.lower() if version.legacy and name in {"SYSTEM", "SOFTWARE", "DEFAULT"} else name


def _junction(handle: Any, path: str, target: str) -> None:
    """A reparse point as Windows makes it: a mount point of a directory of the same volume."""
    handle.mkdir(path)
    names = [f"\\??\\{target}".encode("utf-16-le"), target.encode("utf-16-le")]
    buffer = b"".join(name + b"\0\0" for name in names)
    data = struct.pack("<HHHH", 0, len(names[0]), len(names[0]) + 2, len(names[1])) + buffer
    data = struct.pack("<IHH", 0xA0000003, len(data), 0) + data
    # guestfs passes no extended attribute that holds a NUL.
    command = f"setfattr -n system.ntfs_reparse_data -v 0x{data.hex()} '/sysroot{path}' 2>&1"
    answer = handle.debug("sh", [command])
    assert not answer, answer


def _bitlocker() -> bytes:
    """The boot sector of a volume that BitLocker of Windows 7 or later has encrypted, and the
    header of its metadata, as libblkid looks for them."""
    sector = bytearray(512)
    sector[:11] = b"\xeb\x58\x90-FVE-FS-"
    sector[160:176] = uuid.UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le
    struct.pack_into("<QQQ", sector, 176, 65536, 131072, 196608)
    sector[510:] = b"\x55\xaa"
    metadata = b"-FVE-FS-" + struct.pack("<HH", 64, 2) + bytes(500)
    return bytes(sector) + os.urandom(65536 - 512) + metadata


def _bytes(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content
