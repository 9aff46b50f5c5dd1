"""The machine with Xen that other tests run in: how it ends, and that nobody notices another."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.payload import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

ALONE = "test ! -e /var/tmp/other; echo here >/var/tmp/other; mkdir $RESULTS/left"
SMALL = ("--memory", "1024", "--dom0-memory", "512")


class Ended(NamedTuple):
    """How a run ended."""

    status: int
    stdout: str
    stderr: str
    results: Path


@pytest.fixture(name="runs", scope="module")
def _runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Three runs at a time: one that ends, one that does not, one whose kernel dies."""
    scripts = {
        "ends": f"set -e; {ALONE}; xl list; cat /proc/xen/capabilities; "
        "echo kept >$RESULTS/left/file; echo complaint >&2; exit 3",
        "stays": f"set -e; {ALONE}; echo kept >$RESULTS/left/file; sleep 100000",
        "dies": f"set -e; {ALONE}; sync; echo c >/proc/sysrq-trigger; sleep 100000",
    }
    directory = tmp_path_factory.mktemp("runs")
    started = {}
    for name, script in scripts.items():
        results = ("--results", str(directory / name))
        limit = ("--timeout", "15" if name == "stays" else "300")
        words = ("-m", "tests.xen", *SMALL, *limit, *results, "--", "sh", "-c", script)
        started[name] = subprocess.Popen(
            [sys.executable, *words],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ended = {}
    for name, process in started.items():
        stdout, stderr = process.communicate()
        ended[name] = Ended(process.returncode, stdout, stderr, directory / name)
    return ended


def test_output_status_and_files_are_the_commands(runs: dict[str, Ended]) -> None:
    ended = runs["ends"]
    assert ended.status == 3, ended
    assert "Domain-0" in ended.stdout
    assert "control_d" in ended.stdout
    assert "complaint" in ended.stdout
    assert (ended.results / "left/file").read_text() == "kept\n"


def test_what_takes_too_long_is_ended(runs: dict[str, Ended]) -> None:
    ended = runs["stays"]
    assert ended.status == 124, ended
    assert (ended.results / "left/file").read_text() == "kept\n"


def test_a_machine_that_dies_is_an_error_with_its_last_words(runs: dict[str, Ended]) -> None:
    ended = runs["dies"]
    assert ended.status == 1, ended
    assert "the machine ended without a result" in ended.stderr
    assert "Dom0 crashed" in ended.stderr, ended.stderr
    assert not ended.results.exists()


def test_its_tests_fail_elsewhere_and_say_where_to_run(tmp_path: Path) -> None:
    test = CHECKOUT / "tests/xen/test_rig.py"
    options = ("-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "base"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(test)],
        cwd=CHECKOUT,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 1, done.stdout
    assert "python -m tests.xen" in done.stdout
