"""The rules of the house, read from the sources: who may import what, and how large things get."""

from __future__ import annotations

import ast
import configparser
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/plugin-authors.md"
PACKAGES = {
    "snf_core": ROOT / "snf_core",
    "snf_kvm": ROOT / "plugins/kvm/snf_kvm",
    "snf_xen": ROOT / "plugins/xen/snf_xen",
    "snf_os_linux": ROOT / "plugins/os_linux/snf_os_linux",
    "snf_os_windows": ROOT / "plugins/os_windows/snf_os_windows",
    "acme_snf": ROOT / "docs/examples/acme/acme_snf",
}
PLUGINS = sorted(PACKAGES.keys() - {"snf_core"})

GATES = {
    "guestfs": "snf_core.image.guest",
    "pyroute2": "snf_core.network.links",
    "nftables": "snf_core.network.nft",
    "subprocess": "snf_core.run",
}
"""Libraries that one module alone may import."""

DEFINING = {"acme_snf": "snf_os_linux.network"}
"""What may be imported from another plugin: its definition of an extension point."""

MODULE_LINES = 400
FUNCTION_LINES = 60


@dataclass(frozen=True)
class Import:
    """One name that a module imports, ``snf_core.model.Nic`` or ``os``."""

    name: str
    line: int
    for_types: bool
    """Under TYPE_CHECKING, so that nothing is imported when it runs."""


@dataclass(frozen=True)
class Module:
    """One module of ours."""

    name: str
    path: Path

    @property
    def package(self) -> str:
        """The distribution's package."""
        return self.name.partition(".")[0]

    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return _parsed(self.path)

    def imports(self) -> list[Import]:
        """All its imports, those inside functions too."""
        return list(_imports(self.tree(), for_types=False))


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _imports(node: ast.AST, *, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, for_types)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: relative import"
            for alias in child.names:
                yield Import(f"{child.module}.{alias.name}", child.lineno, for_types)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for statement in child.body:
                yield from _imports(ast.Module([statement], []), for_types=True)
            for statement in child.orelse:
                yield from _imports(ast.Module([statement], []), for_types=for_types)
        else:
            yield from _imports(child, for_types=for_types)


def _modules() -> list[Module]:
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found.append(Module(".".join(part for part in parts if part != "__init__"), path))
    return found


MODULES = _modules()

each = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


def _inside(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _importable() -> dict[str, bool]:
    """What plugins may import according to the guide: name, and whether for types only."""
    section = GUIDE.read_text().partition("## What may be imported")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(snf_core[\w.]*)` \|(.*)\|$", section, re.MULTILINE)
    return {name: "for types only" in text.lower() for name, text in rows}


def test_there_is_something_to_check() -> None:
    assert {module.package for module in MODULES} == PACKAGES.keys()
    assert len(_importable()) >= 10


@each
def test_imports_of_core_and_plugins(module: Module) -> None:
    others = [name for name in PACKAGES if name != module.package]
    if module.package != "snf_core":
        others.remove("snf_core")
    for found in module.imports():
        if not _inside(found.name, DEFINING.get(module.package, "nothing")):
            assert not _inside(found.name, *others), f"line {found.line}: imports {found.name}"


@pytest.mark.parametrize("package", PLUGINS)
def test_plugins_import_what_the_guide_lists(package: str) -> None:
    allowed = _importable()
    for module in MODULES:
        if module.package != package:
            continue
        for found in module.imports():
            if not _inside(found.name, "snf_core"):
                continue
            rows = [name for name in allowed if _inside(found.name, name)]
            assert rows, f"{module.path}:{found.line}: {found.name} is not listed in {GUIDE.name}"
            assert found.for_types or not all(allowed[name] for name in rows), (
                f"{module.path}:{found.line}: {found.name} is for types only"
            )


@each
def test_image_and_network_are_apart(module: Module) -> None:
    apart = {"snf_core.image": "snf_core.network", "snf_core.network": "snf_core.image"}
    for one, other in apart.items():
        if _inside(module.name, one):
            for found in module.imports():
                assert not _inside(found.name, other), f"line {found.line}: imports {found.name}"


@each
def test_nothing_imports_the_command_line(module: Module) -> None:
    for found in module.imports():
        assert not _inside(found.name, "snf_core.cli"), f"line {found.line}"


@each
def test_gates_to_the_world(module: Module) -> None:
    for found in module.imports():
        for library, gate in GATES.items():
            if _inside(found.name, library):
                assert module.name == gate, f"line {found.line}: only {gate} imports {library}"


@each
def test_nothing_evaluates_text(module: Module) -> None:
    forbidden = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
    for node in ast.walk(module.tree()):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in forbidden, f"line {node.lineno}: {called}()"
            for keyword in node.keywords:
                assert keyword.arg != "shell", f"line {node.lineno}: a shell"
    for found in module.imports():
        assert not _inside(found.name, "pickle", "marshal", "shelve"), f"line {found.line}"


@each
def test_only_the_command_line_exits(module: Module) -> None:
    if _inside(module.name, "snf_core.cli") or module.path.name == "launcher.py":
        return
    for node in ast.walk(module.tree()):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"sys.exit", "exit", "quit"}, f"line {node.lineno}"
        if isinstance(node, ast.Raise) and node.exc is not None:
            assert "SystemExit" not in ast.unparse(node.exc), f"line {node.lineno}"


@each
def test_modules_and_functions_stay_small(module: Module) -> None:
    lines = module.path.read_text().count("\n")
    assert lines <= MODULE_LINES
    assert not module.path.stem.startswith("util"), "a module is named after what it is about"
    for node in ast.walk(module.tree()):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"line {node.lineno}: {node.name}, {lines} lines"


@each
def test_what_is_public_is_documented(module: Module) -> None:
    undocumented = list(_undocumented(module.tree()))
    assert ast.get_docstring(module.tree()), "the module"
    assert undocumented == []


def _undocumented(node: ast.Module | ast.ClassDef) -> Iterator[str]:
    for child in node.body:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        if not isinstance(child, kinds) or child.name.startswith("_"):
            continue
        if not ast.get_docstring(child):
            yield f"{child.name}, line {child.lineno}"
        # A method of a class with bases may take over the documentation of theirs.
        if isinstance(child, ast.ClassDef) and not child.bases:
            yield from _undocumented(child)


DISTRIBUTIONS = [ROOT, *(ROOT / "plugins" / name for name in ("kvm", "xen", "os_linux"))]
DISTRIBUTIONS.append(ROOT / "plugins/os_windows")


def _settings(folder: Path) -> configparser.ConfigParser:
    settings = configparser.ConfigParser()
    settings.read_string((folder / "setup.cfg").read_text())
    return settings


def test_the_distributions_have_one_version() -> None:
    assert len({_settings(folder)["metadata"]["version"] for folder in DISTRIBUTIONS}) == 1


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)
def test_metadata_of_each_distribution(folder: Path) -> None:
    settings = _settings(folder)
    assert settings["metadata"]["license"].split(" AND ")[0] == "BSD-2-Clause"
    assert all((folder / name).is_file() for name in settings["metadata"]["license_files"].split())
    assert settings["options"]["python_requires"] == ">=3.11"
    assert "py.typed" in settings["options.package_data"].popitem()[1]
    assert (folder / "pyproject.toml").is_file()
    if folder != ROOT:
        assert "snf-core>=0.1" in settings["options"]["install_requires"]
