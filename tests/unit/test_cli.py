"""The command line: exit statuses, and errors for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from snf_core import cli
from snf_core.ganeti import definition

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


def test_install_check_and_uninstall(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    create = root / "usr/share/ganeti/os/snf-image/create"
    words = ("--root", str(root))
    assert snf(conf, "ganeti", "install", *words) == 1
    assert f"there is no Ganeti below {root}" in capsys.readouterr().err
    library = root / "usr/lib/ganeti"
    library.mkdir(parents=True)
    (library / "daemon-util").touch()
    assert snf(conf, "ganeti", "install", "--check", *words) == 3
    assert f"{create} is missing\n" in capsys.readouterr().out
    assert snf(conf, "ganeti", "install", *words) == 0
    assert f"wrote {create}\n" in capsys.readouterr().out
    assert str(conf) in create.read_text()
    assert snf(conf, "ganeti", "install", "--check", *words) == 0
    assert snf(conf, "ganeti", "install", *words) == 0
    assert capsys.readouterr().out == ""
    assert snf(conf, "ganeti", "uninstall", *words) == 0
    assert f"removed {create}\n" in capsys.readouterr().out
    assert [path for path in root.rglob("*") if path.is_file()] == [library / "daemon-util"]


def test_variants(
    conf: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(definition, "DIRECTORY", tmp_path / "os")
    images, variants = tmp_path / "images", tmp_path / "variants"
    images.mkdir()
    (images / "debian").write_bytes(b"x")
    with conf.open("a") as file:
        file.write(f"[image]\nvariants = {variants}\n")
        file.write(f"[image.source.local]\ndirectory = {images}\n")

    def variant(*words: str) -> int:
        return snf(conf, "ganeti", "variant", *words)

    made = variants / "bookworm.conf"
    assert variant("add", "bookworm", "debian", "--format", "diskdump") == 0
    assert capsys.readouterr().out == f"{made}\nIMG_ID=debian\nIMG_FORMAT=diskdump\n"
    assert variant("list") == 0
    assert capsys.readouterr().out.split() == ["bookworm", "debian", "(diskdump)"]
    made.write_text("IMG_ID=debian\n")
    assert variant("list") == 1
    assert "bookworm" in (said := capsys.readouterr().out)
    assert "parameter img_format is missing" in said
    assert variant("remove", "bookworm") == 0
    assert capsys.readouterr().out == f"removed {made}\n"
    assert variant("remove", "bookworm") == 1
    assert "snf ganeti variant list" in capsys.readouterr().err
    description = {"disk-format": "diskdump", "properties": {"OS": "\x9b2J\u2028" + "x" * 2000}}
    (images / "debian.meta").write_text(json.dumps(description))
    assert variant("add", "bookworm", "debian") == 0
    said = capsys.readouterr().out
    assert "IMG_PROPERTIES='" in said
    assert "\\x9b2J\\u2028" + "x" * 2000 in said, "all of it is seen, as what it is"
    assert all(line.isprintable() for line in said.splitlines())
