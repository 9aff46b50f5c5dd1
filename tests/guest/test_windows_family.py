"""Windows of every version over real NTFS: which family claims it, and how it is mounted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import GuestError
from snf_core.image.customization import Customization, File
from snf_core.image.properties import Properties
from snf_core.image.registry import Value
from snf_os_linux.family import Linux
from snf_os_windows import inspection
from snf_os_windows.family import Windows, WindowsLegacy
from snf_os_windows.mount import MountImage
from tests.images.windows import VERSIONS, Built, Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from snf_core.image.guest import Guest
    from tests.guest.conftest import Laboratory

    Provided = Callable[[Image], Built]

MODERN, LEGACY = Windows(None), WindowsLegacy(None)
FAMILIES = {"windows": MODERN, "windows-legacy": LEGACY}
CURRENT_VERSION = "Microsoft\\Windows NT\\CurrentVersion"


@pytest.fixture
def guest(laboratory: Laboratory) -> Guest:
    """A guest of which nothing is known yet: what is known of one is kept as long as it lives."""
    from snf_core.image.guest import Guest

    return Guest(laboratory.handle)


def _mount(guest: Guest, root: str, family: str = "windows") -> list[str]:
    """Returns the warnings."""
    request = Customization("vm1", properties=Properties(), facts={"family": family, "root": root})
    return list(MountImage(None).run(guest, request))


def _scores(guest: Guest, root: str | None = None) -> tuple[int, int]:
    found = (MODERN.detect(guest, root), LEGACY.detect(guest, root))
    assert guest._handle.mounts() == []
    return found


@pytest.mark.parametrize("name", VERSIONS)
def test_every_version(guest: Guest, windows: Provided, name: str) -> None:
    version = VERSIONS[name]
    built = windows(Image(name, control_set=2 if name == "7" else 1))
    assert _scores(guest) == ((0, 2) if version.legacy else (2, 0))
    assert _scores(guest, built.root) == ((0, 2) if version.legacy else (2, 0))
    assert Linux(None).detect(guest, None) == 0
    for family in FAMILIES.values():
        assert family.root(guest) == built.root

    assert _mount(guest, built.root, version.family) == []
    found = inspection.facts(guest)
    assert (found.version, found.build, found.product) == (
        *(version.nt, version.build, version.product),
    )
    assert (found.architecture, found.edition) == (version.architecture, version.edition)
    assert found.legacy == version.legacy
    assert found.powershell == version.powershell
    assert found.control_set == ("ControlSet002" if name == "7" else "ControlSet001")
    assert found.rid_500 == "Administrator"
    assert set(found.users) >= {"Administrator", "Guest"}
    inspection.check_generalised(found)
    assert guest.is_file("/windows/SYSTEM32/Config/software")


@pytest.mark.parametrize("layout", ["gpt", "gpt-old", "mbr-reserved", "mbr", "mbr-recovery"])
def test_every_layout(guest: Guest, windows: Provided, layout: str) -> None:
    built = windows(Image("2022", layout=layout))  # type: ignore[arg-type]
    assert _scores(guest) == (2, 0)
    assert MODERN.root(guest) == built.root
    assert _mount(guest, built.root) == []


def test_the_wrong_family_is_told_the_right_one(guest: Guest, windows: Provided) -> None:
    root = windows(Image("2022")).root
    with pytest.raises(GuestError, match=r"Windows Server 2022 Datacenter' \(NT 10.0\)") as caught:
        _mount(guest, root, "windows-legacy")
    assert "OSFAMILY to windows," in caught.value.remedy


def test_the_wrong_family_of_an_old_one(guest: Guest, windows: Provided) -> None:
    root = windows(Image("xp")).root
    with pytest.raises(GuestError, match=r"Microsoft Windows XP' \(NT 5.1\)") as caught:
        _mount(guest, root, "windows")
    assert "OSFAMILY to windows-legacy," in caught.value.remedy


@pytest.mark.parametrize("version", ["10", "xp"])
def test_hibernated(guest: Guest, windows: Provided, version: str) -> None:
    """Fast Startup leaves the same: the family is known, and MountImage refuses."""
    root = windows(Image(version, hibernated=True)).root
    family = VERSIONS[version].family
    assert _scores(guest) == ((2, 0) if family == "windows" else (0, 2))
    assert FAMILIES[family].root(guest) == root
    with pytest.raises(GuestError, match="holds a hibernated Windows") as caught:
        _mount(guest, root, family)
    assert "powercfg /h off" in caught.value.remedy
    assert "shutdown /s /t 0" in caught.value.remedy
    guest._handle.mount_vfs("ro", "lowntfs-3g", root, "/")
    assert guest._handle.filesize("/hiberfil.sys") == 8192, "the saved state is gone"
    guest.unmount_all()


def test_hibernated_with_hives_that_are_dirty(guest: Guest, windows: Provided) -> None:
    """The cause is what is told, not what follows from it."""
    windows(Image("10", hibernated=True, hives={"SOFTWARE": "dirty", "SYSTEM": "dirty"}))
    assert _scores(guest) == (1, 0)
    with pytest.raises(GuestError, match="holds a hibernated Windows"):
        MODERN.root(guest)


def test_encrypted(guest: Guest, windows: Provided) -> None:
    root = windows(Image("11", bitlocker=True)).root
    assert _scores(guest) == (1, 0)
    assert _scores(guest, root) == (1, 0)
    for refused in (lambda: MODERN.root(guest), lambda: _mount(guest, root)):
        with pytest.raises(GuestError, match="is encrypted with BitLocker") as caught:
            refused()
        assert "manage-bde -off C:" in caught.value.remedy


def test_damaged(guest: Guest, windows: Provided, laboratory: Laboratory) -> None:
    """The second record of its table of files is not what the table's copy says."""
    root = windows(Image("7", layout="mbr")).root
    boot = laboratory.handle.pread_device(root, 512, 0)
    cluster = int.from_bytes(boot[0x30:0x38], "little") * boot[0x0D] * 512
    laboratory.handle.pwrite_device(root, bytes(1024), cluster + 1024)
    assert _scores(guest) == (1, 0)
    for refused in (lambda: MODERN.root(guest), lambda: _mount(guest, root)):
        with pytest.raises(GuestError, match="is damaged") as caught:
            refused()
        assert "chkdsk" in caught.value.remedy


