"""The fixture ``host``, a node of its own for each test (see ``host``), and the mark ``kernel``.

``@pytest.mark.kernel("bridge-conntrack")`` is for a test that needs an ability which kernels may
lack; ``abilities.PROBES`` has their names. Where the running kernel lacks one, its tests are
deselected: they run in the machine with Debian's kernel (``python -m tests.kernel_machine``).
There, $SNF_TEST_WHOLE_KERNEL is set and a lack is an error, so that no test is left out in both.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from tests.machine import NetworkNamespace
from tests.network import abilities
from tests.network.host import LINKS, NIC, Host, node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["NIC", "Host"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what the running kernel cannot do."""
    needs = {
        item: {name for mark in item.iter_markers("kernel") for name in mark.args} for item in items
    }
    lacking = abilities.lacking(set().union(*needs.values()))
    if lacking and "SNF_TEST_WHOLE_KERNEL" in os.environ:
        raise pytest.UsageError(f"this kernel was to have everything, and lacks {lacking}")
    left_out = [item for item, names in needs.items() if names & lacking.keys()]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not needs[item] & lacking.keys()]


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    """Import once what the forked children use; what cannot be imported fails where it is used."""
    modules = ["nftables", "pyroute2.iproute.linux", "snf_core.network.command"]
    for group in ("snf.hypervisor", "snf.network.setup"):
        modules += [entry.module for entry in metadata.entry_points(group=group)]
    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A node, with somebody else's state on it, which must be there unchanged in the end."""
    with NetworkNamespace() as namespace:
        made = node(namespace, tmp_path)
        try:
            made.ip(*LINKS.splitlines())
            made.foreign.make()
            yield made
            made.foreign.unchanged()
        finally:
            made.close()
