"""AssignHostname: the computer's name, which the first boot gives it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from snf_core.contract import Task
from snf_core.errors import InvalidValueError
from snf_os_windows import answer_file, cloudbase, inspection, sysprep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest
    from snf_os_windows.unattend import AnswerFile

LONGEST = 15
"""Characters of a computer's name: NetBIOS keeps the sixteenth for itself."""

_ALLOWED = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?")


class AssignHostname(Task):
    """Write the instance's name, up to its first dot, into the answer file."""

    api_version = "1.0"
    after = ("InstallUnattend",)

    def check_request(self, request: Customization) -> None:
        """Raises InvalidValueError for a name that Windows does not allow."""
        if not request.update:
            computer_name(request.hostname)

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Write. Raises InvalidValueError for a name that Windows does not allow."""
        if request.update:
            # Windows keeps its name in many places, and what is signed in to a domain in more.
            yield (
                f"Windows keeps the computer's name that it has: change it to "
                f"{request.hostname.partition('.')[0]} inside (Rename-Computer in PowerShell)"
            )
            return
        if cloudbase.seeded(guest, request):
            return
        name = computer_name(request.hostname)
        if "_" in name:
            yield f"computer name {name}: an underscore is allowed by Windows, not by all of DNS"

        def edit(answer: AnswerFile, architecture: str) -> None:
            answer.set_computer_name(name, architecture)

        if inspection.facts(guest).legacy:
            sysprep.update(guest, [("UserData", "ComputerName", name)])
        else:
            answer_file.update(guest, edit)


def computer_name(hostname: str) -> str:
    """The computer's name for an instance: its first label.

    The rules are those of Microsoft's "Naming conventions in Active Directory for computers,
    domains, sites, and OUs" and of ComputerName in its "Unattended Windows Setup Reference", for
    ASCII. Raises InvalidValueError.
    """
    name = hostname.partition(".")[0]
    if len(name) > LONGEST:
        problem = f"it has {len(name)} characters"
    elif not _ALLOWED.fullmatch(name):
        problem = "it has characters that are not allowed there"
    elif name.isdigit():
        problem = "it has digits only"
    else:
        return name
    raise InvalidValueError(
        f"{name!r} cannot be the name of a Windows computer: {problem}. Such a name has 1 to "
        f"{LONGEST} characters: letters A to Z, digits, and, but at its ends, hyphens and "
        "underscores; not only digits",
        remedy="give the instance another name, or set the property EXCLUDE_TASK_ASSIGNHOSTNAME "
        "to yes for Windows to make up one",
    )
