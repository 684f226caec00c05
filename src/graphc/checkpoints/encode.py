"""Values as pickles and files that PyTorch reads with ``weights_only=True``.

Enters: nested containers of tensors, arrays and plain values, modules.  Leaves: opcodes of protocol 2 and the storages they name,
or a file.  Never here: `pickle`, which would name graphc's classes; other Python objects.
"""

from __future__ import annotations

import argparse
import copyreg
import os
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import IO, Any

import numpy as np

from graphc import dtypes
from graphc.artifact import container, zips
from graphc.checkpoints.allowed import STORAGES, user_globals
from graphc.checkpoints.modules import class_name, function_name
from graphc.checkpoints.pytorch import MAGIC, PICKLE, PROTOCOL
from graphc.dtypes import DType
from graphc.eager import devices
from graphc.eager.storage import Storage, memory_of
from graphc.eager.tensor import Size, Tensor
from graphc.errors import at_user_line
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter
from graphc.nn.watched import Watched

_KINDS = {dtype: name for name, dtype in STORAGES.items()}
_BATCH = 1000  # items between a mark and what takes them, as pickle has it
_FACTORIES = (list, dict, int, float, str, set)


class Pickled:
    """One value as a pickle: its opcodes, and the memory that it names by number."""

    def __init__(self, value: Any, legacy: bool = False) -> None:
        self.legacy = legacy
        self.rows: list[tuple[DType, np.ndarray[Any, Any]]] = []  # of each storage: its dtype, its bytes
        self._out = bytearray(b"\x80\x02")
        self._memo: dict[Any, int] = {}
        self._kept: list[Any] = []  # what the memo names by id stays alive
        self._storages: dict[int, int] = {}
        self._open: set[int] = set()
        try:
            self._value(value, "")
        except RecursionError:
            raise ValueError("save: the value contains itself, or is nested too deep") from None
        self._out += b"."

    @property
    def text(self) -> bytes:
        return bytes(self._out)

    # ---- opcodes

    def _integer(self, value: int) -> None:
        out = self._out
        if 0 <= value < 256:
            out += struct.pack("<cB", b"K", value)
        elif 0 <= value < 65536:
            out += struct.pack("<cH", b"M", value)
        elif -(2**31) <= value < 2**31:
            out += struct.pack("<ci", b"J", value)
        else:
            size = value.bit_length() // 8 + 1
            if size > 255:
                raise TypeError("save: an integer of more than 255 bytes cannot be saved")
            out += struct.pack("<cB", b"\x8a", size) + value.to_bytes(size, "little", signed=True)

    def _known(self, key: Any) -> bool:
        """Whether a value is in the memo; it is then on the stack."""
        index = self._memo.get(key)
        if index is not None:
            self._out += struct.pack("<cB", b"h", index) if index < 256 else struct.pack("<cI", b"j", index)
        return index is not None

    def _remember(self, key: Any) -> None:
        index = self._memo[key] = len(self._memo)
        self._out += struct.pack("<cB", b"q", index) if index < 256 else struct.pack("<cI", b"r", index)

    def _string(self, text: str) -> None:
        if not self._known((None, text)):
            encoded = text.encode("utf-8", "surrogatepass")
            self._out += struct.pack("<cI", b"X", len(encoded)) + encoded
            self._remember((None, text))

    def _name(self, module: str, name: str) -> None:
        if not self._known((module, name)):
            self._out += f"c{module}\n{name}\n".encode()
            self._remember((module, name))

    def _tuple(self, values: Any, path: str) -> None:
        short = len(values) in (1, 2, 3)
        self._out += b")" if not values else b"" if short else b"("
        for i, value in enumerate(values):
            self._value(value, f"{path}.{i}" if path else str(i))
        self._out += {1: b"\x85", 2: b"\x86", 3: b"\x87"}[len(values)] if short else b"t" if values else b""

    def _call(self, module: str, name: str, *arguments: Any) -> None:
        self._name(module, name)
        self._tuple(arguments, "")
        self._out += b"R"

    def _batches(self, items: list[Any], close: bytes, put: Callable[[Any], None]) -> None:
        for start in range(0, len(items), _BATCH):
            self._out += b"("
            for item in items[start : start + _BATCH]:
                put(item)
            self._out += close

    # ---- values

    def _value(self, value: Any, path: str) -> None:
        """Put a value on the stack.  Raises TypeError naming the place of one that no file holds."""
        kind = type(value)
        if value is None or kind is bool:
            self._out += b"N" if value is None else b"\x88" if value else b"\x89"
        elif kind is int:
            self._integer(value)
        elif kind is float:
            self._out += struct.pack(">cd", b"G", value)
        elif kind is str:
            self._string(value)
        elif kind is tuple or (isinstance(value, tuple) and hasattr(value, "_fields")):
            self._entered(value, lambda: self._tuple(value, path))
        elif not self._known(id(value)):
            write = _WRITERS.get(kind) or self._by_class(value)
            if write is None:
                raise TypeError(at_user_line(f"save: {path or 'the value'} is {_what(value)}"))
            self._kept.append(value)
            self._entered(value, lambda: write(self, value, path))

    def _by_class(self, value: Any) -> Callable[[Pickled, Any, str], None] | None:
        """How a value is written that is of a subclass."""
        if isinstance(value, Parameter):
            return Pickled._parameter
        if isinstance(value, Tensor):
            return Pickled._tensor if type(value).__module__.startswith("graphc.") else None
        if isinstance(value, np.ndarray) and type(value) is np.ndarray:
            return Pickled._array
        if isinstance(value, np.generic):
            return Pickled._scalar
        if isinstance(value, Module) or any(type(value) is allowed for allowed in user_globals.values()):
            return Pickled._object
        if isinstance(value, Watched):  # of a module, where PyTorch has plain dicts
            return Pickled._ordered
        if isinstance(value, type) and issubclass(value, Module):
            return Pickled._class
        return Pickled._function if function_name(value) else None

    def _entered(self, value: Any, write: Callable[[], None]) -> None:
        if id(value) in self._open:
            raise ValueError("save: the value contains itself, or is nested too deep")
        self._open.add(id(value))
        write()
        self._open.discard(id(value))

    def _list(self, value: list[Any], path: str) -> None:
        self._out += b"]"
        self._remember(id(value))
        numbered = [(f"{path}.{i}" if path else str(i), item) for i, item in enumerate(value)]
        self._batches(numbered, b"e", lambda pair: self._value(pair[1], pair[0]))

    def _items(self, value: dict[Any, Any], path: str) -> None:
        self._remember(id(value))

        def put(item: tuple[Any, Any]) -> None:
            key, held = item
            self._value(key, f"a key of {path or 'the dict'}")
            self._value(held, f"{path}.{key}" if path else str(key))

        self._batches(list(value.items()), b"u", put)

    def _dict(self, value: dict[Any, Any], path: str) -> None:
        self._out += b"}"
        self._items(value, path)

    def _ordered(self, value: OrderedDict[Any, Any], path: str) -> None:
        self._call("collections", "OrderedDict")
        self._items(value, path)
        if vars(value):  # ``_metadata`` of a state dict
            self._value(dict(vars(value)), path)
            self._out += b"b"

    def _counter(self, value: Counter[Any], path: str) -> None:
        self._call("collections", "Counter", dict(value))
        self._remember(id(value))

    def _defaultdict(self, value: defaultdict[Any, Any], path: str) -> None:
        factory = value.default_factory
        if factory is not None and factory not in _FACTORIES:
            raise TypeError(at_user_line(f"save: {path or 'the value'} is a defaultdict of {factory!r}, which no file holds"))
        self._name("collections", "defaultdict")
        if factory is None:
            self._out += b")R"
        else:
            self._name("__builtin__", factory.__name__)
            self._out += b"\x85R"
        self._items(value, path)

    def _set(self, value: Any, path: str) -> None:
        self._call("__builtin__", type(value).__name__, list(value))
        self._remember(id(value))

    def _bytes(self, value: bytes, path: str) -> None:
        self._call("_codecs", "encode", value.decode("latin1"), "latin1")
        self._remember(id(value))

    def _bytearray(self, value: bytearray, path: str) -> None:
        self._call("__builtin__", "bytearray", bytes(value))
        self._remember(id(value))

    def _complex(self, value: complex, path: str) -> None:
        self._call("__builtin__", "complex", value.real, value.imag)

    def _size(self, value: Size, path: str) -> None:
        self._call("torch", "Size", tuple(value))

    def _dtype(self, value: DType, path: str) -> None:
        self._name("torch", value.name)

    def _device(self, value: devices.device, path: str) -> None:
        self._call("torch", "device", *((value.type,) if value.index is None else (value.type, value.index)))

    def _layout(self, value: devices.layout, path: str) -> None:
        self._call("torch.serialization", "_get_layout", f"torch.{value.name}")

    def _namespace(self, value: argparse.Namespace, path: str) -> None:
        self._name("argparse", "Namespace")
        self._out += b")\x81"
        self._remember(id(value))
        self._value(dict(vars(value)), path)
        self._out += b"b"

    def _class(self, value: type, path: str) -> None:
        self._name(*class_name(value))

    def _function(self, value: Any, path: str) -> None:
        self._name(*(function_name(value) or ("", "")))

    def _object(self, value: Any, path: str) -> None:
        """A module, or an object of a class that the user allowed: its class, and its state."""
        make, arguments, state, *rest = (*value.__reduce_ex__(2), None)[:5]
        if make is not copyreg.__newobj__ or any(rest):  # type: ignore[attr-defined]
            raise TypeError(at_user_line(f"save: {path or 'the value'} is a {type(value).__name__}, which pickles by a function"))
        self._name(*class_name(type(value)))
        self._tuple(arguments[1:], path)
        self._out += b"\x81"
        self._remember(id(value))
        if state is not None:
            self._value(state, path)
            self._out += b"b"

    # ---- arrays and tensors

    def _type(self, dtype: np.dtype[Any], path: str) -> None:
        self._name("numpy", "dtype")
        if dtype == dtypes.bfloat16.numpy:
            self._name("ml_dtypes", "bfloat16")
        elif dtype.kind in "biufcSU" and dtype.isnative:
            self._value(dtype.str[1:], path)
        else:
            raise TypeError(at_user_line(f"save: {path or 'the value'} is an array of {dtype}, which no file holds"))
        self._out += b"\x89\x88\x87R"
        self._tuple(dtype.__reduce__()[2], path)
        self._out += b"b"

    def _array(self, value: np.ndarray[Any, Any], path: str) -> None:
        self._name("numpy._core.multiarray", "_reconstruct")
        self._name("numpy", "ndarray")
        self._tuple((0,), path)
        self._value(b"b", path)
        self._out += b"\x87R"
        self._remember(id(value))
        self._out += b"("
        self._integer(1)
        self._tuple(value.shape, path)
        self._type(value.dtype, path)
        self._value(False, path)
        self._value(value.tobytes(), path)
        self._out += b"tb"

    def _scalar(self, value: np.generic, path: str) -> None:
        self._name("numpy._core.multiarray", "scalar")
        self._type(value.dtype, path)
        self._value(value.tobytes(), path)
        self._out += b"\x86R"

    def _parameter(self, value: Parameter, path: str) -> None:
        state = getattr(value, "__dict__", None)
        self._name("torch._utils", "_rebuild_parameter_with_state" if state else "_rebuild_parameter")
        self._out += b"("
        self._tensor(value.detach(), path)
        self._value(value.requires_grad, path)
        self._call("collections", "OrderedDict")
        if state:
            self._value(dict(state), path)
        self._out += b"tR"
        self._remember(id(value))

    def _tensor(self, value: Tensor, path: str) -> None:
        array = value.numpy_view()
        typed = value.dtype in _KINDS
        self._name("torch._utils", "_rebuild_tensor_v2" if typed else "_rebuild_tensor_v3")
        self._out += b"("
        offset, stride = self._storage(value, path)
        self._integer(offset)
        self._tuple(tuple(array.shape), path)
        self._tuple(stride, path)
        self._value(value.requires_grad, path)
        self._call("collections", "OrderedDict")
        if not typed:
            self._name("torch", value.dtype.name)
        self._out += b"tR"
        self._remember(id(value))

    def _storage(self, value: Tensor, path: str) -> tuple[int, tuple[int, ...]]:
        """Name the memory of a tensor; gives the tensor's offset and strides in it."""
        storage: Storage = value._storage
        try:
            row, offset, stride = memory_of(storage.array), value.storage_offset() if value.numel() else 0, value.stride()
        except RuntimeError:  # strides that no storage has
            value = value.clone()  # type: ignore[attr-defined]
            self._kept.append(value)
            storage = value._storage
            row, offset, stride = memory_of(storage.array), 0, value.stride()
        dtype = value.dtype if value.dtype in _KINDS else dtypes.uint8
        number = self._storages.setdefault(id(storage), len(self.rows))
        if number == len(self.rows):
            self._kept.append(storage)
            self.rows.append((dtype, row.view(np.uint8)))
        elif self.rows[number][0] is not dtype:
            raise RuntimeError(
                at_user_line(f"save: {path or 'the tensor'} views as {value.dtype} what another tensor views as another dtype")
            )
        count = self.rows[number][1].nbytes // dtype.itemsize
        self._out += b"("
        self._string("storage")
        self._name("torch", _KINDS[dtype])
        self._string(str(number))
        self._string("cpu")
        self._integer(count)
        self._out += b"NtQ" if self.legacy else b"tQ"
        return offset, stride


