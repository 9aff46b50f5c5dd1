"""The rules of the setup ``filtered``: what a guest may send onto a bridge.

They say what passes; whatever is left over is dropped. What a NIC is known by stands in sets, one
element per fact, keyed by its interface: the cost of a packet does not grow with the number of
NICs. The sets have no ``size``: with one, the kernel sets aside the memory of a full set at once.
"""

from __future__ import annotations

_SETS = """\
table bridge snf {
    # The NICs that are filtered; all others are none of this setup's business.
    set filtered_interfaces { type ifname
    }
    # The MAC address that is a NIC's own; once more as a number, for the link-layer option of
    # Neighbour Discovery, which nft has no name for.
    set filtered_macs { typeof iifname . ether saddr
    }
    set filtered_link_layers { typeof iifname . @nh,528,48
    }

    # The IPv4 addresses that are a NIC's own; NICs that may use any.
    set filtered_addresses4 { typeof iifname . ip saddr
    }
    set filtered_any4 { type ifname
    }
    # MAC and IPv4 address together: one question for what most packets are.
    set filtered_pairs4 { typeof iifname . ether saddr . ip saddr
    }

    # The same for IPv6, as numbers, since nft has no name for a neighbour advertisement's target
    # either. Beside single addresses a NIC may have a whole /64 (privacy addresses), without the
    # addresses of its gateway.
    set filtered_addresses6 { typeof iifname . @nh,64,128
    }
    set filtered_prefixes6 { typeof iifname . @nh,64,128
    }
    set filtered_gateways6 { typeof iifname . @nh,64,128
    }
    set filtered_any6 { type ifname
    }
    set filtered_pairs6 { typeof iifname . ether saddr . ip6 saddr
    }

    # The NICs whose network lets its guests be DHCP servers, and routers.
    set filtered_dhcp_servers { type ifname
    }
    set filtered_routers { type ifname
    }

    # The NICs of private networks, and the MAC prefix that all NICs of the same network share.
    set filtered_private { type ifname
    }
    set filtered_private_prefixes { typeof oifname . ether saddr
    }
"""

_FRAMES = """\
    # Before everything else that looks at packets, connection tracking (-200) included: a
    # "connection is established" must never let a forged packet through (CVE-2025-52890).
    chain filtered_prerouting {
        type filter hook prerouting priority -300; policy accept;
        meta pkttype multicast ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 \\
            iifname @filtered_interfaces drop
        ether type ip iifname . ether saddr . ip saddr @filtered_pairs4 goto filtered_ip_payload
        ether type ip6 iifname . ether saddr . ip6 saddr @filtered_pairs6 goto filtered_ip6_payload
        iifname @filtered_interfaces goto filtered_frame
    }

    # `ether type` is what stands behind the addresses on the wire, even where the kernel has
    # taken a VLAN tag off. So a tag (priority tags with VLAN 0, and double tags, too) and LLC/SNAP
    # (a length in the type's place) cannot carry past the filters what they would see without:
    # VU#855201. Whatever else a guest has no business with is dropped with them, and all that is
    # to the groups of a link (STP, LLDP), which `group_fwd_mask` of the port brings here.
    chain filtered_frame {
        iifname . ether saddr != @filtered_macs drop
        ether type vmap { arp : goto filtered_arp, ip : goto filtered_ip, \\
            ip6 : goto filtered_ip6, 0x8035 : goto filtered_rarp }
        drop
    }

    # By one kind of RARP the emulator says where a guest is, once it has migrated: a request to
    # everybody (RFC 903) for the address of the sender itself, which names none. Switches learn
    # the port from it, though the guest be silent. No other RARP is anybody's business. It is no
    # longer than the shortest frame, 60 bytes, of which `meta length` leaves out the first 14.
    chain filtered_rarp {
        meta length <= 46 ether daddr ff:ff:ff:ff:ff:ff \\
            @nh,0,64 0x1080006040003 @nh,112,32 0 @nh,192,32 0 \\
            iifname . @nh,64,48 @filtered_link_layers \\
            iifname . @nh,144,48 @filtered_link_layers accept
        drop
    }

    # ARP about nobody but the sender. A probe (RFC 5227: no sender address yet) only for an
    # address of its own, or it would keep another guest from taking up that guest's.
    chain filtered_arp {
        arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation { request, reply } \\
            iifname . arp saddr ether @filtered_macs goto filtered_arp_sender
        drop
    }
    chain filtered_arp_sender {
        iifname . arp saddr ip @filtered_addresses4 accept
        iifname @filtered_any4 accept
        arp operation request arp saddr ip 0.0.0.0 \\
            iifname . arp daddr ip @filtered_addresses4 accept
        drop
    }
"""

