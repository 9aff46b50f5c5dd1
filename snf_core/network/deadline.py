"""A NIC event that takes too long ends as one that fails, before the hypervisor's patience does."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Iterator

AGAIN = 5.0
"""Seconds after which what an event that ended so does to tidy up is given up, too."""


def process_start() -> float:
    """When this process was made, as time.monotonic() counts. A program it runs changes nothing.

    On a node that is overloaded, a hypervisor's patience may be half over when the first line of
    a script's program runs.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # starttime in proc(5), since boot
    return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - start)


class Deadline:
    """Some time from when it began."""

    def __init__(self, seconds: float, began: float | None = None) -> None:
        """``seconds``: 0 for no deadline. ``began``: as time.monotonic() has it; None for now."""
        self._seconds = seconds
        began = time.monotonic() if began is None else began
        self._end = began + seconds if seconds else math.inf

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """End the block by DeadlineError when the time is up, whatever it waits for.

        By SIGALRM: only in the main thread, and code of C libraries returns first. Once more
        every ``AGAIN`` seconds, should the block go on for so long after that.
        """
        if self._end == math.inf:
            yield
            return
        before = signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, max(self._end - time.monotonic(), 0.001), AGAIN)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _ring(self, *_: object) -> None:
        raise DeadlineError(
            f"the NIC event was not over after {self._seconds:.0f} s",
            remedy="see what it waited for: another event of the same NIC, a program of "
            "[network] extra_up, or a node that is overloaded",
        )
