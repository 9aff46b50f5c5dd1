"""The task "AcmeNotice" of Linux guests: what users read when they log in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import Stage, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest


class AcmeNotice(Task):
    """Write /etc/motd."""

    api_version = "1.0"
    stage = Stage.MOUNTED
    after = ("AssignHostname",)
    properties = {"ACME_NOTICE": "what users read when they log in; nothing where not set"}

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Leave the image's own text where the property is not set."""
        notice = request.properties.get("ACME_NOTICE")
        if not notice:
            return
        if len(notice) > 1000:
            yield "ACME_NOTICE is longer than 1000 characters, and was cut"
        guest.write("/etc/motd", f"{request.hostname}: {notice[:1000]}\n", mode=0o644)
