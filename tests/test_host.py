"""Operators that the host runs between the kernels of compiled code: bits, errors, files, the cache, threads, symbolic sizes."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from cuda.lowered import lower
from graph_cases import assert_same_bits, parse_graph, random_inputs, run_compiled, run_in_python, run_interpreted
from graphc import saving
from graphc.artifact import files
from graphc.errors import ArtifactError, IRError
from graphc.linalg import LinAlgError
from graphc.pipeline import Options, build, lay_out, optimise
from graphc.runtime.plan import Plan
from graphc.schedule.schedule import schedule

# A host node reads a permuted value, and two of its results are read by kernels and returned.
MIXED = """
graph @mixed(%x: f32[4, 3], %y: f32[3, 3]) {
  %0 = permute(%x, dims=(1, 0)) : f32[3, 4]
  %1 = matmul(%0, %x) : f32[3, 3]
  %2 = add(%1, %y) : f32[3, 3]
  %3, %4 = linalg_qr(%2, mode="reduced") : f32[3, 3], f32[3, 3]
  %5 = permute(%3, dims=(1, 0)) : f32[3, 3]
  %6, %7, %8 = linalg_svd(%5, full_matrices=true) : f32[3, 3], f32[3], f32[3, 3]
  %9 = exp(%4) : f32[3, 3]
  %10 = mul(%9, %7) : f32[3, 3]
  return %10, %3, %6
}"""

CONSTANT = """
graph @constant() {
  %0 = full(value=2.0, shape=(3, 3), dtype=f64) : f64[3, 3]
  %1 = matrix_exp(%0) : f64[3, 3]
  return %1
}"""

COMPLEX = """
graph @numbers(%x: c64[3, 4], %y: f32[4]) {
  %0 = cast(%y, dtype=c64) : c64[4]
  %1 = mul(%x, %0) : c64[3, 4]
  %2 = permute(%1, dims=(1, 0)) : c64[4, 3]
  %3 = abs(%2) : f32[4, 3]
  %4 = exp(%3) : f32[4, 3]
  return %2, %4, %x
}"""

SYMBOLIC = """
graph @symbolic(%x: f64[N, N]) where 2 <= N {
  %0 = mul(%x, %x) : f64[N, N]
  %1 = linalg_inv(%0) : f64[N, N]
  %2 = add(%1, %0) : f64[N, N]
  return %2
}"""

UPDATE = """
graph @update(state %s: f32[2, 2], %x: f32[2, 2]) {
  %0 = add(%s, %x) : f32[2, 2]
  %1 = linalg_inv(%x) : f32[2, 2]
  return %1; update %s = %0
}"""


@pytest.mark.parametrize("text", [MIXED, CONSTANT, COMPLEX], ids=["mixed", "constant", "complex"])
def test_every_way_of_running_a_graph_gives_the_same_bits(text: str) -> None:
    graph = parse_graph(text)
    inputs = random_inputs(graph)
    compiled = run_compiled(graph, inputs)
    assert_same_bits(run_in_python(graph, inputs), compiled, "the Python renderer")
    for lanes in (4, 16):
        assert_same_bits(run_compiled(graph, inputs, lanes=lanes), compiled, f"{lanes} lanes")
    for got, wanted in zip(run_interpreted(graph, inputs), compiled, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [2, 5])
def test_symbolic_sizes_come_from_the_call(size: int) -> None:
    x = np.random.default_rng(size).uniform(1, 2, (size, size)) + 3 * np.eye(size)
    (got,) = run_compiled(parse_graph(SYMBOLIC), [x], sizes={"N": size})
    np.testing.assert_array_equal(got, np.linalg.inv(x * x) + x * x)


def test_a_failed_call_leaves_states_as_they_were() -> None:
    built = build(parse_graph(UPDATE), use_cache=False)
    state, singular, out = np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)
    program = built.link()
    with pytest.raises(LinAlgError, match=r"linalg\.inv: The diagonal element 1 is zero"):
        program([state.ctypes.data, singular.ctypes.data], [out.ctypes.data])
    np.testing.assert_array_equal(state, np.ones((2, 2)))
    program([state.ctypes.data, (singular + np.eye(2, dtype=np.float32)).ctypes.data], [out.ctypes.data])
    np.testing.assert_array_equal(state, np.ones((2, 2)) + np.eye(2))


def test_a_plan_with_host_calls_returns_from_json() -> None:
    _, _, plan = lay_out(schedule(optimise(parse_graph(MIXED))))
    assert [call.op for call in plan.host_calls] == ["linalg_qr", "linalg_svd"]
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.callback_slot == plan.slots - 1


def test_a_plan_without_host_calls_has_no_slot_for_them() -> None:
    _, _, plan = lay_out(schedule(optimise(parse_graph("graph @f(%x: f32[2]) {\n  %0 = exp(%x) : f32[2]\n  return %0\n}"))))
    assert plan.host_calls == () and plan.slots == plan.callback_slot


def test_a_cuda_program_refuses_the_host() -> None:
    with pytest.raises(NotImplementedError, match="linalg_qr runs on the host"):
        lower(parse_graph(MIXED))


def test_text_cannot_hold_what_is_sized_by_elements() -> None:
    with pytest.raises(IRError, match=r"nonzero_places.*the shapes of its results depend on elements"):
        parse_graph("graph @f(%x: f32[2]) {\n  %0 = nonzero_places(%x) : i64[2, 1]\n  return %0\n}")


# ---- compiled functions ----------------------------------------------------------------------------------------------


def solved(x: Any, y: Any) -> Any:
    q, r = graphc.linalg.qr((x @ x.T + y).T)
    return graphc.fft.irfft(graphc.fft.rfft(q.exp())), graphc.linalg.inv(x @ x.T + y) * 2, r.abs().sum(0)


@pytest.fixture
def arguments() -> tuple[Any, Any]:
    graphc.manual_seed(5)
    return graphc.randn(4, 6), graphc.eye(4)


def test_compiled_code_has_eager_bits(arguments: tuple[Any, Any]) -> None:
    compiled = graphc.compile(solved)
    for _ in range(2):
        assert_same_bits([y.numpy() for y in compiled(*arguments)], [y.numpy() for y in solved(*arguments)])
    report = compiled.explain(kernels=False)
    assert "calls of the host" in report and "linalg_qr  on the host" in report and "the host runs it" in report


def test_the_next_process_finds_it_in_the_cache(arguments: tuple[Any, Any]) -> None:
    first, second = graphc.compile(solved), graphc.compile(solved)
    first(*arguments)
    assert_same_bits([y.numpy() for y in second(*arguments)], [y.numpy() for y in first(*arguments)])
    assert second.stats()["cache_hits"] == 1


def test_an_error_names_the_users_line_on_every_way(arguments: tuple[Any, Any]) -> None:
    def inverted(x: Any) -> Any:
        return graphc.linalg.inv(x)

    compiled = graphc.compile(inverted)
    assert_same_bits([compiled(graphc.eye(3)).numpy()], [np.eye(3, dtype=np.float32)])
    for _ in range(3):  # the short way too
        with pytest.raises(LinAlgError, match=r"linalg.inv: .* singular.*\(test_host.py:\d+\)"):
            compiled(graphc.zeros(3, 3))
    assert_same_bits([compiled(graphc.eye(3)).numpy()], [np.eye(3, dtype=np.float32)])


def test_a_file_runs_its_operators_on_the_host(arguments: tuple[Any, Any], tmp_path: Path) -> None:
    compiled = graphc.compile(solved)
    wanted = [y.numpy() for y in compiled(*arguments)]
    compiled.save(tmp_path / "solved.gc")
    loaded = saving.load(tmp_path / "solved.gc")
    assert_same_bits([y.numpy() for y in loaded(*arguments)], wanted)
    with pytest.raises(ArtifactError, match="linalg_qr runs on the host, and nothing was given that runs it"):
        files.load(tmp_path / "solved.gc")


def test_threads_have_their_own_buffers() -> None:
    compiled = graphc.compile(lambda x: graphc.linalg.inv(x + 1))
    compiled(graphc.eye(5))
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            x = (rng.standard_normal((5, 5)) + 9 * np.eye(5)).astype(np.float32)
            if not (compiled(graphc.from_numpy(x)).numpy() == np.linalg.inv(x + np.float32(1))).all():
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_training_through_the_host() -> None:
    graphc.manual_seed(1)
    weight = graphc.randn(4, 4, dtype=graphc.float64).requires_grad_()
    x = graphc.randn(4, 4, dtype=graphc.float64)

    def loss(x: Any) -> Any:
        return (graphc.linalg.solve(weight @ weight.T + graphc.eye(4, dtype=graphc.float64), x) ** 2).sum()

    eager = graphc.autograd.grad(loss(x), weight)[0]
    compiled = graphc.autograd.grad(graphc.compile(loss)(x), weight)[0]
    assert_same_bits([compiled.numpy()], [eager.numpy()])


def test_results_sized_by_elements_are_found_before_the_program() -> None:
    compiled = graphc.compile(lambda x: graphc.nonzero(x) * 2, fullgraph=True)
    np.testing.assert_array_equal(compiled(graphc.tensor([0.0, 1.0, 2.0])).numpy(), [[2], [4]])


def test_options_do_not_matter_to_a_host_call() -> None:
    graph = parse_graph(CONSTANT)
    texts = [build(graph, Options(lanes=lanes), use_cache=False).plan for lanes in (4, 16)]
    assert texts[0] == texts[1]
