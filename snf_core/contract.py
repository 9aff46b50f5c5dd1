"""The contracts of the extension points: what a plugin implements.

A plugin is a class that subclasses one of these and is published as an entry point. It states
in ``api_version`` the version of the extension point it was written for; the version and the
signatures of its methods are checked when it is loaded. It declares its options in ``options``
and is made with a view of just those (attribute access: ``self.conf.memory``).

Nothing here imports pyroute2 or guestfs, and a plugin's module should not either at its top:
what an event does not need is not imported.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from oslo_config import cfg

    from snf_core.appliance import Appliance, Launcher
    from snf_core.ganeti.generation import Ganeti
    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest
    from snf_core.model import Disk, Mode, Nic, NicEvent
    from snf_core.network.node import Node
    from snf_core.network.state import State


class Plugin(ABC):  # noqa: B024  # abstract through those who add what they are for
    """What all plugins have in common."""

    api_version: ClassVar[str] = ""
    """MAJOR.MINOR of the extension point this was written for, stated by each plugin."""

    options: ClassVar[Sequence[cfg.Opt]] = ()
    """Its own options, in the group that ``snf_core.extension`` derives from its name."""

    def __init__(self, conf: Any) -> None:
        """``conf`` has one attribute per option of ``options``."""
        self.conf = conf


class Finding(NamedTuple):
    """One thing that ``snf doctor`` has looked at."""

    well: bool
    statement: str
    remedy: str = ""
    fatal: bool = True
    """Whether something fails because of it; otherwise it is slower, or lacks something."""


class NicScript(NamedTuple):
    """A script that Ganeti or the hypervisor calls for a NIC, to be put in place on the node."""

    path: Path
    """Where it is looked for, for example ``/etc/ganeti/kvm-vif-bridge``."""
    words: tuple[str, ...]
    """It runs ``snf network WORDS``, followed by its own arguments."""


@dataclass(frozen=True)
class HostNic:
    """A NIC of a running instance, by the interface that it has on this node."""

    instance: str
    """The instance's name."""
    index: int
    """Which of its NICs, from 0."""
    interface: str


class Hypervisor(Plugin):
    """A hypervisor: where NIC events come from and how an appliance is started (snf.hypervisor)."""

    packages: ClassVar[Sequence[str]] = ()
    """Packages of this node that its appliance needs beside those that libguestfs names."""
    fallback: ClassVar[str] = ""
    """The entry point's name of the hypervisor that starts the appliance, with a warning, where
    this one cannot: its launcher raises ApplianceError, or does not get the appliance ready."""
    nic_timeout: ClassVar[float] = 0
    """Seconds after which a NIC event is given up: taken back and refused. 0: it may take its time.

    Well below what the hypervisor waits for, as taking back and refusing may take ten more.
    """

    @abstractmethod
    def nic_event(self, argv: Sequence[str], environ: Mapping[str, str]) -> NicEvent | None:
        """Read a NIC event as the cluster manager or the hypervisor delivers it.

        ``argv`` holds ``up``, ``down``, or ``event`` where the event itself says which of them it
        is, and then the script's own arguments. None for an interface of the cluster manager's
        own, which is none of our business. Raises InvalidValueError naming the variable that is
        missing or wrong.
        """

    def acknowledge(self, event: NicEvent) -> None:
        """Tell the hypervisor that the NIC is wired. Nothing to do where exit status 0 says it."""

    def refuse(self, event: NicEvent, reason: str) -> None:
        """Tell the hypervisor why the NIC is not wired, beyond a non-zero exit status."""

    def host_nics(self) -> Iterable[HostNic]:
        """The NICs of the instances that run on this node, as far as the hypervisor keeps a list.

        By it those are found that nobody has wired. It may hold what is no longer true.
        """
        return ()

    def expect(self, instance: str, nics: Sequence[Nic], tags: frozenset[str]) -> None:
        """An instance is about to arrive on this node, running; ``tags`` are the instance's.

        Whose NIC events do not say what the NICs are, keeps that. Raises SnfError.
        """

    def nic_scripts(self, ganeti: Ganeti) -> Iterable[NicScript]:
        """The scripts through which NIC events come, of those that are called on this node.

        ``ganeti`` answers what the installed versions of Ganeti call. Asked by
        ``snf ganeti install``, which writes the scripts, and removes those no longer named, and by
        ``snf network install``, of a Ganeti that is not there: for what the hypervisor calls by
        itself.
        """
        return ()

    @abstractmethod
    def disk_name(self, disk: Disk) -> str:
        """The name under which the guest's kernel will see a disk, for example ``/dev/vda``."""

    @abstractmethod
    def launcher(self, appliance: Appliance) -> Launcher:
        """How to start the appliance on this node.

        Raises ApplianceError with a remedy where it cannot be started here.
        """

    def prepare(self, appliance: Appliance) -> Iterator[Finding]:
        """Do once per node, into the appliance's directory, what makes later starts faster.

        Called by ``snf appliance build`` on an appliance that nobody uses yet. Says what was done;
        a finding that is not well does not prevent the appliance from being used. Takes seconds.
        """
        yield from ()

    def tidy(self, runtime: Path) -> Iterator[Finding]:
        """Take away what is left of appliances that nobody looks after any more, and say what.

        Whoever did was killed. ``runtime`` is the appliance's ``boot_cache``. Called every minute.
        """
        yield from ()

    def check(self, appliance: Appliance | None) -> Iterator[Finding]:
        """What ``snf doctor`` says of this hypervisor on this node.

        ``appliance`` is None where this node has none yet.
        """
        yield from ()


