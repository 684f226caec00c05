"""A level of `vmap`: inside, a tensor stands for every example of a batch.

Enters: tensors with a batch dim.  Leaves: tensors of examples, and what they became.  Never here: how operators run over a batch
(`ops.batching`), the public functions (`graphc.func`).

A tensor of this level has the type of one example and no memory; its storage's cell holds the batch, a tensor of the level outside
(a real one, a traced one, or one of another level).  The tape of this level records examples, the tape outside records what is done
to batches.  So ``vmap(grad(f))`` and ``grad(vmap(f))`` are both only what they say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graphc.eager.dispatch import assign, traced
from graphc.eager.function import Function, FunctionCtx, applied, run_backward, run_forward
from graphc.eager.modes import modes, no_grad, set_grad_enabled
from graphc.eager.tensor import Tensor
from graphc.eager.views import written
from graphc.errors import TraceError, at_user_line
from graphc.ir.op import Op, running
from graphc.ops.batching import Batch, Example, draws

_RANDOM = (
    "vmap: called random operation while in randomness error mode. Please either use the 'same' or 'different' randomness flags on "
    "vmap or perform the randomness operation out of vmap"
)


class LevelCell:
    """What a tensor of a level stands for now."""

    __slots__ = ("example", "tracer")

    def __init__(self, tracer: Level, example: Example) -> None:
        self.tracer, self.example = tracer, example


class Level:
    """Where operators go inside `vmap` (``modes.tracer``).

    outer: where they would go outside.   tracks: whether a batch of this level requires grad outside.
    """

    batches = True
    sequence = -1  # no node is older: nodes of outside belong to tensors of outside
    computed: frozenset[int] = frozenset()

    def __init__(self, size: Any, randomness: str = "error") -> None:
        self.outer, self.randomness, self.tracks = modes.tracer, randomness, False
        self.batch = Batch(size, running.current(), randomness)

    @property
    def collects(self) -> bool:
        return self.outer is not None and self.outer.collects  # type: ignore[no-any-return]

    @property
    def recorded_outside(self) -> bool:
        """Whether what is done here may be on a tape outside."""
        return self.tracks or (self.outer is not None and self.outer.batches and self.outer.recorded_outside)

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """Operators go where they would without this level."""
        before, modes.tracer = modes.tracer, self.outer
        try:
            yield
        finally:
            modes.tracer = before

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Operators go to this level."""
        before, modes.tracer = modes.tracer, self
        try:
            yield
        except TraceError as error:
            if self.collects:
                raise
            message = "vmap: code that needs the elements of a tensor (item(), bool(), numpy(), data-dependent control flow)"
            raise RuntimeError(f"{message} cannot run over a batch: {error}") from error
        finally:
            modes.tracer = before

    def note_view(self, x: Tensor) -> None:
        """As `Tracer.note_view`, where a tracer is outside."""
        assert self.outer is not None
        self.outer.note_view(x)

    # ---- tensors of this level

    def owns(self, x: Tensor) -> bool:
        """Whether x stands for the examples of this level."""
        cell = x._storage.cell
        return cell is not None and cell.tracer is self

    def wrap(self, example: Example) -> Tensor:
        """A tensor that stands for examples."""
        self.tracks = self.tracks or bool(example.value.requires_grad)
        return traced(example.dtype, example.shape, LevelCell(self, example))

    def lift(self, x: Tensor) -> Tensor:
        """x as a tensor of this level; one of outside is the same for all examples."""
        return x if self.owns(x) else self.wrap(Example(x, False))

    def example(self, x: Tensor) -> Example:
        """What x stands for.  Operators must go outside."""
        if not self.owns(x):
            return Example(x, False)
        example: Example = x._storage.cell.example
        for op, attrs in x._chain:
            (example,) = self.batch.apply(op, [example], attrs)
        return example

    # ---- operators

    def lifted(self, op: Op, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """The inputs as tensors of this level, or None where the operator runs outside.  Raises RuntimeError for random numbers."""
        is_random = draws(op, inputs)
        if is_random and self.randomness == "error":
            raise RuntimeError(_RANDOM)
        if not any(map(self.owns, inputs)) and not (is_random and self.randomness == "different"):
            return None
        return tuple([self.lift(x) for x in inputs])

    def below(self, op: Op, inputs: tuple[Tensor, ...], attrs: dict[str, Any]) -> Any:
        """Run an operator outside."""
        with self.outside():
            return self.batch.below(op, inputs, attrs)

    def emit(self, op: Op, inputs: tuple[Tensor, ...], attrs: dict[str, Any]) -> tuple[Tensor, ...]:
        """Run an operator on examples."""
        with self.outside():
            outputs = self.batch.apply(op, [self.example(x) for x in inputs], attrs)
        return tuple([self.wrap(y) for y in outputs])

    def write(self, x: Tensor, y: Tensor) -> None:
        """x's elements become y's: the batch that x's storage stands for becomes another one."""
        with self.outside():
            part, cell = self.example(y), x._storage.cell
            with self.batch.running():
                cell.example = written(cell.example, x._chain, part)
        self.tracks = self.tracks or bool(cell.example.value.requires_grad)

    def assign(self, x: Tensor, y: Tensor, name: str, fresh: bool) -> Tensor:
        """Write to a tensor of outside.  Raises RuntimeError where examples would write different values."""
        with self.outside():
            example = self.example(y)
            if example.batched:
                raise RuntimeError(
                    f"vmap: inplace arithmetic {name} is not possible because the tensor written to is the same for all examples "
                    "and what is written is not; make it inside the function, or give it to vmap with a batch dim"
                )
            return assign(x, example.value, name, fresh)

    # ---- the rest of what a tracer is asked

    def touch(self, x: Tensor) -> None:
        """Nothing: histories of tensors of a level end with it."""

    note_source = set_grad = touch

    def read_grad(self, x: Tensor) -> Tensor | None:
        return x._grad

    def fresh(self, x: Tensor) -> Tensor:
        """A tensor of x's examples with a storage of its own."""
        with self.outside():
            return self.wrap(self.example(x))

    def constant(self, x: Tensor) -> Tensor:
        return x if self.outer is None else self.outer.constant(x)  # type: ignore[no-any-return]

    def scalar(self, getter: Callable[[], float], dtype: Any) -> Tensor:
        """A 0-d tensor of a Python number."""
        with self.outside():
            from graphc.eager.creation import host_scalar

            return host_scalar(getter, dtype)

    def note_number(self, owner: dict[str, Any], name: str, value: Any) -> None:
        if self.outer is not None:
            self.outer.note_number(owner, name, value)

    def defer(self, function: Callable[[], None]) -> None:
        """Call `function` after every run of what is traced outside; now, where nothing is."""
        if self.outer is None:
            function()
        else:
            self.outer.defer(function)

    # ---- operators of users

    def apply(self, cls: type[Function], args: tuple[Any, ...]) -> Any:
        """A call of an `autograd.Function`: its own `vmap`, or its forward and backward over the batch."""
        if not any(isinstance(x, Tensor) and self.owns(x) for x in args):
            with self.outside():
                return cls.apply(*args)
        recorded = modes.grad

        def forward(ctx: FunctionCtx, given: tuple[Any, ...]) -> Any:
            with set_grad_enabled(recorded):
                return self.forward(cls, ctx, given)

        return applied(cls, args, forward, lambda ctx, gradients: run_backward(cls, ctx, gradients))

    def forward(self, cls: type[Function], ctx: FunctionCtx, args: tuple[Any, ...]) -> Any:
        """The results for every example; the outside's tape has the call as one node."""
        with self.outside():
            examples = [self.example(x) if isinstance(x, Tensor) else x for x in args]
            given = [x.value if isinstance(x, Example) else x for x in examples]
            flags = tuple(isinstance(x, Example) and x.batched for x in examples)
            if cls.vmap is not Function.vmap:
                return self.by_rule(cls, ctx, args, given, flags)
            call = _OverBatch(cls, self.batch.size, self.randomness, flags)
            results = applied(cls, tuple(given), call.forward, call.backward)
            several = isinstance(results, tuple)
            outputs = [self.wrapped(y, True) for y in (results if several else (results,))]
        inner = call.inner
        assert inner is not None
        saved = [self.again(x, kind, args, outputs) for x, kind in zip(inner.to_save, call.origins, strict=True)]
        vars(ctx).update({k: v for k, v in vars(inner).items() if not k.startswith("_") and k not in _OF_CALL})
        ctx.to_save = tuple(saved)
        ctx.non_differentiable = tuple(outputs[i] for i in call.marked)
        ctx.dirty_tensors = ()
        return tuple(outputs) if several else outputs[0]

    def wrapped(self, y: Any, batched: bool) -> Any:
        return self.wrap(Example(y, batched)) if isinstance(y, Tensor) else y

    def again(self, x: Any, origin: tuple[str, int] | None, args: tuple[Any, ...], outputs: Sequence[Any]) -> Any:
        """A saved tensor of the call over the batch as one of this level: an argument or result where it is one."""
        if origin is None:
            return None if x is None else self.wrap(x)
        kind, i = origin
        return args[i] if kind == "argument" else outputs[i]

    def by_rule(
        self, cls: type[Function], ctx: FunctionCtx, args: tuple[Any, ...], given: list[Any], flags: tuple[bool, ...]
    ) -> Any:
        """The results by the class's own `vmap`.  Their gradient at this level is that of `forward` itself."""
        info = VmapInfo(self.batch.size, self.randomness)
        in_dims = tuple(0 if f else None for f in flags)
        results, out_dims = cls.vmap(info, in_dims, *given)
        several = isinstance(results, tuple)
        dims = out_dims if isinstance(out_dims, tuple | list) else (out_dims,) * (len(results) if several else 1)
        outputs = []
        for y, dim in zip(results if several else (results,), dims, strict=True):
            front = Op.table["movedim"](y, dim, 0) if isinstance(y, Tensor) and dim else y
            outputs.append(self.wrapped(front, dim is not None))
        if any(ctx.needs_input_grad):
            with self.inside(), no_grad():
                run_forward(cls, ctx, args)  # only for what it leaves for backward
            ctx.non_differentiable = ()
        return tuple(outputs) if several else outputs[0]


_OF_CALL = {"to_save", "dirty_tensors", "non_differentiable", "needs_input_grad"}


class VmapInfo:
    """What a `vmap` staticmethod is told of the batch."""

    def __init__(self, batch_size: Any, randomness: str) -> None:
        self.batch_size, self.randomness = batch_size, randomness


class _OverBatch:
    """One call of an `autograd.Function` over a batch, as an operator of the level outside.

    inner: the context that `forward` filled, its saved tensors as `Example`s.   origins: which of them are arguments or results.
    marked: which results have no gradient.
    """

    def __init__(self, cls: type[Function], size: Any, randomness: str, flags: tuple[bool, ...]) -> None:
        self.cls, self.size, self.randomness, self.flags = cls, size, randomness, flags
        self.inner: FunctionCtx | None = None
        self.origins: list[tuple[str, int] | None] = []
        self.marked: list[int] = []

    def forward(self, ctx: FunctionCtx, given: tuple[Any, ...]) -> Any:
        """`forward` over the batch; `ctx` is the outside's."""
        level = Level(self.size, self.randomness)
        args = [level.wrapped(x, f) for x, f in zip(given, self.flags, strict=True)]
        inner = self.inner = FunctionCtx()
        inner.needs_input_grad = ctx.needs_input_grad
        with level.inside():
            results = run_forward(self.cls, inner, tuple(args))
        if inner.dirty_tensors:
            raise RuntimeError(
                at_user_line(f"vmap: {self.cls.__name__} writes to its arguments (mark_dirty); give it a vmap staticmethod")
            )
        several = isinstance(results, tuple)
        listed = list(results) if several else [results]
        outputs = [level.batch.whole(level.example(y)) if isinstance(y, Tensor) else y for y in listed]
        self.marked = [i for i, y in enumerate(listed) if any(y is m for m in inner.non_differentiable)]
        ctx.non_differentiable = tuple(outputs[i] for i in self.marked)
        ctx.materialize_grads = inner.materialize_grads
        self.keep(ctx, level, args, given, listed, outputs)
        return tuple(outputs) if several else outputs[0]

    def keep(self, ctx: FunctionCtx, level: Level, args: list[Any], given: Any, listed: list[Any], outputs: list[Any]) -> None:
        """Save what the inner context saved, as tensors of outside."""
        assert self.inner is not None
        kept, examples = [], []
        for x in self.inner.to_save:
            at = next((("argument", i) for i, y in enumerate(args) if x is not None and y is x), None)
            at = at or next((("result", i) for i, y in enumerate(listed) if x is not None and y is x), None)
            self.origins.append(at)
            example = None if x is None else level.example(x)
            if at is not None and at[0] == "result":
                example = Example(outputs[at[1]], True)
            examples.append(example)
            kept.append(None if example is None else given[at[1]] if at is not None and at[0] == "argument" else example.value)
        self.inner.to_save = tuple(examples)  # type: ignore[arg-type]
        ctx.to_save = tuple(kept)
        self.batched = [e is not None and e.batched for e in examples]

    def backward(self, ctx: FunctionCtx, gradients: Sequence[Any]) -> Any:
        """`backward` over the batch; an argument that is the same for all examples gets their sum."""
        level = Level(self.size, self.randomness)
        assert self.inner is not None
        inner = FunctionCtx()
        vars(inner).update({k: v for k, v in vars(self.inner).items() if k != "to_save"})
        inner.to_save = tuple(
            None if x is None else level.wrapped(x, f) for x, f in zip(ctx.saved_tensors, self.batched, strict=True)
        )
        with level.inside():
            found = run_backward(self.cls, inner, [None if g is None else level.wrapped(g, True) for g in gradients])
        results = []
        found = found if isinstance(found, tuple | list) else (found,)
        for i, g in enumerate(found):
            if isinstance(g, Tensor):
                example = level.example(g)
                batched = i < len(self.flags) and self.flags[i]
                g = level.batch.whole(example) if batched or not example.batched else example.value.sum(0)
                if not batched and not example.batched:
                    g = g.sum(0)  # the gradient of every example is this one
            results.append(g)
        return tuple(results)


def batched_gradients(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    seeds: Sequence[Any],
    keep: bool | None,
    create: bool,
    unused: Any,
    zeros: bool,
) -> tuple[Tensor | None, ...]:
    """`autograd.grad` for a batch of gradients of the outputs."""
    from graphc.eager.autograd import grad

    sizes = {int(g.shape[0]) for g in seeds if g is not None and g.ndim}
    if len(sizes) != 1:
        raise RuntimeError(at_user_line(f"is_grads_batched: grad_outputs must have one batch size in front, got {sorted(sizes)}"))
    level = Level(sizes.pop(), "error")
    lifted = [None if g is None else level.wrap(Example(g, True)) for g in seeds]
    with level.inside():
        found = grad(outputs, inputs, lifted, keep, create or level.tracks, allow_unused=unused, materialize_grads=zeros)
    results = tuple([None if g is None else level.batch.whole(level.example(g)) for g in found])
    return results if create else tuple([None if g is None else g.detach() for g in results])


__all__ = ["Level", "LevelCell", "batched_gradients"]
