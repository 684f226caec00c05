"""What PyTorch calls the nodes of its tape: ``AddBackward0``.

Enters: an operator's name, the shapes of its inputs, its attributes.  Leaves: the node's name.  Never here: anything that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Shapes = Sequence[Sequence[Any]]

# operators whose nodes PyTorch names otherwise
_OTHER = {
    "reshape": "View", "cast": "ToCopy", "cross_entropy": "NllLoss", "nll_loss": "NllLoss", "layer_norm": "NativeLayerNorm",
    "batch_norm": "NativeBatchNorm", "group_norm": "NativeGroupNorm", "conv1d": "Convolution", "conv2d": "Convolution",
    "conv3d": "Convolution", "max_pool2d": "MaxPool2DWithIndices", "abs": "Abs", "copy": "CopyBackwards",
    "copy_slices": "CopySlices", "dropout": "Mul",
    "square": "Pow", "max_dim": "Max", "min_dim": "Min", "max_pool": "MaxPool2DWithIndices", "vector_norm": "LinalgVectorNorm",
    "norm": "LinalgVectorNorm",
    "binary_cross_entropy_with_logits": "BinaryCrossEntropyWithLogits",
}  # fmt: skip


def _linear(shapes: Shapes, attrs: dict[str, Any]) -> str:
    if len(shapes[0]) == 2:
        return "Addmm" if len(shapes) == 3 else "Mm"
    return "View" if len(shapes) == 3 else "UnsafeView"


def _matmul(shapes: Shapes, attrs: dict[str, Any]) -> str:
    ranks = len(shapes[0]), len(shapes[1])
    return {(1, 1): "Dot", (2, 1): "Mv", (2, 2): "Mm"}.get(ranks, "UnsafeView")


def _permute(shapes: Shapes, attrs: dict[str, Any]) -> str:
    moved = [k for k, d in enumerate(attrs["dims"]) if k != d]
    return "Transpose" if len(moved) == 2 and len(attrs["dims"]) > 2 else "T" if len(moved) == 2 else "Permute"


_BY_TYPE: dict[str, Callable[[Shapes, dict[str, Any]], str]] = {"linear": _linear, "matmul": _matmul, "permute": _permute}


def node_name(op: str, in_types: Sequence[tuple[Any, Any]], attrs: dict[str, Any]) -> str:
    """The name of the node of one call."""
    if op.endswith("Backward"):  # a custom function
        return op
    if in_types and op in _BY_TYPE:
        return _BY_TYPE[op]([shape for shape, _ in in_types], attrs) + "Backward0"
    number = int(op == "clamp")
    if op in ("sum", "mean") and in_types:
        number = int(attrs.get("keepdim", False) or len(attrs.get("dims", ())) != len(in_types[0][0]))
    name = _OTHER.get(op) or op.title().replace("_", "")
    return name if name in ("CopyBackwards", "CopySlices") else f"{name}Backward{number}"
