"""What this node's kernel can do for the network setups in use, for ``snf doctor``.

It is tried in a network namespace that nobody else is in, and that is gone afterwards.
"""

from __future__ import annotations

import ctypes
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core import extension
from snf_core.contract import Finding
from snf_core.errors import SnfError
from snf_core.model import Mode
from snf_core.network.nft import Nft
from snf_core.network.rulesets import unloadable
from snf_core.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snf_core.config import Config
    from snf_core.contract import Setup

_CLONE_NEWNET = 0x40000000
_LACKS_VLANS = (
    "run Debian's kernel, or one built with BRIDGE_VLAN_FILTERING; without it a NIC of a bridge "
    "cannot have a VLAN"
)


def check(settings: Config) -> Iterator[Finding]:
    """Whether the setups in use find what they need. Only root can try."""
    if os.geteuid() != 0:
        yield Finding(False, "what this kernel can do for NICs is not known", "run it as root")
        return
    try:
        yield from _elsewhere(lambda: list(_tried(settings)))
    except (SnfError, OSError) as error:
        yield Finding(
            False,
            f"what this kernel can do for NICs cannot be tried: {error}",
            "run it outside of containers without privileges",
        )


def _elsewhere(function: Callable[[], list[Finding]]) -> list[Finding]:
    """What a function returns in a new network namespace, in which only its thread is."""
    results: list[Finding] = []
    errors: list[Exception] = []

    def call() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(_CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), "unshare")
            results.extend(function())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results


def _tried(settings: Config) -> Iterator[Finding]:
    for name in settings.network.setups:
        try:
            setup = extension.make(extension.NETWORK_SETUP, name, settings)
        except SnfError:
            continue  # said already, with the plugins
        for finding in _rules(name, setup):
            yield finding._replace(statement=f"network setup {name}: {finding.statement}")
    if "bridged" in settings.network.setups:
        yield _vlans()
    if "openvswitch" in settings.network.setups:
        yield _switch()


def _rules(name: str, setup: Setup) -> Iterator[Finding]:
    """Of the rules that it has for NICs of each mode, which this kernel does not take."""
    nft = Nft(lambda: ({}, ()), Path(os.devnull))  # which it has no use for: nothing is changed
    texts = {setup.ruleset(mode): mode for mode in reversed(Mode)}
    texts.pop("", None)
    wrong = 0
    for text, mode in texts.items():
        error = unloadable(f"{name}-{mode.value}", text, nft.refusal)
        if error:
            wrong += 1
            yield Finding(False, error.message, error.remedy, fatal=False)
    if texts and not wrong:
        yield Finding(True, "this kernel takes its nftables rules")


def _vlans() -> Finding:
    """Whether bridges know VLANs. A kernel whose do not refuses that they should, or ignores it."""
    commands = b"link add name probe type bridge vlan_filtering 1\nlink show dev probe\n"
    done = run(["ip", "-details", "-json", "-batch", "-"], stdin=commands, check=False)
    aware = done.returncode == 0 and bool(
        json.loads(done.stdout)[0]["linkinfo"]["info_data"].get("vlan_filtering")
    )
    return Finding(
        aware, f"bridges {'can' if aware else 'cannot'} filter VLANs", _LACKS_VLANS, fatal=False
    )


def _switch() -> Finding:
    try:
        run(["ovs-vsctl", "--timeout=5", "list-br"])
    except SnfError as error:
        remedy = "install openvswitch-switch, and see that it runs"
        return Finding(False, f"Open vSwitch does not answer: {error.message}", remedy, fatal=False)
    return Finding(True, "Open vSwitch answers")
