"""DeleteSSHKeys over file systems in dictionaries."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import GuestError
from snf_os_linux import ssh, systemd
from snf_os_linux.ssh import UNIT, DeleteSSHKeys
from tests.fakes.guest import FakeGuest, Node, link
from tests.fakes.task import run

if TYPE_CHECKING:
    from collections.abc import Mapping


KEY = "ssh-ed25519 AAAA one"
SYSTEMD = {"/usr/lib/systemd/systemd": "", "/etc/systemd/system/x.service": ""}


PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n"


class TestDeleteSSHKeys:
    def _guest(
        self, config: str = "", more: Mapping[str, str | Node] = MappingProxyType({})
    ) -> FakeGuest:
        files: dict[str, str | Node] = {
            "/etc/ssh/sshd_config": config,
            "/etc/ssh/ssh_host_rsa_key": PEM,
            "/etc/ssh/ssh_host_rsa_key.pub": "x",
            "/etc/ssh/ssh_host_dsa_key": link("/etc/passwd"),
            "/etc/ssh/moduli": "m",
            "/usr/bin/ssh-keygen": "",
            "/etc/passwd": "p",
            **SYSTEMD,
        }
        return FakeGuest.mounted(files | dict(more))

    def test_debian_gets_a_unit(self) -> None:
        guest = self._guest()
        assert run(DeleteSSHKeys, guest) == []
        assert guest.list("/etc/ssh") == ["moduli", "sshd_config"]
        assert guest.read("/etc/passwd") == "p"
        text = guest.read(f"{systemd.UNITS}/{UNIT}") or ""
        assert "ExecStart=/usr/bin/ssh-keygen -A\n" in text
        assert "ConditionPathExistsGlob=|!/etc/ssh/ssh_host_*_key\n" in text
        assert (
            guest.link_target(f"{systemd.UNITS}/multi-user.target.wants/{UNIT}")
            == f"{systemd.UNITS}/{UNIT}"
        )

    @pytest.mark.parametrize("path", ssh.OWN_GENERATORS)
    def test_distribution_with_its_own_means(self, path: str) -> None:
        guest = self._guest("", {path: ""})
        assert run(DeleteSSHKeys, guest) == []
        assert guest.status(f"{systemd.UNITS}/{UNIT}") is None
        assert guest.list("/etc/ssh") == ["moduli", "sshd_config"]

    def test_init_scripts(self) -> None:
        files = {"/etc/ssh/sshd_config": "", "/etc/init.d/sshd": "ssh-keygen -A\n"}
        assert run(DeleteSSHKeys, FakeGuest.mounted(files)) == []
        files["/etc/init.d/sshd"] = "start\n"
        [warning] = run(DeleteSSHKeys, FakeGuest.mounted(files))
        assert "will not make new SSH host keys" in warning

    def test_keys_of_other_names(self) -> None:
        guest = self._guest(
            "HostKey /etc/ssh/ssh_host_rsa_key\nHostKey /srv/k/mine\nHostKey /srv/k/by_ecdsa_name\n"
            "HostKey /srv/k/none\n",
            {
                "/srv/k/mine": PEM,
                "/srv/k/mine.pub": "ssh-ed25519 AAAA x\n",
                "/srv/k/by_ecdsa_name": PEM,
            },
        )
        assert run(DeleteSSHKeys, guest) == []
        assert guest.list("/srv/k") == []
        text = guest.read(f"{systemd.UNITS}/{UNIT}") or ""
        assert "ExecStart=-/usr/bin/ssh-keygen -q -t ed25519 -N '' -f /srv/k/mine\n" in text
        assert "ExecStart=-/usr/bin/ssh-keygen -q -t ecdsa -N '' -f /srv/k/by_ecdsa_name\n" in text
        assert "ConditionPathExists=|!/srv/k/mine\n" in text

    @pytest.mark.parametrize(
        "path", ["/etc/passwd", "relative", "/srv/../etc/x", "/srv", "/srv/big", "/srv/\udcff"]
    )
    def test_paths_that_are_left_alone(self, path: str) -> None:
        guest = self._guest(f"HostKey {path}\n", {"/srv/big": "x" * (3 << 20)})
        before = guest.filesystems["/dev/sda1"].nodes.get(path)
        warnings = run(DeleteSSHKeys, guest)
        assert len(warnings) == 1
        assert "left alone" in warnings[0]
        assert guest.filesystems["/dev/sda1"].nodes.get(path) == before

    @pytest.mark.parametrize(
        "name", ["rsa key", "rsa%n", "rsa$x", "rsa\\nExecStart=x", "rsa;x", ".rsa", "unknown"]
    )
    def test_names_that_get_no_new_key(self, name: str) -> None:
        path = f"/srv/k/{name}"
        guest = self._guest(f"HostKey '{path}'\n")
        guest.make_directory("/srv/k")
        guest.write(path, PEM)
        [warning] = run(DeleteSSHKeys, guest)
        assert "how to make it anew is not known" in warning
        assert guest.status(path) is None
        assert "/srv/k" not in (guest.read(f"{systemd.UNITS}/{UNIT}") or "")

    def test_no_server(self) -> None:
        assert len(run(DeleteSSHKeys, FakeGuest.mounted({"/etc/passwd": ""}))) == 1

    def test_linked_directory_is_an_error(self) -> None:
        guest = FakeGuest.mounted({"/etc/ssh": link("/srv"), "/srv/ssh_host_rsa_key": PEM})
        with pytest.raises(GuestError, match="/etc/ssh in the guest is not a directory"):
            run(DeleteSSHKeys, guest)

    @pytest.mark.parametrize(
        ("path", "header", "public", "expected"),
        [
            ("/k", PEM, "ecdsa-sha2-nistp256 AAAA", "ecdsa"),
            ("/k", "-----BEGIN RSA PRIVATE KEY-----\n", "", "rsa"),
            ("/k", "-----BEGIN EC PRIVATE KEY-----\n", "", "ecdsa"),
            ("/ssh_host_ed25519_key", PEM, "", "ed25519"),
            ("/secret-universal", PEM, "", ""),
        ],
    )
    def test_type(self, path: str, header: str, public: str, expected: str) -> None:
        assert ssh.key_type(path, header, public) == expected
