"""A console's ring and the keeper's work on it, with domains that are played here."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_xen import domain, pump
from snf_xen.ring import IN, OUT, PAGE, Ring, RingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

IN_CONS, IN_PROD, OUT_CONS, OUT_PROD = (IN + OUT + 4 * index for index in range(4))
INDICES = st.integers(0, 2**32 - 1)


class Domain:
    """The domain's side of the page."""

    def __init__(self, start: int = 0) -> None:
        """Both sides begin at ``start``."""
        self.page = mmap.mmap(-1, PAGE)
        for offset in (IN_CONS, IN_PROD, OUT_CONS, OUT_PROD):
            self.set(offset, start)

    def get(self, offset: int) -> int:
        """An index."""
        return int(struct.unpack_from("=I", self.page, offset)[0])

    def set(self, offset: int, value: int) -> None:
        """Claim an index."""
        struct.pack_into("=I", self.page, offset, value % 2**32)

    def write(self, data: bytes) -> int:
        """As much as there is room for."""
        count = min(len(data), OUT - (self.get(OUT_PROD) - self.get(OUT_CONS)) % 2**32)
        for index, byte in enumerate(data[:count]):
            self.page[IN + (self.get(OUT_PROD) + index) % OUT] = byte
        self.set(OUT_PROD, self.get(OUT_PROD) + count)
        return count

    def read(self) -> bytes:
        """All that is there."""
        begin, end = self.get(IN_CONS), self.get(IN_PROD)
        data = bytes(self.page[(begin + n) % IN] for n in range((end - begin) % 2**32))
        self.set(IN_CONS, end)
        return data


@given(INDICES, st.lists(st.binary(max_size=3 * OUT), max_size=8))
def test_what_the_domain_writes_arrives_in_order(start: int, chunks: list[bytes]) -> None:
    """Wherever the indices are, their end included."""
    domain = Domain(start)
    ring = Ring(domain.page)
    got = b""
    for chunk in chunks:
        left = chunk
        while left:
            left = left[domain.write(left) :]
            got += ring.take()
    assert got == b"".join(chunks)


@given(INDICES, st.lists(st.binary(max_size=3 * IN), max_size=8))
def test_what_is_put_arrives_in_order(start: int, chunks: list[bytes]) -> None:
    """No more than there is room for at once."""
    domain = Domain(start)
    ring = Ring(domain.page)
    got = b""
    for chunk in chunks:
        left = chunk
        while left:
            count = ring.put(left)
            assert count <= IN
            left = left[count:]
            got += domain.read()
    assert got == b"".join(chunks)


def test_a_full_ring_takes_nothing() -> None:
    """Until the domain has read."""
    domain = Domain()
    ring = Ring(domain.page)
    assert ring.put(bytes(2 * IN)) == IN
    assert ring.put(b"more") == 0
    domain.read()
    assert ring.put(b"more") == 4


@given(INDICES)
def test_a_domain_that_claims_more_than_fits_is_found_out(claimed: int) -> None:
    """Never more than the buffer is read or written."""
    domain = Domain(7)
    ring = Ring(domain.page)
    domain.set(OUT_PROD, claimed)
    if (claimed - 7) % 2**32 > OUT:
        with pytest.raises(RingError, match="claims to have written"):
            ring.take()
    else:
        assert len(ring.take()) == (claimed - 7) % 2**32
    domain.set(IN_CONS, claimed)
    if (7 - claimed) % 2**32 > IN:
        with pytest.raises(RingError, match="to be unread"):
            ring.put(b"x")
    else:
        assert ring.put(b"x") == (0 if (7 - claimed) % 2**32 == IN else 1)


@given(INDICES, INDICES)
def test_our_own_indices_are_not_read_back(consumed: int, produced: int) -> None:
    """The domain may write to them as well."""
    domain = Domain(3)
    ring = Ring(domain.page)
    domain.write(b"first")
    domain.set(OUT_CONS, consumed)
    domain.set(IN_PROD, produced)
    assert ring.take() == b"first"
    assert ring.put(b"answer") == 6
    assert (domain.get(OUT_CONS), domain.get(IN_PROD)) == (8, 9)


def test_a_page_that_was_let_go_can_be_unmapped() -> None:
    """Or the domain could not go."""
    domain = Domain()
    ring = Ring(domain.page)
    with pytest.raises(BufferError):
        domain.page.close()
    ring.release()
    domain.page.close()


FRONTEND = "/local/domain/5/device/console/1"
BACKEND = "/local/domain/0/backend/console/5/1"
SECONDS = 30


class Store:
    """xenstore."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self._events: list[str] = []
        self._woken = os.eventfd(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def fileno(self) -> int:
        """Readable when there are events."""
        return self._woken

    def watch(self, path: str) -> None:
        """A watch is heard at once."""
        self.happen(path)

    def happen(self, path: str, **values: str) -> None:
        """Something below ``path`` changes."""
        self.values.update({f"{path}/{name}": value for name, value in values.items()})
        self._events.append(path)
        os.eventfd_write(self._woken, 1)

    def changed(self) -> list[str]:
        """What has happened."""
        os.eventfd_read(self._woken)
        events, self._events = self._events, []
        return events

    def read(self, path: str) -> str | None:
        """A value."""
        return self.values.get(path)

    def write(self, path: str, value: str) -> None:
        """Set one."""
        self.values[path] = value


class Line:
    """A domain's ring, and a bell at each end."""

    def __init__(self, domid: int, reference: int, port: int) -> None:
        assert (domid, reference, port) == (5, 8, 12)
        self.domain = Domain()
        self.ring = Ring(self.domain.page)
        self.ours, self.theirs = os.eventfd(0), os.eventfd(0)
        lines.append(self)

    def fileno(self) -> int:
        """Our bell."""
        return self.ours

    def heard(self) -> None:
        """It has rung."""
        os.eventfd_read(self.ours)

    def notify(self) -> None:
        """Ring theirs."""
        os.eventfd_write(self.theirs, 1)

    def close(self) -> None:
        """Let go."""
        self.ring.release()