def test_a_check_that_is_due(guest: Guest, windows: Provided) -> None:
    root = windows(Image("2019", dirty=True)).root
    assert _scores(guest) == (2, 0)
    [warning] = _mount(guest, root)
    assert "is due for a check" in warning


def test_a_journal_that_was_not_closed(
    guest: Guest, windows: Provided, laboratory: Laboratory
) -> None:
    """As after a crash: mounted with a warning, and what Windows wrote last is gone."""
    root = windows(Image("2022")).root
    _open_journal(laboratory, root)
    assert guest.ntfs_state(root) == "unclean"
    assert _scores(guest) == (2, 0)
    assert guest.ntfs_state(root) == "unclean", "looking at it has changed it"
    [warning] = _mount(guest, root)
    assert "its journal is dropped" in warning
    guest.write("/new", "x")
    guest.unmount_all()
    assert guest.ntfs_state(root) == "clean"
    assert guest.ntfs(root).dirty, "Windows is to check what the journal would have repaired"


def _open_journal(laboratory: Laboratory, device: str) -> None:
    """Say in both restart pages of $LogFile, which ntfs-3g writes empty, that it is in use."""
    handle = laboratory.handle
    handle.umount_all()
    handle.mount_vfs("ro,show_sys_files", "lowntfs-3g", device, "/")
    assert handle.filesize("/$LogFile") > 8192
    handle.umount_all()
    place = _log_file(handle, device)
    page = bytearray(4096)
    page[:4] = b"RSTR"
    fields = (
        (0x04, 2, 30),  # update sequence array: where, and how long
        (0x06, 2, 9),
        (0x10, 4, 4096),  # bytes of the system's pages, and of the journal's
        (0x14, 4, 4096),
        (0x18, 2, 0x30),  # where the restart area is
        (0x1A, 2, 1),  # version 1.1
        (0x1C, 2, 1),
        (30, 2, 1),  # update sequence number
    )
    area = (
        (0x08, 2, 1),  # one client
        (0x0A, 2, 0xFFFF),  # none is free
        (0x0C, 2, 0),  # the first is in use
        (0x0E, 2, 0),  # and it was not closed
        (0x10, 4, 67 - 22),
        (0x14, 2, 0x40 + 160),
        (0x16, 2, 0x40),
        (0x18, 8, 4 << 20),
        (0x26, 2, 0x40),
    )
    client = ((0x10, 2, 0xFFFF), (0x12, 2, 0xFFFF), (0x1C, 4, 8))
    for start, values in ((0, fields), (0x30, area), (0x30 + 0x40, client)):
        for offset, length, value in values:
            page[start + offset : start + offset + length] = value.to_bytes(length, "little")
    page[0x30 + 0x40 + 0x20 : 0x30 + 0x40 + 0x28] = "NTFS".encode("utf-16-le")
    for sector in range(8):
        page[sector * 512 + 510 : sector * 512 + 512] = b"\1\0"
    handle.pwrite_device(device, bytes(page) * 2, place)


