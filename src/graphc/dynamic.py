"""Which sizes of a compiled function's arguments are symbols, and which calls one program of symbolic sizes serves.

Enters: the shapes of calls.  Leaves: the `Pattern` to trace next, and the variants that serve a call.
Never here: tracing and compilation (compiled.py), what an answer about a size means (`capture.sizes`).

A dim that is seen with a second size is a symbol from then on.  Equal sizes of one call share a symbol.  Sizes 0 and 1 are numbers.
What the code needs as a number (an index, a loop, text) stays a number, and every size of it is a variant of its own, as is every
call of a function that symbols do not get through.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from graphc.capture.sizes import LEAST, Pattern, Questions, Symbol
from graphc.eager.epoch import may_return
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import canonical_dim
from graphc.paths import Chosen, Paths
from graphc.variant import Variant

Shape = tuple[int, ...]
Axis = tuple[int, int]  # an argument tensor's position, a dim
MOST_REVISIONS = 8  # traces of one call
MOST_EQUAL = 4  # times that a dim had to be a number because it was equal to one, after which it is always a number
MOST_PATTERNS = 32  # of calls of one kind: each branch on a size makes one
NOTED = "_dynamic_dims"  # what `mark_dynamic` writes on a tensor: a `Dim` by dim


class Dim:
    """A named size that one program serves from `min` to `max`: ``Dim("batch", 1, 512)``, for `mark_dynamic`.

    Sizes 0 and 1, and those out of the range, have programs of their own.  Raises ValueError for an empty range or a name that is
    no identifier.
    """

    def __init__(self, name: str, min: int | None = None, max: int | None = None) -> None:
        if not isinstance(name, str) or not (name.isidentifier() or not name):
            raise ValueError(at_user_line(f"Dim: the name must be an identifier, got {name!r}"))
        least = LEAST if min is None else min
        if least < 0 or (max is not None and max < least):
            raise ValueError(at_user_line(f"Dim: there is no size from {least} to {max}"))
        self.name, self.min, self.max, self.required = name, least, max, True

    def __repr__(self) -> str:
        return f"graphc.Dim({self.name!r}, {self.min}, {self.max})"


def mark_dynamic(t: Tensor, index: Any, dim: Dim | None = None, *, min: int | None = None, max: int | None = None) -> None:
    """Have compiled code that is called with `t` leave its sizes at dims `index` (one or several) open, from the first call on.

    dim: its name and range; sizes of one name are equal in every call.   min, max: a range without a name.

    Raises IndexError for a dim that is not there, and the call RuntimeError where the code needs such a size as a number.
    """
    _mark(t, index, dim or Dim("", min, max))


def maybe_mark_dynamic(t: Tensor, index: Any) -> None:
    """As `mark_dynamic`, for sizes that may be numbers where the code needs them."""
    dim = Dim("")
    dim.required = False
    _mark(t, index, dim)


def _mark(t: Tensor, index: Any, dim: Dim) -> None:
    for d in index if isinstance(index, list | tuple | set) else (index,):
        t.__dict__.setdefault(NOTED, {})[canonical_dim("mark_dynamic", d, t.ndim)] = dim


class _Kind:
    """Calls that differ in sizes only.   first: the shapes of the first.   moving: dims that had several sizes.   numbers: dims
    that stay numbers.   equal: how often a dim had to be one because of its size.   served: patterns and their variants."""

    def __init__(self, first: Sequence[Shape]) -> None:
        self.first = tuple(first)
        self.moving: set[Axis] = set()
        self.numbers: set[Axis] = set()
        self.equal: dict[Axis, int] = {}
        self.served: list[tuple[Pattern, Variant]] = []


class Sizes:
    """What one compiled function knows of the sizes of its calls.

    dynamic: True: every size is a symbol at once.  False: none ever is.  None: those that change, and those that are marked.
    """

    def __init__(self, dynamic: bool | None) -> None:
        self.dynamic = dynamic
        self.kinds: dict[Hashable, _Kind] = {}
        self.reasons: list[str] = []  # why sizes are numbers

    def chosen(self, kind: Hashable, leaves: Sequence[Any]) -> Chosen | None:
        """What serves a call with arguments `leaves`, made of a program for all such calls."""
        known = self.kinds.get(kind)
        if known is None:
            return None
        shapes = [x._array.shape for x in leaves]
        for pattern, variant in known.served:
            values = pattern.values(shapes)
            if values is None:
                continue
            chosen = (variant, ()) if variant.paths is None else variant.paths.chosen(list(leaves))
            if chosen is not None and chosen[0].holds(list(leaves)):
                return chosen if variant.paths is not None else (variant.at(values), ())
        return None

    def paths(self, kind: Hashable, pattern: Pattern) -> Paths:
        """The paths of calls of a pattern so far."""
        known = (v.paths for p, v in self.kinds[kind].served if p.places == pattern.places and v.paths is not None)
        return next(known, None) or Paths(pattern)

    def pattern(self, kind: Hashable, leaves: Sequence[Any]) -> Pattern | None:
        """What to trace for a call that no variant serves; None where all sizes are numbers."""
        marked = {(i, d): dim for i, x in enumerate(leaves) for d, dim in _marks(x).items()}
        if self.dynamic is False and not marked:
            return None
        shapes = [x._array.shape for x in leaves]
        known = self.kinds.get(kind)
        if known is None:
            known = self.kinds[kind] = _Kind(shapes)
        for i, (shape, first) in enumerate(zip(shapes, known.first, strict=True)):
            known.moving.update((i, d) for d, (a, b) in enumerate(zip(shape, first, strict=True)) if a != b)
        moving = known.moving if self.dynamic is None else {(i, d) for i, s in enumerate(shapes) for d in range(len(s))}
        wanted = ((moving if self.dynamic is not False else set()) - known.numbers) | marked.keys()
        pattern = _pattern(shapes, wanted, marked)
        return pattern if pattern.symbols else None

    def learn(self, kind: Hashable, pattern: Pattern, questions: Questions, leaves: Sequence[Any]) -> None:
        """A trace of `pattern` needed some sizes as numbers.  Raises RuntimeError for one that is marked."""
        known = self.kinds[kind]
        marked = {(i, d): dim for i, x in enumerate(leaves) for d, dim in _marks(x).items()}
        for i, shape in enumerate(pattern.places):
            for d, symbol in enumerate(shape):
                if not isinstance(symbol, Symbol) or symbol.name not in questions.needed:
                    continue
                needed = questions.needed[symbol.name]
                if (i, d) in marked and marked[i, d].required:
                    raise RuntimeError(
                        f"size {leaves[i]._array.shape[d]} of argument {i}, dim {d}, is marked as dynamic, "
                        f"and the code needs it as one number{needed.line}"
                    )
                known.equal[i, d] = known.equal.get((i, d), 0) + 1
                if not needed.equal or known.equal[i, d] > MOST_EQUAL:
                    known.numbers.add((i, d))
                self.note(f"dim {d} of argument {i} is a number{needed.line}")

    def give_up(self, kind: Hashable, reason: str) -> None:
        """Calls of a kind are traced size by size: symbols did not get through where numbers do."""
        known = self.kinds[kind]
        known.numbers.update((i, d) for i, shape in enumerate(known.first) for d in range(len(shape)))
        self.note(reason)

    def note(self, reason: str) -> None:
        """Keep why a size is a number, once."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    def keep(self, kind: Hashable, pattern: Pattern, variant: Variant) -> None:
        """`variant` serves all calls of the pattern from now on."""
        known = self.kinds[kind]
        others = [(p, v) for p, v in known.served if may_return(v.epoch) and (v.paths is None or v.paths is not variant.paths)]
        known.served = [(pattern, variant), *others[: MOST_PATTERNS - 1]]

    def guards(self) -> list[str]:
        """What the programs of symbolic sizes are good for: ranges, and what the code asked, with its line."""
        return [", ".join(pattern.described()) for _, pattern, _ in self.served()]

    def served(self) -> Iterator[tuple[Any, Pattern, Variant]]:
        """Every kind of calls that has a program of symbolic sizes, and that."""
        for kind, known in self.kinds.items():
            for pattern, variant in known.served:
                yield kind, pattern, variant


def _marks(x: Any) -> Mapping[int, Dim]:
    return x.__dict__.get(NOTED, {})  # type: ignore[no-any-return]


def _pattern(shapes: Sequence[Shape], wanted: set[Axis], marked: Mapping[Axis, Dim]) -> Pattern:
    """Symbols for the dims in `wanted`; one for all that have the same size and the same mark."""
    symbols: dict[tuple[str, int], Symbol] = {}
    named: dict[str, int] = {}

    def place(axis: Axis, size: int) -> int | Symbol:
        dim = marked.get(axis)
        low, high = (LEAST, None) if dim is None else (max(dim.min, LEAST), dim.max)
        if axis not in wanted or size < low or (high is not None and size > high):
            return size
        name = "" if dim is None else dim.name
        if name and named.setdefault(name, size) != size:
            raise RuntimeError(f"the sizes called {name!r} must be equal in one call, got {named[name]} and {size}")
        key = name, size
        if key not in symbols:
            symbols[key] = Symbol(f"dim{len(symbols)}{'_' if name else ''}{name}", low, high)
        return symbols[key]

    return Pattern([[place((i, d), size) for d, size in enumerate(shape)] for i, shape in enumerate(shapes)])
