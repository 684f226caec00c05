"""Draws from distributions: multinomial, Poisson, gamma and their like, and the in-place forms.

Enters: parameters, a generator.  Leaves: tensors.  Never here: how bits become uniform and normal numbers (`ops.random`).
"""

from __future__ import annotations

import math
from typing import Any

from graphc.dtypes import float32, int64
from graphc.eager.dispatch import assign
from graphc.eager.failures import ERRORS, guarded, located
from graphc.eager.generator import Generator, draw
from graphc.eager.methods import attached
from graphc.eager.modes import no_grad
from graphc.eager.outputs import into
from graphc.eager.tensor import Tensor
from graphc.ir.op import Op
from graphc.ops.arguments import cast
from graphc.ops.samplers import positive_number

GREATEST = float.fromhex("0x1.fffffep127")  # of float32


def _op(name: str) -> Any:
    return Op.table[name]


def exponential_like(shape: tuple[Any, ...], dtype: Any, generator: Generator | None) -> Tensor:
    """Exponential numbers of rate 1, never 0: half an ulp of 1 where the uniform number is 0."""
    u = draw(generator, "rand", shape, dtype)
    least = {"float64": 2.0**-54, "float32": 2.0**-25, "float16": 2.0**-12}.get(dtype.name, 2.0**-9)
    return _op("maximum")(_op("neg")(_op("log1p")(_op("neg")(u))), least)  # type: ignore[no-any-return]


def drawing(function: Any) -> Any:
    """`function` with ``input=`` and ``out=``, and errors that name the user's line."""
    name = function.__name__

    def drawn(*args: Any, out: Tensor | None = None, **kwargs: Any) -> Tensor:
        try:
            if "input" in kwargs:
                args = (kwargs.pop("input"), *args)
            result: Tensor = function(*args, **kwargs)
            return result if out is None else into(out, result, name)  # type: ignore[no-any-return]
        except ERRORS as error:
            located(error, name, (*args, *kwargs.values()))
            raise

    drawn.__name__ = drawn.__qualname__ = name
    drawn.__doc__ = function.__doc__
    return drawn


# ---- functions -------------------------------------------------------------------------------------------------------


@drawing
def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that each element (or `p`) gives, else 0.  Raises RuntimeError for what is no probability."""
    if p is not None:
        if not 0 <= p <= 1:
            raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
        input = _op("full_like")(input, p)
    elif input.dtype.kind == "f":
        input = _op("within")(input, 1.0, "Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
    return draw(generator, "bernoulli", input)


@drawing
def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None) -> Tensor:
    """Indices drawn by unnormalised probabilities, by rows.  [C] or [N, C] -> int64 [num_samples] or [N, num_samples].

    Raises RuntimeError for what is no probability, or more draws without replacement than there are classes.
    """
    if input.dtype.kind != "f":
        raise RuntimeError(f"multinomial: expects floating-point dtype for input, got: {input.dtype}")
    if input.ndim not in (1, 2):
        raise RuntimeError("multinomial: prob_dist must be 1 or 2 dim")
    if num_samples <= 0:
        raise RuntimeError("multinomial: cannot sample n_sample <= 0 samples")
    classes = input.shape[-1]
    if classes > 2**24:
        raise RuntimeError("multinomial: number of categories cannot exceed 2^24")
    if not replacement and isinstance(classes, int) and num_samples > classes:
        raise RuntimeError("multinomial: cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    with no_grad():
        message = "probability tensor contains either `inf`, `nan` or element < 0"
        weights = _op("within")(input, GREATEST, message)
        total = _op("sum")(weights, -1, True)
        message = "invalid multinomial distribution (sum of probabilities <= 0)"
        weights = _op("mul")(
            weights, _op("cast").run(_op("within")(_op("reciprocal")(total), GREATEST, message) > 0, dtype=input.dtype)
        )
        if not replacement or num_samples == 1:
            race = _op("div")(weights, exponential_like(tuple(input.shape), input.dtype, generator))
            if num_samples == 1:
                return _op("argmax")(race, -1, True)  # type: ignore[no-any-return]
            return _op("topk")(race, num_samples)[1]  # type: ignore[no-any-return]
        return _with_replacement(cast(weights, weights.dtype.compute), num_samples, generator)


def _with_replacement(weights: Tensor, num_samples: int, generator: Generator | None) -> Tensor:
    """Where uniform numbers fall among the running totals."""
    totals = _op("cumsum")(weights, -1)
    last = totals[..., -1:]  # type: ignore[index]
    u = _op("mul")(draw(generator, "rand", (*weights.shape[:-1], num_samples), totals.dtype), last)
    places = _op("searchsorted")(totals, u, right=True)
    # a number that rounds up to the total belongs to the last class that has a probability
    most = _op("sum")(_op("cast").run(totals < last, dtype=int64), -1, True)  # type: ignore[operator]
    return _op("minimum")(places, most)  # type: ignore[no-any-return]


@drawing
def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson numbers of the rates in `input`, in its dtype."""
    return draw(generator, "poisson", input)


