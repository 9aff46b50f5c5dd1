"""The stand-in for a guest stands in for all of it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import GuestError
from snf_core.image.guest import Guest
from tests.fakes.guest import FakeGuest, directory, fifo, link

if TYPE_CHECKING:
    from collections.abc import Callable


def test_every_method_is_replaced() -> None:
    methods = {name for name, _ in inspect.getmembers(Guest, inspect.isfunction) if name[0] != "_"}
    assert methods <= set(vars(FakeGuest))


def test_it_refuses_what_the_facade_refuses() -> None:
    guest = FakeGuest.mounted(
        {"/real/file": "x", "/link": link("/real"), "/loop": link("loop"), "/pipe": fifo()}
    )
    assert guest.read("/link/file") == "x"
    assert guest.read("/loop") is None
    assert guest.read("/link/none") is None
    refusals: list[Callable[[], object]] = [
        lambda: guest.write("/link/new", "x"),
        lambda: guest.remove("/link/file"),
        lambda: guest.make_directory("/link/new"),
        lambda: guest.symlink("x", "/link/new"),
        lambda: guest.mount("/dev/sda1", "/link"),
        lambda: guest.read("/pipe"),
        lambda: guest.read("/a/../real/file"),
        lambda: guest.write("/none/new", "x"),
    ]
    for refused in refusals:
        with pytest.raises(GuestError):
            refused()
    assert guest.list("/real") == ["file"]
    assert guest.node("/real") == directory()
