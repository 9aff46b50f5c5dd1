"""The customization engine: which tasks run, in which order, and what is said about them."""

from __future__ import annotations

import graphlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from snf_core import extension
from snf_core.contract import GuestFamily, Stage, Task
from snf_core.errors import (
    GuestError,
    InvalidValueError,
    PluginError,
    SnfError,
    TaskError,
    UnsupportedError,
)
from snf_core.image.parameters import OPTIONAL
from snf_core.image.properties import ENGINE, EXCLUDE_TASK, INFORMATIVE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from snf_core.config import Config
    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest
    from snf_core.image.properties import Properties
    from snf_core.report import Reporter

ANY = "any"
"""The family of tasks that every guest has."""

HISTORICAL = frozenset(
    [
        "FixPartitionTable",
        "FilesystemResizeUnmounted",
        "FilesystemResizeMounted",
        "AddSwap",
        "AssignHostname",
        "ChangeMachineId",
        "ChangePassword",
        "ConfigureNetwork",
        "DeleteSSHKeys",
        "DisableRemoteDesktopConnections",
        "SELinuxAutorelabel",
        "EnforcePersonality",
        "RunCustomTask",
        "FilesystemResizeAfterUmount",
    ]
)
"""Tasks that images may exclude whether or not this installation has them."""

UNSERVED = {
    "SWAP": ("a swap partition", "AddSwap"),
    "CUSTOM_TASK": ("a custom task", "RunCustomTask"),
    "CLOUD_INIT": ("leaving the work to cloud-init", ""),
    "ALLOW_MOUNTED_TASK_OVERWRITING": ("tasks that come with the image", ""),
}
"""Properties that are understood, what they ask for, which is not there yet, and the task that
would do it: an image that excludes it asks for nothing."""

ACCEPTED = frozenset(
    [
        "DO_SYNC",
        "NM_NETWORKING",
    ]
)
"""Historical properties that need no action here: always synchronous, or found out."""


@dataclass(frozen=True)
class Step:
    """A task under its name."""

    name: str
    task: Task


@dataclass(frozen=True)
class Plan:
    """The tasks that run, in order, and what is to be said of those that do not."""

    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """The families and tasks of this installation, loaded before privileges are given up."""

    families: Mapping[str, GuestFamily]
    tasks: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    """By family, ``any`` included."""

    def of(self, family: str) -> list[Step]:
        """All tasks for a guest of ``family``. Raises PluginError where a name is used twice."""
        steps = [*self.tasks.get(ANY, ()), *self.tasks.get(family, ())]
        names = [step.name for step in steps]
        for name in set(names):
            if names.count(name) > 1:
                raise PluginError(f"task {name} exists for {ANY} and for {family} guests")
        return steps


def catalogue(config: Config, family: str = "") -> Catalogue:
    """Load the families and their tasks: all of them, or ``family`` alone where it is known.

    A broken plugin of a family that is not needed for sure is left out. Raises InvalidValueError
    if ``family`` is not installed, PluginError if it or one of its tasks is broken.
    """
    installed = extension.names(extension.GUEST)
    if family and family not in installed:
        raise InvalidValueError(
            f"property OSFAMILY: there is no guest family {family!r} here",
            remedy="installed: " + (", ".join(installed) or "none"),
        )
    families: dict[str, GuestFamily] = {}
    for name in [family] if family else installed:
        try:
            families[name] = extension.make(extension.GUEST, name, config)
        except PluginError:
            if family:
                raise
    tasks: dict[str, list[Step]] = {}
    for entry in extension.names(extension.GUEST_TASK):
        owner, _, name = entry.partition(".")
        if owner == ANY or owner in families:
            task = extension.make(extension.GUEST_TASK, entry, config)
            tasks.setdefault(owner, []).append(Step(name, task))
    return Catalogue(families, {owner: tuple(steps) for owner, steps in tasks.items()})


def check_properties(properties: Properties, steps: Iterable[Step]) -> list[str]:
    """Names of the properties nobody knows. Raises for values that are wrong or not served."""
    steps = list(steps)
    known = {*ENGINE, *INFORMATIVE, *ACCEPTED}
    for step in steps:
        known |= set(step.task.properties)
    excludable = {name.upper() for name in HISTORICAL}
    excludable |= {step.name.upper() for step in steps if step.task.excludable}
    unknown = []
    for name in properties:
        if name.startswith("EXCLUDE_"):
            properties.flag(name)
        if name in UNSERVED:
            _refuse_unserved(properties, name)
        elif name.startswith(EXCLUDE_TASK):
            if name.removeprefix(EXCLUDE_TASK) not in excludable:
                unknown.append(name)
        elif name not in known:
            unknown.append(name)
    return unknown


def check_served(asked: Iterable[str], steps: Iterable[Step], family: str) -> list[str]:
    """Warnings about optional parameters that no task of a family serves.

    ``asked`` are names out of OPTIONAL; ``steps`` all tasks for guests of ``family``: one that is
    excluded serves, too, as whoever excludes it wants it so. Raises UnsupportedError for those of
    which the tenant could not do without.
    """
    served = {name for step in steps for name in step.task.parameters}
    warnings = []
    for name in asked:
        if name in served:
            continue
        message = f"parameter {name}: no task of {family} guests serves it"
        if OPTIONAL[name]:
            raise UnsupportedError(message, remedy="leave it out, or deploy another image")
        warnings.append(f"{message}: it is ignored")
    return warnings


