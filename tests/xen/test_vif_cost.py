"""What a vif event costs, by what starting Python costs on the same machine."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.xen import vifs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RUNS = 5
TIMES = 8
"""As often as this may ``online`` take what its Python takes to do nothing."""


@pytest.fixture(scope="module", autouse=True)
def _node() -> Iterator[None]:
    with vifs.node():
        yield


def seconds(words: Sequence[str], environ: Mapping[str, str] | None = None, *, cold: bool) -> float:
    """How long a program takes, which must succeed; cold, all files come from the disk."""
    if cold:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    began = time.perf_counter()
    subprocess.run(words, check=True, env=environ)
    return time.perf_counter() - began


def test_online_costs_no_more_than_starting_python_a_few_times() -> None:
    vif = f"mac={vifs.MAC},script=vif-snf,bridge={vifs.BRIDGE}"
    with vifs.paused("web1", [vif]) as number:
        environ = {
            "XENBUS_PATH": f"backend/vif/{number}/0",
            "vif": f"vif{number}.0",
            "script": str(vifs.SCRIPT),
        }
        script = str(vifs.SCRIPT)
        pythons = {
            "python3 -c pass": ["/usr/bin/python3", "-c", "pass"],
            "the same of the virtual environment": [sys.executable, "-I", "-c", "pass"],
        }
        for cold in (True, False):
            took: dict[str, list[float]] = {name: [] for name in ("online", *pythons)}
            for _ in range(RUNS):
                subprocess.run([script, "offline", "type_if=vif"], check=True, env=environ)
                for name, words in pythons.items():
                    took[name].append(seconds(words, cold=cold))
                took["online"].append(
                    seconds([script, "online", "type_if=vif"], environ, cold=cold)
                )
            online, *least = (statistics.median(times) for times in took.values())
            print(f"\n{'cold' if cold else 'warm'}: online {online:.2f} s")
            for name, time_ in zip(pythons, least, strict=True):
                print(f"  {online / time_:.1f} times {name}, {time_:.2f} s")
            assert online <= TIMES * least[-1]
