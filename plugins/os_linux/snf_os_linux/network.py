"""ConfigureNetwork, and the extension point of the renderers among which it chooses."""

from __future__ import annotations

import fnmatch
import posixpath
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from snf_core import extension
from snf_core.contract import Plugin, Task
from snf_core.errors import PluginError
from snf_os_linux import systemd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from snf_core.image.customization import Customization, File
    from snf_core.image.guest import Guest
    from snf_core.image.nics import NicPlan

RESOLV_CONF = "/etc/resolv.conf"


class Renderer(Plugin):
    """One way in which Linux guests configure their NICs (snf.guest.linux.network).

    A renderer has no options: it is made with None.
    """

    priority: ClassVar[int] = 50
    """Of the renderers available in a guest, the highest priority is used."""
    owned: ClassVar[str] = ""
    """A pattern (fnmatch; the directory is literal) that matches the files that this renderer
    makes and no others: what of it an earlier deployment left, and is not made again, goes."""

    @abstractmethod
    def available(self, guest: Guest) -> bool:
        """Whether the guest, its file systems mounted, configures its NICs this way."""

    @abstractmethod
    def render(
        self,
        nics: Sequence[NicPlan],
        nameservers: Sequence[str],
        search_domains: Sequence[str],
    ) -> Sequence[File]:
        """The files to write. Pure: nothing is read or written."""


POINT = extension.ExtensionPoint("snf.guest.linux.network", Renderer)


class ConfigureNetwork(Task):
    """Have the guest configure its NICs at boot, by the means it uses already."""

    api_version = "1.0"

    def __init__(self, conf: Any) -> None:
        """Load the renderers now: where tasks run, there may be no right to read them."""
        super().__init__(conf)
        self._renderers: dict[str, Renderer] = {}
        self._broken: list[str] = []
        for name in extension.names(POINT):
            try:
                self._renderers[name] = extension.load(POINT, name)(None)
            except PluginError as error:
                self._broken.append(str(error))

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Write the files of the renderer that fits, or warn where none does.

        A guest that was deployed without them is left alone when it is but updated.
        """
        yield from self._broken
        renderer = choose(guest, self._renderers.values())
        if request.update and not (renderer and owned(guest, renderer)):
            return
        if renderer is None:
            names = ", ".join(sorted(self._renderers)) or "none"
            yield f"how this guest configures its NICs is not known (renderers installed: {names})"
            return
        apply(guest, renderer, request)


def choose(guest: Guest, renderers: Iterable[Renderer]) -> Renderer | None:
    """The available renderer of the highest priority."""
    ranked = sorted(renderers, key=lambda renderer: renderer.priority, reverse=True)
    return next((renderer for renderer in ranked if renderer.available(guest)), None)


def apply(guest: Guest, renderer: Renderer, request: Customization) -> None:
    """Write what a renderer makes of the request, and remove what it made of an earlier one."""
    files = renderer.render(request.nics, request.nameservers, request.search_domains)
    paths = {file.path for file in files}
    for path in owned(guest, renderer):
        if path not in paths:
            guest.remove(path)
    for parent in {posixpath.dirname(path) for path in paths}:
        guest.make_directory(parent)
    guest.write_files(files)
    if request.nameservers and _is_static(guest, RESOLV_CONF):
        guest.write(RESOLV_CONF, _resolv_conf(request.nameservers, request.search_domains))


def owned(guest: Guest, renderer: Renderer) -> list[str]:
    """The files that a renderer made when the guest was deployed before."""
    directory, pattern = posixpath.split(renderer.owned)
    return [
        posixpath.join(directory, name) for name in fnmatch.filter(guest.list(directory), pattern)
    ]


def _is_static(guest: Guest, path: str) -> bool:
    """Whether nobody but the administrator writes a file: a resolver would have made it a link."""
    status = guest.status(path)
    return (status is None or status.is_file) and (
        "systemd-resolved.service" not in systemd.enabled(guest)
    )


def _resolv_conf(nameservers: Sequence[str], search_domains: Sequence[str]) -> str:
    lines = [f"search {' '.join(search_domains)}"] if search_domains else []
    lines += [f"nameserver {server}" for server in nameservers]
    return "".join(f"{line}\n" for line in lines)
