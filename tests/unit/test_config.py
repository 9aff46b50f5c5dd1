"""Configuration: order of the files, and an error for everything that is wrong in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from oslo_config import cfg

from snf_core import config, schema
from snf_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[..., Path]

SECRET = "hunter2-and-more"
HASH = "$6$rounds=5000$saltstring$aGVsbG8gd29ybGQ/and.more"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write snf.conf, or with a name that file of snf.conf.d; returns the file."""
    monkeypatch.delenv(config.FILE_VARIABLE, raising=False)

    def write(text: str, name: str = "") -> Path:
        file = tmp_path / "snf.conf.d" / name if name else tmp_path / "snf.conf"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return file

    return write


def test_defaults_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(config.FILE_VARIABLE, raising=False)
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "none" / "snf.conf")
    conf = config.load()
    assert conf.directories.state == "/var/lib/snf"
    assert conf.network.setups[0] == "bridged", "what is about ports comes after it"
    assert list(schema.check(conf)) == []


def test_later_files_win(write: Write) -> None:
    main = write("[appliance]\nmemory = 300\ntimeout = 100\nuser = one\n")
    write("[appliance]\nmemory = 400\ntimeout = 200\n", "10-node.conf")
    write("[appliance]\nmemory = 500\n", "20-more.conf")
    write("[appliance]\nmemory = 600\n", "30-no.conf.bak")
    write("[appliance]\nmemory = 700\n", ".40-hidden.conf")
    appliance = config.load(main).appliance
    assert (appliance.memory, appliance.timeout, appliance.user) == (500, 200, "one")


def test_drop_ins_alone(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("[appliance]\nmemory = 400\n", "node.conf")
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "snf.conf")
    assert config.load().appliance.memory == 400


def test_another_file_by_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.FILE_VARIABLE, str(write("[appliance]\nmemory = 300\n")))
    assert config.load().appliance.memory == 300


def test_no_option_comes_from_the_environment(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_IMAGE__VERIFY", "true")
    monkeypatch.setenv("OS_APPLIANCE__MEMORY", "300")
    conf = config.load(write(""))
    assert conf.image.verify is False
    assert conf.appliance.memory == 512


def test_dollars_are_dollars(write: Write) -> None:
    conf = config.load(write(f"[parameters]\nimg_passwd_hash = {HASH}\nimg_passwd = a$$b\\$c\n"))
    assert conf.parameters.img_passwd_hash == HASH
    assert conf.parameters.img_passwd == "a$$b\\$c"


def test_groups_without_regard_to_case(write: Write) -> None:
    assert config.load(write("[Appliance]\nmemory = 300\n")).appliance.memory == 300
    with pytest.raises(ConfigError, match="unknown option 'memroy'"):
        _ = config.load(write("[Appliance]\nmemroy = 300\n")).appliance


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("memroy = 300", ["unknown option 'memroy'", "memory"]),
        ("memory = 16", ["option 'memory'", "greater than or equal to 256"]),
        ("memory = 99999", ["option 'memory'", "less than or equal to 8192"]),
        ("memory = much", ["option 'memory'", "much"]),
        ("memory =", ["option 'memory'", "has no value"]),
    ],
)
def test_a_bad_option_names_file_group_and_option(
    write: Write, text: str, words: list[str]
) -> None:
    main = write("[appliance]\ntimeout = 20\n")
    file = write(f"[appliance]\n{text}\n", "node.conf")
    conf = config.load(main)
    with pytest.raises(ConfigError) as caught:
        _ = conf.appliance
    for word in [str(file), "group [appliance]", *words]:
        assert word in str(caught.value)
    assert caught.value.remedy
    assert list(schema.check(conf)) == [str(caught.value)]


def test_a_wrong_choice(write: Write) -> None:
    file = write("[image]\nunknown_properties = ignore\n")
    with pytest.raises(ConfigError, match="unknown_properties") as caught:
        _ = config.load(file).image
    for word in (str(file), "[image]", "ignore", "error", "warning"):
        assert word in str(caught.value)


@pytest.mark.parametrize("group", ["imagee", "DEFAULT", "apliance"])
def test_an_unknown_group_of_the_core_is_refused_at_once(write: Write, group: str) -> None:
    file = write(f"[{group}]\nverify = true\n")
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    for word in (str(file), f"[{group.lower()}]", "image"):
        assert word in str(caught.value)


