"""dom0 as a node whose vifs we wire, for domains that xl alone makes: ``script=vif-snf``."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.xen import domu

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAC = "aa:00:10:38:54:25"
OTHER = "aa:00:10:38:54:26"
BRIDGE, HOST = "br0", "10.64.0.1"
UPLINK, BEYOND = "up0", "beyond"
TABLE, GUEST, GATEWAY = "100", "198.51.100.3", "198.51.100.1"
SNF = [sys.executable, "-I", "-m", "snf_core.cli"]

CONFIGURATION = Path("/etc/snf/snf.conf")
NICS = Path("/etc/snf/nics")
SCRIPT = Path("/etc/xen/scripts/vif-snf")

UPLINK_GROUP = f"""\
[network.uplink.{TABLE}]
interface = {UPLINK}
subnet = 198.51.100.0/24
gateway = {GATEWAY}
address = 198.51.100.2
"""
ROUTED = f"MODE=routed\nLINK={TABLE}\nIP={GUEST}\n"


def run(*words: str, check: bool = True) -> str:
    """A program's whole output."""
    done = subprocess.run(
        words, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}"
    return done.stdout


def snf(*words: str) -> str:
    """``snf ...``, which must succeed."""
    return run(*SNF, *words)


@contextlib.contextmanager
def node() -> Iterator[None]:
    """A bridge of MTU 9000, an uplink with a router and its wire, and the script in place."""
    snf("network", "install")
    CONFIGURATION.parent.mkdir(exist_ok=True)
    CONFIGURATION.write_text(UPLINK_GROUP)
    snf("network", "reconcile")  # the rules may be those of another module's configuration
    try:
        run("ip", "link", "add", BRIDGE, "mtu", "9000", "type", "bridge")
        run("ip", "address", "add", f"{HOST}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        run("ip", "netns", "add", BEYOND)
        run("ip", "link", "add", UPLINK, "type", "veth", "peer", "wire0", "netns", BEYOND)
        run("ip", "-n", BEYOND, "address", "add", f"{GATEWAY}/24", "dev", "wire0")
        run("ip", "-n", BEYOND, "link", "set", "wire0", "up")
        snf("network", "uplink", "up")
        yield
    finally:
        run("ip", "link", "delete", BRIDGE, check=False)
        run("ip", "link", "delete", UPLINK, check=False)
        run("ip", "netns", "delete", BEYOND, check=False)
        CONFIGURATION.unlink()
        snf("network", "reconcile")
        snf("network", "uninstall")


@contextlib.contextmanager
def configured(text: str) -> Iterator[None]:
    """More of a configuration."""
    CONFIGURATION.write_text(text + UPLINK_GROUP)
    try:
        yield
    finally:
        CONFIGURATION.write_text(UPLINK_GROUP)


@contextlib.contextmanager
def described(name: str, text: str, device: int = 0) -> Iterator[None]:
    """A NIC in the words of the operator."""
    path = NICS / name / str(device)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    try:
        yield
    finally:
        shutil.rmtree(NICS)


def create(
    name: str,
    vifs: Sequence[str],
    *words: str,
    kind: str = "pv",
    environ: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """``xl create`` of a domain of which only the vifs matter."""
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        file.write(domu.configuration(name, vifs, kind))
        file.flush()
        return domu.xl("create", *words, file.name, environ=environ)


@contextlib.contextmanager
def paused(
    name: str, vifs: Sequence[str], kind: str = "pv", environ: Mapping[str, str] | None = None
) -> Iterator[int]:
    """A domain that has been created, and never runs: its number."""
    try:
        done = create(name, vifs, "-p", kind=kind, environ=environ)
        assert done.returncode == 0, done.stdout
        number = domu.domid(name)
        assert number is not None
        yield number
    finally:
        domu.xl("destroy", name)


def status() -> dict[str, dict[str, Any]]:
    """What is wired here, by interface, but for the uplink."""
    done = subprocess.run([*SNF, "network", "status", "--json"], check=False, capture_output=True)
    assert done.returncode in {0, 3}, done.stderr
    found = json.loads(done.stdout)
    return {one["interface"]: one for one in found if one["interface"] != UPLINK}


def link(name: str) -> dict[str, Any] | None:
    """An interface, as ip(8) tells it."""
    done = subprocess.run(["ip", "-j", "link", "show", name], check=False, capture_output=True)
    return dict(json.loads(done.stdout)[0]) if done.returncode == 0 else None


def remains() -> str:
    """What is left of vifs that are gone; empty where nothing is."""
    left = [f"{name} is known" for name in status()]
    left += [line for line in snf("network", "reconcile", "--check").splitlines() if line]
    routes = run("ip", "route", "show", "table", TABLE)
    left += [line for line in routes.splitlines() if "vif" in line or GUEST in line]
    rules = run("nft", "list", "ruleset")
    left += [line for line in rules.splitlines() if '"vif' in line or '"web' in line]
    files = [path.name for path in Path("/run/snf/network").iterdir()]
    return "\n".join(left + [name for name in files if not name.startswith(UPLINK)])
