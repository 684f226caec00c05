"""Gradient rules as programs: each rule is run once on graph values, and what nobody asks for is left out.

Enters: an operator, the types of one call, and which inputs need a gradient.
Leaves: `Program`, which says what of the call must be saved, and runs on tensors.  Never here: the rules themselves, the tape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.eager.replay import replayable
from graphc.ir.graph import Builder, Value, attribute_key
from graphc.ir.op import Op, TensorType

Types = tuple[TensorType, ...]
_programs: dict[tuple[Any, ...], Program] = {}
_LIMIT = 4096


class Program:
    """The part of a gradient rule that some gradients need.

    Slots number the values: gradients of outputs, outputs, inputs, then results.  `uses_inputs[i]`, `uses_outputs[i]`: whether that
    tensor is read.   steps: (operator, attributes, input slots).   results: the slot of each input's gradient, or None.
    """

    __slots__ = ("count", "results", "steps", "uses_inputs", "uses_outputs")

    def __init__(
        self, gradients: Sequence[Value | None], outputs: Sequence[Value], inputs: Sequence[Value], found: Sequence[Value | None]
    ) -> None:
        builder_inputs = [*gradients, *outputs, *inputs]
        slots = {v: i for i, v in enumerate(builder_inputs) if v is not None}
        self.count = len(builder_inputs)
        wanted = [v for v in found if v is not None]
        live = set(wanted)
        order = _needed_nodes(wanted)
        self.steps: list[tuple[Op, dict[str, Any], tuple[int, ...]]] = []
        for node in order:
            live.update(node.inputs)
            self.steps.append((node.op, node.attrs, tuple(slots[v] for v in node.inputs)))
            for output in node.outputs:
                slots[output] = len(slots) + sum(g is None for g in gradients)
        self.results = tuple(None if v is None else slots[v] for v in found)
        self.uses_outputs = tuple(v in live for v in outputs)
        self.uses_inputs = tuple(v in live for v in inputs)

    def run(self, values: list[Any]) -> list[Any]:
        """Gradients of the inputs from (gradients of outputs, outputs, inputs); what the program does not use may be None."""
        return run_steps(self, *values)  # type: ignore[no-any-return]


@replayable
def run_steps(program: Program, *given: Any) -> list[Any]:
    """What `Program.run` gives."""
    values = list(given)
    for op, attrs, slots in program.steps:
        result = op.run(*[values[i] for i in slots], **attrs)
        if type(result) is tuple:
            values.extend(result)
        else:
            values.append(result)
    return [None if i is None else values[i] for i in program.results]


def _needed_nodes(values: Sequence[Value]) -> list[Any]:
    """The nodes that the values depend on, in an order of definition before use (the same in every process)."""
    order: list[Any] = []
    done: set[Any] = set()
    stack = [(v.node, False) for v in values if v.node is not None]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in done:
            done.add(node)
            stack.append((node, True))
            stack.extend((v.node, False) for v in node.inputs if v.node is not None)
    return order


def program(
    op: Op,
    in_types: tuple[Any, ...],
    out_types: tuple[Any, ...],
    attrs: dict[str, Any],
    needed: tuple[bool, ...],
    given: tuple[bool, ...],
) -> Program:
    """The program of `op.grad` for inputs and outputs of these (shape, dtype), made once.

    `needed`: which inputs need a gradient; `given`: which outputs have one.
    """
    key = (op, in_types, out_types, needed, given, *[attribute_key(value) for value in attrs.values()])
    found = _programs.get(key)
    if found is None:
        if len(_programs) >= _LIMIT:
            _programs.clear()
        found = _programs[key] = _build(op, in_types, out_types, attrs, needed, given)
    return found


def _build(
    op: Op,
    in_types: tuple[Any, ...],
    out_types: tuple[Any, ...],
    attrs: dict[str, Any],
    needed: tuple[bool, ...],
    given: tuple[bool, ...],
) -> Program:
    inputs = [Value(TensorType(dtype, tuple(shape))) for shape, dtype in in_types]
    outputs = [Value(TensorType(dtype, tuple(shape))) for shape, dtype in out_types]
    gradients = [Value(y.type) if here else None for y, here in zip(outputs, given, strict=True)]
    single = len(outputs) == 1
    with Builder().running():
        g: Any = gradients[0] if single else tuple(gradients)
        found = op.gradients(g, outputs[0] if single else tuple(outputs), inputs, attrs)
    if len(found) != len(inputs):
        raise RuntimeError(f"{op.name}: the gradient rule gives {len(found)} gradients for {len(inputs)} inputs")
    return Program(gradients, outputs, inputs, [v if here else None for v, here in zip(found, needed, strict=True)])
