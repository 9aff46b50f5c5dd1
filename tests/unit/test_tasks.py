"""The task engine: order, exclusion, detection, and what is said of it all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.config import Config
from snf_core.contract import GuestFamily, Stage, Task
from snf_core.errors import (
    GuestError,
    InvalidValueError,
    PluginError,
    SnfError,
    TaskError,
    UnsupportedError,
)
from snf_core.image import tasks
from snf_core.image.customization import Customization
from snf_core.image.parameters import OPTIONAL
from snf_core.image.properties import Properties
from snf_core.image.tasks import Catalogue, Plan, Step
from snf_core.report import Event, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from snf_core.image.guest import Guest

REQUEST = Customization("web1", properties=Properties())
NO_GUEST: Any = None


class Recorder:
    """A sink that remembers, and can be looked into while tasks run."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing to end."""

    def said(self) -> list[str]:
        """Subtype and task or message of each event."""
        return [f"{e['subtype']}: {e.get('task') or '; '.join(e['messages'])}" for e in self.events]


def step(
    name: str,
    stage: Stage = Stage.MOUNTED,
    *,
    after: Iterable[str] = (),
    before: Iterable[str] = (),
    needs: Iterable[str] = (),
    run: Callable[[], Iterable[str]] = tuple,
    **more: Any,
) -> Step:
    """A task of its own class."""

    def running(self: Task, guest: Guest, request: Customization) -> Iterable[str]:
        del self, guest, request
        return run()

    attributes = {
        "stage": stage,
        "after": tuple(after),
        "before": tuple(before),
        "needs": tuple(needs),
        "run": running,
        **more,
    }
    return Step(name, type(name, (Task,), attributes)(None))


def order(*steps: Step, **properties: str) -> list[str]:
    """The names of what is planned."""
    return [s.name for s in tasks.plan(steps, Properties(properties)).steps]


# -- order ----------------------------------------------------------------------------------


def test_stages_come_first_then_what_is_declared_then_the_alphabet() -> None:
    steps = [
        step("Last", Stage.AFTER_UNMOUNT),
        step("Umount", Stage.UNMOUNT),
        step("B"),
        step("A", after=["C"]),
        step("D", before=["C"]),
        step("C"),
        step("Mount", Stage.MOUNT),
        step("Fix", Stage.BEFORE_MOUNT),
        step("Extend", Stage.BEFORE_MOUNT, after=["Fix"]),
    ]
    expected = ["Fix", "Extend", "Mount", "B", "D", "C", "A", "Umount", "Last"]
    assert order(*steps) == expected
    assert order(*reversed(steps)) == expected


def test_names_of_tasks_that_are_not_there_mean_nothing() -> None:
    assert order(step("A", after=["Gone", "M"], before=["Gone"]), step("M", Stage.MOUNT)) == [
        "M",
        "A",
    ]


@pytest.mark.parametrize(
    "steps",
    [
        [step("A", after=["B"]), step("B", after=["A"])],
        [step("A", before=["B"]), step("B", before=["A"])],
        [step("A", after=["B"], before=["B"]), step("B")],
        [step("A", after=["A"]), step("B")],
        [step("A", after=["B"]), step("B", after=["C"]), step("C", after=["A"])],
    ],
)
def test_a_circle_is_an_error_that_names_it(steps: list[Step]) -> None:
    with pytest.raises(PluginError, match=r"run before one another: .*A") as caught:
        tasks.plan(steps, Properties())
    assert caught.value.remedy


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.booleans()), max_size=12))
def test_every_declared_order_is_kept(pairs: list[tuple[int, int, bool]]) -> None:
    after: dict[int, list[str]] = {n: [] for n in range(8)}
    before: dict[int, list[str]] = {n: [] for n in range(8)}
    for one, other, forward in pairs:
        early, late = sorted((one, other))
        if early != late and forward:
            after[late].append(f"T{early}")
        elif early != late:
            before[early].append(f"T{late}")
    found = order(*(step(f"T{n}", after=after[n], before=before[n]) for n in range(8)))
    assert sorted(found) == [f"T{n}" for n in range(8)]
    for one, other, _ in pairs:
        early, late = sorted((one, other))
        assert early == late or found.index(f"T{early}") < found.index(f"T{late}")


# -- exclusion ------------------------------------------------------------------------------


def test_one_task_is_excluded_whatever_the_case_of_its_name() -> None:
    plan = tasks.plan(
        [step("AssignHostname"), step("B")], Properties({"EXCLUDE_TASK_ASSIGNHOSTNAME": "yes"})
    )
    assert [s.name for s in plan.steps] == ["B"]
    assert plan.warnings == (
        "AssignHostname will not run: excluded by EXCLUDE_TASK_AssignHostname",
    )


def test_an_exclusion_that_says_no_excludes_nothing() -> None:
    assert order(step("A"), EXCLUDE_TASK_A="no", EXCLUDE_MOUNTED_TASKS="off") == ["A"]


