"""The administrator's own programs: what they are told, and what their failure means."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest

from tests.locks import until_waiting
from tests.network import nics, packets
from tests.network.nics import FILTERED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.network.host import Host

    Install = Callable[..., Path]

NIC = {
    **FILTERED,
    "INTERFACE": "tap0",
    "INTERFACE_INDEX": "2",
    "INTERFACE_NAME": "the first $(touch /pwned); one's",
    "NETWORK_NAME": "a `lan` & more",
    "NETWORK_UUID": "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a02",
    "NETWORK_MAC_PREFIX": "aa:00:10",
    "NETWORK_TAGS": "filtered zone:a",
    "TAGS": "web prod",
    "LD_PRELOAD": "/nowhere.so",
    "IFS": "/",
}


TOLD = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "INTERFACE": "tap0",
    "INSTANCE": "web1.gnt.test",
    "TAGS": "prod web",
    "MAC": "aa:00:10:38:54:01",
    "IP": "10.0.0.5",
    "MODE": "bridged",
    "LINK": "br0",
    "INTERFACE_INDEX": "2",
    "INTERFACE_NAME": "the first $(touch /pwned); one's",
    "INTERFACE_UUID": "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01",
    "NETWORK_NAME": "a `lan` & more",
    "NETWORK_UUID": "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a02",
    "NETWORK_SUBNET": "10.0.0.0/24",
    "NETWORK_GATEWAY": "10.0.0.1",
    "NETWORK_SUBNET6": "2001:db8:1::/64",
    "NETWORK_GATEWAY6": "2001:db8:1::1",
    "NETWORK_MAC_PREFIX": "aa:00:10",
    "NETWORK_TAGS": "filtered zone:a",
}
"""What a program is told of that."""


@pytest.fixture
def install(host: Host, tmp_path: Path) -> Install:
    """Name programs in the configuration: they write down their environment and the NIC's state
    to the file that is returned, and end with ``status``."""

    def installed(*options: str, status: int = 0, more: str = "") -> Path:
        told = tmp_path / "told"
        program = tmp_path / "extra"
        program.write_text(
            "#!/bin/sh\n"
            f"/usr/bin/env -0 > {told}\n"
            f'echo "argument: $*" > {told}.arguments\n'
            f"/usr/sbin/ip -o link show tap0 > {told}.link 2>&1\n"
            f"{more}\n"
            "echo it is of no use >&2\n"
            f"exit {status}\n"
        )
        program.chmod(0o755)
        lines = "".join(f"{option} = {program}\n" for option in options)
        host.configure(f"[network]\n{lines}")
        return told

    return installed


def environment(told: Path) -> dict[str, str]:
    """What the program was told, but for what a shell adds."""
    words = told.read_text().split("\0")
    found = dict(word.split("=", 1) for word in words if word)
    return {
        name: value for name, value in found.items() if name not in {"PWD", "SHLVL", "_", "OLDPWD"}
    }


def test_what_it_is_told_when_a_nic_is_wired(host: Host, install: Install) -> None:
    told = install("extra_up")
    host.up(**NIC)
    assert environment(told) == TOLD
    assert told.with_suffix(".arguments").read_text() == "argument: \n"
    shown = told.with_suffix(".link").read_text()
    assert "master br0" in shown, "it is wired already"
    assert "UP" in shown


def test_what_it_is_told_before_a_nic_is_unwired(host: Host, install: Install) -> None:
    told = install("extra_down")
    host.up(**NIC)
    assert not told.exists()
    assert host.snf("down", "tap0", "false", INSTANCE="", MAC="") == (0, "", "")
    assert environment(told) == TOLD, "what is known from when it was wired"
    assert "master br0" in told.with_suffix(".link").read_text(), "it is wired still"
    assert host.links()["tap0"]["master"] is None


def test_what_it_is_told_of_a_nic_that_nobody_remembers(host: Host, install: Install) -> None:
    """What the event says: before Ganeti 3.2 little, from then on all."""
    told = install("extra_down")
    bare = {name: TOLD[name] for name in ("PATH", "LC_ALL", "INTERFACE", "INSTANCE")}
    assert host.snf("down", "tap0", "true", **NIC) == (0, "", "")
    assert environment(told) == bare
    assert host.snf("event", **NIC, ACTION="down") == (0, "", "")
    assert environment(told) == TOLD


@pytest.mark.parametrize("phase", ["pre", "post"])
def test_it_is_told_the_phase_of_a_migration(host: Host, install: Install, phase: str) -> None:
    told = install("extra_up")
    host.up(**NIC, ACTION="up", MIGRATION_PHASE=phase)
    assert environment(told) == TOLD | {"MIGRATION_PHASE": phase}


def test_it_is_not_told_of_another_instances_nic(host: Host, install: Install) -> None:
    """A tap's name has been used again before anybody said that the NIC was gone."""
    told = install("extra_down")
    host.up(**NIC | {"INSTANCE": "web2.gnt.test"})
    nics.untouched(host, lambda: host.down("tap0"))
    assert not told.exists()


