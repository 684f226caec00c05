"""``x[...]`` and ``x[...] = v``: random mixed indices against NumPy, the same bits compiled, gradients, order of writes, errors.

An index is read as PyTorch reads it: ints before index tensors are taken as slices are, so NumPy sees them as slices of one element
that are dropped at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
from graphc.errors import CompileWarning

SIZES = (4, 3, 5)


def array(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape)


# ---- random indices ----------------------------------------------------------------------------------------------------


@st.composite
def indices(draw: Any, masks: bool = True) -> tuple[Any, ...]:
    """A tuple of ints, slices, None, ``...``, integer arrays that broadcast together, and masks of one or two dims."""
    common = draw(st.sampled_from([(2,), (3, 1), (1,), (2, 3), (0,)]))
    kinds = ["int", "slice", "all", "array", *(["mask", "mask2"] if masks and common in ((2,), (1,)) else [])]
    parts: list[Any] = []
    axis = 0
    while axis < len(SIZES):
        kind, size = draw(st.sampled_from(kinds)), SIZES[axis]
        bound = st.none() | st.integers(-size - 1, size + 1)
        if draw(st.integers(0, 5)) == 0:
            parts.append(None)
        if kind == "int":
            parts.append(draw(st.integers(-size, size - 1)))
        elif kind == "slice":
            parts.append(slice(draw(bound), draw(bound), draw(st.none() | st.integers(1, 3))))
        elif kind == "array":
            parts.append(_some(draw, tuple(n if n == 0 or draw(st.booleans()) else 1 for n in common), size))
        elif kind == "mask2" and axis + 1 < len(SIZES):
            parts.append(_mask(draw, SIZES[axis : axis + 2], common[0]))
            axis += 1
        elif kind == "mask":
            parts.append(_mask(draw, (size,), common[0]))
        else:
            parts.append(slice(None))
        axis += 1
    whole = [k for k, part in enumerate(parts) if isinstance(part, slice) and part == slice(None)]
    if whole and draw(st.booleans()):
        parts[draw(st.sampled_from(whole))] = ...
    while parts and isinstance(parts[-1], slice) and parts[-1] == slice(None) and draw(st.booleans()):
        parts.pop()  # what is missing at the end is taken whole
    return tuple(parts)


def _some(draw: Any, shape: tuple[int, ...], size: int) -> np.ndarray[Any, Any]:
    count = int(np.prod(shape))
    return np.array(draw(st.lists(st.integers(-size, size - 1), min_size=count, max_size=count)), np.int64).reshape(shape)


def _mask(draw: Any, shape: tuple[int, ...], count: int) -> np.ndarray[Any, Any]:
    """A mask with as many True elements as the integer arrays beside it broadcast with."""
    total = int(np.prod(shape))
    chosen = draw(st.lists(st.integers(0, total - 1), min_size=count, max_size=count, unique=True))
    mask = np.zeros(total, bool)
    mask[chosen] = True
    return mask.reshape(shape)


def taken(x: np.ndarray[Any, Any], index: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """NumPy's view or copy, with ints taken first as PyTorch takes them."""
    if any(isinstance(i, np.ndarray) for i in index):
        first, rest = _ints_first(x, index)
        return x[first][rest]
    return x[index]


