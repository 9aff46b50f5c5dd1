"""A guest's disks in a running appliance: partition tables and file systems, not their files.

All of it is done by the appliance, through a libguestfs handle that ``snf_core.image.guest``
makes.
"""

from __future__ import annotations

import contextlib
import re
import struct
import uuid
from typing import TYPE_CHECKING, Any

from snf_core.errors import ApplianceError, GuestError
from snf_core.image.layout import Partition, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

_MBR_IDENTIFIER = (4, 440)
"""Bytes, and where; zeros on a disk with a GPT, where nothing reads them."""


class Disks:
    """The disks of a running appliance. ``/dev/sda`` is the first.

    Every method raises GuestError if the operation fails and ApplianceError if the appliance
    died.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._tables: dict[str, Table] = {}

    def close(self) -> None:
        """Flush the disks and stop the appliance."""
        self._call("shutdown")
        self._handle.close()

    # -- disks and partitions ---------------------------------------------------------------

    def reread(self, device: str) -> None:
        """Forget what was cached of a disk and read its partition table anew."""
        self._tables.pop(device, None)
        self._call("blockdev_flushbufs", device)
        self._call("blockdev_rereadpt", device)

    def table(self, device: str) -> Table:
        """The partition table of a disk. Raises GuestError where it has none or a damaged one.

        Read once: parted takes seconds under emulation.
        """
        if device not in self._tables:
            self._tables[device] = self._read_table(device)
        return self._tables[device]

    def _read_table(self, device: str) -> Table:
        size = int(self._call("blockdev_getsize64", device))
        sector = int(self._call("blockdev_getss", device))
        try:
            label = str(self._call("part_get_parttype", device))
        except GuestError as error:
            raise GuestError(
                f"{device}: the disk has no partition table, or a damaged one: {error.message}",
                remedy="deploy a whole-disk image with an intact GPT or MBR",
            ) from error
        listed = self._call("part_list", device)
        kinds = self._partition_types(device, label, sector, [e["part_num"] for e in listed])
        partitions = [
            Partition(e["part_num"], e["part_start"], e["part_end"], kinds[e["part_num"]])
            for e in listed
        ]
        return Table(label, size, sector, tuple(sorted(partitions, key=lambda p: p.start)))

    def _partition_types(
        self, device: str, label: str, sector: int, numbers: Sequence[int]
    ) -> dict[int, str]:
        """The types of partitions: GUIDs (GPT) or two hexadecimal digits (MBR).

        Read from the table that parted has found to be sound: asking sgdisk or sfdisk for each
        takes half a second under emulation.
        """
        if label == "gpt":
            # UEFI specification 5.3.2: first entry's block at 72, bytes of an entry at 84.
            header = self._call("pread_device", device, 92, sector)
            first, _, length = struct.unpack_from("<QLL", header, 72)
            offsets = {n: first * sector + (n - 1) * length for n in numbers}
            return {
                number: str(uuid.UUID(bytes_le=self._call("pread_device", device, 16, offset)))
                for number, offset in offsets.items()
            }
        if label != "msdos":
            return dict.fromkeys(numbers, "")
        record = self._call("pread_device", device, 512, 0)
        return {
            n: f"{record[450 + 16 * (n - 1)] if n <= 4 else self._mbr_type(device, n):02x}"
            for n in numbers
        }

    def _mbr_type(self, device: str, number: int) -> int:
        return int(self._call("part_get_mbr_id", device, number))

    def partitions(self, device: str = "/dev/sda") -> tuple[Partition, ...]:
        """The partitions of a disk, in the order in which they lie on it."""
        return self.table(device).partitions

    def move_backup_header(self, device: str) -> None:
        """Put the backup GPT at the end of a disk that has grown (UEFI specification, 5.3)."""
        self._call("part_expand_gpt", device)

    def resize_partition(self, device: str, number: int, last_sector: int) -> None:
        """Let a partition end at ``last_sector``; start, type, name and id stay."""
        # parted gives an MBR a new identifier, on which PARTUUIDs and Windows's loader depend.
        identifier = self._call("pread_device", device, *_MBR_IDENTIFIER)
        self._call("part_resize", device, number, last_sector)
        self._call("pwrite_device", device, identifier, _MBR_IDENTIFIER[1])
        if device in self._tables:
            self._tables[device] = self._tables[device].resized(number, last_sector)

    # -- file systems -----------------------------------------------------------------------

    def filesystem(self, device: str) -> str:
        """The type of file system on a device as blkid(8) names it; empty where there is none."""
        return str(self._call("vfs_type", device))

    def find_filesystem(self, attribute: str, value: str) -> str | None:
        """The device whose file system has that ``UUID`` or ``LABEL``, or whose partition has
        that ``PARTUUID`` or ``PARTLABEL``; None where there is none.
        """
        keys = {"PARTUUID": "PART_ENTRY_UUID", "PARTLABEL": "PART_ENTRY_NAME"}
        if attribute not in keys:
            with contextlib.suppress(GuestError):
                return str(self._call(f"findfs_{attribute.lower()}", value))
            return None
        for device in self._call("list_partitions"):
            escaped = self._call("blkid", device).get(keys[attribute], "")
            found = re.sub(r"\\(.)", r"\1", escaped)
            if found == value or (attribute == "PARTUUID" and found.lower() == value.lower()):
                return str(device)
        return None

    def ext_state(self, device: str) -> dict[str, str]:
        """The superblock of an ext2, ext3 or ext4 file system, as tune2fs -l lists it."""
        return dict(self._call("tune2fs_l", device))

    def check_ext(self, device: str) -> None:
        """Replay the journal and repair what is safe to repair (e2fsck -p)."""
        self._call("e2fsck", device, correct=True)

    def grow_ext(self, device: str) -> None:
        """Let an unmounted ext file system fill its partition."""
        self._call("resize2fs", device)

    # -- inside -----------------------------------------------------------------------------

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._handle, name)(*arguments, **options)
        except RuntimeError as error:
            what = next((str(word) for word in arguments if isinstance(word, str)), "")
            raise self._failure(name, what, error) from error
        except ValueError as error:  # a NUL, or what is not UTF-8, in a name of the guest's
            raise GuestError(f"{name.replace('_', ' ')}: unusable name: {error}") from error

    def _failure(self, name: str, what: str, error: RuntimeError) -> GuestError | ApplianceError:
        try:
            self._handle.ping_daemon()
        except RuntimeError:
            return ApplianceError(
                f"the appliance died during {name} {what}",
                remedy="look for killed processes in the node's kernel log, then deploy again",
            )
        text = str(error).removeprefix(f"{name}: ")
        return GuestError(f"{name.replace('_', ' ')} {what}: {text}".replace("  ", " "))
