"""Runs a random program eagerly and compiled, every graph of it by the reference interpreter too, and makes what fails small."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np

import graphc
from graph_cases import TOLERANCE, Array, bits, run_interpreted
from graphc.capture.sizes import settled_graph
from graphc.compiled import Compiled
from graphc.errors import CompileWarning
from graphc.ir.graph import Graph, Value
from graphc.ir.op import Op
from graphc.runtime.program import Program
from observed import Near, Observer, Shown, difference
from random_code import Code, Holder, Statement, loss_of, names_for_code

NOISY_RUNS = 24
OF_ELEMENTS = ("IndexError", "LinAlgError")  # errors that no trace finds


@dataclass
class Counts:
    """What the runs of programs came to."""

    programs: int = 0
    compiled: int = 0  # without a fallback
    raised: int = 0  # in some call
    graphs: int = 0  # runs that the interpreter repeated
    fallbacks: dict[str, int] = field(default_factory=dict)


@dataclass
class Raised:
    """A call that failed.   before: what was shown before it: a compiled call that fails leaves everything as it was."""

    shown: Shown
    before: Shown
    error: Shown


def difference_of_calls(got: Shown | Raised, wanted: Shown | Raised, path: str) -> str | None:
    """The first difference between a compiled and an eager call."""
    if isinstance(got, Raised) and isinstance(wanted, Raised):
        if wanted.error[1] in OF_ELEMENTS:  # the trace finds an error of shapes that comes later first
            wanted = replace(wanted, error=got.error)
        changed = difference(got.shown, (got.before[0], got.error), f"{path} after an error")
        as_eager = difference(got.shown, wanted.shown)
        return difference(got.error, wanted.error, path) or (changed if as_eager else None)
    if isinstance(got, Raised) or isinstance(wanted, Raised):
        first, second = (x.error if isinstance(x, Raised) else "no error" for x in (got, wanted))
        return f"{path}: {first}, wanted {second}"
    return difference(got, wanted, path)


# ---- eagerly and compiled -------------------------------------------------------------------------------------------


def history(code: Code, compiling: bool, counts: Counts) -> list[Shown | Raised]:
    """What every call shows, up to one that fails: results, arguments, tensors outside, the module, gradients, random state."""
    names = names_for_code() | {"module": Holder(code.seed)}
    states = {i.name: i.make([code.seed, 0]) for i in code.inputs if i.state}
    exec(compile(code.text(), f"random{code.seed}.py", "exec"), {**names, **states}, names)
    program = names["program"]
    program.__globals__["module"] = names["module"]
    how: dict[str, Any] = {"lanes": (4, 8, 16)[code.seed % 3], "budget_s": 0 if code.seed % 2 else None}  # the odd ones in haste
    call = graphc.compile(program, use_cache=False, **how) if compiling else program
    graphc.manual_seed(code.seed)
    seen: list[Shown | Raised] = []
    for k, batch in enumerate(code.batches):
        arguments = [i.make([code.seed, k], batch) for i in code.inputs if not i.state]

        def everything(outcome: Any, arguments: Any = arguments) -> Shown:
            observer = Observer()
            return observer.show([arguments, states, names["module"], graphc.get_rng_state()]), observer.show(outcome)

        before = everything(None)
        try:
            with graphc.no_grad() if code.gradients == "off" else nullcontext():
                outcome = call(*arguments)
        except Exception as error:
            counts.raised += compiling
            seen.append(Raised(everything(error), before, Observer().show(error)))
            break
        try:
            if code.gradients in ("outside", "twice"):
                outcome = outcome, backward(outcome, [*arguments, names["module"].weight], twice=code.gradients == "twice")
        except Exception as error:
            outcome = error
        seen.append(everything(outcome))
    if compiling:
        reasons = call.stats()["fallbacks"]
        counts.compiled += not reasons
        for reason in reasons:
            key = reason.partition(" (")[0]
            counts.fallbacks[key] = counts.fallbacks.get(key, 0) + 1
    return seen


def backward(outcome: Any, leaves: list[Any], twice: bool) -> Any:
    """Gradients of a number of all results, in every leaf; of those again if `twice`."""
    leaves = [x for x in leaves if x.requires_grad]
    loss = loss_of([*outcome.values(), *(x * 0.37 for x in leaves)])
    if not loss.requires_grad or not leaves:
        return None
    if not twice:
        loss.backward()
        return None
    first = graphc.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
    total = loss_of([g * g for g in first if g is not None and g.requires_grad])
    if not total.requires_grad:
        return first
    return first, [None if g is None else Near(g) for g in graphc.autograd.grad(total, leaves, allow_unused=True)]


# ---- the interpreter ------------------------------------------------------------------------------------------------


class Different(AssertionError):
    """The reference interpreter and a compiled program disagree."""


def interpreted_again(graph: Graph, arrays: list[Array], got: list[Array]) -> str | None:
    """What is wrong with what a program gave, by the references: nothing within the tolerance, or the spread of rounding."""
    wanted = run_interpreted(graph, arrays)
    with np.errstate(all="ignore"):
        bad = [k for k, (a, b) in enumerate(zip(got, wanted, strict=True)) if not is_near(a, b, b, b)]
        if not bad:
            return None
        runs = [noisy(graph, arrays, seed) for seed in range(NOISY_RUNS)]
        for k in bad:
            low, high = (f.reduce([wide(run[k]) for run in (*runs, wanted)]) for f in (np.fmin, np.fmax))
            unsteady = np.any([bits(run[k]) != bits(wanted[k]) for run in runs], axis=0) & ~np.isfinite(wide(wanted[k]))
            unsteady |= np.any([~np.isfinite(wide(run[k])) for run in runs], axis=0)
            if not is_near(got[k], wanted[k], low, high, unsteady):
                return f"{graph}\nresult {k}: {got[k].reshape(-1)[:8]}, by the references {wanted[k].reshape(-1)[:8]}"
    return None


def wide(array: Array) -> Array:
    """As float64, to measure differences."""
    return np.ascontiguousarray(array, np.complex128).view(np.float64) if array.dtype.kind == "c" else array.astype(np.float64)


def is_near(got: Array, wanted: Array, low: Array, high: Array, unsteady: Array | None = None) -> bool:
    """Whether all elements lie between `low` and `high`, widened by the tolerance of the dtype and by the width itself."""
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        return False
    if got.dtype.kind == "c":
        unsteady = None if unsteady is None else np.repeat(unsteady, 2, -1)
    name = graphc.dtypes.from_numpy(got.dtype).name
    tolerance = TOLERANCE.get(name, 0.0)
    a, low, high, middle = wide(got), wide(low), wide(high), wide(wanted)
    margin = tolerance * (1 + np.abs(middle)) + 4 * (high - low)
    near = (a >= low - margin) & (a <= high + margin) | (a == middle) | (np.isnan(a) & np.isnan(middle))
    return bool((near if unsteady is None else near | unsteady).all())


def noisy(graph: Graph, arrays: list[Array], seed: int) -> list[Array]:
    """Results of the interpreter where every floating result of a node is off by a few of its last bits."""
    rng = np.random.default_rng(seed)
    values: dict[Value, Array] = dict(zip(graph.inputs, arrays, strict=True))
    for node in graph.nodes:
        made = run_interpreted(alone(graph, node), [values[v] for v in dict.fromkeys(node.inputs)])
        for value, array in zip(node.outputs, made, strict=True):
            if array.dtype.kind not in "biu":
                off = rng.integers(-4, 5, array.shape) * float(np.finfo(np.float32).eps if array.itemsize > 2 else 2.0**-8)
                off = off if array.dtype.itemsize != 8 or array.dtype.kind == "c" else off * 2.0**-28
                array = (array * (1 + off)).astype(array.dtype)
            values[value] = array
    return [values[v] for v in (*graph.outputs, *(new for _, new in graph.updates))]


def alone(graph: Graph, node: Any) -> Graph:
    """One node as a graph."""
    return Graph(graph.name, tuple(dict.fromkeys(node.inputs)), (node,), tuple(node.outputs))


def array_at(address: int, value: Value) -> Array:
    """A copy of the array of a value's type at an address."""
    shape = tuple(int(n) for n in value.shape)  # type: ignore[arg-type]
    nbytes = int(np.prod(shape)) * value.dtype.itemsize
    return (
        np.frombuffer(ctypes.string_at(address, nbytes), value.dtype.numpy).reshape(shape)
        if nbytes
        else np.empty(shape, value.dtype.numpy)
    )


