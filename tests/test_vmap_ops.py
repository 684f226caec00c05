"""Every operator under `vmap` gives what it gives each example, in every bit, and so do gradients in both orders of nesting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import graphc
from graph_cases import assert_close, assert_same_bits
from graphc.dtypes import float32
from graphc.func import grad, vmap
from graphc.ir.op import Host, Op, Sample
from op_checks import filled, fills, flat, mapped

SIZE = 3
SIZED_BY_DATA = ("argwhere", "masked_select", "nonzero", "nonzero_places")
OPS = [
    op
    for op in Op.table.values()
    if op.samples
    and not op.signature.startswith("(state")  # randomness has tests of its own
    and not (isinstance(op.lowering, Host) and op.lowering.sized_by_data)
    and op.name not in SIZED_BY_DATA
]


def cases(op: Op) -> list[Sample]:
    """Some of an operator's samples: those with tensors, the first of them and the last."""
    found = [s for s in op.samples if any(True for _ in fills((s.args, s.kwargs)))]
    return found[:1] + found[-1:] if len(found) > 1 else found


def batches(sample: Sample, dtype: Any, which: Sequence[bool]) -> list[Any]:
    """The tensors of a sample, with a batch in front where `which` says."""
    rng = np.random.default_rng(5)
    arrays = []
    for fill, batched in zip(fills((sample.args, sample.kwargs)), which, strict=True):
        parts = [filled(fill, dtype, rng) for _ in range(SIZE)]
        arrays.append(graphc.from_numpy(np.stack(parts) if batched else parts[0]))
    return arrays


def called(op: Op, sample: Sample) -> Any:
    """The sample as a function of its tensors."""

    def function(*tensors: Any) -> tuple[Any, ...]:
        given = iter(tensors)
        args, kwargs = mapped((list(sample.args), sample.kwargs), lambda fill: next(given))
        return tuple(flat(op(*args, **kwargs)))

    return function


def dims_of(count: int) -> list[list[bool]]:
    """Which tensors are batched: all, and each alone."""
    alone = [[k == i for k in range(count)] for i in range(count)] if count > 1 else []
    return [[True] * count, *alone]


@pytest.mark.parametrize("op", OPS, ids=str)
def test_the_same_bits_as_one_by_one(op: Op) -> None:
    dtype = float32 if float32 in op.dtypes or not op.dtypes else op.dtypes[0]
    for k, sample in enumerate(cases(op)):
        function = called(op, sample)
        for which in dims_of(len(list(fills((sample.args, sample.kwargs)))))[: 1 if k else None]:
            tensors = batches(sample, dtype, which)
            found = vmap(function, tuple(0 if b else None for b in which))(*tensors)
            each = [function(*(x[i] if b else x for x, b in zip(tensors, which, strict=True))) for i in range(SIZE)]
            for y, *parts in zip(found, *each, strict=True):
                assert_same_bits(y.numpy(), np.stack([p.numpy() for p in parts]), f"{op.name} {sample} {which}")


def weighted(outputs: Sequence[Any]) -> Any:
    """A number that every floating output counts in, each element differently."""
    total = graphc.zeros(())
    for y in outputs:
        if y.dtype.kind == "f":
            weights = graphc.linspace(0.5, 1.5, max(y.numel(), 1))[: y.numel()].reshape(y.shape)
            total = total + (y * weights).sum()
    return total


@pytest.mark.parametrize("op", [op for op in OPS if op.grad is not None and float32 in op.dtypes], ids=str)
def test_gradients_in_both_orders(op: Op) -> None:
    for sample in cases(op)[:1]:
        found = list(fills((sample.args, sample.kwargs)))
        function, tensors = called(op, sample), batches(sample, float32, [True] * len(found))
        if not any(y.dtype.kind == "f" for y in function(*(x[0] for x in tensors))):
            continue
        wanted = [i for i, f in enumerate(found) if f.grad and f.dtype is None and not f.special]
        if not wanted:
            continue

        def loss(*given: Any, function: Any = function) -> Any:
            return weighted(function(*given))

        inner = vmap(grad(loss, tuple(wanted)))(*tensors)
        outer = grad(lambda *given, loss=loss: vmap(loss)(*given).sum(), tuple(wanted))(*tensors)
        for k, i in enumerate(wanted):
            each = [grad(loss, i)(*(x[n] for x in tensors)).numpy() for n in range(SIZE)]
            assert_close(inner[k].numpy(), np.stack(each), f"{op.name}: vmap(grad)")
            assert_close(outer[k].numpy(), np.stack(each), f"{op.name}: grad(vmap)")


@pytest.mark.parametrize("name", SIZED_BY_DATA)
def test_results_sized_by_data_are_refused(name: str) -> None:
    op = Op.table[name]
    sample = next(s for s in op.samples if any(f.shape and 0 not in f.shape for f in fills(s.args)))
    tensors = batches(sample, float32, [True] * len(list(fills((sample.args, sample.kwargs)))))
    with pytest.raises(RuntimeError, match="the shape of its result depends on the elements"):
        vmap(called(op, sample))(*tensors)
