"""Fetching at a tenant's wish: real servers and names, and everything that must not be reached."""

from __future__ import annotations

import gzip
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system import internet as net
from tests.system.internet import Internet, RefusedError, Request, status, wait_for
from tests.system.site import DISK_BYTES, Site, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 1 << 20
CONTENT = b"<unattend/>\r\n\0\xff"
SECRET = "hunter2-and-more"
TOO_LONG = 15.0
"""Seconds that nobody waits for who has 2: much, as the machine may be busy."""


@pytest.fixture(scope="module", name="shared")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with net.internet(tmp_path_factory.mktemp("internet")) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_remains() -> None:
    """Instead of what the other modules have: here, children of the tests stay."""


@pytest.fixture(name="web")
def _web(shared: Internet) -> Iterator[Internet]:
    """An Internet with one file and one name; afterwards nobody fetches any more."""
    shared.answers = {"/x": status(200, content=CONTENT)}
    shared.names = {
        "www.example.com": [[net.WEB, net.WEB6]],
        "other.example.com": [[net.OTHER]],
        "secure.example.com": [[net.WEB]],
        "wrong.example.com": [[net.WEB]],
        "private.example.com": [[net.PRIVATE]],
        "silent.example.com": [[net.SILENT]],
    }
    shared.mute = {"mute.example.com"}
    shared.requests.clear()
    shared.asked.clear()
    yield shared
    assert shared.fetching() == []


def refused(
    web: Internet, url: str, kind: str, why: str, *, timeout: float = 60, fetch_hosts: str = ""
) -> None:
    """What cannot be fetched, and nothing secret is said of it."""
    with pytest.raises(RefusedError) as caught:
        web.fetch(url, timeout=timeout, fetch_hosts=fetch_hosts)
    name, message, remedy = caught.value.args
    assert (name, bool(re.search(why, message))) == (kind, True), message
    assert message.startswith("the URL")
    assert remedy
    assert SECRET not in message + remedy


def redirect(location: str, code: int = 302) -> bytes:
    """An answer that leads elsewhere."""
    return status(code, f"Location: {location}", "Content-Length: 0")


# -- what is fetched --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("http://www.example.com/x", f"{net.WEB} 80"),
        ("http://www.example.com:8080/x", f"{net.WEB} 8080"),
        (f"http://{net.OTHER}/x", f"{net.OTHER} 80"),
        (f"http://[{net.WEB6}]:8080/x", f"{net.WEB6} 8080"),
        ("https://secure.example.com/x", f"{net.WEB} 443"),
    ],
)
def test_a_file(web: Internet, url: str, server: str) -> None:
    assert web.fetch(url) == CONTENT
    asked = [where for where, _ in web.requests]
    assert asked == ([server] if "www" not in url else asked)
    assert len(asked) == 1
    assert asked[0].split()[1] == server.split()[1]


def test_what_a_server_is_told(web: Internet) -> None:
    web.answers["/a?b=%20c"] = status(200, "Set-Cookie: a=b", "Content-Length: 2", content=b"hi")
    assert web.fetch("https://user:p%40ss@secure.example.com/a?b=%20c#d") == b"hi"
    assert web.requests[0][1].headers == {
        "host": "secure.example.com",
        "accept": "*/*",
        "accept-encoding": "identity",
        "authorization": "Basic dXNlcjpwQHNz",
        "connection": "close",
        "user-agent": "snf",
    }
    assert web.fetch(f"http://{net.WEB}:8080/x") == CONTENT
    assert web.requests[1][1].headers["host"] == f"{net.WEB}:8080"


@pytest.mark.parametrize(
    "answer",
    [
        status(200, content=bytes(LIMIT)),
        status(200, "Connection: close", content=bytes(LIMIT)),
        status(
            200, "Transfer-Encoding: chunked", content=b"100000\r\n%b\r\n0\r\n\r\n" % bytes(LIMIT)
        ),
    ],
    ids=["length", "end", "chunks"],
)
def test_the_largest_file(web: Internet, answer: bytes) -> None:
    web.answers["/large"] = answer
    for url in ("http://www.example.com/large", "https://secure.example.com/large"):
        assert web.fetch(url) == bytes(LIMIT)


def test_an_empty_file(web: Internet) -> None:
    web.answers["/empty"] = status(200)
    assert web.fetch("http://www.example.com/empty") == b""


