"""ConfigureNetwork: what netsh is told of each NIC."""

from __future__ import annotations

import base64
import itertools
import re
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import pytest

from snf_core.errors import InvalidValueError
from snf_core.image.nics import NicPlan
from snf_os_windows import first_boot, inspection, paths
from snf_os_windows.network import ConfigureNetwork
from tests.fakes.guest import FakeGuest
from tests.fakes.task import run
from tests.images.windows import VERSIONS, Image
from tests.scripts.powershell import check

MAC = "aa:00:00:12:34:ab"
ADDRESS = IPv4Interface("192.0.2.2/25")
GATEWAY = IPv4Address("192.0.2.1")
OUTSIDE = IPv4Address("198.51.100.1")
SERVERS = ("192.0.2.53", "2001:db8::53", "192.0.2.54")
DOMAINS = ("example.org", "a_b.example.net.")

STATIC = NicPlan(0, MAC, "static", address=ADDRESS, gateway=GATEWAY)
PLANS = [
    STATIC,
    NicPlan(0, MAC, "static", address=ADDRESS),
    NicPlan(0, MAC, "static", address=ADDRESS, gateway=OUTSIDE, gateway_on_link=True),
    NicPlan(0, MAC, "static", "slaac", address=ADDRESS, gateway=GATEWAY, mtu=8950),
    NicPlan(0, MAC, "dhcp"),
    NicPlan(0, MAC, "dhcp", "dhcp"),
    NicPlan(0, MAC, "", "dhcp", mtu=1279),
    NicPlan(0, MAC, "", "slaac"),
    NicPlan(0, MAC, "", "slaac_dhcp"),
    NicPlan(0, MAC, mtu=1450),
]


def script(version: str, *nics: NicPlan, **fields: Any) -> str:
    """The fragment that the first boot gets."""
    guest = FakeGuest.with_windows(Image(version))
    facts = inspection.facts(guest)
    first_boot.install(guest, facts)
    run(ConfigureNetwork, guest, nics=nics, **fields)
    text = guest.read(f"{paths.SCRIPTS}/20-network.again.{first_boot.host(facts).value}")
    assert text is not None
    functions = first_boot.read_script(f"network.{first_boot.host(facts).value}")
    functions = functions.replace("\n", "\r\n")
    assert functions in text
    return text


def own(version: str, *nics: NicPlan, **fields: Any) -> list[str]:
    """The lines of it that are of this guest alone."""
    text = script(version, *nics, **fields)
    kind = "ps1" if VERSIONS[version].powershell else "cmd"
    functions = first_boot.read_script(f"network.{kind}").replace("\n", "\r\n")
    return [line for line in text.replace(functions, "").split("\r\n") if line]


@pytest.mark.parametrize("version", [name for name, one in VERSIONS.items() if one.powershell])
def test_every_combination_is_powershell(version: str) -> None:
    for names, domains in itertools.product([(), SERVERS], [(), DOMAINS]):
        fields = {"nameservers": names, "search_domains": domains}
        for nic in PLANS if version == "2022" else PLANS[3:4]:
            check(script(version, nic, **fields))
        check(script(version, *PLANS, **fields))


def test_static() -> None:
    assert own("2022", STATIC, nameservers=SERVERS) == [
        "Set-Nic @{ Mac = 'AA:00:00:12:34:AB'; Ipv4 = 'static'; Ipv6 = 'none'; Mtu = 0; "
        "Servers = @('192.0.2.53', '192.0.2.54'); Servers6 = @(); Address = '192.0.2.2'; "
        "Mask = '255.255.255.128'; Gateway = '192.0.2.1'; OnLink = $false }",
        "exit $state.Failed",
    ]


def test_a_gateway_outside_the_subnet() -> None:
    line, _ = own("2022", PLANS[2])
    assert "Gateway = '198.51.100.1'; OnLink = $true" in line


def test_without_a_gateway() -> None:
    line, _ = own("2022", PLANS[1])
    assert "Gateway" not in line


def test_dhcp_brings_its_own_servers() -> None:
    line, _ = own("2022", NicPlan(0, MAC, "dhcp"), nameservers=SERVERS)
    assert "Ipv4 = 'dhcp'; Ipv6 = 'none'; Mtu = 0; Servers = @(); Servers6 = @() }" in line


def test_router_advertisements_may_not() -> None:
    stable, line, _ = own("2022", NicPlan(0, MAC, "dhcp", "slaac"), nameservers=SERVERS)
    assert stable == "Set-StableAddress"
    assert "Ipv6 = 'slaac'" in line
    assert "Servers = @(); Servers6 = @('2001:db8::53')" in line


def test_several_nics_and_search_domains() -> None:
    second = NicPlan(1, "aa:00:00:00:00:02", "dhcp", mtu=1450)
    bare = NicPlan(2, "aa:00:00:00:00:03")
    search, first, other, _ = own("2022", STATIC, second, bare, search_domains=DOMAINS)
    found = re.search(r"FromBase64String\('([^']*)'", search)
    assert found
    assert base64.b64decode(found[1]).decode("utf-16-le") == "example.org,a_b.example.net"
    assert "12:34:AB" in first
    assert "Mac = 'AA:00:00:00:00:02'" in other
    assert "Mtu = 1450" in other


