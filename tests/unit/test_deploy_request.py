"""What a deployment asks of a guest, as its tasks are told."""

from __future__ import annotations

import base64
import json
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from snf_core import extension
from snf_core.config import Config
from snf_core.contract import GuestFamily, Stage, Task
from snf_core.errors import InvalidValueError, TaskError, UnsupportedError
from snf_core.image import deploy, parameters, tasks
from snf_core.image.customization import PersonalFile
from snf_core.image.tasks import Catalogue, Step
from snf_core.model import Disk, Instance
from snf_core.report import Reporter
from tests.fakes.guest import FakeGuest, filesystem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

PASSWORD = "hunter2-and-more"
HASH = f"$6$salt${'x' * 86}"
BASE = {"img_id": "debian.img", "img_format": "diskdump"}
PERSONALITY = json.dumps([{"path": "/etc/motd", "contents": "aGk="}])


@pytest.mark.parametrize(
    ("hypervisor", "frontend", "disk_name"),
    [
        ("kvm", "paravirtual", "/dev/vdb"),
        ("kvm", "scsi-hd", "/dev/sdb"),
        ("xen-pvm", "", "/dev/xvdb"),
        ("xen-hvm", "paravirtual", "/dev/xvdb"),
    ],
)
def test_where_the_guest_will_run(
    tmp_path: Path, hypervisor: str, frontend: str, disk_name: str
) -> None:
    file = tmp_path / "snf.conf"
    file.write_text("")
    config = Config([file])
    disk = Disk(1, "/dev/vg/disk", frontend=frontend)
    checked = parameters.check({"img_id": "debian.img", "img_format": "diskdump"})
    wanted = deploy.Deployment(Instance("vm1.example.org", hypervisor), disk, (), checked)
    plugin = extension.make(extension.HYPERVISOR, hypervisor, config)
    prepared = deploy._prepare(wanted, plugin, config, Reporter([]))
    assert prepared is not None
    assert prepared.request.hypervisor == hypervisor
    assert prepared.request.disk_name == disk_name


class Said:
    """A sink that keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def emit(self, event: dict[str, Any]) -> None:
        """Keep them."""
        self.warnings += event.get("messages", [])

    def close(self) -> None:
        """Nothing to end."""


class Recorder(Task):
    """Serves two parameters, and remembers what it is asked."""

    stage = Stage.MOUNTED
    parameters: ClassVar[Sequence[str]] = ("img_personality", "cloud_userdata")

    def __init__(self, conf: Any) -> None:
        super().__init__(conf)
        self.requests: list[Customization] = []

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Remember."""
        del guest
        self.requests.append(request)
        yield from ()


class Deaf(Recorder):
    """Serves none."""

    parameters = ()


class Hashing(GuestFamily):
    """Takes a hash."""

    def detect(self, guest: Guest, root: str | None) -> int:
        """Certainly."""
        del guest, root
        return 2

    def root(self, guest: Guest) -> str:
        """The first partition."""
        del guest
        return "/dev/sda1"


class Plain(Hashing):
    """Takes none."""

    plaintext_password = True
    grows = frozenset(["ntfs", "ext4"])


def carried_out(
    family: GuestFamily, said: Said, *, plaintext: int | None = None, **values: str
) -> Customization:
    """What a task of a guest is asked whose family is found out."""
    recorder = Recorder(None)
    carry_out(family, recorder, said, plaintext, values)
    assert len(recorder.requests) == 1
    return recorder.requests[0]


def carry_out(
    family: GuestFamily, task: Task, said: Said, plaintext: int | None, values: dict[str, str]
) -> None:
    """Do with a guest what a deployment's child does."""
    catalogue = Catalogue({"odd": family}, {"odd": (Step("Recorder", task),)})
    checked = parameters.check(BASE | values)
    wanted = deploy.Deployment(Instance("vm1", "kvm"), Disk(0, "/dev/vg/disk"), (), checked)
    config, reporter = Config([]), Reporter([said])
    plugin = extension.make(extension.HYPERVISOR, "kvm", config)
    request = deploy._request(wanted, b"", plugin, config, reporter)
    prepared = deploy._Prepared(request, catalogue, wanted.only, checked.optional(), plaintext)
    deploy._job(prepared)(FakeGuest({"/dev/sda1": filesystem({})}), reporter)


def withdrawn(tmp_path: Path) -> int:
    """A descriptor of a file with the password."""
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    return os.open(file, os.O_RDONLY)


def test_whoever_takes_a_hash_gets_no_password(tmp_path: Path) -> None:
    found = carried_out(Hashing(None), Said(), img_passwd=PASSWORD)
    assert found.password_hash.startswith("$6$")
    assert found.password == ""
    descriptor = withdrawn(tmp_path)
    found = carried_out(Hashing(None), Said(), img_passwd_hash=HASH, plaintext=descriptor)
    assert (found.password_hash, found.password) == (HASH, "")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_whoever_takes_no_hash_gets_the_password(tmp_path: Path) -> None:
    found = carried_out(Plain(None), Said(), img_passwd=PASSWORD)
    assert (found.password_hash, found.password) == ("", PASSWORD)
    descriptor = withdrawn(tmp_path)
    found = carried_out(Plain(None), Said(), img_passwd_hash=HASH, plaintext=descriptor)
    assert (found.password_hash, found.password) == ("", PASSWORD)
    assert PASSWORD not in repr(found)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    found = carried_out(Plain(None), Said(), img_passwd_hash=HASH)
    assert (found.password_hash, found.password) == (HASH, ""), "for its task to refuse"


