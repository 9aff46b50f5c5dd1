"""Extension points against plugins of this module, published by hand-written metadata."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from oslo_config import cfg

from snf_core import contract, extension
from snf_core.config import Config
from snf_core.errors import ConfigError, PluginConflictError, PluginError

if TYPE_CHECKING:
    from collections.abc import Callable

    from snf_core.contract import ImageReader

    Publish = Callable[..., None]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Make a distribution importable: its name, and ``{namespace: {name: target}}``."""

    def publish(name: str, entries: dict[str, dict[str, str]], version: str = "1.2") -> None:
        folder = tmp_path / name
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = []
        for namespace, targets in entries.items():
            lines.append(f"[{namespace}]")
            lines += [f"{key} = {target}" for key, target in targets.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(folder))

    return publish


def _publish_source(publish: Publish, target: str) -> None:
    publish("acme", {"snf.image.source": {"acme": f"{__name__}:{target}"}})


class Good(contract.Source):
    """A source as it should be."""

    api_version = "1.0"
    options = (cfg.IntOpt("depth", default=3, min=1, help="How deep."),)

    def accepts(self, image_id: str) -> bool:
        return image_id.startswith("acme:")

    def open(self, image_id: str, image_format: str) -> ImageReader:
        raise NotImplementedError(image_id, image_format)


class WithMore(Good):
    """Further parameters do no harm where they have defaults."""

    def accepts(self, image_id: str, strict: bool = False, **_more: object) -> bool:
        return super().accepts(image_id) and not strict


class Unversioned(Good):
    """States no version."""

    api_version = ""


class Garbled(Good):
    """States no usable version."""

    api_version = "one"


class NumberedVersion(Good):
    """States a number instead of text."""

    api_version: ClassVar[Any] = 1.0


class NextMajor(Good):
    """Written for a later, incompatible version."""

    api_version = "2.0"


class NextMinor(Good):
    """Written for a later version, with things this core lacks."""

    api_version = "1.1"


class Incomplete(contract.Source):
    """Lacks a method."""

    api_version = "1.0"

    def accepts(self, image_id: str) -> bool:
        return bool(image_id)


class Short(Good):
    """Takes too little."""

    def open(self, image_id: str) -> ImageReader:  # type: ignore[override]
        raise NotImplementedError(image_id)


class Renamed(Good):
    """Names a parameter otherwise."""

    def accepts(self, url: str) -> bool:
        return bool(url)


class Demanding(Good):
    """Wants more than it will be given."""

    def accepts(self, image_id: str, strict: bool) -> bool:  # type: ignore[override]
        return bool(image_id) and strict


class OddlyMade(Good):
    """Cannot be made with its options."""

    def __init__(self) -> None:
        super().__init__(None)


class NoMethod(Good):
    """Has a value for a method."""

    accepts: ClassVar[Any] = True


class OddPriority(Good):
    """Has text for a number."""

    priority: ClassVar[Any] = "high"


class OddOptions(Good):
    """Declares what is no option."""

    options = ("depth",)


class OneLetterAfterAnother(contract.Task):
    """Forgot the comma of the tuple."""

    api_version = "1.0"
    after: ClassVar[Any] = "AssignHostname"

    def run(self, guest: object, request: object) -> list[str]:
        return []


NOT_A_CLASS = object()


def test_group_names() -> None:
    assert extension.HYPERVISOR.group("kvm") == "hypervisor.kvm"
    assert extension.IMAGE_SOURCE.group("local") == "image.source.local"
    assert extension.GUEST_TASK.group("any.UmountImage") == "guest.task.any.umountimage"


def test_seven_namespaces() -> None:
    assert {point.namespace for point in extension.CORE_POINTS} == {
        "snf.hypervisor",
        "snf.network.setup",
        "snf.guest",
        "snf.guest.task",
        "snf.image.source",
        "snf.image.destination",
        "snf.image.format",
    }


@pytest.mark.parametrize("plugin", [Good, WithMore])
def test_a_fitting_plugin_loads(publish: Publish, plugin: type[Good]) -> None:
    _publish_source(publish, plugin.__name__)
    assert extension.load(extension.IMAGE_SOURCE, "acme") is plugin
    assert "acme" in extension.names(extension.IMAGE_SOURCE)


