"""Password hashes in crypt(5) form, made on the node by the system's own libcrypt (libxcrypt).

Nothing here passes on the plaintext; salts come from the kernel's random generator
(crypt_gensalt(3) with no bytes given).
"""

from __future__ import annotations

import ctypes
import os
import re

from snf_core.errors import InvalidValueError, UnsupportedError

DEFAULT_METHOD = "sha512"
"""Understood by every Linux guest, musl's included; yescrypt is not."""

_METHODS = {"sha512": (b"$6$", 0), "sha256": (b"$5$", 0), "yescrypt": (b"$y$", 0),
            "blowfish": (b"$2b$", 10)}  # fmt: skip
_WEAK = {"md5", "sha1", "none"}
_SALT = r"[^$:;*!\\\x00-\x20\x7f-\U0010ffff]"
_HASH = re.compile(
    rf"\$6\$(rounds=[0-9]{{1,9}}\$)?{_SALT}{{1,16}}\$[./0-9A-Za-z]{{86}}"
    rf"|\$5\$(rounds=[0-9]{{1,9}}\$)?{_SALT}{{1,16}}\$[./0-9A-Za-z]{{43}}"
    r"|\$2[aby]\$[0-9]{2}\$[./0-9A-Za-z]{53}"
    r"|\$g?y\$[./0-9A-Za-z]+\$[./0-9A-Za-z]{0,86}\$[./0-9A-Za-z]{43}"
    r"|\$7\$[./0-9A-Za-z]{11,97}\$[./0-9A-Za-z]{43}"
)
"""The strong forms of crypt(5), whole: half a hash would lock its users out."""
_LONGEST = 512
"""CRYPT_MAX_PASSPHRASE_SIZE of crypt(3)."""
_READ = 1 << 16
"""Bytes of a file that are read: more than any password has."""


def read(descriptor: int) -> str:
    """The password in a file, from its beginning. Its descriptor stays open."""
    return os.fsdecode(os.pread(descriptor, _READ, 0))


def check(password: str) -> None:
    """Raise InvalidValueError for a password that cannot be set."""
    if not password:
        raise InvalidValueError(
            "parameter img_passwd is empty",
            remedy="give a password, or leave the parameter out to set none",
        )
    if "\0" in password or "\n" in password or len(password.encode()) >= _LONGEST:
        raise InvalidValueError(
            "parameter img_passwd cannot be used as a password",
            remedy=f"give fewer than {_LONGEST} bytes on one line",
        )


def check_hash(text: str) -> None:
    """Raise InvalidValueError for what is not a hash that guests should accept."""
    if not _HASH.fullmatch(text):
        raise InvalidValueError(
            "parameter img_passwd_hash is not a password hash",
            remedy='give one as "mkpasswd -m sha-512" or "openssl passwd -6" print it',
        )


def check_method(method: str) -> str:
    """The name of a hashing method, the default one for none.

    Raises InvalidValueError for an unknown or weak one.
    """
    method = method.lower() or DEFAULT_METHOD
    if method not in _METHODS:
        kind = "too weak" if method in _WEAK else "unknown"
        raise InvalidValueError(
            f"property PASSWD_HASHING_METHOD: {method!r} is {kind}",
            remedy="use " + ", ".join(_METHODS),
        )
    return method


def make_hash(password: str, method: str = "") -> str:
    """The hash of a password. ``method``: sha512 (default), sha256, yescrypt or blowfish.

    Raises InvalidValueError as ``check_method`` does, UnsupportedError where the node's libcrypt
    lacks it.
    """
    method = check_method(method)
    prefix, cost = _METHODS[method]
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt_gensalt.restype = library.crypt.restype = ctypes.c_char_p
    library.crypt_gensalt.argtypes = [
        ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int
    ]  # fmt: skip
    library.crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    salt: bytes | None = library.crypt_gensalt(prefix, cost, None, 0)
    made: bytes | None = library.crypt(password.encode(), salt) if salt else None
    if not made or made.startswith(b"*"):
        raise UnsupportedError(
            f"the node's libcrypt cannot make {method} hashes", remedy="use sha512"
        )
    return made.decode()
