"""What the running kernel can do, found out by trying it in a namespace made for that.

A probe is commands that must succeed in a fresh namespace; see ``conftest`` for its use.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.machine import MachineError, NetworkNamespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def lacking(names: Iterable[str]) -> dict[str, str]:
    """Those of the named abilities that this kernel lacks, and what it said. KeyError."""
    tried = {name: _refusal(PROBES[name]) for name in sorted(names)}
    return {name: refusal for name, refusal in tried.items() if refusal}


def _refusal(probe: Callable[[NetworkNamespace], object]) -> str:
    with NetworkNamespace() as namespace:
        try:
            probe(namespace)
        except MachineError as error:
            return str(error)
    return ""


def _bridge_conntrack(namespace: NetworkNamespace) -> None:
    _load(namespace, "bridge", "ct state established accept")


def _bridge_vlan_meta(namespace: NetworkNamespace) -> None:
    _load(namespace, "bridge", "meta ibrpvid 1 accept")


def _load(namespace: NetworkNamespace, family: str, rule: str) -> None:
    chain = "chain probe { type filter hook forward priority 0; " + rule + "; };"
    namespace.run(["nft", f"table {family} probe {{ {chain} }}"])


def _vlan_filtering(namespace: NetworkNamespace) -> None:
    """Kernels without it ignore the bridge's setting, and refuse VLANs of its ports."""
    namespace.run(["ip", "link", "add", "probe", "type", "bridge", "vlan_filtering", "1"])
    namespace.run(["bridge", "vlan", "add", "dev", "probe", "vid", "2", "self"])


def _vlan_device(namespace: NetworkNamespace) -> None:
    namespace.run(["ip", "link", "add", "probe", "type", "bridge"])
    namespace.run(["ip", "link", "add", "link", "probe", "name", "vlan", "type", "vlan", "id", "2"])


def _openvswitch(_namespace: NetworkNamespace) -> None:
    """The programs and the kernel's datapath."""
    if shutil.which("ovs-vswitchd") is None:
        raise MachineError("ovs-vswitchd is not installed")
    if not Path("/sys/module/openvswitch").exists():
        done = subprocess.run(["modprobe", "openvswitch"], capture_output=True, check=False)
        if done.returncode != 0:
            raise MachineError("no module openvswitch")


PROBES: dict[str, Callable[[NetworkNamespace], object]] = {
    "bridge-conntrack": _bridge_conntrack,
    "bridge-vlan-meta": _bridge_vlan_meta,
    "vlan-filtering": _vlan_filtering,
    "8021q": _vlan_device,
    "openvswitch": _openvswitch,
}
"""By the names that marks use."""
