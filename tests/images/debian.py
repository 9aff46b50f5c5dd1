"""A real Debian 12 disk image, built from Debian's packages and kept in a cache.

The image is a sparse raw file: a GPT with a BIOS boot partition and, last, an ext4 root; GRUB for
the PC BIOS; systemd with systemd-networkd (no interface configured); an OpenSSH server; a serial
console. It is a careless template on purpose: it has a machine-id and SSH host keys, which every
copy of it would share unless deployment replaces them.

Nothing is mounted and no block device is made. mmdebstrap makes the root tree, ``mke2fs -d`` turns
it into a file system at its place inside the disk file, and the two boot blocks are written by
:func:`_install_grub`. Root is needed for mmdebstrap's root mode.

``python -m tests.images.debian`` builds the image if need be and prints its path.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

Progress = Callable[[str], None]

SECTOR = 512
MIB = 1024 * 1024
IMAGE_BYTES = 2048 * MIB
BOOT_START = 1 * MIB  # BIOS boot partition: GRUB's core image
ROOT_START = 2 * MIB
ROOT_BYTES = IMAGE_BYTES - ROOT_START - MIB  # the last MiB holds the backup of the GPT

PACKAGES = (
    "dbus",
    "e2fsprogs",
    "grub-pc-bin",
    "grub2-common",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "kmod",
    "linux-image-cloud-amd64",
    "netbase",
    "openssh-server",
    "procps",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
    "zstd",
)

# Files that must be there before the packages are: they decide how the initial RAM disk is made.
# Only the drivers that reach a disk of the hypervisors we serve; the rest loads from the root.
FILES_BEFORE_PACKAGES = {
    "etc/initramfs-tools/conf.d/small": "MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n",
    "usr/share/initramfs-tools/modules.d/hypervisors": (
        "virtio_pci\nvirtio_blk\nvirtio_scsi\nsd_mod\nxen-blkfront\next4\n"
    ),
}

# What a small image leaves out.
EXCLUDED_PATHS = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")

# norandmaps: with every program's libraries at the same addresses an emulator translates them once
# instead of once per process; a boot takes a fifth less.
#
# hvc0 is the console of Xen's guests: the kernel writes to all three, and the last is /dev/console.
KERNEL_ARGUMENTS = "ro console=tty0 console=hvc0 console=ttyS0,115200 quiet norandmaps"

ENABLED_UNITS = ("systemd-networkd.service", "ssh.service")
DISABLED_UNITS = ("e2scrub_reap.service", "e2scrub_all.timer")  # serve LVM only, and cost a second

HOST_KEY_TYPES = ("ed25519", "ecdsa", "rsa")

# Modules inside GRUB's core image: what it takes to find the root file system and go on there.
GRUB_MODULES = ("biosdisk", "part_gpt", "part_msdos", "ext2", "search_fs_uuid", "normal", "linux")

# program -> Debian package that has it
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "sfdisk": "fdisk",
    "setpriv": "util-linux",
    "ssh-keygen": "openssh-client",
}


class ImageBuildError(RuntimeError):
    """The image could not be built; the message says what failed and shows its last output."""


@dataclass(frozen=True)
class DebianImage:
    """A finished image. The file is shared and read-only: work on a copy.

    ``host_keys`` are the public SSH host keys, algorithm -> base64 (``"ssh-ed25519"`` ->
    ``"AAAA..."``); ``machine_id`` is 32 hexadecimal digits; sizes are in bytes.
    """

    path: Path
    root_uuid: str
    machine_id: str
    host_keys: Mapping[str, str]
    kernel_version: str
    root_partition: int = 2
    root_partition_start: int = ROOT_START
    root_filesystem_bytes: int = ROOT_BYTES
    disk_bytes: int = IMAGE_BYTES


def debian_image(progress: Progress = lambda line: None) -> DebianImage:
    """Return the image, from the cache or newly built.

    ``progress`` gets one line of text per step. Concurrent callers wait for one build. Raises
    :class:`ImageBuildError` if a program is missing or fails.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    finished = cache / f"debian-{_recipe_digest()}"
    if not finished.exists():
        with _only_builder(cache / "debian.lock", progress):
            if not finished.exists():
                _build(cache, finished, progress)
    return _read_description(finished)


def cache_directory() -> Path:
    """``$SNF_TEST_CACHE``, or a place that the appliance's unprivileged user may enter too."""
    return Path(os.environ.get("SNF_TEST_CACHE") or "/var/cache/snf-core-tests")


