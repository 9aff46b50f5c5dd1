"""DisableRemoteDesktopConnections: closed until passwords are set, and as the image had it then."""

from __future__ import annotations

import pytest

from snf_core.image.registry import Value
from snf_os_windows import answer_file, first_boot, inspection, paths
from snf_os_windows.remote_desktop import DisableRemoteDesktopConnections
from snf_os_windows.unattend import AnswerFile
from tests.fakes.guest import FakeGuest
from tests.fakes.task import run
from tests.images.windows import VERSIONS, Image
from tests.scripts.powershell import check


def prepared(image: Image) -> FakeGuest:
    guest = FakeGuest.with_windows(image)
    first_boot.install(guest, inspection.facts(guest))
    return guest


def value(guest: FakeGuest, control_set: int = 1) -> Value | None:
    with guest.registry(paths.SYSTEM_HIVE) as hive:
        return hive.value(
            f"ControlSet{control_set:03}\\Control\\Terminal Server", "fDenyTSConnections"
        )


@pytest.mark.parametrize("version", VERSIONS)
def test_open_is_closed_and_opened_last(version: str) -> None:
    guest = prepared(Image(version, remote_desktop=0))
    assert run(DisableRemoteDesktopConnections, guest) == []
    assert value(guest) == Value.dword(1)
    fragments = [name for name in guest.list(paths.SCRIPTS) if name[0].isdigit()]
    kind = "ps1" if VERSIONS[version].powershell else "cmd"
    assert fragments == [f"40-remote-desktop.{kind}"]
    text = guest.read(f"{paths.SCRIPTS}/{fragments[0]}") or ""
    assert "fDenyTSConnections" in text
    assert r"\CurrentControlSet\Control\Terminal Server" in text
    if kind == "ps1":
        check(text)
        assert text.endswith("fDenyTSConnections 0 -Type DWord\r\n")
    else:
        assert text.endswith("/v fDenyTSConnections /t REG_DWORD /d 0 /f\r\n")


@pytest.mark.parametrize("number", [1, None, 2])
def test_closed_or_absent_stays_so(number: int | None) -> None:
    guest = prepared(Image("2022", remote_desktop=number))
    before = value(guest)
    assert run(DisableRemoteDesktopConnections, guest) == []
    assert value(guest) == before
    assert (before is None) == (number is None)
    assert guest.list(paths.SCRIPTS) == ["run.cmd", "run.ps1"]


@pytest.mark.parametrize("number", [0, 1, None])
def test_an_answer_file_that_opens_it(number: int | None) -> None:
    """It would in the specialize pass, perhaps before the first boot has set passwords."""
    name = "Microsoft-Windows-TerminalServices-LocalSessionManager"
    answer = AnswerFile.blank()
    answer.set_value("specialize", name, ["fDenyTSConnections"], "false", "amd64")
    files = dict.fromkeys(answer_file.COPIES, answer.serialize())
    guest = prepared(Image("2022", remote_desktop=number, files=files))
    assert run(DisableRemoteDesktopConnections, guest) == []
    found = value(guest)
    assert found is None if number is None else found == Value.dword(1)
    assert guest.read(f"{paths.SCRIPTS}/40-remote-desktop.ps1")
    for path in answer_file.COPIES:
        assert "fDenyTSConnections" not in (guest.read(path) or "fDenyTSConnections")


def test_a_value_of_another_type_stays() -> None:
    key = "ControlSet001\\Control\\Terminal Server"
    guest = prepared(Image("2022"))
    with guest.registry(paths.SYSTEM_HIVE, write=True) as hive:
        hive.set(key, "fDenyTSConnections", Value.string("0"))
    before = value(guest)
    assert before == Value.string("0")
    assert run(DisableRemoteDesktopConnections, guest) == []
    assert value(guest) == before


def test_the_control_set_that_is_used_next() -> None:
    guest = prepared(Image("2022", remote_desktop=0, control_set=2))
    before = value(guest, 1)
    run(DisableRemoteDesktopConnections, guest)
    assert value(guest, 2) == Value.dword(1)
    assert value(guest, 1) == before


def test_not_where_nothing_would_open_it_again() -> None:
    guest = FakeGuest.with_windows(Image("2022", cloudbase=True, remote_desktop=0))
    assert run(DisableRemoteDesktopConnections, guest) == []
    assert value(guest) == Value.dword(0)


@pytest.mark.parametrize(("number", "warned"), [(0, True), (1, False)])
def test_a_policy_that_keeps_it_open_is_said(number: int, warned: bool) -> None:
    key = "Policies\\Microsoft\\Windows NT\\Terminal Services"
    guest = FakeGuest.with_windows(Image("2022", remote_desktop=0))
    guest.hives[paths.SOFTWARE_HIVE][key] = {"fDenyTSConnections": Value.dword(number)}
    first_boot.install(guest, inspection.facts(guest))
    warnings = run(DisableRemoteDesktopConnections, guest)
    assert ["group policy" in warning for warning in warnings] == [True] * warned
    assert value(guest) == Value.dword(1)
