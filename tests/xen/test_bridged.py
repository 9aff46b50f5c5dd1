"""Tests of bridged NICs, VLANs, and what shuts NICs, with a domU as the guest."""

from __future__ import annotations

import pytest

from tests.network.conftest import host
from tests.network.test_bridged import (
    test_an_up_for_another_bridge_moves_the_nic,
    test_frames_of_the_bridges_mtu_cross_both_ways,
)
from tests.network.test_isolation import tenants, test_what_is_shut_on_a_bridge
from tests.network.test_vlan import (
    test_an_access_port_cannot_hop_by_tags,
    test_the_guests_of_two_vlans_do_not_hear_each_other,
)
from tests.xen.attacker import attacker

__all__ = [
    "attacker",
    "host",
    "tenants",
    "test_an_access_port_cannot_hop_by_tags",
    "test_an_up_for_another_bridge_moves_the_nic",
    "test_frames_of_the_bridges_mtu_cross_both_ways",
    "test_the_guests_of_two_vlans_do_not_hear_each_other",
    "test_what_is_shut_on_a_bridge",
]

pytestmark = pytest.mark.usefixtures("attacker")
