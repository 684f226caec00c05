"""Scripts <-> files.

Enters: scripts, or the verified entries of a file.  Leaves: a file, or scripts; ArtifactError for anything else.
Never here: Python objects by name other than those of `public` and the modules of graphc.nn.

One entry is JSON: functions (source and what their global names stand for) and the tree of modules; tensors are in safetensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import graphc.nn as nn
from graphc import dtypes
from graphc.artifact import container, weights
from graphc.dtypes import DType, from_numpy
from graphc.eager.devices import device
from graphc.eager.tensor import Tensor, wrap
from graphc.errors import ArtifactError, ScriptError
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter
from graphc.scripting.convert import is_library
from graphc.scripting.language import Code
from graphc.scripting.module import ScriptFunction, ScriptModule
from graphc.scripting.public import Namespace, name_of, named

WEIGHTS = "weights.safetensors"
_HELD = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
_SCRIPT_ONLY = {"original_name", "_methods", "_ignored", "_programs", "_library"}


def save(script: ScriptFunction | ScriptModule, path: str | os.PathLike[str]) -> None:
    """Write a script.  Raises TypeError naming what no file holds, OSError; an existing file stays whole."""
    writer = _Writer()
    top = writer.value(script)
    content = {"top": top, "functions": writer.functions, "modules": writer.modules}
    arrays = {f"{i}": t.detach().numpy_view() for i, t in enumerate(writer.tensors)}
    container.write(path, {container.SCRIPT: json.dumps(content, indent=1).encode(), WEIGHTS: weights.to_bytes(arrays)})


def scripted_from(entries: Mapping[str, bytes]) -> ScriptFunction | ScriptModule:
    """The script that `save` wrote.  Raises ArtifactError for entries that do not say one."""
    try:
        reader = _Reader(json.loads(entries[container.SCRIPT]), weights.from_bytes(entries[WEIGHTS]))
        top = reader.value(reader.content["top"])
    except (ScriptError, AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"its script cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(top, ScriptFunction | ScriptModule):
        raise ArtifactError("its script is neither a function nor a module")
    return top


class _Writer:
    """Everything met once, under a number."""

    def __init__(self) -> None:
        self.functions: list[Any] = []
        self.modules: list[Any] = []
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}

    def value(self, value: Any) -> Any:
        """`value` in JSON.  Raises TypeError."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, tuple | list):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [self.value(v) for v in value]}
        if isinstance(value, dict):
            return {"dict": [[k, self.value(v)] for k, v in value.items()]}
        if isinstance(value, DType):
            return {"dtype": value.name}
        if isinstance(value, device):
            return {"device": str(value)}
        if isinstance(value, Namespace):
            return {"name": value.name}
        if isinstance(value, ScriptFunction):
            return {"function": self.code(value._code)}
        if isinstance(value, Module):
            return {"module": self.module(value)}
        if isinstance(value, Tensor):
            return {"tensor": self.tensor(value), "parameter": isinstance(value, Parameter), "requires_grad": value.requires_grad}
        name = name_of(value)
        if name is None:
            raise TypeError(f"save: a {type(value).__name__} cannot be written to a file")
        return {"name": name}

    def tensor(self, tensor: Tensor) -> int:
        if id(tensor) not in self._numbers:
            self._numbers[id(tensor)] = len(self.tensors)
            self.tensors.append(tensor)
        return self._numbers[id(tensor)]

    def code(self, code: Code) -> int:
        if id(code) not in self._numbers:
            number = self._numbers[id(code)] = len(self.functions)
            self.functions.append(None)  # its place, before what it calls
            self.functions[number] = {
                "name": code.name,
                "source": code.source,
                "file": os.path.basename(code.file),
                "line": code.line,
                "names": {n: self.value(v) for n, v in code.names.items()},
                "defaults": {n: self.value(v) for n, v in code.defaults.items()},
            }
        return self._numbers[id(code)]

    def module(self, module: Module) -> int:
        if id(module) not in self._numbers:
            number = self._numbers[id(module)] = len(self.modules)
            self.modules.append(None)
            own = module.__dict__
            scripted = isinstance(module, ScriptModule)
            if not scripted and not (is_library(module) and getattr(nn, type(module).__name__, None) is type(module)):
                raise TypeError(f"save: a {type(module).__name__} is not a module of graphc.nn or a script")
            held = {place: {n: self.value(v) for n, v in own[place].items()} for place in ("_parameters", "_buffers", "_modules")}
            if scripted and module._ignored:
                name = next(iter(module._ignored))
                raise TypeError(f"save: '{name}' of {module.original_name} is Python code (graphc.jit.ignore or unused)")
            plain = {n: v for n, v in own.items() if n not in _HELD | _SCRIPT_ONLY and not n.endswith("_hooks")}
            self.modules[number] = {
                "class": module.original_name if scripted else type(module).__name__,
                "methods": {n: self.code(c) for n, c in module._methods.items()} if scripted else None,
                "library": self.value(module._library) if scripted else None,
                "not_persistent": sorted(module._non_persistent_buffers_set),
                "attributes": {n: self.value(v) for n, v in plain.items() if not callable(v) or name_of(v) is not None},
                **held,
            }
        return self._numbers[id(module)]


