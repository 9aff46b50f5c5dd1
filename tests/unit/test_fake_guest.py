"""The stand-in for a guest stands in for all of it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import GuestError
from snf_core.image.guest import Guest
from snf_core.image.registry import Value
from snf_os_windows import paths
from tests.fakes.guest import FakeGuest, directory, fifo, link
from tests.images.windows import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from snf_core.image.registry import Hive


def test_every_method_is_replaced() -> None:
    methods = {name for name, _ in inspect.getmembers(Guest, inspect.isfunction) if name[0] != "_"}
    assert {name for name in methods if getattr(FakeGuest, name) is getattr(Guest, name)} == set()


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


def test_names_on_a_volume_of_windows() -> None:
    """Found in any case, listed in lower case, made as they are spelled: as lowntfs-3g does."""
    guest = FakeGuest.with_windows(Image("xp", files={"/windows/System32/NEW/File.txt": "x"}))
    assert guest.read("/WINDOWS/SYSTEM32/new/FILE.TXT") == "x"
    assert guest.list("/Windows/System32/New") == ["file.txt"]
    guest.write("/Windows/System32/new/FILE.TXT", "y")
    assert guest.filesystems["/dev/sda1"].nodes["/WINDOWS/system32/NEW/File.txt"].content == "y"
    guest.filesystems["/dev/sda1"].nodes["/Link"] = link("/WINDOWS")
    with pytest.raises(GuestError, match="a reparse point"):
        guest.write("/LINK", "x")
    with pytest.raises(GuestError, match="a symbolic link"):
        guest.write("/LINK/x", "x")


def test_hives_are_as_they_were_where_a_change_fails() -> None:
    guest = FakeGuest.with_windows(Image("2022"))
    with (
        pytest.raises(GuestError, match="does not exist"),
        guest.registry(paths.SYSTEM_HIVE.upper(), write=True) as hive,
    ):
        _set_and_fail(hive)
    with guest.registry(paths.SYSTEM_HIVE, write=True) as hive:
        assert hive.value("Select", "Current") == Value.dword(1)
        hive.set("SELECT", "current", Value.dword(2))
    with guest.registry(paths.SYSTEM_HIVE) as hive:
        assert hive.values("Select")["Current"] == Value.dword(2)


def _set_and_fail(hive: Hive) -> None:
    hive.set("SELECT", "current", Value.dword(2))
    hive.set("None", "x", Value.dword(2))


def test_one_hive_at_a_time() -> None:
    guest = FakeGuest.with_windows(Image("2022"))
    with (
        guest.registry(paths.SYSTEM_HIVE),
        pytest.raises(GuestError, match="is not opened while"),
        guest.registry(paths.SAM_HIVE),
    ):
        pass
