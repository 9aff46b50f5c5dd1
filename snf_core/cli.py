"""``snf``: the command line, and the only place that exits."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from snf_core.ganeti import plaintext

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence

    from snf_core.config import Config
    from snf_core.contract import Finding

    Command = Callable[[argparse.Namespace, Config], int]


DIFFERENT = 3
"""Exit status of commands that only look: not as it should be."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0 done, 1 failed, 2 not understood, 3 differs."""
    if "create" in sys.argv:
        plaintext.withdraw()  # before anything is imported, which would be done twice otherwise
    import logging

    from snf_core.errors import SnfError
    from snf_core.postponed import postpone

    postpone("netaddr", "rfc3986")  # what oslo.config does not need for our options
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if arguments.debug else logging.WARNING,
        format="[%(levelname)s] %(message)s",
    )
    try:
        from snf_core import config

        command: Command = arguments.command
        return command(arguments, config.load(arguments.config))
    except SnfError as error:
        logging.debug("failed", exc_info=True)
        _fail(error.message, error.remedy)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # a defect: its traceback first, for the last lines are read
        import traceback

        traceback.print_exc()
        _fail(
            f"internal error: {type(error).__name__}: {error}",
            "report it as a defect of snf, with the traceback above",
        )
        return 1


def _fail(message: str, remedy: str) -> None:
    """Say why it failed and what to do, a line each, as the last that is said."""
    from snf_core.report import printable  # names from inside a guest may be in there

    print(f"snf: error: {printable(message)}", file=sys.stderr)
    if remedy:
        print(f"snf: remedy: {printable(remedy)}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    import argparse
    from pathlib import Path

    parser = argparse.ArgumentParser(
        prog="snf",
        description="Turns a raw disk and a NIC into a running, reachable, private machine.",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="instead of /etc/snf/snf.conf ($SNF_CONFIG)"
    )
    parser.add_argument("--debug", action="store_true", help="say more on standard error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_node_commands(commands)
    _add_network(commands)
    _add_ganeti(commands)
    return parser


def _add_node_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser("doctor", help="say what this node can do, and what is missing")
    doctor.set_defaults(command=_doctor)

    plugins = commands.add_parser("plugins", help="list all plugins, broken ones too")
    plugins.add_argument("--json", action="store_true", help="as a JSON array")
    plugins.set_defaults(command=_plugins)

    config = commands.add_parser("config", help="check the configuration, or print a sample")
    config.add_argument("what", choices=["check", "sample"])
    config.set_defaults(command=_config)

    appliance = commands.add_parser("appliance", help="the isolated appliance")
    appliance.add_argument("what", choices=["build", "tidy"])
    appliance.set_defaults(command=_appliance)


def _add_network(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    network = commands.add_parser("network", help="wire NICs, look after them, prepare uplinks")
    what = network.add_subparsers(required=True, metavar="WHAT", dest="what")
    for name, text in (
        ("up", "wire a NIC that has appeared"),
        ("down", "unwire a NIC that goes away"),
        ("event", "up or down, as the hypervisor's event itself says"),
        ("plan", "say what up would do, and do nothing"),
    ):
        event = what.add_parser(name, help=text)
        event.add_argument(
            "words", nargs="*", metavar="ARGUMENT", help="the hypervisor script's own arguments"
        )
        event.add_argument("--hypervisor", default="kvm", help="whose event it is (default: kvm)")
        event.set_defaults(command=_plan if name == "plan" else _network)
        if name == "plan":
            event.add_argument("--json", action="store_true", help="as a JSON array")
    status = what.add_parser("status", help="show wanted against actual")
    status.add_argument("interface", nargs="?", default="", help="of this NIC alone")
    status.add_argument("--json", action="store_true", help="as a JSON array")
    status.set_defaults(command=_status)
    reconcile = what.add_parser("reconcile", help="repair what is not as it should be")
    reconcile.add_argument(
        "--check", action="store_true", help="only report; exit status 3 if there is something"
    )
    reconcile.set_defaults(command=_reconcile)
    _add_installation(what, "what hypervisors call without Ganeti", by_ganeti=False)
    uplink = what.add_parser("uplink", help="prepare the node's uplinks of routed NICs")
    uplink.add_argument("action", choices=["up", "down", "status"])
    uplink.add_argument("tables", nargs="*", metavar="TABLE", help="of these alone")
    uplink.set_defaults(command=_uplink)


def _add_installation(
    what: argparse._SubParsersAction[argparse.ArgumentParser], things: str, *, by_ganeti: bool
) -> None:
    from pathlib import Path

    install = what.add_parser("install", help=f"put in place {things}")
    install.add_argument(
        "--check", action="store_true", help="only compare; exit status 3 if something differs"
    )
    install.set_defaults(command=_install)
    uninstall = what.add_parser("uninstall", help="remove what install has put in place")
    uninstall.set_defaults(command=_uninstall)
    for one in (install, uninstall):
        one.set_defaults(by_ganeti=by_ganeti)
        one.add_argument(
            "--root", type=Path, default=Path("/"), metavar="DIR", help="of the node, instead of /"
        )


def _add_ganeti(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from pathlib import Path

    ganeti = commands.add_parser("ganeti", help="the glue for Ganeti")
    what = ganeti.add_subparsers(required=True, metavar="WHAT")
    _add_installation(what, "what Ganeti calls on this node", by_ganeti=True)
    variant = what.add_parser("variant", help="make images known as variants of snf-image")
    variant.set_defaults(command=_variant)
    action = variant.add_subparsers(required=True, metavar="ACTION", dest="action")
    add = action.add_parser("add", help="make a variant from an image, and publish it")
    add.add_argument("name", metavar="NAME", help="of the variant: snf-image+NAME")
    add.add_argument(
        "image", metavar="IMAGE", help="an identifier, or a file: of an image, .meta or .variant"
    )
    add.add_argument("--format", default="", help="of the image, whatever its .meta says")
    add.add_argument(
        "--properties", default="", metavar="JSON", help="over those that its .meta gives"
    )
    add.add_argument("--force", action="store_true", help="replace a variant of this name")
    remove = action.add_parser("remove", help="remove a variant")
    remove.add_argument("name", metavar="NAME")
    action.add_parser("list", help="list the variants, broken ones too")
    hook = what.add_parser("hook", help="what a hook does, called by Ganeti around an operation")
    hook.set_defaults(command=_hook)
    script = what.add_parser("os", help="a script of the OS definition, called by Ganeti")
    script.add_argument("script", choices=["create", "import", "export", "rename", "verify"])
    script.add_argument("subject", nargs="?", help='of verify: "parameters"')
    script.add_argument(
        "--report", type=Path, metavar="FILE", help="write what happened as a JSON document"
    )
    script.add_argument(
        "--progress-fd", type=int, metavar="N", help="write progress as JSON lines there"
    )
    script.set_defaults(command=_script)


def _doctor(arguments: argparse.Namespace, config: Config) -> int:
    from snf_core import doctor

    return _say_all(doctor.examine(config, arguments.config))


def _say_all(findings: Iterable[Finding]) -> int:
    failed = False
    for finding in findings:
        _say(finding)
        failed = failed or (finding.fatal and not finding.well)
    return 1 if failed else 0


def _say(finding: Finding) -> None:
    mark = "ok" if finding.well else ("FAIL" if finding.fatal else "warn")
    print(f"{mark:5} {finding.statement}", flush=True)
    if not finding.well and finding.remedy:
        print(f"      {finding.remedy}", flush=True)


def _plugins(arguments: argparse.Namespace, _config: Config) -> int:
    import dataclasses
    import json

    from snf_core import extension

    found = list(extension.listing())
    if arguments.json:
        print(json.dumps([dataclasses.asdict(plugin) for plugin in found], indent=1))
    else:
        print(extension.table(found))
    return 1 if any(plugin.error for plugin in found) else 0


def _config(arguments: argparse.Namespace, config: Config) -> int:
    from snf_core import schema

    if arguments.what == "sample":
        sys.stdout.write(schema.sample())
        return 0
    sentences = list(schema.check(config))
    for sentence in sentences:
        print(sentence, file=sys.stderr)
    return 1 if sentences else 0


def _appliance(arguments: argparse.Namespace, config: Config) -> int:
    from snf_core import appliance

    if arguments.what == "tidy":
        return _say_all(appliance.tidy(config))
    print(appliance.build(config, _say).directory)
    return 0


def _network(arguments: argparse.Namespace, config: Config) -> int:
    from snf_core.network import command
    from snf_core.network.deadline import process_start

    act = {"up": command.up, "down": command.down, "event": command.event}[arguments.what]
    words = [arguments.what, *arguments.words]
    act(words, os.environ, config, arguments.hypervisor, began=process_start())
    return 0


def _plan(arguments: argparse.Namespace, config: Config) -> int:
    import json

    from snf_core.network import command, status

    items = command.plan(["up", *arguments.words], os.environ, config, arguments.hypervisor)
    if arguments.json:
        print(json.dumps(items, indent=1))
    else:
        for item in items:
            print(status.planned(item))
    return 0


def _status(arguments: argparse.Namespace, config: Config) -> int:
    import json

    from snf_core.network import command, status

    found = command.status(config, arguments.interface)
    if arguments.json:
        print(json.dumps(found, indent=1))
    elif not found:
        name = arguments.interface
        print(f"{name} is not wired by us" if name else "no NIC is wired by us")
    else:
        print(status.text(found))
    return 0 if all(one["agrees"] for one in found) else DIFFERENT


def _reconcile(arguments: argparse.Namespace, config: Config) -> int:
    import gc

    from snf_core.network import command

    # A fifth of the time went into looking for cycles among a million objects; there are none.
    gc.disable()
    findings = []
    for finding in command.repair(config, check=arguments.check):
        print(finding, flush=True)
        findings.append(finding)
    if arguments.check:
        return DIFFERENT if findings else 0
    return 0 if all(finding.repaired for finding in findings) else 1


def _uplink(arguments: argparse.Namespace, config: Config) -> int:
    from snf_core.network import command, status

    found = command.uplink(arguments.action, config, arguments.tables)
    if arguments.action == "status":
        print(status.text(found))
        return 0 if found and all(one["agrees"] for one in found) else DIFFERENT
    return 0


def _install(arguments: argparse.Namespace, config: Config) -> int:
    from snf_core.ganeti import glue

    node = (config, arguments.root, arguments.config)
    if arguments.check:
        differences = glue.check(*node, by_ganeti=arguments.by_ganeti)
        for difference in differences:
            print(difference)
        return DIFFERENT if differences else 0
    for difference in glue.install(*node, by_ganeti=arguments.by_ganeti):
        print(f"{difference.done} {difference.path}")
    return 0


def _uninstall(arguments: argparse.Namespace, config: Config) -> int:
    from snf_core.ganeti import glue

    for path in glue.uninstall(config, arguments.root, by_ganeti=arguments.by_ganeti):
        print(f"removed {path}")
    return 0


def _variant(arguments: argparse.Namespace, config: Config) -> int:
    from snf_core.ganeti import variant
    from snf_core.report import escaped, printable

    if arguments.action == "add":
        path, lines = variant.add(
            arguments.name,
            arguments.image,
            config,
            image_format=arguments.format,
            more=arguments.properties,
            force=arguments.force,
        )
        print(path)
        for line in lines:
            print(escaped(line))
        return 0
    if arguments.action == "remove":
        print(f"removed {variant.remove(arguments.name, config)}")
        return 0
    found = variant.listing(config)
    for one in found:
        print(printable(f"{one.name:20}  {one.error or one.image}"))
    return 1 if any(one.error for one in found) else 0


def _hook(_arguments: argparse.Namespace, config: Config) -> int:
    from snf_core.ganeti import hooks

    findings = []
    for finding in hooks.run(os.environ, config):
        print(finding, flush=True)
        findings.append(finding)
    return 0 if all(finding.repaired for finding in findings) else 1


def _script(arguments: argparse.Namespace, config: Config) -> int:
    from snf_core.ganeti import scripts

    if isinstance(sys.stderr, io.TextIOWrapper) and not sys.stderr.isatty():
        # Ganeti decodes the last 4 KiB of the log, which may begin within a character.
        sys.stderr.reconfigure(encoding="ascii", errors="backslashreplace")
    if arguments.script == "create":
        environ, secret = plaintext.hashed(os.environ, lambda e: scripts.password_hash(e, config))
        scripts.create(
            environ,
            config,
            plaintext=secret,
            report_file=arguments.report,
            progress_descriptor=arguments.progress_fd,
        )
    else:
        name = "import_" if arguments.script == "import" else arguments.script
        getattr(scripts, name)(os.environ, config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
