"""The gate to kernel parameters: files below /proc/sys (proc(5)).

Those below ``net`` are the ones of the network namespace of the thread that opens them. A path is
a path, not the dotted name of sysctl(8): an interface's name may have dots in it.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from snf_core.network.state import Change, Item, Key, Value

LOG = logging.getLogger(__name__)

_ROOT = Path("/proc/sys")

_REMEDIES = {
    errno.EPERM: "run it as root",
    errno.EACCES: "run it as root",
    errno.EINVAL: "the kernel does not accept this value",
    errno.ENOENT: "the interface disappeared, or this kernel cannot do that",
    errno.EROFS: "/proc/sys must be writable here",
}


class Sysctl:
    """Kernel parameters. A ``kernel.Gate``; nothing is held."""

    def __init__(self, root: Path = _ROOT) -> None:
        """``root`` is where the paths of items begin."""
        self._root = root

    def read(self, items: Collection[Item]) -> dict[Key, Value]:
        """What the parameters hold; those that do not exist are left out. Raises NetworkError."""
        found = {item: self._read(item) for item in items}
        return {item.key: value for item, value in found.items() if value is not None}

    snapshot = read
    """They can all be asked for by themselves."""

    def apply(self, changes: Sequence[Change]) -> Collection[Key]:
        """Write what is not as wanted, all or nothing. See ``kernel.Gate``."""
        done: list[tuple[Item, str]] = []
        try:
            for item, _ in changes:
                before = self._read(item)
                if before != item.value:
                    self._write(item, str(item.value))
                    done.append((item, before or ""))
        except NetworkError:
            self._take_back(done)
            raise
        return ()

    def close(self) -> None:
        """Nothing is held."""

    def _take_back(self, done: Sequence[tuple[Item, str]]) -> None:
        for item, before in reversed(done):
            try:
                self._write(item, before)
            except NetworkError as error:
                LOG.error("cannot be taken back: %s", error)

    def _read(self, item: Item) -> str | None:
        """Words of a value are separated by one blank each; None where there is no such file."""
        try:
            words = self._path(item).read_text().split()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _failure(item, "cannot be read", error) from error
        return " ".join(words)

    def _write(self, item: Item, value: str) -> None:
        try:
            # One write, which is one value; never a file that would have to be made.
            descriptor = os.open(self._path(item), os.O_WRONLY)
            try:
                os.write(descriptor, f"{value}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _failure(item, f"cannot be set to {value}", error) from error

    def _path(self, item: Item) -> Path:
        parts = item.object.split("/")
        if {"", ".", ".."} & set(parts) or "\0" in item.object:
            raise NetworkError(f"{item.object!r} is not the path of a kernel parameter")
        return self._root.joinpath(*parts)


def _failure(item: Item, what: str, error: OSError) -> NetworkError:
    return NetworkError(
        f"sysctl {item.object} {what}: {error.strerror}",
        remedy=_REMEDIES.get(error.errno or 0, "see the kernel's log"),
    )
