"""The one gate to other programs: argument lists only, never a shell."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import subprocess
from typing import TYPE_CHECKING

from snf_core.errors import CommandError, DeadlineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LOG = logging.getLogger(__name__)

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked up; the caller's PATH is not trusted (Xen gives none at all)."""

Process = subprocess.Popen[bytes]
PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
DEVNULL = subprocess.DEVNULL

_MESSAGE_LINES = 10


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {"PATH": PATH, "LC_ALL": "C.UTF-8", **(extra or {})}


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    stdin: bytes = b"",
    timeout: float | None = 60,
    environ: Mapping[str, str] | None = None,
    check: bool = True,
    remedy: str = "",
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end and return what it wrote (bytes) and its exit status.

    ``environ`` is added to a minimal environment. ``timeout`` is in seconds.

    Raises CommandError if it cannot be started or (with ``check``) ends non-zero, with its last
    lines of standard error in the message; DeadlineError after ``timeout``.
    """
    words = [os.fspath(word) for word in argv]
    LOG.debug("running %s", shlex.join(words))
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            timeout=timeout,
            env=_environment(environ),
            check=False,
        )
    except OSError as error:
        raise CommandError(f"cannot run {words[0]}: {error.strerror}", remedy=remedy) from error
    except subprocess.TimeoutExpired as error:
        raise DeadlineError(
            f"{shlex.join(words)} did not end within {timeout} s", remedy=remedy
        ) from error
    if check and done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-_MESSAGE_LINES:]
        raise CommandError(
            f"{shlex.join(words)} failed with status {done.returncode}: " + "; ".join(said),
            remedy=remedy,
        )
    return done


@contextlib.contextmanager
def started(
    argv: Sequence[str | os.PathLike[str]],
    *,
    environ: Mapping[str, str] | None = None,
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
    stderr: int = DEVNULL,
    linger: float = 0,
    grace: float = 5,
) -> Iterator[Process]:
    """Start a program in a session of its own, and end it when the block ends.

    At the end of the block its standard input, if a pipe, is closed; it may end by itself within
    ``linger`` seconds; then it gets SIGTERM, and SIGKILL after another ``grace`` seconds.
    Raises CommandError if it cannot be started.
    """
    words = [os.fspath(word) for word in argv]
    try:
        process = subprocess.Popen(
            words,
            env=_environment(environ),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandError(f"cannot run {words[0]}: {error.strerror}") from error
    try:
        yield process
    finally:
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()
        _end(process, linger, grace)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def _end(process: Process, linger: float, grace: float) -> None:
    for signal_it, seconds in ((process.poll, linger), (process.terminate, grace)):
        signal_it()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()
