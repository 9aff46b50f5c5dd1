"""What the system works on: instances, disks, networks and NICs.

Frozen dataclasses, validated where they are made: whoever holds one may trust every field.
All raise InvalidValueError, which says which value is wrong and why.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass, field
from typing import TypeVar

from snf_core.errors import InvalidValueError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MAC_PREFIX = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){2}")
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,14}")
_INSTANCE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")
_TAG = re.compile(r"[A-Za-z0-9_.+*/:@-]{1,128}")
_UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_NAME = re.compile(rf"[^{_UNPRINTABLE}]{{1,255}}")
_PLACE = re.compile(rf"[^{_UNPRINTABLE}]{{1,4095}}")
"""A path (PATH_MAX in linux/limits.h) or URI."""
_LENGTH = re.compile(r".*/[0-9]{1,3}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_A = TypeVar("_A", ipaddress.IPv4Address, ipaddress.IPv6Address)
_N = TypeVar("_N", ipaddress.IPv4Network, ipaddress.IPv6Network)


class Mode(enum.Enum):
    """How a NIC is attached on the host, in Ganeti's words."""

    BRIDGED = "bridged"
    ROUTED = "routed"
    OPENVSWITCH = "openvswitch"
    EXTERNAL = "ext"


class Action(enum.Enum):
    """What has happened to a NIC's host side."""

    UP = "up"
    DOWN = "down"


class Migration(enum.Enum):
    """Where a guest that comes from another node is, while its NICs are wired here."""

    PRE = "pre"
    """Still on the other node: nothing here may draw its traffic."""
    POST = "post"
    """Here."""


class Twin(enum.Enum):
    """Which interface it is of a NIC that has two on the host, one at a time in use by the guest.

    Xen emulates a device for guests that have no drivers of its own, or not yet: firmware, boot
    loaders, installers. A guest that has them gives that device up and goes on by the other way.
    """

    PARAVIRTUAL = "paravirtual"
    """Used once the guest's own drivers have connected to it: it has a carrier then."""
    EMULATED = "emulated"
    """Used until then."""


def _match(pattern: re.Pattern[str], value: str, what: str, expected: str) -> str:
    if not pattern.fullmatch(value):
        raise InvalidValueError(f"{value!r} is not {what}", remedy=f"expected {expected}")
    return value


def interface_name(value: str) -> str:
    """A network interface's name as Linux allows and nothing that could be taken for an option.

    At most 15 characters (IFNAMSIZ in linux/if.h), no slash, no blank; "." and ".." excluded,
    and "all" and "default", which stand for every interface below /proc/sys/net.
    """
    if value in {".", "..", "all", "default"}:
        raise InvalidValueError(f"{value!r} is not an interface name")
    return _match(_INTERFACE, value, "an interface name", "1 to 15 letters, digits, . _ : -")


def mac_address(value: str) -> str:
    """A unicast MAC address in lower case with colons."""
    mac = _match(_MAC, value.lower(), "a MAC address", "six hexadecimal bytes with colons")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise InvalidValueError(
            f"{value!r} is not the MAC address of a single NIC",
            remedy="expected a unicast address: an even first byte, and not all zeros",
        )
    return mac


def instance_name(value: str) -> str:
    """An instance's name: a host name or FQDN (RFC 1123, underscores tolerated)."""
    return _match(_INSTANCE, value, "an instance name", "a host name of at most 253 characters")


def tag(value: str) -> str:
    """A tag in Ganeti's alphabet (man gnt-tags): letters, digits and . + * / : @ - _."""
    return _match(_TAG, value, "a tag", "1 to 128 letters, digits, . + * / : @ - _")


def tags(words: str) -> frozenset[str]:
    """Blank-separated tags. A set: Ganeti passes them in varying order."""
    return frozenset(tag(word) for word in words.split())


def uuid(value: str) -> str:
    """A UUID in lower case."""
    return _match(_UUID, value.lower(), "a UUID", "8-4-4-4-12 hexadecimal digits")


def name(value: str) -> str:
    """A name that a user gave to a network or a NIC: anything printable, on one line."""
    return _match(_NAME, value, "a name", "1 to 255 characters, none of them control characters")


def mac_prefix(value: str) -> str:
    """The first three bytes of a network's MAC addresses, in lower case with colons."""
    return _match(_MAC_PREFIX, value.lower(), "a MAC prefix", "three hexadecimal bytes with colons")


def mtu(value: int) -> int:
    """An MTU in bytes: 68 (RFC 791) to 65535."""
    if not 68 <= value <= 65535:
        raise InvalidValueError(f"{value} is not an MTU", remedy="expected 68 to 65535 bytes")
    return value


def address(value: str) -> Address:
    """An IPv4 or IPv6 address, without a scope, which Python would take in any alphabet."""
    try:
        if "%" not in value:
            return ipaddress.ip_address(value)
    except ValueError:
        pass
    raise InvalidValueError(
        f"{value!r} is not an IP address", remedy="expected 192.0.2.1 or 2001:db8::1, for example"
    )


