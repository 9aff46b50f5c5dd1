"""The guides to operation and to guests explain messages that there are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = (ROOT / "docs/operators.md", ROOT / "docs/guests.md")


def explained(guide: Path) -> list[str]:
    """The messages of the troubleshooting table; ``...`` stands for what varies."""
    table = guide.read_text().partition("## Troubleshooting")[2]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    return [message.strip() for row in rows[2:] for message in row.split(";")]


def texts() -> list[str]:
    """All strings of the core and the plugins, joined as Python joins them."""
    found = []
    for file in [*ROOT.glob("snf_core/**/*.py"), *ROOT.glob("plugins/*/snf_*/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "\0" for p in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


TEXTS = texts()


@pytest.mark.parametrize("message", [text for guide in GUIDES for text in explained(guide)])
def test_every_message_that_is_explained_exists(message: str) -> None:
    parts = [part.strip() for part in message.split("...") if part.strip()]
    assert parts
    assert any(_in_order(parts, text) for text in TEXTS)


def _in_order(parts: list[str], text: str) -> bool:
    position = 0
    for part in parts:
        position = text.find(part, position)
        if position < 0:
            return False
        position += len(part)
    return True
