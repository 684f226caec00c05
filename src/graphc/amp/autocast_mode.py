"""`autocast`: a context in which operators choose the dtypes they compute in.

Enters: settings of this thread.  Leaves: settings of this thread, which calls of operators look at (`graphc.eager.autocast`).
Never here: which operator computes in which dtype (its declaration says).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from graphc.dtypes import DType
from graphc.eager.autocast import LOWER, cast_all, settings
from graphc.eager.devices import device
from graphc.errors import at_user_line, warn
from graphc.ir.op import casting

Function = TypeVar("Function", bound=Callable[..., Any])
_NOT_LOWER = (
    "In CPU autocast, but the target dtype is not supported. Disabling autocast.\n"
    "CPU Autocast only supports dtypes of graphc.bfloat16, graphc.float16 currently."
)
NO_CUDA = "CUDA is not available. Disabling autocast."


def _kind(device_type: str) -> str:
    """A device type that autocast knows.  Raises RuntimeError for another."""
    kind = device(device_type).type
    if kind == "meta":
        raise RuntimeError(at_user_line("unsupported scalarType"))
    return kind


class autocast:
    """Operators inside compute in the dtype that suits them: products in `dtype`, what needs precision in float32.

    device_type: only ``cpu`` changes anything; ``cuda`` warns and is off.   dtype: bfloat16 (default of the CPU) or float16; any
    other warns and switches off.   enabled: whether it is on inside.   cache_enabled: taken; casts are not kept.
    A context manager, which may be entered again, and a decorator.
    Raises ValueError for a device type that is no str, RuntimeError for one that does not exist.
    """

    def __init__(
        self, device_type: str, dtype: DType | None = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        if not isinstance(device_type, str):
            raise ValueError(at_user_line(f"Expected `device_type` of type `str`, got: `{type(device_type)}`"))
        self.device = _kind(device_type)
        self.fast_dtype = settings.dtype(self.device) if dtype is None else dtype
        if enabled and self.device == "cuda":
            warn(NO_CUDA, UserWarning)
            enabled = False
        if enabled and self.device == "cpu" and self.fast_dtype not in LOWER:
            warn(_NOT_LOWER, UserWarning)
            enabled = False
        self._enabled = enabled
        self._cache_enabled = settings.cache if cache_enabled is None else cache_enabled
        self.previous: list[tuple[bool, DType, bool, Any]] = []

    def __enter__(self) -> autocast:
        on, dtype = settings.enabled.get(self.device, False), settings.dtype(self.device)
        self.previous.append((on, dtype, settings.cache, casting.current()))
        settings.nesting += 1
        settings.cache = self._cache_enabled
        settings.set(self.device, self._enabled, self.fast_dtype)
        return self

    def __exit__(self, *_: object) -> None:
        on, dtype, cache, caster = self.previous.pop()
        settings.nesting -= 1
        settings.cache = cache
        settings.set(self.device, on, dtype)
        casting.begin(caster)

    def __call__(self, function: Function) -> Function:
        """`function` inside this context."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return cast(Function, wrapped)


# ---- this thread's settings ------------------------------------------------------------------------------------------------


