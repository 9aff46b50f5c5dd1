"""The OS definition as Ganeti finds it on disk."""

from __future__ import annotations

from pathlib import Path

from snf_core.ganeti import definition, installation
from snf_core.ganeti.installation import Installation
from snf_core.image.parameters import NAMES

SCRIPTS = ["create", "export", "import", "rename", "verify"]
LISTS = ["ganeti_api_version", "parameters.list", "variants.list"]


def test_the_files_that_ganeti_reads() -> None:
    files = list(definition.files(Path("/os/snf-image"), ["b", "a"], ["run", "snf"]))
    found = {file.path.name: file for file in files}
    assert all(file.path.parent == Path("/os/snf-image") for file in files)
    assert sorted(found) == sorted([*SCRIPTS, *LISTS])
    assert {name for name, file in found.items() if file.executable} == set(SCRIPTS)
    assert found["ganeti_api_version"].text == "20\n"
    assert found["variants.list"].text == "a\nb\ndefault\n"
    lines = found["parameters.list"].text.splitlines()
    assert tuple(line.split(" ", 1)[0] for line in lines) == NAMES
    assert all(line.split(" ", 1)[1].strip() for line in lines)
    for name in SCRIPTS:
        assert found[name].text.endswith(f'\nexec run snf ganeti os {name} "$@"\n')


def test_a_variant_called_default_is_named_once() -> None:
    files = definition.files(Path("/os"), ["default"], [])
    assert [file.text for file in files if file.path.name == "variants.list"] == ["default\n"]


def test_create_speaks_for_the_lists_whenever_they_are_there(tmp_path: Path) -> None:
    """An installation that is killed leaves lists that are known to be ours."""
    files = tuple(definition.files(tmp_path / "os", [], ["snf"]))
    assert files[0].path.name == "create"
    assert {file.witness for file in files if not file.executable} == {files[0].path}
    installation.install(Installation(files[:7]))
    assert installation.install(Installation(files))[0].path == files[7].path
    removed = installation.uninstall(Installation(files, kept=(tmp_path,)))
    assert removed == [file.path for file in reversed(files)], "and create goes last"
    assert list(tmp_path.iterdir()) == []
