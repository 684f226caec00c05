"""Arrays from data and sizes by the array API standard.

Enters: data, sizes.  Leaves: arrays.  Never here: elements computed from elements.
"""

from __future__ import annotations

from typing import Any

import graphc
from graphc import Tensor, from_dlpack
from graphc.dtypes import DType, default_for_scalar


def asarray(obj: Any, /, *, dtype: DType | None = None, device: Any = None, copy: bool | None = None) -> Tensor:
    """`obj` as an array: `graphc.asarray`."""
    return graphc.asarray(obj, dtype=dtype, device=device, copy=copy)


def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """start, start + step, ... before stop; empty where the step leads away from it."""
    if stop is None:
        start, stop = 0, start
    if (stop - start) * step <= 0 and step != 0:
        if dtype is None:
            dtype = graphc.int64 if all(isinstance(v, int) for v in (start, stop, step)) else graphc.get_default_dtype()
        return graphc.empty((0,), dtype=dtype, device=device)
    return graphc.arange(start, stop, step, dtype=dtype, device=device)


def linspace(
    start: Any, stop: Any, /, num: int, *, dtype: DType | None = None, device: Any = None, endpoint: bool = True
) -> Tensor:
    """num evenly spaced numbers from start to stop, or to one step before it."""
    if dtype is None:
        dtype = graphc.get_default_dtype()
        if isinstance(start, complex) or isinstance(stop, complex):
            dtype = dtype.to_complex()
    if endpoint:
        return graphc.linspace(start, stop, num, dtype=dtype, device=device)
    return graphc.linspace(start, stop, num + 1, dtype=dtype, device=device)[:num]  # type: ignore[index,no-any-return]


def empty(shape: Any, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """Zeros: nothing is left undefined."""
    return graphc.empty(shape, dtype=dtype, device=device)


def zeros(shape: Any, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array of zeros."""
    return graphc.zeros(shape, dtype=dtype, device=device)


def ones(shape: Any, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array of ones."""
    return graphc.ones(shape, dtype=dtype, device=device)


def full(shape: Any, fill_value: Any, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array filled with a number, of that number's dtype unless one is given."""
    dtype = default_for_scalar(fill_value) if dtype is None else dtype
    return graphc.full((shape,) if isinstance(shape, int) else tuple(shape), fill_value, dtype=dtype, device=device)


def empty_like(x: Tensor, /, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """Zeros of the shape (and dtype) of x."""
    return graphc.empty_like(x, dtype=dtype, device=device)


def zeros_like(x: Tensor, /, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """Zeros of the shape (and dtype) of x."""
    return graphc.zeros_like(x, dtype=dtype, device=device)


def ones_like(x: Tensor, /, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """Ones of the shape (and dtype) of x."""
    return graphc.ones_like(x, dtype=dtype, device=device)


def full_like(x: Tensor, /, fill_value: Any, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """A number in the shape (and dtype) of x."""
    return graphc.full(tuple(x.shape), fill_value, dtype=x.dtype if dtype is None else dtype, device=device)


def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: DType | None = None, device: Any = None) -> Tensor:
    """Ones on the k-th diagonal, else zeros."""
    n_cols = n_rows if n_cols is None else n_cols
    if k == 0:
        return graphc.eye(n_rows, n_cols, dtype=dtype, device=device)
    if not -n_rows < k < n_cols:
        return graphc.zeros(n_rows, n_cols, dtype=dtype, device=device)
    rows, columns = graphc.arange(n_rows).unsqueeze(1), graphc.arange(n_cols)  # type: ignore[attr-defined]
    return (columns - rows == k).to(graphc.get_default_dtype() if dtype is None else dtype)  # type: ignore[operator,attr-defined,no-any-return]


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> list[Tensor]:
    """Grids of coordinates.  Raises ValueError for another indexing than ``xy`` or ``ij``."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}")
    return list(graphc.meshgrid(*arrays, indexing=indexing)) if arrays else []


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """x on and below the k-th diagonal, else zeros."""
    return graphc.tril(x, k)  # type: ignore[no-any-return]


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """x on and above the k-th diagonal, else zeros."""
    return graphc.triu(x, k)  # type: ignore[no-any-return]


__all__ = [
    "arange", "asarray", "empty", "empty_like", "eye", "from_dlpack", "full", "full_like", "linspace", "meshgrid", "ones",
    "ones_like", "tril", "triu", "zeros", "zeros_like",
]  # fmt: skip
