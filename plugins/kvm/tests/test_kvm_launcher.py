"""What stands between libguestfs and QEMU: arguments rewritten, settings filled in."""

from __future__ import annotations

import ast
import contextlib
import itertools
import os
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.appliance import Appliance
from snf_kvm import launcher, machine
from snf_kvm.hypervisor import Kvm
from snf_kvm.inside import resumed
from snf_kvm.saved import Saved

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

DISK = "/run/snf/deployments/tmp_x/disk0"


@pytest.fixture(name="descriptor")
def _descriptor(tmp_path: Path) -> Iterator[int]:
    with (tmp_path / "disk").open("w+b") as file:
        yield file.fileno()


def fdset(descriptor: int, kind: str = "file") -> str:
    """How an argument of QEMU's names a descriptor."""
    return (
        f"auto-read-only=off,werror=report,file.driver={kind},file.filename=/dev/fdset/{descriptor}"
    )


def test_placeholders_become_descriptors_and_nothing_else_changes(descriptor: int) -> None:
    argv = [
        "-global", "virtio-blk-pci.scsi=off", "-no-user-config", "-m", "512",
        "-kernel", "/var/lib/snf/appliance/kernel",
        "-drive", f"file={DISK},cache=unsafe,format=raw,id=hd0,if=none",
        "-drive", "file=/var/lib/snf/appliance/root,snapshot=on,id=appliance,if=none",
        "-append", f"panic=1 file={DISK}",
    ]  # fmt: skip
    disks = {DISK: descriptor}
    found = launcher.boot(argv, disks)
    drive = f"{fdset(descriptor)},cache=unsafe,format=raw,id=hd0,if=none"
    assert found == [*argv[:8], drive, *argv[9:]]
    assert launcher.handed_over(found, disks) == ["-add-fd", f"fd={descriptor},set={descriptor}"]


def test_a_placeholder_alone_leaves_no_comma(descriptor: int) -> None:
    assert launcher.drive(f"file={DISK}", {DISK: descriptor}) == fdset(descriptor)


def test_several_disks(descriptor: int) -> None:
    disks = {DISK: descriptor, DISK + "0": os.dup(descriptor)}
    try:
        argv = [word for disk in disks for word in ("-drive", f"file={disk},if=none")]
        found = launcher.boot(argv, disks)
        assert launcher.handed_over(found, disks).count("-add-fd") == 2
    finally:
        os.close(disks[DISK + "0"])
    assert found[1::2] == [f"{fdset(number)},if=none" for number in disks.values()]


@pytest.mark.parametrize("word", ["file=/other,if=none", f"file={DISK}1,if=none", f"x={DISK}"])
def test_a_disk_that_no_argument_names_is_an_error(descriptor: int, word: str) -> None:
    """QEMU would show the guest an empty placeholder instead of its disk."""
    disks = {DISK: descriptor}
    with pytest.raises(ValueError, match=f"names {DISK}"):
        launcher.handed_over(launcher.boot(["-drive", word], disks), disks)


def test_a_descriptor_whose_number_begins_like_anothers_is_missed() -> None:
    with pytest.raises(ValueError, match="names b"):
        launcher.handed_over([f"{fdset(12)},if=none"], {"a": 12, "b": 1})


