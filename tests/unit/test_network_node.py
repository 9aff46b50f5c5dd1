"""What setups ask of the node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_core.errors import NetworkError
from snf_core.network.links import Links
from snf_core.network.node import Node, table_names

if TYPE_CHECKING:
    from pathlib import Path


def test_routing_tables_have_numbers_and_names(tmp_path: Path) -> None:
    (tmp_path / "etc/rt_tables.d").mkdir(parents=True)
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/rt_tables").write_text(
        "255\tlocal\n 100 vms # ours\n#101 commented\n7 seven\n"
    )
    (tmp_path / "etc/rt_tables").write_text("0x64  hexadecimal\n\nnonsense\nx y\n1 2 3\n8 seven\n")
    (tmp_path / "etc/rt_tables.d/b.conf").write_text("300 late\n")
    (tmp_path / "etc/rt_tables.d/a.conf").write_text("200 late\n")
    (tmp_path / "etc/rt_tables.d/c.txt").write_text("400 other\n")

    names = table_names([tmp_path / "usr", tmp_path / "etc", tmp_path / "nowhere"])

    assert names == {
        "default": 253,
        "main": 254,
        "local": 255,
        "vms": 100,
        "hexadecimal": 100,
        "seven": 8,
        "late": 300,
    }


def test_a_table_by_number_or_name() -> None:
    node = Node(Links())
    assert [node.table(name) for name in ("1", "4294967295", "main")] == [1, 4294967295, 254]


@pytest.mark.parametrize("name", ["0", "4294967296", "br0-no-such", "", "-1", "²", "9" * 5000])
def test_what_is_no_table_is_refused(name: str) -> None:
    with pytest.raises(NetworkError, match="table"):
        Node(Links()).table(name)
