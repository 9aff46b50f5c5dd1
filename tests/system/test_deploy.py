"""Whole deployments that succeed: an image becomes a disk that boots, in isolation."""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.image import identity
from tests import node
from tests.system import guests
from tests.system.environment import HOUSE, Environment
from tests.system.inspection import FileSystem, partitions
from tests.system.site import (
    MIB,
    NAME,
    PATIENCE,
    STALE,
    Event,
    Outcome,
    Site,
    holds,
    processes_of,
    qemu,
    status_of,
    stopped,
)
from tests.system.test_copy_devices import loop_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.system.guests import Images

USER = "snf-appliance"
_WINDOW = 1 << 20
"""Bytes of memory read at once."""
PASSWORD = "correct horse battery staple"
OWN = "a tenant's own secret"
PERSONALITY = [
    {"path": "/home/alice/own/key", "owner": "alice", "group": "alice", "mode": 384},
    {"path": "/etc/hostname", "mode": 420},
]
PRODUCT_KEY = "ABCDE-FGHIJ-KLMNO-PQRST-UVWXY"
HASH = "$6$saltsalt$" + "X" * 86
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKnX7QzPp0o3vV2H1cTzJm0B5mYc0cTnJmQd3yJpXn5D someone"
NIC = node.bridged_nic("198.51.100.10", "198.51.100.0/24", "198.51.100.1")
NETWORK_FILE = f"/etc/systemd/network/05-snf-{node.MAC.replace(':', '')}.network"
TASKS = [
    "FixPartitionTable",
    "FilesystemResizeUnmounted",
    "MountImage",
    "AssignHostname",
    "ChangeMachineId",
    "ChangePassword",
    "CheckBoot",
    "ConfigureNetwork",
    "DeleteSSHKeys",
    "EnableConsole",
    "EnforcePersonality",
    "UmountImage",
]


@dataclass
class Observed:
    """A deployment as it was seen from outside, and how it ended."""

    began: float
    disk: Path
    qemu_arguments: list[str] = field(default_factory=list)
    status: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of "qemu" and "worker", as /proc/PID/status has it."""
    limits: dict[str, str] = field(default_factory=dict)
    writable: list[str] = field(default_factory=list)
    """What of the runtime directory the appliance's user may change, scratch left out."""
    disk_opens: bool = True
    exposed: list[str] = field(default_factory=list)
    """Where the password was found."""
    outcome: Outcome = field(default_factory=lambda: Outcome(-1, "", ""))
    events: list[Event] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    report_mode: int = 0
    monitor_arguments: str = ""
    monitor_events: list[Event] = field(default_factory=list)
    accelerator: os.stat_result | None = None


@pytest.fixture(name="deployed", scope="module")
def _deployed(place: Site, images: Images) -> Observed:
    """One deployment with everything to a disk of an earlier tenant, held in the middle to look."""
    told = place.disks / "told"
    monitor = place.disks / "monitor"
    monitor.write_text(f'#!/bin/sh\necho "$@" >{told}.arguments\nexec cat >{told}.lines\n')
    monitor.chmod(0o755)
    report = place.disks / "report.json"
    disk = place.disk("everything")
    contents = base64.b64encode(OWN.encode()).decode()
    environment = place.environment(
        disk,
        f"local://{images.linux.name}",
        nics=[NIC],
        properties={"USERS": "root alice"},
        img_passwd=PASSWORD,
        img_personality=json.dumps([{**file, "contents": contents} for file in PERSONALITY]),
        os_product_key=PRODUCT_KEY,
        auth_keys=KEY,
    )
    seen = Observed(time.time(), disk)
    with (
        place.configured("image", progress_monitor=f"{monitor} --for"),
        place.started(environment, "--report", str(report)) as deployment,
    ):
        deployment.wait_for(subtype="task-start", task="ChangePassword")
        appliance = qemu(place.node.runtime)
        with stopped(appliance):
            _observe(seen, place, deployment.process.pid, appliance)
        seen.outcome = deployment.finish()
    seen.events = deployment.events
    seen.report = json.loads(report.read_text())
    seen.report_mode = stat.S_IMODE(report.stat().st_mode)
    seen.monitor_arguments = told.with_suffix(".arguments").read_text()
    lines = told.with_suffix(".lines").read_text().splitlines()
    seen.monitor_events = [json.loads(line) for line in lines]
    seen.accelerator = (place.node.runtime / "accelerator.json").stat()
    everything = [seen.outcome.stdout, seen.outcome.stderr, report.read_text(), *lines]
    secrets = (PASSWORD, OWN, contents, PRODUCT_KEY)
    seen.exposed += [f"said: {text}" for text in everything if any(s in text for s in secrets)]
    return seen


