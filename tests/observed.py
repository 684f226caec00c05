"""What a program shows, as plain values to compare: tensors to the bit, how they share memory, modules, optimizers, errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

import graphc
from graph_cases import TOLERANCE, bits
from graphc import nn

Shown = Any  # nested tuples of plain values; a tensor's elements are the last, an array


class Near:
    """A tensor to be compared within its dtype's tolerance: what is made by sums in an order that nothing fixes."""

    def __init__(self, x: graphc.Tensor) -> None:
        self.type = x.dtype.name, tuple(x.shape)
        self.array = x.detach().double().numpy_view()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Near) or self.type != other.type:
            return False
        tolerance = 50 * TOLERANCE[self.type[0]]
        with np.errstate(all="ignore"):
            scale = max(1.0, float(np.nanmax(np.abs(self.array), initial=0.0)))
            return np.allclose(self.array, other.array, tolerance, tolerance * min(scale, 1e300), equal_nan=True)

    __hash__ = None  # type: ignore[assignment]


class Observer:
    """Turns values into what is compared.  Tensors are numbered in the order they are met, and so is the memory they lie in."""

    def __init__(self) -> None:
        self.tensors: dict[int, int] = {}
        self.storages: dict[int, int] = {}
        self.kept: list[Any] = []  # what is known by id

    def show(self, value: Any) -> Shown:
        """A value of any kind that programs return."""
        if isinstance(value, graphc.Tensor):
            return self.tensor(value)
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, graphc.optim.Optimizer | graphc.optim.lr_scheduler.LRScheduler | graphc.amp.GradScaler):
            return type(value).__name__, self.show(value.state_dict())
        if isinstance(value, Near):
            return value
        if isinstance(value, np.ndarray):
            return "array", str(value.dtype), value.shape, bits(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return type(value).__name__, *((f.name, self.show(getattr(value, f.name))) for f in dataclasses.fields(value))
        if isinstance(value, Mapping):
            return type(value).__name__, *((repr(key), self.show(member)) for key, member in value.items())
        if isinstance(value, list | tuple):
            return type(value).__name__, *map(self.show, value)
        if isinstance(value, BaseException):
            text = "" if isinstance(value, IndexError) else str(value)  # eager `x[i]` names the element that is wrong
            return "raised", type(value).__name__, text
        return type(value).__name__, repr(value)

    def tensor(self, x: graphc.Tensor) -> Shown:
        """Type, place among the other tensors, gradient, elements."""
        shown = type(x).__name__, x.dtype.name, tuple(x.shape), self.place(x), bits(x.numpy_view()).copy()
        number = self.tensors.get(id(x))
        if number is not None:
            return "tensor", number
        number = self.tensors[id(x)] = len(self.tensors)
        self.kept += [x, x._storage]
        memory = self.storages.setdefault(id(x._storage), len(self.storages))
        history = "leaf" if x.is_leaf else "result", x.requires_grad
        return "tensor", number, memory, *history, self.show(x.grad) if x.is_leaf else None, *shown

    def place(self, x):
        strides = tuple(s for s, n in zip(x.stride(), x.shape, strict=True) if n > 1) if x.numel() else ()
        return "at", x.storage_offset(), strides

    def module(self, module: nn.Module) -> Shown:
        """Class, modes and attributes, parameters, buffers and members."""
        held = {name: value for name, value in module.__dict__.items() if not name.startswith("_") and not callable(value)}
        held |= {name: getattr(module, name) for name in dir(module) if name in ("calls", "kept", "kind")}
        own = [*module._parameters.items(), *module._buffers.items(), *module._modules.items()]
        return type(module).__name__, self.show(dict(sorted(held.items()))), *((name, self.show(x)) for name, x in own)


def difference(got: Shown, wanted: Shown, path: str = "") -> str | None:
    """The first place where two shown values are not the same, in words; None where they are."""
    if isinstance(got, np.ndarray) and isinstance(wanted, np.ndarray):
        if got.shape == wanted.shape and got.dtype == wanted.dtype and (got == wanted).all():
            return None
        count = int((got != wanted).sum()) if got.shape == wanted.shape and got.dtype == wanted.dtype else -1
        return f"{path}: {count} of {got.size} elements differ: bits {got.reshape(-1)[:6]}, wanted {wanted.reshape(-1)[:6]}"
    if isinstance(got, tuple) and isinstance(wanted, tuple) and len(got) == len(wanted):
        name = f"{path}.{got[0]}" if got and isinstance(got[0], str) else path
        for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
            found = difference(a, b, f"{name}[{i}]")
            if found is not None:
                return found
        return None
    if isinstance(got, np.ndarray) or isinstance(wanted, np.ndarray) or got != wanted:
        return f"{path}: {shortened(got)}, wanted {shortened(wanted)}"
    return None


def shortened(shown: Shown) -> str:
    """For a message."""
    text = repr(shown)
    return text if len(text) < 300 else text[:300] + "..."
