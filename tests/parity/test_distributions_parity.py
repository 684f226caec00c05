"""Distributions agree with PyTorch's: densities, moments, entropies, divergences, texts, errors; constraints, transforms."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.distributions

torch = pytest.importorskip("torch")

Make = Callable[[Any, Any], Any]  # the module of distributions, what makes a tensor -> a distribution
SIMPLEX = [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]
LOGITS = [[0.1, -1.0, 2.0], [0.0, 0.5, -0.5]]
TRIANGLE = [[1.0, 0.0], [0.4, 0.7]]
COVARIANCE = [[2.0, 0.3], [0.3, 0.5]]

DISTRIBUTIONS: dict[str, Make] = {
    "Normal": lambda d, t: d.Normal(t([0.0, 1.5]), t([[0.5], [2.0]])),
    "Normal of numbers": lambda d, t: d.Normal(0.5, 2.0),
    "Laplace": lambda d, t: d.Laplace(t([0.0, 1.5]), t([0.5, 2.0])),
    "Cauchy": lambda d, t: d.Cauchy(t([0.0, 1.5]), t([0.5, 2.0])),
    "Uniform": lambda d, t: d.Uniform(t([0.0, -1.5]), t([0.5, 2.0])),
    "Exponential": lambda d, t: d.Exponential(t([0.5, 2.0])),
    "Gamma": lambda d, t: d.Gamma(t([0.5, 2.0]), t([3.0, 0.7])),
    "Chi2": lambda d, t: d.Chi2(t([1.0, 3.5])),
    "Beta": lambda d, t: d.Beta(t([0.5, 2.0]), t([3.0, 0.7])),
    "Dirichlet": lambda d, t: d.Dirichlet(t([[0.5, 2.0, 1.0], [3.0, 0.2, 0.9], [0.5, 0.6, 0.3]])),
    "StudentT": lambda d, t: d.StudentT(t([0.5, 1.5, 4.0]), 1.0, t([0.5, 2.0, 3.0])),
    "Bernoulli": lambda d, t: d.Bernoulli(t([0.2, 0.9, 0.5])),
    "Bernoulli of logits": lambda d, t: d.Bernoulli(logits=t([-2.0, 0.5])),
    "Geometric": lambda d, t: d.Geometric(t([0.2, 0.9])),
    "Geometric of logits": lambda d, t: d.Geometric(logits=t([-2.0, 0.5])),
    "Categorical": lambda d, t: d.Categorical(t(SIMPLEX)),
    "Categorical of logits": lambda d, t: d.Categorical(logits=t(LOGITS)),
    "Categorical of counts": lambda d, t: d.Categorical(t([1.0, 4.0, 5.0])),
    "OneHotCategorical": lambda d, t: d.OneHotCategorical(t(SIMPLEX)),
    "OneHotCategoricalStraightThrough": lambda d, t: d.OneHotCategoricalStraightThrough(logits=t(LOGITS)),
    "Binomial": lambda d, t: d.Binomial(5, t([0.2, 0.9])),
    "Binomial of logits": lambda d, t: d.Binomial(t([5.0, 5.0]), logits=t([-2.0, 0.5])),
    "Poisson": lambda d, t: d.Poisson(t([0.2, 4.5])),
    "NegativeBinomial": lambda d, t: d.NegativeBinomial(t([3.0, 1.5]), t([0.2, 0.7])),
    "Multinomial": lambda d, t: d.Multinomial(4, t(SIMPLEX)),
    "MultivariateNormal": lambda d, t: d.MultivariateNormal(t([[0.0, 1.0], [2.0, -1.0]]), t(COVARIANCE)),
    "MultivariateNormal of a triangle": lambda d, t: d.MultivariateNormal(t([0.0, 1.0]), scale_tril=t(TRIANGLE)),
    "MultivariateNormal of a precision": lambda d, t: d.MultivariateNormal(t([0.0, 1.0]), precision_matrix=t(COVARIANCE)),
    "Independent": lambda d, t: d.Independent(d.Normal(t([0.0, 1.5]), t([[0.5], [2.0]])), 1),
    "LogNormal": lambda d, t: d.LogNormal(t([0.0, 1.5]), t([0.5, 0.7])),
    "HalfNormal": lambda d, t: d.HalfNormal(t([0.5, 2.0])),
    "HalfCauchy": lambda d, t: d.HalfCauchy(t([0.5, 2.0])),
    "Gumbel": lambda d, t: d.Gumbel(t([0.0, 1.5]), t([0.5, 2.0])),
    "Weibull": lambda d, t: d.Weibull(t([0.5, 2.0]), t([1.5, 3.0])),
    "Pareto": lambda d, t: d.Pareto(t([0.5, 0.2]), t([3.0, 2.5])),
    "InverseGamma": lambda d, t: d.InverseGamma(t([2.5, 3.0]), t([3.0, 0.7])),
    "LogisticNormal": lambda d, t: d.LogisticNormal(t([[0.0, 1.5], [0.3, 0.2]]), t([0.5, 0.7])),
    "RelaxedBernoulli": lambda d, t: d.RelaxedBernoulli(t([0.7]), t([0.2, 0.9])),
    "RelaxedOneHotCategorical": lambda d, t: d.RelaxedOneHotCategorical(t([0.7]), t(SIMPLEX)),
    "MixtureSameFamily": lambda d, t: d.MixtureSameFamily(
        d.Categorical(t([[0.3, 0.7]] * 3)), d.Normal(t([[0.0, 2.0]] * 3), t([1.0, 0.5]))
    ),
    "mixture of vectors": lambda d, t: d.MixtureSameFamily(
        d.Categorical(t([0.3, 0.7])), d.Independent(d.Normal(t([[0.0, 2.0], [1.0, 1.0]]), t([1.0, 0.5])), 1)
    ),
    "VonMises": lambda d, t: d.VonMises(t([0.0, 1.5]), t([0.5, 4.0])),
    "squashed": lambda d, t: d.TransformedDistribution(
        d.Normal(t([0.0, 1.5]), t([0.5, 2.0])), [d.AffineTransform(0.5, -2.0), d.TanhTransform(cache_size=1)]
    ),
    "of vectors": lambda d, t: d.TransformedDistribution(
        d.Independent(d.Normal(t([0.0, 1.5]), t([0.5, 2.0])), 1), [d.StickBreakingTransform()]
    ),
}
WITHOUT_CDF = {"Gamma", "Chi2", "InverseGamma"}  # there is no incomplete gamma function
MOMENTS = ("mean", "mode", "variance", "stddev")


def maker(library: Any) -> Callable[[Any], Any]:
    return lambda values: library.tensor(np.array(values), dtype=library.float64)


def pair(name: str) -> tuple[Any, Any]:
    make = DISTRIBUTIONS[name]
    return make(graphc.distributions, maker(graphc)), make(torch.distributions, maker(torch))


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives, or the class of its error."""
    try:
        result = call()
    except (NotImplementedError, ValueError) as error:
        return type(error).__name__
    return result.detach().numpy() if hasattr(result, "detach") else result


