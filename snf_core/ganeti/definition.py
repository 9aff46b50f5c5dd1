"""The OS definition ``snf-image``: a directory of thin files that call the core."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from snf_core.errors import SnfError
from snf_core.ganeti.environment import API_VERSION
from snf_core.image.parameters import DESCRIPTIONS, NAMES

NAME = "snf-image"
SEARCH_PATH = Path("/usr/share/ganeti/os")
"""Where Ganeti looks for OS definitions (man ganeti-os-interface)."""

SCRIPTS = ("create", "import", "export", "rename", "verify")
_MARK = "# Written by snf ganeti install; changes will be overwritten."


def files(config_file: Path | None = None) -> dict[str, str]:
    """The definition's files and their texts, calling this installation of the core."""
    words = [sys.executable, "-I", "-m", "snf_core.cli"]
    if config_file:
        words += ["--config", str(config_file.absolute())]
    command = shlex.join(words)
    texts = {
        script: f'#!/bin/sh\n{_MARK}\nexec {command} ganeti os {script} "$@"\n'
        for script in SCRIPTS
    }
    texts["ganeti_api_version"] = f"{API_VERSION}\n"
    texts["variants.list"] = "default\n"
    texts["parameters.list"] = "".join(f"{name} {DESCRIPTIONS[name]}\n" for name in NAMES)
    return texts


def install(parent: Path = SEARCH_PATH, config_file: Path | None = None) -> Path:
    """Put the definition into ``parent``/snf-image, in place of an older one of ours.

    Its scripts use ``config_file`` where one is given, /etc/snf/snf.conf otherwise.

    Raises SnfError where something else is there.
    """
    target = parent / NAME
    if target.exists() and _MARK not in _text(target / "create"):
        raise SnfError(
            f"{target} exists and was not made by snf ganeti install",
            remedy="move it away first",
        )
    try:
        parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=parent, prefix=f".{NAME}."))
    except OSError as error:
        raise SnfError(
            f"cannot write into {parent}: {error.strerror}", remedy="run as root"
        ) from error
    try:
        for name, text in files(config_file).items():
            file = made / name
            file.write_text(text)
            file.chmod(0o755 if name in SCRIPTS else 0o644)
        made.chmod(0o755)
        if target.exists():
            old = made.with_name(f"{made.name}.old")
            os.rename(target, old)
            os.rename(made, target)
            shutil.rmtree(old)
        else:
            os.rename(made, target)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise SnfError(f"cannot write {target}: {error.strerror}") from error
    return target


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
