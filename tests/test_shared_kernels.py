"""Kernels that differ in numbers only run as one; programs of many launches and of several modules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from graphc.codegen.llvm.program import Launch, Slot, render_modules, render_program
from graphc.codegen.python import run
from graphc.codegen.shared import shared
from graphc.dims import Dim, Size, minimum
from graphc.dtypes import float32
from graphc.errors import IRError
from graphc.ir.loops import FIRST_SLOT, Alloc, Check, Const, Kernel, Param, Stmt, Store
from graphc.runtime.assembly import Assembly, code_of
from graphc.runtime.link import assemble, joined, link
from llvm_kernels import MAIN, call, chunk_counts, fn, load, loop, same_bits, sym


def kernel(name: str, n: int, *body: Stmt, inputs: Sequence[int] = (), grain: int = 1) -> Kernel:
    given = [Param(f"x{i}", "in", float32, size) for i, size in enumerate(inputs)]
    return Kernel(name, (*given, Param("out", "out", float32, n)), body, grain)


def doubled(name: str, n: int, grain: int = 1) -> Kernel:
    """out = 2 x, 256 elements at a time."""
    width = 256 if n % 256 == 0 else minimum(256, n - sym("p") * 256)
    at = sym("p") * 256 + sym("v")
    store = Store("out", at, fn("add", load("x0", at), load("x0", at)))
    return kernel(name, n, loop("p", -(-n // 256), "parallel", loop("v", width, "vector", store)), inputs=[n], grain=grain)


def column_means(name: str, rows: int, columns: int) -> Kernel:
    """Means over rows, with the running sums in scratch."""
    r, v = sym("r"), Dim.symbol("v", 0, below=columns)
    clear = loop("v", columns, "vector", Store("sums", v, Const(0.0, float32)))
    add = Store("sums", v, fn("add", load("sums", v), load("x0", r * columns + v)))
    keep = loop("v", columns, "vector", Store("out", v, fn("mul", load("sums", v), Const(1 / rows, float32))))
    body = (Alloc("sums", float32, columns), clear, loop("r", rows, "serial", loop("v", columns, "vector", add)), keep)
    return kernel(name, columns, loop("p", 1, "parallel", *body), inputs=[rows * columns])


def strided(name: str, count: int, step: int, row: int) -> Kernel:
    """Every `step`-th element of row `row // 10`."""
    at = (sym("p") // 3) * row + Dim.symbol("v", 0, high=15) * step
    inner = loop("v", 16, "tile", Store("out", sym("p") * 16 + sym("v"), load("x0", at)))
    return kernel(name, 16 * count, loop("p", count, "parallel", inner), inputs=[(count // 3 + 1) * row + 16 * step])


@pytest.mark.parametrize("lanes", [4, 16])
@pytest.mark.parametrize(
    "members",
    [
        [doubled("a", 1000), doubled("b", 300), doubled("c", 5000)],
        [doubled("a", 1024), doubled("b", 256)],
        [column_means("a", 7, 128), column_means("b", 3, 64), column_means("c", 1, 192)],
        [strided("a", 5, 9, 160), strided("b", 8, 4, 70)],
    ],
)
def test_members_of_one_form_run_as_one_kernel(members: list[Kernel], lanes: int) -> None:
    instances = shared(members)
    assert {instance.kernel.name for instance in instances.values()} == {"a"}
    one = instances["a"].kernel
    assert all(isinstance(p.size, int | Dim) for p in one.params)
    for member in members:
        numbers = instances[member.name].numbers
        x = np.random.default_rng(0).standard_normal(member.params[0].size).astype(np.float32)  # type: ignore[arg-type]
        wanted, given, made = (np.zeros(member.params[1].size, np.float32) for _ in range(3))  # type: ignore[arg-type]
        run(member, {"x0": x, "out": wanted}, {})
        run(one, {"x0": x, "out": given}, {p.name: n for p, n in zip(one.params[2:], numbers, strict=True)})
        same_bits(given, wanted)
        launch = Launch(one.name, (Slot(FIRST_SLOT), Slot(FIRST_SLOT + 1), *numbers))
        entry = MAIN(link(assemble(render_program([launch], {one.name: one}, lanes)), ["graphc_main"])["graphc_main"])
        assert call(entry, x, made) == 0
        same_bits(made, wanted)


def test_what_inner_loops_are_laid_out_by_stays() -> None:
    def copy(name: str, step: int, width: Size, kind: str = "vector") -> Kernel:
        body = loop("v", width, kind, Store("out", sym("v"), load("x0", sym("p") + sym("v") * step)))
        return kernel(name, 4096, loop("p", 1, "parallel", body), inputs=[4096])

    members = [
        copy("near", 1, 32),
        copy("far", 2, 32),
        copy("short", 1, 16),
        copy("tile", 1, 16, "tile"),
        copy("half", 1, 8, "tile"),
    ]
    at = sym("p") * 640 + sym("i")
    for n in (3, 4):
        tile = loop("i", 5, "unroll", Store("out", at, load("x0", at)))
        members.append(kernel(f"tiles{n}", 4096, loop("p", n, "parallel", tile), inputs=[4096]))
    instances = shared(members)
    assert {name: instance.kernel.name for name, instance in instances.items()} == {m.name: m.name for m in members}
    assert all(instances[member.name].kernel == member for member in members)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_many_launches_are_written_down_as_data(together: bool, threads: int) -> None:
    kernels = {"copy": doubled("copy", 512, grain=10**9), "wide": doubled("wide", 512)}
    slots = [Slot(FIRST_SLOT + i) for i in range(12)]
    names = ["copy", "wide"] * 6
    pairs = [(slots[0], slot) for slot in slots[1:]] if together else list(pairwise(slots))
    launches = [Launch(n, pair, together and i > 0) for i, (n, pair) in enumerate(zip(names, pairs, strict=False))]
    text = render_program(launches, kernels, 8)
    assert text.count("call void @graphc_run") == 1 and text.count("store i64") < 8
    entry = MAIN(link(assemble(text), ["graphc_main"])["graphc_main"])
    chunk_counts.clear()
    arrays = [np.ones(512, np.float32), *(np.zeros(512, np.float32) for _ in range(11))]
    assert call(entry, *arrays, threads=threads) == 0
    for i, array in enumerate(arrays):
        same_bits(array, np.full(512, 2.0 ** (min(i, 1) if together else i), np.float32))
    assert bool(chunk_counts) == (together or threads > 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_single_launches_and_those_that_run_together_are_one_row(threads: int) -> None:
    kernels = {"copy": doubled("copy", 512, grain=10**9), "wide": doubled("wide", 512)}
    slots = [Slot(FIRST_SLOT + i) for i in range(13)]
    launches = []
    for i in range(0, 12, 3):  # one, then two at once of its result; the second of those goes on
        launches += [Launch("wide", (slots[i], slots[i + 1])), Launch("copy", (slots[i + 1], slots[i + 2]))]
        launches.append(Launch("wide", (slots[i + 1], slots[i + 3]), True))
    text = render_program(launches, kernels, 8)
    assert text.count("call void @graphc_run(") == 1 and text.count("call void @graphc_launch") == 2
    entry = MAIN(link(assemble(text), ["graphc_main"])["graphc_main"])
    arrays = [np.ones(512, np.float32), *(np.zeros(512, np.float32) for _ in range(12))]
    assert call(entry, *arrays, threads=threads) == 0
    for i, array in enumerate(arrays):
        same_bits(array, np.full(512, 2.0 ** (2 * (i // 3) + min(i % 3, 2)), np.float32))


def test_a_check_ends_a_row_of_launches() -> None:
    positive = kernel("positive", 1, loop("p", 1, "parallel", Check(fn("gt", load("out", 0), Const(0.0, float32)), 7)))
    kernels = {"copy": doubled("copy", 256), "positive": positive}
    first, second, third = (Slot(FIRST_SLOT + i) for i in range(3))
    many = [Launch("copy", (first, second))] * 9
    launches = [*many, Launch("positive", (second,)), *[Launch("copy", (second, third))] * 9]
    text = render_program(launches, kernels, 8)
    assert text.count("call void @graphc_run(") == 2
    entry = MAIN(link(assemble(text), ["graphc_main"])["graphc_main"])
    for value, status in ((1.0, 0), (-1.0, 7)):
        arrays = [np.full(256, value, np.float32), np.zeros(256, np.float32), np.zeros(256, np.float32)]
        assert call(entry, *arrays) == status
        same_bits(arrays[2], np.full(256, 0.0 if status else 4.0, np.float32))


@pytest.mark.parametrize("threads", [1, 3])
def test_modules_of_one_program_are_made_apart(threads: int) -> None:
    kernels = {name: doubled(name, 300 + i) for i, name in enumerate("abcdef")}
    slots = [Slot(FIRST_SLOT + i) for i in range(7)]
    launches = [Launch(name, pair) for name, pair in zip(kernels, pairwise(slots), strict=True)]
    with Assembly(threads) as assembly:
        modules = [assembly.add(text) for text in render_modules(launches, kernels, 8, most=1)]
    assert len(modules) == len(kernels)
    code = code_of(modules)
    assert code == joined([assemble(text) for text in render_modules(launches, kernels, 8, most=1)])
    entry = MAIN(link(code, ["graphc_main"])["graphc_main"])
    arrays = [np.ones(310, np.float32), *(np.zeros(310, np.float32) for _ in range(6))]
    assert call(entry, *arrays) == 0
    same_bits(arrays[6][:300], np.full(300, 64.0, np.float32))


def test_a_refused_module_raises_where_its_code_is_asked_for() -> None:
    with Assembly(2) as assembly:
        modules = [
            assembly.add(text) for text in ("define void @f() {\n ret void\n}", "define foo", "define void @g() {\n ret void\n}")
        ]
    with pytest.raises(IRError, match="LLVM refused a module"):
        code_of(modules)
    assert modules[0].object() and modules[2].object()
