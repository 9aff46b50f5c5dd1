"""Answer files for the unattended setup of Windows since Vista (unattend.xml): read and changed.

What is not changed stays: comments, order, prefixes, attributes. Elements are looked up by their
names, whatever prefix a file uses for their namespace, and made only where they are missing: to
Windows an answer file that states a setting twice is broken. The structure is that of Microsoft's
"Unattended Windows Setup Reference".

lxml is imported by ``load``: where tasks run, there may be no right to read it.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from snf_core.errors import InvalidValueError
from snf_os_windows import unattend_structure as structure

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Self

    from lxml import etree

LIMIT = 1 << 20
"""Bytes of an answer file at most."""

SHELL_SETUP = "Microsoft-Windows-Shell-Setup"
DEPLOYMENT = "Microsoft-Windows-Deployment"
REMOTE_DESKTOP = "Microsoft-Windows-TerminalServices-LocalSessionManager"

_DECLARATION = b'<?xml version="1.0" encoding="utf-8"?>'
_BLANK = f'<unattend xmlns="{structure.UNATTEND}"/>'.encode()
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_COMMAND = "RunSynchronousCommand"
_LAST_ORDER = 500
"""The largest Order of a command."""

_NO_ADMINISTRATOR = (
    "AdministratorPassword is taken out of the answer file: "
    "it would replace the password that was given"
)
_NO_ACCOUNT = (
    "LocalAccount {!r} is taken out of the answer file: the image has the account, "
    "and the password that was given would be replaced"
)
_RANDOM = (
    "Password of LocalAccount {!r} is replaced by a random one in the answer file: "
    "the account gets the password that was given when Windows Setup is done"
)
_NO_LOGON = (
    "AutoLogon of {!r} is taken out of the answer file: it states another password than was "
    "given. Commands for the first logon wait until somebody logs on"
)


def load() -> None:
    """Import what reads XML, now."""
    from lxml import etree

    del etree


class AnswerFile:
    """An answer file. Architectures are called as it calls them: ``amd64``, ``x86``, ``arm64``.

    ``what`` names it in messages.
    """

    def __init__(self, root: etree._Element, what: str) -> None:
        self._root = root
        self._what = what

    @classmethod
    def parse(cls, content: bytes, what: str = "the answer file", *, remedy: str = "") -> Self:
        """Read an answer file, in whatever encoding it declares.

        Raises InvalidValueError for what is no XML, has a document type (whose entities could
        name files or explode), is larger than LIMIT, or has not an answer file's structure.
        """
        from lxml import etree

        if len(content) > LIMIT:
            raise InvalidValueError(f"{what} is larger than {LIMIT} bytes", remedy=remedy)
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
        )
        try:
            root = etree.fromstring(content, parser)
        except etree.XMLSyntaxError as error:
            # The parser's own words may repeat what the file holds.
            line, column = error.position
            message = f"{what} is not XML: see line {line}, column {column}"
            raise InvalidValueError(message, remedy=remedy) from None
        if root.getroottree().docinfo.internalDTD is not None:
            raise InvalidValueError(
                f"{what} has a document type declaration, which answer files do without",
                remedy=remedy or "remove it",
            )
        structure.check(root, what, remedy)
        return cls(root, what)

    @classmethod
    def blank(cls) -> Self:
        """One that answers nothing yet."""
        return cls.parse(_BLANK)

    def serialize(self) -> bytes:
        """The file: UTF-8, its lines ended as Windows does."""
        from lxml import etree

        before = reversed(list(self._root.itersiblings(preceding=True)))
        nodes = [*before, self._root, *self._root.itersiblings()]  # comments around the root
        lines = [etree.tostring(node, encoding="utf-8", with_tail=False) for node in nodes]
        return b"".join(line + b"\n" for line in [_DECLARATION, *lines]).replace(b"\n", b"\r\n")

    # -- settings ---------------------------------------------------------------------------

    def value(self, setup_pass: str, component: str, path: Sequence[str], arch: str) -> str | None:
        """A setting, blanks around it removed; None where the file does not state it."""
        element = self._component(setup_pass, component, arch)
        for name in path:
            element = None if element is None else _child(element, name)
        return None if element is None else _text(element)

    def set_value(
        self, setup_pass: str, component: str, path: Sequence[str], value: str, arch: str
    ) -> None:
        """State a setting, for example ``("OOBE", "HideEULAPage")`` of SHELL_SETUP."""
        element = self._made_component(setup_pass, component, arch)
        for name in path:
            element = _made_child(element, name)
        for child in list(element):
            element.remove(child)
        element.text = value or None

    def set_computer_name(self, name: str, arch: str) -> None:
        """State the machine's name; the caller has checked it."""
        self.set_value("specialize", SHELL_SETUP, ["ComputerName"], name, arch)

    def set_product_key(self, key: str, arch: str) -> None:
        """State the product key with which Windows is activated."""
        self.set_value("specialize", SHELL_SETUP, ["ProductKey"], key, arch)

    def set_time_zone(self, zone: str, arch: str) -> None:
        """State the time zone, by its name in the registry."""
        self.set_value("specialize", SHELL_SETUP, ["TimeZone"], zone, arch)

    # -- commands ---------------------------------------------------------------------------

    def commands(self, arch: str) -> list[str]:
        """What runs in the pass specialize, in the order in which the file lists it."""
        component = self._component("specialize", DEPLOYMENT, arch)
        if component is None:
            return []
        return [_text(path) for path in _all(component, "RunSynchronous", _COMMAND, "Path")]

    def run_in_specialize(self, command: str, description: str, arch: str) -> None:
        """Have a command line run in the pass specialize, after those that the file has already.

        A command that is there already, in whatever case, is not added again.
        """
        from lxml import etree

        if command.lower() in [present.lower() for present in self.commands(arch)]:
            return
        component = self._made_component("specialize", DEPLOYMENT, arch)
        commands = _made_child(component, "RunSynchronous")
        taken = {int(_text(order)) for order in _all(commands, _COMMAND, "Order")}
        free = sorted(set(range(1, _LAST_ORDER + 1)) - taken)
        later = [order for order in free if order > max(taken, default=0)]
        if not free:
            raise InvalidValueError(f"{self._what} has no room for another command")
        added = etree.SubElement(commands, _named(commands, _COMMAND), nsmap={"wcm": structure.WCM})
        added.set(f"{{{structure.WCM}}}action", "add")
        _indent(added)
        order = later[0] if later else free[-1]
        for name, text in (("Order", str(order)), ("Path", command), ("Description", description)):
            _made_child(added, name).text = text

    # -- what a file says of itself ---------------------------------------------------------

    def local_accounts(self, arch: str) -> tuple[str, ...]:
        """The names of the accounts that the file has Windows create."""
        component = self._component("oobeSystem", SHELL_SETUP, arch)
        if component is None:
            return ()
        accounts = _all(component, "UserAccounts", "LocalAccounts", "LocalAccount")
        return tuple(
            _text(name)
            for account in accounts
            if structure.action(account) in {"", "add"}
            and (name := _child(account, "Name")) is not None
        )

    # -- passwords --------------------------------------------------------------------------

    def withdraw_passwords(
        self, users: Sequence[str], *, present: Collection[str], administrator: str
    ) -> list[str]:
        """Take out what would give ``users``, whose password the first boot sets, another one.

        Windows sets the passwords of an answer file in its passes oobeSystem and auditSystem:
        after the specialize pass, in which the first boot sets its own. This looks at all passes,
        and at the components of all architectures.

        ``present`` are the accounts that the image has, ``administrator`` the built-in one of
        them. A LocalAccount of one that is present goes as a whole: it is not documented what one
        without Password does to the password of an account that exists. One that Windows is to
        create gets a random password, which lasts until the first boot sets the given one when
        Setup is done: nobody can enter with the old one meanwhile, and a blank one would stop the
        setup of a Windows whose policy forbids it.

        Returns a sentence for each thing that was changed, without what it stated.
        """
        names = {user.lower(): user for user in users}
        existing = {name.lower() for name in present}
        said: dict[str, None] = {}
        for component in self._components(SHELL_SETUP):
            if administrator.lower() in names:
                for password in list(_all(component, "UserAccounts", "AdministratorPassword")):
                    _remove(password)
                    said[_NO_ADMINISTRATOR] = None
            for account in list(_all(component, "UserAccounts", "LocalAccounts", "LocalAccount")):
                name = _text_at(account, "Name").lower()
                if name not in names or structure.action(account) == "remove":
                    continue
                if name in existing:
                    _remove(account)
                    said[_NO_ACCOUNT.format(names[name])] = None
                    continue
                for password in _all(account, "Password"):
                    _randomize(password)
                    said[_RANDOM.format(names[name])] = None
            for logon in list(_all(component, "AutoLogon")):
                if (name := _logs_on(logon)) in names:
                    _remove(logon)
                    said[_NO_LOGON.format(names[name])] = None
        return list(said)

    def close_remote_desktop(self, arch: str) -> bool:
        """Take out what opens remote desktop, perhaps before passwords are set; say whether there
        was such. It is not made to say the opposite: in the same pass, the first boot opens it.
        """
        opened = False
        for setup_pass in ("specialize", "oobeSystem"):
            component = self._component(setup_pass, REMOTE_DESKTOP, arch)
            denied = None if component is None else _child(component, "fDenyTSConnections")
            if denied is not None and _text(denied).lower() in {"false", "0"}:
                _remove(denied)
                opened = True
        return opened

    @property
    def processed(self) -> bool:
        """Whether it is the record that an earlier setup left of itself: Windows marks in its copy
        what it has done, and takes passwords and keys out of it."""
        return any(
            settings.get("wasPassProcessed", "").lower() == "true"
            and settings.get("pass") in {"specialize", "oobeSystem"}
            for settings in _all(self._root, "settings")
        )

    # -- inside -----------------------------------------------------------------------------

    def _settings(self, setup_pass: str) -> Any:
        for settings in _all(self._root, "settings"):
            if settings.get("pass") == setup_pass:
                return settings
        return None

    def _component(self, setup_pass: str, name: str, arch: str) -> Any:
        settings = self._settings(setup_pass)
        wanted = structure.component_key(name, arch)
        for component in () if settings is None else _all(settings, "component"):
            found = component.get("name", ""), component.get("processorArchitecture", "")
            if structure.component_key(*found) == wanted:
                return component
        return None

    def _components(self, name: str) -> list[Any]:
        """The components of a name, in all passes and for all architectures."""
        components = list(_all(self._root, "settings", "component"))
        return [one for one in components if one.get("name", "").lower() == name.lower()]

    def _made_component(self, setup_pass: str, name: str, arch: str) -> Any:
        from lxml import etree

        found = self._component(setup_pass, name, arch)
        if found is not None:
            return found
        settings = self._settings(setup_pass)
        if settings is None:
            settings = _made_child(self._root, "settings", anew=True)
            settings.set("pass", setup_pass)
        made = etree.SubElement(
            settings, _named(settings, "component"), nsmap={"wcm": structure.WCM, "xsi": _XSI}
        )
        made.set("name", name)
        made.set("processorArchitecture", arch)
        made.set("publicKeyToken", "31bf3856ad364e35")
        made.set("language", "neutral")
        made.set("versionScope", "nonSxS")
        _indent(made)
        return made


