"""The tests of filtered NICs, with a domU as the attacker."""

from __future__ import annotations

import pytest

from tests.network.test_filtered import (
    tenants,
    test_arp,
    test_ethernet,
    test_frames_to_the_link_do_not_teach_the_bridge_false_addresses,
    test_ipv4,
    test_rarp,
)
from tests.network.test_filtered_ipv6 import (
    test_neighbour_discovery,
    test_routers_and_servers,
    test_sources,
    test_what_guests_use_passes,
)
from tests.xen.attacker import attacker

__all__ = [
    "attacker",
    "tenants",
    "test_arp",
    "test_ethernet",
    "test_frames_to_the_link_do_not_teach_the_bridge_false_addresses",
    "test_ipv4",
    "test_neighbour_discovery",
    "test_rarp",
    "test_routers_and_servers",
    "test_sources",
    "test_what_guests_use_passes",
]

pytestmark = pytest.mark.usefixtures("attacker")
