"""The URIs by which QEMU names disks (qemu(1), DEVICE URL SYNTAX), as descriptions of block nodes.

QEMU itself would take far more than a disk for a file name: options behind commas, whole JSON
documents, local files, and formats that it guesses. Here a URI is parsed strictly, and QEMU gets
named fields, each of which is but a value (BlockdevOptions in the QEMU QMP Reference Manual).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from snf_core.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Callable

Node = dict[str, Any]

_SCHEME = re.compile(r"([a-z][a-z0-9+]*):(.+)")
_OLD_NBD = re.compile(
    r"(?:unix:(?P<path>/[^:]+)|(?P<host>[^:/]+|\[[0-9a-f:.]+\]):(?P<port>[0-9]{1,5}))"
    r"(?::exportname=(?P<export>.*))?"
)
_RBD = re.compile(
    r"(?:(?P<pool>[^/@:]+)/)?(?:(?P<namespace>[^/@:]+)/)?(?P<image>[^/@:]+)"
    r"(?:@(?P<snapshot>[^/@:]+))?(?::(?P<options>.*))?"
)
_PASSWORD = re.compile(r"(//[^/@:%]*)[:%][^/]*@")
_RBD_KEYS = {"id": "user", "conf": "conf"}
"""Options of Ceph that QEMU takes, and their names there; others belong in ceph.conf."""
_NBD_PORT, _SSH_PORT, _GLUSTER_PORT, _ISCSI_PORT = 10809, 22, 24007, 3260


def node(uri: str, *, writable: bool) -> Node:
    """The node of QEMU's that ``uri`` stands for, without its format.

    Raises DiskError naming the URI and what is wrong with it.
    """
    named = shown(uri)
    found = _SCHEME.fullmatch(uri)
    parse = _PARSERS.get(found[1]) if found else None
    if parse is None or found is None:
        raise DiskError(
            f"disk {named}: there is no way to reach it",
            remedy="give a URI of " + ", ".join(sorted(_PARSERS)),
        )
    if parse is _web and writable:
        raise DiskError(
            f"disk {named} cannot be written: QEMU only reads {found[1]}",
            remedy="use this URI for exports alone",
        )
    try:
        return parse(uri, found[2])
    except ValueError as error:
        raise DiskError(
            f"disk {named} cannot be opened: {error}",
            remedy="correct the URI; see DEVICE URL SYNTAX in qemu(1)",
        ) from error


def served(uri: str) -> bool:
    """Whether ``uri`` is of a kind that is known here."""
    found = _SCHEME.fullmatch(uri)
    return found is not None and found[1] in _PARSERS


def shown(uri: str) -> str:
    """``uri`` without a password that it may hold, for messages."""
    return _PASSWORD.sub(r"\1:********@", uri)


def _nbd(uri: str, rest: str) -> Node:
    if not rest.startswith("//"):
        old = _OLD_NBD.fullmatch(rest)
        if not old:
            raise ValueError("it is not nbd:HOST:PORT or nbd:unix:PATH")
        if old["path"]:
            server = {"type": "unix", "path": old["path"]}
        else:
            server = _inet(old["host"].strip("[]"), int(old["port"]))
        return {"driver": "nbd", "server": server, "export": old["export"] or ""}
    parts, query = _split(uri, ("socket",) if uri.startswith("nbd+unix:") else ())
    return {
        "driver": "nbd",
        "server": _server(parts, query, _NBD_PORT),
        "export": unquote(parts.path.removeprefix("/")),
    }


def _ssh(uri: str, _rest: str) -> Node:
    parts, query = _split(uri, ("host_key_check",))
    made: Node = {
        "driver": "ssh",
        "server": {"host": _host(parts), "port": str(parts.port or _SSH_PORT)},
        "path": _path(parts),
    }
    if parts.username:
        made["user"] = unquote(parts.username)
    check = query.get("host_key_check", "yes")
    if check not in {"yes", "no"}:
        raise ValueError("host_key_check is neither yes nor no")
    made["host-key-check"] = {"mode": "known_hosts" if check == "yes" else "none"}
    return made


def _iscsi(uri: str, _rest: str) -> Node:
    parts, _ = _split(uri, ())
    found = re.fullmatch(r"/([^/]+)/([0-9]{1,5})", parts.path)
    if not found:
        raise ValueError("it is not iscsi://HOST/TARGET/LUN")
    host = _host(parts)
    address = f"[{host}]" if ":" in host else host
    made: Node = {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": f"{address}:{parts.port or _ISCSI_PORT}",
        "target": unquote(found[1]),
        "lun": int(found[2]),
    }
    if parts.username:
        made["user"] = unquote(parts.username)
    return made


def _gluster(uri: str, _rest: str) -> Node:
    parts, query = _split(uri, ("socket",) if uri.startswith("gluster+unix:") else ())
    found = re.fullmatch(r"/([^/]+)/(.+)", unquote(parts.path))
    if not found:
        raise ValueError("it is not gluster://HOST/VOLUME/PATH")
    return {
        "driver": "gluster",
        "volume": found[1],
        "path": found[2],
        "server": [_server(parts, query, _GLUSTER_PORT)],
    }


def _rbd(_uri: str, rest: str) -> Node:
    # A backslash before a character takes its meaning away; no name that we take holds one.
    found = _RBD.fullmatch(rest)
    if "\\" in rest or not found:
        raise ValueError("it is not rbd:POOL/IMAGE")
    made: Node = {"driver": "rbd", "pool": found["pool"] or "rbd", "image": found["image"]}
    for name in ("namespace", "snapshot"):
        if found[name]:
            made[name] = found[name]
    for option in filter(None, (found["options"] or "").split(":")):
        key, _, value = option.partition("=")
        if key not in _RBD_KEYS or not value:
            raise ValueError(f"option {key} is not served: put it into ceph.conf")
        made[_RBD_KEYS[key]] = value
    return made


def _web(uri: str, _rest: str) -> Node:
    parts = urlsplit(uri)
    _host(parts)
    if parts.username or parts.password:
        raise ValueError("it holds a user or a password")
    return {"driver": parts.scheme, "url": uri}


def _split(uri: str, known: tuple[str, ...]) -> tuple[SplitResult, dict[str, str]]:
    """The parts of a URI, and its query, which may hold ``known`` alone, each once."""
    parts = urlsplit(uri)
    if parts.password is not None or "%" in (parts.username or ""):
        raise ValueError("it holds a password, which everybody on the node could read")
    query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    for name, values in query.items():
        if name not in known or len(values) != 1:
            raise ValueError(f"its {name} is not understood")
    if parts.fragment:
        raise ValueError("it holds a fragment")
    return parts, {name: values[0] for name, values in query.items()}


def _server(parts: SplitResult, query: dict[str, str], port: int) -> Node:
    if not parts.scheme.endswith("+unix"):
        return _inet(_host(parts), parts.port or port)
    if parts.netloc or not query.get("socket", "").startswith("/"):
        raise ValueError("it names no socket (?socket=/PATH), or a host as well")
    return {"type": "unix", "path": query["socket"]}


def _inet(host: str, port: int) -> Node:
    return {"type": "inet", "host": host, "port": str(port)}


def _host(parts: SplitResult) -> str:
    if not parts.hostname:
        raise ValueError("it names no host")
    return parts.hostname


def _path(parts: SplitResult) -> str:
    if not parts.path.strip("/"):
        raise ValueError("it names no file")
    return unquote(parts.path)


_PARSERS: dict[str, Callable[[str, str], Node]] = {
    "nbd": _nbd,
    "nbd+tcp": _nbd,
    "nbd+unix": _nbd,
    "ssh": _ssh,
    "iscsi": _iscsi,
    "gluster": _gluster,
    "gluster+tcp": _gluster,
    "gluster+unix": _gluster,
    "rbd": _rbd,
    **dict.fromkeys(("http", "https", "ftp", "ftps"), _web),
}
