"""Answer files and computers' names in real NTFS volumes, beside real hives."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.image.customization import Customization
from snf_core.image.properties import Properties
from snf_core.image.registry import Value
from snf_os_windows import answer_file, first_boot, inspection, paths, sysprep
from snf_os_windows.hostname import AssignHostname
from snf_os_windows.inf import Inf
from snf_os_windows.unattend import SHELL_SETUP, AnswerFile
from snf_os_windows.users import ChangePassword
from tests import answer_files
from tests.images import windows

if TYPE_CHECKING:
    from snf_core.image.guest import Guest
    from tests.guest.conftest import Laboratory

KEY = "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"
REQUEST = Customization(
    hostname="vm1.example.org", properties=Properties(), product_key=KEY, password="p"
)
CONF = SimpleNamespace(answer_file="", time_zone="GTB Standard Time")


def prepared(laboratory: Laboratory, image: windows.Image) -> Guest:
    """The guest of an image, its system volume mounted."""
    laboratory.blank("/dev/sda")
    root = windows.build(laboratory.handle, "/dev/sda", image).root
    guest = laboratory.guest
    guest.reread("/dev/sda")
    guest.mount_windows(root)
    inspection._facts.pop(guest, None)
    answer_file._installed.discard(guest)
    return guest


def customized(guest: Guest) -> list[str]:
    """Warnings of what this is about, done twice: it must do no harm."""
    tasks = (sysprep if inspection.facts(guest).legacy else answer_file).InstallUnattend(CONF)
    warnings = [*tasks.run(guest, REQUEST), *AssignHostname(None).run(guest, REQUEST)]
    first = files(guest)
    list(tasks.run(guest, REQUEST))
    list(AssignHostname(None).run(guest, REQUEST))
    assert files(guest) == first
    return warnings


def files(guest: Guest) -> dict[str, str | None]:
    """What there is of answer files."""
    places = (*answer_file.SEARCHED, sysprep.PATH, "/sysprep/i386/$OEM$/CmdLines.txt")
    return {path: guest.read(path) for path in places if guest.is_file(path)}


def installed(laboratory: Laboratory) -> AnswerFile:
    """What Windows will find, read past the facade."""
    handle: Any = laboratory.handle
    contents = [handle.read_file(path) for path in answer_file.COPIES]
    assert contents[0] == contents[1]
    answer_files.check(contents[0])
    return AnswerFile.parse(contents[0])


@pytest.mark.parametrize("version", ["vista", "7-x86", "2022", "11-arm64"])
def test_built_in(laboratory: Laboratory, version: str) -> None:
    guest = prepared(laboratory, windows.Image(version))
    assert customized(guest) == []
    answer = installed(laboratory)
    facts = inspection.facts(guest)

    def stated(name: str) -> str | None:
        return answer.value("specialize", SHELL_SETUP, [name], facts.architecture)

    names = ("ComputerName", "ProductKey", "TimeZone")
    assert [stated(name) for name in names] == ["vm1", KEY, CONF.time_zone]
    assert first_boot.specialize_command(facts) in answer.commands(facts.architecture)


def test_own_in_another_case(laboratory: Laboratory) -> None:
    """Found as Windows finds it, written in place, and the others are gone."""
    own, record = AnswerFile.blank(), AnswerFile.blank()
    for answer, owner in ((own, "image"), (record, "record")):
        answer.set_value("specialize", SHELL_SETUP, ["RegisteredOwner"], owner, "amd64")
    processed = record.serialize().replace(b"<settings", b'<settings wasPassProcessed="true"')
    image = windows.Image(
        "10",
        files={
            "/AutoUnattend.XML": own.serialize(),
            "/WINDOWS/panther/Unattend.xml": processed,
        },
    )
    guest = prepared(laboratory, image)
    warnings = customized(guest)
    assert len(warnings) == 1
    assert "/autounattend.xml" in warnings[0]
    answer = installed(laboratory)
    assert answer.value("specialize", SHELL_SETUP, ["RegisteredOwner"], "amd64") == "image"
    assert answer.value("specialize", SHELL_SETUP, ["ComputerName"], "amd64") == "vm1"
    names = [name.lower() for name in guest.list("/") + guest.list(paths.PANTHER)]
    assert names.count("unattend.xml") == 1
    assert "autounattend.xml" not in names


def test_registry_names_one(laboratory: Laboratory) -> None:
    pointer = {"Setup": {"UnattendFile": Value.string("C:\\Media\\Answers.xml")}}
    image = windows.Image(
        "2019", files={"/media/answers.xml": AnswerFile.blank().serialize()}, extra_system=pointer
    )
    guest = prepared(laboratory, image)
    with guest.registry(paths.SYSTEM_HIVE) as hive:
        before = hive.values("Setup")
    assert before["UnattendFile"].text == "C:\\Media\\Answers.xml"
    assert "/Media/Answers.xml" in customized(guest)[0]
    with guest.registry(paths.SYSTEM_HIVE) as hive:
        after = hive.values("Setup")
    written = paths.windows_path(answer_file.INSTALLED)
    assert after == before | {"UnattendFile": Value.string(written)}
    assert installed(laboratory).value("specialize", SHELL_SETUP, ["ProductKey"], "amd64") == KEY


def test_no_other_password_is_set_later(laboratory: Laboratory) -> None:
    """Of a template's answer file, on the volume, nothing is left of the template's password."""
    well_known = b"Template1!"
    stated = "<Value>Template1!</Value><PlainText>true</PlainText>"
    content = (
        f"<UserAccounts><AdministratorPassword>{stated}</AdministratorPassword><LocalAccounts>"
        f'<LocalAccount wcm:action="add"><Name>Ann</Name><Password>{stated}</Password>'
        "</LocalAccount></LocalAccounts></UserAccounts><AutoLogon>"
        f"<Username>Administrator</Username><Password>{stated}</Password></AutoLogon>"
    )
    own = AnswerFile.blank()
    own.set_value("oobeSystem", SHELL_SETUP, ["RegisteredOwner"], "", "amd64")
    text = own.serialize().replace(b"</component>", f"{content}</component>".encode())
    guest = prepared(laboratory, windows.Image("2022", files={"/unattend.xml": text}))
    customized(guest)
    assert laboratory.handle.read_file("/unattend.xml").count(well_known) == 3
    request = replace(REQUEST, users=("administrator", "ann"))
    warnings = list(ChangePassword(None).run(guest, request))
    assert [warning.split()[0] for warning in warnings] == [
        "AdministratorPassword", "Password", "AutoLogon"
    ]  # fmt: skip
    answer = installed(laboratory)
    assert well_known not in answer.serialize()
    assert answer.local_accounts("amd64") == ("Ann",)
    assert answer.value("specialize", SHELL_SETUP, ["ComputerName"], "amd64") == "vm1"


@pytest.mark.parametrize("own", [True, False])
def test_legacy(laboratory: Laboratory, own: bool) -> None:
    text = "; ours\r\n[userdata]\r\nFullName=Γιώργος\r\n"
    files = {"/Sysprep/Sysprep.INF": b"\xff\xfe" + text.encode("utf-16-le")} if own else {}
    guest = prepared(laboratory, windows.Image("xp", files=files))
    assert len(customized(guest)) == int(own)
    content = laboratory.handle.read_file("/sysprep/sysprep.inf")
    answer = Inf.parse(content)
    assert answer.get("UserData", "ComputerName") == "vm1"
    assert answer.get("UserData", "ProductKey") == KEY
    if own:
        assert content.decode("utf-16").startswith(text)
    commands = laboratory.handle.read_file("/sysprep/i386/$OEM$/cmdlines.txt").decode()
    lines = [f'"{command}"' for command in first_boot.legacy_commands(inspection.facts(guest))]
    assert commands.split("\r\n") == ["[Commands]", *lines, ""]
