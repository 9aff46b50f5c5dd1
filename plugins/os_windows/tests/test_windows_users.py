"""ChangePassword: whose, and that any password arrives as it is."""

from __future__ import annotations

import base64
import re
import string
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_core.errors import GuestError, InvalidValueError, UnsupportedError
from snf_core.image.properties import Properties
from snf_os_windows import answer_file, first_boot, inspection, paths, sysprep
from snf_os_windows.unattend import AnswerFile
from snf_os_windows.users import ChangePassword
from tests.fakes.guest import FakeGuest
from tests.fakes.task import run
from tests.images.windows import VERSIONS, Image
from tests.scripts.powershell import check

if TYPE_CHECKING:
    from collections.abc import Iterable

SECRET = "S3cret & Pass|word"
PASSWORD = f"{paths.SCRIPTS}/30-password.secret"
ACCOUNTS = f"{paths.SCRIPTS}/35-accounts.again.ps1"
PRINTABLE = "".join(char for char in string.printable if char.isprintable())
SHELLS = [name for name, version in VERSIONS.items() if version.powershell]


def prepared(version: str, **options: Any) -> FakeGuest:
    """A guest as InstallUnattend leaves it."""
    guest = FakeGuest.with_windows(Image(version, **options))
    first_boot.install(guest, inspection.facts(guest))
    if VERSIONS[version].legacy:
        guest.make_directory(paths.LEGACY_SYSPREP)
        guest.write(sysprep.PATH, "[GuiUnattended]\r\nTimeZone=85\r\n")
    return guest


def texts(script: str) -> list[str]:
    """The texts of others that a script holds."""
    found = re.findall(r"FromBase64String\('([^']*)'\)", script)
    return [base64.b64decode(word).decode("utf-16-le") for word in found]


def read(guest: FakeGuest, path: str) -> str:
    text = guest.read(path)
    assert text is not None
    return text


def secret(guest: FakeGuest) -> str:
    """The text that the fragment reads when it runs."""
    return base64.b64decode(read(guest, f"{PASSWORD}.txt").rstrip(" ")).decode("utf-16-le")


def files(guest: FakeGuest) -> dict[str, str]:
    """All that the first boot is left."""
    return {name: read(guest, f"{paths.SCRIPTS}/{name}") for name in guest.list(paths.SCRIPTS)}


@pytest.mark.parametrize("version", SHELLS)
def test_the_built_in_administrator_whatever_its_name(version: str) -> None:
    guest = prepared(version, administrator="Administrateur")
    [warning] = run(ChangePassword, guest, password=SECRET)
    assert "the built-in administrator, 'Administrateur'" in warning
    script = read(guest, f"{PASSWORD}.ps1")
    check(script)
    assert texts(script) == ["Administrateur"]
    assert secret(guest) == SECRET
    assert "Set-Password (Get-Administrator (" in script
    accounts = read(guest, ACCOUNTS)
    check(accounts)
    assert texts(accounts) == ["Administrateur"]
    assert "Enable-Account (Get-Administrator (" in accounts


@pytest.mark.parametrize(
    ("users", "names"),
    [
        (("ADMINISTRATOR",), ["Administrator"]),
        (("user one", "administrator"), ["User One", "Administrator"]),
        (("Ünal", "ünal", "ÜNAL"), ["Ünal"]),
    ],
)
def test_users_are_found_without_regard_to_case(users: Iterable[str], names: list[str]) -> None:
    guest = prepared("2022", users=("User One", "Ünal"))
    assert run(ChangePassword, guest, password=SECRET, users=tuple(users)) == []
    assert texts(read(guest, f"{PASSWORD}.ps1")) == names
    assert secret(guest) == SECRET
    assert texts(read(guest, ACCOUNTS)) == names


