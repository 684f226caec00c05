"""Public arguments made strict: scalars become 0-d constants, dtypes are promoted, dims and shapes canonical.

Enters: what users pass.  Leaves: carriers (eager tensors or graph values) and attributes.
Never here: what an operator computes.

A carrier is anything whose ``.dtype`` is a `DType`; nothing more is known of it than `dtype`, `shape` and `ndim`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from graphc.dims import Dim, product
from graphc.dtypes import DType, get_default_dtype, result_type
from graphc.ir.op import Op, Shape, Size, TensorType, canonical_dim, shape_text

Promotion = Literal["same", "float"]
Tensor = Any  # a carrier


def is_tensor(x: Any) -> bool:
    """Whether `x` is a carrier."""
    return isinstance(getattr(x, "dtype", None), DType)


def tensor(name: str, argument: str, x: Any) -> Tensor:
    """`x`, which must be a tensor.  Raises TypeError."""
    if not is_tensor(x):
        raise TypeError(f"{name}: argument '{argument}' must be a Tensor, not {type(x).__name__}")
    return x


def tensors(name: str, argument: str, sequence: Any) -> tuple[Tensor, ...]:
    """A non-empty sequence of tensors.  Raises TypeError or RuntimeError."""
    if is_tensor(sequence) or not isinstance(sequence, list | tuple):
        raise TypeError(f"{name}: argument '{argument}' must be a list or tuple of Tensors, not {type(sequence).__name__}")
    if not sequence:
        raise RuntimeError(f"{name}: expected a non-empty list of Tensors")
    return tuple(tensor(name, f"{argument}[{i}]", x) for i, x in enumerate(sequence))


def of_type(x: Tensor) -> TensorType:
    """dtype and shape of a carrier, for messages."""
    return TensorType(x.dtype, tuple(x.shape))


def constant(value: Any, dtype: DType, shape: Shape = ()) -> Tensor:
    """A tensor of `shape` filled with a number (or symbolic size)."""
    return Op.table["full"].run(value=value, shape=shape, dtype=dtype)


def cast(x: Tensor, dtype: DType) -> Tensor:
    """`x` as `dtype`; `x` itself where it is already."""
    return x if x.dtype is dtype else Op.table["cast"].run(x, dtype=dtype)


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of the type of `x`."""
    return constant(0, x.dtype, tuple(x.shape))


# ---- numbers and promotion -----------------------------------------------------------------------------------------


def number(name: str, argument: str, x: Any) -> Any:
    """A Python number (or symbolic size); NumPy scalars and tensors of no dims are unwrapped.  Raises TypeError."""
    if type(x) is float or type(x) is int:
        return x
    if isinstance(x, np.generic) or _is_one(x, "biufc", 0):
        x = x.item()
    if isinstance(x, bool | int | float | complex | Dim):
        return x
    raise TypeError(f"{name}: argument '{argument}' must be a Tensor or a number, not {type(x).__name__}")


def _is_one(x: Any, kinds: str, rank: int) -> bool:
    """Whether `x` is a tensor of one element that PyTorch takes for a number: without a gradient, of `rank` dims at most."""
    if not is_tensor(x) or not hasattr(x, "item") or x.ndim > rank or x.dtype.kind not in kinds or any(n != 1 for n in x.shape):
        return False
    return not getattr(x, "requires_grad", False)


def promoted_dtype(name: str, operands: Sequence[Any], arguments: Sequence[str], promotion: Promotion) -> DType:
    """PyTorch's common dtype of tensors and numbers; ``float`` sends integers to the default floating dtype."""
    dimensioned: list[DType] = []
    zero_dim: list[DType] = []
    scalars: list[Any] = []
    for operand, argument in zip(operands, arguments, strict=True):
        if is_tensor(operand):
            (dimensioned if operand.ndim else zero_dim).append(operand.dtype)
        else:
            value = number(name, argument, operand)
            scalars.append(0 if isinstance(value, Dim) else value)
    try:
        dtype = result_type(dimensioned, zero_dim, scalars)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    return get_default_dtype() if promotion == "float" and dtype.kind not in "fc" else dtype