def detect(guest: Guest, families: Mapping[str, GuestFamily], root: str | None) -> str:
    """The family of a guest. Raises GuestError where no family, or more than one, claims it."""
    scores = {name: _score(name, family, guest, root) for name, family in families.items()}
    best = max(scores.values(), default=0)
    winners = sorted(name for name, score in scores.items() if score == best)
    if best <= 0:
        raise GuestError(
            f"no installed guest family ({', '.join(sorted(families)) or 'none'}) knows the "
            "operating system on this disk",
            remedy="set the properties OSFAMILY and ROOT_PARTITION, install the plugin for it, "
            "or set EXCLUDE_ALL_TASKS",
        )
    if len(winners) > 1:
        raise GuestError(
            f"the guest could be any of {', '.join(winners)}", remedy="set the property OSFAMILY"
        )
    return winners[0]


def _score(name: str, family: GuestFamily, guest: Guest, root: str | None) -> int:
    try:
        return int(family.detect(guest, root))
    except SnfError:
        raise
    except Exception as error:  # a family, maybe a third party's, may raise anything
        raise PluginError(
            f"guest family {name}: {type(error).__name__}: {error}",
            remedy="set the property OSFAMILY, and report this to the family's authors",
        ) from error


def plan(steps: Iterable[Step], properties: Properties) -> Plan:
    """Order tasks by stage and by what they declare, without those the properties exclude."""
    steps = list(steps)
    excluded: dict[str, str] = {}
    for step in steps:
        reason = _exclusion(step, properties)
        if reason:
            excluded[step.name] = reason
    changed = True
    while changed:
        changed = False
        for step in steps:
            missing = [need for need in step.task.needs if need in excluded]
            if missing and step.name not in excluded:
                excluded[step.name] = f"it needs {missing[0]}, which does not run"
                changed = True
    warnings = [f"{name} will not run: {reason}" for name, reason in sorted(excluded.items())]
    remaining = [step for step in steps if step.name not in excluded]
    return Plan(tuple(_ordered(remaining)), tuple(warnings))


def check(chosen: Plan, request: Customization) -> None:
    """Ask the tasks what they could not do. Raises the first one's error, with its name."""
    for step in chosen.steps:
        try:
            step.task.check_request(request)
        except SnfError as error:
            error.message = f"{step.name}: {error.message}"
            raise


def run(chosen: Plan, guest: Guest, request: Customization, reporter: Reporter) -> None:
    """Run the tasks, stopping at the first that fails. Raises TaskError naming it, or its own."""
    for warning in chosen.warnings:
        reporter.warning(warning)
    for step in chosen.steps:
        with reporter.task(step.name):
            try:
                for warning in step.task.run(guest, request):
                    reporter.warning(warning)
            except SnfError as error:
                reporter.task_error(error.message)
                error.message = f"{step.name}: {reporter.redacted(error.message)}"
                error.remedy = reporter.redacted(error.remedy) or _way_out(step)
                raise
            except Exception as error:  # a task, maybe a third party's, may raise anything
                text = reporter.redacted(f"{type(error).__name__}: {error}")
                reporter.task_error(text)
                raise TaskError(
                    f"{step.name}: {text}", remedy="report this to the task's authors"
                ) from error


def _way_out(step: Step) -> str:
    excluding = f", or set property {EXCLUDE_TASK}{step.name.upper()}"
    return "repair the image" + (excluding if step.task.excludable else "")


def _exclusion(step: Step, properties: Properties) -> str:
    task = step.task
    if task.excludable and properties.flag(EXCLUDE_TASK + step.name.upper()):
        return f"excluded by {EXCLUDE_TASK}{step.name}"
    mounted = task.stage in {Stage.MOUNT, Stage.MOUNTED, Stage.UNMOUNT}
    if mounted and properties.flag("EXCLUDE_MOUNTED_TASKS"):
        return "excluded by EXCLUDE_MOUNTED_TASKS"
    if task.resizes and properties.flag("EXCLUDE_FILESYSTEMRESIZE_TASKS"):
        return "excluded by EXCLUDE_FilesystemResize_TASKS"
    return ""


def _ordered(steps: list[Step]) -> list[Step]:
    ordered: list[Step] = []
    for stage in Stage:
        of_stage = {step.name: step for step in steps if step.task.stage is stage}
        graph: dict[str, set[str]] = {name: set() for name in sorted(of_stage)}
        for name, step in of_stage.items():
            graph[name] |= set(step.task.after) & set(of_stage)
            for later in set(step.task.before) & set(of_stage):
                graph[later].add(name)
        sorter = graphlib.TopologicalSorter(graph)
        try:
            sorter.prepare()
        except graphlib.CycleError as error:
            raise PluginError(
                f"tasks want to run before one another: {' -> '.join(error.args[1])}",
                remedy="remove one of the plugins that provide them",
            ) from error
        while sorter.is_active():
            ready = sorted(sorter.get_ready())
            ordered += [of_stage[name] for name in ready]
            sorter.done(*ready)
    return ordered


def _refuse_unserved(properties: Properties, name: str) -> None:
    value = properties.get(name)
    wish, task = UNSERVED[name]
    excluded = properties.flag("EXCLUDE_ALL_TASKS") or (
        task and properties.flag(EXCLUDE_TASK + task.upper())
    )
    if value and not excluded and value.lower() not in {"no", "false", "off", "0", "unset"}:
        raise UnsupportedError(
            f"property {name}: {wish} is not served by this version",
            remedy="remove the property" + (f", or set {EXCLUDE_TASK}{task}" if task else ""),
        )
