"""Unit tests cannot leave the interpreter by accident."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.unit.conftest import ForbiddenError

if TYPE_CHECKING:
    from collections.abc import Callable


def _connect() -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("/nowhere")


@pytest.mark.parametrize(
    "escape",
    [
        lambda: subprocess.run([sys.executable, "-V"], check=False),
        lambda: os.system("true"),
        os.fork,
        lambda: socket.socket(socket.AF_INET),
        _connect,
    ],
)
def test_no_process_and_no_socket(
    escape: Callable[[], object], request: pytest.FixtureRequest
) -> None:
    with pytest.raises(ForbiddenError, match="test_no_process_and_no_socket") as caught:
        escape()
    assert request.node.nodeid in str(caught.value)
    assert not isinstance(caught.value, Exception)


def test_a_socket_pair_is_allowed() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"x")
        assert other.recv(1) == b"x"
