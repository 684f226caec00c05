"""Linear algebra and Fourier transforms: what op samples do not show: identities, singular matrices, names of results, batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
import graphc.linalg
from graph_cases import assert_same_bits
from graphc.dtypes import complex128, float32, float64
from graphc.linalg import LinAlgError


def close(a: Any, b: Any, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(a.detach()), np.asarray(b.detach()), rtol=tolerance, atol=tolerance)


@pytest.fixture(params=[float64, complex128], ids=["f64", "c128"])
def x(request: pytest.FixtureRequest) -> Any:
    graphc.manual_seed(7)
    return graphc.randn(2, 4, 4, dtype=request.param)


def test_factors_multiply_to_the_matrix(x: Any) -> None:
    q, r = graphc.linalg.qr(x)
    close(q @ r, x)
    u, s, vh = graphc.linalg.svd(x)
    close((u * s[..., None, :]) @ vh, x)
    p, lower, upper = graphc.linalg.lu(x)
    close(p @ lower @ upper, x)
    values, vectors = graphc.linalg.eig(x)
    close(x.to(complex128) @ vectors, vectors * values[..., None, :])
    positive = x @ x.mH + graphc.eye(4, dtype=x.dtype)
    factor = graphc.linalg.cholesky(positive)
    close(factor @ factor.mH, positive)
    assert (factor.triu(1) == 0).all()
    values, vectors = graphc.linalg.eigh(positive)
    close((vectors * values[..., None, :]) @ vectors.mH, positive)


def test_solutions_solve(x: Any) -> None:
    b = graphc.randn(2, 4, 3, dtype=x.dtype)
    close(x @ graphc.linalg.solve(x, b), b)
    close(graphc.linalg.solve(x, b.mT, left=False) @ x, b.mT)
    close(graphc.linalg.inv(x) @ x, graphc.eye(4, dtype=x.dtype).expand(2, 4, 4))
    factors, pivots = graphc.linalg.lu_factor(x)
    close(x @ graphc.linalg.lu_solve(factors, pivots, b), b)
    close(x.mH @ graphc.linalg.lu_solve(factors, pivots, b, adjoint=True), b)
    tall = graphc.randn(5, 3, dtype=x.dtype)
    right = graphc.randn(5, 2, dtype=x.dtype)
    close(graphc.linalg.lstsq(tall, right).solution, graphc.linalg.pinv(tall) @ right)


def test_determinants(x: Any) -> None:
    sign, size = graphc.linalg.slogdet(x)
    close(sign * size.exp(), graphc.linalg.det(x))
    close(graphc.linalg.det(graphc.matrix_exp(x)), graphc.linalg.diagonal(x).sum(-1).exp(), 1e-7)


def test_names_of_results() -> None:
    a = graphc.eye(3)
    assert graphc.linalg.svd(a).S.shape == (3,) and graphc.linalg.qr(a).R.shape == (3, 3)
    assert graphc.linalg.eigh(a).eigenvalues.shape == (3,) and graphc.linalg.slogdet(a).logabsdet.item() == 0.0
    assert graphc.linalg.lu_factor(a).pivots.tolist() == [1, 2, 3]
    assert graphc.linalg.lstsq(a, a).rank.item() == 3


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda a: graphc.linalg.inv(a), "linalg.inv: The diagonal element 2 is zero"),
        (lambda a: graphc.linalg.solve(a, a), "linalg.solve: The solver failed because the input matrix is singular"),
        (lambda a: graphc.linalg.cholesky(a - 5), "linalg.cholesky: The factorization could not be completed"),
        (lambda a: graphc.linalg.lu_factor(a), r"linalg.lu_factor: U\[2,2\] is zero"),
        (lambda a: graphc.linalg.svd(a * float("nan")), "linalg.svd: The algorithm failed to converge"),
        (lambda a: graphc.linalg.inv(graphc.stack([graphc.eye(2), a])), r"\(Batch element 1\): The diagonal element 2"),
    ],
)
def test_what_cannot_be_done_is_a_linalg_error(call: Any, match: str) -> None:
    with pytest.raises(LinAlgError, match=match):
        call(graphc.ones(2, 2))
    assert issubclass(LinAlgError, RuntimeError)


def test_info_instead_of_an_error() -> None:
    both = graphc.stack([graphc.eye(2), graphc.ones(2, 2)])
    inverse, info = graphc.linalg.inv_ex(both)
    assert info.tolist() == [0, 2]
    close(inverse[0], graphc.eye(2))
    solution, info = graphc.linalg.solve_ex(both, graphc.tensor([[2.0], [3.0]]))
    assert info.tolist() == [0, 2] and solution[1].isnan().all()
    close(solution[0], graphc.tensor([[2.0], [3.0]]))
    with pytest.raises(graphc.linalg.LinAlgError, match="Batch element 1"):
        graphc.linalg.solve_ex(both, graphc.ones(2, 1), check_errors=True)
    assert graphc.linalg.cholesky_ex(-both).info.tolist() == [1, 1]


def test_the_gradient_of_the_determinant_of_a_singular_matrix() -> None:
    x = graphc.tensor([[1.0, 2.0], [2.0, 4.0]], requires_grad=True)
    graphc.linalg.det(x).backward()
    close(x.grad, graphc.tensor([[4.0, -2.0], [-2.0, 1.0]]), 1e-5)


def test_parameters_through_a_factor() -> None:
    """A Gaussian's log-density, as people write it: eager and compiled."""
    graphc.manual_seed(3)
    raw, x = graphc.randn(4, 4, dtype=float64).requires_grad_(), graphc.randn(10, 4, dtype=float64)

    def density(raw: Any, x: Any) -> Any:
        factor = graphc.linalg.cholesky(raw @ raw.T + graphc.eye(4, dtype=float64))
        whitened = graphc.linalg.solve_triangular(factor, x.T, upper=False)
        return -0.5 * (whitened**2).sum() - 10 * graphc.linalg.diagonal(factor).log().sum()

    (eager,) = graphc.autograd.grad(density(raw, x), raw)
    (compiled,) = graphc.autograd.grad(graphc.compile(density)(raw, x), raw)
    assert_same_bits([compiled.numpy()], [eager.numpy()])


