"""These tests are for a dom0: elsewhere every one of them fails and says so."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _in_dom0() -> None:
    capabilities = Path("/proc/xen/capabilities")
    if not (capabilities.exists() and "control_d" in capabilities.read_text()):
        pytest.fail("this needs a Xen hypervisor: run python -m tests.xen", pytrace=False)
