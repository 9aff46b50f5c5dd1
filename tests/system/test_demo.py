"""``make demo`` works again after it was killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.images.debian import cache_directory

DEMO = [sys.executable, "-u", "-m", "tests.demo"]
ENVIRONMENT = {**os.environ, "SNF_DEMO_LIMIT": "0"}


def test_the_demo_works_after_one_that_was_killed() -> None:
    with subprocess.Popen(
        DEMO, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as killed:
        assert killed.stdout
        for line in killed.stdout:
            if "Task MountImage" in line:
                break
        killed.send_signal(signal.SIGKILL)
        rest = killed.stdout.read()  # ends when all that it started is gone
    assert "logged in over SSH" not in rest
    again = subprocess.run(
        DEMO, env=ENVIRONMENT, capture_output=True, text=True, timeout=900, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "machine id:" in again.stdout
    assert not any(Path("/run/snf-demo").iterdir())
    assert not any((cache_directory() / "demo").iterdir())
