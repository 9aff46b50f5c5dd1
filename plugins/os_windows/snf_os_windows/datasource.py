"""InitializeDatasource: a volume that tells cloudbase-init in the guest what to do."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from snf_core.contract import Task
from snf_core.errors import GuestError, UnsupportedError
from snf_core.image import layout
from snf_os_windows import answer_file, cloudbase, hostname, personality, seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest
    from snf_core.image.layout import Partition
    from snf_os_windows.cloudbase import Agent

SECTORS = 1792
"""Of the volume: 896 KiB, for which growth leaves room at the disk's end."""

_BASIC_DATA = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
_NO_DRIVE_LETTER = 1 << 63
"""Of a basic data partition's attributes (PARTITION_INFORMATION_GPT in winioctl.h)."""
_FAT12 = "01"

_EXCLUDE = "set the property EXCLUDE_TASK_INITIALIZEDATASOURCE to yes"


class InitializeDatasource(Task):
    """Give cloudbase-init, where the guest has it, a ConfigDrive or a NoCloud volume.

    A FAT12 volume at the disk's end holds the computer's name, the network, SSH keys, user data
    and the password. One of the scripts that cloudbase-init runs after it has set the password
    blanks it on that volume, and takes from everybody the right to write to what this deployment
    makes in the guest. Each deployment is another instance to cloudbase-init. Where there is to be
    no volume, one of an earlier deployment of the image's is emptied.
    """

    api_version = "1.0"
    parameters = ("cloud_userdata", "auth_keys")

    def run(self, guest: Guest, request: Customization) -> Iterable[str]:
        """Raises GuestError where there is no room, UnsupportedError for user data in vain."""
        if request.update:
            # Another instance id would have cloudbase-init set another password.
            return ["the seed of a guest that was deployed before stays as it is"]
        decision = cloudbase.decision(guest, request)
        request = cloudbase.asked(request)
        agent = decision.agent
        if not decision.service or agent is None:
            _empty(guest, request.device)
            return _without(request, decision.reasons)
        name = hostname.computer_name(request.hostname) if request.hostname else ""
        made = seed.make(decision.service, request, name, str(uuid.uuid4()))
        warnings = [*_leave(guest, agent, request, made), *_lost(agent, request, decision.service)]
        # The appliance's kernel learns of no partition while another one is mounted.
        guest.unmount_all()
        _write(guest, request.device, made)
        guest.mount_windows(request.facts["root"])
        return warnings


def _empty(guest: Guest, disk: str) -> None:
    """Let cloudbase-init find nothing that an earlier deployment, of the image's, told it."""
    for partition in guest.partitions(disk):
        if _is_ours(guest, disk, partition):
            guest.format_fat(f"{disk}{partition.number}", "EMPTY")


def _leave(guest: Guest, agent: Agent, request: Customization, written: seed.Seed) -> Iterator[str]:
    """Put into the system volume what the first boots need: setup's answers, and the script.

    Whoever follows cloudbase-init's documentation gives sysprep the answer file that it brings
    along. Where that was forgotten, setup gets it now, lest it ask before cloudbase-init runs.
    """
    files = [file.path for file in request.personality]
    answered = answer_file.find(guest) is not None
    if not answered and agent.answers:
        files.append(answer_file.INSTALLED)
    # Before any of it is: EnforcePersonality, for one, writes its files later.
    made = personality.made(guest, files)
    if not answered and agent.answers:
        guest.make_directory(answer_file.INSTALLED.rpartition("/")[0])
        guest.write(answer_file.INSTALLED, guest.read(agent.answers) or "")
    elif not answered:
        yield (
            "the image has no answer file, so that Windows's setup will ask at the console: in the "
            "template, run sysprep with cloudbase-init's Unattend.xml"
        )
    if agent.scripts and (made or any(written.secret)):
        guest.write(f"{agent.scripts}/{seed.SCRIPT}", seed.script(written, made))
    elif made:
        yield (
            f"everybody in the guest may change what is put there, as {made[-1]}: its permissions "
            "are set by a script for cloudbase-init, which in the image has no LocalScriptsPlugin "
            "with local_scripts_path"
        )


def _without(request: Customization, reasons: tuple[str, ...]) -> list[str]:
    """What is to be said where there is no seed: for these reasons, or as nobody would read it."""
    if reasons:
        why = f"cloudbase-init in the image cannot do all that is asked for: {'; '.join(reasons)}"
        remedy = "change its configuration in the template, or ask for less"
    else:
        why = "nothing in the image reads it"
        remedy = "install cloudbase-init in the template"
    if request.user_data:
        raise UnsupportedError(
            f"parameter cloud_userdata: {why}", remedy=f"leave it out, or {remedy}"
        )
    warnings = [f"{why}; the answer file does its work"] if reasons else []
    if request.authorized_keys:
        warnings.append(f"parameter auth_keys is ignored: {why}; {remedy}")
    return warnings


def _lost(agent: Agent, request: Customization, service: str) -> Iterator[str]:
    """What cloudbase-init leaves undone, and nobody else could do."""
    if request.authorized_keys and "SetUserSSHPublicKeysPlugin" not in agent.plugins:
        yield "the SSH keys are not set: cloudbase-init has no SetUserSSHPublicKeysPlugin"
    if request.user_data and "UserDataPlugin" not in agent.plugins:
        yield "the user data is not used: cloudbase-init has no UserDataPlugin"
    if request.search_domains:
        yield "the DNS search domains are not set: cloudbase-init does not"
    told = set(request.users) if service == cloudbase.NO_CLOUD else set()
    if told - {agent.username}:
        yield (
            f"cloudbase-init in the image serves its user {agent.username}, not those that the "
            "property USERS names"
        )


def _write(guest: Guest, disk: str, made: seed.Seed) -> None:
    """Write the seed to the volume that the disk has for it, or gets. Nothing is mounted."""
    old = [p for p in guest.partitions(disk) if _is_ours(guest, disk, p)]
    number = old[0].number if old else _add(guest, disk)
    device = f"{disk}{number}"
    guest.format_fat(device, made.label.upper())
    guest.mount(device, "/")
    try:
        for path, content in made.files.items():
            guest.make_directory(path.rpartition("/")[0] or "/")
            guest.write(path, content.decode(errors="surrogateescape"))
    except GuestError as error:
        raise GuestError(
            f"the seed for cloudbase-init cannot be written: {error.message}",
            remedy=f"give less user data (cloud_userdata), or {_EXCLUDE}",
        ) from error
    finally:
        guest.unmount_all()


def _is_ours(guest: Guest, disk: str, partition: Partition) -> bool:
    """Whether a partition was made by an earlier deployment: of this disk, or of its image."""
    gpt = guest.table(disk).label == "gpt"
    named = partition.name == layout.SEED_NAME if gpt else partition.type == _FAT12
    return named and partition.size == SECTORS * layout.SECTOR


def _add(guest: Guest, disk: str) -> int:
    gpt = guest.table(disk).label == "gpt"
    try:
        return guest.add_partition(
            disk,
            sectors=SECTORS,
            type=_BASIC_DATA if gpt else _FAT12,
            name=layout.SEED_NAME,
            attributes=_NO_DRIVE_LETTER,
        )
    except GuestError as error:
        raise GuestError(
            f"no volume can be added for cloudbase-init to read: {error.message}",
            remedy=f"{error.remedy}, or {_EXCLUDE}",
        ) from error
