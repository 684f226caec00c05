"""Each rule of the tensor IR, broken once."""

from __future__ import annotations

import pytest

from graph_cases import parse_graph
from graphc.dtypes import float32, float64
from graphc.errors import IRError
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Element, Op, TensorType
from graphc.ir.verify import verify

T = TensorType(float32, (2,))
NEG = Op.table["neg"]


def value(name: str, type: TensorType = T, role: str = "input") -> Value:
    return Value(type, None, name, role)  # type: ignore[arg-type]


def negated(x: Value, type: TensorType = T) -> Node:
    return Node(NEG, (x,), {}, [type], None)


X = value("x")
S = value("s", role="state")
Y = negated(X)
LATER = negated(Y.outputs[0])
WIDE = negated(value("w", TensorType(float64, (2,))), TensorType(float64, (2,)))


def test_a_graph_that_keeps_the_rules() -> None:
    verify(Graph("g", (X, S), (Y, LATER), LATER.outputs, ((S, Y.outputs[0]),)))
    verify(Graph("empty", (), (), ()))


BROKEN = {
    "an input stands twice": Graph("g", (X, X), (), (X,)),
    "is a node's result": Graph("g", (Y.outputs[0],), (), ()),
    "an operand is not defined before it": Graph("g", (X,), (LATER, Y), Y.outputs),
    "node 1 .neg.: it is defined twice": Graph("g", (X,), (Y, Y), Y.outputs),
    "returns a value that is not defined": Graph("g", (X,), (), Y.outputs),
    r"states f32\[3\], its rule gives f32\[2\]": Graph("g", (X,), (negated(X, TensorType(float32, (3,))),), ()),
    r"states f64\[2\], its rule gives f32\[2\]": Graph("g", (X,), (negated(X, TensorType(float64, (2,))),), ()),
    "expected 1 operands, got 2": Graph("g", (X,), (Node(NEG, (X, X), {}, [T], None),), ()),
    r"attributes \['alpha'\] are not its declaration's \[\]": Graph("g", (X,), (Node(NEG, (X,), {"alpha": 1}, [T], None),), ()),
    "updates a state twice": Graph("g", (X, S), (Y,), (), ((S, X), (S, Y.outputs[0]))),
    "updates <x: .* which is not a state input": Graph("g", (X, S), (), (), ((X, S),)),
    "updates <s: .* which is not a state input": Graph("g", (X,), (), (), ((S, X),)),
    "the update of s is not defined": Graph("g", (X, S), (), (), ((S, Y.outputs[0]),)),
    "the update of s has type f64": Graph("g", (*WIDE.inputs, S), (WIDE,), (), ((S, WIDE.outputs[0]),)),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_rule_is_found(message: str) -> None:
    with pytest.raises(IRError, match=message):
        verify(BROKEN[message])


def test_the_node_is_named() -> None:
    with pytest.raises(IRError, match=r"graph @step, node 1 \(reshape\): reshape: shape \[5\] is invalid"):
        parse_graph("""graph @step(%x: f32[2, 3]) {
          %0 = neg(%x) : f32[2, 3]
          %1 = reshape(%0, shape=(5,)) : f32[5]
          return %1
        }""")


def test_regions_are_verified_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Op, "table", dict(Op.table))
    call = Op(
        "call", doc="Test only.", signature="(x, body)", infer=lambda x, body: x, reference=lambda xp, x, body: x, grad=None,
        lowering=Element(lambda load, index, *_, **__: load(0, index)), attrs=("body",),
    )  # fmt: skip
    inner = value("inner")
    for body, message in (
        (Graph("body", (inner,), (Y,), Y.outputs), "operand"),
        (Graph("body", (inner,), (), (X,)), "returns"),
    ):
        node = Node(call, (X,), {"body": body}, [T], None)
        with pytest.raises(IRError, match=f"graph @body.*{message}"):
            verify(Graph("g", (X,), (node,), node.outputs))
    verify(Graph("g", (X,), (Node(call, (X,), {"body": Graph("body", (inner,), (), (inner,))}, [T], None),), (X,)))