def _ints_first(x: np.ndarray[Any, Any], index: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    covered = sum(i.ndim if isinstance(i, np.ndarray) and i.dtype == bool else i is not None and i is not ... for i in index)
    full = [slice(None)] * (x.ndim - covered)
    opened: list[Any] = []
    for i in index:
        opened.extend(full if i is ... else [i])
    if not any(i is ... for i in index):
        opened.extend(full)
    first, rest = [], []
    for i in opened:
        wide = i.ndim if isinstance(i, np.ndarray) and i.dtype == bool else 1
        first.extend([slice(None)] * wide if isinstance(i, np.ndarray) else [i])
        if not isinstance(i, int):
            rest.append(i if isinstance(i, np.ndarray) else slice(None))
    return tuple(first), tuple(rest)


def as_tensors(index: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(graphc.from_numpy(i) if isinstance(i, np.ndarray) else i for i in index)


@given(indices())
def test_get_is_numpys(index: tuple[Any, ...]) -> None:
    x = array(*SIZES)
    got = graphc.from_numpy(x)[as_tensors(index)]
    assert np.array_equal(got.numpy(), taken(x, index)) and tuple(got.shape) == taken(x, index).shape


@given(indices(), st.integers(0, 3))
def test_set_is_numpys(index: tuple[Any, ...], drop: int) -> None:
    x = array(*SIZES)
    shape = taken(x, index).shape
    value = array(*shape[drop:], seed=1)
    changed = graphc.from_numpy(x.copy())
    changed[as_tensors(index)] = graphc.from_numpy(value)
    if any(isinstance(i, np.ndarray) for i in index):
        first, rest = _ints_first(x, index)
        x[first][rest] = value
    else:
        x[index] = value
    assert np.array_equal(changed.numpy(), x)


@settings(max_examples=20)  # each compiles
@given(indices(masks=False))
def test_compiled_get_and_set_give_the_same_bits(index: tuple[Any, ...]) -> None:
    x, given_index = graphc.from_numpy(array(*SIZES)), as_tensors(index)
    value = graphc.from_numpy(array(*taken(array(*SIZES), index).shape, seed=1))

    def both(x: Any, value: Any, index: Any) -> Any:
        changed = x.clone()
        changed[index] = value
        return x[index] + 0.0, changed

    tensors = tuple(i for i in given_index if isinstance(i, graphc.Tensor))
    plain = tuple(i for i in given_index if not isinstance(i, graphc.Tensor))

    def rebuilt(tensors: Any) -> tuple[Any, ...]:
        wide, narrow = iter(tensors), iter(plain)
        return tuple(next(wide) if isinstance(i, graphc.Tensor) else next(narrow) for i in given_index)

    compiled = graphc.compile(lambda x, value, tensors: both(x, value, rebuilt(tensors)))
    for a, b in zip(compiled(x, value, tensors), both(x, value, given_index), strict=True):
        assert np.array_equal(a.numpy(), b.numpy()) and tuple(a.shape) == tuple(b.shape)


@given(indices())
def test_gradients_reach_what_was_read_and_what_was_written(index: tuple[Any, ...]) -> None:
    x = graphc.from_numpy(array(*SIZES)).requires_grad_()
    shape = taken(array(*SIZES), index).shape
    weight = array(*shape, seed=2)
    (x[as_tensors(index)] * graphc.from_numpy(weight)).sum().backward()
    wanted = np.zeros(SIZES)
    places = np.arange(wanted.size).reshape(SIZES)
    np.add.at(wanted.reshape(-1), taken(places, index).reshape(-1), weight.reshape(-1))
    assert np.allclose(x.grad.numpy(), wanted)
    base = graphc.from_numpy(array(*SIZES)).requires_grad_()
    value = graphc.from_numpy(array(*shape, seed=1)).requires_grad_()
    changed = base * 1.0
    changed[as_tensors(index)] = value
    outer = array(*SIZES, seed=3)
    (changed * graphc.from_numpy(outer)).sum().backward()
    kept = np.ones(SIZES)
    kept.reshape(-1)[taken(places, index).reshape(-1)] = 0
    assert np.allclose(base.grad.numpy(), outer * kept)
    assert np.allclose(value.grad.numpy(), taken(outer, index))


# ---- the order of writes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (7, 300), (3, 7, 5)])
def test_the_last_write_wins_with_any_number_of_threads(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    dim = shape.index(7)
    index = rng.integers(0, 7, 500)
    values = rng.standard_normal((*shape[:dim], 500, *shape[dim + 1 :]))
    where = (slice(None),) * dim

    def write(x: Any, index: Any, values: Any) -> Any:
        x = x.clone()
        x[(*where, index)] = values
        return x

    expected = np.zeros(shape)
    for k, place in enumerate(index):
        expected[(*where, place)] = values[(*where, k)]
    arguments = graphc.zeros(*shape, dtype=graphc.float64), graphc.from_numpy(index), graphc.from_numpy(values)
    before = graphc.get_num_threads()
    try:
        for threads in (1, 2, 5):
            graphc.set_num_threads(threads)
            assert np.array_equal(graphc.compile(write)(*arguments).numpy(), expected)
            assert np.array_equal(write(*arguments).numpy(), expected)
            recorded = arguments[0].clone().requires_grad_()
            assert np.array_equal(write(recorded, *arguments[1:]).detach().numpy(), expected)
            put = arguments[0].index_put((*[None] * dim, arguments[1]), arguments[2])
            assert np.array_equal(put.numpy(), expected)
    finally:
        graphc.set_num_threads(before)


def test_scatter_with_repeated_places_keeps_the_last() -> None:
    index = graphc.tensor([[0, 0, 2, 0]])
    values = graphc.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert graphc.zeros(1, 3).scatter(1, index, values).tolist() == [[4.0, 0.0, 3.0]]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("index_put", ((graphc.tensor([2, 0, 2]),), graphc.tensor([[1.0], [2.0], [3.0]]))),
        ("index_put", ((graphc.tensor([2, 0, 2]), graphc.tensor([1, 1, 1])), graphc.tensor(5.0), True)),
        ("index_copy", (1, graphc.tensor([4, 0]), graphc.ones(3, 2))),
        ("index_fill", (0, graphc.tensor([1]), 7)),
        ("index_fill", (-1, graphc.tensor([1, 1]), graphc.tensor(3.0))),
        ("index_add", (0, graphc.tensor([1, 1]), graphc.ones(2, 5))),
        ("scatter", (1, graphc.tensor([[1, 0]]), 4.0)),
    ],
)
def test_in_place_forms_write_what_the_others_give(name: str, arguments: tuple[Any, ...]) -> None:
    base = graphc.from_numpy(array(3, 8)).float()
    x = base[:, 1:6]  # not contiguous
    expected, address, version = getattr(x, name)(*arguments), x.data_ptr(), x._version
    assert getattr(x, name + "_")(*arguments) is x
    assert np.array_equal(x.numpy(), expected.numpy()) and x.data_ptr() == address and x._version == version + 1
    assert np.array_equal(base[:, 1:6].numpy(), expected.numpy())
    leaf = base[:, 1:6].clone().requires_grad_()
    with pytest.raises(RuntimeError, match="leaf"):
        getattr(leaf, name + "_")(*arguments)
    with graphc.no_grad():
        getattr(leaf, name + "_")(*arguments)


# ---- masks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [2.5, "0-d", "row"])
def test_a_mask_with_one_value_compiles(value: Any) -> None:
    x, mask = graphc.from_numpy(array(4, 3)), graphc.tensor([True, False, True, False])
    given_value = {"0-d": graphc.tensor(1.5), "row": graphc.tensor([1.0, 2.0, 3.0])}.get(value, value)

    def clear(x: Any, mask: Any) -> Any:
        x = x.clone()
        x[mask] = given_value
        x[x > 1] = 1.0
        return x

    assert np.array_equal(graphc.compile(clear)(x, mask).numpy(), clear(x, mask).numpy())


def test_a_mask_that_sizes_the_result_compiles() -> None:
    compiled = graphc.compile(lambda x: x[x > 0].sum(), fullgraph=True)
    for low in (0.0, 0.5, 2.0):
        x = graphc.from_numpy(array(4, 3)) - low
        assert compiled(x) == x[x > 0].sum()


def test_uint8_is_a_mask() -> None:
    with pytest.warns(UserWarning, match="uint8"):
        assert graphc.arange(3)[graphc.tensor([0, 1, 1], dtype=graphc.uint8)].tolist() == [1, 2]


# ---- 0-dim index tensors ---------------------------------------------------------------------------------------------------


def test_a_0_dim_index_is_an_int_in_compiled_code_too() -> None:
    x, i = graphc.from_numpy(array(4, 3, 5)), graphc.tensor(-2)
    wide = graphc.tensor([0, 2])
    f: Callable[..., Any] = lambda x, i: (x[i] * 1.0, x[i, :, wide] + 0.0, x[:, i, 1:3] * 1.0)
    for a, b in zip(graphc.compile(f)(x, i), f(x, i), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_writing_into_what_a_0_dim_index_chose_is_not_traced() -> None:
    def grow(x: Any, i: Any) -> Any:
        row = x[i]
        row += 1
        return x * 1.0

    def stale(x: Any, i: Any) -> Any:
        row = x[i]
        x += 1
        return row * 1.0

    for f in (grow, stale):
        x, i = graphc.zeros(2, 3), graphc.tensor(1)
        with pytest.warns(CompileWarning, match="chosen by elements"):
            assert np.array_equal(graphc.compile(f)(x.clone(), i).numpy(), f(x.clone(), i).numpy())


# ---- errors ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (5, IndexError),
        ((0, 0, 0, 0), IndexError),
        (slice(None, None, -1), ValueError),
        (slice(0, 2.0), TypeError),
        ("a", TypeError),
        (1.0, IndexError),
        ([0.5], IndexError),
        (np.array([9]), IndexError),
        (np.zeros(3, bool), IndexError),
        ((np.zeros(2, int), np.zeros(3, int)), IndexError),
    ],
    ids=str,
)
def test_wrong_indices_raise_and_write_nothing(index: Any, error: type[Exception]) -> None:
    x = graphc.from_numpy(array(2, 3, 4))
    before = x.clone()
    with pytest.raises(error):
        x[index]
    with pytest.raises(error):
        x[index] = 0.0
    assert np.array_equal(x.numpy(), before.numpy())


def test_compiled_indices_out_of_range_raise() -> None:
    def write(x: Any, i: Any) -> Any:
        x = x.clone()
        x[i] = 1.0
        return x

    x = graphc.zeros(3, 2)
    for f in (lambda x, i: x[i] * 1.0, write, lambda x, i: x.index_put((i,), x[:1])):
        compiled = graphc.compile(f)
        compiled(x, graphc.tensor([-3, 2]))
        for wrong in (3, -4, 1 << 62):
            with pytest.raises(IndexError, match="out of range"):
                compiled(x, graphc.tensor([0, wrong]))


def test_a_value_that_does_not_fit_raises() -> None:
    x = graphc.zeros(2, 3)
    for index in (0, graphc.tensor([0, 1]), graphc.tensor([[True, True, False], [False, False, False]])):
        with pytest.raises(RuntimeError):
            x[index] = graphc.zeros(5)
    with pytest.raises(TypeError, match="can't assign a str"):
        x[0] = "a"
