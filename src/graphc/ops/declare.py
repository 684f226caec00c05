"""Two kinds of `Op` whose public call does more than prepare arguments, and short names for samples.

Enters: declarations.  Leaves: `Op`s.  Never here: any particular operator.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from graphc.dtypes import DType, bfloat16, bool_, complex64, complex128, float16, float32, float64, int8, int16, int32, int64, uint8
from graphc.ir.graph import Builder, Value
from graphc.ir.op import THROUGH, Composite, Fill, Op, Sample, TensorType, casting

FLOATING = (float32, float64, float16, bfloat16)
NARROW = (int8, int16, uint8)  # the op-table tests give them fewer samples
INTEGERS = (int32, int64, *NARROW)
NUMERIC = (*FLOATING, *INTEGERS)
EVERY = (*NUMERIC, bool_)
INTEGRAL = (*INTEGERS, bool_)
COMPLEX = (complex64, complex128)
FLOATING_COMPLEX = (*FLOATING, *COMPLEX)
NUMERIC_COMPLEX = (*NUMERIC, *COMPLEX)
EVERY_COMPLEX = (*EVERY, *COMPLEX)


def fill(*shape: int, **how: Any) -> Fill:
    """A tensor argument of a sample."""
    return Fill(shape, **how)


def call(*args: Any, **kwargs: Any) -> Sample:
    """One sample call."""
    return Sample(args, kwargs)


def infer_through(rule: Callable[..., Any]) -> Callable[..., Any]:
    """The type rule of a composite: the types that its decomposition gives."""

    def infer(*types: TensorType, **attrs: Any) -> Any:
        with Builder().running():
            outputs = rule(*map(Value, types), **attrs)
        return tuple(v.type for v in outputs) if isinstance(outputs, tuple | list) else outputs.type

    return infer


class Routed(Op):
    """An operator whose public function may call others around it, or instead of it: ``route(op, *args)``."""

    def __init__(self, name: str, *, route: Callable[..., Any], **declaration: Any) -> None:
        super().__init__(name, **declaration)
        self.route = route

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        caster = None if self.autocast is None else casting.current()
        return self.route(self, *args, **kwargs) if caster is None else caster(self, args, kwargs)


class Shorthand(Op):
    """An operator that is only a way of calling others, opened at the call: it never stands in a graph.

    `rule` has the public signature, tensors first; any other form needs a `prepare` of its own.  Without a `reference`, the
    operators it opens into are its reference (their own are checked), and its values are checked against PyTorch's.
    """

    def __init__(
        self, name: str, *, rule: Callable[..., Any], prepare: Any = None, reference: Any = None, **declaration: Any
    ) -> None:
        parameters, shown = _parameters(rule)
        super().__init__(
            name,
            signature=declaration.pop("signature", shown),
            infer=infer_through(rule),
            reference=reference,
            grad=declaration.pop("grad", THROUGH),
            lowering=Composite(rule),
            prepare=prepare or _split(name, rule),
            attrs=declaration.pop("attrs", parameters),
            **declaration,
        )
        self._rule, self._opened_directly = rule, prepare is None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        caster = None if self.autocast is None else casting.current()
        if caster is not None:
            return caster(self, args, kwargs)
        if self._opened_directly:
            return self._rule(*args, **kwargs)
        inputs, attrs = self.prepare(*args, **kwargs)
        return self._rule(*inputs, **attrs)


def _parameters(rule: Callable[..., Any]) -> tuple[tuple[str, ...], str]:
    """The names of a function's parameters, and its signature as text without types: at a fifth of what `inspect` takes, since
    importing does it for hundreds of rules."""
    code = rule.__code__
    count, only_by_name = code.co_argcount, code.co_kwonlyargcount
    names = code.co_varnames
    defaults = rule.__defaults__ or ()
    starts = count - len(defaults)
    shown = [name if i < starts else f"{name}={defaults[i - starts]!r}" for i, name in enumerate(names[:count])]
    listed, rest = list(names[:count]), count + only_by_name
    if code.co_flags & inspect.CO_VARARGS:
        listed.append(names[rest])
        shown.append(f"*{names[rest]}")
        rest += 1
    elif only_by_name:
        shown.append("*")
    known = rule.__kwdefaults__ or {}
    for name in names[count : count + only_by_name]:
        listed.append(name)
        shown.append(f"{name}={known[name]!r}" if name in known else name)
    if code.co_flags & inspect.CO_VARKEYWORDS:
        listed.append(names[rest])
        shown.append(f"**{names[rest]}")
    return tuple(listed), f"({', '.join(shown)})"


def _split(name: str, rule: Callable[..., Any]) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """Public arguments -> (the tensors among them, the rest by name)."""
    signatures: list[inspect.Signature] = []  # made at the first call

    def prepare(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not signatures:
            signatures.append(inspect.signature(rule))
        try:
            bound = signatures[0].bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        inputs: list[Any] = []
        attrs: dict[str, Any] = {}
        for parameter, value in bound.items():
            if isinstance(getattr(value, "dtype", None), DType):
                inputs.append(value)
            else:
                attrs[parameter] = value
        return tuple(inputs), attrs

    return prepare
