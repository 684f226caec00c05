"""Gradient rules as programs: each rule is run once on graph values, and what nobody asks for is left out.

Enters: an operator, the types of one call, and which inputs need a gradient.
Leaves: `Program`, which says what of the call must be saved, and runs on tensors.  Never here: the rules themselves, the tape.

A program of large tensors that runs again and again becomes one operator, so that one fused kernel program does what its steps do.
Fusion changes no bit, so it does not show when that happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dims import product
from graphc.eager.modes import modes
from graphc.eager.replay import replayable
from graphc.eager.views import VIEWS
from graphc.ir.graph import Builder, Value, attribute_key
from graphc.ir.op import Anchor, Composite, Host, Op, TensorType

Types = tuple[TensorType, ...]
Slots = tuple[int, ...]
Steps = list[tuple[Op, dict[str, Any], Slots]]
_programs: dict[tuple[Any, ...], Program] = {}
_LIMIT = 4096
JOINED_ELEMENTS = 1 << 14  # of the tensors that a program is given: programs of fewer are not worth compiling
JOINED_RUNS = 3  # how often a program runs step by step first
_CHEAP = frozenset({"full", "iota"})


class Program:
    """The part of a gradient rule that some gradients need.

    Slots number the values: gradients of outputs, outputs, inputs, then results.  `uses_inputs[i]`, `uses_outputs[i]`: whether that
    tensor is read.   steps: (operator, attributes, input slots); made: the slots of their results.   results: the slot of each
    input's gradient, or None.   types: of each slot.
    runs: how often it ran.   joined: steps and results where most steps are one, once that was made (None: there is no such step).
    """

    __slots__ = ("count", "joined", "made", "results", "runs", "steps", "types", "uses_inputs", "uses_outputs")

    def __init__(
        self, gradients: Sequence[Value | None], outputs: Sequence[Value], inputs: Sequence[Value], found: Sequence[Value | None]
    ) -> None:
        builder_inputs = [*gradients, *outputs, *inputs]
        slots = {v: i for i, v in enumerate(builder_inputs) if v is not None}
        self.count = len(builder_inputs)
        wanted = [v for v in found if v is not None]
        live = set(wanted)
        order = _needed_nodes(wanted)
        self.steps: Steps = []
        self.made: list[Slots] = []
        for node in order:
            live.update(node.inputs)
            self.steps.append((node.op, node.attrs, tuple(slots[v] for v in node.inputs)))
            first = len(slots) + sum(g is None for g in gradients)
            self.made.append(tuple(range(first, first + len(node.outputs))))
            slots.update(zip(node.outputs, self.made[-1], strict=True))
        self.results = tuple(None if v is None else slots[v] for v in found)
        self.uses_outputs = tuple(v in live for v in outputs)
        self.uses_inputs = tuple(v in live for v in inputs)
        self.types = {slot: v.type for v, slot in slots.items()}
        self.runs = 0
        self.joined: tuple[Steps, tuple[int | None, ...]] | None = None

    def run(self, values: list[Any]) -> list[Any]:
        """Gradients of the inputs from (gradients of outputs, outputs, inputs); what the program does not use may be None."""
        self.runs += 1
        if self.runs == JOINED_RUNS:
            self.joined = _joined(self)
        return run_steps(self, *values)  # type: ignore[no-any-return]


@replayable
def run_steps(program: Program, *given: Any) -> list[Any]:
    """What `Program.run` gives."""
    values = list(given)
    steps, results = program.steps, program.results
    if program.joined is not None and not modes.grad and modes.tracer is None:
        steps, results = program.joined
    for op, attrs, slots in steps:
        result = op.run(*[values[i] for i in slots], **attrs)
        if type(result) is tuple:
            values.extend(result)
        else:
            values.append(result)
    return [None if i is None else values[i] for i in results]


# ---- several steps as one ----------------------------------------------------------------------------------------------


class Joined(Op):
    """Steps of a program as one operator, for the very types that it was made for.  It stands in no table and in no graph: what is
    compiled are the steps (`kernels.one_node`)."""

    def __init__(self, name: str, in_types: Types, out_types: Types, rule: Callable[..., Any]) -> None:
        self.name, self.grad, self.attrs, self.reference = name, None, (), None  # type: ignore[assignment]
        self.lowering = Composite(rule)

        def infer(*given: TensorType) -> Types:
            if given != in_types:
                raise RuntimeError(f"{name}: made for {', '.join(map(str, in_types))}")
            return out_types

        self.infer = infer


def _joined(program: Program) -> tuple[Steps, tuple[int | None, ...]] | None:
    """The steps of a program with all those before the last views as one; None where that is not worth it."""
    types = program.types
    numbered = [(*step, made) for step, made in zip(program.steps, program.made, strict=True)]
    computed = [step for step in numbered if step[0] not in VIEWS and step[0].name not in _CHEAP]
    size = sum(product(types[i].shape) for i in {i for step in computed for i in step[2]})
    fused = [step for step in computed if not isinstance(step[0].lowering, Anchor)]  # products read operands best one by one
    if (
        len(fused) < 2
        or type(size) is not int
        or size < JOINED_ELEMENTS
        or any(type(step[0].lowering) is Host for step in computed)
    ):
        return None
    if any(t.dtype.kind == "c" for t in types.values()):
        return None
    last: list[Any] = []  # views that only results need: they stay views
    read: set[int] = set()
    for step in reversed(numbered):
        if step[0] in VIEWS and read.isdisjoint(step[3]):
            last.insert(0, step)
        else:
            read.update(step[2])
    first = [step for step in numbered if step not in last]
    made = {i for step in first for i in step[3]}
    wanted = {i for i in program.results if i is not None} | {i for step in last for i in step[2]}
    inputs = tuple(sorted({i for step in first for i in step[2]} - made))
    outputs = tuple(sorted(made & wanted))

    def rule(*given: Any) -> tuple[Any, ...]:
        values = dict(zip(inputs, given, strict=True))
        for op, attrs, slots, results in first:
            found = op.run(*[values[i] for i in slots], **attrs)
            values.update(zip(results, found if type(found) is tuple else (found,), strict=True))
        return tuple([values[i] for i in outputs])

    name = "joined_" + "_".join(dict.fromkeys(step[0].name for step in computed))
    op = Joined(name, tuple([types[i] for i in inputs]), tuple([types[i] for i in outputs]), rule)
    renumbered = {i: program.count + k for k, i in enumerate((*outputs, *(i for step in last for i in step[3])))}

    def place(slot: int) -> int:
        return renumbered.get(slot, slot)

    steps: Steps = [(op, {}, inputs)]
    steps += [(view, attrs, tuple([place(i) for i in slots])) for view, attrs, slots, _ in last]
    return steps, tuple([None if i is None else place(i) for i in program.results])


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
