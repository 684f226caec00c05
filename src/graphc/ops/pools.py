"""avg_pool, max_pool, lp_pool and max_unpool over 1 to 3 dims: PyTorch's arguments made strict.

Enters: tensors [N, C, *sizes] or [C, *sizes], and PyTorch's arguments.  Leaves: operators written with `pooling`.
Never here: what a pool computes.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.ir.op import Bad, Op
from graphc.ops.arguments import constant, index_tensor, number, of_type, one_size, tensor
from graphc.ops.arithmetic import mul
from graphc.ops.bounds import places
from graphc.ops.declare import FLOATING, NUMERIC, Shorthand, call, fill
from graphc.ops.movement import reshape
from graphc.ops.pooling import avg_pool, max_pool, max_pool_indices, pooled_sizes
from graphc.ops.windows import Ints, fixed, per_dim


def pooled_input(name: str, input: Any, n: int) -> Any:
    """[N, C, *sizes] or [C, *sizes] with only the batch empty.  Raises TypeError or RuntimeError."""
    x = tensor(name, "input", input)
    if x.ndim not in (n + 1, n + 2) or 0 in fixed(name, x.shape[x.ndim - n - 1 :]):
        raise RuntimeError(f"{name}: expected a {n + 1}D or {n + 2}D input, non-empty but for its batch, got {of_type(x)}")
    return x


def _steps(name: str, kernel_size: Any, stride: Any, n: int) -> tuple[Ints, Ints]:
    kernel = per_dim(name, "kernel_size", kernel_size, n, 1)
    none = stride is None or (isinstance(stride, tuple | list) and not stride)
    return kernel, kernel if none else per_dim(name, "stride", stride, n, 1)


def _places(name: str, x: Any, kernel: Ints, stride: Ints, padding: Any, dilation: Any, ceil: Any) -> dict[str, Any]:
    """Attributes of a pool of x.  Raises RuntimeError where padding is too wide or no window fits."""
    n = len(kernel)
    sides, apart = per_dim(name, "padding", padding, n), per_dim(name, "dilation", dilation, n, 1)
    if any(2 * p > d * (k - 1) + 1 for p, k, d in zip(sides, kernel, apart, strict=True)):
        raise RuntimeError(
            f"{name}: pad should be at most half of effective kernel size, got padding {list(sides)} for kernel_size "
            f"{list(kernel)} and dilation {list(apart)}"
        )
    how: dict[str, Any] = {"kernel": kernel, "stride": stride, "padding": sides, "dilation": apart, "ceil": bool(ceil)}
    sizes = pooled_sizes(x.shape[x.ndim - n :], **how)
    if any(s < 1 for s in sizes):
        raise RuntimeError(f"{name}: output size {list(sizes)} is too small for input {of_type(x)} and kernel_size {list(kernel)}")
    return how


# ---- average -----------------------------------------------------------------------------------------------------------


def _avg(name: str, n: int) -> Any:
    def pooled(
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: Any = False,
        count_include_pad: Any = True,
        divisor_override: Any = None,
    ) -> Any:
        x = pooled_input(name, input, n)
        kernel, steps = _steps(name, kernel_size, stride, n)
        how = _places(name, x, kernel, steps, padding, 1, ceil_mode)
        del how["dilation"]
        if divisor_override is not None:
            divisor_override = one_size(name, "divisor_override", divisor_override)
            if divisor_override == 0:
                raise RuntimeError(f"{name}: divisor must be not zero")
        return avg_pool.run(x, **how, include_pad=bool(count_include_pad), divisor=divisor_override)

    def without_divisor(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: Any = False, count_include_pad: Any = True
    ) -> Any:
        return pooled(input, kernel_size, stride, padding, ceil_mode, count_include_pad)

    return without_divisor if n == 1 else pooled


def _declared(
    name: str,
    doc: str,
    rule: Any,
    samples: Any,
    bad: Any,
    functions: tuple[str, ...],
    dtypes: Any = FLOATING,
    *,
    wide: bool = False,
) -> Shorthand:
    """`wide`: autocast has it in float32."""
    return Shorthand(
        name,
        doc=doc,
        rule=rule,
        reference=None,
        dtypes=dtypes,
        samples=samples,
        bad=bad,
        methods=(),
        functions=functions,
        autocast="float32" if wide else None,
    )


def _sizes(n: int) -> tuple[int, ...]:
    return (2, 6, 5, 7)[: n + 1]


def _bad(name: str, n: int) -> tuple[Bad, ...]:
    x = fill(*_sizes(n))
    return (
        Bad((fill(2), 2), RuntimeError, f"{name}: expected a {n + 1}D or {n + 2}D input"),
        Bad((x, 0), RuntimeError, f"{name}: argument 'kernel_size' must be greater than zero"),
        Bad((x, 2, 0), RuntimeError, f"{name}: argument 'stride' must be greater than zero"),
        Bad((x, 2, 2, 2), RuntimeError, f"{name}: pad should be at most half"),
        Bad((x, 9), RuntimeError, f"{name}: output size .* is too small"),
    )


def _pool_samples(n: int) -> Any:
    return (
        call(fill(*_sizes(n)), 2),
        call(fill(2, *_sizes(n)), 3, 2, 1, ceil_mode=True),
        call(fill(*_sizes(n)), (2,) * n, (1,) * n),
    )


avg_pool1d, avg_pool2d, avg_pool3d = (
    _declared(
        f"avg_pool{n}d",
        f"Means of windows over {n} dims.  [N, C, ...] -> [N, C, ...]; also without N.",
        _avg(f"avg_pool{n}d", n),
        _pool_samples(n),
        _bad(f"avg_pool{n}d", n),
        (*((f"avg_pool{n}d",) if n == 1 else ()), f"nn.functional.avg_pool{n}d"),
        wide=n == 3,
    )
    for n in (1, 2, 3)
)

# ---- largest -----------------------------------------------------------------------------------------------------------


def _max(name: str, n: int, with_indices: bool) -> Any:
    def both(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: Any = False) -> Any:
        return pooled(input, kernel_size, stride, padding, dilation, ceil_mode, True)

    def pooled(
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: Any = False,
        return_indices: Any = False,
    ) -> Any:
        x = pooled_input(name, input, n)
        kernel, steps = _steps(name, kernel_size, stride, n)
        how = _places(name, x, kernel, steps, padding, dilation, ceil_mode)
        best = max_pool.run(x, **how)
        return (best, max_pool_indices.run(x, **how)) if return_indices else best

    return both if with_indices else pooled


max_pool1d, max_pool2d, max_pool3d = (
    _declared(
        f"max_pool{n}d",
        f"Largest elements of windows over {n} dims, and where they are with return_indices.  [N, C, ...] -> [N, C, ...]; also "
        "without N.",
        _max(f"max_pool{n}d", n, False),
        (*_pool_samples(n), call(fill(*_sizes(n)), 2, return_indices=True)),
        _bad(f"max_pool{n}d", n),
        (f"max_pool{n}d", f"nn.functional.max_pool{n}d"),
        NUMERIC,
        wide=n == 3,
    )
    for n in (1, 2, 3)
)
max_pool1d_with_indices, max_pool2d_with_indices, max_pool3d_with_indices = (
    _declared(
        f"max_pool{n}d_with_indices",
        f"Largest elements of windows over {n} dims and where they are.  [N, C, ...] -> [N, C, ...], int64 [N, C, ...].",
        _max(f"max_pool{n}d_with_indices", n, True),
        _pool_samples(n),
        _bad(f"max_pool{n}d_with_indices", n),
        (*((f"max_pool{n}d_with_indices",) if n == 1 else ()), f"nn.functional.max_pool{n}d_with_indices"),
        NUMERIC,
        wide=n == 3,
    )
    for n in (1, 2, 3)
)

# ---- power means -------------------------------------------------------------------------------------------------------


def _lp(name: str, n: int) -> Any:
    largest, average = (max_pool1d, max_pool2d, max_pool3d)[n - 1], (avg_pool1d, avg_pool2d, avg_pool3d)[n - 1]

    def pooled(input: Any, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: Any = False) -> Any:
        x, power = tensor(name, "input", input), number(name, "norm_type", norm_type)
        size = Op.table["abs"]
        if power == math.inf:
            return largest(size(x), kernel_size, stride, 0, 1, ceil_mode)
        if power == -math.inf:
            return Op.table["neg"](largest(Op.table["neg"](size(x)), kernel_size, stride, 0, 1, ceil_mode))
        mean = average(Op.table["pow"](x, power), kernel_size, stride, 0, ceil_mode)
        count = math.prod(per_dim(name, "kernel_size", kernel_size, n, 1))
        total = mul(mul(Op.table["sign"](mean), Op.table["relu"](size(mean))), count)
        return Op.table["pow"](total, 1.0 / power)

    return pooled


lp_pool1d, lp_pool2d, lp_pool3d = (
    _declared(
        f"lp_pool{n}d",
        f"The power sums of windows over {n} dims, to the power 1 / norm_type.  [N, C, ...] -> [N, C, ...]; also without N.",
        _lp(f"lp_pool{n}d", n),
        (call(fill(*_sizes(n), low=0.5), 2, 2), call(fill(*_sizes(n), low=0.5), 3.0, 3, 1)),
        (Bad((fill(*_sizes(n)), 2, 0), RuntimeError, f"avg_pool{n}d: argument 'kernel_size'"),),
        (f"nn.functional.lp_pool{n}d",),
    )
    for n in (1, 2, 3)
)

# ---- back from the largest ---------------------------------------------------------------------------------------------


def _unpooled_sizes(name: str, x: Any, kernel: Ints, stride: Ints, padding: Ints, output_size: Any) -> Ints:
    """The sizes a pool came from.  Raises ValueError where `output_size` could not have given x."""
    n = len(kernel)
    sizes = fixed(name, x.shape[x.ndim - n :])
    usual = tuple((s - 1) * step + k - 2 * p for s, step, k, p in zip(sizes, stride, kernel, padding, strict=True))
    if output_size is None:
        return usual
    wanted = tuple(one_size(name, "output_size", s) for s in output_size)
    wanted = wanted[2:] if len(wanted) == n + 2 else wanted
    if len(wanted) != n:
        raise ValueError(f"{name}: output_size should have {n} or {n + 2} elements, got {list(output_size)}")
    for k, (size, have, step) in enumerate(zip(fixed(name, wanted), usual, stride, strict=True)):
        if not have - step < size < have + step:
            raise ValueError(f"{name}: output_size {list(wanted)}: dim {k} must be between {have - step} and {have + step}")
    return fixed(name, wanted)


def _unpool(name: str, n: int) -> Any:
    def unpooled(input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None) -> Any:
        x, places = pooled_input(name, input, n), index_tensor(name, "indices", indices)
        if tuple(places.shape) != tuple(x.shape):
            raise RuntimeError(f"{name}: expected indices of the shape of input: {of_type(x)} and {of_type(places)}")
        kernel, steps = _steps(name, kernel_size, stride, n)
        sizes = _unpooled_sizes(name, x, kernel, steps, per_dim(name, "padding", padding, n), output_size)
        if any(s < 1 for s in sizes):
            raise ValueError(f"{name}: output_size {list(sizes)} must be positive")
        lead = tuple(x.shape[: x.ndim - n])
        flat = (*lead, math.prod(x.shape[x.ndim - n :]))
        zeros = constant(0, x.dtype, (*lead, math.prod(sizes)))
        at, values = reshape.run(places, shape=flat), reshape.run(x, shape=flat)
        return reshape.run(Op.table["scatter"](zeros, x.ndim - n, at, values), shape=(*lead, *sizes))

    return unpooled


max_unpool1d, max_unpool2d, max_unpool3d = (
    _declared(
        f"max_unpool{n}d",
        f"What max_pool{n}d left, put back where it was among zeros.  [N, C, ...], int64 [N, C, ...] -> [N, C, ...].",
        _unpool(f"max_unpool{n}d", n),
        (
            call(fill(2, *(1,) * n), places(2, 2, *(1,) * n), 2),
            call(fill(3, 2, *(1,) * n), places(1, 3, 2, *(1,) * n), (3,) * n, 2, 1),
        ),
        (Bad((fill(2, *(2,) * n), places(4, 2, *(1,) * n), 2), RuntimeError, f"max_unpool{n}d: expected indices of the shape"),),
        (f"nn.functional.max_unpool{n}d",),
        NUMERIC,
        wide=True,
    )
    for n in (1, 2, 3)
)
