"""ConfigureNetwork and its choice of a renderer."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import pytest

from snf_core import extension
from snf_core.image.nics import NicPlan
from snf_os_linux import network
from snf_os_linux.network import ConfigureNetwork
from snf_os_linux.renderer import networkd
from tests.fakes.guest import FakeGuest, Node, link
from tests.fakes.task import run

if TYPE_CHECKING:
    from collections.abc import Mapping


class TestConfigureNetwork:
    def test_point_and_renderer_are_published(self) -> None:
        assert extension.load(network.POINT, "networkd").priority == 50
        assert network.POINT in list(extension.points())

    def test_nothing_fits(self) -> None:
        [warning] = run(ConfigureNetwork, FakeGuest.mounted({"/etc/passwd": ""}))
        assert "networkd" in warning

    def test_highest_priority_that_is_available(self) -> None:
        class One(network.Renderer):
            priority = 10
            fits = True

            def available(self, guest: Any) -> bool:
                del guest
                return self.fits

            def render(self, nics: Any, nameservers: Any, search_domains: Any) -> Any:
                del nics, nameservers, search_domains
                return []

        class Two(One):
            priority = 20

        class Three(One):
            priority = 30
            fits = False

        candidates = [One(None), Two(None), Three(None)]
        chosen = network.choose(FakeGuest.mounted({}), candidates)
        assert chosen is candidates[1]

    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            ({"/etc/resolv.conf": "# none\n"}, "search example.org\nnameserver 192.0.2.53\n"),
            ({}, "search example.org\nnameserver 192.0.2.53\n"),
            ({"/etc/resolv.conf": link("/run/x")}, None),
            (
                {
                    "/etc/resolv.conf": "# old\n",
                    "/etc/systemd/system/multi-user.target.wants/systemd-resolved.service": "",
                },
                "# old\n",
            ),
        ],
    )
    def test_resolver(self, more: Mapping[str, str | Node], expected: str | None) -> None:
        guest = FakeGuest.mounted(
            {"/etc/systemd/system/multi-user.target.wants/systemd-networkd.service": "", **more}
        )
        servers = (str(ipaddress.ip_address("192.0.2.53")),)
        assert (
            run(ConfigureNetwork, guest, nameservers=servers, search_domains=("example.org",)) == []
        )
        assert guest.read("/etc/resolv.conf") == expected

    @pytest.mark.parametrize("before", [True, False])
    def test_an_update_changes_what_was_configured_before_and_begins_nothing(
        self, before: bool
    ) -> None:
        old = f"{networkd.DIRECTORY}/05-snf-aa0000000001.network"
        enabled = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
        guest = FakeGuest.mounted({enabled: "", **({old: "# of then\n"} if before else {})})
        nic = NicPlan(0, "aa:00:00:00:00:02", "dhcp")
        assert run(ConfigureNetwork, guest, update=True, nics=(nic,)) == []
        new = ["05-snf-aa0000000002.network"] if before else []
        assert guest.list(networkd.DIRECTORY) == new

    def test_an_update_says_nothing_of_a_guest_that_nothing_fits(self) -> None:
        assert run(ConfigureNetwork, FakeGuest.mounted({"/etc/passwd": ""}), update=True) == []
