"""AssignHostname and ChangeMachineId over file systems in dictionaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_core.errors import InvalidValueError, TaskError
from snf_os_linux.identity import SHARED_SEEDS, AssignHostname, ChangeMachineId
from tests.fakes.guest import FakeGuest, Node, file, link
from tests.fakes.task import run

if TYPE_CHECKING:
    from collections.abc import Mapping


SYSTEMD = {"/usr/lib/systemd/systemd": "", "/etc/systemd/system/x.service": ""}


class TestAssignHostname:
    def test_file_goes_before_distribution(self) -> None:
        guest = FakeGuest.mounted({"/etc/hostname": "old\n", "/etc/os-release": "ID=unknown\n"})
        assert run(AssignHostname, guest) == []
        assert guest.read("/etc/hostname") == "vm1.example.org\n"
        assert guest.read("/etc/hosts") == (
            "127.0.0.1\tlocalhost\n127.0.1.1\tvm1.example.org vm1\n"
            "::1\tlocalhost ip6-localhost ip6-loopback\n"
        )

    @pytest.mark.parametrize(
        ("files", "path"),
        [
            ({"/etc/os-release": "ID=arch\n"}, "/etc/hostname"),
            ({"/etc/os-release": 'ID=rocky\nID_LIKE="rhel fedora"\n'}, "/etc/hostname"),
            ({"/etc/os-release": "ID=slackware\n"}, "/etc/HOSTNAME"),
            ({"/etc/os-release": "ID=new\n", **SYSTEMD}, "/etc/hostname"),
        ],
    )
    def test_by_distribution(self, files: Mapping[str, str], path: str) -> None:
        guest = FakeGuest.mounted(files)
        run(AssignHostname, guest)
        assert guest.read(path) == "vm1.example.org\n"

    def test_unknown_distribution(self) -> None:
        with pytest.raises(TaskError, match="is not known") as caught:
            run(AssignHostname, FakeGuest.mounted({"/etc/os-release": "ID=new\n"}))
        assert "/etc/hostname" in caught.value.remedy

    def test_link_is_replaced(self) -> None:
        guest = FakeGuest.mounted({"/etc/hostname": link("/etc/shadow"), "/etc/shadow": "s"})
        run(AssignHostname, guest)
        assert guest.read("/etc/shadow") == "s"
        assert guest.is_file("/etc/hostname")

    @pytest.mark.parametrize(
        "name",
        ["", "-a", "a-", "a..b", "a_b", "a b", "a\nb", "a" * 64, ".a", "a.", "x." * 127 + "x"],
    )
    def test_invalid_names(self, name: str) -> None:
        with pytest.raises(InvalidValueError, match="cannot be a host name"):
            run(AssignHostname, FakeGuest.mounted({"/etc/hostname": ""}), hostname=name)

    def test_longer_than_linux_allows(self) -> None:
        guest = FakeGuest.mounted({"/etc/hostname": ""})
        name = f"vm1.{'a' * 40}.{'b' * 40}"
        assert len(run(AssignHostname, guest, hostname=name)) == 1
        assert guest.read("/etc/hostname") == "vm1\n"
        assert f"{name} vm1" in (guest.read("/etc/hosts") or "")


class TestChangeMachineId:
    def test_empty_for_systemd_to_fill(self) -> None:
        guest = FakeGuest.mounted(
            {
                **SYSTEMD,
                **dict.fromkeys(SHARED_SEEDS, "s"),
                "/etc/machine-id": file("a" * 32, 0o444),
            }
        )
        assert run(ChangeMachineId, guest) == []
        assert guest.node("/etc/machine-id") == file("", 0o444)
        assert [path for path in SHARED_SEEDS if guest.status(path)] == []

    def test_given_id(self) -> None:
        guest = FakeGuest.mounted({**SYSTEMD, "/etc/machine-id": ""})
        run(ChangeMachineId, guest, machine_id="b" * 32)
        assert guest.read("/etc/machine-id") == "b" * 32 + "\n"

    def test_no_systemd_to_fill_it(self) -> None:
        found = set()
        for _ in range(2):
            guest = FakeGuest.mounted({"/etc/machine-id": "a" * 32})
            run(ChangeMachineId, guest)
            found.add(guest.read("/etc/machine-id"))
        assert len(found) == 2
        assert all(len(text or "") == 33 for text in found)

    def test_id_of_dbus_cannot_come_back(self) -> None:
        guest = FakeGuest.mounted(
            {**SYSTEMD, "/etc/machine-id": "a", "/var/lib/dbus/machine-id": "a" * 32}
        )
        run(ChangeMachineId, guest)
        assert guest.link_target("/var/lib/dbus/machine-id") == "/etc/machine-id"
        guest = FakeGuest.mounted({**SYSTEMD, "/var/lib/dbus/machine-id": "a" * 32})
        assert len(run(ChangeMachineId, guest)) == 1
        assert guest.status("/var/lib/dbus/machine-id") is None

    def test_links_are_not_followed(self) -> None:
        files: dict[str, str | Node] = {
            "/etc/machine-id": link("/etc/victim"),
            "/var/lib/dbus/machine-id": link("/etc/machine-id"),
            "/etc/victim": "v",
        }
        guest = FakeGuest.mounted({**SYSTEMD, **files})
        assert run(ChangeMachineId, guest) == []
        assert guest.read("/etc/victim") == "v"
        assert guest.node("/etc/machine-id").content == ""
        assert guest.link_target("/var/lib/dbus/machine-id") == "/etc/machine-id"
