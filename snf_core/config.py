"""Configuration: ``/etc/snf/snf.conf`` and ``/etc/snf/snf.conf.d/*.conf``, read by oslo.config.

The core's options are declared in ``snf_core.options``, a plugin's in the plugin. Unknown groups
of the core are refused when the files are read; the values and unknown options of a group when
the group is first used; everything by ``check``. Names of groups are without regard to case.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from snf_core.errors import ConfigError, PluginError
from snf_core.options import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFAULT_FILE = Path("/etc/snf/snf.conf")
FILE_VARIABLE = "SNF_CONFIG"
"""Environment variable that names another file (its ``.d`` directory goes with it)."""

OPTIONS_NAMESPACE = "oslo.config.opts"
"""Entry points of functions that list options, for oslo-config-generator."""

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

        Whatever the umask: Ganeti's is 077, and the appliance's user must reach its sockets.
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


def check(config: Config) -> Iterator[str]:
    """What is wrong with a configuration, a sentence each: groups, options, values, plugins."""
    from snf_core import extension

    for name in GROUPS:
        try:
            getattr(config, name)
        except ConfigError as error:
            yield str(error)
    plugins = {
        point.group(name).lower(): (point, name)
        for point in extension.points()
        for name in extension.names(point)
    }
    for group in sorted(config.groups() - GROUPS.keys()):
        where = f"{', '.join(config.files_of(group))}: group [{group}]"
        if group not in plugins:
            yield f"{where}: no plugin of that name is installed, or the name is misspelt"
            continue
        try:
            extension.make(*plugins[group], config)
        except ConfigError as error:
            yield str(error)
        except Exception as error:  # a plugin may raise anything; it is reported
            yield f"{where}: {error}"
    try:
        setups = config.network.setups
    except ConfigError:  # said above
        return
    for setup in setups:
        try:
            extension.load(extension.NETWORK_SETUP, setup)
        except PluginError as error:
            yield f"{config.where('network', 'setups')}: {error}"


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The options of the core and its built-in plugins, for oslo-config-generator."""
    from snf_core import extension

    built_in = [
        (point.group(entry.name), entry.load().options)
        for point in extension.CORE_POINTS
        for entry in extension.entries(point.namespace)
        if entry.module.partition(".")[0] == "snf_core"
    ]
    return [*GROUPS.items(), *(group for group in built_in if group[1])]


def sample() -> str:
    """The text of the sample configuration: every option of the core and of installed plugins.

    Made by oslo-config-generator from all ``oslo.config.opts`` entry points named ``snf.*``.
    """
    import io

    from oslo_config import generator
    from stevedore import ExtensionManager

    from snf_core import extension

    entries = extension.entries(OPTIONS_NAMESPACE)
    # The generator asks stevedore, whose own list may be out of date (see snf_core.extension).
    ExtensionManager.ENTRY_POINT_CACHE[OPTIONS_NAMESPACE] = entries
    namespaces = sorted({entry.name for entry in entries if entry.name.startswith("snf.")})
    conf = cfg.ConfigOpts()
    generator.register_cli_opts(conf)
    conf([f"--namespace={name}" for name in namespaces], project="snf", use_env=False)
    text = io.StringIO()
    generator.generate(conf, output_file=text)
    options = text.getvalue().removeprefix("[DEFAULT]\n").strip()
    return f"""\
# A sample of /etc/snf/snf.conf and of /etc/snf/snf.conf.d/*.conf, which are read after it, by name.
# Every option is shown with its default. Values are taken as they stand: no quoting of "$".
# Say "snf config check" after a change.


{options}
"""


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
