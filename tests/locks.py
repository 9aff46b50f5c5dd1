"""Waiting until somebody waits for the lock of a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def until_waiting(path: Path, over: Callable[[], bool] = lambda: False) -> None:
    """Return once somebody waits for a flock(2) of ``path``, or when it is ``over`` anyway.

    AssertionError where neither is so within a minute. See /proc/locks in proc(5): waiters have
    an arrow.
    """
    deadline = time.monotonic() + 60
    while not over():
        assert time.monotonic() < deadline, f"nobody waits for {path}"
        inode = f":{path.stat().st_ino} " if path.exists() else "none"
        lines = Path("/proc/locks").read_text().splitlines()
        if any("->" in line and inode in line for line in lines):
            return
        time.sleep(0.001)
