"""URIs of disks: what QEMU is told, and what is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.config import Config
from snf_core.errors import DiskError
from snf_core.image import block_uri
from snf_core.image.destination.local import Local
from snf_core.image.destination.uri import Uri
from snf_core.image.selection import choose_destination
from snf_core.model import Disk


def _inet(host: str, port: int) -> dict[str, str]:
    return {"type": "inet", "host": host, "port": str(port)}


SERVED: dict[str, dict[str, Any]] = {
    "nbd://192.0.2.1": {"driver": "nbd", "server": _inet("192.0.2.1", 10809), "export": ""},
    "nbd+tcp://[2001:db8::1]:99/a%20b": {
        "driver": "nbd",
        "server": _inet("2001:db8::1", 99),
        "export": "a b",
    },
    "nbd+unix:///x/y?socket=/run/a,b": {
        "driver": "nbd",
        "server": {"type": "unix", "path": "/run/a,b"},
        "export": "x/y",
    },
    "nbd:h:99:exportname=e": {"driver": "nbd", "server": _inet("h", 99), "export": "e"},
    "nbd:[::1]:99": {"driver": "nbd", "server": _inet("::1", 99), "export": ""},
    "nbd:unix:/run/s": {
        "driver": "nbd",
        "server": {"type": "unix", "path": "/run/s"},
        "export": "",
    },
    # As Ganeti's RADOS and Gluster templates have it.
    "rbd:pool/0b5a8b4e.rbd.disk0": {"driver": "rbd", "pool": "pool", "image": "0b5a8b4e.rbd.disk0"},
    "rbd:image": {"driver": "rbd", "pool": "rbd", "image": "image"},
    "rbd:p/n/i@s:id=admin:conf=/etc/ceph/x.conf": {
        "driver": "rbd",
        "pool": "p",
        "namespace": "n",
        "image": "i",
        "snapshot": "s",
        "user": "admin",
        "conf": "/etc/ceph/x.conf",
    },
    "gluster://192.0.2.1:24007/vol/a/b.0": {
        "driver": "gluster",
        "volume": "vol",
        "path": "a/b.0",
        "server": [_inet("192.0.2.1", 24007)],
    },
    "gluster+unix:///vol/a?socket=/run/s": {
        "driver": "gluster",
        "volume": "vol",
        "path": "a",
        "server": [{"type": "unix", "path": "/run/s"}],
    },
    "iscsi://192.0.2.1/iqn.2001-04.com.example:x/1": {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": "192.0.2.1:3260",
        "target": "iqn.2001-04.com.example:x",
        "lun": 1,
    },
    "ssh://me@h/srv/x?host_key_check=no": {
        "driver": "ssh",
        "server": {"host": "h", "port": "22"},
        "path": "/srv/x",
        "user": "me",
        "host-key-check": {"mode": "none"},
    },
}


@pytest.mark.parametrize("uri", SERVED)
def test_what_qemu_is_told(uri: str) -> None:
    assert block_uri.node(uri, writable=True) == SERVED[uri]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "no way to reach it"),
        ("file:/etc/shadow", "no way"),
        ("/etc/shadow", "no way"),
        ("host_device:/dev/sda", "no way"),
        ("json:{}", "no way"),
        ('json:{"driver":"file","filename":"/etc/shadow"}', "no way"),
        ("sheepdog:x", "no way"),
        ("vvfat:/etc", "no way"),
        ("fat:rw:/etc", "no way"),
        ("-nbd://h", "no way"),
        ("NBD://h", "no way"),
        ("gluster+rdma://h/v/p", "no way"),
        ("nbd://", "names no host"),
        ("nbd:///x", "names no host"),
        ("nbd://h:port", "Port"),
        ("nbd://h?socket=/run/s", "socket is not understood"),
        ("nbd:h", "nbd:HOST:PORT"),
        ("nbd:unix:relative", "nbd:HOST:PORT"),
        ("nbd+unix://h/?socket=/run/s", "no socket"),
        ("nbd+unix:///?socket=relative", "no socket"),
        ("nbd+unix:///", "no socket"),
        ("nbd+unix:///?socket=/a&socket=/b", "socket is not understood"),
        ("nbd+unix:///?socket=/a&tls=x", "tls is not understood"),
        ("nbd://h/x#f", "fragment"),
        ("rbd:", "no way"),
        ("rbd:a/b/c/d", "rbd:POOL/IMAGE"),
        (r"rbd:p/i\:x", "rbd:POOL/IMAGE"),
        ("rbd:p/i:mon_host=192.0.2.1", "option mon_host is not served"),
        ("rbd:p/i:id", "option id is not served"),
        ("rbd:p/i:id=", "option id is not served"),
        ("gluster://h/vol", "gluster://HOST/VOLUME/PATH"),
        ("iscsi://h/iqn", "iscsi://HOST/TARGET/LUN"),
        ("iscsi://h/iqn/x", "iscsi://HOST/TARGET/LUN"),
        ("ssh://h/", "names no file"),
        ("ssh://h/x?host_key_check=perhaps", "neither yes nor no"),
        ("http://h/x", "QEMU only reads http"),
    ],
)
def test_what_is_refused(uri: str, said: str) -> None:
    with pytest.raises(DiskError, match=said) as caught:
        block_uri.node(uri, writable=True)
    assert uri in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("uri", ["iscsi://me%hunter2@h/iqn/0", "ssh://me:hunter2@h/x"])
def test_passwords_are_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(DiskError, match="it holds a password") as caught:
        block_uri.node(uri, writable=True)
    assert "hunter2" not in str(caught.value)
    assert "me:********@h" in str(caught.value)


def test_what_can_only_be_read_is_read() -> None:
    uri = "https://h/x?token=y"
    assert block_uri.node(uri, writable=False) == {"driver": "https", "url": uri}
    with pytest.raises(DiskError, match="user or a password"):
        block_uri.node("https://me@h/x", writable=False)


@given(st.sampled_from(sorted(SERVED)), st.text(max_size=20), st.integers(0, 40))
def test_whatever_comes_it_is_fields_or_refused(uri: str, text: str, at: int) -> None:
    with contextlib.suppress(DiskError):
        node = block_uri.node(uri[:at] + text + uri[at:], writable=True)
        assert node["driver"] in {"nbd", "rbd", "gluster", "iscsi", "ssh"}
        json.dumps(node)


@pytest.mark.parametrize(
    ("disk", "kind"),
    [
        (Disk(0, "/dev/null", "rbd:p/i"), Local),  # Ganeti has mapped it
        (Disk(0, "", "rbd:p/i"), Uri),
        (Disk(0, "/nowhere", "rbd:p/i"), Uri),
        (Disk(0, "/nowhere", ""), Local),
    ],
)
def test_a_uri_is_for_disks_without_a_path(disk: Disk, kind: type) -> None:
    assert isinstance(choose_destination(disk, Config([])), kind)
