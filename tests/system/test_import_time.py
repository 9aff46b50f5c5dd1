"""What is imported when: start-up is most of what a NIC event costs, and imports are most of it.

Not seconds but modules are counted, beyond those of a small program of the standard library that
runs in the same way, so that the result depends on nothing but the code.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fakes.hook import environment

if TYPE_CHECKING:
    from pathlib import Path

BASELINE = "import argparse, dataclasses, json, logging, pathlib, typing"

HEAVY = {"guestfs", "pyroute2", "nftables", "oslo_config", "stevedore", "yaml", "asyncio"}

NIC_EVENT = """
from snf_core import config, extension
made = config.Config([])
extension.make(extension.HYPERVISOR, "kvm", made)
for name in made.network.setups:
    extension.make(extension.NETWORK_SETUP, name, made)
from snf_core.network import command, links
links.Links().get("lo")  # with the part of pyroute2 that encodes messages, and no other
"""


def _imported(code: str) -> set[str]:
    program = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def baseline() -> set[str]:
    """The modules of a small program."""
    return _imported(BASELINE)


@pytest.mark.parametrize(
    ("code", "budget", "allowed"),
    [
        ("import snf_core.cli", 12, set()),
        ("import snf_core.extension", 25, set()),
        ("import snf_core.ganeti.scripts", 70, set()),
        (NIC_EVENT, 185, {"oslo_config", "stevedore"}),
    ],
    ids=["command line", "extension points", "deployment", "NIC event"],
)
def test_budget(baseline: set[str], code: str, budget: int, allowed: set[str]) -> None:
    more = _imported(code) - baseline
    roots = {module.partition(".")[0] for module in more}
    assert not (HEAVY - allowed) & roots
    assert len(more) <= budget, sorted(more)


def test_a_hook_where_nothing_is_to_be_done(baseline: set[str], tmp_path: Path) -> None:
    """Ganeti runs hooks on nodes that the operation does not concern, too."""
    file = tmp_path / "snf.conf"
    file.write_text(f"[directories]\nruntime = {tmp_path}\n")
    more = (
        _imported(
            "from pathlib import Path\n"
            "from snf_core import config\n"
            "from snf_core.ganeti import hooks\n"
            f"told = {environment('instance-migrate')}\n"
            f"assert not list(hooks.run(told, config.Config([Path({str(file)!r})])))"
        )
        - baseline
    )
    assert not (HEAVY - {"oslo_config", "stevedore"}) & {
        module.partition(".")[0] for module in more
    }
    assert len(more) <= 150, sorted(more)


@pytest.mark.parametrize(
    ("point", "name"),
    [
        ("HYPERVISOR", "kvm"),
        ("HYPERVISOR", "xen-pvm"),
        ("GUEST", "linux"),
        ("GUEST", "windows"),
        ("GUEST_TASK", "linux.ConfigureNetwork"),
        ("IMAGE_SOURCE", "local"),
        ("IMAGE_DESTINATION", "local"),
        ("NETWORK_SETUP", "bridged"),
    ],
)
def test_no_plugin_imports_the_heavy_libraries(point: str, name: str) -> None:
    code = f"from snf_core import extension\nextension.load(extension.{point}, {name!r})"
    imported = _imported(code)
    assert not {"guestfs", "pyroute2", "nftables", "yaml", "asyncio"} & imported
    ours = {module for module in imported if module.startswith("snf_")}
    assert not {module for module in ours if module.startswith("snf_core.cli")}
