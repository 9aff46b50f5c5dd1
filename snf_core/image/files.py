"""The files of a guest in a running appliance.

Files are written atomically, keep owner, mode and SELinux label, and never go through a symbolic
link of the guest's making; the guest's programs are never run. On a volume of Windows, which has
none of these attributes, an existing file is written in place: it keeps its access control list,
its short name and its streams then, which a file in its place would not have. A call into the
appliance costs half a millisecond under emulation, one at which it starts a program a hundred
times as much, and one that fails five times as much: it is said on the appliance's console. Hence
what is asked of many paths is asked in lists.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from snf_core.errors import GuestError, SnfError
from snf_core.image import archive
from snf_core.image.archive import Member
from snf_core.image.customization import File
from snf_core.image.disks import Disks
from snf_core.image.status import Status, absolute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

READ_LIMIT = 2 << 20
"""Bytes of a guest's file that are read at most: no file of interest here is larger."""

ARCHIVED = 200
"""Files for one directory from which on they are sent as one archive: unpacking it starts a
program in the appliance, which takes as long as writing so many one by one."""

_ABSENT = (
    ": No such file or directory",
    ": Not a directory",
    ": Too many levels of symbolic links",
)
"""How the appliance says ENOENT, ENOTDIR and ELOOP: Python's guestfs passes no errno on."""

_LABEL = "security.selinux"


