"""ChangePassword: who can log on, and with what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from snf_core.contract import Task
from snf_core.errors import GuestError, InvalidValueError, UnsupportedError
from snf_os_windows import answer_file, batch, cloudbase, first_boot, inspection, sysprep
from snf_os_windows.first_boot import Fragment, Host
from snf_os_windows.powershell import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest
    from snf_os_windows.inspection import Facts

_FUNCTIONS = first_boot.read_script("accounts.ps1")
_LONGEST = 127
"""Characters that Windows lets anybody enter at its logon."""

_SHOWN = 20
"""Users of a guest in a message."""


@dataclass(frozen=True)
class Account:
    """A local account of the guest."""

    name: str
    built_in: bool
    """The built-in administrator, which the first boot finds by its SID."""


class ChangePassword(Task):
    """Set the password of the users that the image names, else of the built-in administrator."""

    api_version = "1.0"
    after = ("InstallUnattend",)
    needs = ("InstallUnattend",)

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Have the first boot set it.

        Raises GuestError where a user does not exist, UnsupportedError for a password's hash,
        InvalidValueError for a password that this Windows cannot be given.
        """
        if cloudbase.seeded(guest, request):
            return
        if request.authorized_keys:
            yield "Windows has no use for SSH keys: none are added"
        if not request.password:
            if request.password_hash:
                raise UnsupportedError(
                    "Windows takes no password hash",
                    remedy="give the password itself, or none to keep those of the image",
                )
            yield "no password was given: those of the image are kept"
            return
        facts = inspection.facts(guest)
        _check(request.password)
        created = () if facts.legacy else answer_file.local_accounts(guest)
        if not request.users:
            yield (
                "the image does not say whose password to set: taking the built-in administrator, "
                f"{facts.rid_500!r}"
            )
        users = request.users or (facts.rid_500,)
        found = [_existing(facts, created, user) for user in users]
        accounts = tuple(dict.fromkeys(found))
        if first_boot.host(facts) is Host.CMD:
            setting, enabling = _batch(accounts, request.password)
        else:
            setting, enabling = _powershell(accounts)
        names = [account.name for account in accounts]
        if not set(names) & set(facts.users):
            made = ", ".join(map(repr, names))
            yield (
                f"nobody can log on before Setup is done, which makes {made} only then; with a "
                "manufacturer's product key, that is never: name an account of the image in "
                "property USERS, too"
            )
        if facts.legacy:
            yield from sysprep.set_admin_password(guest, request.password, names)
        else:
            yield from answer_file.withdraw_passwords(guest, names)
        first_boot.add(guest, facts, Fragment("password", 30, setting, secret=request.password))
        # Once more when Setup is done: on its way, Setup disables the built-in administrator of a
        # Windows for clients.
        first_boot.add(guest, facts, Fragment("accounts", 35, enabling, again=True))


def _check(password: str) -> None:
    """Raise InvalidValueError for what nobody could enter, without repeating it."""
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in password):
        raise InvalidValueError(
            "the password holds control characters", remedy="give one that can be typed"
        )
    if len(password.encode("utf-16-le", "surrogatepass")) > 2 * _LONGEST:
        raise InvalidValueError(
            f"the password has more than {_LONGEST} characters, which Windows does not take",
            remedy="give a shorter one",
        )


def _existing(facts: Facts, created: Sequence[str], user: str) -> Account:
    """The account of a name, which Windows compares without regard to case."""
    for name in (*facts.users, *created):
        if name.lower() == user.lower():
            return Account(name, name.lower() == facts.rid_500.lower())
    known = ", ".join(repr(name) for name in sorted({*facts.users, *created})[:_SHOWN])
    raise GuestError(
        f"user {user!r} does not exist in the guest",
        remedy=f"name existing users in property USERS: {known}",
    )


def _powershell(accounts: Sequence[Account]) -> tuple[str, str]:
    """Two scripts: what sets the password, and what makes the accounts usable."""
    names = [
        f"(Get-Administrator {text(account.name)})" if account.built_in else text(account.name)
        for account in accounts
    ]
    end = "exit $state.Failed\n"
    setting = [f"Set-Password {name}" for name in names]
    enabling = [f"Enable-Account {name}" for name in names]
    return "\n".join([_FUNCTIONS, *setting, end]), "\n".join([_FUNCTIONS, *enabling, end])


def _batch(accounts: Sequence[Account], password: str) -> tuple[str, str]:
    """The same by net.exe, which is told the password on its command line: there is no other way
    here, and nobody who could read it is logged on yet.
    """
    if password == "*" or password.startswith("/"):
        # To net.exe, the one is a question, the other an option.
        raise InvalidValueError(
            'the password is "*" or begins with "/", and this Windows has no PowerShell',
            remedy="give another password",
        )
    secret = batch.argument(password, "the password")
    setting, enabling = [], []
    for number, account in enumerate(accounts, 1):
        name = batch.argument(account.name, f"the user name {account.name!r}")
        which = f"user {number} of {len(accounts)}"
        call = rf'"%SystemRoot%\System32\net.exe" user {name}'
        words = "/active:yes /expires:never"
        setting += [
            f"{call} {secret} {words} /passwordreq:yes /y >nul 2>nul",
            f"if errorlevel 1 (set CODE=1& echo the password of {which} is not set) "
            f"else echo the password of {which} is set",
        ]
        enabling += [f"{call} {words}", f"if errorlevel 1 set CODE=1& echo {which} is not enabled"]
    begin, end = batch.BEGIN + "set CODE=0\n", "\nexit /b %CODE%\n"
    return begin + "\n".join(setting) + end, begin + "\n".join(enabling) + end
