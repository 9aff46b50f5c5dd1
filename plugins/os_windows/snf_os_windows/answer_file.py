"""InstallUnattend for Windows since Vista: the answer file that the first boot reads.

Windows looks for one in the places of SEARCHED, in that order, unless its registry names one
(Microsoft's "Windows Setup Automation Overview", implicit answer file search order). The one that
counts is put where Windows looks first and, for those who look for it there, in the root of the
volume; what lies in the other places goes. It holds secrets, so nothing is kept of it: the image
still has it. The first boot removes both copies.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from weakref import WeakSet

from snf_core.errors import TaskError
from snf_core.image.customization import File
from snf_core.image.registry import Value
from snf_os_windows import answer_source, cloudbase, first_boot, inspection, paths, template
from snf_os_windows.answer_source import KEEP_REMEDY, InstallAnswerFile
from snf_os_windows.timezones import DEFAULT
from snf_os_windows.unattend import AnswerFile, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest
    from snf_os_windows.inspection import Facts

NAME = "unattend.xml"
INSTALLED = f"{paths.PANTHER}/Unattend/{NAME}"
"""Where Windows looks first."""

EXPECTED = f"/{NAME}"
"""Where people look, and the scripts of images."""

COPIES = (INSTALLED, EXPECTED)

CACHED = (f"{paths.PANTHER}/{NAME}", f"{paths.PANTHER}/autounattend.xml")
"""Where Windows keeps a copy of what it read, until it is told of another."""

SEARCHED = (
    INSTALLED,
    f"{paths.PANTHER}/Unattend/autounattend.xml",
    *CACHED,
    f"{paths.SYSPREP}/{NAME}",
    EXPECTED,
    "/autounattend.xml",
)

_POINTER = ("Setup", "UnattendFile")
"""Key and value of the SYSTEM hive that name an answer file anywhere."""

_installed: WeakSet[Guest] = WeakSet()
"""Guests that have been given one: what was known of theirs holds no more."""


class InstallUnattend(InstallAnswerFile):
    """Give the first boot its answers, and have it call what other tasks leave for it."""

    api_version = "1.0"
    options = answer_source.options(legacy=False)

    def __init__(self, conf: Any) -> None:
        """Import what reads XML now: where tasks run, there may be no right to read it."""
        load()
        super().__init__(conf)

    def check(self, content: bytes, what: str) -> None:
        """Raise InvalidValueError for what is not an answer file."""
        AnswerFile.parse(content, what)

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Write it. Raises GuestError for an image that was not generalised, InvalidValueError for
        an answer file that Windows would not take.
        """
        if cloudbase.seeded(guest, request):
            return
        facts = inspection.facts(guest)
        inspection.check_generalised(facts)
        own = None if self.ignores(request) else find(guest)
        choice = self.choose(own, _content(guest, own) if own else b"", request)
        yield from choice.warnings
        if choice.content is not None:
            answer = AnswerFile.parse(choice.content, choice.what, remedy=choice.remedy)
        else:
            zone = self.conf.time_zone
            if facts.time_zones and zone not in facts.time_zones:
                yield f"the image does not know the time zone {zone}: it gets {DEFAULT}"
                zone = DEFAULT
            excluded = request.properties.flag("EXCLUDE_TASK_CHANGEPASSWORD")
            account = bool(request.password) and not excluded
            answer = template.built_in(facts, zone, account=account)
        architecture = facts.architecture
        if request.product_key:
            answer.set_product_key(request.product_key, architecture)
        first_boot.install(guest, facts)
        answer.run_in_specialize(
            first_boot.specialize_command(facts), "Set up this machine", architecture
        )
        _install(guest, answer, facts)


def find(guest: Guest) -> str | None:
    """Where Windows would find an answer file, if anywhere.

    A record that an earlier setup left is none, though it lies in one of the places.
    """
    if guest in _installed and guest.is_file(INSTALLED):
        return INSTALLED
    named = _named(inspection.facts(guest))
    if named and guest.is_file(named):
        return named
    for path in SEARCHED:
        if guest.is_file(path) and not (path in CACHED and _is_record(guest, path)):
            return path
    return None