def _what(value: Any) -> str:
    """How an error names what cannot be saved."""
    if isinstance(value, Tensor):
        return f"a {type(value).__name__}, a subclass of Tensor that files do not hold"
    return (
        f"a {type(value).__name__}; only tensors and plain values can be saved (a class of your own can be allowed with "
        "graphc.serialization.add_safe_globals)"
    )


_WRITERS: dict[type, Callable[[Pickled, Any, str], None]] = {
    list: Pickled._list,
    dict: Pickled._dict,
    OrderedDict: Pickled._ordered,
    Counter: Pickled._counter,
    defaultdict: Pickled._defaultdict,
    set: Pickled._set,
    frozenset: Pickled._set,
    bytes: Pickled._bytes,
    bytearray: Pickled._bytearray,
    complex: Pickled._complex,
    Size: Pickled._size,
    DType: Pickled._dtype,
    devices.device: Pickled._device,
    devices.layout: Pickled._layout,
    argparse.Namespace: Pickled._namespace,
    np.ndarray: Pickled._array,
    Tensor: Pickled._tensor,
    Parameter: Pickled._parameter,
}


# ---- files -----------------------------------------------------------------------------------------------------------


def save(value: Any, place: container.Place, legacy: bool = False) -> None:
    """Write a value as PyTorch's zip file, or as the file of its versions before 1.6.

    Nothing is written before all of the value is known to fit, and a path is replaced as a whole.
    Raises TypeError naming the place of what no file holds, ValueError for a value that contains itself, OSError.
    """
    pickled = Pickled(value, legacy)
    if isinstance(place, str | os.PathLike):
        root = os.path.splitext(os.path.basename(os.fspath(place)))[0]
        with container.replacing(place) as file:
            _write(file, pickled, root)
    else:
        _write(place, pickled, "archive")


def _write(file: IO[bytes], pickled: Pickled, root: str) -> None:
    if not pickled.legacy:
        zips.write(file, _parts(pickled, root))
        return
    facts = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    for part in (MAGIC, PROTOCOL, facts):
        file.write(Pickled(part).text)
    file.write(pickled.text)
    file.write(Pickled([str(k) for k in range(len(pickled.rows))]).text)
    for dtype, row in pickled.rows:
        file.write((row.nbytes // dtype.itemsize).to_bytes(8, "little"))
        file.write(row.data)


def _parts(pickled: Pickled, root: str) -> Iterable[tuple[str, Any]]:
    yield f"{root}/{PICKLE}", pickled.text
    yield f"{root}/.format_version", b"1"
    yield f"{root}/byteorder", b"little"
    for number, (_, row) in enumerate(pickled.rows):
        yield f"{root}/data/{number}", row
    yield f"{root}/version", b"3\n"
