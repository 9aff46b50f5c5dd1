"""Answer files of Windows: whether they have the structure that Windows expects."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from lxml import etree

SCHEMA = Path(__file__).parent / "schema/unattend.xsd"


@cache
def _schema() -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(str(SCHEMA)))


def check(content: bytes) -> None:
    """Assert that a file is valid by the schema, ends its lines as Windows does, and is XML to a
    parser other than the one that wrote it."""
    _schema().assertValid(etree.fromstring(content))
    assert content.startswith(b'<?xml version="1.0" encoding="utf-8"?>\r\n')
    assert content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r")
    ElementTree.fromstring(content)
