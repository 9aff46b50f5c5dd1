"""From an image to a guest that is reached by SSH, and to nothing, as an operator of Xen does it.

The project is installed from its own distributions, so ``python -m tests.xen --wheels`` is needed;
Ganeti's OS definition deploys, ``xl create`` starts a guest of two NICs, one on a bridge, filtered,
and one routed, which ``vif-snf`` wires.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import node
from tests.images.debian import debian_image
from tests.machine import SSH_OPTIONS, NetworkNamespace, make_ssh_key
from tests.system.environment import HOUSE, Environment
from tests.xen.machine import WHEELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAME = "web1.example.org"
PLACE = Path("/var/tmp/end-to-end")
DISK_BYTES = 3 << 30

PATIENCE = 600
"""Seconds after which a step has failed that takes a tenth of it, where nobody else is busy."""

SHUTDOWN = 120
"""Seconds after which what a guest leaves to be cleared away by others must be gone."""

NETWORK, ROUTER, ADDRESS, FOREIGN = (
    "198.51.100.0/24", "198.51.100.1", "198.51.100.10", "198.51.100.66"
)  # fmt: skip
ROUTED_NETWORK, ROUTED_ROUTER, ROUTED_ADDRESS, SPARE = (
    "203.0.113.0/24", "203.0.113.1", "203.0.113.10", "203.0.113.250"
)  # fmt: skip

NICS = (
    {
        **node.bridged_nic(ADDRESS, NETWORK, ""),
        "NETWORK_NAME": "tenants",
        "NETWORK_TAGS": "filtered",
    },
    {
        **node.bridged_nic(ROUTED_ADDRESS, ROUTED_NETWORK, ROUTED_ROUTER, "100"),
        "MAC": "aa:00:00:5e:00:02",
        "UUID": "0b5a8b4e-9b43-4a3c-8c2f-51f0f5f0a002",
        "MODE": "routed",
        "NETWORK_NAME": "public",
        "NETWORK_TAGS": "ip-less-routed",
    },
)

CONFIGURATION = f"""\
[image.source.local]
directory = {{images}}
# The machine is emulated: there is no waiting for another that is emulated inside it.
[hypervisor.kvm]
resume = false
[network.uplink.100]
interface = up0
subnet = {ROUTED_NETWORK}
gateway = {ROUTED_ROUTER}
address = {SPARE}
"""

INSTALLATION = ("appliance build", "ganeti install", "network install", "network uplink up")
REMOVAL = ("network uplink down", "network uninstall", "ganeti uninstall")

DOMAIN = f"""\
name = "{NAME}"
type = "pv"
bootloader = "pygrub"
memory = 512
disk = ["file:{PLACE}/disk,xvda,w"]
vif = [{", ".join(f"'mac={nic['MAC']},script=vif-snf'" for nic in NICS)}]
on_poweroff = "destroy"
on_crash = "destroy"
"""

LOOKS = {
    "domains": "xl list | awk '{print $1}'",
    "xenstore": "xenstore-ls -f / | sed 's/ = .*//'",
    "loop devices": "losetup --list --noheadings --output NAME,BACK-FILE",
    "links": "ip -brief link show | awk '{print $1}'",
    "rules": "ip rule; ip -6 rule",
    "routes": "(ip route show table all; ip -6 route show table all) | sed 's/ linkdown//'",
    "proxies": "ip neighbour show proxy; ip -6 neighbour show proxy",
    "mounts": "cat /proc/mounts",
    "files": "find /run/snf /run/xen /tmp /var/tmp /etc/xen /dev/shm",
    "processes": "ps -e --format args | grep -v '^\\['",
}
"""What a guest may leave behind, and who tells. A bridge without a port has no link."""

ONCE = {
    *("/libxl", "/vm"),
    *("/run/snf/deployment", "/run/snf/identities", "/run/snf/xen", "/run/snf/xen/turn"),
    "/run/xen/domid-history",
}
"""What the first guest of all leaves, and no other adds to: directories, and a file of locks."""


@dataclass
class World:
    """The installation, and the two networks."""

    environment: Environment
    outside: NetworkNamespace
    """Where the router of the routed network is, on the other end of the uplink."""
    key: Path
    before: dict[str, set[str]]
    """What there was before the first deployment."""

    def snf(self, *words: str) -> str:
        """The installed program, as root runs it."""
        return told(self.environment.directory / "bin/snf", *words)

    def ssh(self, words: Sequence[str], address: str, command: str) -> str:
        """What a command in the guest prints. ``words`` are where the connection is made from."""
        login = ("ssh", *SSH_OPTIONS, "-i", self.key, f"root@{address}", command)
        return told(*words, *login)


def told(*words: str | Path) -> str:
    """What a program prints, which must succeed."""
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def until(done: Callable[[], object], what: str) -> None:
    """Wait until it is so, and does not fail any more."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if done():
                return
            reason: object = "not yet"
        except (AssertionError, subprocess.TimeoutExpired) as error:
            reason = error
        assert time.monotonic() < deadline, f"{what}: {reason}"
        time.sleep(0.5)


