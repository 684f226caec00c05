"""Pulling one output element: the whole of fusion.

Enters: values of a group and an index.  Leaves: expressions and Lets in a `Block`.  Never here: which nodes are
grouped, loop order.  Elementwise nodes become scalar expressions, movement nodes become index expressions, stored values become
loads.  Every node's result is rounded to its dtype where it is made, so fusing never changes a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Literal

import numpy as np

from graphc.dims import Dim, free, product
from graphc.dtypes import DType
from graphc.errors import IRError, line_text
from graphc.ir.graph import Node, Value
from graphc.ir.loops import (
    Call,
    Check,
    Const,
    Expr,
    For,
    Index,
    Let,
    Load,
    Param,
    Prefetch,
    Size,
    Stmt,
    Store,
    Transpose,
    Update,
    Var,
)
from graphc.ir.op import Element, Movement, Scalar
from graphc.schedule.partition import is_inline

Position = tuple[Size, ...]
BufferRole = Literal["in", "out", "inout"]


class Block:
    """Statements under construction.  Values named in an outer block are visible in the inner ones."""

    def __init__(self, names: Iterator[int], parent: Block | None = None) -> None:
        self.names, self.parent = names, parent
        self.statements: list[Stmt] = []
        self.memo: dict[tuple[Value, Position], Expr] = {}

    def inner(self) -> Block:
        return Block(self.names, self)

    def find(self, key: tuple[Value, Position]) -> Expr | None:
        """What was pulled for `key`, in this block or one around it."""
        block: Block | None = self
        while block is not None:
            found = block.memo.get(key)
            if found is not None:
                return found
            block = block.parent
        return None

    def let(self, expr: Expr) -> Const | Var:
        """Name an expression, unless it is a name or a literal already."""
        if isinstance(expr, Const | Var):
            return expr
        var = Var(f"t{next(self.names)}", expr.dtype)
        self.statements.append(Let(var.name, expr))
        return var

    def add(self, statement: Stmt) -> None:
        self.statements.append(statement)


def multiply_add(a: Expr, b: Expr, total: Expr) -> Expr:
    """One step of a sum of products: rounded once for floats."""
    if total.dtype.kind == "f":
        return Call("fma", (a, b, total), total.dtype)
    return Call("add", (total, Call("mul", (a, b), total.dtype)), total.dtype)


def cast(expr: Expr, dtype: DType) -> Expr:
    """`expr` as `dtype`; nothing where it is that already."""
    if expr.dtype is dtype:
        return expr
    if isinstance(expr, Const) and expr.dtype.kind == "f" and dtype.kind == "f" and expr.dtype.itemsize < dtype.itemsize:
        with np.errstate(all="ignore"):  # rounded as `full` rounds it
            rounded = np.asarray(expr.value, expr.dtype.compute.numpy).astype(expr.dtype.numpy)
        return Const(float(rounded), dtype)
    return Call("cast", (expr,), dtype)


def strides_of(shape: Position) -> Position:
    """Row-major strides in elements."""
    strides: list[Size] = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return tuple(strides)


def linear(index: Position, shape: Position) -> Size:
    """Row-major offset of `index`."""
    offset: Size = 0
    for i, stride in zip(index, strides_of(shape), strict=True):
        offset = offset + i * stride
    return offset


def delinear(offset: Size, shape: Position) -> Position:
    """The index whose row-major offset is `offset`."""
    if 0 in shape:
        return (0,) * len(shape)
    index: list[Size] = []
    for position, (size, stride) in enumerate(zip(shape, strides_of(shape), strict=True)):
        if isinstance(size, int) and size == 1:
            index.append(0)
        else:
            index.append(offset // stride if position == 0 else (offset // stride) % size)
    return tuple(index)


class Checks:
    """The run-time checks of a whole schedule: code -> message with the user's line."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def code(self, message: str, node: Node) -> int:
        """The code of a check made for `node`; its operands are shown where their sizes are known."""
        if not any(free(d) for value in node.inputs for d in value.shape):
            message += ": " + ", ".join(str(value.type) for value in node.inputs)
        message += line_text(node.location)
        return self.known(message)

    def line(self, node: Node | None) -> int:
        """The code under which the user's line of a host node is found."""
        return self.known("" if node is None else line_text(node.location))

    def known(self, message: str) -> int:
        """The code of `message`, which is kept once."""
        if message not in self.messages:
            self.messages.append(message)
        return self.messages.index(message) + 1


