"""sysprep.inf and CmdLines.txt: what changes in them, and that all else stays byte for byte."""

from __future__ import annotations

import codecs
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import ConfigError, GuestError, InvalidValueError, TaskError
from snf_core.image.customization import Customization
from snf_core.image.properties import Properties
from snf_os_windows import first_boot, inspection, sysprep
from snf_os_windows.inf import LIMIT, Inf
from tests.fakes.guest import FakeGuest, link

if TYPE_CHECKING:
    from collections.abc import Mapping

OWN = (
    "; made by hand\r\n[GuiUnattended]\r\n    EncryptedAdminPassword=NO ; a word\r\n"
    '    AdminPassword=\r\n    TimeZone = 85\r\n\r\n[UserData]\r\n\tComputerName="old"\r\n'
    "[Networking]\r\n"
)


def changed(text: str, section: str, key: str, value: str) -> str:
    answer = Inf.parse(text.encode())
    answer.set(section, key, value)
    return answer.serialize().decode()


class TestInf:
    def test_in_place(self) -> None:
        assert changed(OWN, "userdata", "COMPUTERNAME", "vm1") == OWN.replace(
            '\tComputerName="old"', "COMPUTERNAME=vm1"
        )

    def test_key_is_not_the_end_of_another(self) -> None:
        assert changed(OWN, "GuiUnattended", "AdminPassword", '"x"') == OWN.replace(
            "    AdminPassword=", 'AdminPassword="x"'
        )
        without = OWN.replace("    AdminPassword=\r\n", "")
        assert changed(without, "GuiUnattended", "AdminPassword", '"x"') == without.replace(
            "TimeZone = 85\r\n", 'TimeZone = 85\r\nAdminPassword="x"\r\n'
        )

    def test_missing_key_goes_into_its_section_and_no_other(self) -> None:
        after = changed(OWN, "UserData", "ProductKey", "K")
        assert after == OWN.replace('"old"\r\n', '"old"\r\nProductKey=K\r\n')
        after = changed(OWN, "Networking", "InstallDefaultComponents", "Yes")
        assert after == OWN + "InstallDefaultComponents=Yes\r\n"

    def test_missing_section(self) -> None:
        assert changed(OWN, "Unattended", "A", "b") == OWN + "[Unattended]\r\nA=b\r\n"
        assert changed("[a]\nb=c", "d", "e", "f") == "[a]\nb=c\n[d]\ne=f\n"
        assert changed("", "d", "e", "f") == "[d]\r\ne=f\r\n"
        assert changed("[d]", "d", "e", "f") == "[d]\ne=f\n"
        assert changed("[d]\nx=y", "d", "e", "f") == "[d]\nx=y\ne=f\n"

    def test_section_that_is_there_twice(self) -> None:
        text = "[a]\nb=c\n[x]\n[A]\nd=e\n"
        assert changed(text, "a", "d", "f") == "[a]\nb=c\n[x]\n[A]\nd=f\n"
        assert changed(text, "a", "n", "f") == "[a]\nb=c\nn=f\n[x]\n[A]\nd=e\n"

    def test_comments_state_nothing(self) -> None:
        assert Inf.parse(b"[a]\n;b=c\n ; b=d\n").get("a", "b") is None
        assert Inf.parse(b'[a]\nb = "c ; d" ; e\nf=g ; h\n').get("a", "b") == "c ; d"
        assert Inf.parse(b'[a]\nb = "c ; d" ; e\nf=g ; h\n').get("A", "F") == "g"
        assert Inf.parse(b"[a]\nb=\n").get("a", "b") == ""

    @pytest.mark.parametrize(
        ("mark", "encoding"),
        [(codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF8, "utf-8"), (b"", "cp1253")],
    )
    def test_encoding_is_kept(self, mark: bytes, encoding: str) -> None:
        text = '[UserData]\r\nFullName="Γιώργος"\r\n'
        answer = Inf.parse(mark + text.encode(encoding))
        assert answer.serialize() == mark + text.encode(encoding)
        answer.set("UserData", "ComputerName", "vm1")
        assert answer.serialize() == mark + (text + "ComputerName=vm1\r\n").encode(encoding)

    @pytest.mark.parametrize(
        "content",
        [
            b"\0",
            b"[a]\0",
            b"\xff\xfe\x00",
            b"\xff\xfe\x00\xd8",
            b"\xef\xbb\xbf\xff",
            b" " * LIMIT + b" ",
        ],
    )
    def test_no_text(self, content: bytes) -> None:
        with pytest.raises(InvalidValueError, match=r"^x is"):
            Inf.parse(content, "x")

    @pytest.mark.parametrize("value", ["a\nb", "a\rb", "ä", "\0", "a\x85b"])
    def test_values_that_would_break_the_file(self, value: str) -> None:
        answer = Inf.parse(b"[a]\n")
        with pytest.raises(InvalidValueError, match="cannot hold"):
            answer.set("a", "b", value)
        with pytest.raises(InvalidValueError, match="cannot hold"):
            answer.add_line("a", value)
        assert answer.serialize() == b"[a]\n"


