"""The twelve parameters of a deployment: where they come from, and what they may be.

Precedence, lowest first: the configuration's group ``[parameters]``, the variant's file, the
environment (``OSP_*``). Everything is checked before anything is touched; what a later version
will serve is understood already and refused by name.
"""

from __future__ import annotations

import base64
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.errors import ConfigError, InvalidValueError, UnsupportedError
from snf_core.image import password, personality
from snf_core.image.properties import Properties, parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from snf_core.config import Config
    from snf_core.image.customization import PersonalFile

NAMES = (
    "img_id",
    "img_format",
    "img_passwd",
    "img_passwd_hash",
    "img_properties",
    "img_personality",
    "inst_properties",
    "auth_keys",
    "os_product_key",
    "os_answer_file",
    "config_url",
    "cloud_userdata",
)
"""All parameters, as the OS definition's ``parameters.list`` publishes them."""

DESCRIPTIONS = {
    "img_id": "the image: local://NAME, or null to keep what is on the disk",
    "img_format": "the image's format: diskdump",
    "img_passwd": "the users' password, in plain text",
    "img_passwd_hash": "the users' password, as a crypt(5) hash",
    "img_properties": "image properties, a JSON object",
    "img_personality": "files to put into the guest, a JSON array",
    "inst_properties": "properties that override the image's, a JSON object",
    "auth_keys": "SSH keys, in authorized_keys form",
    "os_product_key": "Windows product key",
    "os_answer_file": "URL of a Windows answer file",
    "config_url": "URL of a JSON object with further parameters",
    "cloud_userdata": "cloud-init user data, in base64",
}

SECRET = (
    "img_passwd",
    "img_passwd_hash",
    "img_personality",
    "os_product_key",
    "os_answer_file",
    "cloud_userdata",
)
"""Those that must not be shown: a URL may hold a password or a token, a file anything."""

OPTIONAL = {
    "img_personality": True,
    "auth_keys": False,
    "os_product_key": False,
    "os_answer_file": False,
    "cloud_userdata": True,
}
"""Parameters that some families of guests serve and others do not, and whether it is an error to
give one to a guest of which no task serves it, rather than worth a warning."""

FORMATS = {"diskdump": True, "extdump": False, "ntfsdump": False}
"""The historical formats, and whether this version serves them; plugins add others."""

_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PRODUCT_KEY = re.compile(r"[A-Za-z0-9]{5}(-[A-Za-z0-9]{5}){4}")
_URL = re.compile(r"(https?|ftps?|file)://[\x21-\x7e]+")
_USERDATA_LIMIT = 1 << 20
"""Bytes of user data: more than any cloud hands to its guests."""
_KEY_TYPE = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+")
_PAIR = {"img_passwd", "img_passwd_hash"}


@dataclass(frozen=True)
class Parameters:
    """Checked parameters. Nothing of the secret ones shows in ``repr``."""

    img_id: str
    img_format: str
    password: str = field(default="", repr=False)
    password_hash: str = field(default="", repr=False)
    authorized_keys: tuple[str, ...] = field(default=(), repr=False)
    properties: Properties = field(default_factory=Properties, repr=False)
    personality: tuple[PersonalFile, ...] = field(default=(), repr=False)
    product_key: str = field(default="", repr=False)
    answer_file: str = field(default="", repr=False)
    """A URL, of http or https."""
    user_data: bytes = field(default=b"", repr=False)

    def optional(self) -> tuple[str, ...]:
        """The names of those of OPTIONAL that ask for something."""
        asked = {
            "img_personality": self.personality,
            "auth_keys": self.authorized_keys,
            "os_product_key": self.product_key,
            "os_answer_file": self.answer_file,
            "cloud_userdata": self.user_data,
        }
        return tuple(name for name in OPTIONAL if asked[name])