@pytest.mark.parametrize(
    "user", ["min", "Admin", "Administrator ", "Administrator.", ".*", "-x", "", "Names", "x\n"]
)
def test_a_user_that_does_not_exist(user: str) -> None:
    """A part of a name is no name."""
    guest = prepared("2022", users=("second",))
    with pytest.raises(GuestError, match="does not exist in the guest") as caught:
        run(ChangePassword, guest, password=SECRET, users=("second", user))
    assert repr(user) in caught.value.message
    assert "'second'" in caught.value.remedy
    assert SECRET not in str(caught.value)
    assert guest.read(f"{PASSWORD}.ps1") is None


def test_nothing_is_written_for_users_of_whom_one_does_not_exist() -> None:
    guest = prepared("xp")
    before = read(guest, sysprep.PATH)
    with pytest.raises(GuestError):
        run(ChangePassword, guest, password="a", users=("Administrator", "x"))
    assert read(guest, sysprep.PATH) == before


def test_accounts_that_the_answer_file_creates() -> None:
    account = (
        '<UserAccounts><LocalAccounts><LocalAccount wcm:action="add"><Name>Created</Name>'
        "<Group>Users</Group></LocalAccount></LocalAccounts></UserAccounts>"
    )
    answer = AnswerFile.blank()
    answer.set_value(
        "oobeSystem", "Microsoft-Windows-Shell-Setup", ["RegisteredOwner"], "", "amd64"
    )
    text = answer.serialize().decode()
    head, end, tail = text.partition("</component>")
    assert end
    guest = prepared("2022", files={answer_file.INSTALLED: head + account + end + tail})
    [warning] = run(ChangePassword, guest, password=SECRET, users=("CREATED",))
    assert "makes 'Created' only then" in warning
    users = ("CREATED", "Administrator")
    assert run(ChangePassword, guest, password=SECRET, users=users) == []
    run(ChangePassword, guest, password=SECRET, users=("CREATED",))
    assert texts(read(guest, f"{PASSWORD}.ps1")) == ["Created"]


@settings(max_examples=50)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=60))
def test_any_password_arrives_as_it_is(password: str) -> None:
    guest = prepared("7")
    run(ChangePassword, guest, password=password, users=("Administrator",))
    assert secret(guest) == password


@settings(max_examples=50)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=60))
def test_no_script_holds_anything_of_a_password(password: str) -> None:
    """As Windows logs scripts: they are the same for all passwords."""
    found = []
    for one in (password, SECRET):
        guest = prepared("7")
        run(ChangePassword, guest, password=one, users=("Administrator",))
        found.append(files(guest))
    data = [each.pop("30-password.secret.txt") for each in found]
    assert (data[0] == data[1]) == (password == SECRET)
    assert found[0] == found[1]


def test_a_password_is_no_parameter() -> None:
    """Of a function or a cmdlet: Windows may log those."""
    guest = prepared("2022")
    run(ChangePassword, guest, password=SECRET)
    script = read(guest, f"{PASSWORD}.ps1")
    check(script)
    encoded = base64.b64encode(SECRET.encode("utf-16-le")).decode().rstrip("=")
    assert encoded in read(guest, f"{PASSWORD}.txt")
    for text in (SECRET, "S3cret", "Pass|word", encoded, encoded[:8]):
        assert all(text not in content for name, content in files(guest).items()
                   if not name.endswith(".txt"))  # fmt: skip
    code = [line for line in script.splitlines() if not line.startswith("#")]
    path = "(Join-Path $env:SystemRoot 'SnfScripts\\30-password.secret.txt')"
    assert [line.strip() for line in code if "$secret" in line] == [
        "$secret = ([Text.Encoding]::Unicode.GetString([Convert]::FromBase64String("
        f"[IO.File]::ReadAllText({path}))))",
        "if (-not $secret) { 'its secret cannot be read'; exit 1 }",
        "$null = $user.psbase.Invoke('SetPassword', $secret)",
    ]


@pytest.mark.parametrize("password", ["a" * 128, "😀" * 64, "a\tb", "a\nb", "\x7f", "\x85"])
def test_a_password_that_nobody_can_enter(password: str) -> None:
    guest = prepared("2022")
    with pytest.raises(InvalidValueError, match="the password") as caught:
        run(ChangePassword, guest, password=password)
    assert password not in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("password", ["a" * 15, "a" * 127, "😀" * 63])
