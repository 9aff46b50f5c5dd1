"""A stand-in for Xen's tools on a node: xl, xenstore-read and xenstore-write, without a Xen.

Domains are entries in a file, vifs are taps; but vif scripts are called as xl 4.17 calls them, and
at the worst that it was seen to do: no other variables in their environment, all of a domain's at
once, ``offline`` twice and with the interface gone. As netback does, a vif is connected only where
its script has written so. Run by the node, this module is those programs, by its first argument.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import json
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

ESCAPES = {"t": "\t", "n": "\n", "r": "\r"}


def install(node: Node) -> None:
    """Give a node these tools, and what Ganeti needs to use them. Our glue comes after that."""
    node.run("mkdir", "-p", "/run/xen/upper", "/run/xen/work")
    options = "lowerdir=/usr/sbin,upperdir=/run/xen/upper,workdir=/run/xen/work"
    node.run("mount", "-t", "overlay", "-o", options, "overlay", "/usr/sbin")
    for tool in ("xl", "xenstore-read", "xenstore-write"):
        program = f'#!/bin/sh\nexec /usr/bin/python3 -I {__file__} {tool} "$@"\n'
        node.write(f"/usr/sbin/{tool}", program, 0o755)
    node.write("/etc/xen/kernel", "")
    for script in ("vif-bridge", "vif-common.sh"):  # Ganeti only looks whether they are there
        node.write(f"{SCRIPTS}/{script}", "exit 1\n", 0o755)
    node.path(f"{SCRIPTS}/vif-ganeti").symlink_to("/usr/lib/ganeti/vif-ganeti")
    # Ganeti renames the configuration of a domain that did not start, from one to the other.
    node.run("mkdir", "/etc/xen/failed")
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


def _xenstore_write(*words: str) -> int:
    with _opened() as values:
        for path, value in zip(words[::2], words[1::2], strict=True):
            pieces = value.split("\\\\")
            for letter, meant in ESCAPES.items():
                pieces = [piece.replace(f"\\{letter}", meant) for piece in pieces]
            values[_absolute(path)] = "\\".join(pieces)
    return 0


def _ip(*words: str) -> None:
    subprocess.run(["/usr/sbin/ip", *words], check=True)


def _scripts(domain: str, action: str) -> list[tuple[str, int]]:
    """Run the scripts of all vifs of a domain at once; each one's place in the store and status."""
    with _opened() as values:
        found = {
            key.removesuffix("/script"): value
            for key, value in values.items()
            if key.startswith(f"{BACKEND}/{domain}/") and key.endswith("/script")
        }
    running = []
    for place, script in found.items():
        environ = {
            "script": script,
            "XENBUS_TYPE": "vif",
            "XENBUS_PATH": place.removeprefix(f"{DOMAIN}/0/"),
            "XENBUS_BASE_PATH": "backend",
            "netdev": "",
            "vif": f"vif{domain}.{place.rpartition('/')[2]}",
        }
        words = [script, action, "type_if=vif"]
        running.append(
            (place, subprocess.Popen(words, env=environ, stdin=subprocess.DEVNULL, stdout=2))
        )
    return [(place, process.wait()) for place, process in running]


def _vif(domain: str, number: int, text: str) -> None:
    settings = dict(word.strip().split("=", 1) for word in text.split(","))
    place = f"{BACKEND}/{domain}/{number}"
    known = {
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
    name = f"vif{domain}.{number}"
    _ip("tuntap", "add", "dev", name, "mode", "tap")
    _ip("link", "set", "dev", name, "address", "fe:ff:ff:ff:ff:ff")


def _create(file: str) -> int:
    text = Path(file).read_text()
    lines = [line for line in text.splitlines() if " = " in line and not line.startswith("#")]
    config = {key: ast.literal_eval(value) for key, _, value in (x.partition(" = ") for x in lines)}
    with _opened() as values:
        domain = values["last"] = str(int(values.get("last", "0")) + 1)
        values[f"{DOMAIN}/{domain}/name"] = config["name"]
        values[f"{DOMAIN}/{domain}/config"] = file
        values[f"{DOMAIN}/{domain}/state"] = "-b----"
    for number, vif in enumerate(config["vif"]):
        _vif(domain, number, vif)
    whole = True
    for place, status in _scripts(domain, "online"):
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


def _destroy(domain: str) -> None:
    with _opened() as values:
        for place in [key[: -len("/state")] for key in values if key.endswith("/state")]:
            if place.startswith(f"{BACKEND}/{domain}/"):
                values |= {f"{place}/state": "6", f"{place}/online": "0"}
                values.pop(f"{place}/hotplug-status")
                _ip("link", "delete", "dev", f"vif{domain}.{place.rpartition('/')[2]}")
    for _ in range(2):
        for place, status in _scripts(domain, "offline"):
            if status != 0:
                print(f"libxl: error: {place}: offline: status {status}", file=sys.stderr)
    with _opened() as values:
        for key in list(values):
            if key.startswith((f"{BACKEND}/{domain}/", f"{DOMAIN}/{domain}/")):
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
    """It is kept, as its configuration says, until it is destroyed."""
    domain = _domain(name)["id"]
    with _opened() as values:
        values[f"{DOMAIN}/{domain}/state"] = "---s--"


def _reboot(name: str) -> int:
    """Its vifs go, and others come, of a domain with another number."""
    domain = _domain(name)
    _destroy(domain["id"])
    file = domain["config"]
    return _create(file)


def _xl(verb: str, *words: str) -> int:
    tasks: dict[str, Callable[[str], int | None]] = {
        "help": lambda _: None,
        "info": lambda _: print(INFORMATION, end=""),
        "list": lambda _: _list(),
        "create": _create,
        "shutdown": _shut_down,
        "reboot": _reboot,
        "destroy": lambda name: _destroy(_domain(name)["id"]),
    }
    return tasks[verb](words[-1] if words else "") or 0


if __name__ == "__main__":
    tools: dict[str, Callable[..., int]] = {
        "xl": _xl,
        "xenstore-read": _xenstore_read,
        "xenstore-write": _xenstore_write,
    }
    sys.exit(tools[sys.argv[1]](*sys.argv[2:]))
