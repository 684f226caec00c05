"""Public functions and Tensor methods: generated from `Op.table`, and the few that are about tensors rather than values.

Enters: `Op.table`.  Leaves: attributes of `Tensor`, and `functions`, the operators by namespace.
Never here: what operators compute.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dtypes import DType
from graphc.eager import autograd
from graphc.eager.dispatch import assign, reseat
from graphc.eager.failures import ERRORS, guarded, located
from graphc.eager.outputs import into
from graphc.eager.replay import replayable
from graphc.eager.storage import Phantom, array_address
from graphc.eager.tensor import Tensor, wrap_array
from graphc.errors import at_user_line
from graphc.ir.op import Op, casting
from graphc.ops.arguments import cast, constant

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
_WITH_INDICES = ("max", "min", "median", "nanmedian", "mode", "kthvalue", "sort", "topk", "cummax", "cummin")


def _named(name: str, *fields: str) -> Any:
    """A named tuple that prints as PyTorch prints it."""

    class Result(namedtuple(name, fields)):  # type: ignore[misc]  # its fields are arguments
        __slots__ = ()

        def __repr__(self) -> str:
            shown = ",\n".join(f"{field}={getattr(self, field)!r}" for field in fields)
            return f"graphc.return_types.{name}(\n{shown})"

    Result.__name__ = Result.__qualname__ = name
    return Result


RESULTS = {name: _named(name, "values", "indices") for name in _WITH_INDICES} | {
    **{name: _named(name, "hist", "bin_edges") for name in ("histogram", "histogramdd")},
    "aminmax": _named("aminmax", "min", "max"),
    "frexp": _named("frexp", "mantissa", "exponent"),
    "linalg_qr": _named("linalg_qr", "Q", "R"), "qr": _named("qr", "Q", "R"), "geqrf": _named("geqrf", "a", "tau"),
    "linalg_svd": _named("linalg_svd", "U", "S", "Vh"), "svd": _named("svd", "U", "S", "V"),
    "linalg_eigh": _named("linalg_eigh", "eigenvalues", "eigenvectors"),
    "linalg_eig": _named("linalg_eig", "eigenvalues", "eigenvectors"),
    "linalg_slogdet": _named("linalg_slogdet", "sign", "logabsdet"), "slogdet": _named("slogdet", "sign", "logabsdet"),
    "linalg_cholesky_ex": _named("linalg_cholesky_ex", "L", "info"), "linalg_inv_ex": _named("linalg_inv_ex", "inverse", "info"),
    "linalg_solve_ex": _named("linalg_solve_ex", "result", "info"),
    "linalg_lu": _named("linalg_lu", "P", "L", "U"), "lu_unpack": _named("lu_unpack", "P", "L", "U"),
    "linalg_lu_factor": _named("linalg_lu_factor", "LU", "pivots"),
    "linalg_lu_factor_ex": _named("linalg_lu_factor_ex", "LU", "pivots", "info"),
    "linalg_lstsq": _named("linalg_lstsq", "solution", "residuals", "rank", "singular_values"),
    "triangular_solve": _named("triangular_solve", "solution", "cloned_coefficient"),
}  # fmt: skip
OPERANDS = (Tensor, int, float, complex, np.generic)


def _with_usual_names(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """NumPy's and PyTorch's names of arguments become those of `op`; ``input=`` is the first argument."""
    for given, usual in (*op.renamed.items(), ("axis", "dim"), ("keepdims", "keepdim")):
        if given in kwargs and usual not in kwargs:
            if usual == "*":
                args = (*args, kwargs.pop(given))
            else:
                kwargs[usual] = kwargs.pop(given)
    return (kwargs.pop("input"), *args) if "input" in kwargs else args


def public_function(op: Op) -> Function:
    """`op` as a function: errors name the user's line; ``out=`` takes the result; ``input=`` is its first argument;
    ``inplace=True`` writes over it, where the operator has an in-place form."""

    call = _strictly(op)
    uncast = _uncast(call, op)

    def function(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        try:
            inplace = False
            if kwargs:
                args = _with_usual_names(op, args, kwargs)
                inplace = op.inplace and kwargs.pop("inplace", False)
            result = (call if out is None else uncast)(*args, **kwargs)
            if inplace:
                return assign(args[0], result, op.name)
            if type(result) is tuple and op.name in RESULTS:
                result = RESULTS[op.name](*result)
            return result if out is None else into(out, result, op.name, args)
        except ERRORS as error:
            located(error, op.name, (*args, *kwargs.values()))
            raise

    return _described(function, op, op.name)


def public_method(op: Op, name: str) -> Function:
    """`op` as a method: as `public_function`, without ``out=``."""
    call = _strictly(op)

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        try:
            if kwargs:
                args = _with_usual_names(op, args, kwargs)
            result = call(self, *args, **kwargs)
            return RESULTS[op.name](*result) if type(result) is tuple and op.name in RESULTS else result
        except ERRORS as error:
            located(error, op.name, (self, *args, *kwargs.values()))
            raise

    return _described(method, op, name)


def inplace_method(op: Op, name: str) -> Function:
    """`op` as ``name_``: the result replaces the tensor's elements (or, of a view, its shape)."""

    call = _uncast(op, op)

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        try:
            if kwargs:
                args = _with_usual_names(op, args, kwargs)
            result = call(self, *args, **kwargs)
            if result._storage is self._storage:
                return self if result is self else reseat(self, result)
            return assign(self, result, name)
        except ERRORS as error:
            located(error, op.name, (self, *args, *kwargs.values()))
            raise

    return _described(method, op, name)