def _observe(seen: Observed, place: Site, script: int, appliance: int) -> None:
    children = Path(f"/proc/{script}/task/{script}/children").read_text().split()
    (worker,) = [int(pid) for pid in children if status_of(int(pid))["Uid"].split()[0] != "0"]
    uid = int(status_of(worker)["Uid"].split()[0])
    seen.status = {"qemu": status_of(appliance), "worker": status_of(worker)}
    seen.qemu_arguments = processes_of(place.node.runtime)[appliance]
    for pid, name in ((appliance, "qemu"), (worker, "worker")):
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]:
            limit = re.split(r"  +", line)
            seen.limits[f"{name} {limit[0]}"] = limit[2]
    # As QEMU sees it: what a deployment puts there, nobody else does.
    runtime = Path(f"/proc/{appliance}/root{place.node.runtime}")
    seen.exposed += _exposed(runtime, [script, worker, appliance])
    files = [runtime, *runtime.rglob("*")]
    assert [path for path in files if path.name == "launcher0"]
    seen.writable = [
        str(path) for path in files if "scratch" not in path.parts and _may_write(path, uid)
    ]
    seen.disk_opens = _opens(seen.disk)


def _exposed(runtime: Path, remembering: Sequence[int]) -> list[str]:
    """Where the password can be read: arguments, environments, files of deployments, and the
    memory of ``remembering``, of which the first is the deployment's script.
    """
    needle = PASSWORD.encode()
    found = []
    confined = {str(pid) for pid in remembering[1:]}
    for entry in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                if needle in (entry / name).read_bytes():
                    found.append(str(entry / name))
        if int(entry.name) in remembering and _holds(entry, needle):
            found.append(f"{entry}/mem")
        with contextlib.suppress(OSError):
            # In a file that is nowhere; only the script itself may have it open.
            opened = [os.readlink(link) for link in (entry / "fd").iterdir()]
            if entry.name in confined and any("memfd:password" in name for name in opened):
                found.append(f"{entry}/fd")
    files = [path for path in runtime.rglob("*") if path.is_file()]
    return found + [str(path) for path in files if needle in path.read_bytes()]


def _holds(process: Path, needle: bytes) -> bool:
    """Whether a process has ``needle`` in memory that it may write to (proc(5): maps, mem)."""
    with (process / "mem").open("rb", buffering=0) as memory:
        for line in (process / "maps").read_text().splitlines():
            span, rights = line.split()[:2]
            start, end = (int(number, 16) for number in span.split("-"))
            if not rights.startswith("rw"):
                continue
            for position in range(start, end, _WINDOW):
                memory.seek(position)
                with contextlib.suppress(OSError):
                    if needle in memory.read(min(_WINDOW + len(needle), end - position)):
                        return True
    return False


def _may_write(path: Path, uid: int) -> bool:
    found = path.lstat()
    return found.st_uid == uid or bool(found.st_mode & 0o022)


