"""What a vif event costs, by what starting Python costs on the same machine."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.xen import vifs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RUNS = 5
TIMES = 8
"""As often as this may ``online`` take what Python takes to do nothing."""


@pytest.fixture(scope="module", autouse=True)
def _node() -> Iterator[None]:
    with vifs.node():
        yield


def seconds(words: Sequence[str], environ: Mapping[str, str] | None = None) -> float:
    """How long a program takes, which must succeed."""
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
        online, bare, system = [], [], []
        for _ in range(RUNS):
            subprocess.run([script, "offline", "type_if=vif"], check=True, env=environ)
            bare.append(seconds([sys.executable, "-I", "-c", "pass"]))
            system.append(seconds(["/usr/bin/python3", "-c", "pass"]))
            online.append(seconds([script, "online", "type_if=vif"], environ))
    took, least = statistics.median(online), statistics.median(bare)
    print(f"\nonline {took:.2f} s, python3 -c pass {least:.2f} s: {took / least:.1f} times")
    print(f"without the virtual environment of the tests {statistics.median(system):.2f} s")
    assert took <= TIMES * least
