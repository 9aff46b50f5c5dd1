"""Choosing the source of an image and the destination of a disk among the plugins."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from snf_core import extension
from snf_core.errors import DiskError, ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from snf_core.config import Config
    from snf_core.contract import Destination, Source
    from snf_core.extension import ExtensionPoint
    from snf_core.model import Disk

LOG = logging.getLogger(__name__)

P = TypeVar("P", "Source", "Destination")


def choose_source(image_id: str, config: Config) -> Source:
    """The source of highest priority that accepts ``image_id``, the first by name among equals.

    A plugin that cannot be used is warned of in the log and left out. Raises ImageError if no
    other accepts it.
    """
    chosen, remedy = _choose(
        extension.IMAGE_SOURCE, lambda source: source.accepts(image_id), config
    )
    if chosen is None:
        raise ImageError(f"no image source accepts {image_id!r}", remedy=remedy)
    return chosen


def choose_destination(disk: Disk, config: Config) -> Destination:
    """The destination for ``disk``, chosen like a source. Raises DiskError if there is none."""
    chosen, remedy = _choose(
        extension.IMAGE_DESTINATION, lambda destination: destination.accepts(disk), config
    )
    if chosen is None:
        raise DiskError(f"no destination accepts disk {disk.path or disk.uri}", remedy=remedy)
    return chosen


def _choose(
    point: ExtensionPoint[P], accepts: Callable[[P], bool], config: Config
) -> tuple[P | None, str]:
    """The plugin to use, and what to say where there is none."""
    usable: list[str] = []
    broken: list[str] = []
    chosen: P | None = None
    for name in extension.names(point):
        try:
            plugin = extension.make(point, name, config)
            accepted = accepts(plugin)
        except Exception as error:  # a plugin may raise anything, and must not break the others
            LOG.warning("%s plugin %r is left out: %s", point.namespace, name, error)
            broken.append(f"{name} ({error})")
            continue
        usable.append(name)
        if accepted and (chosen is None or plugin.priority > chosen.priority):
            chosen = plugin
    remedy = "installed: " + (", ".join(usable) or "none")
    if broken:
        remedy += "; broken: " + ", ".join(broken)
    return chosen, remedy
