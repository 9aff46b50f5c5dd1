"""The state document: one JSON file per interface, what we did to it and what was there before.

``<runtime>/network/<interface>.json``, mode 0600, in a directory of root's own:

=========== ==================================================================================
key         value
=========== ==================================================================================
version     1
interface   its name
phase       ``applying`` from before the kernel is touched, ``applied`` once all is as wanted
identity    boot (the kernel's boot id), namespace (of the network), index (of the interface)
event       what the NIC is, for people: instance, mac, mode, link, ip, network, tags, migration;
            ``called`` is what the hypervisor calls an interface that was renamed, ``twin`` which
            one it is of two (see ``model.Twin``)
items       what it should have (``network.state``), each with ``before``, its earlier value
announced   what its neighbours are told of it: interface, address, mac
=========== ==================================================================================

A document is replaced atomically and is on the disk before ``write`` returns, so that whatever
happens, the next event finds either the old one or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snf_core import model
from snf_core.errors import NetworkError
from snf_core.network.state import Announcement, Item, Value, item_from_json, possible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from snf_core.model import NicEvent

VERSION = 1

APPLYING = "applying"
APPLIED = "applied"


@dataclass(frozen=True)
class Identity:
    """Which interface it was, beyond its name: names of taps are used again and again."""

    boot: str
    namespace: int
    index: int

    @classmethod
    def of(cls, index: int) -> Identity:
        """That of the interface ``index`` of the calling thread's network namespace."""
        return cls(_boot(), os.stat("/proc/thread-self/ns/net").st_ino, index)

    def same_kernel(self) -> bool:
        """Whether what it had may still be there: no reboot since, and the same namespace."""
        here = Identity.of(self.index)
        return (self.boot, self.namespace) == (here.boot, here.namespace)


@functools.cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Record:
    """An item of the wanted state and the value it replaced."""

    item: Item
    before: Value

    @property
    def restored(self) -> Item:
        """The item as it was. Raises NetworkError where it can never have been so."""
        return replace(self.item, value=self.before)


@dataclass(frozen=True)
class Document:
    """What is known of one interface."""

    interface: str
    identity: Identity
    phase: str
    event: Mapping[str, Any]
    records: tuple[Record, ...]
    announced: tuple[Announcement, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "version": VERSION,
            "interface": self.interface,
            "phase": self.phase,
            "identity": asdict(self.identity),
            "event": dict(self.event),
            "items": [{**asdict(one.item), "before": one.before} for one in self.records],
            "announced": [
                {"interface": one.interface, "address": str(one.address), "mac": one.mac}
                for one in self.announced
            ],
        }

    @classmethod
    def from_json(cls, data: Any) -> Document:
        """The inverse of ``to_json``. Raises ValueError where ``data`` is anything else."""
        try:
            if data["version"] != VERSION or data["phase"] not in {APPLYING, APPLIED}:
                raise ValueError(f"version {data['version']!r}, phase {data['phase']!r}")
            event = {"instance": "", "mode": "", **data["event"]}
            records = tuple(Record(item_from_json(one), one["before"]) for one in data["items"])
            for one in records:
                if type(one.before) is type(one.item.value):
                    continue
                if not possible(one.item.kind, one.item.attribute, one.before):
                    raise ValueError(f"{one.item} was never {one.before!r}")
            identity = Identity(**data["identity"])
            announced = tuple(map(_announcement, data.get("announced", [])))  # not always kept
            return cls(data["interface"], identity, data["phase"], event, records, announced)
        except (KeyError, TypeError, AttributeError, ValueError, NetworkError) as error:
            raise ValueError(f"not a state document: {error!r}") from error


def _announcement(data: Mapping[str, str]) -> Announcement:
    return Announcement(
        model.interface_name(data["interface"]),
        model.address(data["address"]),
        model.mac_address(data["mac"]),
    )


