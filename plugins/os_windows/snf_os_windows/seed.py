"""What cloudbase-init finds on its volume: documents of a ConfigDrive or of NoCloud.

ConfigDrive's are OpenStack's (``openstack/latest/`` in docs.openstack.org/nova, "Metadata"),
NoCloud's cloud-init's (cloudinit.readthedocs.io, "NoCloud", "Networking config version 1"), both as
cloudbase-init 1.1 reads them. It calls each adapter as the link in its network configuration is
called, so that those names are none which Windows gives.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from snf_os_windows import cloudbase, paths, powershell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from snf_core.image.customization import Customization

LABELS = {cloudbase.CONFIG_DRIVE: "config-2", cloudbase.NO_CLOUD: "cidata"}
"""The label of the volume that each service looks for, without regard to case."""

META_DATA = "/openstack/latest/meta_data.json"


@dataclass(frozen=True)
class Seed:
    """Files for a volume."""

    label: str
    files: Mapping[str, bytes] = field(repr=False)
    """Absolute path on the volume -> content."""
    secret: tuple[int, int] = (0, 0)
    """Where in META_DATA the password lies, and how many bytes: with blanks in their place it is
    the same document without. Nothing where there is no password."""


def make(service: str, request: Customization, computer_name: str, instance: str) -> Seed:
    """The seed for a service. ``computer_name`` is checked, or empty; ``instance`` is an id."""
    if service == cloudbase.NO_CLOUD:
        return _no_cloud(request, computer_name, instance)
    return _config_drive(request, computer_name, instance)


def _no_cloud(request: Customization, computer_name: str, instance: str) -> Seed:
    meta: dict[str, Any] = {
        "instance-id": instance,
        "public-keys": list(request.authorized_keys),
    }
    if computer_name:
        meta["local-hostname"] = computer_name
    files = {
        "/meta-data": _json(meta),
        "/network-config": _json({"version": 1, "config": list(_version_1(request))}),
        "/user-data": request.user_data,
    }
    return Seed(LABELS[cloudbase.NO_CLOUD], files)


def _version_1(request: Customization) -> Iterator[dict[str, Any]]:
    for nic in request.nics:
        subnet: dict[str, Any] = {"type": "dhcp"}
        if nic.address:
            subnet = {
                "type": "static",
                "address": str(nic.address),
                "dns_nameservers": _ipv4_nameservers(request),
            }
            if nic.gateway:
                subnet["gateway"] = str(nic.gateway)
        link: dict[str, Any] = {
            "type": "physical",
            "name": _link(nic.index),
            "mac_address": nic.mac,
            "subnets": [subnet],
        }
        yield link | ({"mtu": nic.mtu} if nic.mtu else {})


def _config_drive(request: Customization, computer_name: str, instance: str) -> Seed:
    meta: dict[str, Any] = {
        "uuid": instance,
        "public_keys": {f"key-{n}": key for n, key in enumerate(request.authorized_keys)},
    }
    if computer_name:
        meta["hostname"] = computer_name
    if request.users:
        meta["meta"] = {"admin_username": request.users[0]}
    text, secret = _json(meta), (0, 0)
    if request.password:
        # The last member, comma and all: nothing has to be read to blank it.
        member = b', "admin_pass": ' + _json(request.password)
        text, secret = text[:-1] + member + b"}", (len(text) - 1, len(member))
    files = {META_DATA: text, "/openstack/latest/network_data.json": _json(_network(request))}
    if request.user_data:
        files["/openstack/latest/user_data"] = request.user_data
    return Seed(LABELS[cloudbase.CONFIG_DRIVE], files, secret)


def _network(request: Customization) -> dict[str, Any]:
    links = []
    networks = []
    for nic in request.nics:
        link: dict[str, Any] = {
            "id": _link(nic.index),
            "type": "phy",
            "ethernet_mac_address": nic.mac,
        }
        links.append(link | ({"mtu": nic.mtu} if nic.mtu else {}))
        network: dict[str, Any] = {"id": f"network{nic.index}", "link": _link(nic.index)}
        if nic.address:
            routes = [
                {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": str(gateway)}
                for gateway in filter(None, [nic.gateway])
            ]
            network |= {
                "type": "ipv4",
                "ip_address": str(nic.address.ip),
                "netmask": str(nic.address.netmask),
                "routes": routes,
                "services": _dns(_ipv4_nameservers(request)),
            }
        else:
            network["type"] = "ipv4_dhcp"
        networks.append(network)
    return {"links": links, "networks": networks, "services": _dns(request.nameservers)}


def _dns(addresses: tuple[str, ...] | list[str]) -> list[dict[str, str]]:
    return [{"type": "dns", "address": address} for address in addresses]


def _ipv4_nameservers(request: Customization) -> list[str]:
    """Those that can be set along with an IPv4 address."""
    return [address for address in request.nameservers if ":" not in address]


def _link(index: int) -> str:
    return f"eth{index}"


def _json(document: object) -> bytes:
    """ASCII, whatever it holds."""
    return json.dumps(document).encode("ascii")


# -- what is to be done in the guest ------------------------------------------------------------

SCRIPT = "0-snf-seed.ps1"
"""The name of the script below. It sorts before what is called by two digits, as such scripts are:
one that asks for a reboot ends the matter, and those behind it are never run."""

_BEGIN = """\
# Ends the deployment of this machine: takes from everybody the right to write to what it made, and
# the password, if there is one, out of the volume that cloudbase-init was configured from; then it
# goes. cloudbase-init runs it after the password was set; 1002 has it run again at the next boot.
$ErrorActionPreference = 'Stop'
$tools = Join-Path $env:SystemRoot 'System32'
$own = $MyInvocation.MyCommand.Path
$status = 0
foreach ($path in @($own) + @MADE@) {
    try {
        if (Test-Path -LiteralPath $path) {
            & (Join-Path $tools 'icacls.exe') $path /reset /q
            if ($LASTEXITCODE -ne 0) { throw "icacls.exe: $LASTEXITCODE" }
        }
    }
    catch {
        Write-Output "Everybody may still write to ${path}: $_"
        $status = 1002
    }
}
"""

_FORGET = """\
$place = Join-Path $env:SystemRoot 'Temp\\snf-seed'
$mountvol = Join-Path $tools 'mountvol.exe'
try {
    $volumes = @(Get-WmiObject Win32_Volume | Where-Object { $_.Label -eq '@LABEL@' })
    foreach ($volume in $volumes) {
        New-Item -ItemType Directory -Force -Path $place | Out-Null
        & $mountvol $place $volume.DeviceID
        if ($LASTEXITCODE -ne 0) { throw "mountvol $($volume.DeviceID): $LASTEXITCODE" }
        try {
            $path = Join-Path $place '@PATH@'
            if ((Test-Path -Path $path) -and ((Get-Item -Path $path).Length -eq @SIZE@)) {
                $stream = New-Object IO.FileStream($path, [IO.FileMode]::Open,
                    [IO.FileAccess]::Write, [IO.FileShare]::None, 4096,
                    [IO.FileOptions]::WriteThrough)
                try {
                    [byte[]]$blanks = @(32) * @LENGTH@
                    [void]$stream.Seek(@OFFSET@, [IO.SeekOrigin]::Begin)
                    $stream.Write($blanks, 0, $blanks.Length)
                    $stream.Flush()
                }
                finally { $stream.Close() }
            }
        }
        finally {
            & $mountvol $place /D
            Remove-Item -Path $place
        }
    }
}
catch {
    Write-Output "The password stays on the volume @LABEL@: $_"
    $status = 1002
}
"""

_END = """\
if ($status -eq 0) { Remove-Item -LiteralPath $own }
exit $status
"""


def script(seed: Seed, made: Iterable[str]) -> str:
    """A PowerShell script (2.0 on) for cloudbase-init to run, which ends a deployment.

    Its first action is to give itself, and then the files and directories of ``made``, as the guest
    facade spells paths, the permissions that those above them hand down: what the appliance makes,
    everybody may write, and this is run at every boot, with a service's rights, until all of it has
    succeeded. Before its first run everybody may write to it, too: until then Windows's setup runs,
    and services of the system's, and nobody can log on but with what accounts the image brings
    along. It then blanks the password on the seed, if there is one, and removes itself. Raises
    InvalidValueError for paths that are not Unicode.
    """
    offset, length = seed.secret
    values = {"MADE": powershell.texts(map(paths.windows_path, made))}
    if length:
        values |= {
            "LABEL": seed.label.upper(),
            "PATH": META_DATA.lstrip("/").replace("/", "\\"),
            "SIZE": str(len(seed.files[META_DATA])),
            "OFFSET": str(offset),
            "LENGTH": str(length),
        }
    text = _BEGIN + (_FORGET if length else "") + _END
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text.replace("\n", "\r\n")
