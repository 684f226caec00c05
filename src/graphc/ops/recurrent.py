"""Recurrent cells over a whole sequence, one operator a kind of cell, and their gradients.

Enters: the input's share of all gates (one product for all time steps), states, the recurrent weight.  Leaves: the states at every
time.  Never here: the cells' formulas (`recurrent_cells`), the loop over time in a kernel (`schedule.recurrent`), layers.

With T steps, a batch of B, H hidden units and outputs of P (= H without a projection): ``hs[T + 1, B, P]`` are the outputs with the
first state before them (behind them, if `reverse`).  `lengths[B]`: from there on a sequence has ended and its state stays.
Source of the backward loops: Werbos, "Backpropagation through time" (1990).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphc.dtypes import int64
from graphc.ir.op import Anchor, Bad, Op, Sample, TensorType
from graphc.ops.arguments import constant, of_type, require_floating, tensor
from graphc.ops.arithmetic import add
from graphc.ops.comparison import lt, where
from graphc.ops.contract import matmul, swapped
from graphc.ops.create import iota
from graphc.ops.declare import FLOATING, Routed, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.joining import cat
from graphc.ops.movement import reshape
from graphc.ops.pullback import interpreted, pulled_back
from graphc.ops.recurrent_cells import CELLS, TENSORS, Cell
from graphc.ops.reduce import fold, reduce_sum
from graphc.ops.views import part

Rule = Callable[..., tuple[Any, ...]]


@dataclass
class Operands:
    """The inputs of a sequence by name; None for what a cell or a call has not."""

    cell: Cell
    x: Any
    h0: Any
    weight: Any
    c0: Any
    bias: Any
    projection: Any
    lengths: Any
    reverse: bool

    @staticmethod
    def of(cell: Cell, inputs: Sequence[Any], reverse: bool, projected: bool, masked: bool) -> Operands:
        """Those of a node's inputs: x, h0, weight, and then what there is of c0, bias, projection and lengths."""
        x, h0, weight, *rest = inputs
        c0 = rest.pop(0) if cell.has_memory else None
        bias = rest.pop(0) if cell.has_bias else None
        projection = rest.pop(0) if projected else None
        return Operands(cell, x, h0, weight, c0, bias, projection, rest.pop(0) if masked else None, reverse)

    @property
    def steps(self) -> Any:
        return self.x.shape[0]

    @property
    def hidden(self) -> Any:
        return self.weight.shape[0] // self.cell.weights

    def times(self, backwards: bool = False) -> range:
        """The places of x in the order in which they are gone through."""
        return range(self.steps)[::-1] if self.reverse is not backwards else range(self.steps)

    def old(self, states: Any) -> Any:
        """Of states [T + 1, ...], those before each step; `new`: those after it."""
        return part(states, 0, 1, self.steps + 1) if self.reverse else part(states, 0, 0, self.steps)

    def new(self, states: Any) -> Any:
        return part(states, 0, 0, self.steps) if self.reverse else part(states, 0, 1, self.steps + 1)

    def placed(self, states: Sequence[Any]) -> Any:
        """States in the order of the steps, the first of all in front, as [T + 1, ...]."""
        return Op.table["stack"](list(states)[::-1] if self.reverse else list(states))

    def going(self) -> Any:
        """bool [T, B, 1]: whether a sequence has not ended; None where all are of one length."""
        if self.lengths is None:
            return None
        time = reshape.run(iota.run(size=self.steps, dtype=int64), shape=(self.steps, 1, 1))
        return lt(time, reshape.run(self.lengths, shape=(1, self.lengths.shape[0], 1)))


# ---- types ---------------------------------------------------------------------------------------------------------------


def cell_of(op: Op) -> Cell:
    """The kind of cell that a sequence or its gradient is of."""
    return next(cell for cell in CELLS if op.name.startswith(f"{cell.name}_sequence"))


