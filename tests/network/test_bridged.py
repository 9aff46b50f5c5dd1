"""The setup ``bridged``, by the command line, in a real kernel that is asked for the outcome."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from tests.network import packets

if TYPE_CHECKING:
    from typing import Any

    from tests.network.host import Host

GUEST = bytes.fromhex("aa0010385425")
STATION = bytes.fromhex("020000000099")
EXPERIMENTAL = bytes.fromhex("88b5")
"""An EtherType for local experiments (IEEE Std 802)."""

WIRED = {"mtu": 1400, "master": "br0", "up": True, "address": "fe:00:10:38:54:25"}


@pytest.mark.parametrize("mtu", [1400, 9000])
def test_frames_of_the_bridges_mtu_cross_both_ways(host: Host, mtu: int) -> None:
    host.ip(*(f"link set {interface} mtu {mtu}" for interface in ("veth0", "wire0", "br0")))
    before = host.links()

    host.up()

    expected = before | {"tap0": WIRED | {"mtu": mtu}}
    assert host.links() == expected, "the bridge's own address and MTU included"
    guest, station = host.guest(), host.peer()
    body = EXPERIMENTAL + bytes(index % 251 for index in range(mtu))
    marker = EXPERIMENTAL + b"marker"
    out, back = STATION + GUEST, GUEST + STATION
    assert packets.passed(guest, station, [out + body], out + marker) == [out + body]
    assert packets.passed(station, guest, [back + body], back + marker) == [back + body]


def test_the_document_is_for_root_alone_and_says_what_was_there(host: Host) -> None:
    before = host.links()["tap0"]

    host.up(TAGS="prod web")

    assert host.left() == ["tap0.json"], "no lock or temporary file stays"
    path = host.documents / "tap0.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(host.documents.stat().st_mode) == 0o700
    document = json.loads(path.read_text())
    assert document["phase"] == "applied"
    assert document["event"]["tags"] == ["prod", "web"]
    links = [item for item in document["items"] if item["kind"] == "link"]
    assert {item["attribute"]: item["before"] for item in links} == before


def test_a_second_up_changes_nothing(host: Host) -> None:
    host.up()
    links = host.links()
    path = host.documents / "tap0.json"
    document = (path.read_text(), path.stat().st_ino)

    host.up()

    assert host.links() == links
    assert (path.read_text(), path.stat().st_ino) == document


def test_an_up_for_another_bridge_moves_the_nic(host: Host) -> None:
    before = host.links()
    host.ip("link add br1 type bridge", "link set br1 up")
    host.up()
    host.up(LINK="br1", BRIDGE="br1")
    assert host.links()["tap0"] == WIRED | {"master": "br1", "mtu": 1500}
    host.down()
    assert host.links()["tap0"] == before["tap0"], "as before the first up"


def test_down_twice_and_without_an_up(host: Host) -> None:
    before = host.links()
    host.down()
    host.up()
    host.down()
    host.down()
    assert host.links() == before
    assert host.left() == []


def test_down_of_a_tap_that_is_gone(host: Host) -> None:
    host.up()
    host.ip("link delete tap0")
    links = host.links()
    host.down(local_only="true")
    assert host.links() == links
    assert host.left() == []


def test_down_leaves_what_somebody_else_has_changed_since(host: Host) -> None:
    host.ip("link add br1 type bridge", "link set br1 up")
    host.up()
    host.ip("link set tap0 master br1 address 02:00:00:00:00:07")
    host.down()
    left = host.links()["tap0"]
    assert (left["master"], left["address"]) == ("br1", "02:00:00:00:00:07")
    assert host.left() == []


def test_what_an_earlier_tap_of_the_same_name_left_is_gone(host: Host) -> None:
    """Ganeti 3.0 never calls us on down."""
    host.up()
    host.ip("link delete tap0", "tuntap add dev tap0 mode tap", "link set tap0 mtu 1300")
    before = host.links()

    host.up(INSTANCE="web2.gnt.test")

    assert host.links()["tap0"] == WIRED
    assert json.loads((host.documents / "tap0.json").read_text())["event"]["instance"] == (
        "web2.gnt.test"
    )
    assert host.snf("down", "tap0", "false", INSTANCE="web2.gnt.test") == (0, "", "")
    assert host.links() == before, "as this tap was, not as the earlier one was"


def test_down_for_an_earlier_tap_does_not_touch_the_present_one(host: Host) -> None:
    host.up()
    host.ip(
        "link delete tap0",
        "tuntap add dev tap0 mode tap",
        "link set tap0 address fe:00:10:38:54:25 mtu 1400 up master br0",
    )
    links = host.links()
    host.down()
    assert host.links() == links
    assert host.left() == []


@pytest.mark.parametrize("content", ["", "{", '{"version": 1}', "\x00\xff", "[" * 100000])
def test_a_corrupt_document_is_as_good_as_none(host: Host, content: str) -> None:
    host.documents.mkdir(parents=True)
    (host.documents / "tap0.json").write_text(content)
    before = host.links()

    status, _, errors = host.snf("up")

    assert status == 0
    assert "tap0.json cannot be read" in errors
    assert host.links()["tap0"] == WIRED
    host.down()
    assert host.links() == before
    assert host.left() == []


def test_two_events_for_one_interface_wait_for_each_other_and_for_no_other(host: Host) -> None:
    host.ip("tuntap add dev tap1 mode tap")
    host.up()  # the first event of all loads the rules, and no other may meanwhile
    host.down()
    first = host.start_interrupted("wait", "links 0", "up")
    assert first.line() == "an accident at: links 0\n"
    second = host.start("up")
    host.up(INTERFACE="tap1", MAC="aa:00:10:38:54:26")
    assert host.links()["tap1"]["master"] == "br0"
    assert host.links()["tap0"]["master"] is None
    assert second.running(), "it must wait for the first"
    first.tell("go on\n")
    assert first.ended() == (0, "", "")
    assert second.ended() == (0, "", "")
    assert host.links()["tap0"] == WIRED
    assert host.left() == ["tap0.json", "tap1.json"]


def test_many_at_once_up_and_down(host: Host) -> None:
    taps = {f"tap{number}": f"aa:00:10:38:54:{number:02x}" for number in range(1, 13)}
    host.ip(*(f"tuntap add dev {tap} mode tap" for tap in taps))
    before = host.links()

    ups = [host.start("up", tap, INTERFACE=tap, MAC=mac) for tap, mac in taps.items()]
    assert [child.ended() for child in ups] == [(0, "", "")] * len(taps)

    links = host.links()
    for tap, mac in taps.items():
        assert links[tap] == WIRED | {"address": "fe" + mac[2:]}
    assert host.left() == sorted(f"{tap}.json" for tap in taps)

    downs = [host.start("down", tap, "false", INTERFACE=tap) for tap in taps]
    assert [child.ended() for child in downs] == [(0, "", "")] * len(taps)
    assert host.links() == before
    assert host.left() == []


def test_after_a_kill_of_a_later_event_nothing_of_either_is_left(host: Host) -> None:
    before = host.links()["tap0"]
    host.ip("link add br1 type bridge", "link set br1 up")
    host.up()
    for step in host.accidents("kill", "up", LINK="br1", BRIDGE="br1"):
        host.down()
        assert host.links()["tap0"] == before, step
        assert host.left() == [], step
        host.up()


def test_a_failure_of_a_later_event_leaves_the_earlier_one_standing(host: Host) -> None:
    host.ip("link add br1 type bridge", "link set br1 up")
    host.up()
    links = host.links()
    document = json.loads((host.documents / "tap0.json").read_text())
    for step in host.accidents("fail", "up", LINK="br1", BRIDGE="br1"):
        # br1 had no port, nor an address of its own but what its ports gave it.
        assert {**host.links(), "br1": None} == {**links, "br1": None}, step
        assert json.loads((host.documents / "tap0.json").read_text()) == document, step


def test_a_bridge_that_goes_meanwhile(host: Host) -> None:
    before = host.links()["tap0"]
    up = host.start_interrupted("wait", "links 0", "up")
    assert up.line() == "an accident at: links 0\n"
    host.ip("link delete br0")
    up.tell("go on\n")
    status, _, errors = up.ended()
    assert status == 1
    assert "br0" in errors
    assert host.links()["tap0"] == before
    assert host.left() == []


def test_an_mtu_that_the_device_refuses(host: Host) -> None:
    host.ip("link set veth0 mtu 65535", "link set br0 mtu 65535")
    before = host.links()
    status, _, errors = host.snf("up")
    assert status == 1
    assert "tap0: mtu cannot be set to 65535" in errors
    assert "remedy" in errors
    assert host.links() == before
    assert host.left() == []


@pytest.mark.parametrize(
    ("nic", "message"),
    [
        ({"INTERFACE": "tap0;reboot"}, "INTERFACE:"),
        ({"MAC": "01:00:5e:00:00:01"}, "MAC:"),
        ({"LINK": "$(reboot)", "BRIDGE": ""}, "LINK:"),
        ({"BRIDGE": "br1"}, "BRIDGE:"),
        ({"INTERFACE": "tap7"}, "tap7 does not exist"),
        ({"LINK": "br7", "BRIDGE": "br7"}, "bridge br7 does not exist"),
        ({"LINK": "wire0", "BRIDGE": "wire0"}, "wire0 is not a bridge but veth"),
        ({"VLAN": ".10"}, "the bridge br0 knows none"),
        ({"MODE": "routed", "LINK": "100", "BRIDGE": ""}, "serves mode routed"),
        ({"MODE": "openvswitch"}, "serves mode openvswitch"),
        ({"NETWORK_NAME": "n", "NETWORK_TAGS": "ip-less-routed dns"}, "'ip-less-routed'"),
        ({"NETWORK_NAME": "n", "NETWORK_TAGS": "bridged private-filtered"}, "'private-filtered'"),
        ({"TAGS": "synnefo:network:0:protected"}, "'synnefo:network:0:protected'"),
    ],
)
def test_what_cannot_be_served_is_refused_and_nothing_touched(
    host: Host, nic: dict[str, str], message: str
) -> None:
    host.configure("[network]\nsetups = bridged\n")
    before = host.links()
    status, output, errors = host.snf("up", **nic)
    assert (status, output) == (1, "")
    assert message in errors
    assert host.links() == before
    assert not host.documents.exists() or host.left() == []


def test_status_compares_with_the_kernel(host: Host) -> None:
    assert host.snf("status") == (0, "no NIC is wired by us\n", "")
    host.up()
    assert "tap0 of web1.gnt.test: applied, as wanted\n" in host.snf("status")[1]
    host.ip("link set tap0 mtu 1280")
    output = host.snf("status", "tap0")[1]
    assert "tap0 of web1.gnt.test: applied, NOT as wanted\n" in output
    assert "link tap0 mtu 1400 (bridged), but is 1280\n" in output
    host.ip("link delete tap0")
    assert "NOT as wanted" in host.snf("status")[1]


def test_a_veth_is_as_good_as_a_tap(host: Host) -> None:
    host.ip("link add vif1.0 type veth peer name guest0")
    before: dict[str, Any] = host.links()
    host.up(INTERFACE="vif1.0")
    assert host.links()["vif1.0"] == WIRED
    host.down("vif1.0")
    assert host.links() == before