def test_redirections_are_followed(web: Internet) -> None:
    web.answers["/1"] = redirect("2", 301)
    web.answers["/2"] = redirect("//other.example.com:8080/3?a", 307)
    web.answers["/3?a"] = redirect("https://secure.example.com/x", 308)
    assert web.fetch("http://user:secret@www.example.com/1") == CONTENT
    assert [request.target for _, request in web.requests] == ["/1", "/2", "/3?a", "/x"]
    told = ["authorization" in request.headers for _, request in web.requests]
    assert told == [True, False, False, False]
    assert not any("cookie" in request.headers for _, request in web.requests)


# -- what is not reached ----------------------------------------------------------------------

UNREACHED = {
    "loopback": "http://127.0.0.1:8080/x",
    "all of loopback": "http://127.1.2.3:8080/x",
    "as one number": "http://2130706433:8080/x",
    "in hexadecimal": "http://0x7f.1:8080/x",
    "in octal": "http://0177.0.0.1:8080/x",
    "this host": "http://0:8080/x",
    "this host too": "http://0.0.0.0:8080/x",
    "loopback of IPv6": "http://[::1]:8080/x",
    "unspecified": "http://[::]:8080/x",
    "mapped": "http://[::ffff:127.0.0.1]:8080/x",
    "by name": "http://localhost:8080/x",
    "the node itself": f"http://{net.NODE}:8080/x",
    "the node itself, mapped": f"http://[::ffff:{net.NODE}]:8080/x",
    "the node itself, of IPv6": f"http://[{net.NODE6}]:8080/x",
    "private": f"http://{net.PRIVATE}/x",
    "unique local": f"http://[{net.PRIVATE6}]/x",
    "a private name": "http://private.example.com:8080/x",
    "with a dot": "http://private.example.com.:8080/x",
    "over TLS": "https://private.example.com:8443/x",
    "metadata": "http://169.254.169.254/latest/meta-data/",
}


@pytest.mark.parametrize("name", UNREACHED)
def test_what_is_not_public_is_not_reached(web: Internet, name: str) -> None:
    refused(web, UNREACHED[name], "InvalidValueError", "not on the public Internet")
    assert web.requests == []


def test_a_name_with_one_private_address_is_not_reached_at_all(web: Internet) -> None:
    for private in (net.PRIVATE, net.PRIVATE6, "127.0.0.1", "169.254.169.254", net.NODE):
        web.names["mixed.example.com"] = [[net.WEB, private]]
        refused(web, "http://mixed.example.com/x", "InvalidValueError", "not on the public")
    assert web.requests == []


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://127.0.0.1:8080/x", "not on the public Internet"),
        ("http://private.example.com/x", "not on the public Internet"),
        (f"http://{net.NODE}:8080/{SECRET}", "not on the public Internet"),
        ("//[::1]:8080/x", "not on the public Internet"),
        ("file:///etc/passwd", "a file of the node"),
        ("ftp://www.example.com/x", "not served"),
        ("http://www.example.com:22/x", "port 22"),
        ("http://[", "not a URL"),
    ],
)
def test_redirections_are_judged_as_well(web: Internet, location: str, why: str) -> None:
    web.answers["/away"] = redirect(location)
    kind = "UnsupportedError" if "ftp" in location else "InvalidValueError"
    refused(web, "http://www.example.com/away", kind, why)
    assert len(web.requests) == 1


def test_redirections_do_not_leave_tls(web: Internet) -> None:
    web.answers["/away"] = redirect("http://www.example.com/x")
    refused(web, "https://secure.example.com/away", "InvalidValueError", "from https to http")
    assert len(web.requests) == 1


def test_redirections_come_to_an_end(web: Internet) -> None:
    web.answers |= {f"/{n}": redirect(f"/{n + 1}") for n in range(9)}
    refused(web, "http://www.example.com/0", "FetchError", "more than 3 redirections")
    assert len(web.requests) == 4


def test_a_name_that_changes_its_address_changes_nothing(web: Internet) -> None:
    """DNS rebinding: what was judged is what is connected to."""
    web.names["rebind.example.com"] = [[net.WEB], ["127.0.0.1"]]
    assert web.fetch("http://rebind.example.com:8080/x") == CONTENT
    assert [where for where, _ in web.requests] == [f"{net.WEB} 8080"]
    assert web.asked.count(("rebind.example.com", 1)) == 1
    refused(web, "http://rebind.example.com:8080/x", "InvalidValueError", "not on the public")
    assert len(web.requests) == 1