class Puller:
    """Pulls values into blocks for one kernel and collects the buffers it touches."""

    def __init__(self, checks: Checks, is_local: Callable[[Value], bool]) -> None:
        self.checks, self.is_local = checks, is_local
        self.names = count()
        self.buffers: dict[tuple[Value, BufferRole], str] = {}
        self.reload: dict[Value, Callable[[Position], Expr]] = {}

    # ---- buffers ---------------------------------------------------------------------------------------------------

    def buffer(self, value: Value, role: BufferRole) -> str:
        """The parameter name of a stored value read (``in``), written (``out``) or both (``inout``)."""
        return self.buffers.setdefault((value, role), f"b{len(self.buffers)}")

    def params(self) -> tuple[Param, ...]:
        """The buffer parameters, in the order in which they were first touched."""
        return tuple(Param(name, role, value.dtype, product(value.shape)) for (value, role), name in self.buffers.items())

    def offset(self, value: Value, index: Position) -> Size:
        return linear(index, value.shape)

    # ---- pulling ---------------------------------------------------------------------------------------------------

    def pull(self, value: Value, index: Position, block: Block) -> Expr:
        """The element of `value` at `index`, in its dtype."""
        key = (value, index)
        found = block.find(key)
        if found is None:
            found = self.make(value, index, block)
            block.memo[key] = found
        return found

    def make(self, value: Value, index: Position, block: Block) -> Expr:
        """`pull` of what the block does not hold yet: a load, a movement's operand, or the node's own expression."""
        if value in self.reload:
            return block.let(self.reload[value](index))
        node = value.node
        if node is None or not (self.is_local(value) or is_inline(node)):
            return block.let(Load(self.buffer(value, "in"), self.offset(value, index), value.dtype))
        lowering = node.lowering
        if isinstance(lowering, Movement):
            source = node.inputs[0]
            return self.pull(source, lowering.index(index, source.type, value.type, **node.attrs), block)
        if isinstance(lowering, Scalar):
            return self.scalar(node, index, block)
        if isinstance(lowering, Element):
            loader = Loader(self, node, block)
            result = lowering.rule(loader, index, tuple(v.type for v in node.inputs), value.type, **node.attrs)
            return block.let(cast(result, value.dtype))
        raise IRError(f"{node.op.name} at {index} was pulled before it was computed")

    def scalar(self, node: Node, index: Position, block: Block) -> Expr:
        """An elementwise node: operands broadcast and in their compute dtypes, the result rounded to its dtype."""
        lowering = node.lowering
        assert isinstance(lowering, Scalar)
        out = node.outputs[0]
        arguments = []
        for value in node.inputs:
            at = index[len(index) - len(value.shape) :]
            at = tuple(0 if isinstance(d, int) and d == 1 else i for i, d in zip(at, value.shape, strict=True))
            arguments.append(block.let(cast(self.pull(value, at, block), value.dtype.compute)))
        if isinstance(lowering.rule, str):
            result: Expr = Call(lowering.rule, tuple(arguments), out.dtype.compute)
        else:
            result = lowering.rule(*arguments, **node.attrs)
        failing = lowering.check(*arguments, **node.attrs) if lowering.check is not None else None
        if failing is not None:
            condition, message = failing
            block.add(Check(block.let(condition), self.checks.code(message, node)))
        return block.let(cast(result, out.dtype))


class Loader:
    """What an Element rule sees of its operands."""

    def __init__(self, puller: Puller, node: Node, block: Block) -> None:
        self.puller, self.node, self.block = puller, node, block

    def __call__(self, position: int, index: Position) -> Expr:
        return self.puller.pull(self.node.inputs[position], tuple(index), self.block)

    def let(self, expr: Expr) -> Any:
        return self.block.let(expr)

    def symbol(self, var: Expr) -> Size:
        """An integer value as part of an index."""
        if isinstance(var, Const):
            return int(var.value)
        named = self.block.let(var)
        assert isinstance(named, Var)
        return Dim.symbol(named.name)

    def check(self, condition: Expr, message: str) -> None:
        """Record a failure with `message` and the user's line where `condition` is false."""
        self.block.add(Check(condition, self.puller.checks.code(message, self.node)))


def free_symbols(statement: Stmt) -> set[str]:
    """Names used by the sizes and offsets in one statement (not in its body)."""
    match statement:
        case For(_, extent, _, _):
            return set(free(extent))
        case Let(_, value) | Update(_, value) | Check(value, _):
            return _free_in(value)
        case Store(_, offset, value):
            return set(free(offset)) | _free_in(value)
        case Transpose():
            sizes = (statement.target_at, statement.target_step, statement.source_at, statement.source_step)
            return set().union(*map(free, (*sizes, statement.rows, statement.columns)))
        case Prefetch(_, offset, _):
            return set(free(offset))
    return set()


def _free_in(expr: Expr) -> set[str]:
    match expr:
        case Load(_, offset, _):
            return set(free(offset))
        case Index(value, _):
            return set(free(value))
        case Call(_, arguments, _):
            return set().union(*(_free_in(a) for a in arguments))
    return set()