def _recipe_digest() -> str:
    """Digest of this module: any change of the recipe is a change here, so none is missed."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]


@contextlib.contextmanager
def _only_builder(lock: Path, progress: Progress) -> Iterator[None]:
    """Hold the build lock of a cache; wait for another process that holds it.

    The programs of a build inherit the lock: if the build is killed it is free once they are gone.
    """
    with lock.open("w") as file:
        os.set_inheritable(file.fileno(), True)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another build of the image")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(cache: Path, finished: Path, progress: Progress) -> None:
    """Build into a temporary directory and rename it to ``finished``. The lock must be held."""
    _check_requirements()
    for abandoned in cache.glob("debian.building-*"):
        progress(f"removing an interrupted build: {abandoned.name}")
        shutil.rmtree(abandoned)
    work = Path(tempfile.mkdtemp(prefix="debian.building-", dir=cache))
    old_umask = os.umask(0o022)
    try:
        work.chmod(0o755)
        tree = work / "tree"
        image = DebianImage(
            path=work / "disk.raw",
            root_uuid=str(uuid.uuid4()),
            machine_id=uuid.uuid4().hex,
            host_keys={},
            kernel_version="",
        )
        with _step("root tree by mmdebstrap", progress):
            _make_tree(tree)
        with _step("configuration", progress):
            image = _configure_tree(tree, image)
        with _step("partitions and root file system", progress):
            _make_disk(tree, image)
        with _step("boot loader", progress):
            _install_grub(tree / "boot/grub/i386-pc", image)
            shutil.rmtree(tree)
        _write_description(work, image)
        work.rename(finished)
    finally:
        os.umask(old_umask)
        shutil.rmtree(work, ignore_errors=True)


def _check_requirements() -> None:
    """Raise an error naming the command that provides what is missing."""
    if os.geteuid() != 0:
        raise ImageBuildError("building the Debian image needs root: run the tests as root")
    packages = [package for name, package in PROGRAMS.items() if shutil.which(name) is None]
    if packages:
        raise ImageBuildError(f"missing programs: apt-get install {' '.join(sorted(packages))}")


@contextlib.contextmanager
def _step(name: str, progress: Progress) -> Iterator[None]:
    progress(f"{name} ...")
    start = time.monotonic()
    yield
    progress(f"{name}: {time.monotonic() - start:.1f} s")


def _run(argv: Sequence[str | Path], stdin: str = "") -> str:
    """Run a program to its end and return its standard output.

    It dies with us, so an interrupted build leaves no process writing into the cache.
    """
    command = ["setpriv", "--pdeathsig", "KILL", "--", *(os.fspath(word) for word in argv)]
    done = subprocess.run(
        command,
        check=False,
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        close_fds=False,  # for the lock; Python makes no other descriptor inheritable
        env={**os.environ, "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ImageBuildError(f"{command[4]} failed with status {done.returncode}:\n{tail}")
    return done.stdout


def _make_tree(tree: Path) -> None:
    """Unpack and configure the packages in ``tree``.

    A mount and PID namespace of its own: what mmdebstrap mounts inside the tree, or starts there,
    goes away with it even if it is killed.
    """
    with tempfile.TemporaryDirectory(prefix="files-", dir=tree.parent) as before:
        _write_files(Path(before), FILES_BEFORE_PACKAGES)
        _run(
            [
                *("unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"),
                *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"),
                f"--include={','.join(PACKAGES)}",
                "--dpkgopt=force-unsafe-io",
                *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED_PATHS),
                f'--setup-hook=cp -r {shlex.quote(before)}/. "$1"',
                "bookworm",
                tree,
            ]
        )


def _write_files(tree: Path, files: Mapping[str, str]) -> None:
    """Write files (path below ``tree`` -> content), mode 0644, directories 0755."""
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(content)
        path.chmod(0o644)


def _configure_tree(tree: Path, image: DebianImage) -> DebianImage:
    """Make the bare tree a template image; return the description with what was found out."""
    (tree / "etc/dpkg/dpkg.cfg.d/99mmdebstrap").unlink(missing_ok=True)
    version = (tree / "vmlinuz").readlink().name.removeprefix("vmlinuz-")
    _write_files(tree, _configuration(image.root_uuid, image.machine_id, version))
    _in_tree(tree, "systemctl", "enable", *ENABLED_UNITS)
    _in_tree(tree, "systemctl", "disable", *DISABLED_UNITS)
    _in_tree(tree, "useradd", "--create-home", "--shell=/bin/bash", "--uid=1000", "user")
    _in_tree(tree, "passwd", "--lock", "root")
    _make_grub_core(tree, image.root_uuid)
    return replace(image, kernel_version=version, host_keys=_make_host_keys(tree))


def _configuration(root_uuid: str, machine_id: str, kernel_version: str) -> dict[str, str]:
    """The files of the template, path -> content."""
    return {
        "etc/fstab": f"UUID={root_uuid} / ext4 errors=remount-ro 0 1\n",
        "etc/hostname": "debian\n",
        "etc/hosts": (
            "127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost ip6-loopback\n"
            "ff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
        ),
        "etc/machine-id": f"{machine_id}\n",
        "etc/resolv.conf": "# no name server is configured\n",
        "etc/default/grub": (
            "GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_DISTRIBUTOR=Debian\n"
            f'GRUB_CMDLINE_LINUX="{KERNEL_ARGUMENTS.removeprefix("ro ")}"\n'
        ),
        "boot/grub/grub.cfg": (
            "set default=0\nset timeout=0\n"
            "menuentry 'Debian GNU/Linux' {\n"
            f"  search --no-floppy --fs-uuid --set=root {root_uuid}\n"
            f"  linux /boot/vmlinuz-{kernel_version} root=UUID={root_uuid} {KERNEL_ARGUMENTS}\n"
            f"  initrd /boot/initrd.img-{kernel_version}\n"
            "}\n"
        ),
    }


def _make_host_keys(tree: Path) -> dict[str, str]:
    """Replace the tree's SSH host keys; return the public ones, algorithm -> base64."""
    public = {}
    for kind in HOST_KEY_TYPES:
        key = tree / f"etc/ssh/ssh_host_{kind}_key"
        key.unlink(missing_ok=True)
        _run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "root@debian", "-f", key])
        algorithm, value, _ = key.with_suffix(".pub").read_text().split()
        public[algorithm] = value
    return public


