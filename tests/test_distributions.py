"""Distributions in compiled code, their caches and their checks; what they compute is compared with PyTorch's in tests/parity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import distributions as d
from graphc.distributions.categorical import Categorical
from graphc.distributions.normal import Normal

ONE: dict[str, Callable[[Any], Any]] = {
    "normal": lambda x: d.Normal(x, x.exp()),
    "categorical": lambda x: d.Categorical(logits=x),
    "bernoulli": lambda x: d.Bernoulli(logits=x),
    "beta": lambda x: d.Beta(x.exp(), 1 + x.square()),
    "gamma": lambda x: d.Gamma(x.exp(), 1 + x.square()),
    "dirichlet": lambda x: d.Dirichlet(x.exp()),
    "gumbel": lambda x: d.Gumbel(x, x.exp()),
    "squashed": lambda x: d.TransformedDistribution(d.Normal(x, x.exp()), [d.TanhTransform(cache_size=1)]),
    "vectors": lambda x: d.Independent(d.Laplace(x, x.exp()), 1),
    "mixture": lambda x: d.MixtureSameFamily(d.Categorical(logits=x), d.Normal(x, x.exp())),
    "multivariate": lambda x: d.MultivariateNormal(x, scale_tril=x.exp().diag_embed()),
}


@pytest.mark.parametrize("name", ONE)
def test_samples_and_densities_compile(name: str) -> None:
    """The same bits, new numbers at each call, and gradients to the parameters."""

    def both(x: Any) -> Any:
        made = ONE[name](x)
        sample = made.rsample() if made.has_rsample else made.sample()
        return sample, made.log_prob(sample.detach())

    compiled = graphc.compile(both)
    found: list[list[Any]] = []
    for function in (both, compiled):
        graphc.manual_seed(5)
        seen: list[Any] = []
        for _ in range(2):
            x = graphc.tensor([0.1, -0.4, 0.7], requires_grad=True)
            sample, density = function(x)
            (density.sum() + (sample.sum() if sample.requires_grad else 0)).backward()
            seen += [t.detach().numpy().tobytes() for t in (sample, density, x.grad)]
        assert seen[0] != seen[3] or name in ("categorical", "bernoulli")
        found.append(seen)
    assert found[0] == found[1]
    assert compiled.stats()["traces"] == 1


def test_a_policy_gradient_step_compiles() -> None:
    """As reinforcement learning does it: an actor's distribution of log-probabilities and entropies of given actions."""
    graphc.manual_seed(0)
    actor = graphc.nn.Linear(4, 3)
    optimizer = graphc.optim.Adam(actor.parameters(), lr=0.1)

    @graphc.compile
    def step(x: Any, actions: Any, advantage: Any) -> Any:
        probs = Categorical(logits=actor(x))
        loss = -(probs.log_prob(actions) * advantage).mean() - 0.01 * probs.entropy().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    x, actions = graphc.randn(6, 4), graphc.tensor([0, 2, 1, 0, 1, 2])
    losses = [step(x, actions, graphc.ones(6)).item() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert not step.stats()["fallbacks"]


def test_a_cache_keeps_what_the_inverse_would_lose() -> None:
    far = d.TransformedDistribution(d.Normal(graphc.tensor(9.5), 0.01), [d.TanhTransform(cache_size=1)])
    sample = far.rsample()
    assert sample.item() == 1.0
    with pytest.raises(ValueError, match="within the support"):
        far.log_prob(sample + 1)
    assert math.isfinite(far.log_prob(sample).item())


def test_lazy_parameters_keep_gradients() -> None:
    logits = graphc.tensor([[0.5, -1.0]], requires_grad=True)
    with graphc.no_grad():
        made = d.Categorical(logits=logits)
    made = d.Categorical(logits=logits)
    with graphc.no_grad():
        probs = made.probs
    assert probs.requires_grad
    assert made.probs is probs
    np.testing.assert_allclose(probs.detach().numpy(), [[1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(1.5))]], rtol=1e-6)


def test_straight_through() -> None:
    logits = graphc.tensor([0.5, -1.0, 0.2], requires_grad=True)
    made = d.OneHotCategoricalStraightThrough(logits=logits)
    sample = made.rsample((5,))
    assert sorted(set(sample.detach().round().flatten().tolist())) == [0.0, 1.0]
    (sample * graphc.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert logits.grad.abs().sum() > 0


def test_subclasses_must_say_how_they_expand() -> None:
    class Mine(Normal):
        def __init__(self, loc: Any) -> None:
            super().__init__(loc, 1.0)

    message = "Subclass Mine of Normal that defines a custom __init__ method must also define"
    with pytest.raises(NotImplementedError, match=message):
        Mine(graphc.zeros(2)).expand((3, 2))


def test_what_a_distribution_does_not_say() -> None:
    class Point(d.Distribution):
        pass

    with pytest.warns(UserWarning, match="does not define `arg_constraints`"):
        point = Point()
    for call in (point.rsample, point.entropy, lambda: point.mean, lambda: point.log_prob(0), lambda: point.expand((2,))):
        with pytest.raises(NotImplementedError):
            call()
    with pytest.warns(FutureWarning, match="sample_n will be deprecated"):
        assert Normal(0.0, 1.0).sample_n(3).shape == (3,)


def test_seeds_decide_samples() -> None:
    drawn = []
    for _ in range(2):
        graphc.manual_seed(7)
        drawn.append([make(graphc.tensor([0.1, 0.2, 0.3])).sample((4,)).numpy().tobytes() for make in ONE.values()])
    assert drawn[0] == drawn[1]
