"""What the machines in which tests run have in common: a cached build, and the disk with the tests.

``cached`` keeps what was built once. ``make`` makes the disk that goes into a machine: the checkout
as it is at this moment, compiled, and the libraries that the tests need, for the paths that they
have here, and the program ``run``. The machine mounts it at ``MOUNTED``.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from tests.images.debian import cache_directory
from tests.machine import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

CHECKOUT = Path(__file__).resolve().parent.parent
MOUNTED = "/payload"
DISK_BYTES = 1 << 30

PATIENCE = 600
"""Seconds after which pytest shows where a test is that has not ended."""

EXCLUDED_PATHS = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
"""Of packages: what no test reads."""


def cached(name: str, recipe: object, build: Callable[[Path], None]) -> Path:
    """The directory that ``build`` filled, once for every ``recipe``, whose repr() tells it.

    Concurrent callers wait for one build. One that fails or is killed leaves nothing in the end.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    directory = cache / f"{name}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]}"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            for old in cache.glob(f"{name}.building-*"):
                shutil.rmtree(old)
            work = Path(tempfile.mkdtemp(prefix=f"{name}.building-", dir=cache))
            try:
                build(work)
                work.rename(directory)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return directory


def debootstrap(tree: Path, packages: Sequence[str], *options: str) -> None:
    """Make a root file system of Debian's packages, without their documentation.

    No initial RAM disks are made of kernels among them. Raises MachineError.
    """
    check(
        [
            *("env", "INITRD=No"),
            *("unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"),
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"),
            f"--include={','.join(packages)}",
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED_PATHS),
            *options,
            *("bookworm", str(tree)),
        ]
    )


def make(
    directory: Path,
    command: Sequence[str],
    variables: Mapping[str, str],
    distributions: Sequence[str],
    further: Sequence[Path] = (),
) -> Path:
    """The disk, in ``directory``: its ``run`` runs ``command`` in the checkout.

    ``variables`` are set then; ``distributions`` go in, with what they require, and ``further``
    directories, at the top.
    """
    tree, environment = directory / "payload", Path(sys.prefix)
    for other in further:
        shutil.copytree(other, tree / other.name)
    _copy_checkout(tree / "checkout")
    interpreters = environment.glob("bin/python*")  # links, one of them to the system's
    for path in (environment / "pyvenv.cfg", *interpreters, *_library_files(distributions)):
        target = tree / "environment" / path.relative_to(environment)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)
    program = tree / "run"
    program.write_text(_program(environment, command, variables))
    program.chmod(0o755)
    image = directory / "payload.ext4"
    make_filesystem(tree, image, DISK_BYTES)
    return image


def pytest_command(arguments: Sequence[str]) -> list[str]:
    """pytest, as it is run in a machine."""
    options = ("-p", "no:cacheprovider", "-o", f"faulthandler_timeout={PATIENCE}")
    return [f"{sys.prefix}/bin/python", "-m", "pytest", *options, *arguments]


def _program(environment: Path, command: Sequence[str], variables: Mapping[str, str]) -> str:
    """What the machine runs. Everything goes where it is here, since scripts name their paths."""
    places = {"checkout": str(CHECKOUT), "environment": str(environment)}
    mounts = [
        f"mkdir -p {shlex.quote(place)}\nmount --bind {MOUNTED}/{name} {shlex.quote(place)}"
        for name, place in places.items()
    ]
    set_here = {
        "HOME": "/root",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PY_COLORS": str(int(sys.stdout.isatty())),
        **variables,
    }
    return "\n".join(
        [
            "#!/bin/sh",
            "set -e",
            *mounts,
            f"cd {shlex.quote(str(CHECKOUT))}",
            *(f"export {name}={shlex.quote(value)}" for name, value in set_here.items()),
            f"exec {shlex.join(command)}",
            "",
        ]
    )


def _copy_checkout(target: Path) -> None:
    """The checkout as it is now, compiled; without what git, tools and environments keep in it."""

    def ignored(directory: str, names: list[str]) -> set[str]:
        return {
            name
            for name in names
            if name.startswith(".")
            or name == "build"
            or Path(directory, name, "pyvenv.cfg").exists()
        }

    for name in ("snf_core", "plugins", "tests"):
        compileall.compile_dir(CHECKOUT / name, quiet=2)
    shutil.copytree(CHECKOUT, target, symlinks=True, ignore=ignored)


def _library_files(distributions: Sequence[str]) -> Iterator[Path]:
    """The files of all that these require, of those in the virtual environment."""
    waiting, known = list(distributions), set(distributions)
    while waiting:
        found = metadata.distribution(waiting.pop())
        for text in found.requires or ():
            required = Requirement(text)
            name = required.name.lower().replace("_", "-")
            if name not in known and (
                required.marker is None or required.marker.evaluate({"extra": ""})
            ):
                known.add(name)
                waiting.append(name)
        for file in found.files or ():
            path = Path(str(found.locate_file(file))).resolve()
            if path.is_relative_to(sys.prefix) and path.exists():
                yield path


def make_filesystem(tree: Path, image: Path, size: int) -> None:
    """An ext4 of ``size`` bytes, sparse, that holds what ``tree`` holds. Raises MachineError."""
    with image.open("wb") as file:
        file.truncate(size)
    check(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), str(image)])


def check(words: Sequence[str]) -> str:
    """What a program prints, which dies with us. Raises MachineError, with the last lines."""
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "KILL", "--", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        tail = "\n".join(done.stderr.splitlines()[-20:])
        raise MachineError(f"{words[0]} failed with status {done.returncode}:\n{tail}")
    return done.stdout
