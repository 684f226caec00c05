"""Where every operator call of a user goes: views, the tracer, NumPy where it is exact, else the kernel of a one-node graph.

Enters: an operator, tensors, attributes.  Leaves: tensors, recorded on the tape where needed.
Never here: what an operator computes; compilation (`kernel_runner` is the door to it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dim_answers import is_answered
from graphc.dims import product
from graphc.dtypes import DType
from graphc.eager.epoch import epoch as epoch  # who counts a change here says dispatch.epoch
from graphc.eager.modes import modes
from graphc.eager.storage import Phantom, Storage
from graphc.eager.tape import Node, rebase, record, refresh
from graphc.eager.tensor import Tensor, place, wrap
from graphc.eager.views import SHARED_ELEMENTS, VIEWS, contiguous_strides
from graphc.errors import TraceError, at_user_line
from graphc.ir.host import on_host
from graphc.ir.op import THROUGH, Composite, Host, Movement, Op, Region, TensorType, casting, set_default_runner, shape_text
from graphc.ops.arguments import cast, quiet
from graphc.ops.create import full
from graphc.ops.movement import expand
from graphc.ops.strided import overlaps

KernelRunner = Callable[[Op, tuple[np.ndarray, ...], dict[str, Any], tuple[TensorType, ...]], tuple[np.ndarray, ...]]


def _first_kernel(*args: Any) -> tuple[np.ndarray, ...]:
    """The one door to the compiler, opened when an operator first needs a kernel."""
    global kernel_runner
    from graphc import kernels

    kernel_runner = kernels.run
    return kernels.run(*args)


kernel_runner: KernelRunner = _first_kernel

# Operators that only place elements: NumPy runs them for every dtype and size, as it runs movement.
PLACEMENT = frozenset({"clone", "full", "slice_scatter"})
# Operators whose NumPy result is the definition's in every bit, for the dtypes below.
NUMPY_EXACT = frozenset({
    "abs", "add", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "cast", "ceil", "div", "eq", "floor", "ge",
    "gt", "iota", "le", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "mul", "ne", "neg", "sqrt",
    "sub", "trunc", "where",
})  # fmt: skip
NUMPY_EXACT_DTYPES = frozenset({
    dtypes.bool_, dtypes.uint8, dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64, dtypes.float32, dtypes.float64,
})  # fmt: skip
NUMPY_LIMIT = 16384  # elements: above, a kernel is faster

Array = np.ndarray[Any, Any]
Universal = Callable[..., Any]
# Output types; whether NumPy's result is exact; where it is one universal function that gives it, that function; whether complex
# numbers take part.
Signature = tuple[tuple[TensorType, ...], bool, Universal | None, bool]
_signatures: dict[tuple[Any, ...], Signature] = {}
_SIGNATURES_LIMIT = 8192


CALLS_IN_PYTHON = 256  # after so many operators, machine code takes over calls that come again (`graphc.native`)
_calls_left = CALLS_IN_PYTHON


def _called_often() -> None:
    from graphc.native import sites

    sites.install()


def run(op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
    """Run one operator on tensors: the default runner."""
    global _calls_left
    _calls_left -= 1
    if not _calls_left:
        _called_often()
    if modes.tracer is not None and modes.tracer.batches:
        lifted = modes.tracer.lifted(op, inputs)
        if lifted is None:  # no tensor of this level of vmap
            return modes.tracer.below(op, inputs, attrs)
        inputs = lifted
    grad = op.grad
    record_it = False
    if modes.grad and grad is not None:
        for x in inputs:
            base = x._base
            if base is not None and base._epoch != x._epoch:
                refresh(x)
            if x._requires_grad:
                record_it = True
                break
        if record_it and grad is THROUGH:
            assert isinstance(op.lowering, Composite | Region)
            if modes.autocast is None:
                return op.lowering.rule(*inputs, **attrs)
            with casting(None):  # as where nothing is recorded, and the operator is one kernel
                return op.lowering.rule(*inputs, **attrs)
    outputs: tuple[Tensor, ...] | None = _view(op, inputs[0], attrs) if op in VIEWS else None
    if outputs is None:
        tracer = modes.tracer
        outputs = _execute(op, inputs, attrs) if tracer is None else tracer.emit(op, inputs, attrs)
    if record_it:
        record(op, inputs, attrs, outputs)
    return outputs[0] if len(outputs) == 1 else outputs


def signature(op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> Signature:
    """What is known of calls, remembered per input types and attributes."""
    key: tuple[Any, ...] = (op, *attrs, *attrs.values()) if attrs else (op,)
    for x in inputs:
        key += (x.dtype, x._array.shape)
    answered = is_answered()  # what is asked of symbolic sizes has to be asked again in every trace
    found = None if answered else _signatures.get(key)
    if found is None:
        in_types = [TensorType(x.dtype, tuple(x._array.shape)) for x in inputs]
        types = op.infer_types(in_types, attrs)
        if len(_signatures) >= _SIGNATURES_LIMIT:
            _signatures.clear()
        is_complex = any(t.dtype.kind == "c" for t in (*in_types, *types))
        exact = not is_complex and _numpy_is_exact(op, in_types, types)
        name = getattr(op.reference, "universal", None)
        found = (types, exact, getattr(np, name) if exact and name else None, is_complex)
        if not answered:
            _signatures[key] = found
    return found


def _numpy_is_exact(op: Op, in_types: Sequence[TensorType], out_types: Sequence[TensorType]) -> bool:
    if isinstance(op.lowering, Movement) or op.name in PLACEMENT:
        return op.name != "clone" or product(in_types[0].shape) <= NUMPY_LIMIT  # type: ignore[operator]  # eager sizes are ints
    if op.name not in NUMPY_EXACT:
        return False
    for t in (*in_types, *out_types):
        count = product(t.shape)
        if t.dtype not in NUMPY_EXACT_DTYPES or not isinstance(count, int) or count > NUMPY_LIMIT:
            return False
    return op.name != "cast" or in_types[0].dtype.kind != "f" or out_types[0].dtype.kind in "fb"


def _view(op: Op, x: Tensor, attrs: dict[str, Any]) -> tuple[Tensor] | None:
    """The view of x, sharing its storage; None where the elements must be copied."""
    (out_type,) = signature(op, (x,), attrs)[0]
    array = x._array
    made: Any
    if type(array) is Phantom:
        in_type = TensorType(x.dtype, array.shape)
        strides = VIEWS[op].strides(in_type, array.steps, out_type, **attrs)
        if strides is None:
            return None
        made = Phantom(out_type.dtype, out_type.shape, strides)
    else:
        made = op.reference(np, array, **attrs)
        apart = made.base is not array and (array.base is None or made.base is not array.base) and made is not array
        if apart and not np.may_share_memory(made, array):
            if modes.tracer is not None:
                return None
            return (wrap(np.ascontiguousarray(made).reshape(made.shape), out_type.dtype),)
    base = x._base
    view = place(made, out_type.dtype, x._storage, (*x._chain, (op, attrs)), x if base is None else base)
    if modes.tracer is not None and modes.tracer.collects:
        modes.tracer.note_view(view)
    return (view,)


def _execute(op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> tuple[Tensor, ...]:
    if op is full and not attrs["shape"] and attrs["dtype"].compute is attrs["dtype"]:
        return (wrap(_number(attrs["value"], attrs["dtype"]), attrs["dtype"]),)
    if type(op.lowering) is Host:
        return on_host_tensors(op, inputs, attrs)
    types, exact, universal, is_complex = signature(op, inputs, attrs)
    if is_complex:
        return _opened(op, inputs, attrs, types) if type(op.lowering) is Composite else on_host_tensors(op, inputs, attrs)
    arrays = tuple([x._array for x in inputs])
    try:
        if universal is not None:
            (made,) = types
            result = np.empty(made.shape, made.dtype.numpy)  # type: ignore[type-var]  # an array's sizes are ints
            quiet.copy().run(universal, *arrays, result)
            return (wrap(result, made.dtype),)
        if not exact:
            if type(op.lowering) is Region:
                return _opened(op, inputs, attrs, types)
            return tuple([wrap(r, t.dtype) for r, t in zip(kernel_runner(op, arrays, attrs, types), types, strict=True)])
        results = op.reference(np, *arrays, **attrs)
        if type(results) is not tuple:
            results = (results,)
        return tuple([wrap(_owned(r, t, arrays), t.dtype) for r, t in zip(results, types, strict=True)])
    except TraceError:
        raise TraceError(at_user_line(f"{op.name}: a tensor made while tracing was used after the trace ended")) from None


def _opened(op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any], types: tuple[TensorType, ...]) -> tuple[Tensor, ...]:
    """The operators that a composite is made of, or that a region runs, one after the other."""
    assert isinstance(op.lowering, Composite | Region)
    before, modes.grad = modes.grad, False
    try:
        results = op.lowering.rule(*inputs, **attrs)
    finally:
        modes.grad = before
    results = results if isinstance(results, tuple | list) else (results,)
    arrays = tuple([x._array for x in inputs])
    return tuple([wrap(_owned(y._array, t, arrays), t.dtype) for y, t in zip(results, types, strict=True)])


def on_host_tensors(op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> tuple[Tensor, ...]:
    """The operator's reference; the dtypes and shapes of results sized by data are what it gives."""
    arrays = tuple([x.numpy_view() for x in inputs])
    if isinstance(op.lowering, Host) and op.lowering.sized_by_data:
        results = on_host(op, arrays, attrs)
        types = tuple([TensorType(dtypes.from_numpy(r.dtype), r.shape) for r in results])
    else:
        types = signature(op, inputs, attrs)[0]
        results = on_host(op, arrays, attrs, [t.dtype for t in types])
        for result, t in zip(results, types, strict=True):
            assert result.shape == t.shape, f"{op.name}: its reference gives {list(result.shape)}, its type rule {t}"
    return tuple([wrap(_owned(r, t, arrays), t.dtype) for r, t in zip(results, types, strict=True)])