@contextmanager
def interpreting(counts: Counts) -> Iterator[None]:
    """Every run of a program of `graphc.compile` is repeated by the interpreter.  Raises Different at its end."""
    graphs: dict[int, tuple[Program, Graph, bool]] = {}
    failures: list[str] = []
    make, run = Compiled._program, Program.__call__

    def remembering(self: Compiled, graph: Graph, fixed: Any = ()) -> Any:
        built, program = make(self, graph, fixed)
        graphs.setdefault(id(program), (program, built.graph, built.constants is None))
        return built, program

    def repeating(self: Program, inputs: Any, outputs: Any, sizes: Any = ()) -> None:
        _, graph, whole = graphs.get(id(self), (None, None, False))
        if graph is None or not whole:
            return run(self, inputs, outputs, sizes)
        if sizes:
            graph = settled_graph(graph, dict(zip(self.plan.sizes, sizes, strict=True)))
        arrays = [array_at(a, v) for a, v in zip(inputs, graph.inputs, strict=True)]
        run(self, inputs, outputs, sizes)
        places = dict(zip(graph.inputs, inputs, strict=True))
        got = [array_at(a, v) for a, v in zip(outputs, graph.outputs, strict=True)]
        got += [array_at(places[state], state) for state, _ in graph.updates]
        counts.graphs += 1
        try:
            failure = interpreted_again(graph, arrays, got)
        except Exception as error:
            failure = f"{graph}\nthe references raise {error!r}"
        if failure is not None:
            failures.append(failure)
        return None

    with mock.patch.object(Compiled, "_program", remembering), mock.patch.object(Program, "__call__", repeating):
        yield
    if failures:
        raise Different(failures[0])


