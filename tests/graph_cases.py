"""What graph tests share: random inputs, equality of bits, and running one graph in several ways."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import graphc.ops  # noqa: F401  (fills Op.table)
from graphc import dtypes
from graphc.dims import evaluate
from graphc.dtypes import DType
from graphc.ir.graph import Graph, Value
from graphc.ir.host import on_host
from graphc.ir.interp import interpret
from graphc.ir.text import parse_graph, print_graph
from graphc.ir.verify import verify
from graphc.pipeline import Options, build
from graphc.schedule.host import HostLaunch

Array = np.ndarray

SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 2.0, 0.5, 1e-40, -1e-40, 5e-324, 1e-7, 65504.0, 3e38, -1.5)
SPECIAL_INTEGERS = (0, 1, -1, 2, -2, 7, 100, -128, -(2**15), 2**15 - 1, 127, 255, 2**24 + 1, 2**31 - 1, -(2**31), 2**32 - 1,
                    2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1)  # fmt: skip


def special_values(dtype: DType) -> Array:
    """Edge values of a dtype: signed zeros, infinities, NaN, denormals; or the ends of an integer's range."""
    if dtype.kind == "f":
        with np.errstate(all="ignore"):
            return np.array(SPECIAL).astype(dtype.compute.numpy).astype(dtype.numpy)
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind == "c":
        return np.array([0.0, -0.0, 1.0, -1.5j, 2.0 - 1.0j, complex(np.inf, 0.0), complex(np.nan, 1.0)], dtype.numpy)
    info = np.iinfo(dtype.numpy)
    return np.array([v for v in SPECIAL_INTEGERS if info.min <= v <= info.max], dtype.numpy)


def random_array(rng: np.random.Generator, dtype: DType, shape: Sequence[int], special: bool = False) -> Array:
    """Small random values, every third one an edge value where `special`."""
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind == "c":
        values = (rng.uniform(-3, 3, shape) + 1j * rng.uniform(-3, 3, shape)).astype(dtype.numpy)
    elif dtype.kind == "f":
        values = rng.uniform(-3, 3, shape).astype(dtype.compute.numpy).astype(dtype.numpy)
    else:
        values = rng.integers(0 if dtype.kind == "u" else -9, 10, shape).astype(dtype.numpy)
    if special:
        edges = special_values(dtype)
        values = np.where(rng.integers(0, 3, shape) == 0, edges[rng.integers(0, len(edges), shape)], values)
    return np.asarray(values, dtype.numpy)


def random_inputs(graph: Graph, seed: int = 0, special: bool = False) -> list[Array]:
    """One array for each input of a graph of known sizes."""
    rng = np.random.default_rng(seed)
    return [random_array(rng, v.dtype, [int(d) for d in v.shape], special) for v in graph.inputs]  # type: ignore[arg-type]


# ---- equality -------------------------------------------------------------------------------------------------------


def bits(array: Any) -> Array:
    """An array as integers of its bits, every NaN the same."""
    array = np.ascontiguousarray(array)
    if array.dtype.kind == "c":  # the bits of both parts, side by side
        array = array.reshape((*array.shape, 1)).view(array.real.dtype)
        return bits(array).view([("real", f"u{array.itemsize}"), ("imag", f"u{array.itemsize}")])[..., 0]
    dtype = dtypes.from_numpy(array.dtype)
    if dtype.kind == "f":
        with np.errstate(all="ignore"):
            array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return np.ascontiguousarray(array).view(f"u{dtype.itemsize}") if dtype.kind != "b" else array.astype(np.uint8)


def same_bits(a: Any, b: Any) -> bool:
    """Equal dtype, shape and bits; NaN is NaN, and -0.0 is not 0.0."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and bool((bits(a) == bits(b)).all())


def assert_same_bits(got: Sequence[Any], wanted: Sequence[Any], what: str = "") -> None:
    """Like `same_bits` for many arrays, with the first difference in the message."""
    assert len(got) == len(wanted), what
    for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{what} result {k}"
        different = np.argwhere(np.atleast_1d(bits(a) != bits(b)))
        if len(different):
            at = tuple(different[0]) if a.ndim else ()
            raise AssertionError(
                f"{what} result {k}: {len(different)} of {a.size} differ, first at {at}: {a[at]!r}, wanted {b[at]!r}"
            )


TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 3e-5, "float64": 1e-10, "complex64": 3e-5, "complex128": 1e-10}


def assert_close(got: Any, wanted: Any, what: str = "", scale: float = 1.0) -> None:
    """Equal dtype and shape, floats within the dtype's tolerance (times `scale`), everything else exactly."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), (
        f"{what}: {got.dtype}{got.shape}, not {wanted.dtype}{wanted.shape}"
    )
    dtype = dtypes.from_numpy(got.dtype)
    if dtype.kind not in "fc":
        assert (got == wanted).all(), f"{what}: {got}, wanted {wanted}"
        return
    tolerance = TOLERANCE[dtype.name] * scale
    wide, expected = (a.astype(np.complex128 if dtype.kind == "c" else np.float64) for a in (got, wanted))
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(wide, expected, rtol=tolerance, atol=tolerance, err_msg=what)