NAMES = st.sampled_from(["a", "A", "aa", "b", "Ba"])
LINES = st.lists(
    st.one_of(
        st.sampled_from(["", "; x", " ;a=b", "[", "junk", "=", "a"]),
        NAMES.map(lambda name: f"[{name}]"),
        st.tuples(NAMES, NAMES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    ),
    max_size=12,
)


@given(LINES, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.tuples(NAMES, NAMES, NAMES))
def test_one_line_changes(
    lines: list[str], end: str, ended: bool, setting: tuple[str, str, str]
) -> None:
    section, key, value = setting
    text = end.join(lines) + (end if ended and lines else "")
    before = Inf.parse(text.encode("utf-8"))
    assert before.serialize() == text.encode()
    after = Inf.parse(changed(text, section, key, value).encode())
    assert after.get(section, key) == value
    for other in before.sections():
        for name in ("a", "aa", "b", "ba"):
            if (other, name) != (section.lower(), key.lower()):
                assert after.get(other, name) == before.get(other, name)
    old, new = text.splitlines(), after.serialize().decode().splitlines()
    made = 0 if before.get(section, key) is not None else 1
    made += 0 if section.lower() in before.sections() else 1
    assert len(new) == len(old) + made
    assert len([line for line in new if line not in old]) <= 2
    again = changed(after.serialize().decode(), section, key, value)
    assert again == after.serialize().decode()


FACTS = inspection.Facts(
    (5, 1), 2600, "Microsoft Windows XP", "", "x86", "ControlSet001", powershell=False
)
CONF = SimpleNamespace(answer_file="", time_zone="GMT Standard Time")
I386 = "/sysprep/i386/$OEM$/CmdLines.txt"


def guest_with(files: Mapping[str, Any], facts: inspection.Facts = FACTS) -> FakeGuest:
    guest = FakeGuest.mounted({"/Windows/system32/config/SYSTEM": "", **files})
    inspection._facts[guest] = facts
    return guest


def install(guest: FakeGuest, conf: Any = CONF, **fields: Any) -> list[str]:
    fields = {"hostname": "vm1", "properties": Properties(), **fields}
    return list(sysprep.InstallUnattend(conf).run(guest, Customization(**fields)))


class TestInstallUnattend:
    def test_built_in(self) -> None:
        """An image without a file gets one, and what comes after finds it."""
        guest = guest_with({})
        assert install(guest, product_key="AAAAA-BBBBB-CCCCC-DDDDD-EEEEE") == []
        answer = Inf.parse((guest.read(sysprep.PATH) or "").encode())
        assert answer.get("GuiUnattended", "TimeZone") == "085"
        assert answer.get("Unattended", "InstallFilesPath") == "C:\\sysprep\\i386"
        assert answer.get("UserData", "ComputerName") == "*"
        assert answer.get("UserData", "ProductKey") == "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"
        assert answer.get("GuiUnattended", "AdminPassword") is None
        first, second = first_boot.legacy_commands(FACTS)
        assert guest.read(I386) == f'[Commands]\r\n"{first}"\r\n"{second}"\r\n'
        assert first_boot.installed(guest)

    def test_the_images_own_is_used(self) -> None:
        guest = guest_with({sysprep.PATH: OWN})
        warnings = install(guest)
        assert len(warnings) == 1
        assert "which the image brought" in warnings[0]
        assert guest.read(sysprep.PATH) == OWN + (
            "[Unattended]\r\nInstallFilesPath=C:\\sysprep\\i386\r\n"
        )

    def test_the_images_own_is_ignored(self, tmp_path: Any) -> None:
        theirs, ours = "[UserData]\r\nFullName=t\r\n", "[UserData]\r\nFullName=o\r\n"
        (tmp_path / "o.inf").write_text(ours)
        operators = SimpleNamespace(answer_file=str(tmp_path / "o.inf"), time_zone="x")
        yes = Properties({"IGNORE_UNATTEND": "yes"})
        no = Properties({"IGNORE_UNATTEND": "no"})
        for conf, fields, start, said in (
            (CONF, {"properties": yes}, "[Unattended]", 0),
            (CONF, {"answer_file": theirs.encode()}, theirs, 0),
            (CONF, {"answer_file": theirs.encode(), "properties": no}, OWN, 2),
            (operators, {"properties": yes}, ours, 0),
            (operators, {"properties": yes, "answer_file": theirs.encode()}, ours, 1),
            (operators, {"answer_file": theirs.encode()}, OWN, 2),
        ):
            guest = guest_with({sysprep.PATH: OWN})
            assert len(install(guest, conf, **fields)) == said
            assert (guest.read(sysprep.PATH) or "").startswith(start)

    def test_operators_file(self, tmp_path: Any) -> None:
        missing = SimpleNamespace(answer_file=str(tmp_path / "o.inf"), time_zone="x")
        with pytest.raises(ConfigError, match="cannot be read"):
            sysprep.InstallUnattend(missing)
        (tmp_path / "o.inf").write_text("<unattend/>")
        with pytest.raises(ConfigError, match="has no section"):
            sysprep.InstallUnattend(missing)

    def test_xml_from_the_tenant(self) -> None:
        with pytest.raises(InvalidValueError, match="os_answer_file has no section"):
            install(guest_with({}), answer_file=b"<unattend/>")

    @pytest.mark.parametrize("path", ["c:\\SYSPREP\\I386\\", "C:\\sysprep\\my files\\x"])
    def test_commands_go_where_the_file_says(self, path: str) -> None:
        guest = guest_with({sysprep.PATH: f"[Unattended]\r\nInstallFilesPath = {path}\r\n"})
        install(guest)
        directory = path.rstrip("\\")[2:].replace("\\", "/")
        assert "[Commands]" in (guest.read(f"{directory}/$OEM$/CmdLines.txt") or "")

    @pytest.mark.parametrize(
        "path",
        [
            "C:\\Windows\\system32",
            "C:\\sysprep",
            "C:\\sysprepx\\i386",
            "C:\\sysprep\\..\\Windows",
            "C:\\sysprep\\.. \\x",
            "C:\\sysprep\\a/../../x",
            "C:\\sysprep\\a:b",
            "C:\\sysprep\\\\x",
            "D:\\sysprep\\i386",
            "sysprep\\i386",
            "\\\\server\\sysprep\\i386",
        ],
    )
    def test_commands_stay_in_sysprep(self, path: str) -> None:
        guest = guest_with({sysprep.PATH: f"[Unattended]\r\nInstallFilesPath={path}\r\n"})
        with pytest.raises(InvalidValueError, match="is not below"):
            install(guest)
        assert not first_boot.installed(guest)

    def test_links_lead_nowhere(self) -> None:
        guest = guest_with({"/sysprep/i386": link("/Windows"), sysprep.PATH: OWN})
        with pytest.raises(GuestError, match=r"nothing is written through it|not a directory"):
            install(guest)
        assert guest.list("/Windows/$OEM$") == []

    def test_commands_are_there_once(self) -> None:
        present = '[commands]\n"a.exe"\n'
        guest = guest_with({I386: present})
        install(guest)
        once = guest.read(I386) or ""
        assert once.startswith(present)
        assert once.lower().count("[commands]") == 1
        install(guest)
        assert guest.read(I386) == once

    def test_image_without_mini_setup(self) -> None:
        from dataclasses import replace

        guest = guest_with({}, replace(FACTS, mini_setup=False))
        with pytest.raises(GuestError, match="sysprep"):
            install(guest)
        assert guest.read(sysprep.PATH) is None


class TestPassword:
    def set(self, text: str, password: str = "a b%&") -> str:
        guest = guest_with({sysprep.PATH: text})
        assert sysprep.set_admin_password(guest, password, ["Administrator"]) == []
        return guest.read(sysprep.PATH) or ""

    def test_empty_or_missing(self) -> None:
        after = self.set(OWN)
        assert after == OWN.replace("    AdminPassword=", 'AdminPassword="a b%&"').replace(
            "    EncryptedAdminPassword=NO ; a word", "EncryptedAdminPassword=No"
        )
        assert self.set("[x]\n") == (
            '[x]\n[GuiUnattended]\nAdminPassword="a b%&"\nEncryptedAdminPassword=No\n'
        )
        assert 'AdminPassword="a b%&"' in self.set('[GuiUnattended]\nAdminPassword=""\n')

    def test_stated(self) -> None:
        text = "[GuiUnattended]\nAdminPassword=secret\n"
        assert self.set(text) == text

    @pytest.mark.parametrize(
        ("stated", "users", "off"),
        [
            ("AdminPassword=secret\n", ["bob", "ADMINISTRATOR"], True),
            # the image's password, which nothing replaces
            ("AdminPassword=secret\n", ["bob"], False),
            # the given one, which would be left in the registry
            ("", ["bob"], True),
        ],
    )
    def test_nobody_is_logged_on(self, stated: str, users: list[str], off: bool) -> None:
        text = f"[GuiUnattended]\nAutoLogon=Yes\nAutoLogonCount=3\n{stated}"
        guest = guest_with({sysprep.PATH: text})
        warnings = sysprep.set_admin_password(guest, "given", users)
        after = guest.read(sysprep.PATH) or ""
        assert ["AutoLogon" in warning for warning in warnings] == [True] * off
        assert not any(word in "".join(warnings) for word in ("secret", "given"))
        assert ("AutoLogon=No\n" in after) == off
        assert stated in after
        assert sysprep.set_admin_password(guest, "given", users) == []
        assert guest.read(sysprep.PATH) == after

    @pytest.mark.parametrize("password", ['a"b', "ä", "a\nb"])
    def test_cannot_be_said(self, password: str) -> None:
        with pytest.raises(InvalidValueError, match="cannot be given this password") as caught:
            self.set(OWN, password)
        assert password not in str(caught.value)

    def test_no_file(self) -> None:
        with pytest.raises(TaskError, match="has no /sysprep"):
            sysprep.set_admin_password(guest_with({}), "a", [])
