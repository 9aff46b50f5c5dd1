"""Making the kernel and the state documents agree again, whatever has happened to either.

For a killed event, a rebooted node, a hypervisor that never says that a NIC is gone, and what
has been changed by hand. Everything is listed at once, so that a node with ten thousand NICs of
which nothing is wrong is looked through in a second or two; what is wrong is looked at again,
and repaired, under the lock of its interface.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from snf_core.errors import NetworkError
from snf_core.network.difference import Difference, shared, undoing
from snf_core.network.document import APPLIED, Identity
from snf_core.network.elements import NICS
from snf_core.network.engine import CORE, rulesets
from snf_core.network.others import OtherDocuments
from snf_core.network.state import ELEMENT, Change, Item, Key, Value, shown
from snf_core.network.twins import given_up

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from snf_core.contract import Setup
    from snf_core.network.difference import Others
    from snf_core.network.document import Document, Documents
    from snf_core.network.engine import Engine
    from snf_core.network.kernel import Kernel

LOG = logging.getLogger(__name__)

TOGETHER = 200
"""How many interfaces' locks are held at once, each a file descriptor."""


class Finding(NamedTuple):
    """Something that was not as it should be."""

    interface: str
    """Empty where it is about the node."""
    statement: str
    repaired: bool
    """Whether it is as it should be now."""
    error: str = ""
    """Why it could not be repaired."""

    def __str__(self) -> str:
        what = f"{self.interface}: {self.statement}" if self.interface else self.statement
        if self.error:
            return f"{what}; not repaired: {self.error}"
        return f"{what}; repaired" if self.repaired else what


@dataclass
class _Suspect:
    """An interface of which something is wrong, and what that is."""

    interface: str
    document: Document | None
    statements: list[str] = field(default_factory=list)
    undo: list[Change] = field(default_factory=list)
    do: list[Change] = field(default_factory=list)
    forget: bool = False
    """Whether its document goes, too."""

    @property
    def repairable(self) -> bool:
        """Whether anything is to be done about it."""
        return bool(self.undo or self.do or self.forget)

    def findings(self, *, repaired: bool, error: str = "") -> Iterator[Finding]:
        for statement in self.statements:
            yield Finding(self.interface, statement, repaired, error)


def reconcile(engine: Engine, *, check: bool = False, instance: str = "") -> Iterator[Finding]:
    """Find all that is not as it should be, and repair it unless it is only to be ``check``-ed.

    Taken back is what is left of interfaces that are gone or are others by now, and what an
    event that did not end has begun. Made again is what is missing of a NIC that stands. Of an
    ``instance`` alone, what its documents say, and the rules that all rely on. Raises
    NetworkError where the kernel cannot be asked.
    """
    found: dict[str, Document] = {}
    for interface in engine.documents.interfaces():
        try:
            document = engine.documents.read(interface)
        except NetworkError as error:
            if not instance:
                yield _unreadable(interface, error, engine, check=check)
            continue
        if document is not None:  # else it has been taken down meanwhile
            found[interface] = document
    yield from _rules(found.values(), engine, check=check)
    suspects = [
        one
        for one in _suspects(found, engine)
        if not instance or (one.document and one.document.event["instance"] == instance)
    ]
    for start in range(0, len(suspects), TOGETHER):
        yield from _settle(suspects[start : start + TOGETHER], engine, check=check)


def tidied(engine: Engine, instance: str) -> Iterator[Finding]:
    """Take back what is left of an instance's NICs whose interface is gone, and nothing else.

    What is left of a NIC whose document was lost is nobody's: the next NIC of its name and
    ``reconcile`` take that back.
    """
    gone = [one for one in engine.documents.of(instance) if not engine.is_there(one)]
    suspects = [
        _gone(one, engine.kernel, OtherDocuments({one.interface}, engine), here=False)
        for one in gone
    ]
    if suspects:
        yield from _settle(suspects, engine, check=False)


