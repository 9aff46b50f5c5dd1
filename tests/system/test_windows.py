"""Whole deployments of Windows images by the OS scripts, and refusals: what is on the disk then."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import re
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from tests import node
from tests.images import hive
from tests.images.windows import Image
from tests.system.site import NAME, Event, Outcome, Site, qemu, site, stopped
from tests.system.windows import MIB, Disk, Images, holding, make_images, opened, read_disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PASSWORD = "p\u00e4\"s's%PATH%^&|<>!$(x)\\`@{};~#\u20ac"
LEGACY_PASSWORD = "pas's%PATH%^&|<>!$(x)@{};~#"
PRODUCT_KEY = "ABCDE-FGHIJ-KLMNO-PQRST-UVWXY"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKnX7QzPp0o3vV2H1cTzJm0B5mYc0cTnJmQd3yJpXn5D someone"
USER_DATA = b"#ps1_sysnative\nWrite-Output 'from the tenant'\n"
TOKEN = "token-in-the-url"
FILE = "/inetpub/motd.txt"
NEW, OLD = b"of the tenant\r\n\xff", "of the template\r\n"

STATIC = {
    **node.bridged_nic("198.51.100.10", "198.51.100.0/24", "198.51.100.1"),
    "NETWORK_TAGS": "mtu:1400",
}
DYNAMIC = {
    **node.bridged_nic("198.51.100.11", "198.51.100.0/24", "198.51.100.1"),
    "MAC": "aa:00:00:5e:00:02",
    "NETWORK_TAGS": "nfdhcpd",
}

IMAGES = {
    "2022": Image("2022", users=("olga",), files={FILE: OLD}),
    "7-x86": Image("7-x86"),
    "2003": Image("2003"),
    "arm64": Image("11-arm64", cloudbase=True),
    "bitlocker": Image("10", bitlocker=True),
    "hibernated": Image("10", hibernated=True),
    "dirty-hive": Image("10", hives={"SYSTEM": "dirty"}),
    "in-use": Image("10", generalised=False),
}
"""By their files' names."""

ANSWERS = """<?xml version="1.0" encoding="utf-8"?>
<unattend xmlns="urn:schemas-microsoft-com:unattend">
  <settings pass="specialize">
    <component name="Microsoft-Windows-Shell-Setup" processorArchitecture="amd64"
      publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS">
      <RegisteredOwner>The tenant</RegisteredOwner>
    </component>
  </settings>
</unattend>
"""
UNATTEND = "/windows/panther/unattend/unattend.xml"
SYSTEM = "/windows/system32/config/system"


@dataclass(frozen=True)
class Deployed:
    """One deployment, and what was said of it."""

    disk: Path
    outcome: Outcome
    events: list[Event]
    report: dict[str, Any]

    @property
    def said(self) -> str:
        """All that was written on the node."""
        return "\n".join(
            [self.outcome.stdout, self.outcome.stderr, repr(self.events), repr(self.report)]
        )


@pytest.fixture(scope="module")
def windows_images() -> Images:
    """The images."""
    return make_images(IMAGES)


@pytest.fixture(name="place", scope="module")
def _place(windows_images: Images) -> Iterator[Site]:
    """A node that has those images, and may fetch answer files from itself."""
    settings = {
        "image": {"fetch_hosts": "127.0.0.1/32"},
        "network": {"nameservers": "192.0.2.53,192.0.2.54", "dhcp_tags": "nfdhcpd"},
    }
    with site(windows_images.directory, settings) as made:
        yield made


