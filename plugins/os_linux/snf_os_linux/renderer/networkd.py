"""systemd-networkd: one systemd.network(5) file per NIC."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from snf_core.image.customization import File
from snf_os_linux import systemd
from snf_os_linux.network import Renderer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snf_core.image.guest import Guest
    from snf_core.image.nics import NicPlan

DIRECTORY = "/etc/systemd/network"

SERVICES = frozenset(
    ["systemd-networkd.service", "systemd-networkd.socket", "dbus-org.freedesktop.network1.service"]
)
RIVALS = frozenset(
    ["NetworkManager.service", "connman.service", "dhcpcd.service", "wicked.service"]
)
"""Services that configure NICs too, of their own accord."""

_IFUPDOWN = "networking.service"
_INTERFACES = "/etc/network/interfaces"


class Networkd(Renderer):
    """For guests in which systemd-networkd is enabled and nothing else configures NICs."""

    api_version = "1.0"
    # The first file that matches a NIC counts. Ours sorts before those that cloud-init and
    # netplan make ("10-cloud-init-", "10-netplan-").
    owned = f"{DIRECTORY}/05-snf-*.network"

    def available(self, guest: Guest) -> bool:
        """By the unit files: what is installed but not enabled does not count."""
        enabled = systemd.enabled(guest)
        if not enabled & SERVICES or enabled & RIVALS:
            return False
        return _IFUPDOWN not in enabled or not _has_interfaces(guest)

    def render(
        self,
        nics: Sequence[NicPlan],
        nameservers: Sequence[str],
        search_domains: Sequence[str],
    ) -> list[File]:
        """One world-readable file per NIC: systemd-networkd does not run as root."""
        return [
            File(
                f"{DIRECTORY}/05-snf-{nic.mac.replace(':', '')}.network",
                _network(nic, nameservers, search_domains),
                mode=0o644,
                owner=(0, 0),
            )
            for nic in nics
        ]


def _network(nic: NicPlan, nameservers: Sequence[str], search_domains: Sequence[str]) -> str:
    configured = bool(nic.ipv4 or nic.ipv6)
    match = [f"MACAddress={nic.mac}", "Type=ether"]
    # Without it, the guest would wait at boot for an address that never comes.
    link = [] if configured else ["RequiredForOnline=no"]
    link += [f"MTUBytes={nic.mtu}"] if nic.mtu else []
    network = [
        f"DHCP={_dhcp(nic)}",
        f"IPv6AcceptRA={'yes' if nic.ipv6 else 'no'}",
        f"LinkLocalAddressing={'ipv6' if nic.ipv6 else 'no'}",
    ]
    if nic.ipv6:
        # The network knows the NIC by the address that follows from its MAC address.
        network.append("IPv6PrivacyExtensions=no")
    if nic.address:
        network.append(f"Address={nic.address}")
    if nic.gateway and not nic.gateway_on_link:
        network.append(f"Gateway={nic.gateway}")
    if configured:
        network += [f"DNS={server}" for server in nameservers]
        network += [f"Domains={' '.join(search_domains)}"] if search_domains else []
    route = [f"Gateway={nic.gateway}", "GatewayOnLink=yes"] if nic.gateway_on_link else []
    sections = {
        # Type: VLANs, bonds and bridges on top of the NIC have its MAC address too.
        "Match": match,
        "Link": link,
        "Network": network,
        "Route": route,
        "IPv6AcceptRA": _router_advertisements(nic),
    }
    blocks = ["\n".join([f"[{name}]", *lines]) for name, lines in sections.items() if lines]
    return "# Written when this machine was deployed.\n" + "\n\n".join(blocks) + "\n"


def _dhcp(nic: NicPlan) -> str:
    four, six = nic.ipv4 == "dhcp", nic.ipv6 == "dhcp"
    if four and six:
        return "yes"
    return "ipv4" if four else "ipv6" if six else "no"


def _router_advertisements(nic: NicPlan) -> list[str]:
    """What to do about DHCPv6 when a router advertisement comes, whatever flags it has."""
    clients = {"dhcp": "always", "slaac": "no", "slaac_dhcp": "yes"}
    return [f"DHCPv6Client={clients[nic.ipv6]}"] if nic.ipv6 else []


def _has_interfaces(guest: Guest) -> bool:
    """Whether interfaces(5) of ifupdown configures a NIC, wherever its files are."""
    directory = f"{_INTERFACES}.d"
    files = [_INTERFACES, *(posixpath.join(directory, name) for name in guest.list(directory))]
    for path in files:
        text = guest.read(path) if guest.is_file(path) else None
        for line in (text or "").split("\n"):
            words = line.split()
            if len(words) > 1 and words[0] == "iface" and words[1] != "lo":
                return True
    return False
