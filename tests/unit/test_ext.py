"""The superblock of ext2, ext3 and ext4: what counts, and what Linux may grow while mounted."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.image import ext

MIB = 1 << 20
EXT2 = (0x38, 0x2, 0x3)
EXT3 = (0x3C, 0x2, 0x3)
EXT4 = (0x3C, 0x2C2, 0x46B)
"""Features as mke2fs sets them: compatible, incompatible, read-only compatible."""


def superblock(
    features: tuple[int, int, int] = EXT4,
    *,
    state: int = 1,
    blocks: int = 25600,
    exponent: int = 2,
    group: int = 32768,
    reserved: int = 0,
) -> bytes:
    content = bytearray(ext.LENGTH)
    for offset, form, value in (
        (0x4, "<L", blocks & 0xFFFFFFFF),
        (0x18, "<L", exponent),
        (0x20, "<L", group),
        (0x38, "<H", 0xEF53),
        (0x3A, "<H", state),
        (0x5C, "<L", features[0]),
        (0x60, "<L", features[1]),
        (0x64, "<L", features[2]),
        (0xCE, "<H", reserved),
        (0xFE, "<H", 64 if features[1] & 0x80 else 0),
        (0x150, "<L", blocks >> 32),
    ):
        struct.pack_into(form, content, offset, value)
    return bytes(content)


def parsed(content: bytes) -> ext.Superblock:
    found = ext.parse(content)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("features", "kind"),
    [
        ((0, 0, 0), "ext2"),
        (EXT2, "ext2"),
        (EXT3, "ext3"),
        (EXT4, "ext4"),
        ((0x38, 0x42, 0x3), "ext4"),  # extents without a journal
        ((0x3C, 0x6, 0x3), "ext3"),  # a journal to be replayed
    ],
)
def test_kinds(features: tuple[int, int, int], kind: str) -> None:
    assert parsed(superblock(features)).kind == kind


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        (0, "not clean"),
        (1, "clean"),
        (2, "not clean with errors"),
        (3, "clean with errors"),
        (5, "clean"),
    ],
)
def test_states(flags: int, state: str) -> None:
    assert parsed(superblock(state=flags)).state == state


def test_sizes() -> None:
    found = parsed(superblock(blocks=25600))
    assert (found.size, found.block_size, found.group_blocks) == (100 * MIB, 4096, 32768)
    assert parsed(superblock(blocks=1 << 33)).size == 1 << 45
    assert parsed(superblock(EXT3, blocks=1 << 33 | 7)).blocks == 7, "without 64bit, 32 bits count"
    assert found.fills(100 * MIB)
    assert found.fills(228 * MIB - 1)
    assert not found.fills(228 * MIB)
    assert not found.fills(100 * MIB - 1)


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        (superblock(EXT4), 8192),  # 64 descriptors in a block
        (superblock(EXT3), 16384),
        (superblock(EXT4, reserved=1023), 8192 << 10),
        (superblock(EXT4, exponent=0, group=8192, reserved=3), 4 * 16 * 8),
    ],
)
def test_linux_grows_it_as_far_as_room_for_descriptors_is_reserved(
    content: bytes, limit: int
) -> None:
    assert parsed(content).grows_to == limit * MIB


@pytest.mark.parametrize(
    "features",
    [
        (EXT4[0] & ~0x10, EXT4[1], EXT4[2]),  # resize_inode
        (EXT4[0], EXT4[1] | 0x10, EXT4[2]),  # meta_bg
        (EXT4[0], EXT4[1] | 0x4, EXT4[2]),  # needs_recovery
        (EXT4[0], EXT4[1] | 0x100, EXT4[2]),  # mmp: mounting waits
        (EXT4[0] | 0x200, EXT4[1], EXT4[2]),  # sparse_super2
        (EXT4[0], EXT4[1], EXT4[2] | 0x200),  # bigalloc
        (EXT4[0], EXT4[1], EXT4[2] | 0x10000),  # orphan_present
        (EXT4[0], EXT4[1] | 1 << 31, EXT4[2]),  # the future
    ],
)
def test_what_linux_is_not_asked_to_grow(features: tuple[int, int, int]) -> None:
    assert parsed(superblock(features)).grows_to == 0
    assert parsed(superblock(features)).needs_recovery == bool(features[1] & 0x4)


def test_blocks_larger_than_pages() -> None:
    assert parsed(superblock(exponent=4)).grows_to == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(ext.LENGTH),
        superblock()[:-1],
        superblock(group=0),
        superblock(exponent=7),
        superblock(exponent=2**32 - 1),
        superblock((0, 0x8, 0)),  # the journal of another file system
        superblock()[:0xFE] + b"\x1f\0" + superblock()[0x100:],
    ],
)
def test_what_is_no_superblock(content: bytes) -> None:
    assert ext.parse(content) is None


@given(st.binary(min_size=ext.LENGTH, max_size=ext.LENGTH))
def test_hostile_bytes(content: bytes) -> None:
    found = ext.parse(content[:0x38] + b"\x53\xef" + content[0x3A:])
    assert found is None or found.grows_to >= 0
