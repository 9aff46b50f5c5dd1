"""Whose answer file counts: the image's own, the operator's, the tenant's, or the built-in one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from oslo_config import cfg

from snf_core.contract import Task
from snf_core.errors import ConfigError, InvalidValueError
from snf_os_windows import timezones
from snf_os_windows.unattend import LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snf_core.image.customization import Customization

IGNORE = "IGNORE_UNATTEND"
KEEP_REMEDY = f"repair it, or set the property {IGNORE} to yes for another to take its place"
TENANTS = "the answer file of parameter os_answer_file"


@dataclass(frozen=True)
class Choice:
    """The answer file that counts."""

    content: bytes | None = field(repr=False)
    """None for the built-in one."""
    what: str
    """What it is called in messages."""
    remedy: str = ""
    warnings: tuple[str, ...] = ()


def options(*, legacy: bool) -> list[cfg.Opt]:
    """The options of the tasks that install answer files."""
    kind = "a sysprep.inf" if legacy else "an unattend.xml"
    return [
        cfg.StrOpt(
            "answer_file",
            default="",
            help=f"Path of {kind} for all images that have none of their own (or are to ignore it, "
            f"property {IGNORE}). It counts more than a tenant's (os_answer_file). Empty: the "
            "tenant's, else a built-in one.",
        ),
        cfg.Opt(
            "time_zone",
            type=timezones.TimeZoneType(legacy=legacy),
            default=timezones.DEFAULT,
            help="Time zone that the built-in answer file states: a name of Windows "
            "('GTB Standard Time') or of the IANA database ('Europe/Athens').",
        ),
    ]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The options of both families' tasks, for oslo-config-generator."""
    return [
        (f"guest.task.{family}.installunattend", options(legacy=family != "windows"))
        for family in ("windows", "windows-legacy")
    ]


class InstallAnswerFile(Task):
    """What both families have in common. The operator's file is read when the task is made."""

    properties: ClassVar[Mapping[str, str]] = {
        IGNORE: "the image's own answer file is replaced, not used; yes where it is not set and "
        "the tenant gives an answer file"
    }
    parameters: ClassVar[Sequence[str]] = ("os_product_key", "os_answer_file")

    def __init__(self, conf: Any) -> None:
        """Raises ConfigError for an operator's file that cannot be used."""
        super().__init__(conf)
        self.operators: bytes | None = None
        if conf.answer_file:
            self.operators = _read(conf.answer_file)
            try:
                self.check(self.operators, f"answer_file {conf.answer_file}")
            except InvalidValueError as error:
                raise ConfigError(error.message, remedy=error.remedy) from error

    @abstractmethod
    def check(self, content: bytes, what: str) -> None:
        """Raise InvalidValueError for a file that this family of Windows cannot read."""

    def ignores(self, request: Customization) -> bool:
        """Whether another file takes the place of the image's own."""
        if request.properties.get(IGNORE):
            return request.properties.flag(IGNORE)
        return bool(request.answer_file) and self.operators is None

    def choose(self, own: str | None, content: bytes, request: Customization) -> Choice:
        """Whose file counts. ``own`` is the path of the image's, if it has one that is not to be
        ignored, and ``content`` what it holds.
        """
        if own is not None:
            used = f"{own}, which the image brought, is used as answer file"
            choice = Choice(content, own, KEEP_REMEDY, (used,))
        elif self.operators is not None:
            choice = Choice(self.operators, f"answer_file {self.conf.answer_file}")
        elif request.answer_file:
            return Choice(request.answer_file, TENANTS)
        else:
            return Choice(None, "the built-in answer file")
        if not request.answer_file:
            return choice
        unused = f"{TENANTS} is not used: {choice.what} counts more"
        return replace(choice, warnings=(*choice.warnings, unused))


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(LIMIT + 1)
    except OSError as error:
        raise ConfigError(
            f"answer_file {path} cannot be read: {error.strerror}",
            remedy="correct the option, or leave it empty",
        ) from error
