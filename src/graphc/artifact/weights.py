"""Named arrays as safetensors bytes.

Enters: arrays by name, or bytes.  Leaves: bytes, or arrays.  Never here: pickles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import ArtifactError

_SAFETENSORS_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U32": "uint32", "U64": "uint64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip


def to_bytes(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """safetensors bytes of `arrays` (any shape; dtypes of graphc)."""
    import safetensors

    contiguous = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}
    return bytes(
        safetensors.serialize(
            {
                n: {"dtype": dtypes.from_numpy(a.dtype).name, "shape": list(a.shape), "data": a.tobytes()}
                for n, a in contiguous.items()
            }
        )
    )


def from_bytes(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays, writable and 64-byte aligned.  Raises ArtifactError."""
    import safetensors

    from graphc.runtime.memory import aligned_empty

    try:
        entries = safetensors.deserialize(data)
    except Exception as error:
        raise ArtifactError(f"weights cannot be read: {error}") from None
    arrays = {}
    for name, entry in entries:
        dtype = _SAFETENSORS_NAMES.get(entry["dtype"])
        if dtype is None:
            raise ArtifactError(f"weight {name} has dtype {entry['dtype']}, which graphc does not have")
        numpy_type = dtypes.by_name(dtype).numpy
        array, _ = aligned_empty(tuple(entry["shape"]), numpy_type)
        array[...] = np.frombuffer(bytes(entry["data"]), numpy_type).reshape(entry["shape"])
        arrays[name] = array
    return arrays
