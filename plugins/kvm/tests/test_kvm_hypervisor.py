"""The hypervisor: launchers, disks' names, and what is remembered of KVM for one boot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.appliance import Appliance
from snf_core.config import Config
from snf_core.errors import ApplianceError
from snf_core.model import Disk
from snf_kvm import accelerator
from snf_kvm.accelerator import Accelerator
from snf_kvm.hypervisor import OPTIONS, Kvm

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(name="node")
def _node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Appliance:
    """A node with an appliance and a QEMU that nobody runs, and without KVM."""
    for name in ("kernel", "initrd", "root"):
        (tmp_path / name).write_text(name)
    qemu = tmp_path / "qemu"
    qemu.write_text("#!/bin/false\n")
    qemu.chmod(0o755)
    (tmp_path / "boot_id").write_text("one\n")
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(accelerator, "DEVICE", tmp_path / "no-kvm")
    monkeypatch.setattr(accelerator, "BOOT_ID", tmp_path / "boot_id")
    return Appliance(tmp_path, tmp_path / "cache")


def kvm(node: Appliance, **options: str) -> Kvm:
    """The plugin with its options from a file."""
    file = node.directory / "snf.conf"
    settings = {"qemu": str(node.directory / "qemu"), **options}
    lines = [f"{name} = {value}\n" for name, value in settings.items()]
    file.write_text("[hypervisor.kvm]\n" + "".join(lines))
    return Kvm(Config([file]).plugin("hypervisor.kvm", OPTIONS))


def cache(node: Appliance) -> Any:
    """What is remembered."""
    return json.loads((node.boot_cache / "accelerator.json").read_text())


def pretend(node: Appliance) -> None:
    """Let the cache say what a trial would not find."""
    known = cache(node) | {"accelerator": {"name": "kvm", "reason": "pretended"}}
    (node.boot_cache / "accelerator.json").write_text(json.dumps(known))


def find(node: Appliance) -> Accelerator:
    return accelerator.find(node.directory / "qemu", node, 1)


def test_what_was_found_is_remembered(node: Appliance) -> None:
    found = find(node)
    assert found.emulated
    assert "no-kvm does not exist" in found.reason
    assert cache(node)["accelerator"] == {"name": "tcg", "reason": found.reason}
    assert [path.name for path in node.boot_cache.iterdir()] == ["accelerator.json"]
    pretend(node)
    assert find(node) == Accelerator("kvm", "pretended")
    assert not find(node).emulated


@pytest.mark.parametrize("what", ["boot_id", "qemu", "kernel"])
def test_until_the_node_reboots_or_qemu_or_the_kernel_changes(node: Appliance, what: str) -> None:
    find(node)
    pretend(node)
    (node.directory / what).write_text("another, and longer")
    assert find(node).emulated
    assert cache(node)["accelerator"]["name"] == "tcg"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"key": 1}', '{"accelerator": {}}', "\xff", "WELL-KEYED"],
)
def test_a_damaged_cache_is_made_anew(node: Appliance, text: str) -> None:
    find(node)
    if text == "WELL-KEYED":
        text = json.dumps(cache(node) | {"accelerator": {"nonsense": True}})
    (node.boot_cache / "accelerator.json").write_text(text, encoding="latin-1")
    assert find(node).emulated
    assert cache(node)["accelerator"]["name"] == "tcg"


def test_a_cache_that_cannot_be_written_does_no_harm(node: Appliance) -> None:
    node.boot_cache.rmdir()
    assert find(node).emulated


def test_the_launcher_of_an_emulated_appliance(node: Appliance) -> None:
    found = kvm(node).launcher(node, 512)
    assert (found.memory, found.settings, found.groups) == (
        512,
        ("force_tcg",),
        (),
    )
    assert repr(str(node.directory / "qemu")) in found.program
    assert f"ADDRESS_SPACE = {(512 << 20) + (4 << 30)}\n" in found.program


@pytest.mark.parametrize(("name", "setting"), [("tcg", "force_tcg"), ("kvm", "force_kvm")])
def test_a_configured_accelerator_is_not_tried(
    node: Appliance, name: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = node.directory / "kvm"
    device.touch(mode=0o600)
    monkeypatch.setattr(accelerator, "DEVICE", device)
    found = kvm(node, accelerator=name).launcher(node, 256)
    assert found.settings == (setting,)
    assert found.groups == ()
    assert list(node.boot_cache.iterdir()) == []


def test_the_group_of_the_device_is_asked_for(
    node: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    import grp

    device = node.directory / "kvm"
    device.touch()
    device.chmod(0o660)
    monkeypatch.setattr(accelerator, "DEVICE", device)
    found = kvm(node, accelerator="kvm").launcher(node, 256)
    assert found.groups == (grp.getgrgid(device.stat().st_gid).gr_name,)


def test_kvm_by_force_without_the_device(node: Appliance) -> None:
    with pytest.raises(ApplianceError, match="no-kvm cannot be used") as caught:
        kvm(node, accelerator="kvm").launcher(node, 256)
    assert "accelerator = auto" in caught.value.remedy


def test_without_qemu(node: Appliance) -> None:
    (node.directory / "qemu").unlink()
    with pytest.raises(ApplianceError, match="qemu cannot be run") as caught:
        kvm(node).launcher(node, 256)
    assert "install qemu-system-x86" in caught.value.remedy
    assert [finding.well for finding in kvm(node).check(node)] == [False]


def test_what_the_doctor_says(node: Appliance) -> None:
    assert [finding.well for finding in kvm(node).check(None)] == [True]
    found = list(kvm(node).check(node))
    assert [finding.well for finding in found] == [True, False]
    assert "the appliance is emulated, which is slow: " in found[1].statement
    assert found[1].remedy
    assert not found[1].fatal
    pretend(node)
    assert [finding.well for finding in kvm(node).check(node)] == [True, True]


@pytest.mark.parametrize(
    ("index", "frontend", "name"),
    [
        (0, "paravirtual", "/dev/vda"),
        (1, "", "/dev/vdb"),
        (15, "scsi-hd", "/dev/sdp"),
        (0, "ide", "/dev/sda"),
        (0, "unheard of", "/dev/vda"),
    ],
)
def test_disks_names(node: Appliance, index: int, frontend: str, name: str) -> None:
    assert kvm(node).disk_name(Disk(index, path="/dev/x", frontend=frontend)) == name
