"""The setup ``openvswitch``, with a real Open vSwitch that serves the node's namespace."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

from snf_core.errors import NetworkError
from snf_core.network import switch
from snf_core.network.state import PORT, Change, Item
from snf_core.network.switch import Switch
from tests.network.packets import TIMEOUT, passed, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scapy.packet import Packet

    from tests.network.host import Host
    from tests.network.packets import Port

pytestmark = pytest.mark.kernel("openvswitch")

RUNTIME = Path("/run/openvswitch")
SOCKET = RUNTIME / "db.sock"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"

MAC = "aa:00:10:38:54:25"
STATION = "02:00:00:00:00:99"
BROADCAST = "ff:ff:ff:ff:ff:ff"


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, check=False, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@dataclass
class OpenVSwitch:
    """Its two daemons, where programs look for them: they cannot be told another place."""

    host: Host
    _held: ExitStack = field(default_factory=ExitStack)

    def start_database(self) -> None:
        """Start the database, empty the first time."""
        file = self.host.directory / "conf.db"
        if not file.exists():
            run("ovsdb-tool", "create", str(file), SCHEMA)
        self._start("ovsdb-server", f"--remote=punix:{SOCKET}", str(file))
        run("ovs-vsctl", "--retry", "--no-wait", "init")

    def start_switch(self) -> None:
        """Start what makes the kernel do what the database says."""
        # By one thread, what goes through it stays in its order.
        one = "other_config:n-handler-threads=1"
        run("ovs-vsctl", "--no-wait", "set", "Open_vSwitch", ".", one)
        self._start("ovs-vswitchd", f"unix:{SOCKET}")

    def _start(self, *words: str) -> None:
        process = subprocess.Popen(
            self.host.namespace.command(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def end() -> None:
            process.terminate()
            process.wait(TIMEOUT)

        self._held.callback(end)

    def stop(self) -> None:
        """End the daemons."""
        self._held.close()
        SOCKET.unlink(missing_ok=True)

    def ports(self, switch: str = "ovs0") -> list[str]:
        """The ports of a switch."""
        return run("ovs-vsctl", "list-ports", switch).split()


@pytest.fixture
def ovs(host: Host) -> Iterator[OpenVSwitch]:
    """The switch ovs0 (MTU 1400) with the port veth1, a trunk whose other end is wire1."""
    assert not SOCKET.exists(), "Open vSwitch runs on this machine: it is nothing for tests"
    RUNTIME.mkdir(exist_ok=True)
    made = OpenVSwitch(host)
    try:
        made.start_database()
        made.start_switch()
        host.ip(
            "link add veth1 mtu 1400 type veth peer name wire1",
            "link set wire1 mtu 1400 up",
            "link set veth1 up",
        )
        run(
            *("ovs-vsctl", "add-br", "ovs0", "--", "add-port", "ovs0", "veth1"),
            *("--", "set", "Port", "veth1", "trunks=[0,100,200,300]"),
        )
        yield made
        run("ovs-vsctl", "--if-exists", "del-br", "ovs0", "--", "--if-exists", "del-br", "ovs1")
    finally:
        made.stop()


def up(host: Host, vlan: str = "", link: str = "ovs0", **nic: str) -> None:
    host.up(MODE="openvswitch", LINK=link, BRIDGE="", VLAN=vlan, **nic)


def frame(source: str, *tags: Packet, payload: bytes = b"frame") -> bytes:
    packet = Ether(dst=BROADCAST, src=source)
    for one in tags:
        packet = packet / one
    return bytes(packet / IP(src="10.0.0.5", dst="10.0.0.255") / UDP(sport=9, dport=9) / payload)


def end(of: bytes) -> bytes:
    return of[-8:]


def crossed(sender: Port, receiver: Port, frames: Sequence[bytes], marker: bytes) -> list[bytes]:
    """Those of ``frames`` that arrive; ``marker`` is a frame that does.

    The first frame of a kind goes through ovs-vswitchd, and later ones may overtake it. So the
    last marker is the first of its kind: that has its source address.
    """
    passed(sender, receiver, [], marker, known_by=end)
    sent = {end(one): one for one in frames}
    arrived = []

    def is_last(one: bytes) -> bool:
        if end(one) in sent:
            arrived.append(sent[end(one)])
        return end(one) == b"the last"

    for one in frames:
        sender.send(one)
    source = b"\2" + os.urandom(5)
    sender.send(marker[:6] + source + marker[12:-8] + b"the last")
    wait_for(receiver, is_last)
    return arrived


@pytest.mark.parametrize(
    ("vlan", "untagged", "tagged"),
    [("", 0, ()), (".100", 100, ()), (":200:300", None, (200, 300)), (".100:200", 100, (200,))],
)
def test_the_guest_is_in_its_vlans_only(
    ovs: OpenVSwitch, vlan: str, untagged: int | None, tagged: Sequence[int]
) -> None:
    host = ovs.host
    up(host, vlan)
    guest, trunk = host.guest(), host.peer("wire1")
    first = [] if untagged is not None else [Dot1Q(vlan=tagged[0])]

    sent = {
        number: frame(MAC, *([Dot1Q(vlan=number)] if number else []), payload=b"out %4d" % number)
        for number in (0, 100, 200, 300)
    }
    mark = frame(MAC, *first, payload=b"marker->")
    arrived = crossed(guest, trunk, list(sent.values()), mark)
    expected = {0 if untagged is not None else None, *tagged}
    if tagged:
        expected.add(untagged)  # a trunk may tag its own VLAN, too
    assert arrived == [one for number, one in sent.items() if number in expected]

    sent = {
        number: frame(
            STATION, *([Dot1Q(vlan=number)] if number else []), payload=b"in  %4d" % number
        )
        for number in (0, 100, 200, 300)
    }
    own = untagged if untagged is not None else tagged[0]
    mark = frame(STATION, *([Dot1Q(vlan=own)] if own else []), payload=b"<-marker")
    arrived = crossed(trunk, guest, list(sent.values()), mark)
    assert arrived == [one for number, one in sent.items() if number in {untagged, *tagged}]


@pytest.mark.parametrize("vlan", ["", ".100"])
@pytest.mark.parametrize(
    "tags",
    [
        [Dot1Q(vlan=100), Dot1Q(vlan=200)],
        [Dot1Q(vlan=200)],
        [Dot1AD(vlan=100), Dot1Q(vlan=200)],
    ],
    ids=["two tags", "another VLAN", "QinQ"],
)
def test_an_access_port_cannot_hop_by_tags(ovs: OpenVSwitch, tags: list[Packet], vlan: str) -> None:
    """The wire has VLAN 100 untagged, as an uplink its native VLAN."""
    run("ovs-vsctl", "set", "Port", "veth1", "vlan_mode=native-untagged", "tag=100")
    host = ovs.host
    up(host, vlan)
    host.ip("tuntap add dev tap1 mode tap")
    up(host, vlan, INTERFACE="tap1", MAC="aa:00:10:00:00:01", INSTANCE="b")
    guest, neighbour, trunk = host.guest(), host.guest("tap1"), host.peer("wire1")
    attack, mark = frame(MAC, *tags, payload=b" attack "), frame(MAC, payload=b" marker ")
    for receiver in (neighbour, trunk) if vlan else (neighbour,):
        assert crossed(guest, receiver, [attack], mark) == []
    if isinstance(tags[0], Dot1Q):  # otherwise it is an untagged frame, and goes nowhere here
        run("ovs-vsctl", "clear", "Port", "tap0", "tag", "vlan_mode")
        mark = frame(MAC, Dot1Q(vlan=200), payload=b" marker ")
        assert crossed(guest, trunk, [attack], mark) == [attack], "as any other port could"


def test_the_taps_mtu_address_and_ipv6(ovs: OpenVSwitch) -> None:
    host = ovs.host
    before = host.links()["ovs0"]
    assert before["mtu"] == 1400
    up(host)
    tap = host.links()["tap0"]
    assert (tap["mtu"], tap["address"], tap["up"]) == (1400, "fe:00:10:38:54:25", True)
    assert host.links()["ovs0"] == before
    assert host.sysctl("net/ipv6/conf/tap0/disable_ipv6") == "1"


def test_up_again_changes_nothing_and_down_takes_the_port_away(ovs: OpenVSwitch) -> None:
    host = ovs.host
    before = host.links()["tap0"]
    up(host, ".100")
    uuid = run("ovs-vsctl", "get", "Port", "tap0", "_uuid")
    up(host, ".100")
    assert run("ovs-vsctl", "get", "Port", "tap0", "_uuid") == uuid
    up(host, ":200")
    shown = json.loads(
        run("ovs-vsctl", "--format=json", "--columns=tag,trunks,vlan_mode", "list", "Port", "tap0")
    )
    assert shown["data"] == [[["set", []], 200, "trunk"]]
    host.down()
    assert ovs.ports() == ["veth1"]
    after = host.links()["tap0"]
    assert after | {"master": None} == before


def test_the_port_of_a_tap_that_is_gone_is_taken_back(ovs: OpenVSwitch) -> None:
    host = ovs.host
    up(host, ".100")
    host.ip("link delete tap0")
    assert "tap0" in ovs.ports(), "the database outlives the tap"
    status, output, errors = host.snf("reconcile")
    assert (status, errors) == (0, "")
    assert "tap0" in output
    assert ovs.ports() == ["veth1"]
    assert host.left() == []


def test_what_an_earlier_tap_of_the_same_name_left_is_replaced(ovs: OpenVSwitch) -> None:
    """By whomever: it would connect the new guest where the old one was."""
    host = ovs.host
    run("ovs-vsctl", "add-br", "ovs1", "--", "add-port", "ovs1", "tap0", "tag=7")
    up(host, ".100")
    assert ovs.ports("ovs1") == []
    assert sorted(ovs.ports()) == ["tap0", "veth1"]
    assert run("ovs-vsctl", "get", "Port", "tap0", "tag") == "100\n"
    host.down()
    assert (ovs.ports("ovs1"), ovs.ports()) == ([], ["veth1"])


def test_a_port_that_the_switch_cannot_make_is_not_left_in_its_database(ovs: OpenVSwitch) -> None:
    with pytest.raises(NetworkError, match="cannot make port nothing7 switch ovs0"):
        Switch().apply([Change(Item(PORT, "nothing7", "switch", "ovs0"), None)])
    assert ovs.ports() == ["veth1"]


def test_a_switch_that_is_no_more_fails_and_leaves_the_port_as_it_was(ovs: OpenVSwitch) -> None:
    up(ovs.host, ".100")
    uuid = run("ovs-vsctl", "get", "Port", "tap0", "_uuid")
    item = Item(PORT, "tap0", "switch", "ovs9")
    with pytest.raises(NetworkError, match=r"no bridge named ovs9.*ovs-vsctl add-br"):
        Switch().apply([Change(item, "ovs0 untagged 100")])
    before = Item(PORT, "tap0", "switch", "ovs0 untagged 100")
    assert Switch().read([before]) == {before.key: before.value}
    assert run("ovs-vsctl", "get", "Port", "tap0", "_uuid") == uuid, "untouched"


def test_a_switch_that_does_not_answer_in_time_has_nothing_of_it_in_its_database(
    ovs: OpenVSwitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switch, "PATIENCE", 1)
    ovs.stop()
    ovs.start_database()
    item = Item(PORT, "tap0", "switch", "ovs0")
    with pytest.raises(NetworkError, match=r"cannot make port tap0 switch ovs0.*ovs-vswitchd"):
        Switch().apply([Change(item, None)])
    assert ovs.ports() == ["veth1"]
    ovs.start_switch()


def test_where_open_vswitch_does_not_run_the_nic_is_refused_with_the_remedy(
    ovs: OpenVSwitch,
) -> None:
    host = ovs.host
    before = host.links()["tap0"]
    run("ovs-vsctl", "del-port", "veth1")
    ovs.stop()
    status, _, errors = host.snf("up", MODE="openvswitch", LINK="ovs0", BRIDGE="")
    assert status == 1
    assert "systemctl start openvswitch-switch" in errors
    assert host.links()["tap0"] == before
    assert host.left() == []
    ovs.start_database()
    ovs.start_switch()


@pytest.mark.parametrize(
    ("nic", "message"),
    [
        ({"LINK": "ovs9"}, "ovs-vsctl add-br ovs9"),
        ({"LINK": "br0"}, "br0 is not an Open vSwitch bridge but bridge"),
        ({"NETWORK_NAME": "n", "NETWORK_TAGS": "private-filtered"}, "'private-filtered' promises"),
        ({"TAGS": "synnefo:network:0:protected"}, "'synnefo:network:0:protected' promises"),
        ({"TAGS": "gnt:isolate"}, "'gnt:isolate' promises"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    ovs: OpenVSwitch, nic: dict[str, str], message: str
) -> None:
    host = ovs.host
    before = host.links()["tap0"]
    status, _, errors = host.snf(
        "up", **{"MODE": "openvswitch", "LINK": "ovs0", "BRIDGE": ""} | nic
    )
    assert status == 1
    assert message in errors
    assert host.links()["tap0"] == before
    assert ovs.ports() == ["veth1"]
