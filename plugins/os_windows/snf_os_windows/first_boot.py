"""The first boot: a directory of fragments in the guest, and the runner that runs them in order.

Windows Setup calls the runner twice: in its specialize pass, before anybody can log on, and when
it is done, from SetupComplete.cmd. A fragment that succeeds is removed at once, but those that
say ``again``; one that fails is left for the second time. What comes after a secret one
that failed is not run: remote desktop stays closed where a password could not be set. At the end
everything of ours is removed, and so are the copies of the answer file.

Windows PowerShell writes scripts to the event log, and they stay there: since 5.0 those that look
suspicious to it, and with a policy all of them (event 4104) and the parameters of cmdlets (4103).
So a secret is in a file of its own, beside the fragment that reads it.

Setup stops for good where a command fails that it runs, so the runner never fails; it logs to
``C:\\Windows\\Panther\\snf-first-boot.log``.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING

from snf_core.errors import InvalidValueError
from snf_os_windows import batch, paths, powershell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snf_core.image.guest import Guest
    from snf_os_windows.inspection import Facts


_NAME = re.compile(r"[a-z]+(-[a-z]+)*")
_OURS = re.compile(r"[0-9][0-9]-.*|run\.(cmd|ps1)|(output|errors|diskpart)\.txt", re.IGNORECASE)
"""Names of files that an earlier deployment may have left."""
_BLOCK = 4096
"""Bytes: NTFS keeps a short file in its table, where overwriting it would leave a copy in the
journal, and the length of a file with a secret would tell that of the secret."""
_READ = """\
$secret = {content}
if (-not $secret) {{ 'its secret cannot be read'; exit 1 }}
"""


def read_script(name: str) -> str:
    """A script that comes with this package. To be called when a module is imported: where tasks
    run, there may be no right to read it.
    """
    return resources.files("snf_os_windows").joinpath("scripts", name).read_text("ascii")


_RUN_CMD, _RUN_SHELL, _RUN_PS1 = map(read_script, ("run.cmd", "run-powershell.cmd", "run.ps1"))


class Host(enum.Enum):
    """What runs the fragments of a guest: the value is their files' suffix."""

    POWERSHELL = "ps1"
    """Windows PowerShell 2.0 or later: since Windows 7 and Server 2008 R2."""
    CMD = "cmd"


@dataclass(frozen=True)
class Fragment:
    """A script for the first boot, as the guest's ``host`` understands it.

    It is run in a process of its own, as SYSTEM, with what it prints in the log, and must do no
    harm where it runs twice: a guest may be reset in the middle of it. Exit status 0 is success.
    """

    name: str
    """Lower-case letters and hyphens."""
    order: int
    """0 to 99: permissions 5, growth 10, network 20, passwords 30, accounts 35, RDP 40."""
    script: str = field(repr=False)
    """Printable ASCII, tabs and newlines: ``powershell`` and ``batch`` say how texts get in."""
    secret: str = field(default="", repr=False)
    """A text that ``script`` needs and nobody may learn. One for PowerShell finds it in
    ``$secret``, has no ``param`` block, and hands it to methods alone: the parameters of functions,
    cmdlets and programs may be logged. One for cmd.exe holds it, as there is no other place.

    A fragment with one is overwritten and deleted as soon as it succeeded, and at the end in any
    case, and so is the secret. Only what it prints on its standard output is logged."""
    again: bool = False
    """Run the second time, too, though it succeeded."""


def host(facts: Facts) -> Host:
    """What runs fragments in a guest."""
    if facts.powershell and facts.version >= (6, 1):
        return Host.POWERSHELL
    return Host.CMD


def install(guest: Guest, facts: Facts) -> None:
    """Put the runner into a guest, before any ``add``, and have Setup call it when it is done.

    What an earlier deployment left there is removed. The caller has Setup run
    ``specialize_command`` (legacy: ``legacy_commands``). Raises GuestError.
    """
    guest.make_directory(paths.SCRIPTS)
    for name in guest.list(paths.SCRIPTS):
        if _OURS.fullmatch(name):
            guest.remove(f"{paths.SCRIPTS}/{name}")
    if host(facts) is Host.POWERSHELL:
        guest.write(f"{paths.SCRIPTS}/run.ps1", _lines(_RUN_PS1))
        guest.write(f"{paths.SCRIPTS}/run.cmd", _lines(_RUN_SHELL))
    else:
        guest.write(f"{paths.SCRIPTS}/run.cmd", _lines(_RUN_CMD))
    if not facts.legacy:
        _complete(guest)


def installed(guest: Guest) -> bool:
    """Whether the runner is there and has not finished yet."""
    return guest.is_file(f"{paths.SCRIPTS}/run.cmd")