def test_what_an_exclusion_implies_is_excluded_and_said() -> None:
    steps = [step("A"), step("B", needs=["A"]), step("C", needs=["Gone", "B"]), step("D")]
    plan = tasks.plan(steps, Properties({"EXCLUDE_TASK_A": "yes"}))
    assert [s.name for s in plan.steps] == ["D"]
    assert plan.warnings == (
        "A will not run: excluded by EXCLUDE_TASK_A",
        "B will not run: it needs A, which does not run",
        "C will not run: it needs B, which does not run",
    )
    assert order(*steps) == ["A", "B", "C", "D"]


def test_all_mounted_tasks() -> None:
    steps = [step(stage.name, stage) for stage in Stage]
    assert order(*steps, EXCLUDE_MOUNTED_TASKS="yes") == ["BEFORE_MOUNT", "AFTER_UNMOUNT"]


def test_all_that_resize() -> None:
    steps = [step("Grow", resizes=True), step("Other"), step("Fix", Stage.BEFORE_MOUNT)]
    assert order(*steps, EXCLUDE_FILESYSTEMRESIZE_TASKS="yes") == ["Fix", "Other"]


def test_a_task_that_cannot_be_excluded_alone() -> None:
    mount = step("MountImage", Stage.MOUNT, excludable=False)
    properties = Properties({"EXCLUDE_TASK_MOUNTIMAGE": "yes"})
    assert [s.name for s in tasks.plan([mount], properties).steps] == ["MountImage"]
    assert tasks.check_properties(properties, [mount]) == ["EXCLUDE_TASK_MOUNTIMAGE"]


@pytest.mark.parametrize("what", ["TASK_A", "MOUNTED_TASKS", "FILESYSTEMRESIZE_TASKS", "ALL_TASKS"])
def test_exclusions_are_booleans(what: str) -> None:
    name = f"EXCLUDE_{what}"
    with pytest.raises(InvalidValueError, match=f"property {name}: 'maybe'"):
        tasks.check_properties(Properties({name: "maybe"}), [step("A")])


# -- properties -----------------------------------------------------------------------------


def test_known_and_unknown_properties() -> None:
    known = {
        "OSFAMILY": "linux",
        "DESCRIPTION": "x",
        "DO_SYNC": "yes",
        "MINE": "x",
        "EXCLUDE_TASK_ADDSWAP": "yes",
        "EXCLUDE_TASK_A": "yes",
        "EXCLUDE_ALL_TASKS": "no",
    }
    unknown = {"NOBODYS": "x", "EXCLUDE_TASK_NOBODYS": "yes"}
    steps = [step("A", properties={"MINE": "what it means"})]
    found = tasks.check_properties(Properties(known | unknown), steps)
    assert sorted(found) == sorted(unknown)


@pytest.mark.parametrize(
    ("wish", "exclusion"),
    [("CLOUD_INIT", "EXCLUDE_ALL_TASKS"), ("SWAP", "EXCLUDE_TASK_ADDSWAP")],
)
def test_what_is_excluded_need_not_be_served(wish: str, exclusion: str) -> None:
    properties = Properties({wish: "2:512" if wish == "SWAP" else "yes", exclusion: "yes"})
    assert tasks.check_properties(properties, []) == []


@pytest.mark.parametrize("name", tasks.UNSERVED)
def test_properties_that_are_not_served_are_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"property {name}: .*not served") as caught:
        tasks.check_properties(Properties({name: "yes"}), [])
    assert caught.value.remedy
    for harmless in ("", "no", "Off", " 0 "):
        assert tasks.check_properties(Properties({name: harmless}), []) == []


# -- parameters -----------------------------------------------------------------------------


def test_parameters_that_no_task_serves() -> None:
    steps = [step("Password", parameters=("auth_keys", "os_product_key")), step("B")]
    assert tasks.check_served((), steps, "linux") == []
    assert tasks.check_served(("auth_keys", "os_product_key"), steps, "linux") == []
    assert tasks.check_served(("os_answer_file", "auth_keys"), steps, "linux") == [
        "parameter os_answer_file: no task of linux guests serves it: it is ignored"
    ]


@pytest.mark.parametrize("name", ["img_personality", "cloud_userdata"])
def test_parameters_that_no_tenant_can_do_without(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"parameter {name}: no task of bsd guests") as e:
        tasks.check_served(("auth_keys", name), [step("A")], "bsd")
    assert e.value.remedy
    assert tasks.check_served((name,), [step("A", parameters=(name,))], "bsd") == []


def test_tasks_serve_parameters_that_there_are() -> None:
    for steps in tasks.catalogue(Config([])).tasks.values():
        for one in steps:
            assert set(one.task.parameters) <= OPTIONAL.keys(), one.name


# -- families -------------------------------------------------------------------------------


def family(answer: object) -> GuestFamily:
    """A family that answers so, or raises it."""

    class Family(GuestFamily):
        def detect(self, guest: Guest, root: str | None) -> int:
            del guest, root
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[return-value]  # some do not keep to it

        def root(self, guest: Guest) -> str:
            del guest
            return "/dev/sda1"

    return Family(None)


