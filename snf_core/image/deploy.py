"""The deployment: from a checked request to a disk that boots, or an error and no trace.

Request, source, copy (the appliance starting beside it), guest, tasks, flush, success: one way,
and success is reported when all of it is durable and not before.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
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
    from snf_core.contract import DiskWriter, GuestFamily, Hypervisor, ImageReader
    from snf_core.image.guest import Guest
    from snf_core.image.parameters import Parameters
    from snf_core.image.tasks import Catalogue, Step
    from snf_core.model import Disk, Instance, Nic
    from snf_core.report import Reporter

_USER = re.compile(r"""[^\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"/\\\[\]:;|=,+*?<>]{1,256}""")
"""What can be a user's name in one family of guests or another, which have stricter rules."""
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
    plaintext: int | None = None
    """A descriptor of a file that begins with the password itself, of which ``parameters`` have
    the hash. It is read only for a guest that takes no hash."""


def deploy(
    deployment: Deployment, hypervisor: Hypervisor, config: Config, reporter: Reporter
) -> None:
    """Deploy. Raises SnfError; afterwards nothing of ours runs or lies about either way."""
    with interruptible():
        prepared = _prepare(deployment, hypervisor, config, reporter)
        _carry_out(deployment, prepared, hypervisor, config, reporter)
    reporter.info("Image customization finished successfully.")


