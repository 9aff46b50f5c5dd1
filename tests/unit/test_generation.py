"""Which Ganeti is on a node, and what its own scripts call."""

from __future__ import annotations

from pathlib import Path

import pytest

from snf_core.errors import SnfError
from snf_core.ganeti import generation
from snf_core.ganeti.generation import Ganeti


def put(library: Path, **scripts: str) -> None:
    """A version of Ganeti, with scripts of these names (``_`` for ``-``)."""
    library.mkdir(parents=True)
    (library / "daemon-util").touch()
    for name, text in scripts.items():
        (library / name.replace("_", "-")).write_text(text)


@pytest.mark.parametrize("place", ["usr/lib/ganeti", "usr/lib64/ganeti", "usr/local/lib/ganeti"])
def test_one_version(tmp_path: Path, place: str) -> None:
    put(tmp_path / place, kvm_ifup="#!/bin/sh\nexec $DIR/kvm-vif-bridge\n")
    found = generation.required(tmp_path)
    assert found == Ganeti((tmp_path / place,), tmp_path, Path("/etc/ganeti"))
    assert found.calls("kvm-ifup", "kvm-vif-bridge")
    assert not found.calls("kvm-ifup", "kvm-ifup-custom")
    assert not found.calls("kvm-ifdown", "kvm-vif-bridge"), "there is no such script"


def test_versions_side_by_side_are_all_asked(tmp_path: Path) -> None:
    """As Debian lays them out, with the symbolic links through which one is in use."""
    place = tmp_path / "usr/lib/ganeti"
    put(place / "3.0/usr/lib/ganeti", kvm_ifup="exec old\n")
    put(place / "3.2/usr/lib/ganeti", kvm_ifup="exec new\n")
    (place / "default").symlink_to("/etc/ganeti/lib")
    for name in ("daemon-util", "kvm-ifup", "vif-ganeti"):
        (place / name).symlink_to(f"default/usr/lib/ganeti/{name}")
    found = generation.find(tmp_path)
    assert found
    assert found.libraries == tuple(place / f"{name}/usr/lib/ganeti" for name in ("3.0", "3.2"))
    assert found.calls("kvm-ifup", "old")
    assert found.calls("kvm-ifup", "new")


def test_a_link_to_the_version_in_use_is_no_other_version(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib/ganeti"
    put(place / "3.0/usr/lib/ganeti", kvm_ifup="exec old\n")
    (place / "default").symlink_to("3.0")
    found = generation.find(tmp_path)
    assert found
    assert found.libraries == (place / "3.0/usr/lib/ganeti",)


def test_comments_call_nothing(tmp_path: Path) -> None:
    put(tmp_path / "usr/lib/ganeti", kvm_ifup="#!/bin/sh\n\t# exec kvm-vif-bridge\nexit 0\n")
    assert not generation.required(tmp_path).calls("kvm-ifup", "kvm-vif-bridge")


def test_no_ganeti(tmp_path: Path) -> None:
    assert generation.find(tmp_path) is None
    put(tmp_path / "usr/lib/ganeti", kvm_ifup="exec old\n")
    (tmp_path / "usr/lib/ganeti/daemon-util").unlink()
    (tmp_path / "usr/lib/ganeti/3.0").touch()
    assert generation.find(tmp_path) is None, "only what a package left behind"
    with pytest.raises(SnfError, match="there is no Ganeti below") as caught:
        generation.required(tmp_path)
    assert caught.value.remedy.startswith("install Ganeti first")


def test_places_of_the_node_are_below_its_root(tmp_path: Path) -> None:
    assert Ganeti(root=tmp_path).place(Path("/etc/ganeti")) == tmp_path / "etc/ganeti"
    assert Ganeti().place(Path("/etc/ganeti")) == Path("/etc/ganeti")
