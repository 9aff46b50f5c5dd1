"""NIC events as libxl delivers them, of NICs in Ganeti's files, and as nobody should."""

from __future__ import annotations

import contextlib
import ipaddress
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import CommandError, InvalidValueError, NetworkError, SnfError
from snf_core.model import Action, Mode, Network, Nic, NicEvent, Twin
from snf_xen import description, nic
from snf_xen.xenstore import Xenstore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UUID = "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01"
MAC = "aa:00:10:38:54:25"

ENVIRON = {
    "script": "/etc/xen/scripts/vif-ganeti",
    "XENBUS_TYPE": "vif",
    "XENBUS_PATH": "backend/vif/5/0",
    "XENBUS_BASE_PATH": "backend",
    "netdev": "",
    "vif": "vif5.0",
}
"""All that libxl gives, and there may be nothing else: no PATH."""

ONLINE = ["event", "online", "type_if=vif"]
OFFLINE = ["event", "offline", "type_if=vif"]

BARE = rf"""TAGS="itag2\ itag1"
MAC={MAC}
INTERFACE_INDEX=0
INTERFACE_UUID={UUID}
MODE=bridged
LINK=br0
VLAN=
"""

NETWORK = rf"""TAGS="web\ public"
NETWORK_NAME="net 1"
NETWORK_UUID="{UUID}"
NETWORK_TAGS="dns nfdhcpd ip-less-routed"
NETWORK_SUBNET="198.51.100.0/24"
NETWORK_GATEWAY="198.51.100.1"
NETWORK_SUBNET6="2001:db8::/64"
NETWORK_GATEWAY6="2001:db8::1"
NETWORK_MAC_PREFIX="aa:00:10"
MAC={MAC}
IP=198.51.100.3
INTERFACE_INDEX=0
INTERFACE_NAME=lan side
INTERFACE_UUID={UUID}
MODE=routed
LINK=100
VLAN=
"""


class Store(Xenstore):
    """Keys in memory; without any, as where xenstored does not run."""

    def __init__(self, **changes: str) -> None:
        super().__init__()
        self.values = {
            "/local/domain/5/name": "web1.gnt.test",
            "backend/vif/5/0/mac": MAC,
        } | {key.replace("__", "/"): value for key, value in changes.items()}

    def read(self, path: str) -> str | None:
        if not self.values:
            raise CommandError("xenstored does not run")
        return self.values.get(path)

    def tree(self, path: str) -> dict[str, str]:
        below = f"{path}/"
        return {
            key.removeprefix(below): value
            for key, value in self.values.items()
            if key.startswith(below)
        }


def told(
    argv: Sequence[str],
    environ: Mapping[str, str],
    store: Store,
    ganeti: Path = Path("/nowhere"),
    own: Path = Path("/nowhere"),
) -> NicEvent:
    return nic.nic_event(argv, environ, store, own, ganeti)


def named(name: str) -> Store:
    """One in which the domain has another name."""
    store = Store()
    store.values["/local/domain/5/name"] = name
    return store


def describe(directory: Path, text: str, instance: str = "web1.gnt.test", number: int = 0) -> None:
    """Write a NIC's file, as Ganeti does."""
    (directory / instance).mkdir(exist_ok=True)
    (directory / instance / str(number)).write_bytes(text.encode(errors="surrogateescape"))


def online(directory: Path, text: str, store: Store | None = None) -> NicEvent:
    """The event of a vif whose NIC's file is ``text``."""
    describe(directory, text)
    return told(ONLINE, ENVIRON, store or Store(), directory)


@pytest.mark.parametrize(
    "argv", [ONLINE, ["event", "online"], ["up", "online", "type_if=vif"], ["up", "online"]]
)
def test_a_bare_vif(argv: list[str], tmp_path: Path) -> None:
    describe(tmp_path, BARE)
    assert told(argv, ENVIRON, Store(), tmp_path) == NicEvent(
        action=Action.UP,
        interface="vif5.0",
        instance="web1.gnt.test",
        nic=Nic(index=0, mac=MAC, mode=Mode.BRIDGED, link="br0", uuid=UUID),
        instance_tags=frozenset({"itag1", "itag2"}),
    )