def promoted(
    name: str, operands: Sequence[Any], arguments: Sequence[str], promotion: Promotion = "same", wide_numbers: bool = False
) -> tuple[Tensor, ...]:
    """The operands as tensors of one dtype; with `wide_numbers`, numbers beside 16-bit floats as float32 constants.

    At least one must be a tensor.  Raises TypeError.
    """
    settled = _settled(operands, promotion, wide_numbers)
    if settled is not None:
        return settled
    if not any(map(is_tensor, operands)):
        first = next((i for i, x in enumerate(operands) if not isinstance(x, int | float | complex | np.generic)), 0)
        raise TypeError(f"{name}: argument '{arguments[first]}' must be a Tensor, not {type(operands[first]).__name__}")
    dtype = promoted_dtype(name, operands, arguments, promotion)
    of_numbers = dtype.compute if wide_numbers else dtype
    return tuple([lifted(name, x, a, dtype if is_tensor(x) else of_numbers) for x, a in zip(operands, arguments, strict=True)])


def _settled(operands: Sequence[Any], promotion: Promotion, wide_numbers: bool) -> tuple[Tensor, ...] | None:
    """The operands where promotion has nothing to decide: tensors of one dtype, with numbers only beside floating ones."""
    dtype: DType | None = None
    numbers = promotion == "float"
    for x in operands:
        own = getattr(x, "dtype", None)
        if type(own) is DType:
            if dtype is None:
                dtype = own
            elif own is not dtype:
                return None
        elif type(x) is float or type(x) is int:
            numbers = True
        else:
            return None
    if dtype is None or numbers and dtype.kind != "f":
        return None
    if numbers:
        dtype = dtype.compute if wide_numbers else dtype
        operands = [constant(x, dtype) if type(x) is float or type(x) is int else x for x in operands]
    return tuple(operands)


def lifted(name: str, x: Any, argument: str, dtype: DType) -> Tensor:
    """A tensor or a number as a tensor of `dtype`."""
    return cast(x, dtype) if is_tensor(x) else constant(number(name, argument, x), dtype)


def floating(name: str, argument: str, x: Any) -> Tensor:
    """A floating or complex tensor; integers become the default floating dtype."""
    x = tensor(name, argument, x)
    return x if x.dtype.kind in "fc" else cast(x, get_default_dtype())


def require_floating(name: str, argument: str, x: Any) -> Tensor:
    """A tensor that must already be floating.  Raises RuntimeError as PyTorch does where it does not convert."""
    x = tensor(name, argument, x)
    if x.dtype.kind != "f":
        raise RuntimeError(f"{name}: argument '{argument}' must be floating, got {of_type(x)}")
    return x


def ordered(name: str, argument: str, x: Any) -> Tensor:
    """A tensor whose elements have an order.  Raises NotImplementedError for complex numbers."""
    x = tensor(name, argument, x)
    if x.dtype.kind == "c":
        raise NotImplementedError(f"{name}: not defined for complex tensors: {argument} is {of_type(x)}")
    return x


def index_tensor(name: str, argument: str, x: Any) -> Tensor:
    """An integer (not bool) tensor.  Raises RuntimeError as PyTorch does."""
    x = tensor(name, argument, x)
    if x.dtype.kind not in "iu":
        raise RuntimeError(f"{name}: argument '{argument}' must be an integer tensor (int64 or int32), got {of_type(x)}")
    return x


def same_dtype(name: str, types: Sequence[TensorType]) -> DType:
    """The one dtype of strict operands.  Raises RuntimeError."""
    for other in types[1:]:
        if other.dtype is not types[0].dtype:
            raise RuntimeError(f"{name}: operands must have one dtype, got {' and '.join(map(str, types))}")
    return types[0].dtype


# ---- dims and shapes -----------------------------------------------------------------------------------------------


def one_dim(name: str, dim: Any, rank: int) -> int:
    """A dim in 0..rank-1.  Raises TypeError or IndexError."""
    if type(dim) is not int and (isinstance(dim, np.integer) or _is_one(dim, "iu", 1)):
        dim = int(dim)
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise TypeError(f"{name}: argument 'dim' must be an int, not {type(dim).__name__}")
    return canonical_dim(name, dim, rank)


def dims(name: str, dim: Any, rank: int) -> tuple[int, ...]:
    """Sorted canonical dims of an int, a sequence, or None or () for all.  Raises RuntimeError for a repeated dim."""
    if dim is None or (isinstance(dim, tuple | list) and not dim):
        return tuple(range(rank))
    given = dim if isinstance(dim, tuple | list) else (dim,)
    result = sorted(one_dim(name, d, rank) for d in given)
    for a, b in pairwise(result):
        if a == b:
            raise RuntimeError(f"{name}: dim {a} appears multiple times in the list of dims")
    return tuple(result) if rank else ()


