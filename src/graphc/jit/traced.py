"""`graphc.jit.trace`: code compiled for example arguments, and run by its program ever after.

Enters: functions, modules and example arguments.  Leaves: `TracedFunction`.  Never here: tracing (`graphc.compile` does it).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from graphc.compiled import Compiled, compile
from graphc.eager.modes import no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.graph import Graph
from graphc.nn.module import Module
from graphc.scripting import script
from graphc.scripting.module import graph_of


class TracedFunction:
    """Compiled code.  Call it as the original; `save` writes its program; `graph` and `code` show it.

    For arguments of other dtypes or shapes the code is traced again, and where it reads elements every way that calls take is
    compiled: no call gets the result of another one.  Attributes of a module are reached through it.
    """

    def __init__(self, target: Callable[..., Any], examples: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self._target, self._examples, self._keywords = target, examples, keywords
        self._compiled: Compiled = compile(target, fullgraph=True)
        self._compiled(*examples, **keywords)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    @property
    def graph(self) -> Graph:
        """The graph of the last call."""
        return graph_of(self._compiled)

    @property
    def code(self) -> str:
        """The graph's text."""
        return str(self.graph)

    def explain(self, **options: Any) -> str:
        """As of what `graphc.compile` gives."""
        return self._compiled.explain(**options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the program of the example arguments, without gradients.  Raises as the compiled function's `save`."""
        with no_grad():
            self._compiled(*self._examples, **self._keywords)
            self._compiled.save(path)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_target" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._target, name)

    def __repr__(self) -> str:
        return f"<graphc.jit.TracedFunction {getattr(self._target, '__name__', type(self._target).__name__)}>"


def trace(
    func: Any,
    example_inputs: Any = None,
    optimize: Any = None,
    check_trace: bool = True,
    check_inputs: Any = None,
    check_tolerance: float = 1e-5,
    strict: bool = True,
    _force_outplace: bool = False,
    _module_class: Any = None,
    _compilation_unit: Any = None,
    example_kwarg_inputs: dict[str, Any] | None = None,
    _store_inputs: bool = True,
) -> Any:
    """`func`, a function or module, compiled for example arguments: a `TracedFunction`.

    example_inputs: a tensor or a tuple of arguments.   example_kwarg_inputs: arguments by name.   The rest changes nothing: a
    compiled call gives the eager call's result in every bit.   Unlike PyTorch's, it follows other shapes and other ways through the
    code.   Raises TypeError for what cannot be called, TraceError for code that cannot be compiled.
    """
    if not callable(func):
        raise TypeError(at_user_line(f"trace: expected a function or a Module, got {type(func).__name__}"))
    if example_inputs is None and example_kwarg_inputs is None:
        raise RuntimeError(at_user_line("trace: example_inputs must be given"))
    given = () if example_inputs is None else example_inputs
    given = (given,) if isinstance(given, Tensor) or not isinstance(given, tuple | list) else tuple(given)
    return TracedFunction(func, given, example_kwarg_inputs or {})


def trace_module(mod: Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Module:
    """`mod` as a script whose methods named in `inputs` were called with the example arguments there: a `ScriptModule`.

    A file of it holds all its methods.   Further arguments change nothing.   Raises ScriptError for code that a script cannot hold,
    AttributeError for a method that there is not.
    """
    for name in inputs:
        if name != "forward":
            getattr(type(mod), name)._graphc_export = True
    scripted: Module = script(mod)
    for name, given in inputs.items():
        getattr(scripted, "__call__" if name == "forward" else name)(*(given if isinstance(given, tuple | list) else (given,)))
    return scripted