def test_a_vif_in_a_network(tmp_path: Path) -> None:
    event = online(tmp_path, NETWORK)
    assert event.instance_tags == {"web", "public"}
    assert event.nic == Nic(
        index=0,
        mac=MAC,
        mode=Mode.ROUTED,
        link="100",
        ip=ipaddress.ip_address("198.51.100.3"),
        name="lan side",
        uuid=UUID,
        network=Network(
            name="net 1",
            uuid=UUID,
            subnet=ipaddress.IPv4Network("198.51.100.0/24"),
            gateway=ipaddress.IPv4Address("198.51.100.1"),
            subnet6=ipaddress.IPv6Network("2001:db8::/64"),
            gateway6=ipaddress.IPv6Address("2001:db8::1"),
            mac_prefix="aa:00:10",
            tags=frozenset({"ip-less-routed", "nfdhcpd", "dns"}),
        ),
    )


@pytest.mark.parametrize(
    ("written", "tags"),
    [
        ('TAGS=""', set()),
        ('TAGS="one"', {"one"}),
        (r'TAGS="a\ b\ c"', {"a", "b", "c"}),
        ('TAGS="a b"', {"a", "b"}),
    ],
)
def test_tags_however_their_blanks_are_written(
    written: str, tags: set[str], tmp_path: Path
) -> None:
    event = online(tmp_path, BARE.replace(r'TAGS="itag2\ itag1"', written))
    assert event.instance_tags == tags


def test_nothing_is_executed(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    text = NETWORK.replace("net 1", f"$(touch {touched})").replace("lan side", f"`touch {touched}`")
    event = online(tmp_path, text)
    assert event.nic
    assert event.nic.name == f"`touch {touched}`"
    assert event.nic.network
    assert event.nic.network.name == f"$(touch {touched})"
    assert not touched.exists()


def test_a_name_may_hold_quotes(tmp_path: Path) -> None:
    event = online(tmp_path, NETWORK.replace("net 1", 'a"b').replace("lan side", '"lan"'))
    assert event.nic
    assert event.nic.name == '"lan"'
    assert event.nic.network
    assert event.nic.network.name == 'a"b'


@pytest.mark.parametrize(
    "line",
    [
        "IP=198.51.100.66",
        'NETWORK_NAME="other"',
        'TAGS="trusted"',
        "MODE=bridged",
        "LINK=br-admin",
        "VLAN=.20",
        "INTERFACE_INDEX=0",
        "VLAN=\nINTERFACE_NAME=again",
    ],
)
def test_a_name_with_line_ends_adds_nothing(line: str, tmp_path: Path) -> None:
    text = BARE.replace("INTERFACE_UUID", f"INTERFACE_NAME=nic\n{line}\nINTERFACE_UUID")
    with pytest.raises(InvalidValueError, match=r"/0: .*(order|what Ganeti writes)"):
        online(tmp_path, text)


@pytest.mark.parametrize(
    "line",
    [
        "export MAC",
        "# a comment",
        "",
        " VLAN2=",
        "vlan=1",
        "TAGS2",
        "source /etc/passwd",
        "NETWORK_NAME=net1",
        'NETWORK_NAME="net1',
        'NETWORK_NAME="',
        "TAGS=bare",
    ],
)
def test_lines_that_ganeti_does_not_write(line: str, tmp_path: Path) -> None:
    for text in (f"{line}\n{BARE}", f"{BARE}{line}\n"):
        with pytest.raises(InvalidValueError, match=r"/web1\.gnt\.test/0: .* is not what Ganeti"):
            online(tmp_path, text)


def test_variables_of_other_versions_are_tolerated(tmp_path: Path) -> None:
    assert online(tmp_path, f"{BARE}MTU=9000\n") == online(tmp_path, BARE)


@pytest.mark.parametrize("name", ["MAC", "INTERFACE_INDEX", "MODE", "LINK"])
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    lines = [line for line in BARE.splitlines(keepends=True) if not line.startswith(f"{name}=")]
    with pytest.raises(InvalidValueError, match=rf"/0: {name}: missing"):
        online(tmp_path, "".join(lines))


@pytest.mark.parametrize(
    ("right", "wrong", "name"),
    [
        (MAC, "01:00:5e:00:00:01", "MAC"),
        ("LINK=br0", "LINK=br0/../br1", "LINK"),
        ("LINK=br0", "LINK=br0;reboot", "LINK"),
        ("MODE=bridged", "MODE=bridge", "MODE"),
        ("VLAN=", "VLAN=4095", "VLAN"),
        ("itag1", "`reboot`", "TAGS"),
        ("itag1", r"a\\ b", "TAGS"),
        ("itag1", "a\x1bb", "TAGS"),
    ],
)
def test_what_is_wrong_is_named(right: str, wrong: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=rf"/0: {name}: "):
        online(tmp_path, BARE.replace(right, wrong))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"/0 cannot be read: .*decode"):
        online(tmp_path, BARE.replace("br0", "\udcff"))


