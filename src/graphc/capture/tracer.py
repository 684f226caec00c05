"""Run eager code while its operators are collected into a Graph.

Enters: a function and its arguments.  Leaves: `Traced`: a pure Graph, and how its inputs are found and its results handed out.
Never here: compilation, guards on anything but `.grad`, control flow.

Arguments become inputs.  A tensor from outside becomes a state input when it is first read; its storage's current value is a
`Cell`, so in-place operators are only a change of the cell's value, and a cell whose value changed is an update of the graph.
Nothing outside is changed by a trace: what the code did to outside tensors is recorded and undone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from graphc.capture.aliases import add_roots, find_aliases
from graphc.capture.attributes import MOST_RESTARTS, Attributes
from graphc.capture.histories import histories_of, saved_of
from graphc.capture.joint import differentiated, is_freed
from graphc.capture.layouts import stand_in_of
from graphc.capture.live import elements_of, is_live, plain_numbers
from graphc.capture.outside import Capture, Snapshot, Target
from graphc.capture.sizes import Shapes
from graphc.capture.stops import Stops
from graphc.capture.traced import Traced
from graphc.dtypes import DType, from_numpy
from graphc.eager.dispatch import traced as traced_tensor
from graphc.eager.epoch import traces
from graphc.eager.modes import modes
from graphc.eager.storage import Storage
from graphc.eager.tape import next_sequence
from graphc.eager.tensor import Tensor, share
from graphc.eager.views import written
from graphc.errors import TraceError, at_user_line, user_location
from graphc.ir.graph import Builder, Role, Value
from graphc.ir.op import Host, Op, Shape, TensorType, shape_text
from graphc.ops.arguments import cast
from graphc.trees import flatten


class Cell:
    """The value that a storage's root has now.  initial: the graph input it started as, if it is one.
    viewed: of a copy of what eager code has as the very same memory, the cells it was copied from and the values they had.
    again: what is raised where that shows, if not that it cannot be traced.   region: the one it was made in."""

    __slots__ = ("__weakref__", "again", "initial", "region", "storage", "tracer", "value", "viewed")

    def __init__(self, tracer: Tracer, value: Value, initial: Value | None = None, storage: Storage | None = None) -> None:
        self.tracer, self.value, self.initial, self.storage = tracer, value, initial, storage
        self.viewed: tuple[tuple[Cell, Value], ...] = ()
        self.again: Callable[[], TraceError] | None = None
        self.region = tracer.region if initial is None else None
        if tracer.reads is not None:
            tracer.reads.cells.add(self)


class Tracer:
    """Where operators go while a function is traced (``modes.tracer``)."""

    batches = False  # a level of vmap does
    collects = True  # elements are not known

    def __init__(self, rules: Any = None, leaves: list[Tensor] | None = None, counts: bool = True) -> None:
        self.builder = Builder(rules)
        self.reads: Any = None  # a `Reads` where elements can be asked for
        self.notes: list[str] = []  # what the user may like to know of the trace
        self.region: Any = None  # the `capture.regions.Inner` whose graph is traced, where one is
        self.sized: list[Value] = []  # results whose sizes depend on elements
        self.constants: set[Value] = set()  # states that were made from Python data
        self.given = 0 if leaves is None else len(leaves)
        self.leaves: list[Tensor] = [] if leaves is None else leaves  # the tensors that arguments stand for
        self.attributes = Attributes(self, counts)
        self.sequence = next_sequence()  # every node recorded before the trace has a smaller one
        self.arguments: list[Value] = []
        self.states: list[tuple[Value, Capture]] = []
        self.scalars: list[tuple[Value, Callable[[], float], DType]] = []
        self.gradients: list[Value] = []
        self.cells: dict[int, Cell] = {}  # of outside storages and of arguments
        self.versions: list[tuple[Storage, int]] = []
        self.snapshots: dict[int, Snapshot] = {}
        self.grad_reads: dict[int, tuple[Target, bool]] = {}
        self.grad_owners: dict[int, Tensor] = {}
        self.sources: dict[int, Target] = {}
        self.numbers: list[tuple[dict[str, Any], str, Any]] = []
        self.deferred: list[Callable[[], None]] = []
        self.argument_storages: dict[int, int] = {}  # id of a stand-in's storage -> the argument's position
        self.stand_ins: dict[int, int] = {}  # the same by the stand-in's own id
        self.computed: set[int] = set()  # ids of stand-ins of arguments that are no leaves
        self.kept: list[Any] = []  # keeps alive what is known by id
        self.views: dict[int, Tensor] = {}  # that the code made on memory from outside
        self.stops = Stops()

    # ---- inputs

    def argument(self, x: Tensor, position: int, shape: Shape) -> Tensor:
        """What stands for an argument inside the function, where it has `shape`."""
        value = self.input(self.arguments, "arg", TensorType(x.dtype, shape), "input")
        stand_in = stand_in_of(x, shape)
        if type(x) is not Tensor:
            stand_in = share(stand_in, type(x))
        cell = Cell(self, value, value, stand_in._storage)
        stand_in._storage.cell = cell
        self.cells[id(stand_in._storage)] = cell
        stand_in._requires_grad, stand_in._grad = x.requires_grad, x._grad
        self.argument_storages[id(stand_in._storage)] = self.stand_ins[id(stand_in)] = position
        if x._grad_fn is not None:
            self.computed.add(id(stand_in))
        self.snapshots[id(stand_in)] = Snapshot(stand_in, position)
        return stand_in

    def hidden_argument(self, x: Tensor) -> Tensor:
        """What stands for a tensor that is another one at every call, though no argument."""
        self.leaves.append(x)
        return self.argument(x, len(self.arguments), tuple(x._array.shape))

    @staticmethod
    def input(among: list[Value], prefix: str, type: TensorType, role: Role) -> Value:
        """A new graph input, put at the end of `among`."""
        value = Value(type, None, f"{prefix}{len(among)}", role)
        among.append(value)
        return value

    def scalar(self, getter: Callable[[], float], dtype: DType) -> Tensor:
        """A 0-d tensor whose value is asked of `getter` at every call.  Raises TraceError where a deferred call would change it."""
        if self.deferred:
            raise TraceError(at_user_line("a hyperparameter is read after a schedule's step in the same traced code"))
        for value, known, of in self.scalars:
            if known is getter and of is dtype:
                return self.tensor(value)
        value = Value(TensorType(dtype, ()), None, f"scalar{len(self.scalars)}")
        self.scalars.append((value, getter, dtype))
        return self.tensor(value)

    def note_number(self, owner: dict[str, Any], name: str, value: Any) -> None:
        """``owner[name]`` was read as a Python number: a guard.  Raises TraceError where a deferred call would change it."""
        if self.deferred:
            raise TraceError(at_user_line("a hyperparameter is read after a schedule's step in the same traced code"))
        if all(known is not owner or of != name for known, of, _ in self.numbers):
            self.numbers.append((owner, name, value))

    def defer(self, function: Callable[[], None]) -> None:
        """Call `function` after every run of what is traced, not now."""
        self.deferred.append(function)

    def constant(self, x: Tensor) -> Tensor:
        """A tensor made from Python data: the same at every call, however it is written to."""
        if not x.ndim:
            number = x._array.item()
            number = number if isinstance(number, bool | int | float | complex) else float(number)
            (value,) = self.builder.emit(Op.table["full"], (), {"value": number, "shape": (), "dtype": x.dtype})
        else:
            value = self.capture(Capture(x), x._storage).value
            self.constants.add(value)
        return traced_tensor(x.dtype, tuple(x._array.shape), Cell(self, value))

    def capture(self, where: Capture, storage: Storage) -> Cell:
        """The root of an outside storage as a new state input."""
        root = storage.array
        value = Value(TensorType(from_numpy(root.dtype), root.shape), None, f"state{len(self.states)}", "state")
        self.states.append((value, where))
        self.versions.append((storage, storage.version))
        cell = self.cells[id(storage)] = Cell(self, value, value, storage)
        return cell

    # ---- values

    def cell_of(self, x: Tensor) -> Cell:
        """The cell of a tensor's storage; an outside storage becomes a state input."""
        storage = x._storage
        cell: Cell | None = storage.cell
        if cell is None:
            cell = self.cells.get(id(storage))
            if cell is None:
                owner = self.grad_owners.get(id(storage))
                if owner is None:
                    cell = self.capture(Capture(x if x._base is None else x._base), storage)
                else:
                    cell = self.capture(Capture(owner, True), storage)
        elif cell.tracer is not self:
            raise TraceError(at_user_line("a tensor made while tracing was used after the trace ended"))
        return cell

    def value_of(self, x: Tensor) -> Value:
        """The value of a tensor now."""
        cell = self.cell_of(x)
        if any(source.value is not was for source, was in cell.viewed):
            message = "a tensor was written to after it, or a part of it, was chosen by elements"
            raise TraceError(at_user_line(message)) if cell.again is None else cell.again()
        value = cell.value
        for op, attrs in x._chain:
            (value,) = self.builder.emit(op, (value,), attrs)
        return value

    def tensor(self, value: Value) -> Tensor:
        """A tensor that stands for a value, with a storage of its own."""
        return traced_tensor(value.dtype, value.shape, Cell(self, value))

    def emit(self, op: Op, inputs: tuple[Tensor, ...], attrs: dict[str, Any]) -> tuple[Tensor, ...]:
        """Run one operator: nodes instead of results.  One whose results are sized by elements is a question: raises TraceError
        where nobody answers."""
        self.builder.location = user_location()
        if self.reads is not None or self.attributes.hands_out_numbers:
            if op.name == "full" and (same := elements_of(attrs["value"], attrs["dtype"])) is not None and not attrs["shape"]:
                return (self.fresh(cast(same, attrs["dtype"])),)
            attrs = {name: plain_numbers(value) for name, value in attrs.items()}
        if isinstance(op.lowering, Host) and op.lowering.sized_by_data:
            if self.reads is None:
                raise TraceError(at_user_line(f"{op.name}: the shapes of its results depend on the elements of a tensor"))
            return self.reads.sized(op, inputs, attrs)  # type: ignore[no-any-return]
        outputs = self.stops.emit(self.builder, op, [self.value_of(x) for x in inputs], attrs, inputs)
        return tuple(map(self.tensor, outputs))

    def write(self, x: Tensor, y: Tensor) -> None:
        """x's elements become y's, in x's storage."""
        self.builder.location = user_location()
        part = self.value_of(y)
        cell = self.cell_of(x)
        if cell.viewed:
            message = "writing to a tensor, or a part of one, that was chosen by elements cannot be traced; clone() it"
            raise TraceError(at_user_line(message)) if cell.again is None else cell.again()
        with self.builder.running():
            self.assign(cell, written(cell.value, x._chain, part))

    def assign(self, cell: Cell, value: Value) -> None:
        """A storage's value is another one from now on."""
        if self.region is not None and cell.region is not self.region:
            self.region.written.setdefault(cell, cell.value)
        cell.value = value

    def note_view(self, x: Tensor) -> None:
        """The code made a tensor on memory that was there."""
        if x._storage.cell is None:
            self.views[id(x)] = x

    def note_copy_of_view(self, copy: Tensor, x: Tensor) -> None:
        """`copy` is a view of x in eager code: the trace ends where one of them is written to and the other would show it."""
        cell = self.cell_of(x)
        self.cell_of(copy).viewed = ((cell, cell.value),)

    # ---- what happens to outside tensors

    def touch(self, x: Tensor) -> None:
        """Remember what `x` is, before a change to its history or `.grad`."""
        if id(x) not in self.snapshots and x._storage.cell is None:
            self.snapshots[id(x)] = Snapshot(x, x)

    def set_grad(self, x: Tensor) -> None:
        """`x.grad` is about to be assigned."""
        self.touch(x)
        snapshot = self.snapshots.get(id(x))
        if snapshot is not None:
            snapshot.grad_set = True

    def fresh(self, x: Tensor) -> Tensor:
        """A tensor of x's value with a storage of its own."""
        return self.tensor(self.value_of(x))

    def note_source(self, x: Tensor) -> None:
        """`x` requires grad and was computed or made outside: gradients end there."""
        known = self.snapshots.get(id(x))
        if x._storage.cell is None or (known is not None and isinstance(known.target, int)):
            self.sources.setdefault(id(x), x if known is None else known.target)
            self.kept.append(x)

    def read_grad(self, x: Tensor) -> Tensor | None:
        """`x.grad`: what it was before the trace is a guard."""
        snapshot = self.snapshots.get(id(x))
        g = x._grad
        outside = x._storage.cell is None or snapshot is not None
        if outside and (snapshot is None or not snapshot.grad_set):
            target = x if snapshot is None else snapshot.target
            self.grad_reads.setdefault(id(x), (target, g is None))
            self.kept.append(x)
            if g is not None and g._storage.cell is None:
                if isinstance(target, int):
                    raise TraceError(at_user_line("reading .grad of an argument cannot be traced"))
                self.grad_owners[id(g._storage)] = x
        return g

    def check_histories(self) -> None:
        """Raise TraceError where a write made an outside tensor or argument part of a history that outlives the call."""
        for s in self.snapshots.values():
            if s.tensor._grad_fn is not s.parts["_grad_fn"]:
                message = "gradients would flow into a tensor from outside that the code writes to"
                raise TraceError(at_user_line(f"{message}: {s.tensor.dtype.short}{shape_text(tuple(s.tensor.shape))}"))

    def effects(self) -> list[tuple[Target, Tensor | None]]:
        """(tensor or argument position, its new `.grad`) of every outside tensor whose `.grad` was set."""
        return [(s.target, s.tensor._grad) for s in self.snapshots.values() if s.grad_set]

    def end(self) -> None:
        """Undo what the traced code did to outside tensors, and let go of the call's own tensors."""
        for s in self.snapshots.values():
            s.restore()
        for storage, version in self.versions:
            storage.version = version
        if self.reads is not None:
            self.reads.closed = True
        self.snapshots, self.leaves = {}, []


