"""Plugins as they are in life: distributions that pip built and installed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.environment import HOUSE, ROOT, Environment, build

if TYPE_CHECKING:
    from collections.abc import Iterator

THIRD_PARTY = Path(__file__).parent / "distributions"
ACME = ROOT / "docs/examples/acme"

EXPECTED = {
    "snf-core": {
        "snf.network.setup bridged",
        "snf.image.source local",
        "snf.image.source null",
        "snf.image.destination local",
        "snf.image.format diskdump",
        "snf.guest.task any.FixPartitionTable",
        "snf.guest.task any.FilesystemResizeUnmounted",
        "snf.guest.task any.UmountImage",
    },
    "snf-kvm": {"snf.hypervisor kvm"},
    "snf-xen": {"snf.hypervisor xen-pvm", "snf.hypervisor xen-hvm"},
    "snf-os-linux": {
        "snf.guest linux",
        "snf.extension_point snf.guest.linux.network",
        "snf.guest.linux.network networkd",
        "snf.guest.task linux.MountImage",
        "snf.guest.task linux.AssignHostname",
        "snf.guest.task linux.ChangeMachineId",
        "snf.guest.task linux.ChangePassword",
        "snf.guest.task linux.ConfigureNetwork",
        "snf.guest.task linux.DeleteSSHKeys",
        "snf.guest.task linux.CheckBoot",
        "snf.guest.task linux.EnableConsole",
        "snf.guest.task linux.EnforcePersonality",
    },
    "snf-os-windows": {
        "snf.guest windows",
        "snf.guest windows-legacy",
        *(
            f"snf.guest.task {family}.{task}"
            for family in ("windows", "windows-legacy")
            for task in (
                *("MountImage", "InstallUnattend", "AssignHostname", "ChangePassword"),
                *("ConfigureNetwork", "DisableRemoteDesktopConnections", "CheckDrivers"),
                *("FilesystemResizeMounted", "FilesystemResizeAfterUmount", "EnforcePersonality"),
            )
        ),
        "snf.guest.task windows.InitializeDatasource",
    },
}


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """Not below /tmp, where stevedore keeps no cache and so could not be wrong."""
    directory = Path(tempfile.mkdtemp(prefix="snf-plugins-", dir="/var/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def wheels(scratch: Path) -> dict[str, Path]:
    """All distributions by name: ours, the example of the guide, good and bad third parties'."""
    return build([*HOUSE.values(), ACME, *sorted(THIRD_PARTY.iterdir())], scratch / "build")


@pytest.fixture(scope="module")
def everything(scratch: Path, wheels: dict[str, Path]) -> Environment:
    """All of them installed side by side."""
    environment = Environment.create(scratch / "everything")
    environment.install(*wheels.values())
    return environment


@pytest.fixture(scope="module")
def listed(everything: Environment) -> list[dict[str, Any]]:
    """What ``snf plugins`` says there."""
    return everything.plugins(status=1)


def _provided(listed: list[dict[str, Any]], distribution: str) -> set[str]:
    return {
        f"{row['namespace']} {row['name']}" for row in listed if row["distribution"] == distribution
    }


def _errors(listed: list[dict[str, Any]], distribution: str) -> list[str]:
    return [row["error"] for row in listed if row["distribution"] == distribution]


@pytest.mark.parametrize("distribution", HOUSE)
def test_all_of_ours_are_listed_and_usable_beside_broken_ones(
    listed: list[dict[str, Any]], distribution: str
) -> None:
    assert _provided(listed, distribution) >= EXPECTED[distribution]
    assert set(_errors(listed, distribution)) == {""}
    assert {row["version"] for row in listed if row["distribution"] == distribution} == {"0.1.0"}


@pytest.mark.parametrize("distribution", [name for name in HOUSE if name != "snf-core"])
def test_each_of_ours_installs_apart(
    scratch: Path, wheels: dict[str, Path], distribution: str
) -> None:
    environment = Environment.create(scratch / f"only-{distribution}")
    environment.install(wheels["snf-core"], wheels[distribution])
    listed = environment.plugins()
    assert {row["distribution"] for row in listed} == {"snf-core", distribution}
    assert _provided(listed, distribution) >= EXPECTED[distribution]
    assert {row["error"] for row in listed} == {""}


def test_the_core_alone_works(scratch: Path, wheels: dict[str, Path]) -> None:
    environment = Environment.create(scratch / "core")
    environment.install(wheels["snf-core"])
    assert _provided(environment.plugins(), "snf-core") >= EXPECTED["snf-core"]
    message = environment.ask(
        "import json; from snf_core import errors, extension\n"
        "try: extension.load(extension.HYPERVISOR, 'kvm')\n"
        "except errors.PluginError as error: print(json.dumps(str(error)))"
    )
    assert "there is no plugin 'kvm' in snf.hypervisor" in message
    assert "install the distribution that provides it" in message


def test_good_third_parties_are_usable(listed: list[dict[str, Any]]) -> None:
    assert _errors(listed, "orchard-good") == [""]
    assert len(_provided(listed, "acme-snf")) == 9
    assert set(_errors(listed, "acme-snf")) == {""}


