"""``gnt-instance add`` on a real cluster: our OS definition beside one that does nothing.

ganeti-os-noop's scripts only end, so what an instance of it costs is Ganeti's own share, and the
rest is ours. The same for ``gnt-instance start``: our NIC script beside the one that Ganeti has
built in, for a bridged NIC, without filters.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench.figures import header, line, ratio
from tests.ganeti.cluster import Cluster
from tests.images.debian import debian_image

if TYPE_CHECKING:
    from collections.abc import Callable

DISK = "4g"
AT_ONCE = 10
SCRIPT = "/etc/ganeti/kvm-vif-bridge"

_NOOP = ("-o", "noop")
_OURS = ("-o", "snf-image+default", "-O", "img_id=debian,img_format=diskdump")


@dataclass
class Figures:
    """Seconds of each run."""

    noop: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    noop_at_once: list[float] = field(default_factory=list)
    ours_at_once: list[float] = field(default_factory=list)
    builtin_start: list[float] = field(default_factory=list)
    our_start: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(
            [
                header(f"gnt-instance add, a file of {DISK}, not started"),
                line("ganeti-os-noop", self.noop),
                line("ours, the Debian image, all tasks", self.ours, _beside(self.ours, self.noop)),
                header(f"the same, {AT_ONCE} at once, until the last is there"),
                line("ganeti-os-noop", self.noop_at_once),
                line(
                    "ours",
                    self.ours_at_once,
                    f"{_beside(self.ours_at_once, self.noop_at_once)}; {len(self.failures)} failed",
                ),
                header("gnt-instance start, one bridged NIC, KVM's hypervisor emulated"),
                line("Ganeti's own NIC script", self.builtin_start),
                line("ours", self.our_start, _beside(self.our_start, self.builtin_start)),
                *[f"    {text}" for text in dict.fromkeys(self.failures)],
            ]
        )


def _beside(ours: list[float], theirs: list[float]) -> str:
    return f"{ratio(ours, theirs):.2f} x" if ours and theirs else ""


def measure(runs: int = 5) -> Figures:
    """Add, one by one and many at once, and start, in turn. Root."""
    figures = Figures()
    image = debian_image()
    with Cluster.create() as cluster:
        cluster.add_image(image.path, "debian")
        for os, times in ((_OURS, []), *[(_NOOP, figures.noop), (_OURS, figures.ours)] * runs):
            times.append(_timed(_add, cluster, "web1", *os))
            _remove(cluster, "web1")
        for os, times in ((_NOOP, figures.noop_at_once), (_OURS, figures.ours_at_once)):
            times.append(_timed(_many, cluster, os, figures))
            for number in range(AT_ONCE):
                _remove(cluster, f"web{number}")
        _start(cluster, runs, figures)
    return figures


def _start(cluster: Cluster, runs: int, figures: Figures) -> None:
    _add(cluster, "web1", *_NOOP, "-H", "kvm", "--net", "0:mode=bridged,link=br0")
    script = cluster.master.path(SCRIPT)
    for _ in range(runs):
        for mode, times in ((0o644, figures.builtin_start), (0o755, figures.our_start)):
            script.chmod(mode)
            times.append(_timed(cluster.run, "gnt-instance", "start", _name("web1")))
            cluster.run("gnt-instance", "stop", "--timeout=0", _name("web1"))
    _remove(cluster, "web1")


def _many(cluster: Cluster, os: tuple[str, ...], figures: Figures) -> None:
    def one(number: int) -> None:
        try:
            _add(cluster, f"web{number}", *os)
        except RuntimeError as error:
            figures.failures.append(str(error))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(AT_ONCE)))


def _add(cluster: Cluster, name: str, *words: str) -> None:
    cluster.run(
        *("gnt-instance", "add", "-t", "file", "--disk", f"0:size={DISK}", "--no-start"),
        *("--no-name-check", "--no-ip-check", "-n", cluster.master.name),
        *(() if "-H" in words else ("-H", "fake", "--no-nics")),
        *words,
        _name(name),
    )


def _remove(cluster: Cluster, name: str) -> None:
    cluster.run("gnt-instance", "remove", "-f", "--shutdown-timeout=0", _name(name), check=False)


def _name(name: str) -> str:
    return f"{name}.gnt.test"


def _timed(work: Callable[..., object], *arguments: object) -> float:
    begun = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begun