def _number(value: Any, dtype: DType) -> np.ndarray[Any, Any]:
    """A 0-d array; integers wrap."""
    array = np.empty((), dtype.numpy)
    try:
        array[()] = value
    except OverflowError:
        array[()] = full.reference(np, value=value, shape=(), dtype=dtype)
    return array


def _owned(result: Any, out_type: TensorType, arrays: tuple[np.ndarray[Any, Any], ...]) -> np.ndarray[Any, Any]:
    """A row-major array of its own with the stated dtype."""
    wanted = out_type.dtype.numpy
    if type(result) is not np.ndarray or result.dtype is not wanted:
        result = np.asarray(result, dtype=wanted)
    alone = result.base is None and result.flags.c_contiguous
    for array in arrays:
        alone = alone and result is not array
    return result if alone else np.array(result, order="C", copy=True)


# ---- writing ---------------------------------------------------------------------------------------------------------


def assign(x: Tensor, y: Tensor, name: str, fresh: bool = True) -> Tensor:
    """x becomes y, keeping its dtype, shape and memory: the end of every in-place operator `name`.

    `fresh`: y was made for this and is nobody else's.  Raises RuntimeError for a leaf that requires grad, for a y whose kind or
    shape does not fit, and for an x whose elements share memory.
    """
    if modes.tracer is not None and modes.tracer.batches and not modes.tracer.owns(x):
        return modes.tracer.assign(x, y, name, fresh)  # type: ignore[no-any-return]
    recorded = modes.grad and (x.requires_grad or y.requires_grad)
    if recorded:
        check_writable(x, name)
    if y.dtype is not x.dtype:
        if not dtypes.can_cast(y.dtype, x.dtype):
            raise RuntimeError(f"{name}: result type {y.dtype} can't be cast to the desired output type {x.dtype}")
        y, fresh = cast(y, x.dtype), True
    if y._array.shape != x._array.shape:
        given = y
        try:
            y, fresh = expand.run(y, shape=tuple(x._array.shape)), True
        except RuntimeError:
            shapes = f"{shape_text(x._array.shape)} of the tensor and {shape_text(given._array.shape)} of the result"
            raise RuntimeError(f"{name}: shapes {shapes} do not fit") from None
    if recorded and fresh:
        keep_original(x, y)
    tracer = modes.tracer
    if tracer is not None:
        tracer.write(x, y)
    else:
        if not has_own_elements(x._array):
            raise RuntimeError(f"{name}: {SHARED_ELEMENTS}")
        np.copyto(x._array, y._array)
    x._storage.version += 1
    if recorded:
        rebase(x, y, fresh)
    return x


