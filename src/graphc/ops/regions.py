"""Control flow as operators: `cond` and `while_loop`, whose attributes hold graphs.

Enters: types, arrays, tensors.  Leaves: declarations.  Never here: how traced code becomes graphs (`graphc.capture.regions`).

A region's graphs see nothing of the graph around them: what they read are operands of the region.  They write nothing, and their
sizes are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dtypes import bool_
from graphc.ir.graph import Graph
from graphc.ir.interp import interpret
from graphc.ir.op import THROUGH, Op, Region, TensorType


def _types(values: Sequence[Any]) -> tuple[TensorType, ...]:
    return tuple(v.type for v in values)


def _shown(types: Sequence[TensorType]) -> str:
    return f"({', '.join(map(str, types))})"


def _check_graph(name: str, which: str, graph: Any, operands: tuple[TensorType, ...]) -> None:
    """Raise where an attribute is no graph for `operands`."""
    if not isinstance(graph, Graph):
        raise RuntimeError(f"{name}: {which} must be a graph, got {type(graph).__name__}")
    if graph.updates or any(v.role != "input" for v in graph.inputs):
        raise RuntimeError(f"{name}: {which} has state, and a region writes nothing")
    if _types(graph.inputs) != operands:
        raise RuntimeError(f"{name}: {which} takes {_shown(_types(graph.inputs))}, and the operands are {_shown(operands)}")
    if any(type(size) is not int for t in (*operands, *_types(graph.outputs)) for size in t.shape):
        raise RuntimeError(f"{name}: sizes in a region must be numbers, got {_shown((*operands, *_types(graph.outputs)))}")


def _is_truth(type: TensorType) -> bool:
    return type.dtype is bool_ and type.shape == ()


def _infer_cond(pred: TensorType, *operands: TensorType, true_graph: Any, false_graph: Any) -> tuple[TensorType, ...]:
    if not _is_truth(pred):
        raise RuntimeError(f"cond: the predicate must be bool[], got {pred}")
    _check_graph("cond", "true_graph", true_graph, operands)
    _check_graph("cond", "false_graph", false_graph, operands)
    found, other = _types(true_graph.outputs), _types(false_graph.outputs)
    if found != other:
        raise RuntimeError(f"cond: true_graph gives {_shown(found)}, false_graph {_shown(other)}")
    if not found:
        raise RuntimeError("cond: its graphs give nothing")
    return found


def _infer_while(*operands: TensorType, cond_graph: Any, body_graph: Any) -> tuple[TensorType, ...]:
    _check_graph("while_loop", "cond_graph", cond_graph, operands)
    _check_graph("while_loop", "body_graph", body_graph, operands)
    condition, found = _types(cond_graph.outputs), _types(body_graph.outputs)
    if len(condition) != 1 or not _is_truth(condition[0]):
        raise RuntimeError(f"while_loop: cond_graph must give one bool[], it gives {_shown(condition)}")
    if not found or found != operands[: len(found)]:
        carried = operands[: len(found)]
        raise RuntimeError(f"while_loop: body_graph gives {_shown(found)}, and what is carried is {_shown(carried)}")
    return found


def replayed(graph: Graph, operands: Sequence[Any]) -> tuple[Any, ...]:
    """The results of a graph's operators, run one after the other by whoever runs operators now."""
    values = dict(zip(graph.inputs, operands, strict=True))
    for node in graph.nodes:
        outputs = node.op.run(*[values[v] for v in node.inputs], **node.attrs)
        values.update(zip(node.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
    return tuple(values[v] for v in graph.outputs)


Run = Callable[[Graph, Sequence[Any]], tuple[Any, ...]]


def _chosen(run: Run, pred: Any, operands: Sequence[Any], true_graph: Graph, false_graph: Graph) -> tuple[Any, ...]:
    return run(true_graph if bool(pred) else false_graph, operands)


def _repeated(run: Run, operands: Sequence[Any], cond_graph: Graph, body_graph: Graph) -> tuple[Any, ...]:
    count = len(body_graph.outputs)
    carried, captured = tuple(operands[:count]), tuple(operands[count:])
    while bool(run(cond_graph, (*carried, *captured))[0]):
        carried = run(body_graph, (*carried, *captured))
    return carried


def _interpreter(xp: Any) -> Run:
    return lambda graph, arrays: interpret(graph, arrays, xp)[0]


cond = Op(
    "cond",
    doc="The results of `true_graph` where a tensor of one bool is true, else those of `false_graph`; only that one runs.",
    signature="(pred, *operands, true_graph, false_graph)",
    infer=_infer_cond,
    reference=lambda xp, pred, *arrays, **graphs: _chosen(_interpreter(xp), pred, arrays, **graphs),
    grad=THROUGH,
    lowering=Region(lambda pred, *operands, **graphs: _chosen(replayed, pred, operands, **graphs)),
    attrs=("true_graph", "false_graph"),
    methods=(),
    functions=(),
)

while_loop = Op(
    "while_loop",
    doc="What `body_graph` makes of the first operands, over and over, while `cond_graph` is true of them; the others stay.",
    signature="(*operands, cond_graph, body_graph)",
    infer=_infer_while,
    reference=lambda xp, *arrays, **graphs: _repeated(_interpreter(xp), arrays, **graphs),
    grad=THROUGH,
    lowering=Region(lambda *operands, **graphs: _repeated(replayed, operands, **graphs)),
    attrs=("cond_graph", "body_graph"),
    methods=(),
    functions=(),
)
