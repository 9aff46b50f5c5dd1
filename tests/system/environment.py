"""Real distributions, built by pip and installed into environments of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]

HOUSE = {
    "snf-core": ROOT,
    "snf-kvm": ROOT / "plugins/kvm",
    "snf-xen": ROOT / "plugins/xen",
    "snf-os-linux": ROOT / "plugins/os_linux",
    "snf-os-windows": ROOT / "plugins/os_windows",
}
"""Our five distributions and where their sources are."""

_OFFLINE = ("--no-deps", "--no-index", "--no-cache-dir", "--disable-pip-version-check", "--quiet")


@dataclass(frozen=True)
class Environment:
    """A virtual environment that has the libraries of the one the tests run in, none of ours."""

    directory: Path

    @classmethod
    def create(cls, directory: Path) -> Environment:
        """Make it. Libraries are links, so that it costs no time and no space."""
        made = cls(directory)
        venv.EnvBuilder(system_site_packages=True, symlinks=True).create(directory)
        own = Path(made.python("-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
        for library in Path(sysconfig.get_path("purelib")).iterdir():
            if not library.name.startswith(("snf", "__editable__", "__pycache__")):
                (own / library.name).symlink_to(library)
        return made

    def run(self, program: str, *arguments: str | Path, status: int = 0) -> str:
        """What one of the environment's programs prints. The caller's settings do not reach it."""
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        configuration = self.directory / "snf.conf"
        configuration.touch()
        done = subprocess.run(
            [self.directory / "bin" / program, *arguments],
            env={"PATH": os.environ["PATH"], "HOME": str(home), "SNF_CONFIG": str(configuration)},
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout.strip()

    def python(self, *arguments: str | Path) -> str:
        """What its Python prints."""
        return self.run("python", "-I", *arguments)

    def install(self, *wheels: Path) -> None:
        """Install built distributions, in place of earlier versions of them."""
        self.python("-m", "pip", "install", *_OFFLINE, "--force-reinstall", *wheels)

    def plugins(self, *, status: int = 0) -> list[dict[str, Any]]:
        """What ``snf plugins --json`` says. It ends with 1 where a plugin is broken."""
        listed: list[dict[str, Any]] = json.loads(
            self.run("snf", "plugins", "--json", status=status)
        )
        return listed

    def ask(self, code: str) -> Any:
        """Run ``code`` and return the JSON that it prints."""
        return json.loads(self.python("-c", code))


def build(sources: Iterable[Path], scratch: Path) -> dict[str, Path]:
    """Wheels of source trees, by the distributions' names. The trees stay as they are."""
    copies = []
    for index, source in enumerate(sources):
        # Everything that a checkout may hold beside a distribution's files stays behind.
        ignored = shutil.ignore_patterns(
            "*.egg-info", "build", "dist", "__pycache__", ".*", "tests", "plugins", "docs"
        )
        copies.append(shutil.copytree(source, scratch / f"source{index}", ignore=ignored))
    wheels = scratch / "wheels"
    options = ("--no-build-isolation", *_OFFLINE, "--wheel-dir", wheels)
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, *copies], check=True)
    return {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in wheels.glob("*.whl")}
