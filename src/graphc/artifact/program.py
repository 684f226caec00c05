"""One program of a file: its entries, what the file says of it, and it linked and ready to run.

Enters: entries, arrays.  Leaves: a `Captured`, results; ArtifactError for what does not fit together.
Never here: which program serves a call (load.py), whose native code may run (signing.py).
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.artifact.structure import read_tree
from graphc.artifact.variables import Variables, address
from graphc.dim_patterns import Pattern, settled, settled_tree
from graphc.dims import Size, bounds, free
from graphc.errors import ArtifactError
from graphc.ir.loops import ENTRY
from graphc.leases import Debt, is_out
from graphc.runtime.host import Resolve
from graphc.runtime.link import linked
from graphc.runtime.memory import aligned_empty
from graphc.runtime.plan import Plan, Spec
from graphc.runtime.prepared import PreparedMemory
from graphc.runtime.program import Program
from graphc.trees import Tree

GRAPH, PLAN, NATIVE, NATIVE_FACTS = "graph.gct", "plan.json", "native/code.o", "native/code.json"
CONSTANTS, NATIVE_CONSTANTS = "constants.json", "native/constants.o"  # where something depends on weights alone
SIZES = "sizes.json"  # where sizes are open

Array = np.ndarray[Any, Any]
Step = tuple[str, bool | int | float, bool]  # an operator, its other operand, whether that comes first
_STEPS = {name: getattr(operator, name) for name in ("add", "sub", "mul", "mod")}


@dataclass(frozen=True)
class Parts:
    """What is run: plan and code, and those of what is done once: from the plan's inputs at `sources` it makes the last of them.

    pattern: the arguments' shapes, where some sizes are open.   example: values of its symbols that agree with it.
    """

    plan: Plan
    code: bytes
    constants: Plan | None = None
    constants_code: bytes = b""
    sources: tuple[int, ...] = ()
    pattern: Pattern | None = None
    example: Mapping[str, int] = field(default_factory=dict)

    def entries(self) -> dict[str, bytes]:
        """The entries of a file."""
        found = {PLAN: json.dumps(self.plan.to_json()).encode(), NATIVE: self.code}
        if self.constants is not None:
            found[CONSTANTS] = json.dumps({"plan": self.constants.to_json(), "sources": self.sources}).encode()
            found[NATIVE_CONSTANTS] = self.constants_code
        if self.pattern is not None:
            found[SIZES] = json.dumps({"pattern": self.pattern.to_json(), "example": dict(self.example)}).encode()
        return found

    @classmethod
    def of(cls, entries: Mapping[str, bytes]) -> Parts:
        """What `entries` wrote.  Raises KeyError, TypeError or ValueError."""
        plan, code = Plan.from_json(json.loads(entries[PLAN])), entries[NATIVE]
        pattern, example = sizes_of(entries)
        if CONSTANTS not in entries:
            return cls(plan, code, pattern=pattern, example=example)
        constants = json.loads(entries[CONSTANTS])
        sources = tuple(int(i) for i in constants["sources"])
        made, made_code = Plan.from_json(constants["plan"]), entries[NATIVE_CONSTANTS]
        return cls(plan, code, made, made_code, sources, pattern, example)


def sizes_of(entries: Mapping[str, bytes]) -> tuple[Pattern | None, dict[str, int]]:
    """The pattern of a program's arguments, and an example of its sizes.  Raises KeyError, TypeError or ValueError."""
    if SIZES not in entries:
        return None, {}
    data = json.loads(entries[SIZES])
    pattern, example = Pattern.from_json(data["pattern"]), data["example"]
    if not isinstance(example, dict) or any(type(value) is not int for value in example.values()):
        raise ValueError("an example of sizes that is none")
    if pattern.values(pattern.shapes_of(example)) != example:
        raise ValueError("an example of sizes that does not agree with what is known of them")
    return pattern, example


def native_content(entries: Mapping[str, bytes], machine: str) -> bytes:
    """What a signature of native code covers: the code and everything it belongs to."""
    parts = [b"graphc native 1", entries[GRAPH], entries[PLAN], machine.encode(), entries[NATIVE]]
    if CONSTANTS in entries or NATIVE_CONSTANTS in entries:
        parts = [b"graphc native 2", *parts[1:], entries[CONSTANTS], entries[NATIVE_CONSTANTS]]
    if SIZES in entries:
        parts = [b"graphc native with sizes", *parts, entries[SIZES]]
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


