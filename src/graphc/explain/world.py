"""Everything that a call of user code may change: kept, put back, described.

Enters: a function and its arguments.  Leaves: a `World`, which can put all of it back; descriptions by path, to compare two.
Never here: what is compared with what (`graphc.explain.checks`).

Looked at is what can be reached through attributes, containers, closures, and globals that code names.
"""

from __future__ import annotations

import functools
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from graphc.capture.guards import named_values
from graphc.dtypes import DType
from graphc.eager.generator import default_generator
from graphc.eager.storage import Storage
from graphc.eager.tape import Node
from graphc.eager.tensor import Tensor

MOST_OBJECTS = 200_000
# Rooms whose objects remember work that was done, which stays done.  Of compiled functions only what they are made of is looked at.
_MACHINERY = (
    "capture", "changes", "compiled", "constants", "dynamic", "ir", "kernels", "native", "paths", "pipeline", "quick",
    "runtime", "sweeps", "variant",
)  # fmt: skip
_ABSENT: Any = object()
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_OPAQUE = (*_PLAIN, type, ModuleType, BuiltinFunctionType, DType, weakref.ref, np.dtype)
_CONTAINERS = (list, dict, set, deque)
_LEAVES = (Tensor, np.ndarray)


class World:
    """What there is.   complete: whether there was not too much of it."""

    def __init__(self, *roots: Any) -> None:
        self._undo: list[Callable[[], None]] = []
        self._alive: list[Any] = []  # what is known by id
        self.complete = True
        seen: set[int] = set()
        stack: list[Any] = [*roots, default_generator]
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

    def restore(self) -> None:
        """Put everything back."""
        for undo in self._undo:
            undo()

    def _inside(self, value: Any) -> Iterator[Any]:
        if isinstance(value, np.ndarray):
            if value.flags.writeable and value.dtype != object:
                copy = value.copy()
                self._undo.append(lambda: np.copyto(value, copy))
        elif isinstance(value, MethodType):
            yield from (value.__self__, value.__func__)
        elif isinstance(value, FunctionType):
            yield from self._inside_function(value)
        elif isinstance(value, CellType):
            yield value.cell_contents
        elif isinstance(value, tuple | frozenset):
            yield from value
        else:
            yield from self._inside_object(value)

    def _inside_function(self, function: FunctionType) -> Iterator[Any]:
        yield from function.__defaults__ or ()
        yield getattr(function, "__wrapped__", None)
        own = (function.__module__ or "").partition(".")[0] == "graphc"
        for owner, name, found in named_values(function):
            if isinstance(owner, CellType):
                self._undo.append(functools.partial(setattr, owner, "cell_contents", found))
                yield found
            elif not own:
                self._undo.append(functools.partial(owner.__setitem__, name, found))
                yield found

    def _inside_object(self, value: Any) -> Iterator[Any]:
        home = type(value).__module__.split(".")
        if home[0] == "graphc" and home[1:2] and home[1] in _MACHINERY:
            yield getattr(value, "_target", None)
            return
        if isinstance(value, _CONTAINERS):
            copy: Any = list(_items(value))
            self._undo.append(lambda: _refill(value, copy))
            yield from (x for item in copy for x in item) if isinstance(value, dict) else copy
        held = getattr(value, "__dict__", None)
        if isinstance(held, dict):
            before = dict(held)
            self._undo.append(lambda: _refill(held, list(before.items())))
            yield from before.values()
        slots = {name: _slot(value, name) for name in _slots(type(value))}
        if slots:
            self._undo.append(lambda: _put_slots(value, slots))
            yield from slots.values()


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        named = base.__dict__.get("__slots__", ())
        for name in (named,) if isinstance(named, str) else named:
            if name not in ("__weakref__", "__dict__"):
                yield f"_{base.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name


def _slot(value: Any, name: str) -> Any:
    return getattr(value, name, _ABSENT)


def _put_slots(value: Any, slots: dict[str, Any]) -> None:
    for name, before in slots.items():
        now = _slot(value, name)
        if now is not before:
            if before is _ABSENT:
                object.__delattr__(value, name)
            else:
                object.__setattr__(value, name, before)