def test_nor_does_it_between_redirections(web: Internet) -> None:
    web.names["rebind.example.com"] = [[net.WEB], [net.PRIVATE]]
    web.answers["/again"] = redirect("http://rebind.example.com/x")
    refused(web, "http://rebind.example.com/again", "InvalidValueError", "not on the public")
    assert [where for where, _ in web.requests] == [f"{net.WEB} 80"]


def test_what_the_operator_lists_is_reached(web: Internet) -> None:
    for hosts in ("private.example.com", "10.9.0.0/16", f"x, {net.PRIVATE}"):
        assert web.fetch("http://private.example.com/x", fetch_hosts=hosts) == CONTENT
    assert web.fetch("http://127.0.0.1:8080/x", fetch_hosts="127.0.0.0/8") == CONTENT
    assert {where for where, _ in web.requests} == {f"{net.PRIVATE} 80", "127.0.0.1 8080"}
    hosts = f"{net.PRIVATE}/32, other.example.com"
    refused(web, f"http://[{net.PRIVATE6}]/x", "InvalidValueError", "not on the", fetch_hosts=hosts)


# -- servers that do not do what they should --------------------------------------------------

CHUNKS = "Transfer-Encoding: chunked"
BAD_ANSWERS = {
    "not there": (status(404), "status 404"),
    "forbidden": (status(403, content=SECRET.encode()), "status 403"),
    "broken": (status(500), "status 500"),
    "nothing": (status(204, "X: y"), "status 204"),
    "part": (status(206, "Content-Length: 1", content=b"x"), "status 206"),
    "to nowhere": (status(302), "status 302"),
    "too much, stated": (status(200, content=bytes(LIMIT + 1)), "more than 1048576 bytes"),
    "too much": (status(200, "X: y", content=bytes(LIMIT + 1)), "more than 1048576 bytes"),
    "too much, in chunks": (
        status(200, CHUNKS, content=b"200000\r\n" + bytes(2 * LIMIT)),
        "more than 1048576 bytes",
    ),
    "cut off": (status(200, "Content-Length: 9", content=b"x"), "ends before its end"),
    "cut off, in chunks": (status(200, CHUNKS, content=b"9\r\nx"), "does not answer as a web"),
    "compressed": (
        status(200, "Content-Encoding: gzip", content=gzip.compress(CONTENT)),
        "compresses",
    ),
    "endless line": (b"HTTP/1.1 200 " + b"x" * 70_000, "does not answer as a web server"),
    "many headers": (status(200, *(f"X{n}: y" for n in range(200))), "does not answer as a web"),
    "another protocol": (b"220 mail.example.com ESMTP " + SECRET.encode(), "does not answer as"),
    "nothing at all": (b"", "does not answer as a web server|reset|closed"),
    "senseless length": (status(200, "Content-Length: -9", content=b"x" * LIMIT * 2), "more than"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answers(web: Internet, name: str) -> None:
    web.answers[f"/{SECRET}"], why = BAD_ANSWERS[name]
    refused(web, f"http://u:{SECRET}@www.example.com/{SECRET}", "FetchError", why)


def test_an_endless_answer_is_cut_short(web: Internet) -> None:
    """However fast it comes."""

    def endless(request: Request) -> None:
        request.connection.sendall(status(200, "X: y"))
        while True:
            request.connection.sendall(bytes(1 << 16))

    web.answers["/x"] = endless
    refused(web, "http://www.example.com/x", "FetchError", "more than 1048576 bytes")


@pytest.mark.parametrize("url", ["http://gone.example.com/x", "http://x.invalid/"])
def test_a_name_without_addresses(web: Internet, url: str) -> None:
    refused(web, url, "FetchError", "the host's name has no address")


def test_nobody_listens(web: Internet) -> None:
    refused(web, "http://www.example.com:9999/x", "FetchError", "Connection refused")


def test_of_several_addresses_one_that_answers_is_taken(web: Internet) -> None:
    web.names["twins.example.com"] = [[net.GATEWAY, net.WEB]]
    assert web.fetch("http://twins.example.com:8080/x") == CONTENT


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://wrong.example.com/x", "Hostname mismatch"),
        (f"https://{net.WEB}/x", "IP address mismatch"),
        ("https://secure.example.com:8443/x", "unable to get local issuer"),
        ("https://secure.example.com:8080/x", "WRONG_VERSION|wrong version|SSL"),
    ],
)
def test_certificates_are_verified(web: Internet, url: str, why: str) -> None:
    refused(web, url, "FetchError", why)
    assert web.requests == []


