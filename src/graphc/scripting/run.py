"""Runs a script: Python's meaning of each node, for the nodes that `language` lets through.

Enters: a `Code` and values.  Leaves: its result.  Never here: Python's own `exec` and `eval`; an attribute that `public` withholds.

Operators run on whatever runs operators now, so a script is traced and compiled like any other code.  While it is traced, what
depends on a tensor's element becomes a region where it can (`scripting.regions`), and is compiled path by path where not.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

from graphc.eager.tensor import Tensor
from graphc.errors import ScriptError, TraceError
from graphc.scripting import numbers
from graphc.scripting.flow import Broken, Continued, Flow, Returned
from graphc.scripting.language import Code
from graphc.scripting.public import BUILTINS, attribute
from graphc.scripting.regions import Lost, NoRegion, asked, tracer

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.MatMult: operator.matmul,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}  # fmt: skip
IN_PLACE: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.iadd, ast.Sub: operator.isub, ast.Mult: operator.imul, ast.Div: operator.itruediv,
    ast.FloorDiv: operator.ifloordiv, ast.Mod: operator.imod, ast.Pow: operator.ipow, ast.MatMult: operator.imatmul,
    ast.BitAnd: operator.iand, ast.BitOr: operator.ior, ast.BitXor: operator.ixor, ast.LShift: operator.ilshift,
    ast.RShift: operator.irshift,
}  # fmt: skip
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_, ast.Invert: operator.invert,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
POWER_LIMIT = 4096  # bits: a whole number raised beyond this is a mistake or an attack


def call(code: Code, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run a function.  Raises what its operators raise, with its line; ScriptError for names and attributes it may not use."""
    return Frame(code, _bound(code, args, kwargs)).result(code.definition.body)


