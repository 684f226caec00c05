"""The tape as users see it: nodes, edges, hooks on saved tensors and on several gradients at once.

Enters: tensors.  Leaves: nodes and handles.  Never here: recording, the walk over the tape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from graphc.eager.function import saved_tensors_hooks
from graphc.eager.hooks import RemovableHandle
from graphc.eager.modes import modes
from graphc.eager.tape import AccumulateGrad, Node
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line


class save_on_cpu(saved_tensors_hooks):
    """Keep saved tensors in the CPU's memory, where they are."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        super().__init__(lambda x: x, lambda x: x)


class disable_saved_tensors_hooks:
    """Inside, entering `saved_tensors_hooks` raises RuntimeError with a message; as a context manager."""

    def __init__(self, error_message: str) -> None:
        self.message = error_message

    def __enter__(self) -> None:
        self.before, modes.hooks_refused = modes.hooks_refused, self.message

    def __exit__(self, *_: object) -> None:
        modes.hooks_refused = self.before


class GradientEdge(NamedTuple):
    """Where the gradient of a tensor goes: an output of a node."""

    node: Node | AccumulateGrad
    output_nr: int


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The edge of a tensor.  Raises RuntimeError for one that does not require grad."""
    if not tensor.requires_grad:
        raise RuntimeError(at_user_line("It is not possible to get the gradient edge for a Tensor that does not require gradients"))
    return GradientEdge(AccumulateGrad(tensor) if tensor.grad_fn is None else tensor.grad_fn, tensor.output_nr)


def increment_version(tensor: Tensor | Sequence[Tensor]) -> None:
    """Count a write that was made to tensors' memory by other means."""
    for x in [tensor] if isinstance(tensor, Tensor) else tensor:
        x._storage.version += 1


class _Handles:
    """Several handles as one."""

    def __init__(self, handles: Sequence[RemovableHandle]) -> None:
        self.handles = tuple(handles)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def __enter__(self) -> _Handles:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def register_multi_grad_hook(
    tensors: Sequence[Tensor], fn: Callable[[Any], None], *, mode: Literal["all", "any"] = "all"
) -> _Handles:
    """Call `fn` when gradients of the tensors were computed: with all of them once all are known, or with the first one.

    Raises ValueError for another `mode`.  A new count begins when all have come.
    """
    if mode not in ("all", "any"):
        raise ValueError(at_user_line(f"Expects mode to be one of ('all', 'any') but got {mode}"))
    found: list[Tensor | None] = [None] * len(tensors)
    come: set[int] = set()

    def hook_of(i: int) -> Callable[[Tensor], None]:
        def hook(g: Tensor) -> None:
            if mode == "any" and not come:
                fn(g)
            come.add(i)
            found[i] = g
            if len(come) == len(tensors):
                given = list(found)
                come.clear()
                found[:] = [None] * len(tensors)
                if mode == "all":
                    fn(given)

        return hook

    return _Handles([x.register_hook(hook_of(i)) for i, x in enumerate(tensors)])


__all__ = [
    "GradientEdge", "Node", "disable_saved_tensors_hooks", "get_gradient_edge", "increment_version", "register_multi_grad_hook",
    "save_on_cpu", "saved_tensors_hooks",
]  # fmt: skip
