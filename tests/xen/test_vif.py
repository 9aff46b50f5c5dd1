"""The vif script under a real xl: what becomes of a vif from its appearance to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.xen import domu, vifs
from tests.xen.vifs import MAC, OTHER

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = f"mac={MAC},script=vif-snf,bridge={vifs.BRIDGE}"
SECOND = f"mac={OTHER},script=vif-snf,bridge={vifs.BRIDGE}"
REASON = "device_hotplug_child_death_cb: script: snf: "
"""What libxl says before the reason that a script of ours has left in xenstore."""


@pytest.fixture(scope="module", autouse=True)
def _node() -> Iterator[None]:
    with vifs.node():
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left(_node: None) -> Iterator[None]:
    yield
    assert vifs.remains() == ""


def wired(interface: str, instance: str) -> bool:
    """Whether it is as wanted, and that domain's."""
    found = vifs.status()[interface]
    return bool(found["agrees"]) and found["event"]["instance"] == instance


def event(vif: str, action: str) -> subprocess.CompletedProcess[str]:
    """The script, as libxl calls it."""
    domain, device = vif.removeprefix("vif").split(".")
    environ = {
        "script": str(vifs.SCRIPT),
        "XENBUS_TYPE": "vif",
        "XENBUS_PATH": f"backend/vif/{domain}/{device}",
        "XENBUS_BASE_PATH": "backend",
        "netdev": "",
        "vif": vif,
    }
    return subprocess.run(
        [vifs.SCRIPT, action, "type_if=vif"],
        check=False,
        env=environ,
        cwd="/proc",
        text=True,
        capture_output=True,
    )


def test_a_guest_from_its_start_to_its_end() -> None:
    """With a reboot, and with an end and a new beginning by save and restore."""
    with domu.Guest("web1.gnt.test", [f"{PLAIN},ip=10.64.0.5"]) as guest:
        first = guest.vif()
        assert wired(first, "web1.gnt.test")
        link = vifs.link(first)
        assert link
        assert (link["master"], link["mtu"]) == (vifs.BRIDGE, 9000)
        assert domu.xenstore(f"/local/domain/{guest.domid}/device/vif/0/mtu") == "9000"
        guest.run("ip link set eth0 up && ip address add 10.64.0.5/24 dev eth0")
        vifs.run("ping", "-c", "3", "-W", "10", "10.64.0.5")

        domu.xl("reboot", "-F", guest.name)
        guest.reattach(booting=True)
        second = guest.vif()
        assert second != first
        assert wired(second, "web1.gnt.test")
        assert list(vifs.status()) == [second]
        guest.run("ip link set eth0 up && ip address add 10.64.0.5/24 dev eth0")
        vifs.run("ping", "-c", "3", "-W", "10", "10.64.0.5")

        file = "/var/tmp/saved"
        done = domu.xl("save", guest.name, file)
        assert done.returncode == 0, done.stdout
        assert vifs.remains() == ""
        done = domu.xl("restore", file)
        Path(file).unlink()
        assert done.returncode == 0, done.stdout
        guest.reattach()
        third = guest.vif()
        assert third != second
        assert wired(third, "web1.gnt.test")
        vifs.run("ping", "-c", "3", "-W", "10", "10.64.0.5")
        guest.power_off()
        assert vifs.remains() == ""


def test_vifs_that_come_and_go_together_and_alone() -> None:
    with domu.Guest("web1", [PLAIN, SECOND]) as guest:
        both = [guest.vif(0), guest.vif(1)]
        assert [one for one in both if wired(one, "web1")] == both
        added = domu.xl("network-attach", "web1", *PLAIN.replace(":25", ":27").split(","))
        assert added.returncode == 0, added.stdout
        assert wired(guest.vif(2), "web1")
        removed = domu.xl("network-detach", "web1", "1")
        assert removed.returncode == 0, removed.stdout
        assert sorted(vifs.status()) == [guest.vif(0), guest.vif(2)]


