"""``out=``: written, converted, resized, refused."""

from __future__ import annotations

import warnings

import pytest

import graphc


def test_is_written_and_given_back() -> None:
    x, out = graphc.tensor([1.0, 2.0]), graphc.zeros(2)
    assert graphc.add(x, 1, out=out) is out
    assert out.tolist() == [2.0, 3.0]


def test_converts_to_its_own_dtype() -> None:
    out = graphc.zeros(2, dtype=graphc.float64)
    graphc.add(graphc.tensor([1, 2]), 1, out=out)
    assert out.dtype is graphc.float64 and out.tolist() == [2.0, 3.0]
    with pytest.raises(RuntimeError, match="can't be cast"):
        graphc.add(graphc.tensor([1.5, 2.0]), 1, out=graphc.zeros(2, dtype=graphc.int64))


def test_empty_one_is_resized_silently() -> None:
    out = graphc.empty(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert graphc.mul(graphc.ones(2, 3), 2, out=out) is out
    assert out.tolist() == [[2.0] * 3] * 2


def test_another_one_is_resized_with_a_warning() -> None:
    out = graphc.ones(5)
    with pytest.warns(UserWarning, match=r"add: an output .* shape \[5\], .* shape \[2\]"):
        graphc.add(graphc.ones(2), 1, out=out)
    assert out.tolist() == [2.0, 2.0]


def test_result_is_not_shared_with_the_input() -> None:
    x, out = graphc.ones(2), graphc.empty(0)
    graphc.squeeze(x, out=out)
    out.add_(1)
    assert x.tolist() == [1.0, 1.0]


def test_several_results() -> None:
    x = graphc.tensor([[3.0, 1.0], [2.0, 5.0]])
    values, indices = graphc.empty(0), graphc.empty(0, dtype=graphc.int64)
    result = graphc.max(x, 1, out=(values, indices))
    assert result.values is values and result.indices is indices
    assert values.tolist() == [3.0, 5.0] and indices.tolist() == [0, 1]
    with pytest.raises(RuntimeError, match=r"expected out tensor to have dtype .*int64, got .*float32"):
        graphc.max(x, 1, out=(values, graphc.empty(0)))
    with pytest.raises(TypeError, match="out= takes 2 tensors"):
        graphc.max(x, 1, out=values)


def test_refuses_gradients() -> None:
    x = graphc.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
        graphc.mul(x, 2, out=graphc.zeros(2))
    with graphc.no_grad():
        assert graphc.mul(x, 2, out=graphc.zeros(2)).tolist() == [2.0, 2.0]


def test_refuses_shared_elements() -> None:
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        graphc.add(graphc.ones(3), 1, out=graphc.ones(1).expand(3))
    x = graphc.ones(4)
    with pytest.raises(RuntimeError, match="some elements of the input tensor and the written-to tensor"):
        graphc.add(x[:3], 1, out=x[1:])
    assert graphc.add(x, 1, out=x).tolist() == [2.0] * 4


def test_refuses_what_is_no_tensor() -> None:
    with pytest.raises(TypeError, match="argument 'out' must be a Tensor"):
        graphc.add(graphc.ones(2), 1, out=[0.0, 0.0])  # type: ignore[arg-type]


def test_creation_takes_its_dtype() -> None:
    out = graphc.empty(0, dtype=graphc.int16)
    assert graphc.arange(3, out=out) is out
    assert out.dtype is graphc.int16 and out.tolist() == [0, 1, 2]


def test_compiled() -> None:
    def f(x: graphc.Tensor, out: graphc.Tensor) -> graphc.Tensor:
        return graphc.add(x, 1, out=out)

    out = graphc.zeros(2)
    assert graphc.compile(f)(graphc.ones(2), out).tolist() == [2.0, 2.0]
    assert out.tolist() == [2.0, 2.0]
