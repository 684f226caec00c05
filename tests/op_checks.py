"""What every operator must satisfy, one function a property; each raises AssertionError naming what is wrong.

An operator's samples become one traced graph with an input for each `Fill`, so that each property costs one compilation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import graphc
from graph_cases import (
    Array,
    assert_close,
    assert_same_bits,
    parse_graph,
    print_graph,
    run_compiled,
    run_interpreted,
    special_values,
)
from graphc.dtypes import DType, bool_, float64, from_numpy
from graphc.ir.graph import Builder, Graph, Node, Value, rewrite
from graphc.ir.op import THROUGH, Bad, Composite, Fill, Host, Op, Region, Sample, TensorType
from graphc.ops.declare import NARROW, Shorthand
from graphc.ops.movement import summed_to
from graphc.passes.decompose import decompose

# ---- samples as arrays and graphs -----------------------------------------------------------------------------------


def filled(fill: Fill, dtype: DType, rng: np.random.Generator) -> Array:
    """The array that a `Fill` describes for the dtype under test."""
    dtype = fill.dtype or dtype
    if dtype is bool_:
        return rng.integers(0, 2, fill.shape).astype(bool)
    if dtype.kind in "iu":
        low = max(int(np.ceil(fill.low)), int(np.iinfo(dtype.numpy).min))
        values = rng.integers(low, max(int(np.ceil(fill.high)), low + 1), fill.shape).astype(dtype.numpy)
    elif dtype.kind == "c":
        parts = [rng.uniform(fill.low, fill.high, fill.shape) for _ in range(2)]
        values = (parts[0] + 1j * parts[1]).astype(dtype.numpy)
    else:
        values = rng.uniform(fill.low, fill.high, fill.shape).astype(dtype.compute.numpy).astype(dtype.numpy)
    if fill.special and dtype.kind == "f":
        edges = special_values(dtype)
        values = np.where(rng.integers(0, 2, fill.shape) == 0, edges[rng.integers(0, len(edges), fill.shape)], values)
    return np.asarray(values, dtype.numpy)


def mapped(value: Any, change: Callable[[Fill], Any]) -> Any:
    """`value` with every `Fill` in it changed, through tuples, lists and dicts."""
    if isinstance(value, Fill):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(mapped(v, change) for v in value)
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    return value


def fills(value: Any) -> Iterator[Fill]:
    """Every `Fill` in a sample's arguments, in order."""
    found: list[Fill] = []
    mapped(value, found.append)
    yield from found


def flat(outputs: Any) -> list[Any]:
    """One output, or the members of nested tuples of them."""
    if isinstance(outputs, tuple | list):
        return [y for member in outputs for y in flat(member)]
    return [outputs]


@dataclass
class Traced:
    """Samples of an operator as one graph.  `outputs[k]`: the values that sample k gave.  `fills`: one an input."""

    graph: Graph
    arrays: list[Array]
    fills: list[Fill]
    outputs: list[list[Value]]
    references: list[list[Array] | None] = field(default_factory=list)

    def expected(self) -> list[Array]:
        """What the references give: the operator's own where it is a shorthand, else those of the graph's nodes."""
        interpreted = iter(run_interpreted(self.graph, self.arrays))
        expected: list[Array] = []
        for outputs, reference in zip(self.outputs, self.references, strict=True):
            from_graph = [next(interpreted) for _ in outputs]
            expected += from_graph if reference is None else reference
        return expected


def traced(op: Op, samples: Sequence[Sample], dtype: DType) -> Traced:
    """The samples' calls as one graph, with arrays for its inputs from a fixed seed."""
    rng = np.random.default_rng(11)
    builder = Builder()
    made = Traced(Graph(op.name, (), (), ()), [], [], [])
    inputs: list[Value] = []

    def value_of(fill: Fill) -> Value:
        array = filled(fill, dtype, rng)
        inputs.append(Value(TensorType(from_numpy(array.dtype), fill.shape), name=f"x{len(inputs)}"))
        made.arrays.append(array)
        made.fills.append(fill)
        return inputs[-1]

    with builder.running():
        for sample in samples:
            args, kwargs = mapped(sample.args, value_of), mapped(sample.kwargs, value_of)
            made.outputs.append(flat(op(*args, **kwargs)))
            made.references.append(_own_reference(op, args, kwargs, inputs, made.arrays))
    made.graph = builder.graph(op.name, inputs, [y for outputs in made.outputs for y in outputs])
    return made


