"""The gate to nftables: elements of sets and maps, and the rulesets that filter by them.

Only this module speaks to nftables, through libnftables (python3-nftables), in whose own language
transactions are written: libnftables-json(5) cannot be mixed with rulesets, which are texts, and
a rebuild has both. ``network.elements`` says why nothing can be injected into it.

On the way up nothing is read. A transaction asserts that the rulesets it relies on are loaded,
and states what it adds and removes; only where it fails is the kernel asked why.

**Rebuilds and concurrent events.** Where rulesets are missing (first event of a boot, a flush by
hand) or outdated (an upgrade, a changed option), everything of ours is replaced in one
transaction by what the state documents of all NICs say. For that, no element of any other event
may be lost, nor one come back that it has removed. One lock sees to it:

- an event takes it shared before its first transaction, and keeps it until ``close``; a rebuild
  takes it exclusively, and with that, too, it is kept until ``close``;
- an event's state document holds, from before its first transaction, all elements that it will
  make or remove, and, from before ``close``, exactly those that it leaves.

So when a rebuild reads the documents, of each other event one of these is true. It has not begun
its first transaction, and will find ours done: what its document says already is there, which the
transaction copes with (below). Or it is over, and its document is exact. Or it has died, and its
document says ``applying``: what it may have made or removed is there now, and is taken back by
the next event of that interface or by reconcile, as it would have been without us. An event that
must wait to rebuild gives up its share while it waits. It is then as if it had not begun: its
document still names all that it will touch. Rebuilds are not starved by a stream of events: who
wants the lock, for whatever, queues for it.

**Failed transactions.** What is added that is there, is as wanted; but the marker of a new NIC,
which must not be there. What is removed must be there. Where that is not so (documents were lost,
somebody flushed a set, a rebuild came in between), the elements are listed, and a second
transaction states what then is necessary; of a NIC whose marker was there it also removes
whatever nobody wants. If a set is gone, everything is rebuilt. Then it has failed.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from snf_core.errors import NetworkError
from snf_core.network.elements import (
    FAMILIES,
    added_together,
    corrected,
    known,
    listed,
    stated,
)
from snf_core.network.lock import Lock
from snf_core.network.rulesets import (
    BASE,
    BASE_NAME,
    DELETION,
    assertion,
    checked,
    digest,
    first,
    marked,
    together,
    unloadable,
)
from snf_core.network.state import ELEMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from snf_core.network.state import Change, Item, Key, Value

_ABSENT = "No such file or directory"
_THERE = "File exists"
_FORBIDDEN = "Operation not permitted"


class Nft:
    """Implements ``kernel.Gate`` for elements. For one network namespace, and one thread."""

    def __init__(
        self, restore: Callable[[], tuple[Mapping[str, str], Iterable[Item]]], lock: Path
    ) -> None:
        """``restore`` is called for a rebuild. It returns the texts of the rulesets, by name, and
        the elements in the documents of all NICs of this kernel, this event's own included,
        whatever their phase. Where two items are of the same element, the first stands.

        ``lock`` is a file in a directory of root's own, which must exist. Besides being locked it
        keeps what the rulesets looked like when they were loaded.
        """
        self._restore = restore
        self._lock = Lock(lock)
        self._required: dict[str, str] = {}
        self._context: Any = None

    def require(self, rulesets: Mapping[str, str]) -> None:
        """What is applied from now on relies on these rulesets: their texts by their names.

        A text is in nft(8)'s notation, in tables named ``snf``. Raises NetworkError otherwise.
        """
        for name, text in rulesets.items():
            checked(name, text)
        self._required |= {BASE_NAME: BASE, **rulesets}

    def read(self, items: Collection[Item]) -> dict[Key, Value]:
        """Nothing: a single element cannot be asked for at a cost that does not grow."""
        return {}

    def snapshot(self, items: Collection[Item]) -> dict[Key, Value]:
        """All elements there are, and None for those of ``items`` that are not."""
        return {**dict.fromkeys((item.key for item in items), None), **self.elements()}

    def elements(self) -> dict[Key, Value]:
        """All elements of our tables that are of interfaces, in one listing."""
        found: dict[Key, Value] = {}
        for family in FAMILIES:
            found |= listed(self._listing(f"list table {family} snf"))
        return found

    def apply(self, changes: Sequence[Change]) -> Collection[Key]:
        """Make all changes in one transaction, or none; load the required rulesets if need be.

        Returns the markers of NICs that were to be new and are not: everything else in our tables
        is ours in any case. Raises NetworkError.
        """
        self._lock.hold(exclusive=False)
        asserted = "".join(assertion(*one) for one in self._required.items())
        if not self._refused(asserted + stated(changes)):
            return ()
        self._lock.hold(exclusive=True)
        markers = tuple(known(changes, self.elements()))
        self._apply_slowly(changes)
        return markers

    def missing(self) -> list[str]:
        """What is not as it should be of the required rulesets, in words; empty if all is well.

        That is a ruleset which is not loaded, and a table whose rules, sets or chains are not
        those that were loaded: somebody has changed them by hand. Not for within an event.
        """
        try:
            self._lock.hold(exclusive=False)  # nobody loads any meanwhile
            loaded, prints = self._loaded()
            known = self._lock.kept()
        finally:
            self.close()
        wrong = [name for name, text in self._required.items() if loaded.get(name) != digest(text)]
        if wrong == [BASE_NAME] == [*self._required] and not known:
            return []  # nothing has been loaded since boot, and nothing need be
        if wrong or not known:
            return wrong
        return [f"table {one} snf" for one in FAMILIES if known.get(one) != prints[one]]

    def rebuild(self) -> None:
        """Replace all that is ours by what the state documents say. Not for within an event.

        Raises NetworkError, the kernel then being as before.
        """
        try:
            self._lock.hold(exclusive=True)
            self._rebuild(())
        finally:
            self.close()

    def refusal(self, text: str) -> str:
        """Why a transaction would fail, in nft's words; "" if it would not. Nothing is changed.

        It goes to the kernel, which checks it and then does not make it.
        """
        self._nft().set_dry_run(True)
        try:
            return self._refused(text)
        finally:
            self._nft().set_dry_run(False)

    def close(self) -> None:
        """End the event: release the lock. What comes after is another event.

        Who goes on to another interface has to call it before waiting for the lock of that one,
        or might wait forever for somebody who holds it and waits for ours.
        """
        self._lock.release()

    def _apply_slowly(self, changes: Sequence[Change]) -> None:
        """After a failure, with the lock held exclusively: load, correct, or rebuild."""
        loaded, _ = self._loaded()
        absent = {name: text for name, text in self._required.items() if name not in loaded}
        fits = BASE_NAME in loaded and all(
            loaded[name] == digest(text) for name, text in self._required.items() if name in loaded
        )
        if fits:
            reason = self._refused(together(absent) + stated(changes))
            if _THERE in reason or _ABSENT in reason:
                changes = corrected(changes, self.elements())
                reason = self._refused(together(absent) + stated(changes))
            if not reason:
                if absent:
                    self._lock.keep(self._loaded()[1])
                return
            if _ABSENT not in reason:
                raise self._explained(absent, "", _wanted(changes), reason)
        self._rebuild(changes)

    def _rebuild(self, changes: Iterable[Change]) -> None:
        """Everything anew, as the documents say, and with ``changes``. The lock must be held."""
        texts, items = self._restore()
        self.require({**texts, **self._required})
        wanted: dict[Key, Item] = {}
        for item in items:
            if item.kind == ELEMENT and item.value is not None:
                wanted.setdefault(item.key, item)
        for item, _ in changes:
            wanted.pop(item.key, None)
            if item.value is not None:
                wanted[item.key] = item
        reason = self._refused(
            DELETION + together(self._required) + added_together(wanted.values())
        )
        if reason:
            raise self._explained(self._required, DELETION, list(wanted.values()), reason)
        self._lock.keep(self._loaded()[1])

    def _explained(
        self, rulesets: Mapping[str, str], before: str, items: Sequence[Item], reason: str
    ) -> NetworkError:
        """Why a transaction failed that began with ``before``, loads ``rulesets`` and adds
        ``items``: found by trying its parts, of which nothing remains."""
        for name, text in rulesets.items():
            error = unloadable(name, text, self.refusal)
            if error:
                return error
        before += together(rulesets)
        alone = self.refusal(before)
        if alone:
            return NetworkError(
                f"the nftables rules {', '.join(rulesets)} cannot be loaded together: "
                + first(alone),
                remedy="take one of their setups out of [network] setups",
            )
        if not self.refusal(before + added_together(items)):
            names = sorted({item.attribute.split()[0] for item in items})
            return NetworkError(
                f"{', '.join(names[:3]) or 'nftables'}: nftables refuses a change: {first(reason)}"
            )
        item = self._culprit(before, items)
        return NetworkError(
            f"{item.attribute.split()[0]}: nftables refuses element {item.attribute!r} of "
            f"{item.object}, which setup {item.setup!r} wants: "
            f"{first(self.refusal(before + added_together([item])) or reason)}",
            remedy="where the rules have changed since that NIC was wired, take it down "
            '("snf network down") and up again',
        )

    def _culprit(self, before: str, items: Sequence[Item]) -> Item:
        """The first of ``items`` that is not taken after ``before``; there must be one.

        By halving: what libnftables shows beside its reasons is not always the right line.
        """
        good, bad = 0, len(items)
        while bad - good > 1:
            middle = (good + bad) // 2
            if self.refusal(before + added_together(items[:middle])):
                bad = middle
            else:
                good = middle
        return items[good]

    # Listings.

    def _loaded(self) -> tuple[dict[str, str], dict[str, str]]:
        """The digests of the rulesets that are marked as loaded, and of what our tables hold.

        The latter by family, of everything but elements; none where not all our tables are there.
        """
        self._nft().set_terse_output(True)
        self._nft().set_stateless_output(True)
        try:
            found = {
                family: [
                    _without_handle(entry)
                    for entry in self._listing(f"list ruleset {family}")
                    if any(one.get("table", one.get("name")) == "snf" for one in entry.values())
                ]
                for family in FAMILIES
            }
        finally:
            self._nft().set_terse_output(False)
            self._nft().set_stateless_output(False)
        if not all(found.values()):
            return {}, {}
        names = [entry["set"]["name"] for entry in found["inet"] if "set" in entry]
        loaded = dict(mark for name in names if (mark := marked(name)))
        prints = {
            family: hashlib.sha256(json.dumps(entries).encode()).hexdigest()
            for family, entries in found.items()
        }
        return loaded, prints

    def _listing(self, command: str) -> list[dict[str, Any]]:
        """The objects (libnftables-json(5)) that a command lists; none where there is no table."""
        nft = self._nft()
        nft.set_json_output(True)
        try:
            status, output, errors = nft.cmd(command)
        finally:
            nft.set_json_output(False)
        if status != 0:
            if _ABSENT in errors:
                return []
            raise _failed(command, errors)
        found: list[dict[str, Any]] = json.loads(output)["nftables"] if output else []
        return found

    # Transactions.

    def _refused(self, text: str) -> str:
        """Run one transaction: "" if it was made, else nft's words. Raises NetworkError."""
        status, _, errors = self._nft().cmd(text)
        if status == 0:
            return ""
        if _FORBIDDEN in errors:
            raise _failed("a transaction", errors)
        return str(errors) or "no reason given"

    def _nft(self) -> Any:
        """libnftables. Raises NetworkError where it is not there."""
        if self._context is None:
            try:
                import nftables

                self._context = nftables.Nftables()
            except (ImportError, OSError) as error:
                raise NetworkError(
                    f"nftables cannot be used from Python: {error}",
                    remedy="install python3-nftables, and let the virtual environment see system "
                    "packages",
                ) from error
        return self._context


def _wanted(changes: Iterable[Change]) -> list[Item]:
    return [item for item, _ in changes if item.value is not None]


def _without_handle(entry: dict[str, Any]) -> dict[str, Any]:
    """An object of a listing without the number that the kernel gave it."""
    return {
        kind: {name: value for name, value in one.items() if name != "handle"}
        for kind, one in entry.items()
    }


def _failed(what: str, errors: str) -> NetworkError:
    remedy = "run it as root" if _FORBIDDEN in errors else ""
    return NetworkError(f"nftables: {what} failed: {first(errors)}", remedy=remedy)
