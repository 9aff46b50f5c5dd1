"""``tests/install-packages``: it leaves nothing behind that keeps services from starting."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "install-packages"
PATIENCE = 60
_ENTER = 'mount --bind "$1" /usr/sbin && exec "$2" no-such-package'
"""In a mount namespace of its own: there, /usr/sbin is a directory of the test's."""
_APT = '#!/bin/sh\necho >"$0.began"\nexec {}\n'
"""Stands for apt-get(8): says that it has begun."""


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=str)
@pytest.mark.parametrize("foreign", [False, True])
def test_services_may_start_afterwards(
    tmp_path: Path, number: signal.Signals | None, foreign: bool
) -> None:
    programs, sbin, left = (tmp_path / name for name in ("bin", "sbin", "tmp"))
    for directory in (programs, sbin, left):
        directory.mkdir()
    policy, apt = sbin / "policy-rc.d", programs / "apt-get"
    if foreign:
        policy.write_text("the operator's\n")
    began = programs / "apt-get.began"
    os.mkfifo(began)
    reading = os.open(began, os.O_RDONLY | os.O_NONBLOCK)
    apt.write_text(_APT.format("sleep 1000" if number else "false"))
    apt.chmod(0o755)
    process = subprocess.Popen(
        ["env", "--default-signal", "unshare", "--mount", "sh", "-c", _ENTER, "sh", sbin, SCRIPT],
        env={"PATH": f"{programs}:/usr/bin:/bin", "TMPDIR": str(left)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert select.select([reading], [], [], PATIENCE)[0], "no apt-get"
        if number:
            assert policy.exists()
            os.killpg(process.pid, number)
        assert process.wait(PATIENCE) == 1
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
        os.close(reading)
    assert policy.exists() == foreign
    assert list(left.iterdir()) == []
