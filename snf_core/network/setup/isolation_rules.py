"""The rules of the setup ``isolation``: what shut NICs neither send nor receive.

They drop from priority -300, like all that filters here by whose a packet is: before connection
tracking, so that being shut ends what was open.
"""

from __future__ import annotations

BRIDGED = """\
table bridge snf {
    set isolation_isolated { type ifname
    }
    set isolation_disabled4 { type ifname
    }
    set isolation_disabled6 { type ifname
    }
    # NICs that only the addresses next to them in the other sets pass from and to.
    set isolation_whitelisted { type ifname
    }
    set isolation_addresses4 { typeof iifname . ip daddr
    }
    set isolation_addresses6 { typeof iifname . ip6 daddr
    }

    chain isolation_prerouting {
        type filter hook prerouting priority -300; policy accept;
        iifname @isolation_isolated drop
        iifname @isolation_disabled4 jump isolation_not4
        iifname @isolation_disabled6 jump isolation_not6
        iifname @isolation_whitelisted goto isolation_from
    }
    chain isolation_forward {
        type filter hook forward priority -300; policy accept;
        goto isolation_to_nic
    }
    chain isolation_output {
        type filter hook output priority -300; policy accept;
        goto isolation_to_nic
    }
    chain isolation_to_nic {
        oifname @isolation_isolated drop
        oifname @isolation_disabled4 jump isolation_not4
        oifname @isolation_disabled6 jump isolation_not6
        oifname @isolation_whitelisted goto isolation_to
    }

    # `ether type` is what is on the wire, `meta protocol` what stands behind a VLAN tag. What the
    # emulator says of a guest that has migrated is RARP without an IPv4 address (see ``filtered``):
    # it passes, for the sake of switches, or the guest would not be reached where it is now.
    chain isolation_not4 {
        jump isolation_announcement
        ether type { ip, arp, 0x8035 } drop
        meta protocol { ip, arp, 0x8035 } drop
    }
    chain isolation_not6 {
        ether type ip6 drop
        meta protocol ip6 drop
    }

    chain isolation_announcement {
        ether type 0x8035 meta length <= 46 ether daddr ff:ff:ff:ff:ff:ff \\
            @nh,0,64 0x1080006040003 @nh,112,32 0 @nh,192,32 0 accept
    }

    # ARP and Neighbour Discovery pass: without them not even the listed addresses are reached,
    # by way of a router or not. They are whole and carry no extension headers (RFC 6980), so
    # that they cannot carry much else. Membership reports and queries, which switches need to
    # bring the solicitations here, do carry a hop-by-hop header.
    chain isolation_from {
        ether type arp accept
        jump isolation_announcement
        ether type ip iifname . ip daddr @isolation_addresses4 accept
        ether type ip6 iifname . ip6 daddr @isolation_addresses6 accept
        ether type ip6 goto isolation_neighbours
        drop
    }
    chain isolation_to {
        ether type arp accept
        ether type ip oifname . ip saddr @isolation_addresses4 accept
        ether type ip6 oifname . ip6 saddr @isolation_addresses6 accept
        ether type ip6 goto isolation_neighbours
        drop
    }
    chain isolation_neighbours {
        ip6 nexthdr icmpv6 icmpv6 type { nd-router-solicit, nd-router-advert, \\
            nd-neighbor-solicit, nd-neighbor-advert } accept
        icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, \\
            mld2-listener-report } accept
        drop
    }
}
"""

ROUTED = """\
table arp snf {
    set isolation_isolated { type ifname
    }
    set isolation_disabled4 { type ifname
    }
    chain isolation_input {
        type filter hook input priority -300; policy accept;
        iifname @isolation_isolated drop
        iifname @isolation_disabled4 drop
    }
    chain isolation_output {
        type filter hook output priority -300; policy accept;
        oifname @isolation_isolated drop
        oifname @isolation_disabled4 drop
    }
}
table inet snf {
    set isolation_isolated { type ifname
    }
    set isolation_disabled4 { type ifname
    }
    set isolation_disabled6 { type ifname
    }
    # NICs that only the addresses next to them in the other sets pass from and to.
    set isolation_whitelisted { type ifname
    }
    set isolation_addresses4 { typeof iifname . ip daddr
    }
    set isolation_addresses6 { typeof iifname . ip6 daddr
    }

    chain isolation_prerouting {
        type filter hook prerouting priority -300; policy accept;
        iifname @isolation_isolated drop
        iifname @isolation_disabled4 meta nfproto ipv4 drop
        iifname @isolation_disabled6 meta nfproto ipv6 drop
        iifname @isolation_whitelisted goto isolation_from
    }
    # What the node sends itself passes here too.
    chain isolation_postrouting {
        type filter hook postrouting priority -300; policy accept;
        oifname @isolation_isolated drop
        oifname @isolation_disabled4 meta nfproto ipv4 drop
        oifname @isolation_disabled6 meta nfproto ipv6 drop
        oifname @isolation_whitelisted goto isolation_to
    }

    # ARP does not come by here, Neighbour Discovery does: between the guest and this node, which
    # is all that the guest has on its link.
    chain isolation_from {
        iifname . ip daddr @isolation_addresses4 accept
        iifname . ip6 daddr @isolation_addresses6 accept
        goto isolation_neighbours
    }
    chain isolation_to {
        oifname . ip saddr @isolation_addresses4 accept
        oifname . ip6 saddr @isolation_addresses6 accept
        goto isolation_neighbours
    }
    chain isolation_neighbours {
        ip6 nexthdr icmpv6 icmpv6 type { nd-router-solicit, nd-router-advert, \\
            nd-neighbor-solicit, nd-neighbor-advert } accept
        icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, \\
            mld2-listener-report } accept
        drop
    }
}
"""