def test_transforms_are_inverses() -> None:
    graphc.manual_seed(1)
    x = graphc.randn(3, 5, 8, dtype=float64)
    fft = graphc.fft
    close(fft.ifftn(fft.fftn(x)).real, x)
    close(fft.irfft(fft.rfft(x), n=8), x)
    close(fft.irfft2(fft.rfft2(x, norm="ortho"), s=(5, 8), norm="ortho"), x)
    close(fft.hfft(fft.ihfft(x), n=8), x)
    close(fft.ifftshift(fft.fftshift(x)), x)
    assert fft.rfft(graphc.ones(4)).dtype is graphc.complex64 and fft.fft(graphc.arange(3)).dtype is graphc.complex64


def test_a_convolution_by_transforms_is_differentiated() -> None:
    x = graphc.tensor([1.0, 2.0, 3.0, 4.0], dtype=float64, requires_grad=True)
    kernel = graphc.tensor([1.0, -1.0, 0.0, 0.5], dtype=float64)
    convolved = graphc.fft.irfft(graphc.fft.rfft(x) * graphc.fft.rfft(kernel), n=4)
    (convolved * graphc.arange(4, dtype=float64)).sum().backward()
    wanted = [sum(k * float(kernel[(k - i) % 4]) for k in range(4)) for i in range(4)]
    np.testing.assert_allclose(x.grad.numpy(), wanted, atol=1e-12)


def test_frequencies() -> None:
    np.testing.assert_array_equal(graphc.fft.fftfreq(5, 0.5).numpy(), np.fft.fftfreq(5, 0.5).astype(np.float32))
    assert graphc.fft.rfftfreq(6, dtype=float64, requires_grad=True).requires_grad
    assert graphc.fft.fftfreq(4).dtype is float32


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: graphc.fft.fft(graphc.ones(3), 0), r"Invalid number of data points \(0\)"),
        (lambda: graphc.fft.rfft(graphc.ones(3, dtype=complex128)), "expects a real input tensor"),
        (lambda: graphc.fft.fftn(graphc.ones(3, 3), dim=(0, 0)), "FFT dims must be unique"),
        (lambda: graphc.fft.fftn(graphc.ones(3), s=(2, 2)), "input tensor only has 1 dimensions"),
        (lambda: graphc.fft.irfft(graphc.ones(3), norm="none"), "Invalid normalization mode"),
        (lambda: graphc.fft.fft(graphc.ones(3), 2**62), "overflow"),
    ],
)
def test_wrong_transforms(call: Any, match: str) -> None:
    with pytest.raises(RuntimeError, match=match):
        call()
