"""VLANs of bridged NICs: who gets which frames, and no way into another VLAN."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

from tests.network.packets import passed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scapy.packet import Packet

    from tests.network.host import Host

pytestmark = pytest.mark.kernel("vlan-filtering")

MAC = "aa:00:10:38:54:25"
STATION = "02:00:00:00:00:99"
BROADCAST = "ff:ff:ff:ff:ff:ff"


class Case(NamedTuple):
    """A NIC's VLANs in Ganeti's notation, and what they are."""

    vlan: str
    untagged: int | None
    tagged: Sequence[int] = ()


CASES = [Case(".100", 100), Case(":200:300", None, (200, 300)), Case(".100:200", 100, (200,))]
each = pytest.mark.parametrize("case", CASES, ids=[case.vlan for case in CASES])


def make_aware(host: Host, default: int = 1) -> None:
    """br0 knows VLANs; its port veth0 is a trunk of 100, 200, 300, with 1 untagged there."""
    host.ip(f"link set br0 type bridge vlan_filtering 1 vlan_default_pvid {default}")
    bridge(host, *(f"vlan add dev veth0 vid {number}" for number in (100, 200, 300)))
    bridge(host, "vlan add dev veth0 vid 1 pvid untagged")


def bridge(host: Host, *commands: str) -> None:
    """Commands of bridge(8)."""
    subprocess.run(
        ["bridge", "-n", host.namespace.name, "-batch", "-"],
        input="\n".join(commands).encode(),
        check=True,
    )


def vlans(host: Host, interface: str = "tap0") -> dict[int, set[str]]:
    """The flags of a port's VLANs, as the kernel has them."""
    shown = subprocess.run(
        ["bridge", "-n", host.namespace.name, "-json", "vlan", "show", "dev", interface],
        capture_output=True,
        check=True,
    )
    ports = json.loads(shown.stdout or b"[]")
    return {one["vlan"]: set(one.get("flags", [])) for port in ports for one in port["vlans"]}


def frame(source: str, *tags: Packet, payload: bytes = b"frame") -> bytes:
    """From the guest or the station to everybody."""
    packet = Ether(dst=BROADCAST, src=source)
    for one in tags:
        packet = packet / one
    return bytes(packet / IP(src="10.0.0.5", dst="10.0.0.255") / UDP(sport=9, dport=9) / payload)


@each
def test_the_kernel_has_these_vlans_and_no_other(host: Host, case: Case) -> None:
    make_aware(host)
    host.up(VLAN=case.vlan)
    expected = {number: set[str]() for number in case.tagged}
    if case.untagged:
        expected[case.untagged] = {"PVID", "Egress Untagged"}
    assert vlans(host) == expected, "not even 1, which every port has by default"
    host.down()
    assert vlans(host) == {}


@each
def test_the_guest_gets_the_frames_of_its_vlans_only(host: Host, case: Case) -> None:
    make_aware(host)
    host.up(VLAN=case.vlan)
    guest, trunk = host.guest(), host.peer()
    sent = {
        number: frame(STATION, Dot1Q(vlan=number), payload=b"in %4d" % number)
        for number in (100, 200, 300)
    }
    untagged = frame(STATION, payload=b"in one")
    mark = frame(STATION, Dot1Q(vlan=case.untagged or case.tagged[0]), payload=b" marker")
    arrived = passed(trunk, guest, [untagged, *sent.values()], mark, known_by=lambda one: one[-7:])
    mine = {case.untagged, *case.tagged}
    assert arrived == [one for number, one in sent.items() if number in mine]


@each
def test_what_the_guest_sends_is_in_its_vlans_only(host: Host, case: Case) -> None:
    make_aware(host)
    host.up(VLAN=case.vlan)
    guest, trunk = host.guest(), host.peer()
    frames = {
        "untagged": frame(MAC, payload=b"untagged"),
        **{
            str(number): frame(MAC, Dot1Q(vlan=number), payload=b"in %5d" % number)
            for number in (1, 100, 200, 300)
        },
    }
    mark = frame(MAC, *([] if case.untagged else [Dot1Q(vlan=case.tagged[0])]), payload=b" marker ")
    names = {one: name for name, one in frames.items()}
    arrived = passed(guest, trunk, list(frames.values()), mark, known_by=lambda one: one[-8:])
    expected = ["untagged"] if case.untagged else []
    if case.untagged and case.tagged:
        expected.append(str(case.untagged))  # a trunk may tag its own VLAN, too
    expected += [str(number) for number in case.tagged]
    assert [names[one] for one in arrived] == expected


def test_frames_leave_by_the_trunk_with_the_tag_of_their_vlan(host: Host) -> None:
    make_aware(host)
    host.up(VLAN=".100")
    guest, trunk = host.guest(), host.peer()
    sent = frame(MAC)
    passed(guest, trunk, [], frame(MAC, payload=b"marker"), known_by=lambda one: one[-6:])
    guest.send(sent)
    got = trunk.receive(60)
    assert got is not None
    assert (Ether(got)[Dot1Q].vlan, bytes(Ether(got)[IP])) == (100, bytes(Ether(sent)[IP]))


