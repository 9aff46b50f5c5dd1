"""Disks that Ganeti gives but the URI of: served by NBD servers, as remote storage would be."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import DiskError
from snf_core.image import stream
from snf_core.image.destination.uri import Uri
from snf_core.model import Disk
from tests.system import guests
from tests.system.inspection import FileSystem
from tests.system.nbd import Server, serving
from tests.system.site import DISK_BYTES, MIB, NAME, PATIENCE, STALE, holds, stopped
from tests.system.test_copy_devices import mounted
from tests.system.test_deploy_failures import failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.contract import DiskWriter, OpenDisk
    from tests.system.guests import Images
    from tests.system.site import Deployment, Site

DAEMON = "/usr/bin/qemu-storage-daemon"
SIZE = 64 * MIB


# -- whole deployments ------------------------------------------------------------------------


def remote(place: Site, disk: Path, server: Server, image: str = "null") -> dict[str, str]:
    """What Ganeti says of an instance whose disk is accessed from user space."""
    environment = place.environment(disk, image)
    del environment["DISK_0_PATH"]
    return environment | {"DISK_0_URI": server.uri, "DISK_0_BACKEND_TYPE": "block"}


@pytest.mark.parametrize("port", [False, True], ids=["socket", "TCP"])
def test_deployed_renamed_exported_and_imported(place: Site, images: Images, port: bool) -> None:
    disk = place.disk("remote")
    with serving(disk, port=port) as server:
        environment = remote(place, disk, server, images.linux.name)
        outcome = place.run(environment)
        assert outcome.status == 0, outcome
        assert not holds(disk, bytes([STALE]) * 512), "an earlier tenant's bytes"
        assert disk.stat().st_blocks * 512 < guests.IMAGE_BYTES, "holes are not kept"
        root = FileSystem(disk, images.root.start)
        assert root.read("/etc/hostname") == f"{NAME}\n"

        outcome = place.run(environment | {"INSTANCE_NAME": "other"}, script="rename")
        assert outcome.status == 0, outcome
        assert root.read("/etc/hostname") == "other\n"
        root.check()

        copy = place.disk("imported")
        with serving(copy) as target:
            carry(place, server.uri, target.uri)
    assert copy.read_bytes() == disk.read_bytes()
    assert copy.stat().st_blocks <= disk.stat().st_blocks + MIB // 512


def carry(place: Site, source: str, target: str) -> None:
    """Export one URI's disk, and import it on another's, knowing nothing but these."""
    told, tell = os.pipe()
    exporting = place.node.script(
        "export",
        {"OS_API_VERSION": "20", "EXPORT_DISK_URI": source, "EXP_SIZE_FD": str(tell)},
        pass_fds=[tell],
    )
    os.close(tell)
    assert exporting.stdout
    importing = place.node.script(
        "import",
        {"OS_API_VERSION": "20", "IMPORT_DISK_URI": target},
        stdin=exporting.stdout.fileno(),
    )
    exporting.stdout.close()
    exporting.stdout = None
    for process in (importing, exporting):
        _, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, stderr
    with os.fdopen(told) as sizes:
        assert sizes.read() == f"{DISK_BYTES}\n"


@pytest.fixture(name="copying")
def _copying(place: Site) -> Iterator[tuple[Deployment, Server]]:
    """A deployment in the middle of its copy, and the storage that it goes to."""
    disk = place.disk("large", guests.LARGE_BYTES + MIB, stale=False)
    with (
        serving(disk) as server,
        place.started(remote(place, disk, server, "large")) as deployment,
    ):
        deployment.wait_for(message="Starting image copy")
        while disk.stat().st_blocks * 512 < 16 * MIB:
            time.sleep(0.001)
        yield deployment, server
        with disk.open("rb") as file:
            assert file.read(MIB) == bytes(MIB), "it could be taken for a good disk"


def test_storage_that_goes_away_during_the_copy(copying: tuple[Deployment, Server]) -> None:
    deployment, server = copying
    server.kill()
    outcome = deployment.finish()
    failed(outcome, deployment.events, f"disk {server.uri} cannot be ")
    assert "check its storage" in outcome.stderr


def test_storage_that_goes_away_during_tasks(place: Site) -> None:
    disk = place.disk(stale=False)
    with (
        serving(disk) as server,
        place.started(remote(place, disk, server, "linux")) as deployment,
    ):
        deployment.wait_for(subtype="task-start", task="MountImage")
        server.kill()
        outcome = deployment.finish()
    failed(outcome, deployment.events, "")
    assert "is full" not in outcome.stderr


def test_a_daemon_that_is_killed(copying: tuple[Deployment, Server]) -> None:
    deployment, server = copying
    os.kill(daemon_of(deployment), signal.SIGKILL)
    failed(deployment.finish(), deployment.events, f"disk {server.uri} cannot be ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_told_to_stop_during_the_copy(
    place: Site, copying: tuple[Deployment, Server], number: signal.Signals
) -> None:
    deployment, server = copying
    deployment.process.send_signal(number)
    ended(place, deployment, server, number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_told_to_stop_while_the_storage_hangs(
    place: Site, copying: tuple[Deployment, Server], number: signal.Signals
) -> None:
    """Not even SIGKILL ends a process that waits for FUSE: somebody must end what it waits for."""
    deployment, server = copying
    with stopped(server.process.pid):
        await_waiting(deployment.process.pid)
        deployment.process.send_signal(number)
        ended(place, deployment, server, number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_told_to_stop_during_tasks(place: Site, number: signal.Signals) -> None:
    disk = place.disk(stale=False)
    with (
        serving(disk) as server,
        place.started(remote(place, disk, server, "linux")) as deployment,
    ):
        deployment.wait_for(subtype="task-start", task="MountImage")
        deployment.process.send_signal(number)
        ended(place, deployment, server, number)


def ended(place: Site, deployment: Deployment, server: Server, number: signal.Signals) -> None:
    """It has ended, as it was told, and took all of its own with it."""
    outcome = deployment.finish()
    if number == signal.SIGKILL:
        assert outcome.status == -signal.SIGKILL
        place.await_orphans(server.process.pid)
    else:
        failed(outcome, deployment.events, "the deployment was interrupted by SIGTERM")
    assert place.remains(server.process.pid) == []


def daemon_of(deployment: Deployment) -> int:
    """The process id of a deployment's storage daemon, the keeper's only child."""
    for keeper in children(deployment.process.pid):
        for child in children(keeper):
            if Path(f"/proc/{child}/cmdline").read_bytes().startswith(DAEMON.encode()):
                return child
    raise AssertionError("no daemon runs")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def await_waiting(pid: int) -> None:
    """Wait until a process waits for FUSE to answer (proc(5): wchan)."""
    deadline = time.monotonic() + PATIENCE
    while "request_wait_answer" not in Path(f"/proc/{pid}/wchan").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- the destination by itself ----------------------------------------------------------------


def open_uri(uri: str, daemon: str = DAEMON, timeout: float = PATIENCE) -> DiskWriter:
    """Open a disk for writing."""
    return Uri(SimpleNamespace(daemon=daemon, timeout=timeout)).open(Disk(0, uri=uri))


def open_for_reading(uri: str) -> OpenDisk:
    """Open a disk for an export."""
    conf = SimpleNamespace(daemon=DAEMON, timeout=PATIENCE)
    return Uri(conf).open_for_reading(Disk(0, uri=uri))


@pytest.fixture(name="backing")
def _backing(tmp_path: Path) -> Path:
    """A disk full of an earlier tenant's bytes."""
    backing = tmp_path / "backing"
    backing.write_bytes(bytes([STALE]) * SIZE)
    return backing


