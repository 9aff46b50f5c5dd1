"""PowerShell's grammar, by tree-sitter: no PowerShell runs here."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import tree_sitter_powershell
from tree_sitter import Language, Parser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_powershell.language()))


def check(script: str) -> None:
    """Assert that a script is PowerShell, in the form in which guests get it."""
    assert script.isascii()
    assert script.count("\n") == script.count("\r\n") == script.count("\r"), "lines end as DOS's"
    # Of two kinds of string, one without escapes would let a text end it.
    assert "@'" not in script
    assert '@"' not in script
    assert problems(script) == []


def problems(script: str) -> list[str]:
    """Where a script is not PowerShell: line, and what is there."""
    tree = _parser().parse(script.encode())
    return [
        f"{node.start_point[0] + 1}: {(node.text or b'').decode()[:80]!r} {node.type}"
        for node in _nodes(tree.root_node)
        if node.is_error or node.is_missing
    ]


def literals(script: str) -> list[str]:
    """What stands between quotes in a script."""
    tree = _parser().parse(script.encode())
    return [
        (node.text or b"").decode()[1:-1]
        for node in _nodes(tree.root_node)
        if node.type in {"verbatim_string_characters", "expandable_string_literal"}
    ]


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _nodes(child)
