"""The structure of answer files: what Windows refuses in any of them, whatever it sets.

Setup stops at the first boot, in front of nobody, at a file of another structure, a pass that it
does not know, or a setting that is stated twice. Microsoft's "Unattended Windows Setup Reference"
and "Answer files (unattend.xml)" say what is expected; settings of components are not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snf_core.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterator

UNATTEND = "urn:schemas-microsoft-com:unattend"
WCM = "http://schemas.microsoft.com/WMIConfig/2002/State"

PASSES = frozenset(
    [
        "windowsPE",
        "offlineServicing",
        "generalize",
        "specialize",
        "auditSystem",
        "auditUser",
        "oobeSystem",
    ]
)

_PARTS = {"settings", "servicing"}


def check(root: Any, what: str, remedy: str) -> None:
    """Raise InvalidValueError, with the line, for the first thing that Windows would not take."""
    for element, problem in _problems(root):
        raise InvalidValueError(f"{what}, line {element.sourceline}: {problem}", remedy=remedy)


def settings_in(element: Any) -> Iterator[Any]:
    """The elements in an element that Windows reads, comments and what generators of answer files
    add for themselves left out."""
    return (
        child
        for child in element
        if isinstance(child.tag, str) and child.tag.startswith(f"{{{UNATTEND}}}")
    )


def local_name(element: Any) -> str:
    """The name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def action(element: Any) -> str:
    """What an element of a list does to it, in lower case; empty for one of no list.

    Microsoft's own pages spell the namespace of the attribute in two ways.
    """
    stated = (value for name, value in element.items() if name.endswith("}action"))
    return next(stated, "").lower()


def component_key(name: str, architecture: str) -> tuple[str, str]:
    """What tells components of one pass apart."""
    return name.lower(), architecture.lower()


def _problems(root: Any) -> Iterator[tuple[Any, str]]:
    """What is wrong, with the element at fault."""
    if root.tag != f"{{{UNATTEND}}}unattend":
        yield root, f"{local_name(root)} is not the element unattend of the namespace {UNATTEND}"
    passes: set[str] = set()
    for part in settings_in(root):
        name = local_name(part)
        if name not in _PARTS:
            yield part, f"{name} is not expected in unattend"
        elif name == "settings":
            yield from _in_settings(part, passes)


def _in_settings(settings: Any, passes: set[str]) -> Iterator[tuple[Any, str]]:
    name = settings.get("pass", "")
    if name not in PASSES:
        yield settings, f"settings for {name!r}, which is not a pass of the setup"
    if name in passes:
        yield settings, f"settings for {name} are there twice"
    passes.add(name)
    components: set[tuple[str, str]] = set()
    for component in settings_in(settings):
        if local_name(component) != "component":
            yield component, f"{local_name(component)} is not expected in settings"
            continue
        key = component.get("name", ""), component.get("processorArchitecture", "")
        if not all(key):
            yield component, "a component without its name or processorArchitecture"
        if component_key(*key) in components:
            yield component, f"component {key[0]} for {key[1]} is there twice in {name}"
        components.add(component_key(*key))
        yield from _in_setting(component)


def _in_setting(element: Any) -> Iterator[tuple[Any, str]]:
    """Elements of lists may repeat, and say so by wcm:action; an Order orders them."""
    seen: set[str] = set()
    orders: dict[str, set[int]] = {}
    for child in settings_in(element):
        name = local_name(child)
        if not action(child):
            if name in seen:
                yield child, f"{name} is there twice in {local_name(element)}"
            seen.add(name)
        for order in settings_in(child):
            if local_name(order) == "Order":
                yield from _in_order(order, orders.setdefault(name, set()))
        yield from _in_setting(child)


def _in_order(order: Any, taken: set[int]) -> Iterator[tuple[Any, str]]:
    text = str(order.xpath("string()")).strip()
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text)):
        yield order, f"Order {text!r} is not a number from 1 on"
        return
    if int(text) in taken:
        yield order, f"Order {text} is there twice"
    taken.add(int(text))
