"""EnableConsole over file systems in dictionaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_os_linux.console import EnableConsole
from tests.fakes.guest import FakeGuest, Node, file, link
from tests.fakes.task import run

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEMD: Mapping[str, str | Node] = {
    "/usr/lib/systemd/systemd": "",
    "/etc/systemd/system/x.service": "",
    "/etc/systemd/system-generators/x": "",
}
TABLE = (
    "id:2:initdefault:\n1:2345:respawn:/sbin/getty 38400 tty1\n"
    "#T0:23:respawn:/sbin/getty -L hvc0 9600 vt100\n"
)


@pytest.mark.parametrize("hypervisor", ["kvm", "", "acme"])
def test_guests_of_others_are_left_alone(hypervisor: str) -> None:
    guest = FakeGuest.mounted({"/etc/inittab": TABLE, "/etc/securetty": "tty1\n"})
    assert run(EnableConsole, guest, hypervisor=hypervisor) == []
    assert guest.read("/etc/inittab") == TABLE
    assert guest.read("/etc/securetty") == "tty1\n"


@pytest.mark.parametrize("hypervisor", ["xen-pvm", "xen-hvm"])
class TestXen:
    def test_systemd_does_it_by_itself(self, hypervisor: str) -> None:
        guest = FakeGuest.mounted({**SYSTEMD, "/etc/inittab": TABLE})
        assert run(EnableConsole, guest, hypervisor=hypervisor) == []
        assert guest.read("/etc/inittab") == TABLE

    @pytest.mark.parametrize(
        "mask",
        [
            "/etc/systemd/system-generators/systemd-getty-generator",
            "/etc/systemd/system/serial-getty@.service",
            "/etc/systemd/system/serial-getty@hvc0.service",
        ],
    )
    def test_systemd_that_must_not(self, hypervisor: str, mask: str) -> None:
        guest = FakeGuest.mounted({**SYSTEMD, mask: link("/dev/null")})
        [warning] = run(EnableConsole, guest, hypervisor=hypervisor)
        assert mask in warning
        assert "hvc0" in warning

    @pytest.mark.parametrize("getty", ["/sbin/getty", "/sbin/agetty", "/usr/sbin/agetty"])
    def test_line_is_added_to_inittab(self, hypervisor: str, getty: str) -> None:
        old = file(TABLE.rstrip("\n"), mode=0o640)
        guest = FakeGuest.mounted({"/etc/inittab": old, getty: link("/bin/busybox")})
        assert run(EnableConsole, guest, hypervisor=hypervisor) == []
        line = f"hvc0:2345:respawn:{getty} -L 115200 hvc0 vt100\n"
        assert guest.read("/etc/inittab") == TABLE + line
        assert guest.node("/etc/inittab").mode & 0o777 == 0o640
        assert run(EnableConsole, guest, hypervisor=hypervisor) == []
        assert guest.read("/etc/inittab") == TABLE + line

    @pytest.mark.parametrize(
        "files",
        [
            {},
            {"/etc/inittab": "id:5:initdefault:\n", "/sbin/agetty": ""},  # upstart's
            {"/etc/inittab": TABLE},
            {"/etc/inittab": link("table"), "/etc/table": TABLE, "/sbin/getty": ""},
        ],
    )
    def test_nothing_is_known(self, hypervisor: str, files: Mapping[str, str | Node]) -> None:
        [warning] = run(EnableConsole, FakeGuest.mounted(files), hypervisor=hypervisor)
        assert "it is not known how" in warning

    @pytest.mark.parametrize(
        "path", ["/etc/init/hvc0.conf", "/etc/runit/runsvdir/default/agetty-hvc0"]
    )
    def test_other_inits(self, hypervisor: str, path: str) -> None:
        guest = FakeGuest.mounted({path: "", "/etc/inittab": "id:5:initdefault:\n"})
        assert run(EnableConsole, guest, hypervisor=hypervisor) == []

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("console\ntty1", "console\ntty1\nhvc0\n"),
            ("tty1\nhvc0\ntty2\n", "tty1\nhvc0\ntty2\n"),
            ("", ""),  # root logs in nowhere
            (None, None),  # root logs in everywhere
        ],
    )
    def test_root_may_log_in(self, hypervisor: str, old: str | None, new: str | None) -> None:
        files = SYSTEMD if old is None else {**SYSTEMD, "/etc/securetty": old}
        guest = FakeGuest.mounted(files)
        assert run(EnableConsole, guest, hypervisor=hypervisor) == []
        assert guest.read("/etc/securetty") == new
