"""Losses that hold the projection to their many classes: AdaptiveLogSoftmaxWithLoss and LinearCrossEntropyLoss.

Enters: sizes.  Leaves: modules with PyTorch's names, defaults and state.  Never here: what an operator computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from graphc.dtypes import DType
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.nn import functional as F
from graphc.nn.containers import ModuleList, Sequential
from graphc.nn.layers import Linear
from graphc.nn.linear_cross_entropy import LinearCrossEntropyOptions
from graphc.nn.losses import _WeightedLoss
from graphc.nn.module import Module


class _ASMoutput(NamedTuple):
    """What `AdaptiveLogSoftmaxWithLoss` gives: the target's log probability for each sample, and minus their mean."""

    output: Tensor
    loss: Tensor


def _cutoffs(name: str, cutoffs: Sequence[int], n_classes: int) -> list[int]:
    """The cutoffs as a list.  Raises ValueError unless they are increasing ints in [1, n_classes - 1]."""
    given = list(cutoffs)
    if not given:
        raise ValueError(at_user_line(f"{name}: cutoffs should be a sequence of length larger than 0"))
    increasing = all(a < b for a, b in zip([0, *given], [*given, n_classes], strict=True))
    if not increasing or any(int(c) != c for c in given):
        raise ValueError(
            at_user_line(
                f"{name}: cutoffs should be a sequence of unique, positive integers sorted in an increasing order, "
                f"where each value is between 1 and n_classes-1 ({n_classes - 1}), got {given}"
            )
        )
    return given


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log softmax over classes by falling frequency: a head of the frequent ones and of clusters, and a narrow tail a cluster.

    [N, in_features], integers [N] (or [in_features], []) -> (output [N], loss []).  Every row goes through every cluster, so
    that the work does not depend on the targets.  Source: Grave and others 2016, Efficient softmax approximation for GPUs.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        given = _cutoffs(type(self).__name__, cutoffs, n_classes)
        self.in_features, self.n_classes, self.cutoffs = in_features, n_classes, [*given, n_classes]
        self.div_value, self.head_bias = div_value, head_bias
        self.shortlist_size, self.n_clusters = given[0], len(given)
        self.head_size = self.shortlist_size + self.n_clusters
        how: dict[str, Any] = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **how)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            width, classes = int(in_features // (div_value ** (i + 1))), self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(Sequential(Linear(in_features, width, False, **how), Linear(width, classes, False, **how)))

    def reset_parameters(self) -> None:
        """New values of every projection."""
        self.head.reset_parameters()
        for pair in self.tail:
            for projection in pair:  # type: ignore[attr-defined]
                projection.reset_parameters()

    def _check(self, input: Tensor, target: Tensor) -> None:
        """Raises RuntimeError for shapes that do not fit."""
        name, wanted = type(self).__name__, {0: 1, 1: 2}
        if target.ndim not in wanted:
            raise RuntimeError(at_user_line(f"{name}: 0D or 1D target tensor expected, multi-target not supported"))
        shapes = f"got {tuple(input.shape)} and {tuple(target.shape)}"
        if input.ndim != wanted[target.ndim]:
            raise RuntimeError(at_user_line(f"{name}: {target.ndim}D target expects {wanted[target.ndim]}D input, {shapes}"))
        if target.ndim == 1 and input.shape[0] != target.shape[0]:
            raise RuntimeError(at_user_line(f"{name}: Input and target should have the same size in the batch dimension, {shapes}"))

    def forward(self, input_: Tensor, target_: Tensor) -> _ASMoutput:
        """(log probability of every sample's target, minus their mean).  Raises RuntimeError for targets outside the classes."""
        self._check(input_, target_)
        where, gather = Op.table["where"], Op.table["gather"]
        rows: Any = input_
        wanted: Any = target_
        if not target_.ndim:
            rows, wanted = rows.unsqueeze(0), wanted.unsqueeze(0)
        place, within = wanted, Op.table["zeros"](tuple(wanted.shape), dtype=rows.dtype)
        clusters = zip(self.tail, self.cutoffs[:-1], self.cutoffs[1:], strict=True)
        for i, (tail, low, high) in enumerate(clusters):
            inside = (wanted >= low) & (wanted < high)
            place = where(inside, self.shortlist_size + i, place)
            scores = F.log_softmax(tail(rows), dim=1)
            own = gather(scores, 1, where(inside, wanted - low, 0).unsqueeze(1)).squeeze(1)
            within = where(inside, own, within)
        place = where(wanted >= self.n_classes, self.head_size, place)  # no class: `gather` refuses it
        try:
            head = gather(F.log_softmax(self.head(rows), dim=1), 1, place.unsqueeze(1)).squeeze(1)
        except RuntimeError as error:
            message = f"{type(self).__name__}: Target values should be in [0, {self.n_classes - 1}]"
            raise RuntimeError(at_user_line(message)) from error
        output = head + within
        loss = -output.mean()
        return _ASMoutput(output if target_.ndim else output.squeeze(0), loss)

    def _get_full_log_prob(self, input: Tensor, head: Tensor) -> Tensor:
        """Log probabilities of all classes, of the head's scores.  [N, D], [N, head_size] -> [N, n_classes]."""
        own = F.log_softmax(head, dim=1)
        parts = [own[:, : self.shortlist_size]]
        for i, tail in enumerate(self.tail):
            parts.append(F.log_softmax(tail(input), dim=1) + own[:, self.shortlist_size + i].unsqueeze(1))
        return Op.table["cat"](parts, 1)  # type: ignore[no-any-return]

    def log_prob(self, input: Tensor) -> Tensor:
        """Log probabilities of all classes.  [N, in_features] -> [N, n_classes]."""
        return self._get_full_log_prob(input, self.head(input))

    def predict(self, input: Tensor) -> Tensor:
        """The likeliest class of every sample; the clusters are only looked into where the head chooses one.  [N, D] -> [N]."""
        head = self.head(input)
        chosen = Op.table["argmax"](head, 1)
        anywhere = Op.table["argmax"](self._get_full_log_prob(input, head), 1)
        return Op.table["where"](chosen >= self.shortlist_size, anywhere, chosen)  # type: ignore[no-any-return]


class LinearCrossEntropyLoss(_WeightedLoss):
    """A `Linear` to classes and its cross entropy.  [N, in_features], integers [N, *out_features] (or probabilities
    [N, num_classes, *out_features]) -> [].  Raises RuntimeError for a weight or a smoothing that does not fit.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: DType | None = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: LinearCrossEntropyOptions | None = None,
    ) -> None:
        if weight is not None and tuple(weight.shape) != (num_classes,):
            raise RuntimeError(at_user_line(f"expected weight shape to be {(num_classes,)}, got {tuple(weight.shape)}"))
        if not 0 <= label_smoothing <= 1:
            raise RuntimeError(at_user_line(f"expected label_smoothing to be in range [0, 1], got {label_smoothing}"))
        super().__init__(weight, reduction=reduction)
        self.num_classes, self.out_features = num_classes, out_features
        self.ignore_index, self.label_smoothing, self.options = ignore_index, label_smoothing, options
        self.linear = Linear(in_features, num_classes * math.prod(out_features), bias, device, dtype)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        shape = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return F.linear_cross_entropy(
            input,
            self.linear.weight.reshape((*shape, self.linear.in_features)),  # type: ignore[attr-defined]
            target,
            linear_bias=None if bias is None else bias.reshape(shape),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
        )

    def extra_repr(self) -> str:
        """Sizes and options."""
        names = ("reduction", "ignore_index", "label_smoothing", "options")
        words = [f"in_features={self.linear.in_features}, num_classes={self.num_classes}, out_features={self.out_features}"]
        words += [f"bias={self.linear.bias is not None}", *(f"{name}={getattr(self, name)}" for name in names)]
        return ", ".join(words)
