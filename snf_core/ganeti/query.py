"""Ganeti's configuration, asked over the socket through which its own commands ask it.

ganeti-luxid answers there, on the master alone. A message is a JSON document of one line's notation
ended by the byte 3 (``ganeti.rpc``); what may be asked is in ``ganeti.query``, and what is answered
comes with a status for each value. Nothing is locked for it, and no other node is asked: an answer
takes about a millisecond.

ganeti-confd, which answers on more nodes, is of no use here: none of its requests is for the NICs
of an instance by its name (CONFD_REQ_* in ``ganeti.constants``), and all that it knows of all
instances does not fit into a datagram. Where nobody answers, a hook has been there before: see
``hooks.PREPARATIONS``.
"""

from __future__ import annotations

import json
import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snf_core import model
from snf_core.errors import InvalidValueError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Ask = Callable[[str, Sequence[object]], object]
    """What takes a method and its arguments, and returns the result."""

SOCKET = Path("/run/ganeti/socket/ganeti-query")

_TIMEOUT = 5.0
"""Seconds for all questions. Xen gives a whole NIC event 40."""
_LONGEST = 1 << 20
"""Bytes of an answer. A NIC takes some 500, an instance has eight at most, as Ganeti is set up."""
_END = b"\x03"

_NORMAL, _UNAVAILABLE = 0, 3

_NIC = {
    "MAC": "nic.macs",
    "IP": "nic.ips",
    "INTERFACE_NAME": "nic.names",
    "INTERFACE_UUID": "nic.uuids",
    "NETWORK_UUID": "nic.networks",
    "NETWORK_NAME": "nic.networks.names",
}
"""Ganeti's lists with a value for each NIC, by the variables of NIC scripts."""

_OWN = "custom_nicparams"
_PARAMETERS = {"MODE": "mode", "LINK": "link", "VLAN": "vlan"}
"""What a NIC has from the cluster, unless it has its own. Only a NIC of mode openvswitch is told
its VLAN in one of the lists."""

_NETWORK = {
    "NETWORK_UUID": "uuid",
    "NETWORK_SUBNET": "network",
    "NETWORK_GATEWAY": "gateway",
    "NETWORK_SUBNET6": "network6",
    "NETWORK_GATEWAY6": "gateway6",
    "NETWORK_MAC_PREFIX": "mac_prefix",
    "NETWORK_TAGS": "tags",
}


