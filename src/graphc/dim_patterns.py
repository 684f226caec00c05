"""Shapes of arguments with symbols in them, and what is known of the symbols: which other shapes one program serves.

Enters: shapes, ranges, facts.  Leaves: `Pattern`s, JSON both ways; values of symbols; shapes and structures with numbers for sizes.
Never here: where facts come from (`capture.sizes`), programs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graphc.dims import Dim, Size, evaluate, free, parse
from graphc.trees import Tree

Shapes = tuple[tuple[Size, ...], ...]
RELATIONS = (">", "<=", "!=")  # of a fact: to 0
LEAST = 2  # sizes 0 and 1 have programs of their own: what is empty, or the same for all, is another computation


class Symbol(NamedTuple):
    """A symbolic size: its name, its range, and what it is a multiple of."""

    name: str
    low: int = LEAST
    high: int | None = None
    factor: int = 1

    def size(self) -> Size:
        """The expression that stands for the size.  Its symbol is a ``factor``-th of it."""
        high = None if self.high is None else self.high // self.factor
        return Dim.symbol(self.name, max(-(-self.low // self.factor), 1), high) * self.factor

    def value(self, size: int) -> int | None:
        """What the symbol is where the size is `size`; None where it cannot be that."""
        if size < self.low or (self.high is not None and size > self.high) or size % self.factor:
            return None
        return size // self.factor


class Fact(NamedTuple):
    """``size relation 0``, and the line whose question it answers."""

    size: Size
    relation: str
    line: str = ""

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether it is so for these values of the symbols."""
        number = evaluate(self.size, values)
        return number > 0 if self.relation == ">" else number <= 0 if self.relation == "<=" else number != 0

    def __str__(self) -> str:
        return f"{self.size} {self.relation} 0{self.line}"


class Pattern:
    """Shapes of arguments with symbols in them.  places: dim by dim, a number or the symbol whose size it is."""

    def __init__(self, places: Sequence[Sequence[int | Symbol]], facts: Sequence[Fact] = ()) -> None:
        self.places = tuple(map(tuple, places))
        self.symbols = {s.name: s for shape in self.places for s in shape if isinstance(s, Symbol)}
        self.facts = tuple(facts)

    def shapes(self) -> Shapes:
        """The arguments' shapes."""
        sizes = {name: symbol.size() for name, symbol in self.symbols.items()}
        return tuple(tuple(sizes[s.name] if isinstance(s, Symbol) else s for s in shape) for shape in self.places)

    def values(self, shapes: Sequence[Sequence[int]]) -> dict[str, int] | None:
        """What the symbols are for these shapes; None where they do not fit, or a fact does not hold."""
        found: dict[str, int] = {}
        for shape, sizes in zip(self.places, shapes, strict=True):
            if len(shape) != len(sizes):
                return None
            for wanted, size in zip(shape, sizes, strict=True):
                if not isinstance(wanted, Symbol):
                    if wanted != size:
                        return None
                    continue
                value = wanted.value(size)
                if value is None or found.setdefault(wanted.name, value) != value:
                    return None
        return found if all(fact.holds(found) for fact in self.facts) else None

    def shapes_of(self, values: Mapping[str, int]) -> list[list[int]]:
        """The arguments' shapes where the symbols are `values`."""
        return [[values[x.name] * x.factor if isinstance(x, Symbol) else x for x in shape] for shape in self.places]

    def broken(self, shapes: Sequence[Sequence[int]]) -> list[Fact]:
        """The facts that do not hold for shapes that fit otherwise."""
        values = Pattern(self.places).values(shapes)
        return [] if values is None else [fact for fact in self.facts if not fact.holds(values)]

    def ranges(self) -> list[str]:
        """What the symbols may be, one a line."""
        sizes = {s: s.name if s.factor == 1 else f"{s.name}*{s.factor}" for s in self.symbols.values()}
        return [f"{s.low} <= {size}{'' if s.high is None else f' <= {s.high}'}" for s, size in sizes.items()]

    def described(self) -> list[str]:
        """Ranges and facts, one a line."""
        return [*self.ranges(), *map(str, self.facts)]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and ints, which `from_json` reads."""
        return {
            "symbols": [list(symbol) for symbol in self.symbols.values()],
            "shapes": [[x.name if isinstance(x, Symbol) else x for x in shape] for shape in self.places],
            "facts": [[str(fact.size), fact.relation, fact.line] for fact in self.facts],
        }

    @classmethod
    def from_json(cls, data: Any) -> Pattern:
        """Raises KeyError, TypeError or ValueError for data that `to_json` did not make."""
        symbols = {symbol.name: symbol for symbol in (_symbol(*parts) for parts in data["symbols"])}
        places = [[symbols[x] if type(x) is str else _least(x, 0) for x in shape] for shape in data["shapes"]]
        known = {name: Dim.symbol(name) for name in symbols}
        facts = [Fact(parse(size, known), relation, str(line)) for size, relation, line in data["facts"]]
        made = cls(places, facts)
        if made.symbols.keys() != symbols.keys():
            raise ValueError("a size stands in no shape")
        if any(fact.relation not in RELATIONS or not free(fact.size) <= symbols.keys() for fact in facts):
            raise ValueError("a fact of sizes that are not there")
        return made


def _symbol(name: Any, low: Any, high: Any, factor: Any) -> Symbol:
    if type(name) is not str or not name.isidentifier():
        raise ValueError(f"{name!r} is no name of a size")
    low = _least(low, 0)
    return Symbol(name, low, None if high is None else _least(high, low), _least(factor, 1))


def _least(x: Any, low: int) -> int:
    if type(x) is not int or x < low:
        raise ValueError(f"{x!r} is no size")
    return x


def settled(value: Any, values: Mapping[str, int]) -> Any:
    """An attribute, a shape or a static part of a result with numbers for sizes; the very same where it has none."""
    if isinstance(value, Dim):
        return evaluate(value, values)
    if isinstance(value, slice):
        return slice(*(settled(x, values) for x in (value.start, value.stop, value.step)))
    if isinstance(value, tuple) and value:
        parts = [settled(x, values) for x in value]
        if all(a is b for a, b in zip(parts, value, strict=True)):
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def settled_tree(tree: Tree, values: Mapping[str, int]) -> Tree:
    """A structure whose static parts are numbers where they were sizes."""
    children = tuple(settled_tree(child, values) for child in tree.children)
    value = settled(tree.value, values) if tree.kind == "static" else tree.value
    return Tree(tree.kind, value, children)


__all__ = ["LEAST", "Fact", "Pattern", "Shapes", "Symbol", "settled", "settled_tree"]