# ---- one program ----------------------------------------------------------------------------------------------------


def finding(code: Code, counts: Counts | None = None, interpreter: bool = True) -> str | None:
    """What is wrong with a program, in words; None where eager, compiled and interpreted agree."""
    counts = counts or Counts()
    counts.programs += 1
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        warnings.simplefilter("ignore", CompileWarning)
        wanted = history(code, False, counts)
        if wanted and isinstance(wanted[-1], Raised) and wanted[-1].error[1] in ("NameError", "UnboundLocalError"):
            return None  # no program
        context: AbstractContextManager[Any] = interpreting(counts) if interpreter else nullcontext()
        try:
            with context:
                got = history(code, True, counts)
        except Different as error:
            return f"interpreter: {error}"
    for k, (a, b) in enumerate(zip(got, wanted, strict=False)):
        if (found := difference_of_calls(a, b, f"call {k}")) is not None:
            if code.gradients == "twice" and "'raised', 'RuntimeError'" in found.partition(", wanted")[0]:
                return None  # second derivatives by what the call itself wrote to are refused
            unseen = isinstance(b, Raised) and not isinstance(a, Raised) and code.results != code.all_results()
            return finding(replace(code, results=code.all_results()), interpreter=False) if unseen else found
    return None if len(got) == len(wanted) else f"{len(got)} calls, wanted {len(wanted)}: 'raised'"


def kind_of(found: str | None) -> str | None:
    """What a smaller program must still show."""
    if found is None:
        return None
    return "interpreter" if found.startswith("interpreter") else "raised" if "'raised'" in found else "bits"


def smaller(code: Code) -> Iterator[Code]:
    """Programs with one thing less."""
    if len(code.batches) > 1:
        for i in reversed(range(len(code.batches))):
            yield replace(code, batches=(*code.batches[:i], *code.batches[i + 1 :]))
    for statements in fewer(code.statements):
        yield replace(code, statements=statements)
    for i in range(len(code.results)):
        yield replace(code, results=(*code.results[:i], *code.results[i + 1 :]))
    for i, one in enumerate(code.inputs):
        rest = (*code.inputs[:i], *code.inputs[i + 1 :])
        yield replace(code, inputs=rest)
        if one.requires_grad:
            yield replace(code, inputs=(*code.inputs[:i], replace(one, requires_grad=False), *code.inputs[i + 1 :]))
        if one.layout != "plain":
            yield replace(code, inputs=(*code.inputs[:i], replace(one, layout="plain"), *code.inputs[i + 1 :]))
        if one.special:
            yield replace(code, inputs=(*code.inputs[:i], replace(one, special=False), *code.inputs[i + 1 :]))
    if code.gradients != "none":
        yield replace(code, gradients="none")


def fewer(statements: tuple[Statement, ...]) -> Iterator[tuple[Statement, ...]]:
    """Without one statement, with a block's content in its place, or with one that is smaller inside."""
    for i in reversed(range(len(statements))):
        before, one, after = statements[:i], statements[i], statements[i + 1 :]
        yield (*before, *after)
        if one.body:
            yield (*before, *one.body, *after)
            yield from ((*before, replace(one, body=body), *after) for body in fewer(one.body) if body)
        if one.other:
            yield (*before, *one.other, *after)
            yield (*before, replace(one, other=()), *after)
            yield from ((*before, replace(one, other=other), *after) for other in fewer(one.other) if other)


def shrunk(code: Code, found: str, most: int = 400) -> tuple[Code, str]:
    """The smallest program near `code` that shows the same kind of difference, and the difference."""
    kind, tries = kind_of(found), 0
    again = True
    while again:
        again = False
        for candidate in smaller(code):
            tries += 1
            if tries > most:
                return code, found
            try:
                other = finding(candidate, interpreter=kind == "interpreter")
            except Exception:
                continue
            if other is not None and kind_of(other) == kind:
                code, found, again = candidate, other, True
                break
    return code, found


__all__ = ["Counts", "Op", "finding", "shrunk"]
