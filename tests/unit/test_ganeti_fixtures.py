"""What a real Ganeti said (see tests.ganeti.recorder) is understood, all of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from snf_core.config import Config
from snf_core.ganeti import environment, hooks
from snf_core.image import parameters
from snf_core.model import Action, Mode
from snf_kvm.nic import nic_event
from tests.ganeti import recorder

if TYPE_CHECKING:
    from tests.ganeti.recorder import Event

NAME, NEW_NAME, COPY = "web1.gnt.test", "www1.gnt.test", "copy1.gnt.test"
INSTANCES = {
    "start-renamed": NEW_NAME,
    "stop-renamed": NEW_NAME,
    "export": NEW_NAME,
    "remove": NEW_NAME,
    "import": COPY,
    "start-imported": COPY,
    "remove-running": COPY,
}
"""Steps in which it is not called NAME."""

VERSIONS = sorted(path.name for path in recorder.FIXTURES.glob("ganeti-*"))
RECORDED = [
    (step, event)
    for version in VERSIONS
    for step, events in recorder.load(recorder.FIXTURES / version).items()
    for event in events
]


def steps(script: str) -> pytest.MarkDecorator:
    """Parametrize with every recorded call of the scripts whose names begin so."""
    return pytest.mark.parametrize(
        ("step", "event"),
        [
            pytest.param(step, event, id=f"{step}:{event.script}")
            for step, event in RECORDED
            if event.script.startswith(script)
        ],
    )


def test_there_is_every_kind() -> None:
    assert "ganeti-3.0" in VERSIONS
    scripts = {event.script for _, event in RECORDED}
    assert {f"os/{name}" for name in ("create", "import", "export", "rename", "verify")} <= scripts
    assert "nic/kvm-vif-bridge" in scripts
    operations = ("add", "modify", "stop", "start", "reboot", "rename", "remove")
    assert {f"hooks/instance-{name}-post" for name in operations} <= scripts


def test_nothing_is_of_one_machine() -> None:
    for version in VERSIONS:
        for file in (recorder.FIXTURES / version).iterdir():
            text = file.read_text()
            assert not re.findall(r"/(?:var/cache|tmp|home|work)/[^\"]*", text)
            assert set(re.findall(r"[0-9a-f]{8}(?=-[0-9a-f]{4}-)", text)) <= {"00000000"}


@steps("os/create")
def test_create(step: str, event: Event) -> None:
    request = environment.request(event.environment)
    assert (request.instance.name, request.instance.hypervisor) == (NAME, "kvm")
    assert [disk.frontend for disk in request.disks] == ["paravirtual"] * 2
    [nic] = request.nics
    assert nic.mode is Mode.BRIDGED
    assert nic.network is not None
    assert str(nic.ip) == "198.51.100.2"
    assert (nic.network.name, str(nic.network.gateway6)) == ("net1", "2001:db8:1::1")
    checked = parameters.check(parameters.collect(Config([]), event.environment))
    # Of the kinds secret and private; the environment does not tell.
    assert checked.password == {"add": "Tr0ub4dor&3-secret"}.get(step, "correct-horse-private")
    assert len(checked.authorized_keys) == 1
    assert event.arguments == ()


@steps("os/rename")
def test_rename(step: str, event: Event) -> None:
    assert environment.request(event.environment).instance.name == INSTANCES.get(step, NEW_NAME)
    assert event.environment["OLD_INSTANCE_NAME"] == {"rename": NAME, "import": NEW_NAME}[step]


@steps("os/verify")
def test_verify(step: str, event: Event) -> None:
    environment.check_version(event.environment)
    parameters.check(parameters.collect(Config([]), event.environment))
    assert event.arguments == ("parameters",)


@pytest.mark.parametrize("what", ["export", "import"])
def test_disks_come_and_go(what: str) -> None:
    """One call per disk."""
    calls = [event for _, event in RECORDED if event.script == f"os/{what}"]
    disks = [environment.device(event.environment, what.upper()) for event in calls]
    assert {disk.index for disk in disks} == {0, 1}
    assert len({disk.path for disk in disks}) == 2
    assert all(event.environment["EXP_SIZE_FD"].isdigit() for event in calls)


@steps("nic/")
def test_nic(step: str, event: Event) -> None:
    told = nic_event(["up", *event.arguments], event.environment)
    assert told is not None
    assert told.nic is not None
    assert told.nic.network is not None
    assert told.action is Action.UP
    assert told.instance == INSTANCES.get(step, NAME)
    assert told.instance_tags == {"itag1", "itag2"}
    network, mode, tags = {
        "tap0": ("net1", Mode.BRIDGED, set()),
        "tap1": ("net2", Mode.BRIDGED, {"filtered"}),
        "tap2": ("net3", Mode.ROUTED, {"ip-less-routed"}),
    }[told.interface]
    assert (told.nic.network.name, told.nic.mode) == (network, mode)
    assert told.nic.network.tags == tags


@steps("hooks/")
def test_hook(step: str, event: Event) -> None:
    told = hooks.event(event.environment)
    assert f"hooks/{told.operation}-{told.phase.value}" == event.script
    before = INSTANCES.get(step, NAME)
    assert (told.old_name, told.new_name) == (before, NEW_NAME if step == "rename" else before)
    assert told.old_primary == told.new_primary == "node1.gnt.test"
    assert told.hypervisor == "kvm"
    assert len(told.nics) >= 1
