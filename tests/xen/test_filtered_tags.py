"""Tests of filtered NICs by their network's tags, with a domU as the attacker."""

from __future__ import annotations

import pytest

from tests.network.conftest import host
from tests.network.test_filtered_tags import (
    test_anti_spoofing_comes_before_established,
    test_private_networks_on_one_bridge_are_apart,
    test_tags_of_the_network_loosen_one_thing,
    test_what_the_node_sends_reaches_no_private_network,
)
from tests.xen.attacker import attacker

__all__ = [
    "attacker",
    "host",
    "test_anti_spoofing_comes_before_established",
    "test_private_networks_on_one_bridge_are_apart",
    "test_tags_of_the_network_loosen_one_thing",
    "test_what_the_node_sends_reaches_no_private_network",
]

pytestmark = pytest.mark.usefixtures("attacker")
