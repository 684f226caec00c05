"""``out=``: results written into tensors of the caller, by PyTorch's rules.

Enters: results of an operator, the tensors given.  Leaves: those tensors, overwritten and resized where needed.
Never here: in-place operators (`dispatch.assign` is where both end).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.eager.dispatch import assign
from graphc.eager.modes import modes, no_grad
from graphc.eager.storage import array_address
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line, warn
from graphc.ir.op import Op, shape_text

SHARED = (
    "unsupported operation: more than one element of the written-to tensor refers to a single memory location; "
    "clone() the tensor before performing the operation"
)

PARTLY_SHARED = (
    "unsupported operation: some elements of the input tensor and the written-to tensor refer to a single memory location; "
    "clone() the tensor before performing the operation"
)


# operators that read other elements than those they write: `out` shares no memory with an input and has the result's dtype
READ_ELSEWHERE = frozenset({"gather", "kthvalue", "masked_select", "take"})
EXACT = READ_ELSEWHERE | {"complex", "polar"}  # `out` has the result's dtype


def into(out: Any, results: Any, name: str, inputs: Sequence[Any] = ()) -> Any:
    """`out` (a tensor, or one for each of several results) holding `results`; given back in the results' own structure.

    `inputs`: the tensors that the results were made of, or sequences of them.  Raises TypeError for an `out` that does not match
    the results, RuntimeError for one of several with another dtype than its result, and as `_written`.
    """
    for x in inputs:
        for written in out if isinstance(out, tuple | list) else (out,):
            _check_apart(written, x, name)
    if name in EXACT and isinstance(out, Tensor) and out.dtype is not results.dtype:
        raise RuntimeError(f"{name}: expected out tensor to have dtype {results.dtype}, got {out.dtype}")
    if not isinstance(results, tuple | list):
        if isinstance(out, tuple | list) and len(out) == 1:
            out = out[0]
        return _written(out, results, name)
    if isinstance(out, Tensor) or len(out) != len(results):
        given = 1 if isinstance(out, Tensor) else len(out)
        raise TypeError(f"{name}: out= takes {len(results)} tensors for as many results, got {given}")
    for o, result in zip(out, results, strict=True):
        if isinstance(o, Tensor) and o.dtype is not result.dtype:
            raise RuntimeError(f"{name}: expected out tensor to have dtype {result.dtype}, got {o.dtype}")
    written = [_written(o, result, name) for o, result in zip(out, results, strict=True)]
    return type(results)(*written) if hasattr(results, "_fields") else type(results)(written)


def _check_apart(out: Any, x: Any, name: str) -> None:
    """Raise RuntimeError if `out` and an input share some memory but are not the same elements; a sequence's may not share any, nor
    may those of `READ_ELSEWHERE`."""
    if isinstance(x, tuple | list):
        for member in x:
            if out is member:
                raise RuntimeError(f"{name}: {PARTLY_SHARED}")
            _check_apart(out, member, name)
    elif isinstance(x, Tensor) and isinstance(out, Tensor) and modes.tracer is None:
        a, b = out._array, x._array
        if name in READ_ELSEWHERE and _root(a) is _root(b):  # even an out that must grow, which PyTorch grows into its neighbours
            raise RuntimeError(f"{name}: {PARTLY_SHARED}")
        same = name not in READ_ELSEWHERE and a.shape == b.shape and a.strides == b.strides and array_address(a) == array_address(b)
        if not same and a.flags.c_contiguous and b.flags.c_contiguous and np.may_share_memory(a, b):
            raise RuntimeError(f"{name}: {PARTLY_SHARED}")


def _root(array: Any) -> Any:
    """What owns the memory that `array` is a part of."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def _written(out: Any, result: Any, name: str) -> Tensor:
    """`out` overwritten with `result`, in its own dtype; an `out` of another shape becomes new memory of the result's.

    Raises TypeError for what is no tensor; RuntimeError where autograd would take part, the dtypes do not convert, or elements
    of `out` share memory.  Warns where elements are lost.
    """
    if not isinstance(out, Tensor) or not isinstance(result, Tensor):
        raise TypeError(f"{name}: argument 'out' must be a Tensor, not {type(out).__name__}")
    if modes.grad and (out.requires_grad or result.requires_grad):
        raise RuntimeError(f"{name}: functions with out=... arguments don't support automatic differentiation")
    shape, wanted = tuple(out.shape), tuple(result.shape)
    if any(size != 1 and step == 0 for size, step in zip(shape, out._array.strides, strict=True)) and out.numel():
        raise RuntimeError(f"{name}: {SHARED}")
    if shape == wanted:
        return assign(out, result, name, fresh=False)
    return _resized(out, result, name, bool(out.numel()))


def _resized(out: Tensor, result: Tensor, name: str, loses_elements: bool) -> Tensor:
    """`out` as a tensor of its own dtype with the result's shape and elements, in new memory."""
    if loses_elements:
        message = (
            f"{name}: an output with one or more elements was resized since it had shape {shape_text(tuple(out.shape))}, which "
            f"does not match the required output shape {shape_text(tuple(result.shape))}; give out=graphc.empty(0) instead"
        )
        warn(message, UserWarning)
    if modes.tracer is not None:
        raise TraceError(at_user_line(f"{name}: giving out= another shape cannot be traced"))
    with no_grad():
        made = Op.table["zeros"](tuple(result.shape), dtype=out.dtype)
        out.data = assign(made, result, name, fresh=False)
    return out