def has_own_elements(array: Any) -> bool:
    """Whether elements can be written to, and each has a place of its own."""
    flags = array.flags
    return flags.writeable and (flags.c_contiguous or not overlaps(array.shape, array.strides))


def keep_original(x: Tensor, y: Tensor) -> None:
    """Before `x` is overwritten with `y`, its own in-place operator's result: where backward reads what x was, it reads a copy."""
    node = y._grad_fn
    if type(node) is not Node or node.saved is None or not any(saved is not None and saved[0] is x for saved in node.saved):
        return
    copy = wrap(np.array(x._array, order="C"), x.dtype) if modes.tracer is None else modes.tracer.fresh(x)
    copy._requires_grad, copy._grad_fn, copy._index = x._requires_grad, x._grad_fn, x._index
    kept = (copy, copy._storage.version)
    node.saved = tuple(kept if saved is not None and saved[0] is x else saved for saved in node.saved)


def check_writable(x: Tensor, name: str) -> None:
    """Raise RuntimeError if x is a leaf that requires grad, or a view of one."""
    if x.requires_grad and x._grad_fn is None:
        if modes.tracer is not None and id(x if x._base is None else x._base) in modes.tracer.computed:
            raise TraceError(at_user_line(f"{name}: writing to an argument that gradients flow through cannot be traced"))
        raise RuntimeError(f"{name}: a leaf Variable that requires grad is being used in an in-place operation")
    base = x._base
    if base is not None and base.requires_grad and base._grad_fn is None:
        raise RuntimeError(f"{name}: a view of a leaf Variable that requires grad is being used in an in-place operation")


def reseat(x: Tensor, y: Tensor) -> Tensor:
    """x becomes the view y of itself (``squeeze_``, ``transpose_``): its memory stays, its shape changes."""
    if modes.tracer is not None:
        modes.tracer.touch(x)
    x._array, x._chain = y._array, y._chain
    if y._grad_fn is not None:
        x._requires_grad, x._grad_fn, x._index = True, y._grad_fn, y._index
    return x


def traced(element: DType, shape: tuple[Any, ...], cell: Any) -> Tensor:
    """A row-major tensor that only stands for a value of a graph."""
    phantom = Phantom(element, shape, contiguous_strides(shape))
    return place(phantom, element, Storage(phantom, cell), (), None)


set_default_runner(run)
