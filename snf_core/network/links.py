"""The gate to links, rules, routes and proxied neighbours: rtnetlink(7).

The only module that imports pyroute2, and of that only the classes that encode messages: the
package itself imports all that it has, which takes six times as long.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import importlib.util
import logging
import os
import struct
import sys
import types
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from snf_core.errors import NetworkError
from snf_core.network import replies
from snf_core.network import rtnetlink as rt
from snf_core.network.netlink import Netlink, dump
from snf_core.network.refusal import REMEDIES, failure, held, refused
from snf_core.network.snapshot import snapshot
from snf_core.network.state import LINK, ROUTE, RULE, Change

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from types import TracebackType

    from snf_core.network.netlink import Answer, Reply
    from snf_core.network.node import Link
    from snf_core.network.state import Item, Key, Value

    _Found = tuple[Link, int]
    """A link, and the number of its master."""

LOG = logging.getLogger(__name__)

T = TypeVar("T", str, int)

_GONE = {errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL}
"""What removing something says that is not there any more."""

_REMOVALS = {rt.RTM_DELLINK, rt.RTM_DELRULE, rt.RTM_DELROUTE, rt.RTM_DELNEIGH}

_NOTHING = {
    (rt.RTM_GETROUTE, errno.ENOENT),  # a table without routes does not exist
    (rt.RTM_GETVLAN, errno.EINVAL),  # not the port of a bridge
    (rt.RTM_GETVLAN, errno.EOPNOTSUPP),  # a kernel without VLANs on bridges
}
"""What the kernel says instead of an empty list."""


class _Request(NamedTuple):
    """A change, and the messages that make it: none where it is made already."""

    change: Change
    messages: list[tuple[int, bytes]]
    """Type, and the message encoded."""


class _Outcome(NamedTuple):
    """What became of changes."""

    made: list[Change]
    there: set[Key]
    failures: list[NetworkError]


class Links:
    """What rtnetlink can do, in the network namespace of the thread that uses it.

    A ``kernel.Gate`` and a context manager. Made anew for each event: it remembers the number of
    each link it has met, so that an interface that is made anew in between is another one.
    """

    def __init__(self) -> None:
        self._netlink: Netlink | None = None
        self._indexes: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def __enter__(self) -> Links:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket, which is opened when first used."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def get(self, name: str) -> Link | None:
        """The link ``name`` as it is now, or None where there is none. Raises NetworkError."""
        return self._get([name]).get(name)

    def default_route(self, table: int, family: str) -> str | None:
        """The interface of a routing table's default route of least metric, None without one.

        ``family`` is ``inet`` or ``inet6``. A default route by several interfaces does not count.
        Raises NetworkError.
        """
        message = rt.list_routes(rt.FAMILIES[family], table)
        # The kernel lists routes to one prefix in the order of their metrics.
        routes = self._list(message, f"routing table {table}", replies.is_default)
        if not routes or not replies.is_default(routes[-1]):
            return None
        index = replies.route_device(routes[-1])
        found = self._ask([rt.get_link(index=index)], [index])
        return found[index][0].name if found else None

    def rename(self, old: str, new: str) -> None:
        """Call the link ``old``, which must not be up, ``new``. Raises NetworkError."""
        request = rt.set_link(self._index(old), "ifname", new)
        (answer,) = self._exchange([_encoded(request)])
        if answer.error == errno.EEXIST:
            raise NetworkError(
                f"{old} cannot be called {new}: another interface has that name",
                remedy="give it another name, or take that interface away",
            )
        if answer.error:
            raise failure(f"{old} cannot be called {new}", answer.error, answer.reason)
        self._indexes[new] = self._indexes.pop(old)

    def read(self, items: Collection[Item]) -> dict[Key, Value]:
        """Attributes of links, but for a port's VLANs. Nothing else can be asked for by itself.

        VLANs go with the port's bridge: what they are before it is changed says nothing. See
        ``kernel.Gate``.
        """
        mine = [item for item in items if item.kind == LINK and item.attribute != "vlans"]
        found = self._get({item.object for item in mine})
        return {
            item.key: getattr(found[item.object], item.attribute)
            for item in mine
            if item.object in found
        }

    def apply(self, changes: Sequence[Change]) -> Collection[Key]:
        """Make all changes in one batch of messages, or none. See ``kernel.Gate``.

        A change whose value is what it was ``before`` is made where the kernel has lost it. A
        route or rule that is there already as wanted is left as it is, and so is whatever else
        holds the prefix of a wanted route, which is an error that names it. Removed is only what
        is as it was made here: of a route the interface, gateway and protocol too.
        """
        joining = {
            change.item.object for change in changes if change.item.key[::2] == (LINK, "master")
        }
        outcome = self._make([self._request(change, joining) for change in changes])
        if outcome.failures:
            self._take_back(outcome.made)
            raise outcome.failures[0]
        return outcome.there

    def snapshot(self, items: Collection[Item]) -> dict[Key, Value]:
        """What all ``items`` are now, each table of the kernel listed once. See ``kernel.Gate``."""
        return snapshot(items, self._list)

    # Reading

    def _get(self, names: Collection[str]) -> dict[str, Link]:
        asked = [name for name in names if 0 < len(os.fsencode(name)) < rt.IFNAMSIZ]
        links = self._ask([rt.get_link(name) for name in asked], asked)
        unknown = sorted({master for _, master in links.values()} - self._names.keys() - {0})
        above = self._ask([rt.get_link(index=index) for index in unknown], unknown)
        self._names |= {index: link.name for index, (link, _) in above.items()}
        whole = replies.with_masters(links.values(), self._names)
        found = dict(zip(links, whole, strict=True))
        for name in names:
            self._indexes.pop(name, None)
        self._indexes |= {name: link.index for name, link in found.items()}
        return found

    def _ask(self, messages: Sequence[rt.Message], names: Sequence[T]) -> dict[T, _Found]:
        """The links that messages ask for, by what stands for them in ``names``."""
        found = {}
        answers = self._exchange([_encoded(message) for message in messages])
        for name, answer in zip(names, answers, strict=True):
            if answer.replies:
                found[name] = replies.read_link(answer.replies[0])
            elif answer.error != errno.ENODEV:
                raise failure(f"{name}: unreadable", answer.error, answer.reason)
        return found

    def _index(self, name: str) -> int:
        if name not in self._indexes and self.get(name) is None:
            raise NetworkError(f"{name} does not exist", remedy=REMEDIES[errno.ENODEV])
        return self._indexes[name]

    def _list(
        self, message: rt.Message, what: str, enough: Callable[[Reply], bool] | None = None
    ) -> list[Reply]:
        try:
            return dump(_encoded(message), enough)
        except OSError as error:
            if (message.type, error.errno) in _NOTHING:
                return []
            raise failure(f"{what}: unreadable", error.errno or 0) from error

    # Changing

    def _request(self, change: Change, joining: Collection[str] = ()) -> _Request:
        """``joining`` are the links of which the same batch changes the master.

        Raises NetworkError where the change is malformed, or needs what does not exist.
        """
        item = change.item
        match item.kind:
            case "link" if item.attribute == "vlans":
                change, messages = self._vlans_messages(item, item.object in joining)
            case "link":
                messages = self._link_messages(item)
            case "rule":
                rule = rt.parse_rule(item.attribute)
                messages = [rt.change_rule(item.object, rule, item.value is not None)]
            case "route":
                messages = self._route_messages(change)
            case "neighbour":
                messages = self._neighbour_messages(item)
            case _:
                raise NetworkError(f"{item} is nothing for rtnetlink")
        try:
            return _Request(change, [(one.type, _encoded(one)) for one in messages])
        except (OSError, ValueError, struct.error) as error:
            raise NetworkError(f"{item} is malformed: {error}") from error

    def _link_messages(self, item: Item) -> list[rt.Message]:
        value = item.value
        if item.attribute == "master":
            if value is None and self._is_gone(item.object):
                return []
            value = self._index(str(value)) if value else 0
        return [rt.set_link(self._index(item.object), item.attribute, value)]

    def _vlans_messages(self, item: Item, joining: bool) -> tuple[Change, list[rt.Message]]:
        """With the change, that says what the VLANs were before."""
        if item.value is None:  # they go with the bridge
            return Change(item, None), []
        index = self._index(item.object)
        actual = None
        if not joining:
            listed = self._list(rt.list_vlans(index), f"{item.object}: VLANs")
            actual = replies.read_vlans(listed).get(index)
        before = rt.format_vlans(actual) if actual else None
        return Change(item, before), rt.set_vlans(index, rt.parse_vlans(str(item.value)), actual)

    def _route_messages(self, change: Change) -> list[rt.Message]:
        item = change.item
        prefix, place = rt.parse_prefix(item.object), rt.parse_place(item.attribute)
        messages = []
        if change.before is not None and change.before != item.value:
            old = rt.parse_route(str(change.before))
            if not self._is_gone(old.device):  # its routes went with it
                index = self._index(old.device)
                messages.append(rt.change_route(prefix, place, old, index, add=False))
        if item.value is not None:
            new = rt.parse_route(str(item.value))
            index = self._index(new.device)
            messages.append(rt.change_route(prefix, place, new, index, add=True))
        return messages

    def _neighbour_messages(self, item: Item) -> list[rt.Message]:
        address = rt.canonical(item.attribute)
        if item.value is not None:
            index = self._index(item.object)
            # The addition alone would not tell whether it was there before.
            return [rt.get_neighbour(index, address), rt.change_neighbour(index, address, add=True)]
        if self._is_gone(item.object):
            return []
        return [rt.change_neighbour(self._index(item.object), address, add=False)]

    def _is_gone(self, name: str) -> bool:
        return name not in self._indexes and self.get(name) is None

    def _make(self, requests: Sequence[_Request]) -> _Outcome:
        messages = [message for request in requests for _, message in request.messages]
        answers = iter(self._exchange(messages))
        outcome = _Outcome([], set(), [])
        for request in requests:
            self._judge(request, [(kind, next(answers)) for kind, _ in request.messages], outcome)
        return outcome

    def _judge(
        self, request: _Request, answers: Sequence[tuple[int, Answer]], outcome: _Outcome
    ) -> None:
        """``answers`` are to the request's messages, whose types are with them."""
        item = request.change.item
        removes = item.value is None
        there, made = not answers and not removes, False
        for kind, answer in answers:
            if kind == rt.RTM_GETNEIGH:
                there = answer.error == 0
            elif answer.error == 0:
                made = made or not there
            elif answer.error == errno.EEXIST and item.kind in {RULE, ROUTE}:
                found = self._holder(item)
                there = found == item.value
                if not there:
                    outcome.failures.append(held(item, found))
            elif answer.error not in _GONE or not (removes or kind in _REMOVALS):
                outcome.failures.append(refused(item, answer))
        if there:
            outcome.there.add(item.key)
        if made:
            outcome.made.append(request.change)

    def _holder(self, item: Item) -> Value:
        """What is there instead of a rule or route; only the same rule keeps one from being."""
        return item.value if item.kind == RULE else self.snapshot([item])[item.key]

    def _take_back(self, made: Sequence[Change]) -> None:
        requests = []
        for change in reversed(made):
            back = change.reversed
            if back.item.value == back.before:
                if back.item.kind == LINK:
                    continue
                back = Change(replace(back.item, value=None), back.before)  # it had been lost
            try:
                requests.append(self._request(back))
            except NetworkError as error:
                LOG.error("cannot be taken back: %s", error)
        for one in self._make(requests).failures:
            LOG.error("cannot be taken back: %s", one)

    def _exchange(self, messages: Sequence[bytes]) -> list[Answer]:
        if self._netlink is None:
            try:
                self._netlink = Netlink()
            except OSError as error:
                raise failure("rtnetlink: cannot be asked", error.errno or 0) from error
        return self._netlink.exchange(messages)


