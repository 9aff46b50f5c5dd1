"""The registry of a Windows guest: hives, keys and values, read and changed in the appliance.

hivex(3) in the appliance reads what lies in a hive; here is only seen to it that it was closed
properly, and is whole, before. The layout of a hive's base block is that of "Windows registry file
format specification" (M. Suhanov), its value types those of winnt.h.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import posixpath
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snf_core.errors import GuestError
from snf_core.image.files import Files
from snf_core.image.status import absolute

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NONE, SZ, EXPAND_SZ, BINARY, DWORD, DWORD_BIG_ENDIAN, LINK, MULTI_SZ = range(8)
QWORD = 11

KEYS_LIMIT = 20_000
"""Subkeys of one key that are listed at most: no key of interest here has as many."""

VALUES_LIMIT = 4_000
"""Values of one key that are listed at most."""

LIST_LIMIT = 8 << 20
"""Bytes of names and values that are listed of one key at most: entries of a hostile hive may all
lead to the same, largest one."""

WRITE_LIMIT = 128 << 20
"""Bytes of a hive that is changed at most: hivex holds all of it in the appliance's memory."""

_STRINGS = frozenset([SZ, EXPAND_SZ, LINK, MULTI_SZ])
_NUMBERS = {DWORD: "<I", DWORD_BIG_ENDIAN: ">I", QWORD: "<Q"}

_BLOCK = 4096
"""Bytes of the base block; the bins that follow it are multiples of as many."""

_CHECKED = 508
"""Bytes of the base block that its checksum, which follows them, is of."""

_LARGE = 16344
"""Bytes above which Windows stores a value in pieces, as hivex does not."""

_REMEDY = (
    "start the template, prepare it again (sysprep /generalize /oobe /shutdown), and take its "
    "image again"
)


@dataclass(frozen=True)
class Value:
    """A value: its type, a number that may be any, and its bytes as they lie in the hive."""

    type: int
    data: bytes

    @classmethod
    def dword(cls, number: int) -> Value:
        """REG_DWORD: 0 to 0xFFFFFFFF."""
        return cls(DWORD, struct.pack("<I", number))

    @classmethod
    def string(cls, text: str) -> Value:
        """REG_SZ."""
        return cls(SZ, _encoded(text))

    @classmethod
    def expandable(cls, text: str) -> Value:
        """REG_EXPAND_SZ: Windows replaces ``%NAME%`` in it where it is read."""
        return cls(EXPAND_SZ, _encoded(text))

    @classmethod
    def strings(cls, texts: Sequence[str]) -> Value:
        """REG_MULTI_SZ; none of the strings may be empty, which would end the list."""
        return cls(MULTI_SZ, b"".join(map(_encoded, texts)) + b"\0\0")

    @property
    def number(self) -> int | None:
        """The number of a REG_DWORD or REG_QWORD; None for all else."""
        form = _NUMBERS.get(self.type)
        if form is None or len(self.data) != struct.calcsize(form):
            return None
        return int(struct.unpack(form, self.data)[0])

    @property
    def text(self) -> str:
        """A string up to its end; empty for what is none. What is not UTF-16 becomes U+FFFD."""
        return self._decoded().partition("\0")[0]

    @property
    def texts(self) -> tuple[str, ...]:
        """The strings of a REG_MULTI_SZ, which the first empty one ends; of a string, itself."""
        words = self._decoded().split("\0")
        if self.type != MULTI_SZ:
            words = words[:1]
        return tuple(words[: words.index("")] if "" in words else words)

    def _decoded(self) -> str:
        if self.type not in _STRINGS:
            return ""
        whole = len(self.data) // 2 * 2  # half a character may follow, and a terminator be missing
        return self.data[:whole].decode("utf-16-le", errors="replace")