class Setup(Plugin):
    """One way of wiring a NIC on the host (snf.network.setup)."""

    @abstractmethod
    def applies(self, event: NicEvent) -> bool:
        """Whether this setup has a say in the NIC of ``event``, by its mode and tags."""

    def serves(self) -> str:
        """The NICs that it applies to, in words, for the message that refuses another."""
        return "what it decides by itself"

    def fulfils(self, tag: str) -> bool:
        """Whether, where it applies, it keeps what a network's or instance's tag promises."""
        return False

    def ruleset(self, mode: Mode) -> str:
        """The nftables rules that NICs of ``mode`` need of this setup, in nft(8)'s notation.

        They are static, loaded once per node, and filter by sets and maps whose elements
        ``wanted`` states for each NIC: no rule names a NIC. They may depend on the setup's options.
        All is in tables named ``snf``, and all names begin with the setup's own.
        """
        return ""

    @abstractmethod
    def wanted(self, event: NicEvent, node: Node) -> State:
        """What the kernel should hold for this NIC. Pure data: no side effects.

        ``node`` answers what is needed of the node (a bridge's MTU, say), read once.
        Raises NetworkError where the NIC cannot be wired on this node.
        """


class GuestFamily(Plugin):
    """A family of guest operating systems (snf.guest)."""

    plaintext_password: ClassVar[bool] = False
    """Whether its tasks are handed the password itself, because the guest takes no hash."""
    grows: ClassVar[frozenset[str]] = frozenset()
    """File systems, as blkid(8) names them, that its own tasks grow, or have the guest grow."""

    @abstractmethod
    def detect(self, guest: Guest, root: str | None) -> int:
        """How sure this family is that the guest is one of its own: 0 no, 1 generic, 2 sure.

        ``root`` is the device of the root file system where it is already known, else None.
        Nothing is mounted before and nothing must be mounted afterwards.
        """

    @abstractmethod
    def root(self, guest: Guest) -> str:
        """The device of the root file system, for example ``/dev/sda2``.

        Raises GuestError where there is none, or more than one.
        """


class Stage(enum.IntEnum):
    """When a task runs, relative to the guest's file systems being mounted."""

    BEFORE_MOUNT = 0
    MOUNT = 1
    MOUNTED = 2
    UNMOUNT = 3
    AFTER_UNMOUNT = 4


