"""Errors say what failed and what to do about it."""

from __future__ import annotations

import pytest

from snf_core import errors
from snf_core.errors import InvalidValueError, SnfError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("kind", KINDS)
def test_message_and_remedy(kind: type[SnfError]) -> None:
    error = kind("the disk is gone", remedy="attach it")
    assert isinstance(error, SnfError)
    assert (error.message, error.remedy) == ("the disk is gone", "attach it")
    assert str(error) == "the disk is gone (attach it)"
    assert str(kind("the disk is gone")) == "the disk is gone"


def test_a_wrong_value_is_a_value_error() -> None:
    assert issubclass(InvalidValueError, ValueError)
