"""``snf doctor`` and ``snf appliance build`` on nodes in good and in bad order."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_core import config
from snf_core.appliance import held, recipe
from tests.images.debian import cache_directory
from tests.network.abilities import lacking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.site import Outcome, Site

FILES = ("kernel", "initrd", "root")


def findings(outcome: Outcome) -> dict[str, tuple[str, str]]:
    """Statement -> (mark, remedy)."""
    found: dict[str, tuple[str, str]] = {}
    statement = ""
    for line in outcome.stdout.splitlines():
        if line.startswith(" "):
            found[statement] = (found[statement][0], line.strip())
        else:
            mark, statement = line.split(maxsplit=1)
            found[statement] = (mark, "")
    return found


@pytest.fixture(name="state")
def _state(place: Site) -> Iterator[Path]:
    """The state directory of a node whose appliance can be spoiled."""
    state = place.node.directory / "state"
    appliance = state / "appliance"
    appliance.mkdir(parents=True)
    built = cache_directory() / "appliance"
    for name in FILES:
        (appliance / name).symlink_to((built / name).resolve())
    shutil.copy(built / "manifest.json", appliance)
    with place.configured("directories", state=str(state)):
        yield state
    shutil.rmtree(state)


def test_a_node_in_good_order(place: Site) -> None:
    outcome = place.snf("doctor")
    assert outcome.status == 0, outcome
    found = findings(outcome)
    assert found["running as root"] == ("ok", "")
    assert found["the appliance was built from the installed packages"] == ("ok", "")
    assert {mark for mark, _ in found.values()} <= {"ok", "warn"}
    assert all(remedy for mark, remedy in found.values() if mark != "ok")


def test_no_appliance(place: Site) -> None:
    with place.configured("directories", state="/nowhere"):
        outcome = place.snf("doctor")
    assert outcome.status == 1
    (fault,) = [item for item in findings(outcome).items() if item[1][0] == "FAIL"]
    assert "there is no fixed appliance" in fault[0]
    assert fault[1][1] == 'run "snf appliance build"'


@pytest.mark.parametrize("manifest", ['{"recipe": []}', "no JSON", None])
def test_an_appliance_of_other_packages(place: Site, state: Path, manifest: str | None) -> None:
    file = state / "appliance/manifest.json"
    file.unlink()
    if manifest is not None:
        file.write_text(manifest)
    outcome = place.snf("doctor")
    assert outcome.status == 0, outcome
    found = findings(outcome)["the appliance was built from other packages"]
    assert found == ("warn", 'run "snf appliance build"')


def test_an_appliance_that_its_user_cannot_read(place: Site, state: Path) -> None:
    kernel = state / "appliance/kernel"
    kernel.unlink()
    shutil.copy((cache_directory() / "appliance/kernel").resolve(), kernel)
    kernel.chmod(0o600)
    outcome = place.snf("doctor")
    assert outcome.status == 1
    [fault] = [item for item in findings(outcome).items() if item[1][0] == "FAIL"]
    statement, (_, remedy) = fault
    assert statement.endswith(f", of snf-appliance's subordinate ones, cannot read {kernel}")
    assert str(kernel) in remedy


@pytest.mark.parametrize(
    ("group", "options", "said"),
    [
        (
            "appliance",
            {"user": "nobody-of-this-name"},
            "the appliance's user 'nobody-of-this-name' does not exist",
        ),
        ("appliance", {"user": "root"}, "the appliance must not run as 'root'"),
        ("image", {"verfy": "yes"}, "configuration: "),
        ("image.source.nowhere", {"x": "y"}, "configuration: "),
    ],
    ids=str,
)
def test_what_is_configured_wrongly(
    place: Site, group: str, options: dict[str, str], said: str
) -> None:
    with place.configured(group, **options):
        outcome = place.snf("doctor")
    assert outcome.status == 1, outcome
    faults = {text: value for text, value in findings(outcome).items() if value[0] == "FAIL"}
    assert [text for text in faults if text.startswith(said)], outcome
    assert all(remedy for _, remedy in faults.values())


def test_no_qemu(place: Site) -> None:
    with place.configured("hypervisor.kvm", qemu="/nowhere/qemu"):
        found = findings(place.snf("doctor"))
    assert found["kvm: /nowhere/qemu is missing"] == ("FAIL", "install qemu-system-x86")


def test_kvm_is_tried_once_per_boot(place: Site) -> None:
    place.snf("doctor")
    known = place.node.runtime / "accelerator.json"
    first, answer = known.stat(), json.loads(known.read_text())
    outcome = place.snf("doctor")
    assert known.stat().st_ino == first.st_ino
    assert known.stat().st_mtime_ns == first.st_mtime_ns
    said = (
        f"kvm: the appliance is emulated, which is slow: {answer['value']['reason']}"
        if answer["value"]["name"] == "tcg"
        else "kvm: the appliance runs with KVM"
    )
    assert said in findings(outcome)

    another_boot = {**answer, "key": ["another boot", *answer["key"][1:]]}
    known.write_text(json.dumps(another_boot))
    place.snf("doctor")
    assert json.loads(known.read_text()) == answer


def test_building_the_appliance(place: Site) -> None:
    """Into place at once, readable for everybody whatever the umask; the one before, which a
    deployment under way may use, is kept."""
    state = place.node.directory / "built"
    with place.configured("directories", state=str(state)):
        outcomes = [place.snf("appliance", "build")]
        with held(config.load(place.node.config_file)):
            outcomes.append(place.snf("appliance", "build"))
        doctor = findings(place.snf("doctor"))
    assert [outcome.status for outcome in outcomes] == [0, 0], outcomes
    said = [outcome.stdout.splitlines() for outcome in outcomes]
    for *statements, _ in said:
        assert statements[0].startswith("ok    kvm: the appliance saved on ")
        assert {statement.split()[0] for statement in statements} == {"ok"}
    places = [Path(lines[-1]) for lines in said]
    assert (state / "appliance").resolve() == places[1]
    assert places[0].is_dir()
    for name in FILES:
        assert stat.S_IMODE((places[1] / name).stat().st_mode) == 0o644
    assert stat.S_IMODE(places[1].stat().st_mode) == 0o755
    assert doctor["the appliance was built from the installed packages"] == ("ok", "")
    assert not [text for text in doctor if "cannot read" in text]
    assert {path.name for path in state.iterdir()} == {"appliance", *(p.name for p in places)}
    shutil.rmtree(state)


@pytest.mark.parametrize(
    ("hidden", "statement", "remedy"),
    [
        ("/boot", "/boot holds 0 readable kernels to build an appliance with", "linux-image"),
        ("recipe", "the appliance lacks the tools for xfs", "install libguestfs-xfs"),
    ],
)
def test_what_the_node_lacks(place: Site, hidden: str, statement: str, remedy: str) -> None:
    found = recipe()
    assert found is not None
    directory = found if hidden == "recipe" else Path(hidden)
    place.inside("mount", "-t", "tmpfs", "none", directory)
    try:
        outcome = place.snf("doctor")
    finally:
        place.inside("umount", directory)
    mark, said = findings(outcome)[statement]
    assert mark == "warn"
    assert remedy in said


def test_what_the_kernel_can_do_for_nics(place: Site) -> None:
    """Each setup in use finds what it needs, or what is missing is said by name."""
    lacks = lacking(["bridge-conntrack", "vlan-filtering"])
    found = findings(place.snf("doctor"))
    well = {text for text, (mark, _) in found.items() if mark == "ok"}
    for setup in ("bridged", "filtered", "isolation", "masquerade", "routed"):
        assert f"network setup {setup}: this kernel takes its nftables rules" in well

    [firewall] = [text for text in found if text.startswith("network setup firewall: ")]
    if "bridge-conntrack" in lacks:
        assert "connection tracking on bridges (NF_CONNTRACK_BRIDGE" in firewall
        assert "firewall-bridged" in firewall
        mark, remedy = found[firewall]
        assert mark == "warn"
        assert "[network] setups" in remedy
    else:
        assert firewall in well

    if "vlan-filtering" in lacks:
        mark, remedy = found["bridges cannot filter VLANs"]
        assert mark == "warn"
        assert "BRIDGE_VLAN_FILTERING" in remedy
    else:
        assert "bridges can filter VLANs" in well


def test_only_setups_in_use_are_tried(place: Site) -> None:
    with place.configured("network", setups="routed"):
        found = findings(place.snf("doctor"))
    tried = {text.split(":")[0] for text in found if text.startswith("network setup ")}
    assert tried == {"network setup routed"}
    assert not [text for text in found if "VLANs" in text or "Open vSwitch" in text]
