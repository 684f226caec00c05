"""Convolutions channels last: the nests at sizes with several tiles, bands and blocks, the bits of all widths, what rides along."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
import graphc.ops  # the table that graph text names
from graph_cases import assert_close, run_compiled, run_in_python, run_interpreted
from graphc.func import vmap
from graphc.ir.graph import Graph
from graphc.ir.op import Op
from graphc.ir.text import parse_graph
from graphc.pipeline import optimise
from graphc.schedule.schedule import schedule

functional = graphc.nn.functional


def arrays_for(graph: Graph) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal([int(d) for d in v.shape]).astype(v.dtype.numpy) for v in graph.inputs]  # type: ignore[arg-type]


def panels(x: str, p: str, how: str, out: str) -> Graph:
    return parse_graph(
        f"graph @f(%x: f32[{x}], %p: f32[{p}], %s: f32[{out.split(', ')[-1]}], %r: f32[{out}]) {{\n"
        f"  %0 = {how} : f32[{out}]\n"
        f"  %1 = mul(%0, %s) : f32[{out}]\n  %2 = add(%1, %r) : f32[{out}]\n  %3 = relu(%2) : f32[{out}]\n  return %3\n}}"
    )


def last(kernel: str, stride: int, before: int, places: str, columns: int, groups: int = 1) -> str:
    return (
        f"convolution_panels(%x, %p, kernel=({kernel}), stride=({stride}, {stride}), before=({before}, {before}), "
        f"places=({places}), dilation=(1, 1), groups={groups}, columns={columns})"
    )


def winograd(places: str, columns: int) -> str:
    return f"winograd(%x, %p, before=(1, 1), places=({places}), groups=1, columns={columns})"


def depthwise(stride: int, places: str) -> str:
    return f"depthwise_last(%x, %p, places=({places}), stride=({stride}, {stride}), before=(1, 1), dilation=(1, 1))"


GRAPHS = {
    "bands": panels("2, 30, 17, 5", "1, 2, 45, 32", last("3, 3", 1, 1, "30, 17", 40), "2, 30, 17, 40"),
    "strided": panels("1, 29, 40, 3", "1, 1, 75, 16", last("5, 5", 2, 2, "15, 20", 16), "1, 15, 20, 16"),
    "short rows": panels("3, 7, 7, 8", "1, 1, 72, 32", last("3, 3", 1, 1, "7, 7", 32), "3, 7, 7, 32"),
    "one element": panels("2, 9, 15, 40", "1, 2, 40, 24", last("1, 1", 1, 0, "9, 15", 48), "2, 9, 15, 48"),
    "a wide panel": panels("2, 9, 8, 4", "1, 1, 100, 56", last("5, 5", 1, 2, "9, 8", 50), "2, 9, 8, 50"),
    "groups": panels("1, 10, 9, 12", "3, 1, 36, 4", last("3, 3", 1, 1, "10, 9", 12, 3), "1, 10, 9, 12"),
    "squares": panels("2, 9, 70, 16", "1, 16, 2, 16, 32", winograd("9, 70", 40), "2, 9, 70, 40"),
    "squares of a whole image": panels("2, 13, 14, 16", "1, 16, 3, 16, 16", winograd("13, 14", 48), "2, 13, 14, 48"),
    "blocks of channels": panels("3, 7, 7, 512", "1, 16, 1, 512, 16", winograd("7, 7", 16), "3, 7, 7, 16"),
    "depthwise": panels("2, 20, 33, 24", "3, 3, 24", depthwise(1, "20, 33"), "2, 20, 33, 24"),
    "panels apart": panels("1, 9, 15, 96", "1, 3, 96, 32", last("1, 1", 1, 0, "9, 15", 96), "1, 9, 15, 96"),
    "depthwise strided": panels("1, 21, 40, 5", "3, 3, 5", depthwise(2, "11, 20"), "1, 11, 20, 5"),
    "depthwise by channels": panels("2, 14, 13, 96", "3, 3, 96", depthwise(1, "14, 13"), "2, 14, 13, 96"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_values_and_bits(name: str) -> None:
    graph = GRAPHS[name]
    inputs = arrays_for(graph)
    made = schedule(optimise(graph))
    assert len(made.launches) == 1, "scale, residual and relu ride along"
    wide = run_compiled(graph, inputs, lanes=16)
    assert_close(wide, run_interpreted(graph, inputs), scale=10.0)
    for lanes in (4, 8, 32):
        np.testing.assert_array_equal(run_compiled(graph, inputs, lanes=lanes)[0], wide[0])


def test_python_renderer() -> None:
    for how, x, p, out in (
        (last("2, 2", 1, 1, "4, 16", 6), "1, 4, 16, 2", "1, 2, 8, 4", "1, 4, 16, 6"),
        (winograd("3, 4", 4), "2, 3, 4, 3", "1, 16, 1, 3, 4", "2, 3, 4, 4"),
        (depthwise(1, "3, 16"), "1, 3, 16, 3", "3, 3, 3", "1, 3, 16, 3"),
    ):
        graph = panels(x, p, how, out)
        inputs = arrays_for(graph)
        np.testing.assert_array_equal(run_in_python(graph, inputs)[0], run_compiled(graph, inputs)[0])


def expansion(x: str, width: int, between: str, places: str, stride: int, kernel: int, before: str, keeps: bool = False) -> Graph:
    """A convolution of one by one, and what a depthwise one makes of its results."""
    inner, outer = x.split(", ")[-1], between.split(", ")[-1]
    out = f"{x.split(', ')[0]}, {places}, {outer}"
    panels = f"1, {-(-int(outer) // width)}, {inner}, {width}"
    sizes = ", ".join(between.split(", ")[1:3])
    one = f"kernel=(1, 1), stride=(1, 1), before=(0, 0), places=({sizes}), dilation=(1, 1), groups=1, columns={outer}"
    two = f"places=({places}), stride=({stride}, {stride}), before=({before}), dilation=(1, 1)"
    return parse_graph(
        f"graph @f(%x: f32[{x}], %p: f32[{panels}], %s: f32[{outer}], %k: f32[{kernel}, {kernel}, {outer}], %r: f32[{out}]) {{\n"
        f"  %0 = convolution_panels(%x, %p, {one}) : f32[{between}]\n"
        f"  %1 = mul(%0, %s) : f32[{between}]\n  %2 = relu(%1) : f32[{between}]\n"
        f"  %3 = depthwise_last(%2, %k, {two}) : f32[{out}]\n  %4 = add(%3, %r) : f32[{out}]\n"
        f"  return %4{', %2' if keeps else ''}\n}}"
    )


EXPANSIONS = {
    "same size": expansion("2, 32, 25, 8", 32, "2, 32, 25, 96", "32, 25", 1, 3, "1, 1"),
    "strided": expansion("1, 75, 65, 5", 16, "1, 75, 65, 48", "38, 33", 2, 3, "1, 1"),
    "part of a panel": expansion("1, 27, 25, 20", 32, "1, 27, 25, 240", "26, 25", 1, 5, "1, 2"),
}


@pytest.mark.parametrize("name", EXPANSIONS)
def test_expansion(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = EXPANSIONS[name]
    inputs = arrays_for(graph)
    assert len(schedule(optimise(graph)).launches) == 1
    narrow, wide = (run_compiled(graph, inputs, lanes=lanes)[0] for lanes in (4, 16))
    monkeypatch.setattr("graphc.schedule.expansion.LEAST_NBYTES", 1 << 40)
    assert len(schedule(optimise(graph)).launches) == 2
    apart = run_compiled(graph, inputs)[0]
    np.testing.assert_array_equal(narrow, apart)
    np.testing.assert_array_equal(wide, apart)


def test_expansion_that_others_read() -> None:
    graph = expansion("2, 32, 25, 8", 32, "2, 32, 25, 96", "32, 25", 1, 3, "1, 1", keeps=True)
    assert len(schedule(optimise(graph)).launches) == 2


def test_expansion_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.schedule.expansion.LEAST_NBYTES", 0)
    graph = expansion("1, 4, 3, 2", 16, "1, 4, 3, 96", "2, 2", 2, 3, "1, 1")
    inputs = arrays_for(graph)
    assert len(schedule(optimise(graph)).launches) == 1
    np.testing.assert_array_equal(run_in_python(graph, inputs)[0], run_compiled(graph, inputs)[0])


@pytest.mark.parametrize("how", [{}, {"groups": 2, "stride": 2}, {"padding": 1}])
def test_examples_with_filters_of_their_own(how: dict[str, int]) -> None:
    x, w = graphc.randn(3, 2, 16, 7, 6), graphc.randn(3, 20, 16 // how.get("groups", 1), 3, 3)
    apart = [functional.conv2d(x[i], w[i], **how) for i in range(3)]
    assert graphc.equal(vmap(lambda a, b: functional.conv2d(a, b, **how))(x, w), graphc.stack(apart))


@pytest.mark.parametrize("channels", [(16, 16), (3, 40)])
def test_images_do_not_meet(channels: tuple[int, int]) -> None:
    x, w = graphc.randn(9, channels[0], 7, 7), graphc.randn(channels[1], channels[0], 3, 3)
    whole = graphc.compile(lambda t: functional.conv2d(t, w, padding=1))(x)
    assert graphc.equal(whole[4:5], functional.conv2d(x[4:5], w, padding=1))


TAPS = {"kernel": (5, 3), "shape": (9, 8), "before": (1, 0), "dilation": (1, 2), "channels": 7}


def taps(images: int, outer: int) -> Graph:
    """Of gradients as they are, and of others that lie in another order."""
    how = ", ".join(f"{name}={value}" for name, value in TAPS.items())
    g, p, out = f"f32[{images}, 7, 4, {outer}]", f"f32[4, {outer}, 32]", f"f32[{images}, 9, 8, 7]"
    return parse_graph(
        f"graph @f(%g: {g}, %h: f32[{images}, 4, 7, {outer}], %p: {p}) {{\n"
        f"  %0 = permute(%h, dims=(0, 2, 1, 3)) : {g}\n"
        f"  %1 = taps_product(%g, %p, {how}) : {out}\n  %2 = taps_product(%0, %p, {how}) : {out}\n  return %1, %2\n}}"
    )


def test_products_with_a_kernel() -> None:
    graph = taps(3, 33)
    inputs = arrays_for(graph)
    inputs[1] = np.ascontiguousarray(inputs[0].transpose(0, 2, 1, 3))
    wide = run_compiled(graph, inputs, lanes=16)
    assert_close(wide, run_interpreted(graph, inputs), scale=10.0)
    np.testing.assert_array_equal(wide[0], wide[1])
    np.testing.assert_array_equal(run_compiled(graph, inputs, lanes=4)[0], wide[0])
    small = taps(1, 2)
    inputs = arrays_for(small)
    np.testing.assert_array_equal(run_in_python(small, inputs)[1], run_compiled(small, inputs)[1])


def test_products_of_examples_with_panels_of_their_own() -> None:
    product, g, p = Op.table["taps_product"], graphc.randn(3, 2, 7, 4, 33), graphc.randn(3, 4, 33, 32)
    apart = [product.run(g[i], p[i], **TAPS) for i in range(3)]
    assert graphc.equal(vmap(lambda a, b: product.run(a, b, **TAPS))(g, p), graphc.stack(apart))


def test_gradients_of_images_do_not_meet() -> None:
    """Of few images they are a product and its elements added, of many one kernel."""
    x, w, g = graphc.randn(9, 6, 8, 8), graphc.randn(20, 6, 5, 5), graphc.randn(9, 20, 4, 4)

    @graphc.compile
    def gradient(x: graphc.Tensor, g: graphc.Tensor) -> graphc.Tensor:
        x = x.detach().requires_grad_()
        (found,) = graphc.autograd.grad(functional.conv2d(x, w), x, g)
        return found

    whole = gradient(x, g)
    assert "taps_product" in gradient.explain()
    for one in (gradient(x[4:5], g[4:5]), gradient(x[4:6], g[4:6])[:1]):
        assert graphc.equal(whole[4:5], one)


@pytest.mark.parametrize(("channels", "stride"), [(600, 1), (600, 2), (16, 1)])
def test_very_wide_images(channels: int, stride: int) -> None:
    x, w = graphc.randn(1, channels, 3, 640), graphc.randn(16 if channels == 16 else 2, channels, 3, 3) / channels
    how = {"stride": (1, stride), "before": (1, 2), "after": (1, 1), "dilation": (1, 1), "groups": 1}
    out = Op.table["convolution"].run(x, w, **how)
    assert_close(out.numpy(), Op.table["convolution"].reference(np, x.numpy(), w.numpy(), **how))
