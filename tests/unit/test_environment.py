"""What Ganeti's OS interface says in the environment: read, or refused by the variable's name."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import InvalidValueError
from snf_core.ganeti import environment
from snf_core.model import Disk, Instance, Mode, Network, Nic

UUID = "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01"

LEAST = {
    "OS_API_VERSION": "20",
    "INSTANCE_NAME": "web1.example.org",
    "HYPERVISOR": "kvm",
    "DISK_COUNT": "1",
    "DISK_0_PATH": "/dev/vg/disk0",
}

FULL = LEAST | {
    "INSTANCE_UUID": UUID,
    "DISK_COUNT": "2",
    "DISK_0_URI": "rbd:rbd/disk0",
    "DISK_0_NAME": "root disk",
    "DISK_0_UUID": UUID,
    "DISK_0_FRONTEND_TYPE": "paravirtual",
    "DISK_0_ACCESS": "rw",
    "DISK_1_URI": "rbd:rbd/disk1",
    "NIC_COUNT": "2",
    "NIC_0_MAC": "AA:00:00:00:00:01",
    "NIC_0_MODE": "bridged",
    "NIC_0_LINK": "br0",
    "NIC_0_IP": "192.0.2.5",
    "NIC_0_NAME": "lan",
    "NIC_0_UUID": UUID,
    "NIC_0_FRONTEND_TYPE": "paravirtual",
    "NIC_0_NETWORK_NAME": "net1",
    "NIC_0_NETWORK_UUID": UUID,
    "NIC_0_NETWORK_SUBNET": "192.0.2.0/24",
    "NIC_0_NETWORK_GATEWAY": "192.0.2.1",
    "NIC_0_NETWORK_SUBNET6": "2001:db8::/64",
    "NIC_0_NETWORK_GATEWAY6": "2001:db8::1",
    "NIC_0_NETWORK_MAC_PREFIX": "aa:00:00",
    "NIC_0_NETWORK_TAGS": "dhcp dns",
    "NIC_1_MAC": "aa:00:00:00:00:02",
    "NIC_1_MODE": "routed",
}


def test_the_least() -> None:
    assert environment.request(LEAST) == environment.Request(
        Instance("web1.example.org", "kvm"), (Disk(0, path="/dev/vg/disk0"),), ()
    )


def test_everything() -> None:
    network = Network(
        "net1",
        UUID,
        ipaddress.IPv4Network("192.0.2.0/24"),
        ipaddress.IPv4Address("192.0.2.1"),
        ipaddress.IPv6Network("2001:db8::/64"),
        ipaddress.IPv6Address("2001:db8::1"),
        "aa:00:00",
        frozenset({"dhcp", "dns"}),
    )
    assert environment.request(FULL) == environment.Request(
        Instance("web1.example.org", "kvm", UUID),
        (
            Disk(0, "/dev/vg/disk0", "rbd:rbd/disk0", "root disk", UUID, "paravirtual"),
            Disk(1, uri="rbd:rbd/disk1"),
        ),
        (
            Nic(
                0,
                "aa:00:00:00:00:01",
                Mode.BRIDGED,
                "br0",
                ipaddress.IPv4Address("192.0.2.5"),
                name="lan",
                uuid=UUID,
                frontend="paravirtual",
                network=network,
            ),
            Nic(1, "aa:00:00:00:00:02", Mode.ROUTED),
        ),
    )


def test_absent_and_empty_are_the_same() -> None:
    optional = FULL.keys() - LEAST.keys() - {"NIC_COUNT", "DISK_1_URI"} - {
        f"NIC_{n}_{what}" for n in range(2) for what in ("MAC", "MODE", "LINK")
    }  # fmt: skip
    absent = {name: value for name, value in FULL.items() if name not in optional}
    assert environment.request(FULL | dict.fromkeys(optional, "")) == environment.request(absent)


@pytest.mark.parametrize(
    "name", [*LEAST, "NIC_0_MAC", "NIC_0_MODE", "NIC_0_LINK", "NIC_1_MAC", "DISK_1_URI"]
)
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_what_is_missing_is_named(name: str, how: str) -> None:
    environ = FULL | {"DISK_0_URI": "", name: ""}
    if how == "absent":
        del environ[name]
    with pytest.raises(InvalidValueError) as caught:
        environment.request(environ)
    assert caught.value.message.startswith(name.replace("DISK_1_URI", "DISK_1_PATH"))


WRONG = {
    "OS_API_VERSION": ["15", "20\n", "2O", "٢٠"],
    "INSTANCE_NAME": ["a b", "a\n", "../x", "x" * 254],
    "INSTANCE_UUID": ["x"],
    "DISK_COUNT": ["0", "-1", "65", "1.0", "x", " 1", "1\n", "٢", "²", "1" * 5000],
    "DISK_0_PATH": ["relative", "/a\nb", "/" + "x" * 5000],
    "DISK_0_NAME": ["a\nb"],
    "DISK_0_UUID": ["x"],
    "NIC_COUNT": ["-1", "65", "x", "1" * 5000],
    "NIC_0_MAC": ["x", "ff:ff:ff:ff:ff:ff"],
    "NIC_0_MODE": ["Bridged", "bridged\n", "vepa"],
    "NIC_0_LINK": ["-x", "a/b", "a b", "x" * 16],
    "NIC_0_IP": ["x", "192.0.2.5/24", "fe80::1%a\nb"],
    "NIC_0_NAME": ["a\nb", "x" * 256],
    "NIC_0_UUID": ["x"],
    "NIC_0_NETWORK_NAME": ["a\nb"],
    "NIC_0_NETWORK_UUID": ["x"],
    "NIC_0_NETWORK_SUBNET": ["192.0.2.1/24", "2001:db8::/64", "192.0.2.0"],
    "NIC_0_NETWORK_GATEWAY": ["x", "2001:db8::1"],
    "NIC_0_NETWORK_SUBNET6": ["192.0.2.0/24", "x"],
    "NIC_0_NETWORK_GATEWAY6": ["192.0.2.1", "fe80::1%a\nb"],
    "NIC_0_NETWORK_MAC_PREFIX": ["x"],
    "NIC_0_NETWORK_TAGS": ["a ;b", "ä"],
    "NIC_1_LINK": ["a\nb"],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in WRONG.items() for v in vs])
def test_what_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        environment.request(FULL | {name: value})
    assert caught.value.message.startswith(f"{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("direction", ["EXPORT", "IMPORT"])
def test_the_device_of_export_and_import(direction: str) -> None:
    device = environment.device
    path = {f"{direction}_DISK_PATH": "/dev/x"}
    assert device(path, direction) == Disk(0, path="/dev/x")
    every = path | {
        f"{direction}_DEVICE": "/dev/y",
        f"{direction}_DISK_URI": "rbd:x",
        f"{direction}_INDEX": "3",
    }
    assert device(every, direction) == Disk(3, path="/dev/y", uri="rbd:x")
    assert device({f"{direction}_DISK_URI": "rbd:x"}, direction) == Disk(0, uri="rbd:x")


@pytest.mark.parametrize("direction", ["EXPORT", "IMPORT"])
def test_a_wrong_device_is_named(direction: str) -> None:
    for environ, name in (
        ({}, "DEVICE"),
        ({"DEVICE": "relative"}, "DEVICE"),
        ({"DEVICE": "/dev/x", "INDEX": "x"}, "INDEX"),
        ({"DEVICE": "/dev/x", "INDEX": "-1"}, "INDEX"),
        ({"DEVICE": "/dev/x", "INDEX": "1" * 5000}, "INDEX"),
    ):
        with pytest.raises(InvalidValueError, match=f"^{direction}_{name}"):
            environment.device({f"{direction}_{k}": v for k, v in environ.items()}, direction)


VALUES = st.text(max_size=20) | st.sampled_from([*FULL.values(), "", "0", "3", "ovs", "::", "%"])


@given(
    st.dictionaries(st.sampled_from(sorted(FULL)), VALUES), st.sets(st.sampled_from(sorted(FULL)))
)
def test_whatever_comes_it_is_read_or_refused_by_name(
    changed: dict[str, str], removed: set[str]
) -> None:
    environ = {k: v for k, v in (FULL | changed).items() if k not in removed}
    said = ""
    try:
        request = environment.request(environ)
    except InvalidValueError as error:
        said = error.message
    else:
        assert request.disks
        assert request.instance.name == environ["INSTANCE_NAME"]
    assert not said or said.split(":")[0].split("_")[0] in {
        "OS",
        "INSTANCE",
        "HYPERVISOR",
        "DISK",
        "NIC",
    }


def _disks(kind: str, count: int = 3) -> list[Disk]:
    return [Disk(index, f"/dev/x{index}", frontend=kind) for index in range(count)]


def _named(disk: Disk) -> str:
    return {"sd": "/dev/sd", "nvme": "/dev/nvme0n"}.get(disk.frontend, "/dev/vd") + (
        str(disk.index + 1) if disk.frontend == "nvme" else "abcdefgh"[disk.index]
    )


@pytest.mark.parametrize(
    ("kind", "kernel", "root", "index"),
    [
        ("vd", "/boot/vmlinuz", "/dev/vdb1", 1),
        ("vd", "/boot/vmlinuz", "/dev/vdc", 2),
        ("nvme", "/boot/vmlinuz", "/dev/nvme0n2p12", 1),
        ("vd", "/boot/vmlinuz", "/dev/vda1", 0),
        # No mark: no kernel of the node's, another kind of disk, one that is not there, no device.
        ("vd", "", "/dev/vdb1", 0),
        ("sd", "/boot/vmlinuz", "/dev/vdb1", 0),
        ("vd", "/boot/vmlinuz", "/dev/vdd1", 0),
        ("vd", "/boot/vmlinuz", "/dev/vdb1 init=/bin/sh", 0),
        ("vd", "/boot/vmlinuz", "/dev/vdbx", 0),
        ("vd", "/boot/vmlinuz", "UUID=0b", 0),
        ("vd", "/boot/vmlinuz", "", 0),
    ],
)
def test_the_system_is_on_the_disk_of_the_root_device(
    kind: str, kernel: str, root: str, index: int
) -> None:
    environ = {"INSTANCE_HV_kernel_path": kernel, "INSTANCE_HV_root_path": root}
    assert environment.os_disk(environ, _disks(kind), _named).index == index


def test_an_only_disk_is_not_asked_for_its_name() -> None:
    """Hypervisors that cannot name disks deploy to it all the same."""
    environ = {"INSTANCE_HV_kernel_path": "/boot/vmlinuz", "INSTANCE_HV_root_path": "/dev/sda1"}

    def fail(disk: Disk) -> str:
        raise AssertionError(disk)

    assert environment.os_disk(environ, _disks("vd", 1), fail).index == 0
    assert environment.os_disk({}, _disks("vd"), fail).index == 0
