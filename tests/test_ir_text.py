"""Graph text: printing and parsing undo each other, and damaged text is an IRError, never another exception."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph_cases import parse_graph, print_graph
from graphc import dtypes
from graphc.dims import Dim, bounds
from graphc.dtypes import bool_, float32, int64
from graphc.errors import IRError
from graphc.ir.graph import Builder, Graph, Node, Value, attribute_key
from graphc.ir.op import Element, Op, TensorType
from graphc.ir.text import literal

N = Dim.symbol("N")


@pytest.fixture
def carrier() -> Iterator[Op]:
    """An operator with one attribute of any kind."""
    op = Op(
        "carrier",
        doc="Test only.",
        signature="(x, payload)",
        infer=lambda x, payload: x,
        reference=lambda xp, x, payload: x,
        grad=None,
        lowering=Element(lambda load, index, *_, **__: load(0, index)),
        attrs=("payload",),
    )
    yield op
    del Op.table["carrier"]


def carrying(op: Op, payload: Any) -> Graph:
    x = Value(TensorType(float32, (2, N)), name="x")
    node = Node(op, (x,), {"payload": payload}, [x.type], ("model.py", 7))
    return Graph("g", (x,), (node,), node.outputs)


PAYLOADS: list[Any] = [
    None, True, False, 0, 1, -1, 2**63 - 1, -(2**63), 10**30,
    0.0, -0.0, 1.0, 0.1, 1e-300, 5e-324, -1.5e300, 1e16, 1e22, 123456789.123, math.inf, -math.inf, math.nan,
    1 + 2j, complex(-0.0, math.inf), complex(math.nan, -0.1),
    "", "relu", 'a "quoted" \\ back', "line\nbreak\ttab", "%x = @g # {}[]()`", "é→∞",
    (), (1,), (1, 2), ((1, 2), (), (-0.0, None)), (((("deep",),),),), (float32, "same", False),
    *dtypes.ALL,
    N, N + 1, 2 * N - 3, (N + 3) // 4 % 5, (N, 2, N * N),
]  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS, ids=repr)
def test_every_kind_of_attribute_returns(carrier: Op, payload: Any) -> None:
    graph = carrying(carrier, payload)
    text = print_graph(graph)
    parsed = parse_graph(text)
    assert attribute_key(parsed.nodes[0].attrs["payload"]) == attribute_key(payload)
    assert print_graph(parsed) == text
    assert len(text.splitlines()) == 4


@given(st.floats(allow_nan=True))
def test_floats_return_bit_for_bit(value: float) -> None:
    graph = parse_graph(f"graph @g() {{ %0 = full(value={literal(value)}, shape=(), dtype=f64) : f64[] return %0 }}")
    assert attribute_key(graph.nodes[0].attrs["value"]) == attribute_key(value)


@given(st.text())
def test_strings_return(value: str) -> None:
    parser_text = literal(value)
    assert "\n" not in parser_text
    from graphc.ir.text import _Parser

    assert _Parser(parser_text).literal() == value


def test_an_attribute_without_text_is_refused(carrier: Op) -> None:
    with pytest.raises(IRError, match="object has no text"):
        print_graph(carrying(carrier, object()))


def test_a_region_is_a_graph_between_braces(carrier: Op) -> None:
    graph = carrying(carrier, carrying(carrier, (1, -0.0)))
    text = print_graph(graph)
    assert print_graph(parse_graph(text)) == text
    assert parse_graph(text).nodes[0].attrs["payload"].nodes[0].attrs["payload"] == (1, -0.0)


TEXT = """\
graph @step(%x: f32[N, 4], state %layers.0.weight: f32[4], %flags: bool[], %s: i64[N*2 + 1, min(N, 3)]) where 1 <= N <= 64 {
  %0 = mul(%x, %layers.0.weight) : f32[N, 4]
  %1 = full(value=0.5, shape=(4,), dtype=f32) : f32[4]
  %2 = add(%layers.0.weight, %1) : f32[4]
  %3 = reshape(%0, shape=(`N*4`,)) : f32[N*4]
  return %3, %x, %flags, %s; update %layers.0.weight = %2
}"""


def test_states_updates_sizes_and_ranges_return() -> None:
    graph = parse_graph(TEXT)
    assert print_graph(graph) == TEXT
    assert [v.role for v in graph.inputs] == ["input", "state", "input", "input"]
    assert graph.updates == ((graph.inputs[1], graph.nodes[2].outputs[0]),)
    assert bounds(graph.inputs[0].shape[0]) == (1, 64)
    assert graph.nodes[3].attrs["shape"] == (4 * N,)


@pytest.mark.parametrize(
    "clause, low, high",
    [("where N <= 5 ", 0, 5), ("where 2 <= N ", 2, None), ("", 0, None), ("where 3 <= N <= 3 ", 3, 3)],
)
def test_a_fact_gives_its_symbol_a_range(clause: str, low: int, high: int | None) -> None:
    text = f"graph @g(%x: f32[N]) {clause}{{\n  return %x\n}}"
    graph = parse_graph(text)
    assert bounds(graph.inputs[0].shape[0]) == (low, high)
    assert print_graph(graph) == text


def test_names_that_the_grammar_lacks_are_replaced() -> None:
    inputs = tuple(Value(TensorType(bool_, ()), name=n) for n in ("x", "a b", "x", "", "0", "in4"))
    graph = Graph("<lambda>", inputs, (), inputs)
    text = print_graph(graph)
    names = "%x, %in1, %x_, %in3, %in4, %in4_"
    assert text == f"graph @_lambda_({names.replace(',', ': bool[],')}: bool[]) {{\n  return {names}\n}}"
    parsed = parse_graph(text)
    assert print_graph(parsed) == text


def test_locations_are_comments() -> None:
    builder = Builder()
    builder.location = ("/home/user/model.py", 41)
    x = Value(TensorType(float32, (2,)), name="x")
    (y,) = builder.emit(Op.table["neg"], (x,), {})
    text = print_graph(builder.graph("g", (x,), (y,)), locations=True)
    assert "  # model.py:41\n" in text
    assert "#" not in print_graph(parse_graph(text))


def test_comments_and_spaces_do_not_matter() -> None:
    loose = "# head\ngraph@g(%x:f32[2]){# body\n%7=neg(%x):f32[2]\n\n return %7}  # tail"
    assert print_graph(parse_graph(loose)) == "graph @g(%x: f32[2]) {\n  %0 = neg(%x) : f32[2]\n  return %0\n}"


# ---- damaged text -----------------------------------------------------------------------------------------------------

GOOD = "graph @g(%x: f32[2, N], state %s: i64[]) {{ {} return %x; update %s = %s }}"
DAMAGED = [
    ("", "the text ends"),
    ("graph", "the text ends"),
    ("graph @g(%x: f32[2]) { return %x", "the text ends"),
    ("graph @g(%x: f32[2]) { return %x } }", "line 1: text after the end"),
    ("graph @g(%x: f32[2) { return %x }", "cannot read"),
    ("graph @g(%x: q7[2]) {\n return %x }", "line 1: there is no dtype q7"),
    ("graph @g(%x: f32[2**3]) { return %x }", "not a size expression"),
    ("graph @g(%x: f32[__import__('os')]) { return %x }", "not a size expression"),
    ("graph @g(%x: f32[1 // 0]) { return %x }", "not a size expression"),
    ("graph @g(%x: f32[2], %x: f32[2]) { return %x }", "%x is defined twice"),
    ("graph @g(%x: f32[2] %y: f32[2]) { return %x }", "wanted"),
    ("graph @g(%x: f32[N]) where N { return %x, }", "wanted value"),
    ("graph @g(%x: f32[N]) where 1 <= { return %x }", "wanted word"),
    ("graph @g(%x: f32[N]) where 1.5 <= N { return %x }", "invalid literal"),
    ("graph @g(%x: f32[N]) where N <= 3 & { return %x }", "cannot read"),
    ("graph @g(%x: f32[2]) { return %y }", "%y is used before it is defined"),
    (GOOD.format("%0 = neg(%1) : f32[2, N]"), "%1 is used before"),
    (GOOD.format("%x = neg(%x) : f32[2, N]"), "%x is defined twice"),
    (GOOD.format("%0 = melt(%x) : f32[2, N]"), "there is no operator melt"),
    (GOOD.format("%0 = neg(%x) : f32[3, N]"), "states f32"),
    (GOOD.format("%0 = neg(%x) : f64[2, N]"), "states f64"),
    (GOOD.format("%0 = neg(%x, %x) : f32[2, N]"), "expected 1 operands"),
    (GOOD.format("%0, %1 = neg(%x) : f32[2, N]"), "2 names for 1 results"),
    (GOOD.format("%0 = reshape(%x) : f32[2, N]"), r"reshape has attributes \[\]"),
    (GOOD.format("%0 = reshape(%x, shape=(7,)) : f32[7]"), "reshape: shape"),
    (GOOD.format("%0 = reshape(%x, shape=(2, `N`), shape=(1,)) : f32[2, N]"), "given twice"),
    (GOOD.format("%0 = reshape(%x, shape=(2, `N +`)) : f32[2, N]"), "not a size expression"),
    (GOOD.format("%0 = reshape(%x, shape=(2, =)) : f32[2, N]"), "wanted"),
    (GOOD.format("%0 = full(value=1e, shape=(), dtype=f32) : f32[]"), "cannot read"),
    (GOOD.format("%0 = full(value=float(one), shape=(), dtype=f32) : f32[]"), "wanted nan"),
    (GOOD.format('%0 = full(value="\\q", shape=(), dtype=f32) : f32[]'), "escape"),
    (GOOD.format("%0 = full(value=None, shape=(), dtype=f32) : f32[]"), "there is no dtype None"),
    (GOOD.format(f"%0 = full(value={'9' * 5000}, shape=(), dtype=f32) : f32[]"), "integer string"),
    (GOOD.format(f"%0 = full(value={'(' * 50000}, shape=(), dtype=f32) : f32[]"), "recursion"),
    ("graph @g(%x: f32[2], state %s: f32[3]) { return %x; update %s = %x }", "has type"),
    ("graph @g(%x: f32[2], %s: f32[2]) { return %x; update %s = %x }", "not a state input"),
    ("graph @g(%x: f32[2]) { return %x; update %s = %x }", "used before"),
]


def test_the_text_that_is_damaged_below_is_good() -> None:
    parse_graph(GOOD.format("%0 = neg(%x) : f32[2, N]"))


@pytest.mark.parametrize("text, message", DAMAGED, ids=[m for _, m in DAMAGED])
def test_damaged_text_is_an_ir_error(text: str, message: str) -> None:
    with pytest.raises(IRError, match=message):
        parse_graph(text)


def test_every_truncation_is_an_ir_error() -> None:
    for length in range(len(TEXT) - 1):
        with pytest.raises(IRError):
            parse_graph(TEXT[:length])


@given(st.integers(0, len(TEXT) - 1), st.sampled_from('%@{}()[],:=;<# \n"`0N-.x'))
def test_a_changed_character_is_an_ir_error_or_a_whole_graph(at: int, character: str) -> None:
    text = TEXT[:at] + character + TEXT[at + 1 :]
    try:
        graph = parse_graph(text)
    except IRError:
        return
    assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)


def test_int64_is_a_dtype_attribute() -> None:
    assert literal(int64) == "i64"
