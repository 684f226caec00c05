"""What data pipes are: data sets with methods for making pipes of them.

Enters: classes of pipes.  Leaves: those methods.  Never here: what the pipes do (`iter`, `map`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from graphc.data.dataset import Dataset, IterableDataset
from graphc.errors import at_user_line

T_co = TypeVar("T_co", covariant=True)
Pipe = TypeVar("Pipe")


class _Extensible:
    """What gets the classes of pipes that are registered with it as methods."""

    functions: ClassVar[dict[str, Any]]

    def __getattr__(self, name: str) -> Any:
        functions = type(self).functions
        if name not in functions:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return functools.partial(functions[name], self)

    def __repr__(self) -> str:
        return type(self).__qualname__

    @classmethod
    def register_datapipe_as_function(cls, function_name: str, cls_to_register: Any) -> None:
        """Make a class of pipes a method of this one.  Raises Exception for a name that is taken."""
        if function_name in cls.functions:
            raise Exception(at_user_line(f"Unable to add DataPipe function name {function_name} as it is already taken"))
        cls.functions[function_name] = cls_to_register


class IterDataPipe(_Extensible, IterableDataset[T_co]):
    """A pipe that is read from its beginning: subclasses define ``__iter__()``."""

    functions: ClassVar[dict[str, Any]] = {}


class MapDataPipe(_Extensible, Dataset[T_co]):
    """A pipe that is read by index: subclasses define ``__getitem__(index)`` and ``__len__()``."""

    functions: ClassVar[dict[str, Any]] = {}


class functional_datapipe:
    """Class decorator: the pipe is also a method, ``name``, of every pipe of its kind.  Raises TypeError for what is no pipe."""

    def __init__(self, name: str, enable_df_api_tracing: bool = False) -> None:
        self.name = name

    def __call__(self, cls: Pipe) -> Pipe:
        for kind in (IterDataPipe, MapDataPipe):
            if isinstance(cls, type) and issubclass(cls, kind):
                kind.register_datapipe_as_function(self.name, cls)
                return cls
        raise TypeError(at_user_line("functional_datapipe can only decorate IterDataPipe or MapDataPipe"))


class DataChunk(list[Any]):
    """The samples of a batch, before they are collated."""

    def raw_iterator(self) -> Any:
        return iter(self)


def column_function(fn: Callable[..., Any], input_col: Any, output_col: Any) -> Callable[[Any], Any]:
    """`fn` on a whole sample, or on the columns of it that `input_col` names, its result put into `output_col`."""
    if input_col is None:
        if output_col is not None:
            raise ValueError(at_user_line("`output_col` must be None when `input_col` is None."))
        return fn

    def apply(sample: Any) -> Any:
        inputs = [sample[c] for c in input_col] if isinstance(input_col, list | tuple) else [sample[input_col]]
        result = fn(*inputs)
        is_tuple = isinstance(sample, tuple)
        changed = list(sample) if is_tuple else sample
        if output_col is not None and output_col == -1:
            changed.append(result)
        else:
            place = input_col if output_col is None else output_col
            if isinstance(place, list | tuple):
                if output_col is None:
                    changed[place[0]] = result
                    for column in sorted(place[1:], reverse=True) if not isinstance(changed, dict) else place[1:]:
                        del changed[column]
                else:
                    for column, value in zip(place, result, strict=True):
                        changed[column] = value
            else:
                changed[place] = result
        return tuple(changed) if is_tuple else changed

    return apply
