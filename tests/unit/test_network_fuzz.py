"""Whatever the environment of a NIC event holds, it is refused by name or does no harm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from snf_core import config, extension
from snf_core.errors import InvalidValueError, NetworkError
from snf_core.network import extra
from snf_core.network.document import Documents, facts
from snf_core.network.elements import stated
from snf_core.network.engine import Engine
from snf_core.network.state import ELEMENT, LINK, NEIGHBOUR, PORT, ROUTE, RULE, SYSCTL, Change, Item
from tests.fakes.kernel import FakeKernel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snf_core.contract import Hypervisor

VALID = {
    "INTERFACE": ["tap0"],
    "INTERFACE_INDEX": ["0", "31"],
    "INTERFACE_NAME": ["lan", "a b"],
    "INTERFACE_UUID": ["3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01"],
    "INSTANCE": ["web1.gnt.test"],
    "MAC": ["aa:00:10:38:54:25", "FE:00:00:00:00:01"],
    "MODE": ["bridged", "routed", "openvswitch", "ext"],
    "ACTION": ["up"],
    "MIGRATION_PHASE": ["pre", "post"],
    "LINK": ["br0", "100", "eth0"],
    "IP": ["198.51.100.3", "2001:db8::3"],
    "VLAN": [".100", ":200:300", "100"],
    "TAGS": [
        "gnt:isolate",
        "gnt:whitelist_ip:192.0.2.1 disable_ipv6",
        "synnefo:network:0:protected synnefo:network:lan:limited",
    ],
    "NETWORK_NAME": ["net1"],
    "NETWORK_SUBNET": ["198.51.100.0/24"],
    "NETWORK_GATEWAY": ["198.51.100.1"],
    "NETWORK_SUBNET6": ["2001:db8::/64", "2001:db8::/56"],
    "NETWORK_GATEWAY6": ["2001:db8::1"],
    "NETWORK_MAC_PREFIX": ["aa:00:10"],
    "NETWORK_TAGS": [
        "ip-less-routed masq",
        "private-filtered ipv6-privacy",
        "filtered ip-spoofing router dhcp-server",
        "bridged",
    ],
}
"""Values of which any combination makes an event that somebody might send."""

HOSTILE = [
    *('tap0"', "tap0; reboot", "$(reboot)", "`reboot`", "tap0\nreboot", "-h", "--", "..", "a/b"),
    *("* . *", "{ } ; flush ruleset", "tap0 }\nflush ruleset", "'", "\\", "@filtered_macs"),
    *("aa:00:10:38:54:25 . 10.0.0.1", "01:00:5e:00:00:01", "00:00:00:00:00:00", "ff:ff"),
    'fe80::1%" }\nflush ruleset',
    *("192.0.2.1/24", "192.0.2.256", "fe80::1%tap0", "0x7f000001", "١٩٢.0.2.1", "::ffff:1.2.3.4"),
    *("gnt:whitelist_ip:0.0.0.0/0", "gnt:whitelist_ip:", "synnefo:network:0:", "\x00", "\ud800"),
    *("synnefo:network:0:protected}", "4095", ".0", ":1:", "999999999999999999999", "br0 br1"),
    *("eth0 proto kernel", "all", "default", "lo", "local", "255", "0", "a" * 16, "a" * 300, " "),
]

words = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20))


def _values(name: str) -> st.SearchStrategy[str]:
    plain = st.sampled_from(VALID[name])
    return st.one_of(plain, plain, plain, words, st.tuples(plain, words).map("".join))


ALWAYS = {"INTERFACE", "INTERFACE_INDEX", "INSTANCE", "MAC", "MODE", "LINK"}

environments = st.fixed_dictionaries(
    {name: _values(name) for name in sorted(ALWAYS)},
    optional={name: _values(name) for name in sorted(VALID.keys() - ALWAYS)},
)

NAMES = "|".join(VALID)

SAFE = {
    LINK: r"TAP",
    PORT: r"TAP",
    RULE: r"TAP",
    NEIGHBOUR: r"TAP|eth0",
    ROUTE: r"[0-9a-f.:]+/\d+",
    SYSCTL: r"net/ipv[46]/(conf|neigh)/TAP/[a-z_0-9]+",
    ELEMENT: r"(bridge|inet|arp) [a-z][a-z_0-9]+",
}
"""What an item may be about, whatever the environment said; TAP is the NIC's own name."""

