"""Named arrays as safetensors: the header, its checks, and arrays on or from the bytes behind it.

Enters: arrays by name, or bytes.  Leaves: bytes, or arrays; CheckpointError for bytes that are not whole.  Never here: pickles.

Source: the format's README.  8 bytes of header length, a JSON header padded with spaces, and the data without gaps; little-endian,
row-major.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from graphc import dtypes
from graphc.errors import CheckpointError
from graphc.runtime.memory import aligned_empty

Array = np.ndarray[Any, Any]

METADATA = "__metadata__"
HEADER_LIMIT = 32 << 20  # the format's own is 100 MB, which no file comes near
PARTS_LIMIT = 1_500_000  # commas, colons and brackets: what the header's JSON can become in memory
RANK_LIMIT = 64

_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "uint16": "U16", "uint32": "U32",
    "uint64": "U64", "complex64": "C64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
}  # fmt: skip
_DTYPES = {theirs: dtypes.by_name(ours) for ours, theirs in _NAMES.items()}
_BITS = {
    **{theirs: 8 * dtype.itemsize for theirs, dtype in _DTYPES.items()},
    **dict.fromkeys(("F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
# In artifacts complex arrays are pairs of floats with a last dim of 2, named in the header's metadata: the format has no name for
# complex128, and older readers have none for complex64.
_COMPLEX = "complex"


class Item(NamedTuple):
    """One tensor of a file: the format's name of its dtype, its shape, and its bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(NamedTuple):
    """What a file says of its tensors, in the order of their bytes, and its notes."""

    items: dict[str, Item]
    metadata: dict[str, str]


def is_safetensors(data: memoryview) -> bool:
    """Whether a file begins as one of safetensors does."""
    return len(data) > 8 and data[8] == ord("{") and int.from_bytes(data[:8], "little") <= len(data) - 8


def read_header(data: memoryview) -> Header:
    """The checked header of a whole file.

    Raises CheckpointError for a header that is too long or no such JSON, names that stand twice, shapes that do not fit their
    bytes, and bytes that overlap, leave a hole or reach out of the file.
    """
    if len(data) < 8:
        raise CheckpointError("it is cut short: no header")
    count = int.from_bytes(data[:8], "little")
    if count > len(data) - 8:
        raise CheckpointError(f"its header says that it is {count} bytes long: more than the file")
    try:
        content = parsed(data[8 : 8 + count])
        metadata = content.pop(METADATA, {})
        items = {name: _item(name, entry, 8 + count) for name, entry in content.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"its header is damaged ({error})") from None
    if not isinstance(metadata, dict) or any(type(note) is not str for note in metadata.values()):
        raise CheckpointError("its header's metadata is not text")
    items = dict(sorted(items.items(), key=lambda pair: (pair[1].start, pair[1].stop)))
    end = 8 + count
    for name, item in items.items():
        if item.start != end:
            raise CheckpointError(f"tensor {name!r} overlaps another, or leaves a hole before it")
        end = item.stop
    if end != len(data):
        raise CheckpointError(f"its tensors have {end - 8 - count} bytes, the file has {len(data) - 8 - count} for them")
    return Header(items, metadata)


def parsed(data: memoryview) -> Any:
    """The value of a JSON text that is not too great.  Raises CheckpointError for one that is, else as `json`."""
    if len(data) > HEADER_LIMIT:
        raise CheckpointError(f"its header of {len(data)} bytes is beyond the limit of {HEADER_LIMIT}")
    text = bytes(data)
    if sum(map(text.count, (b",", b":", b"[", b"{"))) > PARTS_LIMIT:
        raise CheckpointError("its header has too many parts")
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _item(name: str, entry: Any, base: int) -> Item:
    dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if len(entry) != 3 or dtype not in _BITS:
        raise ValueError(f"tensor {name!r} has dtype {dtype!r}, which the format does not have")
    sizes = (*shape, start, stop)
    if type(shape) is not list or len(shape) > RANK_LIMIT or any(type(n) is not int or not 0 <= n < 2**62 for n in sizes):
        raise ValueError(f"tensor {name!r} has sizes or offsets that are no sizes")
    bits = _BITS[dtype]
    for n in shape:
        bits *= n
    if bits != 8 * (stop - start):
        raise ValueError(f"tensor {name!r} of shape {shape} does not have the {stop - start} bytes that it claims")
    return Item(dtype, tuple(shape), base + start, base + stop)


