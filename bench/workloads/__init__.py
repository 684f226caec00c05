"""The rows of the benchmark by name, and their groups."""

from __future__ import annotations

from bench.workloads.loops import LOOPS
from bench.workloads.nets import NETS, PERCEPTRONS, PRODUCTS, TRANSFORMERS
from bench.workloads.published import PUBLISHED
from bench.workloads.steps import STEPS
from bench.workloads.workload import Array, Missing, Workload, inputs_of, weight

WORKLOADS: dict[str, Workload] = {
    workload.name: workload for workload in (*LOOPS, *PRODUCTS, *PERCEPTRONS, *TRANSFORMERS, *NETS, *PUBLISHED, *STEPS)
}
GROUPS: dict[str, list[str]] = {}
for _workload in WORKLOADS.values():
    GROUPS.setdefault(_workload.group, []).append(_workload.name)

__all__ = ["Array", "Missing", "Workload", "WORKLOADS", "GROUPS", "inputs_of", "weight"]
