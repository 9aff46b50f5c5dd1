"""Arguments in batch files, read back as cmd.exe and the C runtime read them."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snf_core.errors import InvalidValueError
from snf_os_windows.batch import argument

PRINTABLE = "".join(char for char in string.printable if char.isprintable())
TEXTS = st.text(PRINTABLE, max_size=60)


def expanded(line: str) -> str:
    """What cmd.exe makes of a line of a batch file, if nothing in it is but text.

    By what ``cmd /?`` and ``for /?`` say: first ``%`` (two make one, one alone begins a variable),
    then carets and quotes. A character that means something ends what can be text.
    """
    assert "%" not in line.replace("%%", ""), "a variable"
    line = line.replace("%%", "%")
    text, quoted, position = "", False, 0
    while position < len(line):
        char = line[position]
        if char == "^" and not quoted:
            position += 1
            assert position < len(line), "the line goes on"
            text += line[position]
        else:
            assert quoted or char not in "&|<>()", "a command, or a redirection"
            quoted ^= char == '"'
            text += char
        position += 1
    assert not quoted
    return text


def split(line: str) -> list[str]:
    """A command line as the C runtime splits it (Microsoft, "Parsing C command-line arguments")."""
    words: list[str] = []
    word, inside, quoted, backslashes = "", False, False, 0
    for char in line + " ":
        if char == "\\":
            backslashes += 1
            inside = True
            continue
        if char == '"':
            word += "\\" * (backslashes // 2)
            inside = True
            if backslashes % 2:
                word += '"'
            else:
                quoted = not quoted
        else:
            word += "\\" * backslashes
            if char in " \t" and not quoted:
                if inside:
                    words.append(word)
                word, inside = "", False
            else:
                word += char
                inside = True
        backslashes = 0
    assert not quoted
    return words


@given(st.lists(TEXTS, min_size=1, max_size=4))
@example([PRINTABLE])
@example([""])
@example(["\\"])
@example(['\\"', '"', "%PATH%", "%1", "^", "!a!", "a\\\\", "& del", "a b"])
def test_any_printable_text_arrives_as_it_is(values: list[str]) -> None:
    line = " ".join(argument(value, "it") for value in values)
    assert split(expanded(line)) == values


@pytest.mark.parametrize(
    "value", ["a\nb", "a\r", "\t", "\0", "\x1a", "\x7f", "é", "\u2028", "a" * 4001]
)
def test_what_a_batch_file_cannot_hold_is_refused(value: str) -> None:
    with pytest.raises(InvalidValueError, match=r"^the password ") as caught:
        argument(value, "the password")
    assert value not in str(caught.value)


@pytest.mark.parametrize("line", ["a & b", "%PATH%", '"a', "a >b", "a ^", '"a"|b"'])
def test_the_reader_finds_what_is_not_text(line: str) -> None:
    with pytest.raises(AssertionError):
        expanded(line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('"a b" c', ["a b", "c"]),
        (r'"ab\"c" "\\" d', ['ab"c', "\\", "d"]),
        (r'a\\\b d"e f"g h', ["a\\\\\\b", "de fg", "h"]),
        (r"a\\\"b c d", ['a\\"b', "c", "d"]),
        (r'a\\\\"b c" d e', ["a\\\\b c", "d", "e"]),
        ('a ""', ["a", ""]),
    ],
)
def test_the_reader_splits_as_documented(line: str, words: list[str]) -> None:
    assert split(line) == words
