"""Which room may import which: read from the syntax trees of the whole package, function-level imports included."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"

BASE = tuple(
    f"graphc.{name}"
    for name in ("dtypes", "dims", "dim_answers", "dim_patterns", "dim_rules", "dim_terms", "errors", "leases", "logs", "trees")
)
COMPILER = ("graphc.passes", "graphc.schedule", "graphc.codegen", "graphc.runtime")
# Room -> what it may import within graphc, beside itself.  A name covers everything below it.
ALLOWED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(BASE, BASE),
    "graphc.ir": BASE,
    "graphc.ops": (*BASE, "graphc.ir"),
    "graphc.passes": (*BASE, "graphc.ir", "graphc.ops"),
    "graphc.schedule": (*BASE, "graphc.ir", "graphc.ops"),
    "graphc.codegen": (*BASE, "graphc.ir.loops"),
    "graphc.runtime": (*BASE, "graphc.ir.loops"),
    "graphc.artifact": (*BASE, "graphc.runtime", *(f"graphc.ir.{noun}" for noun in ("text", "graph", "op", "loops"))),
    "graphc.checkpoints": (
        *BASE,
        "graphc.artifact.container",
        "graphc.artifact.zips",
        "graphc.eager",
        "graphc.nn",
        "graphc.ops.strided",
        "graphc.runtime.memory",
    ),
    "graphc.capture": (*BASE, "graphc.ir", "graphc.ops", "graphc.eager"),
    "graphc.pipeline": (*BASE, "graphc.ir", *COMPILER),
    "graphc.kernels": (*BASE, "graphc.ir", "graphc.pipeline", "graphc.runtime", "graphc.eager.storage"),
    "graphc.native": (
        *BASE,
        "graphc.ir",
        "graphc.ops",
        "graphc.eager",
        "graphc.kernels",
        "graphc.codegen.subset",
        "graphc.runtime",
    ),
    "graphc.explain.report": (*BASE, "graphc.ir", "graphc.pipeline", "graphc.schedule", "graphc.codegen"),
    # the doors to the compiler
    "graphc.eager.dispatch": (*BASE, "graphc.ir", "graphc.ops", "graphc.eager", "graphc.kernels", "graphc.native"),
    "graphc.eager": (*BASE, "graphc.ir", "graphc.ops"),
}
# Rooms that hold no mechanism, and what they therefore never import.
SURFACE = (
    "graphc.nn",
    "graphc.optim",
    "graphc.data",
    "graphc.autograd",
    "graphc.func",
    "graphc.utils",
    "graphc.array_api",
    "graphc.backends",
    "graphc.amp",
    "graphc.distributions",
)
MECHANISM = ("graphc.passes", "graphc.schedule", "graphc.codegen", "graphc.runtime", "graphc.artifact")

FORBIDDEN_FILES = {"utils", "util", "helpers", "helper", "common"}
NAMESPACES = ("graphc.utils", "graphc.nn.utils")  # PyTorch's namespaces of that name
FORBIDDEN_CLASS = re.compile(r"(Manager|Base|Impl)(?=[A-Z_0-9]|$)")
LAZY = ("llvmlite", "networkx", "safetensors", "cupy")


def is_within(name: str, room: str) -> bool:
    """Whether module `name` is `room` or lies below it."""
    return name == room or name.startswith(room + ".")


def modules(source: Path) -> dict[str, ast.Module]:
    """Dotted name -> syntax tree of every module below `source`; a package is named without ``__init__``."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), str(path))
    return found


