"""The one way to change the kernel: wanted state, its difference to what is there, apply.

All or nothing: where a change fails, those made before it are taken back and the event fails.
What is about to be done stands in the interface's state document before the kernel is touched,
so that the next event takes back what an event that died has begun.

Nothing is taken back that somebody else has changed since: it is not ours any more.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from snf_core.errors import NetworkError
from snf_core.network.document import APPLIED, APPLYING, Document, Identity, Record, facts
from snf_core.network.node import Node
from snf_core.network.state import Item, Key, State, Value, merge
from snf_core.network.tags import promised

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from snf_core.contract import Setup
    from snf_core.model import NicEvent
    from snf_core.network.document import Documents
    from snf_core.network.links import Links

LOG = logging.getLogger(__name__)

_Change = tuple[Item, Item]
"""An item as it is, and as it shall be."""


def plan(event: NicEvent, setups: Mapping[str, Setup], node: Node) -> State:
    """What the NIC of ``event`` should have, from all of ``setups`` (by name) that apply to it.

    Touches nothing. Raises NetworkError where none applies, where they contradict each other,
    and where a tag promises what none of them does.
    """
    chosen = {name: setup for name, setup in setups.items() if setup.applies(event)}
    if not chosen:
        raise NetworkError(
            f"{event.interface}: no network setup in use serves {_described(event)}",
            remedy="; ".join(f"{name} serves {setup.serves()}" for name, setup in setups.items())
            or "name some in [network] setups",
        )
    for tag in sorted(promised(event)):
        if not any(setup.fulfils(tag) for setup in chosen.values()):
            raise NetworkError(
                f"{event.interface}: no network setup in use ({', '.join(chosen)}) does what the "
                f"tag {tag!r} promises",
                remedy="remove the tag, or add a setup that serves it to [network] setups",
            )
    return merge(setup.wanted(event, node).wanted_by(name) for name, setup in chosen.items())


def up(event: NicEvent, setups: Mapping[str, Setup], links: Links, documents: Documents) -> None:
    """Wire the NIC of ``event``; a second time changes nothing.

    What an earlier interface of the same name, or an event that did not end, has left is taken
    back first. Raises NetworkError, with the kernel as it was before.
    """
    with documents.locked(event.interface):
        link = links.get(event.interface)
        if link is None:
            raise NetworkError(
                f"{event.interface} does not exist in this network namespace",
                remedy="the hypervisor must make it before the event",
            )
        identity = Identity.of(link.index)
        previous = _standing(event.interface, identity, links, documents)
        wanted = plan(event, setups, Node(links))
        changes, records = _difference(wanted, previous, links)
        document = Document(event.interface, identity, APPLIED, facts(event), records)
        if changes or document != previous:
            _apply(changes, document, previous, links, documents)


def down(event: NicEvent, links: Links, documents: Documents) -> None:
    """Take back what ``up`` did for the interface of ``event``, where it still stands.

    An interface that is gone, or was never wired by us, is no error. Raises NetworkError where
    something cannot be taken back; the state document then stays.
    """
    with documents.locked(event.interface):
        _clear(event.interface, _read(event.interface, documents), links, documents)


def status(links: Links, documents: Documents, interface: str = "") -> list[dict[str, Any]]:
    """Wanted against actual for each wired interface, or for one. JSON-able, one object each:

    ``interface``, ``agrees`` (bool), and ``error`` (str) where its document cannot be read, else
    ``phase``, ``event`` (facts) and ``items``: kind, object, attribute, wanted, actual, setup.
    """
    found = []
    for name in documents.interfaces():
        if interface in {"", name}:
            try:
                document = documents.read(name)
            except NetworkError as error:
                found.append({"interface": name, "agrees": False, "error": str(error)})
                continue
            if document is not None:  # else it has been taken down meanwhile
                found.append(_status(document, links))
    return found


def _status(document: Document, links: Links) -> dict[str, Any]:
    present = _is_there(document, links)
    wanted = [one.item for one in document.records]
    actual = _actual(wanted, links) if present else {}
    return {
        "interface": document.interface,
        "agrees": present
        and document.phase == APPLIED
        and all(item.key in actual and actual[item.key] == item.value for item in wanted),
        "phase": document.phase,
        "event": dict(document.event),
        "items": [
            {
                "kind": item.kind,
                "object": item.object,
                "attribute": item.attribute,
                "wanted": item.value,
                "actual": actual.get(item.key),
                "setup": item.setup,
            }
            for item in wanted
        ],
    }


def _described(event: NicEvent) -> str:
    nic = event.nic
    if nic is None:
        return "a NIC of which nothing is known"
    tags = ", ".join(sorted(nic.network_tags)) or "none"
    return f"mode {nic.mode.value} (network tags: {tags})"


def _read(interface: str, documents: Documents) -> Document | None:
    """The interface's document; one that cannot be understood is as good as none."""
    try:
        return documents.read(interface)
    except NetworkError as error:
        LOG.warning("%s: %s", interface, error)
        return None


