"""The OS definition ``snf-image``: a directory of thin files that call the core."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.ganeti import installation
from snf_core.ganeti.environment import API_VERSION
from snf_core.ganeti.installation import File
from snf_core.image.parameters import DESCRIPTIONS, NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NAME = "snf-image"
DIRECTORY = Path("/usr/share/ganeti/os") / NAME
SEARCHED_BEFORE = tuple(
    Path(place) / NAME
    for place in ("/srv/ganeti/os", "/usr/local/lib/ganeti/os", "/usr/lib/ganeti/os")
)
"""Where Ganeti would find another definition of this name first (man ganeti-os-interface)."""

VARIANTS_LIST = "variants.list"
SCRIPTS = ("create", "import", "export", "rename", "verify")


def files(directory: Path, variants: Iterable[str], command: Sequence[str]) -> Iterator[File]:
    """The definition's files, to be in ``directory``; ``command`` is the words that run ``snf``.

    The lists cannot hold a line that says whose they are. ``create`` speaks for them, so it comes
    before them.
    """
    for name in SCRIPTS:
        yield installation.script(directory / name, [*command, "ganeti", "os", name])
    lists = {
        "ganeti_api_version": [API_VERSION],
        VARIANTS_LIST: sorted({"default", *variants}),
        "parameters.list": [f"{name} {DESCRIPTIONS[name]}" for name in NAMES],
    }
    for name, lines in lists.items():
        text = "".join(f"{line}\n" for line in lines)
        yield File(directory / name, text, witness=directory / "create")