def _crypt(password: str, salt: str) -> str:
    """crypt(3), as another language's library calls it."""
    done = subprocess.run(
        ["perl", "-e", "print crypt(<STDIN>, $ARGV[0])", salt],
        input=password,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _opens(path: Path) -> bool:
    user = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"]
    return subprocess.run([*user, "test", "-r", path], check=False).returncode == 0


def root_of(disk: Path, images: Images) -> FileSystem:
    """The root file system on a disk that ``linux`` was deployed to."""
    return FileSystem(disk, images.root.start)


def test_it_succeeds(deployed: Observed) -> None:
    assert deployed.outcome.status == 0, deployed.outcome.stderr
    assert deployed.outcome.stdout == ""


def test_partition_and_file_system_fill_the_disk(deployed: Observed, images: Images) -> None:
    (boot, root) = partitions(deployed.disk)
    assert boot == (MIB, MIB)
    assert root[0] == images.root.start
    assert deployed.disk.stat().st_size - (root[0] + root[1]) <= 2 * MIB
    filesystem = root_of(deployed.disk, images)
    filesystem.check()
    assert filesystem.size() > root[1] - MIB


def test_tasks_did_what_they_are_for(deployed: Observed, images: Images) -> None:
    root = root_of(deployed.disk, images)
    assert NAME in root.read("/etc/hosts")
    assert guests.MACHINE_ID not in root.read("/etc/machine-id")
    shadow = dict(line.split(":")[:2] for line in root.read("/etc/shadow").splitlines())
    assert set(shadow) == {"root", "alice"}
    for hashed in shadow.values():
        assert _crypt(PASSWORD, hashed) == hashed
    assert root.mode("/etc/shadow") == "0640 0 0"
    for home, owner in (("/root", "0 0"), ("/home/alice", "1000 1000")):
        assert root.read(f"{home}/.ssh/authorized_keys") == f"{KEY}\n"
        assert root.mode(f"{home}/.ssh/authorized_keys") == f"0600 {owner}"
        assert root.mode(f"{home}/.ssh") == f"0700 {owner}"
    assert "Address=198.51.100.10/24" in root.read(NETWORK_FILE)
    assert not {name for name in root.names("/etc/ssh") if name.startswith("ssh_host_")}
    for path, mode in (
        ("/home/alice/own/key", "0600 1000 1000"),
        ("/etc/hostname", "0644 0 0"),  # over what a task wrote
    ):
        assert root.read(path) == OWN
        assert root.mode(path) == mode
    assert root.mode("/home/alice/own") == "0750 1000 1000"


def test_what_no_task_is_for_is_as_in_the_image(
    deployed: Observed, images: Images, tmp_path: Path
) -> None:
    before = root_of(images.linux, images).tree(tmp_path / "before")
    after = root_of(deployed.disk, images).tree(tmp_path / "after")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {
        "etc/hostname",
        "etc/hosts",
        "etc/machine-id",
        "etc/shadow",
        "etc/ssh/ssh_host_ed25519_key",
        "etc/ssh/ssh_host_ed25519_key.pub",
        "etc/systemd/system/snf-ssh-host-keys.service",
        NETWORK_FILE.lstrip("/"),
        "root/.ssh/authorized_keys",
        "home/alice/.ssh/authorized_keys",
        "home/alice/own/key",
    }


def test_nothing_of_an_earlier_tenant_is_left(deployed: Observed) -> None:
    assert not holds(deployed.disk, bytes([STALE]) * 64)


def test_password_and_hash_are_exposed_nowhere(deployed: Observed, images: Images) -> None:
    assert deployed.exposed == []
    assert not holds(deployed.disk, PASSWORD.encode())
    shadow = root_of(deployed.disk, images).read("/etc/shadow")
    said = json.dumps([deployed.events, deployed.report]) + deployed.outcome.stderr
    assert not [line for line in shadow.splitlines() if line.split(":")[1] in said]


def test_worker_and_qemu_have_no_privileges(deployed: Observed) -> None:
    (uid,) = {status["Uid"] for status in deployed.status.values()}
    (gid,) = {status["Gid"] for status in deployed.status.values()}
    for shown, pool in ((uid, identity.pool(USER).uids), (gid, identity.pool(USER).gids)):
        assert len(set(shown.split())) == 1
        assert any(int(shown.split()[0]) in ids for ids in pool)
    for status in deployed.status.values():
        assert status["Groups"] == ""
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        assert status["NoNewPrivs"] == "1"
    assert deployed.status["qemu"]["Seccomp"] == "2"


def test_qemu_is_confined(deployed: Observed) -> None:
    words = deployed.qemu_arguments
    assert words[words.index("-sandbox") + 1].startswith("on,")
    assert not [word for word in words if re.search(r"netdev|virtio-net|e1000", word)]
    assert "-net" not in words or words[words.index("-net") + 1] == "none"
    assert str(deployed.disk) not in " ".join(words)
    assert int(deployed.limits["qemu Max address space"]) < 8 << 30
    assert deployed.limits["qemu Max core file size"] == "0"
    assert deployed.limits["worker Max core file size"] == "0"


def test_appliance_user_reaches_nothing_but_its_scratch_directory(deployed: Observed) -> None:
    assert deployed.writable == []
    assert not deployed.disk_opens
    assert stat.S_IMODE(deployed.disk.stat().st_mode) == 0o600
    assert deployed.disk.stat().st_uid == 0


def test_what_nobody_serves_is_said(deployed: Observed) -> None:
    warnings = [e["messages"] for e in deployed.events if e.get("subtype") == "warning"]
    assert [
        "parameter os_product_key: no task of linux guests serves it: it is ignored"
    ] in warnings


def test_progress_is_told_in_order(deployed: Observed) -> None:
    told = []
    for event in deployed.events:
        if event["type"] == "image-info":
            told += event["messages"]
        elif event.get("subtype") in {"task-start", "task-end"}:
            told.append(f"{event['subtype']} {event['task']}")
    around = [f"{what} {task}" for task in TASKS for what in ("task-start", "task-end")]
    assert told == [
        "Starting image copy...",
        "Image copy finished.",
        "Starting guest customization...",
        *around,
        "Image customization finished successfully.",
    ]
    copied = [event for event in deployed.events if event["type"] == "image-copy-progress"]
    assert {event["total"] for event in copied} == {guests.IMAGE_BYTES}
    assert copied[-1]["position"] == guests.IMAGE_BYTES
    assert copied[-1]["progress"] == 100.0


def test_times_are_plausible(deployed: Observed) -> None:
    times = [event["timestamp"] for event in deployed.events]
    assert times == sorted(times)
    assert deployed.began <= times[0] <= times[-1] <= time.time()


def test_monitor_and_descriptor_get_the_same(deployed: Observed) -> None:
    assert deployed.monitor_arguments == f"--for {NAME}\n"
    assert deployed.monitor_events == deployed.events


def test_report_holds_the_whole_run(deployed: Observed) -> None:
    report = deployed.report
    assert report["result"] == "success"
    assert report["seconds"] > 0
    assert set(report["phases"]) == {"copy", "appliance", "detect", "tasks", "flush"}
    assert list(report["tasks"]) == TASKS
    assert [e for e in report["events"] if e["type"].startswith("image-")] == deployed.events
    assert deployed.report_mode == 0o600


def test_a_block_device_with_tasks_excluded(
    deployed: Observed, place: Site, images: Images
) -> None:
    """Properties of the instance go before the image's; all that does not run is announced."""
    backing = place.disk("backing", images.linux.stat().st_size)
    of_image = {
        "exclude_task_AssignHostname": "no",
        "USERS": "nobody-has-this-name",
        "IRRELEVANT": 1,
    }
    of_instance = {
        "EXCLUDE_TASK_AssignHostname": True,
        "Users": "alice",
        "EXCLUDE_FilesystemResize_TASKS": "yes",
        "ROOT_PARTITION": 2,
    }
    with (
        loop_device(backing) as device,
        place.configured("image", unknown_properties="warning", verify="true"),
    ):
        environment = {
            **place.environment(backing, images.linux.name, img_passwd_hash=HASH),
            "OSP_IMG_PROPERTIES": json.dumps(of_image),
            "OSP_INST_PROPERTIES": json.dumps(of_instance),
            "DISK_0_PATH": str(device),
        }
        outcome = place.run(environment)
    assert outcome.status == 0, outcome.stderr
    assert "IRRELEVANT" in outcome.stderr
    assert "AssignHostname will not run: excluded by EXCLUDE_TASK_AssignHostname" in outcome.stderr
    assert "FilesystemResizeUnmounted will not run" in outcome.stderr
    assert HASH not in outcome.stderr
    root = root_of(backing, images)
    root.check()
    assert root.read("/etc/hostname") == "template\n"
    assert f"alice:{HASH}:" in root.read("/etc/shadow")
    assert "root:*:" in root.read("/etc/shadow")
    # One and the same node, one and the same boot: KVM is not tried again.
    known = (place.node.runtime / "accelerator.json").stat()
    assert deployed.accelerator
    assert known.st_ino == deployed.accelerator.st_ino
    assert known.st_mtime_ns == deployed.accelerator.st_mtime_ns


def test_null_keeps_the_disk_but_for_the_tasks(place: Site, images: Images, tmp_path: Path) -> None:
    disk = place.disk("clone", guests.IMAGE_BYTES, stale=False)
    disk.write_bytes(images.linux.read_bytes())
    excluded = {f"EXCLUDE_TASK_{task}": "yes" for task in ("ConfigureNetwork", "DeleteSSHKeys")}
    excluded["EXCLUDE_FilesystemResize_TASKS"] = "yes"
    outcome = place.run(place.environment(disk, "null", properties=excluded, auth_keys=KEY))
    assert outcome.status == 0, outcome.stderr
    root = root_of(disk, images)
    root.check()
    before = root_of(images.linux, images).tree(tmp_path / "before")
    after = root.tree(tmp_path / "after")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {
        "etc/hostname", "etc/hosts", "etc/machine-id", "root/.ssh/authorized_keys"
    }  # fmt: skip


@pytest.mark.parametrize("larger", [0, 8 * MIB])
def test_without_tasks_no_appliance_is_needed(place: Site, images: Images, larger: int) -> None:
    image = images.linux.read_bytes()
    disk = place.disk("bare", len(image) + larger)
    nowhere = place.disks / "nowhere"
    with place.configured("directories", state=str(nowhere)):
        properties = {"EXCLUDE_ALL_TASKS": "yes"}
        outcome = place.run(place.environment(disk, "linux", properties=properties))
    assert outcome.status == 0, outcome.stderr
    assert "nothing is customized: excluded by EXCLUDE_ALL_TASKS" in outcome.stderr
    assert disk.read_bytes() == image + bytes(larger)


def test_three_at_once(place: Site, images: Images) -> None:
    disks = [place.disk(f"one-of-three-{index}") for index in range(3)]
    properties = {"EXCLUDE_TASK_FixPartitionTable": "yes"}
    with contextlib.ExitStack() as stack:
        running = []
        for index, disk in enumerate(disks):
            environment = place.environment(disk, "linux", properties=properties)
            environment["INSTANCE_NAME"] = f"web{index}.example.org"
            running.append(stack.enter_context(place.started(environment)))
        outcomes = [deployment.finish() for deployment in running]
    assert [outcome.status for outcome in outcomes] == [0, 0, 0], outcomes
    for index, disk in enumerate(disks):
        assert root_of(disk, images).read("/etc/hostname") == f"web{index}.example.org\n"


def test_an_installation_that_only_root_may_enter(place: Site, images: Images) -> None:
    """What the unprivileged worker needs was loaded before it gave up its rights."""
    private = _installed_for_root_only(place)
    disk = place.disk("private")
    process = private.script(
        "create",
        place.environment(disk, "linux", nics=[NIC], auth_keys=KEY, img_passwd=PASSWORD),
    )
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr.decode()
    assert root_of(disk, images).read("/etc/hostname") == f"{NAME}\n"
    assert root_of(disk, images).read(NETWORK_FILE)


def _installed_for_root_only(place: Site) -> node.Node:
    """The same node, with an installation of its own in a directory that is closed to others."""
    home = place.node.directory / "private"
    home.mkdir(mode=0o700)
    environment = Environment.create(home / "environment")
    libraries = next((home / "environment/lib").glob("python3.*")) / "site-packages"
    for name in HOUSE:
        package = name.replace("-", "_")
        module = importlib.util.find_spec(package)
        assert module
        assert module.origin
        shutil.copytree(Path(module.origin).parent, libraries / package)
        metadata = importlib.metadata.distribution(name).locate_file(
            f"{package}-{importlib.metadata.version(name)}.dist-info"
        )
        shutil.copytree(str(metadata), libraries / Path(str(metadata)).name)
    root = node.furnish(home / "root")
    environment.run(
        *("python", "-I", "-m", "snf_core.cli", "--config", place.node.config_file),
        *("ganeti", "install", "--root", root),
    )
    made = replace(place.node, definition=root / "usr/share/ganeti/os/snf-image")
    assert str(home) in (made.definition / "create").read_text()
    assert not _opens(libraries / "snf_core/cli.py")
    return made
