"""Rows of a table times a matrix: the table is multiplied once, and rows of the product are gathered.

Enters: a simplified Graph.  Leaves: an equal Graph, in every bit: a row of a product does not depend on the rows beside it.
Never here: tables of as many rows as are gathered, where multiplying all of them saves nothing.

``embedding(letters) @ w`` over 96 letters and thousands of places, as in a recurrent layer over text, multiplies 96 rows.
"""

from __future__ import annotations

from typing import Any

from graphc.ir.graph import Builder, Graph, Node, Value, rewrite
from graphc.ir.op import Op, Size

LEAST_REUSE = 2  # rows gathered for each row of the table


def gather_products(graph: Graph) -> Graph:
    """``matmul(embedding(i, table), w)`` --> ``embedding(i, matmul(table, w))``; what moved rows moves indices."""
    return rewrite(graph, {"matmul": (_gathered_later,)})


def _gathered_later(builder: Builder, op: Op, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> tuple[Value, ...] | None:
    rows, matrix = inputs
    moves: list[Node] = []
    value = rows
    while value.node is not None and _keeps_rows(value.node):
        moves.append(value.node)
        value = value.node.inputs[0]
    gather = value.node
    if gather is None or gather.op.name != "embedding" or rows.dtype.kind == "c" or len(matrix.shape) != 2:
        return None
    places, table = gather.inputs
    if len(rows.shape) != 2 or not _pays(rows.shape[0], table.shape[0]):
        return None
    for move in reversed(moves):
        name, given = ("dims", move.attrs["dims"]) if move.op.name == "permute" else ("shape", move.attrs["shape"])
        (places,) = builder.emit(move.op, (places,), {name: given[:-1]})
    product = builder.emit(op, (table, matrix), attrs)
    here, builder.location = builder.location, gather.location
    found = builder.emit(gather.op, (places, *product), gather.attrs)
    builder.location = here
    return found


def _keeps_rows(node: Node) -> bool:
    """A movement of whole rows: the last dim stays where and what it is."""
    if node.op.name == "permute":
        return bool(node.attrs["dims"][-1] == len(node.attrs["dims"]) - 1)
    if node.op.name != "reshape":
        return False
    before, after = node.inputs[0].shape, node.outputs[0].shape
    return len(after) > 0 and before[-1:] == after[-1:] and before[-1] != 0


def _pays(rows: Size, table: Size) -> bool:
    return isinstance(rows, int) and isinstance(table, int) and rows >= LEAST_REUSE * table
