"""NICs of hardware-assisted guests: a device that is emulated, and the vif that takes its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.xen import domu, vifs
from tests.xen.vifs import GUEST, MAC, TABLE, UPLINK

if TYPE_CHECKING:
    from collections.abc import Iterator

VIF = f"mac={MAC},script=vif-snf,bridge={vifs.BRIDGE},model=e1000"
FROM_OUTSIDE = ("ip", "route", "get", GUEST, "from", "192.0.2.9", "iif", UPLINK)


@pytest.fixture(scope="module", autouse=True)
def _node() -> Iterator[None]:
    with vifs.node():
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left(_node: None) -> Iterator[None]:
    yield
    assert vifs.remains() == ""


def agreeing() -> dict[str, Any]:
    """What is wired and as wanted: which of two interfaces it is, by interface."""
    return {name: one["event"]["twin"] for name, one in vifs.status().items() if one["agrees"]}


def comes_in(interface: str) -> bool:
    """Whether the kernel takes a packet of the guest's that comes in by ``interface``."""
    said = vifs.run(
        *("ip", "route", "get", "192.0.2.9", "from", GUEST, "iif", interface), check=False
    )
    return f"dev {UPLINK}" in said


def test_both_are_ports_of_the_bridge() -> None:
    with vifs.paused("web1", [VIF], "hvm") as number:
        vif = f"vif{number}.0"
        assert agreeing() == {vif: "paravirtual", f"{vif}-emu": "emulated"}
        for name in (vif, f"{vif}-emu"):
            link = vifs.link(name)
            assert link
            assert (link["master"], link["mtu"], "UP" in link["flags"]) == (vifs.BRIDGE, 9000, True)


def test_both_are_guarded_and_have_the_names_that_they_are_to_get() -> None:
    filtered = 'MODE=bridged\nLINK=br0\nNETWORK_NAME="n"\nNETWORK_TAGS="filtered"\n'
    with (
        vifs.described("web1", filtered),
        vifs.paused("web1", [f"{VIF},vifname=web0"], "hvm") as number,
    ):
        assert agreeing() == {"web0": "paravirtual", "web0-emu": "emulated"}
        assert vifs.status()["web0-emu"]["event"]["called"] == f"vif{number}.0-emu"
        elements = vifs.run("nft", "list", "set", "bridge", "snf", "filtered_interfaces")
        assert ('"web0"' in elements, '"web0-emu"' in elements) == (True, True)
        assert vifs.snf("network", "reconcile", "--check") == ""


def test_a_name_that_leaves_no_room_for_that_of_the_tap() -> None:
    done = vifs.create("web1", [f"{VIF},vifname=an-interface"], "-p", kind="hvm")
    assert done.returncode != 0
    assert "vifname: 'an-interface-emu' is not an interface name" in done.stdout


def test_a_routed_guest_is_reached_by_the_interface_that_it_uses() -> None:
    with vifs.described("web1", vifs.ROUTED), domu.Guest("web1", [VIF], "hvm") as guest:
        vif, tap = guest.vif(), f"{guest.vif()}-emu"
        assert agreeing() == {vif: "paravirtual", tap: "emulated"}
        assert vifs.link(tap) is None, "the guest gives the emulated device up, and QEMU the tap"
        assert vifs.status()[tap]["phase"] == "given up"
        guest.run(
            f"ip link set eth0 up && ip address add {GUEST}/24 dev eth0 "
            f"&& ip route add default via {vifs.GATEWAY}"
        )
        vifs.run("ip", "netns", "exec", vifs.BEYOND, "ping", "-c", "3", "-W", "10", GUEST)
        assert f"dev {vif} " in vifs.run(*FROM_OUTSIDE)
        assert (comes_in(vif), comes_in(tap)) == (True, False)
        assert vifs.snf("network", "reconcile", "--check") == ""


def test_until_its_driver_has_connected_a_routed_guest_is_behind_the_tap() -> None:
    with vifs.described("web1", vifs.ROUTED), vifs.paused("web1", [VIF], "hvm") as number:
        vif, tap = f"vif{number}.0", f"vif{number}.0-emu"
        assert agreeing() == {vif: "paravirtual", tap: "emulated"}
        assert f"dev {tap} " in vifs.run(*FROM_OUTSIDE)
        assert (comes_in(vif), comes_in(tap)) == (False, True)
        assert f"{GUEST} dev {tap} " in vifs.run("ip", "route", "show", "table", TABLE)