def test_a_failure_takes_all_back(host: Host, install: Install) -> None:
    before = nics.state(host)
    told = install("extra_up", status=7)
    status, output, errors = host.snf("up", **NIC)
    assert (status, output) == (1, "")
    assert "failed with status 7: it is of no use" in errors
    assert "[network]" in errors
    assert told.exists()
    assert nics.state(host) == before
    assert host.left() == []
    assert nics.check(host) == []


def test_a_failure_for_a_nic_that_stands_leaves_it_standing(host: Host, install: Install) -> None:
    """What an earlier event has made of it, be that the same or not."""
    host.up(**NIC)
    before = nics.state(host)
    install("extra_up", status=7)
    for nic in (NIC, NIC | {"IP": "10.0.0.99"}):
        assert host.snf("up", **nic)[0] == 1
        assert nics.state(host) == before
        assert nics.check(host) == []


def test_a_failure_does_not_keep_a_nic_wired(host: Host, install: Install) -> None:
    before = nics.state(host)
    install("extra_down", status=7)
    host.up(**NIC)
    status, _, errors = host.snf("down", "tap0", "false", INTERFACE="tap0")
    assert status == 1
    assert "failed with status 7: it is of no use" in errors
    assert nics.state(host) == before
    assert host.left() == []


@pytest.mark.parametrize("option", ["extra_up", "extra_down"])
def test_a_program_that_is_not_there(host: Host, option: str) -> None:
    before = nics.state(host)
    host.configure(f"[network]\n{option} = /nowhere/at/all\n")
    words = ("up",) if option == "extra_up" else ("down", "tap0", "false")
    if option == "extra_down":
        host.up(**NIC)
    status, _, errors = host.snf(*words, **NIC)
    assert status == 1
    assert "cannot run /nowhere/at/all: No such file or directory" in errors
    assert nics.state(host) == before


def test_it_may_take_its_time_without_keeping_others_waiting(
    host: Host, install: Install, tmp_path: Path
) -> None:
    """Other NICs' events, even ones that load rules, go on; its own NIC's wait."""
    running, gate = tmp_path / "running", tmp_path / "gate"
    os.mkfifo(running)
    os.mkfifo(gate)
    install("extra_up", more=f"echo > {running}; read line < {gate}")
    host.ip("tuntap add dev tap1 mode tap")
    up = host.start("up", **NIC)
    descriptor = os.open(running, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert select.select([descriptor], [], [], packets.TIMEOUT)[0]
    finally:
        os.close(descriptor)
    down = host.start("down", "tap0", "false", INTERFACE="tap0")
    until_waiting(host.documents / "tap0.lock")
    host.configure("")
    host.up(INTERFACE="tap1", MAC="aa:00:10:38:54:26", TAGS="gnt:isolate")
    nics.lose(host)
    host.up(INTERFACE="tap1", MAC="aa:00:10:38:54:26", TAGS="gnt:isolate")
    assert host.links()["tap1"]["master"] == "br0"
    assert up.running()
    assert down.running()
    with gate.open("w") as file:
        file.write("go on\n")
    assert up.ended() == (0, "", "")
    assert down.ended() == (0, "", "")
    assert host.left() == ["tap1.json"]
    assert nics.check(host) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TAGS", "x:$(touch${IFS}pwned)"),
        ("TAGS", "x:`touch pwned`"),
        ("NETWORK_TAGS", "filtered x;touch"),
        ("INSTANCE", "web1;touch pwned"),
        ("INSTANCE", "-rf"),
        ("INTERFACE_NAME", "one\ntwo"),
        ("NETWORK_NAME", "\x1b]0;pwned\x07"),
        ("INTERFACE_UUID", "$(touch pwned)"),
        ("LINK", "br0 br1"),
        ("IP", "10.0.0.5; reboot"),
        ("MAC", "aa:00:10:38:54:25 }"),
    ],
)
def test_hostile_values_do_not_get_there(
    host: Host, install: Install, name: str, value: str
) -> None:
    told = install("extra_up", "extra_down")
    before = nics.state(host)
    status, output, errors = host.snf("up", **NIC | {name: value})
    assert (status, output) == (1, "")
    assert f"{name}: " in errors
    assert errors.isprintable() or "\x1b" not in errors
    assert not told.exists()
    assert nics.state(host) == before
    assert not host.documents.exists() or host.left() == []
