"""Graphs lowered to CUDA programs, and those run by the shim."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuda import shim
from graph_cases import Array
from graphc.codegen.cuda.prelude import PRELUDE
from graphc.codegen.cuda.program import Program, render_program
from graphc.ir.graph import Graph
from graphc.pipeline import lay_out, optimise
from graphc.runtime.plan import Plan
from graphc.schedule.schedule import schedule


@dataclass(frozen=True)
class Lowered:
    """What one graph became: where its buffers go, and its launches."""

    plan: Plan
    program: Program

    def run(
        self, library: ctypes.CDLL, inputs: Sequence[Array], order: int, sizes: Mapping[str, int] | None = None
    ) -> tuple[list[Array], list[Array], int]:
        """(outputs, inputs as it leaves them, status) from the shim."""
        return shim.run_program(library, self.program, self.plan, inputs, order, sizes)


def lower(graph: Graph) -> Lowered:
    """`graph` through the same passes and schedule as for the CPU."""
    kernels, launches, plan = lay_out(schedule(optimise(graph)))
    return Lowered(plan, render_program(launches, kernels))


def source_of(programs: Sequence[Lowered]) -> tuple[str, list[str]]:
    """One source of all kernels of `programs`, equal ones once, and their names."""
    texts: dict[str, str] = {}
    for program in programs:
        texts |= program.program.functions
    return "\n".join([PRELUDE, *texts.values()]), list(texts)


def library_of(programs: Sequence[Lowered], cache: Path) -> ctypes.CDLL:
    """All kernels of `programs`, compiled at once for the shim; ends the test where there is no g++."""
    return shim.build(*source_of(programs), cache)
