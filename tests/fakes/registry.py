"""Registry hives without an appliance: keys in dictionaries, behind the facade's interface."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from snf_core.errors import GuestError
from snf_core.image.registry import Hive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.image.registry import Value

Keys = dict[str, dict[str, "Value"]]
"""Path of a key from the hive's root -> its values by name. Keys on the way need not be there."""


class FakeHive(Hive):
    """A hive over ``keys_``, in which what is set is seen. Every public method is replaced."""

    def __init__(self, keys: Keys, *, write: bool) -> None:
        self.changed = False
        self._keys = keys
        self._write = write

    def has(self, key: str) -> bool:
        """Whether there is such a key, or one below it."""
        return any(f"{path}\\".lower().startswith(f"{key}\\".lower()) for path in self._keys)

    def keys(self, key: str) -> list[str]:
        """The names right below a key."""
        prefix = f"{key}\\" if key else ""
        below = [p[len(prefix) :] for p in self._keys if p.lower().startswith(prefix.lower())]
        return list(dict.fromkeys(path.partition("\\")[0] for path in below if path))

    def value(self, key: str, name: str) -> Value | None:
        """A value by its name, in any case."""
        found = {other.lower(): value for other, value in self.values(key).items()}
        return found.get(name.lower())

    def values(self, key: str) -> dict[str, Value]:
        """All values of a key."""
        return next((v for path, v in self._keys.items() if path.lower() == key.lower()), {})

    def set(self, key: str, name: str, value: Value) -> None:
        """Set one value of an existing key."""
        if not self._write:
            raise GuestError("the hive was not opened for writing")
        if not self.has(key):
            raise GuestError(f"{key} does not exist: no value is set in it")
        path = next((path for path in self._keys if path.lower() == key.lower()), key)
        values = self._keys.setdefault(path, {})
        spelled = next((other for other in values if other.lower() == name.lower()), name)
        values[spelled] = value
        self.changed = True


class FakeRegistry:
    """The hives of a guest: ``hives``, path -> keys."""

    hives: dict[str, Keys]
    _open_hive = ""

    @contextlib.contextmanager
    def registry(self, path: str, *, write: bool = False) -> Iterator[Hive]:
        """Open a hive; only one at a time."""
        if self._open_hive:
            raise GuestError(f"{path} in the guest is not opened while {self._open_hive} is")
        found = next((other for other in self.hives if other.lower() == path.lower()), None)
        if found is None:
            raise GuestError(f"{path} in the guest does not exist", remedy="repair the image")
        self._open_hive = path
        keys = {key: dict(values) for key, values in self.hives[found].items()}
        try:
            yield FakeHive(keys, write=write)
            self.hives[found] = keys
        finally:
            self._open_hive = ""
