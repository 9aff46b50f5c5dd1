"""A node with an Internet of its own: web servers at public addresses, and a name server.

Two network namespaces with a cable between them. In the node's, and in a mount namespace where
names are looked up at that name server and TLS knows one authority, a program fetches.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.network import packets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PATIENCE = 60.0

GATEWAY, NODE, NAMES = "93.184.216.1", "93.184.216.2", "93.184.216.53"
WEB, OTHER, SILENT = "93.184.216.34", "93.184.216.35", "93.184.216.99"
WEB6, NODE6, GATEWAY6 = "2606:2800:220:1::34", "2606:2800:220:1::2", "2606:2800:220:1::1"
PRIVATE, PRIVATE6 = "10.9.9.9", "fd00:9::9"

_QUERY_A, _QUERY_AAAA = 1, 28


@dataclass(frozen=True)
class Request:
    """What a server was asked."""

    target: str
    """The path with the query."""
    headers: Mapping[str, str]
    connection: socket.socket
    """For answers that take their time."""


@dataclass
class Internet:
    """Servers, and what they were asked. ``answers``: path -> what is sent, as it stands."""

    node: str
    """The node's network namespace."""
    keeper: int
    """The process that keeps the node's mount namespace."""
    program: subprocess.Popen[str]
    directory: Path
    answers: dict[str, bytes | Callable[[Request], None]] = field(default_factory=dict)
    names: dict[str, list[list[str]]] = field(default_factory=dict)
    """Name -> the addresses it has when it is asked for the first time, the second...; the last
    stay. Those of either version are counted by themselves."""
    mute: set[str] = field(default_factory=set)
    """Names about which nobody is told anything, not even that there are none."""
    requests: list[tuple[str, Request]] = field(default_factory=list)
    """Address and port of the server, and what it was asked."""
    asked: list[tuple[str, int]] = field(default_factory=list)
    """Names, and which kind of address of them was asked for."""

    def fetch(self, url: str, *, timeout: float = PATIENCE, **options: str) -> bytes:
        """What is fetched from the node. ``options`` are of the group [image]. Raises Refused."""
        answer = self.answer(url, timeout=timeout, **options)
        if "error" in answer:
            raise RefusedError(answer["error"], answer["message"], answer["remedy"])
        return base64.b64decode(answer["content"])

    def answer(self, url: str, *, timeout: float = PATIENCE, **options: str) -> dict[str, str]:
        """The program's answer."""
        self.ask(url, timeout=timeout, **options)
        return self.result()

    def ask(self, url: str, *, timeout: float = PATIENCE, **options: str) -> None:
        """Have the program fetch."""
        file = self.directory / "snf.conf"
        lines = [f"{key} = {value}" for key, value in options.items()]
        file.write_text(
            f"[directories]\nruntime = {self.directory}/run\n[image]\n" + "\n".join(lines) + "\n"
        )
        line = json.dumps({"url": url, "config": str(file), "timeout": timeout})
        assert self.program.stdin
        self.program.stdin.write(line + "\n")
        self.program.stdin.flush()

    def result(self) -> dict[str, str]:
        """What came of it."""
        assert self.program.stdout
        assert select.select([self.program.stdout], [], [], PATIENCE)[0]
        answer: dict[str, str] = json.loads(self.program.stdout.readline())
        return answer

    def fetching(self) -> list[int]:
        """The processes that fetch now."""
        tasks = Path(f"/proc/{self.program.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]

    def listen(self, namespace: str, place: tuple[str, int], context: Any = None) -> None:
        """A server in a namespace; with ``context``, one of TLS."""
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        server = packets.inside(namespace, lambda: socket.create_server(place, family=family))
        where = f"{place[0]} {place[1]}"
        threading.Thread(target=self._serve, args=(server, where, context), daemon=True).start()

    def _serve(self, server: socket.socket, where: str, context: Any) -> None:
        while True:
            connection, _ = server.accept()
            arguments = (connection, where, context)
            threading.Thread(target=self._converse, args=arguments, daemon=True).start()

    def _converse(self, connection: socket.socket, where: str, context: Any) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            connection.settimeout(PATIENCE)
            if context:
                connection = secure = context.wrap_socket(connection, server_side=True)
            with connection:
                text = b""
                while b"\r\n\r\n" not in text:
                    chunk = connection.recv(65536)
                    if not (text + chunk).startswith(b"GET "):
                        return
                    text += chunk
                first, *lines = text.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                request = Request(first.split()[1], headers, connection)
                self.requests.append((where, request))
                answer = self.answers.get(request.target, status(404))
                if callable(answer):
                    answer(request)
                else:
                    connection.sendall(answer)
                if context:
                    secure.unwrap()

    def resolve(self, server: socket.socket) -> None:
        """Answer for names (RFC 1035), for ever."""
        while True:
            query, peer = server.recvfrom(4096)
            labels, position = [], 12
            while query[position]:
                labels.append(query[position + 1 : position + 1 + query[position]].decode())
                position += 1 + query[position]
            kind = struct.unpack_from(">H", query, position + 1)[0]
            name = ".".join(labels).lower()
            if name in self.mute:
                continue
            before = self.asked.count((name, kind))
            self.asked.append((name, kind))
            turns = self.names.get(name, [])
            addresses = turns[min(before, len(turns) - 1)] if turns else []
            records = [
                struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(raw)) + raw
                for raw in map(_packed, addresses)
                if (kind, len(raw)) in {(_QUERY_A, 4), (_QUERY_AAAA, 16)}
            ]
            code = 0 if turns else 3  # NXDOMAIN
            header = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0)
            server.sendto(header + query[12 : position + 5] + b"".join(records), peer)


