"""Losses of margins and of pairs as modules, and the distances they use.

Enters: predictions, embeddings, targets.  Leaves: a number, or with ``reduction="none"`` one an element or row.
Never here: what an operator computes; regression and classification (`losses`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.nn import functional as F
from graphc.nn.losses import _Loss, _WeightedLoss
from graphc.nn.module import Module


class PairwiseDistance(Module):
    """The p-norm of the differences over the last dim, `eps` added to each.  [N, D], [N, D] -> [N]."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


class CosineSimilarity(Module):
    """The cosine of the angle between two tensors along `dim`.  [...], [...] -> [...] without dim."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


# ---- one input ---------------------------------------------------------------------------------------------------------


class SoftMarginLoss(_Loss):
    """``log(1 + exp(-target * input))``, targets 1 or -1.  [...], [...] -> []."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.soft_margin_loss(input, target, reduction=self.reduction)


class HingeEmbeddingLoss(_Loss):
    """The input where the target is 1, ``max(0, margin - input)`` where it is -1.  [...], [...] -> []."""

    def __init__(self, margin: float = 1.0, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.hinge_embedding_loss(input, target, margin=self.margin, reduction=self.reduction)


class MultiLabelMarginLoss(_Loss):
    """Hinges between every label's score and the scores of what is no label.  [N, C], integers [N, C] up to -1 -> []."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(_WeightedLoss):
    """The mean over classes of binary cross entropies of logits.  [N, C], [N, C] -> []."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_soft_margin_loss(input, target, weight=self.weight, reduction=self.reduction)


class MultiMarginLoss(_WeightedLoss):
    """Hinges, to the power `p`, between the target's score and all others.  [N, C], integers [N] -> [].

    Raises ValueError for a p that is neither 1 nor 2 and for a weight that is no vector.
    """

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Tensor | None = None,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        if p not in (1, 2):
            raise ValueError(at_user_line("only p == 1 and p == 2 supported"))
        if weight is not None and weight.ndim != 1:
            raise ValueError(at_user_line(f"MultiMarginLoss: expected weight to be None or 1D tensor, got {weight.ndim}D instead"))
        self.p, self.margin = p, margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        how = {"p": self.p, "margin": self.margin, "weight": self.weight, "reduction": self.reduction}
        return F.multi_margin_loss(input, target, **how)


# ---- pairs and triplets ------------------------------------------------------------------------------------------------


class CosineEmbeddingLoss(_Loss):
    """``1 - cosine`` of pairs with target 1, ``max(0, cosine - margin)`` with -1.  [N, D], [N, D], [N] -> []."""

    def __init__(self, margin: float = 0.0, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.cosine_embedding_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


class MarginRankingLoss(_Loss):
    """``max(0, -target * (input1 - input2) + margin)``, targets 1 or -1.  [N], [N], [N] -> []."""

    def __init__(self, margin: float = 0.0, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.margin_ranking_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


def _check_margin(name: str, margin: float) -> None:
    """Raises ValueError unless it is positive."""
    if margin <= 0:
        raise ValueError(at_user_line(f"{name}: expected margin to be greater than 0, got {margin} instead"))


class TripletMarginLoss(_Loss):
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)``, d a p-norm.  Three of [N, D] -> [].

    `swap`: where the positive is nearer to the negative than the anchor is, that distance serves (Balntas and others 2016).
    Raises ValueError for a margin that is not positive.
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        _check_margin("TripletMarginLoss", margin)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        how = {"margin": self.margin, "p": self.p, "eps": self.eps, "swap": self.swap, "reduction": self.reduction}
        return F.triplet_margin_loss(anchor, positive, negative, **how)


class TripletMarginWithDistanceLoss(_Loss):
    """`TripletMarginLoss` of any distance; by default `PairwiseDistance`.  Raises ValueError for a margin that is not positive."""

    def __init__(
        self,
        *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        _check_margin("TripletMarginWithDistanceLoss", margin)
        self.distance_function = PairwiseDistance() if distance_function is None else distance_function
        self.margin, self.swap = margin, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        how = {"margin": self.margin, "swap": self.swap, "reduction": self.reduction}
        return F.triplet_margin_with_distance_loss(anchor, positive, negative, distance_function=self.distance_function, **how)
