"""The vifs of running domains."""

from __future__ import annotations

import pytest

from snf_core.contract import HostNic
from snf_core.errors import CommandError
from snf_xen import host_nics
from snf_xen.xenstore import Xenstore

WEB1 = "web1.gnt.test"


class Store(Xenstore):
    """A xenstore with domains: their numbers, kinds and names."""

    def __init__(self, *domains: tuple[int, str, str]) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        for number, kind, name in domains:
            self.values[f"/libxl/{number}/type"] = kind
            self.values[f"/local/domain/{number}/name"] = name

    def vif(self, place: str, script: str = "/etc/xen/scripts/vif-ganeti", **keys: str) -> Store:
        """The same with one vif more."""
        given = {"script": script, "hotplug-status": "connected", **keys}
        for key, value in given.items():
            self.values[f"backend/vif/{place}/{key.replace('_', '-')}"] = value
        return self

    def read(self, path: str) -> str | None:
        return self.values.get(path)

    def tree(self, path: str) -> dict[str, str]:
        below = f"{path}/"
        found = {key: value for key, value in self.values.items() if key.startswith(below)}
        return {key.removeprefix(below): value for key, value in found.items()}


class Nowhere(Xenstore):
    """Where there are no tools of Xen's."""

    def tree(self, path: str) -> dict[str, str]:
        raise CommandError("xenstore-ls is in none of /usr/bin")


def test_each_kind_of_guest_has_its_own() -> None:
    store = Store((1, "pv", WEB1), (2, "pvh", "web2"), (3, "hvm", "web3"))
    for place in ("1/0", "1/1", "2/0", "3/0"):
        store.vif(place)
    assert list(host_nics.listed(store, hvm=False)) == [
        HostNic(WEB1, 0, "vif1.0"),
        HostNic(WEB1, 1, "vif1.1"),
        HostNic("web2", 0, "vif2.0"),
    ]
    assert list(host_nics.listed(store, hvm=True)) == [HostNic("web3", 0, "vif3.0")]


def test_a_vif_with_a_name_of_its_own() -> None:
    store = Store((1, "pv", WEB1)).vif("1/0", vifname="web")
    assert list(host_nics.listed(store, hvm=False)) == [HostNic(WEB1, 0, "web")]


@pytest.mark.parametrize("script", ["vif-snf", "/etc/xen/scripts/vif-custom"])
def test_our_scripts(script: str) -> None:
    store = Store((1, "pv", WEB1)).vif("1/0", script)
    assert list(host_nics.listed(store, hvm=False)) == [HostNic(WEB1, 0, "vif1.0")]


@pytest.mark.parametrize(
    "store",
    [
        Nowhere(),
        Store(),
        Store((1, "pv", WEB1)),
        Store((1, "pv", WEB1)).vif("1/0", "/etc/xen/scripts/vif-bridge"),
        Store((1, "pv", WEB1)).vif("1/0", hotplug_status=""),  # its script runs
        Store((1, "pv", WEB1)).vif("1/0", hotplug_status="error"),
        Store((1, "pv", WEB1)).vif("1/0", vifname="../vif"),
        Store((1, "pv", WEB1)).vif("x/0"),
        Store((1, "pv", WEB1)).vif("1/0/deeper"),
        Store((1, "pv", f"{WEB1}--incoming")).vif("1/0"),
        Store((1, "pv", f"{WEB1}--migratedaway")).vif("1/0"),
        Store((1, "pv", "name with blanks")).vif("1/0"),
        Store().vif("1/0"),  # it has gone meanwhile
    ],
)
def test_none(store: Xenstore) -> None:
    assert list(host_nics.listed(store, hvm=False)) == []
