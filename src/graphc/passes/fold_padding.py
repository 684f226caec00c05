"""Zeros around an image become padding of the convolution that reads it: its nest makes them where it needs them.

Enters: a Graph whose convolutions have their channels last.  Leaves: an equal Graph.  Never here: padding with other values, or as
wide as the kernel reaches, where places of results would see zeros alone.

Zeros around an input take part in a convolution's chains, whoever made them, so the bits are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.ir.graph import Builder, Graph, Value, rewrite
from graphc.ir.op import Op

_NAMES = ("convolution_panels", "depthwise_last", "winograd")


def fold_padding(graph: Graph) -> Graph:
    """``depthwise_last(pad_constant(x), w, before=b)`` --> ``depthwise_last(x, w, before=b + starts)``."""
    if not any(node.op.name == "pad_constant" for node in graph.nodes):
        return graph
    return rewrite(graph, dict.fromkeys(_NAMES, (_rule,)))


def _rule(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Sequence[Value] | None:
    images, weight = inputs
    reader, order = images.node, tuple(range(images.ndim))
    node = reader
    if reader is not None and reader.op.name == "permute":
        node, order = reader.inputs[0].node, reader.attrs["dims"]
    if node is None or node.op.name != "pad_constant" or not _is_zero(node.attrs["value"]):
        return None
    (x,), starts = node.inputs, tuple(node.attrs["starts"][d] for d in order)
    sizes = [x.shape[d] for d in order]
    if (sizes[0], sizes[-1]) != (images.shape[0], images.shape[-1]) or not all(isinstance(n, int) for n in (*sizes, *starts)):
        return None
    before = tuple(b + start for b, start in zip(attrs["before"], starts[1:-1], strict=True))
    kernel = weight.shape[:2] if op.name == "depthwise_last" else attrs.get("kernel", (3, 3))
    ones = (1,) * len(before)
    strides, dilations = attrs.get("stride", ones), attrs.get("dilation", ones)
    for b, k, p, s, d, size in zip(before, kernel, attrs["places"], strides, dilations, sizes[1:-1], strict=True):
        reach = d * (k - 1) + 1
        if max(b, (p - 1) * s + reach - b - size) >= reach:
            return None
    if order != tuple(range(len(order))):
        (x,) = builder.emit(Op.table["permute"], (x,), {"dims": order})
    return builder.emit(op, (x, weight), {**attrs, "before": before})


def _is_zero(value: float) -> bool:
    return value == 0 and math.copysign(1.0, value) > 0