@pytest.fixture(autouse=True)
def _nothing_remains_here() -> Iterator[None]:
    """After each test no daemon and no keeper is there."""
    before = set(children(os.getpid()))
    yield
    assert set(children(os.getpid())) == before


def test_written_zeroed_read_and_flushed(backing: Path) -> None:
    with serving(backing) as server, open_uri(server.uri) as disk:
        assert (disk.size, disk.path) == (SIZE, server.uri)
        disk.write(5, b"hello")
        disk.zero(MIB + 7, 60 * MIB)
        disk.flush()
        assert disk.read(4, 7) == b"\xaahello\xaa"
        assert disk.read(MIB + 6, 3) == b"\xaa\0\0"
        assert backing.stat().st_blocks * 512 < 5 * MIB, "no hole was punched"
    content = backing.read_bytes()
    assert content[:MIB].count(STALE) == MIB - 5
    assert not any(content[MIB + 7 : 61 * MIB + 7])
    assert content[61 * MIB + 7 :].count(STALE) == SIZE - 61 * MIB - 7


def test_zeros_on_storage_that_discards_nothing(backing: Path) -> None:
    """It says that it did, and an earlier tenant's bytes would stay."""
    with serving(backing, "--discard=ignore") as server, open_uri(server.uri) as disk:
        disk.zero(7, SIZE - 8)
        disk.flush()
    assert backing.read_bytes() == b"\xaa" * 7 + bytes(SIZE - 8) + b"\xaa"