lines: list[Line] = []


@dataclass
class Scene:
    """A keeper at work, the store it looks at, and the program's ends of what it was handed."""

    store: Store
    keeper: threading.Thread
    attendant: socket.socket
    guestfsd: socket.socket = field(init=False)
    output: int = -1
    life: int = -1

    def hand_over(self) -> None:
        """As the launcher's program does."""
        self.guestfsd, theirs = socket.socketpair()
        self.guestfsd.settimeout(SECONDS)
        there, self.life = os.pipe()
        self.output, output = os.pipe()
        socket.send_fds(self.attendant, [b"h"], [theirs.fileno(), there, output])
        theirs.close()
        os.close(there)
        os.close(output)

    def offer(self) -> Line:
        """As the domain's kernel does once it has found its console."""
        values = {"ring-ref": "8", "port": "12", "state": "3"}
        lines.clear()
        self.store.happen(FRONTEND, **values)
        while self.store.values.get(f"{BACKEND}/state") != "4":
            assert self.keeper.is_alive()
        return lines[0]

    def ended(self) -> bool:
        """Whether the keeper comes to its end."""
        self.keeper.join(SECONDS)
        return not self.keeper.is_alive()


@pytest.fixture(name="scene")
def _scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    store = Store()
    monkeypatch.setattr(pump, "Connection", lambda: store)
    monkeypatch.setattr(pump, "Line", Line)
    monkeypatch.setattr(domain, "running", lambda: {"snf-appliance-x"})
    ours, theirs = socket.socketpair()
    keeper = threading.Thread(target=pump.Pump("snf-appliance-x", 5, theirs).run, daemon=True)
    keeper.start()
    scene = Scene(store, keeper, ours)
    yield scene
    ours.close()
    if scene.life >= 0:
        for descriptor in (scene.output, scene.life):
            os.close(descriptor)
        scene.guestfsd.close()
    assert scene.ended()
    theirs.close()


def test_bytes_go_both_ways(scene: Scene) -> None:
    """More of them than any buffer holds at once."""
    scene.hand_over()
    line = scene.offer()
    sent = os.urandom(300_000)
    got, left, back = b"", sent, b""
    while len(got) < len(sent):
        left = left[line.domain.write(left) :]
        os.eventfd_write(line.ours, 1)
        got += scene.guestfsd.recv(65536)
    assert got == sent
    feeding = threading.Thread(target=scene.guestfsd.sendall, args=(sent,))
    feeding.start()
    while len(back) < len(sent):
        os.eventfd_read(line.theirs)
        back += line.domain.read()
        os.eventfd_write(line.ours, 1)
    feeding.join()
    assert back == sent


def test_what_was_written_before_the_program_came_is_kept(scene: Scene) -> None:
    """The appliance may be quicker than libguestfs."""
    line = scene.offer()
    line.domain.write(b"ready")
    os.eventfd_write(line.ours, 1)
    scene.hand_over()
    assert scene.guestfsd.recv(100) == b"ready"


@pytest.mark.parametrize("end", ["program", "libguestfs", "everybody"])
def test_it_ends_with_the_program(scene: Scene, end: str) -> None:
    """However that shows."""
    scene.hand_over()
    scene.offer()
    if end == "program":
        os.close(scene.life)
        scene.life = os.open(os.devnull, os.O_RDONLY)
    elif end == "libguestfs":
        scene.guestfsd.shutdown(socket.SHUT_RDWR)
    else:
        scene.attendant.shutdown(socket.SHUT_WR)
    assert scene.ended()


def test_it_ends_without_a_program(scene: Scene) -> None:
    """Nobody will come any more."""
    scene.attendant.shutdown(socket.SHUT_WR)
    assert scene.ended()


def test_it_ends_with_the_domain(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not when another domain does."""
    scene.hand_over()
    scene.offer()
    scene.store.happen("@releaseDomain")
    scene.guestfsd.settimeout(0.2)
    with pytest.raises(TimeoutError):
        scene.guestfsd.recv(1)
    monkeypatch.setattr(domain, "running", set)
    scene.store.happen("@releaseDomain")
    assert scene.ended()
    assert b"the domain has ended" in os.read(scene.output, 1000)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_domain_that_lies_is_given_up(scene: Scene) -> None:
    """And whoever deploys gets to know why."""
    scene.hand_over()
    line = scene.offer()
    line.domain.set(OUT_PROD, 5000)
    os.eventfd_write(line.ours, 1)
    assert scene.ended()
    assert b"claims to have written 5000 bytes" in os.read(scene.output, 1000)


def test_a_console_elsewhere_is_not_opened(scene: Scene, tmp_path: Path) -> None:
    """It would be read with the node's rights."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    scene.hand_over()
    scene.store.values["/local/domain/5/console/tty"] = str(secret)
    scene.store.happen("/local/domain/5/console/tty")
    scene.offer()
    os.set_blocking(scene.output, False)
    with pytest.raises(BlockingIOError):
        os.read(scene.output, 100)
