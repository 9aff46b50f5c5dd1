"""The sample configuration in etc/ is what the declared options make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from snf_core import config, extension, schema
from snf_core.network import uplink
from snf_core.options import GROUPS

SAMPLE = Path(__file__).parents[2] / "etc/snf.conf.sample"

REMEDY = 'say "make sample" (with the five distributions installed, and no others)'


@pytest.fixture(scope="module")
def sample() -> str:
    """The sample as it should be."""
    return schema.sample()


def test_the_sample_is_current(sample: str) -> None:
    assert SAMPLE.read_text() == sample, REMEDY


def test_it_is_the_same_every_time(sample: str) -> None:
    assert schema.sample() == sample


def test_every_option_is_there(sample: str) -> None:
    sections = {section.partition("]")[0]: section for section in ("\n" + sample).split("\n[")[1:]}
    expected = {group: list(options) for group, options in GROUPS.items()}
    for point in extension.CORE_POINTS:
        for name in extension.names(point):
            options = extension.load(point, name).options
            if options:
                expected[point.group(name)] = list(options)
    expected[f"{uplink.GROUP}100"] = uplink.OPTIONS  # an example of those for uplinks
    assert sections.keys() == expected.keys(), REMEDY
    for group, options in expected.items():
        for option in options:
            assert f"\n#{option.dest} =" in sections[group], (group, option.dest)
            assert option.help, (group, option.dest)


def test_nothing_of_this_machine_is_in_it(sample: str) -> None:
    assert str(Path.home()) not in sample
    assert str(Path(__file__).parents[2]) not in sample


def test_it_is_a_valid_configuration(sample: str, tmp_path: Path) -> None:
    file = tmp_path / "snf.conf"
    file.write_text(sample)
    assert list(schema.check(config.load(file))) == []


def test_its_defaults_are_valid_values(sample: str, tmp_path: Path) -> None:
    """All of them set explicitly change nothing."""
    lines = [
        line.removeprefix("#")
        if line.startswith("#") and " = " in line and not line.startswith("# ")
        else line
        for line in sample.splitlines()
        if "<None>" not in line
    ]
    file = tmp_path / "snf.conf"
    file.write_text("\n".join(lines))
    explicit = config.load(file)
    assert explicit.groups() >= GROUPS.keys() - {"parameters"}  # which have no defaults
    assert list(schema.check(explicit)) == []
    assert dict(explicit.network) == dict(config.Config([]).network)
