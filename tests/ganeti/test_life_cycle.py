"""An instance's whole life on a real cluster, with a real guest in it.

Each test is a step and needs those before it. Around every one, what the node's kernel holds of
NICs is compared with what it should.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.ganeti import kernel, outside, recorder
from tests.ganeti.instance import Instance
from tests.ganeti.recorder import Recorder
from tests.images.debian import debian_image
from tests.machine import MachineError, make_ssh_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ganeti.cluster import Cluster
    from tests.ganeti.node import Node

NAME, NEW_NAME, COPY = "web1.gnt.test", "www1.gnt.test", "copy1.gnt.test"
DISK_MIB, SECOND_DISK_MIB = 3072, 96
IMAGE = "debian.diskdump"
SECRET, PRIVATE = "Tr0ub4dor&3-secret", "correct-horse-private"
"""Passwords given as the parameters of these kinds."""
ROUTED_ADDRESS = "203.0.113.10"
COPY_ADDRESS = "198.51.100.77"

NETWORKS = {
    "net1": (
        f"--network={outside.GUESTS} --gateway={outside.GUESTS_GATEWAY}"
        f" --network6={outside.GUESTS6} --gateway6={outside.GUESTS6_GATEWAY}",
        "mode=bridged,link=br0",
    ),
    "net2": ("--network=198.18.0.0/24 --tags=filtered", "mode=bridged,link=br0"),
    "net3": (
        f"--network={outside.UPLINK} --gateway={outside.UPLINK_GATEWAY} --tags=ip-less-routed",
        "mode=routed,link=100",
    ),
}


@dataclass
class Life:
    """The instance, and what is known of it from step to step."""

    cluster: Cluster
    recorder: Recorder
    keys: dict[str, tuple[Path, str]]
    """Private key's file and public key, by whose they are."""
    nothing: dict[str, Any]
    """The kernel's state before there was an instance."""
    wired: dict[str, Any] = field(default_factory=dict)
    """The same while the instance runs, with its first NIC."""
    hashes: set[str] = field(default_factory=set)
    """Password hashes seen in the guest."""
    failed: str = ""
    """The step that failed."""

    @property
    def node(self) -> Node:
        return self.cluster.master

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """What Ganeti does here is recorded under this name, and must leave no files behind."""
        yield
        self.recorder.take(name)
        assert _left_behind(self.node) == []

    def gnt(self, *words: str) -> str:
        """A command of Ganeti's. It must succeed without any hook's complaint."""
        said = self.cluster.run(*words).output
        assert "WARNING" not in said, said
        return said

    def instance(self, name: str, key: str) -> Instance:
        """An instance by its name, with the address that Ganeti gave it and one's key."""
        listed = self.cluster.run(
            "gnt-instance", "list", "--no-headers", "-o", "nic.ip/0", name
        ).stdout
        return Instance(self.node, name, listed.strip(), self.keys[key][0])


