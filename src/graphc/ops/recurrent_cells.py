"""The formulas of recurrent cells, each written once for whole tensors and for single elements.

Enters: gates' inputs and states, as tensors or as loop IR expressions.  Leaves: the same.  Never here: time, products with weights.

A cell's step is ``gates`` (what is kept for backward) and then ``state``; ``slopes`` goes the other way.  ``idle`` are the gates
that leave a state as it is and let no gradient into themselves: those of a sequence that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.ops.activation import relu
from graphc.ops.arguments import constant
from graphc.ops.arithmetic import add, mul, sub
from graphc.ops.comparison import gt, where
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import select
from graphc.ops.transcendental import sigmoid, tanh

Slopes = tuple[tuple[Any, ...], Any, Any]


@dataclass(frozen=True)
class Arithmetic:
    """What formulas are written in.  complement: 1 - x.   where_positive: y where x > 0, else 0."""

    add: Callable[[Any, Any], Any]
    sub: Callable[[Any, Any], Any]
    mul: Callable[[Any, Any], Any]
    sigmoid: Callable[[Any], Any]
    tanh: Callable[[Any], Any]
    relu: Callable[[Any], Any]
    complement: Callable[[Any], Any]
    where_positive: Callable[[Any, Any], Any]


TENSORS = Arithmetic(add, sub, mul, sigmoid, tanh, relu, lambda x: sub(1, x), lambda x, y: where(gt(x, 0), y, constant(0, y.dtype)))
ELEMENTS = Arithmetic(
    lambda x, y: fn("add", x, y),
    lambda x, y: fn("sub", x, y),
    lambda x, y: fn("mul", x, y),
    lambda x: fn("sigmoid", x),
    lambda x: fn("tanh", x),
    lambda x: fn("max", x, literal(0, x.dtype)),
    lambda x: fn("sub", literal(1, x.dtype), x),
    lambda x, y: select(fn("gt", x, literal(0, x.dtype)), y, literal(0, y.dtype)),
)


@dataclass(frozen=True)
class Cell:
    """A kind of recurrent cell with H hidden units.

    weights: blocks of H rows in the recurrent weight, and of columns in the input's share of the gates.
    has_memory: whether there is a second state beside the output.   has_bias: whether the last block has a recurrent bias that
    is not simply added to the input's share.   idle: see above, one a block that is kept; only where `carries` must a state
    of an ended sequence be carried over beside that.
    gates(a, x, raw, bias) -> kept; x and raw one a block: the input's share, and the old state's product with the weight.
    state(a, kept, old) -> (the memory or None, the output); old: the memory before, else the output before.
    slopes(a, dh, kept, new, old, dc) -> (gradients of raw, and then of what in x differs from it; dc before; dh before that comes
    by no product).
    of_input: which of those gradients are those of x.
    """

    name: str
    weights: int
    has_memory: bool
    has_bias: bool
    carries: bool
    idle: tuple[float, ...]
    of_input: tuple[int, ...]
    gates: Callable[[Arithmetic, Sequence[Any], Sequence[Any], Any], tuple[Any, ...]]
    state: Callable[[Arithmetic, Sequence[Any], Any], tuple[Any, Any]]
    slopes: Callable[[Arithmetic, Any, Sequence[Any], Any, Any, Any], Slopes]

    @property
    def kept(self) -> int:
        """Blocks of H columns that are kept for backward, and of gradients."""
        return len(self.idle)


def _bell(a: Arithmetic, s: Any) -> Any:
    """The slope of a sigmoid whose value is s."""
    return a.mul(s, a.complement(s))


def _flat(a: Arithmetic, t: Any) -> Any:
    """The slope of a tanh whose value is t."""
    return a.complement(a.mul(t, t))


# ---- LSTM: input, forget, cell and output gate ---------------------------------------------------------------------------


def _lstm_gates(a: Arithmetic, x: Sequence[Any], raw: Sequence[Any], bias: Any) -> tuple[Any, ...]:
    i, f, g, o = (a.add(u, v) for u, v in zip(x, raw, strict=True))
    return a.sigmoid(i), a.sigmoid(f), a.tanh(g), a.sigmoid(o)


def _lstm_state(a: Arithmetic, kept: Sequence[Any], old: Any) -> tuple[Any, Any]:
    i, f, g, o = kept
    memory = a.add(a.mul(f, old), a.mul(i, g))
    return memory, a.mul(o, a.tanh(memory))


def _lstm_slopes(a: Arithmetic, dh: Any, kept: Sequence[Any], new: Any, old: Any, dc: Any) -> Slopes:
    i, f, g, o = kept
    bounded = a.tanh(new)
    dc = a.add(dc, a.mul(a.mul(dh, o), _flat(a, bounded)))
    into = (
        a.mul(a.mul(dc, g), _bell(a, i)),
        a.mul(a.mul(dc, old), _bell(a, f)),
        a.mul(a.mul(dc, i), _flat(a, g)),
        a.mul(a.mul(dh, bounded), _bell(a, o)),
    )
    return into, a.mul(dc, f), None


# ---- GRU: reset, update and new gate -------------------------------------------------------------------------------------


def _gru_gates(a: Arithmetic, x: Sequence[Any], raw: Sequence[Any], bias: Any) -> tuple[Any, ...]:
    r, z = a.sigmoid(a.add(x[0], raw[0])), a.sigmoid(a.add(x[1], raw[1]))
    past = a.add(raw[2], bias)
    return r, z, past, a.tanh(a.add(x[2], a.mul(r, past)))


def _gru_state(a: Arithmetic, kept: Sequence[Any], old: Any) -> tuple[Any, Any]:
    _, z, _, n = kept
    return None, a.add(a.mul(a.complement(z), n), a.mul(z, old))


def _gru_slopes(a: Arithmetic, dh: Any, kept: Sequence[Any], new: Any, old: Any, dc: Any) -> Slopes:
    r, z, past, n = kept
    dn = a.mul(a.mul(dh, a.complement(z)), _flat(a, n))
    dr = a.mul(a.mul(dn, past), _bell(a, r))
    dz = a.mul(a.mul(dh, a.sub(old, n)), _bell(a, z))
    return (dr, dz, a.mul(dn, r), dn), None, a.mul(dh, z)


# ---- Elman's cell --------------------------------------------------------------------------------------------------------


def _elman(name: str, idle: float, curve: Callable[[Arithmetic, Any], Any], slope: Callable[[Arithmetic, Any, Any], Any]) -> Cell:
    return Cell(
        name,
        weights=1,
        has_memory=False,
        has_bias=False,
        carries=True,
        idle=(idle,),
        of_input=(0,),
        gates=lambda a, x, raw, bias: (curve(a, a.add(x[0], raw[0])),),
        state=lambda a, kept, old: (None, kept[0]),
        slopes=lambda a, dh, kept, new, old, dc: ((slope(a, kept[0], dh),), None, None),
    )


LSTM = Cell("lstm", 4, True, False, True, (0.0, 1.0, 0.0, 0.0), (0, 1, 2, 3), _lstm_gates, _lstm_state, _lstm_slopes)
GRU = Cell("gru", 3, False, True, False, (0.0, 1.0, 0.0, 0.0), (0, 1, 3), _gru_gates, _gru_state, _gru_slopes)
RNN_TANH = _elman("rnn_tanh", 1.0, lambda a, x: a.tanh(x), lambda a, h, dh: a.mul(dh, _flat(a, h)))
RNN_RELU = _elman("rnn_relu", 0.0, lambda a, x: a.relu(x), lambda a, h, dh: a.where_positive(h, dh))
CELLS = (LSTM, GRU, RNN_TANH, RNN_RELU)
