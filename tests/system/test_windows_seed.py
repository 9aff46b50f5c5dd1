"""What is made for cloudbase-init, as cloudbase-init itself reads it and acts upon it.

Its own classes run here, but for those that call Windows: in their place, what they were to do is
written down.
"""

from __future__ import annotations

import importlib
import ipaddress
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.image.customization import Customization
from snf_core.image.nics import NicPlan
from snf_core.image.properties import Properties
from snf_os_windows import cloudbase, seed

if TYPE_CHECKING:
    from pathlib import Path

INSTANCE = "4b3c1f0e-0000-4000-8000-000000000001"
PASSWORD = 'pä"ss\\word, }\u2028💥'
KEYS = ("ssh-ed25519 AAAA one", "ssh-rsa BBBB two")
STATIC = NicPlan(
    0,
    "aa:00:00:5e:00:01",
    "static",
    address=ipaddress.IPv4Interface("198.51.100.10/24"),
    gateway=ipaddress.IPv4Address("198.51.100.1"),
    mtu=1400,
)
REQUEST = Customization(
    "web1.example.org",
    properties=Properties(),
    nics=(STATIC, NicPlan(1, "aa:00:00:5e:00:02", "dhcp")),
    nameservers=("192.0.2.53", "2001:db8::53"),
    password=PASSWORD,
    authorized_keys=KEYS,
    users=("Administrator",),
    user_data=b"#ps1_sysnative\nWrite-Output well\n",
)
SERVICES = {
    cloudbase.CONFIG_DRIVE: "cloudbaseinit.metadata.services.configdrive",
    cloudbase.NO_CLOUD: "cloudbaseinit.metadata.services.nocloudservice",
}
CONFIGURATION = r"""[DEFAULT]
username=Operator
groups=Administrators
inject_user_password=false
config_drive_raw_hhd=true
config_drive_cdrom=true
config_drive_vfat=true
local_scripts_path=C:\Program Files\Cloudbase Solutions\Cloudbase-Init\LocalScripts\
# metadata_services=none
metadata_services=cloudbaseinit.metadata.services.nocloudservice.NoCloudConfigDriveService,
    cloudbaseinit.metadata.services.configdrive.ConfigDriveService
plugins = cloudbaseinit.plugins.common.sethostname.SetHostNamePlugin,
 cloudbaseinit.plugins.common.localscripts.LocalScriptsPlugin
[config_drive]
types=vfat
locations=cdrom,partition
[nocloud]
username=nobody
"""


class Windows:
    """What cloudbase-init asks of Windows, written down instead of done."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.statuses: dict[str, int] = {}

    def get_network_adapter_name_by_mac_address(self, mac: str) -> str:
        """As Windows calls adapters."""
        return f"Ethernet {int(mac[-2:])}"

    def execute_powershell_script(self, path: str, _sysnative: bool) -> tuple[bytes, bytes, int]:
        """Its standard output, standard error and exit status."""
        self.done.append(("execute_powershell_script", path))
        return b"", b"", self.statuses.get(path.rpartition("/")[2], 0)

    def __getattr__(self, name: str) -> Any:
        def note(*arguments: Any) -> None:
            self.done.append((name, *arguments))

        return note


def service(name: str, directory: Path) -> Any:
    """cloudbase-init's own reader of a seed that was written to ``directory``."""
    for path, content in seed.make(name, REQUEST, "web1", INSTANCE).files.items():
        file = directory / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    found = getattr(importlib.import_module(SERVICES[name]), name)()
    found._metadata_path = str(directory)
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_it_reads_who_it_is(name: str, tmp_path: Path) -> None:
    found = service(name, tmp_path)
    assert found.get_instance_id() == INSTANCE
    assert found.get_host_name() == "web1"
    assert sorted(found.get_public_keys()) == sorted(KEYS)
    assert found.get_user_data() == REQUEST.user_data


def test_it_reads_the_password_and_whose_it_is(tmp_path: Path) -> None:
    found = service(cloudbase.CONFIG_DRIVE, tmp_path)
    assert found.get_admin_password() == PASSWORD
    assert found.get_admin_username() == "Administrator"


