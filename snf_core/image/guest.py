"""The Guest facade: the only door to a guest's disk, and the only module that imports guestfs.

All that is read or written goes through the isolated appliance (guestfs(3)). Files of the guest
are written atomically, keep owner, mode and SELinux label, and never go through a symbolic link
of the guest's making; the guest's programs are never run.

Every method raises GuestError if the operation fails and ApplianceError if the appliance died.
"""

from __future__ import annotations

import collections
import posixpath
import secrets
import stat
from typing import TYPE_CHECKING, Any

from snf_core.errors import ApplianceError, GuestError
from snf_core.image.disks import Disks
from snf_core.image.status import Status, absolute

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from snf_core.appliance import Appliance, Launcher

READ_LIMIT = 2 << 20
"""Bytes of a guest's file that are read at most: no file of interest here is larger."""

_CONSOLE_CHUNKS = 50

_ABSENT = (
    ": No such file or directory",
    ": Not a directory",
    ": Too many levels of symbolic links",
)
"""How the appliance says ENOENT and ENOTDIR: Python's guestfs passes no errno on."""

_LABEL = "security.selinux"


def start(
    appliance: Appliance,
    launcher: Launcher,
    program: Path,
    directory: Path,
    disks: Sequence[Path],
) -> Guest:
    """Start an appliance with ``disks`` and return the guest on the first of them.

    ``program`` is the launcher's program on disk; ``directory`` a private one for sockets and
    temporary files. The caller is expected to be unprivileged already. Takes seconds.
    Raises ApplianceError.
    """
    import guestfs

    handle = guestfs.GuestFS(python_return_dict=True)
    handle.set_path(str(appliance.directory))
    handle.set_backend("direct")
    for setting in launcher.settings:
        handle.set_backend_setting(setting, "1")
    handle.set_hv(str(program))
    handle.set_tmpdir(str(directory))
    handle.set_cachedir(str(directory))
    handle.set_memsize(launcher.memory)
    handle.set_smp(1)
    handle.set_network(False)
    handle.set_autosync(True)
    # libguestfs's own watchdog would outlive us by seconds; QEMU dies with this process anyway.
    handle.set_recovery_proc(False)
    handle.set_identifier("snf")
    for disk in disks:
        handle.add_drive_opts(str(disk), format="raw", readonly=False)
    console: collections.deque[bytes] = collections.deque(maxlen=_CONSOLE_CHUNKS)
    handle.set_event_callback(
        lambda _event, _handle, chunk, _array: console.append(chunk), guestfs.EVENT_APPLIANCE
    )
    try:
        handle.launch()
    except RuntimeError as error:
        handle.close()
        raise ApplianceError(
            f"the appliance did not start: {_last_words(console) or error}",
            remedy='run "snf doctor" on the node',
        ) from error
    return Guest(handle)


def _last_words(console: Iterable[bytes]) -> str:
    """The last lines of what QEMU and the appliance's console printed, if anything."""
    lines = (
        b"".join(chunk if isinstance(chunk, bytes) else str(chunk).encode() for chunk in console)
        .decode(errors="replace")
        .split("\n")
    )
    return "; ".join([line.strip() for line in lines if line.strip()][-3:])


