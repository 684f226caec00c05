"""Distributions under the names of ``torch.distributions``: probabilities, samples, divergences.  Names of other modules only."""

from __future__ import annotations

import graphc.namespace  # noqa: F401  tensors get their methods there
from graphc.distributions import constraints, transforms
from graphc.distributions.bernoulli import Bernoulli
from graphc.distributions.beta import Beta
from graphc.distributions.binomial import Binomial
from graphc.distributions.categorical import Categorical
from graphc.distributions.cauchy import Cauchy
from graphc.distributions.chi2 import Chi2
from graphc.distributions.constraint_registry import biject_to, transform_to
from graphc.distributions.dirichlet import Dirichlet
from graphc.distributions.distribution import Distribution, ExponentialFamily
from graphc.distributions.exponential import Exponential
from graphc.distributions.gamma import Gamma
from graphc.distributions.geometric import Geometric
from graphc.distributions.gumbel import Gumbel
from graphc.distributions.half_cauchy import HalfCauchy
from graphc.distributions.half_normal import HalfNormal
from graphc.distributions.independent import Independent
from graphc.distributions.inverse_gamma import InverseGamma
from graphc.distributions.kl import kl_divergence, register_kl
from graphc.distributions.laplace import Laplace
from graphc.distributions.log_normal import LogNormal
from graphc.distributions.logistic_normal import LogisticNormal
from graphc.distributions.mixture_same_family import MixtureSameFamily
from graphc.distributions.multinomial import Multinomial
from graphc.distributions.multivariate_normal import MultivariateNormal
from graphc.distributions.negative_binomial import NegativeBinomial
from graphc.distributions.normal import Normal
from graphc.distributions.one_hot_categorical import OneHotCategorical, OneHotCategoricalStraightThrough
from graphc.distributions.pareto import Pareto
from graphc.distributions.poisson import Poisson
from graphc.distributions.relaxed_bernoulli import LogitRelaxedBernoulli, RelaxedBernoulli
from graphc.distributions.relaxed_categorical import ExpRelaxedCategorical, RelaxedOneHotCategorical
from graphc.distributions.studentT import StudentT
from graphc.distributions.transformed_distribution import TransformedDistribution
from graphc.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    CatTransform,
    ComposeTransform,
    CorrCholeskyTransform,
    CumulativeDistributionTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyTransform,
    PositiveDefiniteTransform,
    PowerTransform,
    ReshapeTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    StackTransform,
    StickBreakingTransform,
    TanhTransform,
    Transform,
    identity_transform,
)
from graphc.distributions.uniform import Uniform
from graphc.distributions.von_mises import VonMises
from graphc.distributions.weibull import Weibull

__all__ = [
    "AbsTransform",
    "AffineTransform",
    "Bernoulli",
    "Beta",
    "Binomial",
    "CatTransform",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ComposeTransform",
    "CorrCholeskyTransform",
    "CumulativeDistributionTransform",
    "Dirichlet",
    "Distribution",
    "ExpRelaxedCategorical",
    "ExpTransform",
    "Exponential",
    "ExponentialFamily",
    "Gamma",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Independent",
    "IndependentTransform",
    "InverseGamma",
    "Laplace",
    "LogNormal",
    "LogisticNormal",
    "LogitRelaxedBernoulli",
    "LowerCholeskyTransform",
    "MixtureSameFamily",
    "Multinomial",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Pareto",
    "Poisson",
    "PositiveDefiniteTransform",
    "PowerTransform",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "ReshapeTransform",
    "SigmoidTransform",
    "SoftmaxTransform",
    "SoftplusTransform",
    "StackTransform",
    "StickBreakingTransform",
    "StudentT",
    "TanhTransform",
    "Transform",
    "TransformedDistribution",
    "Uniform",
    "VonMises",
    "Weibull",
    "biject_to",
    "constraints",
    "identity_transform",
    "kl_divergence",
    "register_kl",
    "transform_to",
    "transforms",
]
