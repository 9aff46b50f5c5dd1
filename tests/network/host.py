"""A node of its own for each test: the fixture ``host``, and what it can be told and asked.

>>> def test_a_frame_crosses(host: Host) -> None:
...     host.up()
...     guest, wire = host.guest("tap0"), host.peer("wire0")
...     assert packets.passed(guest, wire, [frame], marker) == [frame]

The node is a network namespace with the bridge br0 (MTU 1400), the foreign port veth0 of it,
whose other end is wire0, and the tap tap0, which is nobody's yet. ``snf`` runs in forked children
(see ``child``), so that a test starts few programs.

There is also state that is nobody's business but somebody else's (``foreign``): after each test
it is compared with what it was.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sysconfig
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from snf_core import cli
from tests.network import packets
from tests.network.child import Child
from tests.network.foreign import Foreign
from tests.network.interrupted import HERE, Accident

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.machine import NetworkNamespace
    from tests.network.packets import Port

T = TypeVar("T")

SNF = Path(sysconfig.get_path("scripts")) / "snf"

NIC = {
    "INTERFACE": "tap0",
    "INTERFACE_INDEX": "0",
    "INTERFACE_UUID": "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01",
    "INSTANCE": "web1.gnt.test",
    "MAC": "aa:00:10:38:54:25",
    "MODE": "bridged",
    "LINK": "br0",
    "BRIDGE": "br0",
    "VLAN": "",
    "TAGS": "",
}
"""What Ganeti 3.0 passes for a NIC without a network."""

LINKS = """\
link set lo up
link add br0 type bridge
link set br0 mtu 1400 up
link add veth0 address f2:00:00:00:00:01 mtu 1400 type veth peer name wire0
link set wire0 mtu 1400 up
link set veth0 master br0 up
tuntap add dev tap0 mode tap
"""
"""veth0's address is above a guest's MAC address, and below the one that the host's side gets."""


