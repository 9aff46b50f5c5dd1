"""What a mounted Windows says of itself in its registry.

Names and values are those of "Determining the version of Windows" and "Windows Setup states" in
Microsoft's documentation, and of the hives of the versions themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from snf_core.errors import GuestError
from snf_os_windows import paths

if TYPE_CHECKING:
    from snf_core.image.guest import Guest
    from snf_core.image.registry import Hive

ARCHITECTURES = {"amd64": "amd64", "x86": "x86", "arm64": "arm64"}
"""PROCESSOR_ARCHITECTURE in lower case -> the word of answer files."""

ADMINISTRATOR_RID = 500
"""Of the built-in administrator, whatever the account is called (MS-SAMR 2.2.1.14)."""

_CURRENT_VERSION = "Microsoft\\Windows NT\\CurrentVersion"
_STATE = "Microsoft\\Windows\\CurrentVersion\\Setup\\State"
_ENVIRONMENT = "Control\\Session Manager\\Environment"
_POLICIES = "Policies\\Microsoft\\Windows NT\\Terminal Services"
_LANGUAGES = "Control\\MUI\\UILanguages"
_ACCOUNTS = "SAM\\Domains\\Account\\Users\\Names"

_GENERALISE = (
    "generalise the template (sysprep /generalize /oobe /shutdown) before its image is taken"
)
_LEGACY_GENERALISE = (
    "run C:\\sysprep\\sysprep.exe -mini -quiet -reseal in the template before its image is taken"
)


@dataclass(frozen=True)
class Software:
    """What the SOFTWARE hive says."""

    version: tuple[int, int]
    build: int
    product: str
    edition: str
    installation_type: str
    image_state: str
    time_zones: tuple[str, ...] = ()
    remote_desktop_policy: bool = False

    @property
    def family(self) -> str:
        """The guest family that serves it."""
        return "windows-legacy" if self.version < (6, 0) else "windows"


@dataclass(frozen=True)
class Facts:
    """A Windows installation."""

    version: tuple[int, int]
    """Of NT: (6, 1) for Windows 7, (10, 0) for 10, 11 and Server from 2016 on."""
    build: int
    """20348 for Server 2022."""
    product: str
    """``Windows Server 2022 Datacenter``, as its registry says: 11 calls itself 10."""
    edition: str
    """``ServerDatacenter``; empty in XP."""
    architecture: str
    """As answer files call it: ``amd64``, ``x86`` or ``arm64``."""
    control_set: str
    """``ControlSet001``: the key of the SYSTEM hive that the next boot uses."""
    image_state: str = ""
    """``IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE``; empty before Vista."""
    installation_type: str = ""
    """``Client``, ``Server`` or ``Server Core``; empty before Windows 7."""
    powershell: bool = True
    """Whether it has Windows PowerShell, which is optional up to Server 2008."""
    rid_500: str = "Administrator"
    """The account name of the built-in administrator, which is localised."""
    users: tuple[str, ...] = ("Administrator",)
    """The names of all accounts in its SAM."""
    setup_in_progress: bool = True
    """Before Vista: whether Setup is what starts next."""
    mini_setup: bool = True
    """Before Vista: whether that is the mini-setup, which sysprep prepares."""
    time_zones: tuple[str, ...] = ()
    """The names of those that it knows; updates add and split some."""
    languages: tuple[str, ...] = ()
    """Those that it can show, ``en-US`` for example; empty before Vista."""
    answer_file: str = ""
    """Path in Windows of the answer file that its registry names; usually it names none."""
    remote_desktop_policy: bool = False
    """Whether a group policy keeps remote desktop open, whatever its own setting says."""

    @property
    def legacy(self) -> bool:
        """Whether it is XP or Server 2003, which read no XML."""
        return self.version < (6, 0)

    @property
    def system_root(self) -> str:
        """``C:\\Windows``: another is not served."""
        return paths.windows_path(paths.WINDOWS)


_NOT_SERVED = "use an image of Windows XP, Server 2003 or later that is installed in C:\\Windows"

_software: WeakKeyDictionary[Guest, dict[str, Software]] = WeakKeyDictionary()
_facts: WeakKeyDictionary[Guest, Facts] = WeakKeyDictionary()


def facts(guest: Guest, device: str = "") -> Facts:
    """What the Windows mounted at ``/`` is; found out once for each guest.

    ``device``: which volume it is, for whom that knows: what its detection has read is used again.
    Raises GuestError for hives that are missing, dirty or damaged, and for what they do not say.
    """
    if guest not in _facts:
        _facts[guest] = _inspected(guest, software(guest, device))
    return _facts[guest]


def software(guest: Guest, device: str = "") -> Software:
    """What the SOFTWARE hive of the Windows mounted at ``/`` says; read once where ``device``,
    the volume that it is, is known. Raises as ``facts``.
    """
    known = _software.setdefault(guest, {})
    if device not in known:
        with guest.registry(paths.SOFTWARE_HIVE) as hive:
            found = _read_software(hive)
        if not device:
            return found
        known[device] = found
    return known[device]


def is_installed(guest: Guest) -> bool:
    """Whether a Windows lies on the volume that is mounted.

    Raises GuestError for one so old that its directory is another.
    """
    for directory in paths.OTHER_SYSTEM_ROOTS:
        if guest.is_file(f"{directory}/System32/config/SYSTEM"):
            raise GuestError(
                f"the guest's Windows lies in {paths.windows_path(directory)}", remedy=_NOT_SERVED
            )
    found = guest.statuses([paths.SYSTEM_HIVE, paths.SOFTWARE_HIVE])
    return len(found) == 2 and all(status.is_file for status in found.values())


def check_generalised(found: Facts) -> None:
    """Raise GuestError where the template was not prepared to become many machines.

    Not for guests that are only brought up to date, or set up by an agent of their own.
    """
    state = found.image_state
    if found.legacy:
        if not found.setup_in_progress:
            raise GuestError("the guest's Windows is not sealed", remedy=_LEGACY_GENERALISE)
        if not found.mini_setup:
            raise GuestError(
                "the guest's Windows is sealed, but not for a mini-setup", remedy=_LEGACY_GENERALISE
            )
    elif not state.startswith("IMAGE_STATE_GENERALIZE_RESEAL_TO_"):
        problem = {
            "": "does not say whether it was generalised",
            "IMAGE_STATE_COMPLETE": "is set up completely, and not generalised",
            "IMAGE_STATE_UNDEPLOYABLE": "cannot be deployed: its setup or sysprep has failed",
            "IMAGE_STATE_SPECIALIZE_RESEAL_TO_OOBE": "is specialised, and not generalised",
            "IMAGE_STATE_SPECIALIZE_RESEAL_TO_AUDIT": "is specialised, and not generalised",
        }.get(state, f"is in an unknown state, {state[:80]!r}")
        raise GuestError(f"the guest's Windows {problem}", remedy=_GENERALISE)


def _inspected(guest: Guest, found: Software) -> Facts:
    with guest.registry(paths.SYSTEM_HIVE) as hive:
        control_set = _control_set(hive)
        architecture = _architecture(hive, control_set)
        setup = {
            name: _number(hive, "Setup", name) == 1
            for name in ("SystemSetupInProgress", "MiniSetupInProgress")
        }
        answer_file = _text(hive, "Setup", "UnattendFile")
        languages = tuple(hive.keys(f"{control_set}\\{_LANGUAGES}"))
    with guest.registry(paths.SAM_HIVE) as hive:
        users = tuple(hive.keys(_ACCOUNTS))
        defaults = {name: hive.value(f"{_ACCOUNTS}\\{name}", "") for name in users}
    # The type of a name's default value is the RID of its account.
    built_in = [
        name for name, value in defaults.items() if value and value.type == ADMINISTRATOR_RID
    ]
    if not built_in:
        raise GuestError(
            "the guest's Windows has no built-in administrator", remedy="repair its SAM hive"
        )
    return Facts(
        version=found.version,
        build=found.build,
        product=found.product,
        edition=found.edition,
        architecture=architecture,
        control_set=control_set,
        image_state=found.image_state,
        installation_type=found.installation_type,
        powershell=guest.is_file(paths.POWERSHELL),
        rid_500=built_in[0],
        users=users,
        setup_in_progress=setup["SystemSetupInProgress"],
        mini_setup=setup["MiniSetupInProgress"],
        time_zones=found.time_zones,
        languages=languages,
        answer_file=answer_file,
        remote_desktop_policy=found.remote_desktop_policy,
    )


def _read_software(hive: Hive) -> Software:
    # 10 and later call themselves 6.3 where the older value is asked.
    major, minor = (
        _number(hive, _CURRENT_VERSION, f"Current{part}VersionNumber")
        for part in ("Major", "Minor")
    )
    if major is None or minor is None:
        text = _text(hive, _CURRENT_VERSION, "CurrentVersion")
        parts = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", text)
        if not parts:
            raise GuestError(f"the guest's Windows says that its version is {text[:80]!r}")
        major, minor = int(parts[1]), int(parts[2])
    edition = _text(hive, _CURRENT_VERSION, "EditionID")
    product = _text(hive, _CURRENT_VERSION, "ProductName")
    system_root = _text(hive, _CURRENT_VERSION, "SystemRoot")
    if edition == "WindowsPE":
        raise GuestError("the guest is Windows PE, not an installed Windows", remedy=_NOT_SERVED)
    if (major, minor) < (5, 1) or system_root.lower() != "c:\\windows":
        raise GuestError(
            f"the guest is {product[:80]!r} (NT {major}.{minor}) in {system_root[:80]!r}",
            remedy=_NOT_SERVED,
        )
    # Of CurrentBuild, XP says that it is obsolete.
    build = _text(hive, _CURRENT_VERSION, "CurrentBuildNumber")
    return Software(
        version=(major, minor),
        build=int(build) if re.fullmatch(r"[0-9]{1,9}", build) else 0,
        product=product,
        edition=edition,
        installation_type=_text(hive, _CURRENT_VERSION, "InstallationType"),
        image_state=_text(hive, _STATE, "ImageState"),
        time_zones=tuple(hive.keys(f"{_CURRENT_VERSION}\\Time Zones")),
        remote_desktop_policy=_number(hive, _POLICIES, "fDenyTSConnections") == 0,
    )


def _control_set(hive: Hive) -> str:
    number = _number(hive, "Select", "Current")
    name = f"ControlSet{number or 0:03}"
    if not number or not hive.has(name):
        raise GuestError(
            f"the guest's Windows has no control set to start with: Select\\Current is {number}",
            remedy="repair the image's SYSTEM hive",
        )
    return name


def _architecture(hive: Hive, control_set: str) -> str:
    text = _text(hive, f"{control_set}\\{_ENVIRONMENT}", "PROCESSOR_ARCHITECTURE")
    if text.lower() not in ARCHITECTURES:
        raise GuestError(
            f"the guest's Windows is for a processor that is not served: {text[:80]!r}",
            remedy="use an image for " + ", ".join(ARCHITECTURES.values()),
        )
    return ARCHITECTURES[text.lower()]


def _text(hive: Hive, key: str, name: str) -> str:
    value = hive.value(key, name)
    return value.text if value else ""


def _number(hive: Hive, key: str, name: str) -> int | None:
    value = hive.value(key, name)
    return value.number if value else None
