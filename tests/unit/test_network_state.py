"""States and their documents: data that survives a round trip and refuses what is not its own."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import NetworkError
from snf_core.network.document import APPLIED, APPLYING, Document, Documents, Identity, Record
from snf_core.network.state import LINK, Announcement, Item, State, merge

if TYPE_CHECKING:
    from pathlib import Path

MTU = Item(LINK, "tap0", "mtu", 1400)
UP = Item(LINK, "tap0", "up", True)

items = st.one_of(
    st.builds(Item, st.just(LINK), st.text(), st.just("mtu"), st.integers(), st.text()),
    st.builds(Item, st.just(LINK), st.text(), st.just("up"), st.booleans(), st.text()),
    st.builds(Item, st.just(LINK), st.text(), st.just("address"), st.text(), st.text()),
    st.builds(Item, st.just(LINK), st.text(), st.just("master"), st.none() | st.text(), st.text()),
)
states = st.lists(items, unique_by=lambda item: item.key).map(lambda found: State(tuple(found)))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def document(interface: str = "tap0", phase: str = APPLIED) -> Document:
    return Document(
        interface,
        Identity("boot", 1, 7),
        phase,
        {"instance": "web1", "mode": "bridged"},
        (Record(MTU, 1500),),
        (Announcement("eth0", ipaddress.ip_address("198.51.100.3"), "02:00:00:00:00:03"),),
    )


@given(states)
def test_a_state_survives_json(state: State) -> None:
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state


@pytest.mark.parametrize(
    "data",
    [
        [{}],
        [None],
        [{"kind": 1, "object": "tap0", "attribute": "mtu", "value": 1, "setup": ""}],
        [{"kind": "link", "object": "tap0", "attribute": "mtu", "value": "1", "setup": ""}],
        [{"kind": "link", "object": "tap0", "attribute": "mtu", "value": [], "setup": ""}],
    ],
)
def test_what_is_not_a_state_is_refused(data: Any) -> None:
    with pytest.raises(NetworkError):
        State.from_json(data)


@pytest.mark.parametrize(
    ("kind", "attribute", "value"),
    [("link", "mtu", True), ("link", "mtu", "1400"), ("link", "name", "x"), ("route", "mtu", 1)],
)
def test_an_item_that_no_kernel_has_is_refused_where_it_is_made(
    kind: str, attribute: str, value: Any
) -> None:
    with pytest.raises(NetworkError, match=f"nothing that a {kind} can have"):
        Item(kind, "tap0", attribute, value)


def test_an_item_stated_twice_is_refused() -> None:
    with pytest.raises(NetworkError, match="mtu of link tap0 is stated twice"):
        State((MTU, MTU))


def test_states_merge_in_order_and_may_agree() -> None:
    merged = merge([State((MTU,)).wanted_by("a"), State((UP, MTU)).wanted_by("b")])
    assert [(item.attribute, item.setup) for item in merged.items] == [("mtu", "a"), ("up", "b")]


def test_a_conflict_names_both_setups_and_values() -> None:
    other = Item(LINK, "tap0", "mtu", 9000)
    with pytest.raises(NetworkError, match=r"'a' and 'b' contradict.*mtu 1400.*mtu 9000"):
        merge([State((MTU,)).wanted_by("a"), State((other,)).wanted_by("b")])


def test_a_document_survives_its_file(tmp_path: Path) -> None:
    documents = Documents(tmp_path / "network")
    with documents.locked("tap0"):
        assert documents.read("tap0") is None
        documents.write(document())
        assert documents.read("tap0") == document()
    assert documents.interfaces() == ["tap0"]
    with documents.locked("tap0"):
        documents.remove("tap0")
    assert documents.interfaces() == []
    assert list((tmp_path / "network").iterdir()) == []


def test_names_that_look_like_our_files_do_not_meet(tmp_path: Path) -> None:
    documents = Documents(tmp_path / "network")
    names = ["tap0", "tap0.json", "tap0.lock", "tap0.new"]
    for name in names:
        with documents.locked(name):
            documents.write(document(name))
    assert documents.interfaces() == names
    assert [found.interface for name in names if (found := documents.read(name))] == names


@given(json_values)
def test_json_that_is_no_document_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="not a state document"):
        Document.from_json(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("phase", "done"),
        ("identity", {"boot": "x"}),
        ("event", 7),
        ("items", [{}]),
        ("items", [{**document().to_json()["items"][0], "before": "high"}]),
        ("announced", None),
        ("announced", [{"interface": "eth0", "address": "198.51.100.3"}]),
        ("announced", [{"interface": "eth0; x", "address": "198.51.100.3", "mac": "02::"}]),
    ],
)
def test_a_document_with_a_wrong_part_is_refused(key: str, value: object) -> None:
    data = document(phase=APPLYING).to_json()
    assert Document.from_json(data).phase == APPLYING
    with pytest.raises(ValueError, match="not a state document"):
        Document.from_json(data | {key: value})


def test_a_document_of_before_announcements_were_kept_is_understood() -> None:
    data = document().to_json()
    del data["announced"]
    assert Document.from_json(data) == replace(document(), announced=())


def test_an_instances_documents_are_found(tmp_path: Path) -> None:
    """By its whole name, whatever else says the same."""
    documents = Documents(tmp_path / "network")
    events = {
        "tap0": {"instance": "web1", "mode": "bridged"},
        "tap1": {"instance": "web10", "mode": "bridged"},
        "tap2": {"instance": "other", "mode": "bridged", "name": "web1"},
        "up0": {"mode": "routed"},
    }
    for name, known in events.items():
        with documents.locked(name):
            documents.write(replace(document(name), event=known))
    assert [one.interface for one in documents.of("web1")] == ["tap0"]
    assert documents.of("web") == []


def test_an_unusable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    documents = Documents(tmp_path / "file" / "network")
    with pytest.raises(NetworkError, match=r"file/network cannot be made"), documents.locked("t"):
        pass


def test_documents_about_something_are_found_by_their_words(tmp_path: Path) -> None:
    documents = Documents(tmp_path / "network")
    routed = Item("neighbour", "eth0", "198.51.100.3", True)
    for name, record in (("tap0", Record(routed, None)), ("tap1", Record(MTU, 1500))):
        with documents.locked(name):
            documents.write(replace(document(name), records=(record,), announced=()))
    (tmp_path / "network" / "tap2.json").write_text("198.51.100.3, but broken")
    assert [one.interface for one in documents.about({"198.51.100.3"})] == ["tap0"]
    assert [one.interface for one in documents.about({"mtu", "198.51.100.3"})] == ["tap0", "tap1"]
    assert list(documents.about(set())) == []
    assert [one.interface for one in documents.all()] == ["tap0", "tap1"]
