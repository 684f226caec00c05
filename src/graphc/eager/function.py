"""`Function`: an operator whose forward and backward a user writes in tensor code.

Enters: subclasses with static `forward` and `backward`.  Leaves: tensors with one node of the tape for the whole call.
Never here: the walk over the tape (`autograd`), how a level of `vmap` runs one (`levels`).
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from graphc.eager.autograd import FREED, unpacked
from graphc.eager.modes import modes, no_grad
from graphc.eager.tape import CallStep, Node, Packed, Step, edge, rebase
from graphc.eager.tensor import Tensor, share
from graphc.errors import at_user_line
from graphc.ir.op import Shape, shape_text
from graphc.ops.arguments import constant


class FunctionCtx:
    """What `forward` leaves for `backward`: saved tensors, marks, and any attributes.

    needs_input_grad: for each argument of `forward`, whether its gradient is wanted.
    """

    needs_input_grad: tuple[bool, ...] = ()

    def __init__(self) -> None:
        self.to_save: tuple[Tensor | None, ...] = ()
        self.dirty_tensors: tuple[Tensor, ...] = ()
        self.non_differentiable: tuple[Tensor, ...] = ()
        self.materialize_grads = True
        self._node: Callable[[], Node | None] = lambda: None
        self._outputs_saved: dict[int, int] = {}  # which saved tensors are outputs, and which

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `backward` (`saved_tensors`).  Raises TypeError for what is neither a tensor nor None."""
        for i, x in enumerate(tensors):
            if x is not None and not isinstance(x, Tensor):
                message = f"save_for_backward can only save variables, but argument {i} is of type {type(x).__name__}"
                raise TypeError(at_user_line(message))
        self.to_save = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Accepted: forward-mode derivatives are taken from `backward`."""

    def mark_dirty(self, *args: Tensor) -> None:
        """Say which arguments `forward` wrote to; each must be among its results."""
        self.dirty_tensors = args

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Say which results have no gradient."""
        self.non_differentiable = args

    def set_materialize_grads(self, value: bool) -> None:
        """Whether `backward` gets zeros (True) or None for results whose gradient nobody asked for."""
        self.materialize_grads = value

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` got.  Raises RuntimeError if it was freed, or written to since."""
        node = self._node()
        if node is None:
            return self.to_save
        if node.saved is None:
            raise RuntimeError(at_user_line(FREED))
        found = []
        for k, entry in enumerate(node.saved):
            x = unpacked(entry)
            if k in self._outputs_saved:
                x = share(x, Tensor)
                x._requires_grad, x._grad_fn, x._index = True, node, self._outputs_saved[k]
            found.append(x)
        return tuple(found)

    saved_variables = saved_tensors


class Function:
    """An operator of one's own: subclass it with static methods and call ``apply``.

    forward(ctx, *args), or forward(*args) with setup_context(ctx, inputs, output): runs off the tape; arguments and results may
    be anything, gradients flow through tensors.
    backward(ctx, *gradients): one gradient (or None) for each argument, in tensor code, so that it can be differentiated again.
    vmap(info, in_dims, *args): the results for a batch and their batch dims; without it `graphc.vmap` runs `forward` and `backward`
    themselves over the batch, as ``generate_vmap_rule = True`` asks.
    """

    generate_vmap_rule = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(at_user_line("an autograd.Function is called by its static method: write MyFunction.apply(...)"))

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with backward "
            "mode AD."
        )

    vjp = backward

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise NotImplementedError("To use autograd.Function with vmap, you must either override the vmap staticmethod or "
                                  "set generate_vmap_rule=True.")  # fmt: skip

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` as one operator of the tape.

        Raises RuntimeError where a tensor marked dirty is not returned or is a leaf that requires grad, and in backward where
        gradients do not fit the arguments.
        """
        if kwargs or splits_context(cls):
            lead = () if splits_context(cls) else (None,)  # in place of the context
            bound = inspect.signature(cls.forward).bind(*lead, *args, **kwargs)
            bound.apply_defaults()
            args = bound.args[len(lead) :]
        level = modes.tracer
        if level is not None and level.batches:
            return level.apply(cls, args)
        return applied(cls, args, functools.partial(run_forward, cls), functools.partial(run_backward, cls))


def splits_context(cls: type[Function]) -> bool:
    """Whether `forward` takes no context and `setup_context` fills it."""
    return cls.setup_context is not Function.setup_context


def run_forward(cls: type[Function], ctx: FunctionCtx, args: tuple[Any, ...]) -> Any:
    """`forward` in the form that the class has."""
    if not splits_context(cls):
        return cls.forward(ctx, *args)
    output = cls.forward(*args)
    cls.setup_context(ctx, args, output)
    return output


def run_backward(cls: type[Function], ctx: FunctionCtx, gradients: Sequence[Any]) -> Any:
    """`backward`, or `vjp` where the class has that instead."""
    rule = cls.vjp if cls.backward is Function.backward and cls.vjp is not Function.vjp else cls.backward
    return rule(ctx, *gradients)


def applied(
    cls: type[Function],
    args: tuple[Any, ...],
    forward: Callable[[FunctionCtx, tuple[Any, ...]], Any],
    backward: Callable[[FunctionCtx, Sequence[Any]], Any],
) -> Any:
    """One call of `cls` put on the tape; `forward` computes it and `backward` its gradients."""
    ctx = FunctionCtx()
    ctx.needs_input_grad = tuple(isinstance(x, Tensor) and x.requires_grad for x in args)
    recorded = modes.grad and any(ctx.needs_input_grad)
    edges = tuple([edge(x) if needed else None for x, needed in zip(args, ctx.needs_input_grad, strict=True)]) if recorded else ()
    with no_grad():
        result = forward(ctx, args)
    single = not isinstance(result, tuple)
    given: tuple[Any, ...] = (result,) if single else result
    _check_dirty(ctx, args, given, recorded)
    outputs = tuple([_fresh(ctx, args, y) for y in given])
    if recorded:
        _record(cls.__name__ + "Backward", backward, ctx, args, edges, given, outputs)
    return outputs[0] if single else outputs


def _check_dirty(ctx: FunctionCtx, args: tuple[Any, ...], results: tuple[Any, ...], recorded: bool) -> None:
    for x in ctx.dirty_tensors:
        if not any(x is y for y in results):
            raise RuntimeError(at_user_line(
                "Some elements marked as dirty during the forward method were not returned as output. The inputs that are modified "
                "inplace must all be outputs of the Function."
            ))  # fmt: skip
        if recorded and x.requires_grad and x._grad_fn is None:
            raise RuntimeError(at_user_line("a leaf Variable that requires grad has been used in an in-place operation."))


def _fresh(ctx: FunctionCtx, args: tuple[Any, ...], y: Any) -> Any:
    """A result as a tensor that may carry the history of this call: an argument, a view or a recorded tensor becomes another."""
    if not isinstance(y, Tensor) or any(y is x for x in ctx.dirty_tensors):
        return y
    if y._requires_grad or y._base is not None or any(y is x for x in args):
        return share(y, Tensor)
    return y


def _record(
    name: str,
    backward: Callable[[FunctionCtx, Sequence[Any]], Any],
    ctx: FunctionCtx,
    args: tuple[Any, ...],
    edges: tuple[Any, ...],
    given: tuple[Any, ...],
    outputs: tuple[Any, ...],
) -> None:
    """Put the call on the tape."""
    metas: tuple[Any, ...] = tuple([(y._array.shape, y.dtype) if isinstance(y, Tensor) else None for y in outputs])
    types = tuple([(x._array.shape, x.dtype) if isinstance(x, Tensor) else None for x in args])
    node = Node(CallStep(name, _Rule(backward, ctx, types)), {}, edges, metas)
    saved = []
    for k, x in enumerate(ctx.to_save):
        position = next(
            (i for i, (y, out) in enumerate(zip(given, outputs, strict=True)) if x is not None and (x is y or x is out)), -1
        )
        if position >= 0 and _differentiable(ctx, given[position]):
            ctx._outputs_saved[k] = position
            x = share(x, Tensor)  # type: ignore[arg-type]  # the output itself would hold its own node
        saved.append(None if x is None else (x, x._storage.version))
    node.saved = tuple(saved)
    ctx.to_save, ctx._node = (), weakref.ref(node)
    for watch in modes.watchers:
        watch(node)
    for i, (before, y) in enumerate(zip(given, outputs, strict=True)):
        if _differentiable(ctx, before):
            if any(y is x for x in ctx.dirty_tensors):
                source = share(y, Tensor)
                source._requires_grad, source._grad_fn, source._index = True, node, i
                rebase(y, source, True)
            else:
                y._requires_grad, y._grad_fn, y._index = True, node, i


def _differentiable(ctx: FunctionCtx, y: Any) -> bool:
    return isinstance(y, Tensor) and y.dtype.kind in "fc" and not any(y is x for x in ctx.non_differentiable)


class _Rule:
    """The gradient rule of one call."""

    def __init__(self, backward: Callable[[FunctionCtx, Sequence[Any]], Any], ctx: FunctionCtx, types: tuple[Any, ...]) -> None:
        self.backward, self.ctx, self.types = backward, ctx, types

    def __call__(self, node: Node, gradients: list[Tensor | None]) -> tuple[Tensor | None, ...]:
        name = node.name()
        if self.ctx.materialize_grads:
            gradients = [
                constant(0, meta[1], tuple(meta[0])) if g is None and meta is not None else g
                for g, meta in zip(gradients, node.metas, strict=True)
            ]
        found = self.backward(self.ctx, gradients)
        results = tuple(found) if isinstance(found, tuple | list) else (found,)
        count = len(self.types)
        if len(results) > count and all(g is None for g in results[count:]):
            results = results[:count]
        if len(results) != count:
            message = f"function {name} returned an incorrect number of gradients (expected {count}, got {len(results)})"
            raise RuntimeError(at_user_line(message))
        for i, (g, meta) in enumerate(zip(results, self.types, strict=True)):
            self.check(name, i, g, meta)
        return results

    @staticmethod
    def check(name: str, i: int, g: Any, meta: Any) -> None:
        """Raise RuntimeError for a gradient that does not fit argument i."""
        if g is None:
            return
        if meta is None:
            message = f"function {name} returned a gradient different than None at position {i + 1}"
            raise RuntimeError(at_user_line(f"{message}, but the corresponding forward input was not a Variable"))
        if not isinstance(g, Tensor):
            raise RuntimeError(at_user_line(f"expected Variable or None (got {type(g).__name__})"))
        if not _reducible(tuple(g._array.shape), tuple(meta[0])):
            message = f"Function {name} returned an invalid gradient at index {i} - got {shape_text(tuple(g._array.shape))}"
            raise RuntimeError(at_user_line(f"{message} but expected shape compatible with {shape_text(tuple(meta[0]))}"))


def _reducible(given: Shape, wanted: Shape) -> bool:
    """Whether `wanted` broadcasts to `given`."""
    lead = len(given) - len(wanted)
    return lead >= 0 and all(b in (1, a) for a, b in zip(given[lead:], wanted, strict=True))


def once_differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """For a `backward` that is not written in tensor code: it runs off the tape; differentiating its result raises RuntimeError."""

    @functools.wraps(function)
    def once(ctx: Any, *gradients: Any) -> Any:
        with no_grad():
            found = function(ctx, *gradients)
        sources = [edge(g) for g in gradients if isinstance(g, Tensor) and g.requires_grad] if modes.grad else []
        if not sources:
            return found

        def refuse(g: Any, out: Any, *_: Any) -> Any:
            raise RuntimeError(at_user_line("trying to differentiate twice a function that was marked with @once_differentiable"))

        results = []
        for y in found if isinstance(found, tuple) else (found,):
            if isinstance(y, Tensor):
                y = share(y, Tensor)
                y._requires_grad, y._grad_fn = True, Node(Step("error", refuse), {}, tuple(sources), ((y._array.shape, y.dtype),))
            results.append(y)
        return tuple(results) if isinstance(found, tuple) else results[0]

    return once


class saved_tensors_hooks:
    """Inside, tensors that the tape saves go through `pack_hook` when saved and `unpack_hook` when backward reads them."""

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        self.pack, self.unpack = pack_hook, unpack_hook

    def __enter__(self) -> None:
        if modes.hooks_refused is not None:
            raise RuntimeError(at_user_line(modes.hooks_refused))
        modes.watchers = (self, *modes.watchers)  # the innermost comes first, and what is packed is left alone

    def __exit__(self, *_: object) -> None:
        watchers = list(modes.watchers)
        watchers.remove(self)
        modes.watchers = tuple(watchers)

    def __call__(self, node: Node) -> None:
        node.saved = tuple([self.packed(entry) for entry in node.saved or ()])
        node.saved_outputs = tuple([self.packed(entry) for entry in node.saved_outputs])

    def packed(self, entry: Any) -> Any:
        """One saved tensor, packed."""
        if entry is None or type(entry) is Packed:
            return entry
        x = entry[0]
        source = edge(x)
        with no_grad():
            return Packed(self.pack(share(x, Tensor)), self.unpack, source)


__all__ = ["Function", "FunctionCtx", "once_differentiable", "saved_tensors_hooks"]
