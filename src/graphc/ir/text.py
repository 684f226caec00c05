"""The text of tensor graphs, both ways: what is printed parses back to an equal graph.

Enters: a `Graph`, or text.  Leaves: text, or a verified `Graph`.  Never here: execution; guessing at damaged text.
"""

from __future__ import annotations

import os
import re
from typing import Any

from graphc import dims, dtypes
from graphc.dims import Dim
from graphc.dtypes import DType
from graphc.errors import IRError
from graphc.ir.graph import Graph, Location, Node, Value
from graphc.ir.op import Op, TensorType


def print_graph(graph: Graph, *, locations: bool = False) -> str:
    """The graph as text; `locations` adds the user's file and line as comments."""
    names: dict[Value, str] = {}
    for i, value in enumerate(graph.inputs):
        names[value] = f"%{value.name or f'in{i}'}"
    if len(set(names.values())) != len(names):
        names = {v: f"%in{i}" for i, v in enumerate(graph.inputs)}
    parameters = ", ".join(f"{'state ' if v.role == 'state' else ''}{names[v]}: {v.type}" for v in graph.inputs)
    lines = [f"graph @{graph.name}({parameters}) {{"]
    count = 0
    for node in graph.nodes:
        for value in node.outputs:
            names[value] = f"%{count}"
            count += 1
        arguments = [names[v] for v in node.inputs] + [f"{a}={literal(node.attrs[a])}" for a in node.op.attrs]
        left = ", ".join(names[v] for v in node.outputs)
        types = ", ".join(str(v.type) for v in node.outputs)
        where = f"  # {os.path.basename(node.location[0])}:{node.location[1]}" if locations and node.location else ""
        lines.append(f"  {left} = {node.op.name}({', '.join(arguments)}) : {types}{where}")
    tail = "  return " + ", ".join(names[v] for v in graph.outputs)
    for state, new in graph.updates:
        tail += f"; update {names[state]} = {names[new]}"
    return "\n".join([*lines, tail, "}"])


