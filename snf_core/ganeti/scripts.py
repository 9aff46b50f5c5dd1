"""The scripts of the OS definition: create, import, export, rename and verify."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from snf_core import extension, report
from snf_core.errors import InvalidValueError, SnfError
from snf_core.ganeti import environment
from snf_core.image import deploy, parameters, password, selection, stream, tasks
from snf_core.image.deploy import Deployment
from snf_core.report import ReportSink, Sink, StreamSink
from snf_core.run import PIPE, started

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from snf_core.config import Config

_LINGER = 5.0
"""Seconds a progress monitor may take to end once it was told everything."""


def create(
    environ: Mapping[str, str],
    config: Config,
    *,
    plaintext: int | None = None,
    report_file: Path | None = None,
    progress_descriptor: int | None = None,
) -> None:
    """Deploy the image that the parameters name onto the disk of the operating system.

    ``plaintext`` is a descriptor of a file with the password whose hash is in the environment.
    """
    request = environment.request(environ)
    values = parameters.collect(config, environ)
    with _reporting(
        config,
        request.instance.name,
        parameters.secrets(values),
        report_file=report_file,
        progress_descriptor=progress_descriptor,
    ) as reporter:
        checked = parameters.check(values)
        hypervisor = extension.make(extension.HYPERVISOR, request.instance.hypervisor, config)
        disk = environment.os_disk(environ, request.disks, hypervisor.disk_name)
        wanted = Deployment(request.instance, disk, request.nics, checked, plaintext=plaintext)
        deploy.deploy(wanted, hypervisor, config, reporter)


def password_hash(environ: Mapping[str, str], config: Config) -> str:
    """The hash of the password in the environment. Raises SnfError if anything there is wrong."""
    checked = parameters.check(parameters.collect(config, environ))
    return password.make_hash(checked.password, checked.properties.get("PASSWD_HASHING_METHOD"))


def rename(environ: Mapping[str, str], config: Config) -> None:
    """Give the guest its new name, and its NICs' addresses where we gave it those before.

    Ganeti calls this after an import, too, which often brings other NICs. Everything else on the
    disk is kept.
    """
    request = environment.request(environ)
    values = parameters.collect(config, environ)
    kept = {name: text for name, text in values.items() if name.endswith("_properties")}
    checked = parameters.check(kept | {"img_id": "null", "img_format": "diskdump"})
    only = frozenset(["AssignHostname", "ConfigureNetwork"])
    with _reporting(config, request.instance.name, ()) as reporter:
        hypervisor = extension.make(extension.HYPERVISOR, request.instance.hypervisor, config)
        disk = environment.os_disk(environ, request.disks, hypervisor.disk_name)
        wanted = Deployment(request.instance, disk, request.nics, checked, only=only)
        deploy.deploy(wanted, hypervisor, config, reporter)


def export(environ: Mapping[str, str], config: Config) -> None:
    """Write a disk to standard output, its size to $EXP_SIZE_FD first where that is given."""
    environment.check_version(environ)
    disk = environment.device(environ, "EXPORT")
    size_descriptor = _descriptor(environ, "EXP_SIZE_FD")
    destination = selection.choose_destination(disk, config)
    with (
        deploy.interruptible("the export", "export again: what was written is not complete"),
        destination.open_for_reading(disk) as opened,
    ):
        stream.export(opened, 1, size_descriptor)


def import_(environ: Mapping[str, str], config: Config) -> None:
    """Read a disk from standard input."""
    environment.check_version(environ)
    disk = environment.device(environ, "IMPORT")
    destination = selection.choose_destination(disk, config)
    with (
        deploy.interruptible("the import", "import again: the disk is not usable"),
        destination.open(disk) as opened,
    ):
        stream.import_(0, opened)


def verify(environ: Mapping[str, str], config: Config) -> None:
    """Check the parameters as far as that can be done without the instance and its image."""
    environment.check_version(environ)
    checked = parameters.check(parameters.collect(config, environ))
    catalogue = tasks.catalogue(config, checked.properties.get("OSFAMILY").lower())
    deploy.check_request(checked, catalogue, config)


@contextlib.contextmanager
def _reporting(
    config: Config,
    instance: str,
    secrets: Iterable[str],
    *,
    report_file: Path | None = None,
    progress_descriptor: int | None = None,
) -> Iterator[report.Reporter]:
    """A reporter to the screen or log, the progress monitor, a descriptor and a report file."""
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = [report.screen()]
        if report_file:
            sinks.append(_report_sink(report_file))
        if progress_descriptor is not None:
            sinks.append(StreamSink(progress_descriptor, only="image-"))
        monitor = config.image.progress_monitor.split()
        trouble = ""
        if monitor:
            try:
                process = stack.enter_context(
                    started([*monitor, instance], stdin=PIPE, linger=_LINGER)
                )
                assert process.stdin
                sinks.append(StreamSink(os.dup(process.stdin.fileno()), only="image-"))
                process.stdin.close()
            except SnfError as error:
                trouble = f"the progress monitor is not used: {error}"
        reporter = report.Reporter(sinks, secrets)
        if trouble:
            reporter.warning(trouble)
        try:
            yield reporter
        except SnfError as error:
            reporter.error(str(error))
            raise
        except BaseException:
            reporter.error("Internal error: image deployment failed.")
            raise
        finally:
            reporter.close()


def _report_sink(path: Path) -> Sink:
    try:
        return ReportSink(path)
    except OSError as error:
        raise InvalidValueError(
            f"cannot write the report {path}: {error.strerror}", remedy="give a writable path"
        ) from error


def _descriptor(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,9}", text):
        raise InvalidValueError(f"{name}: {text!r} is not a file descriptor")
    return int(text)