class RefusedError(Exception):
    """The program could not fetch: the error's name, its message and the remedy."""


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def status(code: int, *headers: str, content: bytes = b"") -> bytes:
    """An answer of HTTP. Without further headers, it states its length."""
    lines = [f"HTTP/1.1 {code} Whatever", *(headers or [f"Content-Length: {len(content)}"])]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


@contextlib.contextmanager
def internet(directory: Path) -> Iterator[Internet]:
    """Two namespaces with a cable, servers, and the program."""
    outside, node = (f"snf-fetch-{kind}-{os.getpid()}" for kind in ("web", "node"))
    with contextlib.ExitStack() as stack:
        for namespace in (outside, node):
            run("ip", "netns", "add", namespace)
            stack.callback(run, "ip", "netns", "delete", namespace)
        _connect(outside, node)
        certificates = make_certificates(directory)
        keeper = stack.enter_context(_mounts(directory))
        program = stack.enter_context(_program(node, keeper))
        made = Internet(node, keeper, program, directory)
        for address in (WEB, OTHER, WEB6, PRIVATE, PRIVATE6):
            for port in (80, 8080):
                made.listen(outside, (address, port))
        for name, port in (("good", 443), ("stranger", 8443)):
            made.listen(outside, (WEB, port), certificates[name])
        for address in ("127.0.0.1", "::1", NODE, NODE6):
            made.listen(node, (address, 8080))
        names = packets.inside(outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        names.bind((NAMES, 53))
        threading.Thread(target=made.resolve, args=(names,), daemon=True).start()
        yield made


def run(*words: str | Path) -> None:
    """Run a command that must succeed."""
    subprocess.run(words, check=True, timeout=PATIENCE, capture_output=True)


def _connect(outside: str, node: str) -> None:
    run("ip", "-n", node, "link", "add", "out", "type", "veth", "peer", "cable", "netns", outside)
    addresses = {
        (outside, "cable"): [
            *(f"{GATEWAY}/24", f"{GATEWAY6}/64"),
            *(f"{address}/32" for address in (WEB, OTHER, NAMES, PRIVATE)),
            *(f"{address}/128" for address in (WEB6, PRIVATE6)),
        ],
        (node, "out"): [f"{NODE}/24", f"{NODE6}/64"],
    }
    for (namespace, device), prefixes in addresses.items():
        for prefix in prefixes:
            extra = ["nodad"] if ":" in prefix else []
            run("ip", "-n", namespace, "address", "add", prefix, "dev", device, *extra)
        run("ip", "-n", namespace, "link", "set", device, "up")
    run("ip", "-n", node, "link", "set", "lo", "up")
    for gateway in (GATEWAY, GATEWAY6):
        run("ip", "-n", node, "route", "add", "default", "via", gateway)


@contextlib.contextmanager
def _mounts(directory: Path) -> Iterator[int]:
    """A process in a mount namespace with other names, and one authority alone."""
    (directory / "resolv.conf").write_text(f"nameserver {NAMES}\noptions timeout:9 attempts:3\n")
    script = (
        "mount --bind resolv.conf /etc/resolv.conf && mount -t tmpfs tmpfs /etc/ssl/certs"
        " && install -m 644 authority.pem"
        ' "/etc/ssl/certs/$(openssl x509 -hash -noout -in authority.pem).0"'
        " && echo up && exec cat"
    )
    keeper = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert keeper.stdin
    assert keeper.stdout
    try:
        assert keeper.stdout.readline() == b"up\n"
        yield keeper.pid
    finally:
        keeper.stdin.close()
        keeper.wait(PATIENCE)
        keeper.stdout.close()


@contextlib.contextmanager
def _program(node: str, keeper: int) -> Iterator[subprocess.Popen[str]]:
    enter = ["nsenter", f"--net=/run/netns/{node}", f"--mount=/proc/{keeper}/ns/mnt", "--wd=."]
    process = subprocess.Popen(
        [*enter, sys.executable, "-m", "tests.system.fetching"],
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SSL_CERT_FILE": "/nonexistent"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(PATIENCE)
        process.stdout.close()


def make_certificates(directory: Path) -> dict[str, ssl.SSLContext]:
    """Contexts of servers: a good one, and one of an unknown authority.

    The authority that is to be known is in ``authority.pem``.
    """
    openssl = shutil.which("openssl")
    assert openssl, "openssl is missing: apt-get install openssl"
    contexts = {}
    for authority in ("authority", "unknown"):
        _certificate(openssl, directory, authority, ["-subj", f"/CN={authority}"])
    for name, authority in (("good", "authority"), ("stranger", "unknown")):
        _certificate(
            openssl,
            directory,
            name,
            [
                *("-subj", "/CN=whatever", "-addext", "subjectAltName=DNS:secure.example.com"),
                *("-addext", "basicConstraints=critical,CA:FALSE"),
                *("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"),
            ],
        )
        contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[name].load_cert_chain(directory / f"{name}.pem", directory / f"{name}.key")
    return contexts


def _certificate(openssl: str, directory: Path, name: str, words: Sequence[str]) -> None:
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", *words),
        ],
        cwd=directory,
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
