"""Connectionist temporal classification: the loss of all alignments of a label sequence (Graves and others 2006).

Enters: log probabilities [T, N, C], labels, lengths.  Leaves: operators that run on the host: the recursions over time are serial.
Never here: beam search.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import int64
from graphc.ir.op import Bad, Host, Op, TensorType
from graphc.ops.arguments import cast, constant, of_type, require_floating, tensor
from graphc.ops.arithmetic import div, maximum, mul
from graphc.ops.bounds import places
from graphc.ops.comparison import eq, where
from graphc.ops.declare import FLOATING, Shorthand, call, fill
from graphc.ops.loss import BAD_REDUCTION, check_reduction, reduced
from graphc.ops.movement import reshape, unsqueeze

Array = np.ndarray[Any, Any]
_NAME = "ctc_loss"

# ---- the recursions ------------------------------------------------------------------------------------------------


def _extended(targets: Array, lengths: Array, blank: int) -> tuple[Array, Array]:
    """(labels with blanks around them [N, 2 S + 1], where a step may skip the blank between two labels)."""
    longest = int(lengths.max(initial=0))
    if targets.ndim == 1:
        if targets.size != lengths.sum():
            raise RuntimeError(f"{_NAME}: target_lengths must sum to the {targets.size} concatenated targets")
        starts = np.cumsum(lengths) - lengths
        padded = np.full((len(lengths), longest), blank)
        for n, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            padded[n, :length] = targets[start : start + length]
    else:
        if longest > targets.shape[1]:
            raise RuntimeError(f"{_NAME}: expected target_lengths of at most {targets.shape[1]}, got {longest}")
        padded = targets[:, :longest]
    labels = np.full((len(lengths), 2 * longest + 1), blank)
    labels[:, 1::2] = padded
    skips = np.zeros(labels.shape, bool)
    skips[:, 2:] = (labels[:, 2:] != blank) & (labels[:, 2:] != labels[:, :-2])
    return labels, skips


def _shifted(a: Array, by: int) -> Array:
    """Columns moved right by `by` (left where negative), -inf coming in."""
    moved = np.full_like(a, -np.inf)
    if by > 0:
        moved[:, by:] = a[:, :-by]
    else:
        moved[:, :by] = a[:, -by:]
    return moved


def _step(a: Array, skips: Array, direction: int) -> Array:
    """The log of the sum over what may come before (direction 1) or after (-1) each state."""
    allowed = skips if direction > 0 else np.pad(skips, ((0, 0), (0, 2)))[:, 2:]
    two = _shifted(a, 2 * direction) if a.shape[1] > 2 else np.full_like(a, -np.inf)
    one = _shifted(a, direction) if a.shape[1] > 1 else np.full_like(a, -np.inf)
    return np.logaddexp(np.logaddexp(a, one), np.where(allowed, two, -np.inf))


def _checked(log_probs: Array, input_lengths: Array, target_lengths: Array, labels: Array) -> None:
    steps, _, classes = log_probs.shape
    if (input_lengths > steps).any() or (input_lengths < 0).any():
        raise RuntimeError(f"{_NAME}: expected input_lengths of at most {steps}, got {int(input_lengths.max())}")
    if (target_lengths < 0).any():
        raise RuntimeError(f"{_NAME}: target_lengths must not be negative")
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise RuntimeError(f"{_NAME}: labels must be in [0, {classes})")


def _forward(log_probs: Array, targets: Array, input_lengths: Array, target_lengths: Array, blank: int) -> Any:
    """(log alpha [T, N, 2 S + 1], emissions of the same shape, labels, skips, -log likelihood [N])."""
    labels, skips = _extended(targets, target_lengths, blank)
    _checked(log_probs, input_lengths, target_lengths, labels)
    emitted = np.take_along_axis(log_probs.astype(np.float64), np.broadcast_to(labels, (len(log_probs), *labels.shape)), axis=2)
    rows = np.arange(len(labels))
    alpha = np.full(emitted.shape, -np.inf)
    state = np.broadcast_to(np.where(np.arange(labels.shape[1]) < 2, 0.0, -np.inf), labels.shape)  # where one can begin
    for t in range(len(emitted)):
        alpha[t] = (_step(state, skips, 1) if t else state) + emitted[t]
        state = alpha[t]
    last = alpha[input_lengths - 1, rows] if len(emitted) else np.full(labels.shape, -np.inf)
    end = last[rows, 2 * target_lengths]
    before = np.where(target_lengths > 0, last[rows, np.maximum(2 * target_lengths - 1, 0)], -np.inf)
    loss = -np.logaddexp(end, before)
    loss = np.where(input_lengths == 0, np.where(target_lengths == 0, 0.0, np.inf), loss)
    return alpha, emitted, labels, skips, loss


def _loss_array(
    xp: Any, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int, zero_infinity: bool
) -> Any:
    with np.errstate(all="ignore"):
        loss = _forward(log_probs, targets, input_lengths, target_lengths, blank)[-1]
    return loss.astype(log_probs.dtype)


def _gradient_array(
    xp: Any, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int, zero_infinity: bool
) -> Any:
    """exp(log_probs) less the expected share of each class at each step: right where log_probs come from log_softmax."""
    with np.errstate(all="ignore"):
        alpha, emitted, labels, skips, loss = _forward(log_probs, targets, input_lengths, target_lengths, blank)
        wide = log_probs.astype(np.float64)
        rows = np.arange(len(labels))
        ends = np.full(labels.shape, -np.inf)
        ends[rows, 2 * target_lengths] = 0.0
        some = target_lengths > 0
        ends[rows[some], 2 * target_lengths[some] - 1] = 0.0
        beta = np.full(labels.shape, -np.inf)
        gradient = np.zeros(wide.shape)
        for t in reversed(range(len(wide))):
            later = _step(beta, skips, -1)
            beta = np.where((t == input_lengths - 1)[:, None], ends, later) + emitted[t]
            shares = np.full(wide.shape[1:], -np.inf)
            np.logaddexp.at(shares, (rows[:, None], labels), alpha[t] + beta)
            gradient[t] = np.exp(wide[t]) - np.exp(shares + loss[:, None] - wide[t])
            gradient[t][t >= input_lengths] = 0.0
        if zero_infinity:
            gradient[:, np.isinf(loss)] = 0.0
    return gradient.astype(log_probs.dtype)


# ---- the operators -------------------------------------------------------------------------------------------------


def _types_checked(*types: TensorType) -> None:
    log_probs, targets, input_lengths, target_lengths = types
    shown = ", ".join(map(str, types))
    if log_probs.rank != 3 or log_probs.dtype.kind != "f":
        raise RuntimeError(f"{_NAME}: log_probs must be floating of 3 dims: {shown}")
    if any(t.dtype is not int64 for t in types[1:]):
        raise RuntimeError(f"{_NAME}: targets and lengths must be integers: {shown}")
    batch = (log_probs.shape[1],)
    if input_lengths.shape != batch or target_lengths.shape != batch:
        raise RuntimeError(f"{_NAME}: input_lengths and target_lengths must be of size {batch[0]}: {shown}")
    if targets.rank not in (1, 2) or (targets.rank == 2 and targets.shape[0] != batch[0]):
        raise RuntimeError(f"{_NAME}: targets must be [{batch[0]}, S] or one dim: {shown}")


def _batch_infer(*types: TensorType, blank: int, zero_infinity: bool) -> TensorType:
    _types_checked(*types)
    return TensorType(types[0].dtype, (types[0].shape[1],))


def _gradient_infer(*types: TensorType, blank: int, zero_infinity: bool) -> TensorType:
    _types_checked(*types)
    return types[0]


def _batch_grad(g: Any, out: Any, log_probs: Any, *rest: Any, blank: int, zero_infinity: bool) -> tuple[Any, ...]:
    slope = ctc_gradient.run(log_probs, *rest, blank=blank, zero_infinity=zero_infinity)
    each = mul(slope, unsqueeze.run(unsqueeze.run(g, dim=0), dim=2))
    return each, None, None, None


def _recursion(name: str, doc: str, infer: Any, reference: Any, grad: Any) -> Op:
    lengths = {"dtype": int64, "grad": False}
    return Op(
        name,
        doc=doc,
        signature="(log_probs, targets, input_lengths, target_lengths, blank=0, zero_infinity=False)",
        prepare=lambda *given: (given[:4], {"blank": 0, "zero_infinity": False}),
        infer=infer,
        reference=reference,
        grad=grad,
        lowering=Host(),
        attrs=("blank", "zero_infinity"),
        dtypes=FLOATING,
        samples=(
            call(
                fill(5, 2, 4, low=-3.0, high=-0.1, grad=False),
                fill(2, 2, low=1, high=4, **lengths),
                fill(2, low=4, high=6, **lengths),
                fill(2, low=1, high=3, **lengths),
            ),
        ),
        bad=(Bad((fill(5, 2), places(3, 2), places(3, 2), places(3, 2)), RuntimeError, "ctc_loss: log_probs must be"),),
        methods=(),
        functions=(),
    )


ctc_gradient = _recursion(
    "ctc_gradient", "The gradient of ctc_of_batch.  [T, N, C], ints -> [T, N, C].", _gradient_infer, _gradient_array, None
)
ctc_of_batch = _recursion(
    "ctc_of_batch",
    "Minus the log likelihood of each row's labels.  [T, N, C], ints -> [N].",
    _batch_infer,
    _loss_array,
    _batch_grad,
)


def _lengths(argument: str, value: Any) -> Any:
    """Lengths as an int64 tensor [N]; a tuple or list of ints will do."""
    if isinstance(value, list | tuple):
        return Op.table["stack"]([constant(int(v), int64) for v in value]) if value else constant(0, int64, (0,))
    value = tensor(_NAME, argument, value)
    if value.dtype.kind not in "iu":
        raise RuntimeError(f"{_NAME}: {argument} must be integral, got {of_type(value)}")
    return cast(value, int64)


def _ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Any:
    log_probs, targets = require_floating(_NAME, "log_probs", log_probs), tensor(_NAME, "targets", targets)
    reduction = check_reduction(_NAME, reduction)
    classes = log_probs.shape[-1] if log_probs.ndim else 0
    if not isinstance(blank, int) or not 0 <= blank < classes:
        raise RuntimeError(f"{_NAME}: blank must be in label range [0, {classes}), got {blank!r}")
    inputs, labels = _lengths("input_lengths", input_lengths), _lengths("target_lengths", target_lengths)
    alone = log_probs.ndim == 2
    if alone:
        log_probs = unsqueeze.run(log_probs, dim=1)
        targets = unsqueeze.run(targets, dim=0) if targets.ndim == 1 else targets
        inputs, labels = (reshape.run(y, shape=(1,)) for y in (inputs, labels))
    how = {"blank": blank, "zero_infinity": bool(zero_infinity)}
    losses = ctc_of_batch.run(log_probs, cast(targets, int64), inputs, labels, **how)
    if zero_infinity:
        losses = where(eq(losses, float("inf")), constant(0, losses.dtype), losses)
    if reduction == "mean":
        losses = div(losses, cast(maximum(labels, 1), losses.dtype))
    return reshape.run(losses, shape=()) if alone and reduction == "none" else reduced(losses, reduction)


ctc_loss = Shorthand(
    "ctc_loss",
    doc="Minus the log likelihood of label sequences under all their alignments; the mean is of losses over target lengths.  "
    "[T, N, C], ints [N, S] or [sum], [N], [N] -> [] or [N].",
    rule=_ctc_loss,
    dtypes=FLOATING,
    samples=(
        call(
            fill(5, 2, 4, low=-3.0, high=-0.1, grad=False),
            fill(2, 2, dtype=int64, low=1, high=4, grad=False),
            (5, 4),
            (2, 1),
            reduction="sum",
        ),
    ),
    bad=(
        Bad((fill(5, 2, 4), places(3, 2, 2), (5, 5), (2, 2), 7), RuntimeError, "ctc_loss: blank must be in label range"),
        Bad((fill(5, 2, 4), places(3, 2, 2), (5, 5), (2, 2)), ValueError, "ctc_loss: reduction must be", BAD_REDUCTION),
    ),
    methods=(),
    functions=("nn.functional.ctc_loss",),
    autocast="float32",
)
