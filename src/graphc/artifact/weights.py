"""Named arrays as safetensors bytes.

Enters: arrays by name, or bytes.  Leaves: bytes, or arrays.  Never here: pickles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import ArtifactError

_SAFETENSORS_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U16": "uint16", "U32": "uint32",
    "U64": "uint64", "C64": "complex64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip
_NAMES = {ours: theirs for theirs, ours in _SAFETENSORS_NAMES.items()}
# Complex arrays are written as pairs of floats with a last dim of 2, and named in the header's metadata: the format has no name for
# complex128, and older readers have none for complex64.
_COMPLEX = "complex"


def to_bytes(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """safetensors bytes of `arrays` (any shape and layout; dtypes of graphc).  Equal arrays give equal bytes.

    Source: the format is 8 bytes of header length, a JSON header padded to 8 bytes, and the data; widest elements first, so that
    all are aligned.  Written here because the package's own writer changed its arguments between versions.

    Raises TypeError for other dtypes, ValueError for a name the format reserves.
    """
    header: dict[str, Any] = {}
    paired = sorted(name for name, array in arrays.items() if array.dtype.kind == "c")
    if paired:
        header["__metadata__"] = {_COMPLEX: json.dumps(paired)}
        arrays = {name: _pairs(array) if name in paired else array for name, array in arrays.items()}
    pieces = []
    end = 0
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])):
        if name == "__metadata__":
            raise ValueError("a weight cannot be called __metadata__")
        dtype = _NAMES[dtypes.from_numpy(array.dtype).name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        pieces.append(array.tobytes())
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *pieces))


def from_bytes(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays, writable and 64-byte aligned.  Raises ArtifactError."""
    import safetensors

    from graphc.runtime.memory import aligned_empty

    try:
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
        paired = set(json.loads(_metadata(data).get(_COMPLEX, "[]")))
    except (safetensors.SafetensorError, ValueError, TypeError) as error:
        raise ArtifactError(f"weights cannot be read: {error}") from None
    arrays = {}
    for name, entry in entries:
        dtype = _SAFETENSORS_NAMES.get(entry["dtype"])
        if dtype is None:
            raise ArtifactError(f"weight {name} has dtype {entry['dtype']}, which graphc does not have")
        numpy_type = dtypes.by_name(dtype).numpy
        array, _ = aligned_empty(tuple(entry["shape"]), numpy_type)
        array[...] = np.frombuffer(bytes(entry["data"]), numpy_type).reshape(entry["shape"])
        if name in paired:
            if array.dtype.kind != "f" or array.itemsize < 4 or array.shape[-1:] != (2,):
                raise ArtifactError(f"weight {name} is {array.dtype}{list(array.shape)}, not pairs of floats")
            array = array.view(np.complex64 if array.itemsize == 4 else np.complex128)[..., 0]
        arrays[name] = array
    return arrays


def _pairs(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A complex array as floats, with a last dim of real and imaginary parts."""
    return np.ascontiguousarray(array).reshape(array.shape)[..., None].view(f"f{array.itemsize // 2}")


def _metadata(data: bytes) -> dict[str, str]:
    """The header's own notes, of bytes that the package has read."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header.get("__metadata__") or {}
