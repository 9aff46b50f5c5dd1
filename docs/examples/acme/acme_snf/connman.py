"""The renderer "connman": Linux guests whose NICs ConnMan configures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.image.customization import File
from snf_os_linux.network import Renderer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snf_core.image.guest import Guest
    from snf_core.image.nics import NicPlan

FILE = "/var/lib/connman/snf.config"


class ConnMan(Renderer):
    """Service provisioning files (connman-service.config(5))."""

    api_version = "1.0"
    owned = FILE

    def available(self, guest: Guest) -> bool:
        """By its configuration file, which every distribution ships."""
        return guest.is_file("/etc/connman/main.conf")

    def render(
        self,
        nics: Sequence[NicPlan],
        nameservers: Sequence[str],
        search_domains: Sequence[str],
    ) -> Sequence[File]:
        """One file for all NICs, which it finds by their MAC addresses."""
        services = [
            "\n".join(_service(nic, nameservers if nic.address else (), search_domains))
            for nic in nics
        ]
        return [File(FILE, "\n\n".join(services) + "\n", mode=0o644, owner=(0, 0))]


def _service(nic: NicPlan, nameservers: Sequence[str], domains: Sequence[str]) -> Iterator[str]:
    yield f"[service_nic{nic.index}]"
    yield "Type = ethernet"
    yield f"MAC = {nic.mac}"
    if nic.address:
        gateway = f"/{nic.gateway}" if nic.gateway else ""
        yield f"IPv4 = {nic.address.ip}/{nic.address.netmask}{gateway}"
    else:
        yield f"IPv4 = {nic.ipv4 or 'off'}"
    yield f"IPv6 = {'auto' if nic.ipv6 else 'off'}"
    if nameservers:
        yield f"Nameservers = {','.join(nameservers)}"
    if domains:
        yield f"SearchDomains = {','.join(domains)}"
