"""EnforcePersonality over real file systems, as the guest will see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_core.errors import GuestError
from snf_core.image.customization import Customization, PersonalFile
from snf_core.image.properties import Properties
from snf_os_linux.personality import EnforcePersonality
from snf_os_windows import first_boot, inspection, paths
from snf_os_windows.personality import EnforcePersonality as EnforceWindowsPersonality

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.guest.conftest import Laboratory

BINARY = bytes(range(256)) * 64
LABEL = "system_u:object_r:etc_t:s0"
SERVER = inspection.Facts((10, 0), 20348, "Windows Server 2022", "", "amd64", "ControlSet001")


@pytest.fixture
def lab(laboratory: Laboratory) -> Iterator[Laboratory]:
    """The laboratory, with nothing mounted afterwards."""
    yield laboratory
    laboratory.guest.unmount_all()


def request(*files: PersonalFile) -> Customization:
    """What a tenant asks for."""
    return Customization("vm1", properties=Properties(), personality=files)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_linux(lab: Laboratory, kind: str) -> None:
    [root] = lab.partition("/dev/sda", "gpt", [400])
    handle, guest = lab.handle, lab.guest
    handle.mkfs(kind, root)
    passwd = "root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n"
    lab.write_tree(
        root,
        {"/etc/passwd": passwd, "/etc/group": "staff:x:50:\n", "/etc/motd": "old", "/etc/x": "x"},
    )
    handle.mount(root, "/")
    handle.lsetxattr("security.selinux", LABEL, len(LABEL), "/etc/motd")
    handle.chmod(0o777, "/etc/motd")
    handle.ln_s("/etc/x", "/etc/link")
    handle.ln_s("etc", "/elsewhere")
    files = (
        PersonalFile("/etc/motd", b"new\n", "user", "staff", 0o4751),
        PersonalFile("/srv/a b/ä/key", BINARY, "user", "staff", 0o600),
        PersonalFile("/etc/link", b"no link"),
    )
    assert list(EnforcePersonality(None).run(guest, request(*files))) == []
    with pytest.raises(GuestError, match="/elsewhere in the guest is a symbolic link to 'etc'"):
        list(EnforcePersonality(None).run(guest, request(PersonalFile("/elsewhere/x", b""))))
    guest.unmount_all()

    handle.mount_ro(root, "/")
    found = {}
    for path in ("/etc/motd", "/srv", "/srv/a b", "/srv/a b/ä", "/srv/a b/ä/key", "/etc/link"):
        status = handle.lstatns(path)
        found[path] = oct(status["st_mode"]), status["st_uid"], status["st_gid"]
    assert found == {
        "/etc/motd": ("0o104751", 1000, 50),
        **dict.fromkeys(("/srv", "/srv/a b", "/srv/a b/ä"), ("0o40750", 1000, 50)),
        "/srv/a b/ä/key": ("0o100600", 1000, 50),
        "/etc/link": ("0o100440", 0, 0),
    }
    assert handle.read_file("/srv/a b/ä/key") == BINARY
    assert handle.read_file("/etc/motd") == b"new\n"
    assert handle.read_file("/etc/x") == b"x"
    assert handle.lgetxattr("/etc/motd", "security.selinux") == LABEL.encode()


def test_windows(lab: Laboratory) -> None:
    [volume] = lab.partition("/dev/sda", "mbr", [200])
    handle, guest = lab.handle, lab.guest
    handle.mkfs("ntfs", volume)
    lab.write_tree(volume, {"/Windows/System32/drivers/etc/Hosts": "old", "/Users/x": "x"})
    guest.mount_windows(volume)
    inspection._facts[guest] = SERVER
    first_boot.install(guest, SERVER)
    files = (
        PersonalFile("/windows/SYSTEM32/drivers/etc/hosts", b"new"),
        PersonalFile("/Grüße/a b/key.bin", BINARY),
    )
    for _ in range(2):
        assert list(EnforceWindowsPersonality(None).run(guest, request(*files))) == []
    guest.unmount_all()

    handle.mount_ro(volume, "/")
    folder = "/Windows/System32/drivers/etc"
    names = sorted(handle.ls(folder))
    assert len(names) == 3, "the file, and a backup of each that was there"
    contents = {name: handle.read_file(f"{folder}/{name}") for name in names}
    assert contents.pop("hosts") == b"new"
    assert all(name.lower().startswith("hosts.bak.2") for name in contents)
    assert sorted(contents.values()) == [b"new", b"old"]
    assert handle.read_file("/Grüße/a b/key.bin") == BINARY
    (script,) = [name for name in handle.ls(paths.SCRIPTS) if "permissions" in name]
    assert b"icacls" in handle.read_file(f"{paths.SCRIPTS}/{script}")
