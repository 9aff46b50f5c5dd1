"""Windows images made, deployed and read in a helper domain of a real Xen.

What is written, ``tests/system/test_windows.py`` looks at more closely. Here is shown that the
helper domain can do it: drivers for NTFS and FAT without udev, partitions that move, hives as large
as a real Windows has them in its memory.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import struct
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from xml.etree import ElementTree

import pytest

from snf_core.report import Reporter
from tests import node
from tests.images import hive, windows
from tests.images.windows import Image
from tests.xen.place import MIB, PATIENCE, PLACE, Place, disk, furnished, opened, remains, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from snf_core.image.guest import Guest
    from snf_core.image.layout import Partition, Table
    from tests.images.windows import Built

_T = TypeVar("_T")

PASSWORD = "p\u00e4\"s's%PATH%^&|<>!$(x)\\`@{};~#\u20ac"
LEGACY_PASSWORD = "pas's%PATH%^&|<>!$(x)@{};~#"
PRODUCT_KEY = "ABCDE-FGHIJ-KLMNO-PQRST-UVWXY"
FILE = "/inetpub/motd.txt"
NEW, OLD = b"of the tenant\r\n\xff", "of the template\r\n"
NIC = node.bridged_nic("198.51.100.10", "198.51.100.0/24", "198.51.100.1")

XEN = ("xenbus", "xenvbd", "xenvif", "xennet")
IMAGES = {
    "2022": Image("2022", drivers=XEN, users=("olga",), files={FILE: OLD}),
    "2003": Image("2003", drivers=XEN),
    "cloudbase": Image("2022", drivers=XEN, users=("olga",), cloudbase=True),
}
"""By their files' names."""

HIVES = {"SYSTEM": 20 * MIB, "SOFTWARE": 32 * MIB}
"""Of 2022. SYSTEM, which is held in memory where it is changed, is as large as that of a Windows in
use; SOFTWARE would be larger, which takes a minute to make."""
CONFIG = "/windows/system32/config"
UNATTEND = "/windows/panther/unattend/unattend.xml"


@dataclass(frozen=True)
class Volume:
    """A partition, as a fresh helper domain sees it."""

    partition: Partition
    files: Mapping[str, bytes]
    """Path in lower case -> content."""
    label: str
    """Of FAT."""
    well: bool
    """NTFS: whether Windows would write to it without a check."""
    full: bool
    """NTFS: whether it fills its partition."""


@dataclass(frozen=True)
class Deployed:
    """A deployment, and what it left on the disk."""

    said: str
    table: Table
    volumes: Mapping[str, Volume]
    """By the part that they play; ``seed`` is what the image did not have."""


@pytest.fixture(name="place", scope="module")
def _place() -> Iterator[Place]:
    with furnished(PLACE / "images") as place:
        (PLACE / "images").mkdir()
        yield place


@pytest.fixture(name="deployed", scope="module")
def _deployed(place: Place) -> dict[str, Deployed]:
    """All images, each deployed once."""
    built = timed("images made", lambda: make_images(place))
    said = {
        "2022": deploy(
            place,
            "2022",
            2560,
            {"USERS": "Administrator olga"},
            HYPERVISOR="xen-hvm",
            OSP_IMG_PASSWD=PASSWORD,
            OSP_OS_PRODUCT_KEY=PRODUCT_KEY,
            OSP_IMG_PERSONALITY=json.dumps(
                [{"path": FILE, "contents": base64.b64encode(NEW).decode()}]
            ),
        ),
        "2003": deploy(place, "2003", 1536, HYPERVISOR="xen-hvm", OSP_IMG_PASSWD=LEGACY_PASSWORD),
        "cloudbase": deploy(
            place, "cloudbase", 1536, HYPERVISOR="xen-pvm", OSP_IMG_PASSWD=PASSWORD
        ),
    }
    paths = [PLACE / "disks" / name for name in IMAGES]
    read = timed("disks read", lambda: inside(place, paths, lambda guest: look(guest, built)))
    return {name: Deployed(said[name], *read[name]) for name in IMAGES}


