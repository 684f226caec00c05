"""Maps of whole vectors and matrices: reshaping, simplexes, triangles, and maps of parts.

Enters: tensors.  Leaves: tensors.  Never here: maps of single numbers (`transforms`, which names these too).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.distributions import constraints
from graphc.distributions.parameters import op
from graphc.distributions.transforms import SigmoidTransform, Transform, _Fixed
from graphc.eager.creation import finfo
from graphc.eager.tensor import Size
from graphc.errors import at_user_line


class ReshapeTransform(Transform):
    """Events of one shape as events of another.  Raises ValueError for shapes of different sizes."""

    bijective = True

    def __init__(self, in_shape: Any, out_shape: Any, cache_size: int = 0) -> None:
        self.in_shape, self.out_shape = Size(in_shape), Size(out_shape)
        if math.prod(self.in_shape) != math.prod(self.out_shape):
            raise ValueError(at_user_line("in_shape, out_shape have different numbers of elements"))
        super().__init__(cache_size=cache_size)

    @constraints.dependent_property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.independent(constraints.real, len(self.in_shape))

    @constraints.dependent_property
    def codomain(self) -> Any:  # type: ignore[override]
        return constraints.independent(constraints.real, len(self.out_shape))

    def with_cache(self, cache_size: int = 1) -> Transform:
        return self if self._cache_size == cache_size else ReshapeTransform(self.in_shape, self.out_shape, cache_size)

    def _call(self, x: Any) -> Any:
        return x.reshape((*x.shape[: x.dim() - len(self.in_shape)], *self.out_shape))

    def _inverse(self, y: Any) -> Any:
        return y.reshape((*y.shape[: y.dim() - len(self.out_shape)], *self.in_shape))

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return op("zeros")(tuple(x.shape[: x.dim() - len(self.in_shape)]), dtype=x.dtype)

    def forward_shape(self, shape: Any) -> Any:
        return _other_end(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Any) -> Any:
        return _other_end(shape, self.out_shape, self.in_shape)


def _other_end(shape: Any, end: Any, other: Any) -> Any:
    """A shape with `other` for its last sizes `end`.  Raises ValueError where it does not end so."""
    cut = len(shape) - len(end)
    if cut < 0:
        raise ValueError(at_user_line("Too few dimensions on input"))
    if tuple(shape[cut:]) != tuple(end):
        raise ValueError(at_user_line(f"Shape mismatch: expected {tuple(shape[cut:])} but got {tuple(end)}"))
    return Size((*shape[:cut], *other))


class SoftmaxTransform(_Fixed):
    """y = softmax(x) along the last dim: not one to one."""

    domain, codomain, bijective = constraints.real_vector, constraints.simplex, False

    def _call(self, x: Any) -> Any:
        probs = (x - x.max(-1, True)[0]).exp()
        return probs / probs.sum(-1, True)

    def _inverse(self, y: Any) -> Any:
        return y.log()

    def forward_shape(self, shape: Any) -> Any:
        return _at_least(shape, 1)

    inverse_shape = forward_shape


def _at_least(shape: Any, rank: int) -> Any:
    if len(shape) < rank:
        raise ValueError(at_user_line("Too few dimensions on input"))
    return shape


class StickBreakingTransform(_Fixed):
    """Vectors of n numbers to vectors of n + 1 probabilities: each breaks off a part of what is left of a stick."""

    domain, codomain = constraints.real_vector, constraints.simplex

    def _call(self, x: Any) -> Any:
        offset = x.shape[-1] + 1 - op("ones_like")(x).cumsum(-1)
        z = SigmoidTransform()(x - offset.log())
        left = (1 - z).cumprod(-1)
        pad = op("pad")
        return pad(z, [0, 1], value=1) * pad(left, [1, 0], value=1)

    def _inverse(self, y: Any) -> Any:
        parts = y[..., :-1]
        offset = y.shape[-1] - op("ones_like")(parts).cumsum(-1)
        left = (1 - parts.cumsum(-1)).clamp(min=finfo(y.dtype).tiny)
        return parts.log() - left.log() + offset.log()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """log |dy/dx| at x, where y is the map's value."""
        offset = x.shape[-1] + 1 - op("ones_like")(x).cumsum(-1)
        x = x - offset.log()
        return (-x + op("logsigmoid")(x) + y[..., :-1].log()).sum(-1)

    def forward_shape(self, shape: Any) -> Any:
        return Size((*_at_least(shape, 1)[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Any) -> Any:
        return Size((*_at_least(shape, 1)[:-1], shape[-1] - 1))


class LowerCholeskyTransform(_Fixed):
    """Square matrices to lower triangles with a positive diagonal: exp of the diagonal."""

    domain, codomain, bijective = constraints.independent(constraints.real, 2), constraints.lower_cholesky, False

    def _call(self, x: Any) -> Any:
        return x.tril(-1) + op("diag_embed")(x.diagonal(dim1=-2, dim2=-1).exp())

    def _inverse(self, y: Any) -> Any:
        return y.tril(-1) + op("diag_embed")(y.diagonal(dim1=-2, dim2=-1).log())


class PositiveDefiniteTransform(_Fixed):
    """Square matrices to positive definite ones."""

    domain, codomain, bijective = constraints.independent(constraints.real, 2), constraints.positive_definite, False

    def _call(self, x: Any) -> Any:
        triangle = LowerCholeskyTransform()(x)
        return triangle @ triangle.mT

    def _inverse(self, y: Any) -> Any:
        return LowerCholeskyTransform().inv(op("linalg_cholesky")(y))


def _vector_to_tril(x: Any, size: int) -> Any:
    """A strictly lower triangle [..., n, n] from its elements row by row [..., n * (n - 1) / 2]."""
    rows = []
    start = 0
    for i in range(size):
        row = op("pad")(x[..., start : start + i], [0, size - i], value=0)
        rows.append(row)
        start += i
    return op("stack")(rows, -2)


def _tril_to_vector(x: Any) -> Any:
    """The elements below the diagonal, row by row."""
    return op("cat")([x[..., i, :i] for i in range(1, x.shape[-1])], -1)


class CorrCholeskyTransform(_Fixed):
    """Vectors of n * (n - 1) / 2 numbers to lower factors of correlation matrices."""

    domain, codomain = constraints.real_vector, constraints.corr_cholesky

    def _size(self, count: int) -> int:
        size = round((0.25 + 2 * count) ** 0.5 + 0.5)
        if size * (size - 1) // 2 != count:
            raise ValueError(at_user_line("Input is not a flattened lower-diagonal number"))
        return size

    def _call(self, x: Any) -> Any:
        eps = finfo(x.dtype).eps
        r = _vector_to_tril(x.tanh().clamp(min=-1 + eps, max=1 - eps), self._size(x.shape[-1]))
        left = (1 - r**2).sqrt().cumprod(-1)
        identity = op("eye")(r.shape[-1], dtype=r.dtype)
        return (r + identity) * op("pad")(left[..., :-1], [1, 0], value=1)

    def _inverse(self, y: Any) -> Any:
        left = op("pad")((1 - (y * y).cumsum(-1))[..., :-1], [1, 0], value=1)
        t = _tril_to_vector(y) / _tril_to_vector(left).sqrt()
        return (t.log1p() - (-t).log1p()) / 2

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """log |dy/dx| at x, where y is the map's value."""
        left = 1 - (y * y).cumsum(-1)
        rest = op("cat")([left[..., i, : i - 1] for i in range(2, y.shape[-1])], -1) if y.shape[-1] > 2 else x[..., :0]
        stretch = -2 * (x + op("softplus")(-2 * x) - math.log(2.0))
        return 0.5 * rest.log().sum(-1) + stretch.sum(-1)

    def forward_shape(self, shape: Any) -> Any:
        size = self._size(_at_least(shape, 1)[-1])
        return Size((*shape[:-1], size, size))

    def inverse_shape(self, shape: Any) -> Any:
        if _at_least(shape, 2)[-1] != shape[-2]:
            raise ValueError(at_user_line("Input is not square"))
        return Size((*shape[:-2], shape[-1] * (shape[-1] - 1) // 2))


class _OfParts(Transform):
    """Maps of parts along a dim."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.transforms = [t.with_cache(cache_size) for t in tseq] if cache_size else list(tseq)
        self.dim = dim

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return all(t.bijective for t in self.transforms)


class CatTransform(_OfParts):
    """Maps of parts of `lengths` along `dim`."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, lengths: Any = None, cache_size: int = 0) -> None:
        super().__init__(tseq, dim, cache_size)
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)

    def with_cache(self, cache_size: int = 1) -> Transform:
        return self if self._cache_size == cache_size else CatTransform(self.transforms, self.dim, self.lengths, cache_size)

    @constraints.dependent_property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.cat([t.domain for t in self.transforms], self.dim, self.lengths)

    @constraints.dependent_property
    def codomain(self) -> Any:  # type: ignore[override]
        return constraints.cat([t.codomain for t in self.transforms], self.dim, self.lengths)

    def _call(self, x: Any) -> Any:
        parts = x.split(self.lengths, self.dim)
        return op("cat")([t(part) for t, part in zip(self.transforms, parts, strict=True)], self.dim)

    def _inverse(self, y: Any) -> Any:
        parts = y.split(self.lengths, self.dim)
        return op("cat")([t.inv(part) for t, part in zip(self.transforms, parts, strict=True)], self.dim)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """log |dy/dx| at x, where y is the map's value."""
        pairs = zip(self.transforms, x.split(self.lengths, self.dim), y.split(self.lengths, self.dim), strict=True)
        found = [t.log_abs_det_jacobian(a, b) for t, a, b in pairs]
        if any(t.domain.event_dim for t in self.transforms):
            return sum(found)
        return op("cat")(found, self.dim)


class StackTransform(_OfParts):
    """Maps of slices along `dim`."""

    def with_cache(self, cache_size: int = 1) -> Transform:
        return self if self._cache_size == cache_size else StackTransform(self.transforms, self.dim, cache_size)

    @constraints.dependent_property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.stack([t.domain for t in self.transforms], self.dim)

    @constraints.dependent_property
    def codomain(self) -> Any:  # type: ignore[override]
        return constraints.stack([t.codomain for t in self.transforms], self.dim)

    def _call(self, x: Any) -> Any:
        return op("stack")([t(part) for t, part in zip(self.transforms, x.unbind(self.dim), strict=True)], self.dim)

    def _inverse(self, y: Any) -> Any:
        return op("stack")([t.inv(part) for t, part in zip(self.transforms, y.unbind(self.dim), strict=True)], self.dim)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        pairs = zip(self.transforms, x.unbind(self.dim), y.unbind(self.dim), strict=True)
        return op("stack")([t.log_abs_det_jacobian(a, b) for t, a, b in pairs], self.dim)
