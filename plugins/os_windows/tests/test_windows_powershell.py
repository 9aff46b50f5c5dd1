"""Texts in PowerShell scripts, and the grammar by which all our scripts are checked."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import InvalidValueError
from snf_os_windows import first_boot
from snf_os_windows.powershell import content, encoded, text, texts
from tests.scripts import powershell

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)


def decoded(expression: str) -> str:
    """The value of an expression that ``text`` made, as .NET has it."""
    found = re.fullmatch(
        r"\(\[Text\.Encoding\]::Unicode\.GetString\(\[Convert\]::FromBase64String\('"
        r"([A-Za-z0-9+/=]*)'\)\)\)",
        expression,
    )
    assert found
    return base64.b64decode(found[1], validate=True).decode("utf-16-le")


@given(TEXTS)
def test_any_text_arrives_as_it_is(value: str) -> None:
    assert decoded(text(value)) == value


@given(st.lists(TEXTS, max_size=4))
def test_any_texts_are_one_array(values: list[str]) -> None:
    script = f"$names = {texts(values)}\r\n"
    powershell.check(script)
    assert script.count("FromBase64String") == len(values)


@given(TEXTS)
def test_any_text_is_read_from_its_file(value: str) -> None:
    assert base64.b64decode(encoded(value), validate=True).decode("utf-16-le") == value


def test_what_reads_a_text_is_powershell() -> None:
    script = f"$text = {content('a.txt')}\r\n"
    powershell.check(script)
    assert powershell.literals(script) == ["a.txt"]


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", b"\xff".decode(errors="surrogateescape")])
def test_half_a_character(value: str) -> None:
    with pytest.raises(InvalidValueError, match="half a character") as caught:
        text(value)
    assert value not in str(caught.value)


@pytest.mark.parametrize("name", ["run.ps1", "accounts.ps1", "network.ps1", "extend.ps1"])
def test_scripts_are_powershell(name: str) -> None:
    script = first_boot.read_script(name).replace("\n", "\r\n")
    powershell.check(script)
    # Each of these is of a later version than Windows 7 brings.
    for newer in ("[ordered]", " -in ", " -notin ", "::new(", "Get-CimInstance", "$PSScriptRoot",
                  "-AsPlainText", "Get-NetAdapter", "Set-LocalUser", "??", " -shl "):  # fmt: skip
        assert newer not in script, newer


@pytest.mark.parametrize(
    "broken",
    [
        "if ($a) { 'b' \r\n",
        "$a = 'b\r\n",
        "function { param( }\r\n",
        "$a = @{ b = }\r\n",
        "'a' 'b')\r\n",
        "try { 'a' }}\r\n",
    ],
)
def test_what_is_not_powershell_is_found(broken: str) -> None:
    assert powershell.problems(broken)
    with pytest.raises(AssertionError):
        powershell.check(broken)


@pytest.mark.parametrize("bad", ["'a'\n", "'é'\r\n", "@'\r\na\r\n'@\r\n", "'a'\r\r\n"])
def test_what_a_guest_must_not_get_is_found(bad: str) -> None:
    with pytest.raises(AssertionError):
        powershell.check(bad)
