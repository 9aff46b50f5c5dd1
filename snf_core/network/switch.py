"""The ports of Open vSwitch, by ovs-vsctl(8). A gate of ``network.kernel``.

Open vSwitch keeps its ports in a database that outlives interfaces and reboots: a port of a tap
that is gone is there still, and takes the next tap of that name. So a port is always made anew.

ovs-vsctl reads the tables of bridges and ports whole, whatever it is asked: its cost grows with
the ports of this node's switches, by microseconds for each.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from snf_core.errors import CommandError, DeadlineError, NetworkError
from snf_core.network.vlan import Vlans, from_state
from snf_core.run import run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from snf_core.network.state import Change, Item, Key, Value

PATIENCE = 20
"""Seconds that ovs-vswitchd may take to do what the database says."""

_PROGRAM = "ovs-vsctl"
_INSTALL = "install openvswitch-switch and start it (systemctl start openvswitch-switch)"
_UNDONE = "Error detected while setting up"
"""What ovs-vsctl says, with exit status 0, of a port that ovs-vswitchd could not make."""


class Switch:
    """Made for one event; runs nothing unless there is a port to ask for or to change."""

    def read(self, items: Collection[Item]) -> dict[Key, Value]:
        """The ports that are as wanted; None for the others, there or not. Raises NetworkError.

        What else a port may be is of no use: it was made for an earlier tap of its name, and is
        not to be made again when this one goes.
        """
        if not items:
            return {}
        ports, bridges = _lists(
            [
                *("--", "--columns=_uuid,name,tag,trunks,vlan_mode", "list", "Port"),
                *("--", "--columns=name,ports", "list", "Bridge"),
            ]
        )
        switches = {
            port: str(bridge["name"]) for bridge in bridges for port in _members(bridge["ports"])
        }
        found = {
            (port["name"], f"{switches[uuid]} {_vlans(port)}".rstrip())
            for port in ports
            for uuid in _members(port["_uuid"])
            if uuid in switches
        }
        return {
            item.key: item.value if (item.object, item.value) in found else None for item in items
        }

    def snapshot(self, items: Collection[Item]) -> dict[Key, Value]:
        """The same: all ports are read anyway."""
        return self.read(items)

    def apply(self, changes: Sequence[Change]) -> Collection[Key]:
        """Make all changes in one transaction, and wait until the switch has made them.

        Raises NetworkError; what could not be made is then as before.
        """
        if not changes:
            return ()
        status, _, said = _run(_words(changes))
        if status == 0 and _UNDONE not in said:
            return ()
        if status <= 0:  # the database has it, and the switch has not done it, or not in time
            _run(["--no-wait", *_words([change.reversed for change in reversed(changes)])])
        what = ", ".join(str(change.item) for change in changes)
        raise _error(f"Open vSwitch cannot make {what}", said)

    def close(self) -> None:
        """Nothing is held."""


def _words(changes: Sequence[Change]) -> list[str]:
    return [word for change in changes for word in _commands(change.item)]


def _commands(item: Item) -> Iterator[str]:
    """The commands that lead to an item, whatever was there before."""
    yield from ("--", "--if-exists", "del-port", item.object)
    if item.value is None:
        return
    bridge, _, text = str(item.value).partition(" ")
    vlans = from_state(text)
    yield from ("--", "add-port", bridge, item.object)
    yield from ("--", "set", "Port", item.object)
    if not vlans.tagged:
        # Access ports drop what the guest has tagged. Without a VLAN it is 0, which is "untagged".
        yield from ("vlan_mode=access", f"tag={vlans.untagged or 0}")
        return
    trunks = ",".join(map(str, vlans.tagged))
    yield f"trunks=[{trunks}]"
    if vlans.untagged is None:
        yield "vlan_mode=trunk"
    else:
        yield from ("vlan_mode=native-untagged", f"tag={vlans.untagged}")


def _vlans(port: dict[str, Any]) -> str:
    """A port's VLANs as items have them, from the columns of ovs-vswitchd.conf.db(5).

    "else" for what no item asks for.
    """
    tag, mode = port["tag"], port["vlan_mode"]
    untagged = tag if isinstance(tag, int) else None
    tagged = tuple(sorted(_members(port["trunks"])))
    if mode == "access" and untagged is not None and not tagged:
        return str(Vlans(untagged or None))
    if mode == "trunk" and untagged is None and tagged:
        return str(Vlans(None, tagged))
    if mode == "native-untagged" and untagged and tagged:
        return str(Vlans(untagged, tagged))
    return "else"


def _members(value: Any) -> list[Any]:
    """The members of a set, or the one value, in OVSDB's JSON (RFC 7047, section 5.1)."""
    if isinstance(value, list) and value[0] == "set":
        return [member for inner in value[1] for member in _members(inner)]
    if isinstance(value, list) and value[0] == "uuid":
        return [value[1]]
    return [value]


def _lists(words: Sequence[str]) -> list[list[dict[str, Any]]]:
    """What commands list, for each its records by column."""
    status, output, said = _run(["--format=json", *words])
    if status != 0:
        raise _error("Open vSwitch cannot be asked", said)
    try:
        tables = [json.loads(line) for line in output.splitlines() if line]
        return [[dict(zip(t["headings"], row, strict=True)) for row in t["data"]] for t in tables]
    except (ValueError, KeyError, TypeError) as error:
        raise NetworkError(
            f"{_PROGRAM} answered what is not understood: {output[:200]!r}"
        ) from error


def _run(words: Sequence[str]) -> tuple[int, str, str]:
    """Exit status, negative where it ran out of time; standard output; standard error."""
    try:
        done = run([_PROGRAM, f"--timeout={PATIENCE}", *words], timeout=2 * PATIENCE, check=False)
    except (CommandError, DeadlineError) as error:
        raise NetworkError(error.message, remedy=_INSTALL) from error
    output, said = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    return done.returncode, output, said


def _error(what: str, said: str) -> NetworkError:
    if "no bridge named" in said:
        remedy = "create it (ovs-vsctl add-br NAME), or correct the NIC's link"
    elif "database connection failed" in said:
        remedy = _INSTALL
    else:
        remedy = "see whether ovs-vswitchd runs, and /var/log/openvswitch"
    return NetworkError(f"{what}: {said.strip() or 'no answer in time'}", remedy=remedy)
