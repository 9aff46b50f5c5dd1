"""How Xen is answered, and what the plugin says of disks, scripts and the appliance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from snf_core.contract import NicScript
from snf_core.errors import CommandError, InvalidValueError, NetworkError
from snf_core.ganeti.generation import Ganeti
from snf_core.model import Action, Disk, Mode, Nic, NicEvent, Twin
from snf_xen.hypervisor import Xen, XenHvm, XenPvm
from snf_xen.node import findings
from snf_xen.xenstore import Xenstore

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRON = {"XENBUS_PATH": "backend/vif/5/0", "vif": "vif5.0"}
ONLINE = ["event", "online", "type_if=vif"]
OFFLINE = ["event", "offline", "type_if=vif"]

UP = NicEvent(
    Action.UP, "vif5.0", "web1", Nic(0, "aa:00:10:38:54:25", Mode.BRIDGED, "br0")
)  # fmt: skip

kinds = pytest.mark.parametrize("kind", [XenPvm, XenHvm])


class Store(Xenstore):
    """Remembers what is written, in its order."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__()
        self.written: list[tuple[str, str]] = []
        self._broken = broken

    def read(self, path: str) -> str | None:
        return {"/local/domain/5/name": "web1.gnt.test"}.get(path)

    def tree(self, path: str) -> dict[str, str]:
        return {}

    def write(self, values: Mapping[str, str]) -> None:
        if self._broken:
            raise CommandError("xenstored does not run")
        self.written += values.items()


def made(kind: type[Xen], store: Store) -> Xen:
    """The plugin, with a xenstore of ours."""
    xen = kind(SimpleNamespace(nics="/nowhere"))
    xen.xenstore = store
    return xen


@kinds
def test_a_vif_that_cannot_be_described_is_refused_in_xenstore(kind: type[Xen]) -> None:
    """There is no file of web1.gnt.test, as on the target of a migration."""
    store = Store()
    with pytest.raises(NetworkError, match="Ganeti has not described NIC 0"):
        made(kind, store).nic_event(ONLINE, ENVIRON)
    (error, reason), (status, value) = store.written
    assert (error, status) == ("backend/vif/5/0/hotplug-error", "backend/vif/5/0/hotplug-status")
    assert reason.startswith("snf: Ganeti has not described NIC 0 of web1.gnt.test on this node")
    assert value == "error"


def test_a_reason_is_told_even_where_xenstore_cannot_be_written() -> None:
    with pytest.raises(NetworkError, match="Ganeti has not described NIC 0"):
        made(XenPvm, Store(broken=True)).nic_event(ONLINE, ENVIRON)


def test_nobody_is_told_where_nobody_waits() -> None:
    """As where a person asks for a plan."""
    store = Store()
    with pytest.raises(NetworkError):
        made(XenPvm, store).nic_event(["up", "online"], {"vif": "vif5.0"})
    assert store.written == []


def test_a_wired_vif_is_connected() -> None:
    store = Store()
    xen = made(XenPvm, store)
    assert xen.nic_event(OFFLINE, ENVIRON) == NicEvent(Action.DOWN, "vif5.0", "web1.gnt.test")
    xen.acknowledge(UP)
    assert store.written == [("backend/vif/5/0/hotplug-status", "connected")]


def test_a_wired_vif_for_which_nobody_waits_is_an_error() -> None:
    """Its guest would never be connected, though all seemed well."""
    with pytest.raises(InvalidValueError, match=r"^XENBUS_PATH: missing"):
        made(XenPvm, Store()).acknowledge(UP)


def test_a_vif_that_could_not_be_wired() -> None:
    store = Store()
    xen = made(XenPvm, store)
    xen.nic_event(OFFLINE, ENVIRON)
    xen.refuse(UP, "vif5.0: 'a\x1b[2J' " + "x" * 5000)
    assert [path for path, _ in store.written] == [
        "backend/vif/5/0/hotplug-error",
        "backend/vif/5/0/hotplug-status",
    ]
    reason, status = (value for _, value in store.written)
    assert reason.startswith("snf: vif5.0: 'a")
    assert reason.isprintable()
    assert len(reason) < 1100
    assert status == "error"


