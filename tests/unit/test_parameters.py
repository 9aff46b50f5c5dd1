"""The twelve parameters: where they come from, which of them counts, and what they may be."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core import options
from snf_core.config import Config
from snf_core.errors import ConfigError, InvalidValueError, SnfError, UnsupportedError
from snf_core.image import parameters
from snf_core.image.customization import PersonalFile
from snf_core.image.parameters import NAMES, check, collect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Configured = Callable[..., Config]

BASE = {"img_id": "debian.img", "img_format": "diskdump"}
SECRET = "hunter2-and-more"
HASH = f"$6$salt${'x' * 86}"


def key(kind: str = "ssh-ed25519", comment: str = "me@home") -> str:
    """A public key as authorized_keys holds it."""
    blob = len(kind).to_bytes(4, "big") + kind.encode() + (32).to_bytes(4, "big") + bytes(32)
    return f"{kind} {base64.b64encode(blob).decode()} {comment}".strip()


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    """A configuration with a group [parameters] and a file per variant."""

    def configured(text: str = "", **variants: str | bytes) -> Config:
        file = tmp_path / "snf.conf"
        directory = tmp_path / "variants"
        directory.mkdir(exist_ok=True)
        file.write_text(f"[image]\nvariants = {directory}\n[parameters]\n{text}\n")
        for name, content in variants.items():
            raw = content if isinstance(content, bytes) else content.encode()
            (directory / f"{name}.conf").write_bytes(raw)
        return Config([file])

    return configured


def test_the_configuration_has_an_option_for_each() -> None:
    assert {option.dest for option in options.PARAMETERS} == set(NAMES)
    assert len(NAMES) == 12
    assert parameters.DESCRIPTIONS.keys() == set(NAMES)
    for option in options.PARAMETERS:
        assert bool(option.secret) is (option.dest in parameters.SECRET)


# -- where they come from -------------------------------------------------------------------


def test_each_level_beats_the_one_before(configured: Configured) -> None:
    config = configured(
        "img_id = 1\nimg_format = 1\nauth_keys = 1", one="IMG_FORMAT=2\nAUTH_KEYS=2"
    )
    assert collect(config, {"OS_VARIANT": "one", "OSP_AUTH_KEYS": "3"}) == {
        "img_id": "1",
        "img_format": "2",
        "auth_keys": "3",
    }


def test_defined_and_empty_is_not_undefined(configured: Configured) -> None:
    config = configured("img_properties = {}\nauth_keys = key", one="AUTH_KEYS=")
    assert collect(config, {}) == {"img_properties": "{}", "auth_keys": "key"}
    assert collect(config, {"OS_VARIANT": "one"})["auth_keys"] == ""
    assert collect(config, {"OSP_IMG_PROPERTIES": ""})["img_properties"] == ""
    assert collect(configured(), {}) == {}


def test_only_the_twelve_are_collected(configured: Configured) -> None:
    environ = {"OSP_OTHER": "x", "IMG_ID": "x", "OSP_img_id": "x", "PATH": "/bin"}
    assert collect(configured(), environ) == {}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_from_every_level(configured: Configured, name: str) -> None:
    upper = name.upper()
    assert collect(configured(f"{name} = a"), {}) == {name: "a"}
    assert collect(configured(v=f"{upper}=b"), {"OS_VARIANT": "v"}) == {name: "b"}
    assert collect(configured(), {f"OSP_{upper}": "c"}) == {name: "c"}


def test_a_password_of_one_level_replaces_a_hash_of_another(configured: Configured) -> None:
    config = configured(f"img_passwd = {SECRET}", one=f"IMG_PASSWD_HASH='{HASH}'")
    assert collect(config, {}) == {"img_passwd": SECRET}
    assert collect(config, {"OS_VARIANT": "one"}) == {"img_passwd_hash": HASH}
    again = collect(config, {"OS_VARIANT": "one", "OSP_IMG_PASSWD": "mine"})
    assert again == {"img_passwd": "mine"}


@pytest.mark.parametrize("password", [SECRET, ""])
@pytest.mark.parametrize("hashed", [HASH, ""])
def test_both_password_parameters_at_one_level_are_a_conflict(
    configured: Configured, password: str, hashed: str
) -> None:
    """Even if both are empty, as it always was."""
    environ = {"OSP_IMG_PASSWD": password, "OSP_IMG_PASSWD_HASH": hashed}
    with pytest.raises(InvalidValueError, match="img_passwd and img_passwd_hash are both") as e:
        check(BASE | collect(configured(), environ))
    assert SECRET not in str(e.value)
    assert HASH not in str(e.value)


# -- variants -------------------------------------------------------------------------------


def test_the_variant_default_needs_no_file(configured: Configured) -> None:
    assert collect(configured(), {"OS_VARIANT": "default"}) == {}
    config = configured(default="IMG_ID=x")
    assert collect(config, {"OS_VARIANT": "default"}) == {"img_id": "x"}
    assert collect(config, {}) == {}


def test_a_variant_as_image_creators_write_it(configured: Configured) -> None:
    text = """
    # made by snf-image-creator
    IMG_ID="/srv/My Images/debian.diskdump"  # a comment
    IMG_FORMAT=diskdump
    IMG_PROPERTIES='{"OSFAMILY": "linux", "DESCRIPTION": "a $HOME `id` $(id)"}'
    """
    assert collect(configured(debian=text), {"OS_VARIANT": "debian"}) == {
        "img_id": "/srv/My Images/debian.diskdump",
        "img_format": "diskdump",
        "img_properties": '{"OSFAMILY": "linux", "DESCRIPTION": "a $HOME `id` $(id)"}',
    }


@pytest.mark.parametrize(
    "name", ["..", "../../etc/passwd", "/etc/passwd", "a/b", "-x", ".hidden", "a\n", "ä", "x" * 65]
)
def test_variants_are_names(configured: Configured, name: str) -> None:
    with pytest.raises(InvalidValueError, match="is not the name of a variant"):
        collect(configured(), {"OS_VARIANT": name})


def test_an_unknown_variant_names_its_file(configured: Configured) -> None:
    with pytest.raises(InvalidValueError, match="there is no variant 'gone'") as caught:
        collect(configured(), {"OS_VARIANT": "gone"})
    assert "variants/gone.conf" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (f"IMG_PASSWD=the {SECRET}", "word 2 is not an assignment"),
        (f"IMG_PASSWD=the {SECRET}=x", "word 2 is not an assignment"),
        ("IMG_ID=$(touch /tmp/x)", "word 2 is not an assignment"),
        ("export IMG_ID=x", "word 1 is not an assignment"),
        ("IMG_ID=x\nPATH=/evil", "word 2 is not an assignment"),
        ("OSP_IMG_ID=x", "word 1 is not an assignment"),
        (f"IMG_PASSWD='{SECRET}", "cannot read variant .*: No closing quotation"),
        (b"IMG_ID=\xff", "cannot read variant .*: it is not text in UTF-8"),
    ],
)
def test_a_bad_variant_is_an_error_without_what_it_holds(
    configured: Configured, content: str | bytes, why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        collect(configured(bad=content), {"OS_VARIANT": "bad"})
    assert "bad.conf" in caught.value.message
    assert SECRET not in str(caught.value)


def test_a_variant_that_cannot_be_read(configured: Configured, tmp_path: Path) -> None:
    config = configured()
    (tmp_path / "variants" / "bad.conf").mkdir()
    with pytest.raises(ConfigError, match=r"cannot read variant .*bad\.conf: Is a directory"):
        collect(config, {"OS_VARIANT": "bad"})


# -- what they may be -----------------------------------------------------------------------


def test_the_least() -> None:
    found = check(BASE)
    assert (found.img_id, found.img_format) == ("debian.img", "diskdump")
    assert (found.password, found.password_hash, found.authorized_keys) == ("", "", ())
    assert list(found.properties) == []


@pytest.mark.parametrize("name", BASE)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_image_and_format_are_required(name: str, value: str | None) -> None:
    values = {**BASE, name: value}
    if value is None:
        del values[name]
    with pytest.raises(InvalidValueError, match=f"parameter {name} is missing") as caught:
        check({key: text for key, text in values.items() if text is not None})
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["extdump", "ntfsdump"])
def test_historical_formats_are_known_and_not_served(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"img_format: {name} is not served"):
        check(BASE | {"img_format": name})


@pytest.mark.parametrize("name", ["qcow3", "Diskdump", "../diskdump", "disk dump"])
def test_unknown_formats_are_refused(name: str) -> None:
    with pytest.raises(InvalidValueError, match="img_format: there is no format") as caught:
        check(BASE | {"img_format": name})
    assert "diskdump" in caught.value.remedy


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["a\0b", "a\udcffb", "\ud800"])
def test_every_parameter_is_text(name: str, value: str) -> None:
    """Bytes that are no UTF-8 arrive as surrogates (os.fsdecode)."""
    with pytest.raises(InvalidValueError, match=f"parameter {name} is not text") as caught:
        check(BASE | {name: value})
    assert value not in str(caught.value)


@pytest.mark.parametrize("name", ["img_passwd", "img_passwd_hash"])
def test_empty_passwords_are_refused(name: str) -> None:
    with pytest.raises(InvalidValueError, match=f"parameter {name} is"):
        check(BASE | {name: ""})


def test_secrets_do_not_show() -> None:
    for name, value in (("img_passwd", SECRET), ("img_passwd_hash", HASH)):
        values = BASE | {name: value}
        assert value not in repr(check(values))
        assert parameters.secrets(values) == [value]
    assert parameters.secrets(BASE | {"img_passwd": ""}) == []


def test_instance_properties_override_single_image_properties() -> None:
    found = check(
        BASE
        | {
            "img_properties": '{"OSFAMILY": "linux", "users": "root", "SWAP": "2:512"}',
            "inst_properties": '{"Users": "user", "SWAP": ""}',
        }
    ).properties
    assert {name: found.get(name) for name in found} == {
        "OSFAMILY": "linux",
        "USERS": "user",
        "SWAP": "",
    }


@pytest.mark.parametrize("name", ["img_properties", "inst_properties"])
def test_wrong_properties_name_their_parameter(name: str) -> None:
    with pytest.raises(InvalidValueError, match=f"parameter {name} is not valid JSON"):
        check(BASE | {name: "{"})


KINDS = ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com",
         "sk-ecdsa-sha2-nistp256@openssh.com", "ssh-ed25519-cert-v01@openssh.com"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_all_types(kind: str) -> None:
    assert check(BASE | {"auth_keys": key(kind)}).authorized_keys == (key(kind),)


def test_many_keys_comments_and_options() -> None:
    lines = [
        key(comment=""),
        f'restrict,command="/bin/echo hello \\"you\\"" {key("ssh-rsa")}',
        key(comment="Jürgen at home"),
        key().replace(" ", "\t"),
    ]
    text = "\n# a comment\r\n\n  " + "\r\n".join(lines) + " \n"
    assert check(BASE | {"auth_keys": text}).authorized_keys == tuple(lines)


@pytest.mark.parametrize("text", ["", " \n", "# nothing\n"])
def test_no_keys(text: str) -> None:
    assert check(BASE | {"auth_keys": text}).authorized_keys == ()


@pytest.mark.parametrize(
    "line",
    [
        "garbage",
        "ssh-ed25519",
        "ssh-ed25519 not-base64!",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 schlüssel",
        "ssh-ed25519 " + key("ssh-rsa").split()[1],
        key()[:50],
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        key() + "\x1b[31m",
        key(comment="two\u2028lines"),
    ],
)
def test_what_is_no_key_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(InvalidValueError, match="auth_keys: line 2 is not an SSH public key"):
        check(BASE | {"auth_keys": f"{key()}\n{line}" if "\u2028" not in line else line})


PRODUCT_KEY = "ABCDE-12345-abcde-FGHIJ-67890"
OPTIONAL = {
    "img_personality": json.dumps([{"path": "/etc/motd", "contents": "aGk="}]),
    "auth_keys": key(),
    "os_product_key": PRODUCT_KEY,
    "os_answer_file": "https://example.org/answers.xml?token=1",
    "cloud_userdata": "aGVs\nbG8=\n",
}


def test_what_only_some_families_serve() -> None:
    found = check(BASE | OPTIONAL)
    assert found.personality == (PersonalFile("/etc/motd", b"hi"),)
    assert found.product_key == PRODUCT_KEY.upper()
    assert found.answer_file == OPTIONAL["os_answer_file"]
    assert found.user_data == b"hello"
    assert found.optional() == tuple(parameters.OPTIONAL) == tuple(OPTIONAL)
    for name, value in OPTIONAL.items():
        assert check(BASE | {name: value}).optional() == (name,)
        assert value not in repr(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [*((name, " ") for name in OPTIONAL), ("img_personality", " [] "), ("auth_keys", "# none")],
)
def test_what_is_empty_asks_for_nothing(name: str, value: str) -> None:
    assert check(BASE | {name: value}).optional() == ()


WRONG = {
    "cloud_userdata": ["?", "aGVsbG8", "schlüssel"],
    "os_product_key": [
        "ABCDE-12345-abcde-FGHIJ-6789",
        "ABCDE-12345-abcde-FGHIJ-67890-X",
        "xABCDE-12345-abcde-FGHIJ-67890",
        "ÄBCDE-12345-abcde-FGHIJ-67890",
        "ABCDE 12345 abcde FGHIJ 67890",
    ],
    "os_answer_file": ["http://", "gopher://h/x", "/etc/passwd", "http://h/a b", "http://h/\x01"],
    "config_url": ["https://", "x"],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in WRONG.items() for v in vs])
def test_what_is_wrong_is_refused_without_being_shown(name: str, value: str) -> None:
    with pytest.raises(InvalidValueError, match=f"parameter {name} is not") as caught:
        check(BASE | {name: value})
    if name in parameters.SECRET and len(value) > 8:
        assert value not in str(caught.value)


def test_user_data_has_a_limit() -> None:
    largest = base64.b64encode(bytes(1 << 20)).decode()
    assert len(check(BASE | {"cloud_userdata": largest}).user_data) == 1 << 20
    with pytest.raises(InvalidValueError, match="cloud_userdata has 1048577 bytes, more than"):
        check(BASE | {"cloud_userdata": base64.b64encode(bytes((1 << 20) + 1)).decode()})


@pytest.mark.parametrize("url", ["https://h/x?token=1", "file:///x"])
def test_further_parameters_behind_a_url_are_not_served(url: str) -> None:
    with pytest.raises(UnsupportedError, match="parameter config_url is not served") as caught:
        check(BASE | {"config_url": url})
    assert caught.value.remedy
    assert url not in str(caught.value)
    assert check(BASE | {"config_url": " "}).img_id == "debian.img"


@pytest.mark.parametrize(
    ("url", "kind", "why"),
    [
        ("file:///etc/shadow", InvalidValueError, "would name a file of the node itself"),
        ("ftp://h/x", UnsupportedError, "ftp:// is not served"),
        ("ftps://h/x", UnsupportedError, "ftps:// is not served"),
        ("http://h:22/x", InvalidValueError, "nothing is fetched from port 22"),
    ],
)
def test_answer_files_are_fetched_from_web_servers_only(
    url: str, kind: type[SnfError], why: str
) -> None:
    with pytest.raises(kind, match=f"parameter os_answer_file: .*{why}") as caught:
        check(BASE | {"os_answer_file": url})
    assert caught.value.remedy


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=60)))
def test_whatever_comes_it_is_taken_or_refused(values: dict[str, str]) -> None:
    try:
        checked = check(values)
    except SnfError as error:
        assert "parameter" in error.message or "property" in error.message  # noqa: PT017
        return
    assert checked.img_id.strip() == checked.img_id != ""