def test_nothing_of_it_shows_on_the_node(backing: Path) -> None:
    own = set(children(os.getpid()))
    with serving(backing) as server, open_uri(server.uri):
        (keeper,) = set(children(os.getpid())) - own - {server.process.pid}
        (daemon,) = children(keeper)
        assert "/mnt/disk fuse" in Path(f"/proc/{daemon}/mounts").read_text()
        assert "/mnt/disk fuse" not in Path("/proc/1/mounts").read_text()
        assert "/mnt/disk fuse" not in Path("/proc/self/mounts").read_text()
        arguments = Path(f"/proc/{daemon}/cmdline").read_text()
        assert arguments.startswith(DAEMON)
        assert "nbd" not in arguments
        for process in (keeper, daemon):
            environment = Path(f"/proc/{process}/environ").read_text().strip("\0").split("\0")
            names = {entry.partition("=")[0] for entry in environment if entry}
            assert names <= {"PATH", "LC_ALL", "HOME"}


def test_flushing_reaches_the_storage(backing: Path) -> None:
    options = (
        "driver=raw,file.driver=blkdebug,file.image.driver=file,"
        f"file.image.filename={backing},"
        "file.inject-error.0.event=flush_to_disk,file.inject-error.0.errno=5"
    )
    with serving(options, "--image-opts") as server, open_uri(server.uri) as disk:
        disk.write(0, b"x")
        with pytest.raises(DiskError, match=r"cannot be flushed: Input/output error"):
            disk.flush()


def test_storage_that_is_full(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=4m", "none") as small:
        (small / "disk").touch()
        os.truncate(small / "disk", SIZE)
        with (
            serving(small / "disk") as server,
            open_uri(server.uri) as disk,
            pytest.raises(DiskError, match=r"cannot be written: No space left.*make room"),
        ):
            disk.write(0, b"x" * 8 * MIB)


def test_storage_that_can_only_be_read(backing: Path) -> None:
    with serving(backing, "--read-only") as server:
        with pytest.raises(DiskError, match=r"cannot be opened: .*(denied|read-only|permission)"):
            open_uri(server.uri)
        reading, writing = os.pipe()
        received = bytearray()

        def receive() -> None:
            with os.fdopen(reading, "rb") as file:
                received.extend(file.read())

        receiver = threading.Thread(target=receive)
        receiver.start()
        with os.fdopen(writing, "wb"), open_for_reading(server.uri) as disk:
            stream.export(disk, writing)
        receiver.join()
    assert received == backing.read_bytes()


def test_a_disk_of_no_size(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with (
        serving(tmp_path / "empty") as server,
        pytest.raises(DiskError, match=r"nbd.* has no size"),
    ):
        open_uri(server.uri)


def test_an_export_of_storage_that_goes_away(backing: Path) -> None:
    with (
        serving(backing) as server,
        open_for_reading(server.uri) as disk,
        open(os.devnull, "wb") as out,
    ):
        server.kill()
        with pytest.raises(DiskError, match=r"nbd.* cannot be exported: .*check its storage"):
            stream.export(disk, out.fileno())


def test_storage_that_does_not_answer(backing: Path) -> None:
    with (
        serving(backing) as server,
        stopped(server.process.pid),
        pytest.raises(DiskError, match=r"cannot be opened: its storage does not answer"),
    ):
        open_uri(server.uri, timeout=1)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("nbd+unix:///?socket=/nowhere/socket", "Failed to connect to '/nowhere/socket': No such"),
        ("nbd://127.0.0.1:1/", "Connection refused"),
    ],
)
def test_nobody_is_there(uri: str, said: str) -> None:
    with pytest.raises(DiskError, match=said) as caught:
        open_uri(uri)
    assert uri in caught.value.message
    assert "check the storage" in caught.value.remedy


