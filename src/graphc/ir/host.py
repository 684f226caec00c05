"""Operators run by their references: on the host, between the kernels of a program or instead of one.

Enters: an operator with arrays, or its name and attributes as text.  Leaves: arrays of the dtypes that its type rule states.
Never here: which operators run so (`effective_lowering`); memory of results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import Any

import numpy as np

from graphc.dims import Dim, evaluate
from graphc.dtypes import DType
from graphc.errors import IRError
from graphc.ir.op import Op
from graphc.ir.text import parse_attributes

Array = np.ndarray[Any, Any]
_quiet = Context()
_quiet.run(np.seterr, all="ignore")


def on_host(op: Op, arrays: Sequence[Array], attrs: Mapping[str, Any], dtypes: Sequence[DType] | None = None) -> tuple[Array, ...]:
    """The reference on row-major arrays, its results as `dtypes` (None: as they come).  They may be views of the operands."""
    rows = [np.ascontiguousarray(a).reshape(a.shape) for a in arrays]
    results = _quiet.copy().run(op.reference, np, *rows, **attrs)
    results = results if isinstance(results, tuple) else (results,)
    if dtypes is None:
        return tuple([np.asarray(r) for r in results])
    return tuple([np.asarray(r, dtype=d.numpy) for r, d in zip(results, dtypes, strict=True)])


def resolve(name: str, attributes: str) -> Callable[[Sequence[Array], Mapping[str, int], Sequence[DType]], tuple[Array, ...]]:
    """What runs the operator `name` with `attributes`, given operands, the values of symbolic sizes and the results' dtypes.

    Raises IRError for an operator that there is not, or attributes that are not its own.
    """
    op = Op.table.find(name)
    if op is None:
        raise IRError(f"there is no operator {name}")
    attrs = parse_attributes(attributes)
    if set(attrs) != set(op.attrs):
        raise IRError(f"{name} has attributes {sorted(attrs)}, its declaration has {sorted(op.attrs)}")

    def run(arrays: Sequence[Array], sizes: Mapping[str, int], dtypes: Sequence[DType]) -> tuple[Array, ...]:
        return on_host(op, arrays, {name: _sized(value, sizes) for name, value in attrs.items()}, dtypes)

    return run


def _sized(value: Any, sizes: Mapping[str, int]) -> Any:
    """An attribute with numbers for its symbolic sizes."""
    if isinstance(value, Dim):
        return evaluate(value, sizes)
    return tuple(_sized(v, sizes) for v in value) if isinstance(value, tuple) else value
