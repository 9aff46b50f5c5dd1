"""What Ganeti is to call on a node, for the Ganeti and the plugins that are there."""

from __future__ import annotations

import functools
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_core import doctor
from snf_core.config import Config
from snf_core.errors import SnfError
from snf_core.ganeti import generation, glue, hooks, installation
from snf_core.ganeti.installation import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from snf_core.contract import Finding

    Publish = Callable[..., None]

MODULE = """
    from pathlib import Path

    from snf_core.contract import Hypervisor, NicScript

    class Good(Hypervisor):
        api_version = "1.0"
        scripts = (NicScript(Path("/etc/acme/nic"), ("event", "--hypervisor", "acme")),)

        def nic_event(self, argv, environ): ...
        def disk_name(self, disk): ...
        def launcher(self, appliance): ...
        def nic_scripts(self, ganeti):
            return self.scripts

    class Silent(Good):
        scripts = ()

    class Same(Good):
        pass

    class Other(Good):
        scripts = (NicScript(Path("/etc/acme/nic"), ("up",)),)

    class Raises(Good):
        def nic_scripts(self, ganeti):
            raise RuntimeError("cannot think")

    class Relative(Good):
        scripts = (NicScript(Path("etc/acme"), ("up",)),)

    class Outside(Good):
        scripts = (NicScript(Path("/etc/../etc/acme"), ("up",)),)

    class Line(Good):
        scripts = (NicScript(Path("/etc/acme\\nrm"), ("up",)),)

    class Words(Good):
        scripts = (NicScript(Path("/etc/acme"), ("up", 7)),)

    class Text(Good):
        scripts = ("/etc/acme",)

    class None_(Good):
        scripts = None
"""

LIST = "usr/share/ganeti/os/snf-image/variants.list"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node with a Ganeti as of 3.0, in our own words, and a Xen."""
    library = tmp_path / "root/usr/lib/ganeti"
    library.mkdir(parents=True)
    (library / "daemon-util").touch()
    (library / "kvm-ifup").write_text("exec $DIR/kvm-vif-bridge\n")
    (library / "vif-ganeti").write_text("exec /etc/xen/scripts/vif-custom $*\n")
    (tmp_path / "root/etc/xen/scripts").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture(name="publish")
def _publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Put a distribution with these hypervisors on sys.path, in the place of the last one."""
    return functools.partial(_put_on_path, tmp_path, monkeypatch)


def _put_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *plugins: str) -> None:
    info = tmp_path / "glue_plugins-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: glue-plugins\nVersion: 1.0\n")
    lines = [f"testing-{name.lower().strip('_')} = glue_plugins:{name}\n" for name in plugins]
    (info / "entry_points.txt").write_text("[snf.hypervisor]\n" + "".join(lines))
    (tmp_path / "glue_plugins.py").write_text(textwrap.dedent(MODULE))
    # A directory of another name each time: entry points are read once per sys.path.
    link = tmp_path / f"path-{len(list(tmp_path.glob('path-*')))}"
    link.symlink_to(tmp_path)
    monkeypatch.syspath_prepend(link)


def installed(root: Path) -> dict[str, str]:
    """The files below ``root`` that are not Ganeti's, and what they say."""
    paths = (path for path in root.rglob("*") if path.is_file())
    texts = {str(path.relative_to(root)): path.read_text() for path in paths}
    return {name: text for name, text in texts.items() if not name.startswith("usr/lib/ganeti/")}


def test_everything_that_this_node_needs(root: Path, tmp_path: Path) -> None:
    glue.install(Config([]), root, tmp_path / "my snf.conf")
    found = installed(root)
    words = f"exec {sys.executable} -I -m snf_core.cli --config '{tmp_path}/my snf.conf' "
    own = {name: text.split("\n", 2)[2] for name, text in found.items() if words in text}
    definition = "usr/share/ganeti/os/snf-image/"
    assert own == {
        **{
            f"{definition}{script}": f'{words}ganeti os {script} "$@"\n'
            for script in ("create", "import", "export", "rename", "verify")
        },
        "etc/ganeti/kvm-vif-bridge": f'{words}network up --hypervisor kvm "$@"\n',
        "etc/xen/scripts/vif-custom": f'{words}network event --hypervisor xen-pvm "$@"\n',
        "etc/xen/scripts/vif-snf": f'{words}network event --hypervisor xen-pvm xl "$@"\n',
        **{f"etc/ganeti/hooks/{hook}/snf": f'{words}ganeti hook "$@"\n' for hook in hooks.HOOKS},
    }
    assert found.keys() - own.keys() == {
        f"{definition}{name}" for name in ("ganeti_api_version", "parameters.list", "variants.list")
    }
    assert glue.check(Config([]), root, tmp_path / "my snf.conf") == []
    marked = [text for name, text in found.items() if f" as /{name}; changes will be lost." in text]
    assert len(marked) == len(own), "each names its place on the node"
    assert glue.check(Config([]), root), "another configuration is something else"
    assert len(glue.uninstall(Config([]), root)) == len(found)
    assert installed(root) == {}
    assert (root / "etc/xen/scripts").is_dir()


