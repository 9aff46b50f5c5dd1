"""``make bench``: figures side by side with peers, in one run. Quote ratios, not seconds."""

from __future__ import annotations

import sys

from tests.bench import copy_speed, deployment, nic_up


def main() -> int:
    """Measure and print everything."""
    print(nic_up.measure(10), end="\n\n", flush=True)
    print(copy_speed.measure(7), end="\n\n", flush=True)
    print(deployment.measure(3), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
