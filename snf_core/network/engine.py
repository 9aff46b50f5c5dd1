"""The one way to change the kernel: wanted state, its difference to what is there, apply.

All or nothing: where a change fails, those made before it are taken back and the event fails.
What is about to be done stands in the interface's state document before the kernel is touched,
so that the next event takes back what an event that died has begun.

Nothing is taken back that somebody else has changed since: it is not ours any more.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from snf_core.errors import NetworkError
from snf_core.model import Migration, Mode
from snf_core.network import renaming
from snf_core.network.announce import announce
from snf_core.network.difference import (
    OF_PORTS,
    Difference,
    Step,
    corrected,
    shared,
    towards,
    undoing,
)
from snf_core.network.document import APPLIED, APPLYING, Document, Identity, facts
from snf_core.network.kernel import NFT
from snf_core.network.others import OtherDocuments
from snf_core.network.state import (
    ELEMENT,
    LINK,
    NEIGHBOUR,
    ROUTE,
    Change,
    Item,
    State,
    merge,
)
from snf_core.network.tags import promised

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from snf_core.contract import Setup
    from snf_core.model import NicEvent
    from snf_core.network.document import Documents, Record
    from snf_core.network.kernel import Kernel
    from snf_core.network.state import Key

LOG = logging.getLogger(__name__)

_CLAIMS = {ROUTE, NEIGHBOUR}
"""By what traffic for a guest is drawn to this node: by its own routing, and by its neighbours'."""

CORE = "core"
"""Stands in an item's place for a setup where every NIC has it."""


