"""Operators that are defined by a rule in other operators: their reference, and the gradient through what they are made of.

Enters: a rule in public operators.  Leaves: functions for a declaration.  Never here: any particular operator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dtypes import from_numpy
from graphc.ir.graph import Builder, Graph, Value
from graphc.ir.interp import interpret
from graphc.ir.op import TensorType
from graphc.ops.arguments import rounded
from graphc.ops.arithmetic import add
from graphc.ops.movement import summed_to

Rule = Callable[..., tuple[Any, ...]]


def opened(rule: Rule, types: Sequence[TensorType], attrs: dict[str, Any]) -> Graph:
    """The operators of a rule as a graph."""
    builder = Builder()
    inputs = [Value(t, None, f"x{i}") for i, t in enumerate(types)]
    with builder.running():
        return builder.graph("opened", inputs, rule(*inputs, **attrs))


def interpreted(rule: Rule) -> Callable[..., Any]:
    """The reference that the operators of a rule give."""

    def reference(xp: Any, *arrays: Any, **attrs: Any) -> tuple[Any, ...]:
        graph = opened(rule, [TensorType(from_numpy(a.dtype), tuple(a.shape)) for a in arrays], attrs)
        return interpret(graph, arrays, xp)[0]

    return rounded(reference)


def pulled_back(rule: Rule) -> Callable[..., tuple[Any, ...]]:
    """The gradient through what a rule is made of: its operators run once more, then their own gradients in reverse."""

    def grad(g: Any, out: Any, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        graph = opened(rule, [TensorType(x.dtype, tuple(x.shape)) for x in inputs], attrs)
        values: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))
        for node in graph.nodes:
            made = node.op.run(*(values[v] for v in node.inputs), **node.attrs)
            values.update(zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True))
        gradients: dict[Value, Any] = {}

        def accumulate(value: Value, gradient: Any) -> None:
            if gradient is not None:
                gradient = summed_to(gradient, value.shape)
                gradients[value] = add(gradients[value], gradient) if value in gradients else gradient

        for value, gradient in zip(graph.outputs, g, strict=True):
            accumulate(value, gradient)
        for node in reversed(graph.nodes):
            given = tuple(gradients.get(y) for y in node.outputs)
            if node.op.grad is None or all(d is None for d in given):
                continue
            results = tuple(values[y] for y in node.outputs)
            single = len(results) == 1
            operands = [values[v] for v in node.inputs]
            found = node.op.gradients(given[0] if single else given, results[0] if single else results, operands, node.attrs)
            for value, gradient in zip(node.inputs, found, strict=True):
                accumulate(value, gradient)
        return tuple(gradients.get(value) for value in graph.inputs)

    return grad
