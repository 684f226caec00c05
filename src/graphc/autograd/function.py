"""PyTorch's place of `Function` and what belongs to it; no mechanism of its own."""

from __future__ import annotations

from graphc.eager.function import Function, FunctionCtx, once_differentiable

BackwardCFunction = FunctionCtx

__all__ = ["BackwardCFunction", "Function", "FunctionCtx", "once_differentiable"]
