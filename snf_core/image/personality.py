"""The tenant's own files for a guest: the parameter ``img_personality``, checked whole.

A JSON array of objects with ``path`` (absolute) and ``contents`` (base64), and, where they are to
differ from what is in brackets, ``owner`` (root), ``group`` (root) and ``mode`` (288): permission
bits, a whole number, so that 420 means 0644.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
from typing import TYPE_CHECKING

from snf_core.errors import InvalidValueError
from snf_core.image.customization import PersonalFile

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "img_personality"
TOTAL_LIMIT = 1 << 20
"""Bytes of all files together. What Ganeti hands over is shorter: Linux limits one variable of an
environment to 128 KiB (execve(2))."""
FILES_LIMIT = 1000
_REQUIRED = frozenset(["path", "contents"])
_KEYS = _REQUIRED | {"owner", "group", "mode"}
_UNUSABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line separators, and what no text can hold."""
_ACCOUNT = re.compile(r"[^:/\0-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,256}")
"""Names as a line of passwd(5) or group(5) can hold them."""
_LONGEST_PATH, _LONGEST_STEP = 4095, 255
"""Bytes: PATH_MAX without its NUL, and NAME_MAX (limits.h)."""
_LARGEST_MODE = 0o7777


def parse(text: str) -> tuple[PersonalFile, ...]:
    """The files of a personality; none for an empty one.

    Raises InvalidValueError, which names the file by its number from 1 and, where that is sound,
    its path.
    """
    if not text.strip():
        return ()
    try:
        document = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, list) or isinstance(document, _Pairs):
        raise InvalidValueError(
            f"parameter {NAME} is not a JSON array of files",
            remedy='give [{"path": "/absolute", "contents": "BASE64", ...}, ...]',
        )
    if len(document) > FILES_LIMIT:
        raise InvalidValueError(
            f"parameter {NAME} has {len(document)} files, more than {FILES_LIMIT}",
            remedy="give an archive, and have the guest unpack it",
        )
    files = tuple(_file(entry, number) for number, entry in enumerate(document, 1))
    _check_together(files)
    return files


class _Pairs(list[tuple[str, object]]):
    """A JSON object as it was written: a dictionary would hide that a key was given twice."""


def _file(entry: object, number: int) -> PersonalFile:
    where = f"file {number}"
    if not isinstance(entry, _Pairs):
        raise _wrong(where, "it is not a JSON object", 'give {"path": ..., "contents": ...}')
    values = dict(entry)
    if len(values) < len(entry):
        raise _wrong(where, "a key is given twice", "give each once")
    # The keys are not shown: who misplaces a quotation mark has the contents among them.
    if not _REQUIRED <= values.keys() <= _KEYS:
        raise _wrong(
            where,
            "it lacks a key, or has one that is not known",
            "give path and contents, and of owner, group and mode what is to differ from root, "
            "root and 288",
        )
    path = _path(values["path"], where)
    where = f"{where} ({path})"
    return PersonalFile(
        path,
        _content(values["contents"], where),
        _account(values.get("owner", "root"), "owner", where),
        _account(values.get("group", "root"), "group", where),
        _mode(values.get("mode", 0o440), where),
    )


def _path(value: object, where: str) -> str:
    if isinstance(value, str) and _is_plain(value):
        return value
    raise _wrong(
        where,
        "its path is not a plain absolute path",
        "begin it with a slash (on Windows, too, without C:), and give it without .., without "
        "empty steps and without control characters",
    )


def _is_plain(path: str) -> bool:
    if _UNUSABLE.search(path) or not path.startswith("/") or path.startswith("//") or path == "/":
        return False
    steps = [len(step.encode()) for step in path.split("/")]
    return (
        posixpath.normpath(path) == path
        and len(path.encode()) <= _LONGEST_PATH
        and max(steps) <= _LONGEST_STEP
    )


def _content(value: object, where: str) -> bytes:
    try:
        if not isinstance(value, str):
            raise TypeError
        return base64.b64decode("".join(value.split()), validate=True)
    except (TypeError, ValueError):
        raise _wrong(where, "its contents are not base64", 'encode them with "base64"') from None


def _account(value: object, what: str, where: str) -> str:
    if not (isinstance(value, str) and _ACCOUNT.fullmatch(value)):
        raise _wrong(where, f"its {what} is not a name", f"give the name of the {what}")
    return value


def _mode(value: object, where: str) -> int:
    # A bool is an int to Python, but not to whoever wrote "true".
    if type(value) is not int or not 0 <= value <= _LARGEST_MODE:
        raise _wrong(
            where,
            "its mode is not a number of permission bits",
            f"give a whole number from 0 to {_LARGEST_MODE}: 420 is what chmod calls 644",
        )
    return value


def _check_together(files: Sequence[PersonalFile]) -> None:
    paths: set[str] = set()
    for number, file in enumerate(files, 1):
        if file.path in paths:
            raise _wrong(f"file {number} ({file.path})", "its path is given twice", "give it once")
        paths.add(file.path)
    for number, file in enumerate(files, 1):
        parent = posixpath.dirname(file.path)
        while parent != "/":
            if parent in paths:
                raise _wrong(
                    f"file {number} ({file.path})",
                    f"it lies below {parent}, which is a file as well",
                    "give one of them another path",
                )
            parent = posixpath.dirname(parent)
    total = sum(len(file.content) for file in files)
    if total > TOTAL_LIMIT:
        raise InvalidValueError(
            f"parameter {NAME}: its files have {total} bytes, more than {TOTAL_LIMIT}",
            remedy="have the guest fetch what is large",
        )


def _wrong(where: str, what: str, remedy: str) -> InvalidValueError:
    return InvalidValueError(f"parameter {NAME}: {where}: {what}", remedy=remedy)