def test_a_file_over_tls_that_is_cut_off(web: Internet) -> None:
    """Without a length, only TLS says where the end is."""

    def cut(request: Request) -> None:
        request.connection.sendall(status(200, "X: y", content=b"half of it"))
        os.close(request.connection.detach())

    web.answers["/x"] = cut
    refused(web, "https://secure.example.com/x", "FetchError", "EOF|eof")


@pytest.mark.parametrize("where", ["headers", "content", "names", "connection"])
def test_slow_servers_get_no_more_than_their_time(web: Internet, where: str) -> None:
    def drip(request: Request) -> None:
        if where == "content":
            request.connection.sendall(status(200, "Content-Length: 1000"))
        while True:
            request.connection.sendall(b"x")
            time.sleep(0.05)

    web.answers["/x"] = drip
    host = {"names": "mute.example.com", "connection": "silent.example.com"}.get(where, "")
    began = time.monotonic()
    refused(web, f"http://{host or 'www.example.com'}/x", "DeadlineError", "within 2 s", timeout=2)
    assert 2 <= time.monotonic() - began < TOO_LONG


# -- who fetches ------------------------------------------------------------------------------


def test_whoever_fetches_is_nobody(web: Internet) -> None:
    seen = {}

    def look(request: Request) -> None:
        (fetcher,) = web.fetching()
        process = Path(f"/proc/{fetcher}")
        seen.update(status_of(fetcher))
        seen["limits"] = (process / "limits").read_text()
        seen["shown"] = (process / "cmdline").read_text() + (process / "environ").read_text()
        request.connection.sendall(status(200, content=CONTENT))

    web.answers[f"/{SECRET}"] = look
    assert web.fetch(f"http://user:{SECRET}@www.example.com/{SECRET}") == CONTENT
    ids = [seen[kind].split() for kind in ("Uid", "Gid")]
    for four in ids:
        assert len(set(four)) == 1
        assert int(four[0]) >= 100_000, "a number that names nobody"
    assert seen["Groups"] == ""
    assert seen["NoNewPrivs"] == "1"
    assert int(seen["CapEff"], 16) == int(seen["CapPrm"], 16) == 0
    for line in ("Max processes +1 +1 ", "Max file size +0 +0 ", "Max core file size +0 +0 "):
        assert re.search(line, seen["limits"])
    assert SECRET not in seen["shown"]
    assert "example.com" not in seen["shown"]


def test_whoever_fetches_ends_with_its_parent(web: Internet, tmp_path: Path) -> None:
    """SIGKILL of the deployment leaves nobody behind."""
    with net._program(web.node, web.keeper) as program:
        other = Internet(web.node, web.keeper, program, tmp_path)
        done: list[int] = []

        def wait(request: Request) -> None:
            done.extend(other.fetching())
            program.kill()
            while request.connection.recv(1):
                pass
            done.append(0)

        web.answers["/x"] = wait
        other.ask("http://www.example.com/x")
        wait_for(lambda: len(done) == 2)
        wait_for(lambda: not Path(f"/proc/{done[0]}").exists())


# -- deployments ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["not there", "interrupted"])
def test_a_deployment_without_its_answer_file_spares_the_disk(
    web: Internet, place: Site, how: str
) -> None:
    disk = place.disk("spared", stale=False)
    disk.write_bytes(b"an earlier tenant's")
    os.truncate(disk, DISK_BYTES)
    before = disk.stat()
    asked: list[Request] = []

    def hang(request: Request) -> None:
        asked.append(request)
        while request.connection.recv(1):
            pass

    if how == "interrupted":
        web.answers[f"/{SECRET}"] = hang
    environment = place.environment(
        disk, "linux", os_answer_file=f"http://u:{SECRET}@{net.WEB}/{SECRET}"
    )
    inside = ["nsenter", f"--net=/run/netns/{web.node}"]
    with place.started(environment, prefix=inside) as deployment:
        if how == "interrupted":
            wait_for(lambda: asked)
            deployment.process.terminate()
        outcome = deployment.finish()
    said = "status 404" if how == "not there" else "the deployment was interrupted by SIGTERM"
    assert outcome.status == 1
    assert said in outcome.stderr
    assert SECRET not in outcome.stderr + str(deployment.events)
    after = disk.stat()
    assert (after.st_mtime_ns, after.st_blocks) == (before.st_mtime_ns, before.st_blocks)
    place.await_orphans(web.keeper, web.program.pid)
    assert place.remains(web.keeper, web.program.pid) == []
