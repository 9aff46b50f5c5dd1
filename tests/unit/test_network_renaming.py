"""Interfaces that get another name when they are wired, and events that take too long."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import DeadlineError, NetworkError
from snf_core.model import Action, Mode, Nic, NicEvent, Twin
from snf_core.network import renaming
from snf_core.network.deadline import Deadline, process_start
from snf_core.network.document import Documents
from snf_core.network.engine import Engine
from snf_core.network.reconcile import reconcile
from snf_core.network.setup.bridged import Bridged
from snf_core.network.status import lines, status
from tests.fakes.kernel import FakeKernel

if TYPE_CHECKING:
    from pathlib import Path

NIC = Nic(0, "aa:00:10:38:54:25", Mode.BRIDGED, "br0")
UP = NicEvent(Action.UP, "tap0", "web1", NIC, rename="web0")
DOWN = NicEvent(Action.DOWN, "tap0", "web1")


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def engine(kernel: FakeKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine({"bridged": Bridged(None)}, kernel, Documents(tmp_path / "network"))
    monkeypatch.setattr(type(kernel.node), "ipv6", False)  # sysctls are not in this kernel
    return made


def test_all_that_is_kept_goes_by_the_new_name(engine: Engine, kernel: FakeKernel) -> None:
    engine.up(UP)
    assert "tap0" not in kernel.fake_links.links
    assert kernel.fake_links.links["web0"].master == "br0"
    assert engine.documents.interfaces() == ["web0"]
    (one,) = status(engine)
    assert one["agrees"]
    assert next(lines(one)) == "web0 (tap0) of web1: applied, as wanted"
    engine.up(UP)
    assert not list(reconcile(engine))


def test_it_goes_by_the_old_one(engine: Engine, kernel: FakeKernel) -> None:
    before = dict(kernel.fake_links.links)
    engine.up(UP)
    engine.down(DOWN)
    assert engine.documents.interfaces() == []
    assert kernel.fake_links.links == before
    assert not kernel.values
    engine.down(DOWN)


def test_it_goes_after_it_has_gone(engine: Engine, kernel: FakeKernel) -> None:
    engine.up(UP)
    del kernel.fake_links.links["web0"]
    engine.down(DOWN)
    assert engine.documents.interfaces() == []
    assert not kernel.values


def test_a_name_that_another_has_by_now_is_left_to_it(engine: Engine, kernel: FakeKernel) -> None:
    """A guest that restarts, of which the end is told after the new beginning."""
    engine.up(UP)
    link = kernel.fake_links.links.pop("web0")
    kernel.fake_links.links["tap1"] = replace(link, name="tap1", index=8, master=None, up=False)
    engine.up(replace(UP, interface="tap1"))
    engine.down(DOWN)
    assert renaming.known(replace(DOWN, interface="tap1"), engine.documents).final_name == "web0"
    assert engine.documents.interfaces() == ["web0"]
    assert kernel.fake_links.links["web0"].master == "br0"


def test_a_name_that_is_taken_is_refused(engine: Engine, kernel: FakeKernel) -> None:
    before = dict(kernel.fake_links.links)
    with pytest.raises(NetworkError, match=r"^tap0 cannot be called eth0: "):
        engine.up(replace(UP, rename="eth0"))
    with pytest.raises(NetworkError, match=r"^tap7 does not exist"):
        engine.up(replace(UP, interface="tap7"))
    assert kernel.fake_links.links == before
    assert engine.documents.interfaces() == []


def test_what_fails_keeps_its_name(engine: Engine, kernel: FakeKernel) -> None:
    before = dict(kernel.fake_links.links)
    kernel.broken = {("up", True)}
    with pytest.raises(NetworkError, match="cannot be made"):
        engine.up(UP)
    assert kernel.fake_links.links == before
    assert engine.documents.interfaces() == []


def test_a_tap_that_its_guest_has_given_up_is_as_it_should_be(
    engine: Engine, kernel: FakeKernel
) -> None:
    """Until the other interface of the same NIC has gone, too."""
    vif = replace(UP, rename="", twin=Twin.PARAVIRTUAL)
    tap = replace(vif, interface="tap0-emu", twin=Twin.EMULATED)
    links = kernel.fake_links.links
    links["tap0-emu"] = replace(links["tap0"], name="tap0-emu", index=9)
    engine.up(vif)
    engine.up(tap)
    del links["tap0-emu"]
    assert [(one["phase"], one["agrees"]) for one in status(engine)] == [
        ("applied", True),
        ("given up", True),
    ]
    assert next(lines(status(engine, "tap0-emu")[0])) == "tap0-emu of web1: given up, as wanted"
    assert not list(reconcile(engine, check=True))
    engine.down(DOWN)
    assert [one["agrees"] for one in status(engine)] == [False]
    assert [str(one) for one in reconcile(engine)] == ["tap0-emu: it is gone; repaired"]
    assert not kernel.values


def test_an_event_that_takes_too_long_fails() -> None:
    began, before = time.monotonic(), signal.getsignal(signal.SIGALRM)
    with pytest.raises(DeadlineError, match="not over after"), Deadline(0.05).kept():
        time.sleep(60)
    assert time.monotonic() - began < 60
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_waiting_for_another_event_of_the_same_nic_has_an_end(tmp_path: Path) -> None:
    documents = Documents(tmp_path / "network")
    with (
        documents.locked("tap0"),
        pytest.raises(DeadlineError),
        Deadline(0.05).kept(),
        documents.locked("tap0"),
    ):
        pytest.fail("it was held")


def test_the_time_counts_from_the_beginning() -> None:
    deadline = Deadline(0.05)
    with pytest.raises(DeadlineError), deadline.kept():
        time.sleep(60)
    with pytest.raises(DeadlineError), deadline.kept():
        time.sleep(60)


def test_the_time_counts_from_when_the_script_was_started() -> None:
    assert process_start() <= time.monotonic()
    assert process_start() == pytest.approx(process_start(), abs=0.1)
    with pytest.raises(DeadlineError), Deadline(3600, time.monotonic() - 3600).kept():
        time.sleep(60)


def test_an_event_may_take_its_time() -> None:
    with Deadline(0).kept():
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