def test_with_the_password_blanked_it_reads_all_but_that(tmp_path: Path) -> None:
    offset, length = seed.make(cloudbase.CONFIG_DRIVE, REQUEST, "web1", INSTANCE).secret
    found = service(cloudbase.CONFIG_DRIVE, tmp_path)
    with (tmp_path / seed.META_DATA.lstrip("/")).open("r+b") as file:
        file.seek(offset)
        file.write(b" " * length)
    assert found.get_admin_password() is None
    assert found.get_instance_id() == INSTANCE
    assert found.get_admin_username() == "Administrator"


def test_a_no_cloud_service_takes_no_password(tmp_path: Path) -> None:
    """Why it is not chosen where there is one."""
    assert service(cloudbase.NO_CLOUD, tmp_path).get_admin_password() is None


@pytest.mark.parametrize("name", SERVICES)
def test_it_configures_the_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = Windows()
    factory = importlib.import_module("cloudbaseinit.osutils.factory")
    monkeypatch.setattr(factory, "get_os_utils", lambda: windows)
    module = importlib.import_module("cloudbaseinit.plugins.common.networkconfig")
    module.NetworkConfigPlugin().execute(service(name, tmp_path), {})
    assert windows.done == [
        ("rename_network_adapter", "Ethernet 1", "eth0"),
        ("set_network_adapter_mtu", "eth0", 1400),
        ("enable_network_adapter", "eth0", True),
        ("rename_network_adapter", "Ethernet 2", "eth1"),
        ("enable_network_adapter", "eth1", True),
        (
            "set_static_network_config",
            *("eth0", "198.51.100.10", "24", "198.51.100.1", ["192.0.2.53"]),
        ),
    ]


@pytest.mark.parametrize(("status", "again"), [(0, False), (1002, True)])
def test_it_runs_the_script_first_and_again_where_that_says_so(
    status: int, again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a script of the image's that has it reboot, ours would never be run."""
    windows = Windows()
    windows.statuses = {seed.SCRIPT: status, "10-image.ps1": 1001}
    factory = importlib.import_module("cloudbaseinit.osutils.factory")
    monkeypatch.setattr(factory, "get_os_utils", lambda: windows)
    made = seed.make(cloudbase.CONFIG_DRIVE, REQUEST, "web1", INSTANCE)
    (tmp_path / seed.SCRIPT).write_text(seed.script(made, ["/a"]))
    for name in ("10-image.ps1", "20-image.ps1"):
        (tmp_path / name).write_text("")
    module = importlib.import_module("cloudbaseinit.plugins.common.localscripts")
    base = importlib.import_module("cloudbaseinit.plugins.common.base")
    conf = importlib.import_module("cloudbaseinit.conf").CONF
    conf([])
    conf.set_override("local_scripts_path", str(tmp_path))
    try:
        done, reboots = module.LocalScriptsPlugin().execute(None, {})
    finally:
        conf.reset()
        conf.clear_override("local_scripts_path")
    names = [path.rpartition("/")[2] for _, path in windows.done]
    assert names == [seed.SCRIPT, "10-image.ps1"]
    assert (done == base.PLUGIN_EXECUTE_ON_NEXT_BOOT) == again
    assert reboots


@pytest.mark.parametrize("text", [CONFIGURATION, "[DEFAULT]\nusername=Admin\n"])
def test_its_configuration_is_read_as_it_reads_it(text: str, tmp_path: Path) -> None:
    file = tmp_path / "cloudbase-init.conf"
    file.write_text(text)
    conf = importlib.import_module("cloudbaseinit.conf").CONF
    conf(["--config-file", str(file)])
    try:
        theirs = [path.rpartition(".")[2] for path in conf.plugins]
        services = [path.rpartition(".")[2] for path in conf.metadata_services]
        ours = cloudbase.read(text)
        assert set(theirs) >= set(ours.plugins)
        assert [name for name in theirs if name in ours.plugins] == list(ours.plugins)
        assert [name for name in services if name in SERVICES] == list(ours.services)
        assert ours.username == conf.username
        assert ours.injects == conf.inject_user_password
        assert ours.reads_fat == (
            "vfat" in conf.config_drive.types and "partition" in conf.config_drive.locations
        )
        assert ours.scripts == cloudbase.own_path(conf.local_scripts_path or "")
    finally:
        conf.reset()