@pytest.fixture(name="life", scope="module")
def _life(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Life:
    cluster.add_image(debian_image(print).path, IMAGE)
    for name, (addresses, link) in NETWORKS.items():
        cluster.run("gnt-network", "add", *addresses.split(), name)
        cluster.run("gnt-network", "connect", "-N", link, name)
    cluster.master.snf("network", "uplink", "up")
    assert cluster.master.snf("ganeti", "install", "--check").output == ""
    keys = {name: make_ssh_key(tmp_path_factory.mktemp(name)) for name in ("alice", "bob")}
    return Life(cluster, Recorder(cluster.master), keys, kernel.state(cluster.master))


@pytest.fixture(autouse=True)
def _in_order(request: pytest.FixtureRequest, life: Life) -> Iterator[None]:
    """A step that comes after one that failed fails at once."""
    if life.failed:
        pytest.fail(f"{life.failed} failed before")
    failures = request.session.testsfailed
    yield
    if request.session.testsfailed > failures:
        life.failed = request.node.name


def test_add(life: Life) -> None:
    """Deployed, started, and reachable from outside and from the node, as it was ordered."""
    with life.step("add"), _arguments_watched(life.node) as arguments:
        life.gnt(
            *("gnt-instance", "add", "-t", "file", "--no-name-check", "--no-ip-check"),
            *("-n", life.node.name, "-o", "snf-image+default", "-B", "memory=512,vcpus=1"),
            *("--disk", f"0:size={DISK_MIB}M", "--disk", f"1:size={SECOND_DISK_MIB}M"),
            *("--net", "0:ip=pool,network=net1", "--tags=itag1,itag2"),
            *("-O", f"img_id={IMAGE},img_format=diskdump,img_properties={_json(OSFAMILY='linux')}"),
            f"--os-parameters-private=auth_keys={life.keys['alice'][1]}",
            f"--os-parameters-secret=img_passwd={SECRET}",
            NAME,
        )
    assert any("ganeti os create" in one for one in arguments)
    # An administrator's command is not ours, nor what carries it to the node.
    assert [one for one in arguments if SECRET in one and "gnt-instance add" not in one] == []
    _assert_wired(life, {"tap0": NAME})
    life.wired = kernel.state(life.node)
    guest = life.instance(NAME, "alice")
    guest.wait_until_up()
    assert guest.ssh("hostname").strip() == NAME
    assert f"inet {guest.address}/24 " in guest.ssh("ip -4 address show scope global")
    assert int(guest.ssh("df --block-size=1M --output=size / | tail -n 1")) > 0.9 * DISK_MIB
    sizes = guest.ssh("cat /sys/block/vd?/size").split()
    assert sizes == [str(size << 11) for size in (DISK_MIB, SECOND_DISK_MIB)]
    life.hashes.add(_assert_password(guest, SECRET))
    greeting = life.node.run("bash", "-c", f"read -r line </dev/tcp/{guest.address}/22; echo $line")
    assert greeting.stdout.startswith("SSH-2.0-")


def test_hotplug(life: Life) -> None:
    """A NIC comes and goes, filtered or routed; nothing is left of it, and the first stays."""
    guest = life.instance(NAME, "alice")
    with life.step("hotplug"):
        _modify(life, "add:ip=pool,network=net2")
        _assert_wired(life, {"tap0": NAME, "tap1": NAME})
        assert _addresses(life.node, "198.18.0.1")
        _modify(life, f"add:ip={ROUTED_ADDRESS},network=net3")
        _assert_wired(life, {"tap0": NAME, "tap1": NAME, "tap2": NAME})
        found = kernel.state(life.node)
        assert found["links"]["tap1"]["master"] == "br0"
        assert found["links"]["tap2"]["master"] is None
        assert [one for one in found["routes"] if one.get("dst") == ROUTED_ADDRESS] != []
    mac = _mac(life, 2, NAME)
    guest.ssh(
        f"set -e; cd /sys/class/net; d=$(grep -l {mac} */address); d=${{d%/address}};"
        f"ip address add {ROUTED_ADDRESS}/24 dev $d; ip link set $d up;"
        f"ip rule add from {ROUTED_ADDRESS} table 7;"
        f"ip route add default via {outside.UPLINK_GATEWAY} dev $d table 7"
    )
    routed = Instance(life.node, NAME, ROUTED_ADDRESS, guest.key)
    routed.wait_until_up()
    assert routed.ssh("hostname").strip() == NAME
    with life.step("unplug"):
        _modify(life, "2:remove")
        _modify(life, "1:remove")
    assert kernel.state(life.node) == life.wired
    assert mac not in guest.ssh("cat /sys/class/net/*/address")


def test_stop(life: Life) -> None:
    """The guest is asked to go down, does, and the node is as if it had never been."""
    with life.step("stop"):
        life.gnt("gnt-instance", "stop", NAME)
    assert kernel.state(life.node) == life.nothing


def test_start(life: Life) -> None:
    """It is wired as it was at first."""
    with life.step("start"):
        life.gnt("gnt-instance", "start", NAME)
    _assert_wired(life, {"tap0": NAME})
    assert kernel.state(life.node) == life.wired


def test_reboot(life: Life) -> None:
    """A hard one: QEMU ends and another starts."""
    with life.step("reboot"):
        life.gnt("gnt-instance", "reboot", "--type=hard", "--shutdown-timeout=0", NAME)
    _assert_wired(life, {"tap0": NAME})
    assert kernel.state(life.node) == life.wired


def test_reinstall_and_rename(life: Life) -> None:
    """Another's machine, with another name; the first owner's key opens nothing any more."""
    with life.step("power-off"):
        life.gnt("gnt-instance", "stop", "--timeout=0", NAME)
    with life.step("reinstall"):
        life.gnt(
            *("gnt-instance", "reinstall", "-f", "-o", "snf-image+default"),
            *("-O", f"img_id={IMAGE},img_format=diskdump,img_properties={_json(OSFAMILY='linux')}"),
            # Ganeti refuses a parameter that was private as one of another kind.
            f"--os-parameters-private=auth_keys={life.keys['bob'][1]},img_passwd={PRIVATE}",
            NAME,
        )
    with life.step("rename"):
        life.gnt(
            *("gnt-instance", "rename", "--no-name-check", "--no-ip-check", "--force"),
            *(NAME, NEW_NAME),
        )
    assert kernel.state(life.node) == life.nothing
    with life.step("start-renamed"):
        life.gnt("gnt-instance", "start", NEW_NAME)
    _assert_wired(life, {"tap0": NEW_NAME})
    guest = life.instance(NEW_NAME, "bob")
    guest.wait_until_up()
    assert guest.ssh("hostname").strip() == NEW_NAME
    assert int(guest.ssh("df --block-size=1M --output=size / | tail -n 1")) > 0.9 * DISK_MIB
    life.hashes.add(_assert_password(guest, PRIVATE))
    with pytest.raises(MachineError, match="Permission denied"):
        life.instance(NEW_NAME, "alice").ssh("true")


def test_export_and_import(life: Life) -> None:
    """Put back as another instance, it boots, and knows its name and its NIC's new address.

    All its disks are there.
    """
    with life.step("stop-renamed"):
        life.gnt("gnt-instance", "stop", NEW_NAME)
    with life.step("export"):
        life.gnt("gnt-backup", "export", "-n", life.node.name, NEW_NAME)
    mac = _mac(life, 0, NEW_NAME)
    with life.step("remove"):
        life.gnt("gnt-instance", "remove", "-f", NEW_NAME)
    with life.step("import"):
        life.gnt(
            *("gnt-backup", "import", "-t", "file", "--no-name-check", "--no-ip-check"),
            *("-n", life.node.name, f"--src-node={life.node.name}", f"--src-dir={NEW_NAME}"),
            *("--net", f"0:ip={COPY_ADDRESS},network=net1", COPY),
        )
    with life.step("start-imported"):
        life.gnt("gnt-instance", "start", COPY)
    _assert_wired(life, {"tap0": COPY})
    assert _mac(life, 0, COPY) != mac
    guest = life.instance(COPY, "bob")
    assert guest.address == COPY_ADDRESS
    guest.wait_until_up()
    assert guest.ssh("hostname").strip() == COPY
    sizes = guest.ssh("cat /sys/block/vd?/size").split()
    assert sizes == [str(size << 11) for size in (DISK_MIB, SECOND_DISK_MIB)]


def test_no_secret_is_left(life: Life) -> None:
    """Not a password nor its hash, but for what Ganeti itself keeps of a private parameter."""
    life.gnt("gnt-backup", "remove", NEW_NAME)  # the guest's disk holds its password's hash
    kept = {PRIVATE: ["/var-lib/upper/ganeti/config.data"]}
    for words in (SECRET, PRIVATE, *life.hashes):
        assert _files_with(life.node, words) == kept.get(words, [])


def test_remove(life: Life) -> None:
    """While it runs."""
    with life.step("remove-running"):
        life.gnt("gnt-instance", "remove", "-f", "--shutdown-timeout=0", COPY)
    assert kernel.state(life.node) == life.nothing
    assert list(life.node.path("/srv/ganeti/file-storage").rglob("*")) == []


def test_fixtures_are_what_ganeti_says(life: Life, request: pytest.FixtureRequest) -> None:
    """The recorded events are those of today's Ganeti. ``--record`` writes them anew."""
    version = life.cluster.run("gnt-cluster", "version").stdout
    found = re.search(r"Software version: (\d+\.\d+)", version)
    assert found
    directory = recorder.FIXTURES / f"ganeti-{found[1]}"
    if request.config.getoption("--record", default=False):
        life.recorder.write(directory)
    recorded = recorder.load(directory)
    assert _outline(life.recorder.events) == _outline(recorded)


def _outline(events: dict[str, list[recorder.Event]]) -> dict[str, list[tuple[str, list[str]]]]:
    """Which scripts each step called, and with which variables. Some run at the same time."""
    return {
        step: sorted((one.script, sorted(one.environment)) for one in called)
        for step, called in events.items()
    }


def _json(**properties: str) -> str:
    """An object as a value of Ganeti's ``-O name=value,...``, where a comma is escaped."""
    return json.dumps(properties).replace(",", "\\,")


def _modify(life: Life, change: str) -> None:
    life.gnt("gnt-instance", "modify", "-f", "--hotplug", "--net", change, NAME)


def _mac(life: Life, index: int, name: str) -> str:
    """The MAC address of one of an instance's NICs."""
    words = ("gnt-instance", "list", "--no-headers", "-o", f"nic.mac/{index}", name)
    return life.cluster.run(*words).stdout.strip()


def _assert_wired(life: Life, taps: dict[str, str]) -> None:
    """These interfaces are there, of these instances, and each is what it should be."""
    shown = json.loads(life.node.snf("network", "status", "--json").stdout)
    events = {one["interface"]: one["event"]["instance"] for one in shown}
    assert {name: instance for name, instance in events.items() if instance} == taps
    assert life.node.snf("network", "reconcile", "--check").output == ""
    state = kernel.state(life.node)
    assert kernel.taps(state) == set(taps)
    assert all(state["links"][tap]["up"] for tap in taps)
    assert state["links"]["tap0"]["master"] == "br0"
    assert state["documents"] - life.nothing["documents"] == {f"{tap}.json" for tap in taps}


def _addresses(node: Node, address: str) -> list[Any]:
    """The elements of our tables that name an address."""
    return [one for one in kernel.state(node)["tables"] if address in str(one)]


def _assert_password(guest: Instance, password: str) -> str:
    """Root's password in the guest is this one. Its hash."""
    hashed = guest.ssh("getent shadow root").split(":")[1]
    done = subprocess.run(
        ["perl", "-e", "print crypt(<STDIN>, $ARGV[0])", hashed],
        input=password,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == hashed
    return hashed


def _left_behind(node: Node) -> list[str]:
    """Files in temporary directories, and deployments' directories."""
    found = [*node.written("/tmp"), *node.written("/var/tmp")]
    return found + [str(path) for path in node.path("/run/snf/deployment").glob("*")]


@contextlib.contextmanager
def _arguments_watched(node: Node) -> Iterator[set[str]]:
    """The command lines of all processes that are seen on the node while the block runs."""
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for entry in node.path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(entry.read_bytes().decode(errors="replace").replace("\0", " "))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def _files_with(node: Node, words: str) -> list[str]:
    """The files with these words in them among all that the node wrote, but for its disks."""
    layers = node.directory / "kept"
    done = node.run(
        *("grep", "--recursive", "--files-with-matches", "--fixed-strings", "--devices=skip"),
        *("--no-messages", "-e", words, layers, "/run"),  # some go meanwhile
        check=False,
    )
    return [line.removeprefix(str(layers)) for line in done.stdout.splitlines()]
