"""A stand-in for Xen's tools on a node: xl, and those of xenstore, without a Xen.

Domains are entries in a file, vifs are taps; but vif scripts are called as xl 4.17 was recorded to
call them (tests/xen), and at the worst that it was seen to do: all of a domain's at once,
``offline`` twice and with the interface gone. To what xl's own environment holds their variables
are added; where a domain restarts, xl's monitor calls them in /, and what they say is in its log.
As netback does, a vif is connected only where its script has written so.

Run by the node, this module is those programs, by its first argument.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.ganeti.node import Node

STORE = Path("/run/xenstore.json")
SCRIPTS = "/etc/xen/scripts"
SETTINGS = f"xen_cmd=xl,kernel_path=/etc/xen/kernel,initrd_path=,vif_script={SCRIPTS}/vif-ganeti"

DOMAIN, BACKEND = "/local/domain", "/local/domain/0/backend/vif"
LOGS = Path("/var/log/xen")

INFORMATION = """\
nr_cpus                : 2
nr_nodes               : 1
cores_per_socket       : 2
threads_per_core       : 1
total_memory           : 4096
free_memory            : 3072
xen_major              : 4
xen_minor              : 17
"""

END = "\0"
"""Of a configuration that migrates."""

ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{1,2}|.)")
MEANT = {"t": "\t", "n": "\n", "r": "\r"}


def install(node: Node) -> None:
    """Give a node these tools, and what Ganeti needs to use them. Our glue comes after that."""
    node.run("mkdir", "-p", "/run/xen/upper", "/run/xen/work")
    options = "lowerdir=/usr/sbin,upperdir=/run/xen/upper,workdir=/run/xen/work"
    node.run("mount", "-t", "overlay", "-o", options, "overlay", "/usr/sbin")
    for tool in ("xl", "xenstore-ls", "xenstore-read", "xenstore-write"):
        program = f'#!/bin/sh\nexec /usr/bin/python3 -I {__file__} {tool} "$@"\n'
        node.write(f"/usr/sbin/{tool}", program, 0o755)
    node.write("/etc/xen/kernel", "")
    for script in ("vif-bridge", "vif-common.sh"):  # Ganeti only looks whether they are there
        node.write(f"{SCRIPTS}/{script}", "exit 1\n", 0o755)
    node.path(f"{SCRIPTS}/vif-ganeti").symlink_to("/usr/lib/ganeti/vif-ganeti")
    # Ganeti renames the configuration of a domain that did not start, from one to the other.
    node.run("mkdir", "/etc/xen/failed")
    node.run("mkdir", "-p", str(LOGS))
    node.run("rm", "-rf", "/var/log/ganeti/xen")
    node.run("ln", "-s", "/etc/xen/failed", "/var/log/ganeti/xen")


def store(node: Node) -> dict[str, str]:
    """All that is in a node's xenstore."""
    found: dict[str, str] = json.loads(node.path(str(STORE)).read_text())
    return found


@contextlib.contextmanager
def _opened() -> Iterator[dict[str, str]]:
    """The store, locked; what is changed is kept."""
    with STORE.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        values = json.loads(file.read() or "{}")
        yield values
        file.seek(0)
        file.truncate()
        json.dump(values, file)


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"{DOMAIN}/0/{path}"


def _xenstore_read(*paths: str) -> int:
    with _opened() as values:
        for path in paths:
            if _absolute(path) not in values:
                print(f"xenstore-read: couldn't read path {path}", file=sys.stderr)
                return 1
            print(values[_absolute(path)].replace("\\", "\\\\"))
    return 0


def _xenstore_ls(option: str, path: str) -> int:
    assert option == "-f"
    with _opened() as values:
        below = f"{_absolute(path)}/"
        found = {key: value for key, value in values.items() if key.startswith(below)}
    if not found:
        print(f"xenstore-ls: xs_directory ({path}): No such file or directory", file=sys.stderr)
        return 1
    for key, value in sorted(found.items()):
        shown = value.replace("\\", "\\\\")
        print(f'{path}/{key.removeprefix(below)} = "{shown}"')
    return 0