def agree(mine: Any, theirs: Any, what: str, rtol: float = 1e-6) -> None:
    if isinstance(mine, str) or isinstance(theirs, str):
        assert isinstance(mine, str) and mine == theirs, (what, mine, theirs)
        return
    assert mine.shape == theirs.shape, (what, mine.shape, theirs.shape)
    np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=1e-9, err_msg=what)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name: str) -> None:
    mine, theirs = pair(name)
    assert repr(mine) == repr(theirs).replace("torch.Size", "graphc.Size")
    assert tuple(mine.batch_shape) == tuple(theirs.batch_shape)
    assert tuple(mine.event_shape) == tuple(theirs.event_shape)
    assert (mine.has_rsample, mine.has_enumerate_support) == (theirs.has_rsample, theirs.has_enumerate_support)
    for d in (mine, theirs):
        d.plain = {key: repr(c).split("(")[0] for key, c in d.arg_constraints.items()} | {"": repr(d.support).split("(")[0]}
    assert mine.plain == theirs.plain
    assert (mine.support.event_dim, mine.support.is_discrete) == (theirs.support.event_dim, theirs.support.is_discrete)
    for moment in MOMENTS:
        agree(outcome(lambda m=moment: getattr(mine, m)), outcome(lambda m=moment: getattr(theirs, m)), moment)
    for method in ("entropy", "perplexity", "enumerate_support"):
        agree(outcome(lambda m=method: getattr(mine, m)()), outcome(lambda m=method: getattr(theirs, m)()), method)
    torch.manual_seed(0)
    values = theirs.sample((4,))
    given = graphc.from_numpy(values.numpy().copy())
    for method in ("log_prob", *(() if name in WITHOUT_CDF else ("cdf",))):
        found = outcome(lambda m=method: getattr(mine, m)(given))
        agree(found, outcome(lambda m=method: getattr(theirs, m)(values)), method)
    levels = np.linspace(0.05, 0.95, 5).reshape((5, *(1,) * len(mine.batch_shape)))
    agree(outcome(lambda: mine.icdf(graphc.tensor(levels))), outcome(lambda: theirs.icdf(torch.tensor(levels))), "icdf")
    larger = [d.expand((3, *d.batch_shape)) for d in (mine, theirs)]
    assert type(larger[0]) is type(mine) and repr(larger[0]) == repr(larger[1]).replace("torch.Size", "graphc.Size")
    again, theirs_again = given.unsqueeze(1), values.unsqueeze(1)
    agree(outcome(lambda: larger[0].log_prob(again)), outcome(lambda: larger[1].log_prob(theirs_again)), "expanded")
    assert larger[0].sample((2,)).shape == larger[1].sample((2,)).shape


