"""Which elementwise nodes are so cheap that making their elements again costs less than keeping them.

Enters: a node.  Leaves: yes or no.  Never here: where it would be made again.
"""

from __future__ import annotations

from graphc.ir.graph import Node
from graphc.ir.loops import FUNCTIONS, Call, Expr, Var
from graphc.ir.op import Scalar

_COSTLY = frozenset({"div", "sqrt", "idiv"})
MOST_CALLS = 4  # scalar functions in a node that is cheap


def is_cheap(node: Node) -> bool:
    """An elementwise node of few simple functions, without a run-time check."""
    lowering = node.lowering
    if not isinstance(lowering, Scalar) or lowering.check is not None:
        return False
    if isinstance(lowering.rule, str):
        return lowering.rule in FUNCTIONS and lowering.rule not in _COSTLY
    return _calls(lowering.rule(*(Var("x", v.dtype.compute) for v in node.inputs), **node.attrs)) <= MOST_CALLS


def _calls(expr: Expr) -> int:
    """How many simple functions an expression calls; many where one is costly."""
    if not isinstance(expr, Call):
        return 0
    own = 1 if expr.fn in FUNCTIONS and expr.fn not in _COSTLY else MOST_CALLS + 1
    return own + sum(map(_calls, expr.args))
