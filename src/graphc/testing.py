"""Comparing values in tests, under the names of ``torch.testing``.

Enters: tensors, numbers, containers of them.  Leaves: nothing, or an AssertionError that says what differs, how much and where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import graphc.namespace  # noqa: F401  tensors get their methods there
from graphc.dtypes import DType, bfloat16, complex64, complex128, float16, float32, float64
from graphc.eager.creation import finfo, tensor
from graphc.eager.generator import rand, randint
from graphc.eager.tensor import Tensor

# PyTorch's tolerances: (relative, absolute) of the least precise of two dtypes
_TOLERANCES = {
    float16: (1e-3, 1e-5), bfloat16: (1.6e-2, 1e-5), float32: (1.3e-6, 1e-5), float64: (1e-7, 1e-7),
    complex64: (1.3e-6, 1e-5), complex128: (1e-7, 1e-7),
}  # fmt: skip
_EXACT = (0.0, 0.0)
_NUMBERS = (int, float, complex, np.number)

Message = str | Callable[[str], str] | None


class _Comparison:
    """How pairs are compared: the options of `assert_close`."""

    def __init__(self, rtol: float | None, atol: float | None, equal_nan: bool, relaxed: bool, checks: dict[str, bool]) -> None:
        if (rtol is None) != (atol is None):
            absent = "atol" if atol is None else "rtol"
            raise ValueError(f"Both 'rtol' and 'atol' must be either specified or omitted, but got no {absent}.")
        self.rtol, self.atol, self.equal_nan, self.relaxed, self.checks = rtol, atol, equal_nan, relaxed, checks

    def tolerances(self, *dtypes: DType) -> tuple[float, float]:
        if self.rtol is not None and self.atol is not None:
            return self.rtol, self.atol
        pairs = [_TOLERANCES.get(dtype, _EXACT) for dtype in dtypes]
        return max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)

    def compare(self, actual: Any, expected: Any, place: tuple[Any, ...]) -> None:
        """Raise AssertionError where the two differ, TypeError where they cannot be compared."""
        if actual is None or expected is None:
            if actual is not expected:
                _fail(f"None mismatch: {actual} is not {expected}", place)
        elif isinstance(actual, Mapping) and isinstance(expected, Mapping):
            self._mappings(actual, expected, place)
        elif _is_sequence(actual) and _is_sequence(expected):
            if len(actual) != len(expected):
                _fail(f"The length of the sequences mismatch: {len(actual)} != {len(expected)}", place)
            for i, pair in enumerate(zip(actual, expected, strict=True)):
                self.compare(*pair, (*place, i))
        elif isinstance(actual, bool | np.bool_) and isinstance(expected, bool | np.bool_):
            if actual != expected:
                _fail(f"Booleans mismatch: {actual} is not {expected}", place)
        elif isinstance(actual, _NUMBERS) and isinstance(expected, _NUMBERS):
            mine, theirs = (x.item() if isinstance(x, np.number) else x for x in (actual, expected))
            self._numbers(mine, theirs, place)
        else:
            self._tensors(actual, expected, place)

    def _mappings(self, actual: Mapping[Any, Any], expected: Mapping[Any, Any], place: tuple[Any, ...]) -> None:
        missing, additional = expected.keys() - actual.keys(), actual.keys() - expected.keys()
        if missing or additional:
            _fail(
                "The keys of the mappings do not match:\n"
                f"Missing keys in the actual mapping: {sorted(missing, key=str)}\n"
                f"Additional keys in the actual mapping: {sorted(additional, key=str)}",
                place,
            )
        for key in expected:
            self.compare(actual[key], expected[key], (*place, key))

    def _numbers(self, actual: complex, expected: complex, place: tuple[Any, ...]) -> None:
        if self.checks["dtype"] and type(actual) is not type(expected):
            _fail(f"The (d)types do not match: {type(actual)} != {type(expected)}.", place)
        dtypes = {int: (), float: (float64,), complex: (complex128,)}
        kinds = [dtype for x in (actual, expected) for dtype in dtypes.get(type(x), ())]
        rtol, atol = self.tolerances(*kinds) if kinds or self.rtol is not None else _EXACT
        self._scalars(actual, expected, rtol, atol, place)

    def _scalars(self, actual: complex, expected: complex, rtol: float, atol: float, place: tuple[Any, ...]) -> None:
        both_nan = self.equal_nan and actual != actual and expected != expected
        close = np.isclose(actual, expected, rtol=rtol, atol=atol) if rtol or atol else actual == expected
        if close or both_nan:
            return
        difference = abs(actual - expected)
        relative = difference / abs(expected) if expected else float("inf")
        far, near = (f" (up to {x} allowed)" if rtol or atol else "" for x in (atol, rtol))
        _fail(
            f"Scalars are not {'close' if rtol or atol else 'equal'}!\n\nExpected {expected} but got {actual}.\n"
            f"Absolute difference: {difference}{far}\nRelative difference: {relative}{near}",
            place,
        )

    def _tensors(self, actual: Any, expected: Any, place: tuple[Any, ...]) -> None:
        same = type(actual) is type(expected)
        related = isinstance(actual, type(expected)) or isinstance(expected, type(actual))
        kinds = (Tensor, np.ndarray, np.generic)
        if not (same or (self.relaxed and related)) or not isinstance(actual, kinds) or not isinstance(expected, kinds):
            raise TypeError(
                f"No comparison pair was able to handle inputs of type {type(actual)} and {type(expected)}." + _at(place)
            )
        a: Any = actual if isinstance(actual, Tensor) else tensor(actual)
        b: Any = expected if isinstance(expected, Tensor) else tensor(expected)
        for name, checked in (("shape", True), ("dtype", self.checks["dtype"]), ("stride", self.checks["stride"])):
            mine, theirs = (getattr(x, name)() if name == "stride" else getattr(x, name) for x in (a, b))
            if checked and mine != theirs:
                shown = [f"graphc.Size({list(x)})" if name == "shape" else x for x in (mine, theirs)]
                _fail(f"The values for attribute '{name}' do not match: {shown[0]} != {shown[1]}.", place)
        self._elements(a, b, place)

    def _elements(self, a: Any, b: Any, place: tuple[Any, ...]) -> None:
        rtol, atol = self.tolerances(a.dtype, b.dtype)
        x, y = (_wide(t) for t in (a, b))
        matches = np.isclose(x, y, rtol=rtol, atol=atol, equal_nan=self.equal_nan) if rtol or atol else x == y
        if self.equal_nan and not (rtol or atol):
            matches |= (x != x) & (y != y)
        if matches.all():
            return
        if x.ndim == 0:
            self._scalars(x.item(), y.item(), rtol, atol, place)
            return
        far, near = (f" (up to {limit} allowed)" if rtol or atol else "" for limit in (atol, rtol))
        with np.errstate(divide="ignore", invalid="ignore"):
            absolute = np.abs(np.subtract(x, y, dtype=np.result_type(x, np.int64) if x.dtype.kind in "biu" else x.dtype))
            relative = absolute / np.abs(y)
        absolute, relative = (np.where(matches, 0, d) for d in (absolute, relative))
        wrong, lines = int((~matches).sum()), []
        for label, differences, limit in (("absolute", absolute, far), ("relative", relative, near)):
            where = np.unravel_index(int(np.argmax(differences)), differences.shape)
            index = tuple(int(i) for i in where)
            lines.append(f"Greatest {label} difference: {differences[where].item()} at index {index}{limit}")
        _fail(
            f"Tensor-likes are not {'close' if rtol or atol else 'equal'}!\n\n"
            f"Mismatched elements: {wrong} / {matches.size} ({wrong / matches.size:.1%})\n" + "\n".join(lines),
            place,
        )


def _wide(x: Any) -> np.ndarray[Any, Any]:
    """A tensor's elements as NumPy computes with them: 16-bit floats as float32."""
    array = np.asarray(x.detach().resolve_conj().numpy() if x.dtype is not bfloat16 else x.detach().to(float32).numpy())
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _is_sequence(x: Any) -> bool:
    return isinstance(x, Sequence) and not isinstance(x, str)


