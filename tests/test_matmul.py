"""Products: whatever is chosen for sizes, layouts and vector widths, the bits are those of the definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.ops
from graph_cases import Array, assert_same_bits
from graphc.codegen.python import fma32
from graphc.dims import Dim, evaluate
from graphc.dtypes import float32
from graphc.ir.graph import Builder, Graph, Value
from graphc.ir.loops import K_BLOCK
from graphc.ir.op import Op, TensorType
from graphc.ops.panels import panel_width
from graphc.passes.prepare import prepare
from graphc.pipeline import Options, build
from graphc.schedule.matmul import lower_tiles
from graphc.schedule.schedule import schedule

WIDTHS = (4, 8, 16, 32)
LAYOUTS = ("nn", "nt", "tn", "tt")


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def graph_of(function: Callable[..., Any], *arrays: Array) -> Graph:
    builder = Builder()
    inputs = [Value(TensorType(float32, a.shape), None, f"x{i}") for i, a in enumerate(arrays)]
    with builder.running():
        return builder.graph("f", inputs, [function(*inputs)])


def product(a: Any, b: Any, layout: str) -> Any:
    matmul, permute = Op.table["matmul"], Op.table["permute"]
    a, b = (permute.run(x, dims=(1, 0)) if t == "t" else x for x, t in zip((a, b), layout, strict=True))
    return matmul.run(a, b)


def stored(a: Array, b: Array, layout: str) -> list[Array]:
    return [np.ascontiguousarray(x.T) if t == "t" else x for x, t in zip((a, b), layout, strict=True)]


def run(function: Callable[..., Any], *arrays: Array, lanes: int = 16) -> Array:
    """One output of a graph, compiled for so many lanes."""
    made = build(graph_of(function, *arrays), Options(lanes=lanes), use_cache=False).link()
    (spec,) = made.plan.outputs
    out = np.full([int(n) for n in spec.shape], np.nan, np.float32)  # type: ignore[arg-type]
    made([a.ctypes.data for a in arrays], [out.ctypes.data], [])
    return out


def defined(a: Array, b: Array) -> Array:
    """Each element one chain of fma inside blocks of K_BLOCK, blocks added in order."""
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for i, j in np.ndindex(*out.shape):
        total = np.float32(0)
        for start in range(0, a.shape[1], K_BLOCK):
            chain = np.float32(0)
            for k in range(start, min(start + K_BLOCK, a.shape[1])):
                chain = fma32(a[i, k], b[k, j], chain)
            total = np.float32(total + chain)
        out[i, j] = total
    return out


@pytest.mark.parametrize("sizes", [(2, 1030, 5), (5, 70, 33), (3, 513, 2)], ids=str)
def test_the_definition(sizes: tuple[int, int, int]) -> None:
    m, k, n = sizes
    a, b = normal(m, k), normal(k, n, seed=1)
    assert_same_bits(run(lambda a, b: product(a, b, "nn"), a, b), defined(a, b), "matmul")


# rows, depth, columns: few columns, one row, one tile, many blocks of rows, panels of A, of A' with pages between, nothing even
SIZES = [(40, 70, 2), (1, 600, 256), (9, 1040, 64), (30, 100, 40), (721, 64, 33), (730, 256, 544), (1024, 600, 70)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_layout_has_the_same_bits(sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.schedule.matmul.PACK_ELEMENTS", 1 << 14)
    monkeypatch.setattr("graphc.schedule.matmul.PACKED_ELEMENTS", 1 << 16)
    m, k, n = sizes
    a, b = normal(m, k), normal(k, n, seed=1)
    wanted = (graphc.matmul(graphc.tensor(a), graphc.tensor(b))).numpy()
    for layout in LAYOUTS:
        arrays = stored(a, b, layout)
        assert_same_bits(run(lambda a, b, layout=layout: product(a, b, layout), *arrays), wanted, layout)


@pytest.mark.parametrize("lanes", WIDTHS)
def test_every_vector_width_has_the_same_bits(lanes: int) -> None:
    for m, k, n in ((3, 530, 40), (20, 64, 96), (730, 20, 64)):
        a, b = normal(m, k), normal(k, n, seed=1)
        wanted = (graphc.matmul(graphc.tensor(a), graphc.tensor(b))).numpy()
        for layout in ("nn", "nt"):
            got = run(lambda a, b, layout=layout: product(a, b, layout), *stored(a, b, layout), lanes=lanes)
            assert_same_bits(got, wanted, f"{layout} {m} {k} {n}")


@pytest.mark.parametrize("columns", [64, 50, 16, 7])
def test_panels_give_the_bits_of_the_matrix(columns: int) -> None:
    panels, matmul_panels = Op.table["panels"], Op.table["matmul_panels"]
    for rows in (1, 17, 80):
        a, b = normal(rows, 520), normal(520, columns, seed=1)
        wanted = (graphc.matmul(graphc.tensor(a), graphc.tensor(b))).numpy()
        width = panel_width(float32, columns)
        for layout, w in (("n", b), ("t", np.ascontiguousarray(b.T))):

            def through_panels(a: Any, w: Any, layout: str = layout, width: int = width) -> Any:
                w = w if layout == "n" else Op.table["permute"].run(w, dims=(1, 0))
                return matmul_panels.run(a, panels.run(w, width=width), columns=columns)

            assert_same_bits(run(through_panels, a, w), wanted, f"{rows} {columns} {layout}")


@pytest.mark.parametrize("lanes", WIDTHS)
def test_few_rows_read_a_large_weight_as_it_lies(lanes: int) -> None:
    for rows, outputs, inputs in (
        (1, 96, 80),
        (4, 97, 530),
        (2, 17, 1100),
    ):  # in two, squares end where panels and blocks of k do not
        a, b = normal(rows, inputs), normal(outputs, inputs, seed=1)
        wanted = graphc.matmul(graphc.tensor(a), graphc.tensor(b.T.copy())).numpy()
        graph = graph_of(lambda a, b: product(a, b, "nt"), a, b)
        assert [getattr(launch, "note", "") for launch in schedule(graph, lanes).launches] == ["matmul, B in squares"]
        assert_same_bits(run(lambda a, b: product(a, b, "nt"), a, b, lanes=lanes), wanted, f"{rows} {outputs} {inputs}")


def test_a_program_keeps_panels_of_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(x: Any, v: Any, w: Any) -> Any:
        return Op.table["add"].run(product(x, v, "nt"), product(x, w, "nt"))

    nbytes = 64 * 128 * 4
    for rows, limit in ((3, "FEW_PANELS"), (5, "MOST_PANELS")):
        graph = graph_of(both, normal(rows, 64), normal(128, 64), normal(128, 64))
        for times, before, panels in ((1, 0, 2), (1, 1, 1), (2, 0, 1), (2, 1, 0), (3, 0, 0)):
            monkeypatch.setattr("graphc.passes.prepare.MOST_PANELS", 1 << 30)
            monkeypatch.setattr(f"graphc.passes.prepare.{limit}", 2 * nbytes)
            made = prepare(graph, (1, 2), times, before)
            assert (made.panels if made else 0) == panels * nbytes
            main = made.main if made else graph
            assert sum(node.op.name == "matmul_panels" for node in main.nodes) == panels


def test_a_matrix_that_many_rows_read_is_packed_once() -> None:
    launches = schedule(graph_of(lambda a, b: product(a, b, "nn"), normal(3072, 520), normal(520, 1024))).launches
    assert [getattr(launch, "note", "") for launch in launches][-1] == "matmul, B in panels"
    assert len(launches) > 1


def test_columns_that_lie_pages_apart_are_packed() -> None:
    for rows, notes in ((1024, ["panels", "matmul"]), (1056, ["matmul"])):
        launches = schedule(graph_of(lambda a, b: product(a, b, "tn"), normal(2048, rows), normal(2048, 128))).launches
        assert [getattr(launch, "note", "") for launch in launches] == notes


@pytest.mark.parametrize(("height", "step"), [(1, 1), (2, 1), (6, 2), (8, 1), (8, 4), (12, 1), (12, 6), (14, 2)])
def test_what_is_left_of_an_open_number_of_rows(height: int, step: int) -> None:
    rest = Dim.symbol("rest", 0, high=height - 1)
    for left in range(0, height, step):
        found: list[int] = []
        for rows, count, start in lower_tiles(rest, height, step):
            for i in range(evaluate(count, {"rest": left})):
                first = evaluate(start, {"rest": left}) + i * rows
                found.extend(range(first, first + rows))
        assert sorted(found) == list(range(left)), left


def test_a_batch_of_one_matrix() -> None:
    a, b = normal(4, 300, 64), normal(64, 96, seed=1)
    got = graphc.compile(lambda a, b: graphc.relu(a @ b) + 1)(graphc.tensor(a), graphc.tensor(b))
    rows = [graphc.relu(graphc.matmul(graphc.tensor(x), graphc.tensor(b))) + 1 for x in a]
    for k, row in enumerate(rows):
        assert_same_bits(got[k].numpy(), row.numpy(), f"matrix {k}")


@pytest.mark.parametrize("shape, dims", [((100, 70), (1, 0)), ((3, 40, 50), (0, 2, 1)), ((2, 9, 33, 65), (0, 2, 3, 1))], ids=str)
def test_transposed_copies(shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    x = normal(*shape)
    graph = graph_of(lambda x: Op.table["permute"].run(x, dims=dims), x)
    assert [getattr(launch, "note", "") for launch in schedule(graph).launches] == ["copy, transposed"]
    for lanes in WIDTHS:
        assert_same_bits(run(lambda x: Op.table["permute"].run(x, dims=dims), x, lanes=lanes), np.transpose(x, dims), "copy")