def _encoded(message: rt.Message) -> bytes:
    encoder = _layouts()[message.layout]()
    encoder.update(message.fields)
    encoder["attrs"] = message.attributes
    encoder["header"] = {"type": message.type, "flags": message.flags}
    encoder.encode()
    return bytes(encoder.data)


@functools.cache
def _layouts() -> Mapping[str, Any]:
    """pyroute2's classes of messages, by their names.

    Imported from behind an empty package, which is gone when this returns, and with it all that
    was imported: whoever imports pyroute2 later gets all of it. Not to be called while another
    thread imports pyroute2.
    """
    names = ("ifinfmsg", "rtmsg", "ndmsg", "fibmsg")
    with _empty_package("pyroute2"):
        found = [importlib.import_module(f"pyroute2.netlink.rtnl.{name}") for name in names]
        nlmsg = importlib.import_module("pyroute2.netlink").nlmsg
    layouts = {name: getattr(module, name) for name, module in zip(names, found, strict=True)}
    # linux/if_bridge.h; not all versions of pyroute2 that we work with have it.
    fields = (("family", "B"), ("__pad", "3x"), ("ifindex", "I"))
    return layouts | {"br_vlan_msg": type("br_vlan_msg", (nlmsg,), {"fields": fields})}


@contextlib.contextmanager
def _empty_package(name: str) -> Iterator[None]:
    """In the block the package's modules can be imported without what its __init__ imports."""
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None:  # it is imported already, or missing: the import in the block says so
        yield
        return
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[name] = package
    try:
        yield
    finally:
        for module in [one for one in sys.modules if one.split(".")[0] == name]:
            del sys.modules[module]
