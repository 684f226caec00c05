"""Every operator of the table, in every dtype it declares, on every sample it declares: one test a property."""

from __future__ import annotations

import functools

import pytest

import graphc
from graphc.dtypes import DType, complex128, uint8
from graphc.ir.op import Bad, Composite, Op, Reduce, Sample, Scalar
from graphc.ops.declare import NARROW
from op_checks import (
    check_bad,
    check_compiled,
    check_decomposition,
    check_fields,
    check_gradient,
    check_sized,
    check_sized_bad,
    check_text,
    check_types,
    is_sized_by_data,
)

EVERY_OP = [Op.table[name] for name in sorted(Op.table)]
OPS = [op for op in EVERY_OP if not is_sized_by_data(op)]
SIZED = [op for op in EVERY_OP if is_sized_by_data(op)]
WHOLE = [(op, dtype) for op in OPS for dtype in op.dtypes if dtype not in NARROW or op.dtypes[0] in NARROW]
TYPED = [pytest.param(op, dtype, id=f"{op.name}-{dtype.short}") for op, dtype in WHOLE]
OPENED = [pytest.param(op, dtype, id=f"{op.name}-{dtype.short}") for op, dtype in WHOLE if isinstance(op.lowering, Composite)]
# What only moves elements does so by their width, and what is written in other operators is tested with them: one dtype is enough.
NARROWER = [
    pytest.param(op, dtype, id=f"{op.name}-{dtype.short}")
    for op in OPS
    for dtype in op.dtypes
    if dtype in NARROW and (dtype is uint8 or isinstance(op.lowering, Scalar | Reduce))
]
DIFFERENTIATED = [
    pytest.param(op, sample, id=f"{op.name}-{k}")
    for op in OPS
    for k, sample in enumerate(op.samples)
    if op.grad is not None and any(d.kind == "f" for d in op.dtypes)
]
COMPLEX_DIFFERENTIATED = [
    pytest.param(op, sample, id=f"{op.name}-{k}")
    for op in OPS
    for k, sample in enumerate(op.samples)
    if op.grad is not None and complex128 in op.dtypes
]
BAD = [pytest.param(op, bad, id=f"{op.name}-{k}") for op in OPS for k, bad in enumerate(op.bad)]
SIZED_TYPED = [pytest.param(op, dtype, id=f"{op.name}-{dtype.short}") for op in SIZED for dtype in op.dtypes]
SIZED_BAD = [pytest.param(op, bad, id=f"{op.name}-{k}") for op in SIZED for k, bad in enumerate(op.bad)]


@pytest.mark.parametrize("op", EVERY_OP, ids=lambda op: op.name)
def test_fields(op: Op) -> None:
    check_fields(op)


@pytest.mark.parametrize("op, dtype", TYPED)
def test_types(op: Op, dtype: DType) -> None:
    check_types(op, dtype)


@pytest.mark.parametrize("op, dtype", OPENED)
def test_decomposition(op: Op, dtype: DType) -> None:
    check_decomposition(op, dtype)


@pytest.mark.parametrize("op, dtype", TYPED)
def test_text(op: Op, dtype: DType) -> None:
    check_text(op, dtype)


@pytest.mark.parametrize("op, dtype", TYPED)
def test_compiled(op: Op, dtype: DType) -> None:
    check_compiled(op, dtype)


@pytest.mark.parametrize("op, dtype", NARROWER)
def test_narrow_integers(op: Op, dtype: DType) -> None:
    check_compiled(op, dtype, op.samples[:3])  # what integers of one and two bytes need


@pytest.mark.parametrize("op, sample", DIFFERENTIATED)
def test_gradient(op: Op, sample: Sample) -> None:
    check_gradient(op, sample)


@pytest.mark.parametrize("op, sample", DIFFERENTIATED)
def test_gradient_of_gradient(op: Op, sample: Sample) -> None:
    check_gradient(op, sample, order=2)


@pytest.mark.parametrize("op, sample", COMPLEX_DIFFERENTIATED)
@pytest.mark.parametrize("order", [1, 2])
def test_gradient_of_complex_numbers(op: Op, sample: Sample, order: int) -> None:
    check_gradient(op, sample, order, complex128)


@pytest.mark.parametrize("op, bad", BAD)
def test_bad(op: Op, bad: Bad) -> None:
    check_bad(op, bad)


@pytest.mark.parametrize("op, dtype", SIZED_TYPED)
def test_sized_by_data(op: Op, dtype: DType) -> None:
    check_sized(op, dtype)


@pytest.mark.parametrize("op, bad", SIZED_BAD)
def test_sized_by_data_bad(op: Op, bad: Bad) -> None:
    check_sized_bad(op, bad)


@pytest.mark.parametrize("op", EVERY_OP, ids=lambda op: op.name)
def test_public_names(op: Op) -> None:
    assert [name for name in op.functions if not callable(functools.reduce(getattr, name.split("."), graphc))] == []
    assert [name for name in op.methods if not callable(getattr(graphc.Tensor, name, None))] == []
    if op.inplace:
        assert [f"{name}_" for name in op.methods if not callable(getattr(graphc.Tensor, f"{name}_", None))] == []
