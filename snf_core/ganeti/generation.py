"""The Ganeti of this node: where it is, and what its own scripts call.

Which scripts of ours Ganeti runs changed from version to version and from patch to patch, so the
installed files decide, never a version number. Several versions may be installed side by side, as
during an upgrade; any of them may be the one in use tomorrow, so all are asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from snf_core.errors import SnfError

CONFIGURATION = Path("/etc/ganeti")

_PLACES = ("usr/lib/ganeti", "usr/lib64/ganeti", "usr/local/lib/ganeti")
"""Ganeti's ``pkglibdir``, by distribution."""
_WITNESS = "daemon-util"
"""A program of every version's ``pkglibdir``."""
_CLUSTER = ("/var/lib/ganeti", "/usr/local/var/lib/ganeti")
"""Where Ganeti keeps what a node knows of its cluster, by distribution."""


@dataclass(frozen=True)
class Ganeti:
    """The Ganeti of a node, in as many versions as are installed."""

    libraries: tuple[Path, ...] = ()
    """Each version's directory of internal scripts, below ``root``."""
    root: Path = Path("/")
    """The node's root directory: another one where the node is still being made."""
    configuration: Path = CONFIGURATION
    """Where Ganeti looks for scripts of the operator's: as the node will call it."""

    def calls(self, script: str, name: str) -> bool:
        """Whether ``script`` of any version mentions ``name`` outside its comments."""
        return any(name in _code(library / script) for library in self.libraries)

    def in_cluster(self) -> bool:
        """Whether the node is one of a cluster's. Raises PermissionError."""
        return any(self.place(Path(one) / "ssconf_cluster_name").exists() for one in _CLUSTER)

    def place(self, path: Path) -> Path:
        """Where a path of the node is now: below ``root``."""
        return self.root / path.relative_to("/")


def find(root: Path = Path("/")) -> Ganeti | None:
    """The Ganeti that is installed below ``root``; None where there is none."""
    libraries = tuple(
        library
        for place in _PLACES
        for library in (root / place, *_versions(root / place, place))
        if (library / _WITNESS).is_file() and not (library / _WITNESS).is_symlink()
    )
    return Ganeti(libraries, root) if libraries else None


def required(root: Path = Path("/")) -> Ganeti:
    """The same. Raises SnfError where there is none."""
    found = find(root)
    if not found:
        raise SnfError(
            f"there is no Ganeti below {root}: {_WITNESS} is in none of "
            + ", ".join(f"/{place}" for place in _PLACES),
            remedy="install Ganeti first; or, for what hypervisors call without it, say "
            '"snf network install"',
        )
    return found


def _versions(directory: Path, place: str) -> list[Path]:
    """Where versions stand side by side, as DIRECTORY/VERSION/PLACE.

    Symbolic links say which of them is in use; absolute ones would lead out of another root.
    """
    if not directory.is_dir():
        return []
    return [entry / place for entry in sorted(directory.iterdir()) if not entry.is_symlink()]


def _code(script: Path) -> str:
    """A shell script without the lines that are comments; empty where there is no script."""
    try:
        lines = script.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))
