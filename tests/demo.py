"""``make demo``: an image file becomes a running, reachable machine, and is taken down again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from snf_core.errors import SnfError
from tests import node, workspace
from tests.images.debian import DebianImage, ImageBuildError, cache_directory, debian_image
from tests.machine import Machine, MachineError, NetworkCard, NetworkNamespace, make_ssh_key

NAME = "web1.example.org"
ADDRESS, PREFIX_LENGTH = "198.51.100.10", 24
GATEWAY, SUBNET = "198.51.100.1", "198.51.100.0/24"
DISK_BYTES = 8 << 30
TAP = "tap0"

FROM_NOTHING, AFTERWARDS = 240, 90
"""Seconds that the whole may take; $SNF_DEMO_LIMIT=0 says it may take any time."""

_FACTS = {
    "hostname": "hostname",
    "address": "ip -4 -o address show scope global | awk '{print $4}'",
    "root file system (KiB)": "df --output=size / | tail -n 1",
    "machine id": "cat /etc/machine-id",
    "kernel": "uname -r",
}


class DemoError(Exception):
    """Something is not as it should be."""


def main() -> int:
    """Run the demonstration; return 0 if all was as promised."""
    started = float(os.environ.get("SNF_DEMO_START") or time.time())
    fresh = os.environ.get("SNF_DEMO_FRESH") == "yes"
    say = Progress(started)
    try:
        image = debian_image(say)
        with (
            workspace.private(Path("/run/snf-demo")) as directory,
            workspace.private(cache_directory() / "demo") as disks,
        ):
            directory.chmod(0o711)
            show(run(image, directory, disks, say))
        seconds = time.time() - started
        limit = FROM_NOTHING if fresh or say.built else AFTERWARDS
        say.say(f"taken down again; {seconds:.0f} s in all (at most {limit})")
        if seconds > limit and os.environ.get("SNF_DEMO_LIMIT") != "0":
            raise DemoError(f"it took {seconds:.0f} s, more than the {limit} s it may take")
    except (DemoError, ImageBuildError, MachineError, SnfError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo interrupted; everything was taken down", file=sys.stderr)
        return 130
    return 0


@dataclass
class Progress:
    """Says what happens, and when; remembers whether anything had to be built first."""

    started: float
    built: bool = False

    def __call__(self, line: str) -> None:
        """Say one line about something that is built."""
        self.built = True
        self.say(line)

    def say(self, line: str) -> None:
        """Say one line."""
        print(f"==> {time.time() - self.started:5.0f} s  {line}", flush=True)


def run(image: DebianImage, directory: Path, disks: Path, say: Progress) -> dict[str, str]:
    """Deploy, wire, boot, log in, look, take down; return what was found."""
    ganeti = node.make(directory, image.path.parent, directory / "run", progress=say)
    private, public = make_ssh_key(disks)
    disk = disks / "disk0"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    nic = node.bridged_nic(ADDRESS, SUBNET, GATEWAY)
    environment = node.instance_environment(NAME, disk, nics=[nic]) | {
        "OSP_IMG_ID": f"local://{image.path.name}",
        "OSP_IMG_FORMAT": "diskdump",
        "OSP_IMG_PROPERTIES": '{"USERS": "root"}',
        "OSP_AUTH_KEYS": public,
    }
    say.say(f"deploying a {image.disk_bytes >> 20} MiB image onto a {DISK_BYTES >> 20} MiB disk")
    deployment = ganeti.script("create", environment, stdout=None, stderr=None)
    try:
        if deployment.wait() != 0:
            raise DemoError(f"create failed with status {deployment.returncode}")
    finally:
        deployment.terminate()
        deployment.wait()
    with NetworkNamespace() as namespace:
        namespace.bridge("br0", f"{GATEWAY}/{PREFIX_LENGTH}")
        namespace.run(["ip", "tuntap", "add", "dev", TAP, "mode", "tap"])
        event = node.event_environment(NAME, TAP, nic)
        say.say(f"wiring {TAP} to br0 in a network namespace of its own")
        _network(ganeti, namespace, "up", event)
        say.say("booting it")
        console = disks / "console"
        with Machine(disk, console, namespace, [NetworkCard(TAP, nic["MAC"])]) as machine:
            machine.wait_for_ssh(ADDRESS, private, timeout=180)
            say.say("logged in over SSH")
            found = _look(machine, image)
        _network(ganeti, namespace, "down", event)
    left = node.leftovers(ganeti)
    if left:
        raise DemoError("left behind: " + ", ".join(left))
    return found


def show(found: dict[str, str]) -> None:
    """Print what was found in the machine."""
    for name, value in found.items():
        print(f"      {name + ':':26}{value}")


def _look(machine: Machine, image: DebianImage) -> dict[str, str]:
    script = "; echo ---; ".join(_FACTS.values())
    answers = [part.strip() for part in machine.ssh(script).split("---\n")]
    found = dict(zip(_FACTS, answers, strict=True))
    keys = machine.host_keys(ADDRESS)
    found["SSH host keys"] = ", ".join(sorted(keys))
    size = int(found["root file system (KiB)"]) << 10
    wrong = [
        what
        for what, well in {
            "host name": found["hostname"] in {NAME, NAME.split(".", maxsplit=1)[0]},
            "address": found["address"] == f"{ADDRESS}/{PREFIX_LENGTH}",
            "root file system": size > 0.9 * DISK_BYTES,
            "machine id": len(found["machine id"]) == 32
            and found["machine id"] != image.machine_id,
            "SSH host keys": bool(keys) and not set(keys.values()) & set(image.host_keys.values()),
        }.items()
        if not well
    ]
    if wrong:
        show(found)
        raise DemoError("not as it should be: " + ", ".join(wrong))
    return found


def _network(
    ganeti: node.Node, namespace: NetworkNamespace, what: str, event: dict[str, str]
) -> None:
    done = subprocess.run(
        namespace.command(ganeti.command("network", what)),
        env=event,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DemoError(f"snf network {what} failed: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())