def _all(element: Any, *path: str) -> Iterator[Any]:
    """The elements at a path of names, in document order."""
    if not path:
        yield element
        return
    for child in structure.settings_in(element):
        if structure.local_name(child).lower() == path[0].lower():
            yield from _all(child, *path[1:])


def _child(element: Any, name: str) -> Any:
    return next(_all(element, name), None)


def _text(element: Any) -> str:
    """What an element states, comments left out."""
    return str(element.xpath("string()")).strip()


def _text_at(element: Any, name: str) -> str:
    """What a child of an element states; empty where there is none."""
    child = _child(element, name)
    return "" if child is None else _text(child)


def _logs_on(logon: Any) -> str:
    """The local account, in lower case, that AutoLogon logs on; empty for a domain's."""
    domain, _, name = _text_at(logon, "Username").rpartition("\\")
    local = {domain, _text_at(logon, "Domain")} <= {"", "."}
    return name.lower() if local else ""


def _randomize(password: Any) -> None:
    """Have an element Password state one that nobody knows: 144 random bits, behind one character
    of each kind that policies ask for."""
    password.clear(keep_tail=True)
    _made_child(password, "Value").text = f"Aa1-{secrets.token_urlsafe(18)}"
    _made_child(password, "PlainText").text = "true"


def _remove(element: Any) -> None:
    """Take an element out, and what held nothing else, up to the component."""
    parent, before = element.getparent(), element.getprevious()
    if element.getnext() is None and before is not None:
        before.tail = element.tail  # what ends the list is as far out as before
    parent.remove(element)
    empty = next(structure.settings_in(parent), None) is None
    if empty and structure.local_name(parent) != "component":
        _remove(parent)


def _named(parent: Any, name: str) -> str:
    """A name in the namespace, and so under the prefix, of its parent."""
    return str(parent.tag)[: -len(structure.local_name(parent))] + name


def _made_child(parent: Any, name: str, *, anew: bool = False) -> Any:
    from lxml import etree

    found = None if anew else _child(parent, name)
    if found is None:
        found = etree.SubElement(parent, _named(parent, name))
        _indent(found)
    return found


def _indent(added: Any) -> None:
    """Put the last child of its parent on a line of its own, as far in as its siblings.

    A file that is all in one line is left so.
    """
    parent = added.getparent()
    before = added.getprevious()
    step = "  "
    if before is None:
        depth = sum(1 for _ in added.iterancestors())
        parent.text = "\n" + step * depth
        added.tail = "\n" + step * (depth - 1)
    else:
        added.tail = before.tail
        before.tail = parent.text if not (parent.text or "").strip() else None
