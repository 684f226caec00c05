"""`kl_divergence`: how far one distribution is from another, by rules for pairs of their kinds.

Enters: two distributions.  Leaves: a tensor of their batch's shape.  Never here: anything sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import total_ordering
from typing import Any

from graphc.distributions.bernoulli import Bernoulli
from graphc.distributions.beta import Beta
from graphc.distributions.binomial import Binomial
from graphc.distributions.categorical import Categorical
from graphc.distributions.cauchy import Cauchy
from graphc.distributions.dirichlet import Dirichlet
from graphc.distributions.distribution import Distribution
from graphc.distributions.exponential import Exponential
from graphc.distributions.gamma import Gamma
from graphc.distributions.geometric import Geometric
from graphc.distributions.gumbel import EULER, Gumbel
from graphc.distributions.half_normal import HalfNormal
from graphc.distributions.independent import Independent
from graphc.distributions.laplace import Laplace
from graphc.distributions.multivariate_normal import MultivariateNormal, batch_mahalanobis, solve_triangular
from graphc.distributions.normal import Normal
from graphc.distributions.one_hot_categorical import OneHotCategorical
from graphc.distributions.parameters import op, sum_rightmost
from graphc.distributions.pareto import Pareto
from graphc.distributions.poisson import Poisson
from graphc.distributions.transformed_distribution import TransformedDistribution
from graphc.distributions.uniform import Uniform
from graphc.errors import at_user_line, warn

Rule = Callable[[Any, Any], Any]
_rules: dict[tuple[type, type], Rule] = {}
_found: dict[tuple[type, type], Rule | None] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Rule], Rule]:
    """Decorate a rule for a pair of kinds.  Raises TypeError for kinds that are no distributions."""
    for name, kind in (("type_p", type_p), ("type_q", type_q)):
        if not isinstance(kind, type) and issubclass(kind, Distribution):
            raise TypeError(at_user_line(f"Expected {name} to be a Distribution subclass but got {kind}"))

    def register(rule: Rule) -> Rule:
        _rules[type_p, type_q] = rule
        _found.clear()
        return rule

    return register


@total_ordering
class _Match:
    """A pair of kinds, in order of how special they are."""

    def __init__(self, *types: type) -> None:
        self.types = types

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Match) and self.types == other.types

    def __le__(self, other: _Match) -> bool:
        for x, y in zip(self.types, other.types, strict=True):
            if not issubclass(x, y):
                return False
            if x is not y:
                break
        return True

    __hash__ = None  # type: ignore[assignment]


def _rule_for(type_p: type, type_q: type) -> Rule | None:
    """The most special rule for a pair; warns where there is not one such."""
    fitting = [(p, q) for p, q in _rules if issubclass(type_p, p) and issubclass(type_q, q)]
    if not fitting:
        return None
    left = min(_Match(*pair) for pair in fitting).types
    right = tuple(reversed(min(_Match(*reversed(pair)) for pair in fitting).types))
    rule = _rules[left[0], left[1]]
    if rule is not _rules[right[0], right[1]]:
        names = [kind.__name__ for kind in (type_p, type_q, *left, *right)]
        shown = f"Ambiguous kl_divergence({names[0]}, {names[1]}). Please register_kl({names[2]}, {names[5]})"
        warn(shown, RuntimeWarning)
    return rule


def kl_divergence(p: Any, q: Any) -> Any:
    """The mean, over values drawn from p, of log p minus log q.  Raises NotImplementedError where no rule is registered."""
    key = (type(p), type(q))
    if key not in _found:
        _found[key] = _rule_for(*key)
    rule = _found[key]
    if rule is None:
        message = f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}"
        raise NotImplementedError(at_user_line(message))
    return rule(p, q)


# ---- of one kind -------------------------------------------------------------------------------------------------------------


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Any:
    softplus, where = op("softplus"), op("where")
    one = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    one = where(p.probs == 0, 0, where(q.probs == 0, math.inf, one))
    zero = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    return one + where(p.probs == 1, 0, where(q.probs == 1, math.inf, zero))


@register_kl(Beta, Beta)
def _beta(p: Any, q: Any) -> Any:
    total_p, total_q = (d.concentration1 + d.concentration0 for d in (p, q))
    first = q.concentration1.lgamma() + q.concentration0.lgamma() + total_p.lgamma()
    second = p.concentration1.lgamma() + p.concentration0.lgamma() + total_q.lgamma()
    found = first - second + (p.concentration1 - q.concentration1) * p.concentration1.digamma()
    return found + (p.concentration0 - q.concentration0) * p.concentration0.digamma() + (total_q - total_p) * total_p.digamma()


@register_kl(Binomial, Binomial)
def _binomial(p: Any, q: Any) -> Any:
    if (p.total_count < q.total_count).any():
        raise NotImplementedError("KL between Binomials where q.total_count > p.total_count is not implemented")
    found = p.total_count * (p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p())
    return op("where")(p.total_count > q.total_count, math.inf, found)


@register_kl(Categorical, Categorical)
def _categorical(p: Any, q: Any) -> Any:
    where = op("where")
    parts = where(q.probs == 0, math.inf, p.probs * (p.logits - q.logits))
    return where((p.probs == 0).expand(parts.shape), 0, parts).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: Any, q: Any) -> Any:
    return _categorical(p._categorical, q._categorical)


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Any, q: Any) -> Any:
    return ((p.scale + q.scale).pow(2) + (p.loc - q.loc).pow(2)).log() - (4 * p.scale * q.scale).log()


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Any, q: Any) -> Any:
    total_p, total_q = p.concentration.sum(-1), q.concentration.sum(-1)
    found = total_p.lgamma() - total_q.lgamma() - (p.concentration.lgamma() - q.concentration.lgamma()).sum(-1)
    away = p.concentration - q.concentration
    return found + (away * (p.concentration.digamma() - total_p.digamma().unsqueeze(-1))).sum(-1)


@register_kl(Exponential, Exponential)
def _exponential(p: Any, q: Any) -> Any:
    ratio = q.rate / p.rate
    return -ratio.log() + ratio - 1


@register_kl(Gamma, Gamma)
def _gamma(p: Any, q: Any) -> Any:
    found = q.concentration * (p.rate / q.rate).log() + q.concentration.lgamma() - p.concentration.lgamma()
    return found + (p.concentration - q.concentration) * p.concentration.digamma() + (q.rate - p.rate) * p.concentration / p.rate


@register_kl(Geometric, Geometric)
def _geometric(p: Any, q: Any) -> Any:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Any, q: Any) -> Any:
    ratio = p.scale / q.scale
    away = (q.loc - p.loc) / q.scale
    return -ratio.log() - away + ratio * EULER + (away + (1 + ratio).lgamma()).exp() - (1 + EULER)


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: Any, q: Any) -> Any:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Laplace, Laplace)
def _laplace(p: Any, q: Any) -> Any:
    ratio = p.scale / q.scale
    away = (p.loc - q.loc).abs()
    return -ratio.log() + away / q.scale + ratio * (-away / p.scale).exp() - 1


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_normal(p: Any, q: Any) -> Any:
    if p.event_shape != q.event_shape:
        message = "KL-divergence between two Multivariate Normals with different event shapes cannot be computed"
        raise ValueError(at_user_line(message))
    whole_p, whole_q = p.scale_tril, q.scale_tril
    trace = solve_triangular(*op("broadcast_tensors")(whole_q, whole_p)).pow(2).sum((-2, -1))
    distance = batch_mahalanobis(whole_q.expand((*trace.shape, *whole_q.shape[-2:])), (q.loc - p.loc).expand((*trace.shape, -1)))
    return q._half_log_det() - p._half_log_det() + 0.5 * (trace + distance - p.event_shape[0])


@register_kl(Normal, Normal)
def _normal(p: Any, q: Any) -> Any:
    ratio = (p.scale / q.scale).pow(2)
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).pow(2) - 1 - ratio.log())


@register_kl(Pareto, Pareto)
def _pareto(p: Any, q: Any) -> Any:
    ratio = p.scale / q.scale
    shape = q.alpha / p.alpha
    return op("where")(p.support.lower_bound < q.support.lower_bound, math.inf, q.alpha * ratio.log() - shape.log() + shape - 1)


@register_kl(Poisson, Poisson)
def _poisson(p: Any, q: Any) -> Any:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: Any, q: Any) -> Any:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError
    return kl_divergence(p.base_dist, q.base_dist)


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Any:
    outside = (q.low > p.low) | (q.high < p.high)
    return op("where")(outside, math.inf, ((q.high - q.low) / (p.high - p.low)).log())


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Any:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


# ---- of two kinds ------------------------------------------------------------------------------------------------------------


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Any, q: Any) -> Any:
    return -p.entropy() - (p.probs * q.rate.log() - q.rate)


def _to_normal(p: Any, q: Any) -> Any:
    """To a normal distribution: what is known of p is its entropy, mean and variance."""
    away = (p.variance + (p.mean - q.loc).pow(2)) / (2 * q.scale.pow(2))
    return -p.entropy() + q.scale.log() + 0.5 * math.log(2 * math.pi) + away


for _kind in (Beta, Exponential, Gamma, Gumbel, Laplace, Pareto, Uniform):
    register_kl(_kind, Normal)(_to_normal)


def _to_exponential(p: Any, q: Any) -> Any:
    """To an exponential distribution: what is known of p is its entropy and mean."""
    return -p.entropy() - q.rate.log() + q.rate * p.mean


for _kind in (Beta, Gamma, Pareto):
    register_kl(_kind, Exponential)(_to_exponential)


def _to_gamma(p: Any, q: Any, mean_log: Any) -> Any:
    """To a gamma distribution: of p, the mean of logarithms too."""
    normalizer = q.concentration * q.rate.log() - q.concentration.lgamma()
    return -p.entropy() - normalizer - (q.concentration - 1) * mean_log + q.rate * p.mean


def _to_gumbel(p: Any, q: Any, shrunk: Any) -> Any:
    """To a Gumbel distribution: of p, the mean of ``exp(-x / q.scale)`` too."""
    return -p.entropy() + q.scale.log() + (p.mean - q.loc) / q.scale + shrunk * (q.loc / q.scale).exp()


def _mean_log(p: Any) -> Any:
    """The mean of logarithms of uniform numbers; NaN where some are negative."""
    return ((p.high.xlogy(p.high) - p.high) - (p.low.xlogy(p.low) - p.low)) / (p.high - p.low)


@register_kl(Beta, Gamma)
def _beta_gamma(p: Any, q: Any) -> Any:
    return _to_gamma(p, q, p.concentration1.digamma() - (p.concentration1 + p.concentration0).digamma())


@register_kl(Exponential, Gamma)
def _exponential_gamma(p: Any, q: Any) -> Any:
    return _to_gamma(p, q, -EULER - p.rate.log())


@register_kl(Pareto, Gamma)
def _pareto_gamma(p: Any, q: Any) -> Any:
    return _to_gamma(p, q, p.scale.log() + p.alpha.reciprocal())


@register_kl(Exponential, Gumbel)
def _exponential_gumbel(p: Any, q: Any) -> Any:
    return _to_gumbel(p, q, p.rate / (p.rate + q.scale.reciprocal()))


@register_kl(Gamma, Gumbel)
def _gamma_gumbel(p: Any, q: Any) -> Any:
    return _to_gumbel(p, q, (1 + (p.rate * q.scale).reciprocal()).pow(-p.concentration))


@register_kl(Normal, Gumbel)
def _normal_gumbel(p: Any, q: Any) -> Any:
    return _to_gumbel(p, q, (-p.loc / q.scale + 0.5 * (p.scale / q.scale).pow(2)).exp())


@register_kl(Uniform, Gumbel)
def _uniform_gumbel(p: Any, q: Any) -> Any:
    ends = (-p.low / q.scale).exp() - (-p.high / q.scale).exp()
    return _to_gumbel(p, q, q.scale * ends / (p.high - p.low))


@register_kl(Normal, Laplace)
def _normal_laplace(p: Any, q: Any) -> Any:
    away = p.loc - q.loc
    turned = away / p.scale
    distance = p.scale * math.sqrt(2 / math.pi) * (-0.5 * turned.pow(2)).exp() + away * (turned / math.sqrt(2)).erf()
    return -p.entropy() + (2 * q.scale).log() + distance / q.scale


@register_kl(Beta, Uniform)
def _beta_uniform(p: Any, q: Any) -> Any:
    return op("where")((q.high < 1) | (q.low > 0), math.inf, -p.entropy() + (q.high - q.low).log())


@register_kl(Uniform, Beta)
def _uniform_beta(p: Any, q: Any) -> Any:
    mirrored = Uniform(1 - p.high, 1 - p.low, validate_args=False)
    first, second = (q.concentration1 - 1) * _mean_log(p), (q.concentration0 - 1) * _mean_log(mirrored)
    normalizer = q.concentration1.lgamma() + q.concentration0.lgamma() - (q.concentration1 + q.concentration0).lgamma()
    return op("where")((p.high > 1) | (p.low < 0), math.inf, -p.entropy() + normalizer - first - second)


@register_kl(Uniform, Exponential)
def _uniform_exponential(p: Any, q: Any) -> Any:
    return op("where")(p.low < 0, math.inf, _to_exponential(p, q))


@register_kl(Uniform, Gamma)
def _uniform_gamma(p: Any, q: Any) -> Any:
    return op("where")(p.low < 0, math.inf, _to_gamma(p, q, _mean_log(p)))


@register_kl(Uniform, Pareto)
def _uniform_pareto(p: Any, q: Any) -> Any:
    found = -p.entropy() - q.alpha.log() - q.alpha * q.scale.log() + (q.alpha + 1) * _mean_log(p)
    return op("where")(p.low < q.scale, math.inf, found)


def _register_infinite() -> None:
    """Pairs of which the first can give values that the second cannot."""
    pairs: dict[type, tuple[type, ...]] = {
        Normal: (Beta, Exponential, Gamma, Pareto, Uniform),
        Laplace: (Beta, Exponential, Gamma, Pareto, Uniform),
        Gumbel: (Beta, Exponential, Gamma, Pareto, Uniform),
        Exponential: (Beta, Pareto, Uniform),
        Gamma: (Beta, Pareto, Uniform),
        Beta: (Pareto,),
        Pareto: (Beta, Uniform),
        Poisson: (Bernoulli, Binomial),
    }

    def infinite(p: Any, q: Any) -> Any:
        return op("full_like")(p.mean, math.inf)

    for first, seconds in pairs.items():
        for second in seconds:
            register_kl(first, second)(infinite)


_register_infinite()

__all__ = ["kl_divergence", "register_kl"]
