"""Files of ours among those of others: compared, put in place, and taken away again.

A file of ours says so in its second line, and for which place it was written; one that cannot
hold such a line is spoken for by another beside it. Whatever else stands where one of ours belongs
is somebody's work and is never touched. All that is found wrong is found before anything is
written, and where something cannot be written everything is put back as it was.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import re
import shlex
import stat
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.errors import SnfError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_TEMPORARY = ".snf-ganeti-"
"""What the names of files begin with that are being written."""
_MARK = re.compile("^# Written by snf as (/.*); changes will be lost[.]$", re.M)
_HEAD = 4096
"""Bytes of a file within which the line is looked for that says that it is ours."""


@dataclass(frozen=True)
class File:
    """A file as it should be."""

    path: Path
    text: str
    executable: bool = False
    witness: Path | None = None
    """The file beside it that says whether this one is ours."""

    @property
    def mode(self) -> int:
        """Its permissions: for everybody to read, whatever the umask."""
        return 0o755 if self.executable else 0o644


@dataclass(frozen=True)
class Installation:
    """All files that should be there, and where to look for those that should be there no more."""

    files: tuple[File, ...]
    searched: tuple[Path, ...] = ()
    """Directories that are looked through, with all below them, for files of ours."""
    kept: tuple[Path, ...] = ()
    """Directories that stay; those below them are removed when nothing is in them any more."""
    hiding: tuple[Path, ...] = ()
    """What must not be there, as Ganeti would take it in the place of ours."""
    complete: bool = True
    """Whether ``files`` is all that should be there; otherwise nothing is taken for left over."""


class State(enum.Enum):
    """What is not as it should be about a file, as one says it of the file."""

    MISSING = "is missing"
    DIFFERENT = "differs from what would be installed"
    FOREIGN = "was not made by snf"
    HIDING = "comes before the installed one, which Ganeti does not see"
    LEFT_OVER = "is of no use any more"


@dataclass(frozen=True)
class Difference:
    """A file that is not as it should be."""

    path: Path
    state: State

    def __str__(self) -> str:
        return f"{self.path} {self.state.value}"

    @property
    def done(self) -> str:
        """What is done about it, as one says it of the file afterwards."""
        return "removed" if self.state is State.LEFT_OVER else "wrote"


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lock of what is installed below ``root``, waiting for it.

    From before it is decided what should be there, until it is. It is on the directory itself, so
    that nothing is left behind; the kernel releases it when the holder dies (flock(2)). Raises
    SnfError.
    """
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SnfError(
            f"cannot look at {root}: {error.strerror}", remedy="give a node's root directory"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def script(path: Path, argv: Sequence[str]) -> File:
    """A shell script that runs ``argv`` with its own arguments behind, to be at ``path``."""
    mark = f"# Written by snf as {path}; changes will be lost."
    text = f'#!/bin/sh\n{mark}\nexec {shlex.join(argv)} "$@"\n'
    return File(path, text, executable=True)


def compare(wanted: Installation) -> list[Difference]:
    """All that is not as it should be, in the order of the files. Raises SnfError."""
    try:
        found = [Difference(path, State.HIDING) for path in wanted.hiding if _exists(path)]
        for file in wanted.files:
            state = _state(file)
            if state:
                found.append(Difference(file.path, state))
        known = {file.path for file in wanted.files}
        return found + [
            Difference(path, State.LEFT_OVER)
            for path in _ours_below(wanted.searched)
            if wanted.complete and path not in known
        ]
    except OSError as error:
        raise SnfError(
            f"cannot look at {error.filename}: {error.strerror}", remedy="run as root"
        ) from error


def install(wanted: Installation) -> list[Difference]:
    """Make all as it should be; return what was not. Nothing is changed where that fails.

    Raises SnfError naming each file in the way, or the one that could not be written.
    """
    found = compare(wanted)
    foreign = [one for one in found if one.state in {State.FOREIGN, State.HIDING}]
    if foreign:
        raise SnfError(
            "nothing was installed: " + "; ".join(map(str, foreign)),
            remedy="remove the packages that these belong to, or move them away, and install again",
        )
    differing = {one.path for one in found if one.state is not State.LEFT_OVER}
    superfluous = [one.path for one in found if one.state is State.LEFT_OVER]
    _change([file for file in wanted.files if file.path in differing], superfluous)
    _remove_empty(superfluous, wanted)
    return found


def uninstall(wanted: Installation) -> list[Path]:
    """Remove all that is ours, and directories that are empty then; return the files removed.

    Raises SnfError; then nothing is removed.
    """
    try:
        there = [file.path for file in reversed(wanted.files) if is_ours(file)]
        there += [path for path in _ours_below(wanted.searched) if path not in there]
    except OSError as error:
        raise SnfError(
            f"cannot look at {error.filename}: {error.strerror}", remedy="run as root"
        ) from error
    _change([], there)
    _remove_empty(there, wanted)
    return there


def write(files: Sequence[File]) -> None:
    """Write all of ``files`` in the place of whatever is there, or none. Raises SnfError."""
    _change(files, [])


def _state(file: File) -> State | None:
    if not _exists(file.path):
        return State.MISSING
    if _is_regular(file.path):
        found = file.path.lstat()
        same = file.path.read_bytes() == file.text.encode()
        trusted = found.st_uid in {0, os.geteuid()}
        if same and stat.S_IMODE(found.st_mode) == file.mode and trusted:
            return None
        if same or is_ours(file):
            return State.DIFFERENT
    return State.FOREIGN


def is_ours(file: File) -> bool:
    """Whether what is in the place of ``file`` is ours, in whatever version. Raises OSError."""
    witness = file.witness or file.path
    return _is_regular(file.path) and _marked(witness)


def _marked(path: Path) -> bool:
    """Whether there is a file that was written for this very place."""
    if not _is_regular(path):
        return False
    with path.open("rb") as file:
        found = _MARK.search(file.read(_HEAD).decode(errors="replace"))
    # Below another root than the node's own, the place is known by how it ends.
    return found is not None and str(path).endswith(found[1])


def _is_regular(path: Path) -> bool:
    """Whether a file is there that is no symbolic link or worse."""
    return _exists(path) and stat.S_ISREG(path.lstat().st_mode)


def _exists(path: Path) -> bool:
    """Whether anything at all is there, a dangling symbolic link included."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _ours_below(directories: Iterable[Path]) -> Iterator[Path]:
    """All files of ours below ``directories``; symbolic links to others are not followed."""
    seen = set()
    for top in directories:
        for directory, _, names in os.walk(top):
            for name in sorted(names):
                path = Path(directory, name)
                if path not in seen and (name.startswith(_TEMPORARY) or _marked(path)):
                    seen.add(path)
                    yield path


def _change(files: Sequence[File], superfluous: Sequence[Path]) -> None:
    """Write ``files`` and remove ``superfluous``: all of it, or nothing. Raises SnfError."""
    try:
        # What undoes runs before what tidies up: the old files are still there then.
        with ExitStack() as tidy, ExitStack() as undo:
            staged = [_staged(file, undo) for file in files]
            for file, new in zip(files, staged, strict=True):
                _keep(file.path, tidy, undo)
                os.replace(new, file.path)
            for path in superfluous:
                _keep(path, tidy, undo)
                path.unlink()
            undo.pop_all()
    except OSError as error:
        raise SnfError(
            f"nothing was changed: {error.filename2 or error.filename}: {error.strerror}",
            remedy="run as root, on a file system that can be written",
        ) from error


def _staged(file: File, undo: ExitStack) -> Path:
    """The file under another name beside its place, whose directory is made where it is missing."""
    _make_directory(file.path.parent, undo)
    descriptor, name = tempfile.mkstemp(dir=file.path.parent, prefix=_TEMPORARY)
    path = Path(name)
    undo.callback(path.unlink, missing_ok=True)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(file.text.encode())
        os.fchmod(descriptor, file.mode)
    return path


def _make_directory(directory: Path, undo: ExitStack) -> None:
    if directory.is_dir():
        return
    _make_directory(directory.parent, undo)
    directory.mkdir()
    undo.callback(directory.rmdir)
    directory.chmod(0o755)


def _keep(path: Path, tidy: ExitStack, undo: ExitStack) -> None:
    """Have ``path`` put back as it is now when what is being done is undone."""
    if not _exists(path):
        undo.callback(path.unlink, missing_ok=True)
        return
    old = Path(tempfile.mktemp(dir=path.parent, prefix=_TEMPORARY))
    os.link(path, old, follow_symlinks=False)
    tidy.callback(old.unlink, missing_ok=True)
    undo.callback(partial(os.replace, old, path))


def _remove_empty(removed: Iterable[Path], wanted: Installation) -> None:
    """Remove the directories of removed files that nothing is in, and those above them."""
    for path in removed:
        directory = path.parent
        while directory not in wanted.kept and any(top in directory.parents for top in wanted.kept):
            try:
                directory.rmdir()
            except OSError:
                break
            directory = directory.parent