def test_nothing_to_do() -> None:
    guest = FakeGuest.with_windows(Image("2022"))
    first_boot.install(guest, inspection.facts(guest))
    assert run(ConfigureNetwork, guest, nics=(NicPlan(0, MAC),)) == []
    assert run(ConfigureNetwork, guest, nics=()) == []
    assert guest.list(paths.SCRIPTS) == ["run.cmd", "run.ps1"]


@pytest.mark.parametrize("server", ["x", "fe80::1%eth0';x", "192.0.2.1/24", "", "'"])
def test_servers_are_addresses(server: str) -> None:
    with pytest.raises(InvalidValueError, match="not an IP address"):
        script("2022", STATIC, nameservers=(server,))


@pytest.mark.parametrize("domain", ["", ".", "a..b", "a b", "a,b", "a'b", "é", "a&b", "x" * 64])
def test_domains_are_domains(domain: str) -> None:
    for version in ("2022", "vista"):
        with pytest.raises(InvalidValueError, match="not a domain"):
            script(version, STATIC, search_domains=(domain,))


def test_a_guest_that_has_started_keeps_what_it_has() -> None:
    guest = FakeGuest.with_windows(Image("2022"))
    [warning] = run(ConfigureNetwork, guest, nics=(STATIC,), update=True)
    assert "stay as they are" in warning
    assert guest.list(paths.SCRIPTS) == []


def test_a_guest_that_has_not_started_yet_is_told_anew() -> None:
    guest = FakeGuest.with_windows(Image("2022"))
    first_boot.install(guest, inspection.facts(guest))
    run(ConfigureNetwork, guest, nics=(STATIC,))
    assert run(ConfigureNetwork, guest, nics=(NicPlan(0, MAC, "dhcp"),), update=True) == []
    text = guest.read(f"{paths.SCRIPTS}/20-network.again.ps1") or ""
    assert "'dhcp'" in text
    assert "192.0.2.2" not in text


def test_cloudbase_init_does_it_where_it_is_seeded() -> None:
    guest = FakeGuest.with_windows(Image("2022", cloudbase=True))
    assert run(ConfigureNetwork, guest, nics=(STATIC,)) == []
    assert guest.list(paths.SCRIPTS) == []


class TestWithoutPowerShell:
    def test_static(self) -> None:
        lines = own("vista", STATIC, nameservers=SERVERS, search_domains=DOMAINS)
        assert lines[:2] == ["@echo off", "setlocal EnableExtensions DisableDelayedExpansion"]
        assert lines[5:] == [
            '"%SystemRoot%\\System32\\reg.exe" add "%TCPIP%" /v SearchList '
            "/d example.org,a_b.example.net /f",
            "call :find AA:00:00:12:34:AB",
            "if not defined NAME goto after0",
            'call :netsh ip set address "%NAME%" static 192.0.2.2 255.255.255.128 192.0.2.1 1',
            'call :netsh ip set dns "%NAME%" static 192.0.2.53',
            'call :netsh ip add dns "%NAME%" 192.0.2.54',
            'call :netsh ipv6 set interface "%NAME%" routerdiscovery=disabled '
            "managedaddress=disabled otherstateful=disabled",
            ":after0",
            "exit /b %CODE%",
        ]

    def test_a_gateway_outside_the_subnet(self) -> None:
        lines = own("2003", PLANS[2])
        assert 'call :netsh ip set address "%NAME%" static 192.0.2.2 255.255.255.128 none' in lines
        assert [line.split("route.exe")[1] for line in lines if "route.exe" in line] == [
            '" delete 198.51.100.1 mask 255.255.255.255',
            '" delete 0.0.0.0 mask 0.0.0.0 198.51.100.1',
            '" -p add 198.51.100.1 mask 255.255.255.255 192.0.2.2 || set CODE=1',
            '" -p add 0.0.0.0 mask 0.0.0.0 198.51.100.1 || set CODE=1',
        ]

    @pytest.mark.parametrize(
        ("version", "nic", "expected"),
        [
            ("vista", PLANS[3], ["ipv4", "ipv6"]),
            ("vista", PLANS[6], ["ipv4"]),
        ],
    )
    def test_mtu(self, version: str, nic: NicPlan, expected: list[str]) -> None:
        lines = [line for line in own(version, nic) if "mtu=" in line]
        assert lines == [
            f'call :netsh {kind} set subinterface "%NAME%" mtu={nic.mtu} store=persistent'
            for kind in expected
        ]

    def test_before_vista(self) -> None:
        lines = own("xp", PLANS[3])
        assert "call :legacymtu 8950" in lines
        assert "call :netsh ipv6 install" in lines
        assert not [line for line in lines if "subinterface" in line or "routerdiscovery" in line]

    def test_ipv6(self) -> None:
        lines = own("vista", NicPlan(0, MAC, "", "slaac_dhcp"))
        assert "call :netsh ipv6 set privacy state=disabled" in lines
        assert (
            'call :netsh ipv6 set interface "%NAME%" routerdiscovery=enabled '
            "managedaddress=disabled otherstateful=enabled"
        ) in lines

    @pytest.mark.parametrize(("kind", "warned"), [("dhcp", 1), ("slaac_dhcp", 1), ("slaac", 0)])
    def test_dhcpv6_before_vista(self, kind: Any, warned: int) -> None:
        guest = FakeGuest.with_windows(Image("xp"))
        first_boot.install(guest, inspection.facts(guest))
        found = run(ConfigureNetwork, guest, nics=(NicPlan(0, MAC, "dhcp", kind),))
        assert ["no DHCPv6" in warning for warning in found] == [True] * warned
