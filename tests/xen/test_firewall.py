"""Tests of firewalls, with a domU as the guest that they protect, or that attacks."""

from __future__ import annotations

import pytest

from tests.network.conftest import host
from tests.network.test_firewall import (
    _linked,
    test_a_bridged_guest_cannot_spoof_within_an_established_conversation,
    test_a_routed_guest_cannot_spoof_within_an_established_conversation,
)
from tests.xen.attacker import attacker

__all__ = [
    "_linked",
    "attacker",
    "host",
    "test_a_bridged_guest_cannot_spoof_within_an_established_conversation",
    "test_a_routed_guest_cannot_spoof_within_an_established_conversation",
]

pytestmark = pytest.mark.usefixtures("attacker")
