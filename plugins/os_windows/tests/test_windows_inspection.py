"""What is read of a Windows: the versions' own words, and what a broken or odd one says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from snf_core.errors import GuestError
from snf_core.image.registry import BINARY, Value
from snf_os_windows import inspection, paths
from tests.fakes.guest import FakeGuest
from tests.images.windows import VERSIONS, Image

CURRENT_VERSION = "Microsoft\\Windows NT\\CurrentVersion"
ENVIRONMENT = "ControlSet001\\Control\\Session Manager\\Environment"


def guest(version: str = "2022", **options: Any) -> FakeGuest:
    return FakeGuest.with_windows(Image(version, **options))


def changed(
    hive: str, key: str, name: str, value: Value | None, version: str = "2022"
) -> FakeGuest:
    """A guest with one value of its registry changed, or gone."""
    made = guest(version)
    values = made.hives[hive][key]
    del values[name]
    if value:
        values[name] = value
    return made


@pytest.mark.parametrize("name", VERSIONS)
def test_every_version(name: str) -> None:
    version = VERSIONS[name]
    assert inspection.facts(guest(name)) == inspection.Facts(
        version=version.nt,
        build=version.build,
        product=version.product,
        edition=version.edition,
        architecture=version.architecture,
        control_set="ControlSet001",
        image_state="" if version.legacy else "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE",
        installation_type=version.installation if version.nt >= (6, 1) else "",
        powershell=version.powershell,
        rid_500="Administrator",
        users=(
            ("Administrator", "Guest", "DefaultAccount", "WDAGUtilityAccount")
            if version.nt >= (10, 0)
            else ("Administrator", "Guest")
        ),
        setup_in_progress=True,
        mini_setup=version.legacy,
        time_zones=(
            *("GMT Standard Time", "GTB Standard Time", "Pacific Standard Time"),
            *(() if version.legacy else ("UTC",)),
        ),
        languages=() if version.legacy else ("en-US",),
    )


def test_it_is_found_out_once() -> None:
    made = guest()
    first = inspection.facts(made)
    made.hives.clear()
    assert inspection.facts(made) is first


def test_the_software_of_a_known_volume_is_read_once() -> None:
    made = guest()
    first = inspection.software(made, "/dev/sda1")
    del made.hives[paths.SOFTWARE_HIVE]
    assert inspection.software(made, "/dev/sda1") is first
    with pytest.raises(GuestError, match="SOFTWARE in the guest does not exist"):
        inspection.software(made)


def test_the_administrator_by_its_number() -> None:
    """Whatever it is called, and whatever others are."""
    made = guest(administrator="Järjestelmänvalvoja", users=("Administrator", "min"))
    found = inspection.facts(made)
    assert found.rid_500 == "Järjestelmänvalvoja"
    assert set(found.users) >= {"Administrator", "min", "Guest", "Järjestelmänvalvoja"}


def test_the_control_set_that_is_used_next() -> None:
    found = inspection.facts(guest(control_set=2))
    assert (found.control_set, found.architecture) == ("ControlSet002", "amd64")


@pytest.mark.parametrize("number", [0, 3, 10**6])
def test_a_control_set_that_is_not_there(number: int) -> None:
    made = changed(paths.SYSTEM_HIVE, "Select", "Current", Value.dword(number))
    with pytest.raises(GuestError, match=f"no control set .* Select.Current is {number}"):
        inspection.facts(made)


@pytest.mark.parametrize("word", ["IA64", "", "amd64\nx"])
def test_processors_that_are_not_served(word: str) -> None:
    made = changed(paths.SYSTEM_HIVE, ENVIRONMENT, "PROCESSOR_ARCHITECTURE", Value.string(word))
    with pytest.raises(GuestError, match="a processor that is not served") as caught:
        inspection.facts(made)
    assert "amd64, x86, arm64" in caught.value.remedy
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "value", [None, Value(BINARY, b"6.1"), Value.string("six"), Value.string("6.1\n")]
)
def test_versions_that_cannot_be_read(value: Value | None) -> None:
    made = changed(paths.SOFTWARE_HIVE, CURRENT_VERSION, "CurrentVersion", value, "7")
    with pytest.raises(GuestError, match="says that its version is"):
        inspection.facts(made)


def test_an_odd_build_is_no_reason_to_fail() -> None:
    made = changed(paths.SOFTWARE_HIVE, CURRENT_VERSION, "CurrentBuildNumber", Value.string("x²"))
    assert inspection.facts(made).build == 0


def test_no_administrator() -> None:
    made = guest()
    names = "SAM\\Domains\\Account\\Users\\Names\\Administrator"
    made.hives[paths.SAM_HIVE][names] = {"": Value(1001, b"")}
    with pytest.raises(GuestError, match="no built-in administrator"):
        inspection.facts(made)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EditionID", Value.string("WindowsPE")),
        ("SystemRoot", Value.string("X:\\Windows")),
        ("SystemRoot", Value.string("C:\\WINNT")),
        ("SystemRoot", None),
    ],
)
def test_what_is_not_served(name: str, value: Value | None) -> None:
    made = changed(paths.SOFTWARE_HIVE, CURRENT_VERSION, name, value)
    with pytest.raises(GuestError) as caught:
        inspection.facts(made)
    assert caught.value.remedy.endswith("installed in C:\\Windows")


def test_where_windows_is_looked_for() -> None:
    assert inspection.is_installed(guest("xp"))
    assert inspection.is_installed(guest("11-arm64"))
    made = guest()
    made.remove(paths.SYSTEM_HIVE)
    assert not inspection.is_installed(made)
    made = guest(files={"/winnt/SYSTEM32/config/system": ""})
    with pytest.raises(GuestError, match=r"lies in C:\\WINNT"):
        inspection.is_installed(made)


class TestGeneralised:
    @pytest.mark.parametrize("state", ["OOBE", "AUDIT"])
    def test_ready(self, state: str) -> None:
        image_state = f"IMAGE_STATE_GENERALIZE_RESEAL_TO_{state}"
        inspection.check_generalised(inspection.facts(guest(image_state=image_state)))

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            ("IMAGE_STATE_COMPLETE", "set up completely, and not generalised"),
            ("IMAGE_STATE_UNDEPLOYABLE", "cannot be deployed"),
            ("IMAGE_STATE_SPECIALIZE_RESEAL_TO_OOBE", "specialised, and not generalised"),
            ("IMAGE_STATE_SPECIALIZE_RESEAL_TO_AUDIT", "specialised, and not generalised"),
            ("IMAGE_STATE_\nODD", "in an unknown state, 'IMAGE_STATE_.nODD'"),
        ],
    )
    def test_not_ready(self, state: str, message: str) -> None:
        with pytest.raises(GuestError, match=message) as caught:
            inspection.check_generalised(inspection.facts(guest(image_state=state)))
        assert "sysprep /generalize" in caught.value.remedy

    def test_no_state(self) -> None:
        found = replace(inspection.facts(guest()), image_state="")
        with pytest.raises(GuestError, match="does not say whether it was generalised"):
            inspection.check_generalised(found)

    def test_legacy(self) -> None:
        found = inspection.facts(guest("xp"))
        inspection.check_generalised(found)
        for broken, message in (
            (replace(found, setup_in_progress=False), "is not sealed"),
            (replace(found, mini_setup=False), "is sealed, but not for a mini-setup"),
        ):
            with pytest.raises(GuestError, match=message) as caught:
                inspection.check_generalised(broken)
            assert "-mini" in caught.value.remedy
        with pytest.raises(GuestError, match="is not sealed"):
            inspection.check_generalised(inspection.facts(guest("2003", generalised=False)))
