"""The superblock of ext2, ext3 and ext4 (Linux: Documentation/filesystems/ext4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

OFFSET = 1024
LENGTH = 1024
"""Where in a file system the superblock lies, and its bytes."""

_MAGIC = 0xEF53
_VALID, _ERRORS = 1, 2

# Features, by the names of tune2fs(8), and in which of three sets they are.
_HAS_JOURNAL, _RESIZE_INODE = 0x4, 0x10  # compatible
_JOURNAL_DEVICE, _NEEDS_RECOVERY, _64BIT = 0x8, 0x4, 0x80  # incompatible

_EXT3_INCOMPATIBLE = 0x2 | _NEEDS_RECOVERY | 0x10
"""filetype, needs_recovery, meta_bg: whoever has others is ext4. So for blkid(8), too."""
_EXT3_READ_ONLY = 0x1 | 0x2 | 0x4
"""sparse_super, large_file, btree_dir."""

_PLAIN_COMPATIBLE = 0x1 | _HAS_JOURNAL | 0x8 | _RESIZE_INODE | 0x20 | 0x1000
"""dir_prealloc, has_journal, ext_attr, resize_inode, dir_index, orphan_file."""
_PLAIN_INCOMPATIBLE = 0x2 | 0x40 | _64BIT | 0x200 | 0x2000 | 0x4000
"""filetype, extent, 64bit, flex_bg, metadata_csum_seed, large_dir."""
_PLAIN_READ_ONLY = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x400
"""sparse_super, large_file, btree_dir, huge_file, uninit_bg, dir_nlink, extra_isize,
metadata_csum."""

_PAGE = 4096
"""Bytes of the largest block that Linux mounts on x86."""


@dataclass(frozen=True)
class Superblock:
    """What a superblock says."""

    kind: str
    """``ext2``, ``ext3`` or ``ext4``, as blkid(8) tells them apart."""
    state: str
    """As tune2fs(8) says it: ``clean`` is what can be worked on."""
    needs_recovery: bool
    """Whether the journal must be replayed."""
    block_size: int
    blocks: int
    group_blocks: int
    """Blocks of a block group."""
    grows_to: int
    """Bytes up to which Linux grows it while it is mounted; 0 for not at all."""

    @property
    def size(self) -> int:
        """Bytes of the file system."""
        return self.blocks * self.block_size

    def fills(self, size: int) -> bool:
        """Whether it fills a partition of ``size`` bytes, but for an incomplete block group."""
        return 0 <= size - self.size < self.group_blocks * self.block_size


def parse(content: bytes) -> Superblock | None:
    """Read the LENGTH bytes at OFFSET of a file system. None where they are no superblock."""
    if len(content) < LENGTH or _u16(content, 0x38) != _MAGIC:
        return None
    exponent, group_blocks = _u32(content, 0x18), _u32(content, 0x20)
    compatible, incompatible, read_only = struct.unpack_from("<3L", content, 0x5C)
    wide = bool(incompatible & _64BIT)
    descriptor = _u16(content, 0xFE) if wide else 32
    if exponent > 6 or not group_blocks or descriptor < 32 or incompatible & _JOURNAL_DEVICE:
        return None
    block_size = 1024 << exponent
    blocks = _u32(content, 0x4) | (_u32(content, 0x150) << 32 if wide else 0)
    plain = not (
        compatible & ~_PLAIN_COMPATIBLE
        or incompatible & ~_PLAIN_INCOMPATIBLE
        or read_only & ~_PLAIN_READ_ONLY
    )
    grows = plain and compatible & _RESIZE_INODE and block_size <= _PAGE
    # Beyond the blocks reserved for group descriptors, Linux would add a feature (meta_bg) that
    # the guest's boot loader may not know.
    per_block = block_size // descriptor
    groups = -(-(blocks - _u32(content, 0x14)) // group_blocks)
    descriptor_blocks = -(-groups // per_block) + _u16(content, 0xCE)
    grows_to = descriptor_blocks * per_block * group_blocks * block_size
    return Superblock(
        _kind(compatible, incompatible, read_only),
        _state(_u16(content, 0x3A)),
        bool(incompatible & _NEEDS_RECOVERY),
        block_size,
        blocks,
        group_blocks,
        grows_to if grows else 0,
    )


def _kind(compatible: int, incompatible: int, read_only: int) -> str:
    if incompatible & ~_EXT3_INCOMPATIBLE or read_only & ~_EXT3_READ_ONLY:
        return "ext4"
    return "ext3" if compatible & _HAS_JOURNAL else "ext2"


def _state(flags: int) -> str:
    state = "clean" if flags & _VALID else "not clean"
    return f"{state} with errors" if flags & _ERRORS else state


def _u16(content: bytes, offset: int) -> int:
    return int(struct.unpack_from("<H", content, offset)[0])


def _u32(content: bytes, offset: int) -> int:
    return int(struct.unpack_from("<L", content, offset)[0])
