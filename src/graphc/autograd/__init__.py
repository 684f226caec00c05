"""Gradients under PyTorch's names: `Function`, `grad`, `backward`, anomaly mode, `gradcheck`, `functional`, `graph`, `profiler`.

Enters: nothing.  Leaves: names.  Never here: mechanism (`graphc.eager`).
"""

from __future__ import annotations

from typing import Any

import graphc.namespace  # noqa: F401  tensors get their methods there
from graphc.autograd import function, functional, graph, profiler
from graphc.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from graphc.autograd.profiler import ProfilerActivity
from graphc.eager.anomaly import detect_anomaly, is_anomaly_check_nan_enabled, is_anomaly_enabled, set_detect_anomaly
from graphc.eager.autograd import backward, grad
from graphc.eager.function import Function
from graphc.eager.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line


class _AnyTensor(type):
    def __instancecheck__(cls, x: object) -> bool:
        return isinstance(x, Tensor)


class Variable(metaclass=_AnyTensor):
    """PyTorch's old name of a tensor: ``Variable(x)`` is x off the tape, and every tensor is one."""

    def __new__(cls, data: Any, requires_grad: bool = False, volatile: bool = False) -> Any:
        if not isinstance(data, Tensor):
            raise TypeError(at_user_line(f"Variable data has to be a tensor, but got {type(data).__name__}"))
        return data.detach().requires_grad_(requires_grad)


__all__ = [
    "Function", "GradcheckError", "ProfilerActivity", "Variable", "backward", "detect_anomaly", "enable_grad", "function",
    "functional", "grad", "gradcheck", "gradgradcheck", "graph", "inference_mode", "is_anomaly_check_nan_enabled",
    "is_anomaly_enabled", "is_grad_enabled", "is_inference_mode_enabled", "no_grad", "profiler", "set_detect_anomaly",
    "set_grad_enabled",
]  # fmt: skip
