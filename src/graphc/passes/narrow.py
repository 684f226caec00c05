"""Store the matrices that a program multiplies by in fewer bits: what it reads at every call shrinks, and its results change.

Enters: any Graph and which of its inputs hardly ever change.  Leaves: a Graph of other products.  Never here: doing any of this by
itself (`graphc.compile(weights=...)` asks for it), what activations are made of (float32, as they were).

``bfloat16`` rounds every element.  ``int8`` divides each column by the 127th part of its largest magnitude and rounds to whole
numbers; the product is multiplied by that factor again.  Sums are made in float32 either way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from graphc.dtypes import bfloat16, float32, int8
from graphc.ir.graph import Builder, Graph, Value, rewrite
from graphc.ir.op import Op
from graphc.ops.panels import panel_width
from graphc.passes.algebra import simplify
from graphc.passes.decompose import decompose
from graphc.passes.prepare import Known, is_packable

Weights = Literal["bfloat16", "int8"]
KINDS = ("bfloat16", "int8")


def narrow(graph: Graph, fixed: Collection[int], kind: Weights) -> Graph:
    """``matmul(x, w)`` --> ``matmul_panels(x, panels(cast(w)))`` where w is float32 and depends on inputs at `fixed` alone."""
    written = {state for state, _ in graph.updates}
    known = Known({v: frozenset([v]) for v in (graph.inputs[i] for i in fixed) if v not in written})

    def rule(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
        x, w = inputs
        if w.dtype is not float32 or known.value(x) is not None or not known.value(w) or not is_packable(w):
            return None
        return (_rounded(builder, x, w) if kind == "bfloat16" else _scaled(builder, x, w),)

    return rewrite(simplify(decompose(graph)), {"matmul": (rule,)})


def _emit(builder: Builder, name: str, *inputs: Value, **attrs: Any) -> Value:
    return builder.emit(Op.table[name], inputs, attrs)[0]


def _product(builder: Builder, x: Value, w: Value) -> Value:
    columns = w.shape[-1]
    packed = _emit(builder, "panels", w, width=panel_width(float32, columns))
    return _emit(builder, "matmul_panels", x, packed, columns=columns)


def _rounded(builder: Builder, x: Value, w: Value) -> Value:
    return _product(builder, x, _emit(builder, "cast", w, dtype=bfloat16))


def _scaled(builder: Builder, x: Value, w: Value) -> Value:
    """Whole numbers from -127 to 127; a column of zeros has a factor of 1."""
    largest = _emit(builder, "reduce_max", _emit(builder, "abs", w), dim=w.ndim - 2)
    one, most, zero = (_emit(builder, "full", value=v, shape=(), dtype=float32) for v in (1.0, 127.0, 0.0))
    factor = _emit(builder, "div", largest, most)
    factor = _emit(builder, "where", _emit(builder, "eq", factor, zero), one, factor)
    columns = _emit(builder, "reshape", factor, shape=(*w.shape[:-2], 1, w.shape[-1]))
    whole = _emit(builder, "cast", _emit(builder, "round", _emit(builder, "div", w, columns), decimals=0), dtype=int8)
    return _emit(builder, "mul", _product(builder, x, whole), columns)
