"""The parameter img_personality: what it may be, and that nothing else passes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import InvalidValueError
from snf_core.image import personality
from snf_core.image.customization import PersonalFile

SECRET = "hunter2-and-more"


def parsed(*files: dict[str, Any]) -> tuple[PersonalFile, ...]:
    """What comes of an array of these."""
    return personality.parse(json.dumps(files))


def file(path: str, content: bytes = b"", **more: object) -> dict[str, Any]:
    """An entry of the array."""
    return {"path": path, "contents": base64.b64encode(content).decode(), **more}


def test_files_with_their_defaults() -> None:
    found = parsed(
        file("/etc/motd", b"hello\n"),
        file("/a b/ä", bytes(range(256)), owner="user", group="staff", mode=420),
    )
    assert found == (
        PersonalFile("/etc/motd", b"hello\n", "root", "root", 0o440),
        PersonalFile("/a b/ä", bytes(range(256)), "user", "staff", 0o644),
    )
    assert "hello" not in repr(found)


@pytest.mark.parametrize("text", ["", " \n", "[]", " [ ] "])
def test_no_files(text: str) -> None:
    assert personality.parse(text) == ()


def test_contents_may_be_on_several_lines() -> None:
    content = bytes(1000)
    entry = {"path": "/a", "contents": base64.encodebytes(content).decode()}
    assert parsed(entry)[0].content == content


@pytest.mark.parametrize("text", ["{}", "no JSON", "1", '"x"', "[" * 100_000, '[{"path": ', "]"])
def test_what_is_no_array(text: str) -> None:
    with pytest.raises(InvalidValueError, match="img_personality is not a JSON array of files"):
        personality.parse(text)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "//", "relative", "C:\\x", "C:/x", "~/x"),
        *("/a/../../b", "/..", "/a/..", "/a/./b", "/.", "/a/", "//a", "/a//b"),
        *("/a\0b", "/a\nb", "/a\x1b[31m", "/a\x7f", "/a\x85", "/a\u2028b"),
        *("/" + "x" * 256, "/" + "ä" * 128, "/x" * 2048),
        *(1, None, ["/a"], True),
    ],
)
def test_paths_are_plain_and_absolute(path: object) -> None:
    with pytest.raises(InvalidValueError, match="file 2: its path is not a plain absolute") as e:
        parsed(file("/good"), {"path": path, "contents": ""})
    assert e.value.remedy


def test_a_path_that_no_text_can_hold() -> None:
    with pytest.raises(InvalidValueError, match="its path is not a plain absolute path"):
        personality.parse('[{"path": "/\\ud800", "contents": ""}]')


@pytest.mark.parametrize("path", ["/.hidden", "/...", "/a..b/c.", "/" + "x" * 255, "/x y", "/-rf"])
def test_odd_paths_that_are_fine(path: str) -> None:
    assert parsed(file(path))[0].path == path


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (1, "file 1: it is not a JSON object"),
        ([["path", "/a"], ["contents", ""]], "file 1: it is not a JSON object"),
        ({"path": "/a"}, "lacks a key"),
        ({"contents": ""}, "lacks a key"),
        (file("/a", uid=0), "one that is not known"),
        ({"path": "/a", "contents": "?"}, r"file 1 \(/a\): its contents are not base64"),
        ({"path": "/a", "contents": "aGk"}, "its contents are not base64"),
        ({"path": "/a", "contents": 1}, "its contents are not base64"),
        ({"path": "/a", "contents": "ä"}, "its contents are not base64"),
        *((file("/a", mode=mode), "its mode is not") for mode in ("0644", True, 1.5, -1, 4096)),
        *((file("/a", owner=name), "its owner is not") for name in ("", 0, None, "a:b", "a\nb")),
        *((file("/a", group=name), "its group is not") for name in ("a b", "/", ["x"], "x" * 257)),
    ],
)
def test_what_is_wrong_is_said_with_the_file(entry: object, why: str) -> None:
    with pytest.raises(InvalidValueError, match=why) as caught:
        personality.parse(json.dumps([entry]))
    assert caught.value.remedy


def test_nothing_is_given_twice() -> None:
    with pytest.raises(InvalidValueError, match=r"file 2 \(/a\): its path is given twice"):
        parsed(file("/a"), file("/a"))
    with pytest.raises(InvalidValueError, match="file 1: a key is given twice"):
        personality.parse('[{"path": "/a", "contents": "", "path": "/b"}]')
    with pytest.raises(InvalidValueError, match=r"file 1 \(/a/b/c\): it lies below /a, which is a"):
        parsed(file("/a/b/c"), file("/a"))
    assert len(parsed(file("/a/b"), file("/a/c"), file("/ab"), file("/A/b"))) == 4


def test_modes_to_the_last_bit() -> None:
    assert [entry.mode for entry in parsed(file("/a", mode=0), file("/b", mode=0o7777))] == [
        0,
        0o7777,
    ]


def test_how_much_and_how_many() -> None:
    half = personality.TOTAL_LIMIT // 2
    assert len(parsed(file("/a", bytes(half)), file("/b", bytes(half)))) == 2
    with pytest.raises(InvalidValueError, match="its files have 1048577 bytes, more than 1048576"):
        parsed(file("/a", bytes(half)), file("/b", bytes(half + 1)))
    with pytest.raises(InvalidValueError, match="has 1001 files, more than 1000"):
        parsed(*[file(f"/{number}") for number in range(1001)])


@pytest.mark.parametrize(
    "text",
    [
        f'[{{"path": "/a", "contents": "{SECRET}?"}}]',
        f'[{{"path": "/a", "contents": "", "{SECRET}": 1}}]',
        f'[{{"path": "/a", "contents": "", "mode": "{SECRET}"}}]',
        f'[{{"path": "{SECRET}", "contents": ""}}]',
        f'[{{"path": "/a", "contents": "" "{SECRET}"}}]',
    ],
)
def test_errors_do_not_show_contents(text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        personality.parse(text)
    assert SECRET not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["path", "contents", "owner", "group", "mode", "x"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_comes_it_is_taken_whole_or_refused(document: object) -> None:
    try:
        files = personality.parse(json.dumps(document))
    except InvalidValueError as error:
        assert error.message.startswith("parameter img_personality")  # noqa: PT017
        return
    assert isinstance(document, list)
    assert len(files) == len(document)
    assert all(one.path.startswith("/") and ".." not in one.path.split("/") for one in files)