@dataclass
class Host:
    """The node. Everything it is asked, it asks its kernel."""

    namespace: NetworkNamespace
    directory: Path
    """The configuration file and the runtime directory are below it."""
    foreign: Foreign = field(init=False)
    _held: ExitStack = field(default_factory=ExitStack, init=False)

    def __post_init__(self) -> None:
        self.foreign = Foreign(self)
        self.configure("")

    # What an operator and a hypervisor do.

    def configure(self, text: str) -> None:
        """Write the configuration: ``text``, behind the directories of this node."""
        head = f"[directories]\nruntime = {self.directory / 'run'}\n"
        (self.directory / "snf.conf").write_text(head + text)

    def snf(self, *words: str, **nic: str) -> tuple[int, str, str]:
        """``snf network ...`` for the NIC, changed by ``nic``: status, output, errors."""
        return self.start(*words, **nic).ended()

    def up(self, **nic: str) -> None:
        """``snf network up``, as Ganeti 3.0 calls it; it must succeed and say nothing."""
        status, output, errors = self.snf("up", **nic)
        assert (status, output) == (0, ""), errors
        assert errors == ""

    def down(self, interface: str = "tap0", local_only: str = "false") -> None:
        """``snf network down``, as Ganeti 3.1 calls it; it must succeed."""
        status, _, errors = self.snf("down", interface, local_only, INTERFACE=interface)
        assert (status, errors) == (0, "")

    def start(self, *words: str, **nic: str) -> Child:
        """Start ``snf network ...``: see ``child.Child``."""
        return self.fork(lambda: cli.main(["network", *words]), **nic)

    def fork(self, call: Callable[[], int | None], **nic: str) -> Child:
        """Start anything else in a forked child, with the same environment."""
        child = Child(self.namespace.name, self._environ(nic), call)
        self._held.callback(child.close)
        return child

    def cold(self, *words: str, **nic: str) -> tuple[int, str, str]:
        """``snf network ...`` as a program of its own, from its start: status, output, errors."""
        done = subprocess.run(
            self.namespace.command([str(SNF), "network", *words]),
            env=self._environ(nic),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            timeout=packets.TIMEOUT,
        )
        return done.returncode, done.stdout, done.stderr

    def _environ(self, nic: dict[str, str]) -> dict[str, str]:
        settings = {"PATH": os.environ["PATH"], "SNF_CONFIG": str(self.directory / "snf.conf")}
        return settings | NIC | nic

    # Accidents: see ``interrupted``.

    def start_interrupted(self, action: str, step: int | str, *words: str, **nic: str) -> Child:
        """Start ``snf network ...`` with an accident at one step."""
        accident = Accident(action, step)
        return self.fork(lambda: accident.handle(["network", *words]), **nic)

    def interrupted(
        self, action: str, step: int | str, *words: str, **nic: str
    ) -> tuple[int, str, str]:
        """The same to its end: status (-9 where killed), the step's name or "", errors."""
        status, output, errors = self.start_interrupted(action, step, *words, **nic).ended()
        names = [line.removeprefix(HERE) for line in output.splitlines() if line.startswith(HERE)]
        return status, "".join(names), errors

    def accidents(self, action: str, *words: str, **nic: str) -> Iterator[str]:
        """``snf network ...`` again and again, with an accident at each of its steps in turn.

        Yields the step's name after each; then the caller restores what there was before. Ends
        after the command has come through, there being no further step. AssertionError where it
        does not end as the accident demands: killed, or failed. Only ``reconcile`` may have
        mended what failed.
        """
        for step in itertools.count():
            status, name, errors = self.interrupted(action, step, *words, **nic)
            if not name:
                assert (status, errors) == (0, ""), "without an accident"
                assert step > 0, "there was no step at all"
                return
            ends = {-signal.SIGKILL} if action == "kill" else {1}
            if "reconcile" in words and action == "fail":
                ends.add(0)
            assert status in ends, (name, status, errors)
            yield name

    # Ends of wires.

    def guest(self, tap: str = "tap0") -> Port:
        """The guest's end of a tap, open until the test ends or it is closed."""
        return self._held.enter_context(packets.guest(self.namespace.name, tap))

    def peer(self, interface: str = "wire0") -> Port:
        """A station at an interface, open until the test ends or it is closed."""
        return self._held.enter_context(packets.peer(self.namespace.name, interface))

    # The kernel.

    def ip(self, *commands: str) -> list[Any]:
        """Commands of ip(8); what they show as JSON, one value per command that shows something.

        Commands of IPv6 begin with ``-6``. As many as follow each other with and without take one
        start of the program. AssertionError with its words where one fails.
        """
        shown: list[Any] = []
        for six, group in itertools.groupby(commands, lambda words: words.startswith("-6 ")):
            batch = "\n".join(words.removeprefix("-6 ") for words in group)
            family = ["-6"] if six else []
            done = subprocess.run(
                [
                    *("ip", *family, "-n", self.namespace.name),
                    *("-json", "-details", "-batch", "-"),
                ],
                input=batch,
                capture_output=True,
                check=False,
                text=True,
            )
            assert done.returncode == 0, f"{batch}\n{done.stderr}"
            shown += _values(done.stdout)
        return shown

    def inside(self, function: Callable[[], T]) -> T:
        """Call a function of this process in the node's namespace (by a thread): its result."""
        return packets.inside(self.namespace.name, function)

    def links(self) -> dict[str, dict[str, Any]]:
        """Every interface as the kernel has it: mtu, master, up, address."""
        return _links(self.ip("link show")[0])

    def rules(self) -> list[dict[str, Any]]:
        """The policy rules of both families, as ``ip -json rule`` shows them."""
        inet, inet6 = self.ip("rule show", "-6 rule show")
        return [*inet, *inet6]

    def routes(self, table: int | str) -> list[dict[str, Any]]:
        """A table's routes of both families, as ``ip -json route`` shows them."""
        # By "all", since a table without routes is an error.
        shown = self.ip("route show table all", "-6 route show table all")
        routes = [route for family in shown for route in family]
        return [one for one in routes if str(one.get("table", "main")) == str(table)]

    def proxies(self) -> set[tuple[str, str]]:
        """The proxied neighbours of both families: (interface, address)."""
        shown = self.ip("neigh show proxy", "-6 neigh show proxy")
        return {(one["dev"], one["dst"]) for family in shown for one in family}

    def sysctl(self, path: str, value: str | None = None) -> str:
        """The value of a setting below /proc/sys (``net/ipv4/ip_forward``), once set if given."""

        def answer() -> str:
            file = Path("/proc/sys", path)
            if value is not None:
                file.write_text(value)
            return file.read_text().strip()

        return self.inside(answer)

    def nft(self, commands: str = "list ruleset") -> list[dict[str, Any]]:
        """Commands in nft(8)'s notation, one transaction; what they list, one JSON object each.

        AssertionError with nft's words where they fail.
        """

        def answer() -> list[dict[str, Any]]:
            import nftables

            nft = nftables.Nftables()
            nft.set_json_output(True)
            status, output, errors = nft.cmd(commands)
            assert status == 0, f"{commands}: {errors}"
            listed = json.loads(output)["nftables"] if output.strip() else []
            return [one for one in listed if "metainfo" not in one]

        return self.inside(answer)

    def state(self) -> dict[str, Any]:
        """All of the kernel's state that an event might change, for comparison.

        Of our own tables in nftables only the elements: rules without them do nothing.
        """
        questions = ("rule show", "route show table all", "neigh show proxy")
        links, *answers = self.ip("link show", *questions, *(f"-6 {one}" for one in questions))
        rules, routes, proxies, rules6, routes6, proxies6 = answers
        return {
            "links": _links(links),
            "rules": [*rules, *rules6],
            "routes": [one for one in (*routes, *routes6) if one.get("protocol") != "kernel"],
            "proxies": [*proxies, *proxies6],
            "sysctls": self.inside(_sysctls),
            "nftables": [one for one in map(_comparable, self.nft()) if one],
        }

    def elements(self, family: str, name: str) -> list[Any]:
        """The elements of a set or map of the table ``snf``, as nft's JSON has them."""
        listed = self.nft(f"list set {family} snf {name}")
        return [element for one in listed for element in one["set"].get("elem", [])]

    # What we keep.

    @property
    def documents(self) -> Path:
        """Where the state documents are."""
        return self.directory / "run/network"

    def left(self) -> list[str]:
        """The files that are kept."""
        return sorted(path.name for path in self.documents.iterdir())

    def close(self) -> None:
        """End what was started, close what was opened."""
        self._held.close()


