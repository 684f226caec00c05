"""``python -m bench bits``: ``graphc verify bits`` of the benchmark's rows, batches of other sizes included.

Enters: names of rows or groups.  Leaves: a line for each, with the table of hashes where bits differ.  Never here: other libraries.

Training rows are compared in outputs, gradients and state, the others in outputs.  A row of one sample is compared as it is, and
again with more samples, which must have the bits of each alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.workloads import WORKLOADS, Missing, Workload, chosen, generator, weights_of
from graphc.cli import counts
from graphc.explain import bits

SAMPLES = 4  # of a row that has one, when it is run in batches


def build(name: str, count: int = 1) -> dict[str, Any]:
    """What `graphc.explain.bits` compares, of a row of which the samples are drawn `count` times."""
    import graphc

    workload = WORKLOADS[name]
    random = generator(workload)
    drawn = [workload.inputs(random) for _ in range(count)]
    inputs = [np.concatenate(parts) if i in workload.samples else parts[0] for i, parts in enumerate(zip(*drawn, strict=True))]
    built: dict[str, Any] = {
        "model": _model(workload), "inputs": tuple(map(graphc.from_numpy, inputs)),
        "outputs": lambda model, *given: model(*given), "samples": workload.samples,
    }  # fmt: skip
    if workload.optimizer:
        kind, options = workload.optimizer
        built["loss"] = built["outputs"]
        built["optimizer"] = lambda parameters: getattr(graphc.optim, kind)(parameters, **options)
    return built


def _model(workload: Workload) -> Any:
    """A row's module with its weights; a function as a module without any."""
    import graphc

    model = workload.build(graphc)
    if not isinstance(model, graphc.nn.Module):
        function = model

        class Function(graphc.nn.Module):
            def forward(self, *given: Any) -> Any:
                return function(*given)

        model = Function()
    state = model.state_dict()
    with graphc.no_grad():
        for name, array in weights_of(workload, model):
            state[name].copy_(graphc.from_numpy(array))
    return model.train(workload.training)


def cases(names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Rows, and how many times their samples are drawn."""
    for name in names:
        yield name, 1
        workload = WORKLOADS[name]
        if workload.samples and len(workload.inputs(generator(workload))[workload.samples[0]]) == 1:
            yield name, SAMPLES


def verify(name: str, count: int, given: argparse.Namespace) -> list[bits.Row]:
    """The hashes of a row.  Raises Missing, RuntimeError."""
    if WORKLOADS[name].weights:
        WORKLOADS[name].weights()  # raises Missing here rather than in every process
    with tempfile.TemporaryDirectory(prefix="bench-bits-") as folder:
        script = Path(folder) / "row.py"
        script.write_text(f"from bench import bits\n\nbuild = lambda: bits.build({name!r}, {count})\n")
        return bits.verify(str(script), given.threads, given.lanes, given.steps)


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 the same bits in all rows, 1 different bits or a row that could not run."""
    parser = argparse.ArgumentParser(prog="python -m bench bits", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows or groups; all without any")
    parser.add_argument("--threads", type=counts, default=(1, 2, 3), metavar="N,N", help="thread counts (1,2,3)")
    parser.add_argument("--lanes", type=counts, default=(4, 8, 16), metavar="N,N", help="vector widths in elements (4,8,16)")
    parser.add_argument("--steps", type=int, default=2, metavar="N", help="training steps (2)")
    given = parser.parse_args(arguments)
    try:
        names = chosen(given.names)
    except KeyError as missing:
        parser.error(f"there is no row or group {missing}; rows: {', '.join(WORKLOADS)}")
    status = 0
    for name, count in cases(names):
        title, start = name if count == 1 else f"{name} x {count}", time.perf_counter()
        try:
            rows = verify(name, count, given)
        except Missing as why:
            print(f"{title}: left out ({why})", flush=True)
            continue
        except RuntimeError as error:
            told = str(error).splitlines()
            print(f"{title}: {told[0]} {told[-1]}", flush=True)
            status = 1
            continue
        same, sentence = bits.verdict(rows)
        print(f"{title}: {sentence} ({time.perf_counter() - start:.0f} s)", flush=True)
        if not same:
            bits.show(rows, given.steps)
            status = 1
    return status