class Guest(Disks):
    """A guest's disks and files, opened in a running appliance. ``/dev/sda`` is the first disk."""

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self._safe: set[str] = set()

    # -- mounting ---------------------------------------------------------------------------

    def mount(
        self, device: str, mountpoint: str, options: str = "", *, read_only: bool = False
    ) -> None:
        """Mount a file system on an existing directory, which no symbolic link leads to.

        Device nodes and set-user-id bits in it have no effect.
        """
        mountpoint = absolute(mountpoint)
        if mountpoint != "/":
            # The appliance's mount(8) would follow a link out of the guest.
            self._checked_parent(posixpath.join(mountpoint, "."))
        words = ["ro" if read_only else "rw", "nodev", "nosuid", *filter(None, [options])]
        self._call("mount_options", ",".join(words), device, mountpoint)
        self._safe.clear()

    def unmount_all(self) -> None:
        """Flush and unmount everything."""
        self._safe.clear()
        self._call("umount_all")
        self._call("sync")

    # -- reading ----------------------------------------------------------------------------

    def status(self, path: str) -> Status | None:
        """What lies at ``path`` itself (a link is not followed), or None."""
        return self._status("lstatns", path)

    def is_file(self, path: str) -> bool:
        """Whether a regular file lies at ``path`` itself."""
        found = self.status(path)
        return found is not None and found.is_file

    def is_directory(self, path: str) -> bool:
        """Whether a directory lies at ``path`` itself."""
        found = self.status(path)
        return found is not None and found.is_directory

    def read(self, path: str) -> str | None:
        """The text of a file, links inside the guest followed; None where there is none.

        Bytes that are not UTF-8 survive a later ``write`` (surrogateescape). Raises GuestError
        for what is not a regular file or larger than READ_LIMIT.
        """
        found = self._status("statns", path)
        if found is None:
            return None
        if not found.is_file:
            raise GuestError(f"{path} in the guest is not a regular file")
        if found.size > READ_LIMIT:
            raise GuestError(f"{path} in the guest is larger than {READ_LIMIT} bytes")
        # One message each way. read_file would go through a temporary file, 50 times slower.
        content: bytes = self._call("pread", absolute(path), found.size, 0)
        if len(content) != found.size:
            raise GuestError(f"{path} in the guest ends before its size")
        return content.decode(errors="surrogateescape")

    def list(self, directory: str) -> list[str]:
        """The names in a directory, sorted; empty where there is no such directory."""
        if not self.is_directory(directory):
            return []
        return sorted(str(name) for name in self._call("ls", absolute(directory)))

    def link_target(self, path: str) -> str:
        """Where a symbolic link points."""
        return str(self._call("readlink", absolute(path)))

    # -- writing ----------------------------------------------------------------------------

    def write(
        self,
        path: str,
        content: str,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """Write a file atomically: a new file beside it takes its place, links and all.

        ``mode`` and ``owner`` (uid, gid) default to those of the file that is replaced, else to
        0644 and root. Its SELinux label is kept; a new file takes that of its directory.
        """
        path = absolute(path)
        directory = self._checked_parent(path)
        old = self.status(path)
        if old and old.is_directory:
            raise GuestError(f"{path} in the guest is a directory, not a file")
        kept = old if old and old.is_file else None
        uid, gid = owner or ((kept.uid, kept.gid) if kept else (0, 0))
        bits = mode if mode is not None else (stat.S_IMODE(kept.mode) if kept else 0o644)
        temporary = posixpath.join(directory, f".snf-{secrets.token_hex(8)}")
        try:
            self._call("write", temporary, content.encode(errors="surrogateescape"))
            self._call("chown", uid, gid, temporary)
            self._call("chmod", bits, temporary)
            self._copy_label(path if kept else directory, temporary)
            self._call("rename", temporary, path)
        except GuestError:
            self._call("rm_f", temporary)
            raise

    def make_directory(
        self, path: str, *, mode: int = 0o755, owner: tuple[int, int] = (0, 0)
    ) -> None:
        """Make a directory, and root-owned parents where they are missing; keep an existing one."""
        path = absolute(path)
        found = self.status(path)
        if found and found.is_directory:
            return
        if found:
            raise GuestError(f"{path} in the guest is not a directory")
        if path != "/" and not self.status(posixpath.dirname(path)):
            self.make_directory(posixpath.dirname(path))
        directory = self._checked_parent(path)
        self._call("mkdir_mode", path, mode)
        self._call("chmod", mode, path)
        self._call("lchown", *owner, path)
        self._copy_label(directory, path)

    def symlink(self, target: str, path: str) -> None:
        """Make a symbolic link, in place of whatever file or link is there."""
        path = absolute(path)
        directory = self._checked_parent(path)
        temporary = posixpath.join(directory, f".snf-{secrets.token_hex(8)}")
        # Not ln -sf: it would put the link inside a directory that lies there, even one outside
        # the guest to which a link of the guest leads.
        self._call("ln_s", target, temporary)
        try:
            self._copy_label(directory, temporary)
            self._call("rename", temporary, path)
        except GuestError:
            self._call("rm_f", temporary)
            raise

    def remove(self, path: str) -> None:
        """Remove a file or link, if it is there."""
        path = absolute(path)
        if self.status(path) is not None:
            self._checked_parent(path)
            self._call("rm", path)

    # -- inside -----------------------------------------------------------------------------

    def _checked_parent(self, path: str) -> str:
        """The directory of ``path``, once every step towards it is known to be a directory."""
        directory = posixpath.dirname(path)
        step = ""
        for name in [part for part in directory.split("/") if part]:
            step = f"{step}/{name}"
            if step in self._safe:
                continue
            found = self.status(step)
            if found is None or not found.is_directory:
                kind = "a symbolic link" if found and found.is_symlink else "not a directory"
                raise GuestError(
                    f"{step} in the guest is {kind}; nothing is written through it",
                    remedy="repair the image",
                )
            self._safe.add(step)
        return directory

    def _status(self, call: str, path: str) -> Status | None:
        path = absolute(path)
        try:
            found = getattr(self._handle, call)(path)
        except RuntimeError as error:
            if str(error).endswith(_ABSENT):
                return None
            raise self._failure("stat", path, error) from error
        return Status(found["st_mode"], found["st_uid"], found["st_gid"], found["st_size"])

    def _copy_label(self, origin: str, path: str) -> None:
        for attribute in self._call("lgetxattrs", origin):
            if attribute["attrname"] == _LABEL:
                value = attribute["attrval"].rstrip(b"\0").decode()
                self._call("lsetxattr", _LABEL, value, len(value), path)
