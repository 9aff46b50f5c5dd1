"""The destination "acme": a disk whose URI is ``acme:NAME`` is a file in Acme's directory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core.contract import Destination, DiskWriter
from snf_core.errors import DiskError

if TYPE_CHECKING:
    from snf_core.model import Disk

OPTIONS = (cfg.StrOpt("directory", default="/srv/acme", help="Directory of the disks."),)


class Archive(Destination):
    """Preferred to the core's own destination, where both could serve."""

    api_version = "1.0"
    options = OPTIONS
    priority = 60

    def accepts(self, disk: Disk) -> bool:
        """By the scheme."""
        return disk.uri.startswith("acme:")

    def open(self, disk: Disk) -> DiskWriter:
        """Only a plain name is taken: no path leads out of the directory."""
        name = disk.uri.removeprefix("acme:")
        if not re.fullmatch(r"[a-z0-9-]+", name):
            raise DiskError(f"{disk.uri} is not a disk", remedy="give acme:NAME")
        path = Path(self.conf.directory) / name
        try:
            return _File(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise DiskError(f"cannot open disk {path}: {error.strerror}") from error


class _File(DiskWriter):
    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def write(self, offset: int, data: bytes) -> None:
        try:
            while data:
                written = os.pwrite(self.descriptor, data, offset)
                offset, data = offset + written, data[written:]
        except OSError as error:
            raise DiskError(f"cannot write disk {self.path}: {error.strerror}") from error

    def zero(self, offset: int, length: int) -> None:
        for start in range(offset, offset + length, 1 << 20):
            self.write(start, bytes(min(1 << 20, offset + length - start)))

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self.descriptor, length, offset)
        if len(data) != length:
            raise DiskError(f"disk {self.path} ends before {offset + length}")
        return data

    def flush(self) -> None:
        os.fsync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)
