"""Configuration: ``/etc/snf/snf.conf`` and ``/etc/snf/snf.conf.d/*.conf``, read by oslo.config.

The core's options are declared in ``snf_core.options``, a plugin's in the plugin. Unknown groups
of the core are refused when the files are read; the values and unknown options of a group when
the group is first used; everything by ``snf_core.schema.check``. Names of groups are without
regard to case.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from snf_core.errors import ConfigError
from snf_core.options import GROUPS

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_FILE = Path("/etc/snf/snf.conf")
FILE_VARIABLE = "SNF_CONFIG"
"""Environment variable that names another file (its ``.d`` directory goes with it)."""

_SEE = "see etc/snf.conf.sample"


class _Literal(cfg.ConfigOpts):  # type: ignore[misc]  # it is untyped
    """oslo.config without its substitution of ``$name``: password hashes are full of dollars."""

    def _substitute(self, value: Any, group: Any = None, namespace: Any = None) -> Any:
        return value


class Config:
    """The configuration as read from its files, one attribute per core group."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read ``files``, later ones over earlier ones. Raises ConfigError."""
        self._sections = [found for file in files for found in _sections(file)]
        for group, _, file in self._sections:
            if group not in GROUPS and "." not in group:  # a plugin's group always has a dot
                raise ConfigError(
                    f"{file}: unknown group [{group}]",
                    remedy="known: " + ", ".join(sorted(GROUPS)) + ", and those of plugins",
                )
        self._conf = _Literal()
        try:
            self._conf(
                args=[],
                project="snf",
                default_config_files=[os.fspath(file) for file in files],
                default_config_dirs=[],
                use_env=False,
            )
        except cfg.Error as error:
            raise ConfigError(str(error), remedy=_SEE) from error

    def __getattr__(self, name: str) -> Any:
        if name not in GROUPS:
            raise AttributeError(name)
        return self.plugin(name, GROUPS[name])

    def runtime(self) -> Path:
        """The runtime directory: made where it is missing, for everybody to pass through.

        Whatever the umask: Ganeti's is 077, and what runs the appliance must pass through.
        Raises ConfigError where it cannot be made.
        """
        directory = Path(self.directories.runtime)
        try:
            if not directory.is_dir():
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(0o711)
        except OSError as error:
            raise ConfigError(
                f"cannot make the runtime directory {directory}: {error.strerror}",
                remedy="run as root, or set [directories] runtime",
            ) from error
        return directory

    def plugin(self, group: str, options: Sequence[cfg.Opt]) -> Any:
        """A view of one option group, every value of it checked. Raises ConfigError."""
        self._conf.register_group(cfg.OptGroup(group))  # one without options is a group too
        self._conf.register_opts(options, group=group)
        known = {option.dest for option in options}
        known |= {old.name or option.dest for option in options for old in option.deprecated_opts}
        for section, key, file in self._sections:
            if section == group.lower() and key not in known:
                raise ConfigError(
                    f"{file}: unknown option {key!r} in group [{group}]",
                    remedy="known: " + ", ".join(sorted(known)) if known else "it has no options",
                )
        view = getattr(self._conf, group)
        for option in options:
            self._check_value(group, option, view)
        return view

    def groups(self) -> set[str]:
        """The groups that the files mention, in lower case."""
        return {section for section, _, _ in self._sections}

    def files_of(self, group: str) -> list[str]:
        """The files that mention a group."""
        return sorted({file for section, _, file in self._sections if section == group.lower()})

    def where(self, group: str, option: str) -> str:
        """An option as messages name it: file, option and group."""
        files = [f for s, key, f in self._sections if s == group.lower() and key == option]
        return f"{files[-1] if files else 'built-in default'}: option {option!r} in group [{group}]"

    def _check_value(self, group: str, option: cfg.Opt, view: Any) -> None:
        where = self.where(group, option.dest)
        try:
            value = getattr(view, option.dest)
        except (cfg.Error, ValueError) as error:
            if option.secret:
                raise ConfigError(f"{where} is not valid", remedy=_SEE) from None
            raise ConfigError(f"{where} is not valid: {error}", remedy=_SEE) from error
        if value is None and (option.required or option.default is not None):  # "memory ="
            raise ConfigError(f"{where} has no value", remedy=_SEE)


def load(file: Path | None = None) -> Config:
    """The configuration of this node.

    ``file`` (or $SNF_CONFIG) instead of /etc/snf/snf.conf must exist; the default one need not.
    The ``.conf`` files of the directory FILE.d are read after it, by name. Raises ConfigError.
    """
    named = file or (Path(os.environ[FILE_VARIABLE]) if FILE_VARIABLE in os.environ else None)
    main = named or DEFAULT_FILE
    directory = main.with_name(main.name + ".d")
    try:
        files = [main] if named or main.exists() else []
        if directory.is_dir():
            files += sorted(
                found
                for found in directory.iterdir()
                if found.suffix == ".conf" and not found.name.startswith(".")
            )
    except OSError as error:
        raise _unreadable(Path(error.filename), error) from error
    return Config(files)


def _sections(file: Path) -> list[tuple[str, str, str]]:
    """(group in lower case, key, file) of all that a file sets. Raises ConfigError."""
    sections: dict[str, dict[str, list[str]]] = {}
    try:
        cfg.ConfigParser(os.fspath(file), sections).parse()
    except OSError as error:
        raise _unreadable(file, error) from error
    except cfg.ParseError as error:
        # Not the line itself, which may hold a secret.
        raise ConfigError(f"{file}: line {error.lineno}: {error.msg}", remedy=_SEE) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not text in UTF-8", remedy="repair it") from error
    return [(group.lower(), key, str(file)) for group, keys in sections.items() for key in keys]


def _unreadable(file: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot read {file}: {error.strerror}",
        remedy="give a readable file, or remove it to use the defaults",
    )
