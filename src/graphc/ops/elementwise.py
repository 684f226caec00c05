"""Declaring elementwise operators: one call gives promotion, broadcasting, type rule and rounding of 16-bit floats.

Enters: a scalar rule, a NumPy reference, a gradient.  Leaves: `Op`s.  Never here: any particular operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from graphc.dtypes import DType, bool_
from graphc.ir.loops import Expr
from graphc.ir.op import Bad, Op, Sample, Scalar, TensorType, broadcast_shapes
from graphc.ops.arguments import Promotion, promoted, rounded, same_dtype, tensor
from graphc.ops.declare import COMPLEX, FLOATING, NUMERIC, Routed, call, fill

Prepared = tuple[tuple[Any, ...], dict[str, Any]]
_KINDS = {"b": "bool", "i": "integer", "u": "integer", "f": "floating", "c": "complex"}


def elementwise(
    name: str,
    operands: Sequence[str],
    *,
    doc: str,
    rule: str | Callable[..., Any],
    reference: str | Callable[..., Any],
    grad: Callable[..., Any] | None,
    kinds: str = "buif",
    promotion: Promotion = "same",
    result: Literal["same", "bool", "real"] = "same",
    attrs: dict[str, Any] | None = None,
    check: Callable[..., None] | None = None,
    arity: Callable[..., int] | None = None,
    dtypes: Sequence[DType] | None = None,
    samples: Sequence[Sample] | None = None,
    bad: Sequence[Bad] = (),
    methods: Iterable[str] | None = None,
    functions: Iterable[str] | None = None,
    inplace: bool = False,
    route: Callable[..., Any] | None = None,
    prepare: Callable[..., Prepared] | None = None,
    signature: str | None = None,
    strict: int = 0,
    renamed: Mapping[str, str] | None = None,
    wide_numbers: bool = False,
    failing: Callable[..., tuple[Expr, str] | None] | None = None,
    holomorphic: bool = True,
) -> Op:
    """Declare an elementwise operator of the named operands, all of one dtype whose kind is in `kinds`.

    `attrs`: attribute defaults, in order; `check(**attrs)` validates them; `arity(**attrs)` counts the operands
    where they vary.  `samples` default to the usual shapes.  `wide_numbers`: numbers beside 16-bit floats are float32
    constants, as PyTorch multiplies and divides with them.  `failing`: the `check` of the lowering.
    """
    defaults = attrs or {}
    if signature is None:
        keywords = "".join(f", {k}={v!r}" for k, v in defaults.items())
        signature = f"({', '.join(operands)}{keywords})"
    declaration: dict[str, Any] = {
        "doc": doc,
        "signature": signature,
        "prepare": prepare or preparation(name, operands, promotion, defaults, check, wide_numbers),
        "infer": type_rule(name, arity or (lambda **_: len(operands)), kinds, result, wide_numbers),
        "reference": rounded(reference),
        "grad": grad,
        "lowering": Scalar(rule, failing),
        "attrs": tuple(defaults),
        "dtypes": dtypes or (*(FLOATING if promotion == "float" else NUMERIC), *(COMPLEX if "c" in kinds else ())),
        "samples": samples if samples is not None else UNARY if len(operands) == 1 else BINARY,
        "bad": (*_wrong_operands(name, operands), *bad),
        "methods": methods,
        "functions": functions,
        "inplace": inplace,
        "strict": strict,
        "renamed": renamed,
        "holomorphic": holomorphic,
    }
    return Op(name, **declaration) if route is None else Routed(name, route=route, **declaration)


def preparation(
    name: str,
    operands: Sequence[str],
    promotion: Promotion,
    defaults: dict[str, Any],
    check: Callable[..., None] | None,
    wide_numbers: bool = False,
) -> Callable[..., Prepared]:
    """Public arguments -> promoted tensors and attributes."""
    arity, keywords = len(operands), tuple(defaults)
    accepted = (*operands, *keywords)

    def prepare(*args: Any, **kwargs: Any) -> Prepared:
        if len(args) != arity or kwargs:
            args, attrs = _bound(name, accepted, arity, defaults, args, kwargs)
        else:
            attrs = dict(defaults)
        if check is not None:
            check(**attrs)
        if arity == 1:
            tensor(name, operands[0], args[0])
        return promoted(name, args, operands, promotion, wide_numbers), attrs

    return prepare


def _bound(
    name: str,
    accepted: tuple[str, ...],
    arity: int,
    defaults: dict[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments in their places.  Raises TypeError."""
    if len(args) > len(accepted):
        raise TypeError(f"{name}: takes {len(accepted)} arguments but {len(args)} were given")
    given = dict(zip(accepted, args, strict=False))
    for key, value in kwargs.items():
        if key not in accepted or key in given:
            raise TypeError(f"{name}: {'repeated' if key in given else 'unexpected'} argument '{key}'")
        given[key] = value
    missing = [k for k in accepted[:arity] if k not in given]
    if missing:
        raise TypeError(f"{name}: missing argument '{missing[0]}'")
    return tuple(given[k] for k in accepted[:arity]), {k: given.get(k, d) for k, d in defaults.items()}


