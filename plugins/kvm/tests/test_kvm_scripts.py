"""The scripts that Ganeti runs for KVM, by what each generation of it calls.

Ganeti's own scripts are stand-ins here, in our words: each mentions what that generation's calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_core.ganeti import generation
from snf_kvm import scripts

if TYPE_CHECKING:
    from pathlib import Path

VIF_BRIDGE = (
    '#!/bin/bash\n  # not ifup-extra\n[ -x "$DIR/kvm-vif-bridge" ] && exec $DIR/kvm-vif-bridge\n'
)
CUSTOM = '#!/bin/bash\ntest -x "$DIR/kvm-ifup-custom" && exec "$DIR/kvm-ifup-custom" "$@"\n'
CUSTOM_DOWN = (
    '#!/bin/bash\ntest -x "$DIR/kvm-ifdown-custom" && exec "$DIR/kvm-ifdown-custom" "$@"\n'
)
NIC_SETUP = '#!/bin/bash\nexec "${DIR}/network/${MODE}/${ACTION}"\n'

GANETI_3_0 = {"kvm-ifup": VIF_BRIDGE}
WITH_CUSTOM = {"kvm-ifup": CUSTOM, "kvm-ifdown": CUSTOM_DOWN}
GANETI_3_2 = {"kvm-nic-setup": NIC_SETUP}

UP, DOWN = ("up", "--hypervisor", "kvm"), ("down", "--hypervisor", "kvm")
OF_3_0 = {"kvm-vif-bridge": UP}
OF_CUSTOM = {"kvm-ifup-custom": UP, "kvm-ifdown-custom": DOWN}
OF_3_2 = {
    f"network/{mode}/{action}": (action, "--hypervisor", "kvm")
    for mode in ("bridged", "routed", "openvswitch", "ext")
    for action in ("up", "down")
}


def put(library: Path, files: dict[str, str]) -> None:
    """A version of Ganeti, with its scripts."""
    library.mkdir(parents=True)
    for name, text in ({"daemon-util": "", **files}).items():
        (library / name).write_text(text)


def named(root: Path) -> dict[str, tuple[str, ...]]:
    """The scripts that KVM wants, by their place below Ganeti's configuration."""
    found = generation.find(root)
    assert found
    listed = list(scripts.nic_scripts(found))
    assert len({one.path for one in listed}) == len(listed)
    return {str(one.path.relative_to("/etc/ganeti")): one.words for one in listed}


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([{}], {}),
        ([{"kvm-ifup": "#!/bin/sh\n# exec kvm-vif-bridge\n"}], {}),
        ([GANETI_3_0], OF_3_0),
        ([WITH_CUSTOM], OF_CUSTOM),
        ([GANETI_3_2], OF_3_2),
        ([GANETI_3_0, GANETI_3_2], OF_3_0 | OF_3_2),
        ([GANETI_3_0, WITH_CUSTOM, GANETI_3_2], OF_3_0 | OF_CUSTOM | OF_3_2),
    ],
)
def test_what_any_installed_version_calls(
    tmp_path: Path, versions: list[dict[str, str]], expected: dict[str, tuple[str, ...]]
) -> None:
    for number, files in enumerate(versions):
        put(tmp_path / f"usr/lib/ganeti/{number}/usr/lib/ganeti", files)
    assert named(tmp_path) == expected
