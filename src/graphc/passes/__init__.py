"""Graph -> Graph, one file a pass.  `PASSES` is the compiler's order."""

from collections.abc import Callable

from graphc.ir.graph import Graph
from graphc.passes.algebra import simplify
from graphc.passes.decompose import decompose
from graphc.passes.hoist_reshape import hoist_reshape
from graphc.passes.layout import channels_last
from graphc.passes.short_axes import write_out_short_axes

PASSES: tuple[Callable[[Graph], Graph], ...] = (decompose, simplify, channels_last, hoist_reshape, write_out_short_axes)
