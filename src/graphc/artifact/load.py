"""File -> callable, without the Python code that made it and without the compiler.

Enters: the verified entries of a file.  Leaves: a `Loaded`.  Never here: passes, scheduling, code generation (`rebuild`, handed
in, does them only where the native code in the file is for another machine or not signed by this user).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.artifact import signing, weights
from graphc.artifact.structure import is_array, read_tree
from graphc.errors import ArtifactError, IRError, at_user_line
from graphc.ir.loops import ENTRY
from graphc.leases import Debt, is_out, lend
from graphc.runtime.host import Resolve
from graphc.runtime.link import linked, machine_signature
from graphc.runtime.memory import aligned_empty
from graphc.runtime.plan import Plan, Spec
from graphc.runtime.prepared import PreparedMemory
from graphc.runtime.program import Program
from graphc.trees import Tree, flatten

GRAPH, PLAN, SIGNATURE, WEIGHTS, NATIVE, NATIVE_FACTS = (
    "graph.gct", "plan.json", "signature.json", "weights.safetensors", "native/code.o", "native/code.json",
)  # fmt: skip
CONSTANTS, NATIVE_CONSTANTS = "constants.json", "native/constants.o"  # where something depends on weights alone

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Parts:
    """What is run: plan and code, and those of what is done once: from the plan's inputs at `sources` it makes the last of them."""

    plan: Plan
    code: bytes
    constants: Plan | None = None
    constants_code: bytes = b""
    sources: tuple[int, ...] = ()

    def entries(self) -> dict[str, bytes]:
        """The entries of a file."""
        found = {PLAN: json.dumps(self.plan.to_json()).encode(), NATIVE: self.code}
        if self.constants is not None:
            found[CONSTANTS] = json.dumps({"plan": self.constants.to_json(), "sources": self.sources}).encode()
            found[NATIVE_CONSTANTS] = self.constants_code
        return found

    @classmethod
    def of(cls, entries: Mapping[str, bytes]) -> Parts:
        """What `entries` wrote.  Raises KeyError, TypeError or ValueError."""
        plan, code = Plan.from_json(json.loads(entries[PLAN])), entries[NATIVE]
        if CONSTANTS not in entries:
            return cls(plan, code)
        constants = json.loads(entries[CONSTANTS])
        sources = tuple(int(i) for i in constants["sources"])
        return cls(plan, code, Plan.from_json(constants["plan"]), entries[NATIVE_CONSTANTS], sources)


Rebuild = Callable[[str], Parts]


def native_content(entries: Mapping[str, bytes], machine: str) -> bytes:
    """What a signature of native code covers: the code and everything it belongs to."""
    parts = [b"graphc native 1", entries[GRAPH], entries[PLAN], machine.encode(), entries[NATIVE]]
    if CONSTANTS in entries or NATIVE_CONSTANTS in entries:
        parts = [b"graphc native 2", *parts[1:], entries[CONSTANTS], entries[NATIVE_CONSTANTS]]
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


