"""Accidents half-way through an event, in a forked child (see ``child``) that handles it.

An event consists of steps: writing or removing a state document, and what goes through each gate
of the kernel, change by change. An accident happens at one of them:

======== ======================================================================================
``kill`` SIGKILL, before or after a step; or between the changes of a gate, those before having
         been made
``fail`` the document cannot be written; among the changes of a gate there is one that the
         kernel refuses
``wait`` for a line on standard input, before a step
======== ======================================================================================

The step is chosen by its number, from 0, or by its name (``before document write``, ``links 2``,
which is behind two changes of that gate): the first of that name. The child says at which step
the accident happens, by a line on standard output, and nothing where the event has no such step.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from snf_core import cli
from snf_core.errors import NetworkError
from snf_core.network.document import Documents
from snf_core.network.kernel import LINKS, NFT, SWITCH, SYSCTLS, Kernel
from snf_core.network.state import ELEMENT, LINK, PORT, SYSCTL, Change, Item

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from snf_core.network.state import Key

HERE = "an accident at: "
"""Begins the line that names the step."""

REFUSED = {
    NFT: Change(Item(ELEMENT, "inet nics", "not one name", True), None),
    SYSCTLS: Change(Item(SYSCTL, "net/ipv4/conf/all/rp_filter", "value", "many"), "0"),
    SWITCH: Change(Item(PORT, "lo", "switch", "nobridge"), None),
    LINKS: Change(Item(LINK, "lo", "master", "lo"), None),
}
"""For each gate a change that the kernel refuses."""


class Accident:
    """What happens, and where."""

    def __init__(self, action: str, step: int | str) -> None:
        self._action = action
        self._step = step
        self._met = 0

    def handle(self, words: Sequence[str]) -> int:
        """``snf`` with ``words``, and the accident. For a child: it is never undone."""
        for method in ("write", "remove"):
            setattr(Documents, method, self._of_documents(method, getattr(Documents, method)))
        Kernel.apply = self._of_kernel(Kernel.apply)  # type: ignore[method-assign]
        return cli.main(words)

    def _of_documents(self, method: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(documents: Documents, subject: Any) -> None:
            if self._is_here(f"before document {method}"):
                self._happen()
            real(documents, subject)
            if self._action == "kill" and self._is_here(f"after document {method}"):
                self._happen()

        return call

    def _of_kernel(self, real: Callable[..., Collection[Key]]) -> Any:
        def apply(kernel: Kernel, gate: str, changes: Sequence[Change]) -> Collection[Key]:
            for position in self._positions(gate, len(changes)):
                if self._is_here(f"{gate} {position}"):
                    if self._action == "fail":
                        changes = [*changes[:position], REFUSED[gate], *changes[position:]]
                    else:
                        real(kernel, gate, changes[:position])
                        self._happen()
            return real(kernel, gate, changes)

        return apply

    def _positions(self, gate: str, count: int) -> Sequence[int]:
        """Before which of ``count`` changes something can happen; ``count`` for behind them."""
        if self._action == "wait":
            return [0]
        return [0, count] if gate in {NFT, SWITCH} else range(count + 1)  # one transaction

    def _is_here(self, step: str) -> bool:
        if self._step not in {self._met, step}:
            self._met += 1
            return False
        self._step = -1  # what is taken back goes through the same gates
        print(f"{HERE}{step}", flush=True)
        return True

    def _happen(self) -> None:
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._action == "wait":
            sys.stdin.readline()
        else:
            raise NetworkError("an accident")
