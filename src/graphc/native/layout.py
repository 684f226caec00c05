"""Where CPython and NumPy keep the fields that `calls` reads: measured on live objects, never assumed.

Enters: nothing.  Leaves: named offsets, or None on an interpreter that this was not made for.  Never here: machine code.

What is relied on: an object begins with its reference count and its type; ``__slots__`` are words inside the object; a tuple's
and a slice's items lie in the object, a list's in a block it points to; NumPy's public array structure.  Each offset is found by
putting something known into an object and looking for it there; an object in which it is not found switches the native calls off.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import sysconfig
import types
from typing import Any

import numpy as np

from graphc.eager.storage import Storage
from graphc.eager.tape import Node
from graphc.eager.tensor import Tensor
from graphc.native.entered import Entered

WORD = 8
_ARRAY_FIELDS = {"data": 16, "rank": 24, "sizes": 32, "strides": 40, "base": 48, "descr": 56, "flags": 64}
CONTIGUOUS, ALIGNED, WRITEABLE = 0x0001, 0x0100, 0x0400
# Positions in the table of NumPy's C functions: fixed since NumPy 1.7.
_ARRAY_FUNCTIONS = {"new_array": 94, "new_copy": 85, "set_base": 282}


def measured() -> dict[str, int] | None:
    """Offsets in bytes by name (``TENSOR_ARRAY``), or None where anything is not as expected."""
    if not _is_supported():
        return None
    first, second, third = object(), object(), object()
    listed = [first]
    listed += [second, third]  # there is room for a fourth
    found: dict[str, int | None] = {
        "OBJECT_TYPE": _offset(first, id(object)),
        "TUPLE_SIZE": _offset((first, second, third), 3),
        "TUPLE_ITEMS": _run((first, second), [id(first), id(second)]),
        "SLICE_START": _run(slice(first, second, third), [id(first), id(second), id(third)]),
        "FLOAT_VALUE": _offset(1.2345, struct.unpack("q", struct.pack("d", 1.2345))[0]),
        "LIST_SIZE": _offset(listed, 3),
        "LIST_ITEMS": 24 if _words(_words(id(listed) + 24, 1)[0], 2) == [id(first), id(second)] else None,
        "CONTIGUOUS": CONTIGUOUS,
        "ALIGNED": ALIGNED,
        "WRITEABLE": WRITEABLE,
    }
    found["CELL_CONTENTS"] = _offset(types.CellType(first), id(first))
    for kind in (Tensor, Storage, Node, Entered):
        for name in slots_of(kind):
            found[f"{kind.__name__}_{name.lstrip('_')}".upper()] = slot_offset(kind, name)
    found |= {f"ARRAY_{name}".upper(): at if _array_is_usual() else None for name, at in _ARRAY_FIELDS.items()}
    return None if None in found.values() else {name: at for name, at in found.items() if at is not None}


def _is_supported() -> bool:
    """A 64-bit CPython with the lock, of an ordinary build."""
    usual = sys.implementation.name == "cpython" and struct.calcsize("P") == WORD and sys.byteorder == "little"
    debug = hasattr(sys, "gettotalrefcount") or bool(sysconfig.get_config_var("Py_TRACE_REFS"))
    return usual and not debug and not sysconfig.get_config_var("Py_GIL_DISABLED") and sys.platform in ("linux", "darwin")


def slots_of(kind: type) -> list[str]:
    """The names of a type's ``__slots__`` that hold objects."""
    return [name for name in kind.__slots__ if not name.startswith("__")]  # type: ignore[attr-defined]


def slot_offset(kind: type, name: str) -> int | None:
    """Where instances of `kind` keep the slot `name`."""
    sample: Any = object.__new__(kind)
    marker = object()
    try:
        kind.__dict__[name].__set__(sample, marker)
    except (AttributeError, KeyError, TypeError):  # not a slot of this type
        return None
    return _offset(sample, id(marker))


def _words(address: int, count: int) -> list[int]:
    return list((ctypes.c_int64 * count).from_address(address))


def _offset(x: object, word: int) -> int | None:
    """Where an object holds `word`, behind its reference count; None if nowhere or in two places."""
    return _run(x, [word])


def _run(x: object, words: list[int]) -> int | None:
    size = sys.getsizeof(x) if isinstance(x, tuple) else type(x).__basicsize__
    count = min(size, type(x).__basicsize__ + WORD * len(x) if isinstance(x, tuple) else size) // WORD
    held = _words(id(x), count)
    places = [i for i in range(1, count) if held[i : i + len(words)] == words]
    return WORD * places[0] if len(places) == 1 else None


def _array_is_usual() -> bool:
    """Whether arrays look as NumPy documents: compared with what NumPy says of one."""
    whole = np.arange(3 * 4 * 10, dtype=np.float32).reshape(3, 4, 10)
    array = whole[:, ::2, 1:7]
    at = {name: id(array) + offset for name, offset in _ARRAY_FIELDS.items()}
    if _words(at["data"], 1) != [array.__array_interface__["data"][0]] or _words(at["rank"], 1)[0] & 0xFFFFFFFF != 3:
        return False
    sizes, strides, base, descr = (_words(at[name], 1)[0] for name in ("sizes", "strides", "base", "descr"))
    flags = ctypes.c_int32.from_address(at["flags"]).value
    return (
        _words(sizes, 3) == list(array.shape)
        and _words(strides, 3) == list(array.strides)
        and base in (id(whole), id(whole.base))
        and descr == id(array.dtype)
        and flags == array.flags.num
        and not array.flags.c_contiguous
    )


def array_functions() -> dict[str, int]:
    """Addresses of NumPy's C functions by the names that `calls` has for them."""
    from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

    capsule: Any = _multiarray_umath._ARRAY_API
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = pointer(capsule, None)
    assert table is not None
    return {name: _words(table + WORD * index, 1)[0] for name, index in _ARRAY_FUNCTIONS.items()}
