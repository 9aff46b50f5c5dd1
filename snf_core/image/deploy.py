"""The deployment: from a checked request to a disk that boots, or an error and no trace.

Request, source, copy (the appliance starting beside it), guest, tasks, flush, success: one way,
and success is reported when all of it is durable and not before.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from snf_core import appliance, extension
from snf_core.contract import Stage
from snf_core.errors import (
    DiskError,
    GuestError,
    InterruptedDeploymentError,
    InvalidValueError,
)
from snf_core.image import copy, identity, nics, password, selection, tasks, worker
from snf_core.image.confinement import Confinement
from snf_core.image.customization import Customization

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snf_core.config import Config
    from snf_core.contract import DiskWriter, Hypervisor, ImageReader
    from snf_core.image.guest import Guest
    from snf_core.image.parameters import Parameters
    from snf_core.image.tasks import Catalogue
    from snf_core.model import Disk, Instance, Nic
    from snf_core.report import Reporter

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")
_ROOM = 1 << 20
"""Bytes of free storage below which a guest's writes may have failed for lack of it."""
_PARTITION = re.compile(r"[1-9][0-9]{0,2}")


@dataclass(frozen=True)
class Deployment:
    """What is to be deployed where."""

    instance: Instance
    disk: Disk
    nics: tuple[Nic, ...]
    parameters: Parameters
    only: frozenset[str] = frozenset()
    """If not empty: the only tasks to run, beside mounting and unmounting, on a guest that was
    deployed before."""


def deploy(
    deployment: Deployment, hypervisor: Hypervisor, config: Config, reporter: Reporter
) -> None:
    """Deploy. Raises SnfError; afterwards nothing of ours runs or lies about either way."""
    prepared = _prepare(deployment, hypervisor, config, reporter)
    parameters = deployment.parameters
    source = selection.choose_source(parameters.img_id, config)
    destination = selection.choose_destination(deployment.disk, config)
    image_format = extension.make(extension.IMAGE_FORMAT, parameters.img_format, config)
    with (
        interruptible(),
        source.open(parameters.img_id, parameters.img_format) as opened,
        image_format.disk(opened) as image,
        destination.open(deployment.disk) as disk,
        contextlib.ExitStack() as stack,
    ):
        copy.check_size(image, disk)
        guest = None
        if prepared:
            guest = stack.enter_context(_guest(prepared, image, disk, hypervisor, config))
        _copy(image, disk, config, reporter, blanked=bool(guest))
        if guest:
            reporter.info("Starting guest customization...")
            with _full_storage_named(disk):
                guest.finish(reporter)
            stack.close()
        with reporter.phase("flush"):
            disk.flush()
    reporter.info("Image customization finished successfully.")


@contextlib.contextmanager
def interruptible(
    what: str = "the deployment", remedy: str = "deploy again: the disk is not usable"
) -> Iterator[None]:
    """Turn the first SIGTERM, SIGINT or SIGHUP into InterruptedDeploymentError.

    Further ones are ignored, so that they cannot interrupt the clean-up. ``what`` is interrupted.
    """
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def interrupt(number: int, _frame: object) -> NoReturn:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise InterruptedDeploymentError(
            f"{what} was interrupted by {signal.Signals(number).name}", remedy=remedy
        )

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class _Prepared:
    """All that is decided before the disk is touched."""

    request: Customization
    catalogue: Catalogue
    only: frozenset[str]


def check_request(parameters: Parameters, catalogue: Catalogue, config: Config) -> list[str]:
    """Check what the image properties ask for; return warnings. Raises InvalidValueError."""
    properties = parameters.properties
    _users(properties.get("USERS"))
    _root(properties.get("ROOT_PARTITION"))
    password.check_method(properties.get("PASSWD_HASHING_METHOD"))
    unknown = tasks.check_properties(
        properties, [step for steps in catalogue.tasks.values() for step in steps]
    )
    if not unknown:
        return []
    message = f"no task knows the properties {', '.join(sorted(unknown))}"
    if config.image.unknown_properties == "error":
        raise InvalidValueError(
            f"parameters img_properties, inst_properties: {message}",
            remedy="correct them, or set [image] unknown_properties = warning",
        )
    return [message]


