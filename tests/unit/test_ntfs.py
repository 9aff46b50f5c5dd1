"""NTFS on volumes in memory: what is read, what is changed, and what is refused."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import GuestError
from snf_core.image import ntfs

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1 << 20
ANYTHING = bytes(range(256)) * 16


def boot_sector(
    sectors: int = 4 * MIB // 512 - 1,
    *,
    sector: int = 512,
    per_cluster: int = 8,
    mft: int = 4,
    mirror: int = 500,
    per_record: int = -10,
    hidden: int = 2048,
) -> bytes:
    """A boot sector with the given fields, and something in all others."""
    boot = bytearray(ANYTHING[:512])
    boot[3:11] = b"NTFS    "
    struct.pack_into("<HB", boot, 0x0B, sector, per_cluster)
    struct.pack_into("<L", boot, 0x1C, hidden)
    struct.pack_into("<QQQb", boot, 0x28, sectors, mft, mirror, per_record)
    boot[510:] = b"\x55\xaa"
    return bytes(boot)


def attribute(kind: int, value: bytes) -> bytes:
    """A resident one."""
    length = (24 + len(value) + 7) // 8 * 8
    header = struct.pack("<LLBBHHHLHH", kind, length, 0, 0, 24, 0, 0, len(value), 24, 0)
    return (header + value).ljust(length, b"\0")


def record(
    flags: int = 1,
    *,
    before: int = 0,
    size: int = 1024,
    number: int = 7,
    fields: Mapping[int, bytes] | None = None,
) -> bytes:
    """$Volume's record. ``before``: bytes of the attribute in front of $VOLUME_INFORMATION;
    ``fields`` are put into the finished record."""
    attributes = attribute(0x60, b"n" * before)
    attributes += attribute(0x70, struct.pack("<8xBBH", 3, 1, flags)) + b"\xff" * 4
    content = bytearray(size)
    content[:4] = b"FILE"
    words = size // 512 + 1
    start = (0x30 + 2 * words + 7) // 8 * 8
    struct.pack_into("<HH", content, 4, 0x30, words)
    struct.pack_into("<HHLL", content, 0x14, start, 1, start + len(attributes), size)
    content[start : start + len(attributes)] = attributes
    for index in range(1, words):
        end = index * 512
        content[0x30 + 2 * index : 0x32 + 2 * index] = content[end - 2 : end]
        content[end - 2 : end] = struct.pack("<H", number)
    struct.pack_into("<H", content, 0x30, number)
    for offset, piece in (fields or {}).items():
        content[offset : offset + len(piece)] = piece
    return bytes(content)


GEOMETRY = ntfs.geometry(boot_sector())


def test_a_boot_sector() -> None:
    found = ntfs.Geometry(4 * MIB - 512, 4096, 1024, 19456, 2051072, 2048)
    assert ntfs.geometry(boot_sector()) == found


@pytest.mark.parametrize(
    ("fields", "cluster", "record_size"),
    [
        ({"per_cluster": 1, "mft": 32, "mirror": 4000}, 512, 1024),
        ({"per_cluster": 128, "mirror": 20}, 65536, 1024),
        ({"per_cluster": 0xF7, "mft": 1, "mirror": 8}, 262144, 1024),
        ({"sector": 4096, "per_cluster": 1, "sectors": 1023, "per_record": 1}, 4096, 4096),
        ({"per_record": -12}, 4096, 4096),
    ],
)
def test_other_sizes(fields: Mapping[str, int], cluster: int, record_size: int) -> None:
    found = ntfs.geometry(boot_sector(**fields))
    assert (found.cluster_size, found.record_size) == (cluster, record_size)


@pytest.mark.parametrize(
    ("boot", "why"),
    [
        (b"", "no boot sector"),
        (boot_sector()[:511], "no boot sector"),
        (bytes(512), "no boot sector"),
        (boot_sector().replace(b"NTFS    ", b"-FVE-FS-"), "no boot sector"),
        (boot_sector()[:510] + b"\0\0", "no boot sector"),
        (boot_sector(sector=0), "sectors of 0 bytes"),
        (boot_sector(sector=513), "sectors of 513 bytes"),
        (boot_sector(per_cluster=0), "clusters of 0 bytes"),
        (boot_sector(per_cluster=3), "clusters of 1536 bytes"),
        (boot_sector(per_cluster=0x81), "clusters of 2199023255552 bytes"),
        (boot_sector(per_cluster=0xF3), "clusters of 4194304 bytes"),
        (boot_sector(per_record=0), "records of 1 bytes"),
        (boot_sector(per_record=-9), "records of 512 bytes"),
        (boot_sector(per_record=-128), "records of 4294967296 bytes"),
        (boot_sector(per_record=127), "records of 520192 bytes"),
        (boot_sector(sectors=0), "at byte 19456 of 0"),
        (boot_sector(mft=1023), "at byte 4193280 of 4193792"),
        (boot_sector(mft=2**64 - 1), "records at byte 755578637259143234"),
        (boot_sector(mirror=2**63), "records at byte"),
        (boot_sector(mirror=4), "lies on them"),
    ],
)
def test_damaged_boot_sectors(boot: bytes, why: str) -> None:
    with pytest.raises(GuestError, match=why) as caught:
        ntfs.geometry(boot)
    assert "chkdsk" in caught.value.remedy


@pytest.mark.parametrize(
    ("flags", "dirty"), [(0, False), (1, True), (0x8001, True), (0x4002, False)]
)
def test_what_a_volume_says(flags: int, dirty: bool) -> None:
    found = ntfs.volume(GEOMETRY, record(flags))
    assert found == ntfs.Volume(4 * MIB - 512, 4096, (3, 1), dirty, 2048)


@pytest.mark.parametrize(
    ("size", "fills"),
    [(4 * MIB, True), (4 * MIB + 4095, True), (4 * MIB + 4096, False), (4 * MIB - 512, False)],
)
def test_whether_it_fills_its_partition(size: int, fills: bool) -> None:
    assert ntfs.volume(GEOMETRY, record()).fills(size) is fills


@pytest.mark.parametrize("before", range(0, 904, 56))
@pytest.mark.parametrize("number", [0, 1, 7, 0xFFFD, 0xFFFE, 0xFFFF])
def test_a_check_is_called_off_and_nothing_else_is_changed(before: int, number: int) -> None:
    """And asked for. Wherever the flags lie, on whichever side of the words that are swapped."""
    old = record(0x8003, before=before, number=number)
    new = ntfs.marked(GEOMETRY, old, dirty=False)
    assert ntfs.volume(GEOMETRY, old).dirty
    assert not ntfs.volume(GEOMETRY, new).dirty
    assert _meant(new) == _meant(record(0x8002, before=before, number=number))
    following = struct.unpack_from("<H", new, 0x30)[0]
    assert following not in {0, 0xFFFF, number}
    assert new[510:512] == new[1022:1024] == new[0x30:0x32]
    again = ntfs.marked(GEOMETRY, new, dirty=True)
    assert ntfs.volume(GEOMETRY, again).dirty
    assert _meant(again) == _meant(old)


def _meant(content: bytes) -> bytes:
    """By the definition: sectors with their own last words, and no update sequence."""
    sectors = [content[:510] + content[0x32:0x34], content[512:1022] + content[0x34:0x36]]
    whole = b"".join(sectors)
    return whole[:0x30] + whole[0x36:]


START = 0x38
"""Where the attributes of ``record`` begin; the second one is 24 bytes behind."""
DAMAGE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no record"),
    "short": (record()[:-1], "no record"),
    "BAAD": (record(fields={0: b"BAAD"}), "no record"),
    "a torn write": (record(fields={1022: b"\0\0"}), "in part only"),
    "no update sequence": (record(fields={6: b"\0\0"}), "no update sequence"),
    "one for 4096 bytes": (record(fields={6: b"\x09\0"}), "no update sequence"),
    "one on the header": (record(fields={4: b"\x02\0"}), "no update sequence"),
    "one at an odd place": (record(fields={4: b"\x31\0"}), "no update sequence"),
    "one in what it protects": (record(fields={4: b"\xfa\x01"}), "no update sequence"),
    "one outside": (record(fields={4: b"\xff\xff"}), "no update sequence"),
    "not in use": (record(fields={0x16: b"\0\0"}), "not in use"),
    "attributes outside": (record(fields={0x14: b"\xff\xff"}), "not in use"),
    "attributes in the header": (record(fields={0x14: b"\0\0"}), "not in use"),
    "more used than there is": (record(fields={0x18: b"\xff" * 4}), "not in use"),
    "nothing used": (record(fields={0x18: b"\0" * 4}), "not in use"),
    "no attributes": (record(fields={START: b"\xff" * 4}), "says nothing"),
    "an attribute of no length": (record(fields={START + 4: bytes(4)}), "says nothing"),
    "of an odd length": (record(fields={START + 4: b"\x19\0"}), "says nothing"),
    "of too great a length": (record(fields={START + 4: b"\xf8\xff\xff\xff"}), "says nothing"),
    "another attribute": (record(fields={START + 24: b"\x80"}), "says nothing"),
    "elsewhere": (record(fields={START + 32: b"\x01"}), "says nothing"),
    "a short value": (record(fields={START + 40: b"\x0b"}), "says nothing"),
    "an endless value": (record(fields={START + 40: b"\xff" * 4}), "says nothing"),
    "a value in the header": (record(fields={START + 44: b"\x08\0"}), "says nothing"),
    "a value outside": (record(fields={START + 44: b"\xff\xff"}), "says nothing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_records(name: str) -> None:
    content, why = DAMAGE[name]
    with pytest.raises(GuestError, match=why):
        ntfs.volume(GEOMETRY, content)
    with pytest.raises(GuestError, match=why):
        ntfs.marked(GEOMETRY, content, dirty=False)


@given(
    st.lists(st.tuples(st.integers(0, 511), st.binary(min_size=1, max_size=8)), max_size=4),
    st.lists(st.tuples(st.integers(0, 1023), st.binary(min_size=1, max_size=8)), max_size=6),
)
def test_hostile_bytes(boot: list[tuple[int, bytes]], content: list[tuple[int, bytes]]) -> None:
    """Refused, or read; never anything else."""
    sector, entry = bytearray(boot_sector()), bytearray(record())
    for offset, piece in boot:
        sector[offset : offset + len(piece)] = piece
    for offset, piece in content:
        entry[offset : offset + len(piece)] = piece
    try:
        found = ntfs.geometry(bytes(sector))
        assert 0 < found.record < found.size
        assert 0 < found.mirror < found.size
        assert found.record_size <= 4096
        changed = ntfs.marked(found, bytes(entry[:1024]), dirty=False)
        assert len(changed) == found.record_size
        assert not ntfs.volume(found, changed).dirty
    except GuestError:
        pass


@pytest.mark.parametrize(("sector", "said"), [(5, 5), (2**32 - 1, 2**32 - 1), (2**32, 0)])
def test_another_place_on_the_disk(sector: int, said: int) -> None:
    boot = boot_sector()
    moved = ntfs.relocated(boot, sector)
    assert ntfs.geometry(moved).hidden_sectors == said
    assert moved[:0x1C] + moved[0x20:] == boot[:0x1C] + boot[0x20:]
