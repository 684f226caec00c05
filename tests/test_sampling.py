"""Random draws: their distributions, their generators, and the same bits from compiled code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

import graphc
import graphc.nn.functional as F

COUNT = 20_000


def same_distribution(values, distribution):
    """A Kolmogorov-Smirnov test that fails once in ten million runs of right code; the seed is fixed."""
    assert scipy.stats.kstest(np.asarray(values, np.float64).ravel(), distribution).pvalue > 1e-7


def frequencies(values, expected):
    """Counts of classes within five standard deviations."""
    counts = np.bincount(np.asarray(values).ravel(), minlength=len(expected))
    total = counts.sum()
    spread = np.sqrt(total * np.asarray(expected) * (1 - np.asarray(expected))) + 1e-9
    assert (np.abs(counts - total * np.asarray(expected)) <= 5 * spread).all()


CONTINUOUS = {
    "uniform": (lambda x: x.uniform_(-1, 3), scipy.stats.uniform(-1, 4).cdf),
    "normal": (lambda x: x.normal_(1, 2), scipy.stats.norm(1, 2).cdf),
    "exponential": (lambda x: x.exponential_(1.5), scipy.stats.expon(scale=1 / 1.5).cdf),
    "cauchy": (lambda x: x.cauchy_(0.5, 2), scipy.stats.cauchy(0.5, 2).cdf),
    "log_normal": (lambda x: x.log_normal_(0.2, 0.5), scipy.stats.lognorm(0.5, scale=math.exp(0.2)).cdf),
    "gamma": (lambda x: graphc._standard_gamma(graphc.full_like(x, 2.5)), scipy.stats.gamma(2.5).cdf),
    "normal of tensors": (lambda x: graphc.normal(graphc.full_like(x, 1.0), graphc.full_like(x, 2.0)), scipy.stats.norm(1, 2).cdf),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous(name):
    graphc.manual_seed(5)
    draw, distribution = CONTINUOUS[name]
    same_distribution(draw(graphc.empty(COUNT)).numpy(), distribution)


def test_geometric():
    graphc.manual_seed(1)
    values = graphc.empty(COUNT, dtype=graphc.int64).geometric_(0.3).numpy()
    assert values.min() == 1
    frequencies(np.minimum(values, 6) - 1, [0.3 * 0.7**k for k in range(5)] + [0.7**5])


def test_poisson_and_binomial():
    graphc.manual_seed(1)
    values = graphc.poisson(graphc.full((COUNT,), 2.0)).numpy().astype(int)
    chances = scipy.stats.poisson(2).pmf(range(6))
    frequencies(np.minimum(values, 6), [*chances, 1 - chances.sum()])
    values = graphc.binomial(graphc.full((COUNT,), 5.0), graphc.full((COUNT,), 0.3)).numpy().astype(int)
    frequencies(values, scipy.stats.binom(5, 0.3).pmf(range(6)))


def test_dirichlet_lies_on_the_simplex():
    graphc.manual_seed(1)
    points = graphc._sample_dirichlet(graphc.tensor([1.0, 2.0, 3.0]).expand(COUNT, 3))
    np.testing.assert_allclose(points.sum(-1).numpy(), 1, rtol=1e-5)
    np.testing.assert_allclose(points.mean(0).numpy(), [1 / 6, 2 / 6, 3 / 6], atol=0.01)


def test_the_gradient_of_a_gamma_number_is_that_of_its_quantile():
    alpha = graphc.tensor([0.4, 1.0, 3.0, 40.0], dtype=graphc.float64).requires_grad_()
    graphc.manual_seed(2)
    x = graphc._standard_gamma(alpha)
    x.sum().backward()
    level, a, step = scipy.stats.gamma(alpha.detach().numpy()).cdf(x.detach().numpy()), alpha.detach().numpy(), 1e-5
    moved = (scipy.stats.gamma(a + step).ppf(level) - scipy.stats.gamma(a - step).ppf(level)) / (2 * step)
    np.testing.assert_allclose(alpha.grad.numpy(), moved, rtol=1e-5)


# ---- multinomial, permutations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("replacement", [True, False])
def test_multinomial_frequencies(replacement):
    graphc.manual_seed(4)
    weights = graphc.tensor([1.0, 0.0, 3.0, 6.0]).expand(COUNT, 4)
    frequencies(graphc.multinomial(weights, 2, replacement)[:, 0].numpy(), [0.1, 0.0, 0.3, 0.6])


def test_multinomial_without_replacement_never_repeats():
    graphc.manual_seed(4)
    drawn = graphc.multinomial(graphc.rand(500, 7) + 0.1, 7).sort(-1).values
    assert (drawn.numpy() == np.arange(7)).all()


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [math.nan, 1.0], [math.inf, 1.0], [0.0, 0.0]])
def test_multinomial_of_what_is_no_probability(weights):
    with pytest.raises(RuntimeError, match="probabilit"):
        graphc.multinomial(graphc.tensor(weights), 1)


def test_randperm_is_a_permutation():
    graphc.manual_seed(4)
    drawn = np.stack([graphc.randperm(4).numpy() for _ in range(2000)])
    assert (np.sort(drawn, 1) == np.arange(4)).all()
    frequencies(drawn[:, 0], [0.25] * 4)


# ---- dropout and its like --------------------------------------------------------------------------------------------


def test_alpha_dropout_keeps_mean_and_variance():
    graphc.manual_seed(0)
    y = F.alpha_dropout(graphc.randn(200_000), 0.3, training=True).numpy()
    assert abs(y.mean()) < 0.02 and abs(y.var() - 1) < 0.03


@pytest.mark.parametrize(
    ("function", "shape"), [(F.dropout1d, (40, 50, 3)), (F.dropout2d, (40, 50, 3, 2)), (F.dropout3d, (40, 50, 2, 2, 2))]
)
def test_feature_dropout_drops_whole_channels(function, shape):
    graphc.manual_seed(0)
    y = function(graphc.ones(shape), 0.25).numpy().reshape(2000, -1)
    assert (y == y[:, :1]).all()
    frequencies((y[:, 0] > 0).astype(int), [0.25, 0.75])
    np.testing.assert_allclose(y.max(), 1 / 0.75, rtol=1e-6)


def test_rrelu_slopes():
    graphc.manual_seed(0)
    y = F.rrelu(-graphc.ones(COUNT), 0.1, 0.4, training=True)
    same_distribution(-y.numpy(), scipy.stats.uniform(0.1, 0.3).cdf)
    np.testing.assert_allclose(F.rrelu(-graphc.ones(2), 0.1, 0.4).numpy(), -0.25)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("shape", [(300, 40), (301, 41)])
@pytest.mark.parametrize("overwrite", [lambda x: x.uniform_(-0.3, 0.7), lambda x: x.normal_(0.1, 2)], ids=["uniform", "normal"])
def test_a_large_tensor_is_filled_in_pieces_with_the_numbers_of_a_whole(monkeypatch, overwrite, shape, dtype):
    found = []
    for piece in (1 << 10, 1 << 20):
        monkeypatch.setattr("graphc.eager.generator.PIECE", piece)
        graphc.manual_seed(3)
        x = graphc.zeros(shape, dtype=getattr(graphc, dtype))
        before = x._version
        overwrite(x)
        assert x._version > before
        found.append((x.float().numpy().tobytes(), graphc.get_rng_state().numpy().tobytes()))
    assert found[0] == found[1]


def test_a_parameter_in_use_is_not_filled_in_pieces(monkeypatch):
    monkeypatch.setattr("graphc.eager.generator.PIECE", 8)
    x = graphc.zeros(64, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        x.uniform_()
    assert not x.detach().numpy().any()
    with graphc.no_grad():
        assert x.normal_() is x and x.detach().numpy().any()


def test_gumbel_softmax():
    graphc.manual_seed(0)
    logits = graphc.tensor([0.1, 0.2, 0.7]).log().expand(COUNT, 3).clone().requires_grad_()
    y = F.gumbel_softmax(logits, hard=True)
    frequencies(y.argmax(-1).numpy(), [0.1, 0.2, 0.7])
    assert (y.detach().sum(-1).numpy() == 1).all()
    (y * graphc.randn(COUNT, 3)).sum().backward()
    assert np.isfinite(logits.grad.numpy()).all()


# ---- generators and compiled code ------------------------------------------------------------------------------------

DRAWS = {
    "multinomial": lambda **how: graphc.multinomial(graphc.ones(3, 5), 2, **how),
    "multinomial with replacement": lambda **how: graphc.multinomial(graphc.ones(5), 9, True, **how),
    "bernoulli": lambda **how: graphc.bernoulli(graphc.full((9,), 0.5), **how),
    "poisson": lambda **how: graphc.poisson(graphc.full((9,), 3.0), **how),
    "binomial": lambda **how: graphc.binomial(graphc.full((9,), 8.0), graphc.full((9,), 0.5), **how),
    "gamma": lambda **how: graphc._standard_gamma(graphc.full((9,), 3.0), **how),
    "randperm": lambda **how: graphc.randperm(9, **how),
    "exponential": lambda **how: graphc.empty(9).exponential_(**how),
    "geometric": lambda **how: graphc.empty(9).geometric_(0.1, **how),
    "cauchy": lambda **how: graphc.empty(9).cauchy_(**how),
    "log_normal": lambda **how: graphc.empty(9).log_normal_(**how),
    "random": lambda **how: graphc.empty(9).random_(**how),
    "normal": lambda **how: graphc.normal(graphc.zeros(9), 2.0, **how),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_generator_repeats_its_draws_and_leaves_the_default_alone(name):
    graphc.manual_seed(1)
    before = graphc.get_rng_state().numpy().copy()
    first = DRAWS[name](generator=graphc.Generator().manual_seed(9)).numpy().copy()
    second = DRAWS[name](generator=graphc.Generator().manual_seed(9)).numpy()
    other = DRAWS[name](generator=graphc.Generator().manual_seed(10)).numpy()
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(graphc.get_rng_state().numpy(), before)


@pytest.mark.parametrize("name", DRAWS)
def test_compiled_draws_are_eager_draws(name):
    graphc.manual_seed(7)
    eager = [DRAWS[name]().numpy().copy() for _ in range(2)]
    compiled = graphc.compile(lambda: DRAWS[name]())
    graphc.manual_seed(7)
    for expected in eager:
        np.testing.assert_array_equal(compiled().numpy(), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x.exponential_(-1), "lambda"),
        (lambda x: x.geometric_(1.0), "p to be in"),
        (lambda x: x.cauchy_(0, 0), "sigma"),
        (lambda x: x.log_normal_(0, -1), "std"),
        (lambda x: x.normal_(0, -1), "std"),
        (lambda x: x.uniform_(2, 1), "from"),
        (lambda x: graphc.bernoulli(x + 2), "p_in"),
        (lambda x: graphc.poisson(x - 2), "negative"),
        (lambda x: graphc.multinomial(x, 9), "without replacement"),
    ],
)
def test_parameters_out_of_range(call, message):
    with pytest.raises(RuntimeError, match=message):
        call(graphc.zeros(3))
