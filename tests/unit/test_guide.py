"""The plugin authors' guide quotes the files of its example, all of them and to the letter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snf_core import extension

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "plugin-authors.md").read_text()
ACME = DOCS / "examples/acme"

QUOTED = dict(
    re.findall(r"\]\((examples/acme/[\w./]+)\):\n\n```\w+\n(.*?)^```$", GUIDE, re.M | re.S)
)
FILES = sorted(
    path
    for pattern in ("*.cfg", "*.toml", "*/*.py")
    for path in ACME.glob(pattern)
    if path.name != "__init__.py"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_quoted_to_the_letter(path: Path) -> None:
    name = path.relative_to(DOCS).as_posix()
    assert name in QUOTED, f"{name} is not in the guide"
    assert QUOTED[name] == path.read_text(), f"copy {name} into the guide again"


def test_every_block_of_code_is_such_a_file() -> None:
    languages = re.findall(r"^```(\w+)$", GUIDE, re.M)
    assert len([name for name in languages if name != "console"]) == len(QUOTED) == len(FILES)


def test_every_extension_point_has_its_section() -> None:
    namespaces = {point.namespace for point in extension.CORE_POINTS}
    for namespace in namespaces | {"snf.guest.linux.network"}:
        assert re.search(rf"^## .*\(`{re.escape(namespace)}`\)$", GUIDE, re.M), namespace
        assert re.search(rf"^{re.escape(namespace)} =$", (ACME / "setup.cfg").read_text(), re.M)


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^## (.*)$", GUIDE, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", GUIDE):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("https:"):
            assert (DOCS / target).exists(), target
