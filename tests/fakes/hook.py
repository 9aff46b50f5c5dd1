"""What Ganeti's node daemon puts into a hook's environment, as Ganeti 3.0 does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

UUID = "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01"

INSTANCE = {
    "OP_TARGET": "web1.gnt.test",
    "INSTANCE_NAME": "web1.gnt.test",
    "INSTANCE_PRIMARY": "node1.gnt.test",
    "INSTANCE_SECONDARIES": "node2.gnt.test",
    "INSTANCE_OS_TYPE": "snf-image+default",
    "INSTANCE_STATUS": "up",
    "INSTANCE_MINMEM": "128",
    "INSTANCE_MAXMEM": "128",
    "INSTANCE_MEMORY": "128",
    "INSTANCE_VCPUS": "1",
    "INSTANCE_DISK_TEMPLATE": "drbd",
    "INSTANCE_HYPERVISOR": "kvm",
    "INSTANCE_TAGS": "web prod",
    "INSTANCE_NIC_COUNT": "1",
    "INSTANCE_NIC0_UUID": UUID,
    "INSTANCE_NIC0_IP": "198.51.100.10",
    "INSTANCE_NIC0_MAC": "aa:00:00:38:54:25",
    "INSTANCE_NIC0_MODE": "routed",
    "INSTANCE_NIC0_LINK": "100",
    "INSTANCE_NIC0_VLAN": "",
    "INSTANCE_NIC0_NETWORK_NAME": "public",
    "INSTANCE_NIC0_NETWORK_UUID": UUID,
    "INSTANCE_NIC0_NETWORK_TAGS": "ip-less-routed dns",
    "INSTANCE_NIC0_NETWORK_SUBNET": "198.51.100.0/24",
    "INSTANCE_NIC0_NETWORK_GATEWAY": "198.51.100.1",
    "INSTANCE_DISK_COUNT": "1",
    "INSTANCE_DISK0_NAME": "",
    "INSTANCE_DISK0_UUID": UUID,
    "INSTANCE_DISK0_SIZE": "64",
    "INSTANCE_HV_kernel_args": "ro\nwhatever",
    "INSTANCE_BE_vcpus": "1",
}
"""An instance with one NIC, without the prefix that says when it is so."""


def environment(
    operation: str,
    before: Mapping[str, str] | None = None,
    after: Mapping[str, str] | None = None,
    *,
    phase: str = "post",
) -> dict[str, str]:
    """Of a hook of ``operation``: what differs from INSTANCE ``before``, and beside that ``after``.

    Both sets have what is of the operation itself: SHUTDOWN_TIMEOUT, for example.
    """
    first = INSTANCE | dict(before or {})
    told = {
        "PATH": "/sbin:/bin:/usr/sbin:/usr/bin",
        "GANETI_HOOKS_VERSION": "2",
        "GANETI_HOOKS_PATH": operation,
        "GANETI_HOOKS_PHASE": phase,
        "GANETI_OBJECT_TYPE": "INSTANCE",
        "GANETI_OP_CODE": "OP_" + operation.upper().replace("-", "_"),
        "GANETI_CLUSTER": "cluster.gnt.test",
        "GANETI_MASTER": "node1.gnt.test",
        "GANETI_DATA_DIR": "/var/lib/ganeti",
        **{f"GANETI_{name}": value for name, value in first.items()},
    }
    if phase == "post":
        second = first | dict(after or {})
        told |= {f"GANETI_POST_{name}": value for name, value in second.items()}
    return told
