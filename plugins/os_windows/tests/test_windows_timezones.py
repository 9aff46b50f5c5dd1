"""Time zones: the table against another copy of CLDR's, the numbers of XP, and what is refused."""

from __future__ import annotations

import zoneinfo
from typing import TYPE_CHECKING

import pytest
from babel.core import get_global

from snf_core.config import Config
from snf_core.errors import ConfigError, InvalidValueError
from snf_os_windows import answer_source, timezones

if TYPE_CHECKING:
    from pathlib import Path

SINCE_THEN = {
    "Alberta Standard Time",
    "British Columbia Standard Time",
    "Manitoba Standard Time",
}
"""What CLDR and Windows got after the copy that this is compared with was made."""


def test_another_copy_of_the_table() -> None:
    cities = get_global("windows_zone_mapping")
    assert set(timezones.zones()) - SINCE_THEN == set(cities)
    for zone, city in cities.items():
        assert timezones.resolve(city) == zone


def test_cities_are_known_to_the_iana_database() -> None:
    available = zoneinfo.available_timezones()
    for zone in timezones.zones():
        places = timezones.iana(zone)
        assert places
        assert set(places) <= available
        assert [timezones.resolve(place) for place in places] == [zone] * len(places)


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("GTB Standard Time", "GTB Standard Time"),
        ("gtb standard  time", "GTB Standard Time"),
        ("GTB", "GTB Standard Time"),
        ("Europe/Athens", "GTB Standard Time"),
        ("asia/kolkata", "India Standard Time"),
        ("UTC", "UTC"),
        ("utc-11", "UTC-11"),
        ("Pacific Standard Time (Mexico)", "Pacific Standard Time (Mexico)"),
        # as they were called in configurations of old
        ("A.U.S. Eastern Standard Time", "AUS Eastern Standard Time"),
        ("Mexico Standard Time 2", "Mountain Standard Time (Mexico)"),
        ("S.E. Asia", "SE Asia Standard Time"),
    ],
)
def test_names(name: str, zone: str) -> None:
    assert timezones.resolve(name) == zone


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("GTM Standard Time", "'GMT Standard Time'"),
        ("Europe/Athen", "'Europe/Athens'"),
        ("Nowhere at all", "such as 'GMT Standard Time'"),
        ("", "such as"),
        ("Standard Time", "the nearest are"),
    ],
)
def test_unknown_names(name: str, near: str) -> None:
    with pytest.raises(InvalidValueError, match="has no time zone") as caught:
        timezones.resolve(name)
    assert near in caught.value.remedy


@pytest.mark.parametrize(
    ("zone", "number"),
    [
        ("Dateline", "000"),
        ("GMT", "085"),
        ("Europe/Athens", "130"),
        ("Mexico", "030"),
        ("Mexico Standard Time 2", "013"),
        ("Newfoundland and Labrador", "060"),
        ("Fiji Islands", "285"),
        ("Tonga", "300"),
    ],
)
def test_numbers(zone: str, number: str) -> None:
    assert timezones.index(timezones.resolve(zone)) == number


def test_numbers_are_each_of_one_zone_that_exists() -> None:
    numbers = timezones.numbers()
    assert len(numbers) == 74
    assert len(set(numbers.values())) == 74
    assert numbers.keys() <= set(timezones.zones())


def test_zones_without_a_number() -> None:
    with pytest.raises(InvalidValueError, match="have no time zone 'Turkey Standard Time'"):
        timezones.index("Turkey Standard Time")


class TestOption:
    def configured(self, tmp_path: Path, value: str, *, legacy: bool = False) -> str:
        file = tmp_path / "snf.conf"
        file.write_text(f"[guest.task.w]\ntime_zone = {value}\n")
        view = Config([file]).plugin("guest.task.w", answer_source.options(legacy=legacy))
        return str(view.time_zone)

    def test_resolved(self, tmp_path: Path) -> None:
        assert self.configured(tmp_path, "europe/athens") == "GTB Standard Time"

    def test_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"time_zone.*the nearest are 'Europe/Athens'"):
            self.configured(tmp_path, "Europe/Athen")

    def test_unknown_to_xp(self, tmp_path: Path) -> None:
        assert self.configured(tmp_path, "Europe/Istanbul") == "Turkey Standard Time"
        with pytest.raises(ConfigError, match="XP and Server 2003 have no time zone"):
            self.configured(tmp_path, "Europe/Istanbul", legacy=True)

    @pytest.mark.parametrize("legacy", [True, False])
    def test_default(self, legacy: bool) -> None:
        view = Config([]).plugin("guest.task.w", answer_source.options(legacy=legacy))
        assert view.time_zone == timezones.DEFAULT
        assert view.answer_file == ""