def add(guest: Guest, facts: Facts, fragment: Fragment) -> None:
    """Add a fragment, in place of one of the same name.

    Raises InvalidValueError for one that cannot be run, or a secret that is not Unicode,
    GuestError.
    """
    if not _NAME.fullmatch(fragment.name) or not 0 <= fragment.order <= 99:
        raise InvalidValueError(
            f"{fragment.order}, {fragment.name!r} are not a fragment's order and name",
            remedy="expected 0 to 99, and lower-case letters and hyphens",
        )
    same = re.compile(rf"[0-9]{{2}}-{fragment.name}\..*")
    for name in guest.list(paths.SCRIPTS):
        if same.fullmatch(name):
            guest.remove(f"{paths.SCRIPTS}/{name}")
    kind = host(facts)
    script = _lines(fragment.script)
    marks = (".secret" if fragment.secret else "") + (".again" if fragment.again else "")
    stem = f"{fragment.order:02}-{fragment.name}{marks}"
    if fragment.secret and kind is Host.POWERSHELL:
        reading = _READ.format(content=powershell.content(f"SnfScripts\\{stem}.txt"))
        script = _lines(reading) + script
        data = powershell.encoded(fragment.secret)
        guest.write(f"{paths.SCRIPTS}/{stem}.txt", data + " " * (-len(data) % _BLOCK))
    elif fragment.secret:
        script += _padding(len(script))
    guest.write(f"{paths.SCRIPTS}/{stem}.{kind.value}", script)


def specialize_command(facts: Facts) -> str:
    """The command line that runs the fragments for the first time, for the specialize pass."""
    return f"cmd.exe /d /c {facts.system_root}\\SnfScripts\\run.cmd specialize"


def legacy_commands(facts: Facts) -> tuple[str, str]:
    """The command lines for CmdLines.txt, where there is neither pass: first time, second time.

    Without the quotes that the file puts around each of them.
    """
    first = specialize_command(facts)
    return first, first.replace(" specialize", " finish")


def reset_permissions(guest: Guest, facts: Facts, made: Sequence[str]) -> None:
    """Have the first boot give files and directories made here the permissions that those above
    them hand down: what the appliance makes, everybody may write.

    ``made`` are absolute, as the facade spells paths, and all of them: a second call replaces the
    first. Of the first boot's own files this is seen to. Raises InvalidValueError.
    """
    spelled = [paths.windows_path(path) for path in made]
    tool = "System32\\icacls.exe"
    if host(facts) is Host.POWERSHELL:
        script = (
            f"$paths = {powershell.texts(spelled)}\n"
            f"foreach ($path in $paths) {{ & (Join-Path $env:SystemRoot '{tool}') "
            "$path /reset /c /q }\n"
        )
    else:
        # XP has no icacls; it does not understand these permissions without it.
        script = batch.BEGIN + f'if not exist "%SystemRoot%\\{tool}" exit /b 0\n'
        for path in spelled:
            word = batch.argument(path, f"the path {path}")
            script += f'"%SystemRoot%\\{tool}" {word} /reset /c /q\n'
    add(guest, facts, Fragment("permissions", 5, script))


def _complete(guest: Guest) -> None:
    """Have SetupComplete.cmd call the runner before whatever the image has it do.

    The line stays where the image has such a file, and does nothing once the runner is gone:
    cmd.exe goes on in a file at the place at which it was, so nothing can be taken out of one
    that it is reading.
    """
    runner = r"%SystemRoot%\SnfScripts\run.cmd"
    line = f'@if exist "{runner}" call "{runner}" finish\r\n'
    present = guest.read(paths.SETUP_COMPLETE) or ""
    if not present.startswith(line):
        guest.make_directory(paths.SETUP_SCRIPTS)
        guest.write(paths.SETUP_COMPLETE, line + present)


def _lines(script: str) -> str:
    """A script as Windows has its lines end. Raises InvalidValueError for what is not ASCII."""
    if not script.isascii() or not script.replace("\n", "").replace("\t", "").isprintable():
        raise InvalidValueError(
            "a script for the first boot holds other than printable ASCII characters",
            remedy="see snf_os_windows.powershell and snf_os_windows.batch",
        )
    return script.replace("\n", "\r\n")


def _padding(length: int) -> str:
    """Comments that make a script of ``length`` for cmd.exe fill the last of its blocks."""
    comment = "rem "
    missing = -length % _BLOCK
    if missing and missing < len(comment) + 2:
        missing += _BLOCK
    text = ""
    while missing:
        # What is left must be enough for a line, too.
        size = missing if missing <= 128 else 64
        text += comment.ljust(size - 2, "-") + "\r\n"
        missing -= size
    return text
