"""Eager is compile of one node: programs of single operators, generic over sizes, made once and kept.

Enters: an operator, arrays, attributes.  Leaves: arrays.  Never here: the tape, NumPy's own kernels, which of the two runs.

Sizes above 1 become symbols, one per distinct size, so one program serves every shape of a kind.  An operator whose
attributes speak of sizes (a normalized shape, a slice) is compiled for its very shapes instead, and so is a large product that
comes again and again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import dims
from graphc.dim_answers import answering
from graphc.dims import Dim
from graphc.dtypes import DType, from_numpy
from graphc.eager.storage import array_address
from graphc.errors import IRError
from graphc.ir.graph import Builder, Graph, Value, attribute_key
from graphc.ir.op import Anchor, Composite, Op, Scalar, TensorType
from graphc.pipeline import build
from graphc.runtime.memory import aligned_empty
from graphc.runtime.program import Program

Key = tuple[Any, ...]


@dataclass(frozen=True)
class _OneNode:
    program: Program
    sizes: tuple[int, ...]  # positions, among the distinct sizes of a call, of the program's size symbols


class _Call:
    """A program and what one kind of call (operator, attributes, input types) passes to it."""

    __slots__ = ("outputs", "program", "runs", "sizes")

    def __init__(self, found: _OneNode, distinct: Sequence[int], types: Sequence[TensorType]) -> None:
        self.program, self.runs = found.program, 0
        self.sizes = [distinct[i] for i in found.sizes]
        self.outputs: list[tuple[Any, Any]] = [(t.shape, t.dtype.numpy) for t in types]


_programs: dict[Key, _OneNode | None] = {}  # None: needs its very shapes
_calls: dict[Key, _Call] = {}
_CALLS_LIMIT = 8192
SPECIALISED_RUNS = 8  # calls with the same sizes, after which nests get a program for just these
SPECIALISED_ELEMENTS = 1 << 14  # of operands and results: with fewer it would not show
SHORT_AXIS = 16
LEAST_PERMUTED = 1024  # elements: NumPy copies fewer in less time than a call takes


def run(op: Op, arrays: Sequence[np.ndarray[Any, Any]], attrs: dict[str, Any], types: Sequence[TensorType]) -> tuple[Any, ...]:
    """Run `op` on NumPy arrays (any layout; made contiguous here) and give fresh arrays of `types`.

    Raises IndexError or RuntimeError where a run-time check fails.
    """
    kind: Key = (op, *attrs, *map(attribute_key, attrs.values())) if attrs else (op,)
    for array in arrays:
        kind += (array.dtype, array.shape)
    call = _calls.get(kind)
    if call is None:
        if len(_calls) >= _CALLS_LIMIT:
            _calls.clear()
        with answering(None):  # of a trace that runs an operator meanwhile
            call = _calls[kind] = bound(op, arrays, attrs, types)
    call.runs += 1
    if call.runs == SPECIALISED_RUNS and call.sizes and _worth_specialising(op, arrays, [shape for shape, _ in call.outputs]):
        with answering(None):
            call = _calls[kind] = bound(op, arrays, attrs, types, specialised=True)
    copies, addresses = [], []
    for array in arrays:
        if not array.flags.c_contiguous:
            array = row_major(array)
            if op.name == "clone":  # this is the copy
                return (array,)
            copies.append(array)
        addresses.append(array_address(array))
    outputs = [aligned_empty(shape, dtype) for shape, dtype in call.outputs]
    try:
        call.program(addresses, [address for _, address in outputs], call.sizes)
    except (IndexError, RuntimeError) as error:
        if not call.sizes:
            raise
        shown = ", ".join(str(TensorType(_dtype(a), a.shape)) for a in arrays)  # the program knows no sizes
        raise type(error)(f"{error}: {shown}") from None
    return tuple([array for array, _ in outputs])


def permuted(array: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], tuple[int, ...]] | None:
    """(a row-major array, dims) that a large array is a permuted view of; None where it is not one."""
    if array.size < LEAST_PERMUTED or not array.flags.aligned:
        return None
    order = sorted(range(array.ndim), key=lambda d: -array.strides[d])
    base = array.transpose(order)
    return (base, tuple(sorted(range(array.ndim), key=order.__getitem__))) if base.flags.c_contiguous else None


def row_major(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A row-major copy: by a kernel in tiles where NumPy would go through memory in steps."""
    found = permuted(array)
    if found is None:
        return np.ascontiguousarray(array)
    base, dims = found
    (copy,) = run(Op.table["permute"], (base,), {"dims": dims}, (TensorType(_dtype(array), array.shape),))
    return copy  # type: ignore[no-any-return]


