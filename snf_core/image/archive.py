"""Many files on their way into a guest at once: a tar archive in memory, never on a disk."""

from __future__ import annotations

import contextlib
import io
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Member:
    """A regular file as it shall be: permission bits and numeric owner."""

    content: bytes = field(repr=False)
    mode: int
    uid: int
    gid: int


@contextlib.contextmanager
def packed(members: Iterable[Member]) -> Iterator[str]:
    """The path of an archive whose members are called 0, 1, 2...: no name is anybody's choice.

    The path is one of this process alone (memfd_create(2)), while the block runs.
    """
    import tarfile

    now = int(time.time())
    with os.fdopen(os.memfd_create("files"), "wb") as file:
        # GNU's format holds any user id, and states no user's name.
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for index, member in enumerate(members):
                entry = tarfile.TarInfo(str(index))
                entry.size, entry.mtime = len(member.content), now
                entry.mode, entry.uid, entry.gid = member.mode, member.uid, member.gid
                tar.addfile(entry, io.BytesIO(member.content))
        file.flush()
        yield f"/dev/fd/{file.fileno()}"
