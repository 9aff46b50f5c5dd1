"""Which URLs and addresses are asked for at a tenant's wish, and what an answer may be."""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.config import Config
from snf_core.errors import ConfigError, FetchError, GuestError, InvalidValueError, UnsupportedError
from snf_core.image import addresses, download, fetch, web
from snf_core.image.web import Target

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2-and-more"

PUBLIC = [
    *("93.184.216.34", "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255"),
    *("100.128.0.0", "128.0.0.1", "169.253.255.255", "172.15.255.255", "172.32.0.0"),
    *("192.0.1.0", "192.167.255.255", "198.17.255.255", "198.20.0.0", "223.255.255.255"),
    *("2606:2800:220:1::1", "2a00:1450:4001::1", "2001:200::1", "2001:4860:4860::8888", "2003::1"),
]
NOT_PUBLIC = {
    "0.0.0.0": "this host, which Linux takes as itself",
    "0.1.2.3": "this network",
    "10.0.0.1": "private",
    "100.64.0.1": "behind a provider's NAT",
    "100.100.100.200": "a cloud's metadata, there",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "169.254.169.254": "clouds' metadata, link-local",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.1": "protocol assignments",
    "192.0.0.9": "port control anycast, which ipaddress takes as global in some versions",
    "192.0.0.192": "a cloud's metadata",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4 relay",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarks",
    "198.19.255.255": "benchmarks",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast, which ipaddress takes as global",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "::7f00:1": "IPv4-compatible",
    "::ffff:127.0.0.1": "IPv4-mapped",
    "::ffff:93.184.216.34": "IPv4-mapped",
    "::ffff:0:127.0.0.1": "IPv4-translated",
    "64:ff9b::7f00:1": "NAT64, which ipaddress takes as global",
    "64:ff9b::a9fe:a9fe": "NAT64 of metadata",
    "64:ff9b:1::1": "local NAT64",
    "100::1": "discard",
    "2001::1": "Teredo",
    "2001:2::1": "benchmarks",
    "2001:10::1": "ORCHID",
    "2001:20::1": "ORCHIDv2",
    "2001:db8::1": "documentation",
    "2002:7f00:1::1": "6to4 of loopback, which ipaddress takes as global",
    "3fff::1": "documentation",
    "4000::1": "not given out",
    "5f00::1": "segment routing",
    "fc00::1": "unique local",
    "fd00:ec2::254": "a cloud's metadata, unique local",
    "fe80::1": "link-local",
    "fec0::1": "site-local, which ipaddress takes as global",
    "ff02::1": "multicast",
    "ff0e::1": "global multicast, which is global to ipaddress",
}


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses(text: str) -> None:
    assert addresses.public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_addresses_that_are_not_public(text: str) -> None:
    assert not addresses.public(ipaddress.ip_address(text)), NOT_PUBLIC[text]


@given(st.ip_addresses())
def test_what_is_public_is_nothing_else(address: addresses.Address) -> None:
    if addresses.public(address):
        assert address.is_global
        assert not address.is_private
        assert not address.is_multicast
        assert not address.is_reserved
        assert not address.is_loopback
        assert not address.is_link_local


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_in_an_ipv6_address_is_not_reached(inner: ipaddress.IPv4Address) -> None:
    for prefix, shift in (("::", 0), ("::ffff:0:0", 0), ("64:ff9b::", 0), ("2002::", 80)):
        outer = int(ipaddress.IPv6Address(prefix)) | int(inner) << shift
        assert not addresses.public(ipaddress.IPv6Address(outer))


# -- whom the operator allows -----------------------------------------------------------------


def ips(*texts: str) -> list[addresses.Address]:
    """Addresses."""
    return [ipaddress.ip_address(text) for text in texts]


def target(host: str = "files.example.org") -> Target:
    """A file of a host."""
    return web.parse(f"https://{host}/x", "url")


LISTED = addresses.allowed(["Files.Example.org", "10.1.0.0/16", "192.168.1.7", "fd00:1::/64"])


