"""Modules that are imported when they are first used, whoever imports them at its top.

Starting is most of what a NIC event costs, and oslo.config imports libraries for kinds of options
that there are none of here. ``importlib.util.LazyLoader`` would not do: Python 3.11 itself takes
something of what it imports.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any


def postpone(*names: str) -> None:
    """Let whoever imports one of these modules have it, and pay for it when something is taken."""
    for name in names:
        sys.modules.setdefault(name, _Postponed(name))


class _Postponed(types.ModuleType):
    """Stands for a module, and becomes like it."""

    def __getattr__(self, attribute: str) -> Any:
        """What the module has: asked for only where that is not here yet."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        vars(self).update(vars(module))
        return getattr(module, attribute)
