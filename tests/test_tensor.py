"""Tensors: creation, views, in-place operators, indexing, conversion, errors."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest

import graphc
from graphc.dtypes import float32, float64, int32, int64
from graphc.eager import dispatch
from graphc.eager.views import VIEWS, contiguous_strides, reshape_strides
from graphc.ir.op import Movement, Op, TensorType


def ours(*shape: int) -> graphc.Tensor:
    return graphc.arange(int(np.prod(shape))).reshape(shape).float()


# ---- creation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1, "int64"),
        (1.0, "float32"),
        (True, "bool"),
        ([1, 2.5], "float32"),
        ([[1], [2]], "int64"),
        ([], "float32"),
        ([True], "bool"),
    ],
)
def test_tensor_gives_python_data_pytorchs_dtypes(data: object, dtype: str) -> None:
    x = graphc.tensor(data)
    assert x.dtype.name == dtype
    assert x.tolist() == data


def test_tensor_copies_and_from_numpy_shares() -> None:
    array = np.zeros(3, np.float32)
    copied, shared = graphc.tensor(array), graphc.from_numpy(array)
    array[0] = 5
    assert copied.tolist() == [0, 0, 0]
    assert shared.tolist() == [5, 0, 0]
    shared.add_(1)
    assert array.tolist() == [6, 1, 1]
    assert np.shares_memory(shared.numpy(), array)


def test_the_default_dtype_is_followed() -> None:
    graphc.set_default_dtype(float64)
    try:
        assert graphc.tensor(1.0).dtype is float64
        assert graphc.zeros(2).dtype is float64
        assert graphc.arange(0.0, 1.0, 0.5).dtype is float64
    finally:
        graphc.set_default_dtype(float32)


def test_sizes_may_be_given_one_by_one_or_as_a_sequence() -> None:
    assert graphc.zeros(2, 3).shape == graphc.ones((2, 3)).shape == graphc.empty([2, 3]).shape == (2, 3)
    assert graphc.full((2,), 7).tolist() == [7, 7]
    assert graphc.zeros_like(graphc.ones(2, dtype=int32)).dtype is int32
    assert graphc.ones(2).new_zeros(3).tolist() == [0, 0, 0]
    assert graphc.eye(2).tolist() == [[1, 0], [0, 1]]
    assert graphc.linspace(0, 1, 3).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: graphc.tensor([[1, 2], [3]]), ValueError, "differ in length"),
        (lambda: graphc.tensor("a"), TypeError, "could not make a tensor of str"),
        (lambda: graphc.tensor(1.0, dtype="float32"), TypeError, "must be a graphc dtype"),
        (lambda: graphc.zeros(-1), RuntimeError, "zeros: negative size"),
        (lambda: graphc.tensor(1, requires_grad=True), RuntimeError, "only Tensors of floating point and complex dtype"),
        (lambda: graphc.zeros(2, device="cuda"), AssertionError, "can only be on the CPU"),
        (lambda: graphc.from_numpy(np.zeros(3)[::-1]), ValueError, "negative stride"),
        (lambda: graphc.from_numpy(np.zeros(3, "datetime64[s]")), TypeError, "no dtype for numpy's datetime64"),
        (lambda: graphc.from_numpy([1.0]), TypeError, "expected np.ndarray, got list"),
        (lambda: graphc.Tensor(1.5), TypeError, "data must be sizes, a sequence or a tensor, got float"),
    ],
)
def test_bad_creation_says_what_is_wrong(make: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()  # type: ignore[operator]


def test_limits_of_dtypes() -> None:
    assert graphc.finfo(float32).eps == 2.0**-23
    assert graphc.finfo(graphc.bfloat16).bits == 16
    assert graphc.finfo(graphc.bfloat16).max == pytest.approx(3.39e38, rel=1e-2)
    assert (graphc.iinfo(int32).max, graphc.iinfo(int32).bits) == (2**31 - 1, 32)
    with pytest.raises(TypeError, match="floating"):
        graphc.finfo(int32)


# ---- facts and conversion --------------------------------------------------------------------------------------------


def test_facts_of_a_tensor() -> None:
    x = graphc.zeros(2, 3, 4)
    assert (x.shape, x.ndim, x.dim(), x.numel(), x.size(1), len(x), x.element_size()) == ((2, 3, 4), 3, 3, 24, 3, 2, 4)
    assert x.stride() == (12, 4, 1)
    assert isinstance(x.shape[1:], graphc.Size)
    assert x.shape.numel() == 24
    assert x.device == graphc.device("cpu")
    assert x.permute(2, 0, 1).stride() == (1, 12, 4)
    assert not x.permute(2, 0, 1).is_contiguous()
    assert x.permute(2, 0, 1).contiguous().stride() == (6, 3, 1)
    assert x.contiguous() is x


def test_numbers_out_of_tensors() -> None:
    assert graphc.tensor(2.5).item() == 2.5
    assert float(graphc.tensor([2.5])) == 2.5
    assert int(graphc.tensor(3)) == 3
    assert list(range(5))[graphc.tensor(3)] == 3
    assert graphc.tensor([1.5], dtype=graphc.bfloat16).item() == 1.5
    assert graphc.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert bool(graphc.tensor([1])) and not graphc.tensor(False)
    assert [x.item() for x in graphc.arange(3)] == [0, 1, 2]
    assert 2 in graphc.arange(3)
    with pytest.raises(RuntimeError, match=r"2 elements cannot be converted to Scalar \(test_tensor.py:\d+\)"):
        graphc.zeros(2).item()
    with pytest.raises(RuntimeError, match="Boolean value of Tensor with more than one value is ambiguous"):
        bool(graphc.zeros(2))
    with pytest.raises(RuntimeError, match="requires grad"):
        graphc.ones(2, requires_grad=True).numpy()
    with pytest.raises(TypeError, match="0-d"):
        len(graphc.tensor(1))


def test_conversions_give_the_tensor_itself_where_nothing_changes() -> None:
    x = graphc.ones(2)
    assert x.float() is x
    assert x.to(float32) is x
    assert x.to("cpu") is x
    assert x.cpu() is x
    assert x.to(float32, copy=True) is not x
    assert x.to(graphc.zeros(1, dtype=int64)).dtype is int64
    assert x.double().dtype is float64
    assert x.type() == "graphc.FloatTensor"
    assert x.half().dtype is graphc.float16
    with pytest.raises(TypeError, match="to: expected a dtype"):
        x.to(3.5)


def test_copies() -> None:
    x = graphc.ones(2, requires_grad=True)
    y = copy.deepcopy(x)
    assert y.requires_grad
    assert y.is_leaf
    assert y.tolist() == [1, 1]
    z = pickle.loads(pickle.dumps(x))
    assert z.requires_grad
    assert z.tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="leaves"):
        copy.deepcopy(x * 2)


# ---- operators -------------------------------------------------------------------------------------------------------


def test_python_operators() -> None:
    x = graphc.tensor([1.0, 2.0, 4.0])
    assert (x + 1).tolist() == (1 + x).tolist() == [2, 3, 5]
    assert (3 - x).tolist() == [2, 1, -1]
    assert (8 / x).tolist() == [8, 4, 2]
    assert (2**x).tolist() == [2, 4, 16]
    assert (x // 2).tolist() == [0, 1, 2]
    assert (x % 3).tolist() == [1, 2, 1]
    assert (-x).abs().tolist() == [1, 2, 4]
    assert (x > 1).tolist() == [False, True, True]
    assert ((x > 1) & ~(x > 2)).tolist() == [False, True, False]
    assert (x @ x).item() == 21
    assert (np.float32(2) * x).tolist() == [2, 4, 8]
    assert (x == x.clone()).all()
    assert (x == None) is False  # noqa: E711
    assert len({x, x.clone()}) == 2


def test_errors_of_operators_name_the_users_line_once() -> None:
    with pytest.raises(RuntimeError) as caught:
        graphc.ones(2) + graphc.ones(3)
    text = str(caught.value)
    assert text.startswith("add: shapes [2] and [3] do not broadcast")
    assert text.count("test_tensor.py:") == 1
    with pytest.raises(TypeError, match="unsupported operand"):
        graphc.ones(2) + "a"  # type: ignore[operator]
    with pytest.raises(TypeError, match=r"must be a Tensor.*test_tensor.py"):
        graphc.exp(3.0)


def test_out_takes_the_result() -> None:
    out = graphc.zeros(2)
    assert graphc.add(graphc.ones(2), 1, out=out) is out
    assert out.tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="can't be cast"):
        graphc.add(graphc.ones(2), 1, out=graphc.zeros(2, dtype=graphc.int64))
    assert graphc.exp(input=graphc.zeros(1)).tolist() == [1]


# ---- views -----------------------------------------------------------------------------------------------------------


def test_views_share_memory_and_version() -> None:
    x = ours(3, 4)
    y = x.t()[1:3].unsqueeze(0)
    y.mul_(10)
    assert x.tolist() == [[0, 10, 20, 3], [4, 50, 60, 7], [8, 90, 100, 11]]
    assert x._version == y._version == 1
    x.zero_()
    assert y.sum().item() == 0
    assert x.detach()._version == 2


def test_which_operators_alias() -> None:
    x = ours(2, 3, 4)
    for view in (
        x.view(6, 4),
        x.permute(1, 0, 2),
        x[0],
        x[:, 1:],
        x.expand(5, 2, 3, 4),
        x.squeeze(),
        x.unsqueeze(1),
        x.flatten(),
        x.T,
        x.mT,
    ):
        assert np.shares_memory(view.numpy(), x.numpy())
    for made in (x.clone(), x.permute(1, 0, 2).reshape(-1), x.flip(0), x + 0, x.permute(1, 0, 2).contiguous()):
        assert not np.shares_memory(made.numpy(), x.numpy())
    assert {op.name for op in Op.table.values() if isinstance(op.lowering, Movement)} - {op.name for op in VIEWS} <= {
        "flip",
        "windows",
        "adaptive_windows",
        "pad_mode",
    }


def test_view_refuses_what_needs_a_copy() -> None:
    x = ours(3, 4).t()
    with pytest.raises(RuntimeError, match=r"view: .* use reshape\(\) \(test_tensor.py"):
        x.view(-1)
    assert x.reshape(-1).tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert x.view(2, 2, 3).shape == (2, 2, 3)


@pytest.mark.parametrize("seed", range(30))
def test_strides_of_traced_reshapes_are_numpys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [int(s) for s in rng.choice([1, 2, 3, 4, 6], rng.integers(1, 5))]
    array = np.zeros(sizes, np.float32).transpose(rng.permutation(len(sizes)))
    if rng.random() < 0.5:
        array = array[tuple(slice(int(rng.integers(0, 2)) if s > 1 else 0, None, int(rng.integers(1, 3))) for s in array.shape)]
    factors: list[int] = []
    rest = array.size
    while rest > 1:
        f = int(rng.choice([d for d in range(2, rest + 1) if rest % d == 0]))
        factors.append(f)
        rest //= f
    shape = tuple(factors) if factors else (1,)
    steps = tuple(s // 4 for s in array.strides)
    ours_ = reshape_strides(TensorType(float32, array.shape), steps, TensorType(float32, shape), shape)
    made = array.reshape(shape)
    if not np.shares_memory(made, array):
        assert ours_ is None
    else:
        assert ours_ is not None
        assert [(n, s) for n, s in zip(shape, ours_, strict=True) if n > 1] == [
            (n, s // 4) for n, s in zip(shape, made.strides, strict=True) if n > 1
        ]


def test_row_major_strides() -> None:
    assert contiguous_strides((2, 3, 4)) == (12, 4, 1)
    assert contiguous_strides(()) == ()


# ---- in-place operators ----------------------------------------------------------------------------------------------


def test_in_place_operators_keep_dtype_and_memory() -> None:
    x = graphc.ones(3)
    address = x.data_ptr()
    x.add_(1, alpha=2).mul_(graphc.tensor([1.0, 2.0, 3.0])).sub_(1).div_(2)
    x += 1
    x *= 2
    assert x.tolist() == [4, 7, 10]
    assert x.data_ptr() == address
    assert x.copy_(graphc.tensor([1, 2, 3])).dtype is float32
    assert x.clamp_(max=2).tolist() == [1, 2, 2]
    assert x.fill_(graphc.tensor(4)).tolist() == [4, 4, 4]
    assert x.zero_().tolist() == [0, 0, 0]
    assert x.masked_fill_(graphc.tensor([True, False, True]), 9).tolist() == [9, 0, 9]


def test_in_place_operators_refuse_other_kinds_and_shapes() -> None:
    with pytest.raises(RuntimeError, match=r"add_: result type .*float32 can't be cast to the desired output type .*int64"):
        graphc.ones(2, dtype=int64).add_(1.5)
    with pytest.raises(RuntimeError, match=r"add_: shapes \[2\] of the tensor and \[3, 2\] of the result"):
        graphc.ones(2).add_(graphc.ones(3, 2))
    with pytest.raises(RuntimeError, match=r"single memory location.*clone\(\)"):
        graphc.ones(1).expand(3).add_(1)


def test_in_place_views_change_the_shape_only() -> None:
    x = ours(2, 3)
    storage = x._storage
    assert x.transpose_(0, 1).shape == (3, 2)
    assert x.unsqueeze_(0).shape == (1, 3, 2)
    assert x.squeeze_().shape == (3, 2)
    assert x.transpose_(0, 1).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert x._storage is storage


# ---- indexing --------------------------------------------------------------------------------------------------------

ARRAY = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
INDICES = [
    0, -1, slice(1, 3), slice(None, None, 2), ..., None, (0, 1), (..., 2), (slice(None), 1), (None, 0, ..., None), (0, 1, 2),
    slice(5, 2), (slice(-2, None), slice(1, -1), -1), [0, 2], ([0, 2], [1, 3]), (slice(None), [0, 2]), ([[0, 1], [2, 0]],),
    (0, [1, 2]),
    (slice(None), [0, 1], [2, 3]), ([0, 1], slice(None), [2, 3]), (..., [0, -1]), (None, [0, 1]), np.array([True, False, True]),
    (slice(None), np.array([True, False, True, True])), ARRAY > 30, (slice(1, 3), [1, 1]),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing_is_numpys(index: object) -> None:
    x = graphc.tensor(ARRAY)
    as_tensors = index if not isinstance(index, list | np.ndarray) else graphc.tensor(index)
    expected = ARRAY[tuple(index) if isinstance(index, tuple) else index]  # type: ignore[index]
    got = x[as_tensors]
    assert got.shape == expected.shape
    assert np.array_equal(got.numpy(), expected)
    copy_, changed = x.clone(), ARRAY.copy()
    value = np.arange(expected.size, dtype=np.float32).reshape(expected.shape) - 7
    copy_[as_tensors] = graphc.tensor(value)
    changed[index] = value  # type: ignore[index]
    assert np.array_equal(copy_.numpy(), changed)
    copy_[as_tensors] = 3
    changed[index] = 3  # type: ignore[index]
    assert np.array_equal(copy_.numpy(), changed)


@pytest.mark.parametrize(
    ("index", "error", "match"),
    [
        (3, IndexError, "index 3 is out of bounds for dimension 0 with size 3"),
        ((0, 0, 0, 0), IndexError, "too many indices for tensor of dimension 3"),
        (slice(None, None, -1), ValueError, "step must be greater than zero"),
        ([0, 3], IndexError, "index 3 is out of bounds for dimension 0"),
        ("a", TypeError, "indices must be"),
        (np.array([True, False]), IndexError, "does not match"),
        (1.5, IndexError, "only integers, slices"),
    ],
)
def test_bad_indices(index: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        graphc.tensor(ARRAY)[index]


def test_writes_through_indices_reach_the_base() -> None:
    x = graphc.zeros(3, 3)
    x[1][2] = 5
    x[:, 0] += 1
    x[0] = graphc.tensor([7.0, 8.0, 9.0])
    assert x.tolist() == [[7, 8, 9], [1, 0, 5], [1, 0, 0]]
    with pytest.raises(RuntimeError, match="do not fit"):
        x[0] = graphc.ones(2)


def test_selection_by_elements() -> None:
    x = graphc.tensor([[1.0, 0.0], [3.0, 4.0]], requires_grad=True)
    picked = x.masked_select(x > 1)
    assert picked.tolist() == [3, 4]
    picked.sum().backward()
    assert x.grad.tolist() == [[0, 0], [1, 1]]
    assert graphc.nonzero(x.detach()).tolist() == [[0, 0], [1, 0], [1, 1]]
    assert [p.tolist() for p in x.detach().nonzero(as_tuple=True)] == [[0, 1, 1], [0, 0, 1]]
    assert x.detach().where(x > 1, -1).tolist() == [[-1, -1], [3, 4]]
    assert graphc.equal(x, x.clone()) and not x.equal(x + 1)
    values, indices = result = x.max(dim=1)
    assert result.values is values and result.indices is indices
    assert graphc.max(x, 1).indices.tolist() == [0, 1]


# ---- dispatch --------------------------------------------------------------------------------------------------------


def test_operators_that_numpy_runs_exist() -> None:
    assert set(Op.table) >= dispatch.NUMPY_EXACT | dispatch.PLACEMENT


def test_everything_else_goes_to_the_kernel_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def runner(op, arrays, attrs, types):  # type: ignore[no-untyped-def]
        seen.append(op.name)
        results = op.reference(np, *arrays, **attrs)
        return results if isinstance(results, tuple) else (results,)

    monkeypatch.setattr(dispatch, "kernel_runner", runner)
    x, op = graphc.ones(3), Op.table  # operators themselves: public functions may have learned to do without
    op["exp"](op["add"](x, x))
    op["mul"](graphc.ones(3, dtype=graphc.float16), 2)
    op["add"](graphc.ones(dispatch.NUMPY_LIMIT + 1), 1)
    op["cast"].run(x, dtype=float64)
    op["cast"].run(x, dtype=int64)
    assert seen == ["exp", "mul", "add", "cast"]


def test_numpys_names_of_arguments() -> None:
    x = graphc.arange(6.0).reshape(2, 3)
    assert x.sum(axis=0, keepdims=True).tolist() == [[3, 5, 7]]
    assert graphc.softmax(input=x, axis=1).equal(x.softmax(1))
    assert x.max(axis=1).indices.tolist() == [2, 2]


def test_allclose() -> None:
    x = graphc.tensor([1.0, float("nan")])
    assert not x.allclose(x)
    assert graphc.allclose(x, x, equal_nan=True)
    assert graphc.allclose(graphc.full((2,), graphc.pi), graphc.tensor([3.1415927, 3.1415929]))
    assert not graphc.allclose(graphc.ones(2), graphc.ones(2) * 1.01)


def test_a_list_is_extended_by_a_size() -> None:
    listed: list[object] = ["a"]
    listed += graphc.Size([2, 3])
    assert listed == ["a", 2, 3]
    assert operator.add((1,), graphc.Size([2])) == graphc.Size([1, 2])
    with pytest.raises(TypeError):
        operator.add([1], graphc.Size([2]))
