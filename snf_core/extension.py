"""The extension points: where plugins are looked up, loaded and checked.

Plugins are setuptools entry points, loaded by name with stevedore; only what is named is
imported. A plugin that cannot be loaded, states another API version or does not fit its
contract is an error that names its distribution, and never touches the other plugins.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from snf_core import contract
from snf_core.errors import PluginConflictError, PluginError, SnfError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.metadata import EntryPoint, EntryPoints

    from snf_core.config import Config

T = TypeVar("T", bound=contract.Plugin)


@dataclass(frozen=True)
class ExtensionPoint(Generic[T]):
    """A namespace of entry points, the contract they fulfil and its version (MAJOR.MINOR).

    A plugin fits if it was written for the same MAJOR and the same or an earlier MINOR.
    """

    namespace: str
    contract: type[T]
    api_version: str = "1.0"

    def group(self, name: str) -> str:
        """The option group of the plugin ``name``: ``hypervisor.kvm``, ``image.source.local``.

        In lower case, as oslo.config has groups: in a file, they are found in any case.
        """
        return f"{self.namespace.removeprefix('snf.')}.{name.lower()}"


HYPERVISOR = ExtensionPoint("snf.hypervisor", contract.Hypervisor)
NETWORK_SETUP = ExtensionPoint("snf.network.setup", contract.Setup)
GUEST = ExtensionPoint("snf.guest", contract.GuestFamily)
GUEST_TASK = ExtensionPoint("snf.guest.task", contract.Task)
IMAGE_SOURCE = ExtensionPoint("snf.image.source", contract.Source)
IMAGE_DESTINATION = ExtensionPoint("snf.image.destination", contract.Destination)
IMAGE_FORMAT = ExtensionPoint("snf.image.format", contract.Format)

CORE_POINTS: tuple[ExtensionPoint[contract.Plugin], ...] = (
    HYPERVISOR,
    NETWORK_SETUP,
    GUEST,
    GUEST_TASK,
    IMAGE_SOURCE,
    IMAGE_DESTINATION,
    IMAGE_FORMAT,
)  # type: ignore[assignment]  # a point of some plugins is a point of plugins to be listed

POINTS_NAMESPACE = "snf.extension_point"
"""Where a plugin publishes extension points of its own: entry point name = namespace."""


@dataclass(frozen=True)
class Listed:
    """A plugin as ``snf plugins`` shows it; ``error`` is empty where it can be used."""

    namespace: str
    name: str
    distribution: str
    version: str
    target: str
    error: str


def names(point: ExtensionPoint[T]) -> list[str]:
    """The names of all plugins of an extension point, sorted; nothing is imported."""
    return sorted({entry.name for entry in entries(point.namespace)})


def load(point: ExtensionPoint[T], name: str) -> type[T]:
    """The plugin class ``name``, checked against its contract; no other plugin is imported.

    Raises PluginConflictError if two distributions provide it, PluginError if none does, if its
    import fails or if it does not fit.
    """
    found = [entry for entry in entries(point.namespace) if entry.name == name]
    if not found:
        known = ", ".join(names(point)) or "none"
        raise PluginError(
            f"there is no plugin {name!r} in {point.namespace}",
            remedy=f"install the distribution that provides it; installed: {known}",
        )
    if len(found) > 1:
        raise PluginConflictError(
            f"plugin {name!r} of {point.namespace} is provided twice: {_origins(found)}",
            remedy="remove one of the two distributions",
        )
    try:
        plugin = _imported(point.namespace, name)
    except (Exception, SystemExit) as error:  # importing a plugin may raise anything
        raise PluginError(
            f"plugin {name!r} of {point.namespace} ({_origins(found)}) cannot be loaded: "
            f"{type(error).__name__}: {error}",
            remedy="repair or remove that distribution",
        ) from error
    problem = _misfit(point, plugin)
    if problem:
        raise PluginError(
            f"plugin {name!r} of {point.namespace} ({_origins(found)}) does not fit: {problem}",
            remedy="install a version of that distribution made for this snf-core",
        )
    return plugin  # type: ignore[no-any-return]


def make(point: ExtensionPoint[T], name: str, config: Config) -> T:
    """Load the plugin ``name`` and hand it its own options, checked. Raises also ConfigError."""
    plugin = load(point, name)
    return plugin(config.plugin(point.group(name), plugin.options))


def listing() -> Iterator[Listed]:
    """Every installed plugin of every extension point, with its error where it has one.

    Extension points that plugins define are listed too, and entry points of ours (``snf.*``)
    that no extension point is there for: a misspelt namespace would go unnoticed otherwise.
    """
    known = {POINTS_NAMESPACE}
    for point in points():
        known.add(point.namespace)
        for entry in entries(point.namespace):
            yield _listed(entry, functools.partial(load, point, entry.name))
    for entry in entries(POINTS_NAMESPACE):
        yield _listed(entry, functools.partial(_defined, entry))
    for namespace in sorted(_scan(tuple(sys.path)).groups - known):
        if namespace.startswith("snf."):
            for entry in entries(namespace):
                yield _listed(entry, functools.partial(_undefined, namespace, sorted(known)))


def table(found: Sequence[Listed]) -> str:
    """The same for people to read: a line for each, below a heading."""
    rows = [("NAMESPACE", "NAME", "DISTRIBUTION", "VERSION", "STATUS")] + [
        (p.namespace, p.name, p.distribution, p.version, p.error or "ok") for p in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] for row in rows)
    lines = ("  ".join([*cells, row[4]]) for cells, row in zip(padded, rows, strict=True))
    return "\n".join(lines)


def points() -> Iterator[ExtensionPoint[contract.Plugin]]:
    """The core's extension points, then those that plugins define (broken ones left out)."""
    yield from CORE_POINTS
    for entry in entries(POINTS_NAMESPACE):
        try:
            point = _defined(entry)
        except PluginError:
            continue
        yield point