def test_a_nic_that_ganeti_has_not_described_here(tmp_path: Path) -> None:
    """As on the node to which an instance migrates."""
    with pytest.raises(NetworkError, match=r" NIC 0 .* no .*/web1\.gnt\.test/0, and ") as caught:
        told(ONLINE, ENVIRON, named("web1.gnt.test--incoming"), tmp_path)
    assert "gnt-instance failover" in caught.value.remedy


@pytest.mark.parametrize(
    ("old", "new"), [(MAC, "aa:00:10:00:00:01"), ("INTERFACE_INDEX=0", "INTERFACE_INDEX=1")]
)
def test_a_file_that_was_left_behind_is_not_believed(old: str, new: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=rf"vif5\.0 is NIC 0 .* with MAC address {MAC}, but "):
        online(tmp_path, BARE.replace(old, new))


def test_the_mac_address_in_xenstore_may_be_in_capitals(tmp_path: Path) -> None:
    store = Store()
    store.values["backend/vif/5/0/mac"] = MAC.upper()
    assert online(tmp_path, BARE, store)


def test_a_domain_of_several_nics(tmp_path: Path) -> None:
    describe(tmp_path, BARE.replace("INTERFACE_INDEX=0", "INTERFACE_INDEX=12"), number=12)
    environ = ENVIRON | {"vif": "vif32751.12", "XENBUS_PATH": "backend/vif/32751/12"}
    store = Store()
    store.values = {
        "/local/domain/32751/name": "web1.gnt.test",
        "backend/vif/32751/12/mac": MAC,
    }
    event = told(ONLINE, environ, store, tmp_path)
    assert event.interface == "vif32751.12"
    assert event.nic
    assert event.nic.index == 12


@pytest.mark.parametrize("prefix", ["", "/", "/local/domain/0/"])
def test_paths_in_xenstore_in_all_their_forms(prefix: str, tmp_path: Path) -> None:
    describe(tmp_path, BARE)
    environ = ENVIRON | {"XENBUS_PATH": f"{prefix}backend/vif/5/0"}
    store = Store()
    store.values = {f"{prefix}backend/vif/5/0/mac": MAC, "/local/domain/5/name": "web1.gnt.test"}
    assert told(ONLINE, environ, store, tmp_path)
    assert nic.backend(environ) == environ["XENBUS_PATH"]


@pytest.mark.parametrize(
    "path",
    [
        "backend/vif/5/1",
        "backend/vif/6/0",
        "backend/vbd/5/0",
        "--help",
        "backend/vif/5/0/../../6/0",
        "backend/vif/5/0\n",
    ],
)
def test_other_paths_in_xenstore_are_refused(path: str) -> None:
    with pytest.raises(InvalidValueError, match=r"^XENBUS_PATH: "):
        nic.backend(ENVIRON | {"XENBUS_PATH": path})


def test_a_plan_needs_no_path_in_xenstore(tmp_path: Path) -> None:
    describe(tmp_path, BARE)
    event = told(["up", "online"], {"vif": "vif5.0"}, Store(), tmp_path)
    assert event == told(ONLINE, ENVIRON, Store(), tmp_path)


@pytest.mark.parametrize(
    ("name", "instance", "local_only"),
    [
        ("web1.gnt.test", "web1.gnt.test", False),
        ("web1.gnt.test--migratedaway", "web1.gnt.test", True),
        ("web1.gnt.test--incoming", "web1.gnt.test", True),
        ("$(reboot)", "", False),
        ("--incoming", "", False),
        ("", "", False),
    ],
)
def test_a_vif_that_goes(name: str, instance: str, local_only: bool) -> None:
    expected = NicEvent(Action.DOWN, "vif5.0", instance, local_only=local_only)
    assert told(OFFLINE, ENVIRON, named(name)) == expected


def test_a_vif_goes_whatever_is_left_of_it() -> None:
    gone = Store()
    gone.values = {}
    assert told(OFFLINE, ENVIRON, gone) == NicEvent(Action.DOWN, "vif5.0", "")


@pytest.mark.parametrize(
    "name", ["..", "../web2", "/etc", "a/b", "web1\\nx", "a b", "-n", "x" * 300]
)
def test_domains_that_cannot_be_instances(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"^the name of domain 5: "):
        told(ONLINE, ENVIRON, named(name), tmp_path)


def test_a_domain_without_a_name(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"^vif5\.0: the name of domain 5 is not in xenstore"):
        told(ONLINE, ENVIRON, named(""), tmp_path)