@pytest.mark.parametrize(
    ("host", "resolved"),
    [
        ("h", ips("93.184.216.34")),
        ("h", ips("10.1.2.3")),
        ("h", ips("192.168.1.7", "93.184.216.34", "fd00:1::5")),
        ("files.example.org", ips("127.0.0.1")),
        ("FILES.example.org.", ips("10.2.0.1")),
    ],
)
def test_what_is_listed_is_reached(host: str, resolved: list[addresses.Address]) -> None:
    own = ips("192.168.1.7").__contains__
    assert download.reachable(target(host), LISTED, resolved, "url", own) == resolved


@pytest.mark.parametrize(
    ("host", "resolved"),
    [
        ("h", ips("10.2.0.1")),
        ("h", ips("127.0.0.1")),
        ("h", ips("192.168.1.8")),
        ("h", ips("93.184.216.34", "10.2.0.1")),
        ("h", ips("fd00:1::5", "::1")),
        ("h", ips("::ffff:10.1.2.3")),
        ("h", ips("93.184.216.35")),
        ("not-files.example.org", ips("10.2.0.1")),
        ("x.files.example.org", ips("10.2.0.1")),
    ],
)
def test_nothing_else_is(host: str, resolved: list[addresses.Address]) -> None:
    with pytest.raises(InvalidValueError, match="not on the public Internet") as caught:
        download.reachable(target(host), LISTED, resolved, "url", ips("93.184.216.35").__contains__)
    assert "fetch_hosts" in caught.value.remedy
    for address in resolved:
        assert str(address) not in str(caught.value), "how our networks are laid out"


def listed(tmp_path: Path, value: str) -> list[str]:
    """The option as configured."""
    file = tmp_path / "snf.conf"
    file.write_text(f"[image]\nfetch_hosts = {value}\n")
    hosts: list[str] = Config([file]).image.fetch_hosts
    return hosts


def test_how_it_is_configured(tmp_path: Path) -> None:
    value = "files.example.org, 10.1.0.0/16,192.168.1.7, fd00:1::/64, intranet"
    expected = ["files.example.org", "10.1.0.0/16", "192.168.1.7/32", "fd00:1::/64", "intranet"]
    assert listed(tmp_path, value) == expected
    assert listed(tmp_path, "") == []


@pytest.mark.parametrize(
    "value", ["10.1.2.3/16", "10.1.2.300", "http://h/", "a b", "fe80::/200", "*", "h:80", "ä"]
)
def test_what_is_neither_host_nor_prefix(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"option 'fetch_hosts' in group \[image\] is not valid"):
        listed(tmp_path, value)


# -- URLs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://example.org", Target(False, "example.org", 80, "/")),
        ("https://example.org/a/b?c=d#e", Target(True, "example.org", 443, "/a/b?c=d")),
        ("https://example.org:8443?x", Target(True, "example.org", 8443, "/?x")),
        ("http://[2606:2800:220:1::1]:8080/", Target(False, "2606:2800:220:1::1", 8080, "/")),
        ("https://[::1]/", Target(True, "::1", 443, "/")),
        ("http://1.1.1.1:443/", Target(False, "1.1.1.1", 443, "/")),
        ("https://u@h/", Target(True, "h", 443, "/", "Basic dTo=")),
        ("https://u%40x:p%3Aq@h/", Target(True, "h", 443, "/", "Basic dUB4OnA6cQ==")),
    ],
)
def test_urls(url: str, expected: Target) -> None:
    assert web.parse(url, "url") == expected


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "//h/x", "gopher://h/x", "javascript://h", "http:h", "http:///x", "http://:80/"),
        *("http://h:x/", "http://h:99999999/", "http://h:-1/", "http://a b/", "http://h/a b"),
        *("http://h/\n", "http://h\r\nX: y/", "http://ä/", "http://h/ä", "http://h\\@other/"),
        *("http://[::1/", "http://::1/", "http://[fe80::1%25eth0]/", "http://[x]/", "http://h%00/"),
        "http://h/" + "x" * 8000,
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidValueError, match="url is not a URL that can be fetched") as caught:
        web.parse(url, "url")
    assert caught.value.remedy


@pytest.mark.parametrize("port", [0, 1, 22, 25, 53, 110, 444, 1023, 65536, 99999])
def test_ports_of_other_protocols(port: int) -> None:
    with pytest.raises(InvalidValueError, match=f"nothing is fetched from port {port}"):
        web.parse(f"http://example.org:{port}/", "url")


