"""The paths that calls of one key take through code that asks for elements: a tree of questions.

Enters: specialisations, each made for the answers that one call gave.  Leaves: the one that a call's own answers lead to.
Never here: what is asked (`graphc.capture.questions`), tracing of what was not seen yet.

A call runs the programs that give its answers from the first question on.  They write nothing; the specialisation at the end does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from graphc.capture.questions import Call, Fork, Found, Step
from graphc.capture.sizes import Pattern
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line
from graphc.variant import Variant

MOST_ANSWERS = 16  # to one question
MOST_PATHS = 64  # of one key
MOST_SIZES = 256  # of symbols, with which a specialisation is kept
Chosen = tuple[Variant, Sequence[Found]]  # a specialisation, and what was found for the call


class Paths:
    """All paths of one key, or of one pattern of symbolic sizes.   change: why the last call found none.
    numbers: whether sizes that depend on elements are numbers, for symbols did not get through."""

    def __init__(self, pattern: Pattern | None = None) -> None:
        self.pattern = pattern
        self.root: Fork | Variant | None = None
        self.change = ""
        self.numbers = False
        self._at: dict[tuple[Any, ...], Variant] = {}

    def chosen(self, leaves: list[Tensor]) -> Chosen | None:
        """The specialisation for a call; None where its answers were not seen yet, or something else is not as it was."""
        sizes = {} if self.pattern is None else self.pattern.values([x._array.shape for x in leaves])
        if sizes is None:
            return None
        node, call = self.root, Call(leaves, sizes)
        while isinstance(node, Fork):
            step = node.step
            if step.stage is not None:
                change = step.stage.change(leaves)
                if change is not None:
                    self.change = change
                    return None
                call.run(step.stage)
            self.change = f"a value that the code reads{step.line}"
            try:
                node = step.way(call, node.ways)
            except (RuntimeError, IndexError, ValueError):  # of an operator: the code itself is to raise it
                return None
        return None if node is None else (self.at(node, call), call.values)

    def at(self, variant: Variant, call: Call) -> Variant:
        """A specialisation for the sizes of a call."""
        if not call.sizes:
            return variant
        key = (variant, *call.sizes.items())
        found = self._at.get(key)
        if found is None or found.epoch != variant.epoch:
            if len(self._at) >= MOST_SIZES:
                self._at.clear()
            found = self._at[key] = variant.at(dict(call.sizes))
        return found

    def add(self, variant: Variant) -> None:
        """Take in a specialisation.  Raises TraceError where there are too many."""
        stages = [step.stage for step, _ in variant.traced.path if step.stage is not None]
        for stage in stages:
            stage.epoch = variant.epoch  # what the trace itself counted up is no change
        variant.stages = [stage for stage in stages if stage.constants is not None]
        self.root = _grown(self.root, variant.traced.path, variant)
        if sum(1 for _ in self.variants()) > MOST_PATHS:
            raise TraceError(at_user_line(f"what is read into Python leads to more than {MOST_PATHS} paths through the code"))
        variant.paths = self

    def variants(self) -> Iterator[Variant]:
        """All specialisations."""
        stack = [self.root]
        while stack:
            node = stack.pop()
            if isinstance(node, Fork):
                stack.extend(node.ways.values())
            elif node is not None:
                yield node

    def text(self) -> str:
        """The tree, a line for each answer."""
        return "\n".join(["paths by what the code reads:", *_lines(self.root, 1)])


def _lines(node: Fork | Variant | None, depth: int) -> Iterator[str]:
    if isinstance(node, Fork):
        for answer, way in node.ways.items():
            yield f"{'  ' * depth}{answer}{node.step.line}"
            yield from _lines(way, depth + 1)


def _grown(node: Fork | Variant | None, path: Sequence[tuple[Step, str]], variant: Variant) -> Fork | Variant:
    """The tree below `node` with one more path."""
    if not path:
        return variant
    step, answer = path[0]
    if not isinstance(node, Fork) or node.step is not step:
        node = Fork(step)
    before = node.ways.get(answer)
    if before is None and len(node.ways) >= MOST_ANSWERS:
        raise TraceError(at_user_line(f"a value that is read into Python{step.line} was more than {MOST_ANSWERS} different ones"))
    node.ways[answer] = _grown(before, path[1:], variant)
    return node
