"""fractional_max_pool2d and 3d: the largest elements of windows that begin at random places.

Enters: tensors [N, C, *sizes] or [C, *sizes].  Leaves: tensors; numbers come from the default generator.  Never here: modules.
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import int64
from graphc.eager.failures import ERRORS, located
from graphc.eager.generator import draw
from graphc.eager.tensor import Tensor
from graphc.ir.op import Op
from graphc.ops.arguments import cast, of_type
from graphc.ops.windows import per_dim


def _op(name: str) -> Any:
    return Op.table[name]


def _starts(samples: Any, size: int, window: int, count: int) -> Any:
    """Where `count` windows of a dim begin: steps of about (size - window) / (count - 1), the last at the end.

    samples [N, C] in [0, 1) -> integers [N, C, count].
    """
    samples = _op("unsqueeze")(samples, -1)
    step = (size - window) / (count - 1) if count > 1 else 0.0
    turns = _op("arange")(count, dtype=samples.dtype)
    places, first = (cast(_op("mul")(x, step), int64) for x in (_op("add")(turns, samples), samples))
    last = _op("eq")(turns, count - 1)
    return _op("where")(last, size - window, _op("sub")(places, first))


def _window_places(starts: list[Any], kernel: tuple[int, ...], sizes: tuple[int, ...]) -> Any:
    """The row-major place of every element of every window.  n of integers [N, C, count] -> [N, C, windows, elements]."""
    n = len(kernel)
    places: Any = None
    for dim, (begin, width, size) in enumerate(zip(starts, kernel, sizes, strict=True)):
        along = _op("add")(_op("unsqueeze")(begin, -1), _op("arange")(width))  # [N, C, count, width]
        batch, channels, count = begin.shape
        shape = [1] * 2 * n
        shape[dim], shape[n + dim] = count, width
        along = _op("reshape")(along, (batch, channels, *shape))
        places = along if places is None else _op("add")(_op("mul")(places, size), along)
    rows = tuple(places.shape)
    windows, elements = 1, 1
    for s, t in zip(rows[2 : n + 2], rows[n + 2 :], strict=True):
        windows, elements = windows * s, elements * t
    return _op("reshape")(places, (*rows[:2], windows, elements))


def _wanted_sizes(name: str, sizes: tuple[int, ...], output_size: Any, output_ratio: Any) -> tuple[int, ...]:
    """The output's sizes.  Raises ValueError where neither argument gives them."""
    n = len(sizes)
    if output_size is None and output_ratio is None:
        raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
    if output_size is not None:
        return tuple(per_dim(name, "output_size", output_size, n, 1))
    ratios = output_ratio if isinstance(output_ratio, tuple | list) else (output_ratio,) * n
    return tuple(int(size * ratio) for size, ratio in zip(sizes, ratios, strict=True))


def _pooled(name: str, n: int, input: Any, kernel_size: Any, output_size: Any, output_ratio: Any, samples: Any) -> Any:
    if input.ndim not in (n + 1, n + 2) or 0 in tuple(input.shape[input.ndim - n - 1 :]):
        raise RuntimeError(f"{name}: expected a {n + 1}D or {n + 2}D input, non-empty but for its batch, got {of_type(input)}")
    alone = input.ndim == n + 1
    x = _op("unsqueeze")(input, 0) if alone else input
    sizes, kernel = tuple(x.shape[2:]), tuple(per_dim(name, "kernel_size", kernel_size, n, 1))
    counts = _wanted_sizes(name, sizes, output_size, output_ratio)
    if any(count < 1 or count + width - 1 > size for count, width, size in zip(counts, kernel, sizes, strict=True)):
        raise RuntimeError(f"{name}: {list(counts)} windows of {list(kernel)} do not fit into {of_type(input)}")
    drawn = (x.shape[0], x.shape[1], n)
    if samples is None:
        samples = draw(None, "rand", drawn, x.dtype)
    elif samples.ndim != 3 or samples.dtype is not x.dtype or any(a < b for a, b in zip(samples.shape, drawn, strict=True)):
        raise RuntimeError(f"{name}: _random_samples must be {x.dtype} {list(drawn)} for {of_type(input)}, got {of_type(samples)}")
    order = (1, 0) if n == 2 else (0, 1, 2)  # PyTorch's: in two dims the first sample moves windows along the last dim
    samples = _op("narrow")(samples, 0, 0, x.shape[0])
    starts = [_starts(_op("select")(samples, 2, order[dim]), sizes[dim], kernel[dim], counts[dim]) for dim in range(n)]
    places = _window_places(starts, kernel, sizes)
    flat = _op("flatten")(x, 2)
    rows = _op("gather")(flat.detach(), 2, _op("flatten")(places, 2))
    best = _op("argmax")(_op("reshape")(rows, tuple(places.shape)), -1, True)
    indices = _op("squeeze")(_op("gather")(places, 3, best), 3)
    shape = (*x.shape[1 if alone else 0 : 2], *counts)
    return _op("reshape")(_op("gather")(flat, 2, indices), shape), _op("reshape")(indices, shape)


def _located_pool(*args: Any) -> tuple[Tensor, Tensor]:
    """`_pooled`, whose errors say where the user's code called."""
    try:
        return _pooled(*args)  # type: ignore[no-any-return]
    except ERRORS as error:
        raise located(error) from None


def fractional_max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool2d`, and where in its plane each element was.  [N, C, H, W] -> two of [N, C, H', W']."""
    return _located_pool("fractional_max_pool2d", 2, input, kernel_size, output_size, output_ratio, _random_samples)


def fractional_max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool3d`, and where in its volume each element was.  [N, C, D, H, W] -> two of [N, C, D', H', W']."""
    return _located_pool("fractional_max_pool3d", 3, input, kernel_size, output_size, output_ratio, _random_samples)


def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """The largest elements of windows at random places, `output_size` of them or that share of the input's sizes.

    [N, C, H, W] or [C, H, W] -> [N, C, H', W'], and with return_indices where each was.  `_random_samples` [N, C, 2] serves in
    place of drawn numbers.  Raises ValueError without a size, RuntimeError where windows do not fit.
    Source: Graham 2014, Fractional max-pooling.
    """
    found = fractional_max_pool2d_with_indices(input, kernel_size, output_size, output_ratio, True, _random_samples)
    return found if return_indices else found[0]


def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """`fractional_max_pool2d` over three dims.  [N, C, D, H, W] or [C, D, H, W] -> [N, C, D', H', W']."""
    found = fractional_max_pool3d_with_indices(input, kernel_size, output_size, output_ratio, True, _random_samples)
    return found if return_indices else found[0]
