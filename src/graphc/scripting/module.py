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
from graphc.nn.module import Module
from graphc.scripting.language import Code
from graphc.scripting.run import call


class ScriptFunction:
    """A scripted function.  Call it as the original; `save(path)` writes it; `code` is its text.

    Its kernels are compiled for the dtypes and shapes of each call, as `graphc.compile` does.
    """

    def __init__(self, code: Code) -> None:
        self._code, self._compiled = code, None
        self.__name__ = code.name

    _compiled: Compiled | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if modes.tracer is not None:
            return call(self._code, args, kwargs)
        if self._compiled is None:
            self._compiled = compile(_named(self.__name__, functools.partial(_run, self._code)))
        return self._compiled(*args, **kwargs)

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

    def __init__(self, original_name: str, methods: dict[str, Code], library: Module | None = None) -> None:
        super().__init__()
        own = self.__dict__
        own["original_name"], own["_methods"], own["_compiled"], own["_library"] = original_name, methods, None, library
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
        return call(self._methods["forward"], (self, *args), kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if modes.tracer is not None:
            return super().__call__(*args, **kwargs)
        if self._compiled is None:
            self.__dict__["_compiled"] = compile(_named(self.original_name, functools.partial(Module.__call__, self)))
        return self._compiled(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        methods: dict[str, Code] = self.__dict__.get("_methods", {})
        if name in methods:
            return functools.partial(_run_method, methods[name], self)
        return super().__getattr__(name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}

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


def _run(code: Code, *args: Any, **kwargs: Any) -> Any:
    return call(code, args, kwargs)


def _run_method(code: Code, owner: ScriptModule, *args: Any, **kwargs: Any) -> Any:
    return call(code, (owner, *args), kwargs)


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = name  # type: ignore[attr-defined]  # what warnings call it
    return function