KIND: type[Host] = Host
"""What tests have for a node. In a dom0, its first taps are NICs of a real guest: tests/xen."""


def node(namespace: NetworkNamespace, directory: Path) -> Host:
    """A node without any links but its loopback."""
    return KIND(namespace, directory)


def _links(shown: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        link["ifname"]: {
            "mtu": link["mtu"],
            "master": link.get("master"),
            "up": "UP" in link["flags"],
            "address": link["address"],
        }
        for link in shown
    }


def _sysctls() -> dict[str, bytes]:
    """What interfaces are set to: a NIC's, an uplink's, and all. Reading is most of the work."""
    found = {}
    for family in ("/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"):
        for interface in {"all", "tap0", "up0"} & {*os.listdir(family)}:
            for name in os.listdir(f"{family}/{interface}"):
                path = f"{family}/{interface}/{name}"
                with contextlib.suppress(OSError):  # some are for writing only, or not set
                    descriptor = os.open(path, os.O_RDONLY)
                    try:
                        found[path] = os.read(descriptor, 100)
                    finally:
                        os.close(descriptor)
    return found


def _comparable(entry: dict[str, Any]) -> Any:
    """An entry of nft's JSON without what does not matter, None where nothing is left."""
    [(kind, what)] = entry.items()
    if (kind == "table" and what["name"] == "snf") or what.get("table") == "snf":
        elements = sorted(json.dumps(one, sort_keys=True) for one in what.get("elem", []))
        if elements and not what["name"].startswith("ruleset."):  # which says what is loaded
            return (what["family"], what["name"], elements)
        return None
    return entry


def _values(text: str) -> Iterable[Any]:
    """The JSON values that follow each other in a text."""
    decoder = json.JSONDecoder()
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        value, position = decoder.raw_decode(text, position)
        yield value
