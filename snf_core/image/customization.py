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
class Customization:
    """The wishes of the tenant and the operator for one guest.

    It holds no plaintext secret: the password arrives hashed, and the appliance never sees it.
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
    authorized_keys: tuple[str, ...] = ()
    """Lines in authorized_keys form (sshd(8))."""
    users: tuple[str, ...] = ()
    """Whose password and keys; empty where the image does not say."""
    machine_id: str = ""
    """The id to write (machine-id(5)); empty: the guest makes one at its first boot."""
    update: bool = False
    """The guest was deployed before, and keeps what it has but for what is asked for now: a task
    brings what it made then up to date, and does not begin with what it did not make."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What was found out about the guest: ``family``, ``root`` (device)."""
