"""`Number`: a Python number that a traced tensor holds, so that code over it can be part of a region.

Enters: traced tensors of one element, and numbers.  Leaves: numbers of that kind, where what is done with them is the same on
tensors.  Never here: statements; questions (`plain` asks for what the number is).

An int is int64, a float float64.  Sums, differences, products and comparisons of ints that fit, and of floats, are those of Python.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from graphc.capture.live import is_live
from graphc.dtypes import DType, bool_, float32, float64, int64
from graphc.eager.tensor import Tensor
from graphc.ir.op import Op
from graphc.trees import flatten

_DTYPES: dict[type, DType] = {bool: bool_, int: int64, float: float64}
_EXACT = 1 << 53
_ARITHMETIC: dict[type, str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul"}
_WHOLE: dict[type, str] = {ast.FloorDiv: "floor_divide", ast.Mod: "remainder"}
_ORDER: dict[type, str] = {
    ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne",
}  # fmt: skip


class Number:
    """kind: `bool`, `int` or `float`.   tensor: without dims, of the dtype of that kind."""

    __slots__ = ("kind", "tensor")

    def __init__(self, kind: type, tensor: Tensor) -> None:
        self.kind, self.tensor = kind, tensor

    def plain(self) -> Any:
        """The number of this call, or one that is asked for later.  Raises in a region, which has no number."""
        return self.tensor.item()


def is_number(x: Any) -> bool:
    """Whether x is a `Number`."""
    return type(x) is Number


def element(x: Tensor, kind: type | None = None) -> Number | None:
    """The one element of a tensor as a number (of another kind); None where Python has no such number here."""
    own = {"b": bool, "i": int, "u": int, "f": float}.get(x.dtype.kind)
    if own is None or (x.dtype.kind == "u" and x.dtype.itemsize == 8) or x.numel() != 1:
        return None
    kind = kind or own
    if kind is int and own is float or kind is bool is not own:
        return None
    shaped = x if not x._array.shape else Op.table["reshape"].run(x, shape=())
    return Number(kind, cast_to(shaped, kind))


def cast_to(x: Tensor, kind: type) -> Tensor:
    """A tensor as one of a kind's dtype."""
    dtype = _DTYPES[kind]
    return x if x.dtype is dtype else Op.table["cast"].run(x, dtype=dtype)


def lifted(x: Any) -> Number | None:
    """A number as one that a tensor holds; None for anything else, and for what has no place in one."""
    if type(x) is Number:
        return x
    if type(x) not in _DTYPES or (type(x) is int and not -(1 << 63) <= x < 1 << 63):
        return None
    return Number(type(x), Op.table["full"].run(value=x, shape=(), dtype=_DTYPES[type(x)]))


def plain(value: Any) -> Any:
    """A nested value with the numbers of this call."""
    found, tree = flatten(value, lambda x: is_number(x) or is_live(x))
    return tree.unflatten([x.plain() if is_number(x) else x for x in found]) if any(map(is_number, found)) else value


def binary(op: ast.operator, left: Any, right: Any, function: Callable[[Any, Any], Any]) -> Any:
    """``left op right`` of which one is a `Number`; `function`: what does it with plain ones."""
    kind = type(op)
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        mixed = _beside_tensor(left, right) if kind in _ARITHMETIC or kind is ast.Div else None
        return function(plain(left), plain(right)) if mixed is None else function(*mixed)
    a, b = lifted(left), lifted(right)
    if a is None or b is None:
        return function(plain(left), plain(right))
    joint = float if float in (a.kind, b.kind) else int
    x, y = cast_to(a.tensor, joint), cast_to(b.tensor, joint)
    if kind in _ARITHMETIC:
        return Number(joint, Op.table[_ARITHMETIC[kind]].run(x, y))
    if type(right) in (int, float) and right:
        if kind is ast.Div:
            return Number(float, Op.table["div"].run(cast_to(x, float), cast_to(y, float)))
        if kind in _WHOLE and joint is int:
            return Number(int, Op.table[_WHOLE[kind]].run(x, y))
    return function(plain(left), plain(right))


def compare(op: ast.cmpop, left: Any, right: Any, function: Callable[[Any, Any], Any]) -> Any:
    """``left op right`` of which one is a `Number`: a number again, or beside a tensor a tensor."""
    name = _ORDER.get(type(op))
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        mixed = None if name is None else _beside_tensor(left, right)
        return function(plain(left), plain(right)) if mixed is None else function(*mixed)
    a, b = lifted(left), lifted(right)
    if name is None or a is None or b is None or not _are_comparable(left, right, a, b):
        return function(plain(left), plain(right))
    joint = float if float in (a.kind, b.kind) else int
    return Number(bool, Op.table[name].run(cast_to(a.tensor, joint), cast_to(b.tensor, joint)))


def _are_comparable(left: Any, right: Any, a: Number, b: Number) -> bool:
    """Whether a comparison in one dtype is that of Python, which compares an int and a float exactly."""
    if float not in (a.kind, b.kind) or a.kind is b.kind:
        return True
    return all(kind.kind is not int or (type(x) is int and abs(x) < _EXACT) for x, kind in ((left, a), (right, b)))


def _beside_tensor(left: Any, right: Any) -> tuple[Any, Any] | None:
    """Operands of which one is a tensor, with a tensor for the number where it is one of the same dtype in eager code too."""
    number, tensor = (left, right) if type(left) is Number else (right, left)
    if type(number) is not Number or not isinstance(tensor, Tensor) or number.kind is bool:
        return None
    if tensor.dtype in (float32, float64):
        wide = cast_to(number.tensor, float)
        made = wide if tensor.dtype is float64 else Op.table["cast"].run(wide, dtype=float32)
    elif tensor.dtype is int64 and number.kind is int:
        made = number.tensor
    else:
        return None
    return (made, tensor) if number is left else (tensor, made)


def negated(x: Number) -> Number:
    """``-x``."""
    kind = int if x.kind is bool else x.kind
    return Number(kind, Op.table["neg"].run(cast_to(x.tensor, kind)))


def inverse(x: Tensor) -> Number:
    """``not x`` of a tensor of one bool."""
    return Number(bool, Op.table["logical_not"].run(x))


def index(value: Any) -> Any:
    """An index with tensors for the whole numbers in it; other numbers are asked for."""
    if type(value) is Number:
        return value.tensor if value.kind is int else value.plain()
    if type(value) is tuple:
        return tuple(map(index, value))
    return plain(value) if not isinstance(value, slice) else slice(*map(plain, (value.start, value.stop, value.step)))
