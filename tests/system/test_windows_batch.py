"""Scripts for the first boot of Windows without PowerShell, run by wine's cmd.exe.

What only Windows has is stood in for: net.exe by a program of this system's that notes its
arguments, which wine starts without waiting for it; others by batch files.
"""

from __future__ import annotations

import json
import string
import time
from typing import TYPE_CHECKING

import pytest

from snf_core.image.nics import NicPlan
from snf_os_windows import batch, first_boot, inspection, paths
from snf_os_windows.filesystem import FilesystemResizeMounted
from snf_os_windows.first_boot import Fragment
from snf_os_windows.network import ConfigureNetwork
from snf_os_windows.users import ChangePassword
from tests.fakes.guest import FakeGuest
from tests.fakes.task import run
from tests.images.windows import VERSIONS, Image
from tests.scripts import wine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scripts.wine import Wine

SCRIPTS = r"windows\SnfScripts"
RUNNER = r"C:\windows\SnfScripts\run.cmd"
LOG = r"windows\Panther\snf-first-boot.log"
RUN_ONCE = r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\RunOnce"
PRINTABLE = "".join(char for char in string.printable if char.isprintable())


@pytest.fixture(scope="module")
def machine() -> Iterator[Wine]:
    with wine.started() as machine:
        yield machine


def prepared(version: str = "vista", **options: object) -> tuple[FakeGuest, inspection.Facts]:
    guest = FakeGuest.with_windows(Image(version, **options))  # type: ignore[arg-type]
    facts = inspection.facts(guest)
    guest.remove(paths.SETUP_COMPLETE)
    first_boot.install(guest, facts)
    return guest, facts


def transfer(guest: FakeGuest, machine: Wine) -> None:
    """What the first boot finds."""
    for name in guest.list(paths.SCRIPTS):
        machine.write(f"{SCRIPTS}\\{name}", guest.read(f"{paths.SCRIPTS}/{name}") or "")
    log = machine.path(LOG)
    log.parent.mkdir(exist_ok=True)
    log.write_text("")


def left(machine: Wine) -> list[str]:
    """The fragments that are still there."""
    directory = machine.path(SCRIPTS)
    return sorted(path.name for path in directory.glob("[0-9][0-9]-*"))


def files(machine: Wine) -> list[str]:
    """What is left of ours. wine's cmd.exe keeps a batch file open, and so its directory."""
    directory = machine.path(SCRIPTS)
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def log(machine: Wine) -> str:
    return machine.path(LOG).read_text("cp437")


def echo(text: str, status: int = 0) -> str:
    return f"{batch.BEGIN}echo {text}\necho {text} wrong>&2\nexit /b {status}\n"


