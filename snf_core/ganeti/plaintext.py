"""A password in the clear, kept out of every memory that a guest's worker is forked from.

Ganeti gives the password to ``create`` in the environment. There it would stay in the process's
memory, whatever is done to the variable. So the process begins anew before it does anything else,
the password waiting in a file in memory (memfd_create(2)) behind a descriptor; only a child that
ends at once reads it, and answers with its hash. The descriptor stays open, for guests that take
no hash.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from snf_core.errors import SnfError, TaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE = "OSP_IMG_PASSWD"
HASH_VARIABLE = "OSP_IMG_PASSWD_HASH"
_DESCRIPTOR = "SNF_PASSWORD_DESCRIPTOR"
_WRONG = 2
"""How the child ends where something in the environment is wrong."""


def withdraw() -> None:
    """Begin this program anew without a password in its environment, if it holds one."""
    environ = dict(os.environ)
    given = environ.pop(VARIABLE, None)
    if given is None:
        return
    descriptor = os.memfd_create("password")
    os.write(descriptor, os.fsencode(given))
    os.set_inheritable(descriptor, True)
    environ[_DESCRIPTOR] = str(descriptor)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)


def hashed(
    environ: Mapping[str, str], make_hash: Callable[[Mapping[str, str]], str]
) -> tuple[dict[str, str], int | None]:
    """The environment with the password's hash in the place of what was withdrawn.

    And the descriptor of the file that holds the password, for nobody to inherit; None where there
    is none. ``make_hash`` is called in a child, with the environment as it was. Where it raises
    SnfError, the password itself is put back, for whoever checks the parameters to say what is
    wrong. Raises TaskError if the child dies.
    """
    from snf_core.image import password  # not while a program begins that begins anew at once

    others = {name: value for name, value in environ.items() if name != _DESCRIPTOR}
    if _DESCRIPTOR not in environ:
        return others, None
    descriptor = int(environ[_DESCRIPTOR])
    os.set_inheritable(descriptor, False)
    made = _in_child(lambda: make_hash(others | {VARIABLE: password.read(descriptor)}))
    if made is not None:
        return others | {HASH_VARIABLE: made}, descriptor
    return others | {VARIABLE: password.read(descriptor)}, None


def _in_child(function: Callable[[], str]) -> str | None:
    """What ``function`` returns in a forked child; None if it raises SnfError there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, function().encode())
            status = 0
        except SnfError:
            status = _WRONG
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        made = answer.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in {0, _WRONG}:
        raise TaskError(
            "the process that makes the password's hash died",
            remedy="look for killed processes in the node's kernel log, then deploy again",
        )
    return made if status == 0 else None
