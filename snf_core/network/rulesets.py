"""Rulesets: the static rules of setups in our nftables tables, and what kernels they need.

A ruleset is a text in nft(8)'s notation with a name, which declares what a setup needs in tables
named ``snf``. In the kernel stands for each a set, empty but for a constant, whose name has the
ruleset's name and a digest of its text in it. A transaction that adds that constant fails unless
exactly this text is loaded, which costs nothing and reads nothing.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

from snf_core.errors import NetworkError
from snf_core.network.elements import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BASE_NAME = "base"
BASE = """\
table bridge snf {
}
table arp snf {
}
table inet snf {
    # Every NIC stands here, whatever else it has. What is left of a NIC that nobody remembers
    # is found by this when another gets its name.
    set nics {
        type ifname
    }
}
"""
"""What all rulesets rely on."""

DELETION = "".join(f"table {family} snf\ndelete table {family} snf\n" for family in FAMILIES)
"""Our tables are gone afterwards, whether they were there or not."""

_PREFIX = "ruleset."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_TABLE = re.compile(rf"\s*table\s+(?:{'|'.join(FAMILIES)})\s+snf\s*")


def digest(text: str) -> str:
    """What tells a ruleset's text from another, in the name of its set."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checked(name: str, text: str) -> None:
    """Raises NetworkError where a ruleset would touch what is not ours."""
    if not _NAME.fullmatch(name):
        raise NetworkError(f"{name!r} cannot be the name of a ruleset")
    depth = start = 0
    code = re.sub("#.*", "", text)
    outside = ""
    for found in re.finditer("[{}]", code):
        if depth == 0:
            outside = code[start : found.start()]
            if not _TABLE.fullmatch(outside):
                break
        depth += 1 if found[0] == "{" else -1
        start = found.end()
    else:
        outside = code[start:].strip()
        if depth == 0 and not outside:
            return
    raise NetworkError(
        f"the nftables rules {name} hold {outside.strip()!r} outside of tables named snf",
        remedy="correct the setup that they are of: all that it needs is to be in such tables",
    )


def definition(name: str, text: str) -> str:
    """What loads a ruleset and marks it as loaded."""
    mark = f"{_PREFIX}{name}.{digest(text)}"
    body = f"set {mark} {{\n        type mark\n        elements = {{ 1 }}\n    }}"
    return f"{text}\ntable inet snf {{\n    {body}\n}}\n"


def assertion(name: str, text: str) -> str:
    """What fails unless the ruleset is loaded, with this text."""
    return f"add element inet snf {_PREFIX}{name}.{digest(text)} {{ 1 }}\n"


def marked(set_name: str) -> tuple[str, str] | None:
    """Name and digest of the ruleset that a set stands for, None where it stands for none."""
    if not set_name.startswith(_PREFIX):
        return None
    name, _, its_digest = set_name.removeprefix(_PREFIX).rpartition(".")
    return name, its_digest


class Need(NamedTuple):
    """Something that rules may need and a kernel may lack."""

    what: str
    family: str
    """Of the tables that may need it."""
    used: str
    """Pattern of what they hold if they do."""
    rule: str
    """The least rule that needs it."""
    option: str
    """The kernel's build option, and the module that it makes."""
    chain: str = "filter hook forward priority 0"

    def probe(self) -> str:
        """A table that only a kernel that has it can load."""
        return (
            f"table {self.family} snf_probe {{\n chain probe {{\n"
            f"  type {self.chain}; policy accept;\n  {self.rule}\n }}\n}}\n"
        )


_CT = r"\bct "
_RATE = "limit rate 1/second accept"
_INPUT = "filter hook input priority 0"
_NAT = "nat hook postrouting priority 100"

NEEDS = (
    Need("bridge tables", "bridge", "", "accept", "NF_TABLES_BRIDGE"),
    Need("ARP tables", "arp", "", "accept", "NF_TABLES_ARP", _INPUT),
    Need("IP tables", "inet", "", "accept", "NF_TABLES_INET"),
    Need(
        *("connection tracking on bridges", "bridge", _CT, "ct state established accept"),
        "NF_CONNTRACK_BRIDGE, module nf_conntrack_bridge",
    ),
    Need(
        *("rules about a port's bridge or VLAN", "bridge", r"\b[io]br(?:name|pvid|vproto)\b"),
        *('meta ibrname "br0" accept', "NFT_BRIDGE_META, module nft_meta_bridge"),
    ),
    Need(
        *("connection tracking", "inet", _CT, "ct state established accept"),
        "NF_CONNTRACK and NFT_CT, module nft_ct",
    ),
    Need(
        *("source NAT", "inet", r"\b(?:masquerade|snat)\b", "masquerade"),
        *("NFT_NAT and NFT_MASQ, modules nft_chain_nat and nft_masq", _NAT),
    ),
    Need(
        *("reverse path lookups", "inet", r"\bfib ", "fib saddr oif 0 drop"),
        *("NFT_FIB_INET, module nft_fib_inet", _INPUT),
    ),
    Need(
        *("rejecting", "inet", r"\breject\b", "reject"),
        *("NFT_REJECT_INET, module nft_reject_inet", _INPUT),
    ),
    Need("limits", "inet", r"\blimit rate\b", _RATE, "NFT_LIMIT, module nft_limit"),
    Need("limits", "bridge", r"\blimit rate\b", _RATE, "NFT_LIMIT, module nft_limit"),
    Need("logging", "inet", r"\blog\b", "log", "NFT_LOG, module nft_log"),
    Need("logging", "bridge", r"\blog\b", "log", "NFT_LOG, module nft_log"),
)


def lacking(text: str, refused: Callable[[str], str]) -> list[Need]:
    """What a ruleset needs of which the kernel, by ``refused`` (see ``unloadable``), has not."""
    tables = re.split(r"^\s*table\s+", re.sub("#.*", "", text), flags=re.MULTILINE)
    return [
        need
        for need in NEEDS
        if any(one.split(" ")[0] == need.family and re.search(need.used, one) for one in tables)
        and refused(need.probe())
    ]


def unloadable(name: str, text: str, refused: Callable[[str], str]) -> NetworkError | None:
    """Why a ruleset cannot be loaded, None where it can be; nothing is changed by finding out.

    ``refused`` says why the kernel, or nft, does not take a text, "" where it does.
    """
    reason = refused(DELETION + BASE + definition(name, text))
    if not reason:
        return None
    lacks = lacking(text, refused)
    if lacks:
        return NetworkError(
            f"this kernel lacks what the nftables rules {name} need: "
            + "; ".join(f"{need.what} ({need.option})" for need in lacks),
            remedy="run Debian's kernel, or one built with that, and see that the module can be "
            "loaded; or take the setup out of [network] setups",
        )
    return NetworkError(
        f"the nftables rules {name} cannot be loaded: {first(reason)}",
        remedy="correct the setup that they are of, or its options",
    )


def first(reason: str) -> str:
    """The first of nft's reasons. The line that it shows beside is not always the right one."""
    lines = [line for line in reason.splitlines() if line.startswith("Error: ")]
    return (lines or reason.splitlines())[0].removeprefix("Error: ")[:400]


def together(rulesets: Mapping[str, str]) -> str:
    """What loads all rulesets, the base among them, in a table that was empty."""
    return "".join(definition(name, text) for name, text in rulesets.items())
