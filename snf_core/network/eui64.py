"""Modified EUI-64: the IPv6 address that a NIC gives itself by its MAC address."""

from __future__ import annotations

import ipaddress

from snf_core.errors import NetworkError

LINK_LOCAL = ipaddress.IPv6Network("fe80::/64")


def eui64(prefix: ipaddress.IPv6Network, mac: str) -> ipaddress.IPv6Address:
    """The address of the NIC with ``mac`` in a /64 (RFC 4291, appendix A; RFC 4862, 5.5.3).

    Raises NetworkError for a prefix of another length, from which no address can be made so.
    """
    if prefix.prefixlen != 64:
        raise NetworkError(
            f"the IPv6 addresses of {prefix} cannot be told from MAC addresses",
            remedy="give the network an IPv6 prefix of length 64",
        )
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return prefix[int.from_bytes(identifier, "big")]