class Hive:
    """An open hive, while the block of ``Guest.registry`` runs.

    Keys are called ``ControlSet001\\Control``, from the hive's root, which is ``""``; names of
    keys and values are looked up without regard to the case of ASCII's letters. Every method
    raises as those of Files do.
    """

    def __init__(self, guest: Registry, path: str, *, write: bool) -> None:
        self._guest = guest
        self._path = path
        self._write = write
        self._root = int(guest._call("hivex_root"))
        self._nodes: dict[str, int] = {}
        """hivex's handles of keys, by their paths in lower case; 0 where there is none."""
        self.changed = False
        """Whether anything was set."""

    def has(self, key: str) -> bool:
        """Whether there is such a key."""
        return self._key(key) != 0

    def keys(self, key: str) -> list[str]:
        """The names of a key's subkeys, in the hive's order; empty where there is no such key."""
        node = self._key(key)
        children = self._guest._call("hivex_node_children", node) if node else []
        if len(children) > KEYS_LIMIT:
            raise GuestError(f"{self._name(key)} has more than {KEYS_LIMIT} subkeys")
        names: list[str] = []
        room = LIST_LIMIT
        for child in children:
            names.append(str(self._guest._call("hivex_node_name", child["hivex_node_h"])))
            room = self._less(room, len(names[-1]), key)
        return names

    def value(self, key: str, name: str) -> Value | None:
        """A value of a key, or None where there is none. The default value's name is empty."""
        node = self._key(key)
        handle = self._guest._call("hivex_node_get_value", node, name) if node else 0
        return self._value(handle) if handle else None

    def values(self, key: str) -> dict[str, Value]:
        """All values of a key; empty where there is no such key."""
        node = self._key(key)
        found = self._guest._call("hivex_node_values", node) if node else []
        if len(found) > VALUES_LIMIT:
            raise GuestError(f"{self._name(key)} has more than {VALUES_LIMIT} values")
        values: dict[str, Value] = {}
        room = LIST_LIMIT
        for one in found:
            name = str(self._guest._call("hivex_value_key", one["hivex_value_h"]))
            values[name] = self._value(one["hivex_value_h"])
            room = self._less(room, len(name) + len(values[name].data), key)
        return values

    def set(self, key: str, name: str, value: Value) -> None:
        """Set one value of an existing key; all other values and keys stay as they are.

        Raises GuestError where there is no such key, or where a value beside it is so large that
        hivex, which writes the values of a key anew, would store it as Windows does not read it.
        """
        if not self._write:
            raise GuestError(f"{self._path} in the guest was not opened for writing")
        node = self._key(key)
        if not node:
            raise GuestError(f"{self._name(key)} does not exist: no value is set in it")
        for other, old in self.values(key).items():
            if len(old.data) > _LARGE:
                raise GuestError(f"{self._name(key)} is not changed: value {other!r} is too large")
            if other.lower() == name.lower():  # hivex would spell it as we do
                name = other
        self._guest._call("hivex_node_set_value", node, name, value.type, value.data)
        self.changed = True

    def _key(self, key: str) -> int:
        """hivex's handle of a key, or 0."""
        node, path = self._root, ""
        for name in key.split("\\") if key else []:
            path = f"{path}\\{name}".lower()
            if path not in self._nodes:
                self._nodes[path] = int(self._guest._call("hivex_node_get_child", node, name))
            node = self._nodes[path]
            if not node:
                break
        return node

    def _value(self, handle: int) -> Value:
        kind = int(self._guest._call("hivex_value_type", handle)) & 0xFFFFFFFF
        return Value(kind, bytes(self._guest._call("hivex_value_value", handle)))

    def _less(self, room: int, used: int, key: str) -> int:
        if used > room:
            raise GuestError(f"{self._name(key)} holds more than {LIST_LIMIT} bytes")
        return room - used

    def _name(self, key: str) -> str:
        return f"registry key {key} of {self._path} in the guest"


class Registry(Files):
    """The hives of what is mounted, beside its files. Every method raises as those of Files do."""

    _open_hive = ""

    @contextlib.contextmanager
    def registry(self, path: str, *, write: bool = False) -> Iterator[Hive]:
        """Open a hive, ``/Windows/System32/config/SYSTEM`` for example; only one at a time.

        What was set is written when the block ends, into the same file; nothing is where it ends
        with an exception. Raises GuestError for a hive that does not exist, is damaged, or was not
        closed properly: what Windows set last is in its log files then, and not in the hive.
        """
        path = absolute(path)
        if self._open_hive:
            raise GuestError(f"{path} in the guest is not opened while {self._open_hive} is")
        # The appliance's hivex would follow a link out of the guest.
        self._checked_parent(path)
        self._check_hive(path, write=write)
        self._call("hivex_open", path, write=write)
        self._open_hive = path
        try:
            hive = Hive(self, path, write=write)
            yield hive
            if hive.changed:
                self._call("hivex_commit", None)
        finally:
            self._open_hive = ""
            self._call("hivex_close")

    def _check_hive(self, path: str, *, write: bool) -> None:
        status = self.status(path)
        if status is None:
            raise GuestError(f"{path} in the guest does not exist", remedy="repair the image")
        if not status.is_file:
            raise GuestError(f"{path} in the guest is not a regular file")
        if write and status.size > WRITE_LIMIT:
            raise GuestError(f"{path} in the guest is larger than {WRITE_LIMIT} bytes")
        block = bytes(self._call("pread", path, _BLOCK + 4, 0))
        problem = damage(block, status.size)
        if problem:
            name = posixpath.basename(path)
            raise GuestError(f"registry hive {name} ({path}) {problem}", remedy=_REMEDY)


def damage(block: bytes, size: int) -> str:
    """What is wrong with a hive of ``size`` bytes, by its base block and the 4 bytes after it.

    Empty where it is well: a hive of Windows 2000 or later, whole, and closed properly.
    """
    if len(block) < _BLOCK + 4 or block[:4] != b"regf":
        return "is damaged: it has no base block"
    words = struct.unpack_from("<127I", block)
    checksum = functools.reduce(operator.xor, words)
    # 0 and -1 are never stored.
    checksum = {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(checksum, checksum)
    [stored] = struct.unpack_from("<I", block, _CHECKED)
    major, minor, kind, form, root, length = words[5:11]
    problems = {
        "is damaged: the checksum of its base block is wrong": checksum != stored,
        "is dirty: Windows was not shut down fully": words[1] != words[2],
        f"is of a kind ({major}.{minor}, {kind}, {form}) that is not known here": (
            (major, kind, form) != (1, 0, 1) or minor < 3
        ),
        "is damaged: its base block contradicts itself": length % _BLOCK or root >= length,
        f"is truncated: it has {size} bytes of {_BLOCK + length}": _BLOCK + length > size,
        "is damaged: no bin follows its base block": block[_BLOCK:] != b"hbin",
    }
    return next((text for text, found in problems.items() if found), "")


def _encoded(text: str) -> bytes:
    return f"{text}\0".encode("utf-16-le")
