"""A whole program for the device: one source and the launches that run it, as data.

Enters: launches (kernel name, table slot of each parameter), the kernels they name.  Leaves: `Program`.
Never here: addresses, a driver, who owns the buffers.

The table is that of the CPU program: slot 0 the status word's address, slot 1 nothing, then buffer addresses and sizes.
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.cuda.mapping import Mapping, map_kernel, parallel_extent
from graphc.codegen.cuda.prelude import PRELUDE
from graphc.codegen.cuda.render import render
from graphc.codegen.mathlib import expand
from graphc.dims import Size, evaluate
from graphc.ir.loops import Check, ControlStep, HostStep, Kernel, KernelStep, walk


@dataclass(frozen=True, slots=True)
class Launch:
    """One run of a function.

    Its arguments: the table's `slots` in their order (buffers by address, sizes by value), the status word's address,
    and the parallel extent.  `checks`: it may leave a failure in the status word, and then nothing after it may run, so
    that states stay as they were.
    """

    function: str
    slots: tuple[int, ...]
    extent: Size
    mapping: Mapping
    checks: bool

    def geometry(self, sizes: Table[str, int], processors: int) -> tuple[int, tuple[int, int], tuple[int, int]]:
        """(parallel extent, grid, block) for `sizes` on a device of so many `processors`."""
        extent = evaluate(self.extent, sizes)
        return extent, *self.mapping.launch(extent, sizes, processors)


@dataclass(frozen=True, slots=True)
class Program:
    """`functions`: the text of each, by name.  `launches`: in order, one stream."""

    functions: dict[str, str]
    launches: tuple[Launch, ...]

    @property
    def source(self) -> str:
        """What is compiled, once, with `prelude.NVRTC_OPTIONS`."""
        return "\n".join([PRELUDE, *self.functions.values()])


def render_program(steps: Sequence[KernelStep | HostStep | ControlStep], kernels: Table[str, Kernel]) -> Program:
    """The program of `steps`, each kernel that is launched written once.

    Raises IRError and NotImplementedError as `render.render`; NotImplementedError for an operator that the host runs.
    """
    launches = []
    for step in steps:
        if isinstance(step, HostStep):
            raise NotImplementedError(f"{step.op} runs on the host, and a CUDA program holds only kernels")
        if isinstance(step, ControlStep):
            raise NotImplementedError("a CUDA program launches kernels in order: it has no branches and no loops")
        launches.append(step)
    opened = {step.kernel: expand(kernels[step.kernel]) for step in launches}
    functions = {name: render(kernel) for name, kernel in opened.items()}
    found = {name: (parallel_extent(kernel), map_kernel(kernel), _checks(kernel)) for name, kernel in opened.items()}
    return Program(functions, tuple(Launch(step.kernel, step.slots, *found[step.kernel]) for step in launches))


def _checks(kernel: Kernel) -> bool:
    return any(isinstance(statement, Check) for statement in walk(kernel.body))
