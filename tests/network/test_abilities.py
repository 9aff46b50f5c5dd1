"""What ``snf doctor`` says of this node's kernel, against the kernel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from snf_core import config
from snf_core.network.abilities import check
from tests.machine import NetworkNamespace
from tests.network import abilities, packets
from tests.network.child import Child

if TYPE_CHECKING:
    from pathlib import Path

    from snf_core.contract import Finding

SETUPS = ["bridged", "routed", "filtered", "isolation", "firewall", "masquerade", "openvswitch"]


def found(directory: Path, *setups: str) -> list[Finding]:
    """The findings in a namespace of its own, in which nothing may have changed by them."""
    file = directory / "snf.conf"
    file.write_text(f"[network]\nsetups = {','.join(setups)}\n")
    with NetworkNamespace() as namespace:
        before = _state(namespace)
        findings = packets.inside(namespace.name, lambda: list(check(config.load(file))))
        assert _state(namespace) == before
    return findings


def _state(namespace: NetworkNamespace) -> list[str]:
    return [namespace.run(["ip", "-json", "link"]), namespace.run(["nft", "list", "ruleset"])]


@pytest.fixture(scope="module")
def lacking() -> set[str]:
    """What this kernel lacks, by the tests' own probes."""
    return set(abilities.lacking(abilities.PROBES))


def test_each_setup_in_use_is_tried(tmp_path: Path, lacking: set[str]) -> None:
    findings = found(tmp_path, *SETUPS)
    for name in SETUPS:
        mine = [one for one in findings if one.statement.startswith(f"network setup {name}: ")]
        wrong = name == "firewall" and bool(lacking & {"bridge-conntrack", "bridge-vlan-meta"})
        assert all(one.well != wrong for one in mine), mine
        if wrong:
            assert "bridge-conntrack" not in lacking or "nf_conntrack_bridge" in str(mine)
            assert "bridge-vlan-meta" not in lacking or "nft_meta_bridge" in str(mine)
            assert all(one.remedy and not one.fatal for one in mine)
    tried = {one.statement.split(":")[0].removeprefix("network setup ") for one in findings}
    assert {"routed", "filtered", "isolation", "firewall", "masquerade"} <= tried


def test_vlans_of_bridges_and_open_vswitch(tmp_path: Path, lacking: set[str]) -> None:
    findings = found(tmp_path, "bridged", "openvswitch")
    (vlans,) = [one for one in findings if "VLAN" in one.statement]
    assert vlans.well == ("vlan-filtering" not in lacking)
    assert "BRIDGE_VLAN_FILTERING" in vlans.remedy
    (switch,) = [one for one in findings if "Open vSwitch" in one.statement]
    assert not switch.well or "openvswitch" not in lacking
    assert not switch.fatal


def test_what_no_setup_in_use_needs_is_not_looked_at(tmp_path: Path) -> None:
    assert [one.statement for one in found(tmp_path, "routed")] == [
        "network setup routed: this kernel takes its nftables rules"
    ]


def test_who_is_not_root_is_told(tmp_path: Path) -> None:
    file = tmp_path / "snf.conf"
    file.write_text("[network]\nsetups = routed\n")
    settings = config.load(file)

    def looking() -> int:
        os.setresuid(65534, 65534, 65534)
        (finding,) = check(settings)
        print(finding.statement, finding.remedy)
        return int(finding.well)

    with NetworkNamespace() as namespace, Child(namespace.name, {}, looking) as child:
        assert child.ended() == (
            0,
            "what this kernel can do for NICs is not known run it as root\n",
            "",
        )