@dataclass(frozen=True)
class Description:
    """What a file says of a program beside its entries.

    arguments, results: their structure; the first `result_count` outputs are the results.   states: the array that each state
    input is.   carried: (output, array): outputs that become the value of an array after a call.
    numbers: (result, steps): results that are given as Python numbers, and what is made of each.
    training: the mode of the module that was captured; None where there is no such thing.   method: its name, "" for the call.
    """

    arguments: Tree
    results: Tree
    result_count: int
    states: tuple[str, ...]
    carried: tuple[tuple[int, str], ...] = ()
    numbers: tuple[tuple[int, tuple[Step, ...]], ...] = ()
    training: bool | None = None
    method: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and ints, which `from_json` reads.  Raises TypeError for arguments that no file holds."""
        return {
            "method": self.method,
            "training": self.training,
            "arguments": self.arguments.to_json(),
            "results": self.results.to_json(names=True),
            "result_count": self.result_count,
            "states": list(self.states),
            "carried": [list(pair) for pair in self.carried],
            "numbers": [[i, [list(step) for step in steps]] for i, steps in self.numbers],
        }

    @classmethod
    def from_json(cls, data: Any, argument_count: int) -> Description:
        """Raises ArtifactError, KeyError, TypeError or ValueError for data that `to_json` did not make."""
        count, states, training = data["result_count"], data["states"], data.get("training")
        carried, method = [(i, name) for i, name in data.get("carried", ())], data.get("method", "")
        if type(count) is not int or count < 0 or type(states) is not list or training not in (None, True, False):
            raise ArtifactError("its signature does not fit its plan")
        if any(type(x) is not str for x in (*states, method, *(name for _, name in carried))) or any(
            type(i) is not int or i < 0 for i, _ in carried
        ):
            raise ArtifactError("its signature does not fit its plan")
        numbers = tuple((i, tuple(_step(*step) for step in steps)) for i, steps in data.get("numbers", ()))
        if any(type(i) is not int or not 0 <= i < count for i, _ in numbers):
            raise ArtifactError("its signature does not fit its plan")
        arguments, results = read_tree(data["arguments"], argument_count), read_tree(data["results"], count)
        if arguments.kind != "tuple" or [child.kind for child in arguments.children] != ["tuple", "dict"]:
            raise ArtifactError("its signature does not fit its plan")
        return cls(arguments, results, count, tuple(states), tuple(carried), numbers, training, method)


def _step(name: Any, operand: Any, comes_first: Any) -> Step:
    if name not in _STEPS or type(operand) not in (bool, int, float) or type(comes_first) is not bool:
        raise ArtifactError("its signature says what is not done to numbers")
    return name, operand, comes_first


class Captured:
    """A program of a file, linked.   Results have memory of their own; states are in `variables`."""

    def __init__(self, parts: Parts, description: Description, variables: Variables, resolve: Resolve | None) -> None:
        plan, self.description, self.variables = parts.plan, description, variables
        self.plan, self.pattern = plan, parts.pattern
        prepared = 0 if parts.constants is None else len(parts.constants.outputs)
        count = len(plan.inputs) - len(description.states) - prepared
        self.specs = plan.inputs[:count]
        self._outputs: list[Any] = [(spec.shape, spec.dtype.numpy) for spec in plan.outputs]
        self._program = Program(plan, linked(parts.code, [ENTRY]), resolve)
        self._addresses = [address(variables.arrays[name]) for name in description.states]
        self._constants = None
        if parts.constants is not None:
            self._constants = Program(parts.constants, linked(parts.constants_code, [ENTRY]), resolve)
        self._sources = [description.states[i - count] for i in parts.sources]
        self._prepared: tuple[PreparedMemory, Debt, list[int]] | None = None
        self.written = [i for i in plan.written if i < count]
        self._writes = [description.states[i - count] for i in plan.written if i >= count]
        self._writes += [name for _, name in description.carried]

    def __str__(self) -> str:
        known = "" if self.pattern is None else f" where {', '.join(self.pattern.ranges())}"
        return f"({', '.join(map(str, self.specs))}){known}"

    def has_dtypes_of(self, arrays: Sequence[Array]) -> bool:
        """Whether it serves arguments of these dtypes."""
        return all(array.dtype == spec.dtype.numpy for array, spec in zip(arrays, self.specs, strict=True))

    def sizes(self, arrays: Sequence[Array]) -> dict[str, int] | None:
        """The values of its symbols for these arguments; None where it does not serve them."""
        if not self.has_dtypes_of(arrays):
            return None
        shapes = [array.shape for array in arrays]
        if self.pattern is None:
            return {} if shapes == [spec.shape for spec in self.specs] else None
        try:
            return self.pattern.values(shapes)
        except ZeroDivisionError:  # of a fact that no trace made
            return None

    def run(self, arrays: Sequence[Array], sizes: Mapping[str, int]) -> list[Array]:
        """The results for arguments that it serves; those that it writes are written.  Raises what the program raises."""
        held = [np.require(a, requirements=("C", "A")) for a in arrays]
        for i in self.written:  # an argument that shares memory with a written one is read from a copy
            held = [
                h.copy() if j != i and j not in self.written and np.may_share_memory(held[i], h) else h for j, h in enumerate(held)
            ]
        outputs = [aligned_empty(settled(shape, sizes) if sizes else shape, dtype) for shape, dtype in self._outputs]
        variables = self.variables
        with variables.lock:
            inputs = [*map(address, held), *self._addresses, *self._prepared_addresses()]
            self._program(inputs, [at for _, at in outputs], [sizes[name] for name in self.plan.sizes])
            for i, name in self.description.carried:
                np.copyto(variables.arrays[name], outputs[i][0])
            variables.note_written(self._writes)
        for i in self.written:
            if held[i] is not arrays[i]:
                np.copyto(arrays[i], held[i])
        return [array for array, _ in outputs[: self.description.result_count]]

    def results(self, leaves: Sequence[Any], arrays: Sequence[Array], sizes: Mapping[str, int]) -> Any:
        """The results in their structure: `leaves`, which stand for `arrays`, or numbers where it gives numbers."""
        tree, leaves = self.description.results, list(leaves)
        for i, steps in self.description.numbers:
            leaves[i] = arrays[i].item()
            for name, operand, comes_first in steps:
                leaves[i] = _STEPS[name](*((operand, leaves[i]) if comes_first else (leaves[i], operand)))
        return (settled_tree(tree, sizes) if sizes else tree).unflatten(leaves)

    def _prepared_addresses(self) -> list[int]:
        """Where the results are that depend on weights alone: made first, and again when somebody may have written to weights."""
        if self._constants is None:
            return []
        lent, versions = self.variables.lent, [self.variables.versions[name] for name in self._sources]
        known = self._prepared
        if known is None or known[1] is not lent or is_out(lent) or known[2] != versions:
            sources = [address(self.variables.arrays[name]) for name in self._sources]
            memory = PreparedMemory(self._constants, sources, None if known is None else known[0].arena)
            known = self._prepared = memory, lent, versions
        return known[0].addresses


def check(parts: Parts, description: Description, arrays: Mapping[str, Array]) -> None:
    """The plan's inputs are the arguments, then the states, each with a weight of its type, then what is made of states once.

    Raises ArtifactError.
    """
    plan, once, states = parts.plan, parts.constants, description.states
    made = () if once is None else once.outputs
    end = len(plan.inputs) - len(made)
    count = end - len(states)
    if len(set(states)) != len(states) or count < 0 or description.result_count > len(plan.outputs):
        raise ArtifactError("its signature does not fit its plan")
    if plan.inputs[end:] != made or (once is None and parts.sources):
        raise ArtifactError("its plans do not fit together")
    lasting = {*range(count, end)} - {*plan.written}
    if once is not None and (
        not lasting.issuperset(parts.sources) or once.inputs != tuple(plan.inputs[i] for i in parts.sources) or once.written
    ):
        raise ArtifactError("its plans do not fit together")
    for name, spec in zip(states, plan.inputs[count:end], strict=True):
        _check_weight(name, spec, arrays)
    for i, name in description.carried:
        if i >= len(plan.outputs) or name not in states:
            raise ArtifactError("its signature does not fit its plan")
        _check_weight(name, plan.outputs[i], arrays)
    for i, _ in description.numbers:
        if plan.outputs[i].shape:
            raise ArtifactError("its signature does not fit its plan")
    _check_sizes(parts, count, description.results)


def _check_weight(name: str, spec: Spec, arrays: Mapping[str, Array]) -> None:
    array = arrays[name]
    if array.dtype != spec.dtype.numpy or array.shape != spec.shape:
        raise ArtifactError(f"weight {name} does not have the type {spec} that the plan needs")


def _check_sizes(parts: Parts, count: int, results: Tree) -> None:
    """Symbols are those of the arguments' pattern, and the plan is good for every size that the pattern lets through."""
    plan, pattern = parts.plan, parts.pattern
    known = set() if pattern is None else pattern.symbols.keys()
    once = () if parts.constants is None else (*parts.constants.inputs, *parts.constants.outputs)
    temporaries = (*plan.temporaries, *(() if parts.constants is None else parts.constants.temporaries))
    fixed = [d for spec in (*plan.inputs[count:], *once) for d in spec.shape]
    used: set[str] = set().union(*(free(d) for spec in (*plan.inputs, *plan.outputs) for d in spec.shape), _sizes_in(results))
    used.update(*map(free, temporaries), plan.sizes, () if parts.constants is None else parts.constants.sizes)
    if not used <= known or any(free(d) for d in fixed) or (parts.constants is not None and parts.constants.sizes):
        raise ArtifactError("its sizes do not fit its plan")
    if pattern is None:
        return
    shapes = [spec.shape for spec in plan.inputs[:count]]
    if [len(s) for s in shapes] != [len(s) for s in pattern.shapes()] or not all(
        _serves(d, e) for shape, other in zip(shapes, pattern.shapes(), strict=True) for d, e in zip(shape, other, strict=True)
    ):
        raise ArtifactError("its sizes do not fit its plan")


def _serves(planned: Size, wanted: Size) -> bool:
    """Whether a plan's size is the one that a pattern says, and its range, where the plan has one, holds all of the pattern's."""
    (low, high), (low_wanted, high_wanted) = bounds(planned), bounds(wanted)
    above = low is None or (low_wanted is not None and low <= low_wanted)
    below = high is None or (high_wanted is not None and high_wanted <= high)
    return str(planned) == str(wanted) and above and below


def _sizes_in(tree: Tree) -> set[str]:
    own = free(tree.value) if tree.kind == "static" and not isinstance(tree.value, str) else ()
    return set().union(own, *map(_sizes_in, tree.children))
