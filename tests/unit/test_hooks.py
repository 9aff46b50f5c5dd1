"""What hooks are told by Ganeti, in all its variety, and by anybody else."""

from __future__ import annotations

import ipaddress
import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.config import Config
from snf_core.contract import Hypervisor
from snf_core.errors import InvalidValueError
from snf_core.ganeti import hooks
from snf_core.ganeti.hooks import HookEvent, Phase
from snf_core.model import Mode, Network, Nic
from tests.fakes.hook import INSTANCE, UUID, environment

if TYPE_CHECKING:
    from pathlib import Path

SECOND = {
    "INSTANCE_NIC_COUNT": "2",
    "INSTANCE_NIC1_NAME": "lan",
    "INSTANCE_NIC1_UUID": UUID,
    "INSTANCE_NIC1_IP": "",
    "INSTANCE_NIC1_MAC": "aa:00:00:38:54:26",
    "INSTANCE_NIC1_MODE": "bridged",
    "INSTANCE_NIC1_LINK": "br0",
    "INSTANCE_NIC1_BRIDGE": "br0",
    "INSTANCE_NIC1_VLAN": ".100",
}
"""Another NIC, without an address and without a network."""

ELSEWHERE = {"OLD_PRIMARY": "node1.gnt.test", "NEW_PRIMARY": "node2.gnt.test"}


def test_an_instance_is_stopped() -> None:
    assert hooks.event(environment("instance-stop")) == HookEvent(
        operation="instance-stop",
        phase=Phase.POST,
        old_name="web1.gnt.test",
        new_name="web1.gnt.test",
        hypervisor="kvm",
        old_primary="node1.gnt.test",
        new_primary="node1.gnt.test",
        secondaries=frozenset({"node2.gnt.test"}),
        running=True,
        tags=frozenset({"web", "prod"}),
        nics=(
            Nic(
                index=0,
                mac="aa:00:00:38:54:25",
                mode=Mode.ROUTED,
                link="100",
                ip=ipaddress.ip_address("198.51.100.10"),
                uuid=UUID,
                network=Network(
                    name="public",
                    uuid=UUID,
                    subnet=ipaddress.IPv4Network("198.51.100.0/24"),
                    gateway=ipaddress.IPv4Address("198.51.100.1"),
                    tags=frozenset({"ip-less-routed", "dns"}),
                ),
            ),
        ),
    )


def test_what_is_now_counts() -> None:
    after = SECOND | {"INSTANCE_STATUS": "down", "INSTANCE_TAGS": "", "INSTANCE_SECONDARIES": ""}
    event = hooks.event(environment("instance-modify", after=after))
    assert event.nics[1] == Nic(
        1, "aa:00:00:38:54:26", Mode.BRIDGED, "br0", vlan=".100", name="lan", uuid=UUID
    )
    assert (len(event.nics), event.running, event.tags) == (2, False, frozenset())
    assert event.secondaries == frozenset()


def test_before_an_operation_there_is_one_set_only() -> None:
    event = hooks.event(environment("instance-stop", phase="pre"))
    assert event.phase is Phase.PRE
    assert len(event.nics) == 1


def test_a_renamed_instance() -> None:
    """Even afterwards, Ganeti calls it by its old name."""
    environ = environment("instance-rename", {"INSTANCE_NEW_NAME": "web2.gnt.test"})
    assert environ["GANETI_POST_INSTANCE_NAME"] == "web1.gnt.test"
    event = hooks.event(environ)
    assert (event.old_name, event.new_name) == ("web1.gnt.test", "web2.gnt.test")
    assert event.names == ["web1.gnt.test", "web2.gnt.test"]


@pytest.mark.parametrize("operation", ["instance-migrate", "instance-failover"])
@pytest.mark.parametrize(
    "after",
    [
        {},
        {"INSTANCE_PRIMARY": "node2.gnt.test", "INSTANCE_SECONDARIES": "node1.gnt.test"},
        {"INSTANCE_PRIMARY": "node2.gnt.test", "OLD_PRIMARY": "node2.gnt.test"},
    ],
)
def test_an_instance_goes_elsewhere(operation: str, after: dict[str, str]) -> None:
    """Whatever Ganeti takes the instance's nodes to be, afterwards."""
    event = hooks.event(environment(operation, ELSEWHERE, after))
    assert (event.old_primary, event.new_primary) == ("node1.gnt.test", "node2.gnt.test")