# ---- tracing a function ----------------------------------------------------------------------------------------------


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def trace(
    function: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, rules: Any = None
) -> Traced:
    """Trace ``function(*args, **kwargs)``.

    Raises TraceError for Python that needs the elements of a tensor, RuntimeError inside a trace.
    `rules`: the local rewrites of the graph's Builder.
    """
    return _trace(function, args, kwargs or {}, rules, joint=False)


def trace_joint(
    function: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    rules: Any = None,
    shapes: Shapes | None = None,
    reads: Callable[[Tracer], Any] | None = None,
) -> Traced:
    """As `trace`, with the gradients of every result that requires grad: with respect to each argument and outside tensor that it
    depends on and that requires grad.  Results that backward cannot start from (already freed) are left without.

    shapes: those of the arguments, where they are not to be the very shapes that `args` have.  Whoever gives symbolic ones answers
    what the code asks of them (`capture.sizes`).   reads: who answers what the code asks of elements (`capture.reads`)."""
    return _trace(function, args, kwargs or {}, rules, joint=True, shapes=shapes, reads=reads)


def _trace(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    rules: Any,
    joint: bool,
    shapes: Shapes | None = None,
    reads: Callable[[Tracer], Any] | None = None,
) -> Traced:
    if modes.tracer is not None:
        raise RuntimeError(at_user_line("trace: a trace is already going on"))
    counts = True
    traces[0] += 1
    for _ in range(MOST_RESTARTS):
        leaves, tree = flatten((args, kwargs), _is_tensor)
        tracer = Tracer(rules, leaves, counts)
        tracer.reads = None if reads is None else reads(tracer)
        grad_mode, watchers = modes.grad, modes.watchers
        modes.tracer, modes.watchers = tracer, ()  # who watches the tape around the call does not see the trace's
        try:
            given = shapes or tuple(tuple(x._array.shape) for x in leaves)
            stand_ins = [tracer.argument(x, i, shape) for i, (x, shape) in enumerate(zip(tuple(leaves), given, strict=True))]
            inner_args, inner_kwargs = tree.unflatten(stand_ins)
            result = plain_numbers(function(*inner_args, **inner_kwargs), tracer.attributes.owns)
            if not tracer.attributes.restart:
                return _finished(tracer, result, getattr(function, "__name__", type(function).__name__), joint)
        except TraceError:
            raise
        except Exception:
            if not (counts and tracer.attributes.hands_out_numbers):
                raise
            counts = False  # whether it fails as well with plain numbers
        finally:
            modes.tracer, modes.grad, modes.watchers = None, grad_mode, watchers
            tracer.attributes.restore_modes()
            tracer.end()
    raise TraceError(at_user_line("an attribute of a module that is new at every call was set while tracing"))


