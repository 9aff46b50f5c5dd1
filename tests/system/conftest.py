"""What whole deployments share: images, and a node per module."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.images.debian import cache_directory
from tests.system.guests import Images, make_images
from tests.system.site import Site, site

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def images() -> Iterator[Images]:
    """Small images, outside the directories that scripts see empty."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="images-", dir=cache_directory()))
    yield make_images(directory)
    shutil.rmtree(directory)


@pytest.fixture(name="place", scope="module")
def _place(images: Images) -> Iterator[Site]:
    """A node with the default configuration."""
    with site(images.directory) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_remains(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test with a site, nothing of ours is left."""
    place = request.getfixturevalue("place") if "place" in request.fixturenames else None
    yield
    if isinstance(place, Site):
        assert place.remains() == []
