"""Registry hives for tests: an empty one of our own making, filled by hivex in an appliance."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from snf_core.image.registry import Value

Keys = Mapping[str, Mapping[str, Value]]
"""Path of a key from the hive's root -> its values by name; the default value's name is empty.
Keys on the way are made."""

_BIN = 4096
_ROOT_CELL = 88
_CREATED = 0x01DA0000_00000000
"""A FILETIME, in 2023."""


def empty(name: str, minor: int = 5) -> bytes:
    """A hive with a root key, one security descriptor and nothing else.

    ``minor``: of the format's version: 3 in XP and for SOFTWARE, 5 from Windows 7 on.
    """
    root = _cell(_key_node(security=32 + _ROOT_CELL))
    security = _cell(_security_descriptor(self_offset=32 + len(root)))
    used = root + security
    assert len(root) == _ROOT_CELL
    free = struct.pack("<i", _BIN - 32 - len(used))
    bin_header = struct.pack("<4sIIQQI", b"hbin", 0, _BIN, 0, _CREATED, 0)
    content = (bin_header + used + free).ljust(_BIN, b"\0")
    base = bytearray(_BIN)
    struct.pack_into("<4sIIQIIIIIII", base, 0, b"regf", 1, 1, _CREATED, 1, minor, 0, 1, 32, _BIN, 1)
    base[48:112] = name[-31:].encode("utf-16-le").ljust(64, b"\0")
    return sealed(bytes(base) + content)


def sealed(hive: bytes) -> bytes:
    """A hive with the right checksum in its base block."""
    checksum = 0
    for word in struct.unpack_from("<127I", hive):
        checksum ^= word
    checksum = {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(checksum, checksum)
    return hive[:508] + struct.pack("<I", checksum) + hive[512:]


def spoiled(hive: bytes, how: str) -> bytes:
    """``dirty``: not closed properly. ``checksum``: wrong. ``truncated``: half of it."""
    if how == "dirty":
        [sequence] = struct.unpack_from("<I", hive, 4)
        return sealed(hive[:4] + struct.pack("<I", sequence + 1) + hive[8:])
    if how == "checksum":
        return hive[:508] + bytes(byte ^ 0xFF for byte in hive[508:512]) + hive[512:]
    assert how == "truncated"
    return hive[: len(hive) // 2]


def fill(handle: Any, path: str, keys: Keys) -> None:
    """Add keys and values to a hive in a mounted file system; existing keys get more values."""
    handle.hivex_open(path, write=True)
    try:
        nodes = {"": handle.hivex_root()}
        for key, values in keys.items():
            node = _made(handle, nodes, key)
            for name, value in values.items():
                handle.hivex_node_set_value(node, name, value.type, value.data)
        handle.hivex_commit(None)
    finally:
        handle.hivex_close()


def dump(content: bytes) -> dict[str, Any]:
    """All that a hive holds as an independent reader (regipy) sees it: path of a key -> None, path
    of a key, a colon and a value's name -> its type and data.
    """
    from regipy.registry import RegistryHive

    with tempfile.NamedTemporaryFile(suffix=".hive") as file:
        file.write(content)
        file.flush()
        reader = RegistryHive(file.name)  # type: ignore[no-untyped-call]
        return dict(_entries(reader.root, ""))


def _entries(key: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, None
    for value in key.iter_values(trim_values=False):
        yield f"{path}:{value.name}", (value.value_type, value.value)
    for subkey in key.iter_subkeys():
        yield from _entries(subkey, f"{path}\\{subkey.name}")


def _made(handle: Any, nodes: dict[str, int], key: str) -> int:
    if key.lower() not in nodes:
        parent, _, name = key.rpartition("\\")
        node = _made(handle, nodes, parent)
        nodes[key.lower()] = handle.hivex_node_get_child(node, name) or handle.hivex_node_add_child(
            node, name
        )
    return nodes[key.lower()]


def _cell(content: bytes) -> bytes:
    size = (len(content) + 4 + 7) // 8 * 8
    return (struct.pack("<i", -size) + content).ljust(size, b"\0")


def _key_node(security: int) -> bytes:
    name = b"ROOT"
    nothing = 0xFFFFFFFF
    return (
        struct.pack("<2sHQII", b"nk", 0x2C, _CREATED, 0, nothing)  # a root, its name not UTF-16
        + struct.pack("<IIIIII", 0, 0, nothing, nothing, 0, nothing)
        + struct.pack("<IIIIIIIHH", security, nothing, 0, 0, 0, 0, 0, len(name), 0)
        + name
    )


def _security_descriptor(self_offset: int) -> bytes:
    administrators = struct.pack("<BB6BII", 1, 2, 0, 0, 0, 0, 0, 5, 32, 544)
    system = struct.pack("<BB6BI", 1, 1, 0, 0, 0, 0, 0, 5, 18)
    entries = b"".join(
        struct.pack("<BBHI", 0, 2, 8 + len(sid), 0xF003F) + sid for sid in (administrators, system)
    )
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(entries), 2, 0) + entries
    descriptor = struct.pack("<BBHIIII", 1, 0, 0x8004, 20, 36, 0, 48) + administrators
    descriptor += system + acl
    return (
        struct.pack("<2sHIIII", b"sk", 0, self_offset, self_offset, 1, len(descriptor)) + descriptor
    )
