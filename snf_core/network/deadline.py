"""A NIC event that takes too long ends as one that fails, before the hypervisor's patience does."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from typing import TYPE_CHECKING

from snf_core.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Iterator

AGAIN = 5.0
"""Seconds after which what an event that ended so does to tidy up is given up, too."""


class Deadline:
    """Counts from when it is made."""

    def __init__(self, seconds: float) -> None:
        """``seconds``: 0 for no deadline."""
        self._seconds = seconds
        self._end = time.monotonic() + seconds if seconds else math.inf

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
