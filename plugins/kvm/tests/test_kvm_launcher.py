"""What stands between libguestfs and QEMU: arguments rewritten, settings filled in."""

from __future__ import annotations

import ast
import os
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_kvm import hypervisor, launcher

if TYPE_CHECKING:
    from collections.abc import Iterator

DISK = "/run/snf/deployments/tmp_x/disk0"


@pytest.fixture(name="descriptor")
def _descriptor(tmp_path: Path) -> Iterator[int]:
    with (tmp_path / "disk").open("w+b") as file:
        yield file.fileno()


def test_placeholders_become_descriptors_and_nothing_else_changes(descriptor: int) -> None:
    argv = [
        "-global", "virtio-blk-pci.scsi=off", "-no-user-config", "-m", "512",
        "-kernel", "/var/lib/snf/appliance/kernel",
        "-drive", f"file={DISK},cache=writeback,format=raw,id=hd0,if=none",
        "-drive", "file=/var/lib/snf/appliance/root,snapshot=on,id=appliance,if=none",
        "-append", f"panic=1 file={DISK}",
    ]  # fmt: skip
    found = launcher.rewrite(argv, {DISK: descriptor})
    drive = (
        f"auto-read-only=off,werror=report,file.driver=file,file.filename=/dev/fdset/{descriptor},"
        "cache=writeback,format=raw,id=hd0,if=none"
    )
    assert found[: len(argv)] == [*argv[:8], drive, *argv[9:]]
    assert found[len(argv) :] == [
        "-add-fd", f"fd={descriptor},set={descriptor}", "-sandbox", launcher.SANDBOX,
    ]  # fmt: skip


def test_a_placeholder_alone_leaves_no_comma(descriptor: int) -> None:
    word = launcher.rewrite(["-drive", f"file={DISK}"], {DISK: descriptor})[1]
    assert word.endswith(f"/dev/fdset/{descriptor}")


def test_several_disks(descriptor: int) -> None:
    disks = {DISK: descriptor, DISK + "0": os.dup(descriptor)}
    try:
        argv = [word for disk in disks for word in ("-drive", f"file={disk},if=none")]
        found = launcher.rewrite(argv, disks)
    finally:
        os.close(disks[DISK + "0"])
    assert [word for word in found if "fdset" in word] == [
        f"auto-read-only=off,werror=report,file.driver=file,file.filename=/dev/fdset/{number},if=none"
        for number in disks.values()
    ]
    assert found.count("-add-fd") == 2


@pytest.mark.parametrize("word", ["file=/other,if=none", f"file={DISK}1,if=none", f"x={DISK}"])
def test_a_disk_that_no_argument_names_is_an_error(descriptor: int, word: str) -> None:
    """QEMU would show the guest an empty placeholder instead of its disk."""
    with pytest.raises(ValueError, match=f"names {DISK}"):
        launcher.rewrite(["-drive", word], {DISK: descriptor})


def test_the_sandbox_denies_all_it_can() -> None:
    settings = dict(word.split("=") for word in launcher.SANDBOX.split(",")[1:])
    assert launcher.SANDBOX.startswith("on,")
    assert settings == dict.fromkeys(
        ("obsolete", "elevateprivileges", "spawn", "resourcecontrol"), "deny"
    )


def test_disks_are_received_with_their_names(tmp_path: Path, descriptor: int) -> None:
    address = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(address)
        server.listen(1)
        got = _serve(server, address, [DISK, DISK + "x"], [descriptor, descriptor])
    assert list(got) == [DISK, DISK + "x"]
    for number in got.values():
        assert os.fstat(number).st_ino == os.fstat(descriptor).st_ino
        os.close(number)


def _serve(
    server: socket.socket, address: str, names: list[str], descriptors: list[int]
) -> dict[str, int]:
    def send() -> None:
        connection, _ = server.accept()
        with connection:
            socket.send_fds(connection, ["\0".join(names).encode()], descriptors)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        return launcher.receive(address)
    finally:
        thread.join()


@pytest.mark.parametrize("qemu", ["/usr/bin/qemu-system-x86_64", '/opt/my qemu/it\'s "q"\\n'])
def test_the_programs_settings_are_filled_in(qemu: str) -> None:
    text = hypervisor._program(Path(qemu), 5 << 30)
    first, rest = text.split("\n", 1)
    assert first == "#!/usr/bin/python3 -IS"
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(rest).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    assert values["QEMU"] == qemu
    assert values["ADDRESS_SPACE"] == 5 << 30


def test_the_program_needs_only_the_standard_library() -> None:
    """It is copied to where none of our packages can be seen."""
    tree = ast.parse(Path(launcher.__file__).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names
