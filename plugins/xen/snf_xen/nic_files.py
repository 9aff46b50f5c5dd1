"""The files of an instance's NICs, written as Ganeti would, before the instance arrives.

Ganeti writes them where it starts an instance, and not where it migrates one to. It removes them
there all the same, when it stops the instance.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

from snf_core.errors import NetworkError
from snf_xen.description import GANETI

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from snf_core.model import Network, Nic


def write(
    instance: str, nics: Iterable[Nic], tags: frozenset[str], directory: Path = GANETI
) -> None:
    """Describe the NICs of ``instance``, and its ``tags``, below ``directory``.

    See ``description.by_ganeti``, which reads that. Raises NetworkError.
    """
    place = directory / instance
    try:
        place.mkdir(parents=True, exist_ok=True)
        for nic in nics:
            _replace(place / str(nic.index), "".join(f"{line}\n" for line in _lines(nic, tags)))
    except OSError as error:
        raise NetworkError(f"{place}: the NICs cannot be described: {error.strerror}") from error


def _lines(nic: Nic, tags: frozenset[str]) -> Iterator[str]:
    blank = r"\ "
    yield f'TAGS="{blank.join(sorted(tags))}"'
    if nic.network:
        yield from (f'NETWORK_{name}="{value}"' for name, value in _network(nic.network) if value)
    yield f"MAC={nic.mac}"
    if nic.ip:
        yield f"IP={nic.ip}"
    yield f"INTERFACE_INDEX={nic.index}"
    if nic.name:
        yield f"INTERFACE_NAME={nic.name}"
    yield f"INTERFACE_UUID={nic.uuid}"
    yield f"MODE={nic.mode.value}"
    yield f"LINK={nic.link}"
    yield f"VLAN={nic.vlan}"


def _network(network: Network) -> Iterator[tuple[str, object]]:
    yield "NAME", network.name
    yield "UUID", network.uuid
    yield "TAGS", " ".join(sorted(network.tags))
    yield "SUBNET", network.subnet
    yield "GATEWAY", network.gateway
    yield "SUBNET6", network.subnet6
    yield "GATEWAY6", network.gateway6
    yield "MAC_PREFIX", network.mac_prefix


def _replace(path: Path, text: str) -> None:
    """Whoever reads it meanwhile finds the old or the new. Raises OSError."""
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
