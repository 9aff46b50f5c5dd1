"""The OS definition as Ganeti finds it on disk."""

from __future__ import annotations

import shlex
import stat
import sys
from pathlib import Path

import pytest

from snf_core.errors import SnfError
from snf_core.ganeti import definition
from snf_core.image.parameters import NAMES

SCRIPTS = ["create", "export", "import", "rename", "verify"]
LISTS = ["ganeti_api_version", "parameters.list", "variants.list"]


def test_the_files_that_ganeti_reads() -> None:
    texts = definition.files()
    assert sorted(texts) == sorted([*SCRIPTS, *LISTS])
    assert texts["ganeti_api_version"] == "20\n"
    assert texts["variants.list"] == "default\n"
    lines = texts["parameters.list"].splitlines()
    assert tuple(line.split(" ", 1)[0] for line in lines) == NAMES
    assert all(line.split(" ", 1)[1].strip() for line in lines)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "file", [None, "/etc/snf/snf.conf", "/srv/my conf/a'b\"c$d;e`f`\nnew line/snf.conf"]
)
def test_scripts_call_this_installation_with_every_word_quoted(
    script: str, file: str | None
) -> None:
    text = definition.files(Path(file) if file else None)[script]
    assert text.startswith("#!/bin/sh\n#")
    command = text.split("\n", 2)[2]
    expected = ["exec", sys.executable, "-I", "-m", "snf_core.cli"]
    expected += ["--config", file] if file else []
    assert shlex.split(command) == [*expected, "ganeti", "os", script, "$@"]
    assert command.endswith(f' ganeti os {script} "$@"\n')


def test_a_relative_configuration_file_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"--config {tmp_path}/snf.conf " in definition.files(Path("snf.conf"))["create"]


def test_installed_and_installed_again(tmp_path: Path) -> None:
    parent = tmp_path / "not" / "there" / "yet"
    target = definition.install(parent)
    assert target == parent / "snf-image"
    (target / "stale").touch()
    assert definition.install(parent, tmp_path / "other.conf") == target
    assert [path.name for path in parent.iterdir()] == ["snf-image"]
    assert sorted(path.name for path in target.iterdir()) == sorted([*SCRIPTS, *LISTS])
    assert "other.conf" in (target / "create").read_text()
    for name in SCRIPTS:
        assert stat.S_IMODE((target / name).stat().st_mode) == 0o755
    for name in LISTS:
        assert stat.S_IMODE((target / name).stat().st_mode) == 0o644
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@pytest.mark.parametrize("content", ["#!/bin/bash\n# somebody's own\n", None])
def test_what_others_made_is_not_touched(tmp_path: Path, content: str | None) -> None:
    theirs = tmp_path / "snf-image"
    theirs.mkdir()
    (theirs / "create" if content else theirs / "other").write_text(content or "")
    before = sorted(theirs.iterdir())
    with pytest.raises(SnfError, match="was not made by snf ganeti install") as caught:
        definition.install(tmp_path)
    assert "move it away" in caught.value.remedy
    assert sorted(theirs.iterdir()) == before


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SnfError, match=r"cannot write into .*file: File exists"):
        definition.install(tmp_path / "file")


def test_nothing_half_made_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "snf-image").symlink_to("nowhere")
    with pytest.raises(SnfError, match="cannot write"):
        definition.install(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["snf-image"]
