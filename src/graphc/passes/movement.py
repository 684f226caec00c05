"""Movement in its simplest form: no identity moves, one move instead of two, none of a constant.

Enters: movement and cast operators on final operands.  Leaves: fewer of them.
Never here: moving through other operators (`hoist_reshape`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.dtypes import DType, float32
from graphc.ir.graph import Builder, Node, Rule, Value
from graphc.ir.op import Op, Shape
from graphc.passes.fold import constant_of, full

# The dtype's own precision and the exponents it holds, as (significand bits, range rank).
_FLOAT_BITS = {"f16": (11, 0), "bf16": (8, 1), "f32": (24, 1), "f64": (53, 2)}


def movement_rules() -> dict[str, tuple[Rule, ...]]:
    """Operator name -> rules, tried in order."""
    return {
        "reshape": (_of_constant, _reshape),
        "permute": (_of_constant, _permute),
        "expand": (_of_constant, _expand),
        "squeeze": (_to_reshape,),
        "unsqueeze": (_to_reshape,),
        "flip": (_of_constant, _flip),
        "slice": (_of_constant, _slice),
        "cast": (_cast,),
    }


def _made_by(value: Value, name: str) -> Node | None:
    """The node that made `value`, if it is of that operator."""
    return value.node if value.node is not None and value.node.op.name == name else None


def _of_constant(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
    """``expand(full(1.0, []), [3])`` --> ``full(1.0, [3])``."""
    number = constant_of(inputs[0])
    if number is None:
        return None
    (out,) = op.infer_types([inputs[0].type], attrs)
    return (full(builder, number, out.shape, out.dtype),)


def reshaped(builder: Builder, x: Value, shape: Shape) -> Value:
    """`x` in `shape`, by the rules below."""
    return x if x.shape == shape else builder.emit(Op.table["reshape"], (x,), {"shape": shape})[0]


def _reshape(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
    """``reshape(reshape(x))`` --> ``reshape(x)``; ``reshape(x, x.shape)`` --> ``x``."""
    (x,) = inputs
    (out,) = op.infer_types([x.type], attrs)
    if out.shape == x.shape:
        return inputs
    inner = _made_by(x, "reshape")
    return None if inner is None else (reshaped(builder, inner.inputs[0], out.shape),)


def _to_reshape(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value]:
    """``squeeze(x)``, ``unsqueeze(x)`` --> ``reshape(x)``."""
    (out,) = op.infer_types([inputs[0].type], attrs)
    return (reshaped(builder, inputs[0], out.shape),)


def _permute(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
    """Two permutations --> their product; none at all --> x; one that moves only dims of size 1 --> ``reshape(x)``."""
    (x,), order = inputs, attrs["dims"]
    if all(k == d for k, d in enumerate(order)):
        return inputs
    inner = _made_by(x, "permute")
    if inner is not None:
        product = tuple(inner.attrs["dims"][d] for d in order)
        return builder.emit(op, inner.inputs, {"dims": product})
    walked = [d for d in order if x.shape[d] != 1]
    if walked == sorted(walked):
        return (reshaped(builder, x, tuple(x.shape[d] for d in order)),)
    return None


def _expand(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
    """``expand(expand(x))`` --> ``expand(x)``; to the same shape --> ``x``; by dims of size 1 --> ``reshape(x)``."""
    (x,) = inputs
    (out,) = op.infer_types([x.type], attrs)
    inner = _made_by(x, "expand")
    if inner is not None:
        return builder.emit(op, inner.inputs, {"shape": out.shape})
    if out.shape[out.rank - x.ndim :] == x.shape and all(s == 1 for s in out.shape[: out.rank - x.ndim]):
        return (reshaped(builder, x, out.shape),)
    return None


def _flip(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
    """Dims flipped twice are not flipped, nor are dims of size 1."""
    (x,) = inputs
    dims = tuple(d for d in attrs["dims"] if x.shape[d] != 1)
    if not dims:
        return inputs
    inner = _made_by(x, "flip")
    if inner is not None:
        return builder.emit(op, inner.inputs, {"dims": tuple(sorted({*dims} ^ {*inner.attrs["dims"]}))})
    return None if dims == attrs["dims"] else builder.emit(op, inputs, {"dims": dims})


def _slice(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
    """A slice of everything --> ``x``; a slice of a slice with unit steps --> one slice."""
    (x,) = inputs
    starts, stops, steps = attrs["starts"], attrs["stops"], attrs["steps"]
    (out,) = op.infer_types([x.type], attrs)
    if out.shape == x.shape and all(start == 0 for start in starts):
        return inputs
    inner = _made_by(x, "slice")
    if inner is None or any(step != 1 for step in (*steps, *inner.attrs["steps"])):
        return None
    offset = inner.attrs["starts"]
    moved = {
        "starts": tuple(a + o for a, o in zip(starts, offset, strict=True)),
        "stops": tuple(b + o for b, o in zip(stops, offset, strict=True)),
        "steps": steps,
    }
    return builder.emit(op, inner.inputs, moved)


def _cast(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
    """To the same dtype --> ``x``; through one that holds all of x, or that the outer uses itself --> one cast."""
    (x,), target = inputs, attrs["dtype"]
    if x.dtype is target:
        return inputs
    inner = _made_by(x, "cast")
    if inner is None:
        return None
    source = inner.inputs[0].dtype
    if holds(x.dtype, source) or (x.dtype is float32 and target.compute is float32 and target is not float32):
        return builder.emit(op, inner.inputs, {"dtype": target})
    return None


def holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow` is a value of `wide`, and converting it keeps it."""
    if wide is narrow or narrow.kind == "b":
        return True
    if wide.kind == "c":
        return holds(wide.real, narrow.real)
    if narrow.kind == "c":
        return False
    if wide.kind == "f":
        bits, reach = _FLOAT_BITS[wide.short]
        if narrow.kind == "f":
            narrow_bits, narrow_reach = _FLOAT_BITS[narrow.short]
            return bits >= narrow_bits and reach >= narrow_reach
        return bits >= 8 * int(narrow.itemsize) - (narrow.kind == "i")
    if narrow.kind == "f" or wide.kind == "b" or (narrow.kind == "i" and wide.kind == "u"):
        return False
    return int(wide.itemsize) > int(narrow.itemsize)