def timed(what: str, act: Callable[[], _T]) -> _T:
    begin = time.monotonic()
    result = act()
    print(f"\nfigure: {what} in {time.monotonic() - begin:.0f} s")
    return result


def inside(place: Place, paths: Sequence[Path], job: Callable[[Guest], _T]) -> _T:
    """What ``job`` returns in a helper domain with those disks."""
    channel = os.memfd_create("result")

    def work(guest: Guest, _to: Reporter) -> None:
        tempfile.tempdir = os.environ["TMPDIR"]
        with open(channel, "wb", closefd=False) as file:
            pickle.dump(job(guest), file)

    with opened(*paths) as disks, started(place, place.launcher, disks, work, kept=[channel]) as it:
        it.finish(Reporter([]))
    with open(channel, "rb") as file:
        file.seek(0)
        result: _T = pickle.load(file)
    return result


def make_images(place: Place) -> Mapping[str, Built]:
    """All of them, in one helper domain."""
    paths = [PLACE / "images" / name for name in IMAGES]
    for path, image in zip(paths, IMAGES.values(), strict=True):
        path.touch()
        os.truncate(path, image.size * MIB)

    def make(guest: Guest) -> dict[str, Built]:
        handle = guest._handle
        made = {
            name: windows.build(handle, f"/dev/sd{letter}", image)
            for letter, (name, image) in zip("abc", IMAGES.items(), strict=True)
        }
        enlarge_hives(handle, made["2022"].root)
        return made

    return inside(place, paths, make)


def enlarge_hives(handle: Any, root: str) -> None:
    """By bins full of cells that nothing leads to; packed, since the way there is slow."""
    handle.mount(root, "/")
    with tempfile.NamedTemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
            for name, size in HIVES.items():
                content = handle.read_file(f"/Windows/System32/config/{name}")
                with tempfile.NamedTemporaryFile() as large:
                    large.write(enlarged(content, size))
                    large.flush()
                    tar.add(large.name, f"Windows/System32/config/{name}")
        file.flush()
        handle.tar_in(file.name, "/", compress="gzip")
    handle.umount_all()


def enlarged(content: bytes, size: int) -> bytes:
    """A hive of about ``size`` bytes that holds what ``content`` does."""
    block = 4096
    cells = struct.pack("<i", -64).ljust(64, b"\0") * 63 + struct.pack("<i", -32).ljust(32, b"\0")
    offsets = range(len(content) - block, size - block, block)
    bins = [struct.pack("<4sIIQQI", b"hbin", at, block, 0, 0, 0) + cells for at in offsets]
    whole = b"".join([content, *bins])
    return hive.sealed(whole[:40] + struct.pack("<I", len(whole) - block) + whole[44:])


def deploy(
    place: Place, name: str, size: int, properties: Mapping[str, str] | None = None, **words: str
) -> str:
    """What Ganeti's create script said, which was started as Ganeti does."""
    path = disk(name, size)
    environment = node.instance_environment("web1.example.org", path, nics=[NIC]) | {
        "OSP_IMG_ID": name,
        "OSP_IMG_FORMAT": "diskdump",
        "OSP_IMG_PROPERTIES": json.dumps(properties or {}),
        **words,
    }
    script = place.node.script("create", environment, stderr=subprocess.STDOUT)
    said = timed(f"{name} deployed", lambda: script.communicate(timeout=PATIENCE)[0])
    print(said.decode(errors="replace"))
    assert script.returncode == 0
    return said.decode()


def look(guest: Guest, built: Mapping[str, Built]) -> dict[str, tuple[Table, dict[str, Volume]]]:
    """What the disks hold."""
    found = {}
    for letter, (name, one) in zip("abc", built.items(), strict=True):
        device = f"/dev/sd{letter}"
        table = guest.table(device)
        roles = {number: role for role, number in one.partitions.items()}
        volumes = {
            roles.get(partition.number, "seed"): volume(guest, device, partition)
            for partition in table.partitions
            if roles.get(partition.number) != "msr"
        }
        found[name] = (table, volumes)
    return found


