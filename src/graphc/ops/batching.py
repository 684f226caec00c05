"""Operators over a batch of examples, derived from how each is lowered, so that none needs a batching rule of its own.

Enters: an operator and carriers, some of them with a batch in front.  Leaves: the results with the batch in front.
Never here: whose batch it is (levels of `vmap`, the gradient of a derived operator).

Elementwise operators align ranks.  Movement, reductions, scans, scatters and products shift their dims by one.  An operator given
by an element's expression becomes another such operator, whose first index picks the example; one that runs on the host runs once
an example; a composite becomes a composite, so that it keeps its own gradient and stays one kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, uint64
from graphc.ir.op import (
    THROUGH,
    Anchor,
    Composite,
    Element,
    Host,
    Movement,
    Op,
    Reduce,
    Runner,
    Scalar,
    Shape,
    Size,
    TensorType,
    running,
)
from graphc.ops.convolution_back import taps_apart
from graphc.ops.movement import expand, flip, permute, reshape, slice_, squeeze, summed_to, unsqueeze
from graphc.ops.recurrent import step_by_step

PREFIX = "batched"


class Example:
    """A carrier that stands for every example of a batch: `value` has it as dim 0 if `batched`, else it is the same for all."""

    __slots__ = ("batched", "dtype", "shape", "value")

    def __init__(self, value: Any, batched: bool) -> None:
        self.value, self.batched = value, batched
        self.dtype: DType = value.dtype
        shape = tuple(value.shape)
        self.shape: Shape = shape[1:] if batched else shape

    @property
    def ndim(self) -> int:
        return len(self.shape)


class Batch:
    """Runs operators on `Example`s.

    size: of the batch.   below: runs operators on their values.   randomness: `different`, `same` or `error`.
    opens: composites are opened here (and have no gradient of their own).
    """

    def __init__(self, size: Size, below: Runner, randomness: str = "same", opens: bool = False) -> None:
        self.size, self.below, self.randomness, self.opens = size, below, randomness, opens

    def run(self, op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """As a runner of operators."""
        outputs = self.apply(op, [x if isinstance(x, Example) else Example(x, False) for x in inputs], attrs)
        return outputs[0] if len(outputs) == 1 else outputs

    def running(self) -> running:
        return running(self.run)

    def apply(self, op: Op, inputs: Sequence[Example], attrs: dict[str, Any]) -> tuple[Example, ...]:
        """The results of one operator.  Raises RuntimeError where the examples' results could not have one shape."""
        is_random = draws(op, inputs)
        differs = is_random and self.randomness == "different"
        if isinstance(op.lowering, Composite) and (differs or (self.opens and any(x.batched for x in inputs))):
            with self.running():
                outputs = op.lowering.rule(*inputs, **attrs)
            return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)
        with running(self.below):
            if differs:
                return self.drawn(op, inputs, attrs)
            if not any(x.batched for x in inputs):
                return self.results(op.run(*[x.value for x in inputs], **attrs), False)
            found = self.lifted(op, inputs, attrs)
            return tuple([self.one_state(y) for y in found]) if is_random else found

    def one_state(self, y: Example) -> Example:
        """A generator's state after examples that all drew the same numbers: that of the first."""
        if not _is_state(y) or not y.batched:
            return y
        first = slice_.run(y.value, starts=(0, 0), stops=(1, 2), steps=(1, 1))
        return Example(reshape.run(first, shape=(2,)), False)

    @staticmethod
    def results(outputs: Any, batched: bool) -> tuple[Example, ...]:
        return tuple([Example(y, batched) for y in (outputs if isinstance(outputs, tuple | list) else (outputs,))])

    def drawn(self, op: Op, inputs: Sequence[Example], attrs: dict[str, Any]) -> tuple[Example, ...]:
        """Random numbers of every example's own: those of one bigger draw; the state moves past all of them."""
        if any(x.batched for x in inputs if _is_state(x)):
            raise RuntimeError(f"vmap: {op.name}: the state of a generator must not differ from example to example")
        values = [x.value if _is_state(x) else self.whole(x) for x in inputs]
        for name in ("shape", "count"):
            if name in attrs:
                attrs = {**attrs, name: (self.size, *attrs[name]) if name == "shape" else attrs[name] * self.size}
        outputs = self.results(op.run(*values, **attrs), False)
        return tuple([y if _is_state(y) else Example(y.value, True) for y in outputs])

    # ---- by the kind of lowering

    def lifted(self, op: Op, inputs: Sequence[Example], attrs: dict[str, Any]) -> tuple[Example, ...]:
        """An operator with at least one input batched."""
        lowering = op.lowering
        if isinstance(lowering, Scalar):
            rank = max(x.ndim for x in inputs)
            return self.results(op.run(*[aligned(x, rank) for x in inputs], **attrs), True)
        if op is expand:
            shape = attrs["shape"]
            return self.results(op.run(aligned(inputs[0], len(shape)), shape=(self.size, *shape)), True)
        if op in _MOVED:
            (x,) = inputs
            return self.results(op.run(x.value, **_MOVED[op](self.size, x, **attrs)), True)
        if isinstance(lowering, Reduce):
            return self.results(op.run(inputs[0].value, **{**attrs, "dim": attrs["dim"] + 1}), True)
        if isinstance(lowering, Anchor) and lowering.nest.startswith("recurrent"):  # its steps, each over the batch
            with self.running():
                return step_by_step(op)(*inputs, **attrs)
        if isinstance(lowering, Anchor) and lowering.nest == "taps":
            g, p = inputs
            with self.running():
                return (taps_apart(g, p, **attrs),)
        if isinstance(lowering, Anchor):
            return self.results(self.anchored(op, lowering.nest, inputs, attrs), True)
        if isinstance(lowering, Host) and lowering.sized_by_data:
            raise RuntimeError(f"vmap: {op.name}: the shape of its result depends on the elements, so examples may differ in it")
        return self.results(derived(op, tuple([x.batched for x in inputs])).run(*[x.value for x in inputs], **attrs), True)

    def anchored(self, op: Op, nest: str, inputs: Sequence[Example], attrs: dict[str, Any]) -> Any:
        """Products, scans and scatters."""
        if nest == "matmul":
            x, y = inputs
            if not y.batched and y.ndim == 2:  # many rows, one matrix
                rows = reshape.run(x.value, shape=(-1, x.shape[-1])) if 0 not in x.value.shape else x.value
                return reshape.run(op.run(rows, y.value, **attrs), shape=(*x.value.shape[:-1], y.shape[-1]))
            rank = max(x.ndim, y.ndim)
            return op.run(aligned(x, rank), aligned(y, rank), **attrs)
        if nest == "panels":
            return op.run(self.whole(inputs[0]), **attrs)
        if nest == "matmul_panels":
            x, p = inputs
            rank = max(x.ndim, p.ndim - 1)
            return op.run(aligned(x, rank), aligned(p, rank + 1), **attrs)
        if nest == "put":
            return self.put(op, inputs, **attrs)
        if nest in ("convolution", "winograd"):
            return self.convolution(op, inputs, attrs)
        if nest == "convolution_weight":
            return self.convolution_weight(op, inputs, attrs)
        if nest == "winograd_filters":
            whole = inputs[0].value
            out = op.run(reshape.run(whole, shape=(whole.shape[0] * whole.shape[1], *whole.shape[2:])), **attrs)
            return reshape.run(out, shape=(*whole.shape[:2], *out.shape[1:]))
        if nest.startswith("depthwise"):
            return self.depthwise(op, inputs, attrs)
        if nest.startswith("attention"):
            rank = 1 + max(x.ndim for x in inputs)
            return op.run(*[_in_front(self.whole(x), rank) for x in inputs], **attrs)
        if "dim" not in attrs:
            raise RuntimeError(f"vmap: {op.name}: no rule to run it over a batch")
        return op.run(*[self.whole(x) for x in inputs], **{**attrs, "dim": attrs["dim"] + 1})

    def convolution(self, op: Op, inputs: Sequence[Example], attrs: dict[str, Any]) -> Any:
        """Images of all examples are one batch; where each has filters of its own, examples are groups of channels."""
        x, filters = inputs
        images = self.whole(x)
        if not filters.batched:
            out = op.run(reshape.run(images, shape=(images.shape[0] * images.shape[1], *images.shape[2:])), filters.value, **attrs)
            return reshape.run(out, shape=(*images.shape[:2], *out.shape[1:]))
        rank = images.ndim
        beside = permute.run(images, dims=(*range(1, rank - 1), 0, rank - 1))
        beside = reshape.run(beside, shape=(*beside.shape[:-2], self.size * images.shape[-1]))
        given = filters.value
        given = reshape.run(given, shape=(self.size * given.shape[1], *given.shape[2:]))
        changed = {"groups": attrs["groups"] * self.size, "columns": attrs["columns"] * self.size}
        out = op.run(beside, given, **{**attrs, **changed})
        out = reshape.run(out, shape=(*out.shape[:-1], self.size, attrs["columns"]))
        return permute.run(out, dims=(rank - 2, *range(rank - 2), rank - 1))

    def convolution_weight(self, op: Op, inputs: Sequence[Example], attrs: dict[str, Any]) -> Any:
        """Images of all examples are one batch, which is cut where an example's are; zeros fill up an example's last part."""
        parts, count = attrs["parts"], inputs[0].shape[0]
        each = -(-count // parts) * parts
        given = []
        for x in inputs:
            whole = self.whole(x)
            if each != count:
                shape = (self.size, each, *whole.shape[2:])
                whole = Op.table["pad_constant"].run(whole, starts=(0,) * whole.ndim, shape=shape, value=0)
            given.append(reshape.run(whole, shape=(self.size * each, *whole.shape[2:])))
        out = op.run(*given, **{**attrs, "parts": self.size * parts})
        return reshape.run(out, shape=(self.size, parts, *out.shape[1:]))

    def depthwise(self, op: Op, inputs: Sequence[Example], attrs: dict[str, Any]) -> Any:
        """Channels do not meet in a depthwise convolution, so those of every example stand beside each other."""
        if op.name == "depthwise_last":
            return self.depthwise_last(op, inputs, attrs)
        given = []
        for x in inputs:
            whole = self.whole(x)
            if x.ndim == 4:  # an image: its channels come second
                whole = permute.run(whole, dims=(1, 0, 2, 3, 4))
            at = x.ndim - 3
            shape = tuple(whole.shape)
            given.append(reshape.run(whole, shape=(*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])))
        out = op.run(*given, **attrs)
        at, shape = out.ndim - 3, tuple(out.shape)
        out = reshape.run(out, shape=(*shape[:at], self.size, shape[at] // self.size, *shape[at + 1 :]))
        return permute.run(out, dims=(1, 0, 2, 3, 4)) if at else out

    def depthwise_last(self, op: Op, inputs: Sequence[Example], attrs: dict[str, Any]) -> Any:
        """`depthwise` where channels are the last dim."""
        given = []
        for x in inputs:
            last = x.ndim
            whole = permute.run(self.whole(x), dims=(*range(1, last), 0, last))
            shape = tuple(whole.shape)
            given.append(reshape.run(whole, shape=(*shape[:-2], shape[-2] * shape[-1])))
        out = op.run(*given, **attrs)
        shape = tuple(out.shape)
        out = reshape.run(out, shape=(*shape[:-1], self.size, shape[-1] // self.size))
        return permute.run(out, dims=(out.ndim - 2, *range(out.ndim - 2), out.ndim - 1))

    def put(self, op: Op, inputs: Sequence[Example], dims: tuple[int, ...], at: int, accumulate: bool) -> Any:
        """`index_put`: where the places differ between examples, the example's number is one index more, in front of them."""
        x, values, *indices = inputs
        moved, given = _shifted(dims), [i.value for i in indices]
        if not any(i.batched for i in indices):
            return op.run(self.whole(x), self.whole(values), *given, dims=moved, at=at + 1, accumulate=accumulate)
        rank = max(i.ndim for i in indices)
        iota = Op.table["iota"].run(size=self.size, dtype=indices[0].dtype)
        numbers = reshape.run(iota, shape=(self.size, *(1,) * rank))
        front = (0, *range(1 + at, 1 + at + rank), *range(1, 1 + at), *range(1 + at + rank, 1 + values.ndim))
        given = [numbers, *(aligned(i, rank) for i in indices)]
        filled = permute.run(self.whole(values), dims=front)
        return op.run(self.whole(x), filled, *given, dims=(0, *moved), at=0, accumulate=accumulate)

    def whole(self, x: Example) -> Any:
        """The value with the batch in front, repeated where it is the same for all."""
        return x.value if x.batched else expand.run(x.value, shape=(self.size, *x.shape))


def aligned(x: Example, rank: int) -> Any:
    """A value that broadcasts with examples of `rank` dims behind the batch."""
    if not x.batched or x.ndim == rank:
        return x.value
    return reshape.run(x.value, shape=(x.value.shape[0], *(1,) * (rank - x.ndim), *x.shape))


def _in_front(whole: Any, rank: int) -> Any:
    """A value with a batch in front as one of `rank` dims."""
    shape = tuple(whole.shape)
    return whole if len(shape) == rank else reshape.run(whole, shape=(shape[0], *(1,) * (rank - len(shape)), *shape[1:]))


def _is_state(x: Any) -> bool:
    """Whether a carrier has the type of a generator's state."""
    return x.dtype is uint64 and tuple(x.shape) == (2,)


def draws(op: Op, inputs: Sequence[Any]) -> bool:
    """Whether an operator's numbers come from a generator's state, one of its inputs (and the last of its results)."""
    return "state" in op.signature and any(map(_is_state, inputs))


def _shifted(dims: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([d + 1 for d in dims])


# How the attributes of movement change behind a batch: (size, input, **attributes) -> attributes.
_MOVED: dict[Op, Callable[..., dict[str, Any]]] = {
    reshape: lambda size, x, shape: {"shape": (size, *shape)},
    permute: lambda size, x, dims: {"dims": (0, *_shifted(dims))},
    squeeze: lambda size, x, dims: {"dims": _shifted(dims)},
    unsqueeze: lambda size, x, dim: {"dim": dim + 1},
    flip: lambda size, x, dims: {"dims": _shifted(dims)},
    slice_: lambda size, x, starts, stops, steps: {"starts": (0, *starts), "stops": (size, *stops), "steps": (1, *steps)},
}


# ---- derived operators ---------------------------------------------------------------------------------------------------


class Batched(Op):
    """`op` over a batch that the inputs of `flags` have in front.  It is found by name and not listed among the operators."""

    def __init__(self, op: Op, flags: tuple[bool, ...]) -> None:
        self.op, self.flags = op, flags
        self.name = f"{PREFIX}_{''.join(str(int(f)) for f in flags)}_{op.name}"
        self.doc = self.__doc__ = f"{op.name} of every example of a batch."
        self.signature, self.attrs = op.signature, op.attrs
        self.infer, self.reference, self.lowering = self._infer, self._reference, self._lowering()
        self.grad = self._grad if op.grad is not None and op.grad is not THROUGH else op.grad
        self.prepare = lambda *inputs, **attrs: (inputs, attrs)
        self.dtypes = self.samples = self.bad = self.methods = self.functions = ()
        self.inplace, self.strict, self.holomorphic, self.exact = False, 0, False, op.exact

    def _split(self, types: Sequence[TensorType]) -> tuple[Size, list[TensorType]]:
        """(the batch's size, the types of one example)."""
        size = next(t.shape[0] for t, f in zip(types, self.flags, strict=True) if f)
        return size, [TensorType(t.dtype, t.shape[1:]) if f else t for t, f in zip(types, self.flags, strict=True)]

    def _infer(self, *types: TensorType, **attrs: Any) -> Any:
        size, inner = self._split(types)
        return tuple(TensorType(t.dtype, (size, *t.shape)) for t in self.op.infer_types(inner, attrs))

    def _reference(self, xp: Any, *arrays: Any, **attrs: Any) -> Any:
        count = next(a.shape[0] for a, f in zip(arrays, self.flags, strict=True) if f)
        parts = [[a[i] if f else a for a, f in zip(arrays, self.flags, strict=True)] for i in range(count)]
        found = [self.op.reference(xp, *part, **attrs) for part in parts]
        if found:
            several = isinstance(found[0], tuple)
            columns = zip(*found, strict=True) if several else (found,)
            return tuple(xp.stack([xp.asarray(y) for y in column]) for column in columns)
        from graphc.dtypes import from_numpy

        types = self.infer_types([TensorType(from_numpy(np.dtype(a.dtype)), a.shape) for a in arrays], attrs)
        return tuple(xp.zeros(t.shape, t.dtype.numpy) for t in types)

    def _lowering(self) -> Any:
        lowering = self.op.lowering
        if isinstance(lowering, Movement):

            def index(index: tuple[Size, ...], in_type: TensorType, out_type: TensorType, **attrs: Any) -> tuple[Size, ...]:
                inner = lowering.index(index[1:], _one(in_type), _one(out_type), **attrs)
                return (index[0], *inner)

            return Movement(index)
        if isinstance(lowering, Element):

            def rule(load: Any, index: tuple[Size, ...], in_types: Sequence[TensorType], out_type: TensorType, **attrs: Any) -> Any:
                inner = self._split(in_types)[1]
                return lowering.rule(_Load(load, index[0], self.flags), index[1:], inner, _one(out_type), **attrs)

            return Element(rule)
        if isinstance(lowering, Composite):
            return Composite(self._opened)
        return Host()

    def _opened(self, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        """A composite's rule, run over the batch."""
        assert isinstance(self.op.lowering, Composite)
        size = next(x.shape[0] for x, f in zip(inputs, self.flags, strict=True) if f)
        batch = Batch(size, running.current(), opens=True)
        with batch.running():
            outputs = self.op.lowering.rule(*[Example(x, f) for x, f in zip(inputs, self.flags, strict=True)], **attrs)
        return tuple([batch.whole(y) for y in (outputs if isinstance(outputs, tuple | list) else (outputs,))])

    def _grad(self, g: Any, out: Any, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        """The gradient rule of one example, run over the batch."""
        size = next(x.shape[0] for x, f in zip(inputs, self.flags, strict=True) if f)
        batch = Batch(size, running.current())
        examples = [Example(x, f) for x, f in zip(inputs, self.flags, strict=True)]
        assert self.op.grad is not None and self.op.grad is not THROUGH
        with batch.running():
            found = self.op.gradients(_examples(g), _examples(out), examples, attrs)
            fitted = [d if d is None or d.shape == x.shape else summed_to(d, x.shape) for d, x in zip(found, examples, strict=True)]
        return tuple(
            [None if d is None else batch.whole(d) if x.batched else d.value for d, x in zip(fitted, examples, strict=True)]
        )


def _one(type: TensorType) -> TensorType:
    return TensorType(type.dtype, type.shape[1:])


def _examples(given: Any) -> Any:
    if isinstance(given, tuple):
        return tuple(map(_examples, given))
    return None if given is None else Example(given, True)


class _Load:
    """An Element rule's `load` that reads one example of the batched inputs."""

    def __init__(self, load: Any, example: Size, flags: tuple[bool, ...]) -> None:
        self.load, self.example, self.flags = load, example, flags

    def __call__(self, i: int, index: tuple[Size, ...]) -> Any:
        return self.load(i, (self.example, *index) if self.flags[i] else index)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.load, name)


_derived: dict[tuple[Op, tuple[bool, ...]], Batched] = {}


def derived(op: Op, flags: tuple[bool, ...]) -> Batched:
    """`op` over a batch that the inputs of `flags` have in front."""
    found = _derived.get((op, flags))
    if found is None:
        found = _derived[op, flags] = Batched(op, flags)
    return found


def named(name: str) -> Op:
    """The derived operator of a name.  Raises KeyError."""
    prefix, flags, inner = (*name.split("_", 2), "", "")[:3]
    if prefix != PREFIX or not flags or set(flags) - {"0", "1"}:
        raise KeyError(name)
    return derived(Op.table[inner], tuple(f == "1" for f in flags))


Op.table.makers[PREFIX] = named
