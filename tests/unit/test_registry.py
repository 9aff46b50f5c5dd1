"""Values of the registry, and the base block of a hive: whatever bytes they are made of."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.image import registry
from snf_core.image.registry import Value, damage
from tests.images import hive

HIVE = hive.empty("SYSTEM")


def judged(content: bytes) -> str:
    return damage(content[:4100], len(content))


def patched(offset: int, form: str, *values: object) -> bytes:
    """The empty hive with something else at a place of its base block, and the right checksum."""
    content = bytearray(HIVE)
    struct.pack_into(form, content, offset, *values)
    return hive.sealed(bytes(content))


def test_a_hive_that_is_well() -> None:
    assert judged(HIVE) == ""
    assert judged(HIVE + b"what Windows leaves behind the last bin") == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no base block"),
        (HIVE[:4099], "has no base block"),
        (b"x" * 8192, "has no base block"),
        (hive.spoiled(HIVE, "dirty"), "is dirty: Windows was not shut down fully"),
        (hive.spoiled(HIVE, "checksum"), "the checksum of its base block is wrong"),
        (patched(20, "<I", 2), "is of a kind (2.5, 0, 1) that is not known"),
        (patched(24, "<I", 2), "is of a kind (1.2, 0, 1) that is not known"),
        (patched(28, "<I", 1), "is of a kind (1.5, 1, 1) that is not known"),
        (patched(40, "<I", 0), "contradicts itself"),
        (patched(40, "<I", 100), "contradicts itself"),
        (patched(36, "<I", 4096), "contradicts itself"),
        (patched(40, "<I", 8192), "is truncated: it has 8192 bytes of 12288"),
        (patched(40, "<I", 0xFFFFF000), "is truncated"),
        (HIVE[:4096] + bytes(4096), "no bin follows"),
    ],
)
def test_hives_that_are_not(content: bytes, message: str) -> None:
    assert message in judged(content)


@pytest.mark.parametrize(("total", "stored"), [(0, 1), (0xFFFFFFFF, 0xFFFFFFFE)])
def test_checksums_that_are_never_stored(total: int, stored: int) -> None:
    content = bytearray(HIVE)
    [checksum] = struct.unpack_from("<I", content, 508)
    [reserved] = struct.unpack_from("<I", content, 200)
    struct.pack_into("<I", content, 200, reserved ^ checksum ^ total)
    struct.pack_into("<I", content, 508, total)
    assert "checksum" in judged(bytes(content))
    struct.pack_into("<I", content, 508, stored)
    assert judged(bytes(content)) == ""


@given(st.binary(max_size=4200), st.integers(0, 4200))
def test_anything_is_judged(junk: bytes, at: int) -> None:
    assert isinstance(judged(HIVE[:at] + junk + HIVE[at + len(junk) :]), str)


@given(st.integers(0, 12), st.binary(max_size=64))
def test_any_value_is_read(kind: int, data: bytes) -> None:
    value = Value(kind, data)
    assert value.text == (value.texts[0] if value.texts else "")
    assert all(text and "\0" not in text for text in value.texts)
    assert value.number is None or value.type in {4, 5, 11}
    for text in (value.text, *value.texts):
        assert text.encode("utf-8").decode() == text, "a lone surrogate is left"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_strings_survive(text: str) -> None:
    assert Value.string(text).text == text
    assert Value.expandable(text).text == text
    assert Value.expandable(text).type == registry.EXPAND_SZ


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
)
def test_lists_survive(texts: list[str]) -> None:
    assert Value.strings(texts).texts == tuple(texts)


def test_numbers() -> None:
    assert Value.dword(0xFFFFFFFF) == Value(registry.DWORD, b"\xff" * 4)
    assert Value.dword(1).number == 1
    assert Value(registry.DWORD_BIG_ENDIAN, b"\0\0\0\1").number == 1
    assert Value(registry.QWORD, b"\1" + bytes(7)).number == 1
    assert Value(registry.DWORD, b"\1").number is None
    assert Value.string("1").number is None
    with pytest.raises(struct.error):
        Value.dword(-1)
