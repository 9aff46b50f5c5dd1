"""The runner and its fragments: what is put where, for which Windows."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import InvalidValueError
from snf_os_windows import first_boot, inspection, paths, powershell
from snf_os_windows.first_boot import Fragment, Host
from tests.fakes.guest import FakeGuest
from tests.images.windows import VERSIONS, Image
from tests.scripts.powershell import check

LINE = (
    '@if exist "%SystemRoot%\\SnfScripts\\run.cmd" '
    'call "%SystemRoot%\\SnfScripts\\run.cmd" finish\r\n'
)


def made(version: str, **options: object) -> tuple[FakeGuest, inspection.Facts]:
    guest = FakeGuest.with_windows(Image(version, **options))  # type: ignore[arg-type]
    return guest, inspection.facts(guest)


def scripts(guest: FakeGuest) -> list[str]:
    return guest.list(paths.SCRIPTS)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_runner_is_what_the_guest_can_run(version: str) -> None:
    guest, facts = made(version)
    assert not first_boot.installed(guest)
    first_boot.install(guest, facts)
    assert first_boot.installed(guest)
    shell = VERSIONS[version].powershell
    assert first_boot.host(facts) is (Host.POWERSHELL if shell else Host.CMD)
    assert scripts(guest) == (["run.cmd", "run.ps1"] if shell else ["run.cmd"])
    runner = guest.read(f"{paths.SCRIPTS}/run.cmd") or ""
    assert runner.isascii()
    assert runner.startswith("@echo off\r\n")
    assert runner.count("\n") == runner.count("\r\n") == runner.count("\r")
    assert max(len(line) for line in runner.split("\r\n")) < 2048
    if shell:
        check(guest.read(f"{paths.SCRIPTS}/run.ps1") or "")
        assert "run.ps1" in runner


def test_a_powershell_that_is_too_old_is_not_used() -> None:
    """Server 2008 has 1.0, where it has one."""
    _, facts = made("vista", powershell=True)
    assert facts.powershell
    assert first_boot.host(facts) is Host.CMD


def test_server_core_without_powershell() -> None:
    _, facts = made("2008r2", powershell=False)
    assert first_boot.host(facts) is Host.CMD


def test_commands() -> None:
    _, facts = made("2022")
    command = first_boot.specialize_command(facts)
    assert command == r"cmd.exe /d /c C:\Windows\SnfScripts\run.cmd specialize"
    _, facts = made("xp")
    assert first_boot.legacy_commands(facts) == (
        r"cmd.exe /d /c C:\Windows\SnfScripts\run.cmd specialize",
        r"cmd.exe /d /c C:\Windows\SnfScripts\run.cmd finish",
    )


@pytest.mark.parametrize("version", ["vista", "2022"])
def test_setup_calls_the_runner_when_it_is_done(version: str) -> None:
    guest, facts = made(version)
    guest.remove(paths.SETUP_COMPLETE)
    first_boot.install(guest, facts)
    assert guest.read(paths.SETUP_COMPLETE) == LINE


def test_nothing_calls_setup_complete_before_vista() -> None:
    guest, facts = made("2003")
    first_boot.install(guest, facts)
    assert guest.status(paths.SETUP_COMPLETE) is None


def test_what_the_image_has_setup_do_comes_after_ours_and_ours_comes_once() -> None:
    own = b"@echo off\r\nshutdown /r /t 0\r\nexit /b \xe9\r\n".decode(errors="surrogateescape")
    guest, facts = made("2022", files={"/windows/setup/SCRIPTS/setupcomplete.CMD": own})
    for _ in range(2):
        first_boot.install(guest, facts)
        assert guest.read(paths.SETUP_COMPLETE) == LINE + own


def test_fragments_of_an_earlier_deployment_go_and_files_of_others_stay() -> None:
    guest, facts = made(
        "2022",
        files={
            f"{paths.SCRIPTS}/{name}": "old"
            for name in (
                *("30-password.secret.ps1", "30-password.secret.txt", "10-x.cmd", "run.ps1"),
                *("output.txt", "mine.txt"),
            )
        },
    )
    first_boot.install(guest, facts)
    assert scripts(guest) == ["mine.txt", "run.cmd", "run.ps1"]
    assert guest.read(f"{paths.SCRIPTS}/run.ps1") != "old"


@pytest.mark.parametrize(
    ("fragment", "shell", "cmd"),
    [
        (Fragment("one", 7, ""), "07-one.ps1", "07-one.cmd"),
        (Fragment("a-b", 99, "", again=True), "99-a-b.again.ps1", "99-a-b.again.cmd"),
        (Fragment("p", 0, "", "x"), "00-p.secret.ps1", "00-p.secret.cmd"),
        (
            Fragment("p", 0, "", "x", again=True),
            "00-p.secret.again.ps1",
            "00-p.secret.again.cmd",
        ),
    ],
)
def test_names_say_what_the_runner_must_know(fragment: Fragment, shell: str, cmd: str) -> None:
    pattern = re.search(r"-match '([^']+)'", first_boot.read_script("run.ps1"))
    assert pattern
    for version, name in (("2022", shell), ("vista", cmd)):
        guest, facts = made(version)
        first_boot.install(guest, facts)
        first_boot.add(guest, facts, fragment)
        assert name in scripts(guest)
    assert re.search(pattern[1], shell)
    assert not re.search(pattern[1], shell.replace(".ps1", ".txt")), "a secret is not run"


def test_a_fragment_takes_the_place_of_its_namesake() -> None:
    guest, facts = made("2022")
    first_boot.install(guest, facts)
    first_boot.add(guest, facts, Fragment("one", 7, "'a'\n", "x"))
    assert scripts(guest) == ["07-one.secret.ps1", "07-one.secret.txt", "run.cmd", "run.ps1"]
    first_boot.add(guest, facts, Fragment("one-more", 7, "'b'\n"))
    first_boot.add(guest, facts, Fragment("one", 9, "'c'\n\t'd'\n"))
    assert scripts(guest) == ["07-one-more.ps1", "09-one.ps1", "run.cmd", "run.ps1"]
    assert guest.read(f"{paths.SCRIPTS}/09-one.ps1") == "'c'\r\n\t'd'\r\n"


@pytest.mark.parametrize("script", ["é\n", "a\r\n", "a\0", "\x1b[m", "\u2028"])
def test_what_is_not_ascii_does_not_get_in(script: str) -> None:
    guest, facts = made("2022")
    first_boot.install(guest, facts)
    with pytest.raises(InvalidValueError, match="ASCII"):
        first_boot.add(guest, facts, Fragment("one", 1, script))
    assert scripts(guest) == ["run.cmd", "run.ps1"]


@pytest.mark.parametrize(
    ("order", "name"),
    [(-1, "a"), (100, "a"), (1, ""), (1, "A"), (1, "a.secret"), (1, "a/b"), (1, "a-"), (1, "1")],
)
def test_names_and_orders(order: int, name: str) -> None:
    guest, facts = made("2022")
    with pytest.raises(InvalidValueError, match="not a fragment's order and name"):
        first_boot.add(guest, facts, Fragment(name, order, ""))


def added(fragment: Fragment, facts: inspection.Facts) -> dict[str, str]:
    """The files that a fragment becomes."""
    guest = FakeGuest.mounted({})
    guest.make_directory(paths.SCRIPTS)
    first_boot.add(guest, facts, fragment)
    return {name: guest.read(f"{paths.SCRIPTS}/{name}") or "" for name in scripts(guest)}


SHELL = inspection.Facts((10, 0), 1, "", "", "amd64", "ControlSet001", powershell=True)
CMD = inspection.Facts((6, 0), 1, "", "", "amd64", "ControlSet001")


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=3000), st.booleans())
def test_a_secret_is_in_no_script_of_powershell(secret: str, again: bool) -> None:
    """The script is the same whatever the secret, which its file holds as it is."""
    found = added(Fragment("one", 1, "'a'\n", secret, again=again), SHELL)
    stem = "01-one.secret" + (".again" if again else "")
    data = found.pop(f"{stem}.txt")
    assert base64.b64decode(data.rstrip(" "), validate=True).decode("utf-16-le") == secret
    assert found == {f"{stem}.ps1": EXPECTED.replace("STEM", stem).replace("\n", "\r\n")}
    assert len(data) % 4096 == 0
    assert 0 < len(data) <= 4096 * (1 + len(secret) * 16 // 3 // 4096)


EXPECTED = """\
$secret = ([Text.Encoding]::Unicode.GetString([Convert]::FromBase64String(\
[IO.File]::ReadAllText((Join-Path $env:SystemRoot 'SnfScripts\\STEM.txt')))))
if (-not $secret) { 'its secret cannot be read'; exit 1 }
'a'
"""


def test_what_reads_a_secret_is_powershell() -> None:
    check(added(Fragment("one", 1, "'a'\n", "x"), SHELL)["01-one.secret.ps1"])


@pytest.mark.parametrize("secret", ["\ud800", "a\udfffb"])
def test_half_a_character_is_no_secret(secret: str) -> None:
    with pytest.raises(InvalidValueError, match="half a character") as caught:
        added(Fragment("one", 1, "", secret), SHELL)
    assert secret not in str(caught.value)


@given(st.integers(0, 9000))
def test_the_length_of_a_secret_does_not_tell(length: int) -> None:
    """And NTFS keeps none of it where overwriting would leave a copy: in its table."""
    script = "echo " + "x" * length + "\n"
    [(name, text)] = added(Fragment("one", 1, script, "x" * length or "y"), CMD).items()
    assert name == "01-one.secret.cmd"
    assert len(text) % 4096 == 0
    assert 0 < len(text) - len(script) <= 2 * 4096
    first, *others = text.split("\r\n")
    assert first + "\n" == script
    assert all(line.startswith("rem ") for line in others if line)
    assert text.endswith("\r\n")


def test_a_secret_is_not_shown() -> None:
    assert "hidden" not in repr(Fragment("one", 1, "hidden", "hidden"))


@pytest.mark.parametrize("version", ["2022", "vista", "xp"])
def test_permissions(version: str) -> None:
    guest, facts = made(version)
    first_boot.install(guest, facts)
    made_here = ("/Users/a b", "/Users/a b/50%&x.txt")
    first_boot.reset_permissions(guest, facts, ("/old",))
    first_boot.reset_permissions(guest, facts, made_here)
    [name] = [name for name in scripts(guest) if name.startswith("05-")]
    text = guest.read(f"{paths.SCRIPTS}/{name}") or ""
    spelled = [r"C:\Users\a b", r"C:\Users\a b\50%&x.txt"]
    if version == "2022":
        check(text)
        assert powershell.texts(spelled) in text
    else:
        assert r'icacls.exe" ^"C:\Users\a b^" /reset' in text
        assert r'icacls.exe" ^"C:\Users\a b\50%%^&x.txt^" /reset' in text


def test_a_path_that_no_batch_file_can_name() -> None:
    guest, facts = made("vista")
    first_boot.install(guest, facts)
    with pytest.raises(InvalidValueError, match=r"the path C:\\é"):
        first_boot.reset_permissions(guest, facts, ("/é",))
    guest, facts = made("7")
    first_boot.install(guest, facts)
    first_boot.reset_permissions(guest, facts, ("/é",))


class TestRunner:
    """What the runners say; wine runs the one for cmd.exe, and only Windows the other."""

    SHELL = first_boot.read_script("run.ps1")
    CMD = first_boot.read_script("run.cmd")
    START = first_boot.read_script("run-powershell.cmd")

    def test_it_never_fails(self) -> None:
        assert self.SHELL.endswith("exit 0\n")
        for script in (self.CMD, self.START):
            ends = [line for line in script.split("\n") if "exit /b" in line]
            assert ends
            assert all("exit /b 0" in line for line in ends)

    def test_execution_policies_do_not_matter(self) -> None:
        assert "-File " not in self.SHELL + self.START
        assert "[ScriptBlock]::Create" in self.SHELL
        assert "[ScriptBlock]::Create" in self.START

    def test_both_remove_the_same(self) -> None:
        for word in (r"\Panther\Unattend", r"\Setup\Scripts", "SnfScripts", "RunOnce",
                     "/reset", "/inheritance:r", "*S-1-5-18:", "*S-1-5-32-544:"):  # fmt: skip
            assert word in self.SHELL
            assert word in self.CMD
        assert "autounattend" in self.SHELL
        assert "autounattend" in self.CMD

    def test_errors_of_secret_fragments_are_not_logged(self) -> None:
        """PowerShell quotes the line at fault in them."""
        assert "if ($File.Name -notlike '*.secret.ps1') { Write-Captured $errors }" in self.SHELL
        assert "Remove-Secret $errors" in self.SHELL
        secret = self.CMD.split("if defined SECRET (")[1].split(") else (")[0]
        assert "2>nul" in secret

    def test_a_secret_goes_with_its_fragment_and_in_any_case_at_the_end(self) -> None:
        """After the fragment: that would fail without it, and keep remote desktop closed."""
        done = self.SHELL.split("if ($secret) {")[1].split("}")[0]
        script, data = [line.strip() for line in done.splitlines() if "Remove-Secret" in line]
        assert script == "Remove-Secret $file.FullName"
        assert data == "Remove-Secret ([IO.Path]::ChangeExtension($file.FullName, '.txt'))"
        end = self.SHELL.split("function Remove-Own {")[1].split("\n}")[0]
        pattern = re.search(r"-match '([^']+)' }\)\) {\s+Remove-Secret \$file", end)
        assert pattern
        names = ("30-password.secret.ps1", "30-password.secret.txt", "07-x.secret.again.txt")
        assert all(re.search(pattern[1], name) for name in names)
        assert not re.search(pattern[1], "run.cmd"), "it is being run"

    def test_what_setup_will_run_is_protected_before_anybody_can_log_on(self) -> None:
        """Before the fragments, and made as it is elsewhere again at the end."""
        start = self.SHELL.split("\ntry {\n    Protect-Path $here")[1].split("Invoke-All")[0]
        assert "foreach ($path in $answers + $complete) { Protect-Path $path '' }" in start
        assert "foreach ($path in $made) { Reset-Permission $path }" in start
        assert "Reset-Permission $complete" in self.SHELL.split("function Remove-Own {")[1]
        start, end = self.CMD.split("\n:finish\n")
        protected = start.index('call :protect "%COMPLETE%" ""')
        assert protected < start.index("call :fragment")
        assert 'call :reset "%SystemRoot%\\Setup\\Scripts"' in start[:protected]
        assert 'call :reset "%COMPLETE%"' in end