def test_nothing_is_taken_from_the_environment() -> None:
    """As under ``env -i``, where there is no PATH either."""
    with vifs.paused("web1", [PLAIN], environ={}) as number:
        assert wired(f"vif{number}.0", "web1")
        again = event(f"vif{number}.0", "online")
        assert again.returncode == 0, again.stderr
        assert domu.xenstore(f"backend/vif/{number}/0/hotplug-status") == "connected"
        assert event(f"vif{number}.0", "offline").returncode == 0
        assert vifs.status() == {}
        assert event(f"vif{number}.0", "offline").returncode == 0
        again = event(f"vif{number}.0", "online")
        assert again.returncode == 0, again.stderr
        assert wired(f"vif{number}.0", "web1")
    gone = event(f"vif{number}.0", "offline")
    assert (gone.returncode, gone.stdout + gone.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "vif", "reason"),
    [
        ("web1", "script=vif-snf", "bridge xenbr0 does not exist on this node"),
        ("web 1", PLAIN, "the name of domain {}: 'web 1' is not an instance name"),
        ("web1", f"{PLAIN},ip=10.64.0.5 10.64.0.6", "its configuration: IP: "),
        ("web1", f"{PLAIN},vifname=an-interface-name", "vifname: 'an-interface-name' is not "),
        ("web1", f"{PLAIN},vifname={vifs.UPLINK}", f"vif{{}}.0 cannot be called {vifs.UPLINK}: "),
    ],
)
def test_who_creates_a_domain_reads_why_it_has_failed(name: str, vif: str, reason: str) -> None:
    done = vifs.create(name, [vif, SECOND], "-p")
    assert done.returncode != 0
    assert f"{REASON}{reason.format(number(done.stdout))}" in done.stdout
    assert domu.domid(name) is None


def number(said: str) -> str:
    """That of the domain that xl failed to make."""
    return said.partition("Domain ")[2].partition(":")[0]


def test_a_script_that_is_killed_half_way(tmp_path: Path) -> None:
    """After which xl calls ``offline``, and all is taken back."""
    murderer = tmp_path / "murderer"
    murderer.write_text(f"#!/bin/sh\nip link show > {tmp_path}/seen\nkill -KILL $PPID\n")
    murderer.chmod(0o755)
    with vifs.configured(f"[network]\nextra_up = {murderer}\n"):
        done = vifs.create("web1", [PLAIN], "-p")
    assert done.returncode != 0
    seen = (tmp_path / "seen").read_text()
    assert f"master {vifs.BRIDGE}" in seen, "it had been connected"
    assert vifs.remains() == ""


def test_a_script_that_would_take_too_long_ends_before_it_is_killed(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/number\nexec sleep 100\n")
    slow.chmod(0o755)
    began = time.monotonic()
    with vifs.configured(f"[network]\nextra_up = {slow}\n"):
        done = vifs.create("web1", [PLAIN], "-p")
    took = time.monotonic() - began
    assert done.returncode != 0
    assert f"{REASON}the NIC event was not over after 20 s" in done.stdout
    assert "because of timeout" not in done.stdout
    print(f"\nrefused after {took:.0f} s with the creation of the domain, of 40 s")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "number").read_text()), signal.SIGTERM)


def test_a_vif_by_another_name() -> None:
    with domu.Guest("web1", [f"{PLAIN},vifname=web0"]) as guest:
        assert vifs.link(guest.vif()) is None
        assert wired("web0", "web1")
        assert vifs.status()["web0"]["event"]["called"] == guest.vif()
        again = event(guest.vif(), "online")
        assert again.returncode == 0, again.stderr
        guest.run("ip link set eth0 up && ip address add 10.64.0.5/24 dev eth0")
        vifs.run("ping", "-c", "3", "-W", "10", "10.64.0.5")
        assert vifs.snf("network", "reconcile", "--check") == ""
        taken = vifs.create("web2", [f"{SECOND},vifname=web0"], "-p")
        assert taken.returncode != 0
        assert "cannot be called web0: another interface has that name" in taken.stdout
        assert list(vifs.status()) == ["web0"]
    assert vifs.remains() == ""


def test_a_vif_with_a_description_of_its_own() -> None:
    name = "web1"
    with (
        vifs.described(name, f"# routed\n{vifs.ROUTED}"),
        domu.Guest(name, [f"{PLAIN},mtu=1400"]) as guest,
    ):
        assert wired(guest.vif(), name)
        link = vifs.link(guest.vif())
        assert link
        assert ("master" not in link, link["mtu"]) == (True, 1400)
        guest.run(
            f"ip link set eth0 up && ip address add {vifs.GUEST}/24 dev eth0 "
            f"&& ip route add default via {vifs.GATEWAY}"
        )
        vifs.run("ip", "netns", "exec", vifs.BEYOND, "ping", "-c", "3", "-W", "10", vifs.GUEST)
