"""The text of tensor graphs, both ways: what is printed parses back to an equal graph.

Enters: a `Graph`, or text.  Leaves: text, or a verified `Graph`.  Never here: execution; guessing at damaged text.

    graph @step(%x: f32[N, 784], state %w: f32[784, 10]) where 1 <= N <= 4096 {
      %0 = matmul(%x, %w) : f32[N, 10]  # model.py:41
      return %0; update %w = %w
    }

Names are kept where the grammar allows them.  Floats are written so that every bit returns; a size among attributes
stands between backquotes, a region is a graph between braces.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graphc import dims, dtypes
from graphc.dims import Dim, Size
from graphc.dtypes import DType
from graphc.errors import IRError
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op, TensorType

# ---- printing -------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9.]*")
_INTS = frozenset((int,))


def print_graph(graph: Graph, *, locations: bool = False) -> str:
    """The graph as text; `locations` adds the user's file and line as comments."""
    names = _input_names(graph.inputs)
    parameters = ", ".join(f"{'state ' if v.role == 'state' else ''}{names[v]}: {v.type}" for v in graph.inputs)
    facts = ", ".join(_facts((*graph.inputs, *(v for node in graph.nodes for v in node.outputs))))
    where = f" where {facts}" if facts else ""
    lines = [f"graph @{re.sub(r'[^A-Za-z_0-9.]', '_', graph.name) or '_'}({parameters}){where} {{"]
    count = 0
    for node in graph.nodes:
        for value in node.outputs:
            names[value] = f"%{count}"
            count += 1
        lines.append("  " + _node_text(node, names, locations))
    tail = " ".join(("  return", ", ".join(names[v] for v in graph.outputs))).rstrip()
    for state, new in graph.updates:
        tail += f"; update {names[state]} = {names[new]}"
    return "\n".join([*lines, tail, "}"])


def _input_names(inputs: tuple[Value, ...]) -> dict[Value, str]:
    names: dict[Value, str] = {}
    taken: set[str] = set()
    for i, value in enumerate(inputs):
        name = f"%{value.name}" if _NAME.fullmatch(value.name) else f"%in{i}"
        while name in taken:
            name += "_"
        names[value] = name
        taken.add(name)
    return names


def _node_text(node: Node, names: dict[Value, str], locations: bool) -> str:
    arguments = [names[v] for v in node.inputs] + [f"{a}={literal(node.attrs[a])}" for a in node.op.attrs]
    left = ", ".join(names[v] for v in node.outputs)
    types = ", ".join(str(v.type) for v in node.outputs)
    where = f"  # {os.path.basename(node.location[0])}:{node.location[1]}" if locations and node.location else ""
    return f"{left} = {node.op.name}({', '.join(arguments)}) : {types}{where}"


def _facts(values: Iterable[Value]) -> list[str]:
    """``1 <= N <= 64`` for every symbol whose range is not the one that text gives it anyway."""
    found = {str(a): a for v in values for size in v.type.shape if type(size) is not int for a in _symbols(size)}
    facts = []
    for name, atom in sorted(found.items()):
        low = f"{atom.low} <= " if atom.low else ""
        high = f" <= {atom.high}" if atom.high is not None else ""
        if low or high:
            facts.append(f"{low}{name}{high}")
    return facts


def _symbols(size: Size) -> Iterator[dims.Atom]:
    if isinstance(size, Dim):
        for monomial in size.terms:
            for atom in monomial:
                if atom.kind == "symbol":
                    yield atom
                else:
                    for argument in atom.args:
                        yield from _symbols(argument)


def literal(value: Any) -> str:
    """One attribute value as text.  Raises IRError for a value that has none."""
    if type(value) is tuple and _INTS.issuperset(map(type, value)):
        return repr(value)
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        text = float.__repr__(value)
        return text if math.isfinite(value) else f"float({text})"
    if isinstance(value, complex):
        return f"complex({literal(value.real)}, {literal(value.imag)})"
    if isinstance(value, DType):
        return value.short
    if isinstance(value, Dim):
        return f"`{value}`"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(literal, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, Graph):
        return "{" + print_graph(value).replace("\n", "\n    ") + "}"
    raise IRError(f"an attribute of type {type(value).__name__} has no text")


def print_attributes(op: Op, attrs: Mapping[str, Any]) -> str:
    """``(dim=1, keepdim=true)``, which `parse_attributes` reads."""
    return "(" + ", ".join(f"{name}={literal(attrs[name])}" for name in op.attrs) + ")"


