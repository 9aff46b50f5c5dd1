"""A password is hashed by a child, and nobody else reads it whose guest takes a hash."""

from __future__ import annotations

import os

import pytest

from snf_core.config import Config
from snf_core.ganeti import plaintext, scripts
from snf_core.image import password

ENVIRONMENT = {
    "OSP_IMG_ID": "debian.img",
    "OSP_IMG_FORMAT": "diskdump",
    "OSP_INST_PROPERTIES": '{"passwd_hashing_method": "sha256"}',
    "INSTANCE_NAME": "web1.example.org",
}


def withdrawn(text: str) -> dict[str, str]:
    """An environment from which a password was withdrawn."""
    descriptor = os.memfd_create("password")
    os.write(descriptor, text.encode())
    return ENVIRONMENT | {"SNF_PASSWORD_DESCRIPTOR": str(descriptor)}


def hashed(environ: dict[str, str]) -> tuple[dict[str, str], int | None]:
    return plaintext.hashed(environ, lambda whole: scripts.password_hash(whole, Config([])))


def test_a_password_gives_way_to_its_hash() -> None:
    found, descriptor = hashed(withdrawn("correct horse bättery"))
    assert found.pop("OSP_IMG_PASSWD_HASH").startswith("$5$")
    assert found == ENVIRONMENT
    assert descriptor is not None
    assert not os.get_inheritable(descriptor)
    for _ in range(2):  # by whoever needs it
        assert password.read(descriptor) == "correct horse bättery"
    os.close(descriptor)


@pytest.mark.parametrize(
    "wrong", [{"OSP_IMG_PASSWD_HASH": "$6$x$y"}, {"OSP_INST_PROPERTIES": "{"}, {"OSP_IMG_ID": ""}]
)
def test_what_is_wrong_is_left_for_create_to_say(wrong: dict[str, str]) -> None:
    found, descriptor = hashed(withdrawn("secret enough") | wrong)
    assert descriptor is None
    assert found == ENVIRONMENT | {"OSP_IMG_PASSWD": "secret enough"} | wrong


def test_an_empty_password_too() -> None:
    assert hashed(withdrawn("")) == (ENVIRONMENT | {"OSP_IMG_PASSWD": ""}, None)


def test_nothing_is_withdrawn_where_there_is_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OSP_IMG_PASSWD", raising=False)
    plaintext.withdraw()  # would not return
    assert hashed(ENVIRONMENT) == (ENVIRONMENT, None)
