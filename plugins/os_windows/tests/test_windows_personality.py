"""EnforcePersonality over a volume in a dictionary."""

from __future__ import annotations

import base64
import re
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.errors import GuestError, InvalidValueError
from snf_core.image.customization import PersonalFile
from snf_os_windows import first_boot, inspection, paths, personality
from snf_os_windows.personality import EnforcePersonality
from tests.fakes.guest import FakeGuest, link
from tests.fakes.task import run

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVER = inspection.Facts((10, 0), 20348, "Windows Server 2022", "", "amd64", "ControlSet001")
XP = inspection.Facts((5, 1), 2600, "Windows XP", "", "x86", "ControlSet001", powershell=False)
BACKUP = re.compile(r"hosts\.bak\.[0-9]{8}\.[0-9]{6}(\.[0-9]+)?")
HOSTS = "/Windows/System32/drivers/etc/hosts"


def guest_with(
    files: Mapping[str, Any] = MappingProxyType({}),
    facts: inspection.Facts = SERVER,
    *,
    first: bool = True,
) -> FakeGuest:
    """A Windows; ``first``: with something of ours at its first boot."""
    guest = FakeGuest.mounted({f"{paths.WINDOWS}/explorer.exe": "MZ", **files})
    inspection._facts[guest] = facts
    if first:
        first_boot.install(guest, facts)
    return guest


def fragment(guest: FakeGuest) -> str:
    """What is done about permissions at the first boot."""
    (name,) = [name for name in guest.list(paths.SCRIPTS) if "permissions" in name]
    return guest.read(f"{paths.SCRIPTS}/{name}") or ""


def test_nothing_asked_nothing_done() -> None:
    guest = FakeGuest.mounted({"/Windows/x": ""})
    assert run(EnforcePersonality, guest) == []


def test_files_and_the_directories_on_the_way() -> None:
    guest = guest_with()
    binary = bytes(range(256))
    files = (
        PersonalFile("/Windows/Temp/a b/key.bin", binary),
        PersonalFile("/Grüße/hallo.txt", b""),
    )
    assert run(EnforcePersonality, guest, personality=files) == []
    written = guest.node("/Windows/Temp/a b/key.bin").content
    assert written.encode(errors="surrogateescape") == binary
    assert guest.read("/Grüße/hallo.txt") == ""


def test_what_is_made_gets_its_permissions_at_the_first_boot() -> None:
    guest = guest_with({"/Data/old.txt": "x"})
    files = (PersonalFile("/Data/new/deep/a'b.txt", b""), PersonalFile("/Data/old.txt", b"y"))
    assert run(EnforcePersonality, guest, personality=files) == []
    script = fragment(guest)
    words = re.findall(r"[A-Za-z0-9+/]{12,}={0,2}", script)
    decoded = [base64.b64decode(w).decode("utf-16-le") for w in words if len(w) % 4 == 0]
    for path in ("C:\\Data\\new", "C:\\Data\\new\\deep", "C:\\Data\\new\\deep\\a'b.txt"):
        assert path in decoded
    assert "C:\\Data\\old.txt" in decoded
    assert "C:\\Data" not in decoded, "it was there"
    assert "icacls" in script


def test_a_windows_that_has_no_icacls() -> None:
    guest = guest_with(facts=XP)
    assert run(EnforcePersonality, guest, personality=(PersonalFile("/Data/a.txt", b""),)) == []
    assert '^"C:\\Data\\a.txt^" /reset' in fragment(guest)
    with pytest.raises(InvalidValueError):
        run(EnforcePersonality, guest, personality=(PersonalFile("/Grüße", b"x"),))
    assert not guest.status("/Grüße")


def test_without_a_first_boot_of_ours_it_is_said() -> None:
    guest = guest_with(first=False)
    (warning,) = run(EnforcePersonality, guest, personality=(PersonalFile("/a.txt", b""),))
    assert "everybody in the guest may change the personality files" in warning
    assert guest.is_file("/a.txt")
    assert not guest.status(paths.SCRIPTS)


