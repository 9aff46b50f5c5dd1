"""Which saved state is resumed, and what is said of one that is not."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from snf_core.appliance import Appliance
from snf_core.errors import ApplianceError
from snf_kvm import remembered, saved

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(name="node")
def _node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Appliance:
    """An appliance with a saved state for emulation, as ``save`` leaves one."""
    for name in ("kernel", "root", "qemu"):
        (tmp_path / name).write_text(name)
    (tmp_path / "boot_id").write_text("one\n")
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(remembered, "BOOT_ID", tmp_path / "boot_id")
    node = Appliance(tmp_path, tmp_path / "cache", 256)
    write(node, "tcg")
    return node


def write(node: Appliance, accelerator: str) -> None:
    """Put a state in place."""
    directory = saved.location(node, accelerator)
    directory.mkdir(parents=True)
    for name in saved.FILES:
        (directory / name).write_text(name)
    conditions = saved.conditions(node.directory / "qemu", accelerator, node)
    facts = {"machine": "pc-i440fx-7.2", "date": "2026-11-22T12:00:00+00:00"}
    saved.write_manifest(directory, conditions, facts)


def find(node: Appliance, accelerator: str = "tcg") -> saved.Saved:
    return saved.find(node.directory / "qemu", accelerator, node)


def reason(node: Appliance, accelerator: str = "tcg") -> str:
    """Why nothing can be resumed; the remedy is always the same."""
    with pytest.raises(ApplianceError) as caught:
        find(node, accelerator)
    assert caught.value.remedy == 'run "snf appliance build"'
    return caught.value.message


def test_what_fits_is_found(node: Appliance) -> None:
    found = find(node)
    assert (found.machine, found.date) == ("pc-i440fx-7.2", "2026-11-22T12:00:00+00:00")
    assert found.state.read_text() == "state"
    assert found.root.read_text() == "root.qcow2"


def test_each_accelerator_has_its_own(node: Appliance) -> None:
    assert reason(node, "kvm") == "there is no saved state of the appliance for kvm"
    write(node, "kvm")
    assert find(node, "kvm").directory != find(node).directory


def _another_processor(node: Appliance) -> None:
    directory = saved.location(node, "tcg")
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["conditions"]["the processor"] = "0" * 64
    (directory / "manifest.json").write_text(json.dumps(manifest))


CHANGES: dict[str, Callable[[Appliance], object]] = {
    "QEMU": lambda node: (node.directory / "qemu").write_text("another one"),
    "the appliance": lambda node: (node.directory / "root").write_text("rebuilt"),
    "the processor": _another_processor,
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_is_named(node: Appliance, what: str) -> None:
    CHANGES[what](node)
    assert reason(node) == (
        f"the saved state of the appliance does not fit: {what} changed since it was saved"
    )


def test_other_memory_or_another_plugin(
    node: Appliance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Appliance(node.directory, node.boot_cache, 300)
    assert "fit: the appliance's memory changed" in reason(other)
    (tmp_path / "inside").mkdir()
    monkeypatch.setattr(saved, "INSIDE", tmp_path / "inside")
    message = reason(other)
    assert "fit: the appliance's memory and the snf-kvm plugin changed" in message


@pytest.mark.parametrize("name", saved.FILES)
def test_damage_is_found(node: Appliance, name: str) -> None:
    file = saved.location(node, "tcg") / name
    file.write_text(file.read_text().upper())
    assert f"is damaged: {file} has another checksum" in reason(node)


@pytest.mark.parametrize("name", saved.FILES)
def test_damage_is_found_after_a_first_look(node: Appliance, name: str) -> None:
    find(node)
    file = saved.location(node, "tcg") / name
    file.write_text(file.read_text().upper())
    assert "another checksum" in reason(node)


def test_the_checksums_are_compared_once_per_boot(
    node: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    true = saved._checksum

    def checksum(file: Path) -> str:
        looked.append(file)
        return true(file)

    monkeypatch.setattr(saved, "_checksum", checksum)
    find(node)
    find(node)
    assert [file.name for file in looked] == list(saved.FILES)
    (node.directory / "boot_id").write_text("two\n")
    find(node)
    assert len(looked) == 2 * len(saved.FILES)


@pytest.mark.parametrize("name", saved.FILES)
def test_a_missing_file(node: Appliance, name: str) -> None:
    (saved.location(node, "tcg") / name).unlink()
    assert f"cannot be read: [Errno 2] No such file or directory: '{node.directory}" in reason(node)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"conditions": {}}', '{"conditions": 1, "sha256": 2}']
)
def test_an_unusable_manifest(node: Appliance, text: str) -> None:
    (saved.location(node, "tcg") / "manifest.json").write_text(text)
    assert "the manifest is unusable" in reason(node)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sha256": {}}', "is damaged"),
        ('{"sha256": 1}', "is unusable"),
        ('{"conditions": {}}', "does not fit: QEMU and the appliance and"),
        ('{"conditions": [1]}', "is unusable"),
    ],
)
def test_a_manifest_of_the_wrong_shape(node: Appliance, text: str, message: str) -> None:
    file = saved.location(node, "tcg") / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | json.loads(text)))
    assert message in reason(node)


def test_a_cache_that_cannot_be_written_does_no_harm(node: Appliance) -> None:
    os.rmdir(node.boot_cache)
    assert find(node)
    assert find(node)
