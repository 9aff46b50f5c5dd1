"""Interfaces that get another name when they are wired, as Xen's option ``vifname`` asks for.

All that is kept of such an interface goes by its new name, by which people and the kernel know it;
the hypervisor still says the old one when it goes.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from snf_core.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.model import NicEvent
    from snf_core.network.document import Document, Documents
    from snf_core.network.links import Links

LOG = logging.getLogger(__name__)


def called(document: Document) -> str:
    """What the hypervisor calls the interface of a document."""
    return document.event.get("called") or document.interface  # earlier documents do not say


def known(event: NicEvent, documents: Documents) -> NicEvent:
    """``event``, with the name that the interface was given here if it has one."""
    if event.rename or event.interface in documents.interfaces():
        return event
    for one in documents.about({event.interface}):
        if one.interface != event.interface and called(one) == event.interface:
            return replace(event, rename=one.interface)
    return event


@contextlib.contextmanager
def renamed(event: NicEvent, previous: Document | None, links: Links) -> Iterator[None]:
    """In the block the interface has its final name, and keeps it unless the block fails.

    ``previous`` is the document by that name: it tells an interface that has been given it before.
    Raises NetworkError.
    """
    old, new = event.interface, event.final_name
    if new == old or (previous and called(previous) == old and links.get(old) is None):
        yield
        return
    if links.get(old) is None:
        raise NetworkError(
            f"{old} does not exist in this network namespace",
            remedy="it must be made before it is wired",
        )
    links.rename(old, new)
    try:
        yield
    except BaseException:
        restore(event, links)
        raise


def restore(event: NicEvent, links: Links) -> None:
    """Give an interface that is still there the name that the hypervisor calls it by."""
    if event.rename and links.get(event.rename) is not None:
        try:
            links.rename(event.rename, event.interface)
        except NetworkError as error:
            LOG.error("%s", error)