def _own_reference(op: Op, args: Any, kwargs: Any, inputs: Sequence[Value], arrays: Sequence[Array]) -> list[Array] | None:
    """A shorthand's own reference on its arguments.  Others stand in the graph, where the interpreter runs theirs."""
    if not isinstance(op, Shorthand) or op.reference is None:
        return None
    builder = Builder()
    with builder.running():
        operands, attrs = op.prepare(*args, **kwargs)
    operand_arrays = run_interpreted(builder.graph("operands", inputs, operands), arrays)
    with np.errstate(all="ignore"):
        return [np.asarray(a) for a in flat(op.reference(np, *operand_arrays, **attrs))]


# ---- the properties -------------------------------------------------------------------------------------------------


def check_fields(op: Op) -> None:
    """Every field of the declaration is there, or declared absent."""
    assert op.doc.strip(), f"{op.name}: no doc"
    assert op.signature.startswith("("), f"{op.name}: no signature"
    if isinstance(op.lowering, Region):
        return  # its arguments are graphs: test_regions.py
    assert op.samples, f"{op.name}: no samples"
    assert op.bad, f"{op.name}: no bad calls"
    assert op.dtypes, f"{op.name}: no dtypes"
    assert op.grad is None or op.grad is THROUGH or callable(op.grad), f"{op.name}: no gradient, not declared None"
    assert op.grad is not THROUGH or isinstance(op.lowering, Composite), f"{op.name}: only a composite has THROUGH"


def check_types(op: Op, dtype: DType) -> None:
    """The type rule states what the reference gives: dtype and shape of every node's results."""
    made = traced(op, op.samples, dtype)
    values: dict[Value, Array] = dict(zip(made.graph.inputs, made.arrays, strict=True))
    for node in made.graph.nodes:
        with np.errstate(all="ignore"):
            results = node.op.reference(np, *(values[v] for v in node.inputs), **node.attrs)
        for value, array in zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=True):
            values[value] = np.asarray(array)
            got = f"{from_numpy(values[value].dtype).short}{list(values[value].shape)}"
            assert got == str(value.type), f"{node.op.name}: the reference gives {got}, infer states {value.type}"
    for outputs, reference in zip(made.outputs, made.references, strict=True):
        for value, array in zip(outputs, reference or (), strict=reference is not None):
            got = f"{from_numpy(array.dtype).short}{list(array.shape)}"
            assert got == str(value.type), f"{op.name}: the reference gives {got}, its rule {value.type}"


def check_decomposition(op: Op, dtype: DType) -> None:
    """The operators that a composite or shorthand opens into give what its reference gives."""
    made = traced(op, op.samples, dtype)
    opened = run_interpreted(decompose(made.graph), made.arrays)
    for k, (got, wanted) in enumerate(zip(opened, made.expected(), strict=True)):
        assert_close(got, wanted, f"{op.name}: result {k} of the decomposition", scale=4.0)


def check_text(op: Op, dtype: DType) -> None:
    """The traced graph returns from its text, verified."""
    text = print_graph(traced(op, op.samples, dtype).graph)
    assert print_graph(parse_graph(text)) == text


def check_compiled(op: Op, dtype: DType, samples: Sequence[Sample] | None = None) -> None:
    """Native code gives what the references give: floats nearly, everything else exactly.  Eager calls give its bits.

    What a program computes depends on the dtype, how it is come to on shapes and attributes.  So the first dtypes have all samples
    and the others every third one; eager calls, all of the operator's first dtype and one, another one for each, of the others.
    """
    k = op.dtypes.index(dtype)
    if samples is None:
        samples = op.samples if k < 2 or len(op.samples) < 3 else op.samples[k % 3 :: 3]
    made = traced(op, samples, dtype)
    results = run_compiled(made.graph, made.arrays, use_cache=True)
    compiled, wanted, arrays = iter(results), iter(made.expected()), iter(made.arrays)
    called = range(len(samples)) if k == 0 or dtype in NARROW else [k % len(samples)]
    for number, (sample, outputs) in enumerate(zip(samples, made.outputs, strict=True)):
        args, kwargs = (mapped(part, lambda _: graphc.from_numpy(next(arrays).copy())) for part in (sample.args, sample.kwargs))
        of_sample = [next(compiled) for _ in outputs]
        call = f"{op.name}{sample.args}{sample.kwargs or ''}"
        for result in of_sample:
            assert_close(result, next(wanted), call)
        if number in called:
            got = [np.asarray(y.numpy_view()) for y in flat(op(*args, **kwargs))]
            assert_same_bits(got, of_sample, f"{call}, eager against compiled")


# shorthands of operators whose results are sized by elements
_SIZED = frozenset({"argwhere", "masked_select", "nonzero"})


def is_sized_by_data(op: Op) -> bool:
    """Whether the shapes of results depend on elements, so that no graph can hold the operator."""
    return op.name in _SIZED or isinstance(op.lowering, Host) and op.lowering.sized_by_data


