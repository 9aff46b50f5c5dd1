"""ChangePassword: who can log in, and with what."""

from __future__ import annotations

import posixpath
import time
from typing import TYPE_CHECKING

from snf_core.contract import Task
from snf_core.errors import GuestError, InvalidValueError, TaskError
from snf_os_linux import accounts, sshd_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest
    from snf_os_linux.accounts import Account

PASSWD = "/etc/passwd"
SHADOW = "/etc/shadow"
_SECONDS_OF_A_DAY = 86400


class ChangePassword(Task):
    """Set the password and the SSH keys of the users that the image names."""

    api_version = "1.0"
    parameters = ("auth_keys",)

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Set them. Raises GuestError where a user does not exist or a file makes no sense."""
        if not request.password_hash and not request.authorized_keys:
            yield "neither a password nor a key was given: nobody's is set"
            return
        users = tuple(dict.fromkeys(request.users))
        if not users:
            users = ("root",)
            yield "the image does not say whose password and keys to set: taking root"
        passwd = guest.read(PASSWD) or ""
        found = [_existing(passwd, user) for user in users]
        if request.password_hash:
            _set_passwords(guest, passwd, found, request.password_hash)
        if request.authorized_keys:
            yield from _add_keys(guest, found, request.authorized_keys)


def _existing(passwd: str, user: str) -> Account:
    account = accounts.find(passwd, user)
    if account is None:
        raise GuestError(
            f"user {user!r} does not exist in the guest",
            remedy="name existing users in property USERS",
        )
    return account


def _set_passwords(guest: Guest, passwd: str, users: Sequence[Account], password_hash: str) -> None:
    if set(":\n\r\0").intersection(password_hash):
        raise InvalidValueError("the password hash is not one line in crypt(5) form")
    shadow = guest.read(SHADOW)
    if shadow is None:
        raise TaskError(
            f"the guest has no {SHADOW}",
            remedy="use an image with shadow passwords, or give SSH keys only",
        )
    day = int(time.time()) // _SECONDS_OF_A_DAY
    for user in users:
        shadow = accounts.with_password(shadow, user.name, password_hash, day)
    guest.write(SHADOW, shadow)
    shown = [user for user in users if not user.shadowed]
    if shown:
        # passwd(5): what stands there goes before shadow(5), and an empty field needs no password
        for user in shown:
            passwd = accounts.with_shadow(passwd, user.name)
        guest.write(PASSWD, passwd)


def _add_keys(guest: Guest, users: Sequence[Account], keys: Sequence[str]) -> Iterator[str]:
    config = sshd_config.read(guest)
    if config is None:
        yield "the guest has no sshd_config: keys go where OpenSSH looks by default"
        config = sshd_config.SshdConfig()
    if config.keys_file.lower() == "none":
        yield "the guest's SSH server accepts no keys (AuthorizedKeysFile none): none are added"
        return
    for user in users:
        path = sshd_config.expand(config.keys_file, user.name, user.uid, user.home)
        _add_keys_to(guest, path, user, keys)


def _add_keys_to(guest: Guest, path: str, user: Account, keys: Sequence[str]) -> None:
    """Append what is missing. Below the home everything made is the user's alone."""
    owner = (user.uid, user.gid)
    directory = posixpath.dirname(path)
    if directory.startswith(user.home.rstrip("/") + "/"):
        guest.make_directory(user.home, mode=0o700, owner=owner)
        guest.make_directory(directory, mode=0o700, owner=owner)
    else:
        guest.make_directory(directory)
    present = (guest.read(path) or "") if guest.is_file(path) else ""
    known = {line.strip() for line in present.split("\n")}
    new = [key for key in dict.fromkeys(key.strip() for key in keys) if key not in known]
    ending = "" if not present or present.endswith("\n") else "\n"
    added = "".join(f"{key}\n" for key in new)
    guest.write(path, present + ending + added, mode=0o600, owner=owner)