def literal(value: Any) -> str:
    """One attribute value as text."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if value == value and abs(value) != float("inf") else f"float({value!r})"
    if isinstance(value, DType):
        return value.short
    if isinstance(value, Dim):
        return f"`{value}`"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(literal, value)) + ("," if len(value) == 1 else "") + ")"
    raise IRError(f"an attribute of type {type(value).__name__} has no text")


_TOKEN = re.compile(
    r"""\s*(?:\#[^\n]*\n\s*)*(?:
        (?P<value>%[A-Za-z_0-9.]+) | (?P<global>@[A-Za-z_0-9.]+) | (?P<string>"(?:[^"\\]|\\.)*") | (?P<dim>`[^`]*`)
      | (?P<number>-?(?:\d+\.\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+|\d+))(?![A-Za-z_]) | (?P<word>[A-Za-z_]\w*) | (?P<mark>[(){}\[\],:=;])
    )""",
    re.X,
)


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        self.text = text
        at, end = 0, len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise IRError(f"line {text.count(chr(10), 0, at) + 1}: cannot read {text[at : at + 20]!r}")
            self.tokens.append((match.lastgroup, match.group(match.lastgroup)))
            at = match.end()
        self.position = 0
        self.values: dict[str, Value] = {}

    def peek(self) -> str:
        return self.tokens[self.position][1] if self.position < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        if self.position >= len(self.tokens):
            raise IRError("the text ends in the middle of a graph")
        kind, token = self.tokens[self.position]
        if wanted and token not in wanted and kind not in wanted:
            raise IRError(f"wanted {' or '.join(wanted)}, found {token!r}")
        self.position += 1
        return token

    def graph(self) -> Graph:
        self.take("graph")
        name = self.take("global")[1:]
        inputs = self.inputs()
        self.take("{")
        nodes: list[Node] = []
        while self.peek() != "return":
            nodes.append(self.node())
        self.take("return")
        outputs: list[Value] = []
        while self.peek().startswith("%"):
            outputs.append(self.value())
            if self.peek() == ",":
                self.take()
        updates: list[tuple[Value, Value]] = []
        while self.peek() == ";":
            self.take()
            self.take("update")
            state = self.value()
            self.take("=")
            updates.append((state, self.value()))
        self.take("}")
        if self.position != len(self.tokens):
            raise IRError(f"text after the end of the graph: {self.peek()!r}")
        return Graph(name, tuple(inputs), tuple(nodes), tuple(outputs), tuple(updates))

    def inputs(self) -> list[Value]:
        inputs: list[Value] = []
        self.take("(")
        while self.peek() != ")":
            role = "state" if self.peek() == "state" else "input"
            if role == "state":
                self.take()
            name = self.take("value")
            self.take(":")
            value = Value(self.type(), None, name[1:], role)  # type: ignore[arg-type]
            self.define(name, value)
            inputs.append(value)
            if self.peek() == ",":
                self.take()
        self.take(")")
        return inputs

    def define(self, name: str, value: Value) -> None:
        if name in self.values:
            raise IRError(f"{name} is defined twice")
        self.values[name] = value

    def value(self) -> Value:
        name = self.take("value")
        if name not in self.values:
            raise IRError(f"{name} is used before it is defined")
        return self.values[name]

    def node(self) -> Node:
        names = [self.take("value")]
        while self.peek() == ",":
            self.take()
            names.append(self.take("value"))
        self.take("=")
        op_name = self.take("word")
        op = Op.table.get(op_name)
        if op is None:
            raise IRError(f"there is no operator {op_name}")
        inputs: list[Value] = []
        attrs: dict[str, Any] = {}
        self.take("(")
        while self.peek() != ")":
            if self.peek().startswith("%"):
                inputs.append(self.value())
            else:
                attribute = self.take("word")
                self.take("=")
                attrs[attribute] = self.literal()
            if self.peek() == ",":
                self.take()
        self.take(")")
        if set(attrs) != set(op.attrs):
            raise IRError(f"{op_name} has attributes {sorted(attrs)}, its declaration has {sorted(op.attrs)}")
        self.take(":")
        types = [self.type()]
        while self.peek() == ",":
            self.take()
            types.append(self.type())
        location: Location | None = None
        node = Node(op, tuple(inputs), attrs, types, location)
        if len(names) != len(types):
            raise IRError(f"{op_name}: {len(names)} names for {len(types)} results")
        for name, output in zip(names, node.outputs, strict=True):
            self.define(name, output)
        return node

    def type(self) -> TensorType:
        short = self.take("word")
        try:
            dtype = dtypes.by_short(short)
        except KeyError:
            raise IRError(f"there is no dtype {short}") from None
        self.take("[")
        parts, part, depth = [], "", 0
        while not (self.peek() == "]" and depth == 0):
            token = self.take()
            depth += (token == "(") - (token == ")")
            if token == "," and depth == 0:
                parts.append(part)
                part = ""
            else:
                part += f" {token}"
        self.take("]")
        return TensorType(dtype, tuple(dims.parse(p.strip()) for p in [*parts, part] if p.strip()))

    def literal(self) -> Any:
        kind, _ = self.tokens[self.position] if self.position < len(self.tokens) else ("", "")
        token = self.take()
        if token == "(":
            items = []
            while self.peek() != ")":
                items.append(self.literal())
                if self.peek() == ",":
                    self.take()
            self.take(")")
            return tuple(items)
        if kind == "string":
            return re.sub(r"\\(.)", r"\1", token[1:-1])
        if kind == "dim":
            return dims.parse(token[1:-1])
        if kind == "number":
            return int(token) if re.fullmatch(r"-?\d+", token) else float(token)
        if token in ("true", "false", "none"):
            return {"true": True, "false": False, "none": None}[token]
        if token == "float":
            self.take("(")
            text = self.take()
            if text == "-":
                text += self.take()
            self.take(")")
            return float(text)
        try:
            return dtypes.by_short(token)
        except KeyError:
            raise IRError(f"cannot read the attribute {token!r}") from None


def parse_graph(text: str) -> Graph:
    """The graph that `text` states, verified.  Raises IRError."""
    from graphc.ir.verify import verify

    graph = _Parser(text).graph()
    verify(graph)
    return graph
