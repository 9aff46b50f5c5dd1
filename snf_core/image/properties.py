"""Image properties: names without regard to case, values as text, booleans with a grammar."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

from snf_core.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_YES = {"yes", "true", "on", "1", "set"}
_NO = {"no", "false", "off", "0", "unset", ""}

INFORMATIVE = frozenset(
    [
        "OS",
        "DESCRIPTION",
        "GUI",
        "KERNEL",
        "SORTORDER",
        "OSVERSION",
        "PARTITION_TABLE",
        "BOOTSTRAP",
        "REMOTE_CONNECTION",
        "UNSUPPORTED",
        "CLOUD_INIT_DEFAULT_USER",
    ]
)
"""Properties that image creators and user interfaces keep for themselves."""

ENGINE = {
    "OSFAMILY": "the guest's family; found out where it is missing",
    "ROOT_PARTITION": "the number of the root partition; found out where it is missing",
    "USERS": "blank-separated users whose password and keys are set",
    "PASSWD_HASHING_METHOD": "sha512, sha256, yescrypt or blowfish",
    "EXCLUDE_ALL_TASKS": "no customization at all",
    "EXCLUDE_MOUNTED_TASKS": "only tasks that need no mounted file system",
    "EXCLUDE_FILESYSTEMRESIZE_TASKS": "no growth of file systems",
}
"""Properties that the core itself reads."""

EXCLUDE_TASK = "EXCLUDE_TASK_"


class Properties:
    """The properties of one deployment, by upper-case name."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = dict(values or {})

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def get(self, name: str, default: str = "") -> str:
        """The value of a property, blanks around it removed."""
        return self._values.get(name, default).strip()

    def flag(self, name: str) -> bool:
        """A boolean property; not set is no. Raises InvalidValueError for any other word."""
        value = self.get(name).lower()
        if value in _YES:
            return True
        if value in _NO:
            return False
        raise InvalidValueError(
            f"property {name}: {value!r} is not a boolean", remedy="expected yes or no"
        )


def parse(text: str, parameter: str) -> dict[str, str]:
    """Properties from a JSON object. ``parameter`` is where it came from, for messages.

    Raises InvalidValueError for anything else, for names that are no identifiers, for nested
    values, and for one name given twice, in whatever spelling.
    """
    if not text.strip():
        return {}
    try:
        document = json.loads(text, strict=False, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidValueError(
            f"parameter {parameter} is not valid JSON{where}", remedy="give a JSON object"
        ) from None
    if not isinstance(document, _Pairs):
        raise InvalidValueError(
            f"parameter {parameter} is not a JSON object", remedy='give {"NAME": "value", ...}'
        )
    found: dict[str, str] = {}
    for key, value in document:
        name = key.upper()
        if not _NAME.fullmatch(key):
            raise InvalidValueError(
                f"parameter {parameter}: {key!r} is not a property name",
                remedy="use letters, digits and underscores",
            )
        if name in found:
            raise InvalidValueError(
                f"parameter {parameter}: property {name} is given twice",
                remedy="give it once: names are without regard to case",
            )
        found[name] = _text(value, name, parameter)
    return found


class _Pairs(list[tuple[str, object]]):
    """A JSON object as it was written: a dictionary would hide that a name was given twice."""


def _text(value: object, name: str, parameter: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if not isinstance(value, str):
        raise InvalidValueError(
            f"parameter {parameter}: property {name} is neither text nor a number nor a boolean",
            remedy="give a string",
        )
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidValueError(
            f"parameter {parameter}: property {name} holds characters that no text can hold"
        )
    return value
