"""Saving the state of a running appliance.

Done once per node, by ``snf appliance build``, with nothing of a tenant in reach: the appliance is
booted in the machine that will resume it, with libguestfs's rescue shell (virt-rescue(1)) on its
console, through which everything a deployment needs is used once; then guestfsd is stopped and
the state is migrated into a file.
"""

from __future__ import annotations

import datetime
import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.errors import ApplianceError
from snf_core.run import STDOUT, run, started
from snf_kvm import machine, saved
from snf_kvm.inside import resumed
from snf_kvm.monitor import Console, Monitor, accepted, listening

if TYPE_CHECKING:
    from snf_core.appliance import Appliance

_SCRATCH = 256 << 20
"""Bytes of the disk on which the appliance is warmed up."""
_SUPERBLOCK, _UUID = 1024, slice(104, 120)
"""Where an ext2 file system keeps its UUID (Linux, Documentation/filesystems/ext4)."""


def save(qemu: Path, accelerator: str, appliance: Appliance) -> None:
    """Boot the appliance and save its state. Takes as long as a boot and a few seconds.

    Raises SnfError; nothing is left of a state that could not be saved.
    """
    discard(appliance, accelerator)
    directory = saved.location(appliance, accelerator)
    directory.mkdir(parents=True)
    try:
        kind = machine.newest_type(qemu)
        wanted = saved.conditions(qemu, accelerator, appliance)
        with tempfile.TemporaryDirectory(prefix="snf-save-") as scratch:
            release = _save(qemu, kind, accelerator, appliance, Path(scratch))
        facts = {
            "machine": kind,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "processor model": machine.PROCESSORS[accelerator],
            "kernel": release,
            "QEMU version": run([qemu, "--version"]).stdout.decode().splitlines()[0],
        }
        saved.write_manifest(directory, wanted, facts)
        for file in directory.iterdir():
            file.chmod(0o644)  # whatever the umask
        directory.chmod(0o755)
        directory.parent.chmod(0o755)
    except BaseException:
        discard(appliance, accelerator)
        raise


def discard(appliance: Appliance, accelerator: str) -> None:
    """Remove a saved state, if there is one."""
    shutil.rmtree(saved.location(appliance, accelerator), ignore_errors=True)


def _save(qemu: Path, kind: str, accelerator: str, appliance: Appliance, scratch: Path) -> str:
    """Fill the state's directory; return the release of the appliance's kernel."""
    directory = saved.location(appliance, accelerator)
    root = directory / "root.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b",
         os.path.relpath(appliance.root, directory), root])  # fmt: skip
    _make_scratch_disk(scratch / "disk")
    words: list[str | Path] = [
        qemu, *machine.arguments(kind, accelerator, appliance.memory),
        "-kernel", appliance.kernel, "-initrd", appliance.initrd,
        "-append", machine.COMMAND_LINE.format(root=_uuid(appliance.root)),
        "-drive", f"file={root},format=qcow2,id=root,if=none,cache=unsafe",
        "-drive", f"file={scratch / 'disk'},format=raw,id=scratch,if=none,cache=unsafe",
        "-device", "scsi-hd,drive=scratch,id=scratch,bus=scsi.0,scsi-id=0,lun=0",
        "-chardev", f"socket,id={machine.CHANNEL},path={scratch / 'channel'},server=on,wait=off",
        "-chardev", f"socket,id=resume,path={scratch / 'resume'},server=on,wait=off",
        "-chardev", f"socket,id=console,path={scratch / 'console'}", "-serial", "chardev:console",
        "-chardev", f"socket,id=monitor,path={scratch / 'monitor'}", "-mon", "monitor,mode=control",
    ]  # fmt: skip
    with (
        listening(scratch / "console") as console_door,
        listening(scratch / "monitor") as monitor_door,
        (scratch / "said").open("w+b") as said,
        started(words, stdout=said.fileno(), stderr=STDOUT, grace=1) as process,
    ):
        try:
            with (
                accepted(monitor_door, process) as line,
                accepted(console_door, process) as terminal,
            ):
                return _dialogue(Monitor(line), Console(terminal), directory / "state")
        except (OSError, EOFError) as error:
            said.seek(0)
            last = said.read().decode(errors="replace").strip()[-300:]
            raise ApplianceError(
                f"the appliance could not be saved with {accelerator}: {last or error}",
                remedy='run "snf doctor", then "snf appliance build" once more',
            ) from error


def _dialogue(monitor: Monitor, console: Console, state: Path) -> str:
    """Warm the appliance up and save it; return its kernel's release."""
    console.wait(b"><rescue>")
    console.send(b"uname -r; tar -C /run -xf /dev/sda && exec bash /run/warm.sh")
    said = console.wait(resumed.WARM)
    monitor("device_del", id="scratch")
    console.wait(resumed.READY)
    monitor.save(state)
    monitor("quit")
    return next((line.strip() for line in said.splitlines() if line[:1].isdigit()), "unknown")


def _make_scratch_disk(file: Path) -> None:
    """A disk that holds an archive of what is to run inside the appliance."""
    with tarfile.open(file, "w") as archive:
        for inside in saved.inside():
            content = inside.read_bytes()
            member = tarfile.TarInfo(inside.name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    os.truncate(file, _SCRATCH)


def _uuid(root: Path) -> str:
    with root.open("rb") as file:
        file.seek(_SUPERBLOCK)
        text = file.read(1024)[_UUID].hex()
    parts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
    return "UUID=" + "-".join(parts)
