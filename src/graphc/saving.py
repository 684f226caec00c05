"""`graphc.save` and `graphc.load`: the artifact room with tensors and the compiler handed to it, both only when a file needs them.

Enters: state dicts, paths.  Leaves: files, state dicts, loaded programs.  Never here: what a file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.artifact import files
from graphc.artifact.container import Place
from graphc.runtime.host import Function
from graphc.runtime.plan import Plan


def save(
    obj: Any, f: Place, pickle_module: Any = None, pickle_protocol: int = 2, _use_new_zipfile_serialization: bool = True
) -> None:
    """Write a tensor or state dict as one file (a path or an open binary file) without pickles.

    It may nest dicts, lists and tuples of tensors, arrays, numbers, strings, bools and None.  Tensors come back as
    copies that do not require grad.  (A compiled function is written by its own ``save``.)

    Raises TypeError naming the place of anything else; OSError, and an existing file stays whole.
    Differs from torch: no other Python objects.
    """
    files.save(obj, f)


def load(
    f: Place, map_location: Any = None, pickle_module: Any = None, *, weights_only: bool | None = None, mmap: bool | None = None
) -> Any:
    """What is in the file: the program that ``compiled.save`` wrote, as a callable, or the state dict that `save` wrote.

    map_location: a device, a dict of devices or a function, as PyTorch has it; all tensors are on the CPU.
    weights_only: files hold nothing else.
    Raises ArtifactError for a damaged, altered or foreign file, OSError for one that cannot be read, and as ``Tensor.to`` for a
    device that no tensor can be on.
    """
    if map_location is not None and not callable(map_location):
        from graphc.eager.devices import check_device

        for where in map_location.values() if isinstance(map_location, dict) else (map_location,):
            check_device(where)
    return files.load(f, wrap=_tensor, rebuild=_rebuild, resolve=_resolve, script=_script)


def _tensor(array: np.ndarray[Any, Any]) -> Any:
    from graphc.eager.tensor import wrap_array

    return wrap_array(array)


def _script(entries: Mapping[str, bytes]) -> Any:
    from graphc.scripting.archive import scripted_from

    return scripted_from(entries)


def _resolve(name: str, attributes: str) -> Function:
    import graphc.ops  # noqa: F401  the table that the name is in
    from graphc.ir.host import resolve

    return resolve(name, attributes)


def _rebuild(graph_text: str) -> tuple[Plan, bytes]:
    import graphc.ops  # noqa: F401  the table that the text names
    from graphc.ir.text import parse_graph
    from graphc.pipeline import build

    built = build(parse_graph(graph_text))
    return built.plan, built.code
