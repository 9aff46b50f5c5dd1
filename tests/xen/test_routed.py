"""Tests of routed NICs, with a domU as the guest, who attacks."""

from __future__ import annotations

import pytest

from tests.network.conftest import host
from tests.network.test_routed import (
    management,
    subnet,
    test_a_guest_cannot_take_the_nodes_address_away,
    test_a_guests_router_advertisement,
    test_advertisements_in_anothers_name,
    test_arp_in_anothers_name,
    test_guests_are_nobodys_router_or_server,
    test_in_whose_name_the_node_asks,
    test_nothing_leaves_by_the_nodes_own_networks,
    test_sources_are_pinned,
    test_sources_are_pinned_while_nftables_are_flushed,
    test_spoofing_where_the_network_allows_it,
    test_the_guest_finds_its_gateway_and_its_own_address_free,
    test_the_node_answers_for_its_guests_alone,
    test_what_a_host_says_before_it_has_an_address,
)
from tests.xen.attacker import attacker

__all__ = [
    "attacker",
    "host",
    "management",
    "subnet",
    "test_a_guest_cannot_take_the_nodes_address_away",
    "test_a_guests_router_advertisement",
    "test_advertisements_in_anothers_name",
    "test_arp_in_anothers_name",
    "test_guests_are_nobodys_router_or_server",
    "test_in_whose_name_the_node_asks",
    "test_nothing_leaves_by_the_nodes_own_networks",
    "test_sources_are_pinned",
    "test_sources_are_pinned_while_nftables_are_flushed",
    "test_spoofing_where_the_network_allows_it",
    "test_the_guest_finds_its_gateway_and_its_own_address_free",
    "test_the_node_answers_for_its_guests_alone",
    "test_what_a_host_says_before_it_has_an_address",
]

pytestmark = pytest.mark.usefixtures("attacker")