class Talking(Recorder):
    """Says what it should not."""

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Raises, too."""
        del guest
        yield f"the password is {request.password}"
        raise ValueError(f"{request.password}: no good")


def test_a_task_that_says_the_password_is_not_understood() -> None:
    said = Said()
    with pytest.raises(TaskError, match=r"ValueError: \*{8}: no good") as caught:
        carry_out(Plain(None), Talking(None), said, None, {"img_passwd": PASSWORD})
    assert said.warnings == ["the password is ********", "ValueError: ********: no good"]
    assert PASSWORD not in str(caught.value)


def test_what_was_found_out_about_the_guest() -> None:
    assert carried_out(Hashing(None), Said()).facts == {
        "family": "odd",
        "root": "/dev/sda1",
        "grows": "",
    }
    assert carried_out(Plain(None), Said()).facts["grows"] == "ext4 ntfs"


def test_what_is_asked_of_tasks() -> None:
    said = Said()
    found = carried_out(
        Hashing(None),
        said,
        img_personality=PERSONALITY,
        cloud_userdata="aGVsbG8=",
        os_product_key="ABCDE-12345-ABCDE-FGHIJ-67890",
    )
    assert found.personality == (PersonalFile("/etc/motd", b"hi"),)
    assert found.user_data == b"hello"
    assert found.product_key == "ABCDE-12345-ABCDE-FGHIJ-67890"
    assert said.warnings == [
        "parameter os_product_key: no task of odd guests serves it: it is ignored"
    ]
    for secret in ("aGVsbG8=", "hello", "ABCDE", "b'hi'"):
        assert secret not in repr(found)


class Wary(Recorder):
    """Knows beforehand that it cannot."""

    def check_request(self, request: Customization) -> None:
        """Raises."""
        assert request.password == ""
        raise InvalidValueError(f"{request.hostname} is no name", remedy="take another")


def test_what_a_task_cannot_do_is_refused_before_any_runs() -> None:
    wary = Wary(None)
    with pytest.raises(InvalidValueError, match="Recorder: vm1 is no name"):
        carry_out(Plain(None), wary, Said(), None, {"img_passwd": PASSWORD})
    assert wary.requests == []


@pytest.mark.parametrize(
    ("family", "excluded", "refused"),
    [("windows", "no", True), ("windows", "yes", False), ("linux", "no", False)],
)
def test_and_before_the_disk_is_touched_where_the_family_is_known(
    family: str, excluded: str, refused: bool
) -> None:
    properties = {"OSFAMILY": family, "EXCLUDE_TASK_AssignHostname": excluded}
    checked = parameters.check(BASE | {"img_properties": json.dumps(properties)})
    instance = Instance("a-name-of-seventeen.example.org", "kvm")
    wanted = deploy.Deployment(instance, Disk(0, "/dev/vg/disk"), (), checked)
    config = Config([])
    plugin = extension.make(extension.HYPERVISOR, "kvm", config)
    said = "AssignHostname: 'a-name-of-seventeen' cannot be"
    expected = pytest.raises(InvalidValueError, match=said) if refused else nullcontext()
    with expected:
        assert deploy._prepare(wanted, plugin, config, Reporter([Said()]))


def test_what_no_task_serves_is_refused_before_any_runs() -> None:
    recorder = Deaf(None)
    with pytest.raises(UnsupportedError, match="img_personality: no task of odd guests serves it"):
        carry_out(Hashing(None), recorder, Said(), None, {"img_personality": PERSONALITY})
    assert recorder.requests == []


def checked_request(**values: str) -> list[str]:
    """What is said of parameters without a guest."""
    config = Config([])
    checked = parameters.check(BASE | values)
    catalogue = tasks.catalogue(config, checked.properties.get("OSFAMILY").lower())
    return deploy.check_request(checked, catalogue, config)


def test_what_is_unserved_is_said_at_once_where_the_family_is_known() -> None:
    linux = {"img_properties": '{"OSFAMILY": "linux"}'}
    assert checked_request(img_personality=PERSONALITY, **linux) == []
    assert checked_request(os_answer_file="https://h/x", **linux) == [
        "parameter os_answer_file: no task of linux guests serves it: it is ignored"
    ]
    user_data = base64.b64encode(b"#cloud-config").decode()
    with pytest.raises(UnsupportedError, match="cloud_userdata: no task of linux guests"):
        checked_request(cloud_userdata=user_data, **linux)
    assert checked_request(cloud_userdata=user_data) == [], "who knows"
    nothing = {"img_properties": '{"OSFAMILY": "linux", "EXCLUDE_ALL_TASKS": "yes"}'}
    assert checked_request(cloud_userdata=user_data, **nothing) == []


@pytest.mark.parametrize(
    ("text", "users"),
    [
        ("", ()),
        (" root  user root ", ("root", "user")),
        ("'Anna Smith' Jürgen", ("Anna Smith", "Jürgen")),
        ('"Anna Smith" machine$ -x', ("Anna Smith", "machine$", "-x")),
    ],
)
def test_users(text: str, users: tuple[str, ...]) -> None:
    assert deploy._users(text) == users


@pytest.mark.parametrize(
    "text",
    [
        "'Anna",
        "x\\",
        "a:b",
        "a/b",
        "'a\nb'",
        "'a\tb'",
        "''",
        "a|b",
        "'a\x1b[31m'",
        "DOMAIN\\\\u",
        "x" * 257,
    ],
)
def test_what_is_no_user(text: str) -> None:
    with pytest.raises(InvalidValueError, match="property USERS: ") as caught:
        deploy._users(text)
    assert caught.value.remedy
