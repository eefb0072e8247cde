"""Spares the watcher modules that its libraries import and never use.

dataclasses imports inspect, and with it the parser and the disassembler: 1.5 MB for the signature in the
docstring of a data class that has none of its own. watchdog imports ctypes.util, and with it subprocess,
tempfile and three compressors: again 1.5 MB. The service lives for years.

Invariant: nothing breaks when a library does use one: the stand-in then fetches the real module.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType


def spare(name: str) -> None:
    """From now on importing this module costs nothing until something in it is used."""
    if name in sys.modules:
        return
    parent, _, child = name.rpartition(".")
    stand_in = _StandIn(name)
    sys.modules[name] = stand_in
    if parent:
        setattr(import_module(parent), child, stand_in)


class _StandIn(ModuleType):
    def __getattr__(self, attribute: str) -> object:
        if attribute.startswith("__"):
            # What the import system asks every module for.
            raise AttributeError(attribute)
        if (self.__name__, attribute) == ("inspect", "get_annotations"):
            return self._annotations_of
        return getattr(self._real(), attribute)

    def _real(self) -> ModuleType:
        name = self.__name__
        if sys.modules.get(name) is self:
            del sys.modules[name]
        return import_module(name)

    def _annotations_of(self, found: object, **more: object) -> object:
        """inspect.get_annotations, as dataclasses of Python 3.13 asks it of every class; the rest is for the
        real one."""
        if isinstance(found, type) and not more:
            return dict(found.__dict__.get("__annotations__", {}))  # noqa: RUF063  that is what is spared
        return self._real().get_annotations(found, **more)
