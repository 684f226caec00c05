"""Graph -> Graph, one file a pass.  `PASSES` is the compiler's order."""

from collections.abc import Callable

from graphc.ir.graph import Graph
from graphc.passes.decompose import decompose

PASSES: tuple[Callable[[Graph], Graph], ...] = (decompose,)
