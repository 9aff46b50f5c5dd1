"""``python -m tests.xen [OPTIONS] [ARGUMENTS OF PYTEST]`` runs pytest in the dom0 of a real Xen,
``python -m tests.xen [OPTIONS] -- COMMAND ...`` any command. See ``tests.xen.machine``.

Without arguments all tests are run, those of each module in a dom0 of their own: what one leaves
behind there, the rules of the setups in use for example, no other one meets.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests import payload
from tests.images.debian import ImageBuildError
from tests.machine import MachineError
from tests.xen.machine import Dom0

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """The exit status of what ran there."""
    started = time.monotonic()
    words, command = list(arguments), None
    if "--" in words:
        place = words.index("--")
        words, command = words[:place], words[place + 1 :]
    options, rest = _parser().parse_known_args(words)
    if command is None:
        modules = [[str(path)] for path in sorted(Path(__file__).parent.glob("test_*.py"))]
        commands = [payload.pytest_command(each) for each in ([rest] if rest else modules)]
    elif rest:
        sys.exit(f"not known: {' '.join(rest)}")
    else:
        commands = [command]
    machine = Dom0(
        memory=options.memory,
        dom0_memory=options.dom0_memory,
        timeout=options.timeout,
        disks=tuple(options.disk),
        wheels=options.wheels,
    )
    try:
        statuses = [machine.run(words, options.results) for words in commands]
    except (ImageBuildError, MachineError) as error:
        sys.exit(str(error))
    print(f"in a Xen dom0: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return max(statuses)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.xen",
        allow_abbrev=False,
        usage="%(prog)s [OPTIONS] [PYTEST ARGUMENTS]",
    )
    default = Dom0()
    parser.add_argument("--memory", type=int, default=default.memory, help="MiB, of the machine")
    parser.add_argument(
        "--dom0-memory", type=int, default=default.dom0_memory, help="MiB of it, for dom0"
    )
    parser.add_argument("--timeout", type=float, default=default.timeout, help="seconds")
    parser.add_argument("--results", type=Path, help="directory for what is left in $RESULTS")
    parser.add_argument(
        "--disk", type=Path, action="append", default=[], help="another, as /dev/vde and so on"
    )
    parser.add_argument(
        "--wheels", action="store_true", help="with our distributions, as test_end_to_end needs it"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
