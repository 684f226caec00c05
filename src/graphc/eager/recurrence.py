"""Recurrent layers and cells as functions: ``lstm``, ``gru``, ``rnn_tanh``, ``rnn_relu`` and their ``_cell`` forms.

Enters: a padded or packed sequence, first states, flat weights in PyTorch's order.  Leaves: outputs and last states.
Never here: a cell's formulas and its loop over time (`ops.recurrent`), modules and their checks (`nn.recurrent`).

The input's share of the gates of all time steps is one matrix product; the rest of a layer is one operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.eager.creation import from_numpy
from graphc.eager.failures import guarded
from graphc.eager.generator import draw
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.ir.op import Op
from graphc.ops.arguments import cast, constant
from graphc.ops.recurrent import SEQUENCES
from graphc.ops.recurrent_cells import CELLS, Cell

_CELLS = {cell.name: cell for cell in CELLS}


def _op(name: str) -> Any:
    return Op.table[name]


@dataclass(frozen=True)
class Rows:
    """Where the elements of a packed sequence are in a padded one.

    lengths[B]: of each sequence.   padded[T * B]: for every time and sequence its row of the packed data, 0 where it has ended.
    packed[N]: for every packed row its place among T * B.
    """

    steps: int
    batch: int
    lengths: Tensor
    padded: Tensor
    packed: Tensor

    @staticmethod
    def of(batch_sizes: Sequence[int]) -> Rows:
        """Those of the number of sequences that are still going at each time.  Raises RuntimeError where they grow."""
        counts = np.asarray(batch_sizes, np.int64)
        if not counts.size or (np.diff(counts) > 0).any() or counts[-1] < 1:
            raise RuntimeError(f"batch_sizes should be positive and never grow, got {list(batch_sizes)}")
        going = np.arange(counts[0])[None, :] < counts[:, None]
        padded = np.where(going, (np.cumsum(counts) - counts)[:, None] + np.arange(counts[0]), 0)
        arrays = (going.sum(0), padded.reshape(-1), np.flatnonzero(going))
        return Rows(counts.size, int(counts[0]), *(from_numpy(a.astype(np.int64)) for a in arrays))


@dataclass(frozen=True)
class Weights:
    """The weights of one layer in one direction; None for those that it has not."""

    of_input: Any
    of_state: Any
    input_bias: Any = None
    state_bias: Any = None
    projection: Any = None


def _layers(params: Sequence[Any], has_biases: bool, projected: bool) -> Iterator[Weights]:
    """Flat weights, layer by layer and direction by direction."""
    size = 2 + 2 * has_biases + projected
    for k in range(0, len(params), size):
        given = list(params[k : k + size])
        projection = given.pop() if projected else None
        input_bias, state_bias = given[2:] if has_biases else (None, None)
        yield Weights(given[0], given[1], input_bias, state_bias, projection)


def _biases(cell: Cell, w: Weights) -> tuple[Any, Any]:
    """(what is added to the input's share, the recurrent bias of the last block or None)."""
    if not cell.has_bias:
        return (None if w.input_bias is None else _op("add")(w.input_bias, w.state_bias)), None
    hidden = w.of_state.shape[0] // cell.weights
    if w.state_bias is None:
        return None, constant(0, w.of_state.dtype, (hidden,))
    apart = (cell.weights - 1) * hidden
    added = _op("pad")(w.state_bias[:apart], (0, hidden))
    return _op("add")(w.input_bias, added), w.state_bias[apart:]


def _run(cell: Cell, x: Any, h0: Any, c0: Any, w: Weights, rows: Rows | None, reverse: bool) -> tuple[Any, Any, Any]:
    """One layer in one direction.  x [T, B, I], or packed rows [N, I] -> outputs of the same form, last output, last memory."""
    bias, last_bias = _biases(cell, w)
    steps, batch = x.shape[:2] if rows is None else (rows.steps, rows.batch)
    gates = _op("linear")(x.reshape(steps * batch, x.shape[2]) if rows is None else x, w.of_input, bias)
    if rows is not None:
        gates = _op("index_select")(gates, 0, rows.padded)
    if not cell.has_memory and not cell.has_bias:
        h0 = cast(h0, gates.dtype)  # under autocast: Elman's cell has no sum with its state
    gates = cast(gates, h0.dtype)
    like = [None if v is None else cast(v, h0.dtype) for v in (h0, w.of_state, c0, last_bias, w.projection)]
    found = SEQUENCES[cell.name](
        gates.reshape(steps, batch, gates.shape[1]),
        *like,
        lengths=None if rows is None else rows.lengths,
        reverse=reverse,
    )
    hs, cs = found if cell.has_memory else (found, None)
    last, outputs = (0, hs[:steps]) if reverse else (steps, hs[1:])
    if rows is not None:
        outputs = _op("index_select")(outputs.reshape(steps * batch, hs.shape[2]), 0, rows.packed)
    return outputs, hs[last], None if cs is None else cs[last]


@dataclass(frozen=True)
class Stack:
    """Layers of one kind of cell, each over the outputs of the one below."""

    kind: str
    has_biases: bool
    num_layers: int
    dropout: float
    train: bool
    bidirectional: bool

    def __call__(
        self, x: Any, h0: Any, c0: Any, params: Sequence[Any], rows: Rows | None = None, projected: bool | None = None
    ) -> tuple[Any, ...]:
        """x [T, B, I] or packed rows, h0 [layers * directions, B, P] and c0 [.., B, H] -> (outputs, h, c where there is one).

        Raises RuntimeError for states, weights and inputs whose sizes do not fit.
        """
        cell, directions = _CELLS[self.kind], 1 + self.bidirectional
        if projected is None:
            projected = c0 is not None and h0.shape[2] != c0.shape[2]
        weights = list(_layers(params, self.has_biases, projected))
        if len(weights) != self.num_layers * directions:
            raise RuntimeError(f"{self.kind}: got {len(params)} weights, which are not those of {self.num_layers} layers")
        if modes.autocast is not None and cell.has_memory and rows is None:  # as PyTorch's autocast
            h0, c0 = cast(h0, modes.autocast), cast(c0, modes.autocast)
        outputs, memories = [], []
        for layer in range(self.num_layers):
            sides = []
            for direction in range(directions):
                k = layer * directions + direction
                side, h, c = _run(cell, x, h0[k], None if c0 is None else c0[k], weights[k], rows, bool(direction))
                sides.append(side)
                outputs.append(h)
                memories.append(c)
            x = sides[0] if directions == 1 else _op("cat")(sides, sides[0].ndim - 1)
            if self.train and self.dropout and layer < self.num_layers - 1:
                x = draw(None, "dropout", x, self.dropout)
        last = _op("stack")(outputs)
        return (x, last) if c0 is None else (x, last, _op("stack")(memories))


# ---- PyTorch's functions -------------------------------------------------------------------------------------------------


def _called(kind: str, args: tuple[Any, ...], names: dict[str, Any]) -> tuple[Any, ...]:
    """A call of ``graphc.lstm`` and its like: of a padded sequence, or of packed data with its batch sizes."""
    order = ["input", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional", "batch_first"]
    is_packed = "batch_sizes" in names or len(args) > 1 and isinstance(args[1], Tensor) and args[1].dtype.kind in "iu"
    if is_packed:
        order = ["data", "batch_sizes", *order[1:-1]]
    given = {**dict(zip(order, args, strict=False)), **names}
    if len(args) > len(order) or set(given) != set(order):
        raise TypeError(f"{kind}() takes ({', '.join(order)})")
    h0, c0 = given["hx"] if kind == "lstm" else (given["hx"], None)
    stack = Stack(kind, *(given[n] for n in ("has_biases", "num_layers", "dropout", "train", "bidirectional")))
    if is_packed:
        return stack(given["data"], h0, c0, given["params"], Rows.of(given["batch_sizes"].tolist()))
    swap, x = given["batch_first"], given["input"]
    y, *states = stack(_op("transpose")(x, 0, 1) if swap else x, h0, c0, given["params"])
    return (_op("transpose")(y, 0, 1) if swap else y), *states


def _declared(kind: str) -> Any:
    def layers(*args: Any, **names: Any) -> tuple[Any, ...]:
        return _called(kind, args, names)

    layers.__name__ = layers.__qualname__ = kind
    layers.__doc__ = (
        f"Layers of `{kind}` cells: (input [T, B, I], hx, params, has_biases, num_layers, dropout, train, bidirectional, "
        "batch_first), or (data [N, I], batch_sizes, hx, ...) for a packed sequence -> outputs and last states."
    )
    return guarded(layers)


lstm, gru, rnn_tanh, rnn_relu = (_declared(cell.name) for cell in CELLS)


def cell_step(kind: str, x: Any, h: Any, c: Any, w: Weights) -> tuple[Any, Any]:
    """One step.  x [B, I], h [B, P], c [B, H] or None -> (h, c or None)."""
    _, h, c = _run(_CELLS[kind], x.unsqueeze(0), h, c, w, None, False)
    return h, c


@guarded
def lstm_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> tuple[Any, Any]:
    """One step of an LSTM.  [B, I], ([B, H], [B, H]) -> [B, H], [B, H]."""
    h, c = hx
    return cell_step("lstm", input, h, c, Weights(w_ih, w_hh, b_ih, b_hh))


def _declared_cell(kind: str) -> Any:
    def cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
        return cell_step(kind, input, hx, None, Weights(w_ih, w_hh, b_ih, b_hh))[0]

    cell.__name__ = cell.__qualname__ = f"{kind}_cell"
    cell.__doc__ = f"One step of a `{kind}` cell.  [B, I], [B, H] -> [B, H]."
    return guarded(cell)


gru_cell, rnn_tanh_cell, rnn_relu_cell = (_declared_cell(cell.name) for cell in CELLS[1:])
