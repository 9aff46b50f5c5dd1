"""The hypervisor: launchers, disks' names, and what is remembered of KVM for one boot."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.appliance import Appliance
from snf_core.config import Config
from snf_core.errors import ApplianceError
from snf_core.model import Disk
from snf_kvm import accelerator, remembered, saved
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
    monkeypatch.setattr(remembered, "BOOT_ID", tmp_path / "boot_id")
    return Appliance(tmp_path, tmp_path / "cache", 256)


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
    known = cache(node) | {"value": {"name": "kvm", "reason": "pretended"}}
    (node.boot_cache / "accelerator.json").write_text(json.dumps(known))


def find(node: Appliance) -> Accelerator:
    return accelerator.find(node.directory / "qemu", node, 1)


def test_what_was_found_is_remembered(node: Appliance) -> None:
    found = find(node)
    assert found.emulated
    assert "no-kvm does not exist" in found.reason
    assert cache(node)["value"] == {"name": "tcg", "reason": found.reason}
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
    assert cache(node)["value"]["name"] == "tcg"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"key": 1}', '{"value": {}}', "\xff", "WELL-KEYED"],
)
def test_a_damaged_cache_is_made_anew(node: Appliance, text: str) -> None:
    find(node)
    if text == "WELL-KEYED":
        text = json.dumps(cache(node) | {"value": {"nonsense": True}})
    (node.boot_cache / "accelerator.json").write_text(text, encoding="latin-1")
    assert find(node).emulated
    assert cache(node)["value"]["name"] == "tcg"


def test_a_cache_that_cannot_be_written_does_no_harm(node: Appliance) -> None:
    node.boot_cache.rmdir()
    assert find(node).emulated


def test_the_launcher_of_an_emulated_appliance(node: Appliance) -> None:
    found = kvm(node).launcher(node)
    assert (found.memory, found.settings, found.groups) == (
        256,
        ("force_tcg",),
        (),
    )
    assert repr(str(node.directory / "qemu")) in found.program
    assert f"ADDRESS_SPACE = {(256 << 20) + (4 << 30)}\n" in found.program


@pytest.mark.parametrize(("name", "setting"), [("tcg", "force_tcg"), ("kvm", "force_kvm")])
def test_a_configured_accelerator_is_not_tried(
    node: Appliance, name: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = node.directory / "kvm"
    device.touch(mode=0o600)
    monkeypatch.setattr(accelerator, "DEVICE", device)
    found = kvm(node, accelerator=name).launcher(node)
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
    found = kvm(node, accelerator="kvm").launcher(node)
    assert found.groups == (grp.getgrgid(device.stat().st_gid).gr_name,)


def test_kvm_by_force_without_the_device(node: Appliance) -> None:
    with pytest.raises(ApplianceError, match="no-kvm cannot be used") as caught:
        kvm(node, accelerator="kvm").launcher(node)
    assert "accelerator = auto" in caught.value.remedy


def test_without_qemu(node: Appliance) -> None:
    (node.directory / "qemu").unlink()
    with pytest.raises(ApplianceError, match="qemu cannot be run") as caught:
        kvm(node).launcher(node)
    assert "install qemu-system-x86" in caught.value.remedy
    assert [finding.well for finding in kvm(node).check(node)] == [False]


def test_what_the_doctor_says(node: Appliance) -> None:
    assert [finding.well for finding in kvm(node).check(None)] == [True]
    found = list(kvm(node).check(node))
    assert [finding.well for finding in found] == [True, False, False]
    assert "the appliance is emulated, which is slow: " in found[1].statement
    assert found[1].remedy
    assert found[2].statement == (
        "the appliance is booted, which takes seconds: "
        "there is no saved state of the appliance for tcg"
    )
    assert found[2].remedy == 'run "snf appliance build"'
    assert not any(finding.fatal for finding in found[1:])
    pretend(node)
    assert [finding.well for finding in kvm(node, resume="false").check(node)] == [True, True]


def save(node: Appliance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that there is a state for emulation that fits."""
    monkeypatch.setattr(remembered, "BOOT_ID", node.directory / "boot_id")
    directory = saved.location(node, "tcg")
    directory.mkdir(parents=True)
    for name in saved.FILES:
        (directory / name).write_text(name)
    conditions = saved.conditions(node.directory / "qemu", "tcg", node)
    saved.write_manifest(directory, conditions, {"machine": "pc-1", "date": "today"})


def test_a_saved_state_is_resumed_and_booting_is_what_remains(
    node: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(node, monkeypatch)
    found = kvm(node, resume_timeout="7").launcher(node)
    directory = saved.location(node, "tcg")
    assert f"STATE = '{directory}/state'\n" in found.program
    assert "'pc-1,accel=tcg," in found.program
    assert found.patience == 7
    assert not found.warning
    booting = kvm(node, resume="false").launcher(node)
    assert found.fallback == replace(booting, feature_cache=directory / "features")
    assert found.feature_cache == directory / "features"
    assert found.fallback.fallback is None
    assert not found.fallback.warning


def test_without_a_state_that_fits_there_is_a_warning(
    node: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    booting = kvm(node, resume="false").launcher(node)
    found = kvm(node).launcher(node)
    assert found.warning == (
        "the appliance is booted, which takes seconds: there is no saved state of the appliance "
        'for tcg (run "snf appliance build")'
    )
    assert (found.program, found.fallback, found.patience) == (booting.program, None, 0)
    assert not booting.warning
    save(node, monkeypatch)
    (node.directory / "root").write_text("another")
    assert "the appliance changed since it was saved" in kvm(node).launcher(node).warning


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
