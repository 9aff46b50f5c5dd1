"""Fetches as a deployment does, one URL per line: ``python -m tests.system.fetching``.

Each line is a JSON object, ``{"url": str, "config": path, "timeout": seconds}``, and so is each
answer: ``{"content": base64}`` or ``{"error": str, "message": str, "remedy": str}``.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from snf_core.config import Config
from snf_core.errors import SnfError
from snf_core.image import fetch


def main() -> None:
    """Answer until there are no more lines."""
    for line in sys.stdin:
        asked = json.loads(line)
        config = Config([Path(asked["config"])])
        try:
            content = fetch.fetch(asked["url"], "the URL", config, asked["timeout"])
            answer = {"content": base64.b64encode(content).decode()}
        except SnfError as error:
            answer = {
                "error": type(error).__name__,
                "message": error.message,
                "remedy": error.remedy,
            }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
