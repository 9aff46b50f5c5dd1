"""The setup ``bridged``, by the command line, in a real kernel that is asked for the outcome."""

from __future__ import annotations

import json
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from tests.network.conftest import HERE, Host

if TYPE_CHECKING:
    from typing import Any

WIRED = {"mtu": 1400, "master": "br0", "up": True, "address": "fe:00:10:38:54:25"}


@pytest.mark.parametrize("mtu", [1400, 9000])
def test_frames_of_the_bridges_mtu_cross_both_ways(host: Host, mtu: int) -> None:
    for interface in ("veth0", "wire0", "br0"):
        host.ip(f"link set {interface} mtu {mtu}")
    before = host.links()

    host.up()

    expected = before | {"tap0": WIRED | {"mtu": mtu}}
    assert host.links() == expected, "the bridge's own address and MTU included"
    host.namespace.run([sys.executable, str(HERE / "frames.py"), "tap0", "wire0", str(mtu)])


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
    assert {item["attribute"]: item["before"] for item in document["items"]} == before


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
    host.namespace.bridge("br1")
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
    host.namespace.bridge("br1")
    host.up()
    host.ip("link set tap0 master br1")
    host.ip("link set tap0 address 02:00:00:00:00:07")
    host.down()
    left = host.links()["tap0"]
    assert (left["master"], left["address"]) == ("br1", "02:00:00:00:00:07")
    assert host.left() == []


def test_what_an_earlier_tap_of_the_same_name_left_is_gone(host: Host) -> None:
    """Ganeti 3.0 never calls us on down."""
    host.up()
    host.ip("link delete tap0")
    host.ip("tuntap add dev tap0 mode tap")
    host.ip("link set tap0 mtu 1300")
    before = host.links()

    host.up(INSTANCE="web2.gnt.test")

    assert host.links()["tap0"] == WIRED
    assert json.loads((host.documents / "tap0.json").read_text())["event"]["instance"] == (
        "web2.gnt.test"
    )
    host.down()
    assert host.links() == before, "as this tap was, not as the earlier one was"


def test_down_for_an_earlier_tap_does_not_touch_the_present_one(host: Host) -> None:
    host.up()
    host.ip("link delete tap0")
    host.ip("tuntap add dev tap0 mode tap")
    host.ip("link set tap0 address fe:00:10:38:54:25 mtu 1400 up master br0")
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
    first = host.start_interrupted("before", "master", "wait")
    with first:
        assert first.stdout
        assert first.stdout.readline() == "waiting\n"
        with host.start("up") as second:
            host.up(INTERFACE="tap1", MAC="aa:00:10:38:54:26")
            assert host.links()["tap1"]["master"] == "br0"
            assert host.links()["tap0"]["master"] is None
            assert second.poll() is None, "it must wait for the first"
            assert first.communicate("go on\n", timeout=60) == ("", "")
            assert second.communicate(timeout=60) == ("", "")
    assert (first.returncode, second.returncode) == (0, 0)
    assert host.links()["tap0"] == WIRED
    assert host.left() == ["tap0.json", "tap1.json"]


def test_many_at_once_up_and_down(host: Host) -> None:
    taps = {f"tap{number}": f"aa:00:10:38:54:{number:02x}" for number in range(1, 13)}
    for tap in taps:
        host.ip(f"tuntap add dev {tap} mode tap")
    before = host.links()

    ups = [host.start("up", tap, INTERFACE=tap, MAC=mac) for tap, mac in taps.items()]
    assert [process.communicate(timeout=120) for process in ups] == [("", "")] * len(taps)

    links = host.links()
    for tap, mac in taps.items():
        assert links[tap] == WIRED | {"address": "fe" + mac[2:]}
    assert host.left() == sorted(f"{tap}.json" for tap in taps)

    downs = [host.start("down", tap, "false", INTERFACE=tap) for tap in taps]
    assert [process.communicate(timeout=120) for process in downs] == [("", "")] * len(taps)
    assert host.links() == before
    assert host.left() == []


@pytest.mark.parametrize(
    ("when", "attribute"),
    [
        ("before", "address"),
        ("before", "mtu"),
        ("before", "master"),
        ("before", "up"),
        ("after", "up"),
    ],
)
def test_after_a_kill_at_any_step_up_and_down_repair(host: Host, when: str, attribute: str) -> None:
    before = host.links()

    for repair in ("down", "up"):
        assert host.interrupted_up(when, attribute, "kill")[0] == -9
        document = json.loads((host.documents / "tap0.json").read_text())
        assert document["phase"] == "applying"
        if repair == "up":
            host.up()
            assert host.links() == before | {"tap0": WIRED}
        host.down()
        assert host.links() == before
        assert host.left() == []


@pytest.mark.parametrize(("when", "attribute"), [("before", "master"), ("after", "mtu")])
def test_after_a_kill_of_a_later_event_nothing_of_either_is_left(
    host: Host, when: str, attribute: str
) -> None:
    before = host.links()
    host.namespace.bridge("br1")
    host.up()
    process = host.start_interrupted(when, attribute, "kill", LINK="br1", BRIDGE="br1")
    process.communicate(timeout=60)
    assert process.returncode == -9
    host.down()
    assert host.links()["tap0"] == before["tap0"]
    assert host.left() == []


@pytest.mark.parametrize("attribute", ["address", "mtu", "master", "up"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failure_at_any_step_leaves_the_kernel_as_before(
    host: Host, when: str, attribute: str
) -> None:
    before = host.links()
    assert host.interrupted_up(when, attribute, "fail") == (
        1,
        "",
        f"accident {when} {attribute}\n",
    )
    assert host.links() == before
    assert host.left() == []


def test_a_failure_of_a_later_event_leaves_the_earlier_one_standing(host: Host) -> None:
    host.namespace.bridge("br1")
    host.up()
    links = host.links()
    document = (host.documents / "tap0.json").read_text()
    process = host.start_interrupted("after", "master", "fail", LINK="br1", BRIDGE="br1")
    process.communicate(timeout=60)
    assert process.returncode == 1
    after = host.links()
    # br1 had no port, nor an address of its own but what its ports gave it.
    assert {**after, "br1": None} == {**links, "br1": None}
    assert (host.documents / "tap0.json").read_text() == document


def test_a_bridge_that_goes_meanwhile(host: Host) -> None:
    before = host.links()["tap0"]
    status, _, errors = host.interrupted_up("before", "master", "delete")
    assert status == 1
    assert "tap0: master cannot be set to br0" in errors
    assert host.links()["tap0"] == before
    assert host.left() == []


def test_an_mtu_that_the_device_refuses(host: Host) -> None:
    host.ip("link set veth0 mtu 65535")
    host.ip("link set br0 mtu 65535")
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
        ({"VLAN": ".10"}, "VLAN-aware bridges are not served yet"),
        ({"MODE": "routed", "LINK": "100", "BRIDGE": ""}, "serves mode routed"),
        ({"MODE": "openvswitch"}, "serves mode openvswitch"),
        ({"NETWORK_NAME": "n", "NETWORK_TAGS": "ip-less-routed dns"}, "dns, ip-less-routed"),
        ({"NETWORK_NAME": "n", "NETWORK_TAGS": "bridged private-filtered"}, "'private-filtered'"),
        ({"TAGS": "synnefo:network:0:protected"}, "'synnefo:network:0:protected'"),
    ],
)
def test_what_cannot_be_served_is_refused_and_nothing_touched(
    host: Host, nic: dict[str, str], message: str
) -> None:
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
