"""Public functions and Tensor methods: generated from `Op.table`, and the few that are about tensors rather than values.

Enters: `Op.table`.  Leaves: attributes of `Tensor`, and `functions`, the operators by namespace.
Never here: what operators compute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.eager import autograd
from graphc.eager.dispatch import assign, located, reseat
from graphc.eager.modes import modes, no_grad
from graphc.eager.tensor import Tensor, device
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.ops.arguments import cast, constant

ERRORS = (RuntimeError, TypeError, ValueError, IndexError)
Function = Callable[..., Any]

# Python's operators.  Reflected forms swap their operands.
OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide", "mod": "remainder", "pow": "pow",
    "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}  # fmt: skip
COMPARISONS = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}
UNARY = {"neg": "neg", "pos": "positive", "abs": "abs", "invert": "bitwise_not"}
# Names of the results of operators that give values with their positions.
_WITH_INDICES = ("max", "min", "median", "mode", "sort", "topk", "cummax", "cummin")


def _with_indices(name: str) -> Any:
    """A named tuple that prints as PyTorch prints it."""

    class Result(NamedTuple):
        values: Any
        indices: Any

        def __repr__(self) -> str:
            return f"graphc.return_types.{name}(\nvalues={self.values!r},\nindices={self.indices!r})"

    Result.__name__ = Result.__qualname__ = name
    return Result


RESULTS = {name: _with_indices(name) for name in _WITH_INDICES}
OPERANDS = (Tensor, int, float, np.generic)


def _with_usual_names(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """NumPy's names of arguments, which PyTorch takes too, become PyTorch's; ``input=`` is the first argument."""
    for given, usual in (("axis", "dim"), ("keepdims", "keepdim")):
        if given in kwargs and usual not in kwargs:
            kwargs[usual] = kwargs.pop(given)
    return (kwargs.pop("input"), *args) if "input" in kwargs else args


def public_function(op: Op) -> Function:
    """`op` as a function: errors name the user's line; ``out=`` takes the result; ``input=`` is its first argument;
    ``inplace=True`` writes over it, where the operator has an in-place form."""

    def function(*args: Any, out: Tensor | None = None, **kwargs: Any) -> Any:
        try:
            inplace = False
            if kwargs:
                args = _with_usual_names(args, kwargs)
                inplace = op.inplace and kwargs.pop("inplace", False)
            result = op(*args, **kwargs)
            if inplace:
                return assign(args[0], result, op.name)
            if type(result) is tuple and op.name in RESULTS:
                result = RESULTS[op.name](*result)
            return result if out is None else _into(out, result, op.name)
        except ERRORS as error:
            located(error, op.name)
            raise

    return _described(function, op, op.name)


def public_method(op: Op, name: str) -> Function:
    """`op` as a method: as `public_function`, without ``out=``."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        try:
            if kwargs:
                args = _with_usual_names(args, kwargs)
            result = op(self, *args, **kwargs)
            return RESULTS[op.name](*result) if type(result) is tuple and op.name in RESULTS else result
        except ERRORS as error:
            located(error, op.name)
            raise

    return _described(method, op, name)


def inplace_method(op: Op, name: str) -> Function:
    """`op` as ``name_``: the result replaces the tensor's elements (or, of a view, its shape)."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        try:
            result = op(self, *args, **kwargs)
            if result._storage is self._storage:
                return self if result is self else reseat(self, result)
            return assign(self, result, name)
        except ERRORS as error:
            located(error, op.name)
            raise

    return _described(method, op, name)


def _described(function: Function, op: Op, name: str) -> Function:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name}{op.signature}\n\n{op.doc}"
    return function


def _into(out: Tensor, result: Any, name: str) -> Tensor:
    """``out=``: raises RuntimeError if `out` requires grad or does not have the result's shape."""
    if not isinstance(out, Tensor) or not isinstance(result, Tensor):
        raise TypeError(f"{name}: out= takes a Tensor for an operator of one result")
    if modes.grad and (out.requires_grad or result.requires_grad):
        raise RuntimeError(f"{name}: functions with out=... arguments don't support automatic differentiation")
    if out._array.shape != result._array.shape:
        raise RuntimeError(f"{name}: out has shape {list(out._array.shape)}, the result {list(result._array.shape)}")
    return assign(out, result, name)


def _binary(op: Op) -> Function:
    def operator(self: Tensor, other: Any) -> Any:
        if not isinstance(other, OPERANDS):
            return _refused(op, self, other)
        try:
            return op(self, other)
        except ERRORS as error:
            located(error)
            raise

    return _described(operator, op, op.name)


