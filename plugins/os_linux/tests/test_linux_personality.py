"""EnforcePersonality over file systems in dictionaries."""

from __future__ import annotations

import stat
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from snf_core.contract import Stage, Task
from snf_core.errors import GuestError
from snf_core.image.customization import PersonalFile
from snf_core.image.properties import Properties
from snf_core.image.tasks import Step, plan
from snf_os_linux import accounts
from snf_os_linux.personality import EnforcePersonality
from tests.fakes.guest import FakeGuest, Node, link
from tests.fakes.task import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

PASSWD = "toor:x:7:7::/:/bin/sh\nroot:x:7:7::/:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n"
GROUP = "root:x:7:\nstaff:x:50:user\nodd:x:many:\nstaff:x:51:\n"


def guest_with(more: Mapping[str, str | Node] = MappingProxyType({})) -> FakeGuest:
    files = {"/etc/passwd": PASSWD, "/etc/group": GROUP, "/etc/motd": "old"}
    return FakeGuest.mounted({**files, **more})


def owner_and_mode(guest: FakeGuest, path: str) -> tuple[int, int, int]:
    node = guest.node(path)
    return node.uid, node.gid, stat.S_IMODE(node.mode)


def test_nothing_asked_nothing_done() -> None:
    guest = FakeGuest.mounted({"/etc/motd": "old"})
    assert run(EnforcePersonality, guest) == []
    assert guest.list("/etc") == ["motd"]


def test_files_owners_and_the_directories_on_the_way() -> None:
    guest = guest_with()
    binary = bytes(range(256))
    files = (
        PersonalFile("/etc/motd", b"new\n"),
        PersonalFile("/srv/a b/c/key", binary, "user", "staff", 0o4600),
        PersonalFile("/srv/other", b"", mode=0o644),
    )
    assert run(EnforcePersonality, guest, personality=files) == []
    assert guest.read("/etc/motd") == "new\n"
    assert guest.node("/srv/a b/c/key").content.encode(errors="surrogateescape") == binary
    # root is 0, whatever the guest's files say
    assert owner_and_mode(guest, "/etc/motd") == (0, 0, 0o440)
    assert owner_and_mode(guest, "/srv/a b/c/key") == (1000, 50, 0o4600)
    for directory in ("/srv", "/srv/a b", "/srv/a b/c"):
        assert owner_and_mode(guest, directory) == (1000, 50, 0o750)
    assert owner_and_mode(guest, "/srv/other") == (0, 0, 0o644)
    assert owner_and_mode(guest, "/etc") == (0, 0, 0o755)


def test_root_need_not_be_in_the_guest() -> None:
    guest = FakeGuest.mounted({"/x": ""})
    assert run(EnforcePersonality, guest, personality=(PersonalFile("/y", b""),)) == []
    assert owner_and_mode(guest, "/y") == (0, 0, 0o440)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (PersonalFile("/a/b", b"", owner="nobody"), "/a/b: its owner 'nobody' does not exist"),
        (PersonalFile("/a/b", b"", group="user"), "/a/b: its group 'user' does not exist"),
        (PersonalFile("/a/b", b"", owner="use.", group="staff"), "its owner 'use.' does not"),
        (PersonalFile("/a/b", b"", group="odd"), "group 'odd' has no numeric id"),
        (PersonalFile("/etc/motd/x", b""), "/etc/motd in the guest is not a directory"),
        (PersonalFile("/etc", b""), "/etc in the guest is a directory, not a file"),
        (PersonalFile("/lib/x", b""), "/lib in the guest is a symbolic link to 'usr/lib'"),
        (PersonalFile("/usr/lib/out/x", b""), "/usr/lib/out in the guest is a symbolic link"),
    ],
)
def test_what_cannot_be_leaves_all_files_as_they_are(wanted: PersonalFile, why: str) -> None:
    guest = guest_with({"/lib": link("usr/lib"), "/usr/lib/out": link("/etc")})
    with pytest.raises(GuestError, match=why):
        run(EnforcePersonality, guest, personality=(PersonalFile("/etc/motd", b"new"), wanted))
    assert guest.read("/etc/motd") == "old"
    assert not guest.status("/etc/x")


def test_a_link_is_replaced_and_not_followed() -> None:
    guest = guest_with({"/etc/link": link("motd")})
    assert run(EnforcePersonality, guest, personality=(PersonalFile("/etc/link", b"new"),)) == []
    assert guest.is_file("/etc/link")
    assert guest.read("/etc/motd") == "old"


def test_it_is_the_last_that_writes() -> None:
    class Late(Task):
        stage = Stage.MOUNTED

        def run(self, guest: Guest, request: Customization) -> Iterable[str]:
            del guest, request
            return ()

    class Umount(Late):
        stage = Stage.UNMOUNT

    steps = [
        Step("UmountImage", Umount(None)),
        Step("EnforcePersonality", EnforcePersonality(None)),
        Step("Late", Late(None)),
    ]
    planned = [step.name for step in plan(steps, Properties()).steps]
    assert planned == ["Late", "EnforcePersonality", "UmountImage"]


@pytest.mark.parametrize(
    ("name", "number"), [("staff", 50), ("root", 7), ("", None), ("sta", None), ("user", None)]
)
def test_groups(name: str, number: int | None) -> None:
    assert accounts.group_id(GROUP + ":x:3:\nbad:x:1\n", name) == number


@pytest.mark.parametrize("text", ["-1", "", "4294967295", "٣", "1.0", "99999999999"])
def test_groups_without_a_number(text: str) -> None:
    with pytest.raises(GuestError, match="group 'g' has no numeric id"):
        accounts.group_id(f"g:x:{text}:\n", "g")
