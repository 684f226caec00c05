"""Questions about shapes alone.

Enters: sizes.  Leaves: `Size`.  Never here: tensors.
"""

from __future__ import annotations

from typing import Any

from graphc.eager.failures import located
from graphc.eager.tensor import Size
from graphc.ir.op import broadcast_shapes as broadcast
from graphc.ops.arguments import shape_of


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that tensors of `shapes` (sequences or single ints) broadcast to.

    Raises RuntimeError where they do not, or for a negative size.
    """
    try:
        return Size(broadcast("broadcast_shapes", [shape_of("broadcast_shapes", shape) for shape in shapes]))
    except (RuntimeError, TypeError) as error:
        located(error)
        raise