# ---- parsing --------------------------------------------------------------------------------------------------------

_SPACE = re.compile(r"(?:\s+|\#[^\n]*)*")
_TOKEN = re.compile(
    r"""
        (?P<value>%[A-Za-z_0-9.]+) | (?P<global>@[A-Za-z_0-9.]+) | (?P<string>"(?:[^"\\\n]|\\.)*") | (?P<dim>`[^`]*`)
      | (?P<shape>\[[^\[\]]*\]) | (?P<number>-?\d+(?:\.\d*)?(?:e[+-]?\d+)?)(?![A-Za-z_0-9.]) | (?P<word>-?[A-Za-z_]\w*)
      | (?P<mark><=|[(){},:=;])
    """,
    re.X,
)


def parse_graph(text: str) -> Graph:
    """The graph that `text` states, verified.  Raises IRError."""
    from graphc.ir.verify import verify

    parser = _Parser(text)
    try:
        graph = parser.graph()
        parser.end()
    except (ValueError, OverflowError, RecursionError) as error:
        raise IRError(f"{parser.line()}: {error}") from error
    verify(graph)
    return graph


def parse_attributes(text: str) -> dict[str, Any]:
    """The attributes that `print_attributes` wrote; sizes are over symbols of unknown range.  Raises IRError."""
    parser = _Parser(text)
    try:
        _, attrs = parser.arguments()
        parser.end()
    except (ValueError, OverflowError, RecursionError) as error:
        raise IRError(f"{parser.line()}: {error}") from error
    return attrs


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0
        self.tokens = list(self._tokens())
        self.values: dict[str, Value] = {}
        self.symbols: dict[str, Size] = {}

    def _tokens(self) -> Iterator[tuple[str, str, int]]:
        at = 0
        while (at := _matched(_SPACE, self.text, at).end()) < len(self.text):
            match = _TOKEN.match(self.text, at)
            if match is None or match.lastgroup is None:
                line = self.text.count("\n", 0, at) + 1
                raise IRError(f"line {line}: cannot read {self.text[at : at + 20]!r}")
            yield match.lastgroup, match.group(), at
            at = match.end()

    # ---- tokens

    def peek(self) -> str:
        return self.tokens[self.position][1] if self.position < len(self.tokens) else ""

    def kind(self) -> str:
        return self.tokens[self.position][0] if self.position < len(self.tokens) else ""

    def line(self) -> str:
        """Where the parser is, for messages."""
        at = self.tokens[self.position][2] if self.position < len(self.tokens) else len(self.text)
        return f"line {self.text.count(chr(10), 0, at) + 1}"

    def error(self, message: str) -> IRError:
        return IRError(f"{self.line()}: {message}")

    def take(self, *wanted: str) -> str:
        """The next token, which must be one of the texts or kinds `wanted`, where any are given."""
        if self.position >= len(self.tokens):
            raise IRError("the text ends in the middle of a graph")
        kind, token, _ = self.tokens[self.position]
        if wanted and token not in wanted and kind not in wanted:
            raise self.error(f"wanted {' or '.join(wanted)}, found {token!r}")
        self.position += 1
        return token

    def accept(self, token: str) -> bool:
        """Take `token` if it comes next."""
        found = self.peek() == token
        self.position += found
        return found

    def separated(self, closing: str) -> Iterator[None]:
        """Once for each item of a list with commas, up to `closing`."""
        while not self.accept(closing):
            yield
            if not self.accept(","):
                self.take(closing)
                return

    def end(self) -> None:
        if self.position != len(self.tokens):
            raise self.error(f"text after the end of the graph: {self.peek()!r}")

    # ---- graphs

    def graph(self) -> Graph:
        self.take("graph")
        name = self.take("global")[1:]
        outer_values, outer_symbols = self.values, self.symbols
        self.values, self.symbols = {}, dict(self._facts())
        inputs = self.inputs()
        while self.peek() != "{":
            self.take()  # the facts, read already
        self.take("{")
        nodes: list[Node] = []
        while not self.accept("return"):
            nodes.append(self.node())
        outputs = self.outputs()
        updates: list[tuple[Value, Value]] = []
        while self.accept(";"):
            self.take("update")
            state = self.value()
            self.take("=")
            updates.append((state, self.value()))
        self.take("}")
        self.values, self.symbols = outer_values, outer_symbols
        return Graph(name, tuple(inputs), tuple(nodes), tuple(outputs), tuple(updates))

    def _facts(self) -> Iterable[tuple[str, Size]]:
        """The symbols of the ``where`` clause, which stands behind the types that use them."""
        start = self.position
        while self.peek() not in ("where", "{", ""):
            self.position += 1
        facts = []
        if self.accept("where"):
            while self.peek() != "{":
                facts.append(self._fact())
                if not self.accept(","):
                    break
            if self.peek() != "{":
                raise self.error(f"wanted {{, found {self.peek()!r}")
        self.position = start
        return facts

    def _fact(self) -> tuple[str, Size]:
        low = 0
        if self.kind() == "number":
            low = int(self.take())
            self.take("<=")
        name = self.take("word")
        high = int(self.take("number")) if self.accept("<=") else None
        return name, Dim.symbol(name, low, high)

    def inputs(self) -> list[Value]:
        inputs: list[Value] = []
        self.take("(")
        for _ in self.separated(")"):
            is_state = self.accept("state")
            name = self.take("value")
            self.take(":")
            value = Value(self.type(), None, name[1:], "state" if is_state else "input")
            self.define(name, value)
            inputs.append(value)
        return inputs

    def outputs(self) -> list[Value]:
        outputs: list[Value] = []
        if self.kind() == "value":
            outputs.append(self.value())
            while self.accept(","):
                outputs.append(self.value())
        return outputs

    def define(self, name: str, value: Value) -> None:
        if name in self.values:
            raise self.error(f"{name} is defined twice")
        self.values[name] = value

    def value(self) -> Value:
        name = self.take("value")
        if name not in self.values:
            raise self.error(f"{name} is used before it is defined")
        return self.values[name]

    def node(self) -> Node:
        names = [self.take("value")]
        while self.accept(","):
            names.append(self.take("value"))
        self.take("=")
        op_name = self.take("word")
        op = Op.table.find(op_name)
        if op is None:
            raise self.error(f"there is no operator {op_name}")
        inputs, attrs = self.arguments()
        if set(attrs) != set(op.attrs):
            raise self.error(f"{op_name} has attributes {sorted(attrs)}, its declaration has {sorted(op.attrs)}")
        self.take(":")
        types = [self.type()]
        while self.accept(","):
            types.append(self.type())
        if len(names) != len(types):
            raise self.error(f"{op_name}: {len(names)} names for {len(types)} results")
        node = Node(op, tuple(inputs), {name: attrs[name] for name in op.attrs}, types, None)
        for name, output in zip(names, node.outputs, strict=True):
            self.define(name, output)
        return node

    def arguments(self) -> tuple[list[Value], dict[str, Any]]:
        inputs: list[Value] = []
        attrs: dict[str, Any] = {}
        self.take("(")
        for _ in self.separated(")"):
            if self.kind() == "value":
                inputs.append(self.value())
                continue
            attribute = self.take("word")
            if attribute in attrs:
                raise self.error(f"attribute {attribute} is given twice")
            self.take("=")
            attrs[attribute] = self.literal()
        return inputs, attrs

    # ---- types and attributes

    def type(self) -> TensorType:
        dtype = self.dtype(self.take("word"))
        parts = _split_at_commas(self.take("shape")[1:-1])
        return TensorType(dtype, tuple(dims.parse(part, self.symbols) for part in parts))

    def dtype(self, short: str) -> DType:
        try:
            return dtypes.by_short(short)
        except KeyError:
            raise self.error(f"there is no dtype {short}") from None

    def literal(self) -> Any:
        kind = self.kind()
        if self.peek() == "{":
            self.take()
            region = self.graph()
            self.take("}")
            return region
        token = self.take("(", "string", "dim", "number", "word")
        if token == "(":
            return tuple(self.literal() for _ in self.separated(")"))
        if kind == "string":
            return json.loads(token)
        if kind == "dim":
            return dims.parse(token[1:-1], self.symbols)
        if kind == "number":
            return int(token) if re.fullmatch(r"-?\d+", token) else float(token)
        if token in ("true", "false", "none"):
            return {"true": True, "false": False, "none": None}[token]
        if token == "float":
            self.take("(")
            number = float(self.take("nan", "inf", "-inf"))
            self.take(")")
            return number
        if token == "complex":
            real, imag = self.literal()
            return complex(real, imag)
        return self.dtype(token)


def _matched(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    match = pattern.match(text, at)
    assert match is not None
    return match


def _split_at_commas(text: str) -> list[str]:
    """The parts of ``N, min(N, 4)``: commas between parentheses do not separate."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]] if text.strip() else []
