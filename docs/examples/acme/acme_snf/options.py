"""The options of all plugins of this distribution, for the sample configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acme_snf import archive, external, hypervisor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oslo_config import cfg


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """Group and options of each plugin that has any."""
    return [
        ("hypervisor.acme", hypervisor.OPTIONS),
        ("network.setup.acme-external", external.OPTIONS),
        ("image.destination.acme", archive.OPTIONS),
    ]
