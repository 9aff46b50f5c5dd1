"""A cluster for each module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.ganeti.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--record``: write what Ganeti said as the fixtures of the unit tests."""
    parser.addoption("--record", action="store_true", help="write tests/fixtures/ganeti-*")


@pytest.fixture(name="cluster", scope="module")
def _cluster() -> Iterator[Cluster]:
    """A cluster of one node, with our glue."""
    with Cluster.create() as made:
        yield made