def _infer(cell: Cell, *inputs: TensorType, reverse: bool, projected: bool, masked: bool) -> tuple[TensorType, ...]:
    name, given = f"{cell.name}_sequence", Operands.of(cell, inputs, reverse, projected, masked)
    x, h0, weight = inputs[:3]
    shown = ", ".join(map(str, inputs))
    if x.rank != 3 or h0.rank != 2 or weight.rank != 2 or any(t.dtype is not x.dtype for t in inputs[: len(inputs) - masked]):
        raise RuntimeError(f"{name}: expected one dtype, an input [T, B, gates], a state [B, P] and a weight [gates, P]: {shown}")
    steps, batch, gates = x.shape
    hidden, size = given.hidden, h0.shape[1]
    wanted = {"c0": (batch, hidden), "bias": (hidden,), "projection": (size, hidden), "lengths": (batch,), "h0": (batch, size)}
    wanted["weight"] = (gates, size)
    for part_name, shape in wanted.items():
        found = getattr(given, part_name)
        if found is not None and found.shape != shape:
            raise RuntimeError(f"{name}: {part_name} {found} does not fit: {shown}")
    if not projected and hidden != size or hidden * cell.weights != gates:
        raise RuntimeError(f"{name}: {gates} gates do not fit a state of {size}: {shown}")
    memory = (TensorType(x.dtype, (steps + 1, batch, hidden)),) if cell.has_memory else ()
    kept = TensorType(x.dtype, (steps, batch, hidden * (cell.kept + projected)))
    return TensorType(x.dtype, (steps + 1, batch, size)), *memory, kept


def _backward_infer(cell: Cell, *inputs: TensorType, **attrs: Any) -> tuple[TensorType, ...]:
    _, rest = _split(cell, inputs)
    hs, *memory, kept = _infer(cell, *rest, **attrs)
    return kept, hs, *(TensorType(m.dtype, m.shape[1:]) for m in memory)