def test_nothing_is_written_about_a_vif_that_goes() -> None:
    """Its directory may be gone already, and would be made again."""
    store = Store()
    xen = made(XenPvm, store)
    event = xen.nic_event(OFFLINE, ENVIRON)
    assert event
    xen.acknowledge(event)
    xen.refuse(event, "no")
    with pytest.raises(InvalidValueError):
        xen.nic_event([*OFFLINE, "more"], ENVIRON)
    assert store.written == []


def test_xen_tools_that_are_missing_are_named(tmp_path: Path) -> None:
    store = Xenstore([str(tmp_path)])
    with pytest.raises(CommandError, match=r"^xenstore-read is in none of ") as caught:
        store.read("domid")
    assert "xenstore-utils" in caught.value.remedy
    with pytest.raises(CommandError, match=r"^xenstore-write is in none of "):
        store.write({"a": "b"})


@kinds
def test_names_of_disks(kind: type[Xen]) -> None:
    names = [kind(None).disk_name(Disk(index, "/dev/vg/disk")) for index in (0, 1, 25)]
    assert names == ["/dev/xvda", "/dev/xvdb", "/dev/xvdz"]


def node(root: Path, *, xen: bool, script: str) -> Ganeti:
    """A node with a Ganeti whose vif-ganeti is ``script``."""
    library = root / "usr/lib/ganeti"
    library.mkdir(parents=True)
    (library / "vif-ganeti").write_text(script)
    if xen:
        (root / "etc/xen/scripts").mkdir(parents=True)
    return Ganeti((library,), root)


SNF = NicScript(
    Path("/etc/xen/scripts/vif-snf"), ("event", "--hypervisor", "xen-pvm", "xl")
)  # fmt: skip


def test_the_scripts_where_there_is_a_xen(tmp_path: Path) -> None:
    ganeti = node(tmp_path, xen=True, script="exec /etc/xen/scripts/vif-custom")
    words = ("event", "--hypervisor", "xen-pvm")
    custom = NicScript(Path("/etc/xen/scripts/vif-custom"), words)
    assert list(XenPvm(None).nic_scripts(ganeti)) == [SNF, custom]
    assert list(XenHvm(None).nic_scripts(ganeti)) == []  # there is but one, for both


def test_xl_needs_no_ganeti(tmp_path: Path) -> None:
    assert list(XenPvm(None).nic_scripts(node(tmp_path, xen=True, script="# vif-custom\n"))) == [
        SNF
    ]


def test_no_script_without_a_xen(tmp_path: Path) -> None:
    ganeti = node(tmp_path, xen=False, script="exec /etc/xen/scripts/vif-custom")
    assert list(XenPvm(None).nic_scripts(ganeti)) == []


def test_a_tap_is_not_waited_for() -> None:
    store = Store()
    xen = made(XenPvm, store)
    xen.nic_event(OFFLINE, ENVIRON)
    xen.acknowledge(replace(UP, interface="vif5.0-emu", twin=Twin.EMULATED))
    assert store.written == []


def test_what_is_wrong_with_a_node(tmp_path: Path) -> None:
    assert list(findings(Store(), tmp_path)) == []
    (tmp_path / "proc/xen").mkdir(parents=True)
    (tmp_path / "proc/xen/capabilities").write_text("control_d\n")
    found = list(findings(Xenstore([str(tmp_path)]), tmp_path))
    assert [one.well for one in found] == [False] * 3
    assert "xenstore-utils" in found[0].remedy
    script = tmp_path / "etc/xen/scripts/vif-snf"
    script.parent.mkdir(parents=True)
    script.touch(0o755)
    (tmp_path / "sys/bus/xen-backend/drivers/vif").mkdir(parents=True)
    assert [one.well for one in findings(Domid(), tmp_path)] == [True] * 3


class Domid(Store):
    """A xenstore that knows the domain that asks."""

    def read(self, path: str) -> str | None:
        return "0" if path == "domid" else None
