"""``graphc.compile(check=N)``: every N-th call beside the Python code, bit for bit.

Enters: a compiled function and a call.  Leaves: the call's result; a `CheckError` where the Python code gives another one.
Never here: how results are compiled.

The Python code runs first, on everything as it is; then all that it changed is put back, and the compiled call is made.  So the
call's own effects happen once.  What cannot be put back (files, printing) happens twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from graphc.capture.sizes import settled_graph
from graphc.capture.stages import computing
from graphc.eager.epoch import epoch
from graphc.eager.modes import no_grad
from graphc.eager.storage import array_address
from graphc.eager.tensor import Tensor, wrap
from graphc.errors import CheckError, line_text, warn
from graphc.explain.world import Elements, World, described
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.text import print_graph
from graphc.pipeline import Options, build
from graphc.runtime.memory import aligned_empty
from graphc.variant import Variant

SHOWN = 5  # differences
OF_PYTHON = "compiled code changes tensors and attributes of modules; other Python objects are changed when it is traced"


class Checks:
    """Of one compiled function.   every: which calls are checked, the first among them."""

    def __init__(self, every: int) -> None:
        self.every, self.calls = every, 0
        self._checking = False

    def is_due(self) -> bool:
        """Count a call: whether it is one to check."""
        if self._checking:
            return False
        self.calls += 1
        return (self.calls - 1) % self.every == 0

    def checked(self, compiled: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The compiled call's result.  Raises CheckError where the Python code does something else."""
        target = compiled._target
        before = World(target, args, kwargs)
        if not before.complete:
            warn("check: the code reaches too many objects; the call is not checked")
            return self._made(compiled, args, kwargs)
        at = epoch[0]
        wanted, error = _outcome(target, args, kwargs)
        before.restore()
        epoch[0] = at  # nothing has changed
        try:
            result = self._made(compiled, args, kwargs)
        except Exception as raised:
            if type(raised) is error:
                raise
            message = f"{self._call(compiled)} raises {type(raised).__name__}, the Python code {_named(error)}"
            raise CheckError(message) from raised
        got = described(result=result, args=args, kwargs=kwargs, function=target)
        paths = dict.fromkeys((*got, *wanted)) if error is None else ()
        off = [path for path in paths if got.get(path) != wanted.get(path)]
        if off or error is not None:
            variant = compiled._last_variant()
            after = World(target, args, kwargs, result)
            before.restore()
            try:
                where = _where(compiled, variant, args, kwargs) if any(_is_of_tensors(x, off) for x in (got, wanted)) else OF_PYTHON
            finally:
                after.restore()
            lines = [f"  {path}: {_difference(got.get(path), wanted.get(path))}" for path in off[:SHOWN]]
            more = [f"  and {len(off) - SHOWN} more"] if len(off) > SHOWN else []
            first = f"{self._call(compiled)} differs from the Python code{_raised(error)}"
            raise CheckError("\n".join([first, *lines, *more, where]))
        return result

    def _made(self, compiled: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The compiled call."""
        self._checking = True
        try:
            return compiled(*args, **kwargs)
        finally:
            self._checking = False

    def _call(self, compiled: Any) -> str:
        return f"check: call {self.calls} of {compiled._name}"


def _is_of_tensors(found: Mapping[str, Any], paths: Iterable[str]) -> bool:
    return any(isinstance(found.get(path), Elements) for path in paths)


def _named(error: type[BaseException] | None) -> str:
    return "does not" if error is None else f"raises {error.__name__}"


def _raised(error: type[BaseException] | None) -> str:
    return "" if error is None else f", which raises {error.__name__}"


def _outcome(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Mapping[str, Any], type[BaseException] | None]:
    """What the Python code gives and leaves behind, or what it raises."""
    try:
        result = target(*args, **kwargs)
    except Exception as error:
        return {}, type(error)
    return described(result=result, args=args, kwargs=kwargs, function=target), None


def _difference(got: str | Elements | None, wanted: str | Elements | None) -> str:
    """Both, in words; of elements the first that differs."""
    if isinstance(got, Elements) and isinstance(wanted, Elements) and got[:-1] == wanted[:-1]:
        a, b = (np.frombuffer(x.data, x.kind) for x in (got, wanted))
        bits = [x.view(np.uint8).reshape(len(x), -1) for x in (a, b)]
        at = int(np.flatnonzero((bits[0] != bits[1]).any(1))[0])
        place = [int(i) for i in np.unravel_index(at, got.shape)]
        return f"{got.dtype}{list(got.shape)}, at {place} {a[at]}, eagerly {b[at]}" if place else f"{a[at]}, eagerly {b[at]}"
    return f"{_shown(got)}, eagerly {_shown(wanted)}"


def _shown(seen: str | Elements | None) -> str:
    if isinstance(seen, Elements):
        return f"{seen.dtype}{list(seen.shape)}{', a leaf that requires grad' if seen.wanted else ''}"
    return seen or "not there"


# ---- where it begins --------------------------------------------------------------------------------------------------


def _where(compiled: Any, variant: Variant | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The first node that is another one than the code's now, or that is computed otherwise."""
    if variant is None:
        return "no program ran"
    fresh = compiled.again()
    fresh(*args, **kwargs)
    now = fresh._last_variant()
    if now is None:
        return f"the code cannot be compiled any more: {'; '.join(fresh.stats()['fallbacks'])}"
    differing = _first_other(variant.traced.graph, now.traced.graph)
    if differing:
        return differing
    return _first_off(variant, args, kwargs, compiled._options) or "the graph is the code's, and programs of its parts are right"


def _first_other(old: Graph, new: Graph) -> str:
    """How a graph differs from that of the code as it is now."""
    then, now = (print_graph(g).splitlines()[1:] for g in (old, new))
    for i, (a, b) in enumerate(zip(then, now, strict=False)):
        if a != b:
            line = _line(new, i) or _line(old, i)
            return f"the code does something else than when it was traced{line}:\n  then: {a.strip()}\n  now:  {b.strip()}"
    return ""


def _line(graph: Graph, number: int) -> str:
    return line_text(graph.nodes[number].location) if number < len(graph.nodes) else ""


def _first_off(variant: Variant, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> str:
    """The first node whose compiled value is not that of the operators one by one."""
    graph = settled_graph(variant.traced.graph, variant.sizes)
    given = dict(zip(graph.inputs, _inputs(variant, args, kwargs), strict=False))
    known = dict(given)
    with no_grad():
        nodes = [node for node in graph.nodes if _run(node, known)]
        order = {node: i for i, node in enumerate(nodes)}
        low, high = 0, len(nodes)
        while low < high:  # the first whose program, with all before it, is off
            middle = (low + high) // 2
            off = any(_is_off(v, given, known, order, options) for v in nodes[middle].outputs)
            low, high = (low, middle) if off else (middle + 1, high)
    if low == len(nodes):
        return ""
    node = nodes[low]
    types = ", ".join(str(v.type) for v in node.outputs)
    return f"the first node that is computed otherwise: {node.op.name} : {types}{line_text(node.location)}"


def _inputs(variant: Variant, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    from graphc.trees import flatten

    traced = variant.traced
    leaves, _ = flatten((args, kwargs), lambda x: isinstance(x, Tensor))
    yield from (x.detach() for x in traced.all_leaves(leaves))
    yield from (state.root().detach() for state in traced.states)
    yield from (wrap(np.asarray(getter(), dtype.numpy), dtype) for getter, dtype in traced.scalars)


def _run(node: Node, known: dict[Value, Tensor]) -> bool:
    """Compute a node, where what it reads is known."""
    if not all(v in known for v in node.inputs):
        return False
    made = node.op.run(*[known[v] for v in node.inputs], **node.attrs)
    known.update(zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True))
    return True


def _is_off(
    value: Value, given: Mapping[Value, Tensor], known: Mapping[Value, Tensor], order: Mapping[Node, int], options: Options
) -> bool:
    graph, read = computing([value], given, order)
    program = build(graph, options, use_cache=False).link()
    arrays = [np.ascontiguousarray(given[v]._array) for v in read]
    made, address = aligned_empty(tuple(known[value]._array.shape), value.dtype.numpy)
    program([array_address(a) for a in arrays], [address])
    return described(x=wrap(made, value.dtype)) != described(x=known[value].detach())


__all__ = ["Checks"]