def test_what_xen_calls_without_ganeti(tmp_path: Path) -> None:
    """As little as that, and nothing of what somebody else has put there."""
    (tmp_path / "etc/xen/scripts").mkdir(parents=True)
    (tmp_path / "etc/xen/scripts/vif-custom").write_text("exit 0\n")
    (missing,) = glue.check(Config([]), tmp_path, by_ganeti=False)
    assert missing.state is State.MISSING
    glue.install(Config([]), tmp_path, by_ganeti=False)
    assert glue.check(Config([]), tmp_path, by_ganeti=False) == []
    found = installed(tmp_path)
    assert sorted(found) == ["etc/xen/scripts/vif-custom", "etc/xen/scripts/vif-snf"]
    last = found["etc/xen/scripts/vif-snf"].splitlines()[-1]
    assert last.endswith(' network event --hypervisor xen-pvm xl "$@"')
    script = tmp_path / "etc/xen/scripts/vif-snf"
    assert glue.uninstall(Config([]), tmp_path, by_ganeti=False) == [script]
    assert script.parent.is_dir()
    with pytest.raises(SnfError, match="there is no Ganeti below"):
        glue.install(Config([]), tmp_path)


def test_nothing_is_there_to_call_anything(tmp_path: Path) -> None:
    with pytest.raises(SnfError, match="no hypervisor below") as caught:
        glue.install(Config([]), tmp_path, by_ganeti=False)
    assert "snf-xen" in caught.value.remedy


def test_the_scripts_of_hypervisors_stay_what_ganeti_has(root: Path) -> None:
    glue.install(Config([]), root)
    before = installed(root)
    assert glue.install(Config([]), root, by_ganeti=False) == []
    assert installed(root) == before


def test_the_same_without_a_configuration_file(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    glue.install(Config([]), root)
    bridge = root / "etc/ganeti/kvm-vif-bridge"
    assert f"{sys.executable} -I -m snf_core.cli network up" in bridge.read_text()
    monkeypatch.setenv("SNF_CONFIG", "other.conf")
    monkeypatch.chdir(tmp_path)
    glue.install(Config([]), root)
    assert f" --config {tmp_path}/other.conf network up" in bridge.read_text()


def test_no_ganeti_is_an_error_but_for_uninstall(root: Path) -> None:
    glue.install(Config([]), root)
    (root / "usr/lib/ganeti/daemon-util").unlink()
    for act in (glue.install, glue.check):
        with pytest.raises(SnfError, match="there is no Ganeti"):
            act(Config([]), root)
    assert len(glue.uninstall(Config([]), root)) > len(hooks.HOOKS)
    assert installed(root) == {}


def test_another_generation_takes_over(root: Path) -> None:
    glue.install(Config([]), root)
    library = root / "usr/lib/ganeti"
    (library / "kvm-nic-setup").write_text('exec "$DIR/network/$MODE/$ACTION"\n')
    (library / "kvm-ifup").unlink()
    done = {one.path.relative_to(root / "etc"): one.done for one in glue.install(Config([]), root)}
    modes = ("bridged", "routed", "openvswitch", "ext")
    assert done == {
        **{Path(f"ganeti/network/{m}/{a}"): "wrote" for m in modes for a in ("up", "down")},
        Path("ganeti/kvm-vif-bridge"): "removed",
    }


def test_a_plugin_comes_and_goes(
    root: Path, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    script = root / "etc/acme/nic"
    publish("Good", "Same", "Silent")
    glue.install(Config([]), root)
    assert ' network event --hypervisor acme "$@"' in script.read_text()
    assert caplog.messages == []
    elsewhere = root / "etc/ganeti/acme"
    elsewhere.write_text(installation.script(Path("/etc/ganeti/acme"), ["run"]).text)
    found = glue.check(Config([]), root)
    assert [(one.path, one.state) for one in found] == [(elsewhere, State.LEFT_OVER)]


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        ("Raises", "cannot think"),
        ("NoSuchThing", "cannot be loaded"),
        ("None_", "not iterable"),
        ("Relative", "is not the place of a script"),
        ("Outside", "is not the place of a script"),
        ("Line", "is not the place of a script"),
        ("Words", "is not the place of a script"),
        ("Text", "is not the place of a script"),
    ],
)
def test_a_broken_plugin_breaks_nothing(
    root: Path, publish: Publish, caplog: pytest.LogCaptureFixture, plugin: str, said: str
) -> None:
    publish("Good")
    glue.install(Config([]), root)
    before = installed(root)
    publish(plugin)
    assert glue.check(Config([]), root) == []
    assert glue.install(Config([]), root) == []
    name = f"testing-{plugin.lower().strip('_')}"
    assert f"hypervisor {name} is left out: " in caplog.text
    assert said in caplog.text
    assert installed(root) == before, "what it had named may be needed as soon as it is repaired"


