"""Memory shared with NumPy and other libraries, Python's conversions, and NumPy's functions on tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.utils.dlpack

DTYPES = [
    graphc.bool, graphc.uint8, graphc.uint16, graphc.int8, graphc.int64, graphc.float16, graphc.bfloat16, graphc.float32,
    graphc.float64, graphc.complex64,
]  # fmt: skip


class Old:
    """An exporter from before DLPack 1.0."""

    def __init__(self, x: graphc.Tensor) -> None:
        self.x = x

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.x.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dlpack_shares_memory(dtype: graphc.dtype) -> None:
    x = graphc.ones(2, 3, dtype=dtype).t()
    for y in (
        graphc.from_dlpack(x), graphc.from_dlpack(Old(x)), graphc.from_dlpack(x.__dlpack__()),
        graphc.utils.dlpack.from_dlpack(graphc.utils.dlpack.to_dlpack(x)),
    ):  # fmt: skip
        assert y.dtype is dtype and y.shape == (3, 2) and y.stride() == (1, 3) and y.data_ptr() == x.data_ptr()
        y[0, 1] = 0
        assert not x[0, 1].item()
        x.fill_(1)
    assert graphc.from_dlpack(x, copy=True).data_ptr() != x.data_ptr()


def test_dlpack_with_numpy_and_what_it_refuses() -> None:
    x = graphc.ones(3)
    assert np.shares_memory(np.from_dlpack(x), x.numpy()) and x.__dlpack_device__() == (1, 0)
    assert graphc.from_dlpack(np.arange(3)).tolist() == [0, 1, 2]
    with pytest.raises(BufferError, match="require gradient"):
        graphc.ones(1, requires_grad=True).__dlpack__()
    with pytest.raises(BufferError, match="device"):
        x.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError):
        graphc.ones(1).expand(3).__dlpack__()  # read-only, which the old version cannot say
    assert np.from_dlpack(graphc.ones(1).expand(3)).tolist() == [1, 1, 1]
    with pytest.raises(TypeError, match="fresh capsule"):
        graphc.from_dlpack(3)
    capsule = x.__dlpack__()
    graphc.from_dlpack(capsule)
    with pytest.raises(TypeError, match="fresh capsule"):
        graphc.from_dlpack(capsule)


def test_memory_outlives_its_maker() -> None:
    y = graphc.from_dlpack(Old(graphc.arange(1000)))
    z = graphc.from_numpy(np.arange(1000)[10:])
    assert y.sum().item() == 499500 and z[0].item() == 10


def test_buffers() -> None:
    data = bytearray(16)
    x = graphc.frombuffer(data, dtype=graphc.int32)
    x[1] = 258
    assert data[4:6] == b"\x02\x01" and graphc.frombuffer(data, dtype=graphc.int32, count=1, offset=4).tolist() == [258]
    for how in ({"offset": 16}, {"count": 5}, {"offset": 1}, {"count": 0}):
        with pytest.raises(ValueError, match="frombuffer"):
            graphc.frombuffer(data, dtype=graphc.int32, **how)
    assert graphc.asarray(data, dtype=graphc.uint8).shape == (16,)


def test_arrays_and_numpy_scalars_are_operands() -> None:
    x = graphc.ones(3)
    for y in (x * np.full(3, 2.0), np.full(3, 2.0) * x):
        assert isinstance(y, graphc.Tensor) and y.dtype is graphc.float64 and y.tolist() == [2, 2, 2]
    assert (x + np.float64(1)).dtype is (np.float64(1) + x).dtype is graphc.float32
    assert (graphc.tensor(3) + np.int64(2)).dtype is graphc.int64 and (x == np.ones(3)).all()
    assert isinstance(np.exp(x), graphc.Tensor) and np.exp(x).tolist() == pytest.approx([math.e] * 3)
    assert np.add(x, np.ones(3)).tolist() == [2, 2, 2] and np.stack([x, x]).shape == (2, 3)
    assert np.asarray(x, dtype=np.int32).dtype == np.int32 and np.array([graphc.tensor(1.0), graphc.tensor(2.0)]).tolist() == [1, 2]
    assert x.expand(int(np.int64(3))).shape == (3,) and graphc.zeros(np.int64(2), np.int32(3)).shape == (2, 3)
    x[np.int64(0)] = np.float32(5)
    assert x.sum(dim=np.int64(0)).item() == 7 and x.reshape(np.int64(1), 3).shape == (1, 3)


def test_comparison_with_what_is_no_number() -> None:
    x = graphc.ones(2)
    assert (x == None) is False and (x != None) is True and (x == "a") is False  # noqa: E711
    with pytest.raises(TypeError):
        x < None  # type: ignore[operator]  # noqa: B015
    assert x in [x] and 1.0 in x and 2.0 not in x
    with pytest.raises(RuntimeError, match="only supports Tensor or scalar"):
        "a" in x  # noqa: B015
    assert {x: 1}[x] == 1 and hash(x) == hash(x) and x.__hash__() != graphc.ones(2).__hash__()


def test_python_conversions() -> None:
    assert float(graphc.tensor([2])) == 2.0 and int(graphc.tensor(2.7)) == 2 and complex(graphc.tensor(2)) == 2 + 0j
    assert [1, 2, 3][graphc.tensor(1)] == 2 and list(range(graphc.tensor(2))) == [0, 1]
    assert float(graphc.tensor(2 + 0j)) == 2.0 and graphc.tensor(1 + 2j).item() == 1 + 2j
    assert f"{graphc.tensor(2.5):.2f} {graphc.tensor(7):03d}" == "2.50 007" and math.floor(graphc.tensor(2.5)) == 2
    assert [t.item() for t in reversed(graphc.arange(3))] == [2, 1, 0] and graphc.tensor(True).is_nonzero()
    for call in (float, int, complex):
        with pytest.raises(ValueError, match="only one element tensors"):
            call(graphc.ones(3))
    with pytest.raises(RuntimeError, match=r"cannot be converted to a real number|without overflow"):
        float(graphc.tensor(1j))
    with pytest.raises(TypeError, match="only integer tensors"):
        [1][graphc.tensor(0.5)]  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match="Can't call numpy"):
        graphc.ones(1, requires_grad=True).numpy()
    assert graphc.ones(1, requires_grad=True).numpy(force=True).tolist() == [1]


def test_data_that_is_no_tensor() -> None:
    for data, error in (
        (None, RuntimeError),
        ([None], RuntimeError),
        (2**70, ValueError),
        ("a", TypeError),
        ([[1], [2, 3]], ValueError),
    ):
        with pytest.raises(error, match="tensor"):
            graphc.tensor(data)


def test_the_array_namespace() -> None:
    xp = graphc.ones(1).__array_namespace__(api_version="2024.12")
    assert xp.__array_api_version__ == "2024.12" and graphc.ones(1).to_device("cpu").tolist() == [1]
    with pytest.raises(ValueError, match=r"1999\.12"):
        graphc.ones(1).__array_namespace__(api_version="1999.12")
    x = xp.asarray([3.0, 1.0, 2.0])
    assert (
        xp.sort(x, descending=True).tolist() == [3, 2, 1]
        and xp.max(x).item() == 3
        and xp.permute_dims(x[None], (1, 0)).shape == (3, 1)
    )
    assert xp.add(xp.asarray(1, dtype=xp.int8), xp.asarray([1], dtype=xp.int16)).dtype is xp.int16
    assert xp.sum(xp.asarray([1], dtype=xp.uint8)).dtype is xp.uint64 and xp.isdtype(x.dtype, "real floating")
    assert xp.unique_all(xp.asarray([2, 1, 2])).indices.tolist() == [1, 0]
    assert xp.__array_namespace_info__().default_dtypes()["integral"] is xp.int64
    assert xp.floor_divide(xp.asarray([math.inf]), 2.0).tolist() == [math.inf]
    assert xp.take(x, xp.asarray([0, 2]), axis=0).tolist() == [3, 2] and xp.cumulative_sum(x, include_initial=True).tolist() == [
        0,
        3,
        4,
        6,
    ]
    with pytest.raises(TypeError, match="Python float"):
        xp.add(xp.asarray([1]), 1.5)