class Engine:
    """What wires NICs: the setups in use, the kernel, and the state documents."""

    def __init__(self, setups: Mapping[str, Setup], kernel: Kernel, documents: Documents) -> None:
        """``setups`` by their names, in the order in which their items are applied."""
        self.setups = setups
        self.kernel = kernel
        self.documents = documents

    def plan(self, event: NicEvent) -> State:
        """What the NIC of ``event`` should have, from all setups that apply to it.

        Of a guest that is still on another node, nothing that would draw its traffic here.
        Touches nothing. Raises NetworkError where none applies, where they contradict each
        other, and where a tag promises what none of them does.
        """
        chosen = {name: setup for name, setup in self.setups.items() if setup.applies(event)}
        if not chosen:
            raise self._unserved(event)
        for tag in sorted(promised(event)):
            if not any(setup.fulfils(tag) for setup in chosen.values()):
                raise NetworkError(
                    f"{event.interface}: no network setup in use ({', '.join(chosen)}) does what "
                    f"the tag {tag!r} promises",
                    remedy="remove the tag, or add a setup that serves it to [network] setups",
                )
        node = self.kernel.node
        states = [setup.wanted(event, node).wanted_by(name) for name, setup in chosen.items()]
        state = merge([State((_marker(event.interface),)), *states])
        if event.migration is Migration.PRE:
            state = State(tuple(item for item in state.items if item.kind not in _CLAIMS))
        if Item(LINK, event.interface, "up", True).key not in {item.key for item in state.items}:
            raise self._unserved(event)  # some would guard it, but none connects it
        # Whatever the order of the setups, what only ports have comes after the port.
        items = sorted(state.items, key=lambda item: item.attribute in OF_PORTS)
        return replace(state, items=tuple(items))

    def _unserved(self, event: NicEvent) -> NetworkError:
        serving = [f"{name} serves {setup.serves()}" for name, setup in self.setups.items()]
        return NetworkError(
            f"{event.interface}: no network setup in use serves {_described(event)}",
            remedy="; ".join(serving) or "name some in [network] setups",
        )

    def up(self, event: NicEvent, finish: Callable[[], None] | None = None) -> None:
        """Wire the NIC of ``event``; a second time changes nothing.

        What an earlier interface of the same name, or an event that did not end, has left is
        taken back first. ``finish`` is called when all is in place; where it raises, all is
        taken back. Raises NetworkError, with the kernel as it was before.
        """
        name = event.final_name
        with self.locked(name), renaming.renamed(event, self._read(name), self.kernel.links):
            wanted = self.plan(replace(event, interface=name, rename=""))
            self.connect(name, wanted, facts(event), finish)

    def down(self, event: NicEvent) -> None:
        """Take back what ``up`` did for the interface of ``event``, where it still stands.

        An interface that is gone, is another instance's by now, or was never wired by us, is no
        error. One that was renamed is found by what the event calls it. Raises NetworkError where
        something cannot be taken back; the state document then stays.
        """
        event = renaming.known(event, self.documents)
        with self.locked(event.final_name):
            if self.known(event) is not None:
                document = self._read(event.final_name)
                self.clear(event.final_name)
                if document is not None and self.is_there(document):
                    renaming.restore(event, self.kernel.links)

    def known(self, event: NicEvent) -> Mapping[str, Any] | None:
        """What is known of the NIC that goes: what its document keeps, or what ``event`` says.

        None where the interface is another instance's: its name has been used again, before
        anybody said that the NIC is gone.
        """
        document = self._read(event.final_name)
        if document is None:
            return facts(event)
        if event.instance and document.event["instance"] != event.instance:
            return None
        if renaming.called(document) != event.interface:
            return None
        return document.event

    def announce(self, instance: str) -> bool:
        """Announce once more those NICs of an instance that are wired here: whether there are any.

        Raises NetworkError naming an interface by which it cannot be done.
        """
        told = False
        for found in self.documents.of(instance):
            with self.locked(found.interface):
                document = self._read(found.interface)
                if document == found and found.phase == APPLIED and self.is_there(found):
                    announce(found.announced)
                    told = told or bool(found.announced)
        return told

    @contextlib.contextmanager
    def locked(self, *interfaces: str) -> Iterator[None]:
        """Hold the locks of interfaces, waiting for them in the order of their names.

        One such block is one event to the gates.
        """
        with contextlib.ExitStack() as locks:
            for interface in sorted(interfaces):
                locks.enter_context(self.documents.locked(interface))
            locks.callback(self.kernel.nft.close)
            yield

    def connect(
        self,
        interface: str,
        wanted: State,
        known: Mapping[str, Any],
        finish: Callable[[], None] | None = None,
    ) -> None:
        """Make an interface, a NIC's or an uplink, have what is ``wanted``.

        Its lock must be held. ``known`` is what the document is to keep beside that: ``mode``,
        and whatever people may want to know. Raises as ``up``.
        """
        self.kernel.nft.require(rulesets(wanted.items, known["mode"], self.setups))
        identity = self._identity(interface)
        previous = self._standing(interface, identity)
        others = OtherDocuments({interface}, self)
        found = towards(wanted, interface, previous, self.kernel, others)
        announced = wanted.announcements
        document = Document(interface, identity, APPLIED, dict(known), found.records, announced)

        if found.nothing and document == previous:
            for gate, changes in found.steps():
                self.kernel.apply(gate, changes)
            announce(announced)
            if finish is not None:
                finish()
        else:
            self._apply(found, document, previous, finish)

    def clear(self, interface: str) -> None:
        """Take back what an interface's document says, and remove it. Its lock must be held.

        Raises NetworkError where something cannot be taken back; the document then stays.
        """
        document = self._read(interface)
        if document is None:
            self._clear_elements(interface)
        elif document.identity.same_kernel():
            try:
                self._clear(document)
            except NetworkError:
                if self.is_there(document):
                    raise
                self._clear(document)  # it went meanwhile, and much with it
        self.documents.remove(interface)

    def _clear_elements(self, interface: str) -> None:
        """What stands in our tables of a NIC that nobody remembers, if anything."""
        left = [
            Change(Item(*key, None), value)
            for key, value in self.kernel.nft.elements().items()
            if key[2].split(" ")[0] == interface
        ]
        if left:
            self.kernel.apply(NFT, left)

    def is_there(self, document: Document) -> bool:
        """Whether the interface of a document is the one that has its name now."""
        link = self.kernel.links.get(document.interface)
        return link is not None and Identity.of(link.index) == document.identity

    def _clear(self, document: Document) -> None:
        interface, others = document.interface, OtherDocuments({document.interface}, self)
        here = self.is_there(document)
        undo = undoing(document.records, interface, self.kernel, others, here=here)
        for gate, changes in Difference(undo, [], frozenset()).steps():
            self.kernel.apply(gate, changes)
        self.give_back(shared(undo, interface), {interface})

    def give_back(self, changes: Collection[Change], interfaces: Collection[str]) -> None:
        """Make again what was taken back of ``interfaces`` and others have come to want meanwhile.

        Whoever wants it has it in a document before looking for it. Raises NetworkError.
        """
        wanted = OtherDocuments(interfaces, self).wanted({change.item.key for change in changes})
        again = [change.reversed for change in changes if change.item.key in wanted]
        for gate, some in Difference([], again, frozenset()).steps():
            self.kernel.apply(gate, some)

    def _identity(self, interface: str) -> Identity:
        link = self.kernel.links.get(interface)
        if link is None:
            raise NetworkError(
                f"{interface} does not exist in this network namespace",
                remedy="it must be made before it is wired",
            )
        return Identity.of(link.index)

    def _read(self, interface: str) -> Document | None:
        """The interface's document; one that cannot be understood is as good as none."""
        try:
            return self.documents.read(interface)
        except NetworkError as error:
            LOG.warning("%s: %s", interface, error)
            return None

    def _standing(self, interface: str, identity: Identity) -> Document | None:
        """The document of this very interface, all applied. What any other says is taken back."""
        document = self._read(interface)
        if document and document.phase == APPLIED and document.identity == identity:
            return document
        if document is not None:
            self.clear(interface)
        return None

    def _apply(
        self,
        found: Difference,
        document: Document,
        previous: Document | None,
        finish: Callable[[], None] | None,
    ) -> None:
        """Make all changes or none; in the end ``document`` stands, or else ``previous`` again."""
        # Half-way the kernel may hold what either of them says.
        records = previous.records if previous else ()
        outdated = [one for one in records if one not in document.records]
        under_way = replace(document, phase=APPLYING)
        self.documents.write(replace(under_way, records=(*document.records, *outdated)))
        done: list[Step] = []
        left: set[Key] = set(found.ensured)
        try:
            for gate, changes in found.steps():
                done.append((gate, changes))
                try:
                    left |= set(self.kernel.apply(gate, changes))
                except NetworkError:
                    done.pop()  # it has taken back its own
                    raise
            announce(document.announced)
            records = self._corrected(document, left - found.ensured)
            if finish is not None:
                # It may take its time, in which nobody should wait for us.
                self.documents.write(replace(under_way, records=records))
                self.kernel.nft.close()
                finish()
            self.documents.write(replace(document, records=records))
        except BaseException:
            if not self._take_back(document.interface, done, left):
                raise  # the document stays as it is: the next event tries again
            if previous is None:
                self.documents.remove(document.interface)
            else:
                self.documents.write(previous)
            raise

    def _corrected(self, document: Document, there: Collection[Key]) -> tuple[Record, ...]:
        """The records, where some of what is wanted was found to be ``there`` already.

        It is left when we go, unless another event of ours had made it: one for another interface,
        or one for this one, whose document was lost.
        """
        if _marker(document.interface).key in there:
            return document.records
        values = {one.item.key: one.item.value for one in document.records}
        found = {key: values[key] for key in there}
        return corrected(
            document.records, found | OtherDocuments({document.interface}, self).made(found)
        )

    def _take_back(self, interface: str, done: Sequence[Step], left: Collection[Key]) -> bool:
        """Take back what was done, but for what was ``left`` as it was. Whether all of it went."""
        whole = True
        for gate, changes in reversed(done):
            back = [change.reversed for change in reversed(changes) if change.item.key not in left]
            try:
                if back:
                    self.kernel.apply(gate, back)
            except NetworkError as error:
                LOG.error("%s: cannot be taken back: %s", interface, error)
                whole = False
        return whole


def rulesets(items: Collection[Item], mode: str, setups: Mapping[str, Setup]) -> dict[str, str]:
    """The nftables rules, by a name for each, that ``items`` of a NIC of ``mode`` rely on."""
    needed = dict.fromkeys(item.setup for item in items if item.kind == ELEMENT)
    found = {}
    for name in needed:
        if name in setups:
            text = setups[name].ruleset(Mode(mode))
            if text:
                found[f"{name}-{mode}"] = text
    return found


def _marker(interface: str) -> Item:
    """In our tables every NIC stands in one set, whatever else it has.

    It tells a NIC of which something is left, though its document was lost, from a new one.
    """
    return Item(ELEMENT, "inet nics", interface, True, CORE)


def _described(event: NicEvent) -> str:
    nic = event.nic
    if nic is None:
        return "a NIC of which nothing is known"
    tags = ", ".join(sorted(nic.network_tags)) or "none"
    return f"mode {nic.mode.value} (network tags: {tags})"
