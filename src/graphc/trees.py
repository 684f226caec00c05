"""Nested arguments and results as flat lists of leaves and a structure.

Enters: tuples, lists, dicts and named tuples of anything.  Leaves: leaves and a `Tree`, hashable, JSON both ways.
Never here: what a leaf is (the caller says).
"""

from __future__ import annotations

import functools
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graphc.dims import Dim, parse

_LITERALS = (bool, int, float, str, type(None))
_classes: dict[type, tuple[Callable[[Any], tuple[Any, Any]], Callable[[Any, Any], Any]]] = {}


def register(cls: type, take: Callable[[Any], tuple[Any, Any]], make: Callable[[Any, Any], Any]) -> None:
    """Make a class a container: ``take(x)`` gives (children, context), ``make(children, context)`` the value again."""
    _classes[cls] = take, make


def children(value: Any) -> list[Any] | None:
    """The children of a value of a registered class; None for another value."""
    return list(_classes[type(value)][0](value)[0]) if type(value) in _classes else None


class Context:
    """What a registered class keeps beside its children: equal where class and context are."""

    __slots__ = ("cls", "value")

    def __init__(self, cls: type, value: Any) -> None:
        self.cls, self.value = cls, value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self.cls is other.cls and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(self.cls)


class Tree:
    """A structure.

    kind: ``leaf``, ``static`` (value: a literal, or a symbolic size, that is part of the structure), ``tuple`` (value: its type if
    that is a kind of tuple, as `Size`; read back as a tuple from JSON), ``list``, ``dict`` (value: its keys), ``ordered`` (of an
    `OrderedDict`; read back as a dict from JSON), ``named`` (value: the named tuple's type; read back as a tuple from JSON, or as
    one of that name and fields), ``class`` (value: the `Context` of a registered class; not in JSON).
    """

    __slots__ = ("_hash", "children", "kind", "value")

    def __init__(self, kind: str, value: Any = None, children: tuple[Tree, ...] = ()) -> None:
        self.kind, self.value, self.children = kind, value, children
        hashed = kind in ("dict", "ordered", "named", "class")
        shown = (type(value).__name__, value) if isinstance(value, _LITERALS) else value if hashed else id(value)
        self._hash = hash((kind, shown, children))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tree) or self._hash != other._hash or self.kind != other.kind or self.children != other.children:
            return False
        if self.kind == "static" and not isinstance(self.value, _LITERALS):
            return self.value is other.value
        return type(self.value) is type(other.value) and (self.value == other.value or self.value is other.value)

    def __repr__(self) -> str:
        if self.kind in ("leaf", "static"):
            return "*" if self.kind == "leaf" else repr(self.value)
        return f"{self.kind}({', '.join(map(repr, self.children))})"

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """The nested value with `leaves` in its leaves' places, in order."""
        return self._build(iter(leaves))

    def _build(self, leaves: Iterator[Any]) -> Any:
        if self.kind == "leaf":
            return next(leaves)
        if self.kind == "static":
            return self.value
        parts = [child._build(leaves) for child in self.children]
        if self.kind in ("dict", "ordered"):
            return (dict if self.kind == "dict" else OrderedDict)(zip(self.value, parts, strict=True))
        if self.kind == "named":
            return self.value(*parts)
        if self.kind == "class":
            return _classes[self.value.cls][1](parts, self.value.value)
        if self.kind == "tuple":
            return tuple(parts) if self.value is None else self.value(parts)
        return parts

    def to_json(self, names: bool = False) -> Any:
        """Raises TypeError where a static value is not a literal, and for a registered class.

        names: those of named tuples, which are tuples otherwise."""
        if self.kind == "class":
            raise TypeError(f"a {self.value.cls.__name__} among the arguments cannot be written to a file")
        if self.kind == "static" and isinstance(self.value, Dim):
            return ["size", str(self.value), []]
        if self.kind == "static" and not isinstance(self.value, _LITERALS):
            raise TypeError(f"a {type(self.value).__name__} among the arguments cannot be written to a file")
        if names and self.kind == "named":
            return ["named", [self.value.__name__, *self.value._fields], [child.to_json(names) for child in self.children]]
        kind = {"named": "tuple", "ordered": "dict"}.get(self.kind, self.kind)
        value = list(self.value) if kind == "dict" else self.value if self.kind == "static" else None
        return [kind, value, [child.to_json(names) for child in self.children]]

    @classmethod
    def from_json(cls, data: Any) -> Tree:
        """Raises ValueError or TypeError for what `to_json` did not make."""
        kind, value, children = data
        if kind == "size":
            return cls("static", parse(value))
        if kind == "named" and len(value) == len(children) + 1:
            return cls(kind, _named(*value), tuple(cls.from_json(c) for c in children))
        if kind not in ("leaf", "static", "tuple", "list", "dict") or (kind == "static" and not isinstance(value, _LITERALS)):
            raise ValueError(f"no such structure: {kind}")
        if kind in ("leaf", "tuple", "list") and value is not None:
            raise ValueError(f"a {kind} with a value")
        return cls(kind, tuple(value) if kind == "dict" else value, tuple(cls.from_json(c) for c in children))


@functools.lru_cache(1024)
def _named(name: str, *fields: str) -> type:
    """A kind of tuple with named fields, of which a file says the names.  Raises ValueError for what is no name."""
    if not name.isidentifier() or len({*fields}) < len(fields) or not all(f.isidentifier() and f[0] != "_" for f in fields):
        raise ValueError(f"no named tuple is called so: {name}, {fields}")
    held: dict[str, Any] = {field: property(operator.itemgetter(i)) for i, field in enumerate(fields)}
    held["__new__"] = lambda cls, *parts: tuple.__new__(cls, parts)
    held["__repr__"] = lambda self: f"{name}({', '.join(f'{f}={x!r}' for f, x in zip(fields, self, strict=True))})"
    return type(name, (tuple,), {"__slots__": (), "_fields": fields, **held})


_LEAF = Tree("leaf")


def flatten(value: Any, is_leaf: Callable[[Any], bool]) -> tuple[list[Any], Tree]:
    """The leaves of `value` in order, and its structure; what is neither a leaf nor a container is static."""
    leaves: list[Any] = []
    return leaves, _flatten(value, is_leaf, leaves)


def _flatten(value: Any, is_leaf: Callable[[Any], bool], leaves: list[Any]) -> Tree:
    if is_leaf(value):
        leaves.append(value)
        return _LEAF
    if type(value) in _classes:
        parts, context = _classes[type(value)][0](value)
        return Tree("class", Context(type(value), context), tuple(_flatten(v, is_leaf, leaves) for v in parts))
    if isinstance(value, tuple):
        children = tuple(_flatten(v, is_leaf, leaves) for v in value)
        if hasattr(value, "_fields"):
            return Tree("named", type(value), children)
        return Tree("tuple", None if type(value) is tuple else type(value), children)
    if isinstance(value, list):
        return Tree("list", None, tuple(_flatten(v, is_leaf, leaves) for v in value))
    if isinstance(value, dict):
        return Tree(
            "ordered" if type(value) is OrderedDict else "dict",
            tuple(value),
            tuple(_flatten(v, is_leaf, leaves) for v in value.values()),
        )
    return Tree("static", value)