@drawing
def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of `count` trials succeed, each with probability `prob`."""
    return draw(generator, "binomial", count, prob)


@drawing
def _standard_gamma(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Gamma numbers of the shapes in `input` and rate 1; differentiable."""
    return draw(generator, "standard_gamma", input)


@drawing
def _sample_dirichlet(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Points of a simplex: gamma numbers of the concentrations over their sum along the last dim; differentiable."""
    parts = draw(generator, "standard_gamma", input)
    return _op("div")(parts, _op("sum")(parts, -1, True))  # type: ignore[no-any-return]


# ---- in place --------------------------------------------------------------------------------------------------------


def _overwrite(self: Tensor, name: str, make: Any) -> Tensor:
    """`self` filled with what `make` gives for its shape and floating dtype."""
    try:
        dtype = self.dtype if self.dtype.kind == "f" else float32
        with no_grad():
            return assign(self, cast(make(tuple(self._array.shape), dtype), self.dtype), name)
    except ERRORS as error:
        located(error)
        raise


def _floating(self: Tensor, name: str) -> None:
    if self.dtype.kind not in "fc":
        raise RuntimeError(f"{name}: not implemented for {self.dtype}")


@attached
@guarded
def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with exponential numbers of rate `lambd`."""
    _floating(self, "exponential_")
    rate = positive_number("exponential_", "lambda", lambd)
    return _overwrite(self, "exponential_", lambda shape, dtype: _op("mul")(exponential_like(shape, dtype, generator), 1 / rate))


@attached
@guarded
def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with how many trials of probability `p` it takes to succeed: 1, 2, ..."""
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    scale = 1 / math.log1p(-p)

    def make(shape: Any, dtype: Any) -> Any:
        u = draw(generator, "rand", shape, dtype.compute)
        return _op("add")(_op("floor")(_op("mul")(_op("log1p")(_op("neg")(u)), scale)), 1)

    return _overwrite(self, "geometric_", make)


@attached
def cauchy_(self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with Cauchy numbers around `median` of scale `sigma`."""
    _floating(self, "cauchy_")
    scale = positive_number("cauchy_", "sigma", sigma)

    def make(shape: Any, dtype: Any) -> Any:
        turn = _op("mul")(_op("sub")(draw(generator, "rand", shape, dtype), 0.5), math.pi)
        return _op("add")(_op("mul")(_op("tan")(turn), scale), median)

    return _overwrite(self, "cauchy_", make)


@attached
def log_normal_(self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with exp of normal numbers of this mean and standard deviation."""
    _floating(self, "log_normal_")
    scale = positive_number("log_normal_", "std", std)

    def make(shape: Any, dtype: Any) -> Any:
        return _op("exp")(_op("add")(_op("mul")(draw(generator, "randn", shape, dtype), scale), mean))

    return _overwrite(self, "log_normal_", make)


def _method(function: Any, name: str) -> None:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return function(self, *args, **kwargs)  # type: ignore[no-any-return]

    method.__name__ = method.__qualname__ = name
    method.__doc__ = function.__doc__
    attached(method)


_method(bernoulli, "bernoulli")
_method(multinomial, "multinomial")
