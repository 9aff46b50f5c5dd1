"""The gate to other programs, with real ones."""

from __future__ import annotations

import os
import select
import sys
import time
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import CommandError, DeadlineError
from snf_core.run import PIPE, run, started

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import Popen

PATIENCE = 60.0
"""Seconds for what takes none on an idle machine."""


def test_what_a_program_says() -> None:
    done = run(["cat"], stdin=b"a\0b\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\0b\n", b"")


def test_words_are_words(tmp_path: Path) -> None:
    words = ["a b", "$HOME", "`id`", "*", "it's", "", "--", "ä"]
    assert run(["printf", "%s\\n", *words]).stdout.decode().split("\n")[:-1] == words
    assert run(["ls", tmp_path]).stdout == b""


def test_the_environment_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSP_IMG_PASSWD", "hunter2")
    monkeypatch.setenv("LD_PRELOAD", "")
    said = run(["env"], environ={"MORE": "1"}).stdout.decode().splitlines()
    assert sorted(line.partition("=")[0] for line in said) == ["LC_ALL", "MORE", "PATH"]


def test_a_failure_is_told_with_its_last_words() -> None:
    script = "for n in $(seq 20); do echo line $n >&2; done; exit 3"
    with pytest.raises(CommandError, match=r"failed with status 3: line 11; .*; line 20") as caught:
        run(["sh", "-c", script], remedy="do it well")
    assert caught.value.remedy == "do it well"
    assert run(["sh", "-c", script], check=False).returncode == 3


@pytest.mark.parametrize("program", ["no-such-program", "/etc/passwd"])
def test_a_program_that_cannot_be_run_is_named(program: str) -> None:
    with pytest.raises(CommandError, match=f"cannot run {program}: "):
        run([program])
    with pytest.raises(CommandError, match=f"cannot run {program}: "), started([program]):
        pass


def test_a_program_that_takes_too_long() -> None:
    with pytest.raises(DeadlineError, match=r"sleep 600 did not end within 0\.05 s"):
        run(["sleep", "600"], timeout=0.05)


@pytest.fixture(name="stubborn")
def _stubborn(tmp_path: Path) -> list[str]:
    """A program that says when it is ready, and ends by nothing but SIGKILL."""
    program = tmp_path / "stubborn"
    program.write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "while True:\n    signal.pause()\n"
    )
    return [sys.executable, "-IS", str(program)]


def _ended(process: Popen[bytes]) -> bool:
    return process.returncode is not None


def test_a_program_ends_with_its_block() -> None:
    with started(["sleep", "600"]) as process:
        assert process.poll() is None
        assert os.getsid(process.pid) == process.pid
    assert _ended(process)


def test_even_a_stubborn_one(stubborn: list[str]) -> None:
    with started(stubborn, stdout=PIPE, grace=0.05) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
    assert process.returncode == -9


def test_after_an_error_too() -> None:
    processes = []

    def fail() -> None:
        with started(["sleep", "600"]) as process:
            processes.append(process)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert _ended(processes[0])


def test_one_that_reads_may_end_by_itself() -> None:
    began = time.monotonic()
    with started(["cat"], stdin=PIPE, stdout=PIPE, linger=PATIENCE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"x")
        process.stdin.flush()
        assert select.select([process.stdout], [], [], PATIENCE)[0]
    assert process.returncode == 0, "nobody had to be ended"
    assert time.monotonic() - began < PATIENCE
