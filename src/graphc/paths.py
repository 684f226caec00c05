"""The paths that calls of one key take through code that reads tensors into Python: a tree of questions.

Enters: specialisations, each made for the answers that one call gave.  Leaves: the one that a call's own answers lead to.
Never here: what is asked (`graphc.capture.reads`), tracing of what was not seen yet.

A call runs the programs that give its answers from the first question on.  They write nothing; the specialisation at the end does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.capture.reads import Asked
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line
from graphc.variant import Variant

MOST_ANSWERS = 16  # to one question
MOST_PATHS = 64  # of one key


class Fork:
    """A question, and what each answer leads to."""

    __slots__ = ("asked", "ways")

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.ways: dict[str, Fork | Variant] = {}


class Paths:
    """All paths of one key.   change: why the last call found none."""

    def __init__(self) -> None:
        self.root: Fork | Variant | None = None
        self.change = ""

    def chosen(self, leaves: list[Tensor]) -> Variant | None:
        """The specialisation for a call; None where its answers were not seen yet, or something else is not as it was."""
        node = self.root
        found: dict[int, Tensor] = {}
        while isinstance(node, Fork):
            asked = node.asked
            elements = found.get(id(asked.probe))
            if elements is None:
                change = asked.probe.change(leaves)
                if change is not None:
                    self.change = change
                    return None
                elements = found[id(asked.probe)] = asked.probe.run(leaves)
            self.change = f"a value that the code reads{asked.line}"
            node = node.ways.get(repr(asked.of(elements)))
        return node

    def add(self, variant: Variant, leaves: list[Tensor]) -> None:
        """Take in a specialisation.  Raises TraceError where there are too many."""
        for asked in variant.traced.path:
            asked.probe.epoch = variant.epoch  # what the trace itself counted up is no change
        self.root = _grown(self.root, variant.traced.path, variant, leaves)
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
            yield f"{'  ' * depth}{answer}{node.asked.line}"
            yield from _lines(way, depth + 1)


def _grown(node: Fork | Variant | None, path: Sequence[Asked], variant: Variant, leaves: list[Tensor]) -> Fork | Variant:
    """The tree below `node` with one more path."""
    if not path:
        return variant
    asked = path[0]
    if not (isinstance(node, Fork) and node.asked.is_like(asked) and node.asked.probe.holds(leaves)):
        node = Fork(asked)
    before = node.ways.get(asked.key)
    if before is None and len(node.ways) >= MOST_ANSWERS:
        raise TraceError(at_user_line(f"a value that is read into Python{asked.line} was more than {MOST_ANSWERS} different ones"))
    node.ways[asked.key] = _grown(before, path[1:], variant, leaves)
    return node