def _split(cell: Cell, inputs: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Of a backward operator's inputs: (gradients of hs and cs, hs, cs, kept), and what the forward operator had."""
    count = 5 if cell.has_memory else 3
    return inputs[:count], inputs[count:]


# ---- written in operators ------------------------------------------------------------------------------------------------


def _blocks(x: Any, count: int, size: Any) -> list[Any]:
    """The first `count` blocks of `size` along the last dim."""
    return [part(x, x.ndim - 1, k * size, (k + 1) * size) for k in range(count)]


def _at(x: Any, k: int) -> Any:
    return reshape.run(part(x, 0, k, k + 1), shape=tuple(x.shape[1:]))


def _gates(given: Operands, x: Any, old: Any, going: Any) -> list[Any]:
    """What is kept of a step, or of all steps at once."""
    cell = given.cell
    raw = _blocks(matmul.run(old, swapped(given.weight)), cell.weights, given.hidden)
    gates = cell.gates(TENSORS, _blocks(x, cell.weights, given.hidden), raw, given.bias)
    if going is None:
        return list(gates)
    return [where(going, g, constant(idle, g.dtype)) for g, idle in zip(gates, cell.idle, strict=True)]


def unrolled(cell: Cell, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
    """A sequence in public operators, step by step."""
    given = Operands.of(cell, inputs, **attrs)
    h, c, mask = given.h0, given.c0, given.going()
    outputs, memories, kept = [h], [c], []
    for time in given.times():
        going = None if mask is None else _at(mask, time)
        gates = _gates(given, _at(given.x, time), h, going)
        memory, new = cell.state(TENSORS, gates, c if cell.has_memory else h)
        if given.projection is not None:
            gates.append(new)
            new = matmul.run(new, swapped(given.projection))
        h, c = (where(going, new, h) if going is not None and cell.carries else new), memory
        outputs.append(h)
        memories.append(c)
        kept.append(cat.run(*gates, dim=1) if len(gates) > 1 else gates[0])
    hs, all_kept = given.placed(outputs), Op.table["stack"](kept[::-1] if given.reverse else kept)
    return (hs, given.placed(memories), all_kept) if cell.has_memory else (hs, all_kept)


def unrolled_backward(cell: Cell, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
    """The gradients of a sequence in public operators, step by step.

    What is kept is made again, so that this can be differentiated by everything that it depends on.
    """
    saved, rest = _split(cell, inputs)
    given = Operands.of(cell, rest, **attrs)
    dhs, *dcs = saved[: 1 + cell.has_memory]
    hs, *cs = saved[1 + cell.has_memory : -1]
    mask, memory = given.going(), cs[0] if cs else hs
    kept = _gates(given, given.x, given.old(hs), mask)
    new, old = given.new(memory), given.old(memory)
    order = list(given.times(backwards=True))
    first, shift = (0, 1) if given.reverse else (given.steps, 0)
    dh, dc = _at(dhs, first), _at(dcs[0], first) if dcs else None
    total, into = [dh], {}
    for time in order:
        gates = [_at(k, time) for k in kept]
        arriving = dh if given.projection is None else matmul.run(dh, given.projection)
        found, dc, direct = cell.slopes(TENSORS, arriving, gates, _at(new, time), _at(old, time), dc)
        slopes = [*found] if given.projection is None else [*found, arriving]
        into[time] = cat.run(*slopes, dim=1) if len(slopes) > 1 else slopes[0]
        reached = matmul.run(part(into[time], 1, 0, given.hidden * cell.weights), given.weight)
        if direct is None and mask is not None:
            direct = where(_at(mask, time), constant(0, dh.dtype), dh)
        here = _at(dhs, time + shift)
        dh = add(here if direct is None else add(here, direct), reached)
        dc = None if dc is None else add(_at(dcs[0], time + shift), dc)
        total.append(dh)
    slopes_of_all = Op.table["stack"]([into[time] for time in range(given.steps)])
    return slopes_of_all, given.placed(total[::-1]), *(() if dc is None else (dc,))


def step_by_step(op: Op) -> Rule:
    """A sequence or its gradient as a function in public operators."""
    return partial(unrolled_backward if op.name.endswith("_backward") else unrolled, cell_of(op))


# ---- gradients -----------------------------------------------------------------------------------------------------------


def _grad(cell: Cell, backward: Op) -> Callable[..., tuple[Any, ...]]:
    def grad(g: Any, out: Any, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        given = Operands.of(cell, inputs, **attrs)
        into = [Op.table["zeros_like"](y) if d is None else d for d, y in zip(g[:-1], out[:-1], strict=True)]
        slopes, dhs, *dc = backward.run(*into, *out, *inputs, **attrs)
        hidden, rows = given.hidden, given.steps * given.x.shape[1]
        blocks = _blocks(slopes, cell.kept, hidden)
        reached = part(slopes, 2, 0, hidden * cell.weights)
        dx = reached if cell.kept == cell.weights else cat.run(*(blocks[k] for k in cell.of_input), dim=2)
        first = given.steps if given.reverse else 0
        found = [dx, _at(dhs, first), _product(reached, given.old(out[0]), rows), *dc]
        if cell.has_bias:
            found.append(fold(reduce_sum, blocks[cell.weights - 1], (0, 1), False))
        if given.projection is not None:
            found.append(_product(given.new(dhs), _unprojected(given, *out[:2]), rows))
        return (*found, *(None for _ in range(len(inputs) - len(found))))

    return grad


def _unprojected(given: Operands, hs: Any, cs: Any) -> Any:
    """An LSTM's outputs before the projection, made again from its states, so that they can be differentiated."""
    gates = _gates(given, given.x, given.old(hs), given.going())
    return Op.table["mul"](gates[-1], Op.table["tanh"](given.new(cs)))


def _product(x: Any, y: Any, rows: Any) -> Any:
    """The sum over times and sequences of x[t, b, i] * y[t, b, j]."""
    x, y = (reshape.run(v, shape=(rows, v.shape[2])) for v in (x, y))
    return matmul.run(swapped(x), y)


# ---- declarations --------------------------------------------------------------------------------------------------------

_ATTRS = ("reverse", "projected", "masked")


def _prepare(cell: Cell) -> Callable[..., Prepared]:
    name = f"{cell.name}_sequence"

    def prepare(
        x: Any,
        h0: Any,
        weight: Any,
        c0: Any = None,
        bias: Any = None,
        projection: Any = None,
        lengths: Any = None,
        reverse: bool = False,
    ) -> Prepared:
        x = require_floating(name, "x", x)
        inputs = [x, tensor(name, "h0", h0), tensor(name, "weight", weight)]
        if cell.has_memory:
            inputs.append(tensor(name, "c0", c0))
        if cell.has_bias:
            inputs.append(tensor(name, "bias", bias))
        if projection is not None and not cell.has_memory:
            raise RuntimeError(f"{name}: only an LSTM has a projection, got {of_type(projection)}")
        inputs += [tensor(name, "projection", projection)] if projection is not None else []
        inputs += [tensor(name, "lengths", lengths)] if lengths is not None else []
        attrs = {"reverse": bool(reverse), "projected": projection is not None, "masked": lengths is not None}
        return tuple(inputs), attrs

    return prepare


def _samples(cell: Cell) -> tuple[Sample, ...]:
    def sample(steps: int, batch: int, hidden: int, size: int = 0, ended: bool = False, **how: Any) -> Sample:
        size = size or hidden
        more: dict[str, Any] = {"c0": fill(batch, hidden)} if cell.has_memory else {}
        more |= {"bias": fill(hidden)} if cell.has_bias else {}
        more |= {"projection": fill(size, hidden)} if size != hidden else {}
        more |= {"lengths": fill(batch, low=1, high=steps + 1, dtype=int64, grad=False)} if ended else {}
        weight = fill(cell.weights * hidden, size, low=-0.5, high=0.5)
        return call(fill(steps, batch, cell.weights * hidden), fill(batch, size), weight, **more, **how)

    last = sample(2, 7, 4, 3, ended=True, reverse=True) if cell.has_memory else sample(2, 7, 4, ended=True, reverse=True)
    return sample(2, 13, 17), last


def _declare(cell: Cell) -> Op:
    backward_rule = partial(unrolled_backward, cell)
    samples = _samples(cell)
    first = samples[0]
    wrong = (first.args[0], fill(13, 5), first.args[2])
    bad = Bad(wrong, RuntimeError, f"{cell.name}_sequence: weight .* does not fit", first.kwargs)

    def backwards(op: Op, dhs: Any, dcs: Any, *args: Any, **kwargs: Any) -> Any:
        forward = Op.table[f"{cell.name}_sequence"]
        inputs, attrs = forward.prepare(*args, **kwargs)
        return op.run(dhs, *(() if dcs is None else (dcs,)), *forward.run(*inputs, **attrs), *inputs, **attrs)

    backward = Routed(
        f"{cell.name}_sequence_backward",
        doc=f"What goes through time in the gradient of `{cell.name}_sequence`: gradients of the gates [T, B, ...], those that "
        "reach each output [T + 1, B, P], and that of the first memory [B, H].",
        signature="(dhs, dcs, x, h0, weight, c0=None, bias=None, projection=None, lengths=None, reverse=False)",
        route=backwards,
        infer=lambda *inputs, **attrs: _backward_infer(cell, *inputs, **attrs),
        reference=interpreted(backward_rule),
        grad=pulled_back(backward_rule),
        lowering=Anchor("recurrent_backward"),
        attrs=_ATTRS,
        dtypes=FLOATING,
        samples=tuple(_with_gradients(cell, sample) for sample in samples),
        bad=(Bad((fill(3, 13, 17), fill(3, 13, 17), *wrong), RuntimeError, bad.match, first.kwargs),),
        methods=(),
        functions=(),
    )
    return Routed(
        f"{cell.name}_sequence",
        doc=f"The cell `{cell.name}` over a sequence.  x [T, B, gates], h0 [B, P], weight [gates, P] -> the outputs with h0 before "
        "them [T + 1, B, P], and of an LSTM the memories [T + 1, B, H].",
        signature="(x, h0, weight, c0=None, bias=None, projection=None, lengths=None, reverse=False)",
        route=lambda op, *args, **kwargs: _outputs(op, *op.prepare(*args, **kwargs)),
        prepare=_prepare(cell),
        infer=lambda *inputs, **attrs: _infer(cell, *inputs, **attrs),
        reference=interpreted(partial(unrolled, cell)),
        grad=_grad(cell, backward),
        lowering=Anchor("recurrent"),
        attrs=_ATTRS,
        dtypes=FLOATING,
        samples=samples,
        bad=(bad,),
        methods=(),
        functions=(),
    )


def _outputs(op: Op, inputs: Any, attrs: dict[str, Any]) -> Any:
    """The public results: what is kept for backward is nobody else's."""
    hs, *memories, _ = op.run(*inputs, **attrs)
    return (hs, *memories) if memories else hs


def _with_gradients(cell: Cell, sample: Sample) -> Sample:
    """A sample of the gradient: gradients of the outputs and memories in front."""
    steps, batch, gates = sample.args[0].shape
    hs, cs = fill(steps + 1, batch, sample.args[1].shape[1]), fill(steps + 1, batch, gates // cell.weights)
    return Sample((hs, cs if cell.has_memory else None, *sample.args), sample.kwargs)


SEQUENCES = {cell.name: _declare(cell) for cell in CELLS}
