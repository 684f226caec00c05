"""Checkpoints: a part of a model whose saved tensors are computed again in backward instead of kept.

Enters: a function and its arguments.  Leaves: its results, on the tape.  Never here: what backward computes.

Without reentrance the tape is recorded as always, only that instead of each saved tensor its number is kept; the first number
that backward reads runs the function again.  With it the whole part is one node, whose rule runs the function again and then a
backward of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from graphc.amp.autocast_mode import autocast
from graphc.eager.autocast import settings
from graphc.eager.autograd import backward
from graphc.eager.function import Function, saved_tensors_hooks
from graphc.eager.generator import fork_rng, get_rng_state, set_rng_state
from graphc.eager.modes import enable_grad, modes
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line, warn


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    context_fn: Callable[[], tuple[Any, Any]] | None = None,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)``, computed again in backward.

    use_reentrant: the form with a backward inside backward (then no keyword arguments, and gradients flow only through tensor
    arguments and tensors that the function finds).   preserve_rng_state: random numbers of the second run are those of the first.
    context_fn: gives context managers for the first and the second run.

    Raises ValueError for keyword arguments that the form does not take, RuntimeError in backward where the second run saves other
    tensors than the first.
    """
    if use_reentrant is None:
        warn("checkpoint: the use_reentrant parameter should be passed explicitly; use_reentrant=False is recommended", UserWarning)
        use_reentrant = True
    if not use_reentrant:
        contexts = (contextlib.nullcontext(), contextlib.nullcontext()) if context_fn is None else context_fn()
        return _recorded(function, args, kwargs, preserve_rng_state, contexts, determinism_check != "none")
    if context_fn is not None or debug:
        raise ValueError(at_user_line("Passing `context_fn` or `debug` is only supported when use_reentrant=False."))
    if kwargs:
        raise ValueError(at_user_line(f"Unexpected keyword arguments: {','.join(kwargs)}"))
    if not any(isinstance(x, Tensor) and x.requires_grad for x in args) and modes.grad:
        warn("checkpoint: None of the inputs have requires_grad=True. Gradients will be None", UserWarning)
    return _Reentrant.apply(function, preserve_rng_state, *args)


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, preserve_rng_state: bool = True, **kwargs: Any
) -> Any:
    """Run modules one after another, all but the last of `segments` parts of them as checkpoints.

    functions: a `Sequential`, or functions of one argument.   Raises ValueError for keyword arguments.
    """
    if kwargs:
        raise ValueError(at_user_line(f"Unexpected keyword arguments: {','.join(kwargs)}"))
    if use_reentrant is None:
        warn("checkpoint_sequential: the use_reentrant parameter should be passed explicitly", UserWarning)
        use_reentrant = True
    parts = list(functions.children()) if hasattr(functions, "children") else list(functions)
    length = len(parts) // segments

    def run(start: int, end: int) -> Callable[[Any], Any]:
        def forward(x: Any) -> Any:
            for part in parts[start:end]:
                x = part(x)
            return x

        return forward

    end = 0
    for _ in range(segments - 1):
        start, end = end, end + length
        input = checkpoint(run(start, end), input, use_reentrant=use_reentrant, preserve_rng_state=preserve_rng_state)
    return run(end, len(parts))(input)


def autocast_of_now() -> Any:
    """A context with this thread's autocast, to be entered once more in backward."""
    return autocast("cpu", settings.dtype("cpu"), modes.autocast is not None)


@contextlib.contextmanager
def _again(state: Any) -> Iterator[None]:
    """Random numbers from a state, and afterwards as if none had been drawn."""
    if state is None:
        yield
        return
    with fork_rng():
        set_rng_state(state)
        yield


# ---- without reentrance --------------------------------------------------------------------------------------------------


class _Part:
    """One checkpointed call.  count: how many tensors it saved.   found: what the second run saved, by number, each until read."""

    def __init__(self, run: Callable[[], Any], state: Any, context: Any, strict: bool) -> None:
        self.run, self.state, self.context, self.strict = run, state, context, strict
        self.cast = autocast_of_now()
        self.count = 0
        self.types: list[Any] = []
        self.found: dict[int, Tensor] = {}

    def pack(self, x: Tensor) -> int:
        self.types.append((tuple(x._array.shape), x.dtype))
        self.count += 1
        return self.count - 1

    def unpack(self, number: int) -> Tensor:
        """The saved tensor of a number.  Raises RuntimeError where the second run saved others than the first."""
        if number not in self.found:
            self.found = {}
            with enable_grad(), self.cast, _again(self.state), self.context, saved_tensors_hooks(self.keep, self.refuse):
                self.run()
            types = [(tuple(x._array.shape), x.dtype) for x in self.found.values()]
            if len(types) != self.count or (self.strict and types != self.types):
                raise RuntimeError(at_user_line(
                    "checkpoint: A different number of tensors was saved during the original forward and recomputation, or "
                    f"tensors of other shapes.\nOriginal: {self.count}\nRecomputed: {len(types)}"
                ))  # fmt: skip
        return self.found.pop(number)

    def keep(self, x: Tensor) -> int:
        self.found[len(self.found)] = x
        return len(self.found) - 1

    @staticmethod
    def refuse(number: int) -> Tensor:
        raise RuntimeError("checkpoint: the tape of the second run is not for backward")


def _recorded(function: Any, args: Any, kwargs: Any, preserve: bool, contexts: tuple[Any, Any], strict: bool) -> Any:
    """The call with numbers in place of saved tensors."""
    first, second = contexts
    if not modes.grad:
        with first:
            return function(*args, **kwargs)

    def run() -> Any:
        return function(*args, **kwargs)

    part = _Part(run, get_rng_state() if preserve else None, second, strict)
    with saved_tensors_hooks(part.pack, part.unpack), first:
        return function(*args, **kwargs)


# ---- with reentrance -----------------------------------------------------------------------------------------------------


class _Reentrant(Function):
    """The function as one node of the tape."""

    @staticmethod
    def forward(ctx: Any, function: Any, preserve: bool, *args: Any) -> Any:
        ctx.function, ctx.cast = function, autocast_of_now()
        ctx.state = get_rng_state() if preserve else None
        ctx.rest = [None if isinstance(x, Tensor) else x for x in args]
        ctx.places = [i for i, x in enumerate(args) if isinstance(x, Tensor)]
        ctx.save_for_backward(*(args[i] for i in ctx.places))
        return function(*args)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        args = list(ctx.rest)
        for i, x in zip(ctx.places, ctx.saved_tensors, strict=True):
            args[i] = x.detach().requires_grad_(x.requires_grad)
        with enable_grad(), ctx.cast, _again(ctx.state):
            outputs = ctx.function(*args)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = [(y, g) for y, g in zip(outputs, gradients, strict=True) if isinstance(y, Tensor) and y.requires_grad]
        if not pairs:
            message = "none of output has requires_grad=True, this checkpoint() is not necessary"
            raise RuntimeError(at_user_line(message))
        backward([y for y, _ in pairs], [g for _, g in pairs])
        return None, None, *(x.grad if isinstance(x, Tensor) else None for x in args)


__all__ = ["checkpoint", "checkpoint_sequential"]
