"""Elements, rulesets and the lock of the gate to nftables: what needs no kernel."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import NetworkError
from snf_core.network.elements import added_together, corrected, element, listed, stated
from snf_core.network.lock import Lock
from snf_core.network.rulesets import (
    BASE,
    BASE_NAME,
    assertion,
    checked,
    definition,
    digest,
    lacking,
    marked,
    unloadable,
)
from snf_core.network.state import ELEMENT, Change, Item, Value
from tests.locks import until_waiting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from snf_core.network.state import Key

MACS = "bridge filtered_macs"
PROFILES = "inet firewall_profiles"


def item(place: str, key: str, value: Value = True) -> Item:
    return Item(ELEMENT, place, key, value, "filtered")


class TestElement:
    @pytest.mark.parametrize(
        ("key", "text"),
        [
            ("tap0", '"tap0"'),
            ("ip6 aa:00:00:12:34:56", '"ip6" . "aa:00:00:12:34:56"'),
            ("vif1.0-emu 192.0.2.1", '"vif1.0-emu" . "192.0.2.1"'),
            ("10 2001:db8::1 22", '"10" . "2001:db8::1" . "22"'),
            ("tap0 eth0.100 arp", '"tap0" . "eth0.100" . "arp"'),
            ("tap0 1-2", '"tap0" . "1-2"'),  # as plain a word as any
        ],
    )
    def test_every_part_is_quoted(self, key: str, text: str) -> None:
        assert element(item(MACS, key)) == ("bridge", "filtered_macs", text, "")

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("jump firewall_limited", '"tap0" : jump firewall_limited'),
            ("drop", '"tap0" : drop'),
            ("192.0.2.1", '"tap0" : "192.0.2.1"'),
            ("192.0.2.1 80", '"tap0" : "192.0.2.1" . "80"'),
            (None, '"tap0"'),
        ],
    )
    def test_data_of_a_map(self, value: Value, text: str) -> None:
        assert element(item(PROFILES, "tap0", value)).text == text

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "tap0 ",
            "tap0  192.0.2.1",
            'tap0" }; flush ruleset; #',
            "tap0\nflush ruleset",
            "tap0 192.0.2.1\n",
            "tap0 $x",
            "tap0 @set",
            "tap0 {",
            "tap*",
            "tap0 tap*",
            "..",
            "a/b",
            "a-name-of-sixteen",
            "tap0 192.0.2.0/24",
        ]
        + [f"tap0 {character}" for character in '"\\;#{}$*@\t'],
    )
    def test_what_is_no_key_is_refused(self, key: str) -> None:
        with pytest.raises(NetworkError, match="filtered_macs"):
            element(item(MACS, key))

    @pytest.mark.parametrize(
        "data", ["jump x; flush ruleset", "jump  x", "goto #", 'drop"', "192.0.2.1 \n", "", " "]
    )
    def test_what_is_no_data_is_refused(self, data: str) -> None:
        with pytest.raises(NetworkError, match="firewall_profiles"):
            element(item(PROFILES, "tap0", data))

    @pytest.mark.parametrize(
        ("part", "canonical"),
        [
            ("AA:00:00:12:34:56", "aa:00:00:12:34:56"),
            ("2001:DB8::1", "2001:db8::1"),
            ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "::ffff:c000:201"),
        ],
    )
    def test_what_would_be_listed_otherwise_is_refused(self, part: str, canonical: str) -> None:
        with pytest.raises(NetworkError, match=f"is to be written {canonical}"):
            element(item(MACS, f"tap0 {part}"))

    @pytest.mark.parametrize(
        "place",
        ["ip x", "inet", "inet x y", "inet x;", "inet snf x", "inet 1x", "inet x\n", "netdev x"],
    )
    def test_other_tables_are_refused(self, place: str) -> None:
        with pytest.raises(NetworkError, match="not a set of our"):
            element(item(place, "tap0"))

    @given(st.text(), st.text(), st.text())
    def test_nothing_can_be_injected(self, place: str, key: str, data: str) -> None:
        for one in (item(MACS, key, data), item(MACS, f"tap0 {key}"), item(place, "tap0")):
            try:
                text = added_together([one])
            except NetworkError:
                continue
            assert text.count("\n") == 1
            outside = "".join(text.split('"')[::2])  # what is not within quotes
            assert set(outside) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                       "0123456789_ .:{}\n")  # fmt: skip
            assert outside.count("{") == outside.count("}") == 1


class TestCommands:
    def test_a_new_marker_must_not_be_there(self) -> None:
        assert stated([Change(item("inet nics", "tap0"), None)]) == (
            'create element inet snf nics { "tap0" }\n'
        )

    def test_anything_else_may(self) -> None:
        changes = [Change(item("inet nics", "tap0"), True), Change(item(MACS, "tap0"), None)]
        assert stated(changes) == (
            'add element inet snf nics { "tap0" }\n'
            'add element bridge snf filtered_macs { "tap0" }\n'
        )

    def test_the_data_of_a_map_is_replaced(self) -> None:
        assert stated([Change(item(PROFILES, "tap0", "jump b"), "jump a")]) == (
            'delete element inet snf firewall_profiles { "tap0" }\n'
            'add element inet snf firewall_profiles { "tap0" : jump b }\n'
        )

    def test_what_is_to_be_absent_is_deleted(self) -> None:
        assert stated([Change(item(MACS, "tap0", None), True)]) == (
            'delete element bridge snf filtered_macs { "tap0" }\n'
        )

    def test_one_command_for_each_set(self) -> None:
        items = [item(MACS, "tap0"), item(PROFILES, "tap0", "drop"), item(MACS, "tap1")]
        assert added_together(items) == (
            'add element bridge snf filtered_macs { "tap0", "tap1" }\n'
            'add element inet snf firewall_profiles { "tap0" : drop }\n'
        )


class TestCorrected:
    def test_only_what_differs(self) -> None:
        actual: dict[Key, Value] = {
            item(MACS, "tap0").key: True,
            item(PROFILES, "tap0").key: "drop",
        }
        changes = [
            Change(item(MACS, "tap0", None), True),
            Change(item(MACS, "tap1", None), True),
            Change(item(PROFILES, "tap0", "jump a"), None),
            Change(item(MACS, "tap2"), None),
        ]
        assert corrected(changes, actual) == [
            Change(item(MACS, "tap0", None), True),
            Change(item(PROFILES, "tap0", "jump a"), "drop"),
            Change(item(MACS, "tap2"), None),
        ]

    def test_the_last_of_several_changes_counts(self) -> None:
        changes = [
            Change(item(PROFILES, "tap0", None), "jump a"),
            Change(item(PROFILES, "tap0", "jump b"), None),
        ]
        actual: dict[Key, Value] = {item(PROFILES, "tap0").key: "jump a"}
        assert corrected(changes, actual) == [Change(item(PROFILES, "tap0", "jump b"), "jump a")]

    def test_what_nobody_remembers_of_a_new_nic_goes(self) -> None:
        there = [item("inet nics", "tap0"), item(MACS, "tap0 02:00:00:00:00:01")]
        others = [item("inet nics", "tap01"), item(MACS, "tap01 02:00:00:00:00:01")]
        kept = item(MACS, "tap0 02:00:00:00:00:02")
        actual: dict[Key, Value] = {one.key: True for one in [*there, *others, kept]}
        changes = [Change(item("inet nics", "tap0"), None), Change(kept, None)]
        assert [(one.item.key, one.item.value) for one in corrected(changes, actual)] == [
            (there[1].key, None)
        ]


class TestListed:
    def test_our_notation(self) -> None:
        tables: list[dict[str, Any]] = [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "bridge", "name": "snf"}},
            {"set": {"family": "bridge", "name": "a", "type": "ifname", "elem": ["ip6", "10"]}},
            {
                "set": {
                    "family": "bridge",
                    "name": "b",
                    "type": ["ifname", "ipv6_addr", "inet_service"],
                    "elem": [
                        {"concat": ["tap0", "::ffff:192.0.2.1", 22]},
                        {"elem": {"val": {"concat": ["tap:1.0", "::1", 1]}, "counter": {}}},
                    ],
                }
            },
            {
                "map": {
                    "family": "inet",
                    "name": "c",
                    "type": "ifname",
                    "map": "verdict",
                    "elem": [["tap0", {"jump": {"target": "x"}}], ["tap1", {"accept": None}]],
                }
            },
            {"set": {"family": "inet", "name": "empty", "type": "ifname"}},
            {"set": {"family": "bridge", "name": "types", "type": "ether_type", "elem": ["ip"]}},
            {"rule": {"family": "bridge", "expr": []}},
        ]
        assert dict(listed(tables)) == {
            (ELEMENT, "bridge a", "ip6"): True,
            (ELEMENT, "bridge a", "10"): True,
            (ELEMENT, "bridge b", "tap0 ::ffff:c000:201 22"): True,
            (ELEMENT, "bridge b", "tap:1.0 ::1 1"): True,
            (ELEMENT, "inet c", "tap0"): "jump x",
            (ELEMENT, "inet c", "tap1"): "accept",
        }


class TestRulesets:
    def test_the_base_is_well(self) -> None:
        checked(BASE_NAME, BASE)

    @pytest.mark.parametrize(
        "text",
        [
            "flush ruleset",
            "table inet other { }",
            "table ip snf { }",
            BASE + "delete table inet other",
            BASE + "add rule inet other x drop",
            "define x = 1\n" + BASE,
            "table inet snf { chain x { drop } } }",
            "table inet snf { chain x { drop }",
            'include "/etc/nftables.conf"',
        ],
    )
    def test_what_is_not_ours_is_out_of_reach(self, text: str) -> None:
        with pytest.raises(NetworkError, match="the nftables rules acme-bridged hold"):
            checked("acme-bridged", text)

    @pytest.mark.parametrize("name", ["", "a b", "a;b", "-a", "a\n", "a{", "x" * 101])
    def test_a_name_that_is_none_is_refused(self, name: str) -> None:
        with pytest.raises(NetworkError, match="cannot be the name of a ruleset"):
            checked(name, BASE)

    def test_comments_may_hold_anything(self) -> None:
        checked("acme", "# flush ruleset }\ntable inet snf { # {\n}\n")

    def test_the_mark_tells_name_and_text(self) -> None:
        name = "acme.x-bridged"
        mark = assertion(name, BASE).split()[4]
        assert f"set {mark} {{" in definition(name, BASE)
        assert marked(mark) == (name, digest(BASE))
        assert digest(BASE) != digest(BASE + " ")
        assert marked("filtered_macs") is None

    @pytest.mark.parametrize(
        ("rules", "options"),
        [
            ("table bridge snf { chain x { ct state new drop\n } }", ["NF_CONNTRACK_BRIDGE"]),
            ("table bridge snf { chain x { meta ibrpvid 1 drop\n } }", ["NFT_BRIDGE_META"]),
            ("table inet snf { chain x { ct state new drop\n } }", ["NFT_CT"]),
            ("table inet snf { chain x { masquerade\n } }", ["NFT_MASQ"]),
            ("table bridge snf {\n}\ntable inet snf { chain x { ct mark 1 drop\n } }", ["NFT_CT"]),
            ("table arp snf { chain x { drop } } # ct state", []),
        ],
    )
    def test_what_a_ruleset_needs_beside_its_tables(self, rules: str, options: list[str]) -> None:
        tables = [
            f"hook {one} priority 0; policy accept;\n  accept" for one in ("forward", "input")
        ]
        found = lacking(rules, lambda text: "" if any(one in text for one in tables) else "no")
        assert [need.option.split(",")[0].split(" and ")[-1] for need in found] == options

    def test_what_the_kernel_has_is_not_blamed(self) -> None:
        rules = "table bridge snf { chain x { ct state new; meta ibrpvid 1; nonsense; } }"
        error = unloadable("acme", rules, _refusing("nonsense", "syntax error"))
        assert error is not None
        assert str(error) == (
            "the nftables rules acme cannot be loaded: syntax error "
            "(correct the setup that they are of, or its options)"
        )

    def test_what_it_lacks_is_named(self) -> None:
        rules = "table bridge snf { chain x { ct state new drop; } }"
        error = unloadable("acme", rules, _refusing(" ct state", "Protocol error"))
        assert error is not None
        assert "lacks what the nftables rules acme need: connection tracking on bridges" in str(
            error
        )
        assert "nf_conntrack_bridge" in str(error)

    def test_what_can_be_loaded_is_no_error(self) -> None:
        assert unloadable("acme", BASE, lambda _: "") is None


def _refusing(word: str, reason: str) -> Callable[[str], str]:
    return lambda text: reason if word in text else ""


class TestLock:
    def test_it_is_shared_or_not(self, tmp_path: Path) -> None:
        path = tmp_path / "nftables.lock"
        one, other = Lock(path), Lock(path)
        one.hold(exclusive=False)
        other.hold(exclusive=False)
        assert not _free(path, fcntl.LOCK_EX)
        other.release()
        one.hold(exclusive=True)
        assert not _free(path, fcntl.LOCK_SH)
        one.hold(exclusive=False)
        assert not _free(path, fcntl.LOCK_SH)
        one.release()
        one.release()
        assert _free(path, fcntl.LOCK_EX)

    def test_who_wants_it_alone_is_not_passed(self, tmp_path: Path) -> None:
        path = tmp_path / "nftables.lock"
        order: list[str] = []

        def take(name: str, *, exclusive: bool) -> None:
            lock = Lock(path)
            lock.hold(exclusive=exclusive)
            order.append(name)
            lock.release()

        threads = [
            threading.Thread(target=take, args=["alone"], kwargs={"exclusive": True}, daemon=True),
            threading.Thread(
                target=take, args=["second"], kwargs={"exclusive": False}, daemon=True
            ),
        ]
        held = Lock(path)
        held.hold(exclusive=False)
        with contextlib.ExitStack() as stack:
            stack.callback(held.release)
            threads[0].start()
            until_waiting(path)
            threads[1].start()
            until_waiting(path.with_name("nftables.lock.queue"))
        for thread in threads:
            thread.join(60)
        assert order == ["alone", "second"]

    def test_two_who_share_it_and_want_it_alone_do_not_wait_for_each_other(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "nftables.lock"
        shared = threading.Barrier(2)
        done: list[int] = []

        def upgrade() -> None:
            lock = Lock(path)
            lock.hold(exclusive=False)
            shared.wait()
            lock.hold(exclusive=True)
            done.append(1)
            lock.release()

        threads = [threading.Thread(target=upgrade, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert done == [1, 1]

    def test_what_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "nftables.lock"
        lock = Lock(path)
        assert lock.kept() == {}
        lock.hold(exclusive=True)
        lock.keep({"bridge": "0123456789"})
        lock.keep({"inet": "1"})
        assert lock.kept() == {"inet": "1"}
        path.write_text("[]")
        assert lock.kept() == {}
        path.write_text("{")
        assert lock.kept() == {}
        assert path.stat().st_mode & 0o777 == 0o600
        lock.release()

    def test_where_there_is_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(NetworkError, match="cannot be opened"):
            Lock(tmp_path / "none" / "nftables.lock").hold(exclusive=False)


def _free(path: Path, operation: int) -> bool:
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
