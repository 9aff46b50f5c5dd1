"""The systemd-networkd renderer: golden files, and the guests it takes for its own."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_core.image.customization import Customization
from snf_core.image.nics import NicPlan
from snf_core.image.properties import Properties
from snf_os_linux import network
from snf_os_linux.renderer.networkd import DIRECTORY, Networkd
from tests.fakes.guest import FakeGuest, link

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.fakes.guest import Node

GOLDEN = Path(__file__).with_name("networkd")
MAC = "aa:00:00:12:34:56"
FILE = f"{DIRECTORY}/05-snf-aa0000123456.network"

ADDRESS = ipaddress.IPv4Interface("192.0.2.2/24")
GATEWAY = ipaddress.IPv4Address("192.0.2.1")
OUTSIDE = ipaddress.IPv4Address("198.51.100.1")

PLANS = {
    "static": NicPlan(0, MAC, "static", address=ADDRESS, gateway=GATEWAY),
    "static-no-gateway": NicPlan(0, MAC, "static", address=ADDRESS),
    "static-on-link": NicPlan(
        0, MAC, "static", address=ADDRESS, gateway=OUTSIDE, gateway_on_link=True
    ),
    "static-slaac": NicPlan(0, MAC, "static", "slaac", address=ADDRESS, gateway=GATEWAY),
    "dhcp": NicPlan(0, MAC, "dhcp"),
    "dhcp-dhcp": NicPlan(0, MAC, "dhcp", "dhcp"),
    "ipv6-dhcp": NicPlan(0, MAC, "", "dhcp"),
    "ipv6-slaac": NicPlan(0, MAC, "", "slaac"),
    "ipv6-slaac-dhcp": NicPlan(0, MAC, "", "slaac_dhcp"),
    "nothing": NicPlan(0, MAC),
    "nothing-but-mtu": NicPlan(0, MAC, mtu=1450),
    "static-mtu": NicPlan(0, MAC, "static", address=ADDRESS, gateway=GATEWAY, mtu=8950),
}


@pytest.mark.parametrize("name", PLANS)
def test_golden(name: str) -> None:
    servers = ("192.0.2.53", "2001:db8::53")
    [file] = Networkd(None).render([PLANS[name]], servers, ("example.org", "example.net"))
    assert (file.path, file.mode, file.owner) == (FILE, 0o644, (0, 0))
    assert file.content == (GOLDEN / f"{name}.network").read_text()


def test_every_golden_file_is_used() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(PLANS)


def test_without_a_resolver() -> None:
    [file] = Networkd(None).render([PLANS["dhcp"]], (), ())
    assert "DNS=" not in file.content
    assert "Domains=" not in file.content


def test_files_of_nics_that_are_gone_go_and_others_stay() -> None:
    guest = FakeGuest.mounted(
        {
            f"{DIRECTORY}/05-snf-ffffffffffff.network": "[Match]\n",
            FILE: "old\n",
            f"{DIRECTORY}/10-mine.network": "mine\n",
        }
    )
    nics = (PLANS["dhcp"], NicPlan(1, "aa:00:00:00:00:02"))
    request = Customization("vm", properties=Properties(), nics=nics)
    network.apply(guest, Networkd(None), request)
    assert guest.list(DIRECTORY) == [
        "05-snf-aa0000000002.network",
        "05-snf-aa0000123456.network",
        "10-mine.network",
    ]
    assert guest.read(FILE) == (GOLDEN / "dhcp.network").read_text().replace(
        "DNS=192.0.2.53\nDNS=2001:db8::53\nDomains=example.org example.net\n", ""
    )


WANTS = "/etc/systemd/system/multi-user.target.wants"
NETWORKD = {f"{WANTS}/systemd-networkd.service": link("/lib/x")}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (NETWORKD, True),
        ({"/etc/systemd/system/dbus-org.freedesktop.network1.service": link("/lib/x")}, True),
        ({"/etc/systemd/system/sockets.target.wants/systemd-networkd.socket": link("x")}, True),
        ({"/usr/lib/systemd/system/multi-user.target.wants/systemd-networkd.service": ""}, True),
        ({"/usr/lib/systemd/system/systemd-networkd.service": ""}, False),
        ({}, False),
        (
            {**NETWORKD, "/etc/systemd/system/systemd-networkd.service": link("/dev/null")},
            False,
        ),
        ({**NETWORKD, f"{WANTS}/NetworkManager.service": link("/lib/x")}, False),
        (
            {
                **NETWORKD,
                f"{WANTS}/NetworkManager.service": link("/lib/x"),
                "/etc/systemd/system/NetworkManager.service": link("/dev/null"),
            },
            True,
        ),
        (
            {
                **NETWORKD,
                f"{WANTS}/networking.service": link("/lib/x"),
                "/etc/network/interfaces": "auto lo\niface lo inet loopback\n# iface eth0\n",
            },
            True,
        ),
        (
            {
                **NETWORKD,
                f"{WANTS}/networking.service": link("/lib/x"),
                "/etc/network/interfaces.d/eth0": "iface eth0 inet dhcp\n",
            },
            False,
        ),
        ({**NETWORKD, "/etc/network/interfaces": "iface eth0 inet dhcp\n"}, True),
    ],
)
def test_available(files: Mapping[str, str | Node], expected: bool) -> None:
    guest = FakeGuest.mounted(files)
    assert Networkd(None).available(guest) is expected
