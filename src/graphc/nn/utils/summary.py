"""A model's layers in the order of their calls, with the shapes that come out and the parameters that they have.

Enters: a module and arguments for it.  Leaves: a `Summary`, which prints as a table.  Never here: anything that changes the module,
but for lazy ones, which the call initializes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from graphc.eager.modes import no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.nn.module import Module
from graphc.nn.parameter import is_lazy
from graphc.trees import flatten


class Layer(NamedTuple):
    """One call of a module.   path: its dotted name, "" for the model.   depth: how many calls it is within.
    shapes: of the tensors that came out; None where nothing was called.   parameters: how many elements are its own; 0 for a
    module or parameter that was counted before."""

    path: str
    kind: str
    depth: int
    shapes: list[tuple[int, ...]] | None
    parameters: int


class Summary:
    """layers: in the order of their calls.   total: elements of all parameters.   trainable: of those that require grad.
    buffers: elements of all buffers.   nbytes: of both.   uncalled: names of modules with parameters that no call reached."""

    def __init__(self, model: Module, layers: list[Layer], uncalled: list[str]) -> None:
        self.layers, self.uncalled = layers, uncalled
        parameters = [p for p in model.parameters() if not is_lazy(p)]
        buffers = [b for b in model.buffers() if not is_lazy(b)]
        self.total = sum(p.numel() for p in parameters)
        self.trainable = sum(p.numel() for p in parameters if p.requires_grad)
        self.buffers = sum(b.numel() for b in buffers)
        self.nbytes = sum(x.nbytes for x in (*parameters, *buffers))

    def __str__(self) -> str:
        """The table."""
        rows = [("layer", "output shape", "parameters")]
        for layer in self.layers:
            name = layer.path.rpartition(".")[2]
            shown = f"{name}: {layer.kind}" if name else layer.kind
            shapes = "" if layer.shapes is None else ", ".join(str(list(s)) for s in layer.shapes)
            rows.append(("  " * layer.depth + shown, shapes, f"{layer.parameters:,}" if layer.parameters else "-"))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
        rule = "-" * (sum(widths) + 4)
        ends = [f"parameters: {self.total:,} ({self.trainable:,} trainable)", f"buffers: {self.buffers:,}", _size(self.nbytes)]
        if self.uncalled:
            ends.append(f"not called: {', '.join(self.uncalled)}")
        return "\n".join([lines[0], rule, *lines[1:], rule, *ends])

    __repr__ = __str__


def _size(nbytes: int) -> str:
    size, unit = float(nbytes), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if size >= 1024:
            size, unit = size / 1024, larger
    return f"memory: {size:.1f} {unit}" if unit != "bytes" else f"memory: {nbytes} bytes"


class _Watch:
    """Hooks that note every call.   rows: as they began, filled in as they end."""

    def __init__(self, model: Module) -> None:
        self.names = {id(module): name for name, module in model.named_modules()}
        self.rows: list[Layer] = []
        self.open: list[int] = []
        self.counted: set[int] = set()

    def enter(self, module: Module, args: Any) -> None:
        self.rows.append(Layer(self.names[id(module)], type(module).__name__, len(self.open), None, 0))
        self.open.append(len(self.rows) - 1)

    def leave(self, module: Module, args: Any, output: Any) -> None:
        at = self.open.pop()
        shapes = [tuple(x.shape) for x in flatten(output, lambda x: isinstance(x, Tensor))[0]]
        fresh = [p for p in module.parameters(recurse=False) if id(p) not in self.counted]
        self.counted.update(map(id, fresh))
        kind = type(module).__name__
        self.rows[at] = self.rows[at]._replace(kind=kind, shapes=shapes, parameters=sum(p.numel() for p in fresh))


def summary(model: Module, *inputs: Any, **kwargs: Any) -> Summary:
    """What a model consists of: ``print(summary(model, x))``.

    The model is called with the arguments, in eval mode and without gradients, and is then as it was; lazy modules are initialized.
    Without arguments nothing is called: layers are listed as they were registered, without shapes.

    Raises TypeError for what is no module, and what the call raises.
    """
    if not isinstance(model, Module):
        raise TypeError(at_user_line(f"summary: expected a Module, got {type(model).__name__}"))
    watch = _Watch(model)
    if not inputs and not kwargs:
        for name, module in model.named_modules():
            watch.enter(module, ())
            fresh = [p for p in module.parameters(recurse=False) if id(p) not in watch.counted and not is_lazy(p)]
            watch.counted.update(map(id, fresh))
            depth = name.count(".") + 1 if name else 0
            watch.rows[-1] = watch.rows[-1]._replace(depth=depth, parameters=sum(p.numel() for p in fresh))
        return Summary(model, watch.rows, [])
    trained = [(module, module.training) for module in model.modules()]
    handles = []
    try:
        for module, _ in trained:
            handles.append(module.register_forward_pre_hook(watch.enter, prepend=True))
            handles.append(module.register_forward_hook(watch.leave))
        model.eval()
        with no_grad():
            model._call_impl(*inputs, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in trained:
            module.training = mode
    called = {row.path for row in watch.rows}
    uncalled = [n for n, m in model.named_modules() if n not in called and any(True for _ in m.parameters(recurse=False))]
    return Summary(model, watch.rows, uncalled)


__all__ = ["Layer", "Summary", "summary"]