def type_rule(
    name: str, arity: Callable[..., int], kinds: str, result: str, wide_numbers: bool = False
) -> Callable[..., TensorType]:
    """One dtype in, broadcast, the same dtype, bool, or the dtype of its real parts out."""

    def infer(*types: TensorType, **attrs: Any) -> TensorType:
        if len(types) != arity(**attrs):
            raise RuntimeError(f"{name}: expected {arity(**attrs)} operands, got {len(types)}")
        dtype = same_dtype(name, types) if not wide_numbers else _narrowest(name, types)
        if dtype.kind not in kinds:
            shown = ", ".join(map(str, types))
            raise NotImplementedError(f"{name}: not defined for {_KINDS[dtype.kind]} tensors: {shown}")
        shape = types[0].shape if len(types) == 1 else broadcast_shapes(name, [t.shape for t in types])
        return TensorType(bool_ if result == "bool" else dtype.real if result == "real" else dtype, shape)

    return infer


def _narrowest(name: str, types: Sequence[TensorType]) -> DType:
    """The dtype of a 16-bit float beside float32 numbers; else the one dtype of all."""
    for t in types:
        if t.dtype.compute is not t.dtype:
            return same_dtype(name, [u for u in types if u.shape or u.dtype is not t.dtype.compute])
    return same_dtype(name, types)


def _wrong_operands(name: str, operands: Sequence[str]) -> tuple[Bad, ...]:
    if len(operands) == 1:
        return (Bad(("text",), TypeError, f"{name}: argument '{operands[0]}' must be a Tensor"),)
    rest = (fill(3),) * (len(operands) - 2)
    return (
        Bad((fill(2), [1.0, 2.0], *rest), TypeError, f"{name}: argument '{operands[1]}'"),
        Bad((fill(2, 3), fill(4), *rest), RuntimeError, rf"{name}: shapes .* do not broadcast"),
    )


def unary_samples(low: float = -2.0, high: float = 2.0) -> tuple[Sample, ...]:
    """The usual shapes of one operand with values in [low, high), and special values."""
    shapes = ((3, 4), (), (0, 4), (1,), (33,), (2, 1, 5))
    return (*(call(fill(*s, low=low, high=high)) for s in shapes), call(fill(5, 7, special=True)))


def binary_samples(
    low: float = -2.0, high: float = 2.0, low2: float | None = None, high2: float | None = None
) -> tuple[Sample, ...]:
    """The usual pairs of shapes, with values in the given ranges."""
    low2, high2 = low if low2 is None else low2, high if high2 is None else high2
    pairs: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((3, 4), (3, 4)),
        ((2, 1, 3), (4, 1)),
        ((), (33,)),
        ((0, 3), (3,)),
        ((1,), (5, 1)),
        ((), ()),
    )
    samples = tuple(call(fill(*a, low=low, high=high), fill(*b, low=low2, high=high2)) for a, b in pairs)
    return (*samples, call(fill(2, 3, low=low, high=high), 2), call(fill(7, special=True), fill(5, 1, special=True)))


UNARY = unary_samples()
BINARY = binary_samples()
