"""Forked children of the test process: a program's work without the program's start.

A child begins with all that the tests have imported, which saves a second each in an emulated
machine; of pytest it keeps nothing that it could print to, report to or run into.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import signal
import sys
import time
import traceback
import warnings
from typing import TYPE_CHECKING, NoReturn

from tests.network import packets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Child:
    """A child that runs ``call`` in a network namespace; its exit status is what that returns.

    It has the environment ``environ``, and pipes for standard input, output and errors. What
    ``call`` raises ends it as it would end a program. Use it in a ``with`` block, at whose end
    it is killed if it is still there.
    """

    def __init__(
        self, namespace: str, environ: Mapping[str, str], call: Callable[[], int | None]
    ) -> None:
        theirs, ours = [], []
        for direction in (0, 1, 1):
            pipe = os.pipe()
            theirs.append(pipe[direction])
            ours.append(pipe[1 - direction])
        self.pid = os.fork()
        if self.pid == 0:
            _become(namespace, environ, theirs, call)
        for descriptor in theirs:
            os.close(descriptor)
        self._stdin, self._stdout, self._stderr = ours
        self._process = os.pidfd_open(self.pid)
        self._output = {self._stdout: b"", self._stderr: b""}
        self._open = {self._stdout, self._stderr}
        self._status: int | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill it if it is still there, and release what it took. A second time does nothing."""
        if self.running():
            self.kill()
            self._wait(None)
        while self._process >= 0:
            for descriptor in (self._stdin, self._stdout, self._stderr, self._process):
                os.close(descriptor)
            self._process = -1

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._status is None and not self._wait(0)

    def kill(self) -> None:
        """SIGKILL, if it is still there."""
        if self.running():
            os.kill(self.pid, signal.SIGKILL)

    def line(self, timeout: float = packets.TIMEOUT) -> str:
        """The next line that it prints on standard output, "" at its end. TimeoutError."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._output[self._stdout] and self._stdout in self._open:
            self._read(deadline)
        line, newline, rest = self._output[self._stdout].partition(b"\n")
        self._output[self._stdout] = rest
        return (line + newline).decode()

    def tell(self, text: str) -> None:
        """Write to its standard input."""
        os.write(self._stdin, text.encode())

    def ended(self, timeout: float = packets.TIMEOUT) -> tuple[int, str, str]:
        """Wait for its end: status (minus the signal's number), output and errors not read yet.

        Where it does not end in time it is killed: TimeoutError.
        """
        deadline = time.monotonic() + timeout
        try:
            while self._open:
                self._read(deadline)
            if not self._wait(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"it has not ended within {timeout:g} s")
        finally:
            self.close()
        assert self._status is not None
        output, errors = (self._output[one].decode() for one in (self._stdout, self._stderr))
        return self._status, output, errors

    def _read(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        ready = select.select([*self._open], [], [], left)[0] if left > 0 else []
        if not ready:
            raise TimeoutError(f"the child is still running; so far: {self._output}")
        for descriptor in ready:
            data = os.read(descriptor, 1 << 16)
            self._output[descriptor] += data
            if not data:
                self._open.discard(descriptor)

    def _wait(self, timeout: float | None) -> bool:
        """Whether it has ended within so many seconds."""
        if self._status is None and select.select([self._process], [], [], timeout)[0]:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status is not None


def _become(
    namespace: str,
    environ: Mapping[str, str],
    standard: Sequence[int],
    call: Callable[[], int | None],
) -> NoReturn:
    """The child's whole life."""
    status = 1
    try:
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
        os.closerange(3, 1 << 12)
        os.environ.clear()
        os.environ.update(environ)
        sys.stdin, sys.stdout, sys.stderr = (
            open(0, closefd=False),  # noqa: SIM115  # they end with the process
            open(1, "w", closefd=False),  # noqa: SIM115
            io.TextIOWrapper(os.fdopen(2, "wb", 0, closefd=False), write_through=True),
        )
        logging.root.handlers.clear()  # pytest's
        warnings.simplefilter("error")
        packets.enter(namespace)
        status = call() or 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(status)
