"""Embedding and EmbeddingBag: tables whose rows indices choose.

Enters: sizes, or a table.  Leaves: modules with PyTorch's names, defaults and initial distribution.
Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any, Self

from graphc.dtypes import DType
from graphc.eager.creation import empty
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.nn import functional as F
from graphc.nn import init
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(at_user_line(message))


class _Table(Module):
    """The table of `Embedding` and `EmbeddingBag`.  Raises AssertionError for sizes that do not fit."""

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None
    max_norm: float | None
    norm_type: float
    scale_grad_by_freq: bool
    sparse: bool
    weight: Parameter

    def _fill(self, padding_idx: int | None, weight: Tensor | None, frozen: bool, device: Any, dtype: DType | None) -> None:
        """Sets `padding_idx` and `weight`: the table that is given, or a new one."""
        rows, width, name = self.num_embeddings, self.embedding_dim, type(self).__name__
        if padding_idx is not None:
            _require(-rows <= padding_idx < rows, f"{name}: padding_idx {padding_idx} must be within num_embeddings {rows}")
            padding_idx %= rows
        self.padding_idx = padding_idx
        if weight is None:
            self.weight = Parameter(empty(rows, width, dtype=dtype, device=device), requires_grad=not frozen)
            self.reset_parameters()
        else:
            shapes = f"{tuple(weight.shape)} is not {(rows, width)}"
            _require(
                tuple(weight.shape) == (rows, width),
                f"{name}: Shape of weight does not match num_embeddings and embedding_dim: {shapes}",
            )
            self.weight = Parameter(weight, requires_grad=not frozen)

    def reset_parameters(self) -> None:
        """Normal values; zeros in the row `padding_idx`."""
        init.normal_(self.weight)
        self._fill_padding_idx_with_zero()

    def _fill_padding_idx_with_zero(self) -> None:
        if self.padding_idx is not None:
            init.zeros_(self.weight.detach()[self.padding_idx])  # type: ignore[index]

    def _shown(self, *defaults: tuple[str, Any]) -> str:
        """Sizes, and what is not as by default."""
        words = [f"{self.num_embeddings}, {self.embedding_dim}"]
        words += [f"{name}={getattr(self, name)!r}" for name, default in defaults if getattr(self, name) != default]
        return ", ".join(words)

    @classmethod
    def _from(cls, embeddings: Tensor, freeze: bool, **how: Any) -> Self:
        _require(
            embeddings.ndim == 2,
            f"{cls.__name__}: Embeddings parameter is expected to be 2-dimensional, got shape {tuple(embeddings.shape)}",
        )
        rows, width = embeddings.shape
        table = cls(rows, width, _weight=embeddings, **how)
        table.weight.requires_grad_(not freeze)
        return table


class Embedding(_Table):
    """Rows of a table chosen by indices.  [...] of integers -> [..., embedding_dim]; the row `padding_idx` gets no gradient.

    max_norm: the rows that a call uses are first scaled down in the table where their norm is above it.
    scale_grad_by_freq: a row's gradient is divided by how often the row was used.
    Differs from torch: with `sparse` gradients are dense all the same.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse = max_norm, norm_type, scale_grad_by_freq, sparse
        self._fill(padding_idx, _weight, _freeze, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        how = (self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse)
        return F.embedding(input, self.weight, *how)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return self._shown(
            ("padding_idx", None), ("max_norm", None), ("norm_type", 2), ("scale_grad_by_freq", False), ("sparse", False)
        )

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Self:
        """A module on a table [n, d], which is not trained where `freeze`.  Raises AssertionError for another rank."""
        how = {"max_norm": max_norm, "norm_type": norm_type, "scale_grad_by_freq": scale_grad_by_freq, "sparse": sparse}
        return cls._from(embeddings, freeze, padding_idx=padding_idx, **how)


class EmbeddingBag(_Table):
    """The sum, mean or max of rows of a table.  ints [B, N], or [L] with offsets [B] -> [B, embedding_dim].

    The arguments that `Embedding` has too mean the same.
    """

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
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.mode, self.sparse, self.include_last_offset = mode, sparse, include_last_offset
        self._fill(padding_idx, _weight, False, device, dtype)

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(  # type: ignore[no-any-return]
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode, self.sparse,
            per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return self._shown(
            ("max_norm", None), ("norm_type", 2), ("scale_grad_by_freq", False), ("mode", None), ("padding_idx", None)
        )

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> Self:
        """A module on a table [n, d], which is not trained where `freeze`.  Raises AssertionError for another rank."""
        how = {"max_norm": max_norm, "norm_type": norm_type, "scale_grad_by_freq": scale_grad_by_freq, "sparse": sparse}
        last = {"include_last_offset": include_last_offset, "padding_idx": padding_idx}
        return cls._from(embeddings, freeze, mode=mode, **how, **last)