def _reflected(op: Op) -> Function:
    def operator(self: Tensor, other: Any) -> Any:
        if not isinstance(other, OPERANDS):
            return _refused(op, other, self)
        try:
            return op(other, self)
        except ERRORS as error:
            located(error)
            raise

    return _described(operator, op, op.name)


def _refused(op: Op, *operands: Any) -> Any:
    """NotImplemented for objects with operators of their own; a TypeError that says what to do for arrays."""
    if any(isinstance(x, np.ndarray) for x in operands):
        raise TypeError(at_user_line(f"{op.name}: operands must be Tensors or numbers, not ndarray; use graphc.from_numpy"))
    return NotImplemented


def functions(namespace: str = "") -> dict[str, Function]:
    """The operators' functions in ``graphc`` or, for ``linalg``, in ``graphc.linalg``: names without the namespace."""
    found: dict[str, Function] = {}
    for op in list(Op.table.values()):
        for dotted in op.functions:
            place, _, name = dotted.rpartition(".")
            if place == namespace:
                found[name] = public_function(op)
    return found


def install() -> None:
    """Attach generated methods to `Tensor`."""
    for op in list(Op.table.values()):
        for name in op.methods:
            if name not in Tensor.__dict__:
                setattr(Tensor, name, public_method(op, name))
            if op.inplace:
                setattr(Tensor, name + "_", inplace_method(op, name + "_"))
    for symbol, name in OPERATORS.items():
        setattr(Tensor, f"__{symbol}__", _binary(Op.table[name]))
        setattr(Tensor, f"__r{symbol}__", _reflected(Op.table[name]))
        if Op.table[name].inplace:
            setattr(Tensor, f"__i{symbol}__", inplace_method(Op.table[name], name + "_"))
    for symbol, name in COMPARISONS.items():
        setattr(Tensor, f"__{symbol}__", _binary(Op.table[name]))
    for symbol, name in UNARY.items():
        setattr(Tensor, f"__{symbol}__", public_method(Op.table[name], f"__{symbol}__"))


# ---- methods about tensors -------------------------------------------------------------------------------------------


def attached(function: Function) -> Function:
    """Make a function a method of `Tensor`."""
    setattr(Tensor, function.__name__, function)
    return function


@attached
def backward(
    self: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
) -> None:
    """Add gradients to `.grad` of the leaves this tensor was computed from.  Raises RuntimeError as `graphc.autograd.backward`."""
    autograd.backward(self, None if gradient is None else [gradient], retain_graph, create_graph, inputs)


@attached
def view(self: Tensor, *shape: Any) -> Tensor:
    """The same memory with another shape; given its dtype, this tensor.  Raises RuntimeError where that would need a copy."""
    if len(shape) == 1 and isinstance(shape[0], DType):
        if shape[0] is not self.dtype:
            raise NotImplementedError(at_user_line(f"view: memory of {self.dtype} cannot be seen as {shape[0]}; use to()"))
        return self
    try:
        result: Tensor = Op.table["view"](self, *shape)
        if result._storage is not self._storage:
            raise RuntimeError(
                f"view: shape {list(result.shape)} is not compatible with the size {list(self.shape)} and stride {self.stride()} "
                "of the tensor (at least one dimension spans two contiguous subspaces); use reshape()"
            )
        return result
    except ERRORS as error:
        located(error)
        raise


@attached
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """`view` with the shape of another tensor."""
    return view(self, tuple(other.shape))


@attached
def contiguous(self: Tensor) -> Tensor:
    """This tensor, or a row-major copy of it."""
    return self if self.is_contiguous() else Op.table["clone"].run(self)


@attached
def to(self: Tensor, *args: Any, copy: bool = False, non_blocking: bool = False, **kwargs: Any) -> Tensor:
    """As another dtype: ``to(dtype)``, ``to(device, dtype)``, ``to(other)``.  This tensor itself where nothing changes."""
    dtype = kwargs.pop("dtype", None)
    where = kwargs.pop("device", None)
    for argument in args:
        if isinstance(argument, DType):
            dtype = argument
        elif isinstance(argument, Tensor):
            dtype = argument.dtype
        elif isinstance(argument, str | device):
            where = argument
        elif argument is not None and not isinstance(argument, bool):
            raise TypeError(at_user_line(f"to: expected a dtype, device or Tensor, got {type(argument).__name__}"))
    if kwargs:
        raise TypeError(at_user_line(f"to: unexpected argument '{next(iter(kwargs))}'"))
    if where is not None:
        device(where)
    if dtype is None or dtype is self.dtype:
        return Op.table["clone"].run(self) if copy else self  # type: ignore[no-any-return]
    return cast(self, dtype)  # type: ignore[no-any-return]


