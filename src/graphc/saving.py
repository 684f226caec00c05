"""`graphc.save` and `graphc.load`: which kind of file it is, and tensors and the compiler handed to those that read it.

Enters: values, paths, open files.  Leaves: files, values, loaded programs.  Never here: what a file holds.
"""

from __future__ import annotations

import ctypes
import io
import mmap as memory_map
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.artifact import container, files, weights, zips
from graphc.artifact.container import Place
from graphc.artifact.program import Parts
from graphc.dim_answers import answering
from graphc.dim_patterns import Pattern
from graphc.errors import ArtifactError, CheckpointError
from graphc.runtime.host import Function

# What Python's own functions raise for bytes that are not what they expect; beside a clear error of their own, readers let it pass.
_DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, MemoryError, RuntimeError,
    ArithmeticError, AssertionError,
)  # fmt: skip
# How files begin that people take for checkpoints.
_FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself", b"<": "a web page; the download failed",
    b"\x93NUMPY": "a NumPy array: numpy.load reads it", b"\x89HDF": "an HDF5 file", b"GGUF": "a GGUF file",
    b"\x1f\x8b": "compressed with gzip",
}  # fmt: skip


def save(
    obj: Any,
    f: Place,
    pickle_module: Any = None,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
    _disable_byteorder_record: bool = False,
) -> None:
    """Write tensors and plain values as a file that ``torch.load(weights_only=True)`` reads; safetensors where the path ends so.

    obj: a state dict, or nested dicts, lists, tuples and sets of tensors, parameters, NumPy arrays, numbers, strings, bytes,
    dtypes, devices and None, and modules; for safetensors, a dict of tensors.  Tensors that share memory are written once and
    share it again when loaded.  A path is replaced as a whole or not at all.  (A compiled function or script is written by its own
    ``save``.)

    Raises TypeError naming the place of anything else, ValueError for what contains itself, OSError.
    Differs from torch: no other Python objects; the pickle's protocol is 2; `pickle_module` is not used.
    """
    if hasattr(obj, "save") and hasattr(obj, "explain"):
        raise TypeError("save: a compiled function writes itself: compiled.save(path)")
    if isinstance(f, str | os.PathLike) and os.fspath(f).endswith(".safetensors"):
        from graphc.safetensors import save_file

        save_file(obj, f)
        return
    from graphc.checkpoints.encode import save

    save(obj, f, legacy=not _use_new_zipfile_serialization)


def load(
    f: Place,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """What a file holds, by its content: tensors and plain values that `save` or PyTorch wrote (as a zip file, or before version
    1.6), the tensors of a safetensors file or of the shards that an index lists, or the program that ``compiled.save`` wrote.

    map_location: a device, a dict of devices or a function, as PyTorch has it; all tensors are on the CPU, whatever the file says.
    weights_only: False reads whole modules too, of classes that the program has imported; nothing in a file is run all the same.
    pickle_module and further arguments change nothing.
    mmap: tensors lie on the file's memory, read when used and changed only in this process; the file must stay as it is.

    Raises CheckpointError (a RuntimeError and `pickle.UnpicklingError`) for a file that is damaged, foreign, or holds more than
    data; ArtifactError for a program's; OSError for one that cannot be read; ValueError for `mmap` without a path; as ``Tensor.to``
    for a device that no tensor can be on.
    """
    if map_location is not None:
        from graphc.checkpoints.tensors import place_of

        place_of(map_location)
    if mmap and not isinstance(f, str | os.PathLike):
        raise ValueError("load: f must be a file path in order to use the mmap argument")
    name = container.name_of(f)
    try:
        data = _bytes_of(f, bool(mmap))
        return _read(data, f, name, map_location, bool(mmap), weights_only is False)
    except ArtifactError as error:
        if isinstance(error, CheckpointError) and not str(error).startswith(f"{name}: "):
            raise CheckpointError(f"{name}: {error}") from error.__cause__
        raise


def _bytes_of(f: Place, writable: bool) -> memoryview:
    """The bytes of a path or an open file; those of a path are mapped, not read."""
    if isinstance(f, str | os.PathLike):
        with open(f, "rb") as file:
            if not os.path.isfile(f) or not os.fstat(file.fileno()).st_size:
                return memoryview(file.read())
            if not writable:
                return memoryview(memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ))
            private = memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_COPY)
            # not a view of the mapping itself: tensors on one of those count as shared between processes
            return memoryview((ctypes.c_char * len(private)).from_buffer(private)).cast("B")
    if not hasattr(f, "read"):
        raise AttributeError(f"'{type(f).__name__}' object has no attribute 'read': load takes a path or an open binary file")
    data = f.read()
    if isinstance(data, str):
        raise TypeError("load: the file is open as text; open it with mode 'rb'")
    return memoryview(data)