def _at(place: tuple[Any, ...]) -> str:
    return f"\n\nThe failure occurred for item {''.join(f'[{step!r}]' for step in place)}" if place else ""


def _fail(text: str, place: tuple[Any, ...]) -> None:
    raise AssertionError(text + _at(place))


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: Message = None,
) -> None:
    """Raise AssertionError unless ``|actual - expected| <= atol + rtol * |expected|`` everywhere.

    Tensors, arrays and numbers of the same kind, and sequences and mappings of them.  Tolerances depend on the dtype unless both
    are given: relative and absolute 1.3e-6 and 1e-5 for float32, 1e-7 and 1e-7 for float64, 1e-3 and 1e-5 for float16, 1.6e-2 and
    1e-5 for bfloat16, none for integers and bools.  check_dtype also tells ints from floats; check_stride compares strides;
    devices and layouts are one each.  msg: the message, or a function of the usual one.

    Raises AssertionError, TypeError for values that cannot be compared, ValueError for one tolerance without the other.
    """
    comparison = _Comparison(rtol, atol, equal_nan, allow_subclasses, {"dtype": check_dtype, "stride": check_stride})
    try:
        comparison.compare(actual, expected, ())
    except AssertionError as error:
        if msg is None:
            raise
        raise AssertionError(msg(str(error)) if callable(msg) else msg) from None