class Files(Disks):
    """The files of what is mounted. Every method raises as those of Disks do."""

    def __init__(self, handle: Any, sizes: Mapping[str, int] | None = None) -> None:
        super().__init__(handle, sizes)
        self._safe: set[str] = set()
        self._windows = False
        """Whether a volume of Windows is what is mounted."""

    # -- reading ----------------------------------------------------------------------------

    def status(self, path: str) -> Status | None:
        """What lies at ``path`` itself (a link is not followed), or None."""
        return self.statuses([path]).get(path)

    def statuses(self, paths: Iterable[str]) -> dict[str, Status]:
        """What lies at each path itself; those at which nothing lies are left out.

        One round trip for each directory. What is too damaged to be looked at counts as nothing.
        """
        found: dict[str, Status] = {}
        for directory, names in _by_directory(paths).items():
            entries = self._entries(directory, list(names.values()))
            found.update((p, entry) for p, entry in zip(names, entries, strict=True) if entry)
        return found

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
        path = absolute(path)
        found = self._unless_absent("statns", path)
        if found is None:
            return None
        status = _status(found)
        if not status.is_file:
            raise GuestError(f"{path} in the guest is not a regular file")
        if status.size > READ_LIMIT:
            raise GuestError(f"{path} in the guest is larger than {READ_LIMIT} bytes")
        # One message each way. read_file would go through a temporary file, 50 times slower.
        content: bytes = self._call("pread", path, status.size, 0)
        if len(content) != status.size:
            raise GuestError(f"{path} in the guest ends before its size")
        return content.decode(errors="surrogateescape")

    def list(self, directory: str) -> list[str]:
        """The names in a directory, links to which are followed inside the guest; sorted.

        Empty where there is no such directory.
        """
        return sorted(self._unless_absent("ls", absolute(directory)) or ())

    def link_target(self, path: str) -> str:
        """Where a symbolic link points. Raises GuestError for what is none."""
        target = self.link_targets([path]).get(path)
        if target is None:
            raise GuestError(f"{path} in the guest is not a symbolic link")
        return target

    def link_targets(self, paths: Iterable[str]) -> dict[str, str]:
        """Where those of the paths that are symbolic links point.

        One round trip for each directory.
        """
        found: dict[str, str] = {}
        for directory, names in _by_directory(paths).items():
            # Not readlink, for which the appliance starts a process.
            targets = self._unless_absent("readlinklist", directory, list(names.values()))
            pairs = zip(names, targets or [""] * len(names), strict=True)
            found.update((path, target) for path, target in pairs if target)
        return found

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

        On a volume of Windows a file that exists is written in place, and a reparse point (a
        symbolic link, for one) is refused; ``mode`` and ``owner`` say nothing there, and a new
        file is everybody's until something at the guest's first boot resets its access control.
        """
        self.write_files([File(path, content, mode, owner)])

    def write_files(self, files: Iterable[File]) -> None:
        """Write files, each as ``write`` does, in few round trips.

        None takes its place before all of them lie beside theirs, complete: where one cannot be
        written, none is, but for existing ones on a volume of Windows.
        """
        groups: dict[str, list[File]] = {}
        for file in files:
            path = absolute(file.path)
            groups.setdefault(self._checked_parent(path), []).append(replace(file, path=path))
        drafts: dict[str, str] = {}
        scratch: set[str] = set()
        existing: list[File] = []
        try:
            for directory, group in groups.items():
                if self._windows:
                    existing += self._draft_new(directory, group, drafts)
                else:
                    self._draft(directory, group, drafts, scratch)
            for file in existing:
                self._call("write", file.path, _content(file))
            for temporary, path in list(drafts.items()):
                self._call("rename", temporary, path)
                del drafts[temporary]
        except BaseException:
            for call, leftovers in (("rm_f", [*drafts]), ("rm_rf", scratch)):
                for leftover in leftovers:
                    with contextlib.suppress(SnfError):
                        self._call(call, leftover)
            raise
        for directory in scratch:
            self._call("rmdir", directory)

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
        if self._windows:
            return
        self._call("chmod", mode, path)
        self._call("lchown", *owner, path)
        self._set_label(path, self._labels(directory, ["."])[0])

    def symlink(self, target: str, path: str) -> None:
        """Make a symbolic link, in place of whatever file or link is there."""
        path = absolute(path)
        directory = self._checked_parent(path)
        temporary = posixpath.join(directory, f".snf-{os.urandom(8).hex()}")
        # Not ln -sf: it would put the link inside a directory that lies there, even one outside
        # the guest to which a link of the guest leads.
        self._call("ln_s", target, temporary)
        try:
            self._set_label(temporary, self._labels(directory, ["."])[0])
            self._call("rename", temporary, path)
        except GuestError:
            self._call("rm_f", temporary)
            raise

    def remove(self, path: str) -> None:
        """Remove a file or link, if it is there."""
        path = absolute(path)
        # Not by status(), to which a damaged file is none: it may be a secret, which must go.
        if self._unless_absent("lstatns", path) is not None:
            self._checked_parent(path)
            self._call("rm", path)

    def rename(self, path: str, name: str) -> None:
        """Give what lies at ``path`` another name in its directory, one that is free."""
        path = absolute(path)
        new = absolute(posixpath.join(posixpath.dirname(path), name))
        self._checked_parent(path)
        if "/" in name or self.status(new):
            raise GuestError(f"{path} in the guest cannot be renamed: {name!r} is not a free name")
        self._call("rename", path, new)

    # -- inside -----------------------------------------------------------------------------

    def _draft(
        self, directory: str, files: Sequence[File], drafts: dict[str, str], scratch: set[str]
    ) -> None:
        """Make files for a directory, complete but for their names.

        Notes in ``drafts`` which path each is to take, in ``scratch`` a directory made for them.
        """
        names = [posixpath.basename(file.path) or "." for file in files]
        olds = self._entries(directory, names)
        for file, old in zip(files, olds, strict=True):
            if old and old.is_directory:
                raise GuestError(f"{file.path} in the guest is a directory, not a file")
        members = [_member(file, old) for file, old in zip(files, olds, strict=True)]
        labels = self._labels(
            directory,
            [name if old and old.is_file else "." for name, old in zip(names, olds, strict=True)],
        )
        place = posixpath.join(directory, f".snf-{os.urandom(8).hex()}")
        if len(files) < ARCHIVED:
            temporaries = [f"{place}-{index}" for index in range(len(files))]
            for temporary, file, member in zip(temporaries, files, members, strict=True):
                drafts[temporary] = file.path
                self._call("write", temporary, member.content)
        else:
            temporaries = [f"{place}/{index}" for index in range(len(files))]
            scratch.add(place)
            self._unpack(members, place)
            drafts.update(zip(temporaries, [file.path for file in files], strict=True))
        self._finish(temporaries, members, labels)

    def _draft_new(
        self, directory: str, files: Sequence[File], drafts: dict[str, str]
    ) -> Sequence[File]:
        """Make new files for a directory of Windows, complete but for their names.

        Returns the files that exist. Notes in ``drafts`` which path each of the others is to take.
        """
        existing = []
        names = [posixpath.basename(file.path) or "." for file in files]
        for file, old in zip(files, self._entries(directory, names), strict=True):
            if old is None:
                temporary = posixpath.join(directory, f".snf-{os.urandom(8).hex()}")
                drafts[temporary] = file.path
                self._call("write", temporary, _content(file))
            elif old.is_file:
                existing.append(file)
            else:
                kind = "a directory" if old.is_directory else "a reparse point"
                raise GuestError(f"{file.path} in the guest is {kind}, not a file")
        return existing

    def _unpack(self, members: Sequence[Member], directory: str) -> None:
        """Make files called 0, 1, 2... in a new directory, which is root's alone."""
        self._call("mkdir_mode", directory, 0o700)
        with archive.packed(members) as path:
            try:
                # Not confined to the guest: the directory and all that leads to it are checked,
                # and the archive holds plain names only.
                self._handle.tar_in(path, directory)
            except RuntimeError as error:
                raise self._failure("tar_in", directory, error) from error

    def _finish(
        self, temporaries: Sequence[str], members: Sequence[Member], labels: Sequence[str]
    ) -> None:
        """Set what new files in one directory do not have yet of owner, mode and label."""
        names = [posixpath.basename(temporary) for temporary in temporaries]
        made = self._entries(posixpath.dirname(temporaries[0]), names)
        for temporary, entry, member, label in zip(temporaries, made, members, labels, strict=True):
            owned = entry and (entry.uid, entry.gid) == (member.uid, member.gid)
            if not owned:
                self._call("chown", member.uid, member.gid, temporary)
            # chown(2) may have taken bits away.
            if not (entry and owned and stat.S_IMODE(entry.mode) == member.mode):
                self._call("chmod", member.mode, temporary)
            self._set_label(temporary, label)

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

    def _entries(self, directory: str, names: Sequence[str]) -> Sequence[Status | None]:
        """What lies under each of the names in a directory, links in the names not followed."""
        found = self._unless_absent("lstatnslist", directory, names)
        if found is None:
            return [None] * len(names)
        return [_status(entry) if entry["st_ino"] != -1 else None for entry in found]

    def _labels(self, directory: str, names: Sequence[str]) -> Sequence[str]:
        """The SELinux labels of what lies under each of the names; empty where it has none."""
        labels: list[str] = []
        for attribute in self._call("lxattrlist", directory, names):
            name, value = attribute["attrname"], attribute["attrval"].rstrip(b"\0")
            if name == _LABEL:
                labels[-1] = value.decode()
            elif not name:  # what follows is of the next file: so many, or nothing if it failed
                if not value:
                    what = posixpath.join(directory, names[len(labels)])
                    raise GuestError(f"{what} in the guest: its attributes cannot be read")
                labels.append("")
        return labels

    def _set_label(self, path: str, label: str) -> None:
        if label:
            self._call("lsetxattr", _LABEL, label, len(label), path)

    def _unless_absent(self, call: str, path: str, *arguments: Any) -> Any:
        """The answer to a call on a path, or None where that does not exist."""
        try:
            return self._call(call, path, *arguments)
        except GuestError as error:
            if error.message.endswith(_ABSENT):
                return None
            raise


def _by_directory(paths: Iterable[str]) -> Mapping[str, Mapping[str, str]]:
    """Directory -> path as given -> name in the directory, which has no slash."""
    groups: dict[str, dict[str, str]] = {}
    for given in paths:
        directory, name = posixpath.split(absolute(given))
        groups.setdefault(directory, {})[given] = name or "."
    return groups


def _status(found: Mapping[str, int]) -> Status:
    return Status(found["st_mode"], found["st_uid"], found["st_gid"], found["st_size"])


def _member(file: File, old: Status | None) -> Member:
    """A file as it shall be, given what it replaces."""
    kept = old if old and old.is_file else None
    uid, gid = file.owner or ((kept.uid, kept.gid) if kept else (0, 0))
    mode = file.mode if file.mode is not None else kept.mode if kept else 0o644
    return Member(_content(file), stat.S_IMODE(mode), uid, gid)


def _content(file: File) -> bytes:
    return file.content.encode(errors="surrogateescape")