class Loaded:
    """A compiled function read from a file.  Call it as the original; arrays or graphc tensors in, the same out.

    `state_dict()`: its parameters and state as arrays by name (the very memory the program reads).
    """

    def __init__(
        self,
        name: str,
        parts: Parts,
        signature: Mapping[str, Any],
        arrays: dict[str, Array],
        wrap: Callable[[Array], Any] | None,
        resolve: Resolve | None,
    ) -> None:
        plan = parts.plan
        self.name, self.plan = name, plan
        self._program, self._wrap, self._arrays = _linked(plan, parts.code, resolve), wrap, arrays
        states = [arrays[n] for n in signature["states"]]
        self._state_addresses = [_address(a) for a in states]
        prepared = 0 if parts.constants is None else len(parts.constants.outputs)
        self._argument_specs = plan.inputs[: len(plan.inputs) - len(states) - prepared]
        self._constants = None if parts.constants is None else _linked(parts.constants, parts.constants_code, resolve)
        self._sources = [self._state_addresses[i - len(self._argument_specs)] for i in parts.sources]
        self._prepared: tuple[PreparedMemory, Debt] | None = None
        self.lent: Debt = None
        self._written = [i for i in plan.written if i < len(self._argument_specs)]
        self._result_count = int(signature["result_count"])
        self._arguments = read_tree(signature["arguments"], len(self._argument_specs))
        self._results = read_tree(signature["results"], self._result_count)
        self._keywords: tuple[str, ...] = self._arguments.children[1].value
        self._lock = threading.Lock()  # states are written in place

    def __repr__(self) -> str:
        return f"<graphc.Loaded {self.name}({', '.join(map(str, self._argument_specs))})>"

    def state_dict(self) -> dict[str, Array]:
        """Parameters and state by name.  While any of the arrays is held, what is made of them once is made at every call."""
        return {name: lend(self, array) for name, array in self._arrays.items()}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run.

        Raises TypeError for another structure of arguments, ArtifactError for other dtypes or shapes, IndexError as eager would.
        """
        if kwargs.keys() == set(self._keywords):
            kwargs = {name: kwargs[name] for name in self._keywords}
        leaves, tree = flatten((args, kwargs), is_array)
        if tree != self._arguments and not _same_in_a_file(tree, self._arguments):
            given, wanted = map(_shown, (tree, self._arguments))
            message = f"{self.name}: called with {given}, the artifact was made for {wanted} (* stands for a tensor)"
            raise TypeError(at_user_line(message))
        arrays = [self._array(i, leaf, spec) for i, (leaf, spec) in enumerate(zip(leaves, self._argument_specs, strict=True))]
        held = [np.require(a, requirements=("C", "A")) for a in arrays]
        for i in self._written:  # an argument that shares memory with a written one is read from a copy
            held = [
                h.copy() if j != i and j not in self._written and np.may_share_memory(held[i], h) else h for j, h in enumerate(held)
            ]
        outputs = [aligned_empty(_shape(spec), spec.dtype.numpy) for spec in self.plan.outputs]
        with self._lock:
            inputs = [*(_address(a) for a in held), *self._state_addresses, *self._prepared_addresses()]
            self._program(inputs, [address for _, address in outputs])
        for i in self._written:
            if held[i] is not arrays[i]:
                np.copyto(arrays[i], held[i])
        results = [array for array, _ in outputs[: self._result_count]]
        if self._wrap is not None and not any(isinstance(leaf, np.ndarray) for leaf in leaves):
            results = [self._wrap(array) for array in results]
        return self._results.unflatten(results)

    def _prepared_addresses(self) -> list[int]:
        """Where the results are that depend on weights alone: made first, and again when somebody may have written to weights."""
        if self._constants is None:
            return []
        lent = self.lent
        known = self._prepared
        if known is None or known[1] is not lent or is_out(lent):
            memory = PreparedMemory(self._constants, self._sources, None if known is None else known[0].arena)
            known = self._prepared = memory, lent
        return known[0].addresses

    def _array(self, position: int, leaf: Any, spec: Spec) -> Array:
        array = leaf if isinstance(leaf, np.ndarray) else leaf.detach().numpy()
        if tuple(array.shape) != spec.shape or array.dtype != spec.dtype.numpy:
            try:
                element = dtypes.from_numpy(array.dtype).short
            except TypeError:
                element = str(array.dtype)
            seen = f"{element}[{', '.join(map(str, array.shape))}]"
            message = f"{self.name}: argument {position} is {seen}, the artifact's signature says {spec}"
            raise ArtifactError(at_user_line(message))
        if position in self._written and not array.flags.writeable:
            raise ArtifactError(at_user_line(f"{self.name}: argument {position} is read-only, and the program writes to it"))
        return array


def _linked(plan: Plan, code: bytes, resolve: Resolve | None) -> Program:
    return Program(plan, linked(code, [ENTRY]), resolve)


def _shown(arguments: Tree) -> str:
    positional, keywords = arguments.children
    return f"{tuple(positional.children)} {dict(zip(keywords.value, keywords.children, strict=True))}"


def _address(array: Array) -> int:
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def _shape(spec: Spec) -> tuple[int, ...]:
    return tuple(map(int, spec.shape))


def _same_in_a_file(tree: Tree, arguments: Tree) -> bool:
    """Whether `tree` is written as `arguments` is (a named tuple is written as a tuple)."""
    try:
        return bool(tree.to_json() == arguments.to_json())
    except TypeError:  # something in it that no file holds
        return False


def loaded_from(
    entries: Mapping[str, bytes],
    *,
    wrap: Callable[[Array], Any] | None = None,
    rebuild: Rebuild | None = None,
    resolve: Resolve | None = None,
) -> Loaded:
    """The callable that `artifact.save.save` wrote as `entries`.

    Native code among them runs only if this user's key signed it together with the very graph beside it, on this kind of machine;
    otherwise `rebuild` makes plans and code from the graph's text (None: that is an error).  `resolve` finds what runs its
    operators on the host (None: a program with one is an error).

    Raises ArtifactError for entries that do not fit together.
    """
    try:
        signature = json.loads(entries[SIGNATURE])
        arrays = weights.from_bytes(entries[WEIGHTS])
        graph_text = entries[GRAPH].decode()
        parts = Parts.of(entries) if _is_trusted(entries) else _rebuilt(graph_text, rebuild)
        _check(parts, signature, arrays)
        return Loaded(str(signature["name"]), parts, signature, arrays, wrap, resolve)
    except (
        IRError, KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError, SyntaxError, RecursionError,
    ) as error:  # fmt: skip
        raise ArtifactError(f"its parts do not fit together ({type(error).__name__}: {error})") from error


def _is_trusted(entries: Mapping[str, bytes]) -> bool:
    """Whether this user wrote the native code, for this machine."""
    facts = json.loads(entries[NATIVE_FACTS])
    if facts["machine"] != machine_signature():
        return False
    return signing.is_signed(native_content(entries, facts["machine"]), facts["signature"])


def _rebuilt(graph_text: str, rebuild: Rebuild | None) -> Parts:
    if rebuild is None:
        raise ArtifactError(
            "its native code is not for this machine or not signed by this user, and nothing can compile it again here"
        )
    try:
        return rebuild(graph_text)
    except (IRError, RecursionError) as error:
        raise ArtifactError(f"its graph is not valid: {error}") from error


def _check(parts: Parts, signature: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """The plan's inputs are the arguments, then the states, each with a weight of its type, then what is made of states once."""
    plan, once = parts.plan, parts.constants
    states, count = signature["states"], signature["result_count"]
    made = () if once is None else once.outputs
    states_end = len(plan.inputs) - len(made)
    if not isinstance(states, list) or len(set(states)) != len(states) or len(states) > states_end:
        raise ArtifactError("its signature does not fit its plan")
    if plan.inputs[states_end:] != made or (once is None and parts.sources):
        raise ArtifactError("its plans do not fit together")
    lasting = {*range(states_end - len(states), states_end)} - {*plan.written}
    if once is not None and (
        not lasting.issuperset(parts.sources) or once.inputs != tuple(plan.inputs[i] for i in parts.sources) or once.written
    ):
        raise ArtifactError("its plans do not fit together")
    if type(count) is not int or not 0 <= count <= len(plan.outputs):
        raise ArtifactError("its signature does not fit its plan")
    for state, spec in zip(states, plan.inputs[states_end - len(states) : states_end], strict=True):
        array = arrays[state]
        if array.dtype != spec.dtype.numpy or array.shape != spec.shape:
            raise ArtifactError(f"weight {state} does not have the type {spec} that the plan needs")
    if any(not isinstance(d, int) for spec in (*plan.inputs, *plan.outputs) for d in spec.shape):
        raise ArtifactError("symbolic sizes in an artifact are not supported by this version")
