"""Modules as other dtypes, on other devices, on other memory: everything that replaces the tensors a module holds.

Enters: modules, the arguments of ``Tensor.to`` and its like.  Leaves: the same modules and parameters with other elements.
Never here: how elements are converted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Self

from graphc.dtypes import DType
from graphc.eager.conversions import placed
from graphc.eager.creation import empty_like
from graphc.eager.devices import check_device, device
from graphc.eager.memory import formatted
from graphc.eager.modes import no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.nn.parameter import is_lazy

Conversion = Callable[[Any], Any]


class Convertible:
    """The part of `Module` that changes the dtype and place of parameters and buffers, here and below, in place."""

    _parameters: Any
    _buffers: Any
    children: Callable[[], Iterator[Any]]

    def _apply(self, fn: Conversion, recurse: bool = True) -> Self:
        """Give every parameter, its gradient and every buffer the memory of what `fn` makes of it."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        for parameter in self._parameters.values():
            if parameter is not None:
                _replace(parameter, fn)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                with no_grad():
                    self._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Convert floating and complex parameters, their gradients and such buffers to a dtype, and those of the right rank to a
        memory format, in place: the forms of ``Tensor.to``.  Tensors can only be on the CPU.

        Raises TypeError for a dtype that is neither floating nor complex, AssertionError or RuntimeError for another device.
        """
        given = placed("to", args, kwargs)
        dtype, place, layout = given.get("dtype"), given.get("device"), given.get("memory_format")
        if place is not None:
            device(place)
        if dtype is not None:
            if dtype.kind not in "fc":
                text = f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={dtype}"
                raise TypeError(at_user_line(text))
            if dtype.kind == "c":
                warnings.warn("complex modules: layers written for real numbers may not work as expected", stacklevel=2)

        def convert(x: Any) -> Any:
            check_device(place)
            made = x if dtype is None or x.dtype.kind not in "fc" else x.to(dtype)
            return formatted(made, layout) if layout is not None and made.ndim in (4, 5) else made

        return self._apply(convert)

    def cpu(self) -> Self:
        """This module: all memory is the CPU's."""
        return self._apply(lambda x: x.cpu())

    def cuda(self, device: Any = None) -> Self:
        """Raises AssertionError where there is a tensor to move: there is no CUDA runtime."""
        return self._apply(lambda x: x.cuda(device))

    def xpu(self, device: Any = None) -> Self:
        """Raises AssertionError where there is a tensor to move: there is no XPU runtime."""
        return self._apply(lambda x: x.xpu(device))

    def type(self, dst_type: DType | str) -> Self:
        """Convert every parameter and buffer to a dtype, given as one or as the name of a tensor class."""
        return self._apply(lambda x: x.type(dst_type))

    def float(self) -> Self:
        """Convert floating parameters and buffers to float32."""
        return self._apply(lambda x: x.float() if x.is_floating_point() else x)

    def double(self) -> Self:
        """Convert floating parameters and buffers to float64."""
        return self._apply(lambda x: x.double() if x.is_floating_point() else x)

    def half(self) -> Self:
        """Convert floating parameters and buffers to float16."""
        return self._apply(lambda x: x.half() if x.is_floating_point() else x)

    def bfloat16(self) -> Self:
        """Convert floating parameters and buffers to bfloat16."""
        return self._apply(lambda x: x.bfloat16() if x.is_floating_point() else x)

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Give every parameter and buffer new memory, whose elements are not set."""
        return self._apply(lambda x: empty_like(x, device=device), recurse)

    def share_memory(self) -> Self:
        """Move parameters and buffers to memory that processes forked from now on share."""
        return self._apply(lambda x: x.share_memory_())


def _replace(parameter: Any, fn: Conversion) -> None:
    """A parameter and its gradient on the memory of what `fn` makes of them."""
    with no_grad():
        made = fn(parameter)
        if is_lazy(parameter):
            parameter.dtype = made.dtype
            return
        grad = parameter.grad
        if made is not parameter:
            parameter.data = made
        if grad is not None:
            requires_grad, converted = grad.requires_grad, fn(grad)
            if converted is not grad:
                grad.data = converted
                grad.requires_grad_(requires_grad)


def clear_grad(tensor: Tensor, set_to_none: bool) -> None:
    """Forget a tensor's gradient, or make it zeros (off the tape)."""
    if set_to_none or tensor.grad is None:
        tensor.grad = None
        return
    if tensor.grad.requires_grad:
        tensor.grad = tensor.grad.detach()
    tensor.grad.zero_()  # type: ignore[attr-defined]


__all__ = ["Convertible", "clear_grad"]