@contextlib.contextmanager
def serving(content: bytes) -> Iterator[str]:
    """A server of one file on this machine; its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/unattend.xml?{TOKEN}"
        finally:
            server.shutdown()
            thread.join()


def deploy(
    place: Site, image: str, size: int, *, properties: dict[str, str] | None = None, **words: Any
) -> Deployed:
    disk = place.disk(image, size * MIB, stale=False)
    report = place.disks / f"{image}.json"
    environment = place.environment(disk, image, properties=properties or {}, **words)
    with place.started(environment, "--report", str(report)) as deployment:
        outcome = deployment.finish()
    return Deployed(disk, outcome, deployment.events, json.loads(report.read_text()))


@pytest.fixture(scope="module")
def deployed(place: Site) -> dict[str, Deployed]:
    """The deployments that succeed."""
    personality = json.dumps([{"path": FILE, "contents": base64.b64encode(NEW).decode()}])
    with serving(ANSWERS.encode()) as url:
        full = deploy(
            place,
            "2022",
            2560,
            properties={"USERS": "Administrator olga"},
            nics=[STATIC, DYNAMIC],
            img_passwd=PASSWORD,
            os_product_key=PRODUCT_KEY,
            os_answer_file=url,
            img_personality=personality,
        )
    return {
        "2022": full,
        "7-x86": deploy(place, "7-x86", 1536, nics=[STATIC], img_passwd=PASSWORD),
        "2003": deploy(
            place,
            "2003",
            1536,
            nics=[STATIC],
            img_passwd=LEGACY_PASSWORD,
            os_product_key=PRODUCT_KEY,
        ),
        "arm64": deploy(
            place,
            "arm64",
            1536,
            properties={"USERS": "olga"},
            nics=[STATIC, DYNAMIC],
            img_passwd=PASSWORD,
            auth_keys=KEY,
            cloud_userdata=base64.b64encode(USER_DATA).decode(),
            img_personality=personality,
        ),
    }


NAMES = ["2022", "7-x86", "2003", "arm64"]
ANSWERED = NAMES[:3]
"""Those without cloudbase-init."""


@pytest.fixture(scope="module")
def disks(deployed: dict[str, Deployed]) -> dict[str, Disk]:
    """What the deployed disks hold."""
    for name, found in deployed.items():
        assert found.outcome.status == 0, (name, found.outcome.stderr)
    with opened([found.disk for found in deployed.values()]) as guest:
        return {
            name: read_disk(guest, f"/dev/sd{letter}")
            for name, letter in zip(deployed, "abcd", strict=True)
        }


@pytest.fixture(scope="module")
def systems(disks: dict[str, Disk], windows_images: Images) -> dict[str, Mapping[str, bytes]]:
    """The files of the system volumes: path in lower case -> content."""
    return {
        name: disk.volumes[windows_images.built[name].partitions["windows"]]
        for name, disk in disks.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_it_succeeds(name: str, deployed: dict[str, Deployed]) -> None:
    found = deployed[name]
    assert found.outcome.status == 0, found.outcome.stderr
    assert found.outcome.stdout == ""
    assert found.report["result"] == "success"


def test_a_grown_disk_moves_recovery_behind_the_system_volume(
    disks: dict[str, Disk], windows_images: Images
) -> None:
    disk, numbers = disks["2022"], windows_images.built["2022"].partitions
    windows, recovery = disk.partition(numbers["windows"]), disk.partition(numbers["recovery"])
    assert recovery.size == 64 * MIB
    assert 0 < disk.table.size - recovery.end - 1 < 3 * MIB
    assert recovery.start - windows.end - 1 < MIB
    assert windows.size > 2000 * MIB
    assert disk.probed[numbers["recovery"]] == 0
    assert "/recovery/windowsre/winre.wim" in disk.volumes[numbers["recovery"]]


@pytest.mark.parametrize("name", NAMES)
def test_the_system_volume_is_well(
    name: str, disks: dict[str, Disk], windows_images: Images
) -> None:
    number = windows_images.built[name].partitions["windows"]
    assert disks[name].probed[number] == 0
    # Before the first boot where Windows or cloudbase-init would not do it; the others grow then.
    assert (number in disks[name].full) == (name in {"2003", "arm64"})


def texts(document: bytes, name: str) -> list[str]:
    """The texts of all elements of that name."""
    found = ElementTree.fromstring(document).iter()
    return [element.text or "" for element in found if element.tag.rpartition("}")[2] == name]


def test_the_tenants_answer_file_has_all_that_was_asked_for(
    systems: dict[str, Mapping[str, bytes]],
) -> None:
    answers = systems["2022"][UNATTEND]
    assert texts(answers, "ComputerName") == ["web1"]
    assert texts(answers, "ProductKey") == [PRODUCT_KEY]
    assert texts(answers, "RegisteredOwner") == ["The tenant"]
    assert [path for path in texts(answers, "Path") if "SnfScripts" in path]


def test_the_built_in_answer_file(systems: dict[str, Mapping[str, bytes]]) -> None:
    answers = systems["7-x86"][UNATTEND]
    assert texts(answers, "ComputerName") == ["web1"]
    components = ElementTree.fromstring(answers).iter()
    architectures = {component.get("processorArchitecture") for component in components}
    assert architectures == {None, "x86"}
    assert [path for path in texts(answers, "Path") if "SnfScripts" in path]


def test_windows_2003_has_its_sysprep_inf(systems: dict[str, Mapping[str, bytes]]) -> None:
    text = systems["2003"]["/sysprep/sysprep.inf"].decode("latin-1")
    lines = [line.replace(" ", "").replace('"', "") for line in text.splitlines()]
    assert "ComputerName=web1" in lines
    assert f"ProductKey={PRODUCT_KEY}" in lines
    [commands] = [path for path in systems["2003"] if path.endswith("/$oem$/cmdlines.txt")]
    assert b"SnfScripts" in systems["2003"][commands]


@pytest.mark.parametrize("name", ANSWERED)
def test_the_first_boot_finds_scripts_for_all_that_is_left_to_it(
    name: str, systems: dict[str, Mapping[str, bytes]]
) -> None:
    scripts = [path for path in systems[name] if path.startswith("/windows/snfscripts/")]
    for what in ("network", "password"):
        assert [script for script in scripts if what in script], scripts
    if name != "2003":
        assert b"SnfScripts" in systems[name]["/windows/setup/scripts/setupcomplete.cmd"]


def test_the_network_is_told_by_mac_address(systems: dict[str, Mapping[str, bytes]]) -> None:
    script = systems["2022"]["/windows/snfscripts/20-network.again.ps1"].decode("ascii")
    first, second = [line for line in script.splitlines() if line.startswith("Set-Nic @{")]
    for word in ("'198.51.100.10'", "'255.255.255.0'", "'198.51.100.1'", "'192.0.2.53'", "= 1400"):
        assert word in first
    assert STATIC["MAC"].upper() in first
    assert DYNAMIC["MAC"].upper() in second
    assert "'dhcp'" in second
    legacy = systems["2003"]["/windows/snfscripts/20-network.again.cmd"].decode("ascii")
    for word in (STATIC["MAC"].upper(), "198.51.100.10", "255.255.255.0", "192.0.2.53", "1400"):
        assert word in legacy


@pytest.mark.parametrize("name", ANSWERED)
def test_remote_desktop_is_closed_until_the_first_boot_is_through(
    name: str, systems: dict[str, Mapping[str, bytes]]
) -> None:
    values = hive.dump(systems[name][SYSTEM])
    key = "\\ControlSet001\\Control\\Terminal Server:fDenyTSConnections"
    assert values[key] == ("REG_DWORD", 1)


def test_a_personality_file_replaces_another_that_is_kept(
    systems: dict[str, Mapping[str, bytes]],
) -> None:
    found = {path: content for path, content in systems["2022"].items() if "/inetpub/" in path}
    assert found.pop(FILE) == NEW
    [(backup, content)] = found.items()
    assert backup.startswith(f"{FILE}.bak.")
    assert content == OLD.encode()


def test_cloudbase_init_gets_a_volume_of_its_own(
    disks: dict[str, Disk], deployed: dict[str, Deployed]
) -> None:
    disk = disks["arm64"]
    [number] = [p.number for p in disk.table.partitions if p.name == "cidata"]
    assert disk.labels[number] == "CONFIG-2"
    shown = subprocess.run(
        ["sfdisk", "--part-attrs", deployed["arm64"].disk, str(number)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == "GUID:63", "Windows gives it a drive letter"
    seed = disk.volumes[number]
    meta = json.loads(seed["/openstack/latest/meta_data.json"])
    assert meta["hostname"] == "web1"
    assert meta["admin_pass"] == PASSWORD
    assert meta["meta"] == {"admin_username": "olga"}
    assert list(meta["public_keys"].values()) == [KEY]
    assert seed["/openstack/latest/user_data"] == USER_DATA
    network = json.loads(seed["/openstack/latest/network_data.json"])
    links = [(link["ethernet_mac_address"], link.get("mtu")) for link in network["links"]]
    assert links == [(STATIC["MAC"], 1400), (DYNAMIC["MAC"], None)]
    assert [entry["type"] for entry in network["networks"]] == ["ipv4", "ipv4_dhcp"]


def test_cloudbase_init_does_all_alone(systems: dict[str, Mapping[str, bytes]]) -> None:
    """But for the script that takes the password off its volume, and its answers for setup."""
    files = systems["arm64"]
    assert texts(files[UNATTEND], "unattend") == [""]
    assert not [path for path in files if path.startswith("/windows/snfscripts")]
    scripts = "/program files/cloudbase solutions/cloudbase-init/localscripts/"
    assert [path for path in files if path.startswith(scripts)] == [f"{scripts}0-snf-seed.ps1"]
    assert files[FILE] == NEW
    words = re.findall(rb"FromBase64String\('([^']+)'\)", files[f"{scripts}0-snf-seed.ps1"])
    reset = [base64.b64decode(word).decode("utf-16-le") for word in words]
    assert "C:" + FILE.replace("/", "\\") in reset
    assert "C:\\Windows\\Panther\\Unattend\\unattend.xml" in reset
    encoded = base64.b64encode(PASSWORD.encode("utf-16-le")).rstrip(b"=")
    assert not [path for path, content in files.items() if encoded in content]


@pytest.mark.parametrize("name", ["2022", "7-x86", "arm64"])
def test_the_password_is_nowhere_in_clear_text(name: str, deployed: dict[str, Deployed]) -> None:
    """On the whole disk. What JSON makes of it, on the seed of cloudbase-init, is another text."""
    encodings = ("utf-8", "utf-16-le", "latin-1")
    needles = [PASSWORD.encode(encoding, errors="ignore") for encoding in encodings]
    assert holding(deployed[name].disk, needles) == set()


@pytest.mark.parametrize("name", ANSWERED)
def test_what_holds_the_password_is_removed_by_the_first_boot(
    name: str, systems: dict[str, Mapping[str, bytes]]
) -> None:
    """It is in no script of PowerShell, which Windows would log. Windows 2003 has none: there it
    is in clear text, but for what cmd escapes, and in its answer file, too, which its mini-setup
    removes.
    """
    needle = base64.b64encode(PASSWORD.encode("utf-16-le")).rstrip(b"=")
    expected = {"/windows/snfscripts/30-password.secret.txt"}
    if name == "2003":
        needle = LEGACY_PASSWORD[:6].encode()
        expected = {"/windows/snfscripts/30-password.secret.cmd", "/sysprep/sysprep.inf"}
    holders = {path for path, content in systems[name].items() if needle in content}
    assert holders == expected


def test_the_product_key_is_in_answer_files_only(systems: dict[str, Mapping[str, bytes]]) -> None:
    for name, expected in (
        ("2022", {UNATTEND, "/unattend.xml"}),
        ("2003", {"/sysprep/sysprep.inf"}),
    ):
        files = systems[name].items()
        assert {path for path, content in files if PRODUCT_KEY.encode() in content} == expected


@pytest.mark.parametrize("name", NAMES)
def test_nothing_secret_is_said(name: str, deployed: dict[str, Deployed]) -> None:
    secrets = [PASSWORD, LEGACY_PASSWORD, PRODUCT_KEY, TOKEN]
    secrets += [base64.b64encode(content).decode() for content in (NEW, USER_DATA)]
    secrets.append(base64.b64encode(PASSWORD.encode("utf-16-le")).decode())
    said = deployed[name].said
    for secret in secrets:
        assert secret not in said
        assert json.dumps(secret)[1:-1] not in said
        assert repr(secret)[1:-1] not in said


def test_others_on_the_node_cannot_read_the_password(place: Site) -> None:
    """While it is written: in arguments, environments, and files of the deployment."""
    disk = place.disk("watched", 1024 * MIB, stale=False)
    needles = [PASSWORD.encode(), base64.b64encode(PASSWORD.encode("utf-16-le")).rstrip(b"=")]
    exposed = []
    with place.started(place.environment(disk, "7-x86", img_passwd=PASSWORD)) as deployment:
        deployment.wait_for(subtype="task-start", task="ChangePassword")
        appliance = qemu(place.node.runtime)
        with stopped(appliance):
            # As QEMU sees it: what a deployment puts there, nobody else does.
            runtime = Path(f"/proc/{appliance}/root{place.node.runtime}")
            files = [path for path in runtime.rglob("*") if path.is_file()]
            for name in ("cmdline", "environ"):
                files += Path("/proc").glob(f"[0-9]*/{name}")
            for path in files:
                with contextlib.suppress(OSError):
                    content = path.read_bytes()
                    exposed += [str(path) for needle in needles if needle in content]
        assert deployment.finish().status == 0
    disk.unlink()
    assert exposed == []
    assert len(files) > 10


@dataclass(frozen=True)
class Refusal:
    """What is asked for, and words that the answer must have."""

    image: str
    problem: str
    remedy: str
    properties: Mapping[str, str] = field(default_factory=dict)
    hostname: str = NAME


@pytest.mark.parametrize(
    "refused",
    [
        Refusal("bitlocker", "BitLocker", "manage-bde"),
        Refusal("hibernated", "hibernat", "shutdown /s"),
        Refusal("dirty-hive", "SYSTEM", "sysprep"),
        Refusal("in-use", "not generalised", "sysprep"),
        Refusal("7-x86", "windows", "OSFAMILY", {"OSFAMILY": "windows-legacy"}),
        Refusal("7-x86", "15 characters", "another name", hostname="sixteen-letters-.example.org"),
        Refusal("7-x86", "digits only", "another name", hostname="2022.example.org"),
        Refusal("7-x86", "nobody", "USERS", {"USERS": "nobody"}),
    ],
    ids=lambda refused: refused.problem.replace(" ", "-"),
)
def test_what_cannot_be_deployed_is_refused_with_a_remedy(place: Site, refused: Refusal) -> None:
    disk = place.disk("refused", 1536 * MIB, stale=False)
    environment = place.environment(
        disk, refused.image, properties=refused.properties, img_passwd=PASSWORD
    )
    environment["INSTANCE_NAME"] = refused.hostname
    outcome = place.run(environment)
    disk.unlink()
    assert outcome.status == 1
    assert refused.problem in outcome.stderr
    assert refused.remedy in outcome.stderr
    assert PASSWORD not in outcome.stderr
    assert "Traceback" not in outcome.stderr