def _finished(tracer: Tracer, result: Any, name: str, joint: bool) -> Traced:
    """The graph of everything the traced code did."""
    leaves, tree = flatten(result, lambda x: _is_tensor(x) or is_live(x))
    results = [x.source.value if is_live(x) else x for x in leaves]
    returned = len(results)
    writes = tracer.attributes.writes(results)
    shown = len(results)
    add_roots(results, tracer.argument_storages)
    tracer.check_histories()
    outputs = [tracer.value_of(x) for x in results]
    captured = {id(capture._storage): capture.tensor for _, capture in tracer.states if not capture.of_grad}
    aliases = find_aliases(results, tracer.argument_storages, tracer.stand_ins, captured, tracer.views)
    there = {alias.position for alias in aliases if alias.same}
    flowing, spent = _with_history(results[:shown], there) if joint else ([], [])
    backward = differentiated(tracer, [results[i] for i in flowing]) if flowing else None
    if backward is not None:
        outputs += [tracer.value_of(g) for g in backward.gradients]
    effects: list[tuple[Target, int | None]] = []
    for target, g in tracer.effects():
        if isinstance(target, int) and tracer.leaves[target].grad_fn is not None:
            raise RuntimeError(
                at_user_line(f"backward reached argument {target}, which was computed outside the code being traced")
            )
        effects.append((target, None if g is None else len(outputs)))
        if g is not None:
            outputs.append(tracer.value_of(g))
    own = len(outputs)
    if backward is not None and len(flowing) > 1:
        outputs += dict.fromkeys(tracer.value_of(x) for x in backward.saved)
    states, scalars = (v for v, _ in tracer.states), (v for v, _, _ in tracer.scalars)
    inputs = (*tracer.arguments, *states, *scalars, *tracer.sized, *tracer.gradients)
    updates = []
    for cell in tracer.cells.values():
        if cell.initial is not None and cell.value is not cell.initial:
            cell.initial.role = "state"
            updates.append((cell.initial, cell.value))
    graph = tracer.builder.graph(_identifier(name), inputs, outputs, updates)
    traced = Traced(graph, tree, len(results))
    traced.arguments = list(range(len(tracer.arguments)))
    traced.states = [capture for _, capture in tracer.states]
    traced.scalars = [(getter, dtype) for _, getter, dtype in tracer.scalars]
    traced.updates = [inputs.index(initial) for initial, _ in updates]
    traced.grad_effects, traced.none_grads = effects, list(tracer.grad_reads.values())
    traced.numbers, traced.deferred = tracer.numbers, tracer.deferred
    if tracer.reads is not None:
        traced.path, traced.known, traced.reads_elements = tracer.reads.path, tracer.reads.found, tracer.reads.started
    traced.returned_numbers = {i: x.steps for i, x in enumerate(leaves) if is_live(x)}
    traced.returned, traced.reads, traced.writes = returned, list(tracer.attributes.reads.values()), writes
    traced.lasting, traced.notes = _lasting(tracer, traced), tracer.notes
    traced.aliases, traced.own_count = aliases, own
    if backward is not None:
        traced.differentiated, traced.joint = backward.sources, backward.joint
        placed = {alias.position for alias in aliases}
        traced.saved = saved_of(tracer, results, [i for i in range(len(results)) if i not in placed], backward.saved)
    traced.histories = histories_of(results, shown, flowing, spent, there)
    traced.stops = tracer.stops
    return traced


def _with_history(results: list[Tensor], there: Collection[int]) -> tuple[list[int], list[int]]:
    """The positions of results that gradients flow through, and of those that backward has been through."""
    flowing: list[int] = []
    spent: list[int] = []
    for i, x in enumerate(results):
        if i not in there and x.requires_grad and not x.is_leaf:
            (spent if is_freed(x) else flowing).append(i)
    return flowing, spent


def _lasting(tracer: Tracer, traced: Traced) -> list[int]:
    moving = {id(t._storage) for t in tracer.sources.values() if isinstance(t, Tensor)}
    written = {i - len(traced.arguments) for i in traced.updates}
    states = enumerate(traced.states)
    return [i for i, s in states if not s.of_grad and i not in written and id(s._storage) not in moving]


def _identifier(name: str) -> str:
    cleaned = "".join(c if c.isalnum() or c == "_" else "_" for c in name).strip("_")
    return cleaned if cleaned.isidentifier() else "traced"
