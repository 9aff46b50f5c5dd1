"""What other tests take for granted of the dom0 that they run in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.images.debian import cache_directory, debian_image


def test_hypervisor_and_tools_are_of_one_version() -> None:
    said = _run("xl", "info")
    lines = (line.partition(":") for line in said.splitlines())
    facts = {name.strip(): value.strip() for name, _, value in lines}
    package = _run("dpkg-query", "-W", "-f", "${Version}", "xen-utils-4.17")
    assert package.startswith(f"{facts['xen_version']}+")
    assert int(facts["free_memory"]) > 900


def test_guests_have_kernels_that_need_no_unpacking() -> None:
    kernels = sorted(Path("/boot").glob("vmlinux-*"))
    assert ["cloud" in path.name for path in kernels] == [False, True]
    for path in kernels:
        assert path.read_bytes()[:4] == b"\x7fELF"
        assert Path("/lib/modules", path.name.removeprefix("vmlinux-")).is_dir()


def test_the_debian_image_is_there_and_not_built() -> None:
    here = set(cache_directory().iterdir())
    image = debian_image()
    assert image.path.stat().st_size == image.disk_bytes
    assert set(cache_directory().iterdir()) == here


def test_results_have_a_place() -> None:
    assert Path(os.environ["RESULTS"]).is_dir()


def _run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, check=True, text=True).stdout
