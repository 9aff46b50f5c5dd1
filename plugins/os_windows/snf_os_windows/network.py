"""ConfigureNetwork: NICs, by their MAC addresses, at the first boot."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from snf_core import model
from snf_core.contract import Task
from snf_core.errors import InvalidValueError
from snf_os_windows import batch, cloudbase, first_boot, inspection, network_batch
from snf_os_windows.first_boot import Fragment, Host
from snf_os_windows.powershell import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest
    from snf_core.image.nics import NicPlan
    from snf_core.model import Address

_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_FUNCTIONS = first_boot.read_script("network.ps1")


class ConfigureNetwork(Task):
    """Have the first boot give each NIC its addresses, gateway, MTU and DNS servers."""

    api_version = "1.0"
    after = ("InstallUnattend",)
    needs = ("InstallUnattend",)

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Leave it to the first boot. Raises InvalidValueError for DNS servers and search domains
        that make no sense.
        """
        if cloudbase.seeded(guest, request):
            return
        if request.update and not first_boot.installed(guest):
            yield "Windows configures its NICs at its first boot only: they stay as they are"
            return
        nics = [nic for nic in request.nics if nic.ipv4 or nic.ipv6 or nic.mtu]
        if not nics:
            return
        servers = [model.address(server) for server in request.nameservers]
        domains = [_domain(domain) for domain in request.search_domains]
        facts = inspection.facts(guest)
        if first_boot.host(facts) is Host.POWERSHELL:
            script = _script(nics, servers, domains)
        else:
            yield from network_batch.warnings(facts, nics)
            told = [
                (_name_servers(nic, servers, 4), _name_servers(nic, servers, 6)) for nic in nics
            ]
            script = batch.BEGIN + network_batch.script(facts, nics, told, domains)
        # Once more when Setup is done: not all drivers may be there the first time.
        first_boot.add(guest, facts, Fragment("network", 20, script, again=True))


def _name_servers(nic: NicPlan, servers: Sequence[Address], version: int) -> list[str]:
    """The DNS servers that a NIC is told: where it learns an address from DHCP, it learns them so,
    too, and they would count less than these.
    """
    kind = nic.ipv4 if version == 4 else nic.ipv6
    if kind not in {"static", "slaac"}:
        return []
    return [str(server) for server in servers if server.version == version]


def _script(nics: Sequence[NicPlan], servers: Sequence[Address], domains: Sequence[str]) -> str:
    lines = [_FUNCTIONS]
    if any(nic.ipv6 for nic in nics):
        lines.append("Set-StableAddress")
    if domains:
        lines.append(f"Set-SearchList {text(','.join(domains))}")
    lines += [f"Set-Nic {_table(nic, servers)}" for nic in nics]
    return "\n".join([*lines, "exit $state.Failed", ""])


def _table(nic: NicPlan, servers: Sequence[Address]) -> str:
    """What network.ps1 is told of a NIC. None of it is text of anybody's choice."""
    values = {
        "Mac": f"'{nic.mac.upper()}'",
        "Ipv4": f"'{nic.ipv4}'",
        "Ipv6": f"'{nic.ipv6 or 'none'}'",
        "Mtu": str(nic.mtu),
        "Servers": _array(_name_servers(nic, servers, 4)),
        "Servers6": _array(_name_servers(nic, servers, 6)),
    }
    if nic.address:
        values |= {"Address": f"'{nic.address.ip}'", "Mask": f"'{nic.address.netmask}'"}
    if nic.gateway:
        on_link = "$true" if nic.gateway_on_link else "$false"
        values |= {"Gateway": f"'{nic.gateway}'", "OnLink": on_link}
    return "@{ " + "; ".join(f"{key} = {value}" for key, value in values.items()) + " }"


def _array(words: Sequence[str]) -> str:
    quoted = ", ".join(f"'{word}'" for word in words)
    return f"@({quoted})"


def _domain(domain: str) -> str:
    words = domain.rstrip(".").split(".")
    if not all(_LABEL.fullmatch(word) for word in words):
        raise InvalidValueError(
            f"search_domains: {domain!r} is not a domain",
            remedy="correct [network] search_domains",
        )
    return ".".join(words)