class Task(Plugin):
    """One customisation task (snf.guest.task).

    The entry point's name is ``FAMILY.TaskName``; FAMILY is ``any`` for every family. The engine
    orders, reports, times and catches; a task only does.
    """

    stage: ClassVar[Stage] = Stage.MOUNTED
    after: ClassVar[Sequence[str]] = ()
    """Names of tasks of the same stage that, where they run, run before this one."""
    before: ClassVar[Sequence[str]] = ()
    """Names of tasks of the same stage that, where they run, run after this one."""
    needs: ClassVar[Sequence[str]] = ()
    """Names of tasks without which this one makes no sense: excluding them excludes this."""
    properties: ClassVar[Mapping[str, str]] = {}
    """Image properties it reads, and what they mean."""
    parameters: ClassVar[Sequence[str]] = ()
    """Those of OPTIONAL in ``snf_core.image.parameters`` that it serves."""
    resizes: ClassVar[bool] = False
    """Whether EXCLUDE_FILESYSTEMRESIZE_TASKS excludes it."""
    excludable: ClassVar[bool] = True
    """Whether EXCLUDE_TASK_<Name> may exclude it alone."""

    def check_request(self, request: Customization) -> None:
        """Refuse what this task could not do in any guest, before any is changed.

        Called before the disk is touched where the property OSFAMILY names the family, else once
        the family is found out; ``request`` does not hold the plain password. Raises
        InvalidValueError or UnsupportedError.
        """

    @abstractmethod
    def run(self, guest: Guest, request: Customization) -> Iterable[str]:
        """Do it. What is returned (or yielded, as it happens) are warnings for the user.

        Raises GuestError or TaskError where the deployment must fail.
        """


class Source(Plugin):
    """Where an image's bytes come from (snf.image.source)."""

    priority: ClassVar[int] = 50
    """Of the sources that accept an identifier, the highest priority is used."""

    @abstractmethod
    def accepts(self, image_id: str) -> bool:
        """Whether this source can open ``image_id``."""

    @abstractmethod
    def open(self, image_id: str, image_format: str) -> ImageReader:
        """Open the image. Raises ImageError naming the image and the remedy."""


class Format(Plugin):
    """How an image's bytes become a disk's (snf.image.format)."""

    @abstractmethod
    def disk(self, image: ImageReader) -> ImageReader:
        """The whole disk that the image stands for, as another reader."""


class Destination(Plugin):
    """Where a disk's bytes go (snf.image.destination)."""

    priority: ClassVar[int] = 50
    """Of the destinations that accept a disk, the highest priority is used."""

    @abstractmethod
    def accepts(self, disk: Disk) -> bool:
        """Whether this destination can open ``disk``."""

    @abstractmethod
    def open(self, disk: Disk) -> DiskWriter:
        """Open the disk for reading and writing. Raises DiskError naming it and the remedy."""

    def open_for_reading(self, disk: Disk) -> OpenDisk:
        """Open the disk for an export: whoever else uses it, and though it cannot be written.

        Raises DiskError as ``open`` does.
        """
        return self.open(disk)


class Extent(NamedTuple):
    """Part of an image: ``offset`` and ``length`` in bytes, and whether it holds data."""

    offset: int
    length: int
    data: bool


class ImageReader(ABC):
    """An open image. A context manager: leaving it closes it."""

    size: int
    """Bytes. 0 where the disk keeps what it holds (the null source)."""

    @abstractmethod
    def extents(self) -> Iterator[Extent]:
        """The whole image, in order, without gaps: what holds data and what reads as zeros."""

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes at ``offset``. Raises ImageError if they cannot be had."""

    def close(self) -> None:  # noqa: B027  # most have nothing to release
        """Release what the image holds."""

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OpenDisk(ABC):  # abstract through DiskWriter
    """An open disk. A context manager: leaving it closes it."""

    size: int
    """Bytes."""
    path: Path | str
    """What it is called in messages: a path or a URI."""
    descriptor: int
    """Open for reading, with holes where the storage tells them (SEEK_DATA in lseek(2))."""

    def close(self) -> None:  # noqa: B027  # most have nothing to release
        """Release what the disk holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DiskWriter(OpenDisk):
    """An open disk that can be written.

    Its descriptor is open for writing, too; it is handed to the appliance, which cannot open the
    disk itself.
    """

    @abstractmethod
    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data`` at ``offset``. Raises DiskError."""

    @abstractmethod
    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, releasing its storage where that can be done."""

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes at ``offset`` from the storage itself, for verification."""

    @abstractmethod
    def flush(self) -> None:
        """Return once all that was written is durable. Raises DiskError."""
