"""cloudbase-init: where it is recognised, what it cannot do, and the volume that it gets."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import GuestError, UnsupportedError
from snf_core.image import layout
from snf_core.image.customization import Customization, PersonalFile
from snf_core.image.layout import Partition, Table
from snf_core.image.nics import NicPlan
from snf_core.image.properties import Properties
from snf_core.image.registry import Value
from snf_os_windows import answer_file, cloudbase, inspection, paths, seed
from snf_os_windows.cloudbase import CONFIG_DRIVE, NO_CLOUD, Agent
from snf_os_windows.datasource import InitializeDatasource
from snf_os_windows.inspection import Facts
from snf_os_windows.personality import EnforcePersonality
from tests.fakes.guest import MIB, FakeGuest, directory, filesystem
from tests.fakes.task import run

if TYPE_CHECKING:
    from tests.fakes.registry import Keys

HOME = "/Program Files/Cloudbase Solutions/Cloudbase-Init"
CONF = f"{HOME}/conf/cloudbase-init.conf"
SCRIPTS = f"{HOME}/LocalScripts"
ANSWERS = f"{HOME}/conf/Unattend.xml"
ANSWER = '<unattend xmlns="urn:schemas-microsoft-com:unattend"/>'
SERVICE = "ControlSet001\\Services\\cloudbase-init"
COMMAND = (
    '"C:\\Program Files\\Cloudbase Solutions\\Cloudbase-Init\\bin\\OpenStackService.exe" '
    "cloudbase-init "
    '"C:\\Program Files\\Cloudbase Solutions\\Cloudbase-Init\\Python\\Scripts\\cloudbase-init.exe" '
    '--config-file "C:\\Program Files\\Cloudbase Solutions\\Cloudbase-Init\\conf\\'
    'cloudbase-init.conf"'
)
USUAL = (
    "[DEFAULT]\r\nusername=Admin\r\n"
    "local_scripts_path=C:\\Program Files\\Cloudbase Solutions\\Cloudbase-Init\\LocalScripts\\\r\n"
)
BOTH = "metadata_services=a.b.NoCloudConfigDriveService,a.b.ConfigDriveService\r\n"
ONLY_NO_CLOUD = "metadata_services=a.b.HttpService,a.b.NoCloudConfigDriveService\r\n"
KEY = "ssh-ed25519 AAAA me"
STATIC = NicPlan(
    0,
    "aa:00:00:5e:00:01",
    "static",
    address=ipaddress.IPv4Interface("198.51.100.10/24"),
    gateway=ipaddress.IPv4Address("198.51.100.1"),
)


def installed(conf: str = USUAL, service: dict[str, Value] | None = None) -> FakeGuest:
    """A guest with cloudbase-init on a disk with room at its end, mounted."""
    values = {"Start": Value.dword(2), "ImagePath": Value.expandable(COMMAND)}
    files = {CONF: conf, SCRIPTS: directory(), ANSWERS: ANSWER, "/Windows/Panther/x.log": ""}
    return made(files, {SERVICE: values if service is None else service})


def made(files: dict[str, Any], system: Keys) -> FakeGuest:
    guest = FakeGuest({"/dev/sda1": filesystem(files, "ntfs")})
    guest.disk = Table("gpt", 64 * MIB, (Partition(1, MIB, 63 * MIB - 1, ""),))
    guest.hives[paths.SYSTEM_HIVE] = system
    inspection._facts[guest] = Facts((10, 0), 20348, "Windows", "", "amd64", "ControlSet001")
    guest.mount("/dev/sda1", "/")
    return guest


def initialize(guest: FakeGuest, **fields: Any) -> list[str]:
    return run(InitializeDatasource, guest, facts={"root": "/dev/sda1"}, **fields)


def on_seed(guest: FakeGuest, path: str) -> str:
    return guest.filesystems["/dev/sda2"].nodes[path].content


# -- recognition ----------------------------------------------------------------------------------


def test_it_is_found_by_its_service_and_configuration() -> None:
    agent = cloudbase.find(installed())
    assert agent == Agent(scripts=SCRIPTS, answers=ANSWERS)


@pytest.mark.parametrize(
    "service",
    [{}, {"Start": Value.dword(4)}, {"Start": Value.string("2")}, {"Type": Value.dword(2)}],
)
def test_what_windows_does_not_start_is_none(service: dict[str, Value]) -> None:
    assert cloudbase.find(installed(service=service)) is None


def test_a_guest_without_it() -> None:
    guest = made({"/Windows/explorer.exe": ""}, {})
    del guest.hives[paths.SYSTEM_HIVE]  # and no hive is opened to find that out
    assert cloudbase.find(guest) is None
    assert not cloudbase.decision(guest, request()).agent


def test_the_configuration_that_its_service_names_counts() -> None:
    other = "/Program Files/Other/agent.conf"
    command = Value.string("service.exe --config-file=C:\\Program Files\\Other\\agent.conf")
    guest = made(
        {CONF: "username=wrong\n", other: "username=right\n"},
        {SERVICE: {"Start": Value.dword(2), "ImagePath": command}},
    )
    found = cloudbase.find(guest)
    assert found
    assert found.username == "right"


@pytest.mark.parametrize(
    "text",
    ["", "\0" * 100, "[", "=\n= =\n[]\n ", "plugins=,,,\n", "a" * 100000, "\ufeff[DEFAULT]\n"],
)
def test_any_text_is_read(text: str) -> None:
    assert cloudbase.read(text) == Agent()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("C:\\Program Files\\x\\", "/Program Files/x"),
        ('"c:/a/b.conf"', "/a/b.conf"),
        ("D:\\a", ""),
        ("C:\\a\\..\\b", ""),
        ("\\\\host\\share", ""),
        ("C:a", ""),
        ("C:\\", ""),
        ("C:\\a\0b", ""),
        ("%SystemDrive%\\a", ""),
    ],
)
def test_paths_outside_the_volume_are_none(path: str, expected: str) -> None:
    assert cloudbase.own_path(path) == expected


@given(st.text())
def test_hostile_text_harms_nothing(text: str) -> None:
    found = cloudbase.read(text)
    path = cloudbase.own_path(text)
    assert found.scripts == "" or found.scripts.startswith("/")
    assert path == "" or (path.startswith("/") and ".." not in path.split("/"))


# -- decision -------------------------------------------------------------------------------------


def request(**fields: Any) -> Customization:
    return Customization(**{"hostname": "vm1", "properties": Properties(), **fields})


@pytest.mark.parametrize(
    ("conf", "fields", "service"),
    [
        (USUAL, {}, CONFIG_DRIVE),
        (USUAL, {"password": "x", "nics": (STATIC,), "users": ("Admin",)}, CONFIG_DRIVE),
        (USUAL, {"password": "x", "users": ("Administrator",)}, CONFIG_DRIVE),
        (USUAL + BOTH, {"password": "x"}, CONFIG_DRIVE),
        (USUAL + ONLY_NO_CLOUD, {"nics": (STATIC,)}, NO_CLOUD),
    ],
)
def test_what_it_can_do_is_left_to_it(conf: str, fields: dict[str, Any], service: str) -> None:
    guest, asked = installed(conf), request(**fields)
    assert cloudbase.seeded(guest, asked)
    assert cloudbase.decision(guest, asked).service == service


@pytest.mark.parametrize(
    ("conf", "fields", "reason"),
    [
        ("metadata_services=a.HttpService\n", {}, "metadata_services"),
        ("[config_drive]\ntypes=iso\n", {}, "vfat"),
        ("[config_drive]\nlocations=cdrom,hdd\n", {}, "partition"),
        ("config_drive_types=iso\n", {}, "vfat"),
        ("", {"answer_file": b"<a/>"}, "os_answer_file"),
        ("", {"product_key": "A"}, "os_product_key"),
        ("", {"nics": (replace(STATIC, gateway_on_link=True),)}, "gateway"),
        ("plugins=a.MTUPlugin\n", {}, "SetHostNamePlugin"),
        ("plugins=a.SetHostNamePlugin\n", {"nics": (STATIC,)}, "NetworkConfigPlugin"),
        ("plugins=a.SetHostNamePlugin\n", {"password": "x"}, "SetUserPasswordPlugin"),
        (ONLY_NO_CLOUD, {"password": "x"}, "takes a password"),
        ("inject_user_password=false\n", {"password": "x"}, "inject_user_password"),
        ("", {"password": "x", "users": ("a", "b")}, "one user"),
        (
            "plugins=a.SetHostNamePlugin,a.SetUserPasswordPlugin,a.LocalScriptsPlugin\n",
            {"password": "x", "users": ("a",)},
            "CreateUserPlugin",
        ),
        ("local_scripts_path=C:\\none\n", {"password": "x"}, "local_scripts_path"),
        (
            "plugins=a.SetHostNamePlugin,a.LocalScriptsPlugin,a.SetUserPasswordPlugin\n",
            {"password": "x"},
            "LocalScriptsPlugin",
        ),
    ],
)
def test_what_it_cannot_do_is_left_to_the_answer_file(
    conf: str, fields: dict[str, Any], reason: str
) -> None:
    guest, asked = installed(USUAL + conf), request(**fields)
    assert not cloudbase.seeded(guest, asked)
    assert any(reason in why for why in cloudbase.decision(guest, asked).reasons)
    [warning] = initialize(guest, **fields)
    assert reason in warning
    assert "/dev/sda2" not in guest.filesystems


@pytest.mark.parametrize(
    ("plugins", "well"),
    [
        ("a.MTUPlugin,a.SetHostNamePlugin", True),
        ("a.LocalScriptsPlugin", False),
        ("a.MTUPlugin,a.LocalScriptsPlugin,a.SetUserPasswordPlugin", False),
        ("a.SetUserPasswordPlugin,a.LocalScriptsPlugin", True),
    ],
)
def test_a_password_is_not_removed_before_it_is_set(plugins: str, well: bool) -> None:
    """In the specialize pass."""
    guest = installed()
    guest.write(f"{HOME}/conf/cloudbase-init-unattend.conf", f"[DEFAULT]\nplugins={plugins}\n")
    decision = cloudbase.decision(guest, request(password="secret"))
    assert bool(decision.service) == well
    assert well or "before it has set it" in decision.reasons[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"properties": Properties({"EXCLUDE_TASK_INITIALIZEDATASOURCE": "yes"})},
        {"update": True},
    ],
)
def test_it_is_let_alone(fields: dict[str, Any]) -> None:
    assert not cloudbase.seeded(installed(), request(**fields))


# -- the seed -------------------------------------------------------------------------------------


def test_a_seed_is_written_beside_the_system_volume() -> None:
    guest = installed()
    fields = {"nics": (STATIC,), "authorized_keys": (KEY,), "user_data": b"#ps1\n\xff"}
    assert initialize(guest, **fields) == []
    [partition] = [p for p in guest.disk.partitions if p.number == 2]
    assert partition.name == layout.SEED_NAME
    assert guest.filesystems["/dev/sda2"].type == "vfat"
    assert guest.filesystems["/dev/sda2"].names == {"LABEL": "CONFIG-2"}
    meta = json.loads(on_seed(guest, seed.META_DATA))
    assert meta["hostname"] == "vm1"
    assert meta["public_keys"] == {"key-0": KEY}
    assert "admin_pass" not in meta
    network = json.loads(on_seed(guest, "/openstack/latest/network_data.json"))
    assert network["links"][0]["ethernet_mac_address"] == STATIC.mac
    assert on_seed(guest, "/openstack/latest/user_data") == "#ps1\n\udcff"
    assert "volume" not in (guest.read(f"{SCRIPTS}/{seed.SCRIPT}") or "").partition("$Error")[2]
    assert guest.is_file(CONF), "the system volume is mounted again"


def test_a_password_goes_with_a_script_that_removes_it() -> None:
    guest = installed()
    assert initialize(guest, password="secret word", users=("olga",)) == []
    meta = json.loads(on_seed(guest, seed.META_DATA))
    assert meta["admin_pass"] == "secret word"
    assert meta["meta"] == {"admin_username": "olga"}
    assert guest.list(SCRIPTS) == [seed.SCRIPT]
    script = guest.read(f"{SCRIPTS}/{seed.SCRIPT}")
    assert script
    assert f"-eq {len(on_seed(guest, seed.META_DATA))})" in script
    assert "secret" not in script


def reset(guest: FakeGuest) -> list[str]:
    """What the script takes from everybody, besides itself."""
    words = re.findall(r"FromBase64String\('(.*?)'\)", guest.read(f"{SCRIPTS}/{seed.SCRIPT}") or "")
    return [base64.b64decode(word).decode("utf-16-le") for word in words]


FILES = (PersonalFile("/Data/new/a'b.txt", b"1"), PersonalFile("/Windows/old.ini", b"2"))


def test_what_is_made_is_taken_from_everybody() -> None:
    guest = installed()
    guest.write("/Windows/old.ini", "0")
    assert initialize(guest, personality=FILES) == []
    assert run(EnforcePersonality, guest, personality=FILES) == []
    assert reset(guest) == [
        "C:\\Data",
        "C:\\Data\\new",
        "C:\\Windows\\Panther\\Unattend",
        "C:\\Data\\new\\a'b.txt",
        "C:\\Windows\\old.ini",
        "C:\\Windows\\Panther\\Unattend\\unattend.xml",
    ]
    assert guest.read("/Windows/old.ini") == "2"


def test_where_nothing_is_made_there_is_no_script() -> None:
    guest = installed()
    guest.write(answer_file.CACHED[0], ANSWER)
    assert initialize(guest) == []
    assert guest.list(SCRIPTS) == []


def test_what_others_are_told_to_leave_alone_keeps_its_permissions() -> None:
    guest = installed()
    guest.write(answer_file.CACHED[0], ANSWER)
    properties = Properties({"EXCLUDE_TASK_ENFORCEPERSONALITY": "yes"})
    assert initialize(guest, personality=FILES, properties=properties) == []
    assert guest.list(SCRIPTS) == []


@pytest.mark.parametrize("conf", ["local_scripts_path=C:\\none\n", "plugins=a.SetHostNamePlugin\n"])
def test_permissions_that_nothing_sets_are_said_once(conf: str) -> None:
    guest = installed(USUAL + conf)
    [warning] = initialize(guest, personality=FILES)
    assert "everybody in the guest may change" in warning
    assert "LocalScriptsPlugin" in warning
    assert run(EnforcePersonality, guest, personality=FILES) == []
    assert guest.list(SCRIPTS) == []
    assert guest.read(FILES[0].path) == "1"


@pytest.mark.parametrize(
    ("task", "conf"),
    [
        (
            "ASSIGNHOSTNAME",
            "plugins=a.SetUserPasswordPlugin,a.LocalScriptsPlugin,a.NetworkConfigPlugin",
        ),
        ("CHANGEPASSWORD", "inject_user_password=no"),
        (
            "CONFIGURENETWORK",
            "plugins=a.SetHostNamePlugin,a.SetUserPasswordPlugin,a.LocalScriptsPlugin",
        ),
    ],
)
def test_what_is_excluded_is_not_asked_of_it(task: str, conf: str) -> None:
    guest = installed(f"{USUAL}{conf}\n")
    properties = Properties({f"EXCLUDE_TASK_{task}": "yes"})
    hostname = "no_name_of_windows" if task == "ASSIGNHOSTNAME" else "vm1"
    warnings = initialize(
        guest, hostname=hostname, properties=properties, password="secret", nics=(STATIC,)
    )
    assert warnings == []
    meta = json.loads(on_seed(guest, seed.META_DATA))
    network = json.loads(on_seed(guest, "/openstack/latest/network_data.json"))
    assert ("hostname" in meta) == (task != "ASSIGNHOSTNAME")
    assert ("admin_pass" in meta) == (task != "CHANGEPASSWORD")
    assert bool(network["links"]) == (task != "CONFIGURENETWORK")


def test_each_deployment_is_another_instance() -> None:
    ids = set()
    for _ in range(2):
        guest = installed()
        initialize(guest)
        ids.add(json.loads(on_seed(guest, seed.META_DATA))["uuid"])
    assert len(ids) == 2


def test_setup_gets_the_answers_that_cloudbase_init_brings_along() -> None:
    guest = installed()
    assert initialize(guest) == []
    assert guest.read(answer_file.INSTALLED) == ANSWER


def test_answers_that_the_image_has_are_kept() -> None:
    guest = installed()
    guest.write("/Windows/Panther/unattend.xml", f"{ANSWER}\n")
    assert initialize(guest) == []
    assert not guest.is_file(answer_file.INSTALLED)


def test_a_setup_that_nobody_answers() -> None:
    guest = installed()
    guest.remove(ANSWERS)
    [warning] = initialize(guest)
    assert "will ask at the console" in warning


def test_what_the_image_was_told_is_forgotten() -> None:
    guest = installed()
    initialize(guest, hostname="old")
    cloudbase._decided.pop(guest)
    initialize(guest, hostname="new", product_key="A")
    assert guest.filesystems["/dev/sda2"].nodes.keys() == {"/"}
    assert guest.filesystems["/dev/sda2"].names == {"LABEL": "EMPTY"}


def test_no_cloud_where_that_is_all_it_reads() -> None:
    guest = installed(USUAL + ONLY_NO_CLOUD)
    [warning] = initialize(guest, users=("olga",), authorized_keys=(KEY,))
    assert "Admin" in warning
    assert guest.filesystems["/dev/sda2"].names == {"LABEL": "CIDATA"}
    assert json.loads(on_seed(guest, "/meta-data"))["local-hostname"] == "vm1"


def test_the_volume_of_an_earlier_deployment_is_used_again() -> None:
    guest = installed()
    initialize(guest, hostname="old")
    cloudbase._decided.pop(guest)
    initialize(guest, hostname="new")
    assert len(guest.disk.partitions) == 2
    assert json.loads(on_seed(guest, seed.META_DATA))["hostname"] == "new"


def test_somebody_elses_volume_of_that_name_is_not_used() -> None:
    guest = installed()
    theirs = Partition(1, MIB, 63 * MIB - 1, "", name=layout.SEED_NAME)
    guest.disk = Table("gpt", 64 * MIB, (theirs,))
    initialize(guest)
    assert guest.filesystems["/dev/sda1"].type == "ntfs"
    assert "/dev/sda2" in guest.filesystems


def test_a_disk_without_room() -> None:
    guest = installed()
    guest.disk = Table("gpt", 64 * MIB, (Partition(1, MIB, 64 * MIB - 20 * 512, ""),))
    with pytest.raises(GuestError, match="no volume can be added") as caught:
        initialize(guest)
    assert "EXCLUDE_TASK_INITIALIZEDATASOURCE" in caught.value.remedy


def test_an_mbr() -> None:
    guest = installed()
    guest.disk = Table("msdos", 64 * MIB, (Partition(1, MIB, 63 * MIB - 1, "07"),))
    initialize(guest)
    assert [p.type for p in guest.disk.partitions] == ["07", "01"]


def test_user_data_in_vain_is_an_error() -> None:
    with pytest.raises(UnsupportedError, match="nothing in the image reads it") as caught:
        initialize(made({}, {}), user_data=b"#ps1\n")
    assert "install cloudbase-init" in caught.value.remedy
    with pytest.raises(UnsupportedError, match="os_product_key"):
        initialize(installed(), user_data=b"#ps1\n", product_key="A")


def test_keys_in_vain_are_worth_a_warning() -> None:
    [warning] = initialize(made({}, {}), authorized_keys=(KEY,))
    assert "auth_keys" in warning
    warnings = initialize(installed(), authorized_keys=(KEY,), product_key="A")
    assert len(warnings) == 2


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"authorized_keys": (KEY,)}, "SSH keys"),
        ({"user_data": b"x"}, "user data"),
        ({"search_domains": ("example.org",)}, "search domains"),
    ],
)
def test_what_it_leaves_undone_is_said(fields: dict[str, Any], word: str) -> None:
    guest = installed(USUAL + "plugins=a.SetHostNamePlugin\n")
    guest.write(answer_file.CACHED[0], ANSWER)
    [warning] = initialize(guest, **fields)
    assert word in warning


def test_a_guest_that_was_deployed_before_keeps_its_seed() -> None:
    guest = installed()
    [warning] = initialize(guest, update=True)
    assert "stays" in warning
    assert "/dev/sda2" not in guest.filesystems
