"""NICs that have two interfaces on the host (``model.Twin``), of which one goes for good.

A guest whose own drivers have taken over gives the emulated device up, and with it goes its tap:
that is as it should be, though nobody says so before the guest ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.model import Twin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from snf_core.network.document import Document


def given_up(gone: Iterable[Document], standing: Iterable[Document]) -> set[str]:
    """Those interfaces of ``gone`` that were emulated, and whose twins are ``standing``."""
    emulated = [one for one in gone if one.event.get("twin") == Twin.EMULATED.value]
    if not emulated:
        return set()
    others = {_nic(one) for one in standing if one.event.get("twin") == Twin.PARAVIRTUAL.value}
    return {one.interface for one in emulated if _nic(one) in others}


def _nic(document: Document) -> tuple[str, int]:
    return document.event["instance"], document.event["index"]
