"""Fetching what a tenant names by its URL, by a program that has no privileges and little time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from typing import TYPE_CHECKING

from snf_core.errors import DeadlineError, FetchError, InvalidValueError
from snf_core.image import identity, messages, web
from snf_core.run import PIPE, started

if TYPE_CHECKING:
    from snf_core.config import Config

TIMEOUT = 30.0
"""Seconds for all of it: names, connections, redirections, and the slowest of servers."""
_PAGE = (b"<!doctype html", b"<html")
_ANSWER_LIMIT = 2 << 20
"""Bytes of an answer, of which what was fetched is at most half."""


def fetch(url: str, what: str, config: Config, timeout: float = TIMEOUT) -> bytes:
    """What lies behind a tenant's URL. ``what`` says in messages where the URL is from.

    Only from the public Internet, and from what [image] fetch_hosts lists. Raises
    InvalidValueError, UnsupportedError, FetchError, DeadlineError, ApplianceError.
    """
    shown = web.parse(url, what).shown
    identities = identity.pool(config.appliance.user)
    locks = config.runtime() / "identities"
    with (
        identity.taken(identities, (), locks) as own,
        started(
            [sys.executable, "-I", "-m", "snf_core.image.download"], stdin=PIPE, stdout=PIPE
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        request = {
            "url": url,
            "what": what,
            "allowed": config.image.fetch_hosts,
            "uid": own.uid,
            "gid": own.gid,
        }
        with contextlib.suppress(BrokenPipeError):  # what became of it is seen when reading
            process.stdin.write(json.dumps(request).encode())
            process.stdin.close()
        answer = _read(process.stdout.fileno(), timeout, f"{what}: {shown}")
    return _content(answer, f"{what}: {shown}")


def no_page(content: bytes, what: str) -> bytes:
    """The content, unless it is a web page: that is what many servers give in place of a file
    that they do not have, or only after a login. Raises InvalidValueError.
    """
    if content.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE):
        raise InvalidValueError(
            f"{what}: a web page lies there, not a file to use",
            remedy="give the URL of the file itself, which anybody may fetch",
        )
    return content


def _read(descriptor: int, timeout: float, where: str) -> bytes:
    deadline = time.monotonic() + timeout
    answer = b""
    while len(answer) <= _ANSWER_LIMIT:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise DeadlineError(
                f"{where}: it was not fetched within {timeout:g} s", remedy="give a faster server"
            )
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            break
        answer += chunk
    return answer


def _content(answer: bytes, where: str) -> bytes:
    """What was fetched. Nothing that the program says is believed beyond its form."""
    header, newline, content = answer.partition(b"\n")
    try:
        result = json.loads(header) if newline and len(answer) <= _ANSWER_LIMIT else None
    except (ValueError, RecursionError):
        result = None
    if not isinstance(result, dict):
        raise FetchError(
            f"{where}: the program that fetches it died",
            remedy="look for killed processes in the node's kernel log, then deploy again",
        )
    messages.conclude(result)
    return content
