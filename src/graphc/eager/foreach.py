"""``_foreach_*``: an operator on every tensor of a list, as optimizers outside this library call it.

Enters: lists of tensors.  Leaves: lists of results, or the same tensors changed.  Made from the operators' table by rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.ir.op import Op

Function = Callable[..., Any]


def _spread(value: Any, count: int, name: str) -> list[Any]:
    """One value for each tensor."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise RuntimeError(f"{name}: Tensor lists must have the same number of tensors, got {count} and {len(value)}")
    return list(value)


def _calls(name: str, tensors: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """(tensor, its own arguments) in turn.  Keywords but ``alpha`` (add, sub) are positional ones of PyTorch by name."""
    alpha = {"alpha": kwargs.pop("alpha")} if "alpha" in kwargs else {}
    spread = [_spread(value, len(tensors), name) for value in (*args, *kwargs.values())]
    for i, x in enumerate(tensors):
        yield x, [values[i] for values in spread], alpha


def _scaled(method: str, rest: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of one tensor's method: the scalar of addcmul and addcdiv is their ``value``."""
    if method.startswith(("addcmul", "addcdiv")) and len(rest) == 3:
        return rest[:2], {"value": rest[2]}
    return rest, {}


def _result(name: str, op: str) -> Function:
    def call(tensors: Any, *args: Any, **kwargs: Any) -> list[Any]:
        found = []
        for x, rest, alpha in _calls(name, tensors, args, kwargs):
            positional, named = _scaled(op, rest)
            found.append(Op.table[op](x, *positional, **named, **alpha))
        return found

    return call


def _inplace(name: str, op: str) -> Function:
    result = _result(name, op)

    def call(tensors: Any, *args: Any, **kwargs: Any) -> None:
        for x, value in zip(tensors, result(tensors, *args, **kwargs), strict=True):
            x.copy_(value)

    return call


def _foreach_norm(tensors: Any, ord: float = 2, dtype: Any = None) -> list[Any]:  # PyTorch's argument name
    """The vector norm of every tensor of a list."""
    return [Op.table["vector_norm"](x, ord, dtype=dtype) for x in tensors]


def _foreach_copy_(tensors: Any, sources: Any, non_blocking: bool = False) -> None:
    """Copy every source into the tensor at its place."""
    for x, source in zip(tensors, _spread(sources, len(tensors), "_foreach_copy_"), strict=True):
        x.copy_(source)


def _foreach_zero_(tensors: Any) -> None:
    """Make every tensor of a list zeros."""
    for x in tensors:
        x.zero_()


def function(name: str) -> Function:
    """The function of that name.  Raises AttributeError where there is no such operator."""
    listed = {f.__name__: f for f in (_foreach_norm, _foreach_copy_, _foreach_zero_)}
    if name in listed:
        return listed[name]
    op = name.removeprefix("_foreach_").removesuffix("_")
    if op not in Op.table:
        raise AttributeError(f"module 'graphc' has no attribute {name!r}")
    call = _inplace(name, op) if name.endswith("_") else _result(name, op)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"`{op}` of every tensor of a list.  Raises RuntimeError for lists of other lengths."
    return call
