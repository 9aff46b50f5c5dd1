"""The host's network interfaces, over rtnetlink(7). The only module that imports pyroute2.

Importing anything of pyroute2 imports all of it, some 0.1 s: it happens when the first question
is asked. Nothing is listed: links are asked for by name, so the cost does not grow with the
number of NICs on the node.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from snf_core.errors import NetworkError
from snf_core.network.node import Link

if TYPE_CHECKING:
    from types import TracebackType

    from snf_core.network.state import Value

_IFF_UP = 1  # linux/if.h

_REMEDIES = {
    errno.EPERM: "run it as root",
    errno.EACCES: "run it as root",
    errno.EINVAL: "the device or its driver does not accept this value",
    errno.ERANGE: "the device or its driver does not accept this value",
    errno.ENODEV: "it disappeared while it was being wired",
}


class Links:
    """One rtnetlink socket, opened when first used, in the network namespace of that moment.

    A context manager. Made anew for each event: it remembers the number of each link it has met.
    """

    def __init__(self) -> None:
        self._socket: Any = None
        self._indexes: dict[str, int] = {}

    def __enter__(self) -> Links:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def get(self, name: str) -> Link | None:
        """The link ``name`` as it is now, or None where there is none. Raises NetworkError."""
        message = self._get(ifname=name)
        if message is None:
            self._indexes.pop(name, None)
            return None
        self._indexes[name] = message["index"]
        information = message.get_attr("IFLA_LINKINFO")
        master = message.get_attr("IFLA_MASTER")
        above = self._get(index=master) if master else None
        return Link(
            index=message["index"],
            name=name,
            kind=(information.get_attr("IFLA_INFO_KIND") if information else "") or "",
            mtu=message.get_attr("IFLA_MTU"),
            up=bool(message["flags"] & _IFF_UP),
            address=message.get_attr("IFLA_ADDRESS") or "",
            master=above.get_attr("IFLA_IFNAME") if above is not None else None,
        )

    def set(self, name: str, attribute: str, value: Value) -> None:
        """Set ``address``, ``mtu``, ``master`` or ``up`` (see ``network.state``) of a link.

        One request per attribute: the kernel does not undo a request that fails half-way, and
        so the error says which attribute it was.

        Raises NetworkError naming the link.
        """
        if attribute == "master":
            wanted: dict[str, Any] = {"master": self._index(value) if value else 0}
        elif attribute == "up":
            wanted = {"state": "up" if value else "down"}
        else:
            wanted = {attribute: value}
        try:
            self._request("set", index=self._index(name), **wanted)
        except OSError as error:
            raise _failure(f"{name}: {attribute} cannot be set to {value}", error) from error

    def _index(self, name: Value) -> int:
        if name not in self._indexes and self.get(str(name)) is None:
            raise NetworkError(f"{name} does not exist", remedy=_REMEDIES[errno.ENODEV])
        return self._indexes[str(name)]

    def _get(self, **selector: Any) -> Any:
        try:
            return self._request("get", **selector)[0]
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise _failure(
                f"{', '.join(map(str, selector.values()))}: unreadable", error
            ) from error

    def _request(self, command: str, **arguments: Any) -> Any:
        """Raises OSError."""
        from pyroute2.iproute.linux import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            if self._socket is None:
                self._socket = IPRoute()
            return self._socket.link(command, **arguments)
        except NetlinkError as error:
            raise OSError(error.code, error.args[1]) from error


def _failure(what: str, error: OSError) -> NetworkError:
    return NetworkError(
        f"{what}: {error.strerror}", remedy=_REMEDIES.get(error.errno or 0, "see the kernel's log")
    )
