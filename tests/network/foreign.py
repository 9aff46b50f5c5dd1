"""What somebody else has on the node, and nothing of ours may touch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.network.host import Host

TABLE = 4242
"""A routing table of somebody else's."""

RULES = """\
table inet foreign {
    set addresses { type ipv4_addr; elements = { 203.0.113.7 }; }
    chain forward { type filter hook forward priority 0; ip saddr @addresses drop; }
}
table bridge foreign {
    set names { type ifname; elements = { "tap0", "foreign0" }; }
    chain forward {
        type filter hook forward priority -200
        iifname @names ether type 0x88b8 drop comment "tap0"
    }
}
table arp foreign {
    chain input { type filter hook input priority 0; arp saddr ip 203.0.113.7 drop; }
}
"""

COMMANDS = (
    f"rule add from 203.0.113.0/24 lookup {TABLE} priority 15000",
    f"rule add iif tap0 to 203.0.113.0/24 lookup {TABLE} priority 15001",
    f"route add blackhole 198.51.100.0/24 table {TABLE}",
    "route add blackhole 203.0.113.128/25",
    "neigh add proxy 203.0.113.9 dev lo",
    f"-6 rule add from 2001:db8:f0::/48 lookup {TABLE} priority 15000",
    f"-6 route add blackhole 2001:db8:f1::/48 table {TABLE}",
    "-6 neigh add proxy 2001:db8:f0::9 dev lo",
)

_QUESTIONS = (
    "rule show from 203.0.113.0/24",
    "rule show to 203.0.113.0/24",
    f"route show table {TABLE}",
    "route show 203.0.113.128/25",
    "neigh show proxy dev lo",
    "-6 rule show from 2001:db8:f0::/48",
    f"-6 route show table {TABLE}",
    "-6 neigh show proxy dev lo",
)

_SETTINGS = {
    "ipv4": ("arp_announce", "arp_filter", "arp_ignore", "proxy_arp", "rp_filter"),
    "ipv6": ("accept_ra", "autoconf", "disable_ipv6", "proxy_ndp"),
}


class Foreign:
    """Tables, rules, routes, proxied neighbours and settings that are not ours."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._before: Any = None

    def make(self) -> None:
        """Make all of it."""
        self._host.nft(RULES)
        self._host.ip(*COMMANDS)
        self._before = self._state()

    def unchanged(self) -> None:
        """AssertionError unless all of it is there as it was made."""
        assert self._state() == self._before, "somebody else's state has been changed"

    def _state(self) -> dict[str, Any]:
        tables = ("inet", "bridge", "arp")
        return {
            "kernel": dict(zip(_QUESTIONS, map(_lasting, self._host.ip(*_QUESTIONS)), strict=True)),
            "settings": self._host.inside(_settings),
            "tables": {family: self._host.nft(f"list table {family} foreign") for family in tables},
        }


def _lasting(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What ip(8) shows, but for whether the tap of a rule is there now."""
    return [{key: value for key, value in one.items() if key != "iif_detached"} for one in shown]


def _settings() -> dict[str, str]:
    names = ["net/ipv4/ip_nonlocal_bind"]
    names += [
        f"net/{family}/conf/{interface}/{setting}"
        for family, settings in _SETTINGS.items()
        for interface in ("all", "default", "lo")
        for setting in settings
    ]
    found = {}
    for name in names:
        with open(f"/proc/sys/{name}") as file:  # there are many
            found[name] = file.read()
    return found
