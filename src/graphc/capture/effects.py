"""What traced code does to Python objects that outlive it: found, and undone.

Enters: a function and its arguments, before and after it is traced.  Leaves: the kind of object that was changed, if one was.
Never here: tensors and attributes of modules, which have tracers of their own.

Looked at are lists, dicts, sets, deques and plain objects that the code can reach from its arguments, defaults, globals and
closures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from graphc.capture.guards import ON_HEAP, is_own, named_values
from graphc.dim_answers import is_answered
from graphc.dims import Dim
from graphc.eager.tensor import Tensor
from graphc.errors import TracedAgain, TraceError, at_user_line

MOST_OBJECTS = 10_000  # that are looked at
_CONTAINERS = (list, dict, set, deque)
_OPAQUE = (type, ModuleType, BuiltinFunctionType, Tensor, str, bytes, int, float, complex, bool, type(None))


class Effects:
    """Copies of what the code can reach, one level deep each.   complete: whether all of it was looked at.
    reads: the `Reads` of traces of the code."""

    def __init__(self, target: Callable[..., Any], arguments: Any) -> None:
        self.before: list[tuple[Any, Any]] = []
        self.names: list[tuple[Any, str, Any]] = []  # globals and closure cells
        self.reads: list[Any] = []
        self.complete = True
        seen: set[int] = set()
        self._alive: list[Any] = []  # what is known by id
        stack: list[Any] = [target, arguments]
        while stack:
            value = stack.pop()
            if isinstance(value, _OPAQUE) or id(value) in seen:
                continue
            if len(seen) >= MOST_OBJECTS:
                self.complete = False
                return
            seen.add(id(value))
            self._alive.append(value)
            stack.extend(self._inside(value))

    def _inside(self, value: Any) -> Iterator[Any]:
        """What a value leads to; notes what can be changed."""
        held = getattr(value, "__dict__", None)
        if isinstance(value, MethodType):
            yield from (value.__self__, value.__func__)
        elif isinstance(value, FunctionType):
            if not is_own(value):
                for owner, name, found in named_values(value):
                    self.names.append((owner, name, found))
                    yield found
                yield from value.__defaults__ or ()
                yield getattr(value, "__wrapped__", None)
        elif isinstance(value, tuple | frozenset):
            yield from value
        elif isinstance(value, _CONTAINERS) and not is_own(type(value)):
            self.before.append((value, _copied(value)))
            yield from value.values() if isinstance(value, dict) else value
        elif isinstance(held, dict) and "_modules" in held:  # a module, whose attributes are traced
            yield from held["_modules"].values()
            yield from (found for name, found in held.items() if not name.startswith("_"))
        elif isinstance(held, dict) and not is_own(type(value)):
            self.before.append((held, dict(held)))
            yield from held.values()
        yield from (f for kind in type(value).__mro__ if not is_own(kind) for f in _functions(kind))

    def traced(self, trace: Callable[[], Any]) -> Any:
        """What `trace` gives.  Raises TraceError where the code reads elements and changes objects, which are put back."""
        while True:
            try:
                traced = trace()
                break
            except TracedAgain:
                self.undone()
            except TraceError:
                if any(reads.started for reads in self.reads):
                    self.undone()
                raise
        if is_answered() and self._holds_sizes():
            self.undone()
            raise TraceError(at_user_line("the code keeps a size, which other calls have another one of"))
        if traced.reads_elements:
            if not self.complete:
                raise TraceError(at_user_line("the code reads tensors into Python, and reaches too many objects to watch"))
            changed = self.undone()
            if changed is not None:
                raise TraceError(at_user_line(f"the code reads tensors into Python and changes {changed}"))
        return traced

    def _holds_sizes(self) -> bool:
        """Whether a symbolic size was put where it outlives the call."""
        held = [x for value, _ in self.before for x in (value.values() if isinstance(value, dict) else value)]
        held += [owner.get(name) if isinstance(owner, dict) else owner.cell_contents for owner, name, _ in self.names]
        return any(isinstance(x, Dim) for x in held)

    def undone(self) -> str | None:
        """Put back what was changed: what that was, in words, or None."""
        found = None
        for value, copy in self.before:
            if not _same(value, copy):
                found = f"a {type(value).__name__} that outlives the call"
                value.clear()
                value.extend(copy) if isinstance(value, list | deque) else value.update(copy)
        for owner, name, before in self.names:
            now = owner.get(name) if isinstance(owner, dict) else owner.cell_contents
            if now is not before:
                found = f"'{name}'"
                if isinstance(owner, dict):
                    owner[name] = before
                else:
                    owner.cell_contents = before
        return found


def _functions(kind: type) -> Iterator[FunctionType]:
    return (f for f in vars(kind).values() if isinstance(f, FunctionType)) if kind.__flags__ & ON_HEAP else iter(())


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else set(value) if isinstance(value, set) else list(value)


def _same(value: Any, copy: Any) -> bool:
    """Whether a container holds the very objects it held, in the same order."""
    if len(value) != len(copy):
        return False
    if isinstance(value, dict):
        return all(a is b and v is copy[b] for (a, v), b in zip(value.items(), copy, strict=True))
    if isinstance(value, set):
        return bool(value == copy)
    return all(a is b for a, b in zip(value, copy, strict=True))
