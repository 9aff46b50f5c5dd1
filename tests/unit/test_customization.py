"""What is asked of a guest, where it is printed."""

from __future__ import annotations

import pytest

from snf_core.image.customization import Customization, PersonalFile
from snf_core.image.properties import Properties

HASH = f"$6$salt${'x' * 86}"


def test_nothing_secret_shows() -> None:
    request = Customization(
        "web1",
        properties=Properties({"NOTE": "between us"}),
        password_hash=HASH,
        password="between us",
        personality=(PersonalFile("/etc/key", b"between us"),),
        product_key="between us",
        answer_file=b"between us",
        user_data=b"between us",
    )
    assert HASH not in repr(request)
    assert "between us" not in repr(request)
    assert "web1" in repr(request)
    assert "between us" not in repr(request.personality)


def test_it_cannot_be_changed() -> None:
    request = Customization("web1", properties=Properties())
    with pytest.raises(AttributeError):
        request.hostname = "other"  # type: ignore[misc]  # that is the point
