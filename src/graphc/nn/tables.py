"""EmbeddingBag: a table whose rows are combined by bags of indices.

Enters: sizes.  Leaves: a module with PyTorch's names, defaults and initial distribution.  Never here: single rows (`layers`).
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import DType
from graphc.eager.creation import empty
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.nn import functional as F
from graphc.nn import init
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter


class EmbeddingBag(Module):
    """The sum, mean or max of rows of a table.  ints [B, N], or [L] with offsets [B] -> [B, embedding_dim]."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(at_user_line("padding_idx must be within num_embeddings"))
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.mode, self.sparse, self.include_last_offset = mode, sparse, include_last_offset
        self.padding_idx = padding_idx if padding_idx is None else padding_idx % num_embeddings
        if _weight is None:
            self.weight = Parameter(empty(num_embeddings, embedding_dim, dtype=dtype, device=device))
            self.reset_parameters()
        else:
            self.weight = Parameter(_weight)

    def reset_parameters(self) -> None:
        """Normal values; zeros in the row `padding_idx`."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            init.zeros_(self.weight.detach()[self.padding_idx])  # type: ignore[index]

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode, self.sparse,
            per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Sizes, and what is not as by default."""
        words = [f"{self.num_embeddings}, {self.embedding_dim}"]
        words += [f"max_norm={self.max_norm}"] if self.max_norm is not None else []
        words += [f"norm_type={self.norm_type}"] if self.norm_type != 2 else []
        words += [f"scale_grad_by_freq={self.scale_grad_by_freq}"] if self.scale_grad_by_freq else []
        words.append(f"mode={self.mode!r}")
        words += [f"padding_idx={self.padding_idx}"] if self.padding_idx is not None else []
        return ", ".join(words)
