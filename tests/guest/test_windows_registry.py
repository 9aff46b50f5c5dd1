"""Hives in real NTFS, read and changed by hivex, and read again by another reader (regipy)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import GuestError
from snf_core.image import registry
from snf_core.image.registry import BINARY, SZ, Value
from tests.images import hive
from tests.images.windows import Built, Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snf_core.image.guest import Guest
    from snf_core.image.registry import Hive
    from tests.guest.conftest import Laboratory

    Windows = Callable[[Image], Built]

CONFIG = "/Windows/System32/config"
SYSTEM = f"{CONFIG}/SYSTEM"
TERMINAL = "ControlSet001\\Control\\Terminal Server"
HOSTILE = "ControlSet001\\Hostile"
IMAGE = Image(
    "10",
    administrator="Администратор",
    users=("Jürgen", "字"),
    extra_system={
        HOSTILE: {
            "odd": Value(SZ, "ab".encode("utf-16-le") + b"c"),
            "unterminated": Value(SZ, "ab".encode("utf-16-le")),
            "twice": Value(SZ, "a\0b\0".encode("utf-16-le")),
            "surrogate": Value(SZ, b"\x00\xd8a\x00"),
            "short": Value(registry.DWORD, b"\1\2"),
            "binary": Value(BINARY, bytes(range(256))),
            "of no type": Value(0x7FFF1234, b"12345678"),
        },
        "ControlSet001\\Large": {"large": Value(BINARY, bytes(16345)), "small": Value.dword(1)},
        "ControlSet001\\Control\\Ünïcode": {"größe": Value.dword(3)},
    },
)


@pytest.fixture
def guest(laboratory: Laboratory, windows: Windows) -> Iterator[Guest]:
    """A Windows 10, mounted."""
    laboratory.guest.mount_windows(windows(IMAGE).root)
    yield laboratory.guest
    laboratory.guest.unmount_all()


def _inode(laboratory: Laboratory) -> int:
    return int(laboratory.handle.lstatns(SYSTEM)["st_ino"])


def test_what_is_set_is_all_that_changes(guest: Guest, laboratory: Laboratory) -> None:
    """One value that exists, and one that does not: a full dump of the hive says so."""
    before = hive.dump(laboratory.handle.read_file(SYSTEM))
    inode = _inode(laboratory)
    assert before[f"\\{TERMINAL}:fDenyTSConnections"] == ("REG_DWORD", 1)

    with guest.registry(SYSTEM, write=True) as opened:
        opened.set(TERMINAL.upper(), "FDENYTSCONNECTIONS", Value.dword(0x80000001))
        opened.set("Select", "new", Value.strings(["eins", "zw€i"]))

    guest.unmount_all()
    guest.mount_windows("/dev/sda3")
    after = hive.dump(laboratory.handle.read_file(SYSTEM))
    changed = {
        name: after.get(name)
        for name in before.keys() | after.keys()
        if before.get(name, "nothing") != after.get(name, "nothing")
    }
    assert changed == {
        f"\\{TERMINAL}:fDenyTSConnections": ("REG_DWORD", 0x80000001),
        "\\Select:new": ("REG_MULTI_SZ", ["eins", "zw€i"]),
    }
    assert len(after) > 100
    assert _inode(laboratory) == inode, "another file took its place: its access control is gone"
    with guest.registry("/windows/SYSTEM32/config/system") as opened:
        found = opened.value(TERMINAL, "fdenytsconnections")
        assert found == Value.dword(0x80000001)


def test_nothing_is_written_where_the_block_fails(guest: Guest, laboratory: Laboratory) -> None:
    before = laboratory.handle.read_file(SYSTEM)
    with (
        pytest.raises(GuestError, match="does not exist"),
        guest.registry(SYSTEM, write=True) as opened,
    ):
        _set_and_fail(opened)
    with guest.registry(SYSTEM, write=True) as opened:
        assert opened.value(TERMINAL, "fDenyTSConnections") == Value.dword(1)
    assert laboratory.handle.read_file(SYSTEM) == before


def _set_and_fail(opened: Hive) -> None:
    opened.set(TERMINAL, "fDenyTSConnections", Value.dword(0))
    opened.set("None", "x", Value.dword(0))


def test_keys_and_values_are_found_in_any_case(guest: Guest) -> None:
    with guest.registry(SYSTEM) as opened:
        assert opened.has("controlset001\\CONTROL\\terminal server\\winstations")
        assert not opened.has("ControlSet001\\Control\\Terminal Server\\None\\At all")
        assert not opened.has("CurrentControlSet"), "which Windows makes only in memory"
        assert set(opened.keys("")) == {
            *("ControlSet001", "DriverDatabase", "MountedDevices", "Select", "Setup")
        }
        assert opened.keys("None") == []
        assert opened.values("None") == {}
        assert opened.value("None", "x") is None
        assert opened.value("Select", "x") is None
        assert opened.value("select", "CURRENT") == Value.dword(1)
        assert opened.values("ControlSet001\\Control\\Ünïcode") == {"größe": Value.dword(3)}


def test_values_by_their_types(guest: Guest) -> None:
    control = "ControlSet001\\Control\\Session Manager"
    with guest.registry(SYSTEM) as opened:
        environment = opened.values(f"{control}\\Environment")
        assert environment["ComSpec"].text == "%SystemRoot%\\system32\\cmd.exe"
        assert environment["ComSpec"].type == registry.EXPAND_SZ
        start = opened.value(control, "BootExecute")
        assert start is not None
        assert start.texts == ("autocheck autochk *",)
        current = opened.value("Select", "Current")
        assert current is not None
        assert (current.number, current.text) == (1, "")


def test_hostile_values_are_read_without_ado(guest: Guest) -> None:
    with guest.registry(SYSTEM) as opened:
        found = opened.values(HOSTILE)
    texts = {name: value.text for name, value in found.items() if value.type == SZ}
    assert texts == {"odd": "ab", "unterminated": "ab", "twice": "a", "surrogate": "\ufffda"}
    assert found["short"].number is None
    assert found["binary"].data == bytes(range(256))
    assert found["of no type"] == Value(0x7FFF1234, b"12345678")


def test_accounts_are_read_whatever_their_script(guest: Guest) -> None:
    names = "SAM\\Domains\\Account\\Users\\Names"
    with guest.registry(f"{CONFIG}/SAM") as opened:
        rids = {name: opened.values(f"{names}\\{name}")[""].type for name in opened.keys(names)}
    assert {name: rids[name] for name in ("Администратор", "Guest", "Jürgen", "字")} == {
        "Администратор": 500,
        "Guest": 501,
        "Jürgen": 1001,
        "字": 1002,
    }


def test_what_cannot_be_set(guest: Guest, laboratory: Laboratory) -> None:
    before = laboratory.handle.read_file(SYSTEM)
    with (
        pytest.raises(GuestError, match="was not opened for writing"),
        guest.registry(SYSTEM) as opened,
    ):
        opened.set("Select", "Current", Value.dword(2))
    with (
        pytest.raises(GuestError, match=r"registry key None of .*SYSTEM in the guest does not"),
        guest.registry(SYSTEM, write=True) as opened,
    ):
        opened.set("None", "x", Value.dword(2))
    with (
        pytest.raises(GuestError, match="value 'large' is too large"),
        guest.registry(SYSTEM, write=True) as opened,
    ):
        opened.set("ControlSet001\\Large", "small", Value.dword(2))
    assert laboratory.handle.read_file(SYSTEM) == before


def test_one_hive_at_a_time(guest: Guest) -> None:
    """The appliance knows one only: another would be read in its place."""
    with (
        guest.registry(SYSTEM) as opened,
        pytest.raises(GuestError, match=r"SAM in the guest is not opened while .*SYSTEM is"),
        guest.registry(f"{CONFIG}/SAM"),
    ):
        pass
    with guest.registry(f"{CONFIG}/SAM") as opened:
        assert opened.keys("") == ["SAM"]


def test_names_that_mean_harm(guest: Guest) -> None:
    with guest.registry(SYSTEM) as opened:
        for name in ("a\0b", "\udcff"):
            for use in (opened.has, opened.keys):
                with pytest.raises(GuestError, match="unusable name"):
                    use(name)
        assert not opened.has("x" * 5000)
        assert opened.value("Select", "Current") == Value.dword(1), "the hive is open no more"


def test_lists_are_bounded(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "KEYS_LIMIT", 3)
    monkeypatch.setattr(registry, "VALUES_LIMIT", 3)
    with guest.registry(SYSTEM) as opened:
        with pytest.raises(GuestError, match=r"ControlSet001.Control of .* more than 3 subkeys"):
            opened.keys("ControlSet001\\Control")
        with pytest.raises(GuestError, match=r"Select of .* more than 3 values"):
            opened.values("Select")
        monkeypatch.setattr(registry, "VALUES_LIMIT", 3000)
        monkeypatch.setattr(registry, "KEYS_LIMIT", 3000)
        monkeypatch.setattr(registry, "LIST_LIMIT", 10)
        for use in (opened.keys, opened.values):
            with pytest.raises(GuestError, match="holds more than 10 bytes"):
                use("ControlSet001\\Control\\Session Manager")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("dirty", "registry hive SYSTEM .* is dirty: Windows was not shut down fully"),
        ("checksum", "registry hive SYSTEM .* the checksum of its base block is wrong"),
        ("truncated", "registry hive SYSTEM .* is truncated"),
        ("missing", "SYSTEM in the guest does not exist"),
    ],
)
@pytest.mark.parametrize("write", [False, True])
def test_broken_hives_are_refused(
    laboratory: Laboratory, windows: Windows, how: str, message: str, write: bool
) -> None:
    laboratory.guest.mount_windows(windows(IMAGE).root)
    content = laboratory.handle.read_file(SYSTEM)
    laboratory.handle.rm(SYSTEM)
    if how != "missing":
        laboratory.handle.write(SYSTEM, hive.spoiled(content, how))
    with (
        pytest.raises(GuestError, match=message) as caught,
        laboratory.guest.registry(SYSTEM, write=write),
    ):
        pass
    assert caught.value.remedy
    with laboratory.guest.registry(f"{CONFIG}/SAM") as opened:
        assert opened.has("SAM")


def test_hives_that_are_no_files_of_the_guest(guest: Guest, laboratory: Laboratory) -> None:
    laboratory.handle.ln_s("/init", "/link")
    laboratory.handle.ln_s(CONFIG, "/directory")
    for path, message in (
        ("/link", "/link in the guest is not a regular file"),
        ("/directory/SYSTEM", "/directory in the guest is a symbolic link"),
        ("/Windows", "/Windows in the guest is not a regular file"),
    ):
        with pytest.raises(GuestError, match=message), guest.registry(path):
            pass


def test_damage_that_only_hivex_finds(guest: Guest, laboratory: Laboratory) -> None:
    """A hive of which the base block is well: the appliance survives, and says so."""
    content = bytearray(laboratory.handle.read_file(SYSTEM))
    root = 4096 + struct.unpack_from("<I", content, 36)[0]
    for offset, junk in ((root + 4, b"xx"), (root, b"\xff\xff\xff\x7f"), (4096 + 4, b"\xff" * 8)):
        spoiled = bytearray(content)
        spoiled[offset : offset + len(junk)] = junk
        laboratory.handle.write("/SPOILED", bytes(spoiled))
        with pytest.raises(GuestError), guest.registry("/SPOILED") as opened:
            opened.keys("")
    with guest.registry(SYSTEM) as opened:
        assert opened.has("Select")


def test_a_hive_of_random_bytes_ends_in_an_error(guest: Guest, laboratory: Laboratory) -> None:
    """Bins of nonsense below a base block that is well: hivex says so, and reads the next hive."""
    pattern = hive.empty("SYSTEM")[:4096] + b"hbin"
    for seed in range(1, 9):
        junk = bytes((index * index * seed) >> 3 & 0xFF for index in range(4092))
        laboratory.handle.write("/JUNK", pattern + junk)
        with pytest.raises(GuestError), guest.registry("/JUNK", write=True) as opened:
            opened.keys("")
    with guest.registry(SYSTEM) as opened:
        assert opened.has("Select")
