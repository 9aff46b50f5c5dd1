"""What is asked of a guest: everything a task may read, and nothing else; what it may write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snf_core.image.nics import NicPlan
    from snf_core.image.properties import Properties


@dataclass(frozen=True)
class File:
    """A file to be written into a guest."""

    path: str
    content: str = field(repr=False)
    mode: int | None = None
    """Permission bits; None: those of the file that it replaces, else 0644."""
    owner: tuple[int, int] | None = None
    """Uid and gid; None: those of the file that it replaces, else root."""


@dataclass(frozen=True)
class PersonalFile:
    """A file that the tenant wants in the guest; it comes after all that tasks write."""

    path: str
    """Absolute, with slashes, without ``..``; Windows takes it as below ``C:``."""
    content: bytes = field(repr=False)
    owner: str = "root"
    group: str = "root"
    mode: int = 0o440
    """Permission bits."""


@dataclass(frozen=True)
class Customization:
    """The wishes of the tenant and the operator for one guest.

    Where the guest takes a hash, it holds no plaintext password, and the appliance never sees one.
    """

    hostname: str
    """The instance's name, often an FQDN."""
    device: str = "/dev/sda"
    """The deployed disk, as the appliance sees it."""
    hypervisor: str = field(default="", kw_only=True)
    """Where the guest will run, by the entry point: ``kvm``, ``xen-pvm``; empty if not known."""
    disk_name: str = field(default="", kw_only=True)
    """The deployed disk, as the guest's kernel will call it there: ``/dev/vda``; empty likewise."""
    properties: Properties = field(repr=False, kw_only=True)
    nics: tuple[NicPlan, ...] = ()
    """How each NIC is to be configured, decided already; renderers only write it down."""
    nameservers: tuple[str, ...] = ()
    search_domains: tuple[str, ...] = ()
    password_hash: str = field(default="", repr=False)
    """In crypt(5) form; empty where no password is to be set."""
    password: str = field(default="", repr=False)
    """The password itself, for families that cannot do without (``plaintext_password``). Whoever
    writes it into the guest has the guest remove it at its first boot."""
    authorized_keys: tuple[str, ...] = ()
    """Lines in authorized_keys form (sshd(8))."""
    users: tuple[str, ...] = ()
    """Whose password and keys; empty where the image does not say."""
    personality: tuple[PersonalFile, ...] = field(default=(), repr=False)
    """Files of the tenant's."""
    product_key: str = field(default="", repr=False)
    answer_file: bytes = field(default=b"", repr=False)
    """The tenant's answer file for an unattended setup, fetched already and not looked into."""
    user_data: bytes = field(default=b"", repr=False)
    """For cloud-init or cloudbase-init in the guest, decoded."""
    machine_id: str = ""
    """The id to write (machine-id(5)); empty: the guest makes one at its first boot."""
    update: bool = False
    """The guest was deployed before, and keeps what it has but for what is asked for now: a task
    brings what it made then up to date, and does not begin with what it did not make."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What was found out about the guest: ``family``, ``root`` (device), ``grows`` (the file
    systems that the family sees to, blank-separated)."""
