"""Ids of deployments: which may be taken, and that no two have the same."""

from __future__ import annotations

import contextlib
import os
import pwd
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import ApplianceError
from snf_core.image import identity
from snf_core.image.identity import Identity, Pool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOBODY = pwd.getpwnam("nobody").pw_uid
SMALL = Pool((range(100_000, 100_002), range(300_000, 300_001)), (range(200_000, 200_009),))


@pytest.fixture(name="reserved")
def _reserved(tmp_path: Path) -> Callable[[str, str], Pool]:
    """The pool of user ``nobody`` for the contents of the two files."""

    def pool(uids: str, gids: str) -> Pool:
        (tmp_path / "subuid").write_text(uids)
        (tmp_path / "subgid").write_text(gids)
        return identity.pool("nobody", tmp_path / "subuid", tmp_path / "subgid")

    return pool


def test_a_user_has_what_bears_its_name_or_number(reserved: Callable[[str, str], Pool]) -> None:
    found = reserved(
        f"alice:100000:65536\nnobody:200000:2\n{NOBODY}:300000:1\nnobodys:5:5\n#nobody:1:1\n",
        "nobody:400000:9",
    )
    assert found == Pool(
        (range(200_000, 200_002), range(300_000, 300_001)), (range(400_000, 400_009),)
    )
    assert len(found) == 3
    assert [found.identity(index, (7,)) for index in range(3)] == [
        Identity(200_000, 400_000, (7,)),
        Identity(200_001, 400_001, (7,)),
        Identity(300_000, 400_002, (7,)),
    ]


@pytest.mark.parametrize(
    ("uids", "gids"),
    [
        ("", ""),
        ("nobody:100000:65536\n", ""),
        ("", "nobody:100000:65536\n"),
        ("alice:100000:65536\n", "alice:100000:65536\n"),
        ("nobody:100000:0\n", "nobody:100000:10\n"),
        ("nobody:x:y\n", "nobody:100000\n"),
    ],
)
def test_without_ids_of_both_kinds_nothing_goes(
    reserved: Callable[[str, str], Pool], uids: str, gids: str
) -> None:
    with pytest.raises(ApplianceError, match="'nobody' has no subordinate ids") as caught:
        reserved(uids, gids)
    assert "snf appliance build" in caught.value.remedy


def test_files_need_not_be_there(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match="no subordinate ids"):
        identity.pool("nobody", tmp_path / "subuid", tmp_path / "subgid")


@pytest.mark.parametrize("entry", ["0:1", "0:65536", "999:1", "998:100000", "4294967295:1"])
def test_ids_of_the_system_are_refused(reserved: Callable[[str, str], Pool], entry: str) -> None:
    good = "nobody:100000:65536\n"
    for uids, gids in ((f"{good}nobody:{entry}\n", good), (good, f"{good}nobody:{entry}\n")):
        with pytest.raises(ApplianceError, match="belong to the system"):
            reserved(uids, gids)


def test_an_appliance_user_must_be_there_and_must_not_be_root() -> None:
    with pytest.raises(ApplianceError, match=r"'no-such-user-here' does not exist") as caught:
        identity.pool("no-such-user-here")
    assert "snf appliance build" in caught.value.remedy
    for refuse in (identity.pool, identity.reserve):
        with pytest.raises(ApplianceError, match="which is root"):
            refuse("root")


def test_no_two_have_the_same_and_all_are_used(tmp_path: Path) -> None:
    locks = tmp_path / "identities"
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(identity.taken(SMALL, (), locks)) for _ in range(3)]
        assert {own.uid for own in found} == {100_000, 100_001, 300_000}
        assert {own.gid for own in found} == {200_000, 200_001, 200_002}
        with pytest.raises(ApplianceError, match=r"all 3 ids .* are in use"):
            stack.enter_context(identity.taken(SMALL, (), locks))
    with identity.taken(SMALL, (), locks) as own:
        assert own in found
    assert locks.stat().st_mode & 0o777 == 0o600


def test_what_failed_gives_its_id_back(tmp_path: Path) -> None:
    pool = Pool((range(100_000, 100_001),), (range(100_000, 100_001),))
    for _ in range(2):
        with pytest.raises(KeyError), identity.taken(pool, (), tmp_path / "identities"):
            raise KeyError


def test_groups_are_looked_up(tmp_path: Path) -> None:
    with identity.taken(SMALL, ["root", "nogroup"], tmp_path / "identities") as own:
        assert own.groups[0] == 0
        assert len(own.groups) == 2
    with (
        pytest.raises(ApplianceError, match=r"'no-such-group'.*does not exist"),
        identity.taken(SMALL, ["no-such-group"], tmp_path / "identities"),
    ):
        raise AssertionError


def test_no_link_is_followed_to_the_locks(tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", tmp_path / "identities")
    with pytest.raises(OSError), identity.taken(SMALL, (), tmp_path / "identities"):  # noqa: PT011
        raise AssertionError
    assert not (tmp_path / "elsewhere").exists()


@given(st.lists(st.tuples(st.integers(0, 1 << 31), st.integers(1, 1 << 20))))
def test_new_ids_are_nobodys(entries: list[tuple[int, int]]) -> None:
    text = "".join(f"user{n}:{first}:{count}\n" for n, (first, count) in enumerate(entries))
    free = identity.first_free(text, 100_000)
    assert free >= 100_000
    assert all(free >= first + count for first, count in entries)