def test_what_is_secret_in_a_url_is_not_shown() -> None:
    secret = web.parse(f"https://user:{SECRET}@h:8443/{SECRET}?token={SECRET}", "url")
    assert secret.shown == "https://h:8443"
    assert SECRET not in repr(secret)
    assert "Basic" not in repr(secret)
    assert web.parse("http://[2606::1]/x", "url").shown == "http://[2606::1]"


@pytest.mark.parametrize(
    ("url", "location", "expected"),
    [
        ("https://h/a/b", "c", Target(True, "h", 443, "/a/c")),
        ("https://h/a/b?q", "/c", Target(True, "h", 443, "/c")),
        ("https://h/a", "//other/x", Target(True, "other", 443, "/x")),
        ("http://h/a", "https://other/x", Target(True, "other", 443, "/x")),
        (f"https://u:{SECRET}@h/a", "/b", Target(True, "h", 443, "/b")),
        (f"https://u:{SECRET}@h/a", "https://other/b", Target(True, "other", 443, "/b")),
    ],
)
def test_redirections(url: str, location: str, expected: Target) -> None:
    """No password goes with them, not even to the same host."""
    assert web.redirected(web.parse(url, "url"), location, "url") == expected


@pytest.mark.parametrize(
    ("location", "kind", "why"),
    [
        ("http://h/a", InvalidValueError, "leads from https to http"),
        ("file:///etc/passwd", InvalidValueError, "a file of the node"),
        ("ftp://h/x", UnsupportedError, "ftp:// is not served"),
        ("gopher://h/x", InvalidValueError, "is not a URL"),
        ("https://h:25/x", InvalidValueError, "port 25"),
        ("https://[::1/x", InvalidValueError, "is not a URL"),
        ("/a\x00b", InvalidValueError, "is not a URL"),
    ],
)
def test_redirections_that_are_not_followed(location: str, kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why):
        web.redirected(web.parse("https://h/x", "url"), location, "url")


@given(
    st.text(max_size=30), st.sampled_from(["", "http://", "https://", "http://h/", "https://u@"])
)
def test_whatever_comes_it_is_a_target_or_refused(text: str, start: str) -> None:
    try:
        found = web.parse(start + text, "url")
    except (InvalidValueError, UnsupportedError):
        return
    assert found.path.startswith("/")
    assert found.path.isascii()
    assert not set(found.path + found.host) & set(" \r\n\0\\") - {"\\"}
    assert found.port in {80, 443} or 1024 <= found.port <= 65535


# -- what the program answers -----------------------------------------------------------------


def answer(error: str | None = None, content: bytes = b"", message: str = "why") -> bytes:
    """As the program writes it."""
    header = {"error": error, "message": message, "remedy": "do"}
    return json.dumps(header).encode() + b"\n" + content


def test_an_answer() -> None:
    assert fetch._content(answer(content=b"a\nb\0"), "url") == b"a\nb\0"


@pytest.mark.parametrize("kind", [GuestError, FetchError, InvalidValueError])
def test_an_answer_that_is_an_error(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="why"):
        fetch._content(answer(kind.__name__, b"x"), "url")


@pytest.mark.parametrize(
    "text",
    [b"", b"x", b"{}", b"1\n", b"[]\nx", b"\n", b"{" * 100_000 + b"\n", b"\xff\n", bytes(3 << 20)],
)
def test_what_is_no_answer(text: bytes) -> None:
    with pytest.raises(FetchError, match="url: the program that fetches it died"):
        fetch._content(text, "url")


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><p>Log in", b"\xef\xbb\xbf \r\n<HTML lang=en>", b"<html/>"]
)
def test_a_web_page_is_no_file(page: bytes) -> None:
    with pytest.raises(InvalidValueError, match="parameter x: a web page lies there") as caught:
        fetch.no_page(page, "parameter x")
    assert "the URL of the file itself" in caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"<?xml version='1.0'?><unattend/>", b"; sysprep\r\n[a]"])
def test_anything_else_may_be(content: bytes) -> None:
    assert fetch.no_page(content, "parameter x") == content
