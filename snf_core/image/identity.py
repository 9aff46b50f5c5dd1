"""A user id for each deployment that no other one has.

Processes of one user may end, trace and starve each other. So each deployment's worker and QEMU
run under an id of their own, taken from the subordinate ids of the appliance's user (subuid(5),
subgid(5)): numbers that belong to that user and name nobody. Which are in use is known to the
kernel, as locks on single bytes of a file ("open file description locks" in fcntl(2)): they go
with the process that holds them, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import itertools
import os
import pwd
import re
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.errors import ApplianceError
from snf_core.run import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SUBUID = Path("/etc/subuid")
SUBGID = Path("/etc/subgid")
_LOGIN_DEFS = Path("/etc/login.defs")
COUNT = 65536
"""How many ids are reserved."""

_LOWEST = 1000
"""Ids below belong to the system's own users."""
_HIGHEST = (1 << 32) - 2
"""The next one means "none" (setresuid(2))."""


@dataclass(frozen=True)
class Identity:
    """Numbers of an unprivileged user, of its own group and of those it needs beside."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Pool:
    """The subordinate ids of a user."""

    uids: tuple[range, ...]
    gids: tuple[range, ...]

    def __len__(self) -> int:
        return min(sum(map(len, self.uids)), sum(map(len, self.gids)))

    def identity(self, index: int, groups: tuple[int, ...]) -> Identity:
        """The one of that index, with further groups."""
        return Identity(_nth(self.uids, index), _nth(self.gids, index), groups)


def pool(user: str, subuid: Path = SUBUID, subgid: Path = SUBGID) -> Pool:
    """The ids that may be taken. Raises ApplianceError for root, and where there are none."""
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise ApplianceError(
            f"the appliance's user {user!r} does not exist on this node",
            remedy='run "snf appliance build", which makes the user',
        ) from error
    _refuse_root(user, uid)
    found = Pool(_reserved(subuid, user, uid), _reserved(subgid, user, uid))
    if not found:
        raise ApplianceError(
            f"the appliance's user {user!r} has no subordinate ids in {subuid} and {subgid}",
            remedy='run "snf appliance build", which reserves them',
        )
    return found


@contextlib.contextmanager
def taken(identities: Pool, groups: Iterable[str], locks: Path) -> Iterator[Identity]:
    """An identity that nobody else has while the block runs.

    ``groups`` are the names of the groups it needs; ``locks`` is the file, the same for all
    deployments of a node, that says which are in use. Raises ApplianceError.
    """
    members = tuple(_group(name) for name in groups)
    descriptor = os.open(locks, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield identities.identity(_locked(descriptor, len(identities)), members)
    finally:
        os.close(descriptor)


def reserve(user: str) -> None:
    """Make the system user that owns the ids, and reserve them, unless it is so already.

    Raises ApplianceError for root, and CommandError.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        run(
            [
                *("useradd", "--system", "--user-group", "--add-subids-for-system"),
                *("--no-create-home", "--home-dir", "/nonexistent"),
                *("--shell", "/usr/sbin/nologin", user),
            ]
        )
        entry = pwd.getpwnam(user)
    _refuse_root(user, entry.pw_uid)
    # A user that was there before, or a node whose login.defs(5) reserves none.
    for option, file, setting in (
        ("--add-subuids", SUBUID, "SUB_UID_MIN"),
        ("--add-subgids", SUBGID, "SUB_GID_MIN"),
    ):
        if not _reserved(file, user, entry.pw_uid):
            first = first_free(_text(file), _lowest(_text(_LOGIN_DEFS), setting))
            run(["usermod", option, f"{first}-{first + COUNT - 1}", user])


def _refuse_root(user: str, uid: int) -> None:
    if uid == 0:
        raise ApplianceError(
            f"the appliance must not run as {user!r}, which is root",
            remedy="set [appliance] user to an unprivileged user",
        )


def first_free(text: str, lowest: int) -> int:
    """The first id behind all that a file in the form of subuid(5) reserves for anybody."""
    return max([lowest, *(ids.stop for _, ids in _entries(text))])


def _lowest(text: str, setting: str) -> int:
    """The number below which login.defs(5) wants no subordinate ids."""
    found = re.search(rf"^\s*{setting}\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 100000


def _reserved(file: Path, user: str, uid: int) -> tuple[range, ...]:
    """What a file reserves for a user. Raises ApplianceError where those are ids of others."""
    found = tuple(ids for owner, ids in _entries(_text(file)) if owner in {user, str(uid)})
    for ids in found:
        if ids.start < _LOWEST or ids.stop - 1 > _HIGHEST:
            raise ApplianceError(
                f"{file} gives the appliance's user {user!r} the ids {ids.start} to "
                f"{ids.stop - 1}, some of which belong to the system",
                remedy='remove that line, then run "snf appliance build"',
            )
    return found


def _entries(text: str) -> Iterator[tuple[str, range]]:
    """Owner (name or number) and ids of each line; what is no entry is passed over."""
    for owner, first, count in re.findall(r"^([^:\n]+):(\d+):(\d+)$", text, re.MULTILINE):
        if int(count):
            yield owner, range(int(first), int(first) + int(count))


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _nth(ranges: Sequence[range], index: int) -> int:
    for ids in ranges:
        if index < len(ids):
            return ids.start + index
        index -= len(ids)
    raise IndexError(index)


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise ApplianceError(
            f"group {name!r}, which the appliance needs, does not exist on this node",
            remedy="make the group, or repair the permissions of the device it is for",
        ) from error


def _locked(descriptor: int, size: int) -> int:
    """The index of a byte that nobody had locked, and that is locked now."""
    # Anywhere, so that an id is not used again at once: remains of its last user may be there.
    start = int.from_bytes(os.urandom(4), sys.byteorder) % size
    for index in itertools.chain(range(start, size), range(start)):
        request = struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, index, 1, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
        else:
            return index
    raise ApplianceError(
        f"all {size} ids of the appliance's user are in use by other deployments",
        remedy="deploy again later, or reserve more with usermod --add-subuids and --add-subgids",
    )
