"""The rules of the setup ``firewall``, in nft(8)'s notation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Opened = Mapping[str, Sequence[tuple[str, int, int]]]
    """By profile: protocol, first and last port of each range that it opens."""

_COMMON = """\
  chain firewall_common {{
{established}
    # Echo and errors; neighbour discovery, router advertisements and MLD, without which there
    # is no IPv6; path MTU discovery, whose messages may belong to no conversation we know.
    meta l4proto {{ icmp, ipv6-icmp }} accept
    # What DHCP servers answer need not come from where the question went to.
    udp sport 67 udp dport 68 accept
    udp sport 547 udp dport 546 accept
    ct state invalid drop
  }}
"""

_ESTABLISHED_ROUTED = """\
    # Conversations that the guest has begun, or that were let through when they began. Who a
    # packet comes from has been made sure of long before: in prerouting, at priority -300.
    ct state established,related accept
"""

_ESTABLISHED_BRIDGED = """\
    # Conversations that this very guest has begun, by its own tap: a neighbour that nothing keeps
    # from sending under its address cannot begin one for it.
    ct direction reply ct state established,related oifname . ct mark @firewall_origins accept
    # ARP, by what is behind a VLAN's tag if there is one.
    meta protocol arp accept
"""

_PROFILE = """\
  chain firewall_profile_{name} {{
    jump firewall_common
{ports}    drop
  }}
"""

_ROUTED = """\
table inet snf {{
{profiles}
  map firewall_profiles {{ typeof oifname : verdict
  }}

  chain firewall_forward {{
    type filter hook forward priority 0; policy accept;
    oifname vmap @firewall_profiles
  }}

  chain firewall_output {{
    type filter hook output priority 0; policy accept;
    oifname vmap @firewall_profiles
  }}
}}
"""

_BRIDGED = """\
table bridge snf {{
{profiles}
  map firewall_profiles {{ typeof oifname : verdict
  }}

  chain firewall_forward {{
    type filter hook forward priority 0; policy accept;
    oifname vmap @firewall_profiles
  }}

  # The conntrack zone of each guest that has a profile: by its tap, and by where frames to it go.
  map firewall_zones {{ typeof iifname : ct zone
  }}
  map firewall_guests {{ typeof meta ibrname . ether daddr : ct zone
  }}

  # What marks the conversations that each of them has begun.
  map firewall_marks {{ typeof iifname : ct mark
  }}
  set firewall_origins {{ typeof oifname . ct mark
  }}

  # The node's own addresses on its bridges, learnt from what it sends: nobody answers it before.
  set firewall_hosts {{ typeof ether saddr . meta obrname
    size 65536
    flags dynamic
  }}

  # Connections are tracked between conntrack's priority, -200, and the filters', -300: so what a
  # guest may not send is in none. What neither comes from a guest with a profile nor goes to one
  # is not tracked: the table of connections is the node's, and bridged networks must be able
  # neither to fill it nor to put into it what the node's own firewall would take for established.
  chain firewall_tracking {{
    type filter hook prerouting priority -250; policy accept;
    ct zone set meta ibrname . ether daddr map @firewall_guests accept
    # What goes to the node itself stays in the node's own zone, where its answers are.
    ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 accept
    ether daddr . meta ibrname @firewall_hosts accept
    meta pkttype host accept
    ct zone set iifname map @firewall_zones accept
    notrack
  }}

  chain firewall_marking {{
    type filter hook prerouting priority -150; policy accept;
    ct direction original ct mark set iifname map @firewall_marks
  }}

  chain firewall_output {{
    type filter hook output priority 0; policy accept;
    add @firewall_hosts {{ ether saddr . meta obrname }}
    oifname vmap @firewall_profiles
  }}
}}
"""


def bridged_rules(opened: Opened) -> str:
    """The rules for bridged NICs; they need conntrack for bridges."""
    return _BRIDGED.format(profiles=_profiles(opened, _ESTABLISHED_BRIDGED))


def routed_rules(opened: Opened) -> str:
    """The rules for routed NICs."""
    return _ROUTED.format(profiles=_profiles(opened, _ESTABLISHED_ROUTED))


def _profiles(opened: Opened, established: str) -> str:
    chains = [_COMMON.format(established=established.rstrip())]
    for name, ranges in opened.items():
        ports = "".join(
            f"    {protocol} dport {first if first == last else f'{first}-{last}'} accept\n"
            for protocol, first, last in ranges
        )
        chains.append(_PROFILE.format(name=name, ports=ports))
    return "\n".join(chains)
