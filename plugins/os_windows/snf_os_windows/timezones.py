"""Time zones as Windows calls them, and the numbers by which XP and Server 2003 call theirs.

The names are those of CLDR's table (windows-zones.tsv beside this module). A name of the IANA
database stands for the Windows zone that CLDR assigns it to. The numbers are those of TimeZone in
sysprep.inf (Microsoft's "Guide to Unattended Setup").
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from oslo_config import types

from snf_core.errors import InvalidValueError

DEFAULT = "GMT Standard Time"

_TABLE = Path(__file__).with_name("windows-zones.tsv")
_SUFFIX = " Standard Time"

_INDEXES = """
000 Dateline|001 Samoa|002 Hawaiian|003 Alaskan|004 Pacific|010 Mountain|015 US Mountain
020 Central|025 Canada Central|033 Central America|035 Eastern|040 US Eastern|045 SA Pacific
050 Atlantic|055 SA Western|056 Pacific SA|060 Newfoundland|065 E. South America|070 SA Eastern
073 Greenland|080 Azores|083 Cape Verde|085 GMT|090 Greenwich|095 Central Europe
100 Central European|105 Romance|110 W. Europe|113 W. Central Africa|115 E. Europe|120 Egypt
125 FLE|130 GTB|135 Israel|140 South Africa|145 Russian|150 Arab|155 E. Africa|158 Arabic|160 Iran
165 Arabian|170 Caucasus|175 Afghanistan|180 Ekaterinburg|185 West Asia|190 India|193 Nepal
195 Central Asia|200 Sri Lanka|201 N. Central Asia|203 Myanmar|205 SE Asia|207 North Asia|210 China
215 Singapore|220 Taipei|225 W. Australia|227 North Asia East|230 Korea|235 Tokyo|240 Yakutsk
245 AUS Central|250 Cen. Australia|255 AUS Eastern|260 E. Australia|265 Tasmania|270 Vladivostok
275 West Pacific|280 Central Pacific|285 Fiji|290 New Zealand|300 Tonga
"""
"""What XP and Server 2003 know, by the names of today."""

_RENAMED = {
    "Mexico": ("030", "Central Standard Time (Mexico)"),
    "Mexico Standard Time 2": ("013", "Mountain Standard Time (Mexico)"),
    "U.S. Mountain": ("015", "US Mountain"),
    "U.S. Eastern": ("040", "US Eastern"),
    "S.A. Pacific": ("045", "SA Pacific"),
    "S.A. Western": ("055", "SA Western"),
    "Pacific S.A.": ("056", "Pacific SA"),
    "Newfoundland and Labrador": ("060", "Newfoundland"),
    "S.A. Eastern": ("070", "SA Eastern"),
    "Transitional Islamic State of Afghanistan": ("175", "Afghanistan"),
    "S.E. Asia": ("205", "SE Asia"),
    "A.U.S. Central": ("245", "AUS Central"),
    "A.U.S. Eastern": ("255", "AUS Eastern"),
    "Fiji Islands": ("285", "Fiji"),
}
"""Names of earlier configurations, their numbers, and the names of today."""


class TimeZoneType(types.ConfigType):  # type: ignore[misc]  # it is untyped
    """A time zone in the configuration, under any of its names."""

    def __init__(self, *, legacy: bool = False) -> None:
        super().__init__(type_name="time zone")
        self.legacy = legacy

    def __call__(self, value: Any) -> str:
        """The zone's name in Windows. Raises ValueError."""
        name = resolve(str(value))
        if self.legacy:
            index(name)
        return name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TimeZoneType) and other.legacy == self.legacy

    def __hash__(self) -> int:
        return hash((TimeZoneType, self.legacy))

    def __repr__(self) -> str:
        return "time zone"

    def _formatter(self, value: Any) -> str:
        return str(value)


def zones() -> list[str]:
    """The names of all zones in the registry of Windows, sorted."""
    return sorted(_zones())


def iana(zone: str) -> tuple[str, ...]:
    """The IANA names of a zone; the first is that of its own city."""
    return _zones()[zone]


def resolve(name: str) -> str:
    """The registry's name of a zone, given that, an IANA name, or one of earlier configurations.

    Without regard to case; `` Standard Time`` may be left out. Raises InvalidValueError with the
    nearest names.
    """
    wanted = " ".join(name.split()).lower()
    known = {spelling.lower(): spelling for spelling in _known()}
    found = known.get(wanted) or known.get(wanted + _SUFFIX.lower())
    if found:
        return _known()[found]
    import difflib

    near = [repr(known[match]) for match in difflib.get_close_matches(wanted, known, n=5)]
    raise InvalidValueError(
        f"Windows has no time zone {name!r}",
        remedy="the nearest are " + ", ".join(near)
        if near
        else f"give a name such as {DEFAULT!r} or 'Europe/Athens'",
    )


def index(zone: str) -> str:
    """The number of a zone in XP and Server 2003, three digits. Raises InvalidValueError."""
    found = numbers().get(zone)
    if found is None:
        raise InvalidValueError(
            f"Windows XP and Server 2003 have no time zone {zone!r}",
            remedy="use one of " + ", ".join(sorted(numbers())),
        )
    return found


@cache
def numbers() -> dict[str, str]:
    """Zone -> its number, of those that XP and Server 2003 know."""
    entries = [entry.partition(" ") for line in _INDEXES.split("\n") for entry in line.split("|")]
    found = {_whole(name): number for number, _, name in entries if name}
    return found | {_whole(name): number for number, name in _RENAMED.values()}


@cache
def _zones() -> dict[str, tuple[str, ...]]:
    """Windows name -> IANA names."""
    rows = [line.split("\t") for line in _TABLE.read_text().splitlines() if line[:1] != "#"]
    return {name: tuple(places.split()) for name, places in rows}


@cache
def _known() -> dict[str, str]:
    """All names -> Windows name."""
    known = {place: name for name, places in _zones().items() for place in places}
    known |= {_whole(old): _whole(name) for old, (_, name) in _RENAMED.items()}
    return known | {name: name for name in _zones()}


def _whole(name: str) -> str:
    return name if _SUFFIX in name else name + _SUFFIX
