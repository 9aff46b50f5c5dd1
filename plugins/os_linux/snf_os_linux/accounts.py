"""passwd(5) and shadow(5) of a guest. Names are compared as they are, never as patterns."""

from __future__ import annotations

from dataclasses import dataclass

from snf_core.errors import GuestError

_FIELDS = 7
_GROUP_FIELDS = 4
_LARGEST_ID = (1 << 32) - 2


@dataclass(frozen=True)
class Account:
    """A user of the guest."""

    name: str
    uid: int
    gid: int
    home: str
    """Absolute and without ``..``."""
    shadowed: bool
    """Whether the password is looked up in shadow(5)."""


def find(passwd: str, name: str) -> Account | None:
    """The account of a name, as getpwnam(3) finds it: the first line counts.

    Raises GuestError where its line makes no sense, or its home is not a plain absolute path.
    """
    for line in passwd.split("\n"):
        fields = line.split(":")
        if fields[0] == name and name and len(fields) == _FIELDS:
            return _account(fields)
    return None


def group_id(group: str, name: str) -> int | None:
    """The number of a group, as getgrnam(3) finds it in group(5): the first line counts.

    Raises GuestError where its line makes no sense.
    """
    for line in group.split("\n"):
        fields = line.split(":")
        if fields[0] == name and name and len(fields) == _GROUP_FIELDS:
            found = _number(fields[2])
            if found is None:
                raise GuestError(
                    f"group {name!r} has no numeric id in the guest's /etc/group",
                    remedy="repair the image",
                )
            return found
    return None


def with_password(shadow: str, name: str, password_hash: str, day: int) -> str:
    """The shadow file with a user's password set on ``day`` (days since 1970-01-01).

    The account's expiry is cleared and its aging policy kept; all other lines stay as they are.
    """
    lines = shadow.split("\n")
    for index, line in enumerate(lines):
        fields = line.split(":")
        if fields[0] == name:
            fields = (fields + [""] * 9)[: max(9, len(fields))]
            fields[1], fields[2], fields[7] = password_hash, str(day), ""
            lines[index] = ":".join(fields)
            return "\n".join(lines)
    ending = "" if not shadow or shadow.endswith("\n") else "\n"
    return f"{shadow}{ending}{name}:{password_hash}:{day}:0:99999:7:::\n"


def with_shadow(passwd: str, name: str) -> str:
    """The passwd file with a user's password looked up in shadow(5): an ``x`` in its place."""
    lines = passwd.split("\n")
    for index, line in enumerate(lines):
        fields = line.split(":")
        if fields[0] == name and len(fields) == _FIELDS:
            lines[index] = ":".join([name, "x", *fields[2:]])
            break
    return "\n".join(lines)


def _account(fields: list[str]) -> Account:
    name, password, uid, gid, _, home, _ = fields
    numbers = _number(uid), _number(gid)
    if numbers[0] is None or numbers[1] is None:
        raise GuestError(
            f"user {name!r} has no numeric user and group id in the guest's /etc/passwd",
            remedy="repair the image",
        )
    if not home.startswith("/") or ".." in home.split("/") or "\0" in home:
        raise GuestError(
            f"the home directory of user {name!r} in the guest is {home!r}, not a plain absolute "
            "path",
            remedy="repair the image's /etc/passwd",
        )
    return Account(name, numbers[0], numbers[1], home, shadowed=password == "x")


def _number(text: str) -> int | None:
    """A user's or group's id, or None."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    return int(text) if int(text) <= _LARGEST_ID else None
