"""What was found out about this node, kept until it reboots or the thing itself changes."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def recall(file: Path, key: Sequence[str]) -> Any:
    """What was remembered in ``file`` for ``key`` during this boot, or None."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(file.read_text())
        if known["key"] == _whole(key):
            return known["value"]
    return None


def remember(file: Path, key: Sequence[str], value: Any) -> None:
    """Keep it in ``file``; whoever may not write there finds it out again."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(OSError):
        temporary.write_text(json.dumps({"key": _whole(key), "value": value}))
        temporary.replace(file)


def status(*files: Path) -> list[str]:
    """What changes when one of the files changes. Raises OSError."""
    found = [file.stat() for file in files]
    return [f"{s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}" for s in found]


def _whole(key: Sequence[str]) -> list[str]:
    return [BOOT_ID.read_text().strip(), *key]
