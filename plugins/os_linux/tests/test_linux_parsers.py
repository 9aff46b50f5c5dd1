"""The parsers of the guest's files: os-release, fstab, passwd, shadow, hosts, sshd_config."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import GuestError, SnfError
from snf_os_linux import accounts, distribution, fstab, hosts, sshd_config
from tests.fakes.guest import FakeGuest, fifo, link

NASTY = st.text(st.one_of(st.sampled_from("\n\t :=#\"'\\%/.*$0x"), st.characters()), max_size=200)


class TestDistribution:
    def test_quoting(self) -> None:
        text = (
            "ID=rocky\nID_LIKE=\"rhel centos fedora\"\n# ID=x\nVERSION_ID='9.4'\n"
            'PRETTY_NAME="a\\"b"\n'
        )
        assert distribution.parse(text)["PRETTY_NAME"] == 'a"b'
        found = distribution.read(FakeGuest.mounted({"/etc/os-release": text}))
        assert found == distribution.Distribution("rocky", ("rhel", "centos", "fedora"), "9.4")

    @pytest.mark.parametrize(
        "text", ["ID=$(reboot)", 'ID="a b"', "ID='open", "id=debian", "ID=A/B"]
    )
    def test_what_is_no_id(self, text: str) -> None:
        assert distribution.read(FakeGuest.mounted({"/etc/os-release": text})).id == ""

    def test_link_into_usr_and_older_files(self) -> None:
        guest = FakeGuest.mounted(
            {"/etc/os-release": link("../usr/lib/os-release"), "/usr/lib/os-release": "ID=arch\n"}
        )
        assert distribution.read(guest).id == "arch"
        assert distribution.read(FakeGuest.mounted({"/etc/redhat-release": "x"})).id == "rhel"
        assert distribution.read(FakeGuest.mounted({"/etc/passwd": "x"})).id == ""

    @given(NASTY)
    def test_no_text_breaks_it(self, text: str) -> None:
        distribution.parse(text)


class TestFstab:
    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("UUID=ab-cd", ("UUID", "ab-cd")),
            ('UUID="ab-cd"', ("UUID", "ab-cd")),
            ("LABEL='x'", ("LABEL", "x")),
            ("LABEL=a\\040b", ("LABEL", "a b")),
            ("PARTUUID=1234-01", ("PARTUUID", "1234-01")),
            ("PARTLABEL=data", ("PARTLABEL", "data")),
            ("/dev/disk/by-uuid/ab", ("UUID", "ab")),
            ("/dev/disk/by-label/a\\x20b", ("LABEL", "a b")),
            ("/dev/disk/by-partuuid/ab", ("PARTUUID", "ab")),
            ("/dev/disk/by-partlabel/ab", ("PARTLABEL", "ab")),
            ("/dev/sda1", ("", "")),
            ("/dev/mapper/vg-lv", ("", "")),
            ("/dev/disk/by-path/pci-0", ("", "")),
            ("ID=x", ("", "")),
        ],
    )
    def test_sources(self, source: str, expected: tuple[str, str]) -> None:
        [entry] = fstab.entries(f"{source} /home ext4 defaults 0 2\n")
        assert (entry.attribute, entry.value) == expected

    @pytest.mark.parametrize(
        "line",
        [
            "# UUID=a /home ext4",
            "UUID=a / ext4",
            "UUID=a none swap sw 0 0",
            "tmpfs /tmp tmpfs",
            "proc /proc proc",
            "none /x ext4",
            "/dev/fd0 /mnt/floppy auto",
            "/dev/sr0 /mnt auto",
            "/dev/cdrom /cd auto",
            "UUID=a /media/floppy0 auto",
            "UUID=a /media/cdrom auto",
            "server:/export /srv nfs",
            "/srv/a /srv/b auto bind",
            "UUID=a /home ext4 noauto",
            "UUID=a /home",
            "UUID=a",
            "",
        ],
    )
    def test_what_is_left_out(self, line: str) -> None:
        assert fstab.entries(f"{line}\n") == []

    def test_parents_come_first(self) -> None:
        text = "".join(
            f"UUID={n} {p} auto\n" for n, p in enumerate(["/a/b", "/a-b", "/a", "/a/b/c/"])
        )
        assert [e.mountpoint for e in fstab.entries(text)] == ["/a", "/a/b", "/a/b/c", "/a-b"]

    @pytest.mark.parametrize(
        "mountpoint",
        ["relative", "/a/../../etc", "//", "/.", "/proc", "/dev/shm", "/a\\000b", "/sys/"],
    )
    def test_hostile_mount_points(self, mountpoint: str) -> None:
        with pytest.raises(GuestError, match="/etc/fstab line 2"):
            fstab.entries(f"\nUUID=a {mountpoint} ext4 nofail\n")

    def test_one_over_the_other(self) -> None:
        with pytest.raises(GuestError, match=r"line 2 .* mounts over line 1"):
            fstab.entries("UUID=a /home ext4\nUUID=b /home/ xfs\n")

    @given(NASTY)
    def test_no_text_breaks_it(self, text: str) -> None:
        try:
            found = fstab.entries(text)
        except SnfError:
            return
        for entry in found:
            assert entry.mountpoint.startswith("/")
            assert ".." not in entry.mountpoint.split("/")


NAMES = st.text(st.characters(exclude_characters=":\n", codec="utf-8"), min_size=1, max_size=20)


class TestAccounts:
    def test_only_the_exact_name_counts(self) -> None:
        shadow = "rootx:a:1::::::\n.oot:b:1::::::\nroot:c:1:5:50:9:3:7:\nxroot:d:1::::::\n"
        assert accounts.with_password(shadow, "root", "H", 20000) == (
            "rootx:a:1::::::\n.oot:b:1::::::\nroot:H:20000:5:50:9:3::\nxroot:d:1::::::\n"
        )
        assert ".oot:H:20000:" in accounts.with_password(shadow, ".oot", "H", 20000)

    def test_only_that_user_in_the_file(self) -> None:
        expected = "root:H:20000:0:99999:7:::\n"
        assert accounts.with_password("root:x:1:0:99999:7:::\n", "root", "H", 20000) == expected
        assert accounts.with_password("", "root", "H", 20000) == expected
        assert accounts.with_password("root", "root", "H", 2) == "root:H:2::::::"

    def test_user_without_a_line_is_added(self) -> None:
        assert accounts.with_password("a:*:1::::::", "b", "H", 2) == (
            "a:*:1::::::\nb:H:2:0:99999:7:::\n"
        )

    @given(st.lists(NASTY), NAMES)
    def test_other_lines_stay(self, lines: list[str], name: str) -> None:
        shadow = "\n".join(lines)
        changed = accounts.with_password(shadow, name, "H", 7)
        before = [line for line in shadow.split("\n") if line.split(":")[0] != name]
        after = [line for line in changed.split("\n") if line.split(":")[0] != name]
        assert [line for line in after if line] == [line for line in before if line]
        assert any(line.split(":")[:3] == [name, "H", "7"] for line in changed.split("\n"))
        assert accounts.with_password(changed, name, "H", 7) == changed

    @pytest.mark.parametrize("home", ["", "relative", "/home/../root", "/home/\0"])
    def test_hostile_home(self, home: str) -> None:
        with pytest.raises(GuestError, match="home directory of user 'u'"):
            accounts.find(f"u:x:1:1::{home}:/bin/sh\n", "u")

    @pytest.mark.parametrize("uid", ["", "-1", "x", "4294967295", "9" * 30, "\u0661"])
    def test_hostile_ids(self, uid: str) -> None:
        with pytest.raises(GuestError, match="no numeric"):
            accounts.find(f"u:x:{uid}:1::/home/u:/bin/sh\n", "u")

    @given(NASTY, NAMES)
    def test_no_text_breaks_it(self, text: str, name: str) -> None:
        try:
            account = accounts.find(text, name)
        except SnfError:
            return
        assert account is None or account.name == name


class TestHosts:
    def test_old_name_goes_and_aliases_stay(self) -> None:
        text = "127.0.0.1 localhost\n127.0.1.1 old.example old db # mine\n::1 localhost\n"
        assert hosts.with_name(text, "vm.example.org", "old") == (
            "127.0.0.1 localhost\n127.0.1.1\tvm.example.org vm db # mine\n::1 localhost\n"
        )

    def test_line_is_added_after_localhost(self) -> None:
        assert hosts.with_name("127.0.0.1 localhost\n::1 localhost\n", "vm", "localhost") == (
            "127.0.0.1 localhost\n127.0.1.1\tvm\n::1 localhost\n"
        )

    @pytest.mark.parametrize(
        "text",
        [
            None,
            "",
            "127.0.1.1 localhost\n",
            "127.0.0.1 localhost old\n",
            "127.0.1.1 a\n127.0.1.1 b",
        ],
    )
    def test_localhost_is_never_lost(self, text: str | None) -> None:
        changed = hosts.with_name(text, "vm.example.org", "localhost")
        if text is None or "localhost" in text:
            assert "localhost" in changed.split()
        assert sum(line.startswith("127.0.1.1\t") for line in changed.split("\n")) == 1

    @given(NASTY, NASTY)
    def test_other_lines_stay(self, text: str, old: str) -> None:
        changed = hosts.with_name(text, "vm.example.org", old).split("\n")
        others = [line for line in text.split("\n") if "127.0.1.1" not in line]
        assert [line for line in changed if "127.0.1.1" not in line] == others
        assert changed.count("127.0.1.1\tvm.example.org vm") <= 1


class TestSshdConfig:
    def _read(self, files: dict[str, str]) -> sshd_config.SshdConfig:
        config = sshd_config.read(FakeGuest.mounted(dict(files)))
        assert config is not None
        return config

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", ".ssh/authorized_keys"),
            ("#AuthorizedKeysFile none\n", ".ssh/authorized_keys"),
            (
                "AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2\n",
                ".ssh/authorized_keys",
            ),
            ("authorizedkeysfile=/etc/keys/%u\n", "/etc/keys/%u"),
            ('  AuthorizedKeysFile  "/a b/%u"  # there\n', "/a b/%u"),
            ("AuthorizedKeysFile one\nAuthorizedKeysFile two\n", "one"),
            ("Match User x\nAuthorizedKeysFile no\nMatch all\nAuthorizedKeysFile yes\n", "yes"),
            ("AuthorizedKeysFile\n", ".ssh/authorized_keys"),
            ("AuthorizedKeysFile none\n", "none"),
        ],
    )
    def test_keys_file(self, text: str, expected: str) -> None:
        assert self._read({"/etc/ssh/sshd_config": text}).keys_file == expected

    def test_inclusion(self) -> None:
        files = {
            "/etc/ssh/sshd_config": "Include sshd_config.d/*.conf\nAuthorizedKeysFile late\n"
            "HostKey /main\n",
            "/etc/ssh/sshd_config.d/20.conf": "AuthorizedKeysFile b\nHostKey /b\n",
            "/etc/ssh/sshd_config.d/10.conf": "Match User x\nHostKey /no\nInclude /etc/ssh/more\n",
            "/etc/ssh/sshd_config.d/30.conf": "Include /etc/ssh/sshd_config\nHostKey /main\n",
            "/etc/ssh/sshd_config.d/README": "HostKey /no\n",
            "/etc/ssh/more": "HostKey /no\n",
        }
        assert self._read(files) == sshd_config.SshdConfig("b", ("/b", "/main"))

    def test_other_places(self) -> None:
        assert self._read({"/usr/etc/ssh/sshd_config": "HostKey /x\n"}).host_keys == ("/x",)
        assert sshd_config.read(FakeGuest.mounted({"/etc/passwd": ""})) is None
        with pytest.raises(GuestError, match="not a regular file"):
            sshd_config.read(FakeGuest.mounted({"/etc/ssh/sshd_config": fifo()}))

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            (".ssh/keys", "/home/u/.ssh/keys"),
            ("%h/k%%u", "/home/u/k%u"),
            ("/etc/k/%u-%U", "/etc/k/u-7"),
        ],
    )
    def test_tokens(self, pattern: str, expected: str) -> None:
        assert sshd_config.expand(pattern, "u", 7, "/home/u") == expected

    @pytest.mark.parametrize("pattern", ["%x", "a%"])
    def test_unknown_tokens(self, pattern: str) -> None:
        with pytest.raises(GuestError, match="unknown token"):
            sshd_config.expand(pattern, "u", 7, "/home/u")

    @given(NASTY)
    def test_no_text_breaks_it(self, text: str) -> None:
        self._read({"/etc/ssh/sshd_config": text})
