"""The computer's name: what Windows allows, and where it is written."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import InvalidValueError, TaskError
from snf_os_windows import answer_file, inspection, paths, sysprep
from snf_os_windows.hostname import AssignHostname, computer_name
from snf_os_windows.unattend import AnswerFile
from tests import answer_files
from tests.fakes.guest import FakeGuest
from tests.fakes.task import run


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("vm1", "vm1"),
        ("vm1.example.org", "vm1"),
        ("VM-1.example.org", "VM-1"),
        ("a" * 15, "a" * 15),
        ("a" * 15 + ".example.org", "a" * 15),
        ("1a", "1a"),
        ("a_b", "a_b"),
        ("x", "x"),
    ],
)
def test_short_name(hostname: str, name: str) -> None:
    assert computer_name(hostname) == name


@pytest.mark.parametrize(
    ("hostname", "reason"),
    [
        ("a" * 16, "16 characters"),
        ("a" * 16 + ".example.org", "16 characters"),
        ("", "not allowed"),
        (".example.org", "not allowed"),
        ("123", "digits only"),
        ("123.example.org", "digits only"),
        ("-a", "not allowed"),
        ("a-", "not allowed"),
        ("_a", "not allowed"),
        ("a b", "not allowed"),
        ("a\n", "not allowed"),
        ("a*", "not allowed"),
        ("é", "not allowed"),
        ("\u0661", "not allowed"),
    ],
)
def test_refused(hostname: str, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason) as caught:
        computer_name(hostname)
    assert "1 to 15 characters: letters A to Z, digits" in caught.value.message
    assert "another name" in caught.value.remedy
    assert "EXCLUDE_TASK_ASSIGNHOSTNAME" in caught.value.remedy


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_name(text: str) -> None:
    try:
        name = computer_name(text)
    except InvalidValueError:
        return
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,15}", name)
    assert not name.isdigit()


FACTS = inspection.Facts((10, 0), 20348, "Windows Server 2022", "", "amd64", "ControlSet001")
LEGACY = inspection.Facts((5, 2), 3790, "Windows Server 2003", "", "x86", "ControlSet001")


def guest_with(files: dict[str, Any], facts: inspection.Facts = FACTS) -> FakeGuest:
    guest = FakeGuest.mounted({"/Windows/explorer.exe": "", **files})
    guest.hives = {paths.SYSTEM_HIVE: {}}
    inspection._facts[guest] = facts
    return guest


def test_both_copies() -> None:
    text = AnswerFile.blank().serialize().decode()
    guest = guest_with(dict.fromkeys(answer_file.COPIES, text))
    assert run(AssignHostname, guest) == []
    for path in answer_file.COPIES:
        content = (guest.read(path) or "").encode()
        answer_files.check(content)
        assert b"<ComputerName>vm1</ComputerName>" in content


def test_another_file_than_the_one_that_windows_reads() -> None:
    text = AnswerFile.blank().serialize().decode()
    guest = guest_with({answer_file.INSTALLED: text, answer_file.EXPECTED: "<mine/>"})
    run(AssignHostname, guest)
    assert "vm1" in (guest.read(answer_file.INSTALLED) or "")
    assert guest.read(answer_file.EXPECTED) == "<mine/>"


def test_no_answer_file() -> None:
    with pytest.raises(TaskError, match="no answer file") as caught:
        run(AssignHostname, guest_with({}))
    assert "InstallUnattend" in caught.value.remedy
    with pytest.raises(TaskError, match=r"sysprep\.inf"):
        run(AssignHostname, guest_with({}, LEGACY))


def test_legacy() -> None:
    guest = guest_with({sysprep.PATH: "[UserData]\r\nComputerName=*\r\n"}, LEGACY)
    run(AssignHostname, guest)
    assert guest.read(sysprep.PATH) == "[UserData]\r\nComputerName=vm1\r\n"


def test_underscore() -> None:
    text = AnswerFile.blank().serialize().decode()
    guest = guest_with({answer_file.INSTALLED: text})
    assert "underscore" in run(AssignHostname, guest, hostname="a_b")[0]


def test_renamed_instance() -> None:
    """A deployed guest is left alone, whatever its new name is, and it is said what to do."""
    guest = guest_with({})
    warnings = run(AssignHostname, guest, update=True, hostname="vm2.example.org")
    assert len(warnings) == 1
    assert "vm2" in warnings[0]
    assert "Rename-Computer" in warnings[0]
