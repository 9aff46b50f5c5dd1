"""Ganeti's commands: several at a time, and what they show an administrator."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tests.ganeti.cluster import Cluster
    from tests.ganeti.node import Outcome

AT_ONCE = 3
_FAILURE = re.compile(r"^(?:Job [0-9]+ for \S+ has failed: )?Failure: (.*)$", re.MULTILINE)


def each(names: Iterable[str], do: Callable[[str], Outcome]) -> dict[str, Outcome]:
    """What comes of each, some done at a time."""
    names = list(names)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(names, pool.map(do, names), strict=True))


def failure(outcome: Outcome) -> list[str]:
    """The lines of a command that failed, from the one after ``Failure: command execution error:``
    to the last. AssertionError where it did not fail, or for another reason.
    """
    assert outcome.status == 1, outcome
    found = _FAILURE.search(outcome.stderr)
    assert found, outcome
    assert found[1] == "command execution error:", outcome
    return outcome.stderr[found.end() + 1 :].splitlines()


def instances(cluster: Cluster) -> dict[str, str]:
    """The status of every instance, by its name."""
    listed = cluster.run("gnt-instance", "list", "--no-headers", "-o", "name,status").stdout
    return dict(line.split() for line in listed.splitlines())


def parameters(values: Mapping[str, str]) -> str:
    """Parameters as ``-O`` and its like take them: NAME=value,... with escaped commas."""
    escaped = {
        name: value.replace("\\", "\\\\").replace(",", "\\,") for name, value in values.items()
    }
    return ",".join(f"{name}={value}" for name, value in escaped.items())