ATTACKS = {
    "its own VLAN in front": [Dot1Q(vlan=100), Dot1Q(vlan=200)],
    "another VLAN": [Dot1Q(vlan=200)],
    "its own VLAN": [Dot1Q(vlan=100)],
    "priority": [Dot1Q(vlan=0)],
    "priority in front": [Dot1Q(vlan=0), Dot1Q(vlan=200)],
    "the default VLAN in front": [Dot1Q(vlan=1), Dot1Q(vlan=200)],
    "QinQ": [Dot1AD(vlan=100), Dot1Q(vlan=200)],
    "QinQ of VLAN 0": [Dot1AD(vlan=0), Dot1Q(vlan=200)],
    "three": [Dot1Q(vlan=0), Dot1Q(vlan=100), Dot1Q(vlan=200)],
}


@pytest.mark.parametrize("vlan", ["", ".100"])
@pytest.mark.parametrize("tags", ATTACKS.values(), ids=list(ATTACKS))
def test_an_access_port_cannot_hop_by_tags(host: Host, tags: list[Packet], vlan: str) -> None:
    """The wire is untagged in the guest's own VLAN, as an uplink in its native VLAN is.

    Without our rule a frame with that VLAN's tag in front would leave as one of the tag behind.
    """
    make_aware(host)
    own = 100 if vlan else 1
    bridge(host, f"vlan add dev veth0 vid {own} untagged")
    host.up(VLAN=vlan)
    guest, trunk = host.guest(), host.peer()
    attack = frame(MAC, *tags, payload=b"attack")
    mark = frame(MAC, payload=b"marker")
    assert passed(guest, trunk, [attack], mark, known_by=lambda one: one[-6:]) == []
    if tags[0].vlan == own and isinstance(tags[0], Dot1Q):
        host.nft("flush chain bridge snf bridged_ingress")
        assert passed(guest, trunk, [attack], mark, known_by=lambda one: one[-6:]) == [attack]


def test_the_guests_of_two_vlans_do_not_hear_each_other(host: Host) -> None:
    make_aware(host, default=0)
    host.ip("tuntap add dev tap1 mode tap", "tuntap add dev tap2 mode tap")
    host.up(VLAN=".100")
    host.up(INTERFACE="tap1", VLAN=".200", MAC="aa:00:10:00:00:01", INSTANCE="b")
    host.up(INTERFACE="tap2", VLAN=":100:200", MAC="aa:00:10:00:00:02", INSTANCE="c")
    first, second, router = (host.guest(tap) for tap in ("tap0", "tap1", "tap2"))
    in_first = frame("aa:00:10:00:00:02", Dot1Q(vlan=100), payload=b"in  100")
    in_second = frame("aa:00:10:00:00:02", Dot1Q(vlan=200), payload=b"in  200")
    for receiver, mine, other in (first, in_first, in_second), (second, in_second, in_first):
        assert passed(router, receiver, [other], mine, known_by=lambda one: one[-7:]) == []
    sent = frame(MAC, payload=b"of one ")
    mark = frame(MAC, payload=b"of two ")
    assert passed(first, router, [sent], mark, known_by=lambda one: one[-7:]) == [sent]
    assert passed(router, second, [in_first], in_second, known_by=lambda one: one[-7:]) == []
    heard = [one for one in second.drain() if b"of one" in one]
    assert heard == []


def test_a_vlan_changes_with_the_next_up(host: Host) -> None:
    make_aware(host)
    host.up(VLAN=".100")
    host.up(VLAN=".200:300")
    assert vlans(host) == {200: {"PVID", "Egress Untagged"}, 300: set()}
    assert host.nft("list set bridge snf bridged_untagged")[0]["set"].get("elem", []) == []
    host.up(VLAN="")
    assert host.elements("bridge", "bridged_untagged") == ["tap0"]
    host.down()
    assert vlans(host) == {}
    assert host.elements("bridge", "bridged_untagged") == []


def test_a_bridge_that_knows_no_vlans_is_refused_with_the_remedy(host: Host) -> None:
    before = host.links()
    status, _, errors = host.snf("up", VLAN=".100")
    assert status == 1
    assert "ip link set br0 type bridge vlan_filtering 1" in errors
    assert host.links() == before


@pytest.mark.parametrize("vlan", ["0", ".4095", ":100:", "100; reboot", "$(reboot)"])
def test_what_is_no_vlan_is_refused_by_name(host: Host, vlan: str) -> None:
    before = host.links()
    status, _, errors = host.snf("up", VLAN=vlan)
    assert status == 1
    assert "VLAN" in errors
    assert host.links() == before
