"""Files of ours among those of others: nobody's work is lost, and nothing stays half done."""

from __future__ import annotations

import os
import shlex
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import SnfError
from snf_core.ganeti import installation
from snf_core.ganeti.installation import Difference, File, Installation, State
from tests.locks import until_waiting

if TYPE_CHECKING:
    from collections.abc import Callable

Content = dict[str, str | None]


@pytest.fixture
def wanted(tmp_path: Path) -> Installation:
    """Scripts in three directories, and a list beside one of them."""
    etc = tmp_path / "etc"
    first = installation.script(etc / "hooks/stop.d/snf", ["run", "stop"])
    return Installation(
        files=(
            first,
            File(etc / "hooks/stop.d/list", "a\n", witness=first.path),
            installation.script(etc / "network/up", ["run", "up"]),
            installation.script(etc / "vif", ["run", "vif"]),
        ),
        searched=(etc,),
        kept=(etc,),
    )


def content(top: Path) -> Content:
    """All below ``top``: what is in files, None for directories."""
    return {
        str(path.relative_to(top)): None
        if path.is_dir() and not path.is_symlink()
        else os.readlink(path)
        if path.is_symlink()
        else path.read_text()
        for path in top.rglob("*")
    }


def states(wanted: Installation) -> dict[str, State]:
    return {one.path.name: one.state for one in installation.compare(wanted)}


def test_installed_again_and_again(wanted: Installation, tmp_path: Path) -> None:
    assert set(states(wanted).values()) == {State.MISSING}
    found = installation.install(wanted)
    assert [(one.path, one.done) for one in found] == [
        (file.path, "wrote") for file in wanted.files
    ]
    before = {file.path: file.path.stat() for file in wanted.files}
    assert installation.compare(wanted) == installation.install(wanted) == []
    assert {file.path: file.path.stat() for file in wanted.files} == before, "nothing is written"
    assert content(tmp_path).keys() == {
        "etc", "etc/hooks", "etc/hooks/stop.d", "etc/hooks/stop.d/snf", "etc/hooks/stop.d/list",
        "etc/network", "etc/network/up", "etc/vif",
    }  # fmt: skip


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o022])
def test_everybody_can_read_it_and_root_alone_write(wanted: Installation, umask: int) -> None:
    before = os.umask(umask)
    try:
        installation.install(wanted)
    finally:
        os.umask(before)
    for file in wanted.files:
        found = file.path.stat()
        assert stat.S_IMODE(found.st_mode) == (0o644 if file.path.name == "list" else 0o755)
        assert found.st_uid == os.geteuid()
        assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o755