def make_tensor(
    *shape: Any,
    dtype: DType,
    device: Any = None,
    low: float | None = None,
    high: float | None = None,
    requires_grad: bool = False,
    noncontiguous: bool = False,
    exclude_zero: bool = False,
    memory_format: Any = None,
) -> Any:
    """Random numbers of any dtype: floats uniform in [low, high), -9 to 9 unless given, integers too, bools 0 or 1.

    noncontiguous: the last dim has a stride of 2.   exclude_zero: zeros become the least normal number, or 1.
    Raises ValueError for a low that is not below high, and for `noncontiguous` with a memory format.
    """
    if noncontiguous and memory_format is not None:
        raise ValueError(f"make_tensor: noncontiguous and memory_format are mutually exclusive, got {memory_format}")
    sizes = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
    kind = dtype.kind
    least, most = (0, 2) if kind == "b" else (0, 10) if kind == "u" else (-9, 10) if kind == "i" else (-9, 9)
    least, most = least if low is None else low, most if high is None else high  # type: ignore[assignment]
    if not least < most:
        raise ValueError(f"make_tensor: low must be less than high, got {least} and {most}")
    if kind in "biu":
        whole: Any = randint(int(least), int(most), sizes)
        result = whole.to(dtype)
    elif kind == "c":
        part = float32 if dtype is complex64 else float64
        parts: list[Any] = [rand(sizes, dtype=part) for _ in range(2)]
        real, imaginary = (x * (most - least) + least for x in parts)
        result = real + 1j * imaginary
    else:
        wide = float64 if dtype is float64 else float32
        drawn: Any = rand(sizes, dtype=wide)
        result = (drawn * (most - least) + least).to(dtype)
    if exclude_zero:
        result = result.masked_fill(result == 0, 1 if kind in "biu" else finfo(dtype).tiny)
    if noncontiguous and result.numel() > 1:
        result = result.repeat_interleave(2, -1)[..., ::2]
    elif memory_format is not None:
        result = result.clone(memory_format=memory_format)
    return result.requires_grad_(requires_grad)


__all__ = ["assert_close", "make_tensor"]