def _read(data: memoryview, f: Place, name: str, map_location: Any, mapped: bool, whole: bool) -> Any:
    entries = zips.entries(data) if bytes(data[:4]) == b"PK\3\4" else None
    if entries is not None and container.MANIFEST in entries:
        verified = container.verified(bytes(data), name)
        return files.opened(verified, name, wrap=_tensor, rebuild=_rebuild, resolve=_resolve, script=_script)
    if weights.is_safetensors(data):
        from graphc.safetensors import tensors_of

        return tensors_of(data, copy=not mapped)
    if bytes(data[:1]) == b"{":
        return _sharded(data, f, map_location, mapped)
    from graphc.checkpoints import pytorch
    from graphc.checkpoints.tensors import CallersError

    try:
        if entries is not None:
            return pytorch.read_zip(data, entries, map_location, mapped, whole)
        if pytorch.is_legacy(data):
            return _legacy(data, f, map_location, mapped, whole)
    except CallersError as error:
        raise error.__cause__ or error from None
    except ArtifactError:
        raise
    except _DAMAGE as error:
        raise CheckpointError(f"{name}: its parts do not fit together ({type(error).__name__}: {error})") from error
    raise CheckpointError(f"{name}: {_foreign(data)}")


def _legacy(data: memoryview, f: Any, map_location: Any, mapped: bool, whole: bool) -> Any:
    from graphc.checkpoints.pytorch import read_legacy

    if mapped:
        raise CheckpointError("mmap needs a zip file; this one is of the layout that PyTorch had before 1.6")
    value, end = read_legacy(data, map_location, whole)
    if end < len(data) and hasattr(f, "seek"):  # several saved one after another into one open file
        f.seek(end - len(data), io.SEEK_CUR)
    return value


def _sharded(data: memoryview, f: Place, map_location: Any, mapped: bool) -> dict[str, Any]:
    """The tensors that the shards beside an index hold."""
    from graphc.checkpoints.shards import checked_index

    try:
        index = checked_index(weights.parsed(data))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"not a checkpoint: JSON that is no index of shards ({error})") from None
    if not isinstance(f, str | os.PathLike):
        raise CheckpointError("the shards of an index are found beside it: load it by its path")
    folder = os.path.dirname(os.fspath(f))
    found: dict[str, Any] = {}
    for shard in dict.fromkeys(index.values()):
        held = load(os.path.join(folder, shard), map_location, mmap=mapped)
        listed = {name for name, place in index.items() if place == shard}
        if not isinstance(held, dict) or not listed <= held.keys():
            raise CheckpointError(f"shard {shard} does not hold every tensor that the index says")
        found.update((name, held[name]) for name in held if name in listed)
    return {name: found[name] for name in index}


def _foreign(data: memoryview) -> str:
    """What a file is that is no checkpoint."""
    if not data:
        return "the file is empty"
    begin = bytes(data[:512])
    if begin[257:262] == b"ustar":
        return "a tar archive, such as PyTorch wrote before version 0.1.10; load and save it with a PyTorch that reads them"
    for start, what in _FOREIGN.items():
        if begin.startswith(start):
            return f"not a checkpoint but {what}"
    return "neither a checkpoint of PyTorch, nor safetensors, nor a graphc artifact"


def _tensor(array: np.ndarray[Any, Any]) -> Any:
    from graphc.dtypes import from_numpy
    from graphc.eager.tensor import wrap

    return wrap(array, from_numpy(array.dtype))


def _script(entries: Mapping[str, bytes]) -> Any:
    from graphc.scripting.archive import scripted_from

    return scripted_from(entries)


def _resolve(name: str, attributes: str) -> Function:
    import graphc.ops  # noqa: F401  the table that the name is in
    from graphc.ir.host import resolve

    return resolve(name, attributes)


def _rebuild(graph_text: str, pattern: Pattern | None, example: Mapping[str, int]) -> Parts:
    """Plan and code of a graph.  What operators ask of open sizes is answered by the example, and becomes a fact of the pattern."""
    import graphc.ops  # noqa: F401  the table that the text names
    from graphc.capture.sizes import Questions
    from graphc.ir.text import parse_graph
    from graphc.pipeline import build

    questions = Questions(example)
    with answering(None if pattern is None else questions):
        graph = parse_graph(graph_text)
    if questions.must_be_revised:
        raise ArtifactError("its graph is not valid for the sizes that it says it serves")
    if pattern is not None:
        known = questions.facts | {(fact.size, fact.relation): fact for fact in pattern.facts}
        pattern = Pattern(pattern.places, tuple(known.values()))
    fixed = [i for i, value in enumerate(graph.inputs) if value.role == "state"]  # those that are written do not count
    return parts_of(build(graph, fixed=fixed), pattern, example)


def parts_of(built: Any, pattern: Pattern | None = None, example: Mapping[str, int] = MappingProxyType({})) -> Parts:
    """What a file holds of a `pipeline.Built`.   pattern: the arguments' shapes, where sizes are open, with an example of them."""
    once = built.constants
    if once is None:
        return Parts(built.plan, built.code, pattern=pattern, example=example)
    return Parts(built.plan, built.code, once.plan, once.code, built.sources, pattern, example)
