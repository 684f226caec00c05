"""Gradients compared with finite differences.

Enters: a function and inputs of float64 (or complex128).  Leaves: True, or what differs.  Never here: gradient rules.

Of a result y and a weight v the real number Re(conj(v) y) is differentiated.  PyTorch's gradient of a complex input z = a + ib is
then the derivative along a plus i times that along b, which is what central differences give.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.eager.autograd import grad
from graphc.eager.modes import enable_grad, no_grad
from graphc.eager.tensor import Tensor, wrap
from graphc.errors import at_user_line

Array = np.ndarray[Any, Any]


class GradcheckError(RuntimeError):
    """What `gradcheck` and `gradgradcheck` raise."""


def _listed(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, tuple | list) else (given,)


def _is_checked(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype.kind in "fc"


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Compare gradients of `func` with central differences of step `eps`, every element (`fast_mode` too is the full check).

    True where they agree within ``atol + rtol * abs``; otherwise raises GradcheckError (or gives False where `raise_exception` is
    off).  Raises ValueError where no input requires grad.
    """
    given = _listed(inputs)
    if not any(_is_checked(x) and x.requires_grad for x in given):
        raise ValueError(at_user_line("gradcheck expects at least one input tensor to require gradient"))
    for i, x in enumerate(given):
        if _is_checked(x) and x.requires_grad and x.dtype.name not in ("float64", "complex128"):
            warnings.warn(f"Input #{i} requires gradient and is not double precision: this check will likely fail", stacklevel=2)
    try:
        _Check(func, given, eps, atol, rtol, nondet_tol).run(
            check_backward_ad, check_batched_grad, check_forward_ad, check_grad_dtypes
        )
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


