"""Graph -> Graph, one file a pass.  `PASSES` is the compiler's order."""

from collections.abc import Callable

from graphc.ir.graph import Graph
from graphc.passes.algebra import simplify
from graphc.passes.decompose import decompose
from graphc.passes.fold_padding import fold_padding
from graphc.passes.gather_products import gather_products
from graphc.passes.hoist_reshape import hoist_reshape
from graphc.passes.layout import channels_last
from graphc.passes.short_axes import write_out_short_axes

PASSES: tuple[Callable[[Graph], Graph], ...] = (
    decompose,
    simplify,
    gather_products,
    channels_last,
    fold_padding,
    hoist_reshape,
    write_out_short_axes,
)