def _strictly(op: Op) -> Function:
    """`op`, or a check in front of it that its first arguments are tensors where PyTorch takes no numbers."""
    if not op.strict:
        return op

    def call(*args: Any, **kwargs: Any) -> Any:
        for position, x in enumerate(args[: op.strict]):
            if not isinstance(x, Tensor):
                raise TypeError(f"{op.name}: argument {position + 1} must be a Tensor, not {type(x).__name__}")
        return op(*args, **kwargs)

    return call


def _uncast(call: Function, op: Op) -> Function:
    """`call` of `op` as autocast leaves it: what writes into a tensor that is there keeps to that tensor's dtype."""
    if op.autocast is None:
        return call

    def uncast(*args: Any, **kwargs: Any) -> Any:
        with casting(None):
            return call(*args, **kwargs)

    return uncast


def _described(function: Function, op: Op, name: str) -> Function:
    replayable(function)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name}{op.signature}\n\n{op.doc}"
    return function


def _binary(op: Op) -> Function:
    def operator(self: Tensor, other: Any) -> Any:
        if not isinstance(other, OPERANDS):
            return _with_arrays(op, self, other)
        try:
            return op(self, other)
        except ERRORS as error:
            located(error, op.name)
            raise

    return _described(operator, op, op.name)


def _reflected(op: Op) -> Function:
    def operator(self: Tensor, other: Any) -> Any:
        if not isinstance(self, Tensor):
            raise TypeError(f"{op.name}: the first operand of a reflected operator must be a Tensor, not {type(self).__name__}")
        if not isinstance(other, OPERANDS):
            return _with_arrays(op, other, self)
        try:
            return op(other, self)
        except ERRORS as error:
            located(error, op.name)
            raise

    return _described(operator, op, op.name)


def _with_arrays(op: Op, *operands: Any) -> Any:
    """The operator with arrays as tensors on their memory; NotImplemented for objects with operators of their own."""
    if not all(isinstance(x, OPERANDS) or type(x) is np.ndarray for x in operands):
        return NotImplemented
    try:
        return op(*(wrap_array(x) if type(x) is np.ndarray else x for x in operands))
    except ERRORS as error:
        located(error, op.name)
        raise


def functions(namespace: str = "") -> dict[str, Function]:
    """The operators' functions in ``graphc`` or, for ``linalg``, in ``graphc.linalg``: names without the namespace."""
    found: dict[str, Function] = {}
    for op in list(Op.table.values()):
        for dotted in op.functions:
            place, _, name = dotted.rpartition(".")
            if place == namespace:
                found[name] = public_function(op)
                if op.inplace:
                    found[name + "_"] = inplace_method(op, name + "_")
    return found


def _inverted(self: Tensor) -> Tensor:
    """``~x``.  Raises TypeError for numbers that are no integers or bools."""
    if self.dtype.kind not in "biu":
        raise TypeError(at_user_line(f"~ (operator.invert) is only implemented on integer and bool tensors, got {self.dtype}"))
    return Op.table["bitwise_not"](self)  # type: ignore[no-any-return]


def install() -> None:
    """Attach generated methods to `Tensor`."""
    for op in list(Op.table.values()):
        for name in op.methods:
            if name not in Tensor.__dict__:
                setattr(Tensor, name, public_method(op, name))
            if op.inplace and f"{name}_" not in Tensor.__dict__:
                setattr(Tensor, name + "_", inplace_method(op, name + "_"))
    for symbol, name in OPERATORS.items():
        setattr(Tensor, f"__{symbol}__", _binary(Op.table[name]))
        setattr(Tensor, f"__r{symbol}__", _reflected(Op.table[name]))
        if Op.table[name].inplace:
            setattr(Tensor, f"__i{symbol}__", inplace_method(Op.table[name], name + "_"))
    Tensor.__rdiv__ = Tensor.__rtruediv__  # type: ignore[attr-defined]
    for symbol, name in COMPARISONS.items():
        setattr(Tensor, f"__{symbol}__", _binary(Op.table[name]))
    for symbol, name in UNARY.items():
        setattr(Tensor, f"__{symbol}__", public_method(Op.table[name], f"__{symbol}__"))
    setattr(Tensor, "__invert__", _inverted)  # noqa: B010  (to assign it, mypy wants it in the class)


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
    autograd.backward(self, None if gradient is None else [gradient], retain_graph, create_graph, inputs=inputs)


