"""The root of the domUs of tests: an initial RAM disk with BusyBox, Python's core and the agent."""

from __future__ import annotations

import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.images.initrd import archive, driver

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = ("__future__", "binascii", "marshal", "os", "select", "socket", "struct", "time")
"""What programs in a domU may import, and with it whatever that imports."""

DRIVERS = ("xen-netfront", "xen-blkfront")

_INIT = """\
#!/bin/busybox sh
export PATH=/sbin:/usr/sbin:/bin:/usr/bin HOME=/
/bin/busybox mkdir -p /sbin /usr/sbin /usr/bin /proc /sys /dev /tmp
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
# Xen's orders arrive as these programs of the kernel's; the first process cannot be asked.
for name in poweroff reboot; do
    rm -f /sbin/$name
    printf '#!/bin/sh\\nexec /bin/busybox %s -f\\n' $name >/sbin/$name
    chmod +x /sbin/$name
done
# Nothing is sent that no test has asked for.
cd /proc/sys/net/ipv6/conf/default
for setting in accept_ra accept_dad autoconf; do echo 0 >$setting; done
echo 1 >disable_ipv6
cd /
# What comes is heard in its order, also where no protocol of the kernel's is behind a frame.
echo 1 >/proc/sys/net/core/gro_normal_batch
for file in {drivers}; do insmod /drivers/$file; done
ip link set lo up
exec <>/dev/hvc0 >&0 2>&0
stty raw -echo
ln -s {python} /bin/python3
exec python3 -I -S -B /agent.pyc
"""


def make(version: str) -> bytes:
    """The RAM disk for the kernel of a version, below /lib/modules. AssertionError, OSError."""
    busybox = shutil.which("busybox")
    assert busybox, "apt-get install busybox-static"
    modules = Path("/lib/modules", version)
    drivers = list(dict.fromkeys(path for name in DRIVERS for path in driver(modules, name)))
    python = os.path.realpath(sys.executable)
    init = _INIT.format(drivers=" ".join(path.name for path in drivers), python=python)
    files = {
        "init": init.encode(),
        "bin/busybox": Path(busybox).read_bytes(),
        "agent.pyc": _compiled(Path(__file__).with_name("agent.py")),
        **{f"drivers/{path.name}": path.read_bytes() for path in drivers},
        **dict(_python(python)),
    }
    return archive(files)


def _python(program: str) -> Iterator[tuple[str, bytes]]:
    """The interpreter, its libraries, and MODULES, compiled: a path and the content of each."""
    for path in (program, *_libraries(program)):
        yield path.lstrip("/"), Path(path).read_bytes()
    listing = (
        f"import sys, {', '.join(MODULES)}\n"
        "for module in sys.modules.values():\n"
        "    print(getattr(module, '__file__', None) or '')"
    )
    for name in dict.fromkeys(_said([program, "-I", "-S", "-c", listing]).split()):
        assert name.endswith(".py"), f"{name}: only modules written in Python are put there"
        yield name.lstrip("/") + "c", _compiled(Path(name))
    # By its presence the interpreter finds its place.
    yield f"{Path(os.__file__).parent}/lib-dynload/none".lstrip("/"), b""


def _libraries(program: str) -> Iterator[str]:
    for line in _said(["ldd", program]).splitlines():
        for word in line.split():
            if word.startswith("/"):
                yield word


def _compiled(path: Path) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory, "compiled")
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(path), str(made), doraise=True, invalidation_mode=mode)
        return made.read_bytes()


def _said(words: list[str]) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
