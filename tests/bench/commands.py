"""The same wiring by commands, as scripts of the past did it: the peer of ``snf network up``.

Every rule is a process of its own. ``ebtables`` has no lock that waits, so each of its calls was
wrapped in a program that holds one, and each event began by taking back whatever might be left
of an earlier NIC of the name. What they do is less than what ours does: of what a filtered guest
may forge they stop its MAC address alone, and every failure is ignored.
"""

from __future__ import annotations

LOCKED = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.set_inheritable(lock, True)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""``python -c LOCKED FILE PROGRAM ...``: run the program while the lock is held."""

_FILTERED = """
ip link set dev "$INTERFACE" mtu "$(cat "/sys/class/net/$LINK/mtu")"
ip link set dev "$INTERFACE" up
ip link set dev "$INTERFACE" master "$LINK"
for chain in INPUT FORWARD; do locked ebtables -D $chain -i "$INTERFACE" -j "FROM$INTERFACE"; done
for chain in FORWARD OUTPUT; do locked ebtables -D $chain -o "$INTERFACE" -j "TO$INTERFACE"; done
locked ebtables -X "FROM$INTERFACE"
locked ebtables -X "TO$INTERFACE"
locked ebtables -N "FROM$INTERFACE" -P RETURN
locked ebtables -N "TO$INTERFACE" -P RETURN
for chain in INPUT FORWARD; do locked ebtables -A $chain -i "$INTERFACE" -j "FROM$INTERFACE"; done
for chain in FORWARD OUTPUT; do locked ebtables -A $chain -o "$INTERFACE" -j "TO$INTERFACE"; done
locked ebtables -A "FROM$INTERFACE" -s ! "$MAC" -j DROP
locked ebtables -A "TO$INTERFACE" -s ! "$MAC/ff:ff:f0:00:00:00" -j DROP
"""

_ROUTED = """
ip link set dev "$INTERFACE" address cc:47:52:4e:45:54
ip link set dev "$INTERFACE" up
while ip rule del dev "$INTERFACE"; do :; done
while ip -6 rule del dev "$INTERFACE"; do :; done
iptables -w -D FORWARD -i "$INTERFACE" ! -s "$IP" -j DROP
ip6tables -w -D FORWARD -i "$INTERFACE" ! -s "$IP6" -j DROP
arptables -D OUTPUT -o "$INTERFACE" --opcode 1 -j mangle --mangle-ip-s "$NETWORK_GATEWAY"
uplink="$(ip route list table "$LINK" | sed -n 's/^default via .* dev //p' | cut -d' ' -f1)"
ip rule add iif "$INTERFACE" lookup "$LINK"
ip route replace "$IP/32" dev "$INTERFACE" proto static table "$LINK"
echo 1 > "/proc/sys/net/ipv4/conf/$INTERFACE/proxy_arp"
arptables -A OUTPUT -o "$INTERFACE" --opcode 1 -j mangle --mangle-ip-s "$NETWORK_GATEWAY"
iptables -w -I FORWARD -i "$INTERFACE" ! -s "$IP" -j DROP
uplink6="$(ip -6 route list table "$LINK" | sed -n 's/^default via .* dev //p' | cut -d' ' -f1)"
ip -6 rule add iif "$INTERFACE" lookup "$LINK"
ip -6 route replace "$IP6/128" dev "$INTERFACE" proto static table "$LINK"
echo 0 > "/proc/sys/net/ipv6/conf/$INTERFACE/proxy_ndp"
ip -6 neigh replace proxy "$IP6" dev "$uplink6"
ip6tables -w -I FORWARD -i "$INTERFACE" ! -s "$IP6" -j DROP
"""


_ANNOUNCED = """
echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind
arping -c 1 -w 1 -U -I "$uplink" -s "$IP" "$IP"
arping -c 1 -w 1 -A -I "$uplink" -s "$IP" "$IP"
echo 0 > /proc/sys/net/ipv4/ip_nonlocal_bind
"""


def filtered(python: str, lock: str) -> str:
    """A shell script for a NIC of a ``private-filtered`` network; ``lock`` is a file's path."""
    return f"locked() {{ {python} -c '{LOCKED}' {lock} \"$@\"; }}\n{_FILTERED}"


def filtered_unlocked() -> str:
    """The same without the lock, which nobody could have used."""
    return f'locked() {{ "$@"; }}\n{_FILTERED}'


def routed() -> str:
    """A shell script for a NIC of an ``ip-less-routed`` network, without its announcements."""
    return _ROUTED


def announced() -> str:
    """The same with them: a request and a reply, each until arping has waited for answers."""
    return _ROUTED + _ANNOUNCED