def _worth_specialising(op: Op, arrays: Sequence[np.ndarray[Any, Any]], shapes: Sequence[tuple[int, ...]]) -> bool:
    """Loops of known sizes need no masks; that shows in nests, which composites may hold, where axes change places, and where
    elements are broadcast along a short last axis, whose loop is then written out.   shapes: of the results."""
    if sum(a.size for a in arrays) + sum(map(math.prod, shapes)) < SPECIALISED_ELEMENTS:
        return False
    short = isinstance(op.lowering, Scalar) and any(1 < shape[-1] <= SHORT_AXIS for shape in shapes if shape)
    broadcast = short and any(a.shape != arrays[0].shape for a in arrays)
    return isinstance(op.lowering, Anchor | Composite) or op.name == "permute" or broadcast


def bound(
    op: Op,
    arrays: Sequence[np.ndarray[Any, Any]],
    attrs: dict[str, Any],
    types: Sequence[TensorType],
    specialised: bool = False,
) -> _Call:
    """The program for a call, made if there is none that serves it.   specialised: one for its very sizes."""
    distinct: list[int] = []
    shapes: list[tuple[int, ...]] = []
    known = () if op.exact is None else op.exact(**attrs)
    for i, array in enumerate(arrays):
        shape = []
        fixed = [array.ndim + d for d in known[i]] if i < len(known) else ()
        for at, size in enumerate(array.shape):
            if size > 1 and at not in fixed:
                if size not in distinct:
                    distinct.append(size)
                shape.append(-1 - distinct.index(size))
            else:
                shape.append(size)
        shapes.append(tuple(shape))
    key: Key = (op, tuple(shapes), tuple(a.dtype for a in arrays), tuple(attribute_key(attrs[n]) for n in op.attrs))
    exact = (*key, tuple(a.shape for a in arrays))
    found = _programs.get(exact)
    if found is None and not specialised:
        if key not in _programs:
            _programs[key] = _generic(op, arrays, shapes, distinct, attrs, types)
        found = _programs[key]
    if found is None:
        found = _programs[exact] = _static(op, arrays, attrs)
    assert isinstance(found, _OneNode)
    return _Call(found, distinct, types)


def one_node(op: Op, types: Sequence[TensorType], attrs: dict[str, Any]) -> Graph:
    """The graph of one application of `op`; of the operators that it is made of where it is in no table."""
    builder = Builder()
    inputs = [Value(t, None, f"x{i}") for i, t in enumerate(types)]
    if Op.table.get(op.name) is op or not isinstance(op.lowering, Composite):
        return builder.graph(op.name, inputs, builder.emit(op, inputs, attrs))
    with builder.running():
        return builder.graph(op.name, inputs, op.lowering.rule(*inputs, **attrs))


def _static(op: Op, arrays: Sequence[np.ndarray[Any, Any]], attrs: dict[str, Any]) -> _OneNode:
    graph = one_node(op, [TensorType(from_numpy(a.dtype), a.shape) for a in arrays], attrs)
    return _OneNode(build(graph).link(), ())


def _generic(
    op: Op,
    arrays: Sequence[np.ndarray[Any, Any]],
    shapes: Sequence[tuple[int, ...]],
    distinct: Sequence[int],
    attrs: dict[str, Any],
    types: Sequence[TensorType],
) -> _OneNode | None:
    """The program over symbolic sizes, or None where the operator's attributes fix the sizes."""
    symbols = [Dim.symbol(f"n{i}", 2) for i in range(len(distinct))]
    symbolic = [
        TensorType(_dtype(a), tuple(symbols[-1 - s] if s < 0 else s for s in shape))
        for a, shape in zip(arrays, shapes, strict=True)
    ]
    try:
        graph = one_node(op, symbolic, attrs)
    except (RuntimeError, IndexError, TypeError, ValueError, IRError):
        return None  # its rule compares sizes with attributes: such a call is compiled for its very shapes
    named = {f"n{i}": size for i, size in enumerate(distinct)}
    for value, wanted in zip(graph.outputs, types, strict=True):
        if value.dtype is not wanted.dtype or tuple(dims.evaluate(d, named) for d in value.shape) != tuple(wanted.shape):
            return None
    program = build(graph).link()
    return _OneNode(program, tuple(int(name[1:]) for name in program.plan.sizes))


def _dtype(array: np.ndarray[Any, Any]) -> DType:
    return from_numpy(array.dtype)
