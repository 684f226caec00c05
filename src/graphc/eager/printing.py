"""Tensors as text, as PyTorch prints them.

Enters: tensors and print options.  Leaves: text.  Never here: operators (arrays are read with NumPy).

All elements of a tensor are printed in one width, chosen from its finite nonzero elements: as integers with a dot if all are
whole, in scientific notation if they span more than a factor of 1000, exceed 1e8 or fall below 1e-4, else with `precision` digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.dtypes import bool_, get_default_dtype, int64
from graphc.eager.storage import Phantom
from graphc.eager.tensor import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Options:
    """precision: digits after the point.  threshold: elements above which only edges are shown.  edgeitems: how many at each edge.
    linewidth: characters a line.  sci_mode: scientific notation, or None to choose."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


PROFILES = {"default": Options(), "short": Options(precision=2, edgeitems=2), "full": Options(threshold=math.inf)}
_options = [PROFILES["default"]]


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Change how tensors print; `profile` is ``default``, ``short`` or ``full``.  `sci_mode` None chooses per tensor."""
    options = _options[0] if profile is None else PROFILES[profile]
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    _options[0] = replace(options, sci_mode=sci_mode, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]


def text(x: Tensor) -> str:
    """The text of a tensor."""
    kind = type(x).__name__
    prefix = "tensor(" if type(x) is Tensor or kind in ("Parameter", "Buffer") else f"{kind}("
    if type(x._array) is Phantom:
        return f"{prefix}..., traced as {x.dtype.short}[{', '.join(map(str, x._array.shape))}])"
    array = x._array.astype(np.float64) if x.dtype.kind == "f" else x._array
    suffixes = []
    if array.size == 0:
        body = "[]"
        if array.ndim != 1:
            suffixes.append(f"size={tuple(array.shape)}")
        shows_dtype = x.dtype is not get_default_dtype()
    else:
        body = _body(array, len(prefix))
        shows_dtype = x.dtype not in (get_default_dtype(), get_default_dtype().to_complex(), int64, bool_)
    if shows_dtype:
        suffixes.append(f"dtype={x.dtype}")
    if x.grad_fn is not None:
        suffixes.append(f"grad_fn=<{x.grad_fn.name()}>")
    elif x._requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes(prefix + body, suffixes, len(prefix))


def _with_suffixes(shown: str, suffixes: list[str], indent: int) -> str:
    """Suffixes after the elements, each on a new line where the last one is full."""
    used = len(shown) - shown.rfind("\n") + 1
    for suffix in suffixes:
        if used + len(suffix) + 2 > _options[0].linewidth:
            shown += ",\n" + " " * indent + suffix
            used = indent + len(suffix)
        else:
            shown += ", " + suffix
            used += len(suffix) + 2
    return shown + ")"


def _body(array: Array, indent: int) -> str:
    summarized = array.size > _options[0].threshold
    width, show = _element_format(_edges(array) if summarized else array)
    return _nested(array, indent, summarized, width, show)


def _edges(array: Array) -> Array:
    """The elements that a summary shows."""
    keep = _options[0].edgeitems
    for axis, size in enumerate(array.shape):
        if size > 2 * keep:
            array = np.take(array, [*range(keep), *range(size - keep, size)], axis=axis)
    return array


# ---- one element -----------------------------------------------------------------------------------------------------


def _element_format(array: Array) -> tuple[int, Callable[[Any], str]]:
    """The width of elements, and a function that shows one in that width."""
    if array.dtype.kind == "c":
        return _complex_format(array)
    width, show = _number_format(array)
    return width, lambda v: show(v).rjust(width)


def _complex_format(array: Array) -> tuple[int, Callable[[Any], str]]:
    """Real and imaginary parts have a width each; blanks between them are left out."""
    (real_width, real), (imag_width, imag) = (_element_format(part) for part in (array.real, array.imag))

    def show(v: complex) -> str:
        last = imag(v.imag).lstrip()
        return real(v.real) + ("" if last[0] in "+-" else "+") + last + "j"

    return real_width + imag_width + 1, show


def _number_format(array: Array) -> tuple[int, Callable[[Any], str]]:
    """The width of real numbers, and a function that shows one (not yet padded)."""
    values = array.reshape(-1).tolist()
    if array.dtype.kind != "f":
        return max((len(str(v)) for v in values), default=1), str
    options = _options[0]
    finite = [v for v in values if v != 0 and math.isfinite(v)]
    if not finite:
        return 1, _whole
    least, most = min(map(abs, finite)), max(map(abs, finite))
    scientific = options.sci_mode
    if scientific is None:
        scientific = most / least > 1000.0 or most > 1.0e8 or least < 1.0e-4
    whole = all(v == math.ceil(v) for v in finite)
    if scientific:
        show: Callable[[Any], str] = lambda v: f"{v:.{options.precision}e}"
    elif whole:
        show = _whole
    else:
        show = lambda v: f"{v:.{options.precision}f}"
    return max(1, *(len(show(v)) for v in finite)), show


def _whole(value: float) -> str:
    """``3.``, ``inf``."""
    return f"{value:.0f}." if math.isfinite(value) else f"{value:.0f}"


# ---- nested brackets -------------------------------------------------------------------------------------------------


def _nested(array: Array, indent: int, summarized: bool, width: int, show: Callable[[Any], str]) -> str:
    if array.ndim == 0:
        return show(array.item())
    keep = _options[0].edgeitems
    cut = summarized and len(array) > 2 * keep
    if array.ndim == 1:
        return _row(array, indent, keep if cut else None, width, show)
    parts = [*array[:keep], None, *array[len(array) - keep :]] if cut else list(array)
    rows = ["..." if part is None else _nested(part, indent + 1, summarized, width, show) for part in parts]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(rows) + "]"


def _row(array: Array, indent: int, keep: int | None, width: int, show: Callable[[Any], str]) -> str:
    """One row, broken into lines; `keep`: only so many elements at each end."""
    shown = lambda part: [show(v) for v in part.tolist()]
    if keep is None:
        items = shown(array)
    else:
        items = [*shown(array[:keep]), " ...", *shown(array[len(array) - keep :])] if keep else ["..."]
    per_line = max(1, (_options[0].linewidth - indent) // (width + 2))
    lines = [", ".join(items[i : i + per_line]) for i in range(0, len(items), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
