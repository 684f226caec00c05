"""Fourier transforms under the names of PyTorch's ``fft``.

Enters: `Op.table`.  Leaves: its functions.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any

from graphc import namespace  # noqa: F401  which installs the operators
from graphc.dtypes import DType
from graphc.eager.factory import creation
from graphc.eager.methods import functions
from graphc.eager.replay import offer
from graphc.eager.tensor import Tensor
from graphc.ir.op import Op

globals().update(functions("fft"))
offer(globals())


@creation
def fftfreq(n: int, d: float = 1.0, *, dtype: DType | None = None) -> Tensor:
    """0, 1, ..., -2, -1 over n * d: the frequencies of `fft` for samples d apart.  () -> [n]."""
    return Op.table["fft_fftfreq"](n, d, dtype=dtype)  # type: ignore[no-any-return]


@creation
def rfftfreq(n: int, d: float = 1.0, *, dtype: DType | None = None) -> Tensor:
    """0, 1, ..., n // 2 over n * d: the frequencies of `rfft` for samples d apart.  () -> [n // 2 + 1]."""
    return Op.table["fft_rfftfreq"](n, d, dtype=dtype)  # type: ignore[no-any-return]


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'graphc.fft' has no attribute {name!r}")
