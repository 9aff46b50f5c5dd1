"""Answer files since Vista: what is refused, what changes, and that all else stays."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from snf_core.errors import InvalidValueError
from snf_os_windows import template
from snf_os_windows.inspection import Facts
from snf_os_windows.unattend import DEPLOYMENT, LIMIT, SHELL_SETUP, AnswerFile
from tests import answer_files

U = "urn:schemas-microsoft-com:unattend"
W = "http://schemas.microsoft.com/WMIConfig/2002/State"
ATTRIBUTES = 'publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS"'
COMMAND = r"C:\Windows\SnfScripts\run.cmd"


def component(name: str, content: str, arch: str = "amd64") -> str:
    attributes = f'name="{name}" processorArchitecture="{arch}" {ATTRIBUTES}'
    return f"<component {attributes}>{content}</component>"


def settings(setup_pass: str, *components: str) -> str:
    return f'<settings pass="{setup_pass}">{"".join(components)}</settings>'


def answers(*content: str) -> bytes:
    return f'<unattend xmlns="{U}" xmlns:wcm="{W}">{"".join(content)}</unattend>'.encode()


def command(order: str, path: str = "a.exe") -> str:
    return (
        f'<RunSynchronousCommand wcm:action="add"><Order>{order}</Order><Path>{path}</Path>'
        "</RunSynchronousCommand>"
    )


def commands(*content: str) -> str:
    return component(DEPLOYMENT, f"<RunSynchronous>{''.join(content)}</RunSynchronous>")


def changed(content: bytes, arch: str = "amd64") -> bytes:
    """A file after all that deployments change in one."""
    answer = AnswerFile.parse(content)
    answer.set_computer_name("vm1", arch)
    answer.set_product_key("AAAAA-BBBBB-CCCCC-DDDDD-EEEEE", arch)
    answer.set_time_zone("GTB Standard Time", arch)
    answer.run_in_specialize(COMMAND, "Set up", arch)
    return answer.serialize()


STYLES = {
    "default namespace": answers(settings("specialize", component(SHELL_SETUP, ""))),
    "prefix": (
        f'<x:unattend xmlns:x="{U}"><x:settings pass="specialize"><x:component '
        f'name="{SHELL_SETUP}" processorArchitecture="amd64" {ATTRIBUTES}>'
        "<x:ComputerName>old</x:ComputerName></x:component></x:settings></x:unattend>"
    ).encode(),
    "namespace at each component": (
        f'<unattend xmlns="{U}"><settings pass="specialize"><component name="{DEPLOYMENT}" '
        f'xmlns:other="{W}" processorArchitecture="AMD64" {ATTRIBUTES}><RunSynchronous>'
        '<RunSynchronousCommand other:action="add"><Order>7</Order><Path>a</Path>'
        "</RunSynchronousCommand></RunSynchronous></component></settings></unattend>"
    ).encode(),
    "nothing": answers(),
    "other architecture": answers(
        settings("specialize", component(SHELL_SETUP, "<ComputerName>x</ComputerName>", "x86"))
    ),
    "utf-16": f'<?xml version="1.0" encoding="utf-16"?><unattend xmlns="{U}"/>'.encode("utf-16"),
    "latin-1": (
        f'<?xml version="1.0" encoding="iso-8859-1"?><unattend xmlns="{U}">'
        + settings("specialize", component(SHELL_SETUP, "<RegisteredOwner>ö</RegisteredOwner>"))
        + "</unattend>"
    ).encode("latin-1"),
    "generator's extensions": answers(
        settings("specialize"),
        '<Extensions xmlns="https://example.org/"><settings pass="specialize"/></Extensions>',
    ),
}


@pytest.mark.parametrize("style", STYLES)
def test_changes_in_any_style(style: str) -> None:
    content = changed(STYLES[style])
    answer_files.check(content)
    answer = AnswerFile.parse(content)
    for name, value in (
        ("ComputerName", "vm1"),
        ("ProductKey", "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"),
        ("TimeZone", "GTB Standard Time"),
    ):
        assert answer.value("specialize", SHELL_SETUP, [name], "amd64") == value
        assert content.count(f"{name}>{value}<".encode()) == 1
    assert answer.commands("amd64").count(COMMAND) == 1
    assert changed(content) == content


def test_what_is_not_changed_stays() -> None:
    before = (
        f'<?xml version="1.0" encoding="utf-8"?>\r\n<!-- made by hand -->\r\n'
        f'<u:unattend xmlns:u="{U}" xmlns:c="{W}">\r\n'
        '\t<u:settings pass="specialize">\r\n'
        f'\t\t<u:component versionScope="nonSxS" name="{SHELL_SETUP}" language="neutral" '
        'processorArchitecture="amd64" publicKeyToken="31bf3856ad364e35">\r\n'
        "\t\t\t<!-- the owner &amp; others -->\r\n"
        "\t\t\t<u:RegisteredOwner>Jörg &lt;j&gt; 機</u:RegisteredOwner>\r\n"
        "\t\t\t<u:ComputerName><!-- any -->*</u:ComputerName>\r\n"
        "\t\t</u:component>\r\n"
        "\t</u:settings>\r\n"
        "</u:unattend>\r\n"
    )
    answer = AnswerFile.parse(before.encode())
    assert answer.serialize().decode() == before
    answer.set_computer_name("vm1", "amd64")
    answer.set_time_zone("UTC", "AMD64")
    after = answer.serialize().decode()
    assert after == before.replace("<!-- any -->*", "vm1").replace(
        "</u:ComputerName>\r\n",
        "</u:ComputerName>\r\n\t\t\t<u:TimeZone>UTC</u:TimeZone>\r\n",
    )


def test_other_architecture_is_left_alone() -> None:
    content = changed(STYLES["other architecture"])
    answer = AnswerFile.parse(content)
    assert answer.value("specialize", SHELL_SETUP, ["ComputerName"], "x86") == "x"
    assert answer.commands("x86") == []
    assert answer.value("specialize", SHELL_SETUP, ["ProductKey"], "x86") is None


class TestCommands:
    def test_first(self) -> None:
        text = changed(answers()).decode()
        assert "<Order>1</Order>" in text
        assert 'wcm:action="add"' in text
        assert text.count("<RunSynchronousCommand") == 1  # and no empty one

    @pytest.mark.parametrize(
        ("taken", "order"), [(["1"], 2), (["3", "7"], 8), (["500"], 499), (["2", "500"], 499)]
    )
    def test_next_free_order(self, taken: list[str], order: int) -> None:
        content = answers(settings("specialize", commands(*map(command, taken))))
        after = changed(content)
        answer_files.check(after)
        assert f"<Order>{order}</Order>" in after.decode()

    def test_no_order_is_free(self) -> None:
        content = answers(
            settings("specialize", commands(*(command(f"{n + 1}") for n in range(500))))
        )
        with pytest.raises(InvalidValueError, match="no room"):
            changed(content)

    def test_present_in_another_case(self) -> None:
        content = answers(settings("specialize", commands(command("4", COMMAND.upper()))))
        assert AnswerFile.parse(changed(content)).commands("amd64") == [COMMAND.upper()]


OLD = "Template1!"


def password(name: str = "Password") -> str:
    return f"<{name}><Value>{OLD}</Value><PlainText>true</PlainText></{name}>"


def account(name: str, action: str = "add", content: str = "") -> str:
    return f'<LocalAccount wcm:action="{action}"><Name>{name}</Name>{content}</LocalAccount>'


def accounts(*content: str, administrator: bool = False) -> str:
    local = f"<LocalAccounts>{''.join(content)}</LocalAccounts>" if content else ""
    own = password("AdministratorPassword") if administrator else ""
    return f"<UserAccounts>{own}{local}</UserAccounts>"


def logon(name: str, more: str = "") -> str:
    return f"<AutoLogon><Username>{name}</Username>{more}{password()}</AutoLogon>"


def shell(*content: str, setup_pass: str = "oobeSystem", arch: str = "amd64") -> str:
    return settings(setup_pass, component(SHELL_SETUP, "".join(content), arch))


class TestPasswords:
    """Those that Windows would set after the first boot has set the given one."""

    def withdrawn(
        self, content: bytes, *users: str, present: tuple[str, ...] = ()
    ) -> tuple[list[str], str]:
        """What is said of the changes, and the file after them."""
        answer = AnswerFile.parse(content)
        present = ("Administrateur", *present)
        said = answer.withdraw_passwords(users, present=present, administrator="Administrateur")
        after = answer.serialize()
        answer_files.check(after)
        AnswerFile.parse(after)
        assert OLD not in "".join(said)
        return said, after.decode()

    def test_nobody_concerned(self) -> None:
        content = answers(
            shell(accounts(account("ann", content=password()), administrator=True), logon("ann"))
        )
        assert self.withdrawn(content, "bob", present=("bob",)) == (
            [],
            AnswerFile.parse(content).serialize().decode(),
        )

    def test_administrator_in_every_pass_and_for_every_architecture(self) -> None:
        both = [
            component(SHELL_SETUP, accounts(administrator=True) + logon("Administrateur"), arch)
            for arch in ("amd64", "X86")
        ]
        content = answers(settings("oobeSystem", *both), settings("auditSystem", *both))
        content = content.replace(
            b"Microsoft-Windows-Shell-Setup", b"microsoft-windows-SHELL-setup", 1
        )
        said, after = self.withdrawn(content, "ADMINISTRATEUR")
        assert [sentence.split()[0] for sentence in said] == ["AdministratorPassword", "AutoLogon"]
        for name in (OLD, "UserAccounts", "AutoLogon"):
            assert name not in after
        assert after.count("<component") == 4

    @pytest.mark.parametrize("prefix", ["x:", ""])
    def test_any_prefix_and_case(self, prefix: str) -> None:
        names = "userAccounts", "administratorpassword"
        inner = f"<{prefix}Value>{OLD}</{prefix}Value>"
        for name in reversed(names):
            inner = f"<{prefix}{name}>{inner}</{prefix}{name}>"
        content = (
            f'<unattend xmlns="{U}" xmlns:x="{U}">'
            + shell(inner, "<RegisteredOwner>o</RegisteredOwner>")
            + "</unattend>"
        )
        said, after = self.withdrawn(content.encode(), "Administrateur")
        assert len(said) == 1
        assert OLD not in after
        assert "<RegisteredOwner>o</RegisteredOwner>" in after

    def test_account_that_exists(self) -> None:
        """Nothing says what Windows does to the password of one without Password."""
        listed = (
            account("Ann", content=password()),
            account("bob", content=password()),
            account("ANN", "remove"),
        )
        said, after = self.withdrawn(answers(shell(accounts(*listed))), "ann", present=("ann",))
        assert len(said) == 1
        assert said[0].startswith("LocalAccount 'ann' is taken out")
        assert re.findall("<Name>(.*?)</Name>", after) == ["bob", "ANN"]
        said, after = self.withdrawn(
            answers(shell(accounts(account("ann")))), "ann", present=("ann",)
        )
        assert len(said) == 1
        assert "UserAccounts" not in after

    def test_account_that_windows_will_create(self) -> None:
        content = answers(
            shell(accounts(account("Ann", content=password()), account("bob")), logon(".\\ann"))
        )
        seen = set()
        for _ in range(2):
            said, after = self.withdrawn(content, "Ann", "bob")
            assert ["random" in sentence for sentence in said] == [True, False]
            assert said[1].startswith("AutoLogon of 'Ann' is taken out")
            assert "<AutoLogon" not in after
            assert AnswerFile.parse(after.encode()).local_accounts("amd64") == ("Ann", "bob")
            [value] = re.findall("<Value>(.*?)</Value>", after)
            kinds = (r"[a-z]", r"[A-Z]", r"[0-9]", r"[^A-Za-z0-9]")
            assert all(re.search(kind, value) for kind in kinds)
            assert 20 <= len(value) <= 127
            assert after.count("<PlainText>true</PlainText>") == 1
            seen.add(value)
        assert len(seen) == 2
        assert OLD not in seen

    @pytest.mark.parametrize(
        ("name", "more", "gone"),
        [
            ("ann", "", True),
            ("ANN", "<Domain>.</Domain>", True),
            (".\\ann", "<Domain/>", True),
            ("ann", "<Domain>CORP</Domain>", False),
            ("CORP\\ann", "", False),
            ("bann", "", False),
        ],
    )
    def test_whom_it_logs_on(self, name: str, more: str, gone: bool) -> None:
        for setup_pass in ("specialize", "oobeSystem"):
            content = answers(shell(logon(name, more), setup_pass=setup_pass))
            said, after = self.withdrawn(content, "ann")
            assert len(said) == int(gone)
            assert ("AutoLogon" in after) != gone

    def test_what_is_left_stays(self) -> None:
        text = (
            f'<unattend xmlns="{U}" xmlns:wcm="{W}">\n  <settings pass="oobeSystem">\n'
            f'    <component name="{SHELL_SETUP}" processorArchitecture="amd64" {ATTRIBUTES}>\n'
            "      <!-- who -->\n      <UserAccounts>\n"
            "        <LocalAccounts>\n"
            f"          {account('bob', content=password())}\n        </LocalAccounts>\n"
            f"        {password('AdministratorPassword')}\n"
            "      </UserAccounts>\n      <TimeZone>UTC</TimeZone>\n"
            f"      {logon('Administrateur')}\n"
            "    </component>\n  </settings>\n</unattend>"
        )
        _, after = self.withdrawn(text.encode(), "Administrateur")
        expected = text.replace(f"        {password('AdministratorPassword')}\n", "")
        expected = expected.replace(f"      {logon('Administrateur')}\n", "")
        expected = f'<?xml version="1.0" encoding="utf-8"?>\n{expected}\n'
        assert after == expected.replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("value", "opened"), [("false", True), ("0", True), (" False ", True), ("true", False)]
)
def test_remote_desktop_is_not_opened(value: str, opened: bool) -> None:
    name = "Microsoft-Windows-TerminalServices-LocalSessionManager"
    setting = f"<fDenyTSConnections>{value}</fDenyTSConnections>"
    answer = AnswerFile.parse(answers(settings("specialize", component(name, setting, "x86"))))
    assert answer.close_remote_desktop("amd64") is False
    assert answer.close_remote_desktop("x86") is opened
    assert (setting.encode() in answer.serialize()) != opened
    assert answer.close_remote_desktop("x86") is False


def test_local_accounts() -> None:
    inside = "".join([account(" ann "), account("bob", "remove"), account("<!-- x -->Min")])
    shell = f"<UserAccounts><LocalAccounts>{inside}</LocalAccounts></UserAccounts>"
    content = answers(settings("oobeSystem", component(SHELL_SETUP, shell)))
    answer_files.check(changed(content))
    assert AnswerFile.parse(content).local_accounts("amd64") == ("ann", "Min")
    assert AnswerFile.parse(content).local_accounts("x86") == ()
    assert AnswerFile.parse(answers()).local_accounts("amd64") == ()


@pytest.mark.parametrize(
    ("setup_pass", "processed", "record"),
    [
        ("specialize", "true", True),
        ("oobeSystem", "TRUE", True),
        ("windowsPE", "true", False),
        ("specialize", "false", False),
    ],
)
def test_record_of_an_earlier_setup(setup_pass: str, processed: str, record: bool) -> None:
    content = answers(f'<settings pass="{setup_pass}" wasPassProcessed="{processed}"/>')
    assert AnswerFile.parse(content).processed is record


SHELL = component(SHELL_SETUP, "<TimeZone>UTC</TimeZone>")

REFUSED = {
    "nothing": (b"", "not XML"),
    "no XML": (b"[Unattended]\r\n", "not XML"),
    "cut off": (answers(settings("specialize"))[:-9], "not XML"),
    "no namespace": (b"<unattend/>", "line 1: unattend is not the element"),
    "another root": (f'<settings xmlns="{U}"/>'.encode(), "line 1: settings is not"),
    "unknown part": (answers("<component/>"), "component is not expected in unattend"),
    "unknown pass": (answers(settings("specialise")), "'specialise', which is not a pass"),
    "no pass": (answers("<settings/>"), "'', which is not a pass"),
    "pass twice": (
        answers(settings("specialize"), "\n\n", settings("specialize")),
        "line 3: settings for specialize are there twice",
    ),
    "component twice": (
        answers(settings("specialize", SHELL, SHELL.replace("amd64", "AMD64"))),
        f"component {SHELL_SETUP} for AMD64 is there twice in specialize",
    ),
    "no architecture": (
        answers(settings("specialize", f'<component name="{SHELL_SETUP}"/>')),
        "without its name or processorArchitecture",
    ),
    "no component": (answers(settings("specialize", "<OOBE/>")), "OOBE is not expected"),
    "setting twice": (
        answers(settings("specialize", component(SHELL_SETUP, "<TimeZone/>\n<TimeZone/>"))),
        "line 2: TimeZone is there twice in component",
    ),
    "order twice": (
        answers(settings("specialize", commands(command("2"), command("02")))),
        "Order 02 is there twice",
    ),
    "order 0": (answers(settings("specialize", commands(command("0")))), "Order '0' is not"),
    "no order": (answers(settings("specialize", commands(command("x")))), "Order 'x' is not"),
    "huge order": (
        answers(settings("specialize", commands(command("9" * 9999)))),
        "is not a number",
    ),
    "document type": (b"<!DOCTYPE unattend>" + answers(), "document type"),
    "external entity": (
        b'<!DOCTYPE unattend [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
        + answers(settings("specialize", component(SHELL_SETUP, "<TimeZone>&e;</TimeZone>"))),
        "document type",
    ),
    "entities that explode": (
        b'<!DOCTYPE unattend [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(
            f'<!ENTITY {new} "{f"&{old};" * 10}">'.encode()
            for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        )
        + f'<!ATTLIST unattend x CDATA "&i;">]><unattend xmlns="{U}">&i;</unattend>'.encode(),
        "document type|not XML",
    ),
    "document type in UTF-16": (
        f'<!DOCTYPE unattend [<!ENTITY e "x">]><unattend xmlns="{U}"/>'.encode("utf-16"),
        "document type",
    ),
    "too large": (answers(" " * LIMIT), "larger than"),
}


@pytest.mark.parametrize(
    "case", ["unknown pass", "no pass", "pass twice", "setting twice", "order twice", "order 0"]
)
def test_the_schema_refuses_them_too(case: str) -> None:
    """So that what it finds valid says something."""
    content = b'<?xml version="1.0" encoding="utf-8"?>\r\n' + REFUSED[case][0]
    with pytest.raises(etree.DocumentInvalid):
        answer_files.check(content.replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    content, reason = REFUSED[case]
    with pytest.raises(InvalidValueError, match=reason) as caught:
        AnswerFile.parse(content, "C:\\x.xml", remedy="do this")
    assert caught.value.message.startswith("C:\\x.xml")
    assert caught.value.remedy == "do this"


def test_errors_repeat_nothing() -> None:
    secret = component(SHELL_SETUP, "<Password>pa&SECRET;ss</Password>")
    with pytest.raises(InvalidValueError, match="see line 2, column") as caught:
        AnswerFile.parse(answers("\n", settings("specialize", secret)))
    assert "SECRET" not in str(caught.value)


def test_either_spelling_of_the_namespace_of_lists() -> None:
    content = answers(settings("specialize", commands(command("1"), command("2"))))
    AnswerFile.parse(content.replace(W.encode(), W.replace("http:", "https:").encode()))


def test_lists_may_repeat() -> None:
    accounts = f"<LocalAccounts>{account('a')}{account('b')}</LocalAccounts>"
    AnswerFile.parse(
        answers(
            settings("specialize", commands(command("1"), command("2")), SHELL),
            settings(
                "oobeSystem",
                SHELL,
                SHELL.replace("amd64", "x86"),
                component("other", f"<UserAccounts>{accounts}</UserAccounts>"),
            ),
        )
    )


NAMES = st.sampled_from(["ComputerName", "TimeZone", "ProductKey", "RegisteredOwner"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20)


@given(
    present=st.dictionaries(NAMES, TEXTS),
    orders=st.sets(st.integers(1, 500), max_size=5),
    edits=st.lists(st.tuples(NAMES, TEXTS), max_size=8),
    runs=st.lists(st.sampled_from(["a", "b", "C", "c"]), max_size=5),
    prefix=st.sampled_from(["", "u:"]),
)
def test_edits_never_duplicate(
    present: dict[str, str],
    orders: set[int],
    edits: list[tuple[str, str]],
    runs: list[str],
    prefix: str,
) -> None:
    answer = AnswerFile.blank()
    for name, value in present.items():
        answer.set_value("specialize", SHELL_SETUP, [name], value, "amd64")
    content = answer.serialize().decode()
    if orders:
        more = settings("specialize", commands(*(command(str(order)) for order in orders)))
        content = answers(more).decode()
    if prefix:
        content = re.sub(r"<(/?)(?=[A-Za-z])", rf"<\1{prefix}", content)
        content = content.replace(f'xmlns="{U}"', f'xmlns:u="{U}"')
    answer = AnswerFile.parse(content.encode())
    for name, value in edits:
        answer.set_value("specialize", SHELL_SETUP, [name], value, "amd64")
    for run in runs:
        answer.run_in_specialize(run, "d", "amd64")
    again = AnswerFile.parse(answer.serialize())
    expected = ({} if orders else present) | dict(edits)
    for name, value in expected.items():
        assert again.value("specialize", SHELL_SETUP, [name], "amd64") == value.strip()
    assert sorted({run.lower() for run in runs}) == sorted(
        run.lower() for run in again.commands("amd64") if run != "a.exe"
    )
    assert again.serialize() == answer.serialize()


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_anything_is_parsed_or_refused(content: bytes) -> None:
    with pytest.raises(InvalidValueError):
        AnswerFile.parse(content)


VERSIONS = {
    "Vista": ((6, 0), 6002, "", "Professional"),
    "7": ((6, 1), 7601, "Client", "Professional"),
    "2008 R2": ((6, 1), 7601, "Server", "ServerDatacenter"),
    "2012": ((6, 2), 9200, "Server", "ServerStandard"),
    "2025 Core": ((10, 0), 26100, "Server Core", "ServerDatacenter"),
    "11": ((10, 0), 26100, "Client", "Enterprise"),
}


@pytest.mark.parametrize("arch", ["amd64", "x86", "arm64"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("account", [True, False])
def test_built_in(version: str, arch: str, account: bool) -> None:
    number, build, kind, edition = VERSIONS[version]
    facts = Facts(
        number, build, version, edition, arch, "ControlSet001", "", kind, languages=("de-DE",)
    )
    content = template.built_in(facts, "GTB Standard Time", account=account).serialize()
    answer_files.check(content)
    answer_files.check(changed(content, arch))
    answer = AnswerFile.parse(content)
    assert set(re.findall(rb'processorArchitecture="(\w+)"', content)) == {arch.encode()}
    assert answer.value("specialize", SHELL_SETUP, ["ComputerName"], arch) == "*"
    assert answer.value("oobeSystem", template.INTERNATIONAL, ["UserLocale"], arch) == "de-DE"

    def oobe(name: str) -> str | None:
        return answer.value("oobeSystem", SHELL_SETUP, ["OOBE", name], arch)

    modern, server = build >= template.WINDOWS_8, kind.startswith("Server")
    assert oobe("HideEULAPage") == "true"
    assert oobe("ProtectYourPC") == "1"
    assert (oobe("HideOnlineAccountScreens") == "true") is modern
    assert (oobe("NetworkLocation") == "Other") is not modern
    assert (oobe("HideWirelessSetupInOOBE") == "true") is (version != "Vista")
    assert (oobe("HideLocalAccountScreen") == "true") is (modern and server and account)
    assert (template.ACCOUNT_EXISTS in answer.commands(arch)) is account
    assert (template.AUTOMATIC_UPDATES in answer.commands(arch)) is (number < (10, 0))
