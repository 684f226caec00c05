"""Operators of the user's own, under the names of ``torch.library``: Python functions with gradients of their own.

Enters: functions of tensors.  Leaves: callables that record their gradient rule on the tape and trace as what they compute.
Never here: compiled libraries; functions for other devices than the CPU, which are taken and never run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from graphc.autograd import Function
from graphc.errors import at_user_line

Devices = str | Iterable[str] | None
_operators: dict[str, CustomOpDef] = {}


class CustomOpDef:
    """A function as an operator, differentiated as what it computes is unless `register_autograd` gives it a rule."""

    def __init__(self, name: str, fn: Callable[..., Any], device_types: Devices) -> None:
        self._name, self._function = name, fn if _has_cpu(device_types) else self._missing
        self._rule: type[Function] | None = None
        self.__name__, self.__doc__ = name.rpartition("::")[2], fn.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compute(*args, **kwargs) if self._rule is None else self._rule.apply(*args, **kwargs)

    def _compute(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def _missing(self, *_: Any, **__: Any) -> NoReturn:
        message = f"Could not run '{self._name}': it has no function for the CPU; register_kernel('cpu') adds one"
        raise NotImplementedError(at_user_line(message))

    def register_fake(self, fn: Callable[..., Any], /) -> Callable[..., Any]:
        """`fn`: shapes are inferred from what the operator computes."""
        return fn

    def register_kernel(self, device_types: Devices, fn: Callable[..., Any] | None = None, /) -> Any:
        """`fn` is what the operator computes on those devices ("cpu", a sequence of such, or None for all).  Also a decorator."""

        def registered(function: Callable[..., Any]) -> Callable[..., Any]:
            if _has_cpu(device_types):
                self._function = function
            return function

        return registered if fn is None else registered(fn)

    def register_autograd(self, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None) -> None:
        """The rule: ``backward(ctx, *grads)`` gives a gradient each; ``setup_context(ctx, inputs, output)`` runs before."""
        keep = setup_context or (lambda ctx, inputs, output: None)
        names = {"forward": staticmethod(self._compute), "setup_context": staticmethod(keep), "backward": staticmethod(backward)}
        self._rule = type(self.__name__, (Function,), names)

    def __repr__(self) -> str:
        return f"<CustomOpDef({self._name})>"


def _has_cpu(device_types: Devices) -> bool:
    return device_types is None or "cpu" in ((device_types,) if isinstance(device_types, str) else device_types)


def custom_op(
    name: str,
    fn: Callable[..., Any] | None = None,
    /,
    *,
    mutates_args: str | Iterable[str],
    device_types: Devices = None,
    schema: str | None = None,
    tags: Any = None,
) -> Any:
    """A function as an operator of that name (``namespace::name``).  Also a decorator.

    mutates_args, schema, tags: accepted; what the function takes and writes is seen anyway.   device_types: where `fn` runs; a
    call of an operator without a function for the CPU raises NotImplementedError.   Raises ValueError for a name without a
    namespace.
    """
    if name.count("::") != 1:
        raise ValueError(at_user_line(f"custom_op(name, ...): expected a name of the form namespace::name, got {name}"))

    def made(function: Callable[..., Any]) -> CustomOpDef:
        _operators[name] = CustomOpDef(name, function, device_types)
        return _operators[name]

    return made if fn is None else made(fn)


def _operator(op: str | CustomOpDef) -> CustomOpDef:
    if isinstance(op, CustomOpDef):
        return op
    if op not in _operators:
        raise RuntimeError(at_user_line(f"library: there is no operator {op}; custom_op makes one"))
    return _operators[op]


def register_kernel(
    op: str | CustomOpDef, device_types: Devices, func: Callable[..., Any] | None = None, /, *, lib: Any = None
) -> Any:
    """`CustomOpDef.register_kernel`.  Raises RuntimeError for no operator."""
    return _operator(op).register_kernel(device_types, func)


def register_fake(
    op: str | CustomOpDef, func: Callable[..., Any] | None = None, /, *, lib: Any = None, allow_override: bool = False
) -> Any:
    """The function: shapes are inferred from what the operator computes.  Also a decorator.

    Raises RuntimeError for no operator.
    """
    _operator(op)
    return (lambda fn: fn) if func is None else func


def register_autograd(
    op: str | CustomOpDef, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None, lib: Any = None
) -> None:
    """`CustomOpDef.register_autograd`.  Raises RuntimeError for no operator."""
    _operator(op).register_autograd(backward, setup_context=setup_context)


class Library:
    """Operators by schema and device, which there are none of."""

    def __init__(self, ns: str, kind: str, dispatch_key: str = "") -> NoReturn:
        """Raises NotImplementedError: `custom_op` makes operators."""
        raise NotImplementedError(at_user_line(f"library.Library({ns!r}, {kind!r}): use graphc.library.custom_op"))


__all__ = ["CustomOpDef", "Library", "custom_op", "register_autograd", "register_fake", "register_kernel"]