def check_sized(op: Op, dtype: DType) -> None:
    """Eager calls of an operator that no graph can hold give what its reference gives."""
    rng = np.random.default_rng(11)
    for sample in op.samples:
        args, kwargs = (mapped(p, lambda f: graphc.from_numpy(filled(f, dtype, rng))) for p in (sample.args, sample.kwargs))
        inputs, attrs = op.prepare(*args, **kwargs)
        wanted = flat(op.reference(np, *(x.numpy_view() for x in inputs), **attrs))
        for got, array in zip(flat(op(*args, **kwargs)), wanted, strict=True):
            assert_close(np.asarray(got.numpy_view()), np.asarray(array), f"{op.name}{sample.args}{sample.kwargs or ''}")


def check_sized_bad(op: Op, bad: Bad) -> None:
    """A wrong eager call fails with its class and message."""
    rng = np.random.default_rng(11)
    args, kwargs = (mapped(p, lambda f: graphc.from_numpy(filled(f, op.dtypes[0], rng))) for p in (bad.args, bad.kwargs))
    with pytest.raises(bad.error, match=bad.match):
        op(*args, **kwargs)


def check_bad(op: Op, bad: Bad) -> None:
    """A wrong call fails with its class and message: when it is traced, or when native code runs."""
    what = f"{op.name}{bad.args}{bad.kwargs or ''}"
    caught: Exception | None = None
    try:
        made = traced(op, [Sample(bad.args, bad.kwargs)], op.dtypes[0])
        run_compiled(made.graph, made.arrays, use_cache=True)
    except Exception as error:
        caught = error
    shown = "nothing" if caught is None else type(caught).__name__
    assert isinstance(caught, bad.error), f"{what} raises {shown}, not {bad.error.__name__}"
    assert re.search(bad.match, str(caught)), f"{what}: the message is {str(caught)!r}, not {bad.match!r}"


# ---- gradients ------------------------------------------------------------------------------------------------------


def differentiate(graph: Graph, weights: Sequence[Value | None], wanted: Sequence[Value]) -> list[Value | None]:
    """Gradients of the weighted sum of a graph's outputs, emitted into the running builder.

    The operators' own rules, walked from the last node to the first; sums over broadcast dims as the tape makes them.
    """
    add = Op.table["add"].run
    gradients: dict[Value, Value] = {}
    needs = _depending(graph, wanted)

    def accumulate(value: Value, gradient: Value) -> None:
        gradient = summed_to(gradient, value.shape)
        if (gradient.dtype.kind == "c") != (value.dtype.kind == "c"):
            gradient = Op.table["cast"].run(gradient, dtype=value.dtype)
        assert gradient.dtype is value.dtype, f"a gradient of {gradient.type} for {value.type}"
        gradients[value] = add(gradients[value], gradient) if value in gradients else gradient

    for value, weight in zip(graph.outputs, weights, strict=True):
        if weight is not None:
            accumulate(value, weight)
    for node in reversed(graph.nodes):
        given = [gradients.get(y) for y in node.outputs]
        if node.op.grad is None or all(g is None for g in given) or not needs.intersection(node.inputs):
            continue
        single = len(given) == 1
        g, out = (given[0], node.outputs[0]) if single else (tuple(given), node.outputs)
        found = node.op.gradients(g, out, node.inputs, node.attrs)
        assert len(found) == len(node.inputs), f"{node.op.name}: {len(found)} gradients for {len(node.inputs)} inputs"
        for value, gradient in zip(node.inputs, found, strict=True):
            if gradient is not None and value in needs:
                accumulate(value, gradient)
    return [gradients.get(value) for value in wanted]


def _depending(graph: Graph, wanted: Sequence[Value]) -> set[Value]:
    """`wanted` and every value computed from them that is floating."""
    found = set(wanted)
    for node in graph.nodes:
        if found.intersection(node.inputs):
            found.update(y for y in node.outputs if y.dtype.kind in "fc")
    return found


def with_gradients(graph: Graph, wanted: Sequence[Value], seed: int) -> Graph:
    """The graph of d(sum of weight * output)/d(wanted), with random constant weights; zeros where nothing depends."""
    rng = np.random.default_rng(seed)
    through = {op.name: (_opened,) for op in Op.table.values() if op.grad is THROUGH}
    graph = rewrite(graph, through)
    builder = Builder()
    with builder.running():
        emitted = _emitted(graph, builder)
        outputs = [emitted[v] for v in graph.outputs]
        inner = Graph(graph.name, graph.inputs, tuple(builder.nodes), tuple(outputs))
        weights = [_weight(y, rng) if y.dtype.kind in "fc" else None for y in outputs]
        found = differentiate(inner, weights, wanted)
        zero = Op.table["full"].run
        gradients = [zero(value=0.0, shape=v.shape, dtype=v.dtype) if g is None else g for v, g in zip(wanted, found, strict=True)]
    return builder.graph(graph.name, graph.inputs, gradients)


