"""`graphc.compile`: a function or module that traces itself when called and runs as one native program.

Enters: Python callables, tensors.  Leaves: tensors, as the callable itself would give them, bit for bit.
Never here: how code is traced (trace) or made (compile.py).

A call is keyed by the structure of its arguments, every tensor's dtype, shape and requires_grad, the grad mode, and the epoch that any module
attribute change bumps.  A new key traces again; a trace whose text was compiled before costs no compilation.
"""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.pipeline import Built, Options, build
from graphc.eager import dispatch
from graphc.eager.modes import modes
from graphc.eager.storage import Phantom
from graphc.eager.tape import Node, Step, edge
from graphc.eager.tensor import Tensor, wrap
from graphc.errors import CompileWarning, TraceError, at_user_line
from graphc.ir.graph import Graph, Value
from graphc.ir.text import print_graph
from graphc.passes.split_joint import Split, split_joint
from graphc.runtime.memory import aligned_empty
from graphc.runtime.program import Program
from graphc.trace.tracer import Traced, trace, trace_joint
from graphc.trees import Tree, flatten


def is_tensor(x: Any) -> bool:
    """Leaves of arguments and results."""
    return isinstance(x, Tensor)


class Compiled:
    """A compiled function or module.  Call it as the original; attributes of a module are reached through it.

    explain() -> str: graphs, kernels, what was fused and why not, bytes moved, time per stage.
    save(path): the last compiled inference program as one file.   stats() -> counts and seconds.
    """

    def __init__(self, target: Callable[..., Any], options: Options, use_cache: bool = True) -> None:
        self._target, self._options, self._use_cache = target, options, use_cache
        self._variants: dict[Any, _Variant] = {}
        self._programs: dict[str, tuple[Built, Program]] = {}
        self._stats: dict[str, Any] = {"compiles": 0, "traces": 0, "cache_hits": 0, "fallbacks": [], "compile_seconds": 0.0}
        self._last: _Variant | None = None
        if not isinstance(target, type):
            functools.update_wrapper(self, target, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if modes.tracer is not None:
            return self._target(*args, **kwargs)
        leaves, tree = flatten((args, kwargs), is_tensor)
        key = (tree, modes.grad, dtypes.get_default_dtype(), *[(x.dtype, x._array.shape, x.requires_grad) for x in leaves])
        variant = self._variants.get(key)
        if variant is None or not variant.holds():
            variant = self._specialise(key, args, kwargs)
            if variant is None:
                return self._target(*args, **kwargs)
        self._last = variant
        return variant.run(leaves)

    def _specialise(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Variant | None:
        start = time.perf_counter()
        self._stats["traces"] += 1
        try:
            variant = _specialise(self, args, kwargs)
        except TraceError as error:
            reason = str(error)
            self._stats["fallbacks"].append(reason)
            name = getattr(self._target, "__name__", type(self._target).__name__)
            warnings.warn(f"{name} runs eagerly: {reason}", CompileWarning, stacklevel=3)
            return None
        self._variants[key] = variant
        self._stats["compile_seconds"] += time.perf_counter() - start
        return variant

    def _program(self, graph: Graph) -> tuple[Built, Program]:
        text = print_graph(graph)
        found = self._programs.get(text)
        if found is None:
            built = build(graph, self._options, use_cache=self._use_cache)
            self._stats["cache_hits" if built.from_cache else "compiles"] += 1
            found = self._programs[text] = (built, built.link())
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_target" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._target, name)

    def stats(self) -> dict[str, Any]:
        """compiles, traces, cache_hits, compile_seconds, and the reason of every fallback to eager."""
        return dict(self._stats)

    def explain(self, *, kernels: bool = True, cuda: bool = False) -> str:
        """What the programs of the last call became.  Raises RuntimeError before the first call."""
        from graphc.explain.report import report

        parts = [f"fallback to eager: {reason}" for reason in self._stats["fallbacks"]]
        if self._last is not None:
            parts += [report(built, kernels=kernels, cuda=cuda) for built in self._last.builts()]
        if not parts:
            raise RuntimeError(at_user_line("explain: nothing is compiled before the first call"))
        return "\n\n".join(parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the program of the last call (made without gradients) as one artifact that `graphc.load` runs.

        Raises RuntimeError where there is none, OSError where it cannot be written (an existing file stays whole).
        """
        from graphc.artifact.save import save

        variant = self._last
        if variant is None:
            raise RuntimeError(at_user_line("save: call the compiled function once first, so that there is a program to save"))
        if variant.backward is not None or variant.traced.scalars:
            message = "save: the last call recorded gradients or read live Python numbers; call it once under no_grad() first"
            raise RuntimeError(at_user_line(message))
        states = [f"state{i}" for i in range(len(variant.traced.states))]
        arrays = {n: np.array(a) for n, a in zip(states, variant.state_arrays(), strict=True)}
        names = self._state_names(variant)
        save(
            path,
            name=getattr(self._target, "__name__", type(self._target).__name__),
            graph_text=print_graph(variant.built.graph),
            plan=variant.built.plan,
            code=variant.built.code,
            arguments=variant.arguments,
            results=variant.results,
            result_count=variant.result_count,
            states=[names.get(n, n) for n in states],
            arrays={names.get(n, n): a for n, a in arrays.items()},
        )

    def _state_names(self, variant: _Variant) -> dict[str, str]:
        """Parameter names of a module for its states."""
        named = getattr(self._target, "state_dict", None)
        if named is None:
            return {}
        by_storage = {id(t._storage): name for name, t in named(keep_vars=True).items()}
        return {
            f"state{i}": by_storage[id(state._storage)] for i, state in enumerate(variant.traced.states) if id(state._storage) in by_storage
        }
