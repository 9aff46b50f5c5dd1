"""The NICs of an instance that is about to arrive: what is written is what is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_core import model
from snf_core.errors import NetworkError
from snf_core.model import Mode, Network, Nic
from snf_xen import description, nic_files

if TYPE_CHECKING:
    from pathlib import Path

NAME = "web1.gnt.test"
UUID = "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01"

NICS = (
    Nic(0, "aa:00:10:38:54:25", Mode.BRIDGED, "br0"),
    Nic(
        index=1,
        mac="aa:00:10:38:54:26",
        mode=Mode.ROUTED,
        link="100",
        ip=model.address("198.51.100.3"),
        vlan=".7",
        name='lan "side"\\ MODE=bridged',
        uuid=UUID,
        network=Network(
            name='net "1" NETWORK_TAGS="x"',
            uuid=UUID,
            subnet=model.ipv4_network("198.51.100.0/24"),
            gateway=model.ipv4_address("198.51.100.1"),
            subnet6=model.ipv6_network("2001:db8::/64"),
            gateway6=model.ipv6_address("2001:db8::1"),
            mac_prefix="aa:00:10",
            tags=frozenset({"dns", "filtered"}),
        ),
    ),
    Nic(2, "aa:00:10:38:54:27", Mode.BRIDGED, "br0", network=Network("net2")),
)


@pytest.mark.parametrize("tags", [frozenset[str](), frozenset({"one", "x:y+z/@.-_*"})])
def test_what_is_written_is_read(tmp_path: Path, tags: frozenset[str]) -> None:
    nic_files.write(NAME, NICS, tags, tmp_path)
    for nic in NICS:
        path = tmp_path / NAME / str(nic.index)
        assert description.by_ganeti(NAME, nic.index, tmp_path) == (nic, tags, str(path))
        assert path.stat().st_mode & 0o777 == 0o600


def test_what_was_there_is_replaced(tmp_path: Path) -> None:
    nic_files.write(NAME, NICS, frozenset(), tmp_path / "nic")
    nic_files.write(NAME, NICS[:1], frozenset({"new"}), tmp_path / "nic")
    assert description.by_ganeti(NAME, 0, tmp_path / "nic").tags == {"new"}
    assert sorted(path.name for path in (tmp_path / "nic" / NAME).iterdir()) == ["0", "1", "2"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "0").mkdir()
    with pytest.raises(NetworkError, match="cannot be described"):
        nic_files.write(NAME, NICS[:1], frozenset(), tmp_path)
    assert [path.name for path in (tmp_path / NAME).iterdir()] == ["0"]
