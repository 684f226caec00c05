"""What a file of graphc's own holds.

Enters: a path, or verified entries.  Leaves: a `Loaded` program, a script, or a state dict, by what the file holds.
Never here: formats; tensors and the compiler, which the caller hands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphc.artifact import container, state
from graphc.artifact.load import Rebuild, loaded_from
from graphc.errors import ArtifactError
from graphc.runtime.host import Resolve

Script = Callable[[Mapping[str, bytes]], Any]
Wrap = Callable[[np.ndarray[Any, Any]], Any]


def load(
    path: container.Place,
    *,
    wrap: Wrap | None = None,
    rebuild: Rebuild | None = None,
    resolve: Resolve | None = None,
    script: Script | None = None,
) -> Any:
    """`opened` of the verified entries of a path or an open file.  Raises OSError where it cannot be read at all."""
    entries = container.read(path)
    return opened(entries, container.name_of(path), wrap=wrap, rebuild=rebuild, resolve=resolve, script=script)


def opened(
    entries: Mapping[str, bytes],
    name: str,
    *,
    wrap: Wrap | None = None,
    rebuild: Rebuild | None = None,
    resolve: Resolve | None = None,
    script: Script | None = None,
) -> Any:
    """The program that `Compiled.save` wrote, the script that its `save` wrote, or the state dict that earlier versions wrote.

    wrap: array -> tensor (None: tensors come back as arrays).   rebuild: graph text -> plan and code, for native code that is not
    this user's or not for this machine (None: such a file is an error).   resolve: finds what runs an operator on the host
    (None: a program with one is an error).   script: the entries of a script -> the script (None: a script is an error).
    Raises ArtifactError, which calls the file `name`, for entries that are none of them, or do not fit together.
    """
    try:
        if script is not None and container.SCRIPT in entries:
            return script(entries)
        if state.SKELETON not in entries:
            return loaded_from(entries, wrap=wrap, rebuild=rebuild, resolve=resolve)
        arrays, are_tensors, tree = state.state_from(entries)
    except ArtifactError as error:
        raise ArtifactError(f"{name}: {error}") from error.__cause__
    return tree.unflatten([wrap(a) if is_tensor and wrap else a for a, is_tensor in zip(arrays, are_tensors, strict=True)])