class _Reader:
    """The other way round."""

    def __init__(self, content: Any, arrays: Mapping[str, Any]) -> None:
        self.content = content
        self.tensors: dict[int, Tensor] = {}
        self.arrays = arrays
        self.codes: dict[int, Code] = {}
        self.modules: dict[int, Module] = {}

    def value(self, data: Any) -> Any:
        """What `_Writer.value` wrote.  Raises for anything else."""
        if data is None or isinstance(data, bool | int | float | str):
            return data
        kind = next(iter(data))
        inner = data[kind]
        if kind == "tensor":
            return self.tensor(int(inner), bool(data["parameter"]), bool(data["requires_grad"]))
        readers = {
            "list": lambda: [self.value(v) for v in inner],
            "tuple": lambda: tuple(self.value(v) for v in inner),
            "dict": lambda: {k: self.value(v) for k, v in inner},
            "dtype": lambda: dtypes.by_name(inner),
            "device": lambda: device(inner),
            "name": lambda: named(inner),
            "function": lambda: ScriptFunction(self.code(int(inner))),
            "module": lambda: self.module(int(inner)),
        }
        return readers[kind]()

    def tensor(self, number: int, is_parameter: bool, requires_grad: bool) -> Tensor:
        if number not in self.tensors:
            array = self.arrays[str(number)]
            tensor = wrap(array, from_numpy(array.dtype))
            made = Parameter(tensor, requires_grad) if is_parameter else tensor.requires_grad_(requires_grad)
            self.tensors[number] = made
        return self.tensors[number]

    def code(self, number: int) -> Code:
        if number not in self.codes:
            data = self.content["functions"][number]
            code = self.codes[number] = Code(str(data["name"]), str(data["source"]), str(data["file"]), int(data["line"]))
            code.names = {str(n): self.value(v) for n, v in data["names"].items()}
            code.defaults = {str(n): self.value(v) for n, v in data["defaults"].items()}
        return self.codes[number]

    def module(self, number: int) -> Module:
        if number not in self.modules:
            data = self.content["modules"][number]
            if data["methods"] is None:
                kind = getattr(nn, data["class"])
                if not (isinstance(kind, type) and issubclass(kind, Module)):
                    raise ValueError(f"graphc.nn has no module {data['class']}")
                module: Module = object.__new__(kind)
                Module.__init__(module)
            else:
                library = self.value(data["library"])
                module = ScriptModule(str(data["class"]), {str(n): self.code(int(c)) for n, c in data["methods"].items()}, library)
            self.modules[number] = module
            self._fill(module, data)
        return self.modules[number]

    def _fill(self, module: Module, data: Any) -> None:
        own = module.__dict__
        for name, value in data["attributes"].items():
            if name in _HELD | _SCRIPT_ONLY or hasattr(Module, name) and name != "training":
                raise ValueError(f"an attribute cannot be called {name}")
            own[str(name)] = self.value(value)
        own["_non_persistent_buffers_set"].update(map(str, data["not_persistent"]))
        kinds = {"_parameters": Parameter, "_buffers": Tensor, "_modules": Module}
        for place, kind in kinds.items():
            for name, value in data[place].items():
                held = self.value(value)
                if held is not None and not isinstance(held, kind):
                    raise TypeError(f"{name} is not a {kind.__name__}")
                own[place][str(name)] = held
