"""Every operator of the table, in every dtype it declares, on every sample it declares: one test a property."""

from __future__ import annotations

import pytest

import graphc
from graphc.dtypes import DType
from graphc.ir.op import Bad, Composite, Op, Sample
from op_checks import (
    check_bad,
    check_compiled,
    check_decomposition,
    check_eager,
    check_fields,
    check_gradient,
    check_text,
    check_types,
)

OPS = [Op.table[name] for name in sorted(Op.table)]
TYPED = [pytest.param(op, dtype, id=f"{op.name}-{dtype.short}") for op in OPS for dtype in op.dtypes]
OPENED = [
    pytest.param(op, dtype, id=f"{op.name}-{dtype.short}")
    for op in OPS
    for dtype in op.dtypes
    if isinstance(op.lowering, Composite)
]
DIFFERENTIATED = [
    pytest.param(op, sample, id=f"{op.name}-{k}")
    for op in OPS
    for k, sample in enumerate(op.samples)
    if op.grad is not None and any(d.kind == "f" for d in op.dtypes)
]
BAD = [pytest.param(op, bad, id=f"{op.name}-{k}") for op in OPS for k, bad in enumerate(op.bad)]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
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


@pytest.mark.parametrize("op, dtype", TYPED)
def test_eager(op: Op, dtype: DType) -> None:
    check_eager(op, dtype)


@pytest.mark.parametrize("op, sample", DIFFERENTIATED)
def test_gradient(op: Op, sample: Sample) -> None:
    check_gradient(op, sample)


@pytest.mark.parametrize("op, sample", DIFFERENTIATED)
def test_gradient_of_gradient(op: Op, sample: Sample) -> None:
    check_gradient(op, sample, order=2)


@pytest.mark.parametrize("op, bad", BAD)
def test_bad(op: Op, bad: Bad) -> None:
    check_bad(op, bad)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_public_names(op: Op) -> None:
    assert [name for name in op.functions if not callable(getattr(graphc, name, None))] == []
    assert [name for name in op.methods if not callable(getattr(graphc.Tensor, name, None))] == []
    if op.inplace:
        assert [f"{name}_" for name in op.methods if not callable(getattr(graphc.Tensor, f"{name}_", None))] == []