def _log_file(handle: object, device: str) -> int:
    """Where the data of file 2 of the MFT begins on a volume that mkntfs has made."""
    read = handle.pread_device  # type: ignore[attr-defined]
    boot = bytes(read(device, 512, 0))
    cluster = boot[0x0D] * 512
    record = bytes(read(device, 1024, int.from_bytes(boot[0x30:0x38], "little") * cluster + 2048))
    at = int.from_bytes(record[0x14:0x16], "little")
    while record[at] != 0x80:
        at += int.from_bytes(record[at + 4 : at + 8], "little")
    run = at + int.from_bytes(record[at + 0x20 : at + 0x22], "little")
    lengths, offsets = record[run] & 0xF, record[run] >> 4
    start = record[run + 1 + lengths : run + 1 + lengths + offsets]
    return int.from_bytes(start, "little") * cluster


def test_data_alone_is_no_windows(guest: Guest, laboratory: Laboratory) -> None:
    first, second = laboratory.partition("/dev/sda", "mbr", [64, 64])
    laboratory.handle.mkfs("ext4", first)
    laboratory.handle.mkfs("ntfs", second)
    laboratory.handle.part_set_mbr_id("/dev/sda", 2, 7)
    guest.reread("/dev/sda")
    laboratory.write_tree(first, {"/etc/os-release": "ID=debian\n"})
    laboratory.write_tree(second, {"/Windows/System32/config/notes": "", "/photo": ""})
    assert _scores(guest) == (0, 0)
    assert _scores(guest, second) == (0, 0)
    assert Linux(None).detect(guest, None) == 2
    with pytest.raises(GuestError, match=r"no Windows was found on: /dev/sda1 \(ext4\), /dev/sda2"):
        MODERN.root(guest)
    with pytest.raises(GuestError, match="/dev/sda1 holds ext4, and Windows lies on NTFS"):
        _mount(guest, first)
    with pytest.raises(GuestError, match="/dev/sda2 holds no Windows") as caught:
        _mount(guest, second)
    assert "ROOT_PARTITION" in caught.value.remedy


def test_two_of_them(guest: Guest, windows: Provided, laboratory: Laboratory) -> None:
    """System Reserved holds one, too: which is meant must be said."""
    windows(Image("2022", layout="mbr-reserved"))
    handle = laboratory.handle
    handle.mount("/dev/sda2", "/")
    hives = {
        name: handle.read_file(f"/Windows/System32/config/{name}")
        for name in ("SYSTEM", "SOFTWARE")
    }
    handle.umount_all()
    handle.mount("/dev/sda1", "/")
    handle.mkdir_p("/Windows/System32/config")
    for name, content in hives.items():
        handle.write(f"/Windows/System32/config/{name}", content)
    handle.umount_all()
    assert _scores(guest) == (2, 0)
    with pytest.raises(GuestError, match="ambiguous: /dev/sda1, /dev/sda2 each hold") as caught:
        MODERN.root(guest)
    assert "ROOT_PARTITION" in caught.value.remedy
    assert _scores(guest, "/dev/sda2") == (2, 0)
    assert _mount(guest, "/dev/sda2") == []


@pytest.mark.parametrize(
    ("name", "how"), [("SOFTWARE", "dirty"), ("SYSTEM", "truncated"), ("SAM", "checksum")]
)
def test_broken_hives(guest: Guest, windows: Provided, name: str, how: str) -> None:
    """One that is needed to tell the family lets none be sure; each is named."""
    image = Image("2022", hives={name: how})  # type: ignore[dict-item]
    root = windows(image).root
    assert _scores(guest) == ((1, 0) if name == "SOFTWARE" else (2, 0))
    with pytest.raises(GuestError, match=f"registry hive {name} ") as caught:
        _mount(guest, root)
    assert "prepare it again (sysprep" in caught.value.remedy


@pytest.mark.parametrize(
    ("version", "extra", "message"),
    [
        ("10", {"EditionID": Value.string("WindowsPE")}, "the guest is Windows PE"),
        ("xp", {"CurrentVersion": Value.string("5.0")}, r"\(NT 5.0\)"),
    ],
)
def test_windows_that_is_not_served(
    guest: Guest, windows: Provided, version: str, extra: dict[str, Value], message: str
) -> None:
    from tests.images import windows_hives

    image = Image(version)
    software = windows_hives.software(VERSIONS[version], image)
    changed = {CURRENT_VERSION: {**software[CURRENT_VERSION], **extra}}
    windows(Image(version, extra_software=changed))
    assert _scores(guest) == (1, 0)
    with pytest.raises(GuestError, match=message):
        MODERN.root(guest)


