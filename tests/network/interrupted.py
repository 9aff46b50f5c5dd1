"""A NIC event, handled by the real engine, that something happens to half-way.

``interrupted.py WHEN ATTRIBUTE ACTION``, the NIC in the environment. WHEN is ``before``
or ``after`` ATTRIBUTE is set; ACTION is ``kill`` (SIGKILL), ``delete`` (the bridge goes),
``fail`` (the kernel says no), or ``wait`` (for a line on standard input).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from snf_core import config, extension
from snf_core.errors import NetworkError
from snf_core.network import engine
from snf_core.network.document import Documents
from snf_core.network.links import Links

if TYPE_CHECKING:
    from snf_core.network.state import Value


class InterruptedLinks(Links):
    """The kernel's links, and an accident."""

    def __init__(self, when: str, attribute: str, action: str) -> None:
        super().__init__()
        self._accident = (when, attribute)
        self._action = action

    def set(self, name: str, attribute: str, value: Value) -> None:
        """Set it, with the accident before or after."""
        self._meet("before", attribute)
        super().set(name, attribute, value)
        self._meet("after", attribute)

    def _meet(self, when: str, attribute: str) -> None:
        if (when, attribute) != self._accident:
            return
        self._accident = ("", "")
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._action == "delete":
            subprocess.run(["ip", "link", "delete", os.environ["LINK"]], check=True)
        elif self._action == "wait":
            print("waiting", flush=True)
            sys.stdin.readline()
        else:
            raise NetworkError(f"accident {when} {attribute}")


def main() -> None:
    """Handle the event."""
    when, attribute, action = sys.argv[1:]
    conf = config.load()
    event = extension.make(extension.HYPERVISOR, "kvm", conf).nic_event(["up"], os.environ)
    setups = {"bridged": extension.make(extension.NETWORK_SETUP, "bridged", conf)}
    with InterruptedLinks(when, attribute, action) as links:
        try:
            engine.up(event, setups, links, Documents(conf.runtime() / "network"))
        except NetworkError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
