"""Wanted against actual, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snf_core.errors import NetworkError
from snf_core.model import Migration
from snf_core.network.document import APPLIED, Identity
from snf_core.network.state import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from snf_core.network.document import Document
    from snf_core.network.engine import Engine
    from snf_core.network.state import Key, Value


def status(engine: Engine, interface: str = "") -> list[dict[str, Any]]:
    """Wanted against actual for each interface that is wired, or for one. JSON-able, for each:

    ``interface``, ``agrees`` (bool), and ``error`` (str) where its document cannot be read, else
    ``phase``, ``event`` (facts) and ``items``: kind, object, attribute, wanted, actual, setup.
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
        found += [_status(document, indexes, actual) for document in documents]
    return sorted(found, key=lambda one: str(one["interface"]))


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """One interface's status as text."""
    if "error" in found:
        yield f"{found['interface']}: {found['error']}"
        return
    state = "as wanted" if found["agrees"] else "NOT as wanted"
    instance = found["event"]["instance"]
    of = f" of {instance}" if instance else ""
    if found["event"].get("migration") == Migration.PRE.value:  # earlier documents do not say
        state += ", waits for the end of a migration"
    yield f"{found['interface']}{of}: {found['phase']}, {state}"
    for item in found["items"]:
        actual = "" if item["actual"] == item["wanted"] else f", but is {shown(item['actual'])}"
        what = f"{item['kind']} {item['object']} {item['attribute']} {shown(item['wanted'])}"
        yield f"  {what} ({item['setup']}){actual}"


def _status(
    document: Document, indexes: Mapping[str, int], actual: Mapping[Key, Value]
) -> dict[str, Any]:
    name = document.interface
    present = name in indexes and document.identity == Identity.of(indexes[name])
    wanted = [one.item for one in document.records]
    return {
        "interface": name,
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
