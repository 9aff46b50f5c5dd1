"""A Debian node with Xen as a disk image: what boots under the hypervisor as its dom0.

Made of Debian's packages once and kept in the tests' cache. The node has two kernels, each with an
uncompressed ``vmlinux`` beside it, which emulation boots in a fraction of the time: Debian's
usual one, for dom0 and guests, and the one for clouds, for guests only. It has a *fixed appliance*
too, made by its own packages.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import sys
from pathlib import Path

from tests import payload

PACKAGES = (
    # Xen, what it emulates devices with, and the boot loaders for guests
    "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17",
    "xenstore-utils",
    "qemu-system-xen",
    "grub-xen-host",
    "linux-image-amd64",
    "linux-image-cloud-amd64",
    # what snf needs of a node
    "python3-guestfs",
    "libguestfs0",
    "libguestfs-xfs",
    "supermin",
    "qemu-system-x86",
    "qemu-utils",
    "python3-nftables",
    "nftables",
    "iproute2",
    # Ganeti, and what its tests use
    "ganeti",
    "openssh-server",
    "openssh-client",
    "busybox-static",
    "python3-yaml",
    # what tests look with, and guests are made of
    "cpio",
    "e2fsprogs",
    "fdisk",
    "gdisk",
    "iputils-ping",
    "kmod",
    "lz4",
    "netbase",
    "openvswitch-switch",
    "procps",
    "psmisc",
    "python3-venv",
    "socat",
    "strace",
    "tcpdump",
    "udev",
    "util-linux",
    "xfsprogs",
)

EXCLUDED_MODULES = tuple(
    f"/lib/modules/*/kernel/{name}/*"
    for name in (
        "sound",
        "drivers/gpu",
        "drivers/infiniband",
        "drivers/media",
        "drivers/net/ethernet",
        "drivers/net/wireless",
        "drivers/staging",
    )
)
"""Drivers of devices that neither the emulated machine nor a guest has."""

ROOT_BYTES = 12 << 30

EARLY_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
"""What it takes to mount the root file system."""

INITRD_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod "$module"; done
/bin/busybox mount -t ext4 -o noatime,noinit_itable /dev/vda /root
exec /bin/busybox switch_root /root /init
"""

INIT = """\
#!/bin/sh
# The machine's first process and its last: everything happens in /payload/run.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mountpoint -q /dev || mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/shm /dev/pts /run/lock /run/sshd /payload /results
mount -t tmpfs tmpfs /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
hostname dom0.example.org
ip link set lo up
modprobe -a loop tun bridge 8021q dm-mod nf_tables xen-netback xen-blkback xen-gntdev \
    xen-gntalloc xen-evtchn xenfs
mount -t ext4 -o noatime,noinit_itable /dev/vdb /payload
mkdir -p /var/cache/snf-core-tests
mount -t ext4 -o noatime,noinit_itable /dev/vdd /var/cache/snf-core-tests
stty -F /dev/ttyS0 raw -echo
/etc/init.d/xen start </dev/null >/var/log/xen-start.log 2>&1 ||
    cat /var/log/xen-start.log >/dev/ttyS0
/payload/run </dev/null >/dev/ttyS0 2>&1
echo $? >/run/status
tar -C / --sparse --warning=no-file-ignored -cf /dev/vdc run/status results
sync /dev/vdc
echo o >/proc/sysrq-trigger
sleep 60
"""


def image() -> Path:
    """The directory with ``xen`` (the hypervisor), ``vmlinux``, ``initrd`` and ``root.ext4``.

    Raises MachineError.
    """
    recipe = (PACKAGES, EXCLUDED_MODULES, payload.EXCLUDED_PATHS, ROOT_BYTES)
    programs = (EARLY_MODULES, INITRD_INIT, INIT)
    return payload.cached("xen-dom0", (recipe, programs), _build)


def _build(work: Path) -> None:
    print("building the Xen node ...", file=sys.stderr)
    tree = work / "tree"
    payload.debootstrap(
        tree, PACKAGES, *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED_MODULES)
    )
    boot = tree / "boot"
    for kernel in boot.glob("vmlinuz-*"):
        vmlinux = kernel.with_name(kernel.name.replace("vmlinuz", "vmlinux"))
        _extract(kernel, vmlinux, tree)
    usual = next(path for path in boot.glob("vmlinux-*") if "cloud" not in path.name)
    shutil.copy(usual, work / "vmlinux")
    (work / "xen").write_bytes(gzip.decompress(next(boot.glob("xen-*.gz")).read_bytes()))
    _make_initrd(tree, usual.name.removeprefix("vmlinux-"), work / "initrd")
    _make_appliance(tree)
    _put(tree / "init", INIT)
    payload.make_filesystem(tree, work / "root.ext4", ROOT_BYTES)
    shutil.rmtree(tree)


def _extract(kernel: Path, vmlinux: Path, tree: Path) -> None:
    """Unpack a kernel, as Linux's x86 boot protocol lays it out (Documentation/x86/boot.rst)."""
    data = kernel.read_bytes()
    setup_sectors = data[0x1F1] or 4
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    packed = data[start : start + length - 4]  # the last four are the unpacked size
    if packed.startswith(b"\xfd7zXZ"):
        vmlinux.write_bytes(lzma.decompress(packed))
    else:
        (tree / "packed.lz4").write_bytes(packed)
        target = f"/{vmlinux.relative_to(tree)}"
        payload.check(["chroot", str(tree), "lz4", "-q", "-d", "/packed.lz4", target])
        (tree / "packed.lz4").unlink()


def _make_initrd(tree: Path, version: str, initrd: Path) -> None:
    files = tree / "initrd"
    for name in ("bin", "dev", "modules", "root"):
        (files / name).mkdir(parents=True)
    shutil.copy(tree / "bin/busybox", files / "bin/busybox")
    _put(files / "init", INITRD_INIT)
    needed = ["chroot", str(tree), "modprobe", "-S", version, "--show-depends", "-a"]
    lines = payload.check([*needed, *EARLY_MODULES]).splitlines()
    modules = dict.fromkeys(line.split()[1] for line in lines if line.startswith("insmod"))
    for number, module in enumerate(modules):
        shutil.copy(tree / module.lstrip("/"), files / f"modules/{number:02}-{Path(module).name}")
    script = "cd /initrd && find . | cpio --quiet -o -H newc >/initrd.cpio"
    payload.check(["chroot", str(tree), "sh", "-c", script])
    shutil.move(tree / "initrd.cpio", initrd)
    shutil.rmtree(files)


def _make_appliance(tree: Path) -> None:
    """The fixed appliance of the node's own packages, in its /srv/appliance."""
    script = (
        "mount -t proc proc /proc && exec supermin --build --copy-kernel --format ext2 "
        "--host-cpu x86_64 -o /srv/appliance /usr/lib/x86_64-linux-gnu/guestfs/supermin.d"
    )
    unshare = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    payload.check([*unshare, "chroot", str(tree), "sh", "-c", script])
    (tree / "srv/appliance/README.fixed").write_text("Built with the Xen node.\n")
    for file in (tree / "srv/appliance").iterdir():
        file.chmod(0o644)


def _put(path: Path, script: str) -> None:
    path.write_text(script)
    path.chmod(0o755)