_IP = """\
    # From its own address, or for an address: DHCP before there is one.
    chain filtered_ip {
        iifname . ip saddr @filtered_addresses4 goto filtered_ip_payload
        iifname @filtered_any4 goto filtered_ip_payload
        ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept
        drop
    }

    # `meta l4proto != 255` (reserved) holds wherever the header can be read at all. Of fragments
    # only the first says what the packet is; behind a first one that was dropped, the later ones
    # are never put together. Fragments that overlap cannot change what was seen: the ports and
    # the ICMP type are in the first 8 bytes, and offsets count by 8.
    chain filtered_ip_payload {
        meta l4proto tcp accept
        meta l4proto udp goto filtered_dhcp
        meta l4proto != 255 ip frag-off & 0x1fff != 0 accept
        meta l4proto vmap { icmp : goto filtered_icmp, igmp : goto filtered_igmp, \\
            103 : goto filtered_router }
        meta l4proto != 255 accept
        drop
    }

    # DHCP servers and relays answer from port 67; clients take answers from any port to their
    # 68. A UDP header that is not whole has no ports to compare, and is dropped. What is read as
    # the ports of a later fragment may be anything, and is no matter.
    chain filtered_dhcp {
        th sport 67 goto filtered_dhcp_reply
        th dport != 68 accept
        goto filtered_dhcp_reply
    }
    chain filtered_dhcp_reply {
        ip frag-off & 0x1fff != 0 accept
        goto filtered_dhcp_server
    }
    chain filtered_dhcp_server {
        iifname @filtered_dhcp_servers accept
        drop
    }
    chain filtered_icmp {
        icmp type != { redirect, router-advertisement } accept
        goto filtered_router
    }
    # Whoever asks for group memberships (as PIM routers, protocol 103, do) draws all multicast
    # to its port; 0x30 and 0x32 are multicast routers' advertisements (RFC 4286).
    chain filtered_igmp {
        igmp type != { membership-query, 0x30, 0x32 } accept
        goto filtered_router
    }
    chain filtered_router {
        iifname @filtered_routers accept
        drop
    }
"""