def local_accounts(guest: Guest) -> tuple[str, ...]:
    """The accounts that the first boot will create, as the answer file says; none without one."""
    path = find(guest)
    if path is None:
        return ()
    answer = AnswerFile.parse(_content(guest, path), path, remedy=KEEP_REMEDY)
    return answer.local_accounts(inspection.facts(guest).architecture)


def withdraw_passwords(guest: Guest, users: Sequence[str]) -> list[str]:
    """Take out of the answer file what would give ``users`` other passwords than the first boot
    does, whoever brought the file; nothing where there is none. To be called where a password is
    set: where none is, those of the answer file are what the image, the operator or the tenant
    wants, and stay.

    With its passwords, the file may have said that nobody has to be asked for any: it says so
    still. Returns a warning for each thing that was changed: ``AnswerFile.withdraw_passwords``.
    """
    facts = inspection.facts(guest)
    warnings: list[str] = []

    def edit(answer: AnswerFile, _architecture: str) -> None:
        warnings.extend(
            answer.withdraw_passwords(users, present=facts.users, administrator=facts.rid_500)
        )
        if warnings:
            template.ask_for_no_account(answer, facts)

    if find(guest) is not None:
        update(guest, edit)
    return warnings


def close_remote_desktop(guest: Guest) -> bool:
    """Take out of the answer file what opens remote desktop; whether there was such."""
    opened = False

    def edit(answer: AnswerFile, architecture: str) -> None:
        nonlocal opened
        opened = answer.close_remote_desktop(architecture)

    if find(guest) is not None:
        update(guest, edit)
    return opened


def update(guest: Guest, edit: Callable[[AnswerFile, str], None]) -> None:
    """Change the answer file that Windows will find, and all its copies.

    ``edit`` is given it and the architecture. Raises TaskError where there is none.
    """
    path = find(guest)
    if path is None:
        raise TaskError(
            "the guest has no answer file for its first boot",
            remedy="put an unattend.xml into the image, or let InstallUnattend run",
        )
    old = _content(guest, path)
    answer = AnswerFile.parse(old, path, remedy=KEEP_REMEDY)
    edit(answer, inspection.facts(guest).architecture)
    text = answer.serialize().decode()
    if text.encode() == old:
        return
    copies = [copy for copy in COPIES if copy.lower() != path.lower() and guest.is_file(copy)]
    same = [copy for copy in copies if _content(guest, copy) == old]
    guest.write_files([File(place, text) for place in (path, *same)])


def _install(guest: Guest, answer: AnswerFile, facts: Facts) -> None:
    """Write both copies, and see to it that no other wins."""
    for path in SEARCHED:
        if path not in COPIES:
            guest.remove(path)
    guest.make_directory(f"{paths.PANTHER}/Unattend")
    text = answer.serialize().decode()
    guest.write_files([File(path, text) for path in COPIES])
    if facts.answer_file:
        with guest.registry(paths.SYSTEM_HIVE, write=True) as hive:
            hive.set(*_POINTER, Value.string(paths.windows_path(INSTALLED)))
    _installed.add(guest)


def _named(facts: Facts) -> str:
    """The answer file that the registry names; empty where it is none of the volume's."""
    path = re.sub(
        r"%(systemroot|windir)%",
        lambda _: facts.system_root,
        facts.answer_file,
        flags=re.IGNORECASE,
    )
    return cloudbase.own_path(re.sub("%systemdrive%", "C:", path, flags=re.IGNORECASE))


def _is_record(guest: Guest, path: str) -> bool:
    return AnswerFile.parse(_content(guest, path), path, remedy=KEEP_REMEDY).processed


def _content(guest: Guest, path: str) -> bytes:
    return (guest.read(path) or "").encode(errors="surrogateescape")
