"""cloudbase-init in the guest: whether it does what is asked for, and how it is told.

cloudbase-init configures Windows at its first boots. What is relied upon here is what its
documentation (cloudbase-init.readthedocs.io: services, plugins, config) and its release 1.1.9 say:
it takes the first of its ``metadata_services`` that answers, and runs its ``plugins`` in their
order, each once for an instance id. Where an image has it, and it can do all that is asked for, it
gets a volume to read that from (``InitializeDatasource``), and the answer file's tasks have nothing
to do.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from snf_os_windows import inspection, paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

SERVICE = "cloudbase-init"
"""The name under which its installer registers it with Windows."""

_HOMES = tuple(
    f"{programs}/Cloudbase Solutions/Cloudbase-Init"
    for programs in ("/Program Files", "/Program Files (x86)")
)
_EARLY = "cloudbase-init-unattend.conf"
"""Its configuration for the specialize pass. What a plugin does there it does not do again."""
_DISABLED = 4
"""Of Start in a service's registry key (SERVICE_DISABLED in winnt.h)."""

CONFIG_DRIVE, NO_CLOUD = "ConfigDriveService", "NoCloudConfigDriveService"
"""The classes of the services that read a volume of ours. The first can be told all, the second no
password: a NoCloud datasource has none, as far as cloudbase-init reads it."""

_PLUGINS = (
    "SetHostNamePlugin",
    "CreateUserPlugin",
    "NetworkConfigPlugin",
    "SetUserSSHPublicKeysPlugin",
    "UserDataPlugin",
    "SetUserPasswordPlugin",
    "LocalScriptsPlugin",
)
"""Those of interest of the plugins that run where its configuration lists none, in their order."""

_EXCLUDED: Mapping[str, Mapping[str, Any]] = {
    "ASSIGNHOSTNAME": {"hostname": ""},
    "CHANGEPASSWORD": {"password": ""},
    "CONFIGURENETWORK": {"nics": (), "nameservers": (), "search_domains": ()},
    "ENFORCEPERSONALITY": {"personality": ()},
}
"""What a request does not ask for where a task is excluded."""

_CONFIGURATION = re.compile(r'--config-file[ =]+"?([^"]+\.conf)', re.IGNORECASE)
_PATH = re.compile(r"[Cc]:((?:[\\/][A-Za-z0-9 _.()~-]+)+)[\\/]?")


@dataclass(frozen=True)
class Agent:
    """cloudbase-init, as it is configured in a guest."""

    services: tuple[str, ...] = (CONFIG_DRIVE,)
    """Of its metadata services those that read a volume, by the name of the class, in order."""
    plugins: tuple[str, ...] = _PLUGINS
    """The names of its plugins' classes, in order."""
    username: str = "Admin"
    """Whose password and keys it sets, where it is not told."""
    injects: bool = True
    """Whether it takes a password that it is told."""
    reads_fat: bool = True
    """Whether it looks for FAT volumes on partitions."""
    scripts: str = ""
    """The directory whose scripts it runs, as the guest facade spells paths; empty: none."""
    answers: str = ""
    """The answer file that it brings along for Windows's setup, likewise; empty: none."""
    early: tuple[str, ...] = ()
    """The plugins that run in the specialize pass already, which that answer file has it do."""


@dataclass(frozen=True)
class Decision:
    """What becomes of a guest's cloudbase-init."""

    agent: Agent | None = None
    """None where the guest has none that would run."""
    service: str = ""
    """The service that a seed is for; empty: there is to be none."""
    reasons: tuple[str, ...] = field(default=())
    """Why not, where there is an agent."""


_decided: WeakKeyDictionary[Guest, Decision] = WeakKeyDictionary()


def seeded(guest: Guest, request: Customization) -> bool:
    """Whether cloudbase-init in the guest does what is asked for, so that no answer file need.

    Found out once per guest, while the system volume is mounted at ``/``. It then sets the
    computer's name, the password and the network at the guest's first boots. It does not grow the
    system volume: it looks for room behind the partition, which was grown already. A guest that was
    deployed before gets no other seed.
    """
    return bool(decision(guest, request).service)


def was_seeded(guest: Guest) -> bool:
    """Whether ``seeded`` was found to be so, for whoever comes after the guest is unmounted."""
    return guest in _decided and bool(_decided[guest].service)


def decision(guest: Guest, request: Customization) -> Decision:
    """Whether there is to be a seed, for which service, and why not. Found out once per guest."""
    if guest not in _decided:
        excluded = request.properties.flag("EXCLUDE_TASK_INITIALIZEDATASOURCE")
        agent = None if excluded or request.update else find(guest)
        _decided[guest] = _decide(agent, asked(request)) if agent else Decision()
    return _decided[guest]


def asked(request: Customization) -> Customization:
    """The request without what is excluded: cloudbase-init does the work of several tasks."""
    for task, nothing in _EXCLUDED.items():
        if request.properties.flag(f"EXCLUDE_TASK_{task}"):
            request = replace(request, **nothing)
    return request


def _decide(agent: Agent, request: Customization) -> Decision:
    reasons = tuple(_obstacles(agent, request))
    if reasons:
        return Decision(agent, "", reasons)
    return Decision(agent, CONFIG_DRIVE if CONFIG_DRIVE in agent.services else NO_CLOUD)