def test_windows_2000_says_where_it_lies(guest: Guest, laboratory: Laboratory) -> None:
    [device] = laboratory.partition("/dev/sda", "mbr", [64])
    laboratory.handle.mkfs("ntfs", device)
    laboratory.handle.part_set_mbr_id("/dev/sda", 1, 7)
    guest.reread("/dev/sda")
    laboratory.write_tree(device, {"/WINNT/system32/config/system": "", "/WINNT/notepad.exe": ""})
    assert _scores(guest) == (1, 0)
    with pytest.raises(GuestError, match=r"the guest's Windows lies in C:\\WINNT"):
        MODERN.root(guest)


def test_detection_is_quick(guest: Guest, windows: Provided) -> None:
    """Both families and the mounting look at each volume, and read each hive, once."""
    root = windows(Image("2022")).root
    before = time.process_time()
    calls = _counted(guest)
    _scores(guest)
    MODERN.root(guest)
    _mount(guest, root)
    assert calls.count("hivex_open") == 3, "SOFTWARE, SYSTEM, SAM"
    assert calls.count("mount_vfs") == 2, "once to look, once to stay"
    assert calls.count("ntfs_3g_probe") == 2
    assert len(calls) < 150
    assert time.process_time() - before < 5


def _counted(guest: Guest) -> list[str]:
    calls: list[str] = []
    original = guest._do

    def counted(name: str, *arguments: object, **options: object) -> object:
        calls.append(name)
        return original(name, *arguments, **options)

    guest._do = counted  # type: ignore[method-assign]
    return calls


class TestFilesOfWindows:
    """How files are written there."""

    def test_what_exists_is_written_in_place(
        self, guest: Guest, windows: Provided, laboratory: Laboratory
    ) -> None:
        """It keeps its identity, its short name and its access control list; the new is new."""
        _mount(
            guest, windows(Image("2022", files={"/Windows/Existing Name.txt": "old" * 999})).root
        )
        handle = laboratory.handle
        path = "/Windows/Existing Name.txt"
        handle.lsetxattr("system.ntfs_dos_name", "EXISTI~1.TXT", 12, path)
        kept = ("system.ntfs_dos_name", "system.ntfs_acl")
        before = [handle.lgetxattr(path, name) for name in kept]
        inode = handle.lstatns(path)["st_ino"]
        guest.write_files(
            [
                File("/windows/EXISTING name.TXT", "new\udcff"),
                File("/Windows/Brand New.txt", "x", 0o600, (1000, 1000)),
            ]
        )
        assert handle.read_file(path) == b"new\xff"
        assert handle.lstatns(path)["st_ino"] == inode
        assert [handle.lgetxattr(path, name) for name in kept] == before
        assert handle.read_file("/Windows/Brand New.txt") == b"x"
        guest.unmount_all()
        handle.mount("/dev/sda3", "/")
        names = [name for name in handle.ls("/Windows") if "New" in name or "snf" in name]
        assert names == ["Brand New.txt"], "spelled otherwise, or something is left"
        handle.umount_all()

    def test_nothing_is_written_through_reparse_points(
        self, guest: Guest, windows: Provided, laboratory: Laboratory
    ) -> None:
        _mount(guest, windows(Image("2022")).root)
        laboratory.handle.write("/target", b"untouched")
        laboratory.handle.ln_s("/target", "/link")
        for path in ("/Documents and Settings/x", "/users/DEFAULT user/x"):
            with pytest.raises(GuestError, match="is a symbolic link; nothing is written through"):
                guest.write(path, "x")
            with pytest.raises(GuestError, match="is a symbolic link"):
                guest.make_directory(path)
        with pytest.raises(GuestError, match="/link in the guest is a reparse point, not a file"):
            guest.write_files([File("/new", "x"), File("/link", "x")])
        assert guest.read("/target") == "untouched"
        assert guest.status("/new") is None
        with pytest.raises(GuestError, match="/Users in the guest is a directory, not a file"):
            guest.write("/Users", "x")

    def test_directories_and_many_files(self, guest: Guest, windows: Provided) -> None:
        _mount(guest, windows(Image("2022")).root)
        guest.make_directory("/Windows/SnfScripts/Below")
        guest.write_files([File(f"/Windows/SnfScripts/{i:03}", str(i)) for i in range(210)])
        names = guest.list("/windows/snfscripts")
        assert len(names) == 211
        assert guest.read("/Windows/SNFSCRIPTS/209") == "209"

    @pytest.mark.parametrize("name", ["NUL", "a:b", "dot.", "a\\b"])
    def test_names_that_windows_cannot_use(
        self, guest: Guest, windows: Provided, name: str
    ) -> None:
        _mount(guest, windows(Image("2022")).root)
        with pytest.raises(GuestError, match="Invalid argument"):
            guest.write(f"/Windows/{name}", "x")
        assert not [left for left in guest.list("/Windows") if "snf" in left]
