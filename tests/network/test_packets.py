"""The rig itself: frames arrive as they were sent, and what is dropped is seen to be dropped."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.network import packets

if TYPE_CHECKING:
    from tests.network.host import Host

GUEST = bytes.fromhex("aa0010385425")
STATION = bytes.fromhex("020000000099")
PAYLOAD = bytes.fromhex("88b5") + bytes(46)
MARKER = bytes.fromhex("88b6") + bytes(46)

BODIES = {
    "untagged": PAYLOAD,
    "of one byte": PAYLOAD[:3],
    "802.1Q": bytes.fromhex("8100 0064") + PAYLOAD,
    "priority": bytes.fromhex("8100 e000") + PAYLOAD,
    "802.1ad": bytes.fromhex("88a8 0064 8100 00c8") + PAYLOAD,
    "802.1Q twice": bytes.fromhex("8100 0064 8100 00c8") + PAYLOAD,
    "of an unknown type": bytes.fromhex("86ee") + bytes(46),
    "LLC and SNAP": bytes.fromhex("0030 aaaa03 000000 0800") + bytes(40),
}


def _connect(host: Host) -> None:
    host.ip("link set tap0 mtu 1400 up master br0")


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
def test_a_frame_arrives_as_it_was_sent(host: Host, body: bytes) -> None:
    _connect(host)
    guest, station = host.guest(), host.peer()
    out, back = STATION + GUEST, GUEST + STATION
    assert packets.passed(guest, station, [out + body], out + MARKER) == [out + body]
    assert packets.passed(station, guest, [back + body], back + MARKER) == [back + body]


def test_what_is_dropped_has_not_passed(host: Host) -> None:
    _connect(host)
    host.nft(
        "table bridge somebody {\n chain forward {\n"
        "  type filter hook forward priority 0\n  ether type 0x88b5 drop\n }\n}"
    )
    guest, station = host.guest(), host.peer()
    out = STATION + GUEST
    frames = [out + PAYLOAD, out + bytes.fromhex("88b7") + bytes(46)]
    assert packets.passed(guest, station, frames, out + MARKER) == frames[1:]
    with pytest.raises(AssertionError, match="did not pass from tap0 to wire0"):
        packets.passed(guest, station, [], out + PAYLOAD, timeout=1)


def test_a_peer_does_not_hear_itself(host: Host) -> None:
    _connect(host)
    guest, station, echo = host.guest(), host.peer(), host.peer()
    back = GUEST + STATION
    assert packets.passed(station, guest, [], back + MARKER) == []
    assert back + MARKER not in echo.drain()


def test_a_child_is_in_the_namespace_and_the_test_is_not(host: Host) -> None:
    def names() -> int:
        with open("/proc/net/dev") as file:
            print(sum("tap0" in line for line in file))
        return 7

    assert host.fork(names).ended() == (7, "1\n", "")
    with open("/proc/thread-self/net/dev") as file:
        assert "tap0" not in file.read()


def test_a_child_ends_as_a_program_does(host: Host) -> None:
    status, _, errors = host.fork(lambda: 1 // 0).ended()
    assert status == 1
    assert "ZeroDivisionError" in errors
    child = host.fork(lambda: print(input()))
    child.tell("spoken to\n")
    assert child.line() == "spoken to\n"
    assert child.ended() == (0, "", "")
    child = host.fork(lambda: int(bool(input())))
    child.kill()
    assert child.ended() == (-signal.SIGKILL, "", "")


def test_the_program_is_what_the_child_runs(host: Host) -> None:
    assert host.cold("status") == host.snf("status") == (0, "no NIC is wired by us\n", "")