EMULATED = ENVIRON | {"INTERFACE": "vif5.0-emu"}
ADD = ["event", "add", "type_if=tap"]


def emulated(**more: str) -> Store:
    """One in which the NIC is emulated."""
    store = Store()
    store.values["backend/vif/5/0/type"] = "vif_ioemu"
    store.values |= {f"backend/vif/5/0/{key}": value for key, value in more.items()}
    return store


def test_an_emulated_nic_is_one_nic_of_two_interfaces(tmp_path: Path) -> None:
    describe(tmp_path, BARE)
    vif = told(ONLINE, EMULATED, emulated(), tmp_path)
    tap = told(ADD, EMULATED, emulated(), tmp_path)
    assert (vif.interface, vif.twin) == ("vif5.0", Twin.PARAVIRTUAL)
    assert (tap.interface, tap.twin) == ("vif5.0-emu", Twin.EMULATED)
    assert (vif.nic, vif.instance, vif.instance_tags) == (tap.nic, tap.instance, tap.instance_tags)
    removed = told(["event", "remove", "type_if=tap"], EMULATED, emulated())
    assert removed == NicEvent(Action.DOWN, "vif5.0-emu", "web1.gnt.test")


def test_the_tap_of_another_vif_is_refused(tmp_path: Path) -> None:
    environ = ENVIRON | {"INTERFACE": "vif6.0-emu"}
    for argv in (ADD, ["event", "remove", "type_if=tap"]):
        with pytest.raises(InvalidValueError, match=r"^INTERFACE: 'vif6.0-emu', but vif is "):
            told(argv, environ, emulated(), tmp_path)


def test_a_vif_that_is_to_have_another_name(tmp_path: Path) -> None:
    store = Store()
    store.values["backend/vif/5/0/vifname"] = "web0"
    event = online(tmp_path, BARE, store)
    assert (event.interface, event.rename, event.final_name) == ("vif5.0", "web0", "web0")
    store.values["backend/vif/5/0/vifname"] = "vif5.0"
    assert not online(tmp_path, BARE, store).rename
    tap = told(ADD, EMULATED, emulated(vifname="web0"), tmp_path)
    assert (tap.interface, tap.rename) == ("vif5.0-emu", "web0-emu")


@pytest.mark.parametrize(
    ("name", "is_emulated"),
    [("x" * 16, False), ("a/b", False), ("..", False), ("x" * 12, True), ("all", False)],
)
def test_names_that_no_interface_can_have(name: str, is_emulated: bool, tmp_path: Path) -> None:
    store = emulated(vifname=name) if is_emulated else Store()
    store.values["backend/vif/5/0/vifname"] = name
    with pytest.raises(InvalidValueError, match=r"^vifname: "):
        online(tmp_path, BARE, store)


def test_the_mtu_of_the_configuration(tmp_path: Path) -> None:
    store = Store()
    store.values["backend/vif/5/0/mtu"] = "9000"
    found = online(tmp_path, BARE, store).nic
    assert found
    assert found.mtu == 9000
    for wrong in ("67", "70000", "-1", "9000x"):
        store.values["backend/vif/5/0/mtu"] = wrong
        with pytest.raises(InvalidValueError, match=r"^mtu: "):
            online(tmp_path, BARE, store)


def by_xl(directory: Path, **keys: str) -> NicEvent:
    """The event of a vif of a domain that Ganeti knows nothing of."""
    store = Store()
    store.values |= {f"backend/vif/5/0/{key}": value for key, value in keys.items()}
    return told(["event", "xl", "online", "type_if=vif"], ENVIRON, store, own=directory)


def test_without_a_description_what_xl_knows_is_bridged(tmp_path: Path) -> None:
    event = by_xl(tmp_path, bridge="br0", ip="198.51.100.3", mtu="1400")
    address = ipaddress.ip_address("198.51.100.3")
    assert event.nic == Nic(0, MAC, Mode.BRIDGED, "br0", ip=address, mtu=1400)
    assert event.instance == "web1.gnt.test"


