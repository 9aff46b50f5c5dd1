"""Passwords and their hashes; the hashes are checked with the system's own crypt(3)."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import InvalidValueError
from snf_core.image import password

PASSWORD = "correct horse: bättery$"
BODY = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./abcdefghijklmnopqrstuv"
"""86 characters of crypt's alphabet."""


def crypt(text: str, setting: str) -> str:
    """crypt(3), which recomputes a hash from the hash itself."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    library.crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    made: bytes = library.crypt(text.encode(), setting.encode())
    return made.decode()


@pytest.mark.parametrize(
    ("method", "prefix"),
    [("", "$6$"), ("sha512", "$6$"), ("SHA256", "$5$"), ("yescrypt", "$y$"), ("blowfish", "$2b$")],
)
def test_hashes_are_those_of_the_system(method: str, prefix: str) -> None:
    made = password.make_hash(PASSWORD, method)
    assert made.startswith(prefix)
    assert "rounds=" not in made
    assert crypt(PASSWORD, made) == made
    assert crypt(PASSWORD + "x", made) != made
    password.check_hash(made)
    assert password.make_hash(PASSWORD, method) != made, "the salt is not random"


@pytest.mark.parametrize(
    ("method", "why"), [("md5", "too weak"), ("sha1", "too weak"), ("none", "too weak"),
                        ("sha-512", "unknown"), ("rot13", "unknown")],
)  # fmt: skip
def test_methods_that_are_not_served(method: str, why: str) -> None:
    with pytest.raises(InvalidValueError, match=f"PASSWD_HASHING_METHOD: '{method}' is {why}") as e:
        password.make_hash(PASSWORD, method)
    assert "sha512" in e.value.remedy


def test_an_empty_password_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="img_passwd is empty") as caught:
        password.check("")
    assert "leave the parameter out" in caught.value.remedy


@pytest.mark.parametrize("text", ["secret\nroot::0", "secret\0", "x" * 512, "ä" * 256])
def test_passwords_that_cannot_be_set_are_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidValueError, match="img_passwd cannot be used") as caught:
        password.check(text)
    assert text not in str(caught.value)


@pytest.mark.parametrize("text", ["x", "x" * 511, "a:b$c\td", PASSWORD])
def test_passwords_that_can_be_set(text: str) -> None:
    password.check(text)


@pytest.mark.parametrize(
    "text",
    [
        f"$6$salt${BODY}",
        f"$6$rounds=656000$0123456789abcdef${BODY}",
        f"$5$salt${BODY[:43]}",
        f"$2b$12${BODY[:53]}",
        f"$2y$10${BODY[:53]}",
        f"$y$j9T$saltsaltsalt${BODY[:43]}",
        f"$gy$j9T$saltsaltsalt${BODY[:43]}",
        f"$7$CU..../....saltsalt${BODY[:43]}",
    ],
)
def test_strong_hashes_are_taken(text: str) -> None:
    password.check_hash(text)


@pytest.mark.parametrize(
    "text",
    [
        "",  # an empty field of /etc/shadow lets everybody in
        "*",
        "!",
        "plain text",
        "rqXexS6ZhobKA",  # DES
        f"$1$salt${BODY[:22]}",  # MD5
        f"$6$salt${BODY}:0:0:::::\nevil::0:0:::::",
        f"$6$salt${BODY}\n",
        f"$6$salt${BODY[:-1]}",
        f"$6$salt${BODY}x",
        f"!$6$salt${BODY}",
        f"$6$sa:lt${BODY}",
        f"$6$${BODY}",
        "$6$salt$",
        "$6$",
        f"$6$sält${BODY}",
        f"$2b${BODY[:53]}",
        f"$y$j9T$${BODY[:20]}",
    ],
)
def test_what_is_no_strong_hash_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidValueError, match="img_passwd_hash is not a password hash") as caught:
        password.check_hash(text)
    assert not text.strip("*!") or text not in str(caught.value)


@given(st.text())
def test_no_accepted_hash_can_break_out_of_its_field(text: str) -> None:
    for candidate in (text, f"$6${text}${BODY}"):
        try:
            password.check_hash(candidate)
        except InvalidValueError:
            continue
        assert not set(candidate) & set(":\n\r\0*!\\ ")
        assert candidate.isascii()
        assert candidate.isprintable()