COMMAND = re.compile(
    r'(add|create) element (bridge|inet|arp) snf [a-z][a-z_0-9]* \{ "[A-Za-z0-9_.:-]+"'
    r'( \. "[A-Za-z0-9_.:-]+")*( : ((jump|goto) [a-z][a-z_0-9]*|accept|drop|"[0-9a-f.:]+"))? \}'
)
"""All that nftables is ever told about a NIC."""


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> config.Config:
    """The defaults."""
    path = tmp_path_factory.mktemp("fuzz") / "snf.conf"
    path.write_text(f"[directories]\nruntime = {path.parent}\n")
    return config.Config([path])


@pytest.fixture(scope="module")
def hypervisor(conf: config.Config) -> Hypervisor:
    """The one whose events Ganeti delivers in the environment."""
    return extension.make(extension.HYPERVISOR, "kvm", conf)


@pytest.fixture(scope="module")
def engine(conf: config.Config, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """With all setups of the core."""
    setups = {
        name: extension.make(extension.NETWORK_SETUP, name, conf) for name in conf.network.setups
    }
    return Engine(setups, FakeKernel(), Documents(tmp_path_factory.mktemp("documents")))


@settings(max_examples=400)
@given(environ=environments)
@example(
    environ={name: values[0] for name, values in VALID.items()}
    | {"NETWORK_TAGS": "private-filtered", "VLAN": ""}
)
def test_an_event_is_refused_by_name_or_its_plan_is_harmless(
    hypervisor: Hypervisor, engine: Engine, environ: Mapping[str, str]
) -> None:
    refusal = ""
    try:
        event = hypervisor.nic_event(["up"], environ)
    except InvalidValueError as error:
        refusal = error.message
    if refusal:
        assert re.search(rf"\b({NAMES})\b", refusal)
        assert refusal.isprintable()
        return
    assert event is not None, "no tap is called like Ganeti's own"
    told = extra.environment(event, facts(event))
    assert all(value.isprintable() and value for value in told.values())
    try:
        state = engine.plan(event)
    except NetworkError:
        return
    for item in state.items:
        safe = SAFE[item.kind].replace("TAP", re.escape(event.interface))
        assert re.fullmatch(safe, item.object), item
    elements = [Change(item, None) for item in state.items if item.kind == ELEMENT]
    lines = stated(elements).splitlines()
    assert len(lines) == len(elements)
    for line in lines:
        assert COMMAND.fullmatch(line), line
    assert isinstance(engine.kernel, FakeKernel)
    assert engine.kernel.calls == []
    assert engine.documents.interfaces() == []


@given(words)
def test_no_element_carries_another_command(word: str) -> None:
    item = Item(ELEMENT, "bridge filtered_macs", f"tap0 {word}", True)
    try:
        text = stated([Change(item, None)])
    except NetworkError:
        return
    assert COMMAND.fullmatch(text.rstrip("\n"))


def test_the_environments_that_are_meant_to_be_good_are(
    hypervisor: Hypervisor, engine: Engine
) -> None:
    """Or else the tests above would only ever see refusals."""
    environ = {name: values[0] for name, values in VALID.items()}
    environ |= {"NETWORK_TAGS": "private-filtered", "VLAN": "", "TAGS": ""}
    event = hypervisor.nic_event(["up"], environ)
    assert event is not None
    kinds = {item.kind for item in engine.plan(event).items}
    assert {LINK, ELEMENT} <= kinds
    assert not Path("/run/snf/network/tap0.json").exists()