@pytest.mark.parametrize("more", [{"owner": "user"}, {"group": "staff"}, {"mode": 0o644}])
def test_what_means_nothing_is_said_once(more: dict[str, Any]) -> None:
    files = (PersonalFile("/a", b"", **more), PersonalFile("/b", b"", **more))
    assert run(EnforcePersonality, guest_with(), personality=files) == [
        "owner, group and mode of personality files mean nothing to Windows"
    ]


def test_what_was_there_is_kept() -> None:
    guest = guest_with({HOSTS: "old", "/Data/link": link("/Windows")})
    files = (PersonalFile(HOSTS, b"new"),)
    assert run(EnforcePersonality, guest, personality=files) == []
    folder = HOSTS.rpartition("/")[0]
    (backup,) = [name for name in guest.list(folder) if name != "hosts"]
    assert BACKUP.fullmatch(backup)
    assert guest.read(f"{folder}/{backup}") == "old"
    assert guest.read(HOSTS) == "new"


def test_deployments_in_one_second_keep_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_: "20260102.030405")
    guest = guest_with({HOSTS: "0"})
    for number in (b"1", b"2", b"3"):
        run(EnforcePersonality, guest, personality=(PersonalFile(HOSTS, number),))
    folder = HOSTS.rpartition("/")[0]
    found = {name: guest.read(f"{folder}/{name}") for name in guest.list(folder)}
    assert found == {
        "hosts": "3",
        "hosts.bak.20260102.030405": "0",
        "hosts.bak.20260102.030405.1": "1",
        "hosts.bak.20260102.030405.2": "2",
    }


@pytest.mark.parametrize(
    "path",
    [
        *("/C:/x", "/a<b", "/a>b", '/a"b', "/a|b", "/a?b", "/a*b", "/a\\b", "/a:stream", "/a\x01"),
        *("/a.", "/a ", "/a./b", "/a /b", "/...", "/x" * 3 + "."),
        *("/CON", "/nul", "/Com1", "/lpt9", "/aux.txt", "/a/prn/b", "/COM¹", "/nul .txt"),
        *("/conin$", "/CONOUT$", "/$MFT", "/$Extend/$Quota", "/$boot", "/" + "😀" * 128),
    ],
)
def test_what_windows_cannot_have_is_refused_before_anything_is_written(path: str) -> None:
    guest = guest_with()
    with pytest.raises(InvalidValueError, match="personality file ") as caught:
        run(
            EnforcePersonality,
            guest,
            personality=(PersonalFile("/a", b""), PersonalFile(path, b"")),
        )
    assert caught.value.remedy
    assert not guest.status("/a")


@pytest.mark.parametrize(
    "path",
    [
        *("/.hidden", "/a.b.c", "/console.txt", "/com10", "/lpt", "/nullable", "/a b", "/a;b,c"),
        *("/$Recycle.Bin/x", "/Data/$MFT", "/%TEMP%", "/a'b", "/ leading", "/" + "x" * 255),
    ],
)
def test_odd_names_that_windows_can_have(path: str) -> None:
    personality.check([PersonalFile(path, b"")])


def test_one_file_under_two_names() -> None:
    files = (PersonalFile("/Data/A.txt", b""), PersonalFile("/data/a.TXT", b""))
    with pytest.raises(InvalidValueError, match=r"/Data/A.txt and /data/a.TXT are one file"):
        run(EnforcePersonality, guest_with(), personality=files)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/Documents and Settings/x", "is a junction or link"),
        ("/Windows/explorer.exe/x", "is not a directory"),
        ("/Windows", "is a directory, not a file"),
    ],
)
def test_places_where_no_file_can_be(path: str, why: str) -> None:
    guest = guest_with({"/Documents and Settings": link("/Users"), "/Users/x": "theirs"})
    with pytest.raises(GuestError, match=why):
        run(EnforcePersonality, guest, personality=(PersonalFile(path, b"ours"),))
    assert guest.read("/Users/x") == "theirs"