@pytest.fixture(name="saved")
def _saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A launcher with a state to resume."""
    state = tmp_path / "state"
    state.write_bytes(b"STATE")
    monkeypatch.setattr(launcher, "STATE", str(state))
    monkeypatch.setattr(launcher, "ROOT", "/state/root.qcow2")
    monkeypatch.setattr(launcher, "MACHINE", ["-machine", "pc-i440fx-7.2,accel=tcg"])
    return state


def test_what_is_resumed_is_the_saved_machine_with_the_disks_in_their_order(
    saved: Path, descriptor: int
) -> None:
    """Of libguestfs's arguments none but the channel and the disks is used."""
    second = os.dup(descriptor)
    argv = [
        "-machine", "accel=tcg", "-m", "512", "-kernel", "/kernel",
        "-drive", f"file={DISK}0,cache=unsafe,format=raw,id=hd0,if=none",
        "-device", "scsi-hd,drive=hd0",
        "-drive", f"file={DISK},cache=unsafe,format=raw,id=hd1,if=none",
        "-drive", "file=/root,snapshot=on,id=appliance,if=none",
        "-chardev", "socket,path=/tmp/guestfsd.sock,id=channel0", "-append", "panic=1",
    ]  # fmt: skip
    disks = {DISK: descriptor, f"{DISK}0": second}
    words = launcher.resume(argv, disks)
    options = dict(itertools.pairwise(words))
    opened = [int(options["-incoming"].removeprefix("fd:"))]
    opened.append(int(words[-3].removeprefix("socket,id=resume,fd=")))
    try:
        assert words[:2] == launcher.MACHINE
        assert "-kernel" not in words
        assert "-append" not in words
        assert "socket,path=/tmp/guestfsd.sock,id=channel0" in words
        placed = [words.index(f"{fdset(n)},cache=unsafe,format=raw,id=hd{i},if=none")
                  for i, n in enumerate((second, descriptor))]  # fmt: skip
        assert placed == sorted(placed)
        assert [words[place + 2] for place in placed] == [
            f"scsi-hd,drive=hd{n},bus=scsi.0,scsi-id={n},lun=0" for n in (0, 1)
        ]
        assert all(os.get_inheritable(number) for number in opened)
        assert os.pread(opened[0], 10, 0) == b"STATE"
        with socket.socket(fileno=os.dup(opened[1])) as line:
            seconds, count, seed = launcher.MESSAGE.unpack(line.recv(100))
        assert abs(time.time() - seconds) < 60
        assert count == 2
        assert len(set(seed)) > 8
        launcher.handed_over(words, disks)
    finally:
        for number in [second, *opened]:
            os.close(number)
    assert saved.exists()


def test_both_sides_of_the_message_agree() -> None:
    assert launcher.MESSAGE.format == resumed.MESSAGE.format


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
def test_the_programs_settings_are_filled_in(qemu: str, tmp_path: Path) -> None:
    """They stay what they are, whatever they contain."""
    plugin = Kvm(SimpleNamespace(qemu=qemu))
    node = Appliance(tmp_path, tmp_path, 300)
    boots = settings(plugin._program(node))
    assert boots["QEMU"] == qemu
    assert boots["ADDRESS_SPACE"] == (300 << 20) + (4 << 30)
    assert (boots["STATE"], boots["MACHINE"]) == ("", [])
    fit = Saved(tmp_path / "a \"b\" 'c'", "pc-i440fx-7.2", "2026-11-22")
    resumes = settings(plugin._program(node, fit, "tcg"))
    assert resumes["STATE"] == str(fit.state)
    assert resumes["ROOT"] == str(fit.root)
    assert resumes["MACHINE"] == machine.arguments("pc-i440fx-7.2", "tcg", 300)
    assert boots.keys() == resumes.keys()


def settings(text: str) -> dict[str, Any]:
    """The constants of a program."""
    first, rest = text.split("\n", 1)
    assert first == "#!/usr/bin/python3 -IS"
    values: dict[str, Any] = {}
    for node in ast.parse(rest).body:
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            if isinstance(node, ast.Assign):
                values[node.targets[0].id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            if isinstance(node, ast.AnnAssign):
                values[node.target.id] = ast.literal_eval(node.value)  # type: ignore[union-attr, arg-type]
    return values


@pytest.mark.parametrize("module", [launcher, resumed])
def test_the_program_needs_only_the_standard_library(module: ModuleType) -> None:
    """It is copied to where none of our packages can be seen."""
    assert module.__file__
    tree = ast.parse(Path(module.__file__).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names