@pytest.mark.parametrize(
    ("distribution", "version", "problem"),
    [
        ("orchard-other-api", "2.0", "expected API version 1.0, found '2.0'"),
        (
            "orchard-wrong-signature",
            "0.3",
            "open: expected (self, image_id, image_format), found (self, image_id)",
        ),
        (
            "orchard-broken-import",
            "0.4",
            "cannot be loaded: RuntimeError: the orchard is closed",
        ),
    ],
)
def test_a_bad_one_is_listed_with_distribution_expectation_and_finding(
    listed: list[dict[str, Any]], distribution: str, version: str, problem: str
) -> None:
    (error,) = _errors(listed, distribution)
    assert problem in error
    assert f"({distribution} {version}, " in error
    assert f"'{distribution}' of snf.image.source" in error


def test_two_with_one_name_name_each_other(
    listed: list[dict[str, Any]], everything: Environment
) -> None:
    errors = [*_errors(listed, "orchard-twin-one"), *_errors(listed, "orchard-twin-two")]
    assert len(errors) == 2
    raised = everything.ask(
        "import json, sys; from snf_core import errors, extension\n"
        "try: extension.load(extension.IMAGE_SOURCE, 'orchard-twin')\n"
        "except errors.PluginConflictError as error: message = str(error)\n"
        "print(json.dumps([message, [m for m in sys.modules if m.startswith('orchard')]]))"
    )
    for error in [*errors, raised[0]]:
        assert "orchard-twin-one 1.0, orchard_twin_one:Source" in error
        assert "orchard-twin-two 2.0, orchard_twin_two:Source" in error
    assert raised[1] == [], "neither of two contenders is to be imported"


def test_the_table_for_people(everything: Environment) -> None:
    table = everything.run("snf", "plugins", status=1)
    for text in ("snf.hypervisor", "kvm", "snf-kvm", "0.1.0", "the orchard is closed"):
        assert text in table


@pytest.mark.parametrize(
    ("namespace", "name", "own"),
    [
        ("HYPERVISOR", "kvm", "snf_kvm"),
        ("HYPERVISOR", "xen-pvm", "snf_xen"),
        ("GUEST", "linux", "snf_os_linux"),
        ("IMAGE_SOURCE", "orchard", "orchard_good"),
        ("NETWORK_SETUP", "acme-external", "acme_snf"),
    ],
)
def test_loading_one_imports_no_other(
    everything: Environment, namespace: str, name: str, own: str
) -> None:
    imported = everything.ask(
        "import json, sys; from snf_core import extension\n"
        f"extension.load(extension.{namespace}, {name!r})\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    families = {"snf_kvm", "snf_xen", "snf_os_linux", "snf_os_windows", "acme_snf", own}
    roots = {module.partition(".")[0] for module in imported}
    assert {root for root in roots if root in families or root.startswith("orchard")} == {own}
    assert not {"guestfs", "pyroute2", "nftables"} & roots
    if own == "acme_snf":
        modules = {module for module in imported if module.startswith("acme_snf.")}
        assert modules == {"acme_snf.external"}


def test_what_was_installed_just_now_is_found(scratch: Path, wheels: dict[str, Path]) -> None:
    """Even in place of a version of a minute ago; and nothing is written into anybody's home."""
    environment = Environment.create(scratch / "changing")
    environment.install(wheels["snf-core"], wheels["orchard-good"])
    code = (
        "import json; from snf_core import extension\n"
        "print(json.dumps([extension.names(extension.IMAGE_SOURCE),"
        "[name for name in extension.names(extension.IMAGE_SOURCE)"
        " if extension.load(extension.IMAGE_SOURCE, name)]]))"
    )
    assert environment.ask(code) == [["local", "null", "orchard"]] * 2

    changed = scratch / "changed"
    shutil.copytree(THIRD_PARTY / "good", changed)
    settings = (changed / "setup.cfg").read_text()
    (changed / "setup.cfg").write_text(settings.replace("orchard = ", "plum = "))
    environment.install(*build([changed], scratch / "rebuild").values())
    assert environment.ask(code) == [["local", "null", "plum"]] * 2
    assert not (environment.directory / "home/.cache").exists()


def test_the_sample_holds_installed_plugins_options(everything: Environment) -> None:
    sample = everything.ask(
        "import json; from snf_core import schema; print(json.dumps(schema.sample()))"
    )
    for group in ("[hypervisor.acme]", "[network.setup.acme-external]", "[image.source.local]"):
        assert group in sample
    assert "#mtu = 9000" in sample


def test_the_example_of_the_guide_runs(everything: Environment, scratch: Path) -> None:
    """By its own tests, out of the checkout, as its author would run them."""
    tests = shutil.copytree(ACME / "tests", scratch / "acme-tests")
    output = everything.python("-m", "pytest", "-q", "-p", "no:cacheprovider", tests)
    assert " passed" in output
    assert "skipped" not in output


def test_the_options_are_there_for_oslos_own_generator(everything: Environment) -> None:
    sample = everything.python(
        "-m", "oslo_config.generator", "--namespace=snf.core", "--namespace=snf.kvm"
    )
    for text in ("[appliance]", "[image.source.local]", "[network.setup.bridged]", "#qemu ="):
        assert text in sample
    assert "acme" not in sample
