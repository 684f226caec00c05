"""The part of Python that scripts are written in.

Enters: source text.  Leaves: a checked `Code`; ScriptError with file, line and a caret for anything else.
Never here: values, running.
"""

from __future__ import annotations

import ast
import os
import textwrap
from dataclasses import dataclass, field
from typing import Any

from graphc.errors import ScriptError

STATEMENTS = (
    ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.If, ast.While, ast.For, ast.Break, ast.Continue, ast.Return, ast.Assert,
    ast.Raise, ast.Pass, ast.With,
)  # fmt: skip
EXPRESSIONS = (
    ast.Constant, ast.Name, ast.Attribute, ast.Call, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript,
    ast.Slice, ast.Tuple, ast.List, ast.Dict, ast.Starred, ast.ListComp, ast.JoinedStr, ast.FormattedValue, ast.keyword,
    ast.comprehension, ast.withitem,
)  # fmt: skip
PLAIN = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)
SPOKEN = {
    "Lambda": "a lambda", "Try": "try", "ClassDef": "a class", "FunctionDef": "a function inside a function", "Yield": "yield",
    "Global": "global", "Nonlocal": "nonlocal", "Import": "import", "ImportFrom": "import", "Delete": "del", "Await": "await",
    "GeneratorExp": "a generator expression", "SetComp": "a set", "DictComp": "a dict comprehension", "NamedExpr": ":=",
    "Match": "match", "Set": "a set",
}  # fmt: skip


@dataclass
class Code:
    """One checked function.

    source: its text, from ``def`` on.   names: what its global names stand for.   defaults: values of parameters with one.
    no_regions: what is compiled path by path (in a grad mode), and why.   loops: those to be tried as regions though Python could
    go round.   straight: loops without jumps (`scripting.flow`).
    """

    name: str
    source: str
    file: str
    line: int
    names: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    no_regions: dict[tuple[ast.AST, bool], str] = field(default_factory=dict)
    loops: set[tuple[ast.AST, bool]] = field(default_factory=set)
    straight: dict[tuple[ast.AST, int], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.definition = self._checked()
        arguments = self.definition.args
        self.parameters = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        self.keywords = [a.arg for a in arguments.kwonlyargs]
        bound = {n.id for n in ast.walk(self.definition) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
        self.locals = bound | {*self.parameters, *self.keywords}

    def _checked(self) -> ast.FunctionDef:
        self.source = textwrap.dedent(self.source)
        try:
            tree = ast.parse(self.source)
        except SyntaxError as error:
            raise ScriptError(f"{self.name}: its source cannot be read: {error}") from None
        definition = tree.body[0] if len(tree.body) == 1 else None
        if not isinstance(definition, ast.FunctionDef):
            raise ScriptError(f"{self.name}: not a function written with def ({os.path.basename(self.file)}:{self.line})")
        definition.decorator_list = []
        if definition.args.vararg or definition.args.kwarg:
            raise self.refusal(definition, "a variable number of arguments (*args, **kwargs)")
        for statement in definition.body:
            self._check(statement)
        return definition

    def _check(self, node: ast.AST) -> None:
        if isinstance(node, ast.AnnAssign | ast.arg):  # annotations say nothing here
            parts: list[ast.AST] = [p for p in (getattr(node, "target", None), getattr(node, "value", None)) if p is not None]
        elif isinstance(node, (*STATEMENTS, *EXPRESSIONS, *PLAIN)):
            parts = list(ast.iter_child_nodes(node))
        else:
            raise self.refusal(node, SPOKEN.get(type(node).__name__, type(node).__name__))
        for part in parts:
            self._check(part)

    def refusal(self, node: ast.AST, what: str) -> ScriptError:
        """The error for something that scripts do not have."""
        return ScriptError(f"{self.name}: a script cannot hold {what}\n{self.place(node)}")

    def place(self, node: ast.AST) -> str:
        """The file, the line and a caret under `node`."""
        row = getattr(node, "lineno", 1)
        text = self.source.splitlines()[row - 1]
        stripped = text.lstrip()
        column = max(getattr(node, "col_offset", 0) - (len(text) - len(stripped)), 0)
        return f"  {os.path.basename(self.file)}:{self.line + row - 1}\n    {stripped}\n    {' ' * column}^"

    def free_names(self) -> list[str]:
        """Names that it reads and does not bind, in order."""
        found = [n.id for s in self.definition.body for n in ast.walk(s) if isinstance(n, ast.Name)]
        return [name for name in dict.fromkeys(found) if name not in self.locals]

    def attributes_of(self, name: str) -> list[ast.Attribute]:
        """Every ``name.attribute`` in it."""
        nodes = (n for s in self.definition.body for n in ast.walk(s) if isinstance(n, ast.Attribute))
        return [n for n in nodes if isinstance(n.value, ast.Name) and n.value.id == name]