def test_a_later_minor_of_the_core_serves_earlier_plugins(publish: Publish) -> None:
    _publish_source(publish, "Good")
    later = extension.ExtensionPoint("snf.image.source", contract.Source, "1.7")
    assert extension.load(later, "acme") is Good
    with pytest.raises(PluginError, match=r"expected API version 2\.0, found '1\.0'"):
        extension.load(extension.ExtensionPoint("snf.image.source", contract.Source, "2.0"), "acme")


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("Unversioned", "expected API version 1.0, found none"),
        ("Garbled", "expected API version 1.0, found 'one'"),
        ("NumberedVersion", "expected API version 1.0, found 1.0"),
        ("NextMajor", "expected API version 1.0, found '2.0'"),
        ("NextMinor", "expected API version 1.0, found '1.1'"),
        ("Incomplete", "not implemented: open"),
        ("Short", "open: expected (self, image_id, image_format), found (self, image_id)"),
        ("Renamed", "accepts: expected (self, image_id), found (self, url)"),
        ("Demanding", "accepts: expected (self, image_id), found (self, image_id, strict)"),
        ("OddlyMade", "__init__: expected (self, conf), found (self)"),
        ("NoMethod", "accepts: expected a method, found True"),
        ("OddPriority", "priority: expected int, found 'high'"),
        ("OddOptions", "options: expected oslo.config options, found 'depth'"),
        ("NOT_A_CLASS", "expected a subclass of snf_core.contract.Source, found <object object"),
        ("Plugin", "expected a subclass of snf_core.contract.Source, found <class"),
    ],
)
def test_a_misfit_names_distribution_expectation_and_finding(
    publish: Publish, target: str, problem: str
) -> None:
    module = "snf_core.contract" if target == "Plugin" else __name__
    publish("acme", {"snf.image.source": {"acme": f"{module}:{target}"}})
    with pytest.raises(PluginError) as caught:
        extension.load(extension.IMAGE_SOURCE, "acme")
    assert problem in caught.value.message
    assert f"'acme' of snf.image.source (acme 1.2, {module}:{target})" in caught.value.message
    assert caught.value.remedy


def test_text_where_a_tuple_is_wanted(publish: Publish) -> None:
    publish("acme", {"snf.guest.task": {"any.Odd": f"{__name__}:OneLetterAfterAnother"}})
    with pytest.raises(PluginError, match="after: expected a tuple, found 'AssignHostname'"):
        extension.load(extension.GUEST_TASK, "any.Odd")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def", "SyntaxError"),
        ("assert False, 'not today'", "AssertionError: not today"),
        ("raise SystemExit('I am a script')", "SystemExit: I am a script"),
        ("", "AttributeError: module 'acme_broken' has no attribute 'Source'"),
    ],
)
def test_whatever_an_import_raises_is_an_error_of_that_plugin(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: str
) -> None:
    publish("broken", {"snf.image.source": {"broken": "acme_broken:Source"}})
    _publish_source(publish, "Good")
    (tmp_path / "broken" / "acme_broken.py").write_text(source)
    with pytest.raises(PluginError) as caught:
        extension.load(extension.IMAGE_SOURCE, "broken")
    assert f"(broken 1.2, acme_broken:Source) cannot be loaded: {error}" in caught.value.message
    monkeypatch.delitem(sys.modules, "acme_broken", raising=False)

    listed = {row.name: row.error for row in extension.listing()}
    assert error in listed["broken"]
    assert listed["acme"] == ""


def test_an_unknown_name_lists_those_that_there_are(publish: Publish) -> None:
    _publish_source(publish, "Good")
    with pytest.raises(PluginError, match="there is no plugin 'amce'") as caught:
        extension.load(extension.IMAGE_SOURCE, "amce")
    assert "acme" in caught.value.remedy


@pytest.mark.parametrize("second", ["Good", "WithMore"])
def test_two_distributions_with_one_name(publish: Publish, second: str) -> None:
    # The very same target in both is a conflict too: a fork installed beside its origin.
    _publish_source(publish, "Good")
    publish("copycat", {"snf.image.source": {"acme": f"{__name__}:{second}"}}, version="7")
    with pytest.raises(PluginConflictError) as caught:
        extension.load(extension.IMAGE_SOURCE, "acme")
    assert f"acme 1.2, {__name__}:Good" in caught.value.message
    assert f"copycat 7, {__name__}:{second}" in caught.value.message
    rows = [row for row in extension.listing() if row.name == "acme"]
    assert {row.distribution for row in rows} == {"acme", "copycat"}
    assert all("provided twice" in row.error for row in rows)


