"""What one interface should have on the host: pure data.

A state is a sequence of items, in the order in which they are applied; they are taken back in
the reverse order. Each setup states its own; ``merge`` makes one of them all.

===== ================ ========== ===================================================
kind  object           attribute  value
===== ================ ========== ===================================================
link  interface's name address    MAC address of the host's side (str)
\\                      mtu        bytes (int)
\\                      master     name of the bridge it is a port of (str), or None
\\                      up         administratively up (bool)
===== ================ ========== ===================================================
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from types import NoneType
from typing import TYPE_CHECKING, Any

from snf_core.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Value = str | int | bool | None
"""What an attribute may hold: the JSON scalars. None stands for absence."""

Key = tuple[str, str, str]

LINK = "link"

_TYPES: dict[tuple[str, str], set[type]] = {
    (LINK, "address"): {str},
    (LINK, "mtu"): {int},
    (LINK, "master"): {str, NoneType},
    (LINK, "up"): {bool},
}


@dataclass(frozen=True)
class Item:
    """One attribute of one object of the kernel, and the setup that wants it.

    Raises NetworkError where it is not one of the table above.
    """

    kind: str
    object: str
    attribute: str
    value: Value
    setup: str = ""
    """Filled in by the engine: a setup does not know the name it is installed under."""

    def __post_init__(self) -> None:
        if type(self.value) not in _TYPES.get((self.kind, self.attribute), set()):
            raise NetworkError(
                f"{self.attribute} {self.value!r} is nothing that a {self.kind} can have"
            )

    @property
    def key(self) -> Key:
        """What can hold but one value."""
        return (self.kind, self.object, self.attribute)

    def __str__(self) -> str:
        return f"{self.attribute} {self.value} of {self.kind} {self.object}"


@dataclass(frozen=True)
class State:
    """What an interface should have. Raises NetworkError where an item is stated twice."""

    items: tuple[Item, ...] = ()

    def __post_init__(self) -> None:
        keys = [item.key for item in self.items]
        for item in self.items:
            if keys.count(item.key) > 1:
                raise NetworkError(f"{item.attribute} of {item.kind} {item.object} is stated twice")

    def wanted_by(self, setup: str) -> State:
        """The same state with every item carrying the name of a setup."""
        return State(tuple(replace(item, setup=setup) for item in self.items))

    def to_json(self) -> list[dict[str, Any]]:
        """JSON-able, one object per item."""
        return [asdict(item) for item in self.items]

    @classmethod
    def from_json(cls, data: Iterable[Mapping[str, Any]]) -> State:
        """The inverse of ``to_json``. Raises NetworkError where ``data`` is anything else."""
        return cls(tuple(item_from_json(entry) for entry in data))


def item_from_json(data: Mapping[str, Any]) -> Item:
    """An item as ``State.to_json`` writes it; further keys are ignored. Raises NetworkError."""
    try:
        words = [data[name] for name in ("kind", "object", "attribute", "setup")]
        value = data["value"]
    except (KeyError, TypeError) as error:
        raise NetworkError(f"{data!r} is not an item of a state") from error
    if not all(isinstance(word, str) for word in words):
        raise NetworkError(f"{data!r} is not an item of a state")
    kind, name, attribute, setup = words
    return Item(kind, name, attribute, value, setup)


def merge(states: Iterable[State]) -> State:
    """One state of several. Setups may agree on an item; the first then stands for both.

    Raises NetworkError naming both setups where they want different values.
    """
    merged: dict[Key, Item] = {}
    for state in states:
        for item in state.items:
            other = merged.setdefault(item.key, item)
            if other.value != item.value:
                raise NetworkError(
                    f"setups {other.setup!r} and {item.setup!r} contradict each other: "
                    f"{other}, but {item}",
                    remedy="change the network's tags, or [network] setups, so that only one "
                    "of them applies",
                )
    return State(tuple(merged.values()))