def test_two_that_want_different_things(
    root: Path, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish("Good", "Other")
    glue.install(Config([]), root)
    assert "event --hypervisor acme" in (root / "etc/acme/nic").read_text()
    assert "testing-other: /etc/acme/nic is another's already" in caplog.text


def test_an_older_definition_of_this_name_is_in_the_way(root: Path) -> None:
    theirs = root / "srv/ganeti/os/snf-image"
    theirs.mkdir(parents=True)
    with pytest.raises(SnfError, match=f"{theirs} comes before the installed one"):
        glue.install(Config([]), root)
    assert installed(root) == {}


def test_variants_are_published(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "snf.conf"
    file.write_text("[image]\nvariants = /etc/my/variants\n")
    config = Config([file])
    glue.install(config, root, file)
    assert (root / LIST).read_text() == "default\n"
    variants = root / "etc/my/variants"
    variants.mkdir(parents=True)
    for name in ("bookworm.conf", "a+b.conf", "notes.txt", ".hidden.conf", "default.conf"):
        (variants / name).touch()
    assert [(one.path, one.state) for one in glue.check(config, root, file)] == [
        (root / LIST, State.DIFFERENT)
    ]
    glue.install(config, root, file)
    assert (root / LIST).read_text() == "bookworm\ndefault\n"


def test_what_the_doctor_says(root: Path) -> None:
    config = Config([])

    def examined() -> list[tuple[bool, str, bool]]:
        ganeti = generation.required(root)
        found = doctor.glue_findings(ganeti, glue.wanted(ganeti, config))
        return [(one.well, one.statement, one.fatal) for one in found]

    assert examined() == [(False, "Ganeti is on this node, and does not call us", False)]
    glue.install(config, root)
    assert [well for well, _, _ in examined()] == [True]
    bridge = root / "etc/ganeti/kvm-vif-bridge"
    bridge.unlink()
    assert examined() == [(False, f"{bridge} is missing", True)]
    glue.install(config, root)
    old = root / "etc/ganeti/kvm-ifup-custom"
    old.write_text(installation.script(Path("/etc/ganeti/kvm-ifup-custom"), ["run"]).text)
    assert examined() == [(False, f"{old} is of no use any more", False)]


def test_what_the_doctor_says_where_nothing_of_ours_is(root: Path) -> None:
    """In a cluster guests may come at any time, and come up without filters."""
    wanted = glue.wanted(generation.required(root), Config([]))

    def examined() -> Finding:
        (found,) = doctor.glue_findings(generation.required(root), wanted)
        assert not found.well
        assert found.remedy == 'run "snf ganeti install"'
        return found

    assert not examined().fatal
    name = root / "var/lib/ganeti/ssconf_cluster_name"
    name.parent.mkdir(parents=True)
    assert not examined().fatal, "installed, and in no cluster yet"
    name.write_text("cluster.gnt.test\n")
    assert examined().fatal
    assert "migrate here, without any filter" in examined().statement


def test_what_the_doctor_says_to_do_about_a_foreign_file(root: Path) -> None:
    glue.install(Config([]), root)
    bridge = root / "etc/ganeti/kvm-vif-bridge"
    bridge.write_text("#!/bin/sh\n# the operator's own\n")
    ganeti = generation.required(root)
    (found,) = doctor.glue_findings(ganeti, glue.wanted(ganeti, Config([])))
    assert (found.well, found.fatal) == (False, True)
    assert found.statement == f"{bridge} was not made by snf"
    assert found.remedy == 'move it away, then run "snf ganeti install"'
