"""Ganeti's answers of its configuration, good and hostile. They were recorded of Ganeti 3.0.2."""

from __future__ import annotations

import contextlib
import copy
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from snf_core import model
from snf_core.errors import NetworkError
from snf_core.ganeti import query
from snf_core.ganeti.variables import Variables, script_nic

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "web1.gnt.test"
NETWORK = "bb5e64e7-77dc-4d7a-aa39-671909333b01"
UUID = "1ee3a699-668a-42de-94a1-b909ae059980"

ANSWERS: dict[str, Any] = {
    "instance": {
        "name": [0, NAME],
        "tags": [0, ["one", "two"]],
        "custom_nicparams": [0, [{"mode": "bridged", "link": "br0", "vlan": ".7"}, {}]],
        "nic.macs": [0, ["aa:01:02:fb:7b:d1", "aa:00:00:2a:24:8f"]],
        "nic.ips": [0, ["198.51.100.2", None]],
        "nic.names": [0, ["lan", None]],
        "nic.uuids": [0, [UUID, UUID]],
        "nic.networks": [0, [NETWORK, None]],
        "nic.networks.names": [0, ["net1", None]],
    },
    "network": {
        "uuid": [0, NETWORK],
        "network": [0, "198.51.100.0/24"],
        "gateway": [0, "198.51.100.1"],
        "network6": [3, None],
        "gateway6": [3, None],
        "mac_prefix": [0, "aa:01:02"],
        "tags": [0, ["filtered", "web"]],
    },
    "cluster": {"nicparams": {"default": {"mode": "routed", "link": "100", "vlan": ""}}},
}
"""What Ganeti says of the fields of an instance and a network, and of the cluster."""


def answer(message: bytes, answers: dict[str, Any]) -> object:
    """What Ganeti answers a message."""
    asked = json.loads(message)
    if asked["method"] == "QueryClusterInfo":
        return {"success": True, "result": answers["cluster"]}
    assert asked["method"] == "Query"
    kind, fields, (operator, name, _) = asked["args"]
    assert (operator, name) == ("=", "name")
    row = [answers[kind][field] for field in fields]
    return {"success": True, "result": {"fields": [], "data": [row]}}


def told(reply: Callable[[bytes], bytes], index: int = 0) -> dict[str, str]:
    """What is made of what somebody replies to each message, and then no more."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while message := theirs.recv(1 << 16):
                assert message.endswith(b"\3")
                replied = reply(message[:-1])
                theirs.sendall(replied)
                if not replied.endswith(b"\3"):
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ours:
            return query.told(NAME, index, ours)
    finally:
        thread.join()


def telling(answers: dict[str, Any]) -> Callable[[bytes], bytes]:
    """What Ganeti replies whose configuration is ``answers``."""
    return lambda message: json.dumps(answer(message, answers)).encode() + b"\3"


def changed(kind: str, field: str, value: object) -> dict[str, Any]:
    """The answers but for one field."""
    answers = copy.deepcopy(ANSWERS)
    answers[kind][field] = value
    return answers


def test_a_nic_with_a_network() -> None:
    variables = Variables(told(telling(ANSWERS)))
    assert script_nic(variables) == model.Nic(
        index=0,
        mac="aa:01:02:fb:7b:d1",
        mode=model.Mode.BRIDGED,
        link="br0",
        ip=model.address("198.51.100.2"),
        vlan=".7",
        name="lan",
        uuid=UUID,
        network=model.Network(
            name="net1",
            uuid=NETWORK,
            subnet=model.ipv4_network("198.51.100.0/24"),
            gateway=model.ipv4_address("198.51.100.1"),
            mac_prefix="aa:01:02",
            tags=frozenset({"filtered", "web"}),
        ),
    )
    assert variables.need("TAGS", model.tags) == {"one", "two"}


def test_a_nic_with_the_clusters_parameters() -> None:
    found = script_nic(Variables(told(telling(ANSWERS), 1)))
    assert found == model.Nic(1, "aa:00:00:2a:24:8f", model.Mode.ROUTED, "100", uuid=UUID)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (changed("instance", "name", [0, "web1"]), "knows no instance web1.gnt.test, but 'web1'"),
        (changed("instance", "nic.macs", [0, []]), "knows no NIC 0"),
        (changed("instance", "nic.macs", [0, {}]), "about nic.macs"),
        (changed("instance", "nic.macs", [0, [7]]), "about nic.macs"),
        (changed("instance", "nic.macs", [1, None]), "does not tell nic.macs"),
        (changed("instance", "nic.macs", [3, None]), "about nic.macs"),
        (changed("instance", "nic.macs", "x"), "cannot be understood"),
        (changed("instance", "custom_nicparams", [0, ["x"]]), "about NIC parameters"),
        (changed("instance", "tags", [0, "one"]), "about tags"),
        (changed("instance", "tags", [0, ["one two"]]), "'one two' is not a tag"),
        (changed("network", "tags", [0, ["$(id)"]]), "is not a tag"),
        (changed("network", "tags", [3, None]), "about tags"),
        (changed("network", "uuid", [0, UUID]), "network net1 is not the one of the NIC"),
        (changed("network", "gateway", [0, []]), "about gateway"),
        (changed("cluster", "nicparams", []), "about the cluster"),
    ],
)
def test_answers_that_make_no_sense(answers: dict[str, Any], reason: str) -> None:
    with pytest.raises(NetworkError) as caught:
        told(telling(answers))
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (
            b'{"success":false,"result":["OpPrereqError",["Instance name x not found","y"]]}\3',
            "refuses to tell: Instance name x not found",
        ),
        (b'{"success":false,"result":"Failed to parse request"}\3', "tell: Failed to parse"),
        (b'{"success":false,"result":{}}\3', "does not say why"),
        (b'{"success":true,"result":{"fields":[],"data":[]}}\3', "knows no instance"),
        (b'{"success":true,"result":{"data":[[[0,"a"]]]}}\3', "cannot be understood"),
        (b'{"success":true,"result":{"data":[{}]}}\3', "cannot be understood"),
        (b'{"success":true,"result":[]}\3', "cannot be understood"),
        (b"[]\3", "cannot be understood"),
        (b"\xff\3", "cannot be understood"),
        (b"\3", "cannot be understood"),
        (b"", "cannot be understood"),
        (b"[" * 200000 + b"\3", "cannot be understood"),
        (b" " * (2 << 20), "cannot be understood"),  # ends nowhere
    ],
)
def test_no_answer(reply: bytes, reason: str) -> None:
    with pytest.raises(NetworkError, match=reason):
        told(lambda _: reply)


def test_an_answer_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "_TIMEOUT", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        query.told(NAME, 0, ours)
