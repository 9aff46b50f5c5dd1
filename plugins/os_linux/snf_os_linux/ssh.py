"""DeleteSSHKeys: no two machines of one image share an SSH host key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from snf_core.contract import Task
from snf_core.errors import GuestError
from snf_os_linux import sshd_config, systemd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

DIRECTORY = "/etc/ssh"
UNIT = "snf-ssh-host-keys.service"
GENERATOR = "/usr/bin/ssh-keygen"

STANDARD = frozenset(f"{DIRECTORY}/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519"))
"""The keys that ``ssh-keygen -A`` makes."""

OWN_GENERATORS = (
    *(
        f"{directory}/{unit}"
        for directory in ("/usr/lib/systemd/system", "/lib/systemd/system")
        for unit in ("sshd-keygen.service", "sshd-keygen@.service", "sshdgenkeys.service")
    ),
    "/usr/sbin/sshd-gen-keys-start",
)
"""What makes missing host keys at boot: Fedora and its kin, Arch, SUSE."""

_INIT_SCRIPTS = ("/etc/init.d/sshd", "/etc/init.d/ssh", "/etc/sv/sshd/run")
_SAFE_PATH = re.compile(r"(/[A-Za-z0-9_+@-][A-Za-z0-9._+@-]*)+")
"""Paths that need no quoting in a unit file, and no thought about what they might do to it."""

_KEY_TYPES = {"ed25519": {"ed25519"}, "ecdsa": {"ecdsa", "ec"}, "rsa": {"rsa"}}
"""The words by which the name of an algorithm, a PEM header or a file tells a type."""


class DeleteSSHKeys(Task):
    """Remove the image's SSH host keys, and see to it that the guest makes new ones."""

    api_version = "1.0"

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Remove them. Nothing of the guest is run: it makes its keys when it boots."""
        config = sshd_config.read(guest)
        _remove_standard_keys(guest)
        if config is None:
            yield "the guest has no sshd_config: there may be no SSH server"
            return
        extra: dict[str, str] = {}
        for path in config.host_keys:
            if path not in STANDARD and path.lower() != "none":
                yield from _remove_key(guest, path, extra)
        own = has_own_generator(guest)
        if own and not extra:
            return
        if not systemd.present(guest) or not guest.status(GENERATOR):
            yield "the guest will not make new SSH host keys: it has no means that we know of"
            return
        systemd.install(guest, UNIT, unit(extra, standard=not own))


def _remove_standard_keys(guest: Guest) -> None:
    status = guest.status(DIRECTORY)
    if status and not status.is_directory:
        raise GuestError(
            f"{DIRECTORY} in the guest is not a directory: its host keys cannot be removed",
            remedy="repair the image",
        )
    for name in guest.list(DIRECTORY):
        if name.startswith("ssh_host_"):
            guest.remove(f"{DIRECTORY}/{name}")


def has_own_generator(guest: Guest) -> bool:
    """Whether the guest's distribution makes missing host keys at boot by itself."""
    if guest.statuses(OWN_GENERATORS):
        return True
    if systemd.present(guest):  # which starts no init script that a unit stands for
        return False
    return any("ssh-keygen" in (guest.read(path) or "") for path in _INIT_SCRIPTS)


def unit(extra: dict[str, str], *, standard: bool) -> str:
    """The text of the unit that makes keys at the first boot.

    ``extra`` has the type of each further key by its path. It runs as early as files can be
    written, so that a socket unit does not accept connections before there are keys; where no
    such unit is started, nothing waits for it but the server.
    """
    conditions = [f"ConditionPathExists=|!{path}" for path in extra]
    commands = [f"-{GENERATOR} -q -t {kind} -N '' -f {path}" for path, kind in extra.items()]
    if standard:
        conditions.insert(0, f"ConditionPathExistsGlob=|!{DIRECTORY}/ssh_host_*_key")
        commands.insert(0, f"{GENERATOR} -A")
    lines: Sequence[str] = [
        "# Written when this machine was deployed.",
        "[Unit]",
        "Description=SSH host keys of this machine",
        "DefaultDependencies=no",
        "After=local-fs.target",
        "Before=ssh.service sshd.service ssh.socket sshd.socket",
        "Conflicts=shutdown.target",
        "Before=shutdown.target",
        *conditions,
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        *(f"ExecStart={command}" for command in commands),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "".join(f"{line}\n" for line in lines)


def _remove_key(guest: Guest, path: str, extra: dict[str, str]) -> Iterator[str]:
    """Remove a key of an unusual name; add to ``extra`` how to make it again."""
    try:
        content = guest.read(path)
    except GuestError as error:
        yield f"HostKey {path!r} in the guest is left alone: {error.message}"
        return
    if content is None:
        return
    if not content.startswith("-----BEGIN ") or "PRIVATE KEY-----" not in content:
        yield f"HostKey {path!r} in the guest is left alone: it holds no private key"
        return
    kind = key_type(path, content, guest.read(f"{path}.pub") or "")
    guest.remove(path)
    guest.remove(f"{path}.pub")
    if kind and _SAFE_PATH.fullmatch(path):
        extra[path] = kind
    else:
        yield f"HostKey {path!r} is removed from the guest, and how to make it anew is not known"


def key_type(path: str, private: str, public: str) -> str:
    """``rsa``, ``ecdsa`` or ``ed25519``, by the public key, the format or the name; or empty."""
    algorithm = (public.split() or [""])[0]
    header = private.partition("\n")[0]
    for sample in (algorithm, header, path.rpartition("/")[2]):
        words = set(re.split(r"[^a-z0-9]+", sample.lower()))
        for kind, marks in _KEY_TYPES.items():
            if words & marks:
                return kind
    return ""
