"""URLs of tenants: which of them are asked for at all, and how they are shown.

What a URL holds beside scheme, host and port is often secret: passwords, tokens. It is shown
nowhere.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from snf_core.errors import InvalidValueError, UnsupportedError

_LONGEST = 8000
"""Characters; many servers take no more in one line."""
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_PORT = re.compile(r"[0-9]{1,5}")
_PORTS = {"http": 80, "https": 443}
_LOWEST_PORT = 1024
"""Those below belong to other protocols, which might make something of a request of HTTP."""
_LARGEST_PORT = 65535


@dataclass(frozen=True)
class Target:
    """What is to be asked of whom."""

    secure: bool
    """Whether over TLS."""
    host: str
    """A name, or an address without brackets."""
    port: int
    path: str = field(repr=False)
    """With the query."""
    authorization: str = field(default="", repr=False)
    """The value of the header, made of the user and the password in the URL."""

    @property
    def shown(self) -> str:
        """Without anything that may be secret."""
        scheme = "https" if self.secure else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}" + ("" if self.port == _PORTS[scheme] else f":{self.port}")


def parse(url: str, what: str) -> Target:
    """The target of a URL. ``what`` is where it came from, for messages.

    Raises InvalidValueError, and UnsupportedError for schemes other than http and https.
    """
    from urllib.parse import urlsplit

    scheme = url.partition(":")[0].lower()
    if scheme == "file":
        raise InvalidValueError(
            f"{what}: a file:// URL would name a file of the node itself",
            remedy="put it on a server, and give a URL that begins with https:// or http://",
        )
    if scheme in {"ftp", "ftps"}:
        raise UnsupportedError(
            f"{what}: {scheme}:// is not served",
            remedy="give a URL that begins with https:// or http://",
        )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _wrong(what) from None
    account, _, place = parts.netloc.rpartition("@")
    host, port = _place(place, _PORTS.get(scheme, 0))
    if (
        not host
        or scheme not in _PORTS
        or len(url) > _LONGEST
        or not _PRINTABLE.fullmatch(url)
        or "\\" in parts.netloc
    ):
        raise _wrong(what)
    if port not in _PORTS.values() and not _LOWEST_PORT <= port <= _LARGEST_PORT:
        raise InvalidValueError(
            f"{what}: nothing is fetched from port {port}",
            remedy=f"use port 80 or 443, or one from {_LOWEST_PORT} on",
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(scheme == "https", host, port, path, _authorization(account))


def redirected(target: Target, location: str, what: str) -> Target:
    """Where an answer sends us that has this header. Raises as ``parse`` does.

    Never from https to http: what was asked for in secret is not asked for in the open.
    """
    from urllib.parse import urljoin

    try:
        joined = urljoin(target.shown + target.path, location)
    except ValueError:
        raise _wrong(what) from None
    found = parse(joined, what)
    if target.secure and not found.secure:
        raise InvalidValueError(
            f"{what}: {target.shown} leads from https to http",
            remedy="give a URL that stays with https",
        )
    return found


def _place(place: str, default: int) -> tuple[str, int]:
    """Host and port; an empty host for what is neither."""
    host, colon, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    if not colon:
        host, port = place, ""
    if not _HOST.fullmatch(host) or (port and not _PORT.fullmatch(port)):
        return "", 0
    return host.strip("[]"), int(port) if port else default


def _authorization(account: str) -> str:
    from urllib.parse import unquote_to_bytes

    if not account:
        return ""
    user, _, password = account.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return "Basic " + base64.b64encode(pair).decode()


def _wrong(what: str) -> InvalidValueError:
    return InvalidValueError(
        f"{what} is not a URL that can be fetched",
        remedy="give https://HOST/PATH, with the port behind the host where it is another",
    )
