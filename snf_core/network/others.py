"""What the state documents of other interfaces say about things that several may want."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.network.state import SYSCTL

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from snf_core.network.document import Document, Record
    from snf_core.network.engine import Engine
    from snf_core.network.state import Key, Value


class OtherDocuments:
    """The state documents of all interfaces but some (see ``difference.Others``)."""

    def __init__(self, interfaces: Collection[str], engine: Engine) -> None:
        """Those of ``interfaces`` are left out."""
        self._interfaces = interfaces
        self._engine = engine

    def made(self, keys: Collection[Key]) -> dict[Key, Value]:
        """See ``difference.Others``."""
        found: dict[Key, Value] = {}
        for _, record in self._records(keys):
            if record.before != record.item.value:
                found[record.item.key] = record.before
        return found

    def wanted(self, keys: Collection[Key]) -> set[Key]:
        """See ``difference.Others``."""
        return {
            record.item.key
            for document, record in self._records(keys)
            if self._engine.is_there(document)
        }

    def _records(self, keys: Collection[Key]) -> Iterator[tuple[Document, Record]]:
        if keys:
            # A sysctl is told by its path, everything else by its attribute: an address, a key.
            words = {key[1] if key[0] == SYSCTL else key[2] for key in keys}
            for document in self._engine.documents.about(words):
                if document.interface in self._interfaces or not document.identity.same_kernel():
                    continue
                for record in document.records:
                    if record.item.key in keys:
                        yield document, record
