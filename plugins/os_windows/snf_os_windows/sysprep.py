"""sysprep.inf, the answer file of XP and Server 2003, and InstallUnattend for them."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from snf_core.errors import GuestError, InvalidValueError, TaskError
from snf_os_windows import answer_source, cloudbase, first_boot, inspection, paths, timezones
from snf_os_windows.answer_source import KEEP_REMEDY, InstallAnswerFile
from snf_os_windows.inf import Inf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

PATH = f"{paths.LEGACY_SYSPREP}/sysprep.inf"
"""Where the mini-setup reads it; Windows removes the directory when it is done."""

_INSTALL_FILES = "C:\\sysprep\\i386"
_COMMANDS = "Commands"
_GUI = "GuiUnattended"
_WORD = re.compile(r"[A-Za-z0-9 _.()~$-]+")


class InstallUnattend(InstallAnswerFile):
    """Give the mini-setup its answers, and have it call what other tasks leave for it."""

    api_version = "1.0"
    options = answer_source.options(legacy=True)

    def check(self, content: bytes, what: str) -> None:
        """Raise InvalidValueError for what is not an answer file of this kind."""
        _parsed(content, what)

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Write it. Raises GuestError for an image that was not prepared with ``sysprep -mini``,
        InvalidValueError for an answer file that cannot be used.
        """
        if cloudbase.seeded(guest, request):
            return
        facts = inspection.facts(guest)
        inspection.check_generalised(facts)
        own = PATH if guest.is_file(PATH) and not self.ignores(request) else None
        choice = self.choose(own, _content(guest, PATH) if own else b"", request)
        yield from choice.warnings
        if choice.content is not None:
            answer = _parsed(choice.content, choice.what, remedy=choice.remedy)
        else:
            answer = built_in(self.conf.time_zone)
        if request.product_key:
            answer.set("UserData", "ProductKey", request.product_key)
        directory = _install_files(answer)
        first_boot.install(guest, facts)
        _add_commands(guest, f"{directory}/$OEM$", first_boot.legacy_commands(facts))
        guest.make_directory(paths.LEGACY_SYSPREP)
        _write(guest, PATH, answer)


def built_in(time_zone: str) -> Inf:
    """The built-in file: it answers all that the mini-setup asks, but for the product key."""
    answer = Inf.parse(b"")
    for section, key, value in (
        ("Unattended", "OemSkipEula", "Yes"),
        ("Unattended", "InstallFilesPath", _INSTALL_FILES),
        (_GUI, "OEMSkipRegional", "1"),
        (_GUI, "OemSkipWelcome", "1"),
        (_GUI, "TimeZone", timezones.index(time_zone)),
        ("UserData", "FullName", '"User"'),
        ("UserData", "OrgName", '"Organization"'),
        ("UserData", "ComputerName", "*"),
        ("Identification", "JoinWorkgroup", "WORKGROUP"),
        ("Networking", "InstallDefaultComponents", "Yes"),
    ):
        answer.set(section, key, value)
    return answer


def update(guest: Guest, settings: Iterable[tuple[str, str, str]]) -> None:
    """State settings (section, key, value) in the guest's file. Raises TaskError if it has none."""
    answer = _present(guest)
    for section, key, value in settings:
        answer.set(section, key, value)
    _write(guest, PATH, answer)


