"""Regions between the kernels of a schedule: branches and loops over schedules of their own.

Enters: a `cond` or `while_loop` node, and how a graph is scheduled.  Leaves: a `ControlLaunch`; a schedule as one list, with
branches and loops written out.  Never here: kernels; code.

A region's graph reads the buffers of the graph around it and leaves its results there.  What it keeps for itself lies in one piece
of the arena, which the two graphs of a region share, for they never run at the same time.  The buffers of a loop's results hold
what is carried from the start on: its body updates them as a program updates its state, in place where that cannot be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphc.dtypes import bool_, uint8
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.loops import ControlStep
from graphc.ir.op import TensorType

if TYPE_CHECKING:
    from graphc.schedule.schedule import Place, Schedule


@dataclass(frozen=True)
class Part:
    """One graph of a region, scheduled, and the buffers of the graph around it that its inputs and outputs are."""

    schedule: Schedule
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True)
class ControlLaunch:
    """A branch (parts: where it is true, where not) or a loop (parts: its condition, its body).

    condition: the buffer of the bool that decides.   starts: what a loop carries at first, and where to.   scratch: memory of the
    parts' own values.
    """

    node: Node
    parts: tuple[Part, Part]
    condition: Value
    scratch: Value
    starts: tuple[tuple[Value, Value], ...] = ()
    note: str = "region"

    @property
    def op(self) -> Any:
        """The operator."""
        return self.node.op

    @property
    def members(self) -> tuple[Node, ...]:
        """The node."""
        return (self.node,)

    @property
    def inputs(self) -> tuple[Value, ...]:
        """Stored values that are read."""
        return tuple(dict.fromkeys((self.condition, *(v for part in self.parts for v in part.inputs))))

    @property
    def outputs(self) -> tuple[Value, ...]:
        """Stored values that are written."""
        condition = (self.condition,) if self.starts else ()
        return (*self.node.outputs, *condition, *((self.scratch,) if self.scratch.shape[0] else ()))

    @property
    def buffers(self) -> tuple[Value, ...]:
        """Stored values: all of them."""
        return tuple(dict.fromkeys((*self.inputs, *self.outputs)))

    @property
    def checks(self) -> bool:
        """Whether something in it may fail."""
        return any(launch.checks for part in self.parts for launch in part.schedule.launches)


def lower_control(node: Node, schedule: Callable[[Graph], Schedule]) -> ControlLaunch:
    """The launch of a region."""
    is_loop = node.op.name == "while_loop"
    if is_loop:
        count = len(node.outputs)
        condition = Value(TensorType(bool_, ()), None, "condition")
        inputs = (*node.outputs, *node.inputs[count:])
        body: Graph = node.attrs["body_graph"]
        updates = tuple(zip(body.inputs, body.outputs, strict=False))
        updating = Graph(body.name, body.inputs, body.nodes, (), updates)
        parts = Part(schedule(node.attrs["cond_graph"]), inputs, (condition,)), Part(schedule(updating), inputs, ())
        starts = tuple(zip(node.inputs, node.outputs, strict=False))
    else:
        condition, *operands = node.inputs
        first, second = (schedule(node.attrs[name]) for name in ("true_graph", "false_graph"))
        parts = Part(first, tuple(operands), node.outputs), Part(second, tuple(operands), node.outputs)
        starts = ()
    nbytes = max(part.schedule.arena_nbytes for part in parts)
    scratch = Value(TensorType(uint8, (nbytes,)), None, "scratch")
    return ControlLaunch(node, parts, condition, scratch, starts)


@dataclass(frozen=True)
class Placed:
    """A launch, and the places of its buffers in the whole program.   joins: it may run while the one before does."""

    launch: Any
    places: Mapping[Value, Place]
    joins: bool = False


def opened(made: Schedule, places: Mapping[Value, Place] | None = None) -> Iterator[Placed | tuple[ControlStep, Place | None]]:
    """Everything in a schedule in order: launches, and instead of regions what is in them between steps of control, each with the
    place of the bool it asks."""
    places = made.places if places is None else places
    for position, launch in enumerate(made.launches):
        if not isinstance(launch, ControlLaunch):
            yield Placed(launch, places, position in made.joined)
            continue
        first, second = (list(opened(part.schedule, _around(part, launch, places))) for part in launch.parts)
        asked = places[launch.condition]
        if launch.starts:
            yield ControlStep("loop"), None
            yield from (*first, (ControlStep("while"), asked), *second)
            yield ControlStep("end loop"), None
        else:
            yield ControlStep("if"), asked
            yield from (*first, (ControlStep("else"), None), *second)
            yield ControlStep("end if"), None


def _around(part: Part, launch: ControlLaunch, places: Mapping[Value, Place]) -> dict[Value, Place]:
    """The places of a part's buffers in the program around it."""
    from graphc.schedule.schedule import Place

    def place(inner: Place) -> Place:
        if inner.kind == "arena":
            return Place("arena", places[launch.scratch].index + inner.index)
        return places[(part.inputs if inner.kind == "input" else part.outputs)[inner.index]]

    return {value: place(inner) for value, inner in part.schedule.places.items()}
