"""What `script` gives: functions and modules that run checked code, compiled, and can be written to a file.

Enters: `Code`, parameters, constants.  Leaves: results; files.  Never here: reading Python source.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from graphc.compiled import Compiled, compile
from graphc.eager.modes import modes
from graphc.errors import at_user_line
from graphc.ir.graph import Graph
from graphc.nn.module import Module
from graphc.scripting.language import Code
from graphc.scripting.numbers import plain
from graphc.scripting.run import call


class ScriptFunction:
    """A scripted function.  Call it as the original; `save(path)` writes it; `code` is its text.

    Its kernels are compiled for the dtypes and shapes of each call, as `graphc.compile` does.
    """

    def __init__(self, code: Code) -> None:
        self._code, self._compiled = code, None
        self.__name__ = code.name

    _compiled: Compiled | None

    @property
    def graph(self) -> Graph:
        """The graph of the last call, with a region where a tensor decides.  Raises RuntimeError before the first."""
        return graph_of(self._compiled)

    def explain(self, **options: Any) -> str:
        """What the last call became, as of what `graphc.compile` gives."""
        return explained(self._compiled, options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if modes.tracer is not None:
            return _run(self._code, *args, **kwargs)
        if self._compiled is None:
            self._compiled = compile(_named(self.__name__, functools.partial(_run, self._code)))
        return self._compiled(*args, **kwargs)

    @property
    def script(self) -> tuple[Any, ...]:
        """The checked code, and what comes before a caller's arguments."""
        return (self._code,)

    @property
    def code(self) -> str:
        """The source."""
        return self._code.source

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it with everything it calls, for `graphc.jit.load`.  Raises TypeError for what no file holds, OSError."""
        from graphc.scripting.archive import save

        save(self, path)

    def __repr__(self) -> str:
        return f"<graphc.jit.ScriptFunction {self.__name__}>"


class ScriptModule(Module):
    """A scripted module: parameters, buffers and submodules of the original, and its methods as checked code.

    original_name: the class it was made from.   `save(path)` writes all of it; `code` is the text of ``forward``.
    Attributes that are numbers, strings, lists, dicts and the like are kept; methods that the code calls are scripted too.
    """

    _methods: dict[str, Code]
    _ignored: dict[str, Callable[..., Any]]  # that are Python's
    _programs: dict[str, Compiled]  # by method

    def __init__(self, original_name: str, methods: dict[str, Code], library: Module | None = None) -> None:
        super().__init__()
        own = self.__dict__
        own["original_name"], own["_methods"], own["_library"] = original_name, methods, library
        own["_ignored"], own["_programs"] = {}, {}
        if library is not None:  # one of graphc.nn: its own forward runs, on what this module holds
            held = ("training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
            own.update({name: library.__dict__[name] for name in held})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The scripted ``forward``.  Raises NotImplementedError where the original had none."""
        if self._library is not None:
            self._library.training = self.training
            return self._library.forward(*args, **kwargs)
        if "forward" not in self._methods:
            raise NotImplementedError(f"{self.original_name} has no forward")
        return plain(call(self._methods["forward"], (self, *args), kwargs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if modes.tracer is not None:
            return super().__call__(*args, **kwargs)
        return self._program("forward", functools.partial(Module.__call__, self))(*args, **kwargs)

    def _program(self, name: str, function: Callable[..., Any]) -> Compiled:
        """What runs a method."""
        found = self._programs.get(name)
        if found is None:
            called = self.original_name if name == "forward" else f"{self.original_name}.{name}"
            found = self._programs[name] = compile(_named(called, function))
        return found

    @property
    def graph(self) -> Graph:
        """The graph of the last call, with a region where a tensor decides.  Raises RuntimeError before the first."""
        return graph_of(self._programs.get("forward"))

    def explain(self, **options: Any) -> str:
        """What the last call became, as of what `graphc.compile` gives."""
        return explained(self._programs.get("forward"), options)

    def __getattr__(self, name: str) -> Any:
        methods: dict[str, Code] = self.__dict__.get("_methods", {})
        if name in methods:
            method = functools.partial(_run_method, methods[name], self)
            method.script = (methods[name], self)  # type: ignore[attr-defined]  # of one that a script calls
            return method if modes.tracer is not None or name == "forward" else self._program(name, method)
        if name in self.__dict__.get("_ignored", ()):
            return self._ignored[name]
        return super().__getattr__(name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": {}}

    @property
    def code(self) -> str:
        """The source of ``forward``; of a module of graphc.nn, its name."""
        return self.original_name if self._library is not None else self._methods["forward"].source

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it for `graphc.jit.load`.  Raises TypeError for what no file holds, OSError."""
        from graphc.scripting.archive import save

        save(self, path)

    def _get_name(self) -> str:
        return self.original_name


def graph_of(compiled: Compiled | None) -> Graph:
    """The graph of a compiled function's last call.  Raises RuntimeError before the first."""
    variant = None if compiled is None else compiled._last_variant()
    if variant is None:
        raise RuntimeError(at_user_line("graph: graphs are made for the arguments of a call; call it first"))
    return variant.built.graph


def explained(compiled: Compiled | None, options: dict[str, Any]) -> str:
    """As `graph_of`, in words."""
    if compiled is None:
        raise RuntimeError(at_user_line("explain: nothing is compiled before the first call"))
    return compiled.explain(**options)


def _run(code: Code, *args: Any, **kwargs: Any) -> Any:
    return plain(call(code, args, kwargs))


def _run_method(code: Code, owner: ScriptModule, *args: Any, **kwargs: Any) -> Any:
    return plain(call(code, (owner, *args), kwargs))


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = name  # type: ignore[attr-defined]  # what warnings call it
    return function