def _items(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return OrderedDict.items(value) if isinstance(value, OrderedDict) else dict.items(value)


def _refill(value: Any, copy: list[Any]) -> None:
    """Make a container what it was, whatever else its class would do."""
    now = list(_items(value))
    if len(now) == len(copy) and all(_same(a, b) for a, b in zip(now, copy, strict=True)):
        return
    base: Any = next(kind for kind in (OrderedDict, *_CONTAINERS) if isinstance(value, kind))
    base.clear(value)
    if isinstance(value, dict):
        for name, x in copy:
            base.__setitem__(value, name, x)
    elif isinstance(value, set):
        set.update(value, copy)
    else:
        base.extend(value, copy)


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is tuple and type(b) is tuple and len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True)))


# ---- descriptions -----------------------------------------------------------------------------------------------------


class Elements(NamedTuple):
    """A tensor or array.   wanted: whether it is a leaf that requires grad."""

    dtype: str
    shape: tuple[int, ...]
    wanted: bool
    kind: Any
    data: bytes


def described(**roots: Any) -> dict[str, str | Elements]:
    """What can be seen of values, by path: plain values, the elements of tensors and arrays, lengths."""
    found: dict[str, Any] = {}
    seen: set[int] = set()  # but tensors: whether two are one object is not to be seen
    stack = [("generator", default_generator.state), *reversed(roots.items())]
    while stack:
        path, value = stack.pop()
        if isinstance(value, _PLAIN):
            found[path] = repr(value)
        elif isinstance(value, _OPAQUE) or (id(value) in seen and not isinstance(value, _LEAVES)) or len(found) > MOST_OBJECTS:
            continue
        else:
            seen.add(id(value))
            stack.extend(reversed(list(_seen_inside(path, value, found))))
    return found


def _seen_inside(path: str, value: Any, found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor):
        array = value.detach()._array
        wanted = value.is_leaf and value.requires_grad
        found[path] = Elements(value.dtype.short, tuple(array.shape), wanted, array.dtype, _bytes(array))
        yield f"{path}.grad", value._grad
    elif isinstance(value, np.ndarray):
        found[path] = Elements(value.dtype.name, value.shape, False, value.dtype, _bytes(value))
    elif isinstance(value, MethodType):
        yield f"{path}.__self__", value.__self__
    elif isinstance(value, FunctionType):
        if (value.__module__ or "").partition(".")[0] != "graphc":
            yield from ((name, x) for _, name, x in named_values(value))
    elif isinstance(value, list | tuple | deque):
        found[path] = f"{len(value)} items"
        yield from ((f"{path}[{i}]", x) for i, x in enumerate(value))
    elif isinstance(value, dict):
        found[path] = f"{len(value)} items"
        yield from ((f"{path}[{_key(name, i)}]", x) for i, (name, x) in enumerate(_items(value)))
    elif isinstance(value, set | frozenset):
        found[path] = repr(sorted(map(repr, value))) if all(isinstance(x, _PLAIN) for x in value) else f"{len(value)} items"
    elif hasattr(value, "_modules") and hasattr(value, "named_parameters"):
        held = {k: x for k, x in value.__dict__.items() if not k.startswith("_")}
        for place in ("_parameters", "_buffers", "_modules", "_attributes"):
            held.update(_items(value.__dict__.get(place, {})))
        yield from ((f"{path}.{name}", x) for name, x in sorted(held.items(), key=lambda item: str(item[0])))
    elif hasattr(value, "param_groups"):
        yield from ((f"{path}.{name}", getattr(value, name)) for name in ("param_groups", "state"))
    elif not isinstance(value, Storage | Node) and (type(value).__module__ or "").partition(".")[0] != "graphc":
        held = getattr(value, "__dict__", {})
        yield from ((f"{path}.{name}", x) for name, x in held.items())
    elif hasattr(value, "state_dict"):
        yield f"{path}.state_dict()", value.state_dict()


def _key(name: Any, place: int) -> str:
    return repr(name) if isinstance(name, _PLAIN) else f"key {place}"


def _bytes(array: Any) -> bytes:
    """The elements; every NaN counts as one and the same."""
    if array.dtype.kind in "biuO":
        return bytes(array.tobytes()) if array.dtype != object else b""
    array = np.array(array, order="C")
    array[np.isnan(array)] = np.nan
    return bytes(array.tobytes())


__all__ = ["Elements", "World", "described"]
