"""What Ganeti tells us: every call of a script of ours, as it is made.

A line in each script notes its arguments and its environment first. They can be written as
fixtures, without what is of one cluster or one machine alone: UUIDs, times, random MAC addresses
and keys are numbered, in the order of their appearance.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ganeti.node import Node

FIXTURES = Path(__file__).parents[1] / "fixtures"

_SCRIPTS = (
    "/usr/share/ganeti/os/snf-image/[a-z]*",
    "/etc/ganeti/kvm-vif-bridge",
    "/etc/ganeti/hooks/*/snf",
)
_RECORD = """\
#!/bin/sh
# Arguments: the script, the process whose environment it is, the script's own arguments.
set -eu
event=$(mktemp "$(dirname "$0")/$(date +%s.%N)-XXXXXX")
{ printf '%s\\0' "$#" "$@"; cat "/proc/$2/environ"; } >"$event"
mv "$event" "$event.event"
"""


@dataclass(frozen=True)
class Event:
    """One call of one script."""

    script: str
    """``os/create``, ``nic/kvm-vif-bridge``, ``hooks/instance-add-post``."""
    arguments: tuple[str, ...]
    environment: dict[str, str]


@dataclass
class Recorder:
    """Records what is called on a node on which our scripts are installed."""

    node: Node
    events: dict[str, list[Event]] = field(default_factory=dict)
    """By the step in which they were seen."""

    def __post_init__(self) -> None:
        self._directory.mkdir()
        record = self._directory / "record"
        record.write_text(_RECORD)
        record.chmod(0o755)
        line = f'{shlex.quote(str(record))} "$0" $$ "$@"'
        for script in _find(self.node):
            text = script.read_text()
            assert text.startswith("#!/bin/sh\n"), script
            script.write_text(text.replace("\nexec ", f"\n{line}\nexec ", 1))

    @property
    def _directory(self) -> Path:
        return self.node.directory / "events"

    def take(self, step: str) -> list[Event]:
        """What was called since the last time, in order."""
        found = []
        for file in sorted(self._directory.glob("*.event")):
            found.append(_parse(file.read_text()))
            file.unlink()
        self.events.setdefault(step, []).extend(found)
        return found

    def write(self, directory: Path) -> None:
        """Write all as fixtures: a file for each step."""
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("*.json"):
            old.unlink()
        kinds = _kinds()
        for step, events in self.events.items():
            text = json.dumps([asdict(event) for event in events], indent=1, sort_keys=True)
            for kind in kinds:
                text = kind.numbered(text)
            (directory / f"{step}.json").write_text(text + "\n")


def load(directory: Path) -> dict[str, list[Event]]:
    """Fixtures that were written."""
    return {
        file.stem: [
            Event(one["script"], tuple(one["arguments"]), one["environment"])
            for one in json.loads(file.read_text())
        ]
        for file in sorted(directory.glob("*.json"))
    }


def _find(node: Node) -> list[Path]:
    """Our scripts, as they are known to us."""
    root = node.path("/")
    found = [path for pattern in _SCRIPTS for path in root.glob(pattern.lstrip("/"))]
    return [path for path in found if path.is_file() and path.stat().st_mode & 0o100]


def _parse(text: str) -> Event:
    count, *words = text.split("\0")
    script, _, *arguments = words[: int(count)]
    place = Path(script)
    return Event(
        {
            "snf": f"hooks/{place.parent.name.removesuffix('.d')}",
            "kvm-vif-bridge": f"nic/{place.name}",
        }.get(place.name, f"os/{place.name}"),
        tuple(arguments),
        dict(word.split("=", 1) for word in sorted(words[int(count) :]) if word),
    )


@dataclass
class _Kind:
    """A kind of values that no two clusters have in common, and what is put in their places."""

    pattern: str
    name: Callable[[int], str]
    known: dict[str, str] = field(default_factory=dict)

    def numbered(self, text: str) -> str:
        return re.sub(
            self.pattern,
            lambda found: self.known.setdefault(found[0], self.name(len(self.known) + 1)),
            text,
        )


def _kinds() -> list[_Kind]:
    return [
        _Kind(
            r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
            lambda number: f"00000000-0000-4000-8000-{number:012x}",
        ),
        _Kind(r"\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b", lambda number: f"aa:00:00:00:00:{number:02x}"),
        _Kind(r"\b1[0-9]{9}\.[0-9]+\b", lambda number: f"1800000000.{number}"),
        _Kind(r"(?<=ssh-ed25519 )[A-Za-z0-9+/=]+", _public_key),
    ]


def _public_key(number: int) -> str:
    """An ed25519 key (RFC 8709), in base64."""
    parts = (b"ssh-ed25519", bytes([number]) * 32)
    return base64.b64encode(
        b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    ).decode()
