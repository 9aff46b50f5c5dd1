"""EnforcePersonality: the tenant's own files, as the last that is written."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from snf_core.contract import Stage, Task
from snf_core.errors import GuestError
from snf_core.image.customization import File
from snf_os_linux import accounts
from snf_os_linux.users import PASSWD

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from snf_core.image.customization import Customization, PersonalFile
    from snf_core.image.guest import Guest

GROUP = "/etc/group"
_ROOT = "root"
_DIRECTORY_MODE = 0o750


class EnforcePersonality(Task):
    """Put the tenant's files into the guest, in the place of what may lie there."""

    api_version = "1.0"
    # Behind all that belongs to the stage before, so that nothing comes after it.
    stage = Stage.UNMOUNT
    before = ("UmountImage",)
    parameters = ("img_personality",)

    def run(self, guest: Guest, request: Customization) -> Iterable[str]:
        """Write all of them or none.

        Directories that are missing become the file's owner's. Raises GuestError where an owner
        or group does not exist in the guest, or a path leads through what is no directory.
        """
        if request.personality:
            _enforce(guest, request.personality)
        return ()


def _enforce(guest: Guest, files: Iterable[PersonalFile]) -> None:
    passwd, group = guest.read(PASSWD) or "", guest.read(GROUP) or ""
    owners = {file.path: _owner(file, passwd, group) for file in files}
    steps = {step for file in files for step in _parents(file.path)}
    links = guest.link_targets(steps)
    for file in files:
        for step in _parents(file.path):
            if step in links:
                raise GuestError(
                    f"personality file {file.path}: {step} in the guest is a symbolic link to "
                    f"{links[step]!r}, and nothing is written through links",
                    remedy="give the path without links",
                )
            guest.make_directory(step, mode=_DIRECTORY_MODE, owner=owners[file.path])
    guest.write_files(
        File(
            file.path,
            file.content.decode(errors="surrogateescape"),  # as the facade encodes it again
            file.mode,
            owners[file.path],
        )
        for file in files
    )


def _parents(path: str) -> Iterator[str]:
    """The directories that lead to a path, without the root, outermost first."""
    parent = posixpath.dirname(path)
    if parent != "/":
        yield from _parents(parent)
        yield parent


def _owner(file: PersonalFile, passwd: str, group: str) -> tuple[int, int]:
    """Uid and gid. root is 0 in every guest, whatever else its files say."""
    user = 0
    if file.owner != _ROOT:
        account = accounts.find(passwd, file.owner)
        if account is None:
            raise _missing(file, "owner", file.owner)
        user = account.uid
    if file.group == _ROOT:
        return user, 0
    found = accounts.group_id(group, file.group)
    if found is None:
        raise _missing(file, "group", file.group)
    return user, found


def _missing(file: PersonalFile, what: str, name: str) -> GuestError:
    return GuestError(
        f"personality file {file.path}: its {what} {name!r} does not exist in the guest",
        remedy=f"give the name of a{'n' if what == 'owner' else ''} {what} that exists there",
    )
