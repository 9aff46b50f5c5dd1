"""The ``local`` source: raw image files in one directory of the node."""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core import contract
from snf_core.contract import Extent
from snf_core.errors import ImageError
from snf_core.image import descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snf_core.contract import ImageReader

LOG = logging.getLogger(__name__)

_SCHEME = "local://"
_OLD_SCHEME = "file://"


class Local(contract.Source):
    """Accepts ``local://NAME``, ``file://NAME`` (deprecated) and whatever has no colon.

    NAME is looked up below the configured directory and nowhere else. Identifiers come from
    tenants: only regular files are opened, and nothing that is not one is even touched.
    """

    api_version = "1.0"
    priority = 10
    options = (
        cfg.StrOpt(
            "directory",
            default="/var/lib/snf/images",
            help="Directory of image files. Symbolic links in it are followed as long as they "
            "are relative and do not lead out of it.",
        ),
    )

    def accepts(self, image_id: str) -> bool:
        """Whether it names a file of the node."""
        return image_id.startswith((_SCHEME, _OLD_SCHEME)) or ":" not in image_id

    def open(self, image_id: str, image_format: str) -> ImageReader:
        """Open the image, or else one named NAME.``image_format`` as old identifiers meant it.

        Raises ImageError if there is none, it leads out of the directory, is no regular file or
        is empty.
        """
        if image_id.startswith(_OLD_SCHEME):
            LOG.warning("image %r: %s is deprecated, use %s", image_id, _OLD_SCHEME, _SCHEME)
        name = image_id.removeprefix(_SCHEME).removeprefix(_OLD_SCHEME).lstrip("/")
        if not name:
            raise ImageError(f"image {image_id!r} names no file", remedy="give local://NAME")
        located = self._locate(image_id, [name, f"{name}.{image_format}"])
        try:
            mode = os.stat(located).st_mode
            if not stat.S_ISREG(mode):
                raise ImageError(
                    f"image {image_id!r} is {descriptors.kind(mode)}",
                    remedy="only regular files can be deployed",
                )
            return _File(image_id, descriptors.reopen(located, os.O_RDONLY))
        except OSError as error:
            raise _unreadable(image_id, error) from error
        finally:
            os.close(located)

    def _locate(self, image_id: str, names: Sequence[str]) -> int:
        try:
            directory = os.open(self.conf.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ImageError(
                f"image {image_id!r}: cannot open the image directory {self.conf.directory}: "
                f"{error.strerror}",
                remedy="create it, or set option directory of group [image.source.local]",
            ) from error
        try:
            for name in names:
                try:
                    return descriptors.locate_beneath(directory, name)
                except FileNotFoundError:
                    continue
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise ImageError(
                    f"image {image_id!r} leads out of the image directory {self.conf.directory}",
                    remedy="name a file in it; symbolic links must be relative and stay inside",
                ) from error
            raise _unreadable(image_id, error) from error
        finally:
            os.close(directory)
        raise ImageError(
            f"there is no image {image_id!r} in {self.conf.directory}",
            remedy="check its name, or put the image file there",
        )


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The source's options, for oslo-config-generator."""
    return [("image.source.local", Local.options)]


def _unreadable(image_id: str, error: OSError) -> ImageError:
    return ImageError(
        f"cannot read image {image_id!r}: {error.strerror}",
        remedy="check the file and the storage it lies on",
    )


class _File(contract.ImageReader):
    """An open image file, of which nothing changes while it is read."""

    def __init__(self, image_id: str, descriptor: int) -> None:
        self._image_id = image_id
        self._file = io.FileIO(descriptor, "r")
        self._state = self._current_state()
        self.size = self._state[0]
        if self.size == 0:
            self.close()
            raise ImageError(f"image {image_id!r} is empty", remedy="put the whole image there")
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def extents(self) -> Iterator[Extent]:
        position = 0
        try:
            for start, end in descriptors.data_ranges(self._file.fileno(), 0, self.size):
                if position < start:
                    yield Extent(position, start - position, data=False)
                yield Extent(start, end - start, data=True)
                position = end
        except OSError as error:
            raise _unreadable(self._image_id, error) from error
        if position < self.size:
            yield Extent(position, self.size - position, data=False)
        # A file cut short looks as if it ended with a hole.
        if self._current_state() != self._state:
            raise self._changed()

    def read(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._file.fileno(), length, offset)
            while 0 < len(data) < length:
                more = os.pread(self._file.fileno(), length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise _unreadable(self._image_id, error) from error
        if len(data) != length:
            raise self._changed()
        return data

    def close(self) -> None:
        self._file.close()

    def _current_state(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def _changed(self) -> ImageError:
        return ImageError(
            f"image {self._image_id!r} changed while it was read",
            remedy="deploy again once the image file is complete",
        )
