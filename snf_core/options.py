"""The core's options, group by group; a plugin's are declared in the plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oslo_config import cfg

if TYPE_CHECKING:
    from collections.abc import Sequence


def _host_or_prefix(text: str) -> str:
    import ipaddress
    import re

    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        if re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9._-]{1,253}", text):
            return text
    raise ValueError(f"{text!r} is neither a host nor an address nor ADDRESS/LENGTH")


def _guest_mtu(text: str) -> int:
    from snf_core import model

    number = int(text)
    return model.mtu(number) if number else 0


DIRECTORIES = [
    cfg.StrOpt(
        "state",
        default="/var/lib/snf",
        help="Directory for what must survive a reboot: images, the appliance.",
    ),
    cfg.StrOpt(
        "runtime",
        default="/run/snf",
        help="Directory for what must not survive a reboot: network state, the ids in use by "
        "deployments under way, what was found out about this boot.",
    ),
]

IMAGE = [
    cfg.StrOpt(
        "variants",
        default="/etc/snf/variants",
        help="Directory of variant files, NAME.conf each, with default parameters (IMG_ID=... "
        "lines as snf-image-creator writes them).",
    ),
    cfg.BoolOpt(
        "verify",
        default=False,
        help="Read back what was written to the disk and compare it with the image.",
    ),
    cfg.StrOpt(
        "unknown_properties",
        default="error",
        choices=[
            ("error", "refuse the deployment"),
            ("warning", "warn and go on"),
        ],
        help="What to do with image properties that no task knows.",
    ),
    cfg.ListOpt(
        "fetch_hosts",
        default=[],
        item_type=_host_or_prefix,
        help="Hosts, addresses and prefixes (ADDRESS/LENGTH) from which this node fetches what "
        "tenants name by URL (os_answer_file) although they are not on the public Internet. "
        "Whoever may deploy can read all that these servers show to this node.",
    ),
    cfg.StrOpt(
        "progress_monitor",
        default="",
        help="Program that gets one JSON object per line on standard input while a deployment "
        "runs; its first argument is the instance's name. Empty for none.",
    ),
]

PARAMETERS = [
    cfg.StrOpt("img_id", help="Default image identifier."),
    cfg.StrOpt("img_format", help="Default image format."),
    cfg.StrOpt("img_properties", help="Default image properties, a JSON object."),
    cfg.StrOpt("inst_properties", help="Default overriding properties, a JSON object."),
    cfg.StrOpt("img_personality", secret=True, help="Default files to inject, a JSON array."),
    cfg.StrOpt("img_passwd", secret=True, help="Default password."),
    cfg.StrOpt("img_passwd_hash", secret=True, help="Default password hash, in crypt(5) form."),
    cfg.StrOpt("auth_keys", help="Default SSH keys, in authorized_keys form."),
    cfg.StrOpt("os_product_key", secret=True, help="Default Windows product key."),
    cfg.StrOpt("os_answer_file", secret=True, help="Default URL of a Windows answer file."),
    cfg.StrOpt("config_url", help="Default URL of a JSON object with further parameters."),
    cfg.StrOpt("cloud_userdata", secret=True, help="Default cloud-init user data, in base64."),
]

APPLIANCE = [
    cfg.StrOpt(
        "user",
        default="snf-appliance",
        help="Unprivileged user whose subordinate ids (subuid(5)) run the appliance and everything "
        "that reads a guest: each deployment has one of its own.",
    ),
    cfg.IntOpt("memory", default=512, min=256, max=8192, help="Memory of the appliance, in MiB."),
    cfg.IntOpt(
        "timeout",
        default=600,
        min=10,
        help="Seconds a guest's customization may take, the appliance's start included.",
    ),
]

NETWORK = [
    cfg.ListOpt(
        "setups",
        default=[
            "bridged",
            "openvswitch",
            "routed",
            "filtered",
            "isolation",
            "firewall",
            "masquerade",
        ],
        help="The network setups in use; each decides by a NIC's mode and tags whether it "
        "has a say. What they want is made in this order: those that connect a NIC come first.",
    ),
    cfg.StrOpt(
        "extra_up",
        default="",
        help="Program that is run once a NIC is wired, with what is known of it in its "
        "environment. Where it fails, the NIC is unwired and the event fails. Empty for none.",
    ),
    cfg.StrOpt(
        "extra_down",
        default="",
        help="Program that is run before a NIC is unwired, with what was known of it when it was "
        "wired in its environment. Where it fails, the NIC is unwired all the same, and the event "
        "fails. Empty for none.",
    ),
    cfg.ListOpt(
        "dhcp_tags",
        default=["auto", "dhcp", "nfdhcpd"],
        help="Network tags that mean: the guest gets its IPv4 address by DHCP.",
    ),
    cfg.ListOpt(
        "stateful_dhcpv6_tags",
        default=["dhcpv6", "stateful_dhcpv6"],
        help="Network tags that mean: the guest gets its IPv6 address by DHCPv6.",
    ),
    cfg.ListOpt(
        "stateless_dhcpv6_tags",
        default=["nfdhcpd", "stateless_dhcpv6"],
        help="Network tags that mean: SLAAC for the address and DHCPv6 for the rest.",
    ),
    cfg.StrOpt(
        "default_nic_config",
        default="dhcp",
        choices=[
            ("", "nothing: leave it alone"),
            ("dhcp", "IPv4 by DHCP"),
            ("dhcpv6", "IPv6 by DHCPv6"),
            ("slaac", "IPv6 by router advertisement"),
            ("slaac_dhcp", "IPv6 by router advertisement, the rest by DHCPv6"),
            ("dhcp+dhcpv6", "IPv4 by DHCP, IPv6 by DHCPv6"),
            ("dhcp+slaac", "IPv4 by DHCP, IPv6 by router advertisement"),
            ("dhcp+slaac_dhcp", "IPv4 by DHCP, IPv6 by router advertisement and DHCPv6"),
        ],
        help="What the only NIC of a guest does if it has neither an address nor an IPv6 gateway.",
    ),
    cfg.Opt(
        "guest_mtu",
        type=_guest_mtu,
        default=0,
        help="MTU, in bytes, that guests configure on their NICs, unless a tag mtu:BYTES of a "
        "NIC's network names another. It must not exceed what the network passes. 0: as the "
        "guest finds it by itself.",
    ),
    cfg.ListOpt("nameservers", default=[], help="DNS servers for statically configured guests."),
    cfg.ListOpt("search_domains", default=[], help="DNS search domains for the same guests."),
]

GROUPS: dict[str, Sequence[cfg.Opt]] = {
    "directories": DIRECTORIES,
    "image": IMAGE,
    "parameters": PARAMETERS,
    "appliance": APPLIANCE,
    "network": NETWORK,
}
