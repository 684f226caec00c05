"""Graph -> Graph, one file a pass.  `PASSES` is the compiler's order."""

from collections.abc import Callable

from graphc.ir.graph import Graph
from graphc.passes.algebra import simplify
from graphc.passes.decompose import decompose
from graphc.passes.hoist_reshape import hoist_reshape

PASSES: tuple[Callable[[Graph], Graph], ...] = (decompose, simplify, hoist_reshape)