def is_autocast_available(device_type: str) -> bool:
    """Whether autocast knows a device type.  Raises RuntimeError for one that does not exist."""
    return device(device_type).type in ("cpu", "cuda", "xpu", "mps", "hpu", "ipu", "xla", "mtia", "maia", "privateuseone")


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Whether autocast is on in this thread, for a device type (CUDA's if there is none)."""
    return settings.enabled.get("cuda" if device_type is None else _kind(device_type), False)


def set_autocast_enabled(device_type: str | bool, enabled: bool | None = None) -> None:
    """Switch autocast of a device type on or off in this thread; with one argument, CUDA's."""
    kind, on = ("cuda", device_type) if isinstance(device_type, bool) else (_kind(device_type), bool(enabled))
    settings.set(kind, on)


def get_autocast_dtype(device_type: str) -> DType:
    """The dtype that autocast of a device type casts to."""
    return settings.dtype(_kind(device_type))


def set_autocast_dtype(device_type: str, dtype: DType) -> None:
    """Have autocast of a device type cast to `dtype`, in this thread."""
    settings.set(_kind(device_type), dtype=dtype)


def is_autocast_cpu_enabled() -> bool:
    """`is_autocast_enabled` of the CPU."""
    return is_autocast_enabled("cpu")


def set_autocast_cpu_enabled(enabled: bool) -> None:
    """`set_autocast_enabled` of the CPU."""
    set_autocast_enabled("cpu", enabled)


def get_autocast_cpu_dtype() -> DType:
    """`get_autocast_dtype` of the CPU."""
    return get_autocast_dtype("cpu")


def set_autocast_cpu_dtype(dtype: DType) -> None:
    """`set_autocast_dtype` of the CPU."""
    set_autocast_dtype("cpu", dtype)


def get_autocast_gpu_dtype() -> DType:
    """`get_autocast_dtype` of CUDA."""
    return get_autocast_dtype("cuda")


def set_autocast_gpu_dtype(dtype: DType) -> None:
    """`set_autocast_dtype` of CUDA."""
    set_autocast_dtype("cuda", dtype)


def is_autocast_cache_enabled() -> bool:
    """What `set_autocast_cache_enabled` set.  Casts are never kept: what they give is the same."""
    return settings.cache


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Remember a setting that changes nothing."""
    settings.cache = enabled


def clear_autocast_cache() -> None:
    """Nothing to forget."""


def autocast_increment_nesting() -> int:
    """Count one context more; gives how many there are."""
    settings.nesting += 1
    return settings.nesting


def autocast_decrement_nesting() -> int:
    """Count one context less; gives how many there are."""
    settings.nesting -= 1
    return settings.nesting


# ---- autograd functions -----------------------------------------------------------------------------------------------------


def custom_fwd(fwd: Any = None, *, device_type: str, cast_inputs: DType | None = None) -> Any:
    """Decorate the forward of an `autograd.Function`: its backward (`custom_bwd`) runs in the autocast that forward ran in.

    cast_inputs: floating arguments (but float64) become this dtype and forward runs without autocast, where autocast is on.
    Raises ValueError for a device type that is no str.
    """
    if not isinstance(device_type, str):
        raise ValueError(at_user_line(f"Expected `device_type` of type `str`, got: `{type(device_type)}`"))
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def forward(*args: Any, **kwargs: Any) -> Any:
        args[0]._dtype = get_autocast_dtype(device_type)
        args[0]._fwd_used_autocast = on = is_autocast_enabled(device_type)
        if cast_inputs is None:
            return fwd(*args, **kwargs)
        args[0]._fwd_used_autocast = False
        if not on:
            return fwd(*args, **kwargs)
        with autocast(device_type, enabled=False):
            given = [_cast(x, cast_inputs) for x in args]
            return fwd(*given, **{name: _cast(x, cast_inputs) for name, x in kwargs.items()})

    return forward


def _cast(x: Any, dtype: DType) -> Any:
    """An argument with the floating tensors in it, also those in dicts, as `dtype`."""
    if isinstance(x, dict):
        return {name: _cast(value, dtype) for name, value in x.items()}
    return cast_all(x, dtype)


def custom_bwd(bwd: Any = None, *, device_type: str) -> Any:
    """Decorate the backward of an `autograd.Function` whose forward has `custom_fwd`.  Raises ValueError as that."""
    if not isinstance(device_type, str):
        raise ValueError(at_user_line(f"Expected `device_type` of type `str`, got: `{type(device_type)}`"))
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def backward(*args: Any, **kwargs: Any) -> Any:
        with autocast(device_type, enabled=args[0]._fwd_used_autocast, dtype=args[0]._dtype):
            return bwd(*args, **kwargs)

    return backward


__all__ = ["autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