def test_directories_that_are_there_stay_as_they_are(wanted: Installation, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc").chmod(0o750)
    installation.install(wanted)
    assert stat.S_IMODE((tmp_path / "etc").stat().st_mode) == 0o750


@pytest.mark.parametrize("word", ["run", "a b", "it's", '"$d;`e`f', "new\nline", "é"])
def test_every_word_of_a_script_is_quoted(tmp_path: Path, word: str) -> None:
    text = installation.script(tmp_path / "x", [word, "--option"]).text
    assert text.startswith("#!/bin/sh\n# Written by snf as ")
    assert shlex.split(text.split("\n", 2)[2]) == ["exec", word, "--option", "$@"]
    assert text.endswith(' --option "$@"\n')


def test_what_of_ours_has_changed_is_written_anew(wanted: Installation) -> None:
    installation.install(wanted)
    first, listed, up, vif = (file.path for file in wanted.files)
    first.write_text(first.read_text().replace("exec run", "exec old"))
    listed.write_text("b\n")
    up.chmod(0o700)
    assert set(states(wanted)) == {"snf", "list", "up"}
    assert set(states(wanted).values()) == {State.DIFFERENT}
    old = vif.stat()
    assert {one.path for one in installation.install(wanted)} == {first, listed, up}
    assert installation.compare(wanted) == []
    assert vif.stat() == old


def test_a_file_that_another_user_could_change_is_not_well(
    wanted: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.install(wanted)
    if os.geteuid() == 0:
        os.chown(wanted.files[0].path, 65534, -1)
        assert states(wanted) == {"snf": State.DIFFERENT}
        installation.install(wanted)
        assert wanted.files[0].path.stat().st_uid == 0
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 65534)
        assert set(states(wanted).values()) == {State.DIFFERENT}


def _text(path: Path) -> None:
    path.write_text("#!/bin/sh\n# somebody's own\n")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _linked(path: Path) -> None:
    path.symlink_to("/bin/true")


def _copied(path: Path) -> None:
    """What was made from a script of ours for another place."""
    path.write_text(installation.script(Path("/etc/other"), ["run"]).text)


def _mentioning(path: Path) -> None:
    path.write_text("#!/bin/sh\n# beside what is Written by snf as /etc/vif\n")


FOREIGN = [_text, _dangling, _linked, _copied, _mentioning, Path.mkdir, os.mkfifo]


@pytest.mark.parametrize("make", FOREIGN)
def test_what_others_made_is_never_touched(
    wanted: Installation, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    up, vif = wanted.files[2].path, wanted.files[3].path
    for path in (up, vif):
        path.parent.mkdir(exist_ok=True, parents=True)
        make(path)
    before = {path: path.lstat() for path in (up, vif)}
    assert states(wanted)["up"] is states(wanted)["vif"] is State.FOREIGN
    with pytest.raises(SnfError, match="nothing was installed") as caught:
        installation.install(wanted)
    for path in (up, vif):
        assert f"{path} was not made by snf" in caught.value.message
    assert "move them away" in caught.value.remedy
    assert installation.uninstall(wanted) == []
    assert {path: path.lstat() for path in (up, vif)} == before
    assert sorted(path.name for path in (tmp_path / "etc").iterdir()) == ["network", "vif"]


def test_a_list_of_somebody_elses_definition_is_theirs(wanted: Installation) -> None:
    listed = wanted.files[1].path
    listed.parent.mkdir(parents=True)
    listed.write_text("theirs\n")
    assert states(wanted)["list"] is State.FOREIGN
    listed.write_text("a\n")
    listed.chmod(0o644)
    assert "list" not in states(wanted), "there is nothing to be lost"
    assert installation.uninstall(wanted) == []
    assert listed.exists()


def test_what_was_put_in_the_place_of_a_list_of_ours_is_theirs(
    wanted: Installation, tmp_path: Path
) -> None:
    installation.install(wanted)
    listed = wanted.files[1].path
    listed.unlink()
    listed.symlink_to("elsewhere")
    assert states(wanted) == {"list": State.FOREIGN}
    assert listed not in installation.uninstall(wanted)
    assert content(tmp_path) == {
        "etc": None,
        "etc/hooks": None,
        "etc/hooks/stop.d": None,
        "etc/hooks/stop.d/list": "elsewhere",
    }


def test_what_would_be_found_before_ours_is_in_the_way(
    wanted: Installation, tmp_path: Path
) -> None:
    hiding = tmp_path / "srv/os"
    hiding.mkdir(parents=True)
    wanted = Installation(wanted.files, hiding=(hiding, tmp_path / "nothing"))
    assert installation.compare(wanted)[0] == Difference(hiding, State.HIDING)
    with pytest.raises(SnfError, match=f"{hiding} comes before the installed one"):
        installation.install(wanted)
    assert list(tmp_path.iterdir()) == [tmp_path / "srv"]


def test_what_is_of_no_use_any_more_goes(wanted: Installation, tmp_path: Path) -> None:
    gone = installation.script(tmp_path / "etc/network/ext/down", ["run", "down"])
    installation.install(Installation((*wanted.files, gone)))
    killed = tmp_path / "etc/.snf-ganeti-half"
    killed.touch()
    theirs = tmp_path / "etc/network/theirs"
    theirs.write_text("#!/bin/sh\n")
    found = installation.compare(wanted)
    assert {(one.path, one.state) for one in found} == {
        (gone.path, State.LEFT_OVER),
        (killed, State.LEFT_OVER),
    }
    assert {one.done for one in installation.install(wanted)} == {"removed"}
    assert installation.compare(wanted) == []
    assert sorted(path.name for path in theirs.parent.iterdir()) == ["theirs", "up"]


def test_nothing_is_left_over_as_long_as_not_all_is_known(
    wanted: Installation, tmp_path: Path
) -> None:
    installation.install(wanted)
    known = Installation(wanted.files[:2], wanted.searched, wanted.kept, complete=False)
    assert installation.install(known) == []
    assert wanted.files[3].path.exists()
    assert len(installation.uninstall(known)) == 4, "but all of it is ours"
    assert content(tmp_path) == {"etc": None}


def test_uninstalled(wanted: Installation, tmp_path: Path) -> None:
    (tmp_path / "etc/hooks/stop.d").mkdir(parents=True)
    theirs = tmp_path / "etc/hooks/stop.d/theirs"
    theirs.write_text("x")
    before = content(tmp_path)
    installation.install(wanted)
    assert set(installation.uninstall(wanted)) == {file.path for file in wanted.files}
    assert content(tmp_path) == before
    assert installation.uninstall(wanted) == []
    assert installation.install(wanted)


def _in_the_way(wanted: Installation) -> None:
    """A directory cannot be made where a file is."""
    wanted.files[2].path.parent.write_text("a file")


def _in_a_missing_place(wanted: Installation) -> None:
    wanted.files[2].path.parent.symlink_to("nowhere/at/all")


@pytest.mark.parametrize("spoil", [_in_the_way, _in_a_missing_place])
@pytest.mark.parametrize("older", [False, True])
def test_where_one_cannot_be_written_none_is(
    wanted: Installation, tmp_path: Path, spoil: Callable[[Installation], None], older: bool
) -> None:
    (tmp_path / "etc").mkdir()
    if older:
        old = installation.script(wanted.files[0].path, ["run", "what is old"])
        gone = installation.script(tmp_path / "etc/gone", ["run"])
        installation.install(Installation((old, gone)))
    spoil(wanted)
    before = content(tmp_path)
    with pytest.raises(SnfError, match=r"nothing was changed: .*network"):
        installation.install(wanted)
    assert content(tmp_path) == before


@pytest.mark.parametrize("failing", range(1, 7))
def test_what_was_done_is_undone(
    wanted: Installation, tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage gives up at one or another step: writing over, keeping, removing."""
    old = [
        installation.script(wanted.files[0].path, ["run", "what is old"]),
        installation.script(tmp_path / "etc/gone", ["run"]),
    ]
    installation.install(Installation(tuple(old)))
    before = content(tmp_path)
    inodes = {file.path: file.path.stat().st_ino for file in old}
    count = 0

    def stepping(step: Callable[..., object]) -> Callable[..., object]:
        def act(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == failing:
                raise OSError(5, "Input/output error", str(arguments[0]))
            return step(*arguments, **options)

        return act

    monkeypatch.setattr(os, "replace", stepping(os.replace))
    monkeypatch.setattr(os, "link", stepping(os.link))
    with pytest.raises(SnfError, match=r"nothing was changed: .*Input/output error"):
        installation.install(wanted)
    assert count >= failing
    monkeypatch.undo()
    assert content(tmp_path) == before
    assert {file.path: file.path.stat().st_ino for file in old} == inodes, "the very same files"


def test_an_interruption_undoes_it_too(
    wanted: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def interrupted(source: str, target: str) -> None:
        replace(source, target)
        if str(target).endswith("vif"):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        installation.install(wanted)
    assert content(tmp_path) == {}


def test_one_at_a_time(tmp_path: Path) -> None:
    before = list(tmp_path.iterdir())
    seen: list[str] = []

    def another() -> None:
        with installation.locked(tmp_path):
            seen.append("another")

    thread = threading.Thread(target=another)
    with installation.locked(tmp_path):
        thread.start()
        until_waiting(tmp_path)
        seen.append("one")
    thread.join()
    assert seen == ["one", "another"]
    assert list(tmp_path.iterdir()) == before, "no lock is left behind"


def test_the_lock_of_no_directory(tmp_path: Path) -> None:
    with (
        pytest.raises(SnfError, match="none: No such file") as caught,
        installation.locked(tmp_path / "none"),
    ):
        pass
    assert caught.value.remedy
