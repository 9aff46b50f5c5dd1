"""What a node's kernel holds of its NICs, and what we keep beside it: comparable."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ganeti.node import Node

_QUESTIONS = {
    "links": "ip -json -details link show",
    "rules": "ip -json rule show",
    "rules6": "ip -json -6 rule show",
    "routes": "ip -json route show table all",
    "routes6": "ip -json -6 route show table all",
    "proxies": "ip -json neigh show proxy",
    "proxies6": "ip -json -6 neigh show proxy",
    "tables": "nft --json list ruleset",
    # Some are for writing only, and there may be no NIC.
    "sysctls": "grep -s '' /proc/sys/net/ipv[46]/conf/tap*/* || :",
    "documents": "ls /run/snf/network 2>/dev/null || :",
}
_BOUNDARY = "---- next ----"
_TAP = re.compile(r"tap[0-9]+")


def state(node: Node) -> dict[str, Any]:
    """Links, rules, routes, proxied neighbours, nftables, settings of taps, state documents.

    Left out: the kernel's own routes, and of our own tables everything but elements, as rules do
    nothing without them. So nothing is left of a NIC where this is what it was before.
    """
    script = f"\necho '{_BOUNDARY}'\n".join(_QUESTIONS.values())
    said = node.run("sh", "-euc", script).stdout.split(f"{_BOUNDARY}\n")
    found = dict(zip(_QUESTIONS, said, strict=True))

    def shown(name: str) -> list[dict[str, Any]]:
        return [*json.loads(found[name] or "[]"), *json.loads(found.get(f"{name}6") or "[]")]

    tables = json.loads(found["tables"])["nftables"]
    return {
        "links": dict(map(_link, shown("links"))),
        "rules": shown("rules"),
        "routes": [one for one in shown("routes") if one.get("protocol") != "kernel"],
        "proxies": {(one["dev"], one["dst"]) for one in shown("proxies")},
        "tables": [kept for one in tables for kept in _kept(one)],
        "sysctls": dict(line.rsplit(":", 1) for line in found["sysctls"].splitlines()),
        "documents": set(found["documents"].split()),
    }


def taps(found: dict[str, Any]) -> set[str]:
    """The names of instances' interfaces in a state."""
    return {name for name in found["links"] if _TAP.fullmatch(name)}


def _link(shown: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    port = shown.get("linkinfo", {}).get("info_slave_data", {})
    return shown["ifname"], {
        "address": shown["address"],
        "mtu": shown["mtu"],
        "master": shown.get("master"),
        "up": "UP" in shown["flags"],
        "port": {name: port.get(name) for name in ("isolated", "learning", "flood", "mcast_flood")},
    }


def _kept(entry: dict[str, Any]) -> Iterator[Any]:
    """What is compared of an entry of nft's JSON."""
    [(kind, what)] = entry.items()
    if kind == "metainfo":
        return
    ours = what["name" if kind == "table" else "table"] == "snf"
    if not ours:
        yield entry
    # "ruleset.*" say which rules are loaded.
    elif kind in {"set", "map"} and not what["name"].startswith("ruleset."):
        for element in what.get("elem", []):
            yield what["family"], what["name"], json.dumps(element, sort_keys=True)