def _xenstore_write(dashes: str, *words: str) -> int:
    assert dashes == "--"
    with _opened() as values:
        for path, value in zip(words[::2], words[1::2], strict=True):
            values[_absolute(path)] = ESCAPE.sub(_meant, value)
    return 0


def _meant(escape: re.Match[str]) -> str:
    word = escape[1]
    return chr(int(word[1:], 16)) if word[1:] else MEANT.get(word, word)


def _ip(*words: str) -> None:
    subprocess.run(["/usr/sbin/ip", *words], check=True)


def _scripts(domain: str, action: str, log: Path | None) -> list[tuple[str, int]]:
    """Run the scripts of all vifs of a domain at once; each one's place in the store and status.

    By xl's monitor, where it has a ``log``.
    """
    with _opened() as values:
        found = {
            key.removesuffix("/script"): value
            for key, value in values.items()
            if key.startswith(f"{BACKEND}/{domain}/") and key.endswith("/script")
        }
    running = []
    with log.open("a") if log else contextlib.nullcontext(2) as output:
        for place, script in found.items():
            environ = {
                **os.environ,
                "script": script,
                "XENBUS_TYPE": "vif",
                "XENBUS_PATH": place.removeprefix(f"{DOMAIN}/0/"),
                "XENBUS_BASE_PATH": "backend",
                "netdev": "",
                "vif": f"vif{domain}.{place.rpartition('/')[2]}",
            }
            process = subprocess.Popen(
                [script, action, "type_if=vif"],
                env=environ,
                cwd="/" if log else None,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            running.append((place, process))
    return [(place, process.wait()) for place, process in running]


def _vif(domain: str, number: int, text: str) -> None:
    settings = dict(word.strip().split("=", 1) for word in text.split(","))
    place = f"{BACKEND}/{domain}/{number}"
    frontend = f"{DOMAIN}/{domain}/device/vif/{number}"
    known = {
        "bridge": "xenbr0",
        "frontend": frontend,
        "frontend-id": domain,
        "online": "1",
        "state": "2",
        "hotplug-status": "",
        "handle": str(number),
        "type": "vif",
        **settings,
    }
    with _opened() as values:
        values |= {f"{place}/{key}": value for key, value in known.items()}
        values |= {f"{frontend}/mac": settings["mac"], f"{frontend}/mtu": "1500"}
    name = f"vif{domain}.{number}"
    _ip("tuntap", "add", "dev", name, "mode", "tap")
    _ip("link", "set", "dev", name, "address", "fe:ff:ff:ff:ff:ff")


def _create(file: str, log: Path | None = None) -> int:
    return _made(Path(file).read_text(), log=log)


def _made(text: str, suffix: str = "", log: Path | None = None) -> int:
    """Make the domain of a configuration; the suffix is of its name."""
    lines = [line for line in text.splitlines() if " = " in line and not line.startswith("#")]
    config = {key: ast.literal_eval(value) for key, _, value in (x.partition(" = ") for x in lines)}
    with _opened() as values:
        domain = values["last"] = str(int(values.get("last", "0")) + 1)
        values[f"{DOMAIN}/{domain}/name"] = config["name"] + suffix
        values[f"{DOMAIN}/{domain}/config"] = text
        values[f"{DOMAIN}/{domain}/state"] = "-b----"
        values[f"/libxl/{domain}/type"] = "pv"
    for number, vif in enumerate(config["vif"]):
        _vif(domain, number, vif)
    whole = True
    for place, status in _scripts(domain, "online", log):
        with _opened() as values:
            if status != 0:
                said = values.get(f"{place}/hotplug-error", "no reason")
                print(f"libxl: error: script: {said}", file=sys.stderr)
                whole = False
            elif values[f"{place}/hotplug-status"] == "connected":
                values[f"{place}/state"] = "4"
    if not whole:
        _destroy(domain)
    return 0 if whole else 3


def _destroy(domain: str, log: Path | None = None) -> None:
    with _opened() as values:
        for place in [key[: -len("/state")] for key in values if key.endswith("/state")]:
            if place.startswith(f"{BACKEND}/{domain}/"):
                values |= {f"{place}/state": "6", f"{place}/online": "0"}
                values.pop(f"{place}/hotplug-status")
                for key in [key for key in values if key.startswith(values[f"{place}/frontend"])]:
                    del values[key]
                _ip("link", "delete", "dev", f"vif{domain}.{place.rpartition('/')[2]}")
    for _ in range(2):
        for place, status in _scripts(domain, "offline", log):
            if status != 0:
                print(f"libxl: error: {place}: offline: status {status}", file=sys.stderr)
    with _opened() as values:
        for key in list(values):
            if key.startswith((f"{BACKEND}/{domain}/", f"{DOMAIN}/{domain}/", f"/libxl/{domain}/")):
                del values[key]


def _domains() -> list[dict[str, str]]:
    """Of each domain what is known, and its number as ``id``."""
    with _opened() as values:
        places = [key.removesuffix("/config") for key in values if key.endswith("/config")]
        return [
            {key: values[f"{place}/{key}"] for key in ("name", "config", "state")}
            | {"id": place.rpartition("/")[2]}
            for place in places
        ]


def _domain(name: str) -> dict[str, str]:
    return next(domain for domain in _domains() if domain["name"] == name)


def _list() -> None:
    print("Name ID Mem VCPUs State Time(s)\nDomain-0 0 512 1 r----- 1.0")
    for domain in _domains():
        print(domain["name"], domain["id"], 64, 1, domain["state"], "1.0")


def _shut_down(name: str) -> None:
    """It is kept, as its configuration says, until it is destroyed; and so are its vifs."""
    domain = _domain(name)["id"]
    with _opened() as values:
        values[f"{DOMAIN}/{domain}/state"] = "---s--"
        for key in list(values):
            if key.startswith(f"{BACKEND}/{domain}/") and key.endswith("/state"):
                values[key] = "6"


def _reboot(name: str) -> int:
    """Its vifs go, and others come, of a domain with another number."""
    domain = _domain(name)
    log = LOGS / f"xl-{name}.log"
    _destroy(domain["id"], log)
    return _made(domain["config"], log=log)


def _rename(name: str, new: str) -> None:
    domain = _domain(name)["id"]
    with _opened() as values:
        values[f"{DOMAIN}/{domain}/name"] = new


def _migrate(*words: str) -> int:
    """``-s COMMAND -C FILE NAME TARGET``: another xl is at the other end of the command's streams.

    The order is xl's: the domain is made there under another name, and loses its name here; then
    it gets its name there, runs, and is destroyed here.
    """
    _, command, _, _, name, _ = words
    domain = _domain(name)
    with subprocess.Popen(
        ["sh", "-c", f"exec {command}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as there:
        assert there.stdin
        assert there.stdout
        print(domain["config"], end=END, file=there.stdin, flush=True)
        answer = there.stdout.readline()  # until then the streams are open both ways
        there.stdin.close()
    if answer != "made\n":
        print(f"migration target: {answer}migration failed", file=sys.stderr)
        return 1
    _rename(name, f"{name}--migratedaway")
    _destroy(domain["id"])
    return 0


def _migrate_receive() -> int:
    if _made("".join(iter(lambda: sys.stdin.read(1), END)), "--incoming") != 0:
        print("domain creation failed")
        return 3
    (name,) = [one["name"] for one in _domains() if one["name"].endswith("--incoming")]
    _rename(name, name.removesuffix("--incoming"))
    print("made", flush=True)
    return 0


def _xl(verb: str, *words: str) -> int:
    if verb == "migrate":
        return _migrate(*words)
    tasks: dict[str, Callable[[str], int | None]] = {
        "help": lambda _: None,
        "info": lambda _: print(INFORMATION, end=""),
        "list": lambda _: _list(),
        "migrate-receive": lambda _: _migrate_receive(),
        "create": _create,
        "shutdown": _shut_down,
        "reboot": _reboot,
        "destroy": lambda name: _destroy(_domain(name)["id"]),
    }
    return tasks[verb](words[-1] if words else "") or 0


if __name__ == "__main__":
    tools: dict[str, Callable[..., int]] = {
        "xl": _xl,
        "xenstore-ls": _xenstore_ls,
        "xenstore-read": _xenstore_read,
        "xenstore-write": _xenstore_write,
    }
    sys.exit(tools[sys.argv[1]](*sys.argv[2:]))
