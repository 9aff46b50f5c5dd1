"""The disks of Xen's helper domains on this kernel's loop devices, which need no Xen."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import DiskError
from snf_xen import loop, usage

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
BACKENDS = "/local/domain/0/backend"


@pytest.fixture(name="disk")
def _disk(tmp_path: Path) -> Iterator[int]:
    file = tmp_path / "disk"
    file.touch()
    os.truncate(file, MIB)
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    yield descriptor
    os.close(descriptor)


class Store:
    """As much of xenstore as says who has which disk."""

    def __init__(self, keys: dict[str, str]) -> None:
        self._keys = {f"{BACKENDS}/{path}": value for path, value in keys.items()}
        self._keys |= {"/local/domain/9/name": "web9"}

    def names(self, path: str) -> list[str]:
        """What is directly below."""
        below = [key[len(path) + 1 :] for key in self._keys if key.startswith(f"{path}/")]
        return sorted({key.split("/")[0] for key in below})

    def read(self, path: str) -> str | None:
        """A value."""
        return self._keys.get(path)


def test_what_is_written_to_the_file_is_on_the_device_at_once(disk: int) -> None:
    """And the other way round: there is one page cache."""
    made = loop.attach(disk)
    os.pwrite(disk, b"from the file", 4096)
    with Path(made.path).open("r+b", buffering=0) as device:
        assert os.pread(device.fileno(), 13, 4096) == b"from the file"
        os.pwrite(device.fileno(), bytes(512), 8192)
        os.pwrite(device.fileno(), b"from the device".ljust(512), 8192)
        os.fsync(device.fileno())
        with pytest.raises(BlockingIOError):  # as udevd asks whether it may look at it
            fcntl.flock(device, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert os.pread(disk, 15, 8192) == b"from the device"
    made.close()
    assert not Path("/sys/block", Path(made.path).name, "loop").exists()


def test_a_device_that_somebody_else_has_open_is_waited_for(disk: int) -> None:
    """It is there as long as anybody has it."""
    made = loop.attach(disk)
    with Path(made.path).open("rb") as device:
        holder = subprocess.Popen(["sleep", "0.5"], stdin=device)
    made.close()
    assert holder.wait() == 0
    assert not Path("/sys/block", Path(made.path).name, "loop").exists()


def test_what_is_open_for_reading_only_cannot_be_written(tmp_path: Path) -> None:
    """As the appliance's root."""
    file = tmp_path / "root"
    file.write_bytes(bytes(MIB))
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    made = loop.attach(descriptor)
    assert Path("/sys/block", Path(made.path).name, "ro").read_text() == "1\n"
    made.close()
    os.close(descriptor)


@pytest.mark.parametrize("kind", ["device", "parameters", "qemu", "loop of a loop"])
def test_a_disk_that_a_guest_has_is_refused(disk: int, kind: str) -> None:
    """Whatever its backend calls it; but for the domain that is meant to have it."""
    made = loop.attach(disk)
    second = loop.attach(made.descriptor)
    path = os.readlink(f"/proc/self/fd/{disk}")
    keys = {
        "device": {"vbd/9/51712/physical-device": made.number},
        "parameters": {"vbd/9/51712/params": path},
        "qemu": {"qdisk/9/768/params": f"aio:{path}"},
        "loop of a loop": {"vbd/9/51712/physical-device": second.number},
    }[kind]
    with pytest.raises(DiskError, match="domain web9"):
        usage.refuse([disk], Store(keys))  # type: ignore[arg-type]
    usage.refuse([disk], Store(keys), domid=9)  # type: ignore[arg-type]
    second.close()
    made.close()


def test_another_disk_is_not(disk: int, tmp_path: Path) -> None:
    """Nor one that has gone."""
    other = tmp_path / "other"
    other.touch()
    keys = {"vbd/9/1/params": str(other), "vbd/9/2/params": "/none", "qdisk/9/3/params": "aio:"}
    usage.refuse([disk], Store(keys))  # type: ignore[arg-type]