DISCRETE_OR_HEAVY = {"Cauchy", "HalfCauchy", "StudentT", "Pareto", "InverseGamma"}


@pytest.mark.parametrize("name", [name for name in DISTRIBUTIONS if name not in DISCRETE_OR_HEAVY])
def test_samples(name: str) -> None:
    """Their mean and deviation are those of PyTorch's samples; all lie in the support."""
    graphc.manual_seed(1)
    torch.manual_seed(1)
    mine, theirs = pair(name)
    count = 8000
    samples = mine.sample((count,))
    assert mine.support.check(samples).all()
    assert str(samples.dtype).rpartition(".")[2] == str(theirs.sample().dtype).rpartition(".")[2]
    drawn = theirs.sample((count,)).double().numpy()
    wide = drawn.std(0) + 1e-3
    found = samples.double().numpy()
    assert np.all(np.abs(found.mean(0) - drawn.mean(0)) < 6 * wide / np.sqrt(count) * 1.5)
    np.testing.assert_allclose(found.std(0), drawn.std(0), rtol=0.12, atol=1e-3)


GRADIENTS = [
    "Normal", "Laplace", "Uniform", "Exponential", "Gamma", "Beta", "Dirichlet", "MultivariateNormal", "LogNormal", "Gumbel",
    "Weibull",
]  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_of_samples(name: str) -> None:
    """The derivative of the mean of many samples is that of the mean."""
    graphc.manual_seed(2)
    parameters: list[Any] = []

    def parameter(values: Any) -> Any:
        parameters.append(graphc.tensor(np.array(values), dtype=graphc.float64).requires_grad_())
        return parameters[-1]

    d = DISTRIBUTIONS[name](graphc.distributions, parameter)
    weights = graphc.arange(1, 1 + int(np.prod(d.mean.shape)), dtype=graphc.float64).reshape(tuple(d.mean.shape))
    wanted = graphc.autograd.grad((d.mean * weights).sum(), parameters, allow_unused=True)
    found = graphc.autograd.grad((d.rsample((10000,)).mean(0) * weights).sum(), parameters, allow_unused=True)
    for p, w, f in zip(parameters, wanted, found, strict=True):
        w = np.zeros(p.shape) if w is None else w.numpy()
        np.testing.assert_allclose(f.numpy(), w, rtol=0.12, atol=0.2)