def _carry_out(
    deployment: Deployment,
    prepared: _Prepared | None,
    hypervisor: Hypervisor,
    config: Config,
    reporter: Reporter,
) -> None:
    parameters = deployment.parameters
    source = selection.choose_source(parameters.img_id, config)
    destination = selection.choose_destination(deployment.disk, config)
    image_format = extension.make(extension.IMAGE_FORMAT, parameters.img_format, config)
    with (
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
    asked: tuple[str, ...] = ()
    """Optional parameters that are given, and of which it is not said yet whether they are
    served: the guest's family is not known."""
    plaintext: int | None = None
    """As a Deployment has it, but None where the guest takes a hash for sure."""

    @property
    def kept(self) -> tuple[int, ...]:
        """Descriptors that the job needs."""
        return () if self.plaintext is None else (self.plaintext,)


def check_request(parameters: Parameters, catalogue: Catalogue, config: Config) -> list[str]:
    """Check what the image properties ask for; return warnings. Raises InvalidValueError."""
    properties = parameters.properties
    _users(properties.get("USERS"))
    _root(properties.get("ROOT_PARTITION"))
    password.check_method(properties.get("PASSWD_HASHING_METHOD"))
    warnings = []
    family = properties.get("OSFAMILY").lower()
    if family and not properties.flag("EXCLUDE_ALL_TASKS"):
        warnings = tasks.check_served(parameters.optional(), catalogue.of(family), family)
    unknown = tasks.check_properties(
        properties, [step for steps in catalogue.tasks.values() for step in steps]
    )
    if not unknown:
        return warnings
    message = f"no task knows the properties {', '.join(sorted(unknown))}"
    if config.image.unknown_properties == "error":
        raise InvalidValueError(
            f"parameters img_properties, inst_properties: {message}",
            remedy="correct them, or set [image] unknown_properties = warning",
        )
    return [*warnings, message]


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
    answer_file = _answer_file(parameters, catalogue, family, config)
    hashing = family and not catalogue.families[family].plaintext_password
    request = _request(deployment, answer_file, hypervisor, config, reporter)
    if family:
        steps = _steps(catalogue, family, deployment.only)
        tasks.check(tasks.plan(steps, properties), replace(request, password=""))
    return _Prepared(
        request,
        catalogue,
        deployment.only,
        asked=() if family else parameters.optional(),
        plaintext=None if hashing else deployment.plaintext,
    )


def _request(
    deployment: Deployment,
    answer_file: bytes,
    hypervisor: Hypervisor,
    config: Config,
    reporter: Reporter,
) -> Customization:
    parameters, properties = deployment.parameters, deployment.parameters.properties
    plans, warnings = nics.plan(deployment.nics, config.network)
    for warning in warnings:
        reporter.warning(warning)
    return Customization(
        hostname=deployment.instance.name,
        hypervisor=deployment.instance.hypervisor,
        disk_name=hypervisor.disk_name(deployment.disk),
        properties=properties,
        nics=tuple(plans),
        nameservers=tuple(config.network.nameservers),
        search_domains=tuple(config.network.search_domains),
        password_hash=_password_hash(parameters),
        password=parameters.password,
        authorized_keys=parameters.authorized_keys,
        users=_users(properties.get("USERS")),
        personality=parameters.personality,
        product_key=parameters.product_key,
        answer_file=answer_file,
        user_data=parameters.user_data,
        update=bool(deployment.only),
        facts={
            "family": properties.get("OSFAMILY").lower(),
            "root": _root(properties.get("ROOT_PARTITION")),
        },
    )


def _answer_file(
    parameters: Parameters, catalogue: Catalogue, family: str, config: Config
) -> bytes:
    """The answer file, unless it is known already that no task would take it."""
    steps = catalogue.of(family) if family else []
    wanted = not family or any("os_answer_file" in step.task.parameters for step in steps)
    if not parameters.answer_file or not wanted:
        return b""
    from snf_core.image import fetch

    what = "parameter os_answer_file"
    return fetch.no_page(fetch.fetch(parameters.answer_file, what, config), what)


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
            worker.started(found, launcher, confinement, [disk.descriptor], job, kept=prepared.kept)
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
        every = prepared.catalogue.of(family)
        for warning in tasks.check_served(prepared.asked, every, family):
            reporter.warning(warning)
        steps = _steps(prepared.catalogue, family, prepared.only)
        chosen = tasks.plan(steps, request.properties)
        tasks.check(chosen, replace(request, password=""))
        grows = " ".join(sorted(families[family].grows))
        request = replace(
            _with_password(prepared, families[family]),
            facts={"family": family, "root": root, "grows": grows},
        )
        reporter.conceal(request.password)
        with reporter.phase("tasks"):
            tasks.run(chosen, guest, request, reporter)

    return job


def _steps(catalogue: Catalogue, family: str, only: frozenset[str]) -> list[Step]:
    """The tasks for a guest of a family: all of them, or those in ``only`` and what they need."""
    return [
        step
        for step in catalogue.of(family)
        if not only
        or step.name in only
        or (step.task.stage in {Stage.MOUNT, Stage.UNMOUNT} and not step.task.excludable)
    ]


def _with_password(prepared: _Prepared, family: GuestFamily) -> Customization:
    """The request with the password as a family takes it: itself, or its hash."""
    request, secret = prepared.request, prepared.plaintext
    try:
        if not family.plaintext_password:
            return replace(request, password="")
        plain = request.password if secret is None else password.read(secret)
        return replace(
            request, password=plain, password_hash="" if plain else request.password_hash
        )
    finally:
        if secret is not None:
            os.close(secret)


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
    """The users in a property: words as a shell has them, so that a quoted name may have blanks."""
    remedy = "give names with blanks between them, in quotation marks where a name has blanks"
    try:
        users = tuple(dict.fromkeys(shlex.split(text)))
    except ValueError:
        raise InvalidValueError(
            "property USERS: a quotation mark or a backslash has no counterpart", remedy=remedy
        ) from None
    for user in users:
        if not _USER.fullmatch(user):
            raise InvalidValueError(f"property USERS: {user!r} is not a user name", remedy=remedy)
    return users


def _root(number: str) -> str:
    if number and not _PARTITION.fullmatch(number):
        raise InvalidValueError(
            f"property ROOT_PARTITION: {number!r} is not the number of a partition",
            remedy="give a number from 1 on, or leave the property out",
        )
    return f"/dev/sda{number}" if number else ""