class _Check:
    """One gradcheck."""

    def __init__(
        self, func: Callable[..., Any], inputs: tuple[Any, ...], eps: float, atol: float, rtol: float, nondet: float
    ) -> None:
        self.func, self.inputs, self.eps, self.atol, self.rtol, self.nondet = func, inputs, eps, atol, rtol, nondet
        self.positions = [i for i, x in enumerate(inputs) if _is_checked(x) and x.requires_grad]
        self.wanted: list[Tensor] = [inputs[i] for i in self.positions]

    def run(self, backward: bool, batched: bool, forward: bool, dtypes: bool) -> None:
        """Raise GradcheckError for the first difference."""
        with enable_grad():
            outputs = [y for y in _listed(self.func(*self.inputs)) if _is_checked(y)]
        differences = [self.differences(i, k) for i in self.positions for k in range(int(self.inputs[i].numel()))]
        for o, y in enumerate(outputs):
            for kind, weight in (("", 1.0), ("Imaginary part of ", 1j)) if y.dtype.kind == "c" else (("", 1.0),):
                numeric = self.numeric(differences, o, weight)
                if backward:
                    self.compare_backward(o, y, weight, kind, numeric, dtypes)
                if batched and y.requires_grad:
                    self.compare_batched(o, y, weight)
                if forward:
                    self.compare_forward(o, weight, kind, numeric)

    # ---- finite differences

    def differences(self, i: int, k: int) -> tuple[list[Array], list[Array] | None]:
        """The derivatives of all outputs along element k of input i: along the real and, of a complex one, the imaginary axis."""
        real = self.along(i, k, self.eps)
        return real, self.along(i, k, self.eps * 1j) if self.inputs[i].dtype.kind == "c" else None

    def along(self, i: int, k: int, step: complex) -> list[Array]:
        upper, lower = self.shifted(i, k, step), self.shifted(i, k, -step)
        return [(a - b) / (2 * self.eps) for a, b in zip(upper, lower, strict=True)]

    def shifted(self, i: int, k: int, step: complex) -> list[Array]:
        x = self.inputs[i]
        array = np.array(x.detach().numpy(), order="C")
        array.reshape(-1)[k] += step
        moved = wrap(array, x.dtype)
        with no_grad():
            outputs = self.func(*self.inputs[:i], moved, *self.inputs[i + 1 :])
        return [np.array(y.detach().numpy()).reshape(-1) for y in _listed(outputs) if _is_checked(y)]

    def numeric(self, differences: Any, o: int, weight: complex) -> list[Array]:
        """For each input, gradients [elements of the input, elements of output o]."""
        columns = []
        for real, imaginary in differences:
            column = np.real(np.conj(weight) * real[o])
            columns.append(column if imaginary is None else column + 1j * np.real(np.conj(weight) * imaginary[o]))
        found, at = [], 0
        for x in self.wanted:
            count = int(x.numel())
            width = differences[0][0][o].size if differences else 0
            found.append(np.array(columns[at : at + count]).reshape(count, width))
            at += count
        return found

    # ---- gradients

    def seeds(self, y: Tensor, weight: complex) -> Array:
        """One seed an element of the output."""
        basis = np.eye(int(y.numel()), dtype=y.dtype.numpy) * np.asarray(weight if y.dtype.kind == "c" else 1, y.dtype.numpy)
        return basis.reshape(-1, *y.shape)

    def analytic(self, y: Tensor, weight: complex, dtypes: bool) -> list[Array]:
        """As `numeric`, by backward."""
        found = [np.zeros((int(x.numel()), int(y.numel())), x.dtype.numpy) for x in self.wanted]
        if not y.requires_grad:
            return found
        for k, seed in enumerate(self.seeds(y, weight)):
            gradients = grad(y, self.wanted, wrap(np.array(seed), y.dtype), retain_graph=True, allow_unused=True)
            for x, g, into in zip(self.wanted, gradients, found, strict=True):
                if g is None:
                    continue
                if g.shape != x.shape or (dtypes and g.dtype is not x.dtype):
                    raise GradcheckError(
                        at_user_line(f"Gradient has dtype {g.dtype} and shape {g.shape}, not {x.dtype} and {x.shape}")
                    )
                into[:, k] = g.detach().numpy_view().reshape(-1)
        return found

    def compare_backward(self, o: int, y: Tensor, weight: complex, kind: str, numeric: list[Array], dtypes: bool) -> None:
        found = self.analytic(y, weight, dtypes)
        self.compare(o, kind, numeric, found)
        again = self.analytic(y, weight, dtypes)
        for a, b in zip(found, again, strict=True):
            if a.size and np.abs(a - b).max() > self.nondet:
                raise GradcheckError(at_user_line(
                    "Backward is not reentrant, i.e., running backward with same input and grad_output multiple times gives "
                    "different values, although analytical gradient matches numerical gradient."
                ))  # fmt: skip

    def compare_forward(self, o: int, weight: complex, kind: str, numeric: list[Array]) -> None:
        """`numeric` by products with the Jacobian."""
        from graphc.func import jvp

        def of_wanted(*wanted: Tensor) -> Any:
            given = list(self.inputs)
            for i, x in zip(self.positions, wanted, strict=True):
                given[i] = x
            return [y for y in _listed(self.func(*given)) if _is_checked(y)][o]

        found = [np.zeros(n.shape, x.dtype.numpy) for n, x in zip(numeric, self.wanted, strict=True)]
        plain = tuple(x.detach() for x in self.wanted)
        for i, x in enumerate(plain):
            for k in range(int(x.numel())):
                for unit in (1.0, 1j) if x.dtype.kind == "c" else (1.0,):
                    directions = [np.zeros_like(p.numpy_view()) for p in plain]
                    directions[i].reshape(-1)[k] = unit
                    tangents = tuple(wrap(d, p.dtype) for d, p in zip(directions, plain, strict=True))
                    product = jvp(of_wanted, plain, tangents)[1].detach().numpy().reshape(-1)
                    found[i][k] += np.real(np.conj(weight) * product) * (1 if unit == 1.0 else 1j)
        self.compare(o, kind, numeric, found)

    def compare_batched(self, o: int, y: Tensor, weight: complex) -> None:
        seeds = self.seeds(y, weight)
        batched = grad(
            y,
            self.wanted,
            wrap(seeds, y.dtype),
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
            materialize_grads=True,
        )
        single = self.analytic(y, weight, False)
        for i, (a, b) in enumerate(zip(batched, single, strict=True)):
            assert a is not None
            if not np.allclose(a.detach().numpy_view().reshape(b.shape[::-1]).T, b, rtol=self.rtol, atol=self.atol):
                raise GradcheckError(
                    at_user_line(f"Batched gradients of output {o} with respect to input {i} differ from single ones")
                )

    def compare(self, o: int, kind: str, numeric: Sequence[Array], found: Sequence[Array]) -> None:
        for i, a, b in zip(self.positions, numeric, found, strict=True):
            if not np.allclose(b, a, rtol=self.rtol, atol=self.atol, equal_nan=True):
                text = f"{kind}Jacobian mismatch for output {o} with respect to input {i},\nnumerical:{a}\nanalytical:{b}\n"
                raise GradcheckError(at_user_line(text))


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """`gradcheck` of the gradients of `func`, as a function of its inputs and of `grad_outputs` (random ones where not given)."""
    given = _listed(inputs)
    with enable_grad():
        outputs = [y for y in _listed(func(*given)) if _is_checked(y) and y.requires_grad]
    if grad_outputs is None:
        numbers = np.random.default_rng(0)
        seeds = []
        for y in outputs:
            array = numbers.standard_normal(tuple(y.shape))
            array = array + 1j * numbers.standard_normal(tuple(y.shape)) if y.dtype.kind == "c" else array
            seeds.append(wrap(np.array(array, y.dtype.numpy), y.dtype).requires_grad_())
    else:
        seeds = list(_listed(grad_outputs))
    positions = [i for i, x in enumerate(given) if _is_checked(x) and x.requires_grad]
    count = len(given)

    def gradients(*args: Any) -> tuple[Tensor, ...]:
        mine = [x.detach().requires_grad_() if i in positions and not x.requires_grad else x for i, x in enumerate(args[:count])]
        with enable_grad():
            found = [y for y in _listed(func(*mine)) if _is_checked(y) and y.requires_grad]
            wanted = [mine[i] for i in positions]
            result = grad(found, wanted, args[count:], create_graph=True, allow_unused=True, materialize_grads=True)
        return tuple(g for g in result if g is not None)

    return gradcheck(
        gradients, (*given, *seeds), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception, nondet_tol=nondet_tol,
        check_grad_dtypes=check_grad_dtypes, check_batched_grad=check_batched_grad, check_backward_ad=check_rev_over_rev,
        check_forward_ad=check_fwd_over_rev,
    )  # fmt: skip


__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]
