"""What the rtnetlink gate reads and writes, without a kernel."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import NetworkError
from snf_core.network import netlink
from snf_core.network import rtnetlink as rt
from snf_core.network.netlink import attribute_list, attributes
from snf_core.network.replies import read_vlans

DONE, LINK, INTERRUPTED = 3, 16, 0x10


class FakeSocket:
    """Answers with datagrams, each of messages: type, flags, body."""

    def __init__(self, datagrams: list[list[tuple[int, int, bytes]]]) -> None:
        self.datagrams = datagrams

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, data: bytes) -> None:
        """Nothing depends on it."""

    def recvmsg(self, _size: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        """The next datagram, from the kernel."""
        messages = self.datagrams.pop(0)
        data = b"".join(
            netlink.HEADER.pack(16 + len(body), kind, flags, 1, 0) + body
            for kind, flags, body in messages
        )
        return data, [], 0, (0, 0)


def test_a_list_that_changed_meanwhile_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = iter(
        [
            FakeSocket([[(LINK, 2, b"old1")], [(LINK, 2 | INTERRUPTED, b"old2"), (DONE, 2, b"")]]),
            FakeSocket([[(LINK, 2, b"old3")], [(DONE, 2 | INTERRUPTED, bytes(4))]]),
            FakeSocket([[(LINK, 2, b"new1"), (LINK, 2, b"new2")], [(DONE, 2, bytes(4))]]),
        ]
    )
    monkeypatch.setattr(netlink, "_opened", lambda: next(opened))
    assert [reply.body for reply in netlink.dump(bytes(32))] == [b"new1", b"new2"]


def test_a_list_that_never_stays_the_same_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        netlink, "_opened", lambda: FakeSocket([[(DONE, 2 | INTERRUPTED, bytes(4))]])
    )
    with pytest.raises(NetworkError, match="try again"):
        netlink.dump(bytes(32))


def test_a_list_that_fails_half_way_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = (-errno.ENOMEM).to_bytes(4, "little", signed=True)
    monkeypatch.setattr(
        netlink, "_opened", lambda: FakeSocket([[(LINK, 2, b"abcd")], [(DONE, 2, failed)]])
    )
    with pytest.raises(OSError, match="memory"):
        netlink.dump(bytes(32))


@given(st.binary())
def test_attributes_of_anything_are_inside_it(body: bytes) -> None:
    assert sum(4 + len(value) for _, value in attribute_list(body)) <= len(body)


def test_attributes_end_where_the_body_does() -> None:
    assert attributes(bytes.fromhex("0500 0180 61 000000 0800 0200 01000000")) == {
        1: b"a",
        2: b"\1\0\0\0",
    }
    assert attributes(bytes.fromhex("0000 0100 00000000")) == {}, "no length: it would never end"


@given(
    st.dictionaries(st.integers(1, 4094), st.sampled_from([0, 2, 4, 6]), min_size=1, max_size=50)
)
def test_vlans_in_words_and_back(vlans: dict[int, int]) -> None:
    words = rt.format_vlans(vlans)
    assert words is not None
    assert rt.parse_vlans(words) == vlans


def test_vlans_of_a_port() -> None:
    assert rt.parse_vlans("untagged 100 tagged 200,300") == {100: 6, 200: 0, 300: 0}
    assert rt.format_vlans({300: 0, 100: 6, 200: 0}) == "untagged 100 tagged 200,300"
    assert rt.format_vlans({}) is None
    assert read_vlans([]) == {}


def test_only_the_vlans_that_differ_are_changed() -> None:
    def sent(wanted: str, actual: rt.Vlans | None) -> list[tuple[int, list[tuple[int, int]]]]:
        return [
            (
                message.type,
                [(one["vid"], one["flags"]) for _, one in message.attributes[0][1]["attrs"]],
            )
            for message in rt.set_vlans(3, rt.parse_vlans(wanted), actual)
        ]

    assert sent("untagged 5", {5: 6}) == []
    assert sent("untagged 5 tagged 7", {1: 6, 7: 0}) == [
        (rt.RTM_DELLINK, [(1, 0)]),
        (rt.RTM_SETLINK, [(5, 6)]),
    ]
    assert sent("tagged 5", None) == [
        (rt.RTM_DELLINK, [(1, 8), (4094, 16)]),
        (rt.RTM_SETLINK, [(5, 0)]),
    ]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.1/32", ("192.0.2.1", 32)),
        ("0.0.0.0/0", ("0.0.0.0", 0)),
        ("::/0", ("::", 0)),
        ("2001:DB8:0::/64", ("2001:db8::", 64)),
        ("2001:db8:0:0::1/128", ("2001:db8::1", 128)),
    ],
)
def test_prefixes(text: str, canonical: tuple[str, int]) -> None:
    assert rt.parse_prefix(text) == canonical


@pytest.mark.parametrize(
    "text", ["", "default", "192.0.2.1", "192.0.2.1/", "192.0.2.1/33", "192.0.2.1/24", "::1/-1"]
)
def test_what_is_no_prefix(text: str) -> None:
    with pytest.raises(NetworkError):
        rt.parse_prefix(text)


def test_places_of_routes() -> None:
    assert rt.parse_place("100") == (100, 0)
    assert rt.parse_place("100 2048") == (100, 2048)
    for text in ("", "main", "100 x", "100 2048 1", "100  1"):
        with pytest.raises(NetworkError):
            rt.parse_place(text)
    prefix, route = rt.parse_prefix("192.0.2.1/32"), rt.parse_route("dev tap0")
    usual = rt.change_route(prefix, rt.parse_place("100"), route, 7, add=True)
    worse = rt.change_route(prefix, rt.parse_place("100 2048"), route, 7, add=True)
    more = [one for one in worse.attributes if one not in usual.attributes]
    assert more == [("RTA_PRIORITY", 2048)]


def test_where_routes_go() -> None:
    assert rt.parse_route("dev tap0") == ("tap0", None)
    assert str(rt.parse_route("via 2001:DB8::1 dev eth1")) == "via 2001:db8::1 dev eth1"
    for text in ("", "tap0", "dev ", "dev tap0 via 192.0.2.1", "via 192.0.2.1", "via x dev tap0"):
        with pytest.raises(NetworkError):
            print(rt.parse_route(text))


@given(st.text())
def test_anything_else_is_refused_as_such(text: str) -> None:
    for parse in (rt.parse_rule, rt.parse_table, rt.parse_prefix, rt.parse_route, rt.parse_vlans):
        try:
            assert str(parse(text))
        except NetworkError:
            continue
