"""The rows of the benchmark by name, and their groups."""

from __future__ import annotations

from collections.abc import Sequence

from bench.workloads.loops import LOOPS
from bench.workloads.nets import NETS, PERCEPTRONS, PRODUCTS, TRANSFORMERS
from bench.workloads.published import PUBLISHED
from bench.workloads.steps import STEPS
from bench.workloads.workload import Array, Missing, Workload, generator, inputs_of, weights_of

WORKLOADS: dict[str, Workload] = {
    workload.name: workload for workload in (*LOOPS, *PRODUCTS, *PERCEPTRONS, *TRANSFORMERS, *NETS, *PUBLISHED, *STEPS)
}
GROUPS: dict[str, list[str]] = {}
for _workload in WORKLOADS.values():
    GROUPS.setdefault(_workload.group, []).append(_workload.name)


def chosen(names: Sequence[str]) -> list[str]:
    """Rows by their names or groups, in the table's order; all of no names.  Raises KeyError."""
    wanted = {row for name in names for row in (GROUPS.get(name) or [WORKLOADS[name].name])}
    return [name for name in WORKLOADS if name in wanted or not names]


__all__ = ["Array", "Missing", "Workload", "WORKLOADS", "GROUPS", "chosen", "generator", "inputs_of", "weights_of"]
