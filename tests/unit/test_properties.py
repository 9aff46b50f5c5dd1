"""Image properties: JSON from tenants, and the grammar of booleans."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import InvalidValueError
from snf_core.image.properties import Properties, parse

WORDS = {
    **dict.fromkeys(["yes", "true", "on", "1", "set"], True),
    **dict.fromkeys(["no", "false", "off", "0", "unset", ""], False),
}


@pytest.mark.parametrize("text", ["", "  ", "\n\t", "{}", " {} "])
def test_no_properties_are_legal(text: str) -> None:
    assert parse(text, "img_properties") == {}


def test_names_are_without_case_and_values_are_text() -> None:
    text = '{"OsFamily": "linux", "root_partition": 1, "SORTORDER": -2.5, "gui": true, "OS": false}'
    assert parse(text, "img_properties") == {
        "OSFAMILY": "linux",
        "ROOT_PARTITION": "1",
        "SORTORDER": "-2.5",
        "GUI": "yes",
        "OS": "no",
    }


@pytest.mark.parametrize(
    "value", ["Ubuntu für Ä", "日本", "tab\tand\nline", "\x01\x7f", "a'b\"c$d`"]
)
@pytest.mark.parametrize("escaped", [True, False])
def test_any_text_is_a_value(value: str, escaped: bool) -> None:
    """Control characters may stand in the strings as they are, as they always might."""
    text = json.dumps({"DESCRIPTION": value}, ensure_ascii=escaped)
    if not escaped and value != "a'b\"c$d`":
        text = f'{{"DESCRIPTION": "{value}"}}'
    assert parse(text, "img_properties") == {"DESCRIPTION": value}


@pytest.mark.parametrize(
    "text",
    [
        "OSFAMILY=linux",
        "{'OSFAMILY': 'linux'}",
        '{"OSFAMILY": "linux"',
        '{"OSFAMILY": "linux"} trailing',
        "[" * 100_000,
        '{"A":' * 100_000,
        f'{{"SORTORDER": {"1" * 5000}}}',
        '{"OSFAMILY": linux}',
    ],
)
def test_what_is_no_json_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidValueError, match="parameter inst_properties is not valid JSON") as e:
        parse(text, "inst_properties")
    assert e.value.remedy
    assert len(str(e.value)) < 200


def test_where_the_json_ends_to_be_valid() -> None:
    with pytest.raises(InvalidValueError, match="at character 15"):
        parse('{"A": "secret" ;}', "img_properties")


@pytest.mark.parametrize("text", ["[]", '"text"', "null", "1", "true", "NaN", '[["A", "b"]]'])
def test_only_an_object_is_taken(text: str) -> None:
    with pytest.raises(InvalidValueError, match="parameter img_properties is not a JSON object"):
        parse(text, "img_properties")


@pytest.mark.parametrize(
    "value", ["null", "[]", '["a"]', "{}", '{"a": "b"}', "NaN", "-Infinity", "1e999"]
)
def test_values_are_plain(value: str) -> None:
    with pytest.raises(InvalidValueError, match="property SWAP is neither text nor a number"):
        parse(f'{{"Swap": {value}}}', "img_properties")


@pytest.mark.parametrize("value", [r"\u0000", r"a\ud800", "\ud800"])
def test_values_can_be_written_into_files(value: str) -> None:
    with pytest.raises(InvalidValueError, match="property USERS holds characters"):
        parse(f'{{"USERS": "{value}"}}', "img_properties")


@pytest.mark.parametrize(
    "text", ['{"a": "1", "A": "2"}', '{"A": "1", "A": "1"}', '{"swap": "", "OS": "", "SWAP": ""}']
)
def test_one_name_twice_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match="is given twice"):
        parse(text, "img_properties")


@pytest.mark.parametrize(
    "name",
    ["", "with-dash", "with blank", "1ST", "ÄRA", "\u017fwap", "ß", "A.B", "A\\n", "$(reboot)"],
)
def test_names_are_identifiers(name: str) -> None:
    """They do not vanish silently, and no other letter becomes an ASCII one in upper case."""
    with pytest.raises(InvalidValueError, match="is not a property name"):
        parse(f'{{"{name}": "x"}}', "img_properties")


@given(
    st.dictionaries(
        st.from_regex("[A-Z_][A-Z0-9_]{0,20}", fullmatch=True),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    )
)
def test_round_trip(values: dict[str, str]) -> None:
    assert parse(json.dumps(values), "img_properties") == values


@given(st.text() | st.recursive(st.none() | st.floats() | st.integers() | st.text(), st.lists).map(
    lambda value: json.dumps({"A": value})
))  # fmt: skip
def test_whatever_comes_it_is_parsed_or_refused(text: str) -> None:
    said = ""
    try:
        assert all(isinstance(value, str) for value in parse(text, "img_properties").values())
    except InvalidValueError as error:
        said = error.message
    assert not said or "img_properties" in said


@pytest.mark.parametrize("word", WORDS)
def test_booleans(word: str) -> None:
    for spelling in (word, word.upper(), f"  {word.title()} "):
        assert Properties({"DO_SYNC": spelling}).flag("DO_SYNC") is WORDS[word]


def test_a_boolean_that_is_not_set_is_no() -> None:
    assert Properties().flag("DO_SYNC") is False


@pytest.mark.parametrize("word", ["None", "maybe", "2", "y", "enabled", "yes yes", "ja"])
def test_an_unknown_word_is_not_yes(word: str) -> None:
    with pytest.raises(InvalidValueError, match=r"property EXCLUDE_ALL_TASKS: .* boolean") as e:
        Properties({"EXCLUDE_ALL_TASKS": word}).flag("EXCLUDE_ALL_TASKS")
    assert "yes or no" in e.value.remedy


def test_values_are_stripped_and_listed() -> None:
    properties = Properties({"OSFAMILY": " linux ", "OS": ""})
    assert properties.get("OSFAMILY") == "linux"
    assert properties.get("USERS", "root") == "root"
    assert list(properties) == ["OSFAMILY", "OS"]