def array_of(data: memoryview, name: str, item: Item) -> Array:
    """A tensor of a file, on the file's memory.  Raises CheckpointError for a dtype that graphc does not have."""
    dtype = _DTYPES.get(item.dtype)
    if dtype is None:
        raise CheckpointError(f"tensor {name!r} has dtype {item.dtype}, which graphc does not have")
    try:
        row = np.frombuffer(data[item.start : item.stop], np.uint8).view(dtype.numpy)
        return row.reshape(item.shape)
    except ValueError as error:  # sizes whose product is 0 and others too large
        raise CheckpointError(f"tensor {name!r} has shape {list(item.shape)} ({error})") from None


def copied(array: Array) -> Array:
    """A tensor of a file in memory of its own, writable and 64-byte aligned."""
    made, _ = aligned_empty(array.shape, array.dtype)
    if array.dtype.kind == "b":
        np.not_equal(array.view(np.uint8), 0, out=made)  # other bytes than 0 and 1 are no bools
    else:
        made[...] = array
    return made


def pieces(arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> Iterable[bytes | memoryview]:
    """The bytes of a file of `arrays` (any shape and layout), in pieces.  Equal arrays give equal bytes: the widest elements come
    first, so that all are aligned, then names.

    Raises TypeError for a dtype that the format does not have, ValueError for a name that it reserves.
    """
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    ordered = sorted(arrays.items(), key=lambda pair: (-pair[1].itemsize, pair[0]))
    end = 0
    for name, array in ordered:
        dtype = _NAMES.get(dtypes.from_numpy(array.dtype).name)
        if dtype is None:
            raise TypeError(f"safetensors have no {array.dtype}: tensor {name!r} cannot be written")
        if name == METADATA:
            raise ValueError(f"a weight cannot be called {METADATA}")
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return _flow(len(text).to_bytes(8, "little") + text, [array for _, array in ordered])


def _flow(head: bytes, arrays: list[Array]) -> Iterable[bytes | memoryview]:
    yield head
    for array in arrays:
        if array.nbytes:
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


# ---- artifacts -------------------------------------------------------------------------------------------------------


def to_bytes(arrays: Mapping[str, Array]) -> bytes:
    """safetensors bytes of `arrays` for an artifact; complex arrays as pairs of floats.

    Raises TypeError for dtypes that graphc does not have, ValueError for a name the format reserves.
    """
    paired = sorted(name for name, array in arrays.items() if array.dtype.kind == "c")
    written = {name: _pairs(array) if name in paired else array for name, array in arrays.items()}
    return b"".join(pieces(written, {_COMPLEX: json.dumps(paired)} if paired else None))


def from_bytes(data: bytes) -> dict[str, Array]:
    """The arrays that `to_bytes` was given, writable and 64-byte aligned.  Raises ArtifactError."""
    view = memoryview(data)
    try:
        header = read_header(view)
        paired = set(json.loads(header.metadata.get(_COMPLEX, "[]")))
        arrays = {name: copied(array_of(view, name, item)) for name, item in header.items.items()}
    except (CheckpointError, ValueError, TypeError) as error:
        raise CheckpointError(f"weights cannot be read: {error}") from None
    return {name: _complex(name, array) if name in paired else array for name, array in arrays.items()}


def _complex(name: str, array: Array) -> Array:
    if array.dtype.kind != "f" or array.itemsize < 4 or array.shape[-1:] != (2,):
        raise CheckpointError(f"weight {name} is {array.dtype}{list(array.shape)}, not pairs of floats")
    return array.view(np.complex64 if array.itemsize == 4 else np.complex128)[..., 0]


def _pairs(array: Array) -> Array:
    """A complex array as floats, with a last dim of real and imaginary parts."""
    return np.ascontiguousarray(array).reshape(array.shape)[..., None].view(f"f{array.itemsize // 2}")
