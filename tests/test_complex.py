"""Complex numbers: dtypes and promotion, views of their parts, gradients by PyTorch's convention, text, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graph_cases import assert_same_bits
from graphc import dtypes, saving
from graphc.dtypes import DType, complex64, complex128, float16, float32, float64, int64, uint8, uint16


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        (complex64, float32, complex64),
        (complex64, float64, complex128),
        (complex64, complex128, complex128),
        (int64, complex64, complex64),
        (float16, complex64, complex64),
        (uint16, uint8, uint16),
        (uint16, dtypes.int8, dtypes.int32),
        (uint16, float16, float16),
    ],
)
def test_promotion(a: DType, b: DType, wanted: DType) -> None:
    assert dtypes.promote_types(a, b) is wanted
    assert dtypes.promote_types(b, a) is wanted


def test_a_complex_number_makes_a_tensor_complex() -> None:
    assert (graphc.ones(2) * 1j).dtype is complex64
    assert (graphc.ones(2, dtype=float64) + 1j).dtype is complex128
    assert (graphc.ones(2, dtype=int64) + 1j).dtype is complex64
    assert (graphc.ones(2, dtype=complex64) * graphc.tensor(2.0, dtype=float64)).dtype is complex64
    assert (graphc.ones(2, dtype=complex64) * 2).dtype is complex64


def test_the_default_complex_dtype_follows_the_default_dtype() -> None:
    assert graphc.tensor([1j]).dtype is complex64
    graphc.set_default_dtype(float64)
    try:
        assert graphc.tensor([1j, 2.0]).dtype is complex128
    finally:
        graphc.set_default_dtype(float32)


def test_a_dtype_knows_its_parts() -> None:
    assert complex64.real is float32 and complex128.real is float64 and float16.real is float16
    assert float64.to_complex() is complex128 and float16.to_complex() is complex64
    assert complex64.is_complex and complex64.is_signed and not complex64.is_floating_point
    assert dtypes.can_cast(int64, complex64) and not dtypes.can_cast(complex64, float64)
    with pytest.raises(TypeError):
        int64.to_complex()


def test_parts_are_views() -> None:
    x = graphc.tensor([[1 + 2j, 3 - 4j], [5j, 6]])
    x.real.add_(10)
    x.imag[0] = 0
    np.testing.assert_array_equal(x.numpy(), [[11, 13], [10 + 5j, 16]])
    graphc.view_as_real(x)[1, 1, 1] = -1
    assert x[1, 1].item() == 16 - 1j
    pairs = graphc.zeros(3, 2)
    graphc.view_as_complex(pairs)[1] = 2 + 3j
    np.testing.assert_array_equal(pairs.numpy(), [[0, 0], [2, 3], [0, 0]])
    assert x.t().real.stride() == (2, 4) and x.imag.storage_offset() == 1


def test_parts_of_real_numbers() -> None:
    x = graphc.ones(2)
    assert x.real is x and x.conj() is x
    with pytest.raises(RuntimeError, match="imag is not implemented for tensors with non-complex dtypes"):
        _ = x.imag


def test_a_view_of_pairs_needs_pairs_that_lie_together() -> None:
    with pytest.raises(RuntimeError, match="last dimension with stride 1"):
        graphc.view_as_complex(graphc.zeros(2, 3).t())
    with pytest.raises(RuntimeError, match="last dimension of size 2"):
        graphc.view_as_complex(graphc.zeros(3))


def test_one_element_as_a_number() -> None:
    x = graphc.tensor(3 + 0j)
    assert x.item() == 3 + 0j and complex(x) == 3 and float(x) == 3.0 and int(x) == 3 and bool(x)
    with pytest.raises(RuntimeError, match="cannot be converted"):
        float(graphc.tensor(1j))
    assert graphc.tensor([1j]).tolist() == [1j]


def test_text() -> None:
    assert repr(graphc.tensor([1 + 2j, 3 - 1j])) == "tensor([1.+2.j, 3.-1.j])"
    assert repr(graphc.tensor(0.5 - 2j, dtype=complex128)) == "tensor(0.5000-2.j, dtype=graphc.complex128)"


def test_no_order() -> None:
    x = graphc.ones(2, dtype=complex64)
    for compare in (graphc.lt, graphc.maximum, graphc.floor):
        with pytest.raises(RuntimeError, match="not defined for complex tensors"):
            compare(x, x) if compare is not graphc.floor else compare(x)


def test_a_real_tensor_takes_no_complex_result() -> None:
    with pytest.raises(RuntimeError, match="can't be cast"):
        graphc.ones(2).mul_(1j)


# ---- gradients -------------------------------------------------------------------------------------------------------


def slopes(function: Any, x: np.ndarray[Any, Any], step: float = 1e-6) -> np.ndarray[Any, Any]:
    """d f / d(real) + i d f / d(imaginary) of a real function, by central differences."""
    found = np.zeros_like(x)
    for at in np.ndindex(*x.shape):
        for unit in (1.0, 1j):
            ends = []
            for sign in (1, -1):
                moved = x.copy()
                moved[at] += sign * step * unit
                ends.append(float(function(graphc.from_numpy(moved))))
            found[at] += unit * (ends[0] - ends[1]) / (2 * step)
    return found


@pytest.mark.parametrize(
    "function",
    [
        lambda z: (z * z.conj()).real.sum(),
        lambda z: (z * z * (1 - 2j)).abs().sum(),
        lambda z: (z.exp() / (z + 3)).real.sum() + z.imag.square().sum(),
        lambda z: graphc.angle(z).sum() + (z.sgn() * (2 + 1j)).real.sum(),
        lambda z: (z @ z.mH).abs().sum() + graphc.view_as_real(z.sin()).prod(),
        lambda z: graphc.polar(z.abs(), z.angle() * 2).imag.sum(),
        lambda z: (z**3 + z**0.5).real.sum() + (graphc.ones(3) * z).imag.cos().sum(),
    ],
)
def test_gradients(function: Any) -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(0.5, 1.5, (3, 3)) + 1j * rng.uniform(0.2, 1.0, (3, 3))
    z = graphc.from_numpy(x.copy()).requires_grad_()
    (first,) = graphc.autograd.grad(function(z), z, create_graph=True)
    np.testing.assert_allclose(first.detach().numpy(), slopes(function, x), rtol=1e-5, atol=1e-6)

    def second(z: Any) -> Any:
        z = z.detach().requires_grad_()
        (g,) = graphc.autograd.grad(function(z), z, create_graph=True)
        return (g * (1 - 0.5j)).real.sum()

    if not first.requires_grad:
        return
    (twice,) = graphc.autograd.grad((first * (1 - 0.5j)).real.sum(), z)
    np.testing.assert_allclose(twice.numpy(), slopes(lambda z: second(z).detach(), x, 1e-5), rtol=1e-4, atol=1e-5)


def test_a_real_input_of_a_complex_result_has_a_real_gradient() -> None:
    x = graphc.tensor([1.0, 2.0], requires_grad=True)
    (x * graphc.tensor([1 + 2j, 3 - 1j])).sum().abs().backward()
    assert x.grad.dtype is float32 and x.grad.shape == (2,)


def test_backward_starts_from_real_numbers() -> None:
    z = graphc.tensor([1j], requires_grad=True)
    with pytest.raises(RuntimeError, match=r"only for real scalar outputs but got graphc\.complex64"):
        (z * 2).sum().backward()
    (z * 2).sum().backward(graphc.tensor(1 + 1j))
    np.testing.assert_array_equal(z.grad.numpy(), [2 + 2j])


# ---- compiled --------------------------------------------------------------------------------------------------------


def rotated(x: Any, freqs: Any) -> Any:
    """The rotary embedding that many language models have."""
    pairs = graphc.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return graphc.view_as_real(pairs * freqs).flatten(2).type_as(x)


def test_compiled_bits_and_files(tmp_path: Path) -> None:
    graphc.manual_seed(0)
    x = graphc.randn(2, 5, 8)
    angles = graphc.outer(graphc.arange(5.0), 1.0 / 10000 ** (graphc.arange(0, 8, 2) / 8))
    freqs = graphc.polar(graphc.ones_like(angles), angles)
    compiled = graphc.compile(rotated)
    assert_same_bits([compiled(x, freqs).numpy()], [rotated(x, freqs).numpy()])
    compiled.save(tmp_path / "rotated.gc")
    assert_same_bits([saving.load(tmp_path / "rotated.gc")(x, freqs).numpy()], [rotated(x, freqs).numpy()])


def test_writing_through_parts_in_a_compiled_function() -> None:
    def change(z: Any) -> Any:
        z = z.clone()
        z.real.mul_(2)
        z.imag[0] = 5
        return z

    z = graphc.tensor([1 + 2j, 3 - 4j])
    assert_same_bits([graphc.compile(change)(z).numpy()], [change(z).numpy()])
    np.testing.assert_array_equal(change(z).numpy(), [2 + 5j, 6 - 4j])


def test_gradients_of_compiled_code() -> None:
    z = graphc.tensor([1 + 2j, 3 - 4j], requires_grad=True)
    loss = lambda z: (z.exp() * z.conj()).abs().sum()
    (eager,) = graphc.autograd.grad(loss(z), z)
    (compiled,) = graphc.autograd.grad(graphc.compile(loss)(z), z)
    assert_same_bits([compiled.numpy()], [eager.numpy()])


def test_a_state_dict_keeps_complex_numbers(tmp_path: Path) -> None:
    state = {"z": graphc.tensor([1 + 2j]), "n": graphc.tensor([7], dtype=uint16)}
    graphc.save(state, tmp_path / "z.gc")
    loaded = graphc.load(tmp_path / "z.gc")
    assert loaded["z"].dtype is complex64 and loaded["n"].dtype is uint16
    np.testing.assert_array_equal(loaded["z"].numpy(), [1 + 2j])


def test_random_complex_numbers() -> None:
    graphc.manual_seed(0)
    z = graphc.randn(20000, dtype=complex64)
    assert z.dtype is complex64
    assert abs(float(z.abs().square().mean()) - 1.0) < 0.05 and abs(z.mean().item()) < 0.05
    assert float(graphc.rand(100, dtype=complex128).imag.min()) >= 0.0


def test_uint16_is_an_integer_dtype() -> None:
    x = graphc.tensor([65535, 1], dtype=uint16)
    np.testing.assert_array_equal((x + 1).numpy(), np.array([0, 2], np.uint16))
    assert (x + 1).dtype is uint16 and x.sum().item() == 65536 and x.sum().dtype is int64
    compiled = graphc.compile(lambda x: (x * 3) // 2)
    assert_same_bits([compiled(x).numpy()], [((x * 3) // 2).numpy()])
