"""What the helper domain boots, made of files that look like a kernel's."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
from typing import TYPE_CHECKING

import pytest

from snf_core.appliance import Appliance
from snf_core.errors import ApplianceError
from snf_xen import initrd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ELF = b"\x7fELF" + bytes(range(256)) * 64
RELEASE = "6.1.0-99-test"


def bzimage(payload: bytes) -> bytes:
    """As Documentation/x86/boot.rst describes it: one sector, four of setup, the payload."""
    image = bytearray(5 * 512 + 64)
    image[0x1F1] = 4
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x300)
    text = f"{RELEASE} (somebody@somewhere) #1\0".encode()
    image[0x500 : 0x500 + len(text)] = text
    struct.pack_into("<II", image, 0x248, 64, len(payload))
    return bytes(image) + payload + b"more"


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_kernel_that_python_can_decompress_is(compress: Callable[[bytes], bytes]) -> None:
    """With its size behind it, as Linux's build appends it."""
    assert initrd.vmlinux(bzimage(compress(ELF) + struct.pack("<I", len(ELF)))) == ELF


def test_lzma_alone() -> None:
    """The older format of xz(1)."""
    assert initrd.vmlinux(bzimage(lzma.compress(ELF, lzma.FORMAT_ALONE))) == ELF


@pytest.mark.parametrize("payload", [b"\x02\x21\x4c\x18 lz4", b"\x1f\x8b\x08 broken", b""])
def test_another_kernel_stays_as_it_is(payload: bytes) -> None:
    """Xen decompresses it then, or says why not."""
    image = bzimage(payload)
    assert initrd.vmlinux(image) == image


def test_the_release() -> None:
    """Without what is said about its build."""
    assert initrd.kernel_release(bzimage(b"")) == RELEASE
    with pytest.raises(ApplianceError, match="no bzImage"):
        initrd.kernel_release(bytes(4096))


def modules(root: Path, missing: str = "") -> Path:
    """A directory of modules in which one needs two others, and one is built in."""
    place = root / RELEASE
    (place / "kernel").mkdir(parents=True)
    lines = []
    for name in (
        "xen-blkfront",
        "overlay",
        "sd_mod",
        "target_core_iblock",
        "tcm_loop",
        "dm-mod",
        "scsi_mod",
    ):
        if name != missing:
            (place / f"kernel/{name}.ko.xz").write_bytes(lzma.compress(name.encode()))
            needs = " kernel/scsi_mod.ko.xz" if name in {"sd_mod", "tcm_loop"} else ""
            lines.append(f"kernel/{name}.ko.xz:{needs}\n")
    (place / "modules.dep").write_text("".join(lines))
    (place / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    return root


def test_modules_come_behind_those_they_need(tmp_path: Path) -> None:
    """Each once; not those that the kernel has built in."""
    found = [file.name.split(".")[0] for file in initrd.drivers(
        modules(tmp_path) / RELEASE, initrd.MODULES)]  # fmt: skip
    assert found == [
        "xen-blkfront", "overlay", "scsi_mod", "sd_mod", "target_core_iblock", "tcm_loop", "dm-mod",
    ]  # fmt: skip


def test_a_module_that_is_missing_is_named(tmp_path: Path) -> None:
    """As is a kernel without any."""
    with pytest.raises(ApplianceError, match="has no module tcm_loop"):
        initrd.drivers(modules(tmp_path, "tcm_loop") / RELEASE, initrd.MODULES)
    with pytest.raises(ApplianceError, match="no modules on this node"):
        initrd.drivers(tmp_path / "none", initrd.MODULES)


def test_the_archive_unpacks() -> None:
    """As the kernel reads it: directories before what is in them, all of it executable."""
    files = {"init": b"#!/bin/sh\n", "bin/busybox": b"\x7fELF" * 5, "a/b/c": b""}
    found = list(members(initrd.archive(files)))
    assert [(name, mode & 0o170000 == 0o040000) for name, mode, _ in found] == [
        ("bin", True), ("a", True), ("a/b", True),
        ("init", False), ("bin/busybox", False), ("a/b/c", False),
    ]  # fmt: skip
    assert {mode & 0o777 for _, mode, _ in found} == {0o755}
    assert {name: content for name, _, content in found if content} == {
        name: content for name, content in files.items() if content
    }


def members(archive: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Name, mode and content of what is in an archive in the newc format of cpio(5)."""
    place = 0
    while True:
        assert archive[place : place + 6] == b"070701"
        fields = [int(archive[place + 6 + 8 * n : place + 14 + 8 * n], 16) for n in range(13)]
        name = archive[place + 110 :][: fields[11] - 1].decode()
        begin = (place + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            return
        yield name, fields[1], archive[begin : begin + fields[6]]
        place = (begin + fields[6] + 3) & ~3


def test_what_is_built_is_for_everybody_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deployments do not, but those who look after the node do."""
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF static")
    monkeypatch.setattr(initrd, "_BUSYBOX", (str(tmp_path / "none"), str(busybox)))
    appliance = Appliance(tmp_path / "appliance", tmp_path, 512)
    appliance.directory.mkdir()
    appliance.kernel.write_bytes(bzimage(gzip.compress(ELF)))
    with pytest.raises(ApplianceError, match="not prepared for Xen"):
        initrd.Prepared(appliance).check()
    prepared = initrd.build(appliance, modules(tmp_path / "modules"))
    prepared.check()
    assert prepared.kernel.read_bytes() == ELF
    content = prepared.ramdisk.read_bytes()
    assert b"modules/scsi_mod.ko" in content
    assert b"xen-blkfront.ko\noverlay.ko\nscsi_mod.ko\n" in content
    assert prepared.ramdisk.stat().st_mode & 0o777 == 0o644
    shutil.rmtree(appliance.directory)


def test_a_busybox_that_needs_libraries_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are none in the RAM disk."""
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF /lib64/ld-linux-x86-64.so.2\0")
    monkeypatch.setattr(initrd, "_BUSYBOX", (str(busybox),))
    with pytest.raises(ApplianceError) as caught:
        initrd._busybox()
    assert "busybox-static" in caught.value.remedy
