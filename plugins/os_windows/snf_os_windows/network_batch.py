"""NICs at the first boot of a Windows without PowerShell: XP and 2003, Vista and Server 2008.

netsh's words are those that all of them know, by position: their names have changed since XP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_os_windows import first_boot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snf_core.image.nics import NicPlan
    from snf_os_windows.inspection import Facts

_FUNCTIONS = first_boot.read_script("network.cmd")
_LEAST = 1280
"""Bytes of an MTU that IPv6 works with (RFC 8200, section 5)."""


def warnings(facts: Facts, nics: Sequence[NicPlan]) -> Iterator[str]:
    """What these versions of Windows cannot do of what is asked for."""
    if facts.legacy and any("dhcp" in nic.ipv6 for nic in nics):
        yield "this Windows has no DHCPv6: it takes IPv6 addresses from router advertisements alone"


def script(
    facts: Facts,
    nics: Sequence[NicPlan],
    servers: Sequence[tuple[Sequence[str], Sequence[str]]],
    domains: Sequence[str],
) -> str:
    """The batch file, but for its beginning.

    ``servers`` are those of IPv4 and of IPv6 for each NIC. Nothing in it is anybody's text.
    """
    lines = [
        "set CODE=0",
        r'set "WMIC=%SystemRoot%\System32\wbem\wmic.exe"',
        r'set "TCPIP=HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters"',
    ]
    if domains:
        listed = ",".join(domains)
        lines.append(rf'"%SystemRoot%\System32\reg.exe" add "%TCPIP%" /v SearchList /d {listed} /f')
    if any(nic.ipv6 for nic in nics):
        lines += _stable_addresses(legacy=facts.legacy)
    for nic, (servers4, servers6) in zip(nics, servers, strict=True):
        lines += [f"call :find {nic.mac.upper()}", f"if not defined NAME goto after{nic.index}"]
        lines += _ipv4(nic, servers4)
        lines += [] if facts.legacy else _ipv6(nic, servers6)
        lines += _mtu(nic, legacy=facts.legacy)
        lines += [f":after{nic.index}"]
    return "\n".join([*lines, "exit /b %CODE%", _FUNCTIONS])


def _stable_addresses(*, legacy: bool) -> list[str]:
    """The network knows a guest by the addresses that follow from its MAC addresses."""
    if legacy:
        return ["call :netsh ipv6 install", "call :netsh ipv6 set privacy state=disabled"]
    return [
        "call :netsh ipv6 set global randomizeidentifiers=disabled",
        "call :netsh ipv6 set privacy state=disabled",
    ]


def _ipv4(nic: NicPlan, servers: Sequence[str]) -> list[str]:
    lines = []
    if nic.ipv4 == "dhcp":
        # netsh calls it an error to say so twice.
        netsh = r'"%SystemRoot%\System32\netsh.exe"'
        lines.append(f'{netsh} interface ip set address "%NAME%" dhcp')
    if nic.address:
        words = f'"%NAME%" static {nic.address.ip} {nic.address.netmask}'
        near = nic.gateway and not nic.gateway_on_link
        lines.append(f"call :netsh ip set address {words} {f'{nic.gateway} 1' if near else 'none'}")
        if nic.gateway_on_link:
            lines += _on_link(f"{nic.address.ip}", f"{nic.gateway}")
    for position, server in enumerate(servers):
        words = f'add dns "%NAME%" {server}' if position else f'set dns "%NAME%" static {server}'
        lines.append(f"call :netsh ip {words}")
    return lines


def _on_link(address: str, gateway: str) -> list[str]:
    """The gateway is outside the subnet: it is said to be on the link before it is used."""
    route = r'"%SystemRoot%\System32\route.exe"'
    host, default = f"{gateway} mask 255.255.255.255", "0.0.0.0 mask 0.0.0.0"
    return [
        f"{route} delete {host}",
        f"{route} delete {default} {gateway}",
        f"{route} -p add {host} {address} || set CODE=1",
        f"{route} -p add {default} {gateway} || set CODE=1",
    ]


def _ipv6(nic: NicPlan, servers: Sequence[str]) -> list[str]:
    words = {
        "routerdiscovery": bool(nic.ipv6),
        "managedaddress": nic.ipv6 == "dhcp",
        "otherstateful": "dhcp" in nic.ipv6,
    }
    said = " ".join(f"{key}={'enabled' if on else 'disabled'}" for key, on in words.items())
    lines = [f'call :netsh ipv6 set interface "%NAME%" {said}']
    lines += [
        f'call :netsh ipv6 {"add" if position else "set"} dns "%NAME%" '
        f"{'' if position else 'static '}{server}"
        for position, server in enumerate(servers)
    ]
    return lines


def _mtu(nic: NicPlan, *, legacy: bool) -> list[str]:
    if not nic.mtu:
        return []
    if legacy:
        return [f"call :legacymtu {nic.mtu}"]
    kinds = ["ipv4", "ipv6"] if nic.mtu >= _LEAST else ["ipv4"]
    words = f'set subinterface "%NAME%" mtu={nic.mtu} store=persistent'
    return [f"call :netsh {kind} {words}" for kind in kinds]
