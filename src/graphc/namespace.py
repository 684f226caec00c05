"""Every public name of `graphc`, loaded when the first of them is asked for.

Enters: nothing.  Leaves: names.  Never here: mechanism.
"""

# ruff: noqa: F401  re-exported
from __future__ import annotations

import builtins
import math
from typing import Any

import graphc.ops
from graphc.dtypes import DType as dtype
from graphc.dtypes import (
    bfloat16,
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
    uint32,
    uint64,
)
from graphc.dtypes import bool_ as bool
from graphc.eager import autograd, indexing, methods
from graphc.eager.creation import (
    arange,
    as_tensor,
    empty,
    empty_like,
    eye,
    finfo,
    from_numpy,
    full,
    full_like,
    iinfo,
    linspace,
    ones,
    ones_like,
    scalar_tensor,
    tensor,
    zeros,
    zeros_like,
)
from graphc.eager.generator import (
    Generator,
    bernoulli,
    default_generator,
    fork_rng,
    get_rng_state,
    initial_seed,
    manual_seed,
    normal,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
    seed,
    set_rng_state,
)
from graphc.eager.modes import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from graphc.eager.printing import set_printoptions
from graphc.eager.tensor import Size, Tensor, device

float = float32
double, half = float64, float16
long, int, short, uint = int64, int32, int16, uint8

methods.install()
globals().update({name: function for name, function in methods.functions().items() if name not in globals()})


def is_tensor(x: object) -> builtins.bool:
    """Whether `x` is a Tensor."""
    return isinstance(x, Tensor)


def is_floating_point(x: Tensor) -> builtins.bool:
    """Whether a tensor's dtype is floating."""
    return x.dtype.kind == "f"


allclose, equal = Tensor.allclose, Tensor.equal  # type: ignore[attr-defined]
masked_select, nonzero = Tensor.masked_select, Tensor.nonzero  # type: ignore[attr-defined]
e, inf, nan, pi, newaxis = math.e, math.inf, math.nan, math.pi, None


def numel(x: Tensor) -> Any:
    """How many elements a tensor has."""
    return x.numel()