def look() -> dict[str, set[str]]:
    """What there is on the node, of all that a guest may leave behind."""
    shown = {what: told("sh", "-c", words).splitlines() for what, words in LOOKS.items()}
    seen = {what: set(lines) - ONCE for what, lines in shown.items()}
    return {**seen, "elements": elements()}


def elements() -> set[str]:
    """What is in the sets and maps of our tables; their rules do nothing without it."""
    listed = json.loads(told("nft", "--json", "list", "ruleset"))["nftables"]
    sets: list[dict[str, Any]] = [
        one[kind] for one in listed for kind in ("set", "map") if kind in one
    ]
    return {
        f"{one['family']} {one['name']} {element}"
        for one in sets
        if one["table"] == "snf" and not one["name"].startswith("ruleset.")
        for element in one.get("elem", ())
    }


@pytest.fixture(name="world", scope="module")
def _world() -> Iterator[World]:
    wheels = sorted(Path(WHEELS).glob("*.whl"))
    if len(wheels) != len(HOUSE):
        pytest.fail("no distributions here: run python -m tests.xen --wheels", pytrace=False)
    environment = Environment.create(Path("/opt/snf"))
    environment.install(*wheels)
    PLACE.mkdir()
    with NetworkNamespace() as outside:
        _connect(outside)
        configuration = Path("/etc/snf/snf.conf")
        configuration.parent.mkdir(exist_ok=True)
        configuration.write_text(CONFIGURATION.format(images=debian_image().path.parent))
        world = World(environment, outside, make_ssh_key(PLACE)[0], {})
        for command in INSTALLATION:
            world.snf(*command.split())
        try:
            (PLACE / "disk").touch(0o600)
            world.before = look()
            yield world
        finally:
            for command in REMOVAL:
                world.snf(*command.split())
            told("ip", "link", "delete", "br0")
            told("rm", "-r", PLACE, configuration.parent)
    ours = told("find", "/etc/xen", "/etc/ganeti", "/usr/share/ganeti", "-name", "*snf*")
    assert ours == ""


def _connect(outside: NetworkNamespace) -> None:
    """The bridge, with the node on it as its router, and the uplink, with the other router."""
    for words in (
        "link add br0 type bridge",
        f"address add {ROUTER}/24 dev br0",
        "link set br0 up",
        f"link add up0 type veth peer name wire0 netns {outside.name}",
        "link set up0 up",
    ):
        told("ip", *words.split())
    for words in (f"address add {ROUTED_ROUTER}/24 dev wire0", "link set wire0 up"):
        outside.run(["ip", *words.split()])


@pytest.fixture(name="deployment", scope="module")
def _deployment(world: World) -> str:
    """What the create script says; it has deployed the image."""
    disk = PLACE / "disk"
    with disk.open("r+b") as file:
        file.truncate(DISK_BYTES)
    environment = node.instance_environment(NAME, disk, nics=NICS) | {
        "HYPERVISOR": "xen-pvm",
        "OSP_IMG_ID": f"local://{debian_image().path.name}",
        "OSP_IMG_FORMAT": "diskdump",
        "OSP_IMG_PROPERTIES": '{"USERS": "root"}',
        "OSP_AUTH_KEYS": world.key.with_suffix(".pub").read_text().strip(),
    }
    definition = Path("/usr/share/ganeti/os/snf-image")
    scripts = node.Node(Path("/"), Path("/etc/snf/snf.conf"), definition, Path("/run/snf"))
    process = scripts.script("create", environment)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr.decode()
    return stderr.decode()


