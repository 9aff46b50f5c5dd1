"""The VLANs of a port, in Ganeti's notation and in that of ``network.state``.

A port has at most one VLAN whose frames it exchanges untagged, and any number whose frames are
tagged there (IEEE 802.1Q). One with only the first is an access port, one with the others a trunk.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from snf_core.errors import InvalidValueError

_GANETI = re.compile(r"(\.?(?P<untagged>[0-9]{1,4}))?(?P<tagged>(:[0-9]{1,4})*)")
_STATE = re.compile(r"(untagged (?P<untagged>[0-9]{1,4}))?\s?(tagged (?P<tagged>[0-9,]+))?")


class Vlans(NamedTuple):
    """VLAN numbers, 1 to 4094."""

    untagged: int | None = None
    tagged: tuple[int, ...] = ()

    def __str__(self) -> str:
        """As items of a state have it: ``untagged 100 tagged 200,300``."""
        words = []
        if self.untagged is not None:
            words.append(f"untagged {self.untagged}")
        if self.tagged:
            words.append("tagged " + ",".join(map(str, self.tagged)))
        return " ".join(words)


def from_ganeti(text: str) -> Vlans:
    """What a NIC asks for (man gnt-instance): ``100`` or ``.100``, ``:200:300``, ``.100:200``.

    Empty for none. Raises InvalidValueError.
    """
    found = _GANETI.fullmatch(text)
    numbers = [int(number) for number in re.findall("[0-9]+", text)]
    if (
        found is None
        or not all(1 <= number <= 4094 for number in numbers)
        or len(set(numbers)) != len(numbers)
    ):
        raise InvalidValueError(
            f"{text!r} is not what the VLANs of a NIC are written as",
            remedy="expected .100 (untagged), :200:300 (tagged) or .100:200 (both), each number "
            "from 1 to 4094 and once",
        )
    untagged = int(found["untagged"]) if found["untagged"] else None
    return Vlans(untagged, tuple(sorted(set(numbers) - {untagged})))


def from_state(text: str) -> Vlans:
    """The inverse of ``str``. Raises InvalidValueError."""
    found = _STATE.fullmatch(text)
    if found is None:
        raise InvalidValueError(f"{text!r} is not what the VLANs of a port are written as")
    untagged, tagged = found["untagged"], found["tagged"]
    return Vlans(
        int(untagged) if untagged else None,
        tuple(int(number) for number in tagged.split(",")) if tagged else (),
    )