def test_a_shadowed_version_of_one_distribution_is_no_conflict(publish: Publish) -> None:
    _publish_source(publish, "Good")
    path = Path(sys.path[0]) / "old"
    info = path / "acme-0.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 0.9\n")
    (info / "entry_points.txt").write_text("[snf.image.source]\nacme = gone:Gone\n")
    sys.path.append(str(path))  # undone with syspath_prepend's change
    assert extension.load(extension.IMAGE_SOURCE, "acme") is Good


def test_a_plugin_is_handed_its_own_options_only(publish: Publish, tmp_path: Path) -> None:
    _publish_source(publish, "Good")
    file = tmp_path / "snf.conf"
    file.write_text("[image.source.acme]\ndepth = 5\n[parameters]\nimg_passwd = hunter2\n")
    plugin = extension.make(extension.IMAGE_SOURCE, "acme", Config([file]))
    assert plugin.conf.depth == 5
    assert set(plugin.conf) == {"depth"}


def test_options_are_checked_when_a_plugin_is_made(publish: Publish, tmp_path: Path) -> None:
    _publish_source(publish, "Good")
    file = tmp_path / "snf.conf"
    file.write_text("[image.source.acme]\ndepth = 0\n")
    with pytest.raises(ConfigError, match=r"'depth' in group \[image\.source\.acme\]"):
        extension.make(extension.IMAGE_SOURCE, "acme", Config([file]))


MUSIC = extension.ExtensionPoint("snf.acme.music", contract.Source, "3.1")
MISNAMED = extension.ExtensionPoint("snf.acme.noise", contract.Source)


def test_a_plugin_may_define_an_extension_point(publish: Publish) -> None:
    publish(
        "acme",
        {
            "snf.extension_point": {"snf.acme.music": f"{__name__}:MUSIC"},
            "snf.acme.music": {"flute": f"{__name__}:Good"},
        },
    )
    assert MUSIC.namespace in [point.namespace for point in extension.points()]
    errors = {(row.namespace, row.name): row.error for row in extension.listing()}
    assert errors["snf.extension_point", "snf.acme.music"] == ""
    assert "expected API version 3.1" in errors["snf.acme.music", "flute"]


@pytest.mark.parametrize(
    ("name", "target", "problem"),
    [
        ("snf.acme.music", "MISNAMED", "expected an ExtensionPoint for 'snf.acme.music'"),
        ("snf.acme.music", "Good", "expected an ExtensionPoint for 'snf.acme.music'"),
        ("snf.acme.music", "Gone", "cannot be loaded: AttributeError"),
        ("snf.hypervisor", "MUSIC", "is one of the core's own"),
    ],
)
def test_a_broken_extension_point_is_listed_and_breaks_nothing(
    publish: Publish, name: str, target: str, problem: str
) -> None:
    publish("acme", {"snf.extension_point": {name: f"{__name__}:{target}"}})
    assert [point.namespace for point in extension.points()].count(name) == (
        1 if name == "snf.hypervisor" else 0
    )
    row = next(row for row in extension.listing() if row.distribution == "acme")
    assert problem in row.error
    assert "acme 1.2" in row.error


def test_an_extension_point_defined_twice(publish: Publish) -> None:
    for distribution in ("acme", "copycat"):
        publish(distribution, {"snf.extension_point": {"snf.acme.music": f"{__name__}:MUSIC"}})
    assert MUSIC.namespace not in [point.namespace for point in extension.points()]
    rows = [row for row in extension.listing() if row.name == "snf.acme.music"]
    assert len(rows) == 2
    assert all("acme 1.2" in row.error and "copycat 1.2" in row.error for row in rows)


def test_a_misspelt_namespace_is_listed(publish: Publish) -> None:
    publish("acme", {"snf.image.sauce": {"acme": f"{__name__}:Good"}})
    row = next(row for row in extension.listing() if row.distribution == "acme")
    assert "there is no extension point snf.image.sauce" in row.error
    assert "snf.image.source" in row.error


def test_a_distribution_half_removed_is_listed_all_the_same(
    publish: Publish, tmp_path: Path
) -> None:
    _publish_source(publish, "NextMajor")
    (tmp_path / "acme" / "acme-1.2.dist-info" / "METADATA").unlink()
    row = next(row for row in extension.listing() if row.name == "acme")
    assert row.distribution == "unknown"
    assert "expected API version 1.0" in row.error
