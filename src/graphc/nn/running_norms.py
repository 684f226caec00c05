"""batch_norm and instance_norm: normalisation by what a batch shows or by what was seen before, and the running statistics.

Enters: tensors, and running statistics that are written over.  Leaves: tensors.  Never here: modules.
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import DType, float64
from graphc.eager.dispatch import assign
from graphc.eager.failures import ERRORS, located
from graphc.eager.modes import no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ops.arguments import cast, constant, of_type, require_floating
from graphc.ops.arithmetic import add, div, mul
from graphc.ops.channel_norm import channel_norm, channel_parameters, fixed_norm
from graphc.ops.comparison import clone
from graphc.ops.reduce import mean as mean_over


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-05,
) -> Tensor:
    """Mean 0 and variance 1 of every channel over the batch, times weight plus bias.  [N, C, ...] -> [N, C, ...].

    While training the batch's own statistics serve, and move the running ones by `momentum` (the variance unbiased); else the
    running ones.  Raises ValueError where a channel has a single value to learn from or eps is not positive,
    RuntimeError for statistics that do not fit.
    """
    if training and input.ndim >= 2 and 0 < input.numel() == input.shape[1]:  # type: ignore[attr-defined]
        raise ValueError(at_user_line(f"Expected more than 1 value per channel when training, got input size {list(input.shape)}"))
    if training and eps <= 0:
        raise ValueError(at_user_line(f"batch_norm eps must be positive during training, but got {eps}"))
    try:
        if input.ndim == 1 and input.shape[0] == 0:
            return clone(input)  # type: ignore[no-any-return]
        x, statistics = _checked("batch_norm", input, running_mean, running_var)
        parameters = channel_parameters("batch_norm", x, weight, bias)
        if not training:
            if statistics is None:
                raise ValueError("batch_norm: expected running_mean and running_var to be defined when training=False")
            return fixed_norm.run(x, *statistics, *parameters, eps=float(eps))  # type: ignore[no-any-return]
        if not x.numel():
            return clone(x)  # type: ignore[no-any-return]
        out, mean, variance = channel_norm.run(x, *parameters, groups=x.shape[1], over_batch=True, eps=float(eps))
        if statistics is not None:
            _move(statistics, mean, variance, x.numel() // x.shape[1], momentum)
        return out  # type: ignore[no-any-return]
    except ERRORS as error:
        raise located(error) from None


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-05,
) -> Tensor:
    """Mean 0 and variance 1 of every channel of every member of the batch, times weight plus bias.  [N, C, ...] -> [N, C, ...].

    Running statistics, where given, move towards the batch's averages; without `use_input_stats` they serve instead of the input's.
    Raises ValueError where a channel has a single element, RuntimeError for statistics that do not fit.
    """
    if use_input_stats and input.ndim > 2 and 0 < input.numel() == input.shape[0] * input.shape[1]:  # type: ignore[attr-defined]
        raise ValueError(at_user_line(f"Expected more than 1 spatial element when training, got input size {list(input.shape)}"))
    try:
        x, statistics = _checked("instance_norm", input, running_mean, running_var)
        parameters = channel_parameters("instance_norm", x, weight, bias)
        if not use_input_stats:
            if statistics is None:
                raise RuntimeError(
                    "instance_norm: expected running_mean and running_var to be defined when use_input_stats is false"
                )
            return fixed_norm.run(x, *statistics, *parameters, eps=float(eps))  # type: ignore[no-any-return]
        if not x.numel():
            return clone(x)  # type: ignore[no-any-return]
        out, mean, variance = channel_norm.run(x, *parameters, groups=x.shape[1], over_batch=False, eps=float(eps))
        if statistics is not None:
            seen = [mean_over.run(s, dims=(0,), keepdim=False) for s in (mean.detach(), variance.detach())]
            _move(statistics, seen[0], seen[1], x.numel() // (x.shape[0] * x.shape[1]), momentum)
        return out  # type: ignore[no-any-return]
    except ERRORS as error:
        raise located(error) from None


def _checked(name: str, input: Any, mean: Any, variance: Any) -> tuple[Any, tuple[Any, Any] | None]:
    """(input, both statistics or None).  Raises RuntimeError where there is one without the other, or they are no vectors of C."""
    x = require_floating(name, "input", input)
    if x.ndim < 2:
        raise RuntimeError(f"{name}: expected at least 2 dims, got {of_type(x)}")
    if mean is None and variance is None:
        return x, None
    for argument, s in (("running_mean", mean), ("running_var", variance)):
        if s is None or tuple(s.shape) != (x.shape[1],):
            shown = None if s is None else of_type(s)
            raise RuntimeError(f"{name}: {argument} should contain {x.shape[1]} elements for {of_type(x)}, got {shown}")
    return x, (mean, variance)


def _unbiased(count: Any, dtype: DType) -> Any:
    """count / (count - 1) in double precision; a tensor where the count is symbolic, NaN for one."""
    if type(count) is int or count <= 1:
        return count / (count - 1) if count > 1 else float("nan")
    return cast(div(constant(count, float64), constant(count - 1, float64)), dtype)


def _move(statistics: tuple[Any, Any], mean: Any, variance: Any, count: Any, momentum: float) -> None:
    """running = (1 - momentum) * running + momentum * seen, the variance divided by count - 1."""
    with no_grad():
        seen = (mean, mul(variance, _unbiased(count, variance.dtype)))
        for running, new in zip(statistics, seen, strict=True):
            old = cast(running, new.dtype)
            moved = add(mul(old, 1.0 - momentum), mul(new.detach(), momentum))
            assign(running, cast(moved, running.dtype), "batch_norm")