def volume(guest: Guest, whole: str, partition: Partition) -> Volume:
    handle, device = guest._handle, f"{whole}{partition.number}"
    ntfs = handle.vfs_type(device) == "ntfs"
    handle.mount_ro(device, "/")
    with tempfile.NamedTemporaryFile() as file:
        large = ["./Windows/System32/config/SOFTWARE"]
        handle.tar_out("/", file.name, compress="gzip", excludes=large)
        with tarfile.open(file.name) as tar:
            members = [(member, tar.extractfile(member)) for member in tar if member.isreg()]
            files = {m.name.removeprefix(".").lower(): f.read() for m, f in members if f}
    handle.umount_all()
    return Volume(
        partition,
        files,
        label="" if ntfs else handle.vfs_label(device),
        well=ntfs and handle.ntfs_3g_probe(True, device) == 0,
        full=ntfs and guest.ntfs(device).fills(partition.size),
    )


def texts(document: bytes, name: str) -> list[str]:
    """The texts of all elements of that name."""
    found = ElementTree.fromstring(document).iter()
    return [element.text or "" for element in found if element.tag.rpartition("}")[2] == name]


def test_the_helper_domain_did_it_and_nothing_of_it_stays(deployed: dict[str, Deployed]) -> None:
    for one in deployed.values():
        assert "finished successfully" in one.said
        assert "slower" not in one.said
        assert "emulated" not in one.said
        for secret in (PASSWORD, LEGACY_PASSWORD, PRODUCT_KEY):
            assert secret not in one.said
    assert remains() == []


def test_recovery_moves_behind_a_system_volume_that_grew(deployed: dict[str, Deployed]) -> None:
    table, volumes = deployed["2022"].table, deployed["2022"].volumes
    system, recovery = volumes["windows"], volumes["recovery"]
    assert 0 < table.size - recovery.partition.end - 1 < 3 * MIB
    assert recovery.partition.start - system.partition.end - 1 < MIB
    assert system.partition.size > 2000 * MIB
    assert (system.well, recovery.well) == (True, True)
    assert "/recovery/windowsre/winre.wim" in recovery.files


def test_the_system_volume_is_written_to(deployed: dict[str, Deployed]) -> None:
    files = deployed["2022"].volumes["windows"].files
    assert texts(files[UNATTEND], "ComputerName") == ["web1"]
    assert texts(files[UNATTEND], "ProductKey") == [PRODUCT_KEY]
    for name in ("20-network.again.ps1", "30-password.secret.txt"):
        assert f"/windows/snfscripts/{name}" in files
    kept = {path: content for path, content in files.items() if "/inetpub/" in path}
    assert kept.pop(FILE) == NEW
    assert list(kept.values()) == [OLD.encode()]


def test_a_large_hive_is_written_to(deployed: dict[str, Deployed]) -> None:
    content = deployed["2022"].volumes["windows"].files[f"{CONFIG}/system"]
    assert len(content) >= HIVES["SYSTEM"]
    key = "\\ControlSet001\\Control\\Terminal Server:fDenyTSConnections"
    assert hive.dump(content)[key] == ("REG_DWORD", 1)


def test_the_volume_of_windows_2003_grew_offline(deployed: dict[str, Deployed]) -> None:
    system = deployed["2003"].volumes["windows"]
    assert (system.well, system.full) == (True, True)
    assert system.partition.size > 1500 * MIB
    text = system.files["/sysprep/sysprep.inf"].decode("latin-1").replace(" ", "")
    assert "ComputerName=web1" in text.replace('"', "")


def test_cloudbase_init_gets_its_volume(deployed: dict[str, Deployed]) -> None:
    seed = deployed["cloudbase"].volumes["seed"]
    assert seed.label == "CONFIG-2"
    meta = json.loads(seed.files["/openstack/latest/meta_data.json"])
    assert (meta["hostname"], meta["admin_pass"]) == ("web1", PASSWORD)
    assert deployed["cloudbase"].volumes["windows"].full


def test_drivers_are_looked_for_as_the_guest_will_need_them(deployed: dict[str, Deployed]) -> None:
    assert "Windows does not start as xen-pvm guest" in deployed["cloudbase"].said
    for name in ("2022", "2003"):
        assert "driver" not in deployed[name].said
        assert "INACCESSIBLE" not in deployed[name].said
