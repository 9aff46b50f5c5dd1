"""Wanted against actual, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snf_core.errors import NetworkError
from snf_core.model import Migration
from snf_core.network.document import APPLIED, Identity
from snf_core.network.state import shown
from snf_core.network.twins import given_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from snf_core.network.document import Document
    from snf_core.network.engine import Engine
    from snf_core.network.state import Key, Value


GIVEN_UP = "given up"


def status(engine: Engine, interface: str = "") -> list[dict[str, Any]]:
    """Wanted against actual for each interface that is wired, or for one. JSON-able, for each:

    ``interface``, ``agrees`` (bool), and ``error`` (str) where its document cannot be read, else
    ``phase`` (also ``given up``, see ``twins``), ``event`` (facts) and ``items``: kind, object,
    attribute, wanted, actual, setup.
    """
    found: list[dict[str, Any]] = []
    documents: list[Document] = []
    for name in engine.documents.interfaces():
        if interface in {"", name}:
            try:
                document = engine.documents.read(name)
            except NetworkError as error:
                found.append({"interface": name, "agrees": False, "error": str(error)})
                continue
            if document is not None:  # else it has been taken down meanwhile
                documents.append(document)
    if documents:
        records = [one.item for document in documents for one in document.records]
        actual, indexes = engine.kernel.snapshot(records)
        given = _given_up(documents, indexes, engine)
        found += [
            _status(document, indexes, actual, given=document.interface in given)
            for document in documents
        ]
    return sorted(found, key=lambda one: str(one["interface"]))


def planned(item: Mapping[str, Any]) -> str:
    """One item or announcement of a plan as text."""
    what = " ".join(item[name] for name in ("kind", "object", "attribute"))
    setup = f" ({item['setup']})" if item["setup"] else ""
    return f"{what} {shown(item['value'])}{setup}"


def text(found: Iterable[Mapping[str, Any]]) -> str:
    """What ``status`` found as text."""
    return "\n".join(line for one in found for line in lines(one))


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """One interface's status as text."""
    if "error" in found:
        yield f"{found['interface']}: {found['error']}"
        return
    state = "as wanted" if found["agrees"] else "NOT as wanted"
    instance = found["event"]["instance"]
    of = f" of {instance}" if instance else ""
    if found["event"].get("called"):
        of = f" ({found['event']['called']}){of}"
    if found["event"].get("migration") == Migration.PRE.value:  # earlier documents do not say
        state += ", waits for the end of a migration"
    yield f"{found['interface']}{of}: {found['phase']}, {state}"
    for item in found["items"]:
        actual = "" if item["actual"] == item["wanted"] else f", but is {shown(item['actual'])}"
        what = f"{item['kind']} {item['object']} {item['attribute']} {shown(item['wanted'])}"
        yield f"  {what} ({item['setup']}){actual}"


def _present(document: Document, indexes: Mapping[str, int]) -> bool:
    name = document.interface
    return name in indexes and document.identity == Identity.of(indexes[name])


def _given_up(
    documents: Sequence[Document], indexes: Mapping[str, int], engine: Engine
) -> set[str]:
    """Which of them are taps that their guests have given up (see ``twins``)."""
    gone = [one for one in documents if not _present(one, indexes)]
    instances = {one.event["instance"] for one in gone if one.event.get("twin")}
    standing = [one for instance in instances for one in engine.documents.of(instance)]
    return given_up(gone, filter(engine.is_there, standing))


def _status(
    document: Document,
    indexes: Mapping[str, int],
    actual: Mapping[Key, Value],
    *,
    given: bool,
) -> dict[str, Any]:
    if given:
        known = {"phase": GIVEN_UP, "event": dict(document.event), "items": []}
        return {"interface": document.interface, "agrees": True, **known}
    present = _present(document, indexes)
    wanted = [one.item for one in document.records]
    return {
        "interface": document.interface,
        "agrees": present
        and document.phase == APPLIED
        and all(actual.get(item.key) == item.value for item in wanted),
        "phase": document.phase,
        "event": dict(document.event),
        "items": [
            {
                "kind": item.kind,
                "object": item.object,
                "attribute": item.attribute,
                "wanted": item.value,
                "actual": actual.get(item.key) if present else None,
                "setup": item.setup,
            }
            for item in wanted
        ],
    }