def entries(namespace: str) -> list[EntryPoint]:
    """The entry points of a namespace, by name; nothing is imported."""
    found = _scan(tuple(sys.path)).select(group=namespace)
    return sorted(found, key=lambda entry: (entry.name, entry.value))


@functools.lru_cache(maxsize=1)
def _scan(path: tuple[str, ...]) -> EntryPoints:
    """All entry points of the distributions on ``path`` (sys.path), read once per process."""
    from importlib import metadata

    # What Python 3.11 returns goes by another name and has the same select() and groups.
    return cast("EntryPoints", metadata.entry_points())


def _imported(namespace: str, name: str) -> Any:
    """The object behind an entry point. Raises whatever its import raises."""
    from stevedore import named

    class Manager(named.NamedExtensionManager):  # type: ignore[misc]  # it is untyped
        # stevedore's own list comes from a file in the caller's ~/.cache. The times in its key
        # are rounded to two minutes, so that a plugin installed just now may be missing or the
        # replaced one be found; and root must not act on what such a file says.
        def list_entry_points(self) -> list[EntryPoint]:
            return entries(self.namespace)

    def fail(_manager: object, _entry: object, error: Exception) -> None:
        raise error

    return Manager(namespace, [name], on_load_failure_callback=fail)[name].plugin


def _defined(entry: EntryPoint) -> ExtensionPoint[contract.Plugin]:
    """The extension point that a plugin defines with ``entry``. Raises PluginError."""
    where = f"extension point {entry.name!r} ({_origins([entry])})"
    same = [other for other in entries(POINTS_NAMESPACE) if other.name == entry.name]
    if len(same) > 1:
        raise PluginConflictError(
            f"extension point {entry.name!r} is defined twice: {_origins(same)}",
            remedy="remove one of the two distributions",
        )
    if entry.name in {point.namespace for point in CORE_POINTS}:
        raise PluginConflictError(
            f"{where} is one of the core's own", remedy="remove that distribution"
        )
    try:
        point = entry.load()
    except (Exception, SystemExit) as error:  # as for plugins
        raise PluginError(
            f"{where} cannot be loaded: {type(error).__name__}: {error}",
            remedy="repair or remove that distribution",
        ) from error
    if not isinstance(point, ExtensionPoint) or point.namespace != entry.name:
        raise PluginError(
            f"{where}: expected an ExtensionPoint for {entry.name!r}, found {point!r}",
            remedy="repair or remove that distribution",
        )
    return point


