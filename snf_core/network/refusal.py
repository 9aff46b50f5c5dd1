"""What the kernel refuses over rtnetlink, as errors that name the item and the remedy."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from snf_core.errors import NetworkError
from snf_core.network.state import LINK

if TYPE_CHECKING:
    from snf_core.network.netlink import Answer
    from snf_core.network.state import Item, Value

REMEDIES = {
    errno.EPERM: "run it as root",
    errno.EACCES: "run it as root",
    errno.EINVAL: "the device or its driver does not accept this value",
    errno.ERANGE: "the device or its driver does not accept this value",
    errno.ENODEV: "it disappeared while it was being wired",
    errno.ENETDOWN: "the interface must be up before it gets a route",
    errno.ENETUNREACH: "the gateway must be reachable by the interface in this routing table",
    errno.EOPNOTSUPP: "the device or this kernel cannot do that",
    errno.EAFNOSUPPORT: "this kernel is without IPv6",
    errno.ENOBUFS: "the node is short of memory",
}


def held(item: Item, found: Value) -> NetworkError:
    """A route that is not made, since ``found`` is what the prefix goes to."""
    table = item.attribute.split(" ")[0]
    return NetworkError(
        f"{item.object} of table {table} already goes to {str(found).removeprefix('dev ')}",
        remedy="another NIC has this address: change one of them; or remove the route "
        f"(ip route del {item.object} table {table}) where nothing needs it",
    )


def refused(item: Item, answer: Answer) -> NetworkError:
    """A change that the kernel does not make."""
    what = f"{item} cannot be made"
    if item.value is None:
        what = f"{item.kind} {item.object} {item.attribute} cannot be removed"
    if item.kind == LINK:
        what = f"{item.object}: {item.attribute} cannot be set to {item.value}"
    return failure(what, answer.error, answer.reason)


def failure(what: str, number: int, reason: str = "") -> NetworkError:
    """What failed, the errno, and the kernel's own words."""
    said = f" ({reason})" if reason else ""
    return NetworkError(
        f"{what}: {os.strerror(number)}{said}",
        remedy=REMEDIES.get(number, "see the kernel's log"),
    )
