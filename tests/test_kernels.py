"""Programs of one operator: one for all sizes of a kind, any layout, the reference's results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graph_cases import Array, assert_close, assert_same_bits
from graphc import kernels
from graphc.dtypes import from_numpy
from graphc.ir.op import Op, TensorType


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """An empty store of programs for one test."""
    store: dict[Any, Any] = {}
    monkeypatch.setattr(kernels, "_programs", store)
    monkeypatch.setattr(kernels, "_calls", {})
    return store


def run(name: str, *arrays: Array, **attrs: Any) -> list[Array]:
    """One operator by its compiled program, checked against its reference."""
    op = Op.table[name]
    types = op.infer_types([TensorType(from_numpy(a.dtype), a.shape) for a in arrays], attrs)
    got = list(kernels.run(op, arrays, attrs, types))
    wanted = op.reference(np, *arrays, **attrs)
    for k, (a, b) in enumerate(zip(got, wanted if isinstance(wanted, tuple) else (wanted,), strict=True)):
        assert_close(a, b, f"{name} {[x.shape for x in arrays]} result {k}")
        assert a.flags.c_contiguous
    return got


def normal(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


CALLS: dict[str, Callable[[int, int, int], Any]] = {
    "exp": lambda a, b, c: run("exp", normal(a, b)),
    "add": lambda a, b, c: run("add", normal(a, b), normal(b)),
    "matmul": lambda a, b, c: run("matmul", normal(a, b), normal(b, c)),
    "reduce_sum": lambda a, b, c: run("reduce_sum", normal(a, b), dim=1),
    "reduce_max": lambda a, b, c: run("reduce_max", normal(a, b), dim=0),
    "softmax": lambda a, b, c: run("softmax", normal(a, b), dim=1),
    "cumsum": lambda a, b, c: run("cumsum", normal(a, b), dim=0),
    "index_select": lambda a, b, c: run("index_select", normal(a, b), np.arange(c) % a, dim=0),
    "cast": lambda a, b, c: run("cast", normal(a, b), dtype=graphc.float16),
}
SIZES = [(5, 7, 11), (64, 3, 2), (200, 130, 33)]


@pytest.mark.parametrize("name", CALLS)
def test_one_program_serves_all_sizes(name: str, programs: dict[Any, Any]) -> None:
    for sizes in SIZES:
        CALLS[name](*sizes)
    assert [value is not None for value in programs.values()] == [True]


def test_equal_sizes_and_ones_are_kinds_of_their_own(programs: dict[Any, Any]) -> None:
    for shapes in (((3, 4), (4,)), ((6, 2), (2,)), ((3, 3), (3,)), ((5, 5), (5,)), ((3, 1), (1,)), ((9, 1), (1,))):
        run("add", *(normal(*s) for s in shapes))
    assert len(programs) == 3


@pytest.mark.parametrize("name", ["exp", "add", "matmul", "reduce_sum", "softmax", "cumsum"])
@pytest.mark.parametrize("sizes", [(1, 5, 3), (5, 1, 3), (5, 3, 1), (1, 1, 1), (0, 5, 3), (5, 3, 0)], ids=str)
def test_sizes_0_and_1(name: str, sizes: tuple[int, int, int]) -> None:
    CALLS[name](*sizes)


def test_an_empty_inner_dim_of_a_matmul_gives_zeros() -> None:
    assert run("matmul", normal(3, 0), normal(0, 4))[0].tolist() == np.zeros((3, 4)).tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_0_d(dtype: Any) -> None:
    x, y = np.asarray(2.5, dtype), np.asarray(-1.5, dtype)
    assert run("add", x, y)[0].shape == ()
    assert run("neg", x)[0].dtype == dtype
    assert run("maximum", x, y)[0] == x


def test_any_layout_gives_the_contiguous_result(programs: dict[Any, Any]) -> None:
    base = normal(6, 8, 10)
    layouts = [base.transpose(2, 0, 1), base[::2, 1:], base[:, :, ::-1], np.broadcast_to(base[:1], (4, 8, 10)), base[..., 3]]
    for x in layouts:
        wanted = run("exp", np.ascontiguousarray(x))
        assert_same_bits(run("exp", x), wanted)
    assert len(programs) == 2


def test_the_arguments_are_left_alone() -> None:
    x, y = normal(4, 5), normal(4, 5, seed=1)
    before = x.copy(), y.copy()
    for name in ("add", "maximum", "atan2"):
        (got,) = run(name, x, y)
        assert not np.shares_memory(got, x)
        got[:] = 0
    assert_same_bits([x, y], before)


def test_attributes_that_speak_of_sizes_compile_for_their_shapes(programs: dict[Any, Any]) -> None:
    for width in (4, 6):
        run("layer_norm", normal(3, width), normal(width), normal(width), normalized_shape=(width,), eps=1e-5)
    made = [value for value in programs.values() if value is not None]
    assert len(made) == 2


def test_a_failed_check_raises_and_the_program_goes_on(programs: dict[Any, Any]) -> None:
    op, x = Op.table["index_select"], normal(4, 3)
    for index in ([4], [-1], [1, 2, 9]):
        with pytest.raises(IndexError, match="index_select: index out of range"):
            kernels.run(op, (x, np.array(index)), {"dim": 0}, (TensorType(graphc.float32, (len(index), 3)),))
    (got,) = kernels.run(op, (x, np.array([3, 0, 3, 3, 1])), {"dim": 0}, (TensorType(graphc.float32, (5, 3)),))
    assert_same_bits([got], [x[[3, 0, 3, 3, 1]]])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32", "int64"])
def test_dtypes_have_programs_of_their_own(dtype: str, programs: dict[Any, Any]) -> None:
    kind = getattr(graphc, dtype).numpy
    for size in (3, 50):
        run("mul", (normal(size) * 4).astype(kind), (normal(size, seed=1) * 4).astype(kind))
    assert len(programs) == 1


def test_tensors_of_many_shapes_share_programs(programs: dict[Any, Any]) -> None:
    for n in range(2, 12):
        x = graphc.from_numpy(normal(n, n + 1))
        x.tanh().sum(1).exp()
    compiled = {key[0].name for key, value in programs.items() if value is not None}
    assert {"tanh", "exp"} <= compiled
    assert len(programs) <= 5
