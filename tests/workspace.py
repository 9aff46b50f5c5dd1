"""A private directory, gone afterwards even if whoever made it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def private(parent: Path) -> Iterator[Path]:
    """Make a directory of our own below ``parent``; remove it, and those of the dead.

    ``parent`` is made where it is missing; everybody may pass through it, whatever the umask.

    A directory whose lock can be had belongs to nobody any more: its maker was killed.
    """
    parent.mkdir(exist_ok=True)
    parent.chmod(0o711)
    # Nobody may look for abandoned directories between the making of one and its locking.
    with _locked(parent):
        for leftover in parent.iterdir():
            _remove_if_abandoned(leftover)
        directory = Path(tempfile.mkdtemp(dir=parent))
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove_if_abandoned(directory: Path) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(lock)
