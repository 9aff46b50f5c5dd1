"""cmd.exe, as wine has it: a Windows for batch files, with stand-ins for what only Windows has."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALLED = Path("/usr/lib/wine/wine64")
"""Where Debian's package wine64 has it, which puts nothing on the path."""
_FIRST, _LATER = 300, 120
"""Seconds, on a machine that is busy with other things: alone it takes 5, and 0.2."""


@dataclass(frozen=True)
class Wine:
    """A Windows of its own, in a directory: wine's prefix."""

    program: str
    prefix: Path

    @property
    def drive(self) -> Path:
        """``C:``."""
        return self.prefix / "drive_c"

    def path(self, name: str) -> Path:
        r"""Where a file of ``C:`` lies: ``windows\x`` for example, in any letter case but ours."""
        return self.drive.joinpath(*name.split("\\"))

    def write(self, name: str, script: str) -> None:
        """Write a file below ``C:`` as guests get it."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script, "ascii", newline="")

    def cmd(self, line: str, seconds: int = _LATER) -> subprocess.CompletedProcess[str]:
        """Run a command line by cmd.exe, to its end.

        What it prints goes to files: processes of wine's own, which stay, would keep pipes open.
        """
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            done = subprocess.run(
                [self.program, "cmd", "/d", "/c", line],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                timeout=seconds,
                check=False,
            )
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read().decode("cp437").replace("\r\n", "\n"))
        return subprocess.CompletedProcess(line, done.returncode, *texts)

    def environment(self) -> dict[str, str]:
        """Of its programs. There is no display, and none is asked for."""
        kept = {name: text for name, text in os.environ.items() if name != "DISPLAY"}
        return kept | {
            "HOME": str(self.prefix),
            "WINEPREFIX": str(self.prefix),
            "WINEDEBUG": "-all",
            # Neither .NET nor a browser: wine would offer to fetch them.
            "WINEDLLOVERRIDES": "mscoree,mshtml=",
        }


@contextlib.contextmanager
def started() -> Iterator[Wine]:
    """A new Windows, which stays up: each start of it takes seconds. Its files take 700 MB."""
    program = shutil.which("wine64") or (str(INSTALLED) if INSTALLED.exists() else "")
    assert program, "this test needs wine: apt-get install --no-install-recommends wine64"
    # Processes of wine's own go some time after the last one of ours.
    with tempfile.TemporaryDirectory(
        prefix="snf-wine-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as directory:
        wine = Wine(program, Path(directory))
        made = wine.cmd("exit 0", _FIRST)
        assert made.returncode == 0, made.stderr
        with subprocess.Popen(
            [program, "cmd"],
            env=wine.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as waiting:
            yield wine
            # At the end of its input, it leaves.
            waiting.communicate(timeout=_LATER)
