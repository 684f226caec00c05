"""Element types and PyTorch's promotion rules.

Enters: names, NumPy dtypes, Python scalars.  Leaves: interned `DType` objects.  Never here: arrays.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np


class DType:
    """One element type.  Instances are interned: compare with `is`.

    Attributes
    ----------
    name: PyTorch's name (``float32``).   short: the name in IR text (``f32``).
    kind: ``b`` bool, ``u`` unsigned, ``i`` signed, ``f`` floating, ``c`` complex.
    itemsize: bytes per element in memory.   numpy: the matching ``numpy.dtype``.
    """

    __slots__ = ("itemsize", "kind", "name", "numpy", "short")

    def __init__(self, name: str, short: str, kind: str, numpy_type: object) -> None:
        self.name, self.short, self.kind = name, short, kind
        self.numpy: np.dtype = np.dtype(numpy_type)  # type: ignore[call-overload]
        self.itemsize = self.numpy.itemsize

    def __repr__(self) -> str:
        return f"graphc.{self.name}"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return by_name, (self.name,)

    @property
    def is_floating_point(self) -> bool:
        return self.kind == "f"

    @property
    def is_complex(self) -> bool:
        return self.kind == "c"

    @property
    def is_signed(self) -> bool:
        return self.kind in "ifc"

    @property
    def real(self) -> DType:
        """The dtype of the parts of complex numbers; itself for every other dtype."""
        return {complex64: float32, complex128: float64}.get(self, self)

    def to_real(self) -> DType:
        """As `real`."""
        return self.real

    def to_complex(self) -> DType:
        """The complex dtype whose parts hold a floating dtype (complex64 for 16-bit ones).  Raises TypeError for integers."""
        if self.kind not in "fc":
            raise TypeError(f"{self} has no complex dtype")
        return self if self.kind == "c" else complex128 if self is float64 else complex64

    @property
    def compute(self) -> DType:
        """The dtype that arithmetic on this storage dtype is done in."""
        return float32 if self.kind == "f" and self.itemsize == 2 else self


bool_ = DType("bool", "bool", "b", np.bool_)
uint8 = DType("uint8", "u8", "u", np.uint8)
uint16 = DType("uint16", "u16", "u", np.uint16)
uint32 = DType("uint32", "u32", "u", np.uint32)
uint64 = DType("uint64", "u64", "u", np.uint64)
int8 = DType("int8", "i8", "i", np.int8)
int16 = DType("int16", "i16", "i", np.int16)
int32 = DType("int32", "i32", "i", np.int32)
int64 = DType("int64", "i64", "i", np.int64)
float16 = DType("float16", "f16", "f", np.float16)
bfloat16 = DType("bfloat16", "bf16", "f", ml_dtypes.bfloat16)
float32 = DType("float32", "f32", "f", np.float32)
float64 = DType("float64", "f64", "f", np.float64)
complex64 = DType("complex64", "c64", "c", np.complex64)
complex128 = DType("complex128", "c128", "c", np.complex128)

ALL: tuple[DType, ...] = (
    bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float16, bfloat16, float32, float64, complex64, complex128,
)  # fmt: skip
REAL = tuple(d for d in ALL if d.kind != "c")  # what kernels know
_BY_NAME = {d.name: d for d in ALL}
_BY_SHORT = {d.short: d for d in ALL}
_BY_NUMPY = {d.numpy: d for d in ALL}
_PYTHON: dict[object, DType] = {bool: bool_, int: int64, float: float64, complex: complex128}
_INTEGERS = {("u", 1): uint8, ("u", 2): uint16, ("u", 4): uint32, ("u", 8): uint64, ("i", 1): int8, ("i", 2): int16,
             ("i", 4): int32, ("i", 8): int64}  # fmt: skip


def by_name(name: str) -> DType:
    """The dtype called `name` (``float32``).  Raises KeyError."""
    return _BY_NAME[name]


def by_short(short: str) -> DType:
    """The dtype written `short` in IR text (``f32``).  Raises KeyError."""
    return _BY_SHORT[short]


def as_dtype(given: object) -> DType:
    """A dtype argument: a dtype, or Python's bool, int, float or complex.  Raises TypeError for anything else."""
    if isinstance(given, DType):
        return given
    found = _PYTHON.get(given) if isinstance(given, type) else None
    if found is None:
        raise TypeError(f"argument 'dtype' must be a graphc dtype, not {type(given).__name__}")
    return found


def from_numpy(dtype: object) -> DType:
    """The dtype of a NumPy dtype or type.  Raises TypeError for one graphc does not have."""
    key = np.dtype(dtype)  # type: ignore[call-overload]
    found = _BY_NUMPY.get(key)
    if found is None:
        raise TypeError(f"graphc has no dtype for numpy's {key}")
    return found


def promote_types(a: DType, b: DType) -> DType:
    """The smallest dtype both convert to, by PyTorch's table (not NumPy's: int64 with float16 is float16)."""
    if a is b:
        return a
    if "c" in (a.kind, b.kind):
        return complex128 if float64 in (a.real, b.real) else complex64
    if "f" in (a.kind, b.kind):
        if a.kind != b.kind:
            return a if a.kind == "f" else b
        if a.itemsize == b.itemsize:  # float16 with bfloat16
            return float32
        return a if a.itemsize > b.itemsize else b
    if a.kind == "b" or b.kind == "b":
        return b if a.kind == "b" else a
    if a.kind == b.kind:
        return a if a.itemsize >= b.itemsize else b
    signed, unsigned = (a, b) if a.kind == "i" else (b, a)
    if unsigned.itemsize >= 8:
        raise TypeError(f"no integer dtype holds both {signed} and {unsigned}")
    return _INTEGERS["i", max(signed.itemsize, 2 * unsigned.itemsize)]


CATEGORY = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}


def can_cast(from_: DType, to: DType) -> bool:
    """Whether results of one dtype may be written to another: to one of the same category (bool, integer, floating, complex) or a
    later one."""
    return CATEGORY[from_.kind] <= CATEGORY[to.kind]


def result_type(dimensioned: list[DType], zero_dim: list[DType], scalars: list[bool | int | float | complex]) -> DType:
    """PyTorch's promotion over three priority groups: tensors with dims, 0-dim tensors, Python scalars.

    A lower group takes part only where its category (bool < integer < floating < complex) is higher than all before it; a complex
    one leaves a floating one before it its precision.
    """
    result: DType | None = None
    scalar_types = [default_for_scalar(s) for s in scalars]
    for group in (dimensioned, zero_dim, scalar_types):
        here: DType | None = None
        for dtype in group:
            here = dtype if here is None else promote_types(here, dtype)
        if here is not None and (result is None or CATEGORY[here.kind] > CATEGORY[result.kind]):
            result = result.to_complex() if result is not None and result.kind == "f" else here
    assert result is not None
    return result


_default = [float32]


def get_default_dtype() -> DType:
    """The dtype of new floating tensors and of integer-to-float results."""
    return _default[0]


def set_default_dtype(dtype: DType) -> None:
    """Set the default floating dtype.  Raises TypeError for one that is not floating."""
    if not dtype.is_floating_point:
        raise TypeError(f"set_default_dtype: only floating dtypes are supported, got {dtype}")
    _default[0] = dtype


def default_for_scalar(value: bool | int | float | complex) -> DType:
    """The dtype PyTorch gives a Python scalar: bool, int64, the default floating dtype, or complex numbers of that."""
    if isinstance(value, bool):
        return bool_
    if isinstance(value, complex):
        return _default[0].to_complex()
    return int64 if isinstance(value, int) else _default[0]
