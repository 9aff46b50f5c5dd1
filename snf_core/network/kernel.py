"""The kernel behind its gates: one for each way in which it is asked and changed.

A gate reads and changes items of some kinds (see ``network.state``):

=============================== ============ ==================================================
kinds                           gate         by
=============================== ============ ==================================================
element                         ``nft``      one nftables transaction
sysctl                          ``sysctl``   files below /proc/sys
link, rule, route, neighbour    ``links``    one batch of rtnetlink messages
port                            ``switch``   one transaction of Open vSwitch's database
=============================== ============ ==================================================

That is the order in which a NIC's items are applied, and they are taken back in the reverse
order: a NIC is guarded before it is connected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from snf_core.network.node import Node
from snf_core.network.state import ELEMENT, LINK, PORT, SYSCTL, Item

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from types import TracebackType

    from snf_core.network.links import Links
    from snf_core.network.nft import Nft
    from snf_core.network.state import Change, Key, Value

NFT = "nft"
SYSCTLS = "sysctl"
SWITCH = "switch"
LINKS = "links"

ORDER = (NFT, SYSCTLS, SWITCH, LINKS)


class Gate(Protocol):
    """One way to ask and change the kernel. Made for one event, in one network namespace."""

    def read(self, items: Collection[Item]) -> dict[Key, Value]:
        """The values that the items have now, None for what is absent.

        What an interface or a file would have that does not exist is left out. Its cost must not
        grow with the number of NICs on the node: what cannot be asked for by itself is taken to
        have the value that ``before`` of a change states, and found out when it is changed.
        Raises NetworkError.
        """

    def apply(self, changes: Sequence[Change]) -> Collection[Key]:
        """Make all changes, in their order, or none.

        What is gone already is not an error when it is taken back. Returns the keys of what was
        stated to be absent and was found to be there already as wanted. Raises NetworkError
        naming the item; the kernel then is as before.
        """

    def snapshot(self, items: Collection[Item]) -> dict[Key, Value]:
        """Like ``read``, for everything and all NICs at once: the cost may grow with the node."""

    def close(self) -> None:
        """Release what the gate holds."""


_ANY_LINK = Item(LINK, "lo", "up", True)
"""With one, all links are listed."""

_GATES = {ELEMENT: NFT, SYSCTL: SYSCTLS, PORT: SWITCH}


def gate_of(item: Item) -> str:
    """The name of the gate that an item goes through."""
    return _GATES.get(item.kind, LINKS)


class Kernel:
    """The gates together. A context manager: leaving it closes them."""

    def __init__(self, links: Links, nft: Nft, others: Mapping[str, Gate]) -> None:
        """``others`` are the gates beside ``links`` and ``nft``, by their names."""
        self.links = links
        self.nft = nft
        self.node = Node(links)
        self._gates: dict[str, Gate] = {**others, NFT: nft, LINKS: links}

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for gate in self._gates.values():
            gate.close()

    def read(self, items: Collection[Item]) -> dict[Key, Value]:
        """What the items are now, where that can be asked for by itself (see ``Gate.read``)."""
        return {
            key: value
            for name, mine in _sorted(items).items()
            if mine
            for key, value in self._gates[name].read(mine).items()
        }

    def snapshot(self, items: Collection[Item]) -> tuple[dict[Key, Value], dict[str, int]]:
        """What the items are now, with all elements of our nftables tables; and the number of
        each interface that there is, by its name.
        """
        found = {
            key: value
            for name, mine in _sorted([*items, _ANY_LINK]).items()
            if mine or name == NFT
            for key, value in self._gates[name].snapshot(mine).items()
        }
        indexes = {key[1]: int(found.pop(key) or 0) for key in [*found] if key[2] == "index"}
        return found, indexes

    def apply(self, gate: str, changes: Sequence[Change]) -> Collection[Key]:
        """Make all changes of one gate, or none (see ``Gate.apply``)."""
        return self._gates[gate].apply(changes)


def _sorted(items: Collection[Item]) -> dict[str, list[Item]]:
    """The items by the names of their gates."""
    found: dict[str, list[Item]] = {name: [] for name in ORDER}
    for item in items:
        found[gate_of(item)].append(item)
    return found