def _rules(found: Iterable[Document], engine: Engine, *, check: bool) -> Iterator[Finding]:
    """What is wrong with the rules; rebuilt, with them, are all elements."""
    nft = engine.kernel.nft
    done = [document for document in found if document.phase == APPLIED]  # theirs were loaded
    nft.require(_texts(done, engine.setups))
    wrong = nft.missing()
    reason = ""
    if wrong and not check:
        try:
            nft.rebuild()
        except NetworkError as error:  # what has nothing to do with it can still be repaired
            reason = str(error)
    for name in wrong:
        statement = f"the nftables rules of {name} are not as they should be"
        yield Finding("", statement, not check and not reason, reason)


def _texts(documents: Iterable[Document], setups: Mapping[str, Setup]) -> dict[str, str]:
    """The rules that the NICs of ``documents`` rely on."""
    used = {
        (document.event["mode"], record.item.setup): record.item
        for document in documents
        if document.identity.same_kernel()
        for record in document.records
        if record.item.kind == ELEMENT
    }
    texts: dict[str, str] = {}
    for (mode, _), item in used.items():
        texts |= rulesets([item], mode, setups)
    return texts


def standing(
    documents: Iterable[Document], setups: Mapping[str, Setup]
) -> tuple[dict[str, str], list[Item]]:
    """The rules and the elements that the NICs of ``documents`` should have in nftables.

    Elements of a setup that is not in use any more are left out, with a warning.
    """
    texts: dict[str, str] = {}
    items: list[Item] = []
    known: dict[tuple[str, str], bool] = {}
    for document in documents:
        if not document.identity.same_kernel():
            continue
        mode = document.event["mode"]
        for item in (one.item for one in document.records if one.item.kind == ELEMENT):
            if (item.setup, mode) not in known:
                mine = rulesets([item], mode, setups)
                texts |= mine
                known[item.setup, mode] = bool(mine) or item.setup == CORE
                if not known[item.setup, mode]:
                    LOG.warning(
                        "%s: setup %s is not in use any more", document.interface, item.setup
                    )
            if known[item.setup, mode] and item.value is not None:
                items.append(item)
    return texts, items


def _unreadable(interface: str, error: NetworkError, engine: Engine, *, check: bool) -> Finding:
    """A document that cannot be understood: of use to nobody once its interface is gone."""
    if engine.kernel.links.get(interface) is not None:
        return Finding(interface, error.message, False, error="the next event of the NIC will do")
    if not check:
        with engine.locked(interface):
            engine.documents.remove(interface)
    return Finding(interface, f"it is gone, and {error.message}", not check)


def _suspects(found: Mapping[str, Document], engine: Engine) -> list[_Suspect]:
    """All that something is wrong with, in the order of their names."""
    actual, indexes = engine.kernel.snapshot(
        [one.item for document in found.values() for one in document.records]
    )
    here = {
        interface
        for interface, document in found.items()
        if interface in indexes and document.identity == Identity.of(indexes[interface])
    }
    kept = {
        interface: document
        for interface, document in found.items()
        if interface in here and document.phase == APPLIED
    }
    others = _Kept(kept.values())
    gone = [document for interface, document in found.items() if interface not in here]
    settled = kept.keys() | given_up(gone, kept.values())
    suspects = [
        _gone(document, engine.kernel, others, here=interface in here)
        for interface, document in found.items()
        if interface not in settled
    ]
    for interface, document in kept.items():
        wrong = [one.item for one in document.records if not _is_so(one.item, actual)]
        if wrong:
            suspect = _Suspect(interface, document)
            suspect.statements = [f"{item}, but is {shown(actual.get(item.key))}" for item in wrong]
            suspect.do = [Change(item, actual.get(item.key)) for item in wrong]
            suspects.append(suspect)
    suspects += _orphans(actual, found, indexes, engine.documents)
    return sorted(suspects, key=lambda suspect: suspect.interface)


def _keys(documents: Iterable[Document]) -> set[Key]:
    return {one.item.key for document in documents for one in document.records}