def facts(event: NicEvent) -> dict[str, Any]:
    """What a document keeps of an event."""
    nic = event.nic
    known: dict[str, Any] = {
        "instance": event.instance,
        "tags": sorted(event.instance_tags),
        "mode": "",
        "called": event.interface if event.rename else "",
        "twin": event.twin.value if event.twin else "",
    }
    if nic is None:
        return known
    return known | {
        "index": nic.index,
        "mac": nic.mac,
        "mode": nic.mode.value,
        "link": nic.link,
        "vlan": nic.vlan,
        "ip": str(nic.ip or ""),
        "name": nic.name,
        "uuid": nic.uuid,
        "network": nic.network.name if nic.network else "",
        "network_tags": sorted(nic.network_tags),
        "migration": event.migration.value if event.migration else "",
        **{
            f"network_{name}": str(getattr(nic.network, name, None) or "")
            for name in ("uuid", "subnet", "gateway", "subnet6", "gateway6", "mac_prefix")
        },
    }


class Documents:
    """The directory of the state documents, and the locks of the interfaces."""

    def __init__(self, directory: Path) -> None:
        """``directory`` is made when it is first needed; the one above it must exist."""
        self._directory = directory

    @classmethod
    def below(cls, runtime: Path) -> Documents:
        """Those of the node whose runtime directory is ``runtime``."""
        return cls(runtime / "network")

    @contextlib.contextmanager
    def locked(self, interface: str) -> Iterator[None]:
        """Hold the lock of one interface, waiting for it; those of others are not affected.

        The kernel releases it when the holder dies. Raises NetworkError where the directory
        cannot be used.
        """
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise NetworkError(
                f"{self._directory} cannot be made: {error.strerror}",
                remedy="run it as root, or set [directories] runtime",
            ) from error
        path = self._path(interface, "lock")
        descriptor = _lock(path)
        try:
            yield
        finally:
            # Removed while it is held: who waited for this file sees that it is gone, and
            # takes the next one.
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def read(self, interface: str) -> Document | None:
        """The document of an interface, None where there is none.

        Raises NetworkError where it cannot be understood.
        """
        path = self._path(interface, "json")
        try:
            with open(path, "rb") as file:
                found = Document.from_json(json.loads(file.read()))
            if found.interface != interface:
                raise ValueError(f"it is of {found.interface}")
            return found
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise NetworkError(
                f"the state document {path} cannot be read: {error}",
                remedy="it is not needed for the next event of this NIC; remove it",
            ) from error

    def write(self, document: Document) -> None:
        """Replace the document of an interface, durably. Its lock must be held."""
        path = self._path(document.interface, "json")
        new = self._path(document.interface, "new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(document.to_json(), separators=(",", ":")))
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
            self._sync()
        except OSError as error:
            new.unlink(missing_ok=True)
            raise NetworkError(
                f"the state document {path} cannot be written: {error.strerror}",
                remedy="make room, or set [directories] runtime",
            ) from error

    def remove(self, interface: str) -> None:
        """Remove whatever is kept of an interface. Its lock must be held."""
        self._path(interface, "new").unlink(missing_ok=True)
        self._path(interface, "json").unlink(missing_ok=True)
        self._sync()

    def interfaces(self) -> list[str]:
        """The interfaces that have a document, sorted."""
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))

    def all(self) -> Iterator[Document]:
        """All that can be understood."""
        return self._read_some(self.interfaces())

    def of(self, instance: str) -> list[Document]:
        """Those of an instance's NICs."""
        return [one for one in self.about({instance}) if one.event["instance"] == instance]

    def about(self, words: Collection[str]) -> Iterator[Document]:
        """Those of them that say one of some words, addresses for example, and maybe others.

        Reading ten thousand documents takes a second, looking for a word in them a tenth of that.
        """
        patterns = [json.dumps(word).strip('"').encode() for word in words]
        found = []
        for interface in self.interfaces():
            with contextlib.suppress(OSError), open(self._path(interface, "json"), "rb") as file:
                text = file.read()
                if any(pattern in text for pattern in patterns):
                    found.append(interface)
        return self._read_some(found)

    def _read_some(self, interfaces: Collection[str]) -> Iterator[Document]:
        for interface in interfaces:
            with contextlib.suppress(NetworkError):
                document = self.read(interface)
                if document is not None:
                    yield document

    def _path(self, interface: str, suffix: str) -> Path:
        return self._directory / f"{interface}.{suffix}"

    def _sync(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(path: Path) -> int:
    """A descriptor of the file ``path``, locked, and of the file that is there now."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise NetworkError(
                f"{path} cannot be locked: {error.strerror}", remedy="run it as root"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
