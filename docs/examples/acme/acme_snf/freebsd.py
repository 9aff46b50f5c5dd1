"""The guest family "freebsd", recognised by the type of its partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import GuestFamily
from snf_core.errors import GuestError

if TYPE_CHECKING:
    from snf_core.image.guest import Guest

UFS = "516e7cb6-6ecf-11d6-8ff8-00022d09712b"
"""The GPT partition type of UFS (gpart(8))."""


class FreeBsd(GuestFamily):
    """FreeBSD on UFS."""

    api_version = "1.0"

    def detect(self, guest: Guest, root: str | None) -> int:
        """Sure of a partition that only FreeBSD makes."""
        return 2 if any(part.type == UFS for part in guest.partitions()) else 0

    def root(self, guest: Guest) -> str:
        """The only such partition."""
        found = [part.number for part in guest.partitions() if part.type == UFS]
        if len(found) != 1:
            raise GuestError(
                f"there are {len(found)} UFS partitions, and one of them must be the root",
                remedy="set the property ROOT_PARTITION",
            )
        return f"/dev/sda{found[0]}"
