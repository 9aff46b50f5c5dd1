"""A guest's disks in a running appliance: partition tables and file systems, not their files.

All of it is done by the appliance, through a libguestfs handle that ``snf_core.image.guest``
makes.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from snf_core.errors import ApplianceError, GuestError
from snf_core.image import ext, layout, ntfs, partition_table
from snf_core.image.layout import SECTOR, Move

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snf_core.image.gpt import Gpt
    from snf_core.image.layout import Change, Partition, Table, Write
    from snf_core.image.mbr import Mbr
    from snf_core.image.ntfs import Geometry, Volume

_PROBED = {0: "clean", 14: "hibernated", 15: "unclean"}
"""What the exit status of ntfs-3g.probe(8) says; others are damage."""


class Disks:
    """The disks of a running appliance. ``/dev/sda`` is the first.

    ``sizes``: bytes of disks, by device, where they are known; the appliance is asked for others.
    Every method raises GuestError if the operation fails and ApplianceError if the appliance
    died.
    """

    def __init__(self, handle: Any, sizes: Mapping[str, int] | None = None) -> None:
        self._handle = handle
        self._sizes = dict(sizes or {})
        self._tables: dict[str, Gpt | Mbr] = {}
        self._types: dict[str, str] = {}
        self._changed: set[str] = set()
        """Disks of which the appliance's kernel may know other partitions than there are."""
        self._kept: tuple[str, str, str] | None = None
        """Options, device and mount point of what is still mounted since it was grown."""

    def flush(self) -> None:
        """Return once all that was written is on the disks. The appliance may be killed then."""
        self._call("sync")

    # -- disks and partitions ---------------------------------------------------------------

    def reread(self, device: str) -> None:
        """Forget what is known of a disk, which was changed from outside.

        Its partitions are there when they are next used: reading the table, or growing it first,
        needs none. Nothing of the disk is cached, since nobody holds it open.
        """
        self._tables.pop(device, None)
        self._types.clear()
        self._changed.add(device)

    def table(self, device: str) -> Table:
        """The partition table of a disk. Raises GuestError where it has none or a damaged one."""
        return self._table(device).table

    def partitions(self, device: str = "/dev/sda") -> tuple[Partition, ...]:
        """The partitions of a disk, in the order in which they lie on it."""
        return self.table(device).partitions

    def grow_table(self, device: str, changes: Sequence[Change]) -> None:
        """Change partitions as planned, and let a GPT span the disk: its backup goes to the end.

        What moves is copied first, and the table written when all of it is there: nothing may be
        mounted then. Starts of others, types, names, identifiers, flags and the boot code stay.
        """
        writes = self._table(device).changes(changes)
        moves = [change for change in changes if isinstance(change, Move)]
        for move in moves:
            self._copy(device, move)
        if moves:
            self.flush()
        self._write(device, writes)
        if writes:
            del self._tables[device]
            self._changed.add(device)

    def add_partition(
        self, device: str, *, sectors: int, type: str, name: str = "", attributes: int = 0
    ) -> int:
        """Add a partition in what growth leaves free at a disk's end; return its number.

        ``sectors``: at most 2014 (``layout.RESERVED`` without a backup GPT). ``type`` is a GUID
        for a GPT and two hexadecimal digits for an MBR; ``name`` and ``attributes`` are for a GPT.
        Nothing may be mounted: the appliance's kernel could not learn of it.
        """
        addition = layout.add(self.table(device), sectors, type, name, attributes)
        self.grow_table(device, [addition])
        self._types.pop(f"{device}{addition.number}", None)
        return addition.number

    def _copy(self, device: str, move: Move) -> None:
        """Copy a partition to where it is to lie. NTFS is told so, as it says where it lies."""
        [old] = [p for p in self.partitions(device) if p.number == move.number]
        start = move.first_sector * SECTOR
        self._call(
            "copy_device_to_device",
            device,
            device,
            srcoffset=old.start,
            destoffset=start,
            size=old.size,
        )
        boot = bytes(self._do("pread_device", device, SECTOR, start))
        if not ntfs.is_boot_sector(boot):
            return
        # Its copy is the first sector behind the volume, where that ends with the partition.
        places = [start, start + old.size - SECTOR]
        self._write(
            device,
            [
                (place, ntfs.relocated(boot, move.first_sector))
                for place in places
                if bytes(self._do("pread_device", device, SECTOR, place)) == boot
            ],
        )

    def _write(self, device: str, writes: Sequence[Write]) -> None:
        for offset, content in writes:
            written = self._do("pwrite_device", device, content, offset)
            if written != len(content):
                raise GuestError(f"{device}: {written} of {len(content)} bytes were written")

    def _table(self, device: str) -> Gpt | Mbr:
        if device not in self._tables:
            if device not in self._sizes:
                self._sizes[device] = int(self._do("blockdev_getsize64", device))

            def read(offset: int, length: int) -> bytes:
                return bytes(self._do("pread_device", device, length, offset))

            try:
                self._tables[device] = partition_table.load(read, self._sizes[device])
            except GuestError as error:
                raise GuestError(
                    f"{device}: the disk has no partition table, or a damaged one: {error.message}",
                    remedy="deploy a whole-disk image with an intact GPT or MBR",
                ) from error
        return self._tables[device]

    # -- file systems -----------------------------------------------------------------------

    def filesystem(self, device: str) -> str:
        """The type of file system on a device as blkid(8) names it; empty where there is none.

        Found out once: nothing here makes another one.
        """
        if device not in self._types:
            content = self._beginning(device, ext.OFFSET + ext.LENGTH)
            superblock = ext.parse(content[ext.OFFSET :])
            # What lies before it may be of another kind, which left an old superblock there.
            if superblock and not any(content[: ext.OFFSET]):
                self._types[device] = superblock.kind
            else:
                self._types[device] = str(self._call("vfs_type", device))
        return self._types[device]

    def _beginning(self, device: str, length: int) -> bytes:
        """The first bytes of a device; those of a partition by way of its disk, if it is known.

        The appliance's kernel need not know the partition yet then.
        """
        for disk, known in self._tables.items():
            for partition in known.table.partitions:
                if device == f"{disk}{partition.number}" and partition.size >= length:
                    return bytes(self._do("pread_device", disk, length, partition.start))
        return bytes(self._call("pread_device", device, length, 0))

    def find_filesystem(self, attribute: str, value: str) -> str | None:
        """The device whose file system has that ``UUID`` or ``LABEL``, or whose partition has
        that ``PARTUUID`` or ``PARTLABEL``; None where there is none.
        """
        if attribute not in {"PARTUUID", "PARTLABEL"}:
            with contextlib.suppress(GuestError):
                return str(self._call(f"findfs_{attribute.lower()}", value))
            return None
        for device in self._call("list_devices"):
            with contextlib.suppress(GuestError):  # a disk without partitions
                for partition in self.partitions(device):
                    if attribute == "PARTUUID":
                        found = partition.uuid == value.lower()
                    else:
                        found = partition.name == value != ""
                    if found:
                        return f"{device}{partition.number}"
        return None

    def ext_superblock(self, device: str) -> ext.Superblock:
        """What the superblock of an ext2, ext3 or ext4 file system says."""
        content = self._call("pread_device", device, ext.LENGTH, ext.OFFSET)
        superblock = ext.parse(content)
        if superblock is None:
            raise GuestError(
                f"the superblock of the file system on {device} is damaged",
                remedy="repair the image's file system (e2fsck)",
            )
        return superblock

    def check_ext(self, device: str) -> None:
        """Replay the journal and repair what is safe to repair (e2fsck -p)."""
        self._call("e2fsck", device, correct=True)

    def grow_ext(self, device: str) -> None:
        """Let an unmounted and checked ext file system fill its partition."""
        self._call("resize2fs", device)

    def grow_ext_mounted(self, device: str) -> None:
        """Let Linux grow a clean ext file system, mounted for that; nothing else may be mounted.

        Several times as fast as ``check_ext`` and ``grow_ext``, which read all of it. It stays
        mounted for whoever mounts it next, just so, and is unmounted for whoever does otherwise.
        """
        self._mount("rw,nodev,nosuid", device, "/")
        self._kept = ("rw,nodev,nosuid", device, "/")
        self._do("resize2fs", device)

    def ntfs(self, device: str) -> Volume:
        """What an NTFS volume says of itself. Raises GuestError where it is damaged, or none."""
        found = self._geometry(device)
        return ntfs.volume(found, self._record(device, found.record, found))

    def ntfs_state(self, device: str) -> str:
        """Whether an NTFS volume can be mounted and written to.

        ``clean``; ``unclean``: what Windows wrote last is still in its journal; ``hibernated``:
        Windows holds a state of it in memory, which Fast Startup, too, leaves behind;
        ``encrypted`` (BitLocker); or ``damaged``. That a check is due is no state, but ``dirty``
        of ``ntfs``.
        """
        if self.filesystem(device) == "BitLocker":
            return "encrypted"
        return _PROBED.get(self._call("ntfs_3g_probe", True, device), "damaged")

    def grow_ntfs(self, device: str) -> None:
        """Let an unmounted NTFS volume without a due check fill its partition.

        It has Windows check it at its next start (ntfsresize(8)).
        """
        self._call("ntfsresize", device)

    def mark_ntfs(self, device: str, *, dirty: bool) -> None:
        """Have Windows check an NTFS volume at its next start, or not. It must not be mounted."""
        found = self._geometry(device)
        record = ntfs.marked(found, self._record(device, found.record, found), dirty=dirty)
        ntfs.volume(found, self._record(device, found.mirror, found))
        self._write(device, [(found.record, record), (found.mirror, record)])

    def _geometry(self, device: str) -> Geometry:
        return ntfs.geometry(bytes(self._call("pread_device", device, SECTOR, 0)))

    def _record(self, device: str, place: int, found: Geometry) -> bytes:
        return bytes(self._call("pread_device", device, found.record_size, place))

    def format_fat(self, device: str, label: str) -> None:
        """Make a FAT file system (mkfs.fat(8)). ``label``: at most 11 characters."""
        self._types.pop(device, None)
        self._call("mkfs", "vfat", device, label=label)

    def _mount(self, options: str, device: str, mountpoint: str, kind: str = "") -> None:
        kind = kind or self._types.get(device, "")
        if self._kept == (options, device, mountpoint):
            self._kept = None
        elif kind:  # mount(8) would find it out by itself, in 30 ms
            self._call("mount_vfs", options, kind, device, mountpoint)
        else:
            self._call("mount_options", options, device, mountpoint)

    # -- inside -----------------------------------------------------------------------------

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call guestfs, once the appliance's kernel knows the partitions that there are."""
        if self._kept and name != "pread_device":  # which finds what the kernel has in memory
            self._kept = None
            self._do("umount_all")
        while self._changed:
            self._do("blockdev_rereadpt", self._changed.pop())
        return self._do(name, *arguments, **options)

    def _do(self, name: str, *arguments: Any, **options: Any) -> Any:
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