def _obstacles(agent: Agent, request: Customization) -> Iterator[str]:
    """What of the request it cannot do."""
    if not agent.services:
        yield f"its metadata_services have neither {CONFIG_DRIVE} nor {NO_CLOUD}"
    if not agent.reads_fat:
        yield "its [config_drive] leaves out the type vfat or the location partition"
    if request.answer_file:
        yield "os_answer_file is not for it"
    if request.product_key:
        yield "it sets no product key (os_product_key)"
    if any(nic.gateway_on_link for nic in request.nics):
        yield "it sets no gateway that lies outside the NIC's subnet"
    needed = {"SetHostNamePlugin": bool(request.hostname)}
    needed["NetworkConfigPlugin"] = any(nic.address or nic.mtu for nic in request.nics)
    needed["SetUserPasswordPlugin"] = bool(request.password)
    for plugin in [name for name, need in needed.items() if need]:
        if plugin not in agent.plugins:
            yield f"its plugins have no {plugin}"
    if request.password:
        yield from _password_obstacles(agent, request)


def _password_obstacles(agent: Agent, request: Customization) -> Iterator[str]:
    """Why a password cannot be set, or would stay on the seed in clear text."""
    plugins = agent.plugins
    if CONFIG_DRIVE not in agent.services:
        yield f"only {CONFIG_DRIVE}, which is not among its metadata_services, takes a password"
    if not agent.injects:
        yield "its inject_user_password is off"
    setting = "SetUserPasswordPlugin"
    after = plugins[plugins.index(setting) :] if setting in plugins else ()
    if len(request.users) > 1:
        yield "it sets the password of one user only (property USERS)"
    if request.users not in {(), (agent.username,)} and "CreateUserPlugin" not in plugins:
        yield f"its plugins have no CreateUserPlugin, so that it serves {agent.username} only"
    if not agent.scripts or "LocalScriptsPlugin" not in after:
        yield (
            "it could not remove the password from its seed: that takes LocalScriptsPlugin, behind "
            "SetUserPasswordPlugin, and local_scripts_path"
        )
    local = "LocalScriptsPlugin"
    if local in agent.early and setting not in agent.early[: agent.early.index(local)]:
        yield (
            "it would remove the password from its seed before it has set it: "
            f"{_EARLY} has LocalScriptsPlugin without SetUserPasswordPlugin before it"
        )


# -- recognition --------------------------------------------------------------------------------


def find(guest: Guest) -> Agent | None:
    """The cloudbase-init that Windows starts, if there is one. Raises GuestError for bad hives."""
    if not any(guest.is_directory(home) for home in _HOMES):
        return None
    services = f"{inspection.facts(guest).control_set}\\Services\\{SERVICE}"
    with guest.registry(paths.SYSTEM_HIVE) as hive:
        start = hive.value(services, "Start")
        image = hive.value(services, "ImagePath")
    if start is None or start.number is None or start.number >= _DISABLED:
        return None
    told = _CONFIGURATION.search(image.text) if image else None
    places = [own_path(told[1])] if told else []
    for place in [*places, *(f"{home}/conf/cloudbase-init.conf" for home in _HOMES)]:
        if place and guest.is_file(place):
            agent = read(guest.read(place) or "")
            answers = f"{posixpath.dirname(place)}/Unattend.xml"
            early = f"{posixpath.dirname(place)}/{_EARLY}"
            runs = "LocalScriptsPlugin" in agent.plugins
            return replace(
                agent,
                scripts=agent.scripts if runs and guest.is_directory(agent.scripts or "/") else "",
                answers=answers if guest.is_file(answers) else "",
                early=read(guest.read(early) or "").plugins if guest.is_file(early) else (),
            )
    return Agent()


def own_path(path: str) -> str:
    """A path on ``C:`` as the guest facade spells it; empty for any other, and what is none."""
    found = _PATH.fullmatch(path.strip().strip('"'))
    words = re.split(r"[\\/]", found[1])[1:] if found else []
    return "/" + "/".join(words) if words and not {".", ".."} & set(words) else ""


def read(text: str) -> Agent:
    """cloudbase-init as its configuration file says. It may be anything: what is odd is ignored."""
    options = _options(text)
    default = Agent()
    services = _names(options, "metadata_services")
    plugins = _names(options, "plugins")
    types = _list(options, "config_drive_types", "config_drive.types", "vfat")
    locations = _list(options, "config_drive_locations", "config_drive.locations", "partition")
    known = tuple(name for name in services if name in {CONFIG_DRIVE, NO_CLOUD})
    return Agent(
        known if services else default.services,
        plugins or default.plugins,
        options.get("username", "").strip() or default.username,
        options.get("inject_user_password", "").strip().lower() not in {"false", "0", "no", "off"},
        "vfat" in types and "partition" in locations,
        own_path(options.get("local_scripts_path", "")),
    )


def _options(text: str) -> Mapping[str, str]:
    """The options of a file in oslo.config's notation: ``name`` or ``group.name`` -> value.

    The last of several counts; lines that begin with a blank continue the one before.
    """
    found: dict[str, str] = {}
    group, name = "", ""
    for line in text.removeprefix("\ufeff").splitlines():
        if not line.strip() or line.lstrip()[0] in "#;":
            continue
        if line[0].isspace():
            if name:
                found[name] += " " + line.strip()
        elif line[0] == "[":
            title = line.partition("]")[0][1:].strip()
            group, name = ("" if title == "DEFAULT" else f"{title}."), ""
        else:
            key, _, value = line.partition("=")
            name = group + key.strip()
            found[name] = value.strip()
    return found


def _names(options: Mapping[str, str], name: str) -> tuple[str, ...]:
    """The names of classes in a list of modules' classes."""
    words = [word.strip(" \t'\"[]") for word in options.get(name, "").split(",")]
    return tuple(word.rpartition(".")[2] for word in words if word)


def _list(options: Mapping[str, str], old: str, new: str, default: str) -> set[str]:
    text = options.get(new, options.get(old, default))
    return {word.strip().lower() for word in text.split(",")}
