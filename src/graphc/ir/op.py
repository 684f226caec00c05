"""What an operator is.  Every operator is one `Op`, declared once in `graphc.ops`; nothing about it stands anywhere else.

Enters: declarations.  Leaves: `Op.table`, and calls handed to whoever is running operators now (eager tensors, or a Builder).
Never here: any particular operator; execution.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from graphc.dim_answers import is_answered, plain_if_short
from graphc.dims import Dim
from graphc.dtypes import DType
from graphc.ir.loops import Expr, Size

Shape = tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """dtype and shape of a value; a size is an int or a symbolic `Dim`."""

    dtype: DType
    shape: Shape

    def __str__(self) -> str:
        return f"{self.dtype.short}[{', '.join(map(str, self.shape))}]"

    @property
    def rank(self) -> int:
        return len(self.shape)


# ---- how an operator becomes code: exactly one of these eight ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scalar:
    """Elementwise with NumPy broadcasting.

    `rule`: the name of a scalar function (result dtype = the output's compute dtype, or bool for comparisons), or a function of
    the operands' Exprs and the attributes giving an Expr.  Operands arrive in their compute dtype and the result is rounded to
    the output's dtype by the lowering, so that fusion never changes rounding.
    `check`: of the same operands, a condition and the message of the run-time failure where it is false; None: nothing to check.
    """

    rule: str | Callable[..., Expr]
    check: Callable[..., tuple[Expr, str] | None] | None = None


@dataclass(frozen=True, slots=True)
class Movement:
    """One input, elements copied.  `index(out_index, in_type, out_type, **attrs)` -> index into the input.
    `view`: the NumPy function of eager mode, sharing memory where NumPy can."""

    index: Callable[..., tuple[Size, ...]]


@dataclass(frozen=True, slots=True)
class Element:
    """`rule(load, index, in_types, out_type, **attrs)` -> Expr of one output element in the output's dtype.

    `load(i, index)` pulls an element of input i (in its storage dtype); `load.let(expr)` names a shared or integer value and
    gives its Var; `load.symbol(var)` makes an integer Var usable inside an index; `load.check(condition, message)` records a
    run-time failure.
    """

    rule: Callable[..., Expr]


@dataclass(frozen=True, slots=True)
class Reduce:
    """One input, attribute `dim` (one dimension, removed) folded with `fn` in the tree order of ir.loops, in the compute dtype."""

    fn: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """A hand-laid loop nest of `graphc.schedule` called `nest` (matmul, scan, scatter, put).

    `step`: of a scan, ``(running value, *elements) -> next running value``, which starts as the identity of fold `start`; of a
    scatter or put, ``(old element, new element, **attrs) -> element``.  Exprs in the compute dtype.
    """

    nest: str
    step: Callable[..., Expr] | None = None
    start: str = "add"


@dataclass(frozen=True, slots=True)
class Composite:
    """`rule(*inputs, **attrs)` in public operators; stays whole through autodiff, opened before scheduling."""

    rule: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Host:
    """Run by `reference` on row-major NumPy arrays, inside compiled code too: what no kernel is written for (sort, LAPACK, FFT).

    `sized_by_data`: a size of the results, which `infer` calls `COUNT`, depends on the elements; no graph can hold the operator.
    """

    sized_by_data: bool = False


@dataclass(frozen=True, slots=True)
class Region:
    """Control flow: attributes are graphs, and the operands' elements say which of them run, and how often.

    `rule(*inputs, **attrs)` runs their operators, and reads elements where it must; not opened before scheduling.
    """

    rule: Callable[..., Any]


Autocast = Literal["lower", "float32", "widest", "keep"]
LARGEST = 1 << 46  # bytes of one tensor that is worth asking memory for

Lowering = Scalar | Movement | Element | Reduce | Anchor | Composite | Host | Region
ON_HOST = Host()
COUNT = Dim.symbol("count")


def effective_lowering(lowering: Lowering, dtypes: Iterable[DType]) -> Lowering:
    """How an application with operands and results of `dtypes` becomes code: no kernel knows complex numbers."""
    if isinstance(lowering, Composite | Host | Region) or "c" not in [dtype.kind for dtype in dtypes]:
        return lowering
    return ON_HOST


# `grad=THROUGH` on a Composite: gradient through the decomposition; the tape records the decomposition's operators instead.
THROUGH: Any = object()

# ---- samples: what the op-table tests run ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """Public arguments of one call.  Arrays are described, not stored: a `Fill` makes them for each dtype."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fill:
    """A tensor argument of a sample.  `dtype` None means the dtype under test.  Values uniform in [low, high) from a fixed seed;
    `special` mixes in ±0, ±inf, NaN, denormals for floating dtypes.  `grad` False: not differentiated in the gradient test."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    dtype: DType | None = None
    special: bool = False
    grad: bool = True


@dataclass(frozen=True, slots=True)
class Bad:
    """A call that must fail: `error` class and a regular expression its message must match."""

    args: tuple[Any, ...]
    error: type[Exception]
    match: str
    kwargs: dict[str, Any] = field(default_factory=dict)


# ---- the operators by name ---------------------------------------------------------------------------------------------


class Table(dict[str, "Op"]):
    """Every operator by name.  `makers`: first part of a name -> what makes the operator of such a name, derived from another one;
    those are found here and not listed."""

    def __init__(self) -> None:
        super().__init__()
        self.makers: dict[str, Callable[[str], Op]] = {}

    def __missing__(self, name: str) -> Op:
        maker = self.makers.get(name.partition("_")[0])
        if maker is None:
            raise KeyError(name)
        return maker(name)

    def find(self, name: str) -> Op | None:
        """The operator of a name, or None."""
        try:
            return self[name]
        except KeyError:
            return None


# ---- the operator ------------------------------------------------------------------------------------------------------


class Op:
    """One operator.

    name        IR name and default public name.
    signature   the public Python signature as text, e.g. ``(x, dim=None, keepdim=False, *, dtype=None)``.
    prepare     public arguments -> (inputs, attrs): promotion, defaults, canonical dims.  Python scalars become 0-d constants here.
    infer       (*input types, **attrs) -> TensorType or a tuple of them.  Raises with shapes in the message.
    reference   (xp, *arrays, **attrs) -> array(s); xp is numpy or cupy.  Oracle and interpreter.
    grad        (g, out, *inputs, **attrs) -> one gradient (or None) per input, in public operators only.  For several outputs g
                and out are tuples (g entries may be None).  None: declared nondifferentiable.  The tape sums broadcast dims
                away itself.
    attrs       attribute names in their canonical order.
    lowering    one of the eight kinds above.
    dtypes      dtypes under test and accepted (storage dtypes of the first input).
    samples, bad   what the op-table tests run.
    holomorphic whether, of complex operands, `grad` is that of a holomorphic function: linear in g, a rule as for real numbers.
                (PyTorch's convention wants the conjugate of the derivative: `gradients` applies such a rule to conjugates.)
    methods     names as Tensor methods; functions: names in the `graphc` namespace; inplace: whether ``name_`` exists.
    renamed     PyTorch's names of arguments that are called otherwise here; ``input`` is the first, ``*`` the positional rest.
    strict      how many leading arguments of the public function must be tensors (composites may pass numbers).
    autocast    what a call does where autocast is on, before `prepare`: floating tensors (but float64) become the dtype of
                autocast (``lower``), float32 (``float32``) or the widest among them (``widest``); ``keep``: nothing, nor for the
                operators it is made of.  None: nothing.  A function of the arguments may choose (and its None is ``keep``).
    exact       (attributes) -> of each input, dims (from the last, negative) whose sizes a program must know, not as symbols.
    """

    table: Table
    autocast: Autocast | Callable[..., Autocast | None] | None = None
    exact: Callable[..., Sequence[tuple[int, ...]]] | None = None

    def __init__(
        self,
        name: str,
        *,
        doc: str,
        signature: str,
        infer: Callable[..., Any],
        reference: Callable[..., Any],
        grad: Callable[..., Any] | None,
        lowering: Lowering,
        prepare: Callable[..., tuple[tuple[Any, ...], dict[str, Any]]] | None = None,
        attrs: tuple[str, ...] = (),
        dtypes: Sequence[DType] = (),
        samples: Sequence[Sample] = (),
        bad: Sequence[Bad] = (),
        methods: Iterable[str] | None = None,
        functions: Iterable[str] | None = None,
        inplace: bool = False,
        strict: int = 0,
        renamed: Mapping[str, str] | None = None,
        holomorphic: bool = True,
        autocast: Autocast | Callable[..., Autocast | None] | None = None,
        exact: Callable[..., Sequence[tuple[int, ...]]] | None = None,
    ) -> None:
        self.name, self.doc, self.signature = name, doc, signature
        self.infer, self.reference, self.grad, self.lowering = infer, reference, grad, lowering
        self.prepare = prepare or _as_given(attrs)
        self.attrs, self.dtypes, self.samples, self.bad = attrs, tuple(dtypes), tuple(samples), tuple(bad)
        self.methods = (name,) if methods is None else tuple(methods)
        self.functions = (name,) if functions is None else tuple(functions)
        self.inplace, self.strict, self.holomorphic, self.autocast = inplace, strict, holomorphic, autocast
        self.exact = exact
        self.renamed: Mapping[str, str] = {} if renamed is None else renamed
        self.__doc__ = doc
        if name in Op.table:
            raise ValueError(f"operator {name} is declared twice")
        Op.table[name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The public function: prepares its arguments and runs on whatever is running operators now."""
        if self.autocast is not None and _runners.caster is not None:
            return _runners.caster(self, args, kwargs)
        inputs, attrs = self.prepare(*args, **kwargs)
        return _runners.stack[-1](self, inputs, attrs)

    def run(self, *inputs: Any, **attrs: Any) -> Any:
        """Run with IR-level inputs and attributes, no preparation."""
        return _runners.stack[-1](self, inputs, attrs)

    def gradients(self, g: Any, out: Any, inputs: Sequence[Any], attrs: dict[str, Any]) -> Sequence[Any]:
        """What `grad` gives, one for each input; of complex numbers by PyTorch's convention.

        For a holomorphic function with derivative d that is ``g * conj(d)``, which is ``conj(conj(g) * d)``.
        """
        assert self.grad is not None
        is_complex = any(x.dtype.kind == "c" for x in (*(out if isinstance(out, tuple) else (out,)), *inputs))
        if not (is_complex and self.holomorphic):
            found = self.grad(g, out, *inputs, **attrs)
            return found if isinstance(found, tuple | list) else (found,)
        found = self.grad(tuple(map(_conjugate, g)) if isinstance(g, tuple) else _conjugate(g), out, *inputs, **attrs)
        return tuple(map(_conjugate, found if isinstance(found, tuple | list) else (found,)))

    def infer_types(self, types: Sequence[TensorType], attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        """The output types as a tuple.  Raises RuntimeError for a result that no memory could hold."""
        result = self.infer(*types, **attrs)
        outputs: tuple[TensorType, ...] = result if isinstance(result, tuple) else (result,)
        if is_answered():
            outputs = tuple(TensorType(t.dtype, tuple(map(plain_if_short, t.shape))) for t in outputs)
        if not isinstance(self.lowering, Movement):
            for output in outputs:
                nbytes = output.dtype.itemsize
                for size in output.shape:
                    nbytes = nbytes * size if type(size) is int else nbytes
                if nbytes > LARGEST:
                    raise RuntimeError(f"{self.name}: storage size calculation overflowed with sizes={shape_text(output.shape)}")
        return outputs

    def __repr__(self) -> str:
        return self.name


Op.table = Table()


def _conjugate(x: Any) -> Any:
    """The complex conjugate of a gradient, if it is a complex one."""
    return x if x is None or x.dtype.kind != "c" else Op.table["conj"].run(x)


def _as_given(names: tuple[str, ...]) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    def prepare(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        count = len(args) - (len(names) - len(kwargs))
        return args[:count], {**dict(zip(names, args[count:], strict=False)), **kwargs}

    return prepare


# ---- who is running operators now ---------------------------------------------------------------------------------------

Runner = Callable[[Op, tuple[Any, ...], dict[str, Any]], Any]


def _nobody(op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
    raise RuntimeError(f"{op.name}: nothing is running operators (import graphc first)")


class _Runners(threading.local):
    """`stack`: who runs operators in this thread, the current one last.   `defaults`: what every stack begins with.
    `caster`: who casts the arguments of a public call and makes it, where autocast is on."""

    defaults: tuple[Runner, ...] = (_nobody,)
    caster: Callable[[Op, tuple[Any, ...], dict[str, Any]], Any] | None = None

    def __init__(self) -> None:
        self.stack: list[Runner] = [*_Runners.defaults]


_runners = _Runners()
on_change: list[Callable[[], None]] = []  # called when what a thread is doing changes: who runs its operators, or its modes


def note_change() -> None:
    """Tell those who remember what a thread is doing that it does something else now."""
    for told in on_change:
        told()


def set_default_runner(runner: Runner) -> None:
    """Install eager execution as what runs operators when no Builder does."""
    _Runners.defaults = (runner,)
    _runners.stack[0] = runner


class running:
    """``with running(runner):`` operators called inside go to `runner` (this thread only)."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def __enter__(self) -> None:
        _runners.stack.append(self.runner)
        note_change()

    def __exit__(self, *_: object) -> None:
        _runners.stack.pop()
        note_change()

    @staticmethod
    def current() -> Runner:
        """Who runs operators in this thread now."""
        return _runners.stack[-1]


class casting:
    """``with casting(caster):`` public calls of operators that say how they autocast go to `caster` (this thread only); None: to
    nobody."""

    def __init__(self, caster: Callable[[Op, tuple[Any, ...], dict[str, Any]], Any] | None) -> None:
        self.caster = caster

    def __enter__(self) -> None:
        self.before, _runners.caster = _runners.caster, self.caster

    def __exit__(self, *_: object) -> None:
        _runners.caster = self.before

    @staticmethod
    def begin(caster: Callable[[Op, tuple[Any, ...], dict[str, Any]], Any] | None) -> None:
        """Have `caster` cast from now on."""
        _runners.caster = caster

    @staticmethod
    def current() -> Callable[[Op, tuple[Any, ...], dict[str, Any]], Any] | None:
        """Who casts in this thread now."""
        return _runners.caster


# ---- shape rules shared by declarations ---------------------------------------------------------------------------------


def broadcast_shapes(name: str, shapes: Sequence[Shape]) -> Shape:
    """NumPy broadcasting.  Raises RuntimeError naming the operator and the shapes."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Size] = []
    for axis in range(-rank, 0):
        size: Size = 1
        for shape in shapes:
            d = shape[axis] if -axis <= len(shape) else 1
            if isinstance(d, int) and d == 1 or d == size:
                continue
            if not (isinstance(size, int) and size == 1):
                shown = " and ".join(shape_text(s) for s in shapes)
                raise RuntimeError(f"{name}: shapes {shown} do not broadcast: {size} against {d} at dim {axis}")
            size = d
        result.append(size)
    return tuple(result)


def shape_text(shape: Shape) -> str:
    """``[2, N]``."""
    return f"[{', '.join(map(str, shape))}]"


def canonical_dim(name: str, dim: int, rank: int) -> int:
    """A dim in 0..rank-1.  Raises IndexError as PyTorch does (rank 0 accepts -1 and 0)."""
    bound = max(rank, 1)
    if not -bound <= dim < bound:
        raise IndexError(f"{name}: Dimension out of range (expected to be in range of [{-bound}, {bound - 1}], but got {dim})")
    return dim % bound


__all__ = [
    "Anchor", "Autocast", "Bad", "COUNT", "Composite", "Dim", "Element", "Fill", "Host", "LARGEST", "Lowering", "Movement",
    "ON_HOST",
    "Op", "Reduce", "Region", "Runner", "Sample", "Scalar", "Shape", "Size", "THROUGH", "TensorType", "broadcast_shapes",
    "canonical_dim", "casting", "effective_lowering", "running", "set_default_runner", "shape_text",
]  # fmt: skip