def noted(record: Path, number: int) -> list[list[str]]:
    """The arguments that a stand-in has noted, once it was called so many times."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        lines = record.read_text().split("\n")[:-1] if record.exists() else []
        if len(lines) >= number:
            return sorted(json.loads(line) for line in lines)
        time.sleep(0.05)
    pytest.fail(f"{record} has fewer than {number} lines")


def stand_in(machine: Wine, tool: str, record: Path) -> None:
    """Put a program that notes its arguments into a Windows in C:\\stand-ins."""
    program = machine.path(rf"stand-ins\System32\{tool}.exe")
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(
        "#!/usr/bin/python3\nimport json, os, sys\n"
        f"descriptor = os.open({str(record)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "os.write(descriptor, (json.dumps(sys.argv[1:]) + '\\n').encode())\n"
    )
    program.chmod(0o755)


PASSWORDS = [
    PRINTABLE,
    " a b ",
    'a"b" c',
    "\\",
    '\\"\\\\"',
    "%PATH%%1%%~dp0",
    "^^&|<>()!x!",
    "a" * 127,
]


@pytest.mark.parametrize("number", range(len(PASSWORDS)))
def test_passwords_and_names_arrive_as_they_are(machine: Wine, tmp_path: Path, number: int) -> None:
    users = ("Administrator", "A & B (c) %d% ^e !f!", "x'y`z#~{}$@")
    password = PASSWORDS[number]
    guest, _ = prepared(users=users[1:])
    run(ChangePassword, guest, password=password, users=users)
    record = tmp_path / "record"
    stand_in(machine, "net", record)
    machine.write("password.cmd", guest.read(f"{paths.SCRIPTS}/30-password.secret.cmd") or "")
    machine.write("start.cmd", "@set SystemRoot=C:\\stand-ins\r\n@C:\\password.cmd\r\n")
    machine.cmd(r"C:\start.cmd")
    words = ["/active:yes", "/expires:never", "/passwordreq:yes", "/y"]
    assert noted(record, 3) == sorted(["user", user, password, *words] for user in users)


class TestRunner:
    def test_all_is_well(self, machine: Wine) -> None:
        guest, facts = prepared()
        for fragment in (
            Fragment("third", 40, echo("three")),
            Fragment("first", 10, echo("one")),
            Fragment("again", 20, echo("two"), again=True),
            Fragment("secret", 30, echo("hidden"), "hidden"),
        ):
            first_boot.add(guest, facts, fragment)
        transfer(guest, machine)
        done = machine.cmd(f"{RUNNER} specialize")
        assert (done.returncode, done.stdout) == (0, "")
        text = log(machine)
        assert [word for word in text.split() if word in {"one", "two", "hidden", "three"}] == [
            *("one", "one", "two", "two", "hidden", "three", "three")
        ], "in order, and of the secret one no errors"
        assert "specialize: 10-first.cmd: done" in text
        assert left(machine) == ["20-again.again.cmd"]
        assert RUNNER in machine.cmd(f"reg query {RUN_ONCE} /v snf-first-boot").stdout
        self.finish(machine)
        assert log(machine).count("20-again.again.cmd: done") == 2

    def finish(self, machine: Wine) -> None:
        """The second time, after which nothing of ours is left."""
        for name in (r"unattend.xml", r"windows\Panther\unattend.xml",
                     r"windows\Panther\Unattend\unattend.xml", r"autounattend.xml"):  # fmt: skip
            machine.write(name, "<key/>")
        machine.cmd(f"{RUNNER} finish")
        assert files(machine) == []
        assert list(machine.drive.rglob("*attend.xml")) == []
        assert machine.cmd(f"reg query {RUN_ONCE} /v snf-first-boot").returncode != 0

    def test_one_that_fails_gets_a_second_chance(self, machine: Wine) -> None:
        guest, facts = prepared()
        first_boot.add(guest, facts, Fragment("bad", 10, echo("bad", 3)))
        first_boot.add(guest, facts, Fragment("good", 40, echo("good")))
        transfer(guest, machine)
        assert machine.cmd(f"{RUNNER} specialize").returncode == 0
        assert "10-bad.cmd: failed (3)" in log(machine)
        assert "bad wrong" in log(machine)
        assert left(machine) == ["10-bad.cmd"]
        self.finish(machine)
        assert log(machine).count("10-bad.cmd: failed (3)") == 2

    def test_nothing_comes_after_a_password_that_is_not_set(self, machine: Wine) -> None:
        guest, facts = prepared()
        first_boot.add(guest, facts, Fragment("password", 30, echo("bad", 1), "bad"))
        first_boot.add(guest, facts, Fragment("remote-desktop", 40, echo("open")))
        transfer(guest, machine)
        assert machine.cmd(f"{RUNNER} specialize").returncode == 0
        assert left(machine) == ["30-password.secret.cmd", "40-remote-desktop.cmd"]
        self.finish(machine)
        assert "open" not in log(machine)
        assert log(machine).count("remote desktop stays closed") == 2

    def test_a_password_that_is_set_the_second_time(self, machine: Wine) -> None:
        guest, facts = prepared()
        script = f"{batch.BEGIN}if exist C:\\now (echo set& exit /b 0) else exit /b 1\n"
        first_boot.add(guest, facts, Fragment("password", 30, script, "set"))
        first_boot.add(guest, facts, Fragment("remote-desktop", 40, echo("open")))
        transfer(guest, machine)
        machine.cmd(f"{RUNNER} specialize")
        assert "open" not in log(machine)
        machine.write("now", "")
        self.finish(machine)
        assert "open" in log(machine)
        machine.path("now").unlink()

    def test_a_fragment_that_leaves_with_exit_does_not_stop_it(self, machine: Wine) -> None:
        guest, facts = prepared()
        first_boot.add(guest, facts, Fragment("one", 10, f"{batch.BEGIN}exit 0\n"))
        first_boot.add(guest, facts, Fragment("two", 20, f"{batch.BEGIN}no-such-program\n"))
        first_boot.add(guest, facts, Fragment("three", 30, echo("three")))
        transfer(guest, machine)
        machine.cmd(f"{RUNNER} specialize")
        assert "30-three.cmd: done" in log(machine)
        assert left(machine) == ["20-two.cmd"]
        self.finish(machine)

    def test_nothing_to_do(self, machine: Wine) -> None:
        guest, _ = prepared()
        transfer(guest, machine)
        assert machine.cmd(f"{RUNNER} specialize").returncode == 0
        self.finish(machine)


class TestSetupComplete:
    FILE = r"windows\Setup\Scripts\SetupComplete.cmd"

    def test_nobody_else_can_write_what_setup_will_run(self, machine: Wine, tmp_path: Path) -> None:
        """From the first time that the runner is called."""
        record = tmp_path / "record"
        stand_in(machine, "icacls", record)
        guest, _ = prepared()
        folder = r"C:\stand-ins\Setup\Scripts"
        machine.write(r"stand-ins\SnfScripts\run.cmd", guest.read(paths.SCRIPTS + "/run.cmd") or "")
        machine.write(r"stand-ins\Setup\Scripts\SetupComplete.cmd", "")
        runner = r"C:\stand-ins\SnfScripts\run.cmd"
        start = f"@set SystemRoot=C:\\stand-ins\r\n@call {runner} specialize\r\n"
        machine.write("start.cmd", start)
        assert machine.cmd(r"C:\start.cmd").returncode == 0
        file, scripts = rf"{folder}\SetupComplete.cmd", r"C:\stand-ins\SnfScripts"
        accounts = ("*S-1-5-18:{}F", "*S-1-5-32-544:{}F")
        assert noted(record, 5) == sorted(
            [
                [folder, "/reset", "/c", "/q"],
                *([path, "/reset", "/t", "/c", "/q"] for path in (file, scripts)),
                *(
                    [path, "/inheritance:r", "/grant:r"]
                    + [account.format(heirs) for account in accounts]
                    + ["/c", "/q"]
                    for path, heirs in ((file, ""), (scripts, "(OI)(CI)"))
                ),
            ]
        )

    def test_ours_alone_goes(self, machine: Wine) -> None:
        guest, facts = prepared()
        first_boot.add(guest, facts, Fragment("one", 10, echo("one")))
        transfer(guest, machine)
        machine.write(self.FILE, guest.read(paths.SETUP_COMPLETE) or "")
        machine.cmd(f"C:\\{self.FILE}")
        assert "finish: 10-one.cmd: done" in log(machine)
        assert files(machine) == []
        assert not machine.path(self.FILE).exists()

    def test_that_of_the_image_runs_after_ours(self, machine: Wine) -> None:
        guest, facts = prepared()
        own = f"@echo off\r\nif exist {RUNNER} echo early\r\necho own\r\nexit /b 7\r\n"
        guest.write(paths.SETUP_COMPLETE, own)
        first_boot.install(guest, facts)
        transfer(guest, machine)
        machine.write(self.FILE, guest.read(paths.SETUP_COMPLETE) or "")
        done = machine.cmd(f"C:\\{self.FILE}")
        assert done.stdout.split() == ["own"]
        assert files(machine) == []
        again = machine.cmd(f"C:\\{self.FILE}")
        assert (again.returncode, again.stdout.split()) == (7, ["own"])


class TestNetwork:
    TOOL = '"%SystemRoot%\\System32\\{}.exe"'

    def script(self, machine: Wine, *nics: NicPlan) -> str:
        """The fragment, with stand-ins, of which netsh notes its arguments."""
        guest, _ = prepared()
        run(ConfigureNetwork, guest, nics=nics)
        script = guest.read(f"{paths.SCRIPTS}/20-network.again.cmd") or ""
        script = script.replace(self.TOOL.format("netsh"), r"cmd /d /c C:\netsh.cmd")
        script = script.replace(r"%SystemRoot%\System32\wbem\wmic.exe", r"C:\wmic.cmd")
        # This one waits.
        script = script.replace(self.TOOL.format("ping"), "rem ")
        machine.write("netsh.cmd", "@>>C:\\netsh.log echo %*\r\n")
        machine.write("wmic.cmd", "@>>C:\\wmic.log echo %*\r\n@type C:\\wmic.txt\r\n")
        for name in ("netsh.log", "wmic.log"):
            machine.path(name).write_text("")
        machine.write("network.cmd", script)
        return r"C:\network.cmd"

    @staticmethod
    def lines(machine: Wine, name: str) -> list[str]:
        return [line.strip() for line in machine.path(name).read_text().split("\n") if line.strip()]

    def test_netsh_is_told_of_the_nic_with_the_address(self, machine: Wine) -> None:
        nic = NicPlan(0, "aa:00:00:00:00:01", "dhcp", "slaac", mtu=1450)
        script = self.script(machine, nic)
        # As wmic ends its lines.
        machine.path("wmic.txt").write_bytes(
            b"\r\r\n\r\r\nIndex=7\r\r\nNetConnectionID=LAN 2 (x) & y\r\r\n\r\r\n"
        )
        done = machine.cmd(script)
        assert (done.returncode, done.stdout.strip()) == (0, "")
        assert self.lines(machine, "wmic.log") == [
            "nic where \"MACAddress='AA:00:00:00:00:01' and NetConnectionID is not null\" "
            "get Index,NetConnectionID /value"
        ]
        name = '"LAN 2 (x) & y"'
        assert self.lines(machine, "netsh.log") == [
            "interface ipv6 set global randomizeidentifiers=disabled",
            "interface ipv6 set privacy state=disabled",
            f"interface ip set address {name} dhcp",
            f"interface ipv6 set interface {name} routerdiscovery=enabled "
            "managedaddress=disabled otherstateful=disabled",
            f"interface ipv4 set subinterface {name} mtu=1450 store=persistent",
            f"interface ipv6 set subinterface {name} mtu=1450 store=persistent",
        ]

    def test_a_nic_that_is_not_there(self, machine: Wine) -> None:
        """It is waited for, and the others get theirs."""
        script = self.script(machine, NicPlan(0, "aa:00:00:00:00:01", "dhcp"))
        machine.path("wmic.txt").write_bytes(b"\r\r\n\r\r\n")
        done = machine.cmd(script)
        assert "there is no NIC with the MAC address AA:00:00:00:00:01" in done.stdout
        assert done.returncode == 1
        assert self.lines(machine, "netsh.log") == []
        assert len(self.lines(machine, "wmic.log")) == 15


def test_diskpart_is_told_the_letter(machine: Wine) -> None:
    guest, _ = prepared()
    facts = {"family": VERSIONS["vista"].family, "root": "/dev/sda1"}
    run(FilesystemResizeMounted, guest, facts=facts)
    script = guest.read(f"{paths.SCRIPTS}/10-extend.cmd") or ""
    tool = '"%SystemRoot%\\System32\\diskpart.exe"'
    machine.write("extend.cmd", script.replace(tool, r"cmd /d /c C:\diskpart.cmd"))
    machine.write("diskpart.cmd", "@type %2\r\n@exit 5\r\n")
    machine.path(SCRIPTS).mkdir(exist_ok=True)
    done = machine.cmd(r"C:\extend.cmd")
    assert done.returncode == 5
    assert done.stdout.split("\n")[:2] == ["select volume C", "extend filesystem"]
