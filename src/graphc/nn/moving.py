"""`Moving`: what traced code sets on a module, kept where compiled code can set it too.

Enters: entries.  Leaves: the same; inside a trace, what the trace has in their place.
Never here: what a trace makes of them (`graphc.capture.attributes`).

An attribute that traced code sets moves here from the module's ``__dict__``, so that every read of it by traced code passes here
and becomes a guard of that trace alone.  So setting it counts up no epoch.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from graphc.eager import dispatch
from graphc.eager.modes import modes
from graphc.nn.watched import Watched

ATTRIBUTES = "_attributes"  # where a module holds attributes that move


def collector() -> Any:
    """The tracer that collects what this thread does, also from inside `vmap`; None where there is none."""
    tracer = modes.tracer
    if tracer is None or not tracer.collects:
        return None
    while tracer.batches:
        tracer = tracer.outer
    return tracer


class Moving(Watched):
    """Entries of a module, of which some move: traced code sets them."""

    def __init__(self, *args: Any) -> None:
        self.moving: set[str] = set()
        super().__init__(*args)

    def move(self, name: str) -> None:
        """From now on `name` is one that moves; code compiled before did not know that."""
        self.moving.add(name)
        dispatch.epoch[0] += 1

    def held(self, name: str, default: Any) -> Any:
        """The entry itself, whatever a trace has in its place."""
        return OrderedDict.get(self, name, default)

    def hold(self, name: str, value: Any) -> None:
        """Set the entry itself."""
        OrderedDict.__setitem__(self, name, value)

    def drop(self, name: str) -> None:
        """Take the entry itself out, if there is one."""
        OrderedDict.pop(self, name, None)

    def _tracer(self, name: Any) -> Any:
        return collector() if name in self.moving else None

    def __contains__(self, name: object) -> bool:
        tracer = self._tracer(name)
        return super().__contains__(name) if tracer is None else tracer.attributes.has(self, name)

    def __getitem__(self, name: Any) -> Any:
        tracer = self._tracer(name)
        return super().__getitem__(name) if tracer is None else tracer.attributes.read(self, name)

    def __setitem__(self, name: Any, value: Any) -> None:
        tracer = self._tracer(name)
        if tracer is not None:
            tracer.attributes.write(self, name, value)
        elif name in self.moving:
            self.hold(name, value)
        else:
            super().__setitem__(name, value)

    def __delitem__(self, name: Any) -> None:
        tracer = self._tracer(name)
        if tracer is not None:
            tracer.attributes.delete(self, name)
        elif name in self.moving:
            OrderedDict.__delitem__(self, name)
        else:
            super().__delitem__(name)

    def get(self, name: Any, default: Any = None) -> Any:
        """The entry, or `default`."""
        try:
            return self[name]
        except KeyError:
            return default

    def items(self) -> Any:
        """All entries with their names."""
        return super().items() if collector() is None else [(name, self[name]) for name in self]

    def values(self) -> Any:
        """All entries."""
        return super().values() if collector() is None else [self[name] for name in self]


__all__ = ["ATTRIBUTES", "Moving", "collector"]