def test_a_description_of_the_operators(tmp_path: Path) -> None:
    text = '# routed\n\nMODE=routed\n LINK=100\nIP=198.51.100.4\nTAGS="a b"\n'
    describe(tmp_path, text)
    event = by_xl(tmp_path, bridge="br0", ip="198.51.100.3")
    address = ipaddress.ip_address("198.51.100.4")
    assert event.nic == Nic(0, MAC, Mode.ROUTED, "100", ip=address)
    assert event.instance_tags == {"a", "b"}
    describe(tmp_path, f"MAC=aa:00:10:00:00:01\n{text}")
    with pytest.raises(NetworkError, match=r"^vif5\.0 is NIC 0 .* describes NIC 0 with aa:00"):
        by_xl(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("MODE=route\n", "MODE: 'route' is not"), ("IP=1\n", "MODE: missing"), ("what?", "is not")],
)
def test_what_is_wrong_in_it_is_named(text: str, reason: str, tmp_path: Path) -> None:
    describe(tmp_path, text)
    with pytest.raises(InvalidValueError, match=rf"/web1\.gnt\.test/0: .*{reason}"):
        by_xl(tmp_path)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"ip": "198.51.100.3 198.51.100.4"}, "IP: "),
        ({"bridge": "a b"}, "LINK: "),
        ({"bridge": ""}, "LINK: missing"),
    ],
)
def test_what_is_wrong_in_the_configuration_is_named(
    keys: dict[str, str], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidValueError, match=rf"^its configuration: {reason}"):
        by_xl(tmp_path, **{"bridge": "br0", **keys})


def test_ganetis_instances_are_never_taken_for_others(tmp_path: Path) -> None:
    """Or the NIC of one that migrates would be without its filters."""
    store = Store()
    store.values["backend/vif/5/0/bridge"] = "br0"
    with pytest.raises(NetworkError, match="there is no"):
        told(ONLINE, ENVIRON, store, tmp_path / "none", own=tmp_path)


def test_ganeti_is_asked_where_it_has_written_nothing(tmp_path: Path) -> None:
    def ask(instance: str, index: int) -> dict[str, str]:
        assert (instance, index) == ("web1", 3)
        return {"MAC": MAC, "INTERFACE_INDEX": "3", "MODE": "bridged", "LINK": "br0", "TAGS": "a"}

    nic, tags, source = description.by_ganeti("web1", 3, tmp_path, ask)
    assert nic == Nic(3, MAC, Mode.BRIDGED, "br0")
    assert (set(tags), source) == ({"a"}, "Ganeti's configuration")


@pytest.mark.parametrize("action", ["online", "offline"])
@pytest.mark.parametrize(
    "name",
    ["", "vif5", "vif5.", "vif.0", "tap0", "vif5.0-emu", "vif5.0\n", "vif\u0665.0", "../vif5.0"],
)
def test_other_interfaces_are_refused(action: str, name: str) -> None:
    with pytest.raises(InvalidValueError, match=r"^vif: "):
        told(["event", action], ENVIRON | {"vif": name}, Store())


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["event"],
        ["event", "start"],
        ["event", "online", "type_if=tap"],
        ["event", "offline", "type_if=tap"],
        ["event", "add"],
        ["event", "add", "type_if=vif"],
        ["event", "online", "type_if=vif", "x"],
    ],
)
def test_arguments_that_are_none_are_named(argv: list[str]) -> None:
    with pytest.raises(InvalidValueError, match=r"^arguments: "):
        told(argv, ENVIRON, Store())


LINES = st.one_of(
    st.sampled_from(NETWORK.splitlines()),
    st.builds("{}={}".format, st.sampled_from(["MAC", "MODE", "LINK", "VLAN", "IP"]), st.text()),
    st.builds('{}="{}"'.format, st.sampled_from(["TAGS", "NETWORK_TAGS"]), st.text()),
    st.text(),
)


@given(st.lists(LINES, max_size=20), st.integers(0, 17), st.text(max_size=20))
def test_whatever_the_file_holds_is_an_event_or_an_error_of_ours(
    lines: list[str], place: int, name: str
) -> None:
    whole = NETWORK.splitlines()
    for some in (lines, [*whole[:place], *lines[:1], *whole[place + 1 :]]):
        with tempfile.TemporaryDirectory() as directory, contextlib.suppress(SnfError):
            store = Store() if lines else named(name)
            event = online(Path(directory), "\n".join(some), store)
            assert event.interface == "vif5.0"
            assert event.nic
            assert event.nic.mac == MAC


def test_a_misspelt_variable_of_the_operators_is_refused(tmp_path: Path) -> None:
    """Or the NIC would lack what it was meant to have: its filters, say."""
    (tmp_path / "web1").mkdir()
    file = tmp_path / "web1/0"
    file.write_text('NETWORK_TAG="filtered"\nMODE=bridged\nLINK=br0\n')
    with pytest.raises(InvalidValueError, match="NETWORK_TAG means nothing"):
        description.by_operator("web1", 0, tmp_path, {"mac": "aa:00:10:38:54:25"})