@pytest.fixture(name="guest", scope="module")
def _guest(world: World, deployment: str) -> Iterator[str]:
    """The name of the domain, which can be reached."""
    assert deployment
    for index, nic in enumerate(NICS):
        described = Path("/etc/snf/nics", NAME, str(index))
        described.parent.mkdir(parents=True, exist_ok=True)
        described.write_text(
            "".join(
                f'{name}="{value}"\n' if name.startswith("NETWORK_") else f"{name}={value}\n"
                for name, value in nic.items()
                if name in {"MAC", "IP", "MODE", "LINK"} or name.startswith("NETWORK_")
            )
        )
    configuration = PLACE / "domain.cfg"
    configuration.write_text(DOMAIN)
    told("xl", "create", configuration)
    configuration.unlink()
    try:
        until(lambda: world.ssh((), ADDRESS, "echo there"), "no SSH login")
        yield NAME
    finally:
        subprocess.run(["xl", "destroy", NAME], capture_output=True, check=False)


def test_what_runs_is_the_installation(world: World) -> None:
    place = world.environment.python("-c", "import snf_core, snf_xen; print(snf_xen.__file__)")
    assert Path(place).is_relative_to(world.environment.directory)
    assert str(world.environment.directory) in Path("/etc/xen/scripts/vif-snf").read_text()
    assert str(world.environment.directory) in Path("/etc/xen/scripts/vif-custom").read_text()


def test_the_node_is_found_well(world: World) -> None:
    assert "xen-pvm" in world.snf("doctor")


def test_the_image_was_customized_by_a_helper_domain(deployment: str) -> None:
    assert "Image customization finished successfully" in deployment
    assert "emulat" not in deployment


def test_by_the_filtered_network(world: World, guest: str) -> None:
    told("ping", "-c", "3", "-i", "0.2", ADDRESS)
    assert world.ssh((), ADDRESS, "hostname --fqdn || hostname").strip() in {guest, "web1"}
    interfaces = world.ssh((), ADDRESS, "ip -brief address show scope global")
    assert f" {ADDRESS}/24" in interfaces
    assert f" {ROUTED_ADDRESS}/24" in interfaces
    size = int(world.ssh((), ADDRESS, "df --output=size --block-size=1 / | tail -n 1"))
    assert size > 0.9 * DISK_BYTES


def test_nobody_elses_address_is_heard_from_the_guest(world: World, guest: str) -> None:
    assert guest
    name = world.ssh((), ADDRESS, f"ip -o -4 address show to {ADDRESS}").split()[1]
    ping = f"ping -c 2 -W 3 -I {{}} {ROUTER} >/dev/null && echo heard || echo not heard"
    both = (
        f"{ping.format(ADDRESS)}; ip address add {FOREIGN}/24 dev {name}; {ping.format(FOREIGN)}; "
        f"ip address del {FOREIGN}/24 dev {name}"
    )
    assert world.ssh((), ADDRESS, both).splitlines() == ["heard", "not heard"]


def test_by_the_routed_network(world: World, guest: str) -> None:
    there = world.outside.command([])
    told(*there, "ping", "-c", "3", "-i", "0.2", ROUTED_ADDRESS)
    said = world.ssh(there, ROUTED_ADDRESS, f"hostname; ping -c 1 {ROUTED_ROUTER} | tail -n 2")
    assert said.split(".")[0].startswith(guest.split(".", maxsplit=1)[0])
    assert "1 received" in said
    assert ROUTED_ADDRESS in told("ip", "route", "show", "table", "100")


def test_nothing_is_left(world: World, guest: str) -> None:
    told("xl", "shutdown", "-w", guest)
    deadline = time.monotonic() + SHUTDOWN
    while (now := look()) != world.before and time.monotonic() < deadline:
        time.sleep(1)
    changed = {what: seen ^ world.before[what] for what, seen in now.items()}
    assert not any(changed.values()), {what: seen for what, seen in changed.items() if seen}
