"""A kernel in memory: links as in ``tests.fakes.links``, everything else a dictionary."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from snf_core.errors import NetworkError
from snf_core.network.kernel import ORDER, Kernel
from snf_core.network.state import ELEMENT, LINK, Change, Item, Key, Value
from tests.fakes.links import FakeLinks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from snf_core.network.nft import Nft


class FakeNft:
    """What the engine asks of nftables beside changing elements."""

    def __init__(self, values: dict[Key, Value]) -> None:
        self.values = values
        self.required: dict[str, str] = {}
        self.outdated: list[str] = []

    def elements(self) -> dict[Key, Value]:
        """Those of all NICs."""
        return {key: value for key, value in self.values.items() if key[0] == ELEMENT}

    def require(self, rulesets: Mapping[str, str]) -> None:
        """Note them."""
        self.required |= rulesets

    def missing(self) -> list[str]:
        """Those that a test says are outdated."""
        return self.outdated

    def rebuild(self) -> None:
        """They are loaded."""
        self.outdated = []

    def close(self) -> None:
        """Nothing is held."""


class FakeKernel(Kernel):
    """``calls`` has every change that was made; ``broken`` (attribute, value) cannot be made."""

    def __init__(self) -> None:
        self.values: dict[Key, Value] = {}
        self.fake_links = FakeLinks()
        self.fake_nft = FakeNft(self.values)
        super().__init__(self.fake_links, cast("Nft", self.fake_nft), {})
        self.calls: list[tuple[str, str, Value]] = []
        self.broken: set[tuple[str, Value]] = set()

    def read(self, items: Collection[Item]) -> dict[Key, Value]:
        """Links alone can be asked for by themselves."""
        return {
            item.key: getattr(self.fake_links.links[item.object], item.attribute)
            for item in items
            if item.kind == LINK and item.object in self.fake_links.links
        }

    def snapshot(self, items: Collection[Item]) -> tuple[dict[Key, Value], dict[str, int]]:
        """Everything."""
        indexes = {name: link.index for name, link in self.fake_links.links.items()}
        return self.read(items) | self.values, indexes

    def apply(self, gate: str, changes: Sequence[Change]) -> Collection[Key]:
        """All or none."""
        assert gate in ORDER
        links, values = dict(self.fake_links.links), dict(self.values)
        found: set[Key] = set()
        try:
            for item, before in changes:
                self._set(item, before, found)
        except NetworkError:
            self.fake_links.links = links
            self.values.clear()
            self.values.update(values)
            raise
        return found

    def _set(self, item: Item, before: Value, found: set[Key]) -> None:
        self.calls.append((item.object, item.attribute, item.value))
        if (item.attribute, item.value) in self.broken:
            raise NetworkError(f"{item} cannot be made")
        if item.kind == LINK:
            if item.object not in self.fake_links.links:
                raise NetworkError(f"{item} cannot be made: it is gone")
            changes: dict[str, Any] = {item.attribute: item.value}
            link = self.fake_links.links[item.object]
            self.fake_links.links[item.object] = replace(link, **changes)
        elif item.value is None:
            self.values.pop(item.key, None)
        else:
            if before is None and self.values.get(item.key) == item.value and item.kind != ELEMENT:
                found.add(item.key)
            self.values[item.key] = item.value