def set_admin_password(guest: Guest, password: str, users: Sequence[str]) -> list[str]:
    """See to it that the built-in administrator's password in the file does no harm to that which
    the first boot sets for ``users``. To be called where a password is set: else the file's stay.

    Where the file states none, the given one is stated, for without one the mini-setup asks; the
    file goes when it is done. One that is stated stays: the mini-setup sets it before it runs
    CmdLines.txt, which is the last that it does, so the first boot's is the one that lasts; and it
    does not set it at all where the image has given the account one already ("GuiUnattended
    (Sysprep)" of Microsoft's "Windows Server 2003 Deployment Guide").

    AutoLogon, which is always that account's, would keep the given password in the registry in
    clear text, or try the old one in vain: it is switched off.

    Returns warnings. Raises InvalidValueError for a password that cannot be stated, TaskError.
    """
    answer = _present(guest)
    stated = bool(answer.get(_GUI, "AdminPassword"))
    if not stated:
        _check_sayable(password)
        answer.set(_GUI, "AdminPassword", f'"{password}"')
        answer.set(_GUI, "EncryptedAdminPassword", "No")
    administrator = inspection.facts(guest).rid_500.lower()
    set_by_us = not stated or administrator in [user.lower() for user in users]
    logs_on = (answer.get(_GUI, "AutoLogon") or "no").lower() != "no"
    warnings = []
    if set_by_us and logs_on:
        answer.set(_GUI, "AutoLogon", "No")
        warnings.append(
            "AutoLogon of sysprep.inf is switched off: the administrator's password is another now"
        )
    if warnings or not stated:
        _write(guest, PATH, answer)
    return warnings


def _check_sayable(password: str) -> None:
    """Raise InvalidValueError for a password that the file cannot state, without repeating it."""
    if '"' in password or not password.isprintable() or not password.isascii():
        raise InvalidValueError(
            "parameter img_passwd: Windows XP and Server 2003 cannot be given this password",
            remedy='use printable ASCII characters without "',
        )


def _present(guest: Guest) -> Inf:
    if not guest.is_file(PATH):
        raise TaskError(
            f"the guest has no {PATH} for its first boot",
            remedy="put one into the image, or let InstallUnattend run",
        )
    return _parsed(_content(guest, PATH), PATH, remedy=KEEP_REMEDY)


def _parsed(content: bytes, what: str, *, remedy: str = "") -> Inf:
    answer = Inf.parse(content, what, remedy=remedy)
    if not answer.sections():
        raise InvalidValueError(
            f"{what} has no section, as a sysprep.inf has",
            remedy=remedy or "give a sysprep.inf: unattend.xml is for Windows since Vista",
        )
    return answer


def _install_files(answer: Inf) -> str:
    """The directory that the file names for files of the setup, stated where it names none.

    Raises InvalidValueError where it is not in ``C:\\sysprep``: nothing is written elsewhere.
    """
    stated = (answer.get("Unattended", "InstallFilesPath") or "").rstrip("\\")
    if not stated:
        answer.set("Unattended", "InstallFilesPath", _INSTALL_FILES)
        stated = _INSTALL_FILES
    drive, *words = stated.split("\\")
    inside = [word.lower() for word in words[:1]] == [paths.LEGACY_SYSPREP.strip("/")]
    proper = all(_WORD.fullmatch(word) and word.strip(". ") for word in words)
    if drive.lower() != "c:" or not inside or not proper or len(words) < 2:
        raise InvalidValueError(
            f"InstallFilesPath {stated!r} of sysprep.inf is not below C:\\sysprep",
            remedy=f"state {_INSTALL_FILES}",
        )
    return "/" + "/".join(words)


def _add_commands(guest: Guest, directory: str, commands: Iterable[str]) -> None:
    """Have the mini-setup run command lines, after those that the image has it run."""
    path = posixpath.join(directory, "CmdLines.txt")
    listed = Inf.parse(_content(guest, path), path, remedy="repair the image")
    for command in commands:
        listed.add_line(_COMMANDS, f'"{command}"')
    guest.make_directory(directory)
    _write(guest, path, listed)


def _content(guest: Guest, path: str) -> bytes:
    if guest.status(path) is not None and not guest.is_file(path):
        raise GuestError(f"{path} in the guest is not a file", remedy="repair the image")
    return (guest.read(path) or "").encode(errors="surrogateescape")


def _write(guest: Guest, path: str, answer: Inf) -> None:
    guest.write(path, answer.serialize().decode(errors="surrogateescape"))