def imports(name: str, tree: ast.Module, source: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported, at any depth; ``from package import module`` names the module."""
    is_package = (source.joinpath(*name.split(".")) / "__init__.py").exists()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parents = name.split(".")[: len(name.split(".")) - node.level + is_package]
                origin = ".".join([*parents, *([origin] if origin else [])])
            for alias in node.names:
                below = source.joinpath(*origin.split("."), alias.name)
                is_module = below.is_dir() or below.with_suffix(".py").exists()
                yield node.lineno, f"{origin}.{alias.name}" if is_module else origin


def arrow_violations(source: Path) -> list[str]:
    """Every import that breaks an arrow, as ``module:line imports other``."""
    bad = []
    for name, tree in modules(source).items():
        room = next((r for r in ALLOWED if is_within(name, r)), None)
        surface = any(is_within(name, r) for r in SURFACE)
        for line, target in imports(name, tree, source):
            if not is_within(target, "graphc"):
                continue
            outside = room is not None and not any(is_within(target, r) for r in (room, *ALLOWED[room]))
            mechanism = surface and any(is_within(target, r) for r in MECHANISM)
            if outside or mechanism:
                bad.append(f"{name}:{line} imports {target}")
    return bad


def is_package(source: Path, name: str) -> bool:
    """Whether a dotted name is a folder of modules."""
    return (source.joinpath(*name.split(".")) / "__init__.py").exists()


def name_violations(source: Path) -> list[str]:
    """Files and classes whose names say nothing."""
    bad = []
    for name, tree in modules(source).items():
        if FORBIDDEN_FILES & set(name.split(".")) and not any(is_within(name, n) and is_package(source, n) for n in NAMESPACES):
            bad.append(f"module {name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and FORBIDDEN_CLASS.search(node.name):
                bad.append(f"{name}:{node.lineno} class {node.name}")
    return bad


def undeclared_packages(source: Path) -> list[str]:
    """Imports of packages that are neither in the standard library nor a dependency of the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w-]", text)[0] for text in project["dependencies"]}
    known = {*sys.stdlib_module_names, *declared, "graphc", "cupy", "cupyx"}  # cupy: the cuda extra
    return [
        f"{name}:{line} imports {target}"
        for name, tree in modules(source).items()
        for line, target in imports(name, tree, source)
        if target.split(".")[0] not in known
    ]


def test_rooms_import_only_what_lies_below_them() -> None:
    assert arrow_violations(SOURCE) == []


def test_names_say_what_things_are() -> None:
    assert name_violations(SOURCE) == []


def test_every_imported_package_is_a_declared_dependency() -> None:
    assert undeclared_packages(SOURCE) == []


def test_import_graphc_is_cheap() -> None:
    code = f"import graphc, sys; print(*(name for name in {LAZY!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SOURCE, check=True)
    assert result.stdout.split() == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("graphc/codegen/llvm.py", "from graphc.ir.graph import Graph"),
        ("graphc/codegen/llvm.py", "from graphc.ir import graph"),
        ("graphc/codegen/llvm.py", "from graphc import ops"),
        ("graphc/codegen/llvm.py", "from ..schedule import lower"),
        ("graphc/codegen/__init__.py", "from .. import passes"),
        ("graphc/ir/graph.py", "def f():\n    import graphc.eager.tensor"),
        ("graphc/dtypes.py", "import graphc.ir.op"),
        ("graphc/runtime/launch.py", "from graphc import Tensor"),
        ("graphc/artifact/load.py", "from graphc.ops import matmul"),
        ("graphc/artifact/load.py", "import graphc.pipeline"),
        ("graphc/nn/linear.py", "from graphc.codegen import llvm"),
        ("graphc/eager/dispatch.py", "def f():\n    from graphc.pipeline import build"),
        ("graphc/kernels.py", "from graphc.schedule import lower"),
        ("graphc/pipeline.py", "from graphc.eager import tensor"),
        ("graphc/dim_rules.py", "from graphc import ir"),
    ],
)
def test_a_broken_arrow_is_found(tmp_path: Path, module: str, line: str) -> None:
    for name in ("ops", "ir", "passes", "schedule", "codegen", "eager", "runtime", "artifact", "nn"):
        package = tmp_path / "graphc" / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    (tmp_path / "graphc/__init__.py").write_text("from graphc import eager, nn\n")
    (tmp_path / "graphc/ir/graph.py").touch()
    assert arrow_violations(tmp_path) == []
    (tmp_path / module).write_text(line + "\n")
    assert len(arrow_violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("util.py", ""),
        ("nn/utils.py", ""),
        ("common/x.py", ""),
        ("x.py", "class PassManager: ..."),
        ("x.py", "class ModuleBase: ..."),
    ],
)
def test_an_empty_name_is_found(tmp_path: Path, module: str, text: str) -> None:
    path = tmp_path / "graphc" / module
    path.parent.mkdir(parents=True)
    (tmp_path / "graphc/utils").mkdir()
    (tmp_path / "graphc/utils/__init__.py").touch()
    (tmp_path / "graphc/ok.py").write_text("class Baseline: ...\nclass Implicit: ...\n")
    assert name_violations(tmp_path) == []
    path.write_text(text)
    assert len(name_violations(tmp_path)) == 1


def test_an_undeclared_package_is_found(tmp_path: Path) -> None:
    (tmp_path / "graphc").mkdir()
    (tmp_path / "graphc/x.py").write_text("import numpy, os\nimport pandas\n")
    assert undeclared_packages(tmp_path) == ["graphc.x:2 imports pandas"]
