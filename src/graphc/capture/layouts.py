"""How an argument lies in memory, as far as code can tell: `reshape` of one tensor is a view, of another a copy.

Enters: arrays, shapes.  Leaves: layouts, which are part of a call's key; the strides of what stands for an argument.
Never here: programs, which are given row-major elements.
"""

from __future__ import annotations

from math import prod
from typing import Any

from graphc.dims import Size
from graphc.eager.storage import Phantom, Storage
from graphc.eager.tensor import Tensor, place
from graphc.eager.views import contiguous_strides
from graphc.ir.op import Shape

Layout = tuple[str, tuple[int, ...]]


def layout_of(array: Any) -> Layout | None:
    """None for row-major elements; where there are no gaps the order of the dims, the outermost first; else strides in elements."""
    if array.flags.c_contiguous:
        return None
    steps = tuple(s // array.itemsize for s in array.strides)
    order = tuple(sorted(range(array.ndim), key=lambda d: -steps[d]))
    if all(steps[d] == prod(array.shape[e] for e in order[k + 1 :]) for k, d in enumerate(order)):
        return "order", order
    return "strides", steps


def steps_of(layout: Layout, shape: tuple[Size, ...]) -> tuple[Size, ...]:
    """The strides in elements of a shape that lies so."""
    kind, numbers = layout
    if kind == "strides":
        return numbers
    steps = contiguous_strides(tuple(shape[d] for d in numbers))
    return tuple(steps[numbers.index(d)] for d in range(len(shape)))


def stand_in_of(x: Tensor, shape: Shape) -> Tensor:
    """A tensor without memory of a shape that lies as `x` does."""
    layout = None if x._storage.cell is not None else layout_of(x._array)
    steps = contiguous_strides(shape) if layout is None else steps_of(layout, shape)
    phantom = Phantom(x.dtype, shape, steps)
    return place(phantom, x.dtype, Storage(phantom), (), None)