class _Kept:
    """What the documents say of interfaces that are to stay (see ``difference.Others``)."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._keys = _keys(documents)

    def made(self, keys: Collection[Key]) -> dict[Key, Value]:
        return {}  # is asked for what comes, not for what goes

    def wanted(self, keys: Collection[Key]) -> Collection[Key]:
        return self._keys.intersection(keys)


def _gone(document: Document, kernel: Kernel, others: Others, *, here: bool) -> _Suspect:
    """An interface that is to be forgotten, and what is to be taken back."""
    what = "an event did not end" if here else "it is gone"
    suspect = _Suspect(document.interface, document, [what], forget=True)
    if document.identity.same_kernel():
        records = document.records
        suspect.undo = undoing(records, document.interface, kernel, others, here=here)
    return suspect


def _is_so(item: Item, actual: Mapping[Key, Value]) -> bool:
    return actual.get(item.key) == item.value


def _orphans(
    actual: Mapping[Key, Value],
    found: Mapping[str, Document],
    indexes: Mapping[str, int],
    documents: Documents,
) -> Iterator[_Suspect]:
    """What nftables has of interfaces without a document, or beside what that says."""
    unwanted = {key for key in actual if key[0] == ELEMENT} - _keys(found.values())
    if unwanted:  # of an event that has begun meanwhile, perhaps: its document comes first
        unwanted -= _keys(documents.all())
    theirs: dict[str, list[Change]] = {}
    for key in sorted(unwanted):
        change = Change(Item(*key, None), actual[key])
        theirs.setdefault(key[2].split()[0], []).append(change)
    # A NIC whose document was lost; beside its own elements it may have some by other names.
    lost = {
        one for one in theirs if (ELEMENT, NICS, one) in actual and one in indexes
    } - found.keys()
    for interface, undo in theirs.items():
        document = found.get(interface)
        if interface in lost or (lost and document is None and interface in indexes):
            # Its filters are better than none.
            statement = "the state document of a NIC was lost: take it down and up again"
            yield _Suspect(interface, None, [statement])
        else:
            count = f"{len(undo)} elements" if len(undo) > 1 else "an element"
            yield _Suspect(interface, document, [f"{count} in nftables for nothing"], undo=undo)


def _settle(suspects: Sequence[_Suspect], engine: Engine, *, check: bool) -> Iterator[Finding]:
    """Repair together, unless it is only to be ``check``-ed, what is found wrong once more."""
    with engine.locked(*{suspect.interface for suspect in suspects}):
        mine = _confirmed(suspects, engine)
        if check:
            for suspect in mine:
                yield from suspect.findings(repaired=False)
            return
        try:
            _apply(mine, engine)
        except NetworkError:
            for suspect in mine:
                try:
                    _apply([suspect], engine)
                except NetworkError as error:
                    yield from suspect.findings(repaired=False, error=str(error))
                else:
                    yield from suspect.findings(repaired=suspect.repairable)
        else:
            for suspect in mine:
                yield from suspect.findings(repaired=suspect.repairable)


def _confirmed(suspects: Sequence[_Suspect], engine: Engine) -> list[_Suspect]:
    """What of it is so now that no event is under way, the locks being held.

    Of an interface that is to be forgotten nothing changes while its document does not.
    """
    same = [one for one in suspects if _unchanged(one, engine.documents)]
    doubtful = {one.interface for one in same if not one.forget}
    if not doubtful:
        return same
    found = {document.interface: document for document in engine.documents.all()}
    again = [one for one in _suspects(found, engine) if one.interface in doubtful]
    sure = [one for one in same if one.forget]
    return sure + [one for one in again if not one.forget]


def _unchanged(suspect: _Suspect, documents: Documents) -> bool:
    try:
        return documents.read(suspect.interface) == suspect.document
    except NetworkError:
        return False


def _apply(suspects: Sequence[_Suspect], engine: Engine) -> None:
    undo = [change for suspect in suspects for change in suspect.undo]
    do = [change for suspect in suspects for change in suspect.do]
    for gate, changes in Difference(undo, do, frozenset()).steps():
        engine.kernel.apply(gate, changes)
    common = [
        change
        for suspect in suspects
        # What is nobody's may have become somebody's.
        for change in (shared(suspect.undo, suspect.interface) if suspect.forget else suspect.undo)
    ]
    engine.give_back(common, {suspect.interface for suspect in suspects})
    for suspect in suspects:
        if suspect.forget:
            engine.documents.remove(suspect.interface)