def _in_tree(tree: Path, *argv: str) -> None:
    _run(["chroot", tree, *argv])


def _make_grub_core(tree: Path, root_uuid: str) -> None:
    """Make ``/boot/grub/i386-pc`` in the tree: GRUB's modules and a core image that finds root.

    The tree's own grub-mkimage is used; the node need not have GRUB.
    """
    directory = tree / "boot/grub/i386-pc"
    shutil.copytree(tree / "usr/lib/grub/i386-pc", directory)
    early = "boot/grub/early.cfg"
    _write_files(
        tree,
        {early: f"search.fs_uuid {root_uuid} root\nset prefix=($root)/boot/grub\n"},
    )
    _in_tree(
        tree,
        *("grub-mkimage", "--format=i386-pc", "--directory=/usr/lib/grub/i386-pc"),
        *("--prefix=/boot/grub", f"--config=/{early}", "--output=/boot/grub/i386-pc/core.img"),
        *GRUB_MODULES,
    )
    (tree / early).unlink()


def _make_disk(tree: Path, image: DebianImage) -> None:
    """Make the sparse disk file with its partitions and the root file system."""
    with image.path.open("wb") as disk:
        disk.truncate(IMAGE_BYTES)
    partitions = (
        "label: gpt\nunit: sectors\n"
        f"start={BOOT_START // SECTOR}, size={(ROOT_START - BOOT_START) // SECTOR},"
        " type=21686148-6449-6E6F-744E-656564454649\n"  # BIOS boot
        f"start={ROOT_START // SECTOR}, size={ROOT_BYTES // SECTOR}, type=L\n"
    )
    _run(["sfdisk", "--quiet", image.path], stdin=partitions)
    _run(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", "-U", image.root_uuid, "-d", tree),
            *("-E", f"offset={ROOT_START}", image.path, f"{ROOT_BYTES // 1024}k"),
        ]
    )


def _install_grub(directory: Path, image: DebianImage) -> None:
    """Write GRUB's boot code and core image to the disk, as grub-bios-setup would.

    Offsets are those of GRUB 2's boot/i386/pc/boot.S and diskboot.S (include/grub/i386/pc/boot.h):
    boot.img holds the core image's first sector as a 64-bit number at 0x5c and, at 0x66, a jump
    that two NOPs replace on a hard disk; the first sector of the core image ends with the block
    list entry (start sector, 64 bit; length and segment, 16 bit each) of the rest of it.
    """
    start = BOOT_START // SECTOR
    boot = bytearray((directory / "boot.img").read_bytes()[:440])
    struct.pack_into("<Q", boot, 0x5C, start)
    boot[0x66:0x68] = b"\x90\x90"
    core = bytearray((directory / "core.img").read_bytes())
    if len(core) > ROOT_START - BOOT_START:
        raise ImageBuildError(f"GRUB's core image of {len(core)} bytes does not fit its partition")
    struct.pack_into("<Q", core, SECTOR - 12, start + 1)
    with image.path.open("r+b") as disk:
        disk.write(boot)
        disk.seek(BOOT_START)
        disk.write(core)


def _write_description(directory: Path, image: DebianImage) -> None:
    image.path.chmod(0o444)
    values = asdict(replace(image, path=Path(image.path.name)))
    text = json.dumps(values, indent=2, default=os.fspath)
    (directory / "image.json").write_text(text + "\n")


def _read_description(directory: Path) -> DebianImage:
    values = json.loads((directory / "image.json").read_text())
    return DebianImage(**{**values, "path": directory / values["path"]})


if __name__ == "__main__":
    print(debian_image(lambda line: print(line, file=sys.stderr, flush=True)).path)
