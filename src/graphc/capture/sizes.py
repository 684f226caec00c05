"""Which sizes of arguments a trace leaves open, and what it learnt of them while it ran.

Enters: a `Pattern` of shapes with symbols, questions about them (`graphc.dim_answers`).  Leaves: answers, and the facts that the
traced code relied on.
Never here: tracing, which dims are worth a symbol (graphc.dynamic).

A question is answered from the sizes at hand.  An answer that other sizes might not give becomes a fact, which every call's sizes
must agree with.  Where a size must be a number, or two expressions of different form are equal, no fact is enough: the code has to
be traced again with that size settled, or known to be a multiple of something (`Questions.revised`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from graphc.dim_patterns import LEAST, Fact, Pattern, Shapes, Symbol, settled, settled_tree
from graphc.dim_rules import terms_of
from graphc.dims import Dim, Size, bounds, evaluate, free, split, substitute
from graphc.errors import line_text, user_location
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import TensorType


class Need(NamedTuple):
    """Why a size must be a number, at a line.   equal: because it is that number, which another size might not be."""

    equal: bool
    line: str


class Questions:
    """Who answers for a trace whose arguments have the shapes of a pattern.

    values: of the symbols, in the call that is traced.   facts: what answers relied on.   needed: symbols that must be numbers.
    factors: what symbols must be multiples of.   opened: symbols of no argument.   equals: those that are the same as a
    size that was there before them.
    """

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = dict(values)
        self.facts: dict[tuple[Size, str], Fact] = {}
        self.needed: dict[str, Need] = {}
        self.factors: dict[str, int] = {}
        self.opened: dict[str, None] = {}
        self.equals: dict[str, Size] = {}

    def open(self, name: str, value: int) -> None:
        """A size that no argument has is a symbol too."""
        self.values[name] = value
        self.opened[name] = None

    def revised(self, pattern: Pattern) -> Pattern:
        """The pattern of a trace that asks what this one had to know: settled sizes, and multiples."""

        def place(x: int | Symbol) -> int | Symbol:
            if not isinstance(x, Symbol):
                return x
            if x.name in self.needed:
                return self.values[x.name] * x.factor
            return x._replace(factor=x.factor * self.factors.get(x.name, 1))

        return Pattern([[place(x) for x in shape] for shape in pattern.places])

    def revise(self, revisions: dict[str, Size]) -> None:
        """Note what sizes of no argument must be in the next trace: a multiple of a factor, another size that was there before, 0
        for a number, -1 for a number at every call."""
        for name in self.opened:
            if name in self.needed:
                revisions[name] = 0 if self.needed[name].equal else -1
            elif name in self.factors:
                revisions[name] = self.factors[name] if revisions.get(name, 1) == 1 else 0
            elif name in self.equals:
                revisions[name] = self.equals[name] * revisions.get(name, 1)

    @property
    def must_be_revised(self) -> bool:
        """Whether what was traced is of no use: some of its sizes are numbers."""
        return bool(self.needed or self.factors or self.equals)

    def knows(self, size: Size) -> bool:
        """Whether it is made of this trace's symbols."""
        return free(size) <= self.values.keys()

    def is_positive(self, size: Size) -> bool:
        """Whether it is more than 0; a fact where ranges do not tell."""
        low, high = bounds(size)
        if low is not None and low > 0:
            return True
        if high is not None and high <= 0:
            return False
        positive = evaluate(size, self.values) > 0
        self._note(size, ">" if positive else "<=")
        return positive

    def is_zero(self, size: Size) -> bool:
        """Whether it is 0; if not, a fact where ranges do not tell."""
        low, high = bounds(size)
        if (low is not None and low > 0) or (high is not None and high < 0):
            return False
        if evaluate(size, self.values):
            self._note(size, "!=")
            return False
        self._equal(size)
        return True

    def number(self, size: Size) -> int:
        """What it is now, and no other call's size may be another."""
        self._need(size, False)
        return evaluate(size, self.values)

    def _note(self, size: Size, relation: str) -> None:
        if (size, relation) not in self.facts:
            self.facts[size, relation] = Fact(size, relation, line_text(user_location()))

    def _equal(self, size: Size) -> None:
        """`size`, which is not 0 by its form, is 0: what it is the remainder of is a multiple, or its symbols are numbers."""
        if free(size) & (self.factors.keys() | self.equals.keys()):
            return  # asked again once it is known what is a multiple of what
        divisors = {atom.args[1] for monomial in terms_of(size) for atom in monomial if atom.kind in ("//", "%")}
        for name in free(size):
            for divisor in divisors:
                if type(divisor) is int and _is_nothing(substitute(size, {name: Dim.symbol(name, 1) * divisor})):
                    self.factors[name] = divisor
                    return
        order = list(self.opened)
        for name in sorted(free(size) & self.opened.keys(), key=order.index, reverse=True)[:1]:  # the one opened last
            coefficient, rest = split(size, name) or (0, 0)
            if type(rest) is Dim and type(coefficient) is int and abs(coefficient) == 1:
                self.equals[name] = rest * -coefficient
                return
        self._need(size, True)

    def _need(self, size: Size, equal: bool) -> None:
        for name in sorted(free(size)):
            found = self.needed.get(name)
            if found is None or (found.equal and not equal):
                self.needed[name] = Need(equal, line_text(user_location()))


def _is_nothing(size: Size) -> bool:
    return type(size) is int and size == 0


def settled_graph(graph: Graph, values: Mapping[str, int]) -> Graph:
    """The same graph for the sizes of one call."""
    new: dict[Value, Value] = {}

    def type_of(value: Value) -> TensorType:
        return TensorType(value.dtype, settled(value.shape, values))

    for value in graph.inputs:
        new[value] = Value(type_of(value), None, value.name, value.role)
    nodes = []
    for node in graph.nodes:
        attrs = {name: settled(attribute, values) for name, attribute in node.attrs.items()}
        copy = Node(node.op, tuple(new[v] for v in node.inputs), attrs, [type_of(v) for v in node.outputs], node.location)
        new.update(zip(node.outputs, copy.outputs, strict=True))
        nodes.append(copy)
    inputs, outputs = (tuple(new[v] for v in side) for side in (graph.inputs, graph.outputs))
    return Graph(graph.name, inputs, tuple(nodes), outputs, tuple((new[a], new[b]) for a, b in graph.updates))


__all__ = ["LEAST", "Fact", "Pattern", "Questions", "Shapes", "Symbol", "settled", "settled_graph", "settled_tree"]