def test_a_long_password(password: str) -> None:
    guest = prepared("2022")
    run(ChangePassword, guest, password=password)
    assert secret(guest) == password


def test_the_fragments_say_what_the_runner_must_do_with_them() -> None:
    guest = prepared("2022")
    run(ChangePassword, guest, password=SECRET)
    names = [name for name in guest.list(paths.SCRIPTS) if name[0].isdigit()]
    assert names == ["30-password.secret.ps1", "30-password.secret.txt", "35-accounts.again.ps1"]
    guest = prepared("vista")
    run(ChangePassword, guest, password=SECRET)
    names = [name for name in guest.list(paths.SCRIPTS) if name[0].isdigit()]
    assert names == ["30-password.secret.cmd", "35-accounts.again.cmd"]
    assert SECRET not in read(guest, f"{paths.SCRIPTS}/35-accounts.again.cmd")


@pytest.mark.parametrize("version", ["vista", "xp", "2003"])
def test_without_powershell(version: str) -> None:
    guest = prepared(version, administrator="Admin & Co", users=("User One",))
    users = ("admin & co", "user one")
    run(ChangePassword, guest, password='a "b" %c% ' + "d" * 20 if version == "vista" else "a %b%",
        users=users)  # fmt: skip
    script = read(guest, f"{PASSWORD}.cmd")
    lines = [line for line in script.split("\r\n") if "net.exe" in line]
    assert [line.split(" user ")[1].split("^\" ")[0] for line in lines] == [
        '^"Admin ^& Co', '^"User One'
    ]  # fmt: skip
    assert all("/active:yes /expires:never /passwordreq:yes /y >nul 2>nul" in one for one in lines)
    assert all("%%" in line for line in lines)
    accounts = read(guest, f"{paths.SCRIPTS}/35-accounts.again.cmd").split("\r\n")
    assert [line.split(" user ")[1] for line in accounts if "net.exe" in line] == [
        '^"Admin ^& Co^" /active:yes /expires:never',
        '^"User One^" /active:yes /expires:never',
    ]


@pytest.mark.parametrize("password", ["*", "/add", "é", "a" * 128])
def test_what_net_cannot_be_told(password: str) -> None:
    guest = prepared("vista")
    with pytest.raises(InvalidValueError, match="the password") as caught:
        run(ChangePassword, guest, password=password)
    assert caught.value.remedy
    assert guest.read(f"{PASSWORD}.cmd") is None
    if password != "a" * 128:
        run(ChangePassword, prepared("2022"), password=password)


WELL_KNOWN = "Template1!"


def with_passwords(**options: Any) -> FakeGuest:
    """A guest whose answer file has passwords, as those of most templates."""
    stated = f"<Password><Value>{WELL_KNOWN}</Value><PlainText>true</PlainText></Password>"
    own = stated.replace("Password>", "AdministratorPassword>")
    created, present = (
        f'<LocalAccount wcm:action="add"><Name>{name}</Name>{stated}</LocalAccount>'
        for name in ("Created", "Present")
    )
    content = (
        f"<UserAccounts>{own}<LocalAccounts>{created}{present}</LocalAccounts></UserAccounts>"
        f"<AutoLogon><Username>Administrator</Username>{stated}</AutoLogon>"
    )
    answer = AnswerFile.blank()
    answer.set_value(
        "oobeSystem", "Microsoft-Windows-Shell-Setup", ["RegisteredOwner"], "", "amd64"
    )
    text = answer.serialize().decode().replace("</component>", f"{content}</component>")
    files = dict.fromkeys(answer_file.COPIES, text)
    return prepared("2022", users=("Present",), files=files, **options)


