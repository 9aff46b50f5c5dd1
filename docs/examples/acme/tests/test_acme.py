"""Every plugin of this distribution, loaded as snf-core loads it. Needs no root, no appliance."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import subprocess
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from snf_core import contract, extension, model
from snf_core.appliance import Appliance
from snf_core.config import Config
from snf_core.errors import ApplianceError, DiskError, GuestError, ImageError, InvalidValueError
from snf_core.image.customization import Customization
from snf_core.image.guest import Guest
from snf_core.image.layout import Partition
from snf_core.image.nics import NicPlan
from snf_core.image.properties import Properties
from snf_os_linux import network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENT = {
    "ACME_ACTION": "up",
    "ACME_TAP": "tap0",
    "ACME_GUEST": "vm1.example.org",
    "ACME_MAC": "aa:00:00:00:00:01",
    "ACME_BRIDGE": "br0",
}
UFS = "516e7cb6-6ecf-11d6-8ff8-00022d09712b"

QEMU = """#!/bin/sh
echo "$@"
for word; do case $word in fd=*) disk=${word#fd=};; esac; done
cat /dev/fd/${disk%%,*}
"""
"""Stands in for QEMU: says how it was called, and reads its disk."""


class FakeGuest(Guest):
    """What the plugins ask of a guest, without an appliance behind it."""

    def __init__(self, *partition_types: str, files: dict[str, str] | None = None) -> None:
        self.files = files or {}
        self.types = partition_types

    def partitions(self, device: str = "/dev/sda") -> tuple[Partition, ...]:
        return tuple(Partition(i, i << 20, (i << 20) + 1, t) for i, t in enumerate(self.types, 1))

    def is_file(self, path: str) -> bool:
        return path in self.files

    def write(
        self,
        path: str,
        content: str,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self.files[path] = content


class FakeImage(contract.ImageReader):
    """An image in memory."""

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._content = content

    def extents(self) -> Iterator[contract.Extent]:
        yield contract.Extent(0, self.size, data=True)

    def read(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration that points to temporary files instead of the node's."""
    file = tmp_path / "snf.conf"
    file.write_text(
        f"[hypervisor.acme]\nqemu = {tmp_path}/qemu\n"
        f"[image.destination.acme]\ndirectory = {tmp_path}\n"
    )
    return Config([file])


def test_nic_events(config: Config) -> None:
    acme = extension.make(extension.HYPERVISOR, "acme", config)
    event = acme.nic_event([], EVENT)
    assert event
    assert (event.action, event.interface) == (model.Action.UP, "tap0")
    assert event.nic == model.Nic(0, "aa:00:00:00:00:01", model.Mode.BRIDGED, "br0")
    down = acme.nic_event([], {**EVENT, "ACME_ACTION": "down"})
    assert down
    assert (down.action, down.nic) == (model.Action.DOWN, None)
    assert acme.disk_name(model.Disk(1, "/dev/vg/disk")) == "/dev/vdb"
    with pytest.raises(InvalidValueError, match="ACME_TAP"):
        acme.nic_event([], {"ACME_ACTION": "up", "ACME_GUEST": "vm1"})


def test_launcher(config: Config, tmp_path: Path) -> None:
    acme = extension.make(extension.HYPERVISOR, "acme", config)
    appliance = Appliance(tmp_path, tmp_path, 512)
    with pytest.raises(ApplianceError, match="cannot be run"):
        acme.launcher(appliance)
    qemu = tmp_path / "qemu"
    qemu.write_text(QEMU)
    qemu.chmod(0o755)
    program = tmp_path / "program"
    program.write_text(acme.launcher(appliance).program)
    program.chmod(0o755)
    disk = tmp_path / "disk"
    disk.write_text("the disk's bytes")

    address = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server, disk.open() as opened:
        server.bind(address)
        server.listen(1)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                socket.send_fds(connection, [b"/disk0"], [opened.fileno()])

        thread = threading.Thread(target=serve)
        thread.start()
        output = subprocess.run(
            [program, "-drive", "file=/disk0,format=raw"],
            env={"SNF_DISKS": address},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        thread.join()
    assert re.match(
        r"-drive file\.driver=file,file\.filename=/dev/fdset/(\d+),format=raw "
        r"-add-fd fd=\1,set=\1 -sandbox ",
        output,
    )
    assert output.endswith("the disk's bytes")
    assert [finding.well for finding in acme.check(None)] == [True]


def test_network_setup(config: Config) -> None:
    external = extension.make(extension.NETWORK_SETUP, "acme-external", config)
    nic = model.Nic(0, "aa:00:00:00:00:01", model.Mode.EXTERNAL)
    event = model.NicEvent(model.Action.UP, "tap0", "vm1", nic)
    assert external.applies(event)
    wanted = external.wanted(event, None)  # type: ignore[arg-type]  # it asks nothing of the node
    assert [(item.attribute, item.value) for item in wanted.items] == [("mtu", 9000), ("up", True)]


@pytest.mark.parametrize(
    ("mode", "family"), [(model.Mode.BRIDGED, "bridge"), (model.Mode.ROUTED, "inet")]
)
def test_filter(config: Config, mode: model.Mode, family: str) -> None:
    mail = extension.make(extension.NETWORK_SETUP, "acme-mail", config)
    network = model.Network("net1", tags=frozenset({"acme:no-mail"}))
    nic = model.Nic(0, "aa:00:00:00:00:01", mode, "br0", network=network)
    event = model.NicEvent(model.Action.UP, "tap0", "vm1", nic)
    assert mail.applies(event)
    assert not mail.applies(replace(event, nic=replace(nic, network=None)))
    (item,) = mail.wanted(event, None).items  # type: ignore[arg-type]  # it asks nothing either
    assert (item.kind, item.attribute, item.value) == ("element", "tap0", True)
    assert item.object == f"{family} acme_mail_nics"
    assert f"table {family} snf" in mail.ruleset(mode)
    assert mail.ruleset(model.Mode.EXTERNAL) == ""


def test_guest_family(config: Config) -> None:
    freebsd = extension.make(extension.GUEST, "freebsd", config)
    assert freebsd.detect(FakeGuest("linux", UFS), None) == 2
    assert freebsd.detect(FakeGuest("linux"), None) == 0
    assert freebsd.root(FakeGuest("linux", UFS)) == "/dev/sda2"
    with pytest.raises(GuestError, match="2 UFS partitions"):
        freebsd.root(FakeGuest(UFS, UFS))


@pytest.mark.parametrize(
    ("notice", "written", "warnings"),
    [("", None, 0), ("Hello", "vm1: Hello\n", 0), ("x" * 1001, f"vm1: {'x' * 1000}\n", 1)],
)
def test_task(config: Config, notice: str, written: str | None, warnings: int) -> None:
    task = extension.make(extension.GUEST_TASK, "linux.AcmeNotice", config)
    guest = FakeGuest()
    request = Customization("vm1", properties=Properties({"ACME_NOTICE": notice}))
    assert len(list(task.run(guest, request))) == warnings
    assert guest.files.get("/etc/motd") == written


def test_renderer() -> None:
    connman = extension.load(network.POINT, "connman")(None)
    assert connman.available(FakeGuest(files={"/etc/connman/main.conf": ""}))
    assert not connman.available(FakeGuest())
    static = NicPlan(
        0, "aa:00:00:00:00:01", "static", address=ipaddress.IPv4Interface("10.0.0.5/8")
    )
    (file,) = connman.render([static, NicPlan(1, "aa:00:00:00:00:02", "dhcp")], ["::1"], [])
    assert "MAC = aa:00:00:00:00:01\nIPv4 = 10.0.0.5/255.0.0.0\nIPv6 = off\n" in file.content
    assert "MAC = aa:00:00:00:00:02\nIPv4 = dhcp\nIPv6 = off\n" in file.content


def test_source(config: Config) -> None:
    blank = extension.make(extension.IMAGE_SOURCE, "blank", config)
    assert blank.accepts("blank:3")
    assert not blank.accepts("local://blank")
    with blank.open("blank:3", "diskdump") as image:
        assert image.size == 3 << 20
        assert [extent.data for extent in image.extents()] == [False]
        assert image.read(5, 4) == bytes(4)
    for wrong in ("blank:", "blank:0", "blank:-1", "blank:much", "blank:99999999999"):
        with pytest.raises(ImageError, match="not a size"):
            blank.open(wrong, "diskdump")


def test_format(config: Config) -> None:
    acme = extension.make(extension.IMAGE_FORMAT, "acme", config)
    with acme.disk(FakeImage(b"ACMEDISK" + bytes(504) + b"the disk")) as disk:
        assert disk.size == 8
        assert [(extent.offset, extent.length) for extent in disk.extents()] == [(0, 8)]
        assert disk.read(4, 4) == b"disk"
    for wrong in (b"ACMEDISK", b"QFI\xfb" + bytes(1024)):
        with pytest.raises(ImageError, match="not of format acme"):
            acme.disk(FakeImage(wrong))


def test_destination(config: Config, tmp_path: Path) -> None:
    acme = extension.make(extension.IMAGE_DESTINATION, "acme", config)
    (tmp_path / "disk1").write_bytes(b"\xff" * 8192)
    assert acme.accepts(model.Disk(0, uri="acme:disk1"))
    assert not acme.accepts(model.Disk(0, "/dev/vda"))
    with acme.open(model.Disk(0, uri="acme:disk1")) as disk:
        disk.zero(0, 4096)
        disk.write(1, b"image")
        disk.flush()
        assert disk.read(0, 7) == b"\0image\0"
        assert os.fstat(disk.descriptor).st_size == disk.size == 8192
    assert (tmp_path / "disk1").read_bytes()[4096:] == b"\xff" * 4096
    for wrong in ("acme:../disk1", "acme:", "acme:none"):
        with pytest.raises(DiskError):
            acme.open(model.Disk(0, uri=wrong))
