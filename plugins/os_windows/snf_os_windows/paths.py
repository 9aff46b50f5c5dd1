"""Where things lie on the system volume of a Windows, as the guest facade spells paths.

Windows looks names up without regard to case, and so does the volume when it is mounted.
"""

from __future__ import annotations

WINDOWS = "/Windows"
SYSTEM32 = f"{WINDOWS}/System32"
CONFIG = f"{SYSTEM32}/config"
SYSTEM_HIVE = f"{CONFIG}/SYSTEM"
SOFTWARE_HIVE = f"{CONFIG}/SOFTWARE"
SAM_HIVE = f"{CONFIG}/SAM"
POWERSHELL = f"{SYSTEM32}/WindowsPowerShell/v1.0/powershell.exe"
DRIVERS = f"{SYSTEM32}/drivers"
SYSPREP = f"{SYSTEM32}/Sysprep"
PANTHER = f"{WINDOWS}/Panther"
SETUP_SCRIPTS = f"{WINDOWS}/Setup/Scripts"
SETUP_COMPLETE = f"{SETUP_SCRIPTS}/SetupComplete.cmd"
SCRIPTS = f"{WINDOWS}/SnfScripts"
"""Ours; it is gone after the first boot."""

LEGACY_SYSPREP = "/sysprep"
"""Of XP and Server 2003, in the root of the volume."""

OTHER_SYSTEM_ROOTS = ("/WINNT",)
"""System directories of Windows that is not served: NT 4 and 2000, or installed over them."""


def windows_path(path: str) -> str:
    """A path as Windows spells it: ``C:\\Windows`` of ``/Windows``."""
    return "C:" + path.replace("/", "\\")
