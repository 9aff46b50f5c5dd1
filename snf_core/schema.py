"""Which options there are, the core's and the plugins': a sample of them, and a check of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core import extension
from snf_core.errors import ConfigError, PluginError
from snf_core.network.uplink import GROUP as UPLINK
from snf_core.network.uplink import OPTIONS as UPLINK_OPTIONS
from snf_core.network.uplink import uplinks
from snf_core.options import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snf_core.config import Config

NAMESPACE = "oslo.config.opts"
"""Entry points of functions that list options, for oslo-config-generator."""


def check(config: Config) -> Iterator[str]:
    """What is wrong with a configuration, a sentence each: groups, options, values, plugins."""
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
    try:
        uplinks(config)
    except ConfigError as error:
        yield str(error)
    for group in sorted(config.groups() - GROUPS.keys()):
        if group.startswith(UPLINK):  # read above
            continue
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
    built_in = [
        (point.group(entry.name), entry.load().options)
        for point in extension.CORE_POINTS
        for entry in extension.entries(point.namespace)
        if entry.module.partition(".")[0] == "snf_core"
    ]
    built_in.append((f"{UPLINK}100", UPLINK_OPTIONS))  # an example: there is one for each
    return [*GROUPS.items(), *(group for group in built_in if group[1])]


def sample() -> str:
    """The text of the sample configuration: every option of the core and of installed plugins.

    Made by oslo-config-generator from all ``oslo.config.opts`` entry points named ``snf.*``.
    """
    import io

    from oslo_config import generator
    from stevedore import ExtensionManager

    entries = extension.entries(NAMESPACE)
    # The generator asks stevedore, whose own list may be out of date (see snf_core.extension).
    ExtensionManager.ENTRY_POINT_CACHE[NAMESPACE] = entries
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
