"""Sizes and docstrings of the package, kept by reading its syntax trees.  ``pytest -s`` shows the report."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
FILE_LINES, FUNCTION_LINES = 600, 60
SHORT_METHOD = 2  # a public method of at most so many statements may speak by its name

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def files(source: Path) -> Iterator[tuple[str, str, ast.Module]]:
    """(path below `source`, text, syntax tree) of every Python file."""
    for path in sorted(source.rglob("*.py")):
        text = path.read_text()
        yield str(path.relative_to(source)), text, ast.parse(text)


def functions(tree: ast.Module) -> Iterator[Function]:
    """Every function at any depth."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    """Lines from ``def`` to the last statement, docstring included."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def is_clear_without(definition: Definition) -> bool:
    """Whether a method needs no docstring: a few statements, an overload, or `forward`, which its class describes."""
    if isinstance(definition, ast.ClassDef):
        return False
    decorators = {ast.unparse(d).split(".")[-1] for d in definition.decorator_list}
    named_by_rule = definition.name == "forward" or bool({"overload", "setter"} & decorators)
    return named_by_rule or len(definition.body) <= SHORT_METHOD


def undocumented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of the module and of every public class, function and longer method that has no docstring."""
    if tree.body and not ast.get_docstring(tree):
        yield 1, "module"
    for node in tree.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield node.lineno, node.name
        for method in node.body if isinstance(node, ast.ClassDef) else ():
            if not isinstance(method, Definition) or method.name.startswith("_"):
                continue
            if not ast.get_docstring(method) and not is_clear_without(method):
                yield method.lineno, f"{node.name}.{method.name}"


def test_files_stay_short() -> None:
    sizes = {name: text.count("\n") for name, text, _ in files(SOURCE)}
    print(f"\n{len(sizes)} files, {sum(sizes.values())} lines, median {statistics.median(sizes.values()):.0f}")
    for name in sorted(sizes, key=lambda name: -sizes[name])[:5]:
        print(f"  {sizes[name]:5} {name}")
    assert [f"{name}: {size} lines" for name, size in sizes.items() if size > FILE_LINES] == []


def test_functions_stay_short() -> None:
    sizes = {f"{name}:{f.lineno} {f.name}": length(f) for name, _, tree in files(SOURCE) for f in functions(tree)}
    ordered = sorted(sizes.values())
    middle, high = statistics.median(ordered), ordered[len(ordered) * 95 // 100]
    print(f"\n{len(ordered)} functions, median {middle:.0f}, p95 {high}")
    for name in sorted(sizes, key=lambda name: -sizes[name])[:5]:
        print(f"  {sizes[name]:5} {name}")
    assert [f"{name}: {size} lines" for name, size in sizes.items() if size > FUNCTION_LINES] == []


def test_public_names_have_docstrings() -> None:
    assert [f"{name}:{line} {what}" for name, _, tree in files(SOURCE) for line, what in undocumented(tree)] == []


def test_the_checks_find_what_they_look_for() -> None:
    text = "def f():\n    return 1\nclass C:\n    def short(self):\n        return 1\n"
    text += "    def long(self):\n        a = 1\n        b = 2\n        return a + b\n    def _private(self): ...\n"
    tree = ast.parse(text)
    assert list(undocumented(tree)) == [(1, "module"), (1, "f"), (3, "C"), (6, "C.long")]
    assert [length(f) for f in functions(tree)] == [2, 2, 4, 1]
