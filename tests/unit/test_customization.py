"""What is asked of a guest, where it is printed."""

from __future__ import annotations

from dataclasses import fields

import pytest

from snf_core.image.customization import Customization
from snf_core.image.properties import Properties

HASH = f"$6$salt${'x' * 86}"


def test_nothing_secret_shows() -> None:
    request = Customization(
        "web1", properties=Properties({"NOTE": "between us"}), password_hash=HASH
    )
    assert HASH not in repr(request)
    assert "between us" not in repr(request)
    assert "web1" in repr(request)


def test_no_field_could_hold_a_plain_password() -> None:
    names = {field.name for field in fields(Customization)}
    assert {name for name in names if "pass" in name} == {"password_hash"}


def test_it_cannot_be_changed() -> None:
    request = Customization("web1", properties=Properties())
    with pytest.raises(AttributeError):
        request.hostname = "other"  # type: ignore[misc]  # that is the point
