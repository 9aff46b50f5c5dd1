"""What cloudbase-init is given to read: the documents of a seed, and how the password leaves it."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from typing import Any

import pytest

from snf_core.image.customization import Customization
from snf_core.image.nics import NicPlan
from snf_core.image.properties import Properties
from snf_os_windows import cloudbase, seed
from tests.scripts import powershell

INSTANCE = "4b3c1f0e-0000-4000-8000-000000000001"
PASSWORD = 'pä"ss\\word, }\u2028💥'
STATIC = NicPlan(
    0,
    "aa:00:00:5e:00:01",
    "static",
    address=ipaddress.IPv4Interface("198.51.100.10/24"),
    gateway=ipaddress.IPv4Address("198.51.100.1"),
    mtu=1400,
)
DHCP = NicPlan(1, "aa:00:00:5e:00:02", "dhcp")


def made(service: str = cloudbase.CONFIG_DRIVE, **fields: Any) -> seed.Seed:
    request = Customization(
        **{
            "hostname": "web1.example.org",
            "properties": Properties(),
            "nics": (STATIC, DHCP),
            "nameservers": ("192.0.2.53", "2001:db8::53"),
            **fields,
        }
    )
    return seed.make(service, request, "web1", INSTANCE)


def document(found: seed.Seed, path: str) -> Any:
    return json.loads(found.files[path])


def test_a_config_drive_tells_who_the_instance_is() -> None:
    found = made(authorized_keys=("ssh-ed25519 AAAA me",), users=("Administrator",))
    assert found.label == "config-2"
    assert document(found, seed.META_DATA) == {
        "uuid": INSTANCE,
        "hostname": "web1",
        "public_keys": {"key-0": "ssh-ed25519 AAAA me"},
        "meta": {"admin_username": "Administrator"},
    }
    assert found.secret == (0, 0)


def test_a_config_drive_tells_the_network_by_mac_address() -> None:
    network = document(made(), "/openstack/latest/network_data.json")
    assert network["links"] == [
        {"id": "eth0", "type": "phy", "ethernet_mac_address": STATIC.mac, "mtu": 1400},
        {"id": "eth1", "type": "phy", "ethernet_mac_address": DHCP.mac},
    ]
    static, dhcp = network["networks"]
    assert static["ip_address"] == "198.51.100.10"
    assert static["netmask"] == "255.255.255.0"
    assert static["routes"] == [
        {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "198.51.100.1"}
    ]
    assert static["services"] == [{"type": "dns", "address": "192.0.2.53"}]
    assert dhcp == {"id": "network1", "link": "eth1", "type": "ipv4_dhcp"}


def test_no_cloud_tells_the_same() -> None:
    found = made(cloudbase.NO_CLOUD, authorized_keys=("ssh-ed25519 AAAA me",), user_data=b"#ps1\n")
    assert found.label == "cidata"
    assert document(found, "/meta-data") == {
        "instance-id": INSTANCE,
        "local-hostname": "web1",
        "public-keys": ["ssh-ed25519 AAAA me"],
    }
    first, second = document(found, "/network-config")["config"]
    assert first["mac_address"] == STATIC.mac
    assert first["mtu"] == 1400
    assert first["subnets"][0]["address"] == "198.51.100.10/24"
    assert first["subnets"][0]["gateway"] == "198.51.100.1"
    assert second["subnets"] == [{"type": "dhcp"}]
    assert found.files["/user-data"] == b"#ps1\n"


def test_a_no_cloud_seed_never_holds_a_password() -> None:
    found = made(cloudbase.NO_CLOUD, password=PASSWORD)
    encoded = json.dumps(PASSWORD).encode()
    assert not [path for path, content in found.files.items() if encoded in content]
    assert found.secret == (0, 0)


def test_user_data_is_passed_on_as_it_is() -> None:
    data = bytes(range(256))
    assert made(user_data=data).files["/openstack/latest/user_data"] == data
    assert "/openstack/latest/user_data" not in made().files


@pytest.mark.parametrize("password", [PASSWORD, "x", '", "uuid": "other'])
def test_blanks_in_its_place_leave_the_document_without_the_password(password: str) -> None:
    found = made(password=password)
    content = found.files[seed.META_DATA]
    before = json.loads(content)
    assert before.pop("admin_pass") == password
    offset, length = found.secret
    blanked = content[:offset] + b" " * length + content[offset + length :]
    assert json.loads(blanked) == before
    assert len(blanked) == len(content)


def test_the_script_blanks_just_that() -> None:
    found = made(password=PASSWORD)
    offset, length = found.secret
    script = seed.script(found, ["/a"])
    assert f"@(32) * {length}" in script
    assert f".Seek({offset}, " in script
    assert f".Length -eq {len(found.files[seed.META_DATA])})" in script
    assert "'openstack\\latest\\meta_data.json'" in script
    assert "-eq 'CONFIG-2'" in script
    assert PASSWORD not in script


def test_without_a_password_it_opens_no_volume() -> None:
    script = seed.script(made(), ["/a"])
    assert "volume" not in script.partition("$ErrorActionPreference")[2].lower()


@pytest.mark.parametrize("password", ["", PASSWORD])
def test_the_script_first_takes_itself_and_what_was_made_from_everybody(password: str) -> None:
    names = ["/Grüße/$(evil)'\u2019; `@MADE@ 💥.txt", "/b"]
    script = seed.script(made(password=password), names)
    lines = [line for line in script.split("\r\n") if not line.startswith("#")]
    assert lines[1:3] == [
        "$tools = Join-Path $env:SystemRoot 'System32'",
        "$own = $MyInvocation.MyCommand.Path",
    ]
    [loop] = [number for number, line in enumerate(lines) if "@($own) + @(" in line]
    assert loop == 4
    words = re.findall(r"FromBase64String\('([A-Za-z0-9+/=]+)'\)", lines[loop])
    decoded = [base64.b64decode(word).decode("utf-16-le") for word in words]
    assert decoded == ["C:\\Grüße\\$(evil)'\u2019; `@MADE@ 💥.txt", "C:\\b"]
    assert "& (Join-Path $tools 'icacls.exe') $path /reset /q" in script
    assert "evil" not in script
    assert not re.search(r"@[A-Z]+@", script)
    assert script.isascii()
    assert script.count("\n") == script.count("\r\n") > 0


def test_it_goes_only_where_all_of_it_succeeded() -> None:
    script = seed.script(made(password=PASSWORD), ["/a"])
    assert script.count("$status = 1002") == 2
    assert script.endswith(
        "if ($status -eq 0) { Remove-Item -LiteralPath $own }\r\nexit $status\r\n"
    )


def test_nothing_secret_shows() -> None:
    assert "admin_pass" not in repr(made(password=PASSWORD))


@pytest.mark.parametrize("password", ["", PASSWORD])
@pytest.mark.parametrize("names", [[], ["/a b", "/ü"]])
def test_the_script_is_powershell(password: str, names: list[str]) -> None:
    powershell.check(seed.script(made(password=password), names))
