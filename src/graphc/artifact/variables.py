"""What a loaded file's programs read and write beside their arguments: arrays by name, and the structure they are handed out in.

Enters: arrays, a structure.  Leaves: state dicts; new elements of the arrays.  Never here: programs, files.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.artifact.structure import is_array, read_tree
from graphc.errors import ArtifactError, at_user_line
from graphc.leases import Debt, lend
from graphc.trees import Tree

Array = np.ndarray[Any, Any]
_ABSENT = object()


class Variables:
    """arrays: by name; their memory stays where it is.   versions: how often each was written to.   lent: what is handed out of
    them.   lock: whoever runs a program or writes holds it."""

    def __init__(self, arrays: dict[str, Array], tree: Tree, names: Sequence[str], numbers: Collection[str]) -> None:
        """tree: the structure of a state dict, whose leaves are the arrays `names`; `numbers` are handed out as numbers."""
        self.arrays, self._tree, self._names, self._numbers = arrays, tree, list(names), frozenset(numbers)
        self.versions = dict.fromkeys(arrays, 0)
        self.lent: Debt = None
        self.lock = threading.Lock()

    @classmethod
    def of(cls, arrays: dict[str, Array], data: Any) -> Variables:
        """The arrays in the structure that a file says, or as a flat dict.  Raises ArtifactError, KeyError or TypeError."""
        if data is None:
            return cls(arrays, Tree("dict", tuple(arrays), (Tree("leaf"),) * len(arrays)), list(arrays), ())
        names, numbers = list(data["names"]), set(data["numbers"])
        if not arrays.keys() >= set(names) >= numbers or any(arrays[name].shape for name in numbers):
            raise ArtifactError("its state does not fit its weights")
        return cls(arrays, read_tree(data["tree"], len(names)), names, numbers)

    def note_written(self, names: Iterable[str]) -> None:
        """These arrays have other elements now."""
        for name in names:
            self.versions[name] += 1

    def state_dict(self) -> Any:
        """The structure with arrays (the very memory that the programs read) and numbers."""
        leaves = [self.arrays[n].item() if n in self._numbers else lend(self, self.arrays[n]) for n in self._names]
        return self._tree.unflatten(leaves)

    def load_state_dict(self, given: Any, strict: bool) -> None:
        """Copy the elements of a state dict.  Raises ValueError where it does not fit; then nothing has changed."""
        found: dict[str, Array] = {}
        for place, name, value in _paired(self._tree, given, iter(self._names), "", strict):
            found[name] = _fitting(value, self.arrays[name], place)
        with self.lock:
            for name, array in found.items():
                np.copyto(self.arrays[name], array)
            self.note_written(found)


def _paired(tree: Tree, given: Any, names: Iterator[str], place: str, strict: bool) -> Iterator[tuple[str, str, Any]]:
    """(place, name of the array, value) of each leaf.   strict: everything is there, and nothing else.  Raises ValueError."""
    if strict and given is _ABSENT:
        raise _wrong(place, "is missing")
    if tree.kind == "leaf":
        name = next(names)
        if given is not _ABSENT:
            yield place, name, given
        return
    if tree.kind == "static":
        if strict and not (given is tree.value or given == tree.value):
            raise _wrong(place, f"is {given!r}, and the program holds for {tree.value!r}")
        return
    keys = tree.value if tree.kind == "dict" else range(len(tree.children))
    if given is not _ABSENT and not isinstance(given, Mapping if tree.kind == "dict" else Sequence):
        raise _wrong(place, f"is a {type(given).__name__}, not a {tree.kind}")
    parts: Any = {} if given is _ABSENT else given
    items = parts if isinstance(parts, Mapping) else dict(enumerate(parts))
    unknown = [key for key in items if key not in keys]
    if strict and unknown:
        raise _wrong(_under(place, unknown[0]), "is nothing that the artifact has")
    for key, child in zip(keys, tree.children, strict=True):
        yield from _paired(child, items.get(key, _ABSENT), names, _under(place, key), strict)


def _fitting(value: Any, array: Array, place: str) -> Array:
    """`value` as an array of the type of `array`.  Raises ValueError."""
    if not is_array(value) and isinstance(value, bool | int | float) and not array.shape:
        return np.asarray(value, array.dtype)
    if not is_array(value):
        raise _wrong(place, f"is a {type(value).__name__}, not a tensor")
    given = value if isinstance(value, np.ndarray) else value.detach().numpy()
    if given.dtype != array.dtype or given.shape != array.shape:
        raise _wrong(place, f"is {type_text(given)}, the artifact has {type_text(array)}")
    return given


def _wrong(place: str, what: str) -> ValueError:
    return ValueError(at_user_line(f"load_state_dict: {place or 'the state dict'} {what}"))


def _under(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)


def type_text(array: Array) -> str:
    """The dtype and shape of an array, as graphs have them."""
    try:
        element = dtypes.from_numpy(array.dtype).short
    except TypeError:
        element = str(array.dtype)
    return f"{element}[{', '.join(map(str, array.shape))}]"


def address(array: Array) -> int:
    """Where an array's first element is."""
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]