def test_an_instance_is_moved() -> None:
    event = hooks.event(environment("instance-move", {"TARGET_NODE": "node3.gnt.test"}))
    assert (event.old_primary, event.new_primary) == ("node1.gnt.test", "node3.gnt.test")


def test_a_new_instance() -> None:
    """Its disks have no UUID yet, its status is a boolean, and nobody has named its NIC."""
    before = {"INSTANCE_STATUS": "True", "INSTANCE_DISK0_UUID": "", "INSTANCE_NIC0_IP": ""}
    event = hooks.event(environment("instance-add", before))
    assert event.running
    assert event.nics[0].ip is None
    assert event.nics[0].name == ""


@pytest.mark.parametrize(
    ("status", "running"),
    [("up", True), ("down", False), ("offline", False), ("True", True), ("False", False)],
)
def test_the_status(status: str, running: bool) -> None:
    assert hooks.event(environment("x", {"INSTANCE_STATUS": status})).running is running


def test_the_order_of_tags_means_nothing() -> None:
    other = {"INSTANCE_TAGS": "prod  web", "INSTANCE_NIC0_NETWORK_TAGS": "dns ip-less-routed"}
    event = hooks.event(environment("instance-stop", other))
    assert event == hooks.event(environment("instance-stop"))


def test_an_instance_without_nics() -> None:
    assert hooks.event(environment("instance-stop", {"INSTANCE_NIC_COUNT": "0"})).nics == ()


@pytest.mark.parametrize(
    "name",
    ["HOOKS_PATH", "HOOKS_PHASE", "INSTANCE_NAME", "INSTANCE_PRIMARY"]
    + [f"POST_INSTANCE_{name}" for name in ("HYPERVISOR", "STATUS", "NIC_COUNT", "NIC0_MODE")],
)
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^GANETI_{name}: missing"):
        hooks.event(environment("instance-stop") | {f"GANETI_{name}": ""})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOOKS_PATH", "../../instance-stop"),
        ("HOOKS_PHASE", "later"),
        ("INSTANCE_NAME", "web1; reboot"),
        ("INSTANCE_NAME", "../web1"),
        ("INSTANCE_NEW_NAME", "-rf"),
        ("INSTANCE_PRIMARY", "node1/.."),
        ("OLD_PRIMARY", "node1 node2"),
        ("NEW_PRIMARY", "\x1b[2J"),
        ("TARGET_NODE", "$(reboot)"),
        ("POST_INSTANCE_NAME", "web1\nweb2"),
        ("POST_INSTANCE_PRIMARY", "$(reboot)"),
        ("POST_INSTANCE_SECONDARIES", "node2 a/b"),
        ("POST_INSTANCE_HYPERVISOR", "kvm;"),
        ("POST_INSTANCE_STATUS", "maybe"),
        ("POST_INSTANCE_TAGS", "a,b"),
        ("POST_INSTANCE_NIC_COUNT", "-1"),
        ("POST_INSTANCE_NIC_COUNT", "999999999999"),
        ("POST_INSTANCE_NIC_COUNT", "٣"),
        ("POST_INSTANCE_NIC0_MAC", "01:00:5e:00:00:01"),
        ("POST_INSTANCE_NIC0_IP", "198.51.100.3/24"),
        ("POST_INSTANCE_NIC0_UUID", "None"),
        ("POST_INSTANCE_NIC0_MODE", "nat"),
        ("POST_INSTANCE_NIC0_LINK", "100 lookup main"),
        ("POST_INSTANCE_NIC0_NETWORK_SUBNET", "198.51.100.3/24"),
        ("POST_INSTANCE_NIC0_NETWORK_NAME", ""),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^GANETI_{name}: ") as caught:
        hooks.event(environment("instance-stop") | {f"GANETI_{name}": value})
    assert str(caught.value).isprintable()