def test_divergences() -> None:
    """Every pair: the same divergence, or no rule on both sides."""
    names = [name for name in DISTRIBUTIONS if name not in ("squashed", "of vectors", "MixtureSameFamily", "mixture of vectors")]
    made = {name: pair(name) for name in names}
    rules = 0
    for a, b in itertools.product(names, names):
        if made[a][0].event_shape != made[b][0].event_shape:
            continue
        try:
            theirs = torch.distributions.kl_divergence(made[a][1], made[b][1])
        except (NotImplementedError, RuntimeError, ValueError):
            continue
        mine = graphc.distributions.kl_divergence(made[a][0], made[b][0])
        agree(mine.numpy(), theirs.numpy(), f"{a}, {b}")
        rules += 1
    assert rules > 60


@pytest.mark.parametrize("name", [name for name in DISTRIBUTIONS if name not in ("Geometric of logits",)])
def test_divergence_of_a_distribution_from_itself(name: str) -> None:
    mine, theirs = pair(name)
    result = outcome(lambda: graphc.distributions.kl_divergence(mine, mine))
    agree(result, outcome(lambda: torch.distributions.kl_divergence(theirs, theirs)), name)


def test_own_rules() -> None:
    class Mine(graphc.distributions.Normal):
        pass

    @graphc.distributions.register_kl(Mine, graphc.distributions.Normal)
    def rule(p: Any, q: Any) -> str:
        return "mine"

    normal, own = graphc.distributions.Normal(0.0, 1.0), Mine(0.0, 1.0)
    assert graphc.distributions.kl_divergence(own, normal) == "mine"
    assert graphc.distributions.kl_divergence(normal, own).item() == 0
    with pytest.raises(NotImplementedError, match=r"No KL\(p \|\| q\) is implemented for p type Normal and q type Categorical"):
        graphc.distributions.kl_divergence(normal, graphc.distributions.Categorical(graphc.ones(2)))


