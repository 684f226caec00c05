"""Python functions and modules -> scripts, with everything they call.

Enters: functions, modules.  Leaves: `ScriptFunction`s, `ScriptModule`s that share the parameters.
Never here: running; files.

Modules of graphc.nn stay what they are, with their submodules scripted.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

from graphc.dtypes import DType
from graphc.eager.devices import device
from graphc.eager.tensor import Tensor
from graphc.errors import ScriptError, at_user_line
from graphc.nn.module import Module
from graphc.scripting.language import Code
from graphc.scripting.module import ScriptFunction, ScriptModule
from graphc.scripting.public import BUILTINS, Namespace, name_of

CONSTANTS = (bool, int, float, str, type(None), DType, device)
_OWN = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training"}


def script(obj: Any) -> Any:
    """`obj` as a script: a function or a module whose code, control flow included, is kept as text that a file can hold.

    The code may use assignments, if, while, for, with, assert, raise, calls, tuples, lists, dicts and comprehensions, graphc's
    functions, `math`, and functions and modules scripted with it.  Raises ScriptError (a RuntimeError) naming file, line and place
    of anything else, TypeError for what is neither a function nor a module.
    """
    if isinstance(obj, ScriptFunction | ScriptModule):
        return obj
    try:
        if isinstance(obj, Module):
            return _Conversion().module(obj, top=True)
        if isinstance(obj, types.FunctionType):
            return _Conversion().function(obj)
    except ScriptError as error:
        raise ScriptError(str(error)) from None
    raise TypeError(at_user_line(f"script: expected a function or a Module, got {type(obj).__name__}"))


class _Conversion:
    """One call of `script`: every function and module is converted once."""

    def __init__(self) -> None:
        self.codes: dict[types.FunctionType, Code] = {}
        self.modules: dict[int, Module] = {}

    def function(self, function: types.FunctionType) -> ScriptFunction:
        return ScriptFunction(self.code(function))

    def code(self, function: types.FunctionType) -> Code:
        """The checked code of a function and of what it calls."""
        if function in self.codes:
            return self.codes[function]
        try:
            lines, line = inspect.getsourcelines(function)
        except (OSError, TypeError):
            raise ScriptError(f"{function.__name__}: its source is not to be had, so it cannot be scripted") from None
        source = "".join(lines)
        code = self.codes[function] = Code(function.__name__, source, function.__code__.co_filename, line)
        signature = inspect.signature(function)
        for parameter in signature.parameters.values():
            if parameter.default is not inspect.Parameter.empty:
                code.defaults[parameter.name] = self.constant(parameter.default, code, f"the default of '{parameter.name}'")
        scope = inspect.getclosurevars(function)
        known = {**vars(builtins), **function.__globals__, **scope.nonlocals}
        for name in code.free_names():
            value = known.get(name, _ABSENT)
            if value is not _ABSENT and BUILTINS.get(name, _ABSENT) is not value:
                code.names[name] = self.reference(value, code, name)
        return code

    def reference(self, value: Any, code: Code, name: str) -> Any:
        """What a global name of a script stands for."""
        public = name_of(value)
        if public is not None:
            return Namespace(public) if isinstance(value, types.ModuleType) else value
        if isinstance(value, types.FunctionType) and not value.__module__.startswith("graphc."):
            return outside(value) or self.function(value)
        if isinstance(value, ScriptFunction | ScriptModule):
            return value
        if isinstance(value, Module):
            return self.module(value)
        node = next(n for n in ast.walk(code.definition) if getattr(n, "id", None) == name)
        return self.constant(value, code, f"'{name}', which is a {type(value).__name__}", node)

    def constant(self, value: Any, code: Code, what: str, node: Any = None) -> Any:
        """`value` if a file can hold it.  Raises ScriptError."""
        if is_constant(value) or name_of(value) is not None or isinstance(value, Tensor):
            return value
        raise code.refusal(node or code.definition, what)

    def module(self, module: Module, top: bool = False) -> Module:
        """A module with all below it scripted; `top`: even one of graphc.nn becomes a `ScriptModule`."""
        if id(module) in self.modules or isinstance(module, ScriptModule):
            return self.modules.get(id(module), module)
        if not is_library(module):
            scripted = self.modules[id(module)] = ScriptModule(type(module).__name__, {})
            self._children(scripted, module)
            self._fill(scripted, module)
            return scripted
        made = module
        if any(child is not None for child in module._modules.values()):
            made = object.__new__(type(module))
            made.__dict__.update(module.__dict__)
            made.__dict__["_modules"] = {}
        self.modules[id(module)] = made
        if made is not module:
            self._children(made, module)
        return ScriptModule(type(module).__name__, {}, made) if top else made

    def _children(self, made: Module, module: Module) -> None:
        for name, child in module._modules.items():
            made._modules[name] = None if child is None else self.module(child)

    def _fill(self, made: ScriptModule, module: Module) -> None:
        own = made.__dict__
        own["training"] = module.training
        for place in ("_parameters", "_buffers"):
            own[place] = dict(module.__dict__[place])
        own["_non_persistent_buffers_set"] = set(module._non_persistent_buffers_set)
        for name, value in module.__dict__.items():
            if name not in _OWN and not name.startswith("_") and (is_constant(value) or name_of(value) is not None):
                own[name] = value
        self._add_methods(made, module)

    def _add_methods(self, made: ScriptModule, module: Module) -> None:
        """``forward``, what is marked for export, and the methods those call."""
        kind = type(module)
        wanted = ["forward", *(n for n, f in inspect.getmembers(kind, inspect.isfunction) if getattr(f, "_graphc_export", False))]
        while wanted:
            name = wanted.pop()
            function = inspect.getattr_static(kind, name, None)
            is_known = name in (*made._methods, *made._ignored) or hasattr(Module, name) and name != "forward"
            if is_known or not isinstance(function, types.FunctionType):
                continue
            if (method := outside(function)) is not None:
                made.__dict__["_ignored"][name] = functools.partial(method, module)
                continue
            code = made._methods[name] = self.code(function)
            for node in code.attributes_of(code.parameters[0]):
                value = inspect.getattr_static(kind, node.attr, None)
                if isinstance(value, property):
                    raise code.refusal(node, f"a property of a module ('{node.attr}')")
                if is_constant(value) and value is not None and node.attr not in made.__dict__:
                    made.__dict__[node.attr] = value
                wanted.append(node.attr)


_ABSENT: Any = object()


def outside(function: types.FunctionType) -> Callable[..., Any] | None:
    """What a script has in place of a function that `graphc.jit` marks as none of its own; None for another function."""
    if getattr(function, "_graphc_unused", False):
        return functools.partial(_unused, function.__name__)
    return function if getattr(function, "_graphc_ignored", False) else None


def _unused(name: str, *_: Any, **__: Any) -> Any:
    raise RuntimeError(f"{name} is marked as unused, so no script can call it")


def is_library(module: Module) -> bool:
    """Whether a module's class is graphc's own."""
    return type(module).__module__.startswith("graphc.nn.")


def is_constant(value: Any) -> bool:
    """Whether a file can hold `value`: numbers, strings, None, dtypes, devices, and lists, tuples and dicts of those."""
    if isinstance(value, CONSTANTS):
        return True
    if isinstance(value, tuple | list):
        return all(map(is_constant, value))
    return isinstance(value, dict) and all(isinstance(k, str | int) and is_constant(v) for k, v in value.items())
