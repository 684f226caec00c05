"""``graphc verify bits``: whether a model's numbers are the same in every bit however they are computed.

Enters: a script (or module) that says what to run.  Leaves: one table of hashes and a verdict.  Never here: tolerances.

The script defines ``build()``, which gives a dict of

    model       an nn.Module, the same at every call (call ``graphc.manual_seed`` first)
    inputs      a tuple of tensors
    loss        callable(model, *inputs) -> a scalar tensor
    optimizer   callable(parameters) -> an Optimizer; without loss and optimizer outputs alone are compared
    outputs     optional: callable(model, *inputs) -> tensors; without it ``model(inputs[0])``
    samples     optional: the positions of inputs that hold one sample at each index of dim 0, as all outputs do: these must then
                be the same in every bit in batches of other sizes

Four ways of running are compared: ``eager``; ``module`` (the compiled model in eager code); ``compiled`` (one compiled function
for outputs, one for gradients, one for the whole training step); ``loaded`` (those functions from files, in a process that never
imports the script).  Each runs in a process of its own for every thread count and every width of the generated vectors.  What is
hashed: of outputs and gradients the second call's (the files are written after the first), of training the last loss and all of
the model's state.  Where there are samples, the same batch is also run ``in ones`` (the first samples alone, the rest together) and
``in parts`` of uneven sizes, eagerly and by the one compiled function, and what comes out is hashed joined together.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

COLUMNS = ("outputs", "gradients", "training")
HERE, LOADED = ("eager", "module", "compiled"), "loaded"
ALONE, PARTS = 6, (2, 3, 5, 9, 17)  # how many samples run alone; the uneven sizes, before the rest
SHOWN_DIGITS = 12


@dataclass(frozen=True)
class Row:
    """One configuration and its hash for each of `COLUMNS`; of what it does not compute, an empty one."""

    mode: str
    threads: int
    lanes: int
    hashes: tuple[str, ...]


def hash_arrays(arrays: Iterable[np.ndarray[Any, Any] | None]) -> str:
    """SHA-256 over dtype, shape and bytes of each; every NaN counts as one and the same."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none;")
            continue
        array = np.array(array, order="C")
        if array.dtype.kind not in "biu":
            array[np.isnan(array)] = np.nan
        digest.update(f"{array.dtype.name}{list(array.shape)};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# ---- in the worker ---------------------------------------------------------------------------------------------------


def import_script(target: str) -> Any:
    """The module that a path or a dotted name means.  Raises ImportError."""
    if not target.endswith(".py"):
        sys.path.insert(0, os.getcwd())
        return importlib.import_module(target)
    sys.path.insert(0, os.path.dirname(os.path.abspath(target)))
    spec = importlib.util.spec_from_file_location("graphc_script", target)
    if spec is None or spec.loader is None:
        raise ImportError(f"{target} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Subject:
    """A fresh model and the three functions to watch, each from inputs to what is hashed."""

    def __init__(self, built: Mapping[str, Any], compile_module: bool) -> None:
        import graphc

        self.model, self.inputs = built["model"], tuple(built["inputs"])
        self._loss: Callable[..., Any] | None = built.get("loss")
        self._outputs: Callable[..., Any] = built.get("outputs", lambda model, *inputs: model(inputs[0]))
        self._parameters = list(self.model.parameters())
        self._optimizer = built["optimizer"](self._parameters) if self._loss else None
        self._called = graphc.compile(self.model) if compile_module else self.model

    def outputs(self, *inputs: Any) -> Any:
        """What the model gives, without gradients."""
        import graphc

        with graphc.no_grad():
            return self._outputs(self._called, *inputs)

    def gradients(self, *inputs: Any) -> Any:
        """The loss's gradient with respect to every parameter."""
        from graphc.eager import autograd

        assert self._loss
        return autograd.grad(self._loss(self._called, *inputs), self._parameters, allow_unused=True)

    def training(self, *inputs: Any) -> Any:
        """One training step; gives the loss."""
        assert self._loss and self._optimizer
        self._optimizer.zero_grad()
        loss = self._loss(self._called, *inputs)
        loss.backward()
        self._optimizer.step()
        return loss.detach()


def run_here(target: str, steps: int, folder: str) -> dict[str, list[str]]:
    """Hashes of `HERE`'s modes by column; leaves in `folder` what the loaded mode needs.

    Raises RuntimeError where something did not compile: then there is nothing to compare.
    """
    build = import_script(target).build
    built = build()
    _write_arrays(os.path.join(folder, "inputs"), {f"{i}": _array(x) for i, x in enumerate(built["inputs"])})
    hashes: dict[str, list[str]] = {}
    for mode in HERE:
        for column in COLUMNS if "loss" in built else COLUMNS[:1]:
            subject = Subject(build(), compile_module=mode == "module")
            for name, made in run_column(mode, column, subject, built.get("samples", ()), steps, folder).items():
                hashes.setdefault(name, [""] * len(COLUMNS))[COLUMNS.index(column)] = made
    return hashes


def run_column(mode: str, column: str, subject: Subject, samples: Sequence[int], steps: int, folder: str) -> dict[str, str]:
    """The hash of one of `COLUMNS` in a mode, and in batches of other sizes, by what the table calls them."""
    import graphc

    function = getattr(subject, column)
    if mode == "compiled":
        function = graphc.compile(function)
    result = None
    for call in range(_calls(column, steps)):
        result = function(*subject.inputs)
        if mode == "compiled" and call == 0:
            function.save(os.path.join(folder, f"{column}.gc"), subject.model.state_dict(keep_vars=True))
            saved = {name: _array(tensor) for name, tensor in subject.model.state_dict().items()}
            _write_arrays(os.path.join(folder, f"{column}-state"), saved)
    state = subject.model.state_dict() if column == "training" else {}
    made = {mode: hash_arrays([*_arrays(result), *(_array(state[name]) for name in sorted(state))])}
    if samples and column == "outputs" and mode != "module":
        for name, sizes in partitions(len(subject.inputs[samples[0]])).items():
            made[f"{mode}, {name}"] = hash_arrays(run_in_parts(function, subject.inputs, samples, sizes))
    compiled = {"module": subject._called, "compiled": function}.get(mode)
    if compiled is not None and compiled.stats()["fallbacks"]:
        raise RuntimeError(f"{mode} {column} did not compile: {compiled.stats()['fallbacks'][0]}")
    return made


def partitions(count: int) -> dict[str, list[int]]:
    """Ways to run `count` samples in several batches: the sizes of those."""
    made: dict[str, list[int]] = {"in ones": [1] * min(count, ALONE), "in parts": []}
    for size in PARTS:
        if sum(made["in parts"]) + size < count:
            made["in parts"].append(size)
    for sizes in made.values():
        if sum(sizes) < count:
            sizes.append(count - sum(sizes))
    return {name: sizes for name, sizes in made.items() if len(sizes) > 1}


def run_in_parts(
    function: Callable[..., Any], inputs: Sequence[Any], samples: Sequence[int], sizes: Sequence[int]
) -> list[np.ndarray[Any, Any]]:
    """The results of batches of these sizes, joined along dim 0."""
    parts, start = [], 0
    for size in sizes:
        part = [x[start : start + size] if i in samples else x for i, x in enumerate(inputs)]
        parts.append([np.array(array) for array in _arrays(function(*part)) if array is not None])
        start += size
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def run_loaded(steps: int, folder: str) -> dict[str, list[str]]:
    """Hashes of the loaded mode.  Nothing of the script is imported, and nothing of graphc that traces or compiles is used."""
    from graphc.artifact import files

    named = _read_arrays(os.path.join(folder, "inputs"))
    inputs = [named[f"{i}"] for i in range(len(named))]
    hashes = [""] * len(COLUMNS)
    for place, column in enumerate(COLUMNS):
        path = os.path.join(folder, f"{column}.gc")
        if not os.path.exists(path):
            continue
        program = files.load(path)
        result = None
        for _ in range(_calls(column, steps) - 1):
            result = program(*inputs)
        state: dict[str, Any] = {}
        if column == "training":
            state = _read_arrays(os.path.join(folder, f"{column}-state"))
            state.update((name, array) for name, array in program.state_dict().items() if name in state)
        hashes[place] = hash_arrays([*_arrays(result), *(state[name] for name in sorted(state))])
    return {LOADED: hashes}


def _write_arrays(path: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    from graphc.artifact import weights

    with open(path, "wb") as file:
        file.write(weights.to_bytes(arrays))


def _read_arrays(path: str) -> dict[str, np.ndarray[Any, Any]]:
    from graphc.artifact import weights

    with open(path, "rb") as file:
        return weights.from_bytes(file.read())


def _calls(column: str, steps: int) -> int:
    return steps if column == "training" else 2


def _arrays(result: Any) -> list[np.ndarray[Any, Any] | None]:
    """The tensors of a result, in order; None stays."""
    if isinstance(result, Mapping):
        return [array for key in result for array in _arrays(result[key])]
    if isinstance(result, tuple | list):
        return [array for one in result for array in _arrays(one)]
    return [None if result is None else _array(result)]


def _array(x: Any) -> np.ndarray[Any, Any]:
    return x if isinstance(x, np.ndarray) else x.detach().numpy()


def worker(arguments: Sequence[str]) -> int:
    """Run one process's share and print its hashes as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["here", LOADED])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--target", default="")
    given = parser.parse_args(arguments)
    from graphc.runtime.threads import set_num_threads

    set_num_threads(given.threads)
    hashes = run_here(given.target, given.steps, given.folder) if given.kind == "here" else run_loaded(given.steps, given.folder)
    print(json.dumps(hashes))
    return 0


# ---- outside ---------------------------------------------------------------------------------------------------------


def verify(target: str, threads: Sequence[int] = (1, 2, 3), lanes: Sequence[int] = (4, 8, 16), steps: int = 3) -> list[Row]:
    """One row for every way of running, thread count and vector width.

    Raises RuntimeError with the process's own words where one of them fails, ValueError for fewer than two steps.
    """
    if steps < 2:
        raise ValueError(f"verify bits: expected at least 2 training steps (the file is written after the first), got {steps}")
    with tempfile.TemporaryDirectory(prefix="graphc-bits-") as folder:
        configurations = [(t, w) for w in lanes for t in threads]

        def rows(configuration: tuple[int, int]) -> list[Row]:
            return list(_rows(target, *configuration, steps, folder))

        # One of each width first: the others then find its objects in the cache.
        with ThreadPoolExecutor(max(1, min(len(lanes), os.cpu_count() or 1))) as pool:
            first = list(pool.map(rows, configurations[:: len(threads)]))
            rest = list(pool.map(rows, [c for c in configurations if c[0] != threads[0]]))
    found = [row for group in (*first, *rest) for row in group]
    order = list(dict.fromkeys(row.mode for row in found))
    return sorted(found, key=lambda row: (order.index(row.mode), row.threads, row.lanes))


def _rows(target: str, threads: int, lanes: int, steps: int, folder: str) -> Iterator[Row]:
    own = os.path.join(folder, f"{threads}-{lanes}")
    os.makedirs(own)
    environment = {**os.environ, "GRAPHC_LANES": str(lanes), "GRAPHC_CACHE_DIR": os.path.join(folder, f"cache{lanes}")}
    environment.pop("GRAPHC_CACHE", None)
    for kind in ("here", LOADED):
        options = {"--threads": threads, "--steps": steps, "--folder": own, **({"--target": target} if kind == "here" else {})}
        command = [sys.executable, "-m", "graphc.explain.bits", kind, *(str(part) for pair in options.items() for part in pair)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{kind}, {threads} threads, {lanes} lanes:\n{done.stderr.strip()}")
        for mode, hashes in json.loads(done.stdout.splitlines()[-1]).items():
            yield Row(mode, threads, lanes, tuple(hashes))
    shutil.rmtree(own)  # the files of a large model, of every configuration, would fill a disk


def verdict(rows: Sequence[Row]) -> tuple[bool, str]:
    """Whether all rows agree, and a sentence that says so."""
    different = [row for row in rows if "*" in _marks(row, rows[0])]
    if not different:
        return True, f"the same bits in all {len(rows)} configurations"
    return False, f"different bits in {len(different)} of {len(rows)} configurations (marked *, against the first row)"


def _marks(row: Row, first: Row) -> str:
    """For each of `COLUMNS` a star where the hash differs from that of the first row, else a space."""
    return "".join("*" if made and made != wanted else " " for made, wanted in zip(row.hashes, first.hashes, strict=True))


def table(rows: Sequence[Row], steps: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and cells; a hash that differs from the first row's has a star."""
    heads = ("mode", "threads", "lanes", "outputs", "gradients", f"{steps} training steps")
    cells = []
    for row in rows:
        shown = [made[:SHOWN_DIGITS] + mark for made, mark in zip(row.hashes, _marks(row, rows[0]), strict=True)]
        cells.append((row.mode, str(row.threads), str(row.lanes), *shown))
    return heads, cells


def show(rows: Sequence[Row], steps: int) -> None:
    """Print the table: with rich where it is installed, as plain text where not."""
    heads, cells = table(rows, steps)
    try:
        rich = importlib.import_module("rich.console"), importlib.import_module("rich.table")
    except ImportError:
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        for line in (heads, tuple("-" * w for w in widths), *cells):
            print("  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip())
        return
    shown = rich[1].Table(*heads)
    for line in cells:
        shown.add_row(*line, style="bold red" if any("*" in cell for cell in line) else None)
    rich[0].Console().print(shown)


def verify_and_show(target: str, threads: Sequence[int], lanes: Sequence[int], steps: int) -> int:
    """Print table and verdict.  Exit status: 0 the same bits, 1 different bits, 2 something could not run."""
    try:
        rows = verify(target, threads, lanes, steps)
    except (RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    show(rows, steps)
    same, sentence = verdict(rows)
    print(sentence)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(worker(sys.argv[1:]))