def _prepare(
    deployment: Deployment, hypervisor: Hypervisor, config: Config, reporter: Reporter
) -> _Prepared | None:
    """Check and decide what can be without the guest; None where nothing is to be customized."""
    parameters, properties = deployment.parameters, deployment.parameters.properties
    family = properties.get("OSFAMILY").lower()
    catalogue = tasks.catalogue(config, family)
    for warning in check_request(parameters, catalogue, config):
        reporter.warning(warning)
    if properties.flag("EXCLUDE_ALL_TASKS"):
        reporter.warning("nothing is customized: excluded by EXCLUDE_ALL_TASKS")
        return None
    plans, warnings = nics.plan(deployment.nics, config.network)
    for warning in warnings:
        reporter.warning(warning)
    request = Customization(
        hostname=deployment.instance.name,
        hypervisor=deployment.instance.hypervisor,
        disk_name=hypervisor.disk_name(deployment.disk),
        properties=properties,
        nics=tuple(plans),
        nameservers=tuple(config.network.nameservers),
        search_domains=tuple(config.network.search_domains),
        password_hash=_password_hash(parameters),
        authorized_keys=parameters.authorized_keys,
        users=_users(properties.get("USERS")),
        update=bool(deployment.only),
        facts={"family": family, "root": _root(properties.get("ROOT_PARTITION"))},
    )
    return _Prepared(request, catalogue, deployment.only)


@contextlib.contextmanager
def _guest(
    prepared: _Prepared,
    image: ImageReader,
    disk: DiskWriter,
    hypervisor: Hypervisor,
    config: Config,
) -> Iterator[worker.Worker]:
    """Start the appliance. What an earlier tenant left is blanked first, or it would be seen."""
    settings, runtime = config.appliance, config.runtime()
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(appliance.held(config))
        launcher = appliance.launcher(hypervisor, found, config)
        groups = {group for attempt in launcher.attempts() for group in attempt.groups}
        identities = identity.pool(settings.user)
        own = stack.enter_context(identity.taken(identities, groups, runtime / "identities"))
        if image.size:
            copy.blank(disk)
        confinement = Confinement(own, runtime / "deployment", settings.timeout)
        job = _job(prepared)
        yield stack.enter_context(
            worker.started(found, launcher, confinement, [disk.descriptor], job)
        )


def _job(prepared: _Prepared) -> Callable[[Guest, Reporter], None]:
    """What the unprivileged child does with the guest."""

    def job(guest: Guest, reporter: Reporter) -> None:
        request, families = prepared.request, prepared.catalogue.families
        with reporter.phase("detect"):
            guest.reread(request.device)
            root = request.facts["root"] or None
            if root:
                _check_root(guest, request.device, root)
            family = request.facts["family"] or tasks.detect(guest, families, root)
            root = root or families[family].root(guest)
        request = replace(request, facts={"family": family, "root": root})
        steps = [
            step
            for step in prepared.catalogue.of(family)
            if not prepared.only
            or step.name in prepared.only
            or step.task.stage in {Stage.MOUNT, Stage.UNMOUNT}
        ]
        with reporter.phase("tasks"):
            tasks.run(tasks.plan(steps, request.properties), guest, request, reporter)

    return job


def _check_root(guest: Guest, device: str, root: str) -> None:
    partitions = [f"{device}{partition.number}" for partition in guest.partitions(device)]
    if root not in partitions:
        raise GuestError(
            f"property ROOT_PARTITION: the disk has no partition {root.removeprefix(device)}",
            remedy="its partitions are " + ", ".join(sorted(partitions)),
        )


def _copy(
    image: ImageReader, disk: DiskWriter, config: Config, reporter: Reporter, *, blanked: bool
) -> None:
    if image.size == 0:
        reporter.info("The disk keeps what it holds.")
        return
    reporter.info("Starting image copy...")
    with reporter.phase("copy"):
        copy.copy(image, disk, reporter.copied, blanked=blanked)
    if config.image.verify:
        with reporter.phase("verify"):
            copy.verify(image, disk, reporter.copied)
    reporter.info("Image copy finished.")


@contextlib.contextmanager
def _full_storage_named(disk: DiskWriter) -> Iterator[None]:
    """Say so where the storage below a sparse file is full: a guest sees but a broken disk."""
    try:
        yield
    except GuestError as error:
        storage = os.fstatvfs(disk.descriptor)
        regular = stat.S_ISREG(os.fstat(disk.descriptor).st_mode)
        # A disk of another node's, shown as a file here, says nothing of its storage.
        if regular and storage.f_blocks and storage.f_bavail * storage.f_frsize < _ROOM:
            raise DiskError(
                f"the storage that holds disk {disk.path} is full: {error.message}",
                remedy="make room on it",
            ) from error
        raise


def _password_hash(parameters: Parameters) -> str:
    if not parameters.password:
        return parameters.password_hash
    method = parameters.properties.get("PASSWD_HASHING_METHOD")
    return password.make_hash(parameters.password, method)


def _users(text: str) -> tuple[str, ...]:
    users = tuple(dict.fromkeys(text.split()))
    for user in users:
        if not _USER.fullmatch(user):
            raise InvalidValueError(
                f"property USERS: {user!r} is not a user name", remedy="see useradd(8)"
            )
    return users


def _root(number: str) -> str:
    if number and not _PARTITION.fullmatch(number):
        raise InvalidValueError(
            f"property ROOT_PARTITION: {number!r} is not the number of a partition",
            remedy="give a number from 1 on, or leave the property out",
        )
    return f"/dev/sda{number}" if number else ""
