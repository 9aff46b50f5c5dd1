"""A lock that many may share or one may have alone, by flock(2) on a file that keeps a few words.

The kernel releases it when its holder dies.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING

from snf_core.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Lock:
    """The lock of the file ``path``, and what was kept in the file.

    Who wants it, shared or alone, queues for it by another file beside, so that one who wants it
    alone is not passed by a stream of those who share it.
    """

    def __init__(self, path: Path) -> None:
        """``path`` is in a directory of root's own, which must exist when the lock is taken."""
        self._path = path
        self._descriptor = -1
        self._exclusive = False

    def hold(self, *, exclusive: bool) -> None:
        """Hold it alone, or at least shared, from now until ``release``.

        Who shares it and wants it alone gives up the share while waiting: two who did not would
        wait for each other. Raises NetworkError where the file cannot be used.
        """
        if self._exclusive or (self._descriptor >= 0 and not exclusive):
            return
        self.release()
        queue = self._opened(".queue")
        try:
            fcntl.flock(queue, fcntl.LOCK_EX)
            self._descriptor = self._opened("")
            fcntl.flock(self._descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            self._exclusive = exclusive
        finally:
            os.close(queue)

    def release(self) -> None:
        """Let others have it. Does nothing where it is not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._exclusive = False

    def keep(self, words: Mapping[str, str]) -> None:
        """Replace what the file holds. It must be held alone."""
        data = json.dumps(dict(words)).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)

    def kept(self) -> dict[str, str]:
        """What was kept last; {} where nothing was, or where that was lost."""
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _opened(self, suffix: str) -> int:
        path = self._path.with_name(self._path.name + suffix)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except OSError as error:
            raise NetworkError(
                f"{path} cannot be opened: {error.strerror}",
                remedy="run it as root, or set [directories] runtime",
            ) from error
