"""What the helper domain boots: a kernel that Xen need not decompress, and a RAM disk.

Made once, by ``snf appliance build``, into ``xen`` in the appliance's directory, out of the kernel
of the appliance, its modules in /lib/modules and a busybox(1) that needs no libraries.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from snf_core.appliance import Appliance

MODULES = ("xen-blkfront", "ext4", "overlay", "sd_mod", "target_core_iblock", "tcm_loop", "dm_mod")
"""What init.sh and LVM use, as far as the kernel does not have it built in."""

_INSIDE = Path(__file__).with_name("inside")
_BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")
_REMEDY = 'run "snf appliance build"'
_MAGICS = {
    b"\x1f\x8b\x08": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
    b"\x5d\x00\x00": lzma.decompress,
}
"""How the kernel may be compressed that Python can undo. What else there is, Xen undoes itself at
each start (xc_dom_bzimageloader.c in its source)."""


class Prepared:
    """What was made of an appliance."""

    def __init__(self, appliance: Appliance) -> None:
        self.directory = appliance.directory / "xen"
        self.kernel = self.directory / "kernel"
        self.ramdisk = self.directory / "initrd"
        self.features = self.directory / "features"

    def check(self) -> None:
        """Raises ApplianceError where it is missing."""
        for file in (self.kernel, self.ramdisk):
            if not file.is_file():
                raise ApplianceError(
                    f"the appliance is not prepared for Xen: {file} is missing", remedy=_REMEDY
                )


def build(appliance: Appliance, modules: Path = Path("/lib/modules")) -> Prepared:
    """Make kernel and RAM disk. Takes a second. Raises ApplianceError."""
    prepared = Prepared(appliance)
    image = appliance.kernel.read_bytes()
    release = kernel_release(image)
    files = {
        "bin/busybox": _busybox().read_bytes(),
        "init": (_INSIDE / "init.sh").read_bytes(),
    }
    order = []
    for file in drivers(modules / release, MODULES):
        order.append(file.name.split(".")[0] + ".ko")
        files[f"modules/{order[-1]}"] = _decompressed(file)
    files["modules/order"] = "".join(f"{name}\n" for name in order).encode()
    prepared.directory.mkdir(exist_ok=True)
    prepared.directory.chmod(0o755)
    for path, content in ((prepared.kernel, vmlinux(image)), (prepared.ramdisk, archive(files))):
        path.write_bytes(content)
        path.chmod(0o644)
    return prepared


def kernel_release(image: bytes) -> str:
    """What ``uname -r`` says in it (Documentation/x86/boot.rst, kernel_version)."""
    if image[0x202:0x206] != b"HdrS":
        raise ApplianceError("the appliance's kernel is no bzImage", remedy=_REMEDY)
    start = struct.unpack_from("<H", image, 0x20E)[0] + 0x200
    return image[start : image.index(b"\0", start)].split()[0].decode()


def vmlinux(image: bytes) -> bytes:
    """The kernel as ELF where Python can undo its compression; else the bzImage that it was.

    ``payload_offset`` and ``payload_length`` in Documentation/x86/boot.rst.
    """
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[(sectors + 1) * 512 + offset :][:length]
    for magic, decompress in _MAGICS.items():
        if payload.startswith(magic):
            # Behind what is compressed comes its size, which not every decompressor likes.
            for content in (payload, payload[:-4]):
                try:
                    found = decompress(content)
                except (OSError, EOFError, ValueError, lzma.LZMAError):
                    continue
                if found.startswith(b"\x7fELF"):
                    return found
    return image


def drivers(directory: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of modules and of those that they need, each behind what it needs.

    Not of those that the kernel has built in. ``directory`` is the kernel's below /lib/modules;
    see modules.dep(5). Raises ApplianceError where there is neither.
    """
    try:
        listed = (directory / "modules.dep").read_text().splitlines()
        builtin = set(map(_name, (directory / "modules.builtin").read_text().split()))
    except OSError as error:
        raise ApplianceError(
            f"the appliance's kernel has no modules on this node: {error}",
            remedy=f"install the package of the kernel {directory.name}, then {_REMEDY}",
        ) from error
    needs = {
        _name(file): (file, words.split()) for file, _, words in (x.partition(":") for x in listed)
    }
    found: dict[Path, None] = {}
    for name in names:
        if _name(name) in needs:
            file, needed = needs[_name(name)]
            for one in (*reversed(needed), file):
                found[directory / one] = None
        elif _name(name) not in builtin:
            raise ApplianceError(
                f"kernel {directory.name} has no module {name}",
                remedy=f"install linux-image-cloud-amd64, then {_REMEDY}",
            )
    return list(found)


def _name(file: str) -> str:
    return Path(file).name.split(".")[0].replace("-", "_")


def _decompressed(file: Path) -> bytes:
    content = file.read_bytes()
    if file.suffix == ".xz":
        return lzma.decompress(content)
    if file.suffix == ".gz":
        return gzip.decompress(content)
    if file.suffix != ".ko":
        raise ApplianceError(f"{file} is compressed in an unknown way", remedy="use another kernel")
    return content


def _busybox() -> Path:
    for place in map(Path, _BUSYBOX):
        if place.exists():
            content = place.read_bytes()
            # An ELF file that needs no interpreter to be run names none (elf(5), PT_INTERP).
            if not re.search(rb"/lib(64)?/ld-[a-z0-9-]+\.so", content[:4096]):
                return place
    raise ApplianceError(
        "there is no busybox on this node that needs no libraries",
        remedy=f"install busybox-static, then {_REMEDY}",
    )


def archive(files: Mapping[str, bytes]) -> bytes:
    """A RAM disk of executable files, by their paths without a slash in front; not compressed.

    Documentation/driver-api/early-userspace/buffer-format.rst in Linux.
    """
    return b"".join(_members(files))


def _members(files: Mapping[str, bytes]) -> Iterator[bytes]:
    parents = {str(parent): None for name in files for parent in reversed(Path(name).parents)}
    members = [(name, 0o040755, b"") for name in parents if name != "."]
    members += [(name, 0o100755, content) for name, content in files.items()]
    members += [("TRAILER!!!", 0, b"")]
    for number, (name, mode, content) in enumerate(members, 1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + path
        yield header + bytes(-len(header) % 4)
        yield content + bytes(-len(content) % 4)
