"""Detection and MountImage over file systems in dictionaries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from snf_core.errors import GuestError
from snf_os_linux.family import Linux
from snf_os_linux.mount import MountImage
from tests.fakes.guest import FakeFilesystem, FakeGuest, file, filesystem
from tests.fakes.task import run

ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
ROOT = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
SWAP = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"
BASIC = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"


class _Unmountable(FakeGuest):
    """A guest into which nobody may look."""

    def mount(self, device: str, *_: Any, **__: Any) -> None:
        raise AssertionError(f"{device} is mounted")


def _set_types(guest: FakeGuest, types: list[str]) -> None:
    label = "gpt" if len(max(types)) > 2 else "msdos"
    partitions = zip(guest.disk.partitions, types, strict=True)
    changed = tuple(replace(partition, type=kind) for partition, kind in partitions)
    guest.disk = replace(guest.disk, label=label, partitions=changed)


class TestDetection:
    def _linux(self) -> FakeFilesystem:
        return filesystem({"/etc/os-release": "ID=debian\n"})

    def test_score(self) -> None:
        guest = FakeGuest(
            {
                "/dev/sda1": filesystem({"/etc/os-release": ""}, "vfat"),
                "/dev/sda2": filesystem({"/etc/passwd": ""}),
                "/dev/sda3": self._linux(),
                "/dev/sda4": filesystem({"/etc": file(""), "/usr/lib/os-release": ""}),
                "/dev/sda5": filesystem({"/home": ""}, "swap"),
            }
        )
        family = Linux(None)
        scores = [family.detect(guest, f"/dev/sda{n}") for n in range(1, 6)]
        assert scores == [0, 1, 2, 0, 0]
        assert family.detect(guest, None) == 2
        assert family.root(guest) == "/dev/sda3"
        assert guest.mounts == {}

    def test_damaged_file_system_is_no_root(self) -> None:
        class Damaged(FakeGuest):
            def mount(self, device: str, *_: Any, **__: Any) -> None:
                raise GuestError(f"mount {device}: structure needs cleaning")

        guest = Damaged({"/dev/sda1": self._linux(), "/dev/sda2": self._linux()})
        assert Linux(None).detect(guest, None) == 0
        with pytest.raises(GuestError, match="no Linux root file system was found on: /dev/sda1"):
            Linux(None).root(guest)

    @pytest.mark.parametrize(
        ("types", "kinds", "expected"),
        [
            ([""], ["ext4"], (1, "/dev/sda1")),
            ([ESP, LINUX, SWAP], ["vfat", "xfs", "swap"], (1, "/dev/sda2")),
            (["ef", "83", "05"], ["vfat", "btrfs", ""], (1, "/dev/sda2")),
            ([LINUX, ROOT, BASIC], ["ext4", "ext4", "ntfs"], (2, "/dev/sda2")),
        ],
    )
    def test_what_the_partition_table_decides_is_not_looked_into(
        self, types: list[str], kinds: list[str], expected: tuple[int, str]
    ) -> None:
        guest = _Unmountable(
            {f"/dev/sda{n}": filesystem({}, kind) for n, kind in enumerate(kinds, 1)}
        )
        _set_types(guest, types)
        assert (Linux(None).detect(guest, None), Linux(None).root(guest)) == expected

    def test_two_that_are_roots_by_type_are_looked_into(self) -> None:
        guest = FakeGuest({"/dev/sda1": filesystem({"/etc/x": ""}), "/dev/sda2": self._linux()})
        _set_types(guest, [ROOT, ROOT])
        assert Linux(None).root(guest) == "/dev/sda2"
        assert guest.mounts == {}

    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            ("crypto_LUKS", "/dev/sda2 is encrypted"),
            ("LVM2_member", "/dev/sda2 is a physical volume of LVM"),
            ("", r"found on: /dev/sda2 \(nothing known\)"),
        ],
    )
    def test_only_candidate_that_is_no_file_system(self, kind: str, message: str) -> None:
        guest = _Unmountable(
            {"/dev/sda1": filesystem({}, "vfat"), "/dev/sda2": filesystem({}, kind)}
        )
        _set_types(guest, [ESP, ROOT])
        assert Linux(None).detect(guest, None) == (1 if kind else 0)
        with pytest.raises(GuestError, match=message):
            Linux(None).root(guest)


class TestMountImage:
    def _run(self, fstab: str | None, **others: FakeFilesystem) -> tuple[FakeGuest, list[str]]:
        files = {"/etc/passwd": ""} | ({} if fstab is None else {"/etc/fstab": fstab})
        systems = {f"/dev/{name}": system for name, system in others.items()}
        guest = FakeGuest({"/dev/sda1": filesystem(files), **systems})
        return guest, run(MountImage, guest, facts={"root": "/dev/sda1"})

    def test_missing_fstab_is_a_warning(self) -> None:
        guest, warnings = self._run(None)
        assert len(warnings) == 1
        assert "no /etc/fstab" in warnings[0]
        assert list(guest.mounts) == ["/"]

    @pytest.mark.parametrize("text", ["", "# nothing\n", "UUID=x / ext4 defaults 0 1\n"])
    def test_fstab_without_more(self, text: str) -> None:
        assert self._run(text)[1] == []

    def test_options_are_the_guests_business(self) -> None:
        text = (
            "LABEL=a /a btrfs noatime,subvol=@a,subvolid=5,exec\n"
            "LABEL=b /b ext4 subvol=x,loop,ro\nLABEL=c /c btrfs subvol=@\\054suid\n"
        )
        systems = {
            f"sdb{n}": filesystem({}, "btrfs" if n != 2 else "ext4", LABEL=name)
            for n, name in enumerate("abc", 1)
        }
        guest, warnings = self._run(text, **systems)
        assert warnings == []
        assert [guest.mounts[f"/{name}"].options for name in "abc"] == [
            "subvol=@a,subvolid=5",
            "",
            "subvol=@",
        ]

    @pytest.mark.parametrize("source", ["/dev/sdb1", "/dev/vda2", "/dev/mapper/vg-home"])
    def test_names_that_are_not_persistent(self, source: str) -> None:
        with pytest.raises(GuestError, match=r"fstab line 2 .*no persistent name"):
            self._run(f"# x\n{source} /home ext4 defaults\n")
        assert len(self._run(f"{source} /home ext4 nofail\n")[1]) == 1

    def test_missing_device(self) -> None:
        with pytest.raises(GuestError, match=r"fstab line 1 \(UUID=x on /home\): there is no such"):
            self._run("UUID=x /home ext4 defaults\n")
        _, [warning] = self._run("UUID=x /home ext4 nofail,defaults\n")
        assert "line 1" in warning

    def test_root_without_etc(self) -> None:
        guest = FakeGuest({"/dev/sda1": filesystem({"/grub": ""})})
        with pytest.raises(GuestError, match="holds no /etc") as caught:
            run(MountImage, guest, facts={"root": "/dev/sda1"})
        assert "ROOT_PARTITION" in caught.value.remedy