def _standing(
    interface: str, identity: Identity, links: Links, documents: Documents
) -> Document | None:
    """The document of this very interface, all applied. What any other says is taken back."""
    document = _read(interface, documents)
    if document and document.phase == APPLIED and document.identity == identity:
        return document
    _clear(interface, document, links, documents)
    return None


def _clear(interface: str, document: Document | None, links: Links, documents: Documents) -> None:
    """Take back what a document says and remove it. Raises NetworkError."""
    if document is not None:
        here = _is_there(document, links)
        # Of another interface by the same name, nothing is ours.
        records = [one for one in document.records if here or one.item.object != interface]
        failures = _attempt(_undoing(records, links), links)
        if failures:
            raise failures[0]
    documents.remove(interface)


def _is_there(document: Document, links: Links) -> bool:
    link = links.get(document.interface)
    return link is not None and Identity.of(link.index) == document.identity


def _actual(items: Sequence[Item], links: Links) -> dict[Key, Value]:
    """What the kernel holds for each item now, nothing for those whose object is not there."""
    objects = {item.object: links.get(item.object) for item in items}
    return {
        item.key: getattr(link, item.attribute)
        for item in items
        if (link := objects[item.object]) is not None
    }


def _difference(
    wanted: State, previous: Document | None, links: Links
) -> tuple[list[_Change], tuple[Record, ...]]:
    """The changes that lead to ``wanted``, and what the document is to keep of it.

    What ``previous`` has and ``wanted`` has otherwise is taken back first: a port must leave its
    bridge before it gets the MTU of another. Of the rest, ``previous`` knows better than the
    kernel what was there before us.
    """
    actual = _actual(wanted.items, links)
    for item in wanted.items:
        if item.key not in actual:
            raise NetworkError(f"{item.setup} wants {item}, which does not exist")
    records = previous.records if previous else ()
    values = {item.key: item.value for item in wanted.items}
    outdated = [one for one in records if values.get(one.item.key) != one.item.value]
    changes = _undoing(outdated, links)
    actual |= {new.key: new.value for _, new in changes}
    changes += [
        (replace(item, value=actual[item.key]), item)
        for item in wanted.items
        if actual[item.key] != item.value
    ]
    before = actual | {one.item.key: one.before for one in records}
    return changes, tuple(Record(item, before[item.key]) for item in wanted.items)


def _undoing(records: Sequence[Record], links: Links) -> list[_Change]:
    """The changes that take ``records`` back, where the kernel still holds what we set."""
    actual = _actual([one.item for one in records], links)
    return [
        (one.item, one.restored)
        for one in reversed(records)
        if one.item.key in actual and actual[one.item.key] == one.item.value != one.before
    ]


def _apply(
    changes: Sequence[_Change],
    document: Document,
    previous: Document | None,
    links: Links,
    documents: Documents,
) -> None:
    """Make all changes or none; in the end ``document`` stands, or else ``previous`` again."""
    # Half-way the kernel may hold what either of them says.
    outdated = [one for one in previous.records if one not in document.records] if previous else []
    under_way = replace(document, phase=APPLYING, records=(*document.records, *outdated))
    documents.write(under_way)
    done: list[_Change] = []
    try:
        for change in changes:
            done.append(change)
            _set(change[1], links)
        documents.write(document)
    except BaseException:
        failures = _attempt([(new, old) for old, new in reversed(done)], links)
        for failure in failures:
            LOG.error("%s: cannot be taken back: %s", document.interface, failure)
        if failures:  # the document stays as it is: the next event tries again
            raise
        if previous is None:
            documents.remove(document.interface)
        else:
            documents.write(previous)
        raise


def _attempt(changes: Iterable[_Change], links: Links) -> list[NetworkError]:
    """Make all changes that can be made. What failed on objects that are still there."""
    failures = []
    for _, new in changes:
        try:
            _set(new, links)
        except NetworkError as error:
            if links.get(new.object) is not None:
                failures.append(error)
    return failures


def _set(item: Item, links: Links) -> None:
    links.set(item.object, item.attribute, item.value)