@attached
def view(self: Tensor, *shape: Any, dtype: DType | None = None) -> Tensor:
    """The same memory with another shape, or its bytes as another dtype.  Raises RuntimeError where that would need a copy."""
    try:
        if dtype is not None or (len(shape) == 1 and isinstance(shape[0], DType)):
            dtype = shape[0] if dtype is None else dtype
            return self if dtype is self.dtype else _reinterpreted(self, dtype)
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


def _reinterpreted(x: Tensor, dtype: DType) -> Tensor:
    """`view(dtype)`.  Raises RuntimeError where the bytes of the new elements do not lie together, or begin inside an old one."""
    result: Tensor = Op.table["view_dtype"].run(x, dtype=dtype)
    aligned = type(result._array) is Phantom or not result.numel() or array_address(result._array) % dtype.itemsize == 0
    if result._storage is not x._storage or not aligned:
        raise RuntimeError(f"view: {x.dtype} of stride {x.stride()} cannot be seen as {dtype}: their elements do not lie together")
    return result


@attached
@guarded
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """`view` with the shape of another tensor."""
    return view(self, tuple(other.shape))


@attached
def detach_(self: Tensor) -> Tensor:
    """Take this tensor itself off the tape.  Raises RuntimeError for a view."""
    if self._base is not None:
        raise RuntimeError(at_user_line("can't detach views in-place; use detach()"))
    self._requires_grad, self._grad_fn, self._index = False, None, 0
    return self


@attached
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite the elements with those of `src` (a tensor or a number), broadcast and converted to this dtype."""
    try:
        if isinstance(src, bool | int | float | complex | np.generic):
            return fill_(self, src)
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
        if not isinstance(value, bool | int | float | complex | np.generic):
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
def where(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """This tensor where `condition`, else `other`."""
    try:
        return Op.table["where"](condition, self, other)  # type: ignore[no-any-return]
    except ERRORS as error:
        located(error)
        raise


@attached
@guarded
def equal(self: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and elements.  Raises RuntimeError for different dtypes."""
    if self.dtype is not other.dtype:
        raise RuntimeError(at_user_line(f"equal: expected one dtype, got {self.dtype} and {other.dtype}"))
    return self._array.shape == other._array.shape and bool(np.array_equal(self.numpy_view(), other.numpy_view()))


@attached
@guarded
def allclose(self: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether every element is within ``atol + rtol * abs(other)`` of other's.  Raises as `isclose`."""
    return bool(Op.table["isclose"](self, other, rtol=rtol, atol=atol, equal_nan=equal_nan).all())


def _transposed(self: Tensor) -> Tensor:
    """All dims reversed."""
    return Op.table["permute"].run(self, dims=tuple(reversed(range(self.ndim))))  # type: ignore[no-any-return]


def _conjugate_transposed(self: Tensor) -> Tensor:
    """A matrix transposed and conjugated; a 0-d tensor conjugated.  Raises RuntimeError for other ranks."""
    if self.ndim not in (0, 2):
        raise RuntimeError(at_user_line(f"tensor.H is only supported on matrices (2-D tensors). Got {self.ndim}-D tensor."))
    return Op.table["conj"](_transposed(self))  # type: ignore[no-any-return]


def _matrix_transposed(self: Tensor) -> Tensor:
    """The last two dims exchanged."""
    if self.ndim < 2:
        raise RuntimeError(at_user_line(f"mT: expected a tensor of at least 2 dims, got {list(self.shape)}"))
    return Op.table["permute"].run(self, dims=(*range(self.ndim - 2), self.ndim - 1, self.ndim - 2))  # type: ignore[no-any-return]


def _matrix_conjugate_transposed(self: Tensor) -> Tensor:
    """The last two dims exchanged, conjugated."""
    return Op.table["conj"](_matrix_transposed(self))  # type: ignore[no-any-return]


def _part(name: str) -> property:
    """Real or imaginary parts, which can be assigned."""

    def get(self: Tensor) -> Tensor:
        return Op.table[name](self)  # type: ignore[no-any-return]

    def set(self: Tensor, value: Any) -> None:
        get(self).copy_(value)  # type: ignore[attr-defined]

    return property(get, set)


for _name, _getter in {
    "T": _transposed,
    "H": _conjugate_transposed,
    "mT": _matrix_transposed,
    "mH": _matrix_conjugate_transposed,
}.items():
    setattr(Tensor, _name, property(_getter))
for _name in ("real", "imag"):
    setattr(Tensor, _name, _part(_name))
for _name in ("is_conj", "is_neg"):
    setattr(Tensor, _name, lambda self: False)  # conjugates and negations are computed, never pending
