"""What the first boot finds on real NTFS, once all tasks that leave it something have run."""

from __future__ import annotations

import base64
import ipaddress
import posixpath
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.image.customization import Customization
from snf_core.image.nics import NicPlan
from snf_core.image.properties import Properties
from snf_core.image.registry import Value
from snf_os_windows import first_boot, inspection, paths
from snf_os_windows.filesystem import FilesystemResizeMounted
from snf_os_windows.network import ConfigureNetwork
from snf_os_windows.remote_desktop import DisableRemoteDesktopConnections
from snf_os_windows.users import ChangePassword
from tests.images.windows import VERSIONS, Built, Image
from tests.scripts.powershell import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from snf_core.image.guest import Guest
    from tests.guest.conftest import Laboratory

    Provided = Callable[[Image], Built]

SECRET = 'a %b% "c" & d|e^f'
TASKS = (
    ChangePassword,
    ConfigureNetwork,
    DisableRemoteDesktopConnections,
    FilesystemResizeMounted,
)
KEY = "ControlSet002\\Control\\Terminal Server"
NIC = NicPlan(
    0,
    "aa:00:00:12:34:ab",
    "static",
    "slaac",
    address=ipaddress.IPv4Interface("192.0.2.2/24"),
    gateway=ipaddress.IPv4Address("192.0.2.1"),
    mtu=1450,
)
OWN = "@echo off\r\nrem Eigenes Skript: \xfc\r\n".encode("cp1252")


@pytest.fixture
def guest(laboratory: Laboratory) -> Guest:
    """A guest of which nothing is known yet: what is known of one is kept as long as it lives."""
    from snf_core.image.guest import Guest

    return Guest(laboratory.handle)


def _customize(guest: Guest, built: Built, version: str) -> list[str]:
    """As the engine does, in InstallUnattend's place. Returns the warnings."""
    request = Customization(
        "vm1",
        properties=Properties(),
        nics=(NIC,),
        password=SECRET,
        users=("ADMINISTRATOR",),
        facts={"family": VERSIONS[version].family, "root": built.root},
    )
    guest.mount_windows(built.root)
    first_boot.install(guest, inspection.facts(guest))
    return [warning for task in TASKS for warning in task(None).run(guest, request)]


def _scripts(handle: Any, built: Built) -> dict[str, bytes]:
    """What lies there once all is written."""
    handle.umount_all()
    handle.mount_vfs("ro,ignore_case", "lowntfs-3g", built.root, "/")
    try:
        return {
            name: handle.read_file(f"{paths.SCRIPTS}/{name}") for name in handle.ls(paths.SCRIPTS)
        }
    finally:
        handle.umount_all()


@pytest.mark.parametrize(
    ("version", "names"),
    [
        (
            "2022",
            ["10-extend.ps1", "20-network.again.ps1", "30-password.secret.ps1",
             "30-password.secret.txt", "35-accounts.again.ps1", "40-remote-desktop.ps1",
             "run.cmd", "run.ps1"],
        ),
        (
            "vista",
            ["10-extend.cmd", "20-network.again.cmd", "30-password.secret.cmd",
             "35-accounts.again.cmd", "40-remote-desktop.cmd", "run.cmd"],
        ),
    ],
)  # fmt: skip
def test_all_tasks(
    guest: Guest, windows: Provided, laboratory: Laboratory, version: str, names: list[str]
) -> None:
    own = {"/Windows/Setup/Scripts/SetupComplete.cmd": OWN}
    built = windows(Image(version, remote_desktop=0, control_set=2, files=own))
    assert _customize(guest, built, version) == []
    with guest.registry(paths.SYSTEM_HIVE) as hive:
        assert hive.value(KEY, "fDenyTSConnections") == Value.dword(1)
    complete = (guest.read(paths.SETUP_COMPLETE) or "").encode(errors="surrogateescape")
    assert complete.startswith(b'@if exist "%SystemRoot%\\SnfScripts\\run.cmd" call ')
    assert complete.endswith(b"\r\n" + OWN)
    guest.unmount_all()
    found = _scripts(laboratory.handle, built)
    assert sorted(found) == names
    for name, content in found.items():
        text = content.decode("ascii")
        assert text.count("\n") == text.count("\r\n")
        if posixpath.splitext(name)[1] == ".ps1":
            check(text)
            assert SECRET not in text
        assert not any(char < 0x20 and char not in b"\r\n\t" for char in content)
    last = sorted(name for name in found if ".secret." in name)[-1]
    assert len(found[last]) % 4096 == 0
    if version == "2022":
        assert base64.b64decode(found[last]).decode("utf-16-le") == SECRET


def test_xp(guest: Guest, windows: Provided, laboratory: Laboratory) -> None:
    sysprep = {"/sysprep/sysprep.inf": "[GuiUnattended]\r\nAdminPassword=own\r\n"}
    built = windows(Image("xp", remote_desktop=0, files=sysprep, users=("x",)))
    request = Customization(
        "vm1",
        properties=Properties(),
        nics=(NIC,),
        password="a b",
        users=("x",),
        facts={"family": "windows-legacy", "root": built.root},
    )
    guest.mount_windows(built.root)
    first_boot.install(guest, inspection.facts(guest))
    assert [w for task in TASKS for w in task(None).run(guest, request)] == []
    assert guest.status(paths.SETUP_COMPLETE) is None
    guest.unmount_all()
    assert sorted(_scripts(laboratory.handle, built)) == [
        "20-network.again.cmd",
        "30-password.secret.cmd",
        "35-accounts.again.cmd",
        "40-remote-desktop.cmd",
        "run.cmd",
    ]