def nic(instance: str, index: int, place: Path = SOCKET) -> dict[str, str]:
    """What Ganeti would tell a NIC script of an instance's NIC, as it is configured now.

    That is INTERFACE_INDEX, MAC and so on (see ``variables.script_nic``), and the instance's TAGS.
    ``place`` is Ganeti's socket. Raises NetworkError where Ganeti cannot be asked on this node,
    does not know the NIC, or gives no answer that makes sense.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(str(place))
            return told(instance, index, connection)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NetworkError(
                f"Ganeti's configuration cannot be asked on this node: nobody answers at {place}"
            ) from error
        except TimeoutError as error:
            raise NetworkError(f"Ganeti does not answer within {_TIMEOUT:g} s") from error
        except OSError as error:
            raise NetworkError(f"{place}: {error.strerror}") from error


def told(instance: str, index: int, connection: socket.socket) -> dict[str, str]:
    """The same, of Ganeti at the other end of ``connection``.

    Raises OSError, TimeoutError above all, and NetworkError.
    """
    ask = partial(_asked, connection, time.monotonic() + _TIMEOUT)
    found = _one(ask, "instance", instance, ["name", "tags", _OWN, *_NIC.values()])
    if found["name"] != instance:
        # It completes abbreviated names.
        raise NetworkError(f"Ganeti knows no instance {instance}, but {found['name']!r}")
    values = {"TAGS": _tags(found["tags"]), "INTERFACE_INDEX": str(index)}
    for variable, field in _NIC.items():
        values[variable] = _text(field, _item(field, found[field], index, instance))
    parameters = _cluster_parameters(ask) | _mapping(_item(_OWN, found[_OWN], index, instance))
    for variable, field in _PARAMETERS.items():
        values[variable] = _text(field, parameters.get(field))
    network = values["NETWORK_NAME"]
    if network:
        found = _one(ask, "network", network, list(_NETWORK.values()))
        if found["uuid"] != values["NETWORK_UUID"]:
            raise NetworkError(f"Ganeti's network {network} is not the one of the NIC any more")
        for variable, field in _NETWORK.items():
            value = found[field]
            values[variable] = _tags(value) if field == "tags" else _text(field, value)
    return values


def _one(ask: Ask, kind: str, name: str, fields: Sequence[str]) -> dict[str, Any]:
    """The fields of the instance or network that is called so; None for what it has not got."""
    match ask("Query", [kind, list(fields), ["=", "name", name]]):
        case {"data": [row]} if isinstance(row, list) and len(row) == len(fields):
            return {field: _value(field, cell) for field, cell in zip(fields, row, strict=True)}
        case {"data": []}:
            raise NetworkError(f"Ganeti knows no {kind} {name}")
    raise _nonsense()


def _cluster_parameters(ask: Ask) -> dict[str, Any]:
    """The NIC parameters of which NICs need not have their own."""
    match ask("QueryClusterInfo", []):
        case {"nicparams": {"default": parameters}}:
            return _mapping(parameters)
    raise _nonsense("the cluster")


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _nonsense("NIC parameters")
    return value


def _value(field: str, cell: object) -> Any:
    match cell:
        case [status, value] if status == _NORMAL:
            return value
        case [status, _] if status == _UNAVAILABLE:
            return None
        case [int(), _]:
            raise NetworkError(f"this Ganeti does not tell {field}")
    raise _nonsense()


def _item(field: str, values: object, index: int, instance: str) -> object:
    if not isinstance(values, list):
        raise _nonsense(field)
    if index >= len(values):
        raise NetworkError(f"Ganeti knows no NIC {index} of {instance}")
    return values[index]


def _text(field: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _nonsense(field)
    return value


def _tags(value: object) -> str:
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise _nonsense("tags")
    try:
        return " ".join(sorted(map(model.tag, value)))
    except InvalidValueError as error:
        raise NetworkError(f"Ganeti's answer: {error.message}") from error


def _asked(
    connection: socket.socket, end: float, method: str, arguments: Sequence[object]
) -> object:
    """The result of a call. Raises OSError; NetworkError where it has none, with the reason."""
    request = json.dumps({"method": method, "args": arguments}).encode() + _END
    try:
        answer = json.loads(_exchanged(connection, end, request))
    except (ValueError, RecursionError) as error:
        raise _nonsense() from error
    match answer:
        case {"success": True, "result": result}:
            return result
        case {"success": False, "result": reason}:
            raise NetworkError(f"Ganeti refuses to tell: {_reason(reason)}")
    raise _nonsense()


def _reason(result: object) -> str:
    """Ganeti's errors are a kind and arguments, the first of which says what is wrong."""
    match result:
        case [str(), [str(words), *_]] | str(words):
            return words
    return "it does not say why"


def _exchanged(connection: socket.socket, end: float, request: bytes) -> bytes:
    """Send a message and return the one that comes back until ``end`` (of ``time.monotonic``).

    Raises OSError, ValueError.
    """
    connection.sendall(request)
    answer = bytearray()
    while not answer.endswith(_END):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(1 << 16)
        answer += piece
        if not piece or len(answer) > _LONGEST:
            raise ValueError("not a whole message")
    return bytes(answer.removesuffix(_END))


def _nonsense(field: str = "") -> NetworkError:
    about = f" about {field}" if field else ""
    return NetworkError(f"Ganeti's answer{about} cannot be understood")
