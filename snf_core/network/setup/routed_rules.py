"""The nftables rules of the setup ``routed``, for all its NICs and for the uplinks."""

from __future__ import annotations

RULESET = """\
# Guests behind routed NICs are hostile: what one of them sends must be its own, and must not
# reach what it has no business with. The sets hold, for each NIC, what is its own.
table inet snf {
    # The host's sides of routed NICs. Packets of other interfaces cost one look-up.
    set routed_guests {
        typeof iifname
    }
    set routed_macs {
        typeof iifname . ether saddr
    }
    # A NIC without IPv4 has no element here, not even 0.0.0.0.
    set routed_sources4 {
        typeof iifname . ip saddr
    }
    set routed_sources6 {
        typeof iifname . ip6 saddr
    }
    # Guests that may send from any address, by their network's tag.
    set routed_spoofers {
        typeof iifname
    }
    # From which NIC out of which uplink.
    set routed_ways {
        typeof iifname . oifname
    }
    set routed_uplinks {
        typeof iifname
    }

    # Before connection tracking (-200), so that a forged packet never makes or matches a
    # connection of somebody else.
    chain routed_prerouting {
        type filter hook prerouting priority -300; policy accept;
        iifname @routed_guests jump routed_from_guest
    }
    chain routed_from_guest {
        iifname . ether saddr != @routed_macs drop
        # Guests are not the routers and DHCP servers of anybody, neither of the node nor, by it,
        # of each other. The type is found behind extension headers, too; a message that hides
        # it by fragmentation is ignored by its receiver (RFC 6980).
        icmp type redirect drop
        icmpv6 type { nd-router-advert, nd-redirect } drop
        udp dport { 68, 546 } drop
        meta nfproto ipv4 jump routed_from_guest4
        meta nfproto ipv6 jump routed_from_guest6
    }
    chain routed_from_guest4 {
        # Without an address yet, it may ask a DHCP server for one.
        ip saddr 0.0.0.0 ip protocol != udp drop
        ip saddr 0.0.0.0 udp dport != 67 drop
        iifname . ip saddr @routed_sources4 return
        iifname != @routed_spoofers drop
    }
    chain routed_from_guest6 {
        # Duplicate address detection, and what a host says before that has ended.
        ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, \\
            mld-listener-report, mld2-listener-report } return
        # Link-local addresses have no more than this link, whose only other end is the node. A
        # guest may choose them as it likes (RFC 7217), and nothing from them is forwarded.
        ip6 saddr fe80::/64 return
        iifname . ip6 saddr @routed_sources6 return
        iifname != @routed_spoofers drop
        # An IPv4 address in disguise is never on a wire (RFC 4942, section 2.2).
        ip6 saddr ::ffff:0.0.0.0/96 drop
    }

    # Where the routing table of guests has no route any more (their uplink went down), the
    # kernel goes on to the node's main table: packets of guests would leave by the node's own
    # networks, and packets of the uplink's wire would enter them.
    chain routed_forward {
        type filter hook forward priority -300; policy accept;
        iifname @routed_guests oifname != @routed_guests iifname . oifname != @routed_ways drop
        iifname @routed_uplinks oifname != @routed_guests drop
    }
}

table arp snf {
    set routed_guests {
        typeof iifname
    }
    set routed_macs {
        typeof iifname . arp saddr ether
    }
    # Its address, and 0.0.0.0 of a probe (RFC 5227). Nothing, where it has no IPv4.
    set routed_sources {
        typeof iifname . arp saddr ip
    }
    set routed_spoofers {
        typeof iifname
    }
    # In whose name the node asks, per interface: of NICs their gateway's, of uplinks that of a
    # spare address. The node has no address in the guests' subnet; with another one, guests
    # and routers need not answer, and would learn of an address that is none of their business.
    map routed_senders {
        typeof oifname : arp saddr ip
    }

    chain routed_input {
        type filter hook input priority -300; policy accept;
        iifname @routed_guests jump routed_from_guest
    }
    chain routed_from_guest {
        iifname . ether saddr != @routed_macs drop
        iifname . arp saddr ether != @routed_macs drop
        iifname . arp saddr ip @routed_sources return
        iifname != @routed_spoofers drop
    }
    # Answers keep their sender: it is the address that was asked for.
    chain routed_output {
        type filter hook output priority -300; policy accept;
        arp operation request arp saddr ip set oifname map @routed_senders
    }
}
"""