ERRORS: dict[str, Make] = {
    "scale": lambda d, t: d.Normal(t([0.0]), t([-1.0])),
    "several scales": lambda d, t: d.Normal(t([0.0, 1.0]), t([-1.0, float("nan")])),
    "no numbers": lambda d, t: d.Normal("0", 1.0),
    "probs": lambda d, t: d.Bernoulli(t([0.5, 1.5])),
    "both": lambda d, t: d.Bernoulli(t([0.5]), t([0.5])),
    "neither": lambda d, t: d.Categorical(),
    "a number of classes": lambda d, t: d.Categorical(t(0.5)),
    "negative probs": lambda d, t: d.Categorical(t([-0.5, 1.5])),
    "bounds": lambda d, t: d.Uniform(t(1.0), t(0.0)),
    "value": lambda d, t: d.Uniform(0.0, 1.0).log_prob(t(2.0)),
    "class": lambda d, t: d.Categorical(t(SIMPLEX)).log_prob(t([3.0, 1.0])),
    "shape": lambda d, t: d.Normal(t([0.0, 1.0]), 1.0).log_prob(t([1.0, 2.0, 3.0])),
    "event": lambda d, t: d.Dirichlet(t([1.0, 1.0])).log_prob(t([0.2, 0.3, 0.5])),
    "no tensor": lambda d, t: d.Normal(0.0, 1.0).log_prob(1.0),
    "0-dim concentration": lambda d, t: d.Dirichlet(t(1.0)),
    "0-dim loc": lambda d, t: d.MultivariateNormal(t(1.0), t(COVARIANCE)),
    "no matrix": lambda d, t: d.MultivariateNormal(t([0.0, 1.0])),
    "vector for a matrix": lambda d, t: d.MultivariateNormal(t([0.0, 1.0]), t([1.0, 1.0])),
    "not positive definite": lambda d, t: d.MultivariateNormal(t([0.0, 1.0]), t([[1.0, 2.0], [2.0, 1.0]])),
    "independent dims": lambda d, t: d.Independent(d.Normal(0.0, 1.0), 1),
    "components": lambda d, t: d.MixtureSameFamily(d.Categorical(t([0.5, 0.5])), d.Normal(t([0.0, 1.0, 2.0]), 1.0)),
    "no categorical": lambda d, t: d.MixtureSameFamily(d.Normal(0.0, 1.0), d.Normal(t([0.0, 1.0]), 1.0)),
    "no transform": lambda d, t: d.TransformedDistribution(d.Normal(0.0, 1.0), 3),
    "too few dims": lambda d, t: d.TransformedDistribution(d.Normal(0.0, 1.0), d.StickBreakingTransform()),
    "reshaping": lambda d, t: d.transforms.ReshapeTransform((2, 3), (5,)),
    "cache": lambda d, t: d.ExpTransform(cache_size=2),
    "a constraint without a map": lambda d, t: d.biject_to(d.constraints.positive_definite),
    "no constraint": lambda d, t: d.biject_to.register(3, len),
    "geometric of 0": lambda d, t: d.Geometric(t([0.0])),
    "event dims": lambda d, t: d.StickBreakingTransform().inv.forward_shape(()),
    "unknown count": lambda d, t: d.Binomial(t([2.0, 3.0]), t([0.5, 0.5])).enumerate_support(),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    found = []
    for library in (graphc, torch):
        with pytest.raises((ValueError, NotImplementedError, TypeError, RuntimeError)) as info:
            ERRORS[name](library.distributions, maker(library))
        text = str(info.value).split(" (test_distributions")[0].replace("graphc", "torch").split(", but found")[0]
        found.append((type(info.value), " ".join(text.split())))
    assert found[0] == found[1]


TRANSFORMS: dict[str, Callable[[Any, Any], Any]] = {
    "exp": lambda d, t: d.ExpTransform(),
    "power": lambda d, t: d.PowerTransform(t(2.5)),
    "sigmoid": lambda d, t: d.SigmoidTransform(),
    "softplus": lambda d, t: d.SoftplusTransform(),
    "tanh": lambda d, t: d.TanhTransform(),
    "abs": lambda d, t: d.AbsTransform(),
    "affine": lambda d, t: d.AffineTransform(t([0.5, -1.0, 2.0]), t([-2.0, 3.0, 0.5])),
    "affine vectors": lambda d, t: d.AffineTransform(1.0, t([-2.0, 3.0, 0.5]), event_dim=1),
    "softmax": lambda d, t: d.SoftmaxTransform(),
    "stick": lambda d, t: d.StickBreakingTransform(),
    "reshape": lambda d, t: d.ReshapeTransform((3,), (1, 3)),
    "correlation": lambda d, t: d.CorrCholeskyTransform(),
    "composed": lambda d, t: d.ComposeTransform([d.AffineTransform(0.0, 2.0), d.StickBreakingTransform(), d.ExpTransform()]),
    "independent": lambda d, t: d.IndependentTransform(d.TanhTransform(), 1),
    "cdf": lambda d, t: d.CumulativeDistributionTransform(d.Normal(t(0.5), t(2.0))),
    "stacked": lambda d, t: d.StackTransform([d.ExpTransform(), d.TanhTransform(), d.AffineTransform(1.0, 2.0)], -1),
    "joined": lambda d, t: d.CatTransform([d.ExpTransform(), d.TanhTransform()], -1, [1, 2]),
    "inverse": lambda d, t: d.ComposeTransform([d.SigmoidTransform(), d.SigmoidTransform().inv]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str) -> None:
    values = np.array([[0.3, 1.2, 0.5], [0.8, 0.1, 2.0]])
    found: list[list[Any]] = []
    for library in (graphc, torch):
        transform = TRANSFORMS[name](library.distributions, maker(library))
        x = maker(library)(values)
        y = transform(x)
        parts = [y, transform.inv(y), outcome(lambda t=transform, x=x, y=y: t.log_abs_det_jacobian(x, y))]
        known = [outcome(lambda t=transform: str(t.sign)), tuple(transform.forward_shape(x.shape)), transform.bijective]
        known += [tuple(transform.inverse_shape(y.shape)), transform.domain.event_dim, transform.codomain.event_dim]
        found.append([[p if isinstance(p, str) else np.asarray(p) for p in parts], [str(k).split("(")[0] for k in known]])
    for mine, theirs in zip(found[0][0], found[1][0], strict=True):
        agree(mine, theirs, name)
    assert found[0][1] == found[1][1]


CONSTRAINTS = (
    "real", "positive", "nonnegative", "unit_interval", "simplex", "real_vector", "boolean", "one_hot", "nonnegative_integer",
    "positive_integer", "lower_triangular", "lower_cholesky", "corr_cholesky", "square", "symmetric", "positive_semidefinite",
    "positive_definite",
)  # fmt: skip
MADE: dict[str, Callable[[Any], Any]] = {
    "greater_than": lambda c: c.greater_than(0.5),
    "greater_than_eq": lambda c: c.greater_than_eq(0.5),
    "less_than": lambda c: c.less_than(0.5),
    "interval": lambda c: c.interval(0.0, 0.5),
    "half_open_interval": lambda c: c.half_open_interval(0.0, 1.0),
    "integer_interval": lambda c: c.integer_interval(0, 1),
    "multinomial": lambda c: c.multinomial(1),
    "independent": lambda c: c.independent(c.positive, 1),
    "stack": lambda c: c.stack([c.positive, c.real], -1),
    "cat": lambda c: c.cat([c.positive, c.real], -1, [1, 1]),
    **{name: lambda c, name=name: getattr(c, name) for name in CONSTRAINTS},
}
MATRICES = [
    [[1.0, 0.0], [0.0, 1.0]],
    [[1.0, 0.5], [0.5, 2.0]],
    [[0.6, 0.0], [0.6, 0.8]],
    [[0.0, 1.0], [2.0, -1.0]],
    [[1.0, 0.0], [0.3, 0.0]],
]


@pytest.mark.parametrize("name", MADE)
def test_constraints(name: str) -> None:
    mine, theirs = MADE[name](graphc.distributions.constraints), MADE[name](torch.distributions.constraints)
    assert repr(mine) == repr(theirs)
    assert (mine.event_dim, mine.is_discrete) == (theirs.event_dim, theirs.is_discrete)
    np.testing.assert_array_equal(mine.check(maker(graphc)(MATRICES)).numpy(), theirs.check(maker(torch)(MATRICES)).numpy())
    for map_name in ("biject_to", "transform_to"):
        x = np.array([0.3, -1.0, 2.0, 0.5, 0.1, -0.2]) if "corr" in name else np.array([[0.3, -1.0], [2.0, 0.5]])
        made = [
            outcome(lambda lib=lib, c=c, m=map_name, x=x: getattr(lib.distributions, m)(c)(maker(lib)(x)))
            for lib, c in ((graphc, mine), (torch, theirs))
        ]
        agree(made[0], made[1], map_name)


def test_setting_and_skipping_checks() -> None:
    d = graphc.distributions
    try:
        d.Distribution.set_default_validate_args(False)
        assert d.Normal(0.0, -1.0).log_prob(graphc.tensor(0.0)).isnan()
    finally:
        d.Distribution.set_default_validate_args(True)
    assert d.Normal(0.0, -1.0, validate_args=False).scale.item() == -1
    with pytest.raises(ValueError, match="Expected parameter scale"):
        d.Normal(0.0, -1.0)
