"""The command line: exit statuses, and errors for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_core import cli

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A configuration whose directories lie in a temporary one."""
    file = tmp_path / "snf.conf"
    file.write_text(f"[directories]\nstate = {tmp_path}/state\nruntime = {tmp_path}/run\n")
    return file


def snf(conf: Path, *words: str) -> int:
    """Run a command."""
    return cli.main(["--config", str(conf), *words])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["config"],
        ["config", "nonsense"],
        ["appliance"],
        ["network"],
        ["network", "sideways"],
        ["ganeti"],
        ["ganeti", "os"],
        ["ganeti", "os", "destroy"],
        ["ganeti", "os", "create", "--progress-fd", "x"],
        ["plugins", "--nonsense"],
        ["--nonsense"],
    ],
)
def test_what_is_not_understood_ends_with_2(
    conf: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        snf(conf, *words)
    assert caught.value.code == 2
    assert "usage: snf" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["ganeti", "os", "--help"], ["doctor", "-h"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 0
    assert "usage: snf" in capsys.readouterr().out


@pytest.mark.parametrize("script", ["create", "import", "export", "rename", "verify"])
def test_an_error_is_two_lines_and_status_1(
    conf: Path,
    script: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OS_API_VERSION", "15")
    assert snf(conf, "ganeti", "os", script) == 1
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0] == "snf: error: OS_API_VERSION is '15'"
    assert lines[1].startswith("snf: remedy: ")
    assert len(lines) == 2


def test_what_an_error_names_cannot_write_to_the_terminal(
    conf: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_API_VERSION", "20")
    monkeypatch.setenv("OSP_IMG_ID", "x")
    monkeypatch.setenv("OSP_IMG_FORMAT", "diskdump")
    monkeypatch.setenv("OSP_INST_PROPERTIES", '{"OSFAMILY": "linux", "PASSWD": "x\x1b]0;y\x07"}')
    monkeypatch.setenv("OSP_IMG_PROPERTIES", '{"\x1b[31m": "x"}')
    assert snf(conf, "ganeti", "os", "verify") == 1
    said = capsys.readouterr().err
    assert "is not a property name" in said
    assert said.replace("\n", "").isprintable()


def test_a_missing_configuration_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert snf(tmp_path / "none.conf", "doctor") == 1
    assert "none.conf: No such file" in capsys.readouterr().err


def test_config_check(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert snf(conf, "config", "check") == 0
    conf.write_text("[appliance]\nmemory = 1\n")
    assert snf(conf, "config", "check") == 1
    assert "memory" in capsys.readouterr().err


@pytest.fixture
def not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root can try what the kernel does for NICs; that is another suite's."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)


@pytest.mark.usefixtures("not_root")
def test_doctor_says_everything_even_where_nothing_is_there(
    conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert snf(conf, "doctor") == 1
    said = capsys.readouterr().out
    assert "FAIL  there is no fixed appliance on this node" in said
    assert 'run "snf appliance build"' in said
    assert "kvm: " in said
    assert "what this kernel can do for NICs is not known" in said
    assert all(line[:5].strip() in {"ok", "warn", "FAIL", ""} for line in said.splitlines())


@pytest.mark.usefixtures("not_root")
def test_doctor_survives_a_runtime_directory_that_cannot_be_made(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf.write_text(f"[directories]\nstate = {tmp_path}/state\nruntime = {conf}/run\n")
    assert snf(conf, "doctor") == 1
    said = capsys.readouterr().out
    assert "cannot make the runtime directory" in said
    assert "kvm: " in said, "it goes on"


def test_install(conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert snf(conf, "ganeti", "install", "--os-directory", str(tmp_path / "os")) == 0
    assert capsys.readouterr().out == f"{tmp_path}/os/snf-image\n"
    assert str(conf) in (tmp_path / "os" / "snf-image" / "create").read_text()