def _of_family(kind: type[_A], value: str) -> _A:
    found = address(value)
    if not isinstance(found, kind):
        version = kind.__name__[:4]
        raise InvalidValueError(
            f"{value!r} is not an {version} address", remedy=f"give an {version} address"
        )
    return found


def ipv4_address(value: str) -> ipaddress.IPv4Address:
    """An IPv4 address."""
    return _of_family(ipaddress.IPv4Address, value)


def ipv6_address(value: str) -> ipaddress.IPv6Address:
    """An IPv6 address."""
    return _of_family(ipaddress.IPv6Address, value)


def _prefix(kind: type[_N], value: str) -> _N:
    try:
        if "%" not in value and _LENGTH.fullmatch(value):
            return kind(value)
    except ValueError:
        pass
    raise InvalidValueError(
        f"{value!r} is not an {kind.__name__[:4]} prefix",
        remedy="expected ADDRESS/LENGTH with no host bits set",
    )


def ipv4_network(value: str) -> ipaddress.IPv4Network:
    """An IPv4 prefix, host bits zero."""
    return _prefix(ipaddress.IPv4Network, value)


def ipv6_network(value: str) -> ipaddress.IPv6Network:
    """An IPv6 prefix, host bits zero."""
    return _prefix(ipaddress.IPv6Network, value)


@dataclass(frozen=True)
class Instance:
    """A virtual machine as the cluster manager names it."""

    name: str
    hypervisor: str
    uuid: str = ""

    def __post_init__(self) -> None:
        instance_name(self.name)
        if self.uuid:
            uuid(self.uuid)


@dataclass(frozen=True)
class Disk:
    """One disk of an instance: a local path (block device or file), or a URI, or both."""

    index: int
    path: str = ""
    uri: str = ""
    name: str = ""
    uuid: str = ""
    frontend: str = ""
    """How the guest sees it, in Ganeti's words: paravirtual, scsi-hd, ide..."""

    def __post_init__(self) -> None:
        if not self.path and not self.uri:
            raise InvalidValueError(
                f"disk {self.index} has neither a path nor a URI", remedy="give one of them"
            )
        if self.path and not self.path.startswith("/"):
            raise InvalidValueError(
                f"disk {self.index}: {self.path!r} is not an absolute path",
                remedy="give a path that begins with a slash",
            )
        for pattern, value in ((_PLACE, self.path), (_PLACE, self.uri), (_NAME, self.name)):
            if value:
                _match(pattern, value, f"usable for disk {self.index}", "printable characters")


@dataclass(frozen=True)
class Network:
    """A network of the cluster, to which NICs belong."""

    name: str
    uuid: str = ""
    subnet: ipaddress.IPv4Network | None = None
    gateway: ipaddress.IPv4Address | None = None
    subnet6: ipaddress.IPv6Network | None = None
    gateway6: ipaddress.IPv6Address | None = None
    mac_prefix: str = ""
    tags: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        _match(_NAME, self.name, "a network name", "printable characters")
        if self.uuid:
            uuid(self.uuid)
        if self.mac_prefix:
            mac_prefix(self.mac_prefix)


@dataclass(frozen=True)
class Nic:
    """One NIC of an instance. ``link`` is a bridge, or for routed NICs a routing table."""

    index: int
    mac: str
    mode: Mode
    link: str = ""
    ip: Address | None = None
    vlan: str = ""
    name: str = ""
    uuid: str = ""
    frontend: str = ""
    network: Network | None = None
    mtu: int | None = None
    """Bytes; None for what its bridge has, or what is usual."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mac", mac_address(self.mac))
        if self.mtu is not None:
            mtu(self.mtu)
        if self.mode is Mode.BRIDGED:
            interface_name(self.link)
        elif self.link:
            _match(_NAME, self.link, "a link", "printable characters")
        if self.name:
            _match(_NAME, self.name, "a NIC name", "printable characters")
        if self.uuid:
            uuid(self.uuid)

    @property
    def network_tags(self) -> frozenset[str]:
        """The tags of the NIC's network; empty where it has none."""
        return self.network.tags if self.network else frozenset()


@dataclass(frozen=True)
class NicEvent:
    """The host side of a NIC has appeared or is going away."""

    action: Action
    interface: str
    """The host's interface: a tap or a vif."""
    instance: str
    nic: Nic | None = None
    """What the NIC should be, or was; always there when ``action`` is UP."""
    instance_tags: frozenset[str] = field(default_factory=frozenset)
    local_only: bool = False
    """Going away from this node alone (migration): cluster-wide state such as DNS stays."""
    migration: Migration | None = None
    """Which call it is for a guest that comes from another node, where that is told."""
    rename: str = ""
    """Another name that the interface gets when it is wired; it may go by either of them."""
    twin: Twin | None = None
    """Which one it is where the NIC has two interfaces on the host."""

    def __post_init__(self) -> None:
        interface_name(self.interface)
        if self.rename:
            interface_name(self.rename)
        if self.instance or self.action is Action.UP:
            instance_name(self.instance)
        if self.action is Action.UP and self.nic is None:
            raise InvalidValueError(f"nothing is known of the NIC behind {self.interface}")

    @property
    def final_name(self) -> str:
        """What the interface is called once it is wired."""
        return self.rename or self.interface