def _opened(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value]:
    assert isinstance(op.lowering, Composite)
    return flat(op.lowering.rule(*inputs, **attrs))


def _emitted(graph: Graph, builder: Builder) -> dict[Value, Value]:
    new: dict[Value, Value] = {v: v for v in graph.inputs}
    for node in graph.nodes:
        new.update(zip(node.outputs, builder.emit(node.op, [new[v] for v in node.inputs], node.attrs), strict=True))
    return new


def _weight(y: Value, rng: np.random.Generator) -> Value:
    """Different weights for different elements, of a pattern that a graph can make without inputs."""
    size = int(np.prod([int(d) for d in y.shape])) if y.shape else 1  # type: ignore[arg-type]
    run = {name: Op.table[name].run for name in ("iota", "mul", "cos", "full", "reshape")}
    phase = run["full"](value=float(rng.uniform(1, 2)), shape=(), dtype=y.dtype)
    wave = run["cos"](run["mul"](run["iota"](size=size, dtype=y.dtype), phase))
    if y.dtype.kind == "c":
        wave = run["mul"](wave, run["full"](value=1.0 - 0.7j, shape=(), dtype=y.dtype))
    result: Value = run["reshape"](wave, shape=y.shape)
    return result


def check_gradient(op: Op, sample: Sample, order: int = 1, dtype: DType = float64) -> None:
    """The gradient rule (of the gradient rule) against central differences of the references, in float64 or complex128.

    The loss is the real part of the sum of conj(weight) * output.
    """
    made = traced(op, [sample], dtype)
    wanted = [
        v
        for v, fill, array in zip(made.graph.inputs, made.fills, made.arrays, strict=True)
        if fill.grad and v.dtype is dtype and not fill.special and array.size
    ]
    if not wanted or not any(y.dtype.kind in "fc" for y in made.graph.outputs):
        return
    forward = made.graph
    for seed in range(order - 1):
        forward = with_gradients(forward, wanted, seed)
    backward = with_gradients(forward, wanted, order)
    gradients = run_interpreted(backward, made.arrays)
    weights = _weights_of(forward, order)
    is_narrow = any(y.dtype.kind == "f" and y.dtype is not float64 for y in forward.outputs)
    step, tolerance = (1e-2, 1e-3) if is_narrow else (1e-5, 2e-5)  # what rounds to float32 needs larger steps
    for k, (value, gradient) in enumerate(zip(wanted, gradients, strict=True)):
        assert np.isfinite(gradient).all(), f"{op.name}{sample.args}: the gradient of input {k} is not finite"
        position = made.graph.inputs.index(value)
        for direction in range(2):
            numeric, exact = _slopes(forward, made.arrays, position, gradient, weights, direction, step)
            assert abs(numeric - exact) <= tolerance * max(1.0, abs(numeric), abs(exact)), (
                f"{op.name}{sample.args}{sample.kwargs or ''}: order {order} gradient of input {k} is {exact:.9g} "
                f"along a direction in which differences give {numeric:.9g}"
            )


def _weights_of(graph: Graph, seed: int) -> list[Array | None]:
    """The weights that `with_gradients` gave the outputs, as arrays."""
    rng = np.random.default_rng(seed)
    builder = Builder()
    with builder.running():
        made = [_weight(y, rng) if y.dtype.kind in "fc" else None for y in graph.outputs]
    arrays = iter(run_interpreted(builder.graph("weights", (), [w for w in made if w is not None]), []))
    return [None if w is None else next(arrays) for w in made]


def _slopes(
    graph: Graph,
    arrays: Sequence[Array],
    position: int,
    gradient: Array,
    weights: Sequence[Array | None],
    seed: int,
    step: float,
) -> tuple[float, float]:
    """The weighted sum's slope along a random direction of one input: by differences, and by the gradient."""
    ways = [-1.0, 1.0] if gradient.dtype.kind == "f" else [1.0 + 1.0j, -1.0 + 1.0j, 1.0 - 1.0j, -1.0 - 1.0j]
    direction = np.random.default_rng((seed, position)).choice(ways, gradient.shape)
    sums = []
    for sign in (1.0, -1.0):
        moved = list(arrays)
        moved[position] = arrays[position] + sign * step * direction
        outputs = run_interpreted(graph, moved)
        sums.append(sum(float((w.conj() * y).sum().real) for w, y in zip(weights, outputs, strict=True) if w is not None))
    return (sums[0] - sums[1]) / (2 * step), float((gradient.conj() * direction).sum().real)


def nodes_of(graph: Graph, op: Op) -> list[Node]:
    """The nodes of an operator."""
    return [n for n in graph.nodes if n.op is op]