def _bound(code: Code, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The parameters' values.  Raises TypeError as Python does."""
    if len(args) > len(code.parameters):
        raise TypeError(f"{code.name}() takes {len(code.parameters)} positional arguments but {len(args)} were given")
    values = {**dict(zip(code.parameters, args, strict=False))}
    for name, value in kwargs.items():
        if name in values or name not in (*code.parameters, *code.keywords):
            raise TypeError(f"{code.name}() got an unexpected argument '{name}'")
        values[name] = value
    for name in (*code.parameters, *code.keywords):
        if name not in values:
            if name not in code.defaults:
                raise TypeError(f"{code.name}() missing required argument: '{name}'")
            values[name] = code.defaults[name]
    return values


class Frame(Flow):
    """One call: local names over the names that the code was given."""

    # ---- statements

    def block(self, statements: Sequence[ast.stmt], ends: bool = False) -> None:
        """Run statements in order.   ends: they are the last of the function."""
        for i, statement in enumerate(statements):
            try:
                if ends and isinstance(statement, ast.If):
                    self.branch(statement, statements[i + 1 :])
                else:
                    getattr(self, f"_do_{type(statement).__name__}")(statement)
            except (Returned, Broken, Continued, TraceError, ScriptError, NoRegion):
                raise
            except Exception as error:
                if not getattr(error, "_scripted", False) and error.args and isinstance(error.args[0], str):
                    error.args = (f"{error.args[0]}\n{self.code.place(statement)}", *error.args[1:])
                    error._scripted = True  # type: ignore[attr-defined]
                raise

    def _do_Expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def _do_Pass(self, node: ast.Pass) -> None:
        pass

    def _do_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self.assign(target, value)

    def _do_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.value(node.value))

    def _do_AugAssign(self, node: ast.AugAssign) -> None:
        old = self.value(ast.copy_location(_loading(node.target), node.target))
        self.assign(node.target, _combined(node.op, old, self.value(node.value), IN_PLACE[type(node.op)]))

    def _do_Break(self, node: ast.Break) -> None:
        raise Broken

    def _do_Continue(self, node: ast.Continue) -> None:
        raise Continued

    def _do_Return(self, node: ast.Return) -> None:
        raise Returned(None if node.value is None else self.value(node.value))

    def _do_Assert(self, node: ast.Assert) -> None:
        if not numbers.plain(self.test(node.test)):
            raise AssertionError("assertion failed" if node.msg is None else self.value(node.msg))

    def _do_Raise(self, node: ast.Raise) -> None:
        error = self.value(node.exc) if node.exc is not None else RuntimeError("raise")
        raise error if isinstance(error, Exception) else error()

    def _do_With(self, node: ast.With) -> None:
        if not node.items:
            return self.block(node.body)
        first, rest = node.items[0], ast.copy_location(ast.With(items=node.items[1:], body=node.body), node)
        with self.value(first.context_expr) as entered:
            if first.optional_vars is not None:
                self.assign(first.optional_vars, entered)
            self._do_With(rest)

    def assign(self, target: ast.AST, value: Any) -> None:
        """Bind a name, an element, an attribute of a module, or several at once."""
        if isinstance(target, ast.Name):
            self.values[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target.elts, list(value))
        elif isinstance(target, ast.Subscript):
            self.value(target.value)[numbers.index(self.value(target.slice))] = numbers.plain(value)
        elif isinstance(target, ast.Attribute):
            owner = self.value(target.value)
            attribute(owner, target.attr)  # it must be there, and public
            setattr(owner, target.attr, numbers.plain(value))
        else:
            raise self.code.refusal(target, "this target of an assignment")

    def _unpack(self, targets: list[ast.expr], values: list[Any]) -> None:
        starred = [i for i, t in enumerate(targets) if isinstance(t, ast.Starred)]
        if starred:
            at, after = starred[0], len(targets) - starred[0] - 1
            middle = values[at : len(values) - after]
            values = [*values[:at], middle, *values[len(values) - after :]]
        if len(values) != len(targets):
            raise ValueError(f"expected {len(targets)} values, got {len(values)}")
        for target, value in zip(targets, values, strict=True):
            self.assign(target.value if isinstance(target, ast.Starred) else target, value)

    # ---- expressions

    def value(self, node: ast.AST) -> Any:
        """What an expression gives."""
        return getattr(self, f"_of_{type(node).__name__}")(node)

    def _of_Constant(self, node: ast.Constant) -> Any:
        return node.value

    def _of_Name(self, node: ast.Name) -> Any:
        name = node.id
        for place in (self.values, self.code.names, BUILTINS):
            if name in place:
                found = place[name]
                if type(found) is Lost:
                    raise found.refuse()
                return found
        raise ScriptError(f"{self.code.name}: name '{name}' is not one that the script has\n{self.code.place(node)}")

    def _of_Attribute(self, node: ast.Attribute) -> Any:
        try:
            return attribute(self.value(node.value), node.attr)
        except AttributeError as error:
            raise ScriptError(f"{self.code.name}: {error}\n{self.code.place(node)}") from None

    def _of_Call(self, node: ast.Call) -> Any:
        function = self.value(node.func)
        args: list[Any] = []
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                args.extend(self.value(argument.value))
            else:
                args.append(self.value(argument))
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                kwargs.update(self.value(keyword.value))
            else:
                kwargs[keyword.arg] = self.value(keyword.value)
        return self._called(function, args, kwargs)

    def _called(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """A call; of a script with the numbers that tensors hold, of anything else with plain ones."""
        if tracer() is not None:
            script = getattr(function, "script", None)
            if script is not None:
                return call(script[0], (*script[1:], *args), kwargs)
            number = _converted(function, args) if not kwargs else None
            if number is not None:
                return number
        return function(*numbers.plain(args), **numbers.plain(kwargs))

    def _of_BinOp(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Pow) and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * right > POWER_LIMIT:
                raise OverflowError(f"{left} ** {right} is too large")
        return _combined(node.op, left, right, BINARY[type(node.op)])

    def _of_UnaryOp(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, ast.Not):
            inner = self.test(node.operand)
            pred = asked(inner)
            return operator.not_(inner) if pred is None else numbers.inverse(pred)
        value = self.value(node.operand)
        if numbers.is_number(value):
            return numbers.negated(value) if isinstance(node.op, ast.USub) else UNARY[type(node.op)](value.plain())
        return UNARY[type(node.op)](value)

    def _of_BoolOp(self, node: ast.BoolOp) -> Any:
        wanted = isinstance(node.op, ast.Or)
        result: Any = None
        for part in node.values:
            result = self.value(part)
            if bool(numbers.plain(result)) is wanted:
                return result
        return result

    def _of_Compare(self, node: ast.Compare) -> Any:
        left = self.value(node.left)
        result: Any = True
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node)
            result = self._compared(op, left, right)
            if len(node.ops) > 1 and not numbers.plain(result):
                return result
            left = right
        return result

    @staticmethod
    def _compared(op: ast.cmpop, left: Any, right: Any) -> Any:
        function = COMPARISONS[type(op)]
        if numbers.is_number(left) or numbers.is_number(right):
            return numbers.compare(op, left, right, function)
        return function(left, right)

    def _of_Subscript(self, node: ast.Subscript) -> Any:
        return self.value(node.value)[numbers.index(self.value(node.slice))]

    def _of_Slice(self, node: ast.Slice) -> slice:
        return slice(*(None if part is None else self.value(part) for part in (node.lower, node.upper, node.step)))

    def _of_Tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self._items(node.elts))

    def _of_List(self, node: ast.List) -> list[Any]:
        return self._items(node.elts)

    def _items(self, nodes: list[ast.expr]) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                found.extend(self.value(node.value))
            else:
                found.append(self.value(node))
        return found

    def _of_Dict(self, node: ast.Dict) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                found.update(self.value(value))
            else:
                found[self.value(key)] = self.value(value)
        return found

    def _of_ListComp(self, node: ast.ListComp) -> list[Any]:
        inner = Frame(self.code, dict(self.values))
        found: list[Any] = []
        inner._comprehend(node, 0, found)
        return found

    def _comprehend(self, node: ast.ListComp, depth: int, found: list[Any]) -> None:
        if depth == len(node.generators):
            found.append(self.value(node.elt))
            return
        generator = node.generators[depth]
        for item in self.value(generator.iter):
            self.assign(generator.target, item)
            if all(numbers.plain(self.value(test)) for test in generator.ifs):
                self._comprehend(node, depth + 1, found)

    def _of_JoinedStr(self, node: ast.JoinedStr) -> str:
        return "".join(str(self.value(part)) for part in node.values)

    def _of_FormattedValue(self, node: ast.FormattedValue) -> str:
        value = numbers.plain(self.value(node.value))
        if node.conversion == ord("r"):
            value = repr(value)
        spec = "" if node.format_spec is None else self.value(node.format_spec)
        return format(value.item() if isinstance(value, Tensor) and spec else value, spec)


def _combined(op: ast.operator, left: Any, right: Any, function: Callable[[Any, Any], Any]) -> Any:
    if numbers.is_number(left) or numbers.is_number(right):
        return numbers.binary(op, left, right, function)
    return function(left, right)


def _converted(function: Any, args: list[Any]) -> Any:
    """``int(x)``, ``float(x)``, ``bool(x)`` and ``x.item()`` of a tensor, or of a number in one, as such a number; or None."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, Tensor) and function.__name__ == "item" and not args:
        return numbers.element(owner)
    if len(args) != 1 or type(function) is not type or function not in (int, float, bool):
        return None
    if function is bool:
        pred = asked(args[0])
        return None if pred is None else numbers.Number(bool, pred)
    held = args[0].tensor if numbers.is_number(args[0]) else args[0]
    return numbers.element(held, function) if isinstance(held, Tensor) else None


def _loading(target: ast.AST) -> ast.AST:
    """The target of an augmented assignment, read."""
    if isinstance(target, ast.Name):
        return ast.Name(target.id, ast.Load())
    if isinstance(target, ast.Attribute):
        return ast.Attribute(target.value, target.attr, ast.Load())
    assert isinstance(target, ast.Subscript)
    return ast.Subscript(target.value, target.slice, ast.Load())