def as_type(self: Tensor, dtype: DType | None = None) -> Any:
    """As another dtype; without one, PyTorch's name of this tensor's type."""
    if dtype is None:
        return f"graphc.{_TYPE_NAMES.get(self.dtype.name, self.dtype.name.title())}Tensor"
    return to(self, dtype)


Tensor.type = as_type  # type: ignore[attr-defined]
_TYPE_NAMES = {
    "float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16", "uint8": "Byte", "int8": "Char",
    "int16": "Short", "int32": "Int", "int64": "Long", "bool": "Bool",
}  # fmt: skip
_CONVERSIONS = {
    "float": dtypes.float32, "double": dtypes.float64, "half": dtypes.float16, "bfloat16": dtypes.bfloat16, "byte": dtypes.uint8,
    "char": dtypes.int8, "short": dtypes.int16, "int": dtypes.int32, "long": dtypes.int64, "bool": dtypes.bool_,
}  # fmt: skip


def _conversion(name: str, dtype: DType) -> Function:
    def convert(self: Tensor) -> Tensor:
        return to(self, dtype)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"As {dtype.name}; this tensor itself if it is."
    return convert


for _name, _dtype in _CONVERSIONS.items():
    setattr(Tensor, _name, _conversion(_name, _dtype))


@attached
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """As the dtype of another tensor."""
    return to(self, other.dtype)


@attached
def cpu(self: Tensor) -> Tensor:
    """This tensor: all memory is the CPU's."""
    return self


@attached
def detach_(self: Tensor) -> Tensor:
    """Take this tensor itself off the tape.  Raises RuntimeError for a view."""
    if self._base is not None:
        raise RuntimeError(at_user_line("can't detach views in-place; use detach()"))
    self._requires_grad, self._grad_fn, self._index = False, None, 0
    return self


@attached
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite the elements with those of `src`, broadcast and converted to this dtype."""
    try:
        if not isinstance(src, Tensor):
            raise TypeError(f"copy_: argument 'src' must be a Tensor, not {type(src).__name__}")
        return assign(self, cast(src, self.dtype), "copy_", fresh=False)
    except ERRORS as error:
        located(error)
        raise


@attached
def fill_(self: Tensor, value: Any) -> Tensor:
    """Overwrite every element with a number or a 0-d tensor."""
    try:
        if isinstance(value, Tensor):
            if value.ndim:
                raise RuntimeError(f"fill_: only a 0-dim value Tensor can fill, got {list(value.shape)}")
            return assign(self, cast(value, self.dtype), "fill_", fresh=False)
        if not isinstance(value, bool | int | float | np.generic):
            raise TypeError(f"fill_: argument 'value' must be a number, not {type(value).__name__}")
        value = value.item() if isinstance(value, np.generic) else value
        return assign(self, constant(value, self.dtype), "fill_")
    except ERRORS as error:
        located(error)
        raise


@attached
def zero_(self: Tensor) -> Tensor:
    """Overwrite every element with 0."""
    return fill_(self, 0)


@attached
def set_(self: Tensor, source: Tensor) -> Tensor:
    """Share the memory of another tensor from now on."""
    with no_grad():
        self.data = source
    return self


@attached
def where(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """This tensor where `condition`, else `other`."""
    try:
        return Op.table["where"](condition, self, other)  # type: ignore[no-any-return]
    except ERRORS as error:
        located(error)
        raise


@attached
def equal(self: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and elements.  Raises RuntimeError for different dtypes."""
    if self.dtype is not other.dtype:
        raise RuntimeError(at_user_line(f"equal: expected one dtype, got {self.dtype} and {other.dtype}"))
    return self._array.shape == other._array.shape and bool(np.array_equal(self.numpy_view(), other.numpy_view()))


@attached
def allclose(self: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether every element is within ``atol + rtol * abs(other)`` of other's.  Raises as `isclose`."""
    return bool(Op.table["isclose"](self, other, rtol=rtol, atol=atol, equal_nan=equal_nan).all())


def _transposed(self: Tensor) -> Tensor:
    """All dims reversed."""
    return Op.table["permute"].run(self, dims=tuple(reversed(range(self.ndim))))  # type: ignore[no-any-return]


def _matrix_transposed(self: Tensor) -> Tensor:
    """The last two dims exchanged."""
    if self.ndim < 2:
        raise RuntimeError(at_user_line(f"mT: expected a tensor of at least 2 dims, got {list(self.shape)}"))
    return Op.table["permute"].run(self, dims=(*range(self.ndim - 2), self.ndim - 1, self.ndim - 2))  # type: ignore[no-any-return]


for _name, _getter in {"T": _transposed, "H": _transposed, "mT": _matrix_transposed, "mH": _matrix_transposed}.items():
    setattr(Tensor, _name, property(_getter))