def test_an_export_that_the_server_does_not_have(backing: Path) -> None:
    with serving(backing) as server, pytest.raises(DiskError, match="Requested export not avail"):
        open_uri(server.uri.replace("///", "///other"))


def test_no_daemon_or_none_that_works(backing: Path, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"/nowhere cannot be run.*install qemu-system-common"):
        open_uri("nbd://h", daemon="/nowhere")
    with pytest.raises(DiskError, match="QEMU's storage daemon died"):
        open_uri("nbd://h", daemon="/bin/true")
    (tmp_path / "bad").write_text("no program")
    (tmp_path / "bad").chmod(0o755)
    with pytest.raises(DiskError, match=r"bad cannot be run: Exec format error"):
        open_uri("nbd://h", daemon=str(tmp_path / "bad"))


_ALL = {
    "ssh": "ssh://root@h/disk",
    "iscsi": "iscsi://h/iqn.2001-04.com.example:x/0",
    "rbd": "rbd:pool/image:id=admin:conf=/etc/ceph/ceph.conf",
    "gluster": "gluster://192.0.2.1/volume/disk",
    "http": "http://127.0.0.1:1/disk",
    "ftps": "ftps://127.0.0.1:1/disk",
}


@pytest.mark.parametrize("driver", _ALL)
def test_a_driver_that_is_not_installed_is_named(driver: str, tmp_path: Path) -> None:
    """QEMU has them in modules, which a namespace without their directory has not."""
    code = (
        "import sys\nfrom types import SimpleNamespace\n"
        "from snf_core.errors import DiskError\nfrom snf_core.image.destination.uri import Uri\n"
        "from snf_core.model import Disk\n"
        "try:\n"
        f"    Uri(SimpleNamespace(daemon={DAEMON!r}, timeout=60)).open_for_reading(\n"
        f"        Disk(0, uri={_ALL[driver]!r}))\n"
        "except DiskError as error:\n    print(error)\n"
    )
    hidden = 'mount --bind "$0" "$1" && shift && exec "$@"'
    modules = next(Path("/usr/lib").glob("*/qemu"))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden, tmp_path, modules, _python(), "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"QEMU's driver {driver} is not installed (install qemu-block-extra)" in done.stdout


def _python() -> str:
    import sys

    return sys.executable


@pytest.mark.parametrize("uri", ["file:/etc/shadow", "json:{}", "/etc/shadow", "sheepdog:x"])
def test_what_is_no_remote_disk_is_refused(place: Site, uri: str) -> None:
    environment = place.environment(place.disk(stale=False)) | {"DISK_0_URI": uri}
    del environment["DISK_0_PATH"]
    outcome = place.run(environment)
    assert outcome.status == 1
    assert f"snf: error: no destination accepts disk {uri}\n" in outcome.stderr


def test_the_report_names_the_disk_by_its_uri(place: Site) -> None:
    report = place.disks / "report.json"
    environment = place.environment(place.disk(stale=False), "large")
    del environment["DISK_0_PATH"]
    uri = "ssh://me:hunter2@h/disk"
    outcome = place.run(environment | {"DISK_0_URI": uri}, "--report", str(report))
    assert outcome.status == 1
    with contextlib.suppress(KeyError):
        (event,) = json.loads(report.read_text())["events"]
        assert "disk ssh://me:********@h/disk" in event["messages"][0]
    assert "hunter2" not in outcome.stderr + report.read_text()
