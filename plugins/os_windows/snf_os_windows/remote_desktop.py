"""DisableRemoteDesktopConnections: nobody logs on remotely before the first boot is through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import Task
from snf_core.image.registry import Value
from snf_os_windows import answer_file, batch, cloudbase, first_boot, inspection, paths
from snf_os_windows.first_boot import Fragment, Host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

_KEY = r"Control\Terminal Server"
_VALUE = "fDenyTSConnections"
"""0: remote desktop is open. Anything else, or no such value: it is closed."""

_OPEN = {
    Host.POWERSHELL: (
        rf"$key = 'HKLM:\SYSTEM\CurrentControlSet\{_KEY}'"
        f"\n$ErrorActionPreference = 'Stop'\nSet-ItemProperty $key {_VALUE} 0 -Type DWord\n"
    ),
    Host.CMD: (
        batch.BEGIN + r'"%SystemRoot%\System32\reg.exe" add '
        rf'"HKLM\SYSTEM\CurrentControlSet\{_KEY}" /v {_VALUE} /t REG_DWORD /d 0 /f'
        "\n"
    ),
}


class DisableRemoteDesktopConnections(Task):
    """Close remote desktop until passwords are set: an image's is blank, or known to many.

    The first boot opens it again where the image has it open, and leaves it closed otherwise.
    """

    api_version = "1.0"
    after = ("InstallUnattend",)
    needs = ("InstallUnattend",)

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Close it; warn where that is in vain.

        Raises GuestError for a registry that is dirty or damaged.
        """
        if cloudbase.seeded(guest, request):
            return
        facts = inspection.facts(guest)
        if facts.remote_desktop_policy:
            yield (
                "remote desktop is open during the first boot, before passwords are set: a group "
                "policy of the image (Terminal Services, fDenyTSConnections) keeps it so"
            )
        # Settings of an answer file count as the image's.
        opened = not facts.legacy and answer_file.close_remote_desktop(guest)
        key = f"{facts.control_set}\\{_KEY}"
        with guest.registry(paths.SYSTEM_HIVE, write=True) as hive:
            value = hive.value(key, _VALUE)
            if value is not None and value.number == 0:
                hive.set(key, _VALUE, Value.dword(1))
                opened = True
        if opened:
            script = _OPEN[first_boot.host(facts)]
            first_boot.add(guest, facts, Fragment("remote-desktop", 40, script))
