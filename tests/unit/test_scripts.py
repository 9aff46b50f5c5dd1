"""The OS definition's scripts, as far as they go without a disk: who is told what goes wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.config import Config
from snf_core.errors import InvalidValueError, PluginError, SnfError
from snf_core.ganeti import scripts

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET = "hunter2-and-more"
INSTANCE = {
    "OS_API_VERSION": "20",
    "INSTANCE_NAME": "web1",
    "HYPERVISOR": "kvm",
    "DISK_COUNT": "1",
    "DISK_0_PATH": "/dev/none",
}
IMAGE = {"OSP_IMG_ID": "null", "OSP_IMG_FORMAT": "diskdump"}


def told(environ: Mapping[str, str], directory: Path) -> tuple[SnfError, Any, list[Any]]:
    """Fail to create; the error, the report and what the progress descriptor got."""
    reading, writing = os.pipe()
    report = directory / "report.json"
    with pytest.raises(SnfError) as caught:
        scripts.create(environ, Config([]), report_file=report, progress_descriptor=writing)
    with open(reading, encoding="utf-8") as lines:
        progress = [json.loads(line) for line in lines]
    return caught.value, json.loads(report.read_text()), progress


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"OSP_IMG_ID": ""}, "parameter img_id is missing"),
        ({"OSP_IMG_PASSWD": ""}, "parameter img_passwd is empty"),
        ({"OSP_IMG_PASSWD": SECRET, "OSP_IMG_PASSWD_HASH": SECRET}, "are both given"),
        ({"OSP_IMG_PROPERTIES": f'{{"{SECRET}": 1}}', "OSP_IMG_PASSWD": SECRET}, "property name"),
    ],
)
def test_wrong_parameters_reach_everybody_who_listens(
    tmp_path: Path, wrong: dict[str, str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    error, document, progress = told(INSTANCE | IMAGE | wrong, tmp_path)
    assert isinstance(error, InvalidValueError)
    assert message in error.message
    assert document["result"] == "failure"
    assert capfd.readouterr() == ("", ""), "the command line says it"
    for events in (progress, document["events"]):
        assert [event["type"] for event in events] == ["image-error"]
        assert message in events[0]["messages"][0]
    assert SECRET not in json.dumps([document, progress])


def test_an_unknown_hypervisor_is_named(tmp_path: Path) -> None:
    error, document, _ = told(INSTANCE | IMAGE | {"HYPERVISOR": "vmware"}, tmp_path)
    assert isinstance(error, PluginError)
    assert "'vmware'" in document["events"][0]["messages"][0]


def test_a_report_that_cannot_be_written_is_an_error_before_all_else(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="cannot write the report") as caught:
        scripts.create(INSTANCE | IMAGE, Config([]), report_file=tmp_path / "none" / "x")
    assert caught.value.remedy


def test_verify_needs_no_instance() -> None:
    environ = {"OS_API_VERSION": "20", **IMAGE}
    scripts.verify(environ, Config([]))
    properties = {"OSP_IMG_PROPERTIES": '{"OSFAMILY": "linux", "USERS": "root user"}'}
    scripts.verify(environ | properties, Config([]))


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"OSFAMILY": "plan9"}, "no guest family 'plan9'"),
        ({"USERS": "root ../x"}, "property USERS: '../x'"),
        ({"USERS": "ro:ot"}, "property USERS"),
        ({"ROOT_PARTITION": "0"}, "property ROOT_PARTITION"),
        ({"ROOT_PARTITION": "1 -o exec"}, "property ROOT_PARTITION"),
        ({"NOBODYS": "x"}, "no task knows the properties NOBODYS"),
        ({"EXCLUDE_ALL_TASKS": None}, "EXCLUDE_ALL_TASKS is neither"),
        ({"EXCLUDE_ALL_TASKS": "None"}, "EXCLUDE_ALL_TASKS: 'none' is not a boolean"),
        ({"EXCLUDE_TASK_MountImage": "yes"}, "no task knows the properties EXCLUDE_TASK_MOUNT"),
    ],
)
def test_verify_refuses_properties_by_name(properties: dict[str, Any], message: str) -> None:
    environ = {"OS_API_VERSION": "20", **IMAGE, "OSP_IMG_PROPERTIES": json.dumps(properties)}
    with pytest.raises(InvalidValueError, match=message):
        scripts.verify(environ, Config([]))


@pytest.mark.parametrize("text", ["x", "-1", "1" * 5000, "٢", "1.0"])
def test_a_size_descriptor_is_a_number(text: str) -> None:
    environ = INSTANCE | {"EXPORT_DEVICE": str(Path(__file__)), "EXP_SIZE_FD": text}
    with pytest.raises(InvalidValueError, match="EXP_SIZE_FD"):
        scripts.export(environ, Config([]))
