"""Random graphs, scheduled, rendered as CUDA and run launch by launch by the shim: the bits of the compiled CPU program and
of eager calls.

Both backends render the same loops from the same definitions, so nothing is compared by tolerance.  All kernels of all
programs are one source, compiled by g++ once.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from cuda import shim
from cuda.lowered import Lowered, library_of, lower, source_of
from cuda.nvrtc import Nvrtc
from graph_cases import assert_same_bits, parse_graph, run_compiled
from graphc.codegen.cuda.prelude import NVRTC_OPTIONS
from graphc.dtypes import DType, float32, int64
from graphc.ir.graph import Value
from random_programs import RandomProgram
from test_random_programs import run_eagerly

SEEDS = range(5000, 5012)


SHAPES = ((33, 70), (5, 4100), (3, 17, 40), (130,), (8, 2, 33), (64, 64))


class WideProgram(RandomProgram):
    """Random programs of more operators (composites, indices, integers, truth) over larger tensors, nothing left unused."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, steps=16)
        used = {v for value in self.values if value.node is not None for v in value.node.inputs}
        outputs = [v for v in self.values if v.node is not None and v not in used]
        self.graph = self.builder.graph(f"random{seed}", self.inputs, dict.fromkeys(outputs))

    def new_input(self, shape: tuple[int, ...] | None = None, dtype: DType | None = None) -> Value:
        return super().new_input(SHAPES[self.rng.integers(len(SHAPES))] if shape is None else shape, dtype)

    def value(self) -> Value:
        """A recent value that has more than a few elements."""
        large = [v for v in self.values if self.size(v) > 8]
        return large[-min(int(self.rng.geometric(0.3)), len(large))]

    def step_layer_norm(self) -> Value:
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        return self.tame(self.public("layer_norm", x, (x.shape[-1],)))

    def step_linear(self) -> Value:
        """A product with an epilogue."""
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        rows, inner = int(self.rng.choice((3, 17, 40))), int(x.shape[-1])  # type: ignore[arg-type]
        weight, bias = self.new_input((rows, inner), x.dtype), self.new_input((rows,), x.dtype)
        return self.tame(self.public("gelu", self.public("linear", x, weight, bias)))

    def step_embedding(self) -> Value:
        table = self.new_input((9, int(self.rng.choice((5, 33)))), float32)
        return self.public("embedding", self.places((2, 3), 9), table)

    def step_gather(self) -> Value:
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        dim = int(self.rng.integers(x.ndim))
        index = self.places(tuple(int(n) for n in x.shape), int(x.shape[dim]))  # type: ignore[arg-type]
        return self.public("gather", x, dim, index)

    def step_scatter_add(self) -> Value:
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        dim = int(self.rng.integers(x.ndim))
        index = self.places(tuple(int(n) for n in x.shape), int(x.shape[dim]))  # type: ignore[arg-type]
        return self.tame(self.public("scatter_add", x, dim, index, self.run("neg", x)))

    def step_integers(self) -> Value:
        """Division and remainder of i64, an order between them, back to a float."""
        shape = tuple(int(n) for n in self.value().shape)  # type: ignore[arg-type]
        a, b = self.places(shape, 50), self.places(shape, 7)
        total = self.public("add", self.public("floor_divide", a, b), self.public("remainder", self.run("neg", a), b))
        chosen = self.run("where", self.public("lt", a, total), total, b)
        running = self.public("cumsum", chosen, 0) if shape else chosen
        return self.tame(self.run("cast", running, dtype=float32))

    def places(self, shape: tuple[int, ...], below: int) -> Value:
        """A new input of i64 in range(below), not for arithmetic."""
        index = self.new_input(shape, int64)
        self.values.pop()
        self.limits[index] = below
        return index


@pytest.fixture(scope="module")
def random_programs() -> dict[int, tuple[WideProgram, Lowered]]:
    made = {}
    for seed in SEEDS:
        program = WideProgram(seed)
        made[seed] = program, lower(program.graph)
    return made


@pytest.fixture(scope="module")
def library(
    random_programs: dict[int, tuple[WideProgram, Lowered]], request: pytest.FixtureRequest
) -> ctypes.CDLL:
    assert request.config.cache is not None
    return library_of([lowered for _, lowered in random_programs.values()], request.config.cache.mkdir("cuda_shim"))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_program_has_the_bits_of_the_cpu(
    random_programs: dict[int, tuple[WideProgram, Lowered]], library: ctypes.CDLL, seed: int
) -> None:
    program, lowered = random_programs[seed]
    inputs = program.arrays()
    wanted = run_compiled(program.graph, inputs)
    assert_same_bits(run_eagerly(program.graph, inputs), wanted, f"{program.graph}\neager")
    for order in shim.SCHEDULES:
        assert_same_bits(lowered.run(library, inputs, order), wanted, f"{program.graph}\nschedule {order}")


def test_the_programs_reach_what_they_are_for(random_programs: dict[int, tuple[WideProgram, Lowered]]) -> None:
    """Operators and dtypes that some node of some program has, and kernels of every mapping."""
    nodes = [node for program, _ in random_programs.values() for node in program.graph.nodes]
    assert {node.op.name for node in nodes} >= {
        *("softmax", "layer_norm", "gelu", "matmul", "linear", "gather", "embedding", "cumsum", "scatter_add"),
        *("permute", "slice", "cat", "where", "floor_divide", "remainder", "index_select"),
    }
    assert {value.dtype.short for node in nodes for value in (*node.inputs, *node.outputs)} >= {
        *("f32", "f64", "f16", "bf16", "i64", "bool"),
    }
    launches = [launch for _, lowered in random_programs.values() for launch in lowered.program.launches]
    assert {launch.mapping.shape for launch in launches} == {"thread", "rectangle", "warp"}
