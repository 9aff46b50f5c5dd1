"""Where the fixed appliance is, and whether it is still the right one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_core import appliance, extension
from snf_core.appliance import Appliance, Launcher
from snf_core.config import Config
from snf_core.contract import Finding, Hypervisor
from snf_core.errors import ApplianceError, CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from snf_core.model import Disk

FILES = ("kernel", "initrd", "root")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node without an appliance."""
    file = tmp_path / "snf.conf"
    file.write_text(f"[directories]\nstate = {tmp_path}/state\nruntime = {tmp_path}/run\n")
    return Config([file])


@pytest.fixture
def made(config: Config) -> Path:
    """One as it is built: behind a symbolic link."""
    current = appliance.directory(config)
    target = current.with_name("appliance.1234")
    target.mkdir(parents=True)
    for name in FILES:
        (target / name).write_text(name)
    current.symlink_to(target.name)
    return target


def test_located_and_kept_while_another_is_built(config: Config, made: Path) -> None:
    found = appliance.locate(config)
    assert found.directory == made
    assert [found.kernel.name, found.initrd.name, found.root.name] == list(FILES)
    assert found.boot_cache.is_dir()
    assert found.boot_cache.stat().st_mode & 0o777 == 0o711
    appliance.directory(config).unlink()
    assert found.root.read_text() == "root"


@pytest.mark.parametrize("name", FILES)
def test_an_incomplete_one_is_none(config: Config, made: Path, name: str) -> None:
    (made / name).unlink()
    with pytest.raises(ApplianceError, match=f"there is no fixed appliance.*{name} is") as caught:
        appliance.locate(config)
    assert caught.value.remedy == 'run "snf appliance build"'


def test_none_at_all(config: Config) -> None:
    with pytest.raises(ApplianceError, match="there is no fixed appliance"):
        appliance.locate(config)


@pytest.mark.parametrize("manifest", [None, "", "{", "{}", '{"recipe": []}', "[]", "null"])
def test_one_that_does_not_say_what_it_was_made_from_is_out_of_date(
    config: Config, made: Path, manifest: str | None
) -> None:
    if manifest is not None:
        (made / "manifest.json").write_text(manifest)
    assert appliance.is_current(appliance.locate(config)) is False


def test_one_that_is_held_is_not_removed(config: Config, made: Path) -> None:
    with appliance.held(config) as first, appliance.held(config) as second:
        assert first == second == appliance.locate(config)
        appliance._remove_unless_held(made)
        assert first.root.read_text() == "root"
    appliance._remove_unless_held(made)
    assert not made.exists()


def test_none_to_be_held(config: Config, made: Path) -> None:
    (made / "root").unlink()
    with pytest.raises(ApplianceError, match="there is no fixed"), appliance.held(config):
        pass


def test_one_that_is_replaced_meanwhile(
    config: Config, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Located, but removed before it could be held: the new one is."""
    other = made.with_name("appliance.5678")
    true = appliance.locate

    def locate(config: Config) -> appliance.Appliance:
        found = true(config)
        if made.exists():
            made.rename(other)
            appliance.directory(config).unlink()
            appliance.directory(config).symlink_to(other.name)
        return found

    monkeypatch.setattr(appliance, "locate", locate)
    with appliance.held(config) as found:
        assert found.directory == other


class Half(Hypervisor):
    """One that starts the appliance in a way of its own, or says why it cannot."""

    fallback = "kvm"

    def __init__(self, error: ApplianceError | None = None) -> None:
        super().__init__(None)
        self._error = error

    def nic_event(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """None of them."""

    def disk_name(self, disk: Disk) -> str:
        """Never asked."""
        return disk.path

    def launcher(self, appliance: Appliance) -> Launcher:
        """Two ways of its own."""
        if self._error:
            raise self._error
        return Launcher("quick", 300, fallback=Launcher("slow", 300))


def with_qemu(tmp_path: Path, *, there: bool) -> Config:
    """A configuration for kvm, whose QEMU is there or not."""
    qemu, file = tmp_path / "qemu", tmp_path / "snf.conf"
    if there:
        qemu.touch(0o755)
    with file.open("a") as opened:
        opened.write(f"[hypervisor.kvm]\nqemu = {qemu}\naccelerator = tcg\nresume = false\n")
    return Config([file])


def test_another_hypervisor_comes_last(made: Path, tmp_path: Path) -> None:
    node = with_qemu(tmp_path, there=True)
    first, second, last = appliance.launcher(Half(), appliance.locate(node), node).attempts()
    assert [first.program, second.program] == ["quick", "slow"]
    assert str(tmp_path / "qemu") in last.program
    assert not last.warning


def test_another_hypervisor_instead_of_one_that_cannot(made: Path, tmp_path: Path) -> None:
    node = with_qemu(tmp_path, there=True)
    half = Half(ApplianceError("there is no wind", remedy="whistle"))
    [found] = appliance.launcher(half, appliance.locate(node), node).attempts()
    assert str(tmp_path / "qemu") in found.program
    assert found.warning == "the appliance is started by kvm: there is no wind"


def test_where_the_other_cannot_either_both_say_why(made: Path, tmp_path: Path) -> None:
    node = with_qemu(tmp_path, there=False)
    *_, slow = appliance.launcher(Half(), appliance.locate(node), node).attempts()
    assert slow.program == "slow"
    half = Half(ApplianceError("there is no wind", remedy="whistle"))
    with pytest.raises(ApplianceError, match=r"there is no wind; and kvm: .*qemu cannot") as caught:
        appliance.launcher(half, appliance.locate(node), node)
    assert caught.value.remedy == "whistle"


def test_what_one_hypervisor_cannot_tidy_does_not_keep_others_from_it(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def tidy(self, runtime: Path) -> Iterator[Finding]:
            raise CommandError("xl failed", remedy="see its log")

    class Tidy:
        def tidy(self, runtime: Path) -> Iterator[Finding]:
            yield Finding(True, f"nothing of {runtime} is left")

    both = {"one": Broken(), "two": Tidy()}
    monkeypatch.setattr(extension, "names", lambda _: list(both))
    monkeypatch.setattr(extension, "make", lambda _, name, __: both[name])
    first, second = appliance.tidy(config)
    assert first == Finding(False, "one: xl failed", "see its log")
    assert second == Finding(True, f"nothing of {config.runtime()} is left")