@pytest.mark.parametrize(
    ("users", "warned", "left"),
    [
        ((), ["taking the built-in", "AdministratorPassword", "AutoLogon"], 2),
        (("present",), ["LocalAccount 'Present' is taken out"], 3),
        (("created",), ["makes 'Created' only then", "Password of LocalAccount 'Created'"], 3),
        (
            ("Created", "Present", "administrator"),
            ["AdministratorPassword", "'Created'", "'Present'", "AutoLogon"],
            0,
        ),
    ],
)
def test_no_other_password_is_set_later(
    users: tuple[str, ...], warned: list[str], left: int
) -> None:
    guest = with_passwords()
    warnings = run(ChangePassword, guest, password=SECRET, users=users)
    assert len(warnings) == len(warned)
    assert all(word in warning for word, warning in zip(warned, warnings, strict=True))
    for path in answer_file.COPIES:
        text = read(guest, path)
        assert text.count(WELL_KNOWN) == left
        assert SECRET not in text
        assert base64.b64encode(SECRET.encode("utf-16-le")).decode() not in text


def test_passwords_of_the_answer_file_stay_where_none_is_set() -> None:
    guest = with_passwords()
    before = read(guest, answer_file.INSTALLED)
    assert before.count(WELL_KNOWN) == 4
    run(ChangePassword, guest)
    with pytest.raises(InvalidValueError):
        run(ChangePassword, guest, password="a\tb")
    assert read(guest, answer_file.INSTALLED) == before


def test_legacy_logs_nobody_on() -> None:
    guest = prepared("xp")
    guest.write(sysprep.PATH, "[GuiUnattended]\r\nAdminPassword=own\r\nAutoLogon=Yes\r\n")
    [warning] = run(ChangePassword, guest, password="a b", users=("Administrator",))
    assert "AutoLogon of sysprep.inf" in warning
    assert "AutoLogon=No\r\n" in read(guest, sysprep.PATH)


def test_the_mini_setup_is_told_where_it_would_ask() -> None:
    guest = prepared("xp")
    run(ChangePassword, guest, password="a b", users=("Administrator",))
    assert 'AdminPassword="a b"' in read(guest, sysprep.PATH)
    guest = prepared("xp")
    guest.write(sysprep.PATH, "[GuiUnattended]\r\nAdminPassword=own\r\n")
    run(ChangePassword, guest, password="a b", users=("Administrator",))
    assert "AdminPassword=own\r\n" in read(guest, sysprep.PATH)


@pytest.mark.parametrize("version", ["2022", "xp"])
def test_nothing_to_set(version: str) -> None:
    guest = prepared(version)
    before = guest.list(paths.SCRIPTS)
    [warning] = run(ChangePassword, guest)
    assert "no password was given" in warning
    keys, none = run(ChangePassword, guest, authorized_keys=("ssh-ed25519 AAAA one",))
    assert "SSH keys" in keys
    assert "no password" in none
    assert guest.list(paths.SCRIPTS) == before


def test_a_hash() -> None:
    guest = prepared("2022")
    with pytest.raises(UnsupportedError, match="no password hash") as caught:
        run(ChangePassword, guest, password_hash="$6$salt$hash")
    assert "the password itself" in caught.value.remedy


def test_cloudbase_init_does_it_where_it_is_seeded() -> None:
    image = Image("2022", cloudbase=True)
    guest = FakeGuest.with_windows(image)
    assert run(ChangePassword, guest, password=SECRET, users=("Administrator",)) == []
    assert guest.list(paths.SCRIPTS) == []
    guest = prepared("2022", cloudbase=True)
    excluded = Properties({"EXCLUDE_TASK_INITIALIZEDATASOURCE": "yes"})
    run(ChangePassword, guest, password=SECRET, properties=excluded)
    assert guest.read(f"{PASSWORD}.ps1")


@settings(max_examples=30)
@given(st.text(PRINTABLE, min_size=1, max_size=100))
def test_no_error_repeats_the_password(password: str) -> None:
    bad = f"x{password}x\x01"
    for version in ("vista", "xp"):
        with pytest.raises(InvalidValueError) as caught:
            run(ChangePassword, prepared(version), password=bad)
        assert f"x{password}x" not in str(caught.value)
