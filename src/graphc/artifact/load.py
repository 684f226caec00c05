"""File -> callable, without the Python code that made it and without the compiler.

Enters: the verified entries of a file.  Leaves: a `Loaded`.  Never here: passes, scheduling, code generation (`rebuild`, handed
in, does them only where the native code in the file is for another machine or not signed by this user).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.artifact import signing, weights
from graphc.artifact.structure import is_array, read_tree
from graphc.errors import ArtifactError, IRError, at_user_line
from graphc.ir.loops import ENTRY
from graphc.runtime.host import Resolve
from graphc.runtime.link import link, machine_signature
from graphc.runtime.memory import aligned_empty
from graphc.runtime.plan import Plan, Spec
from graphc.runtime.program import Program
from graphc.trees import Tree, flatten

GRAPH, PLAN, SIGNATURE, WEIGHTS, NATIVE, NATIVE_FACTS = (
    "graph.gct", "plan.json", "signature.json", "weights.safetensors", "native/code.o", "native/code.json",
)  # fmt: skip

Array = np.ndarray[Any, Any]
Rebuild = Callable[[str], tuple[Plan, bytes]]


def native_content(graph_text: bytes, plan: bytes, machine: str, code: bytes) -> bytes:
    """What a signature of native code covers: the code and everything it belongs to."""
    parts = (b"graphc native 1", graph_text, plan, machine.encode(), code)
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


class Loaded:
    """A compiled function read from a file.  Call it as the original; arrays or graphc tensors in, the same out.

    `state_dict()`: its parameters and state as arrays by name (the very memory the program reads).
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        program: Program,
        signature: Mapping[str, Any],
        arrays: dict[str, Array],
        wrap: Callable[[Array], Any] | None,
    ) -> None:
        self.name, self.plan = name, plan
        self._program, self._wrap, self._arrays = program, wrap, arrays
        states = [arrays[n] for n in signature["states"]]
        self._state_addresses = [_address(a) for a in states]
        self._argument_specs = plan.inputs[: len(plan.inputs) - len(states)]
        self._written = [i for i in plan.written if i < len(self._argument_specs)]
        self._result_count = int(signature["result_count"])
        self._arguments = read_tree(signature["arguments"], len(self._argument_specs))
        self._results = read_tree(signature["results"], self._result_count)
        self._keywords: tuple[str, ...] = self._arguments.children[1].value
        self._lock = threading.Lock()  # states are written in place

    def __repr__(self) -> str:
        return f"<graphc.Loaded {self.name}({', '.join(map(str, self._argument_specs))})>"

    def state_dict(self) -> dict[str, Array]:
        """Parameters and state by name."""
        return dict(self._arrays)

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
            self._program([_address(a) for a in held] + self._state_addresses, [address for _, address in outputs])
        for i in self._written:
            if held[i] is not arrays[i]:
                np.copyto(arrays[i], held[i])
        results = [array for array, _ in outputs[: self._result_count]]
        if self._wrap is not None and not any(isinstance(leaf, np.ndarray) for leaf in leaves):
            results = [self._wrap(array) for array in results]
        return self._results.unflatten(results)

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


def _shown(arguments: Tree) -> str:
    positional, keywords = arguments.children
    return f"{tuple(positional.children)} {dict(zip(keywords.value, keywords.children, strict=True))}"


def _address(array: Array) -> int:
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def _shape(spec: Spec) -> tuple[int, ...]:
    return tuple(map(int, spec.shape))  # type: ignore[arg-type]


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
    otherwise `rebuild` makes plan and code from the graph's text (None: that is an error).  `resolve` finds what runs its operators
    on the host (None: a program with one is an error).

    Raises ArtifactError for entries that do not fit together.
    """
    try:
        signature = json.loads(entries[SIGNATURE])
        arrays = weights.from_bytes(entries[WEIGHTS])
        graph_text = entries[GRAPH].decode()
        code = _trusted_code(entries)
        if code is None:
            plan, code = _rebuilt(graph_text, rebuild)
        else:
            plan = Plan.from_json(json.loads(entries[PLAN]))
        _check(plan, signature, arrays)
        return Loaded(str(signature["name"]), plan, Program(plan, link(code, [ENTRY])[ENTRY], resolve), signature, arrays, wrap)
    except (
        IRError, KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError, SyntaxError, RecursionError,
    ) as error:  # fmt: skip
        raise ArtifactError(f"its parts do not fit together ({type(error).__name__}: {error})") from error


def _trusted_code(entries: Mapping[str, bytes]) -> bytes | None:
    facts = json.loads(entries[NATIVE_FACTS])
    if facts["machine"] != machine_signature():
        return None
    content = native_content(entries[GRAPH], entries[PLAN], facts["machine"], entries[NATIVE])
    return entries[NATIVE] if signing.is_signed(content, facts["signature"]) else None


def _rebuilt(graph_text: str, rebuild: Rebuild | None) -> tuple[Plan, bytes]:
    if rebuild is None:
        raise ArtifactError(
            "its native code is not for this machine or not signed by this user, and nothing can compile it again here"
        )
    try:
        return rebuild(graph_text)
    except (IRError, RecursionError) as error:
        raise ArtifactError(f"its graph is not valid: {error}") from error


def _check(plan: Plan, signature: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """The plan's inputs are the arguments and then the states, each with a weight of its type."""
    states, count = signature["states"], signature["result_count"]
    if not isinstance(states, list) or len(set(states)) != len(states) or len(states) > len(plan.inputs):
        raise ArtifactError("its signature does not fit its plan")
    if type(count) is not int or not 0 <= count <= len(plan.outputs):
        raise ArtifactError("its signature does not fit its plan")
    for state, spec in zip(states, plan.inputs[len(plan.inputs) - len(states) :], strict=True):
        array = arrays[state]
        if array.dtype != spec.dtype.numpy or array.shape != spec.shape:
            raise ArtifactError(f"weight {state} does not have the type {spec} that the plan needs")
    if any(not isinstance(d, int) for spec in (*plan.inputs, *plan.outputs) for d in spec.shape):
        raise ArtifactError("symbolic sizes in an artifact are not supported by this version")