def test_an_unknown_group_of_a_plugin_is_found_by_check(write: Write) -> None:
    file = write("[hypervisor.qvm]\nmemory = 1\n")
    (problem,) = schema.check(config.load(file))
    assert str(file) in problem
    assert "[hypervisor.qvm]" in problem
    assert "no plugin of that name is installed" in problem


def test_an_option_of_a_built_in_plugin(write: Write) -> None:
    file = write("[image.source.local]\ndiretcory = /x\n")
    (problem,) = schema.check(config.load(file))
    for word in (str(file), "[image.source.local]", "'diretcory'"):
        assert word in problem


def test_a_missing_setup_names_file_group_and_option(write: Write) -> None:
    file = write("[network]\nsetups = bridged, brigded\n")
    (problem,) = schema.check(config.load(file))
    for word in (str(file), "'setups'", "[network]", "'brigded'", "bridged"):
        assert word in problem


def test_every_problem_is_said_once(write: Write) -> None:
    file = write("[network]\nsetup = x\n[appliance]\nmemory = 1\n[image]\nverify = perhaps\n")
    problems = list(schema.check(config.load(file)))
    assert len(problems) == 3
    for group, problem in zip(("[image]", "[appliance]", "[network]"), problems, strict=True):
        assert group in problem


def test_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "none.conf"
    with pytest.raises(ConfigError, match="No such file") as caught:
        config.load(file)
    assert str(file) in str(caught.value)


def test_an_unreadable_file(write: Write, tmp_path: Path) -> None:
    main = write("")
    (tmp_path / "snf.conf.d" / "folder.conf").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"cannot read .*folder\.conf: Is a directory"):
        config.load(main)


@pytest.mark.parametrize(
    "text", [f"[parameters]\nimg_passwd {SECRET}\n", f"img_passwd = {SECRET}\n", f"[x\n{SECRET}\n"]
)
def test_a_broken_file_names_the_line_and_keeps_its_secret(write: Write, text: str) -> None:
    file = write(text)
    with pytest.raises(ConfigError, match=r"line \d") as caught:
        config.load(file)
    assert str(file) in str(caught.value)
    assert SECRET not in _all_text(caught.value)


def test_a_file_that_is_no_text(write: Write) -> None:
    file = write("")
    file.write_bytes(b"[image]\nverify = \xff\xfe\n")
    with pytest.raises(ConfigError, match="UTF-8") as caught:
        config.load(file)
    assert str(file) in str(caught.value)


def test_a_plugin_gets_its_own_group_only(write: Write) -> None:
    file = write(f"[parameters]\nimg_passwd = {SECRET}\n[image.source.acme]\ndepth = 2\n")
    view = config.load(file).plugin("image.source.acme", [cfg.IntOpt("depth")])
    assert dict(view) == {"depth": 2}
    with pytest.raises(AttributeError):
        _ = view.img_passwd


def test_a_secret_is_in_no_message(write: Write) -> None:
    options = [cfg.StrOpt("token", secret=True, regex="^[0-9]+$")]
    file = write(f"[image.source.acme]\ntoken = {SECRET}\n")
    with pytest.raises(ConfigError, match=r"'token' in group \[image\.source\.acme\]") as caught:
        config.load(file).plugin("image.source.acme", options)
    assert str(file) in str(caught.value)
    assert SECRET not in _all_text(caught.value)


def test_a_required_option(write: Write) -> None:
    options = [cfg.StrOpt("url", required=True)]
    with pytest.raises(ConfigError, match=r"'url' in group \[image\.source\.acme\] has no value"):
        config.load(write("")).plugin("image.source.acme", options)


def test_a_renamed_option_still_works(write: Write) -> None:
    options = [cfg.IntOpt("depth", deprecated_name="deepness")]
    conf = config.load(write("[image.source.acme]\ndeepness = 7\n"))
    assert conf.plugin("image.source.acme", options).depth == 7


def _all_text(error: BaseException) -> str:
    """Everything a traceback would show of an error."""
    texts = []
    while error:
        texts.append(repr(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)  # type: ignore[assignment]
    return "\n".join(texts)
