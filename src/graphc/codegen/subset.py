"""Functions written in a small part of Python, as LLVM text: code that works on memory and calls C, readable as Python.

Enters: a module's source (its functions are never called), named constants, fields of one global block of words.
Leaves: a module's text.  Never here: what the functions do.

Every value is a 64-bit integer; addresses are integers too.  There is: assignment to local names, ``if``, ``while``,
``for i in range(n)``, ``break``, ``continue``, ``return``, integer arithmetic (wrapping; ``>>`` and ``//`` are of numbers without
a sign), signed comparisons, ``and``, ``or``, ``not`` in conditions, ``a if c else b``, calls of other functions of the module and
of C functions, and

    load(address)  load32(address)           a word, a signed half word
    store(address, value)  store32(address, value)
    words(n)                                 n words on the stack (n a constant), made when the function is entered
    call(function_address, ...)              a C function of words that gives a word
    address(function)                        where a function of the module is
    copy(to, source, nbytes)                 memory that does not overlap
    state.name                               a word of the global block `state`; may be assigned
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

_BINARY = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor", ast.LShift: "shl",
    ast.RShift: "lshr", ast.FloorDiv: "udiv",
}  # fmt: skip
_COMPARISONS = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "slt", ast.LtE: "sle", ast.Gt: "sgt", ast.GtE: "sge"}
_LOADS = {"load": "i64", "load32": "i32"}
_STORES = {"store": "i64", "store32": "i32"}


def render_module(
    source: str,
    constants: Mapping[str, int],
    fields: Sequence[str],
    external: Mapping[str, str],
    exported: Sequence[str],
) -> str:
    """The functions of a Python module's `source`; those in `exported`, and the block ``state``, can be linked by name.

    external: C function -> what it returns (``i64``, ``i32``, ``void``); all its arguments are words.
    Raises SyntaxError for Python that is not in the subset.
    """
    trees = [tree for tree in ast.parse(source).body if isinstance(tree, ast.FunctionDef)]
    names = {tree.name: len(tree.args.args) for tree in trees}
    texts = [f"@state = global [{max(len(fields), 1)} x i64] zeroinitializer, align 64"]
    used: dict[str, int] = {}
    for tree in trees:
        one = _Function(tree, constants, {name: i for i, name in enumerate(fields)}, names, external, used)
        texts.append(one.text("" if tree.name in exported else "internal "))
    texts += [f"declare {external[name]} @{name}({', '.join(['i64'] * count)})" for name, count in used.items()]
    texts.append("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
    return "\n".join(texts)


class _Function:
    """One function's text, written from top to bottom."""

    def __init__(
        self,
        tree: ast.FunctionDef,
        constants: Mapping[str, int],
        fields: Mapping[str, int],
        functions: Mapping[str, int],
        external: Mapping[str, str],
        used: dict[str, int],
    ) -> None:
        self.tree, self.constants, self.fields = tree, constants, fields
        self.functions, self.external, self.used = functions, external, used
        self.head: list[str] = []
        self.lines: list[str] = []
        self.count = 0
        self.loops: list[tuple[str, str]] = []  # where ``continue`` and ``break`` go
        self.locals: set[str] = set()

    def text(self, linkage: str) -> str:
        parameters = [a.arg for a in self.tree.args.args]
        for name in parameters:
            self.store_local(name, f"%arg.{name}")
        self.block(self.tree.body)
        self.lines.append("  ret i64 0")
        given = ", ".join(f"i64 %arg.{name}" for name in parameters)
        head = f"define {linkage}i64 @{self.tree.name}({given}) nounwind {{"
        return "\n".join([head, "entry:", *self.head, *self.lines, "}", ""])

    def refuse(self, node: ast.AST, what: str) -> SyntaxError:
        return SyntaxError(f"{self.tree.name}, line {getattr(node, 'lineno', 0)} of it: {what}")

    def op(self, text: str) -> str:
        self.count += 1
        self.lines.append(f"  %v{self.count} = {text}")
        return f"%v{self.count}"

    def label(self) -> str:
        self.count += 1
        return f"l{self.count}"

    def start(self, label: str) -> None:
        self.lines.append(f"{label}:")

    def jump(self, label: str) -> None:
        self.lines.append(f"  br label %{label}")

    def store_local(self, name: str, value: str) -> None:
        if name not in self.locals:
            self.locals.add(name)
            self.head.append(f"  %local.{name} = alloca i64, align 8")
        self.lines.append(f"  store i64 {value}, ptr %local.{name}")

    def pointer(self, address: str) -> str:
        return self.op(f"inttoptr i64 {address} to ptr")

    # ---- statements

    def block(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            self.statement(statement)

    def statement(self, s: ast.stmt) -> None:
        if isinstance(s, ast.Expr):
            if not isinstance(s.value, ast.Constant):  # else a docstring
                self.value(s.value)
        elif isinstance(s, ast.Assign) and len(s.targets) == 1:
            self.assign(s.targets[0], self.value(s.value))
        elif isinstance(s, ast.AugAssign):
            self.assign(s.target, self.value(ast.BinOp(s.target, s.op, s.value)))
        elif isinstance(s, ast.If):
            self.choose(s)
        elif isinstance(s, ast.While):
            self.loop(s.test, s.body, [])
        elif isinstance(s, ast.For):
            self.count_up(s)
        elif isinstance(s, ast.Return):
            self.lines.append(f"  ret i64 {self.value(s.value) if s.value is not None else 0}")
            self.start(self.label())
        elif isinstance(s, ast.Break | ast.Continue):
            self.jump(self.loops[-1][isinstance(s, ast.Break)])
            self.start(self.label())
        else:
            raise self.refuse(s, f"{type(s).__name__} is not in the subset")

    def assign(self, target: ast.expr, value: str) -> None:
        if isinstance(target, ast.Name):
            self.store_local(target.id, value)
        elif isinstance(target, ast.Attribute):
            self.lines.append(f"  store i64 {value}, ptr {self.field(target)}")
        else:
            raise self.refuse(target, "only names and state's fields are assigned to")

    def choose(self, s: ast.If) -> None:
        yes, no, after = self.label(), self.label(), self.label()
        self.branch(s.test, yes, no)
        for label, body in ((yes, s.body), (no, s.orelse)):
            self.start(label)
            self.block(body)
            self.jump(after)
        self.start(after)

    def loop(self, test: ast.expr, body: Sequence[ast.stmt], step: Sequence[ast.stmt]) -> None:
        again, inside, onward, after = (self.label() for _ in range(4))
        self.jump(again)
        self.start(again)
        self.branch(test, inside, after)
        self.start(inside)
        self.loops.append((onward, after))
        self.block(body)
        self.loops.pop()
        self.jump(onward)
        self.start(onward)
        self.block(step)
        self.jump(again)
        self.start(after)

    def count_up(self, s: ast.For) -> None:
        call = s.iter
        if not (isinstance(s.target, ast.Name) and isinstance(call, ast.Call) and ast.unparse(call.func) == "range"):
            raise self.refuse(s, "only ``for name in range(n)``")
        name, (end,) = s.target.id, call.args
        self.store_local(name, "0")
        self.count += 1
        limit = f"limit{self.count}"
        self.store_local(limit, self.value(end))
        test = ast.Compare(ast.Name(name), [ast.Lt()], [ast.Name(limit)])
        self.loop(test, s.body, [ast.AugAssign(ast.Name(name), ast.Add(), ast.Constant(1))])

    def branch(self, test: ast.expr, yes: str, no: str) -> None:
        """Jump to one of two labels."""
        if isinstance(test, ast.BoolOp):
            for i, part in enumerate(test.values):
                if i == len(test.values) - 1:
                    self.branch(part, yes, no)
                    return
                further = self.label()
                self.branch(part, *((further, no) if isinstance(test.op, ast.And) else (yes, further)))
                self.start(further)
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self.branch(test.operand, no, yes)
        else:
            if isinstance(test, ast.Compare):
                holds = self.compare(test)
            else:
                holds = self.op(f"icmp ne i64 {self.value(test)}, 0")
            self.lines.append(f"  br i1 {holds}, label %{yes}, label %{no}")

    # ---- expressions

    def compare(self, e: ast.Compare) -> str:
        if len(e.ops) != 1:
            raise self.refuse(e, "one comparison at a time")
        a, b = self.value(e.left), self.value(e.comparators[0])
        return self.op(f"icmp {_COMPARISONS[type(e.ops[0])]} i64 {a}, {b}")

    def value(self, e: ast.expr) -> str:
        """The name of a word, or a number."""
        if isinstance(e, ast.Constant) and isinstance(e.value, int):
            return str(int(e.value))
        if isinstance(e, ast.Name):
            if e.id in self.locals:
                return self.op(f"load i64, ptr %local.{e.id}")
            if e.id in self.constants:
                return str(self.constants[e.id])
            raise self.refuse(e, f"{e.id} is unknown")
        if isinstance(e, ast.Attribute):
            return self.op(f"load i64, ptr {self.field(e)}")
        if isinstance(e, ast.BinOp) and type(e.op) in _BINARY:
            a, b = self.value(e.left), self.value(e.right)
            return self.op(f"{_BINARY[type(e.op)]} i64 {a}, {b}")
        if isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.USub):
            return self.op(f"sub i64 0, {self.value(e.operand)}")
        if isinstance(e, ast.Compare):
            return self.op(f"zext i1 {self.compare(e)} to i64")
        if isinstance(e, ast.IfExp):
            return self.conditional(e)
        if isinstance(e, ast.Call) and isinstance(e.func, ast.Name):
            return self.called(e, e.func.id)
        raise self.refuse(e, f"{ast.unparse(e)} is not in the subset")

    def conditional(self, e: ast.IfExp) -> str:
        yes, no, after = self.label(), self.label(), self.label()
        name = f"choice{self.count}"
        self.branch(e.test, yes, no)
        for label, part in ((yes, e.body), (no, e.orelse)):
            self.start(label)
            self.store_local(name, self.value(part))
            self.jump(after)
        self.start(after)
        return self.op(f"load i64, ptr %local.{name}")

    def called(self, e: ast.Call, name: str) -> str:
        if name == "words":
            self.count += 1
            made = f"%words{self.count}"
            self.head.append(f"  {made} = alloca [{self.value(e.args[0])} x i64], align 16")
            return self.op(f"ptrtoint ptr {made} to i64")
        if name == "address":
            return self.op(f"ptrtoint ptr @{ast.unparse(e.args[0])} to i64")
        given = [self.value(a) for a in e.args]
        if name in _LOADS:
            found = self.op(f"load {_LOADS[name]}, ptr {self.pointer(given[0])}")
            return found if name == "load" else self.op(f"sext i32 {found} to i64")
        if name in _STORES:
            value = given[1] if name == "store" else self.op(f"trunc i64 {given[1]} to i32")
            self.lines.append(f"  store {_STORES[name]} {value}, ptr {self.pointer(given[0])}")
            return "0"
        if name == "copy":
            to, source = self.pointer(given[0]), self.pointer(given[1])
            self.lines.append(f"  call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr {source}, i64 {given[2]}, i1 false)")
            return "0"
        if name == "call":
            function, *given = given
            return self.op(f"call i64 {self.pointer(function)}({', '.join('i64 ' + v for v in given)})")
        return self.called_by_name(e, name, ", ".join("i64 " + v for v in given), len(given))

    def called_by_name(self, e: ast.Call, name: str, given: str, count: int) -> str:
        if name in self.functions:
            if self.functions[name] != count:
                raise self.refuse(e, f"{name} takes {self.functions[name]} arguments")
            return self.op(f"call i64 @{name}({given})")
        kind = self.external.get(name)
        if kind is None or self.used.setdefault(name, count) != count:
            raise self.refuse(e, f"{name} is unknown, or was called with another number of arguments")
        if kind == "void":
            self.lines.append(f"  call void @{name}({given})")
            return "0"
        found = self.op(f"call {kind} @{name}({given})")
        return found if kind == "i64" else self.op(f"sext {kind} {found} to i64")

    def field(self, e: ast.Attribute) -> str:
        if ast.unparse(e.value) != "state" or e.attr not in self.fields:
            raise self.refuse(e, f"{ast.unparse(e)} is unknown")
        return f"getelementptr (i64, ptr @state, i64 {self.fields[e.attr]})"