def sizes(name: str, given: Any, argument: str = "shape") -> Shape:
    """A shape given as one sequence or as several sizes: ``f((2, 3))`` or ``f(2, 3)``.  Raises TypeError."""
    if len(given) == 1 and isinstance(given[0], tuple | list):
        given = given[0]
    return tuple(one_size(name, argument, s) for s in given)


def one_size(name: str, argument: str, value: Any) -> Size:
    """An int or symbolic size.  Raises TypeError."""
    if type(value) is int:
        return value
    if isinstance(value, np.integer) or _is_one(value, "iu", 1):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | Dim):
        raise TypeError(f"{name}: argument '{argument}' must be ints, not {type(value).__name__}")
    return value


def shape_of(name: str, value: Any, argument: str = "shape") -> Shape:
    """A shape given as one int or a sequence, with no negative size.  Raises TypeError or RuntimeError."""
    shape = sizes(name, (tuple(value),) if isinstance(value, list | tuple) else (value,), argument)
    if any(isinstance(s, int) and s < 0 for s in shape):
        raise RuntimeError(f"{name}: negative size in {argument} {shape_text(shape)}")
    return shape


def count(shape: Iterable[Size]) -> Size:
    """How many elements a shape has."""
    return product(shape)


def is_zero(size: Size) -> bool:
    """Whether a size is the number 0."""
    return isinstance(size, int) and size == 0


# ---- 16-bit floats in composites -----------------------------------------------------------------------------------


def in_compute_dtype(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A composite's rule with float16 and bfloat16 computed in float32 and rounded once at the end."""

    def widened(*inputs: Any, **attrs: Any) -> Any:
        narrow = next((x.dtype for x in inputs if x.dtype.compute is not x.dtype), None)
        if narrow is None:
            return rule(*inputs, **attrs)
        outputs = rule(*(cast(x, x.dtype.compute) for x in inputs), **attrs)
        if isinstance(outputs, tuple):
            return tuple(cast(y, narrow) if y.dtype is narrow.compute else y for y in outputs)
        return cast(outputs, narrow) if outputs.dtype is narrow.compute else outputs

    return widened


def gradient_in_compute_dtype(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A gradient rule with float16 and bfloat16 computed in float32; each gradient is rounded to its input's dtype."""

    def widened(g: Any, out: Any, *inputs: Any, **attrs: Any) -> Any:
        if all(x.dtype.compute is x.dtype for x in inputs):
            return rule(g, out, *inputs, **attrs)
        gradients = rule(wide(g), wide(out), *map(wide, inputs), **attrs)
        return tuple(None if d is None else cast(d, x.dtype) for d, x in zip(gradients, inputs, strict=True))

    return widened


def wide(x: Any) -> Any:
    """A tensor (or None, or a tuple of them) in its compute dtype."""
    if isinstance(x, tuple):
        return tuple(map(wide, x))
    return None if x is None else cast(x, x.dtype.compute)


def rounded(rule: str | Callable[..., Any]) -> Callable[..., Any]:
    """A reference with float16 and bfloat16 computed in float32 and rounded once.

    `rule`: a function, or the name of a NumPy universal function, which the reference then carries as ``universal``.
    """
    compute: Callable[..., Any] = rule if callable(rule) else lambda xp, *arrays: getattr(xp, rule)(*arrays)

    def loud(xp: Any, *arrays: Any, **attrs: Any) -> Any:
        narrow = next((a.dtype for a in arrays if a.dtype.itemsize == 2 and a.dtype.kind not in "iub"), None)
        if narrow is not None:
            arrays = tuple(a.astype(xp.float32) if a.dtype == narrow else a for a in arrays)
        result = compute(xp, *arrays, **attrs)
        if isinstance(result, tuple):
            return tuple(_narrowed(xp, r, narrow) for r in result)
        return _narrowed(xp, result, narrow)

    def reference(xp: Any, *arrays: Any, **attrs: Any) -> Any:
        return quiet.copy().run(loud, xp, *arrays, **attrs)

    reference.universal = rule if isinstance(rule, str) else None  # type: ignore[attr-defined]
    return reference


# A copy of it runs functions without NumPy's floating-point warnings, at a tenth of the price of ``np.errstate``.
quiet = Context()
quiet.run(np.seterr, all="ignore")


def _narrowed(xp: Any, result: Any, narrow: Any) -> Any:
    result = xp.asarray(result)
    return result.astype(narrow) if narrow is not None and result.dtype == xp.float32 else result
