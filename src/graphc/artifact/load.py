"""File -> callable, without the Python code that made it and without the compiler.

Enters: the verified entries of a file.  Leaves: a `Loaded`.  Never here: passes, scheduling, code generation (`rebuild`, handed
in, does them only where the native code in the file is for another machine or not signed by this user).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.artifact import container, signing, weights
from graphc.artifact.program import GRAPH, NATIVE_FACTS, Captured, Description, Parts, check, native_content, sizes_of
from graphc.artifact.structure import is_array, leaf_count
from graphc.artifact.variables import Variables, type_text
from graphc.dim_patterns import Pattern
from graphc.errors import ArtifactError, IRError, at_user_line
from graphc.runtime.host import Resolve
from graphc.runtime.link import machine_signature
from graphc.trees import Tree, flatten

SIGNATURE, WEIGHTS = "signature.json", "weights.safetensors"

Array = np.ndarray[Any, Any]
Rebuild = Callable[[str, Pattern | None, Mapping[str, int]], Parts]
Wrap = Callable[[Array], Any]
# What serves calls of a kind, its symbols' values, and which leaf of the call each argument is (empty where that is their order).
Served = tuple[Captured, Mapping[str, int], Sequence[int]]
MOST_SERVED = 1024  # kinds of calls that are known


class Loaded:
    """What was compiled, read from a file.  Call it as the original; arrays or graphc tensors in, the same out.

    state_dict(), load_state_dict(): its parameters and state.   train(), eval(): which of the captured modes calls run.
    save(path): a file of it as it is now.   Methods that were saved with it are called by their names.
    """

    training: bool | None  # the mode of calls; None where it was captured without one

    def __init__(
        self, name: str, programs: Sequence[Captured], variables: Variables, wrap: Wrap | None, entries: Mapping[str, bytes]
    ) -> None:
        self.name, self.training = name, programs[0].description.training
        self._programs, self._variables, self._wrap, self._entries = programs, variables, wrap, entries
        self._served: dict[Any, Served] = {}

    def __repr__(self) -> str:
        return f"<graphc.Loaded {' or '.join(self._titled(program) for program in self._programs)}>"

    def _titled(self, program: Captured) -> str:
        method, modes = program.description.method, {p.description.training for p in self._programs}
        mode = "" if len(modes) == 1 else " in training" if program.description.training else " in evaluation"
        return f"{self.name}{method and '.'}{method}{program}{mode}"

    def state_dict(self) -> Any:
        """Parameters and state.  Of a module, what its own ``load_state_dict`` takes; of a function, a dict of the modules,
        optimizers and tensors that it names, each with what that one's takes.  Arrays are the very memory that the programs read:
        while any of them is held, what is made of them once is made at every call.
        """
        return self._variables.state_dict()

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> None:
        """Copy tensors, arrays and numbers into parameters and state.

        strict: the state dict has everything that `state_dict` gives, and nothing else; without, what is missing stays as it is.
        Raises ValueError naming what does not fit; then nothing has changed.
        """
        self._variables.load_state_dict(state_dict, strict)

    def train(self, mode: bool = True) -> Loaded:
        """Run what was captured in training mode, or in evaluation mode.  Raises ArtifactError where nothing was."""
        if all(program.description.training is not bool(mode) for program in self._programs):
            wanted, one = ("training", "train()") if mode else ("evaluation", "eval()")
            message = f"{self.name}: the artifact holds nothing of {wanted} mode; call the compiled module after {one} before save"
            raise ArtifactError(at_user_line(message))
        self.training = bool(mode)
        return self

    def eval(self) -> Loaded:
        """``train(False)``."""
        return self.train(False)

    def save(self, path: container.Place) -> None:
        """Write the same programs with the parameters and state of now.  An existing file stays whole on any error (OSError)."""
        with self._variables.lock:
            written = {**self._entries, WEIGHTS: weights.to_bytes(self._variables.arrays)}
        container.write(path, written)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run.

        Raises TypeError for another structure of arguments, ArtifactError for other dtypes or shapes, IndexError as eager would.
        """
        return self._call("", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        programs = self.__dict__.get("_programs", ())
        if not name or name.startswith("_") or all(program.description.method != name for program in programs):
            raise AttributeError(f"the artifact has no method or attribute {name!r}")
        return functools.partial(self._called, name)

    def _called(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        return self._call(method, args, kwargs)

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves, tree = flatten((args, kwargs), is_array)
        arrays = [leaf if isinstance(leaf, np.ndarray) else leaf.detach().numpy() for leaf in leaves]
        key = (method, self.training, tree, *[(array.dtype, array.shape) for array in arrays])
        found = self._served.get(key)
        if found is None:
            found = self._chosen(method, tree, arrays)
            if len(self._served) >= MOST_SERVED:
                self._served.clear()
            self._served[key] = found
        program, sizes, order = found
        if order:
            arrays = [arrays[i] for i in order]
        for i in program.written:
            if not arrays[i].flags.writeable:
                raise ArtifactError(at_user_line(f"{self.name}: argument {i} is read-only, and the program writes to it"))
        results = program.run(arrays, sizes)
        if self._wrap is None or any(isinstance(leaf, np.ndarray) for leaf in leaves):
            return program.results(results, results, sizes)
        return program.results([self._wrap(array) for array in results], results, sizes)

    def _chosen(self, method: str, tree: Tree, arrays: Sequence[Array]) -> Served:
        """What serves a call.  Raises TypeError for another structure, ArtifactError for other dtypes or sizes, or another mode."""
        known = [p for p in self._programs if p.description.method == method and p.description.training in (None, self.training)]
        if not known:
            mode = "training" if self.training else "evaluation"
            message = f"{self.name}{method and '.'}{method}: the artifact holds nothing of {mode} mode of it"
            raise ArtifactError(at_user_line(message))
        structured = []
        for program in known:
            own, order = _ordered(tree, program.description.arguments.children[1].value)
            if own == program.description.arguments or _same_in_a_file(own, program.description.arguments):
                structured.append(program)
                given = [arrays[i] for i in order]
                sizes = program.sizes(given)
                if sizes is not None:
                    return program, sizes, () if order == [*range(len(order))] else order
        if not structured:
            wanted = " or ".join(dict.fromkeys(_shown(program.description.arguments) for program in known))
            message = f"{self.name}: called with {_shown(tree)}, the artifact was made for {wanted} (* stands for a tensor)"
            raise TypeError(at_user_line(message))
        raise ArtifactError(at_user_line(f"{self.name}: {_mismatch(structured, given)}"))


def _ordered(tree: Tree, names: Sequence[str]) -> tuple[Tree, list[int]]:
    """The structure of a call with its keyword arguments in the order of `names`, where they are those, and which of the call's
    leaves its leaves are."""
    positional, keywords = tree.children
    end = leaf_count(positional)
    order, children, at = list(range(end)), {}, {}
    for name, child in zip(keywords.value, keywords.children, strict=True):
        children[name], at[name] = child, range(end, end + leaf_count(child))
        end = at[name].stop
    names = names if set(names) == children.keys() else keywords.value
    for name in names:
        order += at[name]
    return Tree("tuple", None, (positional, Tree("dict", tuple(names), tuple(children[n] for n in names)))), order


def _mismatch(programs: Sequence[Captured], arrays: Sequence[Array]) -> str:
    """What to say of arguments that no program serves."""
    if len(programs) == 1 and programs[0].pattern is None:
        for i, (array, spec) in enumerate(zip(arrays, programs[0].specs, strict=True)):
            if array.dtype != spec.dtype.numpy or array.shape != spec.shape:
                return f"argument {i} is {type_text(array)}, the artifact's signature says {spec}"
    known = [p.pattern.broken([a.shape for a in arrays]) for p in programs if p.pattern is not None and p.has_dtypes_of(arrays)]
    reason = next((f", and needs {' and '.join(map(str, facts))}" for facts in known if facts), "")
    return f"called with ({', '.join(map(type_text, arrays))}), the artifact serves {' or '.join(map(str, programs))}{reason}"


def _shown(arguments: Tree) -> str:
    positional, keywords = arguments.children
    return f"{tuple(positional.children)} {dict(zip(keywords.value, keywords.children, strict=True))}"


def _same_in_a_file(tree: Tree, arguments: Tree) -> bool:
    """Whether `tree` is written as `arguments` is (a named tuple is written as a tuple)."""
    try:
        return bool(tree.to_json() == arguments.to_json())
    except TypeError:  # something in it that no file holds
        return False


def loaded_from(
    entries: Mapping[str, bytes],
    *,
    wrap: Wrap | None = None,
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
        variables = Variables.of(weights.from_bytes(entries[WEIGHTS]), signature.get("state"))
        programs = []
        for described in signature.get("programs", [signature]):  # files of version 1 have one program, and no list
            own = _entries_in(entries, described.get("folder", ""))
            parts = Parts.of(own) if _is_trusted(own) else _rebuilt(own, rebuild)
            prepared = 0 if parts.constants is None else len(parts.constants.outputs)
            count = len(parts.plan.inputs) - len(described["states"]) - prepared
            description = Description.from_json(described, count)
            check(parts, description, variables.arrays)
            programs.append(Captured(parts, description, variables, resolve))
        if not programs:
            raise ArtifactError("it holds no program")
        kept = {name: data for name, data in entries.items() if name != WEIGHTS}
        return Loaded(str(signature["name"]), programs, variables, wrap, kept)
    except (
        IRError, KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError, SyntaxError, RecursionError,
    ) as error:  # fmt: skip
        raise ArtifactError(f"its parts do not fit together ({type(error).__name__}: {error})") from error


def _entries_in(entries: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    """The entries of one program, without the folder's name."""
    return {name.removeprefix(folder): data for name, data in entries.items() if name.startswith(folder)}


def _is_trusted(entries: Mapping[str, bytes]) -> bool:
    """Whether this user wrote the native code, for this machine."""
    facts = json.loads(entries[NATIVE_FACTS])
    if facts["machine"] != machine_signature():
        return False
    return signing.is_signed(native_content(entries, facts["machine"]), facts["signature"])


def _rebuilt(entries: Mapping[str, bytes], rebuild: Rebuild | None) -> Parts:
    if rebuild is None:
        raise ArtifactError(
            "its native code is not for this machine or not signed by this user, and nothing can compile it again here"
        )
    pattern, example = sizes_of(entries)
    try:
        return rebuild(entries[GRAPH].decode(), pattern, example)
    except (IRError, RecursionError) as error:
        raise ArtifactError(f"its graph is not valid: {error}") from error
