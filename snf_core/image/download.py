"""A program that fetches one URL as nobody in particular: ``python -I -m snf_core.image.download``.

It is started as root with a JSON object on standard input, ``{"url": str, "what": str, "allowed":
[str], "uid": int, "gid": int}``, becomes that user for good, and answers on standard output: a
line ``{"error": NAME or null, "message": str, "remedy": str}`` with the name of a class of
``snf_core.errors``, and behind it what was fetched.

A host's name is resolved once, each of its addresses judged, and one of those connected to: an
answer that is another the next time (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import resource
import socket
import ssl
import sys
from typing import TYPE_CHECKING

from snf_core.errors import FetchError, InvalidValueError, SnfError
from snf_core.image import addresses, confinement, web
from snf_core.image.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from snf_core.image.addresses import Address, Allowed
    from snf_core.image.web import Target

LIMIT = 1 << 20
"""Bytes that are fetched at most."""
REDIRECTS = 3
_PATIENCE = 10.0
"""Seconds without a byte; how long all may take is our parent's business."""
_REDIRECTING = frozenset([301, 302, 303, 307, 308])
_BOUNDS = (
    (resource.RLIMIT_AS, 512 << 20),
    (resource.RLIMIT_CPU, 30),
    (resource.RLIMIT_NPROC, 1),
    (resource.RLIMIT_NOFILE, 64),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_CORE, 0),
)
"""Enough to fetch, and for nothing else: no process, no file (setrlimit(2))."""


def main() -> None:
    """Read the request, fetch, and answer."""
    content = b""
    error, message, remedy = None, "", ""
    try:
        request = json.loads(sys.stdin.buffer.read())
        _confine(Identity(request["uid"], request["gid"], ()))
        what = request["what"]
        target = web.parse(request["url"], what)
        content = download(target, addresses.allowed(request["allowed"]), what)
    except SnfError as problem:
        error, message, remedy = type(problem).__name__, problem.message, problem.remedy
    except Exception as problem:  # whatever it is, our parent waits for an answer
        # Not its text, which may hold the URL.
        error, message = "FetchError", f"internal error: {type(problem).__name__}"
    header = json.dumps({"error": error, "message": message, "remedy": remedy})
    sys.stdout.buffer.write(header.encode() + b"\n" + content)
    sys.stdout.buffer.flush()


def _confine(identity: Identity) -> None:
    os.chdir("/")
    os.umask(0o077)
    for kind, value in _BOUNDS:
        resource.setrlimit(kind, (value, value))
    confinement.become(identity)
    confinement.die_with_parent()


def download(target: Target, allowed: Allowed, what: str) -> bytes:
    """What lies behind a URL, redirections followed. ``what`` begins messages.

    Raises InvalidValueError for what is not to be reached, FetchError for what cannot be.
    """
    for _ in range(REDIRECTS + 1):
        found = _get(target, allowed, what)
        if isinstance(found, bytes):
            return found
        target = found
    raise FetchError(
        f"{what}: {target.shown} is the end of more than {REDIRECTS} redirections",
        remedy="give the URL that they lead to",
    )


def _get(target: Target, allowed: Allowed, what: str) -> bytes | Target:
    """The content, or where it is instead."""
    where = f"{what}: {target.shown}"
    chosen = reachable(target, allowed, _resolved(target, where), where)
    try:
        with _connected(target, chosen) as connection:
            # It makes the header Host, and opens nothing: what it speaks to is there already.
            asked = http.client.HTTPConnection(target.host, target.port)
            asked.default_port = 443 if target.secure else 80
            asked.sock = connection
            headers = {"Accept": "*/*", "Connection": "close", "User-Agent": "snf"}
            if target.authorization:
                headers["Authorization"] = target.authorization
            asked.request("GET", target.path, headers=headers)
            with asked.getresponse() as response:
                location = response.headers.get("Location")
                if response.status in _REDIRECTING and location:
                    return web.redirected(target, location, what)
                return _content(response, where)
    except ssl.SSLCertVerificationError as error:
        raise FetchError(
            f"{where}: its certificate is not valid: {error.verify_message}",
            remedy="repair the server's certificate; the node knows the authorities in its "
            "/etc/ssl/certs",
        ) from error
    except http.client.HTTPException as error:
        raise FetchError(
            f"{where}: it does not answer as a web server does",
            remedy="give the URL of a file on a web server",
        ) from error
    except OSError as error:
        reason = "it does not answer" if isinstance(error, TimeoutError) else error.strerror
        raise FetchError(
            f"{where}: {reason or type(error).__name__}", remedy="see to it that it answers"
        ) from error


def _resolved(target: Target, where: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError(
            f"{where}: the host's name has no address", remedy="correct the URL"
        ) from error
    # Without the scope of a link-local address, which is none to go to anyway.
    texts = [str(place[0]).partition("%")[0] for _, _, _, _, place in found]
    return [ipaddress.ip_address(text) for text in dict.fromkeys(texts)]


def reachable(
    target: Target,
    allowed: Allowed,
    resolved: Sequence[Address],
    where: str,
    own: Callable[[Address], bool] = addresses.own,
) -> Sequence[Address]:
    """The addresses of a host, all of them. Raises InvalidValueError if any may not be reached.

    Which address it is is not said: that would tell strangers how our networks are laid out.
    """
    if allowed.host(target.host) or all(
        allowed.address(one) or (addresses.public(one) and not own(one)) for one in resolved
    ):
        return resolved
    raise InvalidValueError(
        f"{where}: the host is not on the public Internet, and nothing else is fetched from",
        remedy="give the URL of a public server, or have the operator list this one in [image] "
        "fetch_hosts",
    )


def _connected(target: Target, resolved: Sequence[Address]) -> socket.socket:
    """A connection to the first address that answers, with TLS where it is asked for."""
    problem: OSError | None = None
    for address in resolved:
        try:
            plain = socket.create_connection((str(address), target.port), _PATIENCE)
        except OSError as error:
            problem = error
            continue
        if not target.secure:
            return plain
        context = ssl.create_default_context()
        # An end that TLS does not announce may be somebody else's doing.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        return context.wrap_socket(plain, server_hostname=target.host, suppress_ragged_eofs=False)
    raise problem or OSError("the host has no address")


def _content(response: http.client.HTTPResponse, where: str) -> bytes:
    if response.status != http.client.OK:
        raise FetchError(
            f"{where}: the server answers with status {response.status}",
            remedy="correct the URL, or what the server lets through",
        )
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchError(
            f"{where}: the server compresses what nobody wants compressed",
            remedy="have it serve the file as it is",
        )
    content = response.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise FetchError(
            f"{where}: what lies there has more than {LIMIT} bytes", remedy="give a smaller file"
        )
    # Where the server said how much there is, http.client does not mind less when it is asked for
    # a number of bytes.
    if response.length:
        raise FetchError(f"{where}: the answer ends before its end", remedy="try again")
    return content


if __name__ == "__main__":
    main()
