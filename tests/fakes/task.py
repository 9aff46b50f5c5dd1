"""Running a task as the engine does, without an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snf_core.image.customization import Customization
from snf_core.image.properties import Properties

if TYPE_CHECKING:
    from snf_core.contract import Task
    from snf_core.image.guest import Guest


def run(task: type[Task], guest: Guest, **fields: Any) -> list[str]:
    """Run a task for ``vm1.example.org``; ``fields`` of the request. Returns its warnings."""
    request = Customization(**{"hostname": "vm1.example.org", "properties": Properties(), **fields})
    made = task(None)
    made.check_request(request)
    return list(made.run(guest, request))