def _undefined(namespace: str, known: Sequence[str]) -> None:
    raise PluginError(
        f"there is no extension point {namespace}", remedy="there are " + ", ".join(known)
    )


def _listed(entry: EntryPoint, attempt: Callable[[], object]) -> Listed:
    error = ""
    try:
        attempt()
    except SnfError as failure:
        error = str(failure)
    return Listed(entry.group, entry.name, *_distribution(entry), entry.value, error)


def _origins(found: Sequence[EntryPoint]) -> str:
    """Where entry points come from, for a message."""
    return " and ".join(sorted(f"{' '.join(_distribution(one))}, {one.value}" for one in found))


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    """Name and version. Parses the distribution's metadata, of which parts may be missing."""
    return (entry.dist.name or "unknown", entry.dist.version or "") if entry.dist else ("", "")


def _misfit(point: ExtensionPoint[T], plugin: object) -> str:
    """Why a loaded object is not a plugin of this point; empty if it is one."""
    if not (isinstance(plugin, type) and issubclass(plugin, point.contract)):
        expected = f"{point.contract.__module__}.{point.contract.__qualname__}"
        return f"expected a subclass of {expected}, found {plugin!r}"
    if not _compatible(plugin.api_version, point.api_version):
        stated = repr(plugin.api_version) if plugin.api_version else "none"
        return f"expected API version {point.api_version}, found {stated}"
    if plugin.__abstractmethods__:
        return "not implemented: " + ", ".join(sorted(plugin.__abstractmethods__))
    for name, expected in inspect.getmembers(point.contract):
        if name.startswith("_") and name != "__init__":
            continue
        check = _signature_misfit if inspect.isfunction(expected) else _value_misfit
        problem = check(expected, getattr(plugin, name))
        if problem:
            return f"{name}: {problem}"
    strangers = [option for option in plugin.options if not hasattr(option, "dest")]
    return f"options: expected oslo.config options, found {strangers[0]!r}" if strangers else ""


def _compatible(stated: str, offered: str) -> bool:
    try:
        major, minor = (int(part) for part in stated.split("."))
    except (ValueError, AttributeError):
        return False
    offered_major, offered_minor = (int(part) for part in offered.split("."))
    return major == offered_major and minor <= offered_minor


def _value_misfit(expected: object, found: object) -> str:
    """A class attribute must be of the kind that the contract's default is of."""
    kind: type = type(expected)
    if isinstance(expected, Mapping):
        kind = Mapping
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        if isinstance(found, str):  # a sequence too, of letters
            return f"expected a tuple, found {found!r}"
        kind = Sequence
    return "" if isinstance(found, kind) else f"expected {kind.__name__}, found {found!r}"


def _signature_misfit(expected: object, found: object) -> str:
    if not inspect.isfunction(expected) or not inspect.isfunction(found):
        return f"expected a method, found {found!r}"
    wanted = list(inspect.signature(expected).parameters.values())
    offered = list(inspect.signature(found).parameters.values())
    shape = [(parameter.name, parameter.kind) for parameter in wanted]
    same = [(parameter.name, parameter.kind) for parameter in offered[: len(wanted)]] == shape
    surplus = [
        parameter
        for parameter in offered[len(wanted) :]
        if parameter.default is parameter.empty
        and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    ]
    if same and not surplus:
        return ""
    return f"expected {_shown(wanted)}, found {_shown(offered)}"


def _shown(parameters: list[inspect.Parameter]) -> str:
    bare = [parameter.replace(annotation=parameter.empty) for parameter in parameters]
    return str(inspect.Signature(bare))
