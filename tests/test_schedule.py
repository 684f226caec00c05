"""Partition, lowering and placement, from graph text to kernels; every schedule is also run through the Python renderer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc.ops  # noqa: F401  the table that graph text names
from graph_cases import run_host_launch
from graphc.codegen import python
from graphc.ir.graph import Graph
from graphc.ir.interp import interpret
from graphc.ir.loops import Alloc, For, walk
from graphc.ir.text import parse_graph
from graphc.pipeline import build, optimise
from graphc.schedule import schedule as scheduling
from graphc.schedule.host import HostLaunch
from graphc.schedule.memory import Interval, assign_offsets
from graphc.schedule.schedule import Schedule, schedule


def arrays_for(graph: Graph, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    made = []
    for value in graph.inputs:
        shape = tuple(int(d) for d in value.shape)  # type: ignore[arg-type]
        made.append(rng.standard_normal(shape).astype(value.dtype.numpy) if value.dtype.kind == "f" else rng.integers(0, 3, shape))
    return made


def run_schedule(made: Schedule, inputs: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """Every launch through the Python renderer; places decide which buffers are one."""
    graph = made.graph
    memory: dict[Any, np.ndarray[Any, Any]] = {}
    arena = np.zeros(made.arena_nbytes + 64, np.uint8)

    def buffer(value: Any) -> np.ndarray[Any, Any]:
        place = made.places[value]
        count = int(np.prod(value.shape, dtype=int))
        if place.kind == "arena":
            return arena[place.index : place.index + count * value.dtype.itemsize].view(value.dtype.numpy)
        if place not in memory:
            memory[place] = inputs[place.index].ravel().copy() if place.kind == "input" else np.zeros(count, value.dtype.numpy)
        return memory[place]

    for launch in made.launches:
        if isinstance(launch, HostLaunch):
            run_host_launch(launch, buffer)
            continue
        named = {p.name: buffer(v) for p, v in zip(launch.kernel.params, launch.buffers, strict=True)}
        assert python.run(launch.kernel, named, {}) == 0
    return [
        next(memory[p] for p in memory if p.kind == "output" and p.index == i).reshape(v.shape) for i, v in enumerate(graph.outputs)
    ]


def check(text: str) -> Schedule:
    graph = parse_graph(text)
    inputs = arrays_for(graph)
    made = schedule(optimise(graph))
    wanted, _ = interpret(graph, inputs)
    for got, want in zip(run_schedule(made, inputs), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)
    return made


CHAIN = """
graph @chain(%x: f32[6, 7, 5]) {
  %0 = permute(%x, dims=(2, 0, 1)) : f32[5, 6, 7]
  %1 = exp(%0) : f32[5, 6, 7]
  %2 = reduce_sum(%1, dim=0) : f32[6, 7]
  %3 = tanh(%2) : f32[6, 7]
  %4 = permute(%3, dims=(1, 0)) : f32[7, 6]
  %5 = mul(%4, %4) : f32[7, 6]
  return %5
}
"""


def test_elementwise_reduce_elementwise_with_permutes_is_one_kernel_without_temporaries() -> None:
    made = check(CHAIN)
    assert len(made.launches) == 1
    assert made.arena_nbytes == 0 and not made.temporaries
    assert not any(isinstance(s, Alloc) for s in walk(made.launches[0].kernel.body))
    assert not made.unfused


def test_the_fused_chain_renders_on_both_backends() -> None:
    from graphc.codegen.cuda.render import render as render_cuda
    from graphc.codegen.llvm.render import render as render_llvm
    from graphc.codegen.mathlib import expand

    kernel = schedule(optimise(parse_graph(CHAIN))).launches[0].kernel
    assert "__global__" in render_cuda(kernel)
    assert f"@{kernel.name}(" in render_llvm(expand(kernel), 8)


SOFTMAX = """
graph @rows(%x: f32[{rows}, {columns}]) {{
  %0 = softmax(%x, dim={dim}) : f32[{rows}, {columns}]
  return %0
}}
"""


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("shape", [(7, 50), (50, 7), (1, 33), (40, 1), (3, 4100), (4100, 5)])
def test_softmax_is_one_kernel_in_either_direction(shape: tuple[int, int], dim: int) -> None:
    made = check(SOFTMAX.format(rows=shape[0], columns=shape[1], dim=dim))
    assert len(made.launches) == 1 or shape[dim] == 1


def test_pointwise_over_one_shape_is_flat_and_blocked() -> None:
    made = check("graph @f(%x: f32[40, 300], %y: f32[40, 300]) {\n  %0 = add(%x, %y) : f32[40, 300]\n  return %0\n}")
    (launch,) = made.launches
    (parallel,) = launch.kernel.body
    assert isinstance(parallel, For) and parallel.extent == 3


def test_bias_gradient_rides_with_its_producer() -> None:
    made = check(
        "graph @f(%g: f32[64, 40], %y: f32[64, 40]) {\n  %0 = mul(%g, %y) : f32[64, 40]\n"
        "  %1 = reduce_sum(%0, dim=0) : f32[40]\n  return %0, %1\n}"
    )
    assert len(made.launches) == 1


def test_two_chains_that_meet_are_one_kernel() -> None:
    made = check(
        "graph @f(%x: f32[9, 9], %y: f32[9, 9]) {\n  %0 = exp(%x) : f32[9, 9]\n  %1 = sin(%y) : f32[9, 9]\n"
        "  %2 = add(%0, %1) : f32[9, 9]\n  return %0, %1, %2\n}"
    )
    assert len(made.launches) == 1


def test_a_cycle_through_a_matmul_is_not_fused() -> None:
    made = check(
        "graph @f(%x: f32[8, 8], %w: f32[8, 8]) {\n  %0 = exp(%x) : f32[8, 8]\n  %1 = matmul(%0, %w) : f32[8, 8]\n"
        "  %2 = add(%0, %1) : f32[8, 8]\n  return %2\n}"
    )
    assert [launch.note.split(",")[0] for launch in made.launches] == ["pointwise", "matmul"]


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (13, 10, 7), (6, 16, 4), (32, 48, 20), (7, 33, 600), (250, 17, 3)])
def test_matmul_with_epilogue(m: int, n: int, k: int) -> None:
    made = check(
        f"graph @f(%x: f32[{m}, {k}], %w: f32[{n}, {k}], %b: f32[{n}]) {{\n  %0 = permute(%w, dims=(1, 0)) : f32[{k}, {n}]\n"
        f"  %1 = matmul(%x, %0) : f32[{m}, {n}]\n  %2 = add(%1, %b) : f32[{m}, {n}]\n  %3 = tanh(%2) : f32[{m}, {n}]\n"
        "  return %1, %3\n}"
    )
    assert len(made.launches) == 1


def test_an_optimizer_updates_where_the_gradient_is_made() -> None:
    made = check(
        "graph @f(%x: f32[30, 20], %g: f32[30, 40], state %m: f32[20, 40], state %w: f32[20, 40]) {\n"
        "  %0 = permute(%x, dims=(1, 0)) : f32[20, 30]\n  %1 = matmul(%0, %g) : f32[20, 40]\n"
        "  %2 = full(value=0.5, shape=(), dtype=f32) : f32[]\n  %3 = mul(%m, %2) : f32[20, 40]\n"
        "  %4 = add(%3, %1) : f32[20, 40]\n  %5 = mul(%4, %2) : f32[20, 40]\n  %6 = sub(%w, %5) : f32[20, 40]\n"
        "  %7 = reduce_sum(%x, dim=0) : f32[20]\n  return %7; update %m = %4; update %w = %6\n}"
    )
    assert [launch.note for launch in made.launches] == ["matmul, B packed, epilogue of 4", "columns, 1 passes"]
    assert made.arena_nbytes == 0


def test_an_update_is_written_over_its_state() -> None:
    made = check(
        "graph @f(%g: f32[30, 20], state %w: f32[30, 20]) {\n  %0 = sub(%w, %g) : f32[30, 20]\n"
        "  %1 = reduce_sum(%g, dim=1) : f32[30]\n"
        "  return %1; update %w = %0\n}"
    )
    assert made.arena_nbytes == 0 and made.written == (1,)


def test_an_update_whose_old_value_is_returned_is_copied_last() -> None:
    made = check("graph @f(state %w: f32[4, 4]) {\n  %0 = neg(%w) : f32[4, 4]\n  return %w; update %w = %0\n}")
    assert made.launches[-1].note == "copy" and made.arena_nbytes == 64


STEP = """graph @step(%g: f32[8, 6], state %a: f32[8, 6], state %b: f32[6], state %c: f32[4096]) {
  %0 = reduce_sum(%g, dim=0) : f32[6]
  %1 = add(%a, %g) : f32[8, 6]
  %2 = neg(%0) : f32[6]
  %3 = add(%b, %2) : f32[6]
  %4 = exp(%c) : f32[4096]
  %5 = permute(%g, dims=(1, 0)) : f32[6, 8]
  %6 = matmul(%g, %5) : f32[8, 8]
  return %6; update %a = %1; update %b = %3; update %c = %4
}"""


def test_small_launches_that_touch_nothing_of_one_another_run_together() -> None:
    made = check(STEP)
    assert len(made.joined) >= 2
    touched: dict[Any, str] = {}
    for i, launch in enumerate(made.launches):
        assert not isinstance(launch, HostLaunch)
        if i not in made.joined:
            touched = {}
        for param, value in zip(launch.kernel.params, launch.buffers, strict=False):
            place = made.places[value]
            assert param.role == "in" or place not in touched
            assert touched.get(place, "in") == "in"
        touched |= {made.places[v]: p.role for p, v in zip(launch.kernel.params, launch.buffers, strict=False)}


def test_what_waits_for_another_does_not_join_it() -> None:
    made = check("graph @f(%x: f32[4, 4]) {\n  %0 = matmul(%x, %x) : f32[4, 4]\n  %1 = matmul(%0, %x) : f32[4, 4]\n  return %1\n}")
    assert len(made.launches) >= 2 and made.joined == frozenset()


def test_every_unfused_edge_has_a_reason() -> None:
    made = check(
        "graph @f(%x: f32[8, 6]) {\n  %0 = exp(%x) : f32[8, 6]\n  %1 = reshape(%0, shape=(6, 8)) : f32[6, 8]\n"
        "  %2 = permute(%x, dims=(1, 0)) : f32[6, 8]\n  %3 = add(%1, %2) : f32[6, 8]\n  return %3, %0\n}"
    )
    assert [u.reason for u in made.unfused] == ["its elements are read in another order"]


def test_arena_offsets_never_overlap_while_alive() -> None:
    rng = np.random.default_rng(1)
    intervals = [Interval(int(n), int(s), int(s + d)) for n, s, d in zip(*(rng.integers(1, 500, (3, 60)))[:, :], strict=True)]
    offsets, total = assign_offsets(intervals)
    for i, a in enumerate(intervals):
        assert offsets[i] % 64 == 0 and offsets[i] + a.nbytes <= total
        for j, b in enumerate(intervals[:i]):
            if a.start <= b.end and b.start <= a.end:
                assert offsets[i] + a.nbytes <= offsets[j] or offsets[j] + b.nbytes <= offsets[i]


def test_states_that_trade_places_do_so_through_a_copy() -> None:
    graph = parse_graph(
        "graph @swap(state %a: f32[5], state %b: f32[5]) {\n  %0 = neg(%a) : f32[5]\n  return %0; update %a = %b; update %b = %a\n}"
    )
    inputs = arrays_for(graph)
    program = build(graph, use_cache=False).link()
    a, b, out = inputs[0].copy(), inputs[1].copy(), np.zeros(5, np.float32)
    program([x.__array_interface__["data"][0] for x in (a, b)], [out.__array_interface__["data"][0]])
    np.testing.assert_array_equal(a, inputs[1])
    np.testing.assert_array_equal(b, inputs[0])
    np.testing.assert_array_equal(out, -inputs[0])


def test_one_place_of_a_row_that_is_kept_in_scratch() -> None:
    """Columns of a row that is kept are read outside the loop over it: as in the gradient of ``(x / x.sum(-1, True))[:, 0]``."""
    check("""graph @f(%total: f32[3, 1], %quotient: f32[3, 2], %g: f32[3]) {
      %0 = full(value=0, shape=(3, 2), dtype=f32) : f32[3, 2]
      %1 = reshape(%g, shape=(3, 1)) : f32[3, 1]
      %2 = slice_scatter(%0, %1, starts=(0, 0), stops=(3, 1), steps=(1, 1)) : f32[3, 2]
      %3 = div(%2, %total) : f32[3, 2]
      %4 = mul(%3, %quotient) : f32[3, 2]
      %5 = sum(%4, dims=(1,), keepdim=false) : f32[3]
      %6 = reshape(%5, shape=(3, 1)) : f32[3, 1]
      %7 = expand(%6, shape=(3, 2)) : f32[3, 2]
      %8 = sub(%3, %7) : f32[3, 2]
      %9 = slice(%8, starts=(0, 0), stops=(3, 1), steps=(1, 1)) : f32[3, 1]
      %10 = squeeze(%9, dims=(1,)) : f32[3]
      %11 = mul(%10, %g) : f32[3]
      return %11
    }""")


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("made", ["%x", "%y"], ids=["stored", "computed"])
def test_one_place_of_a_dim_is_read_where_it_lies(dim: int, place: int, made: str) -> None:
    """As in ``x[:, 0] * 2`` and, of a value that the program makes, ``y = exp(x); y, y[:, 0] * 2``."""
    starts = tuple(place if d == dim else 0 for d in range(3))
    stops = tuple(place + 1 if d == dim else size for d, size in enumerate((4, 2, 5)))
    kept = [b - a for a, b in zip(starts, stops, strict=True)]
    left = ", ".join(map(str, kept[:dim] + kept[dim + 1 :]))
    check(f"""graph @f(%x: f32[4, 2, 5]) {{
      %y = exp(%x) : f32[4, 2, 5]
      %0 = slice({made}, starts={starts}, stops={stops}, steps=(1, 1, 1)) : f32{kept}
      %1 = squeeze(%0, dims=({dim},)) : f32[{left}]
      %2 = add(%1, %1) : f32[{left}]
      return %2, %y
    }}""")


LAYERS = """graph @layers(%x: f32[8, 16], state %a: f32[16, 16], state %b: f32[16, 16], %c: f32[8, 16], %i: i64[8, 16]) {
  %0 = matmul(%x, %a) : f32[8, 16]
  %1 = relu(%0) : f32[8, 16]
  %2 = sum(%1, dims=(1,), keepdim=true) : f32[8, 1]
  %3 = add(%1, %2) : f32[8, 16]
  %4 = matmul(%3, %b) : f32[8, 16]
  %5 = relu(%4) : f32[8, 16]
  %6 = sum(%5, dims=(1,), keepdim=true) : f32[8, 1]
  %7 = add(%5, %6) : f32[8, 16]
  %8 = gather(%7, %i, dim=1) : f32[8, 16]
  %9 = gather(%c, %i, dim=1) : f32[8, 16]
  return %7, %8, %9
}
"""


def test_equal_layers_are_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = optimise(parse_graph(LAYERS))
    for line, node in enumerate(graph.nodes):
        node.location = ("model.py", line)
    lowered: list[str] = []
    for name in ("lower_region", "lower_anchor"):
        original = getattr(scheduling, name)

        def noted(group: Any, context: Any, original: Any = original) -> Any:
            lowered.append(group.members[0].op.name)
            return original(group, context)

        monkeypatch.setattr(scheduling, name, noted)
    made = schedule(graph)
    assert lowered.count("matmul") == 1
    products = [launch for launch in made.launches if launch.members[0].op.name == "matmul"]
    assert len(products) == 2 and products[0].kernel is products[1].kernel and products[0].buffers != products[1].buffers
    assert len({message for message in made.messages if message.startswith("gather") or "gather:" in message}) == 2  # a line each
    inputs = arrays_for(graph)
    for got, wanted in zip(run_schedule(made, inputs), interpret(graph, inputs)[0], strict=True):
        np.testing.assert_allclose(got.reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-5)
