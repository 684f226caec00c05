"""File -> callable, without the Python code that made it and without the compiler.

Enters: a path.  Leaves: a `Loaded`.  Never here: passes, scheduling, code generation (`_rebuild` asks graphc.pipeline for
them, only where the native code in the file is for another machine or not signed by this user).
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.artifact import container, signing, weights
from graphc.errors import ArtifactError
from graphc.runtime.link import link, machine_signature
from graphc.runtime.memory import aligned_empty
from graphc.runtime.plan import ENTRY, Plan
from graphc.runtime.program import Program
from graphc.trees import Tree, flatten

GRAPH, PLAN, SIGNATURE, WEIGHTS, NATIVE, NATIVE_FACTS = (
    "graph.gct", "plan.json", "signature.json", "weights.safetensors", "native/code.o", "native/code.json",
)  # fmt: skip


def native_content(graph_text: bytes, plan: bytes, machine: str, code: bytes) -> bytes:
    """What a signature of native code covers: the code and everything it belongs to."""
    return b"\0".join((b"graphc native 1", graph_text, plan, machine.encode(), code))


class Loaded:
    """A compiled function read from a file.  Call it as the original; arrays or graphc tensors in, the same out.

    `state_dict()`: its parameters and state as arrays by name (the very memory the program reads).
    """

    def __init__(
        self, name: str, plan: Plan, program: Program, signature: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]]
    ) -> None:
        self.name, self.plan = name, plan
        self._program = program
        self._arguments = Tree.from_json(signature["arguments"])
        self._results = Tree.from_json(signature["results"])
        self._arrays = arrays
        states = [arrays[n] for n in signature["states"]]
        self._state_addresses = [a.__array_interface__["data"][0] for a in states]
        self._argument_specs = plan.inputs[: len(plan.inputs) - len(states)]
        self._result_count = int(signature["result_count"])
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<graphc.Loaded {self.name}({', '.join(map(str, self._argument_specs))})>"

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Parameters and state by name."""
        return dict(self._arrays)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run.  Raises TypeError for another structure of arguments, ArtifactError for other dtypes or shapes."""
        leaves, tree = flatten((args, kwargs), lambda x: hasattr(x, "dtype") and hasattr(x, "shape"))
        if tree != self._arguments:
            raise TypeError(f"{self.name}: called with {tree}, the artifact was made for {self._arguments}")
        wrap: Callable[[Any], Any] = lambda array: array
        held = []
        for position, (leaf, spec) in enumerate(zip(leaves, self._argument_specs, strict=True)):
            if not isinstance(leaf, np.ndarray):
                wrap = type(leaf).from_array
                leaf = leaf.detach().numpy()
            if tuple(leaf.shape) != spec.shape or leaf.dtype != spec.dtype.numpy:
                seen = f"{dtypes.from_numpy(leaf.dtype).short}{list(leaf.shape)}"
                raise ArtifactError(f"{self.name}: argument {position} is {seen}, the artifact's signature says {spec}")
            held.append(np.ascontiguousarray(leaf))
        outputs = [aligned_empty(spec.shape, spec.dtype.numpy) for spec in self.plan.outputs]  # type: ignore[arg-type]
        addresses = [a.__array_interface__["data"][0] for a in held]
        with self._lock:
            self._program(addresses + self._state_addresses, [address for _, address in outputs])
        return self._results.unflatten([wrap(array) for array, _ in outputs[: self._result_count]])


def load(path: str | os.PathLike[str], rebuild: Callable[[str], tuple[Plan, bytes]] | None = None) -> Loaded:
    """The callable that `Compiled.save` wrote to `path`.

    Native code in the file runs only if this user's key signed it together with the very graph beside it, on this kind of
    machine; otherwise the graph is compiled again (or fetched from the cache of earlier compilations) by `rebuild`.

    Raises ArtifactError for a damaged, altered or foreign file, OSError for one that cannot be read.
    """
    name = os.path.basename(os.fspath(path))
    entries = container.read(path)
    try:
        signature = json.loads(entries[SIGNATURE])
        graph_text = entries[GRAPH]
        arrays = weights.from_bytes(entries[WEIGHTS])
        plan = Plan.from_json(json.loads(entries[PLAN]))
        code = _trusted_code(entries)
        if code is None:
            plan, code = (rebuild or _rebuild)(graph_text.decode())
        _check(plan, signature, arrays)
        return Loaded(str(signature["name"]), plan, Program(plan, link(code, [ENTRY])[ENTRY]), signature, arrays)
    except ArtifactError as error:
        raise ArtifactError(f"{name}: {error}") from None
    except (KeyError, ValueError, TypeError, IndexError, SyntaxError) as error:
        raise ArtifactError(f"{name}: its parts do not fit together ({type(error).__name__}: {error})") from None


def _trusted_code(entries: dict[str, bytes]) -> bytes | None:
    facts = json.loads(entries[NATIVE_FACTS])
    if facts["machine"] != machine_signature():
        return None
    content = native_content(entries[GRAPH], entries[PLAN], facts["machine"], entries[NATIVE])
    return entries[NATIVE] if signing.is_signed(content, facts["signature"]) else None


def _rebuild(graph_text: str) -> tuple[Plan, bytes]:
    import graphc.ops  # noqa: F401  the table that the text names
    from graphc.errors import IRError
    from graphc.ir.text import parse_graph
    from graphc.pipeline import build

    try:
        built = build(parse_graph(graph_text))
    except IRError as error:
        raise ArtifactError(f"its graph is not valid: {error}") from None
    return built.plan, built.code


def _check(plan: Plan, signature: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """The plan's inputs are the arguments and then the states, each with a weight of its type."""
    states = signature["states"]
    specs = plan.inputs[len(plan.inputs) - len(states) :]
    if len(states) > len(plan.inputs) or int(signature["result_count"]) > len(plan.outputs):
        raise ArtifactError("its signature does not fit its plan")
    for state, spec in zip(states, specs, strict=True):
        array = arrays[state]
        if array.dtype != spec.dtype.numpy or array.shape != spec.shape:
            raise ArtifactError(f"weight {state} does not have the type {spec} that the plan needs")
    if any(not isinstance(d, int) for spec in (*plan.inputs, *plan.outputs) for d in spec.shape):
        raise ArtifactError("symbolic sizes in an artifact are not supported by this version")
