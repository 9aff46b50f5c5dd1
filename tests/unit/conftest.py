"""Unit tests touch nothing outside the interpreter and temporary files: that is enforced here."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROCESSES = {"subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec"}
_SOCKETS = {"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"}


class ForbiddenError(BaseException):
    """A unit test did what unit tests must not. No ``except Exception`` can hide it."""


class _Guard:
    """An audit hook (PEP 578). Hooks cannot be removed, so this one is told when to act."""

    test = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.test:
            return
        remote = event == "socket.__new__" and arguments[1] not in {-1, socket.AF_UNIX}
        if remote or event in _PROCESSES | _SOCKETS:
            raise ForbiddenError(
                f"{self.test}: {event} in a unit test (a test that needs a process or a socket "
                "belongs into another directory of tests/)"
            )


_GUARD = _Guard()
sys.addaudithook(_GUARD)


@pytest.fixture(autouse=True)
def _nothing_outside(request: pytest.FixtureRequest) -> Iterator[None]:
    """No process is started and no socket but a socket pair is used."""
    _GUARD.test = request.node.nodeid
    yield
    _GUARD.test = ""
