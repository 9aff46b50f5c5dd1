"""``python -m tests.bench [NAME ...]``: figures side by side with peers. Quote ratios."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from pathlib import Path

from tests.bench import machine

NAMES = (
    "nic_up",
    "nics",
    "forwarding",
    "copy_speed",
    "export_speed",
    "appliance_start",
    "round_trips",
    "detection",
    "deployment",
    "concurrency",
    "instances",
)
"""Modules here, each with a function ``measure``, in the order in which they are run."""


def main() -> int:
    """Measure, print, and keep what was measured if that is wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--runs", type=int, metavar="N", help="instead of each one's own number")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure there")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"not measured here: {', '.join(sorted(unknown))}")
    facts = machine.facts()
    print(machine.described(facts), end="\n\n", flush=True)
    kept: dict[str, object] = {"machine": facts}
    for name in arguments.names or NAMES:
        module = importlib.import_module(f"tests.bench.{name}")
        figures = module.measure(**({"runs": arguments.runs} if arguments.runs else {}))
        print(figures, end="\n\n", flush=True)
        kept[name] = dataclasses.asdict(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