def collect(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """The parameters that are *defined* (maybe empty), each from where it counts most.

    ``environ`` holds OSP_* and OS_VARIANT. Raises ConfigError, InvalidValueError.
    """
    return merged(
        config,
        _variant(Path(config.image.variants), environ.get("OS_VARIANT", "")),
        {
            name: environ[f"OSP_{name.upper()}"]
            for name in NAMES
            if f"OSP_{name.upper()}" in environ
        },
    )


def merged(config: Config, *levels: Mapping[str, str]) -> dict[str, str]:
    """The parameters of ``levels``, later ones over earlier ones, over the configuration's."""
    group = config.parameters
    configured = {name: getattr(group, name) for name in NAMES if getattr(group, name) is not None}
    found: dict[str, str] = {}
    for level in (configured, *levels):
        if _PAIR & level.keys():
            # Whoever sets one of the two replaces both: a tenant's hash beats a default password.
            found = {name: value for name, value in found.items() if name not in _PAIR}
        found |= level
    return found


def variants(directory: Path) -> list[str]:
    """The names of the variants that have a file in ``directory``, which need not exist."""
    names = [file.stem for file in directory.glob("*.conf")]
    return sorted(name for name in names if _VARIANT.fullmatch(name))


def secrets(values: Mapping[str, str]) -> list[str]:
    """Of defined parameters, checked or not, what must never appear in a message."""
    return [values[name] for name in SECRET if values.get(name)]


def check(values: Mapping[str, str]) -> Parameters:
    """Validate defined parameters. Raises InvalidValueError, UnsupportedError; each names one."""
    for name, value in values.items():
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidValueError(
                f"parameter {name} is not text", remedy="give UTF-8 without NUL characters"
            )
    if values.get("config_url", "").strip():
        _check_url("config_url", values["config_url"].strip())
        raise UnsupportedError(
            "parameter config_url is not served by this version", remedy="leave it out"
        )
    _check_passwords(values)
    properties = parse(values.get("img_properties", ""), "img_properties")
    properties |= parse(values.get("inst_properties", ""), "inst_properties")
    return Parameters(
        img_id=_required(values, "img_id"),
        img_format=_format(_required(values, "img_format")),
        password=values.get("img_passwd", ""),
        password_hash=values.get("img_passwd_hash", ""),
        authorized_keys=tuple(_keys(values.get("auth_keys", ""))),
        properties=Properties(properties),
        personality=personality.parse(values.get("img_personality", "")),
        product_key=_product_key(values.get("os_product_key", "").strip()),
        answer_file=_answer_file(values.get("os_answer_file", "").strip()),
        user_data=_user_data(values.get("cloud_userdata", "")),
    )


def _required(values: Mapping[str, str], name: str) -> str:
    value = values.get(name, "").strip()
    if not value:
        raise InvalidValueError(f"parameter {name} is missing", remedy=f"give {DESCRIPTIONS[name]}")
    return value


def _format(name: str) -> str:
    from snf_core import extension

    if name in extension.names(extension.IMAGE_FORMAT):
        return name
    if name in FORMATS:
        raise UnsupportedError(
            f"parameter img_format: {name} is not served by this version",
            remedy="use a diskdump image",
        )
    raise InvalidValueError(
        f"parameter img_format: there is no format {name!r}",
        remedy="use one of " + ", ".join(extension.names(extension.IMAGE_FORMAT)),
    )


def _check_passwords(values: Mapping[str, str]) -> None:
    if values.keys() >= _PAIR:
        raise InvalidValueError(
            "parameters img_passwd and img_passwd_hash are both given", remedy="give one of them"
        )
    if "img_passwd" in values:
        password.check(values["img_passwd"])
    if "img_passwd_hash" in values:
        password.check_hash(values["img_passwd_hash"])


def _keys(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        # Options (sshd(8)) may stand before the type; they may hold blanks, but no key type.
        kinds = [index for index, word in enumerate(words[:-1]) if _KEY_TYPE.fullmatch(word)]
        printable = line.replace("\t", " ").isprintable()
        if not printable or not kinds or not _is_key(*words[kinds[0] : kinds[0] + 2]):
            raise InvalidValueError(
                f"parameter auth_keys: line {number} is not an SSH public key",
                remedy="give lines as in authorized_keys: TYPE BASE64 COMMENT",
            )
        yield line.strip()


def _is_key(kind: str, blob: str) -> bool:
    """Whether ``blob`` is base64 of a key, which begins with its type's name (RFC 4253, 6.6)."""
    try:
        key = base64.b64decode(blob, validate=True)
    except ValueError:
        return False
    name = len(kind).to_bytes(4) + kind.encode()
    return key.startswith(name) and len(key) > len(name)


def _user_data(text: str) -> bytes:
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise InvalidValueError(
            "parameter cloud_userdata is not valid base64", remedy='encode it with "base64"'
        ) from None
    if len(data) > _USERDATA_LIMIT:
        raise InvalidValueError(
            f"parameter cloud_userdata has {len(data)} bytes, more than {_USERDATA_LIMIT}",
            remedy="have it include what is large by its URL (#include)",
        )
    return data


def _product_key(text: str) -> str:
    if text and not _PRODUCT_KEY.fullmatch(text):
        raise InvalidValueError(
            "parameter os_product_key is not a product key",
            remedy="give five groups of five, with dashes",
        )
    return text.upper()


def _answer_file(url: str) -> str:
    if not url:
        return ""
    _check_url("os_answer_file", url)
    from snf_core.image import web

    web.parse(url, "parameter os_answer_file")
    return url


def _check_url(name: str, value: str) -> None:
    if not _URL.fullmatch(value):
        raise InvalidValueError(
            f"parameter {name} is not a URL of a kind that is served",
            remedy="give one that begins with http, https, ftp, ftps or file, and ://",
        )


def variant_file(directory: Path, name: str) -> Path:
    """Where the parameters of a variant are. Raises InvalidValueError if it cannot be its name."""
    if not _VARIANT.fullmatch(name):
        raise InvalidValueError(
            f"{name!r} is not the name of a variant",
            remedy="give the name of a file in [image] variants, without .conf",
        )
    return directory / f"{name}.conf"


def assignments(file: Path) -> dict[str, str]:
    """The parameters that a file assigns to, in shell syntax but never run by a shell.

    Raises FileNotFoundError, and ConfigError for whatever else is wrong.
    """
    try:
        words = shlex.split(file.read_text(), comments=True)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot read variant {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read variant {file}: it is not text in UTF-8") from None
    except ValueError as error:  # shlex says what, without the text
        raise ConfigError(f"cannot read variant {file}: {error}") from error
    found = {}
    for number, word in enumerate(words, 1):
        key, assigned, value = word.partition("=")
        if not assigned or key.lower() not in NAMES:
            # Not the word itself, which may be part of a password that nobody quoted.
            raise ConfigError(
                f"{file}: word {number} is not an assignment to a parameter",
                remedy="use NAME=value lines with " + ", ".join(NAMES).upper(),
            )
        found[key.lower()] = value
    return found


def _variant(directory: Path, name: str) -> dict[str, str]:
    """The parameters of a variant. The variant ``default`` needs no file."""
    if not name:
        return {}
    file = variant_file(directory, name)
    try:
        return assignments(file)
    except FileNotFoundError:
        if name == "default":
            return {}
        raise InvalidValueError(
            f"there is no variant {name!r}", remedy=f"put its parameters into {file}"
        ) from None
