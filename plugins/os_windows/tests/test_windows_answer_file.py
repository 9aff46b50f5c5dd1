"""InstallUnattend since Vista: which file counts, where it goes, and what must not win."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.errors import ConfigError, GuestError, InvalidValueError
from snf_core.image.customization import Customization
from snf_core.image.properties import Properties
from snf_core.image.registry import Value
from snf_os_windows import answer_file, first_boot, inspection, paths, template
from snf_os_windows.answer_file import COPIES, EXPECTED, INSTALLED, SEARCHED, InstallUnattend
from snf_os_windows.unattend import LIMIT, SHELL_SETUP, AnswerFile
from tests import answer_files
from tests.fakes.guest import FakeGuest, link

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FACTS = inspection.Facts(
    (10, 0),
    20348,
    "Windows Server 2022 Datacenter",
    "ServerDatacenter",
    "amd64",
    "ControlSet001",
    "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE",
    "Server",
    time_zones=("GMT Standard Time", "GTB Standard Time"),
)
CONF = SimpleNamespace(answer_file="", time_zone="GTB Standard Time")
YES, NO = Properties({"IGNORE_UNATTEND": "yes"}), Properties({"IGNORE_UNATTEND": "no"})
KEY = "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"


def named(owner: str, **attributes: str) -> str:
    """An answer file that tells whose it is."""
    answer = AnswerFile.blank()
    answer.set_value("specialize", SHELL_SETUP, ["RegisteredOwner"], owner, "amd64")
    text = answer.serialize().decode()
    for name, value in attributes.items():
        text = text.replace("<settings", f'<settings {name}="{value}"')
    return text


def guest_with(
    files: Mapping[str, Any] | None = None, facts: inspection.Facts = FACTS, pointer: str = ""
) -> FakeGuest:
    guest = FakeGuest.mounted({"/Windows/explorer.exe": "", **(files or {})})
    key = {"UnattendFile": Value.expandable(pointer)} if pointer else {}
    guest.hives = {paths.SYSTEM_HIVE: {"Setup": key}}
    inspection._facts[guest] = replace(facts, answer_file=pointer)
    return guest


def install(guest: FakeGuest, conf: Any = CONF, **fields: Any) -> list[str]:
    fields = {"hostname": "vm1", "properties": Properties(), **fields}
    return list(InstallUnattend(conf).run(guest, Customization(**fields)))


def installed(guest: FakeGuest, arch: str = "amd64") -> AnswerFile:
    """What Windows will read, which is the same in both places, and calls the first boot."""
    contents = [(guest.read(path) or "").encode() for path in COPIES]
    assert contents[0] == contents[1]
    answer_files.check(contents[0])
    answer = AnswerFile.parse(contents[0])
    assert answer.commands(arch).count(first_boot.specialize_command(FACTS)) == 1
    assert first_boot.installed(guest)
    assert answer_file.find(guest) == INSTALLED
    return answer


def owner(guest: FakeGuest) -> str | None:
    return installed(guest).value("specialize", SHELL_SETUP, ["RegisteredOwner"], "amd64")


class TestWhoseFileCounts:
    @pytest.fixture
    def operators(self, tmp_path: Path) -> Any:
        (tmp_path / "o.xml").write_text(named("operator"))
        return SimpleNamespace(answer_file=str(tmp_path / "o.xml"), time_zone="GTB Standard Time")

    @pytest.mark.parametrize(
        ("given", "properties", "expected", "warned"),
        [
            ("", Properties(), None, 0),
            ("tenant", Properties(), "tenant", 0),
            ("operator", Properties(), "operator", 0),
            ("operator tenant", Properties(), "operator", 1),
            ("image", Properties(), "image", 1),
            ("image operator", Properties(), "image", 1),
            ("image operator tenant", Properties(), "image", 2),
            # a tenant's file takes the place of the image's
            ("image tenant", Properties(), "tenant", 0),
            # unless the property says otherwise
            ("image tenant", NO, "image", 2),
            ("image", NO, "image", 1),
            ("image", YES, None, 0),
            ("image tenant", YES, "tenant", 0),
            ("image operator", YES, "operator", 0),
            ("image operator tenant", YES, "operator", 1),
        ],
    )
    def test_precedence(
        self, given: str, properties: Properties, expected: str | None, warned: int, operators: Any
    ) -> None:
        guest = guest_with({"/unattend.xml": named("image")} if "image" in given else {})
        tenants = named("tenant").encode() if "tenant" in given else b""
        conf = operators if "operator" in given else CONF
        warnings = install(guest, conf, answer_file=tenants, properties=properties)
        assert owner(guest) == expected
        assert len(warnings) == warned
        if tenants and expected != "tenant":
            assert "os_answer_file is not used" in warnings[-1]

    def test_not_a_boolean(self) -> None:
        with pytest.raises(InvalidValueError, match="IGNORE_UNATTEND"):
            install(guest_with(), properties=Properties({"IGNORE_UNATTEND": "maybe"}))

    def test_broken_files(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidValueError, match="os_answer_file is not XML"):
            install(guest_with(), answer_file=b"<")
        with pytest.raises(InvalidValueError, match=r"^/unattend.xml is not XML"):
            install(guest_with({"/unattend.xml": ""}))
        guest = guest_with({"/unattend.xml": "<"})
        with pytest.raises(InvalidValueError, match=r"^/unattend.xml is not XML") as caught:
            install(guest)
        assert "IGNORE_UNATTEND" in caught.value.remedy
        assert not first_boot.installed(guest)
        assert install(guest, properties=YES) == []
        conf = SimpleNamespace(answer_file=str(tmp_path / "o.xml"), time_zone="UTC")
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            InstallUnattend(conf)
        (tmp_path / "o.xml").write_bytes(b"")
        with pytest.raises(ConfigError, match="is not XML"):
            InstallUnattend(conf)
        (tmp_path / "o.xml").write_bytes(b" " * (LIMIT + 1))
        with pytest.raises(ConfigError, match="is larger than"):
            InstallUnattend(conf)


class TestPlaces:
    @pytest.mark.parametrize("index", range(len(SEARCHED)))
    def test_order(self, index: int) -> None:
        files = {path: named(path) for path in SEARCHED[index:]}
        guest = guest_with(files)
        assert answer_file.find(guest) == SEARCHED[index]
        assert len(install(guest)) == 1
        assert owner(guest) == SEARCHED[index]
        assert [path for path in SEARCHED if guest.status(path)] == [*COPIES]

    def test_none(self) -> None:
        assert answer_file.find(guest_with()) is None

    @pytest.mark.parametrize("name", ["unattend.xml", "autounattend.xml"])
    def test_record_of_an_earlier_setup(self, name: str) -> None:
        """Templates that were installed with an answer file have one, with holes for secrets."""
        record = named("record", wasPassProcessed="true")
        guest = guest_with({f"/Windows/Panther/{name}": record})
        assert answer_file.find(guest) is None
        assert install(guest) == []
        assert owner(guest) is None
        guest = guest_with({f"/Windows/Panther/{name}": record, EXPECTED: named("image")})
        install(guest)
        assert owner(guest) == "image"

    @pytest.mark.parametrize(
        "pointer", ["C:\\my\\a.xml", "c:/my/a.xml", "%SystemDrive%\\my\\a.xml"]
    )
    def test_registry_names_one(self, pointer: str) -> None:
        guest = guest_with({"/my/a.xml": named("my"), INSTALLED: named("image")}, pointer=pointer)
        assert answer_file.find(guest) == "/my/a.xml"
        install(guest)
        assert owner(guest) == "my"
        [(name, value)] = guest.hives[paths.SYSTEM_HIVE]["Setup"].items()
        assert (name, value.text) == (
            "UnattendFile",
            "C:\\Windows\\Panther\\Unattend\\unattend.xml",
        )

    @pytest.mark.parametrize(
        "pointer", ["D:\\a.xml", "C:\\..\\a.xml", "\\\\server\\a.xml", "C:\\gone.xml", "?"]
    )
    def test_registry_names_one_that_is_not_there(self, pointer: str) -> None:
        guest = guest_with({EXPECTED: named("image"), "/a.xml": named("a")}, pointer=pointer)
        install(guest)
        assert owner(guest) == "image"

    def test_links_are_not_followed(self) -> None:
        guest = guest_with({EXPECTED: link("/victim"), "/victim": named("victim")})
        install(guest)
        assert owner(guest) is None
        assert guest.read("/victim") == named("victim")

    def test_again(self) -> None:
        guest = guest_with()
        install(guest, product_key=KEY)
        before = guest.read(INSTALLED)
        install(guest, product_key=KEY)
        assert guest.read(INSTALLED) == before


class TestBuiltIn:
    def test_with_a_password(self) -> None:
        guest = guest_with()
        assert install(guest, password="p", product_key=KEY) == []
        answer = installed(guest)
        assert answer.value("specialize", SHELL_SETUP, ["TimeZone"], "amd64") == CONF.time_zone
        assert answer.value("specialize", SHELL_SETUP, ["ProductKey"], "amd64") == KEY
        assert template.ACCOUNT_EXISTS in answer.commands("amd64")

    @pytest.mark.parametrize("password", ["", "p"])
    def test_without_a_password_the_console_asks(self, password: str) -> None:
        guest = guest_with()
        excluded = Properties({"EXCLUDE_TASK_CHANGEPASSWORD": "yes"})
        install(guest, password=password, properties=excluded if password else Properties())
        answer = installed(guest)
        path = ["OOBE", "HideLocalAccountScreen"]
        assert answer.value("oobeSystem", SHELL_SETUP, path, "amd64") is None
        assert template.ACCOUNT_EXISTS not in answer.commands("amd64")

    @pytest.mark.parametrize(
        ("languages", "expected"),
        [((), "en-US"), (("de-DE",), "de-DE"), (("el-GR", "en-US"), "en-US")],
    )
    def test_language_of_the_image(self, languages: tuple[str, ...], expected: str) -> None:
        guest = guest_with(facts=replace(FACTS, languages=languages))
        install(guest)
        answer = installed(guest)
        found = answer.value("oobeSystem", template.INTERNATIONAL, ["UILanguage"], "amd64")
        assert found == expected

    def test_time_zone_that_the_image_does_not_know(self) -> None:
        """Windows would stop at the first boot: zones come with updates."""
        guest = guest_with()
        conf = SimpleNamespace(answer_file="", time_zone="Manitoba Standard Time")
        warnings = install(guest, conf)
        assert len(warnings) == 1
        assert "Manitoba Standard Time" in warnings[0]
        found = installed(guest).value("specialize", SHELL_SETUP, ["TimeZone"], "amd64")
        assert found == "GMT Standard Time"

    @pytest.mark.parametrize("arch", ["x86", "arm64"])
    def test_architecture(self, arch: str) -> None:
        guest = guest_with(facts=replace(FACTS, architecture=arch))
        install(guest)
        assert (
            installed(guest, arch).value("specialize", SHELL_SETUP, ["ComputerName"], arch) == "*"
        )
        assert "amd64" not in (guest.read(INSTALLED) or "")


def test_image_that_was_not_generalised() -> None:
    guest = guest_with(facts=replace(FACTS, image_state="IMAGE_STATE_COMPLETE"))
    with pytest.raises(GuestError, match="not generalised"):
        install(guest)
    assert not first_boot.installed(guest)


OWN = named("image").replace(
    "</settings>",
    f'</settings><settings pass="oobeSystem"><component name="{SHELL_SETUP}" '
    'processorArchitecture="amd64" publicKeyToken="31bf3856ad364e35" language="neutral" '
    'versionScope="nonSxS"><UserAccounts><AdministratorPassword><Value>Template1!</Value>'
    "</AdministratorPassword></UserAccounts></component></settings>",
)


class TestPasswords:
    def test_in_both_copies(self) -> None:
        guest = guest_with({EXPECTED: OWN})
        install(guest)
        [warning] = answer_file.withdraw_passwords(guest, ["administrator"])
        assert "AdministratorPassword" in warning
        answer = installed(guest)
        assert "Template1!" not in (guest.read(INSTALLED) or "")
        # Without a password in the file, Windows would ask for one, in front of nobody.
        hidden = answer.value(
            "oobeSystem", SHELL_SETUP, ["OOBE", "HideLocalAccountScreen"], "amd64"
        )
        assert hidden == "true"
        assert template.ACCOUNT_EXISTS in answer.commands("amd64")
        before = guest.read(INSTALLED)
        assert answer_file.withdraw_passwords(guest, ["administrator"]) == []
        assert guest.read(INSTALLED) == before

    def test_of_others_nothing_changes(self) -> None:
        guest = guest_with({EXPECTED: OWN})
        assert answer_file.withdraw_passwords(guest, ["bob"]) == []
        assert guest.read(EXPECTED) == OWN

    def test_no_file(self) -> None:
        assert answer_file.withdraw_passwords(guest_with(), ["Administrator"]) == []

    def test_clients_know_no_such_page(self) -> None:
        guest = guest_with({EXPECTED: OWN}, replace(FACTS, installation_type="Client"))
        install(guest)
        answer_file.withdraw_passwords(guest, ["Administrator"])
        answer = installed(guest)
        assert template.ACCOUNT_EXISTS in answer.commands("amd64")
        assert "HideLocalAccountScreen" not in (guest.read(INSTALLED) or "")


def test_local_accounts() -> None:
    assert answer_file.local_accounts(guest_with()) == ()
    text = named("image").replace(
        "</settings>",
        f'</settings><settings pass="oobeSystem"><component name="{SHELL_SETUP}" '
        'processorArchitecture="amd64"><UserAccounts><LocalAccounts><LocalAccount>'
        "<Name>ann</Name></LocalAccount></LocalAccounts></UserAccounts></component></settings>",
    )
    assert answer_file.local_accounts(guest_with({EXPECTED: text})) == ("ann",)
