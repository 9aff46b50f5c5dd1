"""Everything through which Ganeti calls the core on a node, as files.

The OS definition, the scripts for NICs that the installed hypervisors name, and the hooks. Those
scripts that hypervisors call by themselves can be put in place where there is no Ganeti, too.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core import extension
from snf_core.config import FILE_VARIABLE
from snf_core.contract import NicScript
from snf_core.errors import SnfError
from snf_core.ganeti import definition, generation, hooks, installation
from snf_core.ganeti.generation import Ganeti
from snf_core.ganeti.installation import Installation
from snf_core.image import parameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from snf_core.config import Config
    from snf_core.ganeti.installation import Difference, File

LOG = logging.getLogger(__name__)

HOOK = "snf"
"""The name of our file in each directory of hooks."""

_SEARCHED = (generation.CONFIGURATION, Path("/etc/xen/scripts"), definition.DIRECTORY)
"""Where files of ours may be that nobody names any more, as their plugin is gone."""


def check(
    config: Config, root: Path, config_file: Path | None = None, *, by_ganeti: bool = True
) -> list[Difference]:
    """All that is not as it should be on the node below ``root``. Raises SnfError.

    What is installed uses ``config_file`` (or $SNF_CONFIG) where one is given, and
    /etc/snf/snf.conf otherwise. ``by_ganeti``: of what Ganeti calls, else of what hypervisors do.
    """
    return installation.compare(_required(config, root, config_file, by_ganeti=by_ganeti))


def install(
    config: Config, root: Path, config_file: Path | None = None, *, by_ganeti: bool = True
) -> list[Difference]:
    """Make all as it should be; return what was not. Raises SnfError, having changed nothing."""
    if by_ganeti:
        generation.required(root)
    with installation.locked(root):
        return installation.install(_required(config, root, config_file, by_ganeti=by_ganeti))


def uninstall(config: Config, root: Path, *, by_ganeti: bool = True) -> list[Path]:
    """Remove all that is ours, even if there is no Ganeti any more; return what was removed."""
    with installation.locked(root):
        if not by_ganeti:
            return installation.uninstall(wanted_by_hypervisors(root, config))
        ganeti = generation.find(root) or Ganeti(root=root)
        return installation.uninstall(wanted(ganeti, config))


def _required(
    config: Config, root: Path, config_file: Path | None, *, by_ganeti: bool
) -> Installation:
    """What should be there. Raises SnfError where there is nobody to call it."""
    if by_ganeti:
        return wanted(generation.required(root), config, config_file)
    found = wanted_by_hypervisors(root, config, config_file)
    if not found.files:
        raise SnfError(
            f"there is no hypervisor below {root} that calls scripts by itself",
            remedy="install Xen and snf-xen; of KVM, Ganeti alone calls scripts",
        )
    return found


def wanted_by_hypervisors(
    root: Path, config: Config, config_file: Path | None = None
) -> Installation:
    """The scripts that hypervisors call by themselves, on a node with Ganeti or without."""
    ganeti = Ganeti(root=root)
    scripts, _ = _nic_scripts(ganeti, config)
    files = _script_files(scripts, command(config_file))
    return Installation(files=tuple(_placed(ganeti, file) for file in files))


def wanted(ganeti: Ganeti, config: Config, config_file: Path | None = None) -> Installation:
    """All that should be there for the Ganeti of this node."""
    words = command(config_file)
    scripts, complete = _nic_scripts(ganeti, config)
    files = [
        *_definition(ganeti, config, words),
        *_script_files(scripts, words),
        *(
            installation.script(
                ganeti.configuration / "hooks" / directory / HOOK, [*words, "ganeti", "hook"]
            )
            for directory in hooks.HOOKS
        ),
    ]
    searched = [*_SEARCHED, *(file.path.parent for file in files)]
    return Installation(
        files=tuple(_placed(ganeti, file) for file in files),
        searched=tuple(dict.fromkeys(map(ganeti.place, searched))),
        kept=tuple(map(ganeti.place, (ganeti.configuration, definition.DIRECTORY.parents[1]))),
        hiding=tuple(map(ganeti.place, definition.SEARCHED_BEFORE)),
        complete=complete,
    )


def variants(ganeti: Ganeti, config: Config) -> Path:
    """The directory of variants' files, which need not exist."""
    return ganeti.place(Path(config.image.variants).absolute())


def variants_list(ganeti: Ganeti, config: Config) -> File:
    """The file of the OS definition that names the variants."""
    found = {file.path.name: file for file in _definition(ganeti, config, [])}
    return _placed(ganeti, found[definition.VARIANTS_LIST])


def command(config_file: Path | None = None) -> list[str]:
    """The words that run this installation of ``snf``, wherever they are run."""
    named = config_file or os.environ.get(FILE_VARIABLE)
    words = [sys.executable, "-I", "-m", "snf_core.cli"]
    return [*words, "--config", str(Path(named).absolute())] if named else words


def _definition(ganeti: Ganeti, config: Config, words: Sequence[str]) -> Iterator[File]:
    names = parameters.variants(variants(ganeti, config))
    return definition.files(definition.DIRECTORY, names, words)


def _script_files(scripts: Iterable[NicScript], words: Sequence[str]) -> Iterator[File]:
    for one in scripts:
        yield installation.script(one.path, [*words, "network", *one.words])


def _placed(ganeti: Ganeti, file: File) -> File:
    return replace(
        file,
        path=ganeti.place(file.path),
        witness=file.witness and ganeti.place(file.witness),
    )


def _nic_scripts(ganeti: Ganeti, config: Config) -> tuple[list[NicScript], bool]:
    """What the installed hypervisors want called, and whether all could be asked.

    A plugin that is broken is warned of in the log and left out.
    """
    found: dict[Path, NicScript] = {}
    complete = True
    for name in extension.names(extension.HYPERVISOR):
        try:
            hypervisor = extension.make(extension.HYPERVISOR, name, config)
            for script in [_checked(one) for one in hypervisor.nic_scripts(ganeti)]:
                if found.setdefault(script.path, script) != script:
                    LOG.warning("hypervisor %s: %s is another's already", name, script.path)
        except Exception as error:  # a plugin may raise anything, and must not break the others
            LOG.warning("hypervisor %s is left out: %s", name, error)
            complete = False
    return list(found.values()), complete


def _checked(script: object) -> NicScript:
    """What a plugin named, if it is what it should be. Raises SnfError."""
    if isinstance(script, NicScript) and _texts([str(script.path), *script.words]):
        path = Path(script.path)
        if path.is_absolute() and ".." not in path.parts:
            return NicScript(path, tuple(script.words))
    raise SnfError(f"{script!r} is not the place of a script and the words that it runs")


def _texts(words: Iterable[object]) -> bool:
    return all(isinstance(word, str) and word.isprintable() for word in words)
