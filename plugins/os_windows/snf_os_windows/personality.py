"""EnforcePersonality: the tenant's own files, as the last that is written."""

from __future__ import annotations

import posixpath
import re
import time
from typing import TYPE_CHECKING

from snf_core.contract import Stage, Task
from snf_core.errors import GuestError, InvalidValueError
from snf_core.image.customization import File, PersonalFile
from snf_os_windows import cloudbase, first_boot, inspection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

_FORBIDDEN = re.compile(r'[<>:"\\|?*\0-\x1f]|[. ]$')
"""What no name can hold, and what none can end with ("Naming Files, Paths, and Namespaces" in
Microsoft's documentation of Win32)."""
_DEVICES = re.compile(
    r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³]) *(\..*)?", re.IGNORECASE
)
"""Names of devices, whatever follows behind a dot, in any directory."""
_METADATA = frozenset(
    f"${name}"
    for name in (
        *("MFT", "MFTMIRR", "LOGFILE", "VOLUME", "ATTRDEF", "BITMAP", "BOOT"),
        *("BADCLUS", "SECURE", "UPCASE", "EXTEND"),
    )
)
"""What NTFS keeps of itself in the root of a volume, in upper case."""
_LONGEST_NAME = 255
"""UTF-16 units."""
_BACKUPS = 100
"""Names that are tried for a copy: as many deployments within one second are not one tenant's."""


class EnforcePersonality(Task):
    """Put the tenant's files into the guest, below ``C:``; what lies there is kept as a backup."""

    api_version = "1.0"
    # Behind all that belongs to the stage before, so that nothing comes after it.
    stage = Stage.UNMOUNT
    before = ("UmountImage",)
    parameters = ("img_personality",)

    def check_request(self, request: Customization) -> None:
        """Raises InvalidValueError for names that Windows cannot have."""
        check(request.personality)

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Write them: ``owner``, ``group`` and ``mode`` mean nothing here.

        Raises GuestError where a path leads through what is no directory.
        """
        files = request.personality
        if not files:
            return
        default = PersonalFile("/", b"")
        if any(
            (file.owner, file.group, file.mode) != (default.owner, default.group, default.mode)
            for file in files
        ):
            yield "owner, group and mode of personality files mean nothing to Windows"
        if first_boot.installed(guest):
            own = made(guest, [file.path for file in files])
            first_boot.reset_permissions(guest, inspection.facts(guest), own)
        elif not cloudbase.seeded(guest, request):  # InitializeDatasource saw to it, or has said so
            yield (
                "everybody in the guest may change the personality files: their permissions are "
                "set at the first boot, of which nothing of ours is part here"
            )
        _write(guest, files)


def check(files: Iterable[PersonalFile]) -> None:
    """Raise InvalidValueError for what cannot be a file of Windows, or is the same file twice."""
    seen: dict[str, str] = {}
    for file in files:
        for name in file.path.split("/")[1:]:
            if _FORBIDDEN.search(name) or _DEVICES.fullmatch(name) or _length(name) > _LONGEST_NAME:
                raise InvalidValueError(
                    f"personality file {file.path}: Windows has no files called {name!r}",
                    remedy='give names without < > : " \\ | ? *, that do not end with a dot or '
                    "blank, and that are not devices (CON, NUL, COM1)",
                )
        if file.path.split("/")[1].upper() in _METADATA:
            raise InvalidValueError(
                f"personality file {file.path}: NTFS keeps itself there", remedy="give another path"
            )
        other = seen.setdefault(file.path.upper(), file.path)
        if other != file.path:
            raise InvalidValueError(
                f"personality files {other} and {file.path} are one file to Windows",
                remedy="give it once",
            )


def _length(name: str) -> int:
    return len(name.encode("utf-16-le")) // 2


def made(guest: Guest, files: Sequence[str]) -> tuple[str, ...]:
    """What is made where files are written that have these paths: the directories that are missing,
    outermost first, and the files.
    """
    steps = [step for path in files for step in _parents(path)]
    present = guest.statuses(steps)
    return tuple(dict.fromkeys([*(step for step in steps if step not in present), *files]))


def _write(guest: Guest, files: Sequence[PersonalFile]) -> None:
    steps = {step for file in files for step in _parents(file.path)}
    links = guest.link_targets(steps)
    for file in files:
        for step in _parents(file.path):
            if step in links:
                raise GuestError(
                    f"personality file {file.path}: {step} in the guest is a junction or link, and "
                    "nothing is written through those",
                    remedy="give the path without them",
                )
            guest.make_directory(step)
        if guest.is_file(file.path):
            _back_up(guest, file.path)
    guest.write_files(
        # As the facade encodes it again.
        File(file.path, file.content.decode(errors="surrogateescape"))
        for file in files
    )


def _parents(path: str) -> Iterator[str]:
    """The directories that lead to a path, without the root, outermost first."""
    parent = posixpath.dirname(path)
    if parent != "/":
        yield from _parents(parent)
        yield parent


def _back_up(guest: Guest, path: str) -> None:
    """Rename a file to NAME.bak.YYYYmmdd.HHMMSS (UTC), and a number behind it where that is taken.

    It keeps its permissions.
    """
    first = f"{path}.bak.{time.strftime('%Y%m%d.%H%M%S', time.gmtime())}"
    names = [first, *(f"{first}.{number}" for number in range(1, _BACKUPS))]
    taken = guest.statuses(names)
    free = next((name for name in names if name not in taken), first)
    guest.rename(path, posixpath.basename(free))