# ---- running --------------------------------------------------------------------------------------------------------


def run_interpreted(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """Outputs, then the new values of updated states."""
    with np.errstate(all="ignore"):
        outputs, updates = interpret(graph, inputs)
    return [*outputs, *updates]


def run_compiled(
    graph: Graph,
    inputs: Sequence[Array],
    lanes: int = 8,
    use_cache: bool = False,
    sizes: Mapping[str, int] | None = None,
) -> list[Array]:
    """Outputs, then the new values of updated states, from native code.  The inputs are copied; `sizes`: of symbols."""
    built = build(graph, Options(lanes=lanes), use_cache=use_cache)
    held = [np.array(a, order="C") for a in inputs]
    outputs = [np.empty([evaluate(d, sizes or {}) for d in v.shape], v.dtype.numpy) for v in graph.outputs]
    named = [(sizes or {})[name] for name in built.plan.sizes]
    built.link()([a.ctypes.data for a in held], [a.ctypes.data for a in outputs], named)
    return [*outputs, *(held[graph.inputs.index(state)] for state, _ in graph.updates)]


def run_host_launch(launch: HostLaunch, buffer: Callable[[Value], Array]) -> None:
    """An operator that the host runs in the middle of a schedule, on flat `buffer`s."""
    operands = [buffer(v).reshape([int(d) for d in v.shape]) for v in launch.inputs]  # type: ignore[arg-type]
    results = on_host(launch.op, operands, launch.attrs, [v.dtype for v in launch.outputs])
    for value, result in zip(launch.outputs, results, strict=True):
        buffer(value)[...] = result.reshape(-1)


def run_in_python(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """Outputs, then the new values of updated states, from the Python renderer of the loop IR, launch by launch."""
    from graphc.codegen import python
    from graphc.codegen.mathlib import expand
    from graphc.pipeline import optimise
    from graphc.schedule.schedule import schedule

    made = schedule(optimise(graph))
    held = [np.array(a, order="C") for a in inputs]
    outputs = [np.empty(tuple(map(int, v.shape)), v.dtype.numpy) for v in graph.outputs]  # type: ignore[arg-type]
    arena = (ctypes.c_char * max(made.arena_nbytes, 1))()

    def buffer(value: Value) -> Array:
        place = made.places[value]
        if place.kind == "arena":
            count = int(np.prod([int(d) for d in value.shape]))  # type: ignore[arg-type]
            return np.frombuffer(arena, value.dtype.numpy, count, place.index)
        return (held if place.kind == "input" else outputs)[place.index].reshape(-1)

    for launch in made.launches:
        if isinstance(launch, HostLaunch):
            run_host_launch(launch, buffer)
            continue
        names = [p.name for p in launch.kernel.params if p.role != "size"]
        buffers = {name: buffer(value) for name, value in zip(names, launch.buffers, strict=True)}
        failed = python.run(expand(launch.kernel), buffers, {})
        assert not failed, made.messages[failed - 1]
    return [*outputs, *(held[graph.inputs.index(state)] for state, _ in graph.updates)]


# ---- passes ---------------------------------------------------------------------------------------------------------


def check_pass(one: Callable[[Graph], Graph], before: str, after: str) -> None:
    """`one` makes the text `after` of the text `before`, and both give the same bits on random and edge inputs."""
    graph = parse_graph(before)
    made = one(graph)
    verify(made)
    wanted = parse_graph(after)
    assert print_graph(made) == print_graph(wanted)
    for seed, special in ((0, False), (1, True)):
        inputs = random_inputs(graph, seed, special)
        assert_same_bits(run_interpreted(wanted, inputs), run_interpreted(graph, inputs), print_graph(wanted))