def test_the_highest_score_wins() -> None:
    families = {"a": family(1), "b": family(2), "c": family(0)}
    assert tasks.detect(NO_GUEST, families, None) == "b"


@pytest.mark.parametrize("scores", [{}, {"a": 0}, {"a": 0, "b": 0}, {"a": -1}, {"a": False}])
def test_nobody_knows_the_guest(scores: dict[str, int]) -> None:
    families = {name: family(score) for name, score in scores.items()}
    with pytest.raises(GuestError, match="no installed guest family") as caught:
        tasks.detect(NO_GUEST, families, None)
    assert ", ".join(scores) in caught.value.message
    assert "OSFAMILY" in caught.value.remedy


def test_a_tie_names_all() -> None:
    families = {"b": family(2), "a": family(2), "c": family(1)}
    with pytest.raises(GuestError, match=r"could be any of a, b \(") as caught:
        tasks.detect(NO_GUEST, families, None)
    assert "OSFAMILY" in caught.value.remedy


@pytest.mark.parametrize("answer", [RuntimeError("cannot think"), "two", None])
def test_a_family_that_misbehaves_is_named(answer: object) -> None:
    with pytest.raises(PluginError, match="guest family odd: ") as caught:
        tasks.detect(NO_GUEST, {"good": family(2), "odd": family(answer)}, None)
    assert "OSFAMILY" in caught.value.remedy


def test_a_guest_that_cannot_be_read_is_the_guests_fault() -> None:
    with pytest.raises(GuestError, match="damaged"):
        tasks.detect(NO_GUEST, {"good": family(GuestError("damaged"))}, None)


def test_tasks_of_any_and_of_the_family() -> None:
    catalogue = Catalogue({}, {"any": (step("A"),), "linux": (step("L"),), "windows": (step("A"),)})
    assert [s.name for s in catalogue.of("linux")] == ["A", "L"]
    assert [s.name for s in catalogue.of("bsd")] == ["A"]
    with pytest.raises(PluginError, match="task A exists for any and for windows"):
        catalogue.of("windows")


def test_the_installed_catalogue() -> None:
    found = tasks.catalogue(Config([]))
    assert "linux" in found.families
    assert {"FixPartitionTable", "FilesystemResizeUnmounted", "UmountImage"} <= {
        step.name for step in found.tasks["any"]
    }
    assert set(tasks.catalogue(Config([]), "linux").families) == {"linux"}
    with pytest.raises(InvalidValueError, match="OSFAMILY: there is no guest family 'plan9'"):
        tasks.catalogue(Config([]), "plan9")


# -- running --------------------------------------------------------------------------------


def test_warnings_come_as_they_happen() -> None:
    sink = Recorder()
    seen: list[int] = []

    def run() -> Iterable[str]:
        seen.append(len(sink.events))
        yield "one"
        seen.append(len(sink.events))
        yield "two"
        seen.append(len(sink.events))

    plan = Plan((step("A", run=run), step("B")), ("C will not run",))
    tasks.run(plan, NO_GUEST, REQUEST, Reporter([sink]))
    assert sink.said() == [
        "warning: C will not run",
        "task-start: A",
        "warning: one",
        "warning: two",
        "task-end: A",
        "task-start: B",
        "task-end: B",
    ]
    assert seen == [2, 3, 4]


class OddError(SnfError):
    """A third party's, made in its own way."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}", remedy="count")


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (GuestError("it is broken", remedy="repair it"), GuestError, "A: it is broken (repair it)"),
        (UnsupportedError("too new"), UnsupportedError, "A: too new"),
        (OddError(1, 2), OddError, "A: 1 and 2 (count)"),
        (KeyError("x"), TaskError, "A: KeyError: 'x' (report this to the task's authors)"),
        (RecursionError("deep"), TaskError, "A: RecursionError: deep (report this"),
    ],
)
def test_the_first_failure_stops_all_and_names_the_task(
    raised: Exception, kind: type[SnfError], message: str
) -> None:
    def run() -> Iterable[str]:
        yield "nearly there"
        raise raised

    sink = Recorder()
    plan = Plan((step("A", run=run), step("B")))
    with pytest.raises(kind) as caught:
        tasks.run(plan, NO_GUEST, REQUEST, Reporter([sink]))
    assert str(caught.value).startswith(message)
    said = sink.said()
    assert said[:2] == ["task-start: A", "warning: nearly there"]
    assert len(said) == 3, "no task-end, and nothing of what follows"
    assert said[2].startswith("error: ")


def test_a_task_that_returns_nothing_is_named() -> None:
    broken: Any = lambda: None  # noqa: E731
    with pytest.raises(TaskError, match="A: TypeError: "):
        tasks.run(Plan((step("A", run=broken),)), NO_GUEST, REQUEST, Reporter([]))