_IP6 = """\
    # `meta l4proto` is what stands behind all extension headers, and is not there where the
    # chain of headers cannot be followed, in later fragments that claim to go on with an
    # extension header neither (RFC 7113). An extension header behind the fragment header is
    # not seen by who looks at later fragments, and no guest needs one. The kernel does not look
    # behind an authentication header.
    chain filtered_ip6 {
        jump filtered_ip6_source
        goto filtered_ip6_payload
    }
    chain filtered_ip6_payload {
        ip6 nexthdr tcp accept
        ip6 nexthdr udp goto filtered_dhcp6_ports
        frag nexthdr { 0, 43, 44, 51, 60 } drop
        meta l4proto vmap { icmpv6 : goto filtered_icmp6, udp : goto filtered_dhcp6, \\
            103 : goto filtered_router, ah : drop }
        meta l4proto != 255 accept
        drop
    }

    # From an address of its own, or from none (::) what a guest sends before it has one. The
    # identifiers with ff:fe in the middle are made of MAC addresses: in a whole /64, those are
    # still nobody's but their owners'.
    chain filtered_ip6_source {
        iifname . @nh,64,128 @filtered_addresses6 return
        iifname @filtered_any6 return
        iifname . @nh,64,128 @filtered_gateways6 drop
        @nh,152,16 != 0xfffe \\
            iifname . @nh,64,128 & 0xffffffffffffffff0000000000000000 @filtered_prefixes6 return
        ip6 saddr :: icmpv6 type { nd-router-solicit, nd-neighbor-solicit, mld-listener-report, \\
            mld-listener-done, mld2-listener-report } return
        drop
    }

    # Fragments as with IPv4. Later ones pass before anything is compared: what a kernel takes for
    # ports or a type there (payload, the fragment header, nothing) is not the same with all.
    chain filtered_dhcp6 {
        frag frag-off != 0 accept
        goto filtered_dhcp6_ports
    }
    chain filtered_dhcp6_ports {
        udp sport 547 goto filtered_dhcp_server
        udp dport != 546 accept
        goto filtered_dhcp_server
    }

    # 138 renumbers routers, 151 and 153 are multicast routers'; 141 and 142 are inverse Neighbour
    # Discovery, which tells MAC addresses that nobody would look at.
    chain filtered_icmp6 {
        frag frag-off != 0 accept
        icmpv6 type 133-137 goto filtered_discovery
        icmpv6 type { mld-listener-query, 138, 151, 153 } goto filtered_router
        icmpv6 type { 141, 142 } drop
        icmpv6 type != 255 accept
        drop
    }

    # Of Neighbour Discovery, what has exactly one meaning: without extension headers, whole
    # (RFC 6980), and with at most the one option that we know, since the receiver may believe a
    # second one. What is left over here are routers' advertisements and redirects.
    chain filtered_discovery {
        ip6 nexthdr != icmpv6 drop
        icmpv6 type vmap {
            nd-router-solicit : goto filtered_router_solicitation,
            nd-neighbor-solicit : goto filtered_neighbour_solicitation,
            nd-neighbor-advert : goto filtered_neighbour_advertisement
        }
        goto filtered_router
    }
    chain filtered_router_solicitation {
        ip6 length 8 accept
        ip6 length 16 @nh,384,16 0x0101 iifname . @nh,400,48 @filtered_link_layers accept
        drop
    }
    # Duplicate address detection (from ::) like an ARP probe, with a nonce or without (RFC 7527).
    chain filtered_neighbour_solicitation {
        ip6 saddr :: jump filtered_target
        ip6 length 24 accept
        ip6 length 32 @nh,512,16 0x0101 iifname . @nh,528,48 @filtered_link_layers accept
        ip6 length 32 @nh,512,16 0x0e01 ip6 saddr :: accept
        drop
    }
    chain filtered_neighbour_advertisement {
        jump filtered_target
        ip6 length 24 accept
        ip6 length 32 @nh,512,16 0x0201 iifname . @nh,528,48 @filtered_link_layers accept
        drop
    }
    # The target of a solicitation or advertisement: like a source address.
    chain filtered_target {
        iifname . @nh,384,128 @filtered_addresses6 return
        iifname @filtered_any6 return
        iifname . @nh,384,128 @filtered_gateways6 drop
        @nh,472,16 != 0xfffe \\
            iifname . @nh,384,128 & 0xffffffffffffffff0000000000000000 @filtered_prefixes6 return
        drop
    }
"""

_PRIVATE = """\
    # To a private network's NIC only what comes from the same network, groups and broadcasts
    # too: forwarded frames, and those of the node itself. What such a NIC sends carries its own
    # MAC address (filtered_frame), so that it reaches no other network.
    chain filtered_forward {
        type filter hook forward priority -300; policy accept;
        oifname @filtered_private goto filtered_private_source
    }
    chain filtered_output {
        type filter hook output priority -300; policy accept;
        oifname @filtered_private goto filtered_private_source
    }
    chain filtered_private_source {
        oifname . ether saddr & MAC_MASK @filtered_private_prefixes accept
        drop
    }
}
"""


def rules(mac_mask: str) -> str:
    """The ruleset, where NICs of one private network have the masked part of their MAC in common.

    ``mac_mask`` is in a MAC address's notation.
    """
    return (_SETS + _FRAMES + _IP + _IP6 + _PRIVATE).replace("MAC_MASK", mac_mask)
