"""VLANs in Ganeti's notation and in that of states."""

from __future__ import annotations

import pytest

from snf_core.errors import InvalidValueError
from snf_core.network.vlan import Vlans, from_ganeti, from_state


@pytest.mark.parametrize(
    ("ganeti", "vlans", "state"),
    [
        ("", Vlans(), ""),
        ("100", Vlans(100), "untagged 100"),
        (".100", Vlans(100), "untagged 100"),
        (":200", Vlans(None, (200,)), "tagged 200"),
        (":300:200", Vlans(None, (200, 300)), "tagged 200,300"),
        (".100:300:200", Vlans(100, (200, 300)), "untagged 100 tagged 200,300"),
        ("4094:1", Vlans(4094, (1,)), "untagged 4094 tagged 1"),
    ],
)
def test_both_notations(ganeti: str, vlans: Vlans, state: str) -> None:
    assert from_ganeti(ganeti) == vlans
    assert str(vlans) == state
    assert from_state(state) == vlans


@pytest.mark.parametrize(
    "text", ["0", ".4095", ":", "1:", "..1", "1,2", "100:100", "-1", "1 ", "\u0661", ":99999"]
)
def test_what_is_no_vlan_is_refused_by_its_value(text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        from_ganeti(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["100", "untagged", "tagged 1,2 untagged 3", "untagged 1 x"])
def test_what_no_state_says_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        from_state(text)