WORDS = st.one_of(
    st.text(st.characters(exclude_characters="\0"), max_size=20),
    st.sampled_from(sorted({*INSTANCE.values(), "pre", "post", "instance-rename", "2"})),
)
NAMES = st.sampled_from(sorted(environment("x")))


@given(st.dictionaries(NAMES, WORDS, max_size=4), st.sets(NAMES, max_size=3))
def test_whatever_comes_is_an_event_or_an_error_that_names_it(
    changes: dict[str, str], absent: set[str]
) -> None:
    environ = environment("instance-stop") | changes
    refusal = ""
    try:
        event = hooks.event({name: value for name, value in environ.items() if name not in absent})
    except InvalidValueError as error:
        refusal = error.message
    if refusal:
        assert refusal.startswith("GANETI_")
        assert refusal.isprintable()
        return
    for name in (*event.names, event.old_primary, event.new_primary, *event.secondaries):
        assert name.strip("/ -\n") == name != ""
    assert hash(event) is not None, "nothing in it can change"


@pytest.fixture
def conf(tmp_path: Path) -> Config:
    """A node's, on which nothing has ever been wired."""
    path = tmp_path / "snf.conf"
    path.write_text(f"[directories]\nruntime = {tmp_path / 'run'}\n")
    return Config([path])


@pytest.mark.parametrize("operation", hooks.ACTIONS)
def test_where_nothing_stands_nothing_is_done(conf: Config, operation: str, tmp_path: Path) -> None:
    assert list(hooks.run(environment(operation), conf)) == []
    assert not (tmp_path / "run/network").exists()


@pytest.mark.parametrize(
    "environ",
    [
        {"GANETI_HOOKS_PATH": "cluster-verify", "GANETI_HOOKS_PHASE": "post"},
        {"GANETI_HOOKS_PATH": "instance-reinstall", "GANETI_HOOKS_PHASE": "post"},
        environment("instance-stop", phase="pre"),
    ],
)
def test_what_is_not_ours_is_left_alone(conf: Config, environ: dict[str, str]) -> None:
    """A hook that somebody has put elsewhere does no harm."""
    documents = conf.runtime() / "network"
    documents.mkdir()
    document = documents / "tap0.json"
    document.write_text(json.dumps({"event": {"instance": "web1.gnt.test"}}))
    assert list(hooks.run(environ, conf)) == []
    assert document.exists()


def test_the_directories_that_they_are_run_from() -> None:
    """Before an operation there is little to do, as whatever is there may prevent it."""
    assert "instance-stop-post.d" in hooks.HOOKS
    assert all(name.startswith("instance-") for name in hooks.HOOKS)
    before = [name for name in hooks.HOOKS if not name.endswith("-post.d")]
    assert before == ["instance-migrate-pre.d"]


@pytest.fixture(name="expected")
def _expected(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What the hypervisor kvm is told to expect; this node is node2."""
    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(Hypervisor, "expect", lambda _, *words: told.append(words))
    called(monkeypatch, "node2.gnt.test")
    return told


def called(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Give this node a name."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", name, "", "", "")))


@pytest.mark.parametrize("name", ["node2.gnt.test", "node2"])
def test_an_instance_is_about_to_arrive(
    conf: Config, expected: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    called(monkeypatch, name)
    environ = environment("instance-migrate", ELSEWHERE, phase="pre")
    assert list(hooks.run(environ, conf)) == []
    told = hooks.event(environ)
    assert expected == [("web1.gnt.test", told.nics, told.tags)]


@pytest.mark.parametrize(
    "changes",
    [
        {"OLD_PRIMARY": "node2.gnt.test", "NEW_PRIMARY": "node1.gnt.test"},
        {"NEW_PRIMARY": "node20.gnt.test"},
        {**ELSEWHERE, "INSTANCE_NIC0_MAC": "x"},
        {**ELSEWHERE, "INSTANCE_HYPERVISOR": "none-such"},
    ],
)
def test_no_instance_arrives_or_nobody_can_say_which(
    conf: Config, expected: list[tuple[object, ...]], changes: dict[str, str]
) -> None:
    """None of that prevents the migration."""
    assert list(hooks.run(environment("instance-migrate", changes, phase="pre"), conf)) == []
    assert expected == []
