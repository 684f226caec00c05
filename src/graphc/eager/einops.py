"""Tensors as einops knows them.  einops finds its backends among the classes that exist when it first meets a tensor.

Enters: einops' module of backends, when it is there.  Leaves: a backend class.  Never here: an import of einops (a program that
does not use it never loads it).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from graphc.eager.creation import arange, from_numpy
from graphc.eager.tensor import Tensor
from graphc.ir.op import Op

_MODULE = "einops._backends"
_REDUCTIONS = {"min": "amin", "max": "amax", "sum": "sum", "mean": "mean"}


class _Operations:
    """What einops asks of a backend."""

    framework_name = "graphc"

    def is_appropriate_type(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor)

    def from_numpy(self, x: Any) -> Tensor:
        return from_numpy(x)

    def to_numpy(self, x: Any) -> Any:
        return x.detach().numpy()

    def arange(self, start: int, stop: int) -> Tensor:
        return arange(start, stop)

    def shape(self, x: Any) -> tuple[Any, ...]:
        return tuple(x.shape)

    def reshape(self, x: Any, shape: Any) -> Any:
        return x.reshape(tuple(shape))

    def transpose(self, x: Any, axes: Any) -> Any:
        return x.permute(tuple(axes))

    def reduce(self, x: Any, operation: str, reduced_axes: Any) -> Any:
        if operation in _REDUCTIONS:
            return getattr(x, _REDUCTIONS[operation])(tuple(reduced_axes))
        if operation not in ("any", "all", "prod"):
            raise NotImplementedError(f"einops: unknown reduction {operation!r} of graphc tensors")
        for axis in sorted(reduced_axes, reverse=True):
            x = getattr(x, operation)(axis)
        return x

    def stack_on_zeroth_dimension(self, tensors: list[Any]) -> Any:
        return Op.table["stack"](list(tensors), 0)

    def concat(self, tensors: Any, axis: int) -> Any:
        return Op.table["cat"](list(tensors), axis)

    def add_axis(self, x: Any, new_position: int) -> Any:
        return x.unsqueeze(new_position)

    def add_axes(self, x: Any, n_axes: int, pos2len: dict[int, int]) -> Any:
        repeats = [-1] * n_axes
        for position, length in pos2len.items():
            x = x.unsqueeze(position)
            repeats[position] = length
        return x.expand(repeats)

    def tile(self, x: Any, repeats: Any) -> Any:
        return x.repeat(tuple(repeats))

    def is_float_type(self, x: Any) -> bool:
        return x.dtype.kind in "fc"

    def einsum(self, pattern: str, *x: Any) -> Any:
        return Op.table["einsum"](pattern, *x)


def _define(backends: ModuleType) -> None:
    backends.GraphcBackend = type("GraphcBackend", (_Operations, backends.AbstractBackend), {})  # type: ignore[attr-defined]


class _WhenImported:
    """A finder that finds nothing itself: it has the backend defined once einops' module has run."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader.exec_module = functools.partial(_run_and_define, spec.loader.exec_module)  # type: ignore[method-assign]
                return spec
        return None


def _run_and_define(run: Callable[[ModuleType], None], module: ModuleType) -> None:
    run(module)
    _define(module)


def register() -> None:
    """Have einops take tensors: now if it is loaded, else when it is."""
    if _MODULE in sys.modules:
        _define(sys.modules[_MODULE])
    else:
        sys.meta_path.insert(0, _WhenImported())  # type: ignore[arg-type]
