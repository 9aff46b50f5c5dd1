"""ChangePassword over file systems in dictionaries."""

from __future__ import annotations

import stat
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import GuestError, InvalidValueError, TaskError
from snf_os_linux.users import ChangePassword
from tests.fakes.guest import FakeGuest, Node, file, link
from tests.fakes.task import run

if TYPE_CHECKING:
    from collections.abc import Mapping


HASH = "$6$salt$hash"
KEY = "ssh-ed25519 AAAA one"


PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n"
SHADOW = "root:!:1::::::\nrootx:keep:1::::::\nuser:*:1::::::\n"


def _users(more: Mapping[str, str | Node] = MappingProxyType({})) -> FakeGuest:
    files: dict[str, str | Node] = {
        "/etc/passwd": PASSWD,
        "/etc/shadow": file(SHADOW, 0o640, 0, 42),
        "/etc/ssh/sshd_config": "",
        "/home/x": "",
        "/root/x": "",
    }
    return FakeGuest.mounted(files | dict(more))


class TestChangePassword:
    def test_nothing_given(self) -> None:
        guest = _users()
        assert len(run(ChangePassword, guest)) == 1
        assert guest.read("/etc/shadow") == SHADOW

    def test_root_by_default(self) -> None:
        guest = _users()
        assert len(run(ChangePassword, guest, password_hash=HASH)) == 1
        day = int(time.time()) // 86400
        lines = (guest.read("/etc/shadow") or "").split("\n")
        assert lines[0] in {f"root:{HASH}:{today}::::::" for today in (day - 1, day)}
        assert lines[1:] == SHADOW.split("\n")[1:]
        node = guest.node("/etc/shadow")
        assert (stat.S_IMODE(node.mode), node.uid, node.gid) == (0o640, 0, 42)

    @pytest.mark.parametrize("user", ["nobody", "roo", "roo.", "-x", "", "root:x"])
    def test_unknown_user(self, user: str) -> None:
        guest = _users()
        with pytest.raises(GuestError, match="does not exist in the guest") as caught:
            run(ChangePassword, guest, password_hash=HASH, users=("root", user))
        assert "USERS" in caught.value.remedy
        assert guest.read("/etc/shadow") == SHADOW, "half of the users were changed"

    def test_password_outside_shadow_is_moved_there(self) -> None:
        guest = _users({"/etc/passwd": "root::0:0:root:/root:/bin/sh\nu:*:1:1::/:/bin/sh\n"})
        run(ChangePassword, guest, password_hash=HASH, users=("root",))
        assert guest.read("/etc/passwd") == "root:x:0:0:root:/root:/bin/sh\nu:*:1:1::/:/bin/sh\n"

    def test_missing_shadow(self) -> None:
        guest = FakeGuest.mounted({"/etc/passwd": PASSWD})
        with pytest.raises(TaskError, match="no /etc/shadow"):
            run(ChangePassword, guest, password_hash=HASH, users=("root",))

    @pytest.mark.parametrize("bad", ["a:b", "a\nroot::", "\r", "a\0"])
    def test_hash_that_would_break_the_file(self, bad: str) -> None:
        with pytest.raises(InvalidValueError) as caught:
            run(ChangePassword, _users(), password_hash=bad, users=("root",))
        assert bad not in str(caught.value)

    def test_keys_are_added_once(self) -> None:
        guest = _users({"/home/user/.ssh/x": ""})
        path = "/home/user/.ssh/authorized_keys"
        guest.write(path, f"# mine\n{KEY}", owner=(0, 0), mode=0o666)
        keys = (KEY, "ssh-rsa BBBB two", "ssh-rsa BBBB two")
        assert run(ChangePassword, guest, authorized_keys=keys, users=("user", "root")) == []
        assert guest.node(path) == file(f"# mine\n{KEY}\nssh-rsa BBBB two\n", 0o600, 1000, 1001)
        assert guest.node("/root/.ssh/authorized_keys").uid == 0
        assert stat.S_IMODE(guest.node("/root/.ssh").mode) == 0o700

    def test_missing_home_is_the_users_own(self) -> None:
        guest = _users()
        run(ChangePassword, guest, authorized_keys=(KEY,), users=("user",))
        for path in ("/home/user", "/home/user/.ssh"):
            node = guest.node(path)
            assert (stat.S_IMODE(node.mode), node.uid, node.gid) == (0o700, 1000, 1001)

    def test_configured_place(self) -> None:
        guest = _users({"/etc/ssh/sshd_config": "AuthorizedKeysFile /etc/ssh/keys/%u .ssh/x\n"})
        run(ChangePassword, guest, authorized_keys=(KEY,), users=("user",))
        assert guest.node("/etc/ssh/keys/user") == file(f"{KEY}\n", 0o600, 1000, 1001)
        node = guest.node("/etc/ssh/keys")
        assert (stat.S_IMODE(node.mode), node.uid) == (0o755, 0)

    def test_server_that_takes_no_keys(self) -> None:
        guest = _users({"/etc/ssh/sshd_config": "AuthorizedKeysFile none\n"})
        assert len(run(ChangePassword, guest, authorized_keys=(KEY,), users=("user",))) == 1
        assert guest.status("/home/user") is None

    def test_no_server(self) -> None:
        guest = FakeGuest.mounted({"/etc/passwd": PASSWD, "/root/x": ""})
        assert len(run(ChangePassword, guest, authorized_keys=(KEY,), users=("root",))) == 1
        assert guest.read("/root/.ssh/authorized_keys") == f"{KEY}\n"

    def test_linked_directory_is_refused_and_linked_file_replaced(self) -> None:
        guest = _users({"/root/.ssh": link("/etc")})
        with pytest.raises(GuestError):
            run(ChangePassword, guest, authorized_keys=(KEY,), users=("root",))
        guest = _users({"/root/.ssh/authorized_keys": link("/etc/shadow")})
        run(ChangePassword, guest, authorized_keys=(KEY,), users=("root",))
        assert guest.node("/root/.ssh/authorized_keys").content == f"{KEY}\n"
        assert guest.read("/etc/shadow") == SHADOW

    def test_hostile_names_in_paths(self) -> None:
        guest = _users(
            {
                "/etc/passwd": "../../x:x:1:1::/home/x:/bin/sh\n",
                "/etc/ssh/sshd_config": "AuthorizedKeysFile /etc/ssh/%u\n",
            }
        )
        with pytest.raises(GuestError, match="plain absolute path"):
            run(ChangePassword, guest, authorized_keys=(KEY,), users=("../../x",))
