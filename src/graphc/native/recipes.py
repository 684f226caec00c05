"""Making recipes: one call is run by Python while its operators are noted; if they account for its result, they are written down.

Enters: a public function and the arguments of a call.  Leaves: the words that `calls.follow` reads, and what keeps them alive.
Never here: machine code, which calls get a recipe.

A recipe may stand for a call only if nothing but what is in the call's key decided what Python did: every operand is an argument,
the result of an earlier step, or a constant, no element was read, no argument changed (but by the write at the end of an in-place
operator), and every object made looks as the recipe will make it.  Otherwise there is no recipe, and Python goes on serving the
call.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import kernels
from graphc.dtypes import DType, float32, int32
from graphc.eager import dispatch
from graphc.eager.modes import modes
from graphc.eager.storage import Storage
from graphc.eager.tape import Node
from graphc.eager.tensor import Tensor, wrap
from graphc.eager.views import VIEWS
from graphc.ir.loops import FIRST_SLOT
from graphc.ir.op import Host, Op, Scalar, TensorType, running
from graphc.native import calls, layout
from graphc.native.keys import tensors_in
from graphc.runtime.memory import stack_for
from graphc.runtime.program import Program

LARGE_NBYTES = 1 << 12  # an output of this size is aligned and recycled
SORTED = (float32, int32)  # dtypes whose elements machine code puts in order
SHORT_SORT_NBYTES = 4096  # a longer one gives up the interpreter lock
LARGEST_JOINED_NBYTES = 1 << 22  # a longer result is put together by a kernel, on several threads
MOST_ROWS = 4096  # a recipe for the rows of a tensor keeps something for each
_DYNAMIC = {
    Tensor: ("_array", "_storage"),
    Storage: ("array",),
    Node: ("edges", "saved", "saved_outputs", "sequence"),
}
Offsets = dict[str, int]


class Unservable(Exception):
    """No recipe can serve this call."""


@dataclass(slots=True)
class _Noted:
    """One operator that ran.   node: what the tape recorded of it, if anything."""

    op: Op
    inputs: tuple[Any, ...]
    attrs: dict[str, Any]
    outputs: tuple[Any, ...]
    node: Node | None


class _Notes:
    """A runner of operators that notes what it runs."""

    def __init__(self) -> None:
        self.steps: list[_Noted] = []
        self.read = False

    def __call__(self, op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        before, read = len(self.steps), self.read
        result = dispatch.run(op, inputs, attrs)
        if isinstance(op.lowering, Host) and not op.lowering.sized_by_data:
            self.read = read  # by the operator itself, as it will be again
        if len(self.steps) == before:  # else it was opened, and what it is made of was noted
            outputs = result if type(result) is tuple else (result,)
            node = next((y._grad_fn for y in outputs if y._grad_fn is not None), None)
            self.steps.append(_Noted(op, inputs, attrs, outputs, node))
        return result

    def note_read(self, x: Any) -> None:
        self.read = True


class Recipe:
    """The words of a recipe at `address`; everything they point to lives as long as this does."""

    def __init__(self, offsets: Offsets) -> None:
        self.offsets = offsets
        self.kept: list[Any] = []
        self.address = 0
        self.scratch_nbytes = 0

    def words(self, values: Sequence[int]) -> int:
        """The address of words with these values."""
        block = (ctypes.c_int64 * max(len(values), 1))(*values)
        self.kept.append(block)
        return ctypes.addressof(block)

    def reference(self, x: Any) -> int:
        """The address of an object, kept alive."""
        self.kept.append(x)
        return id(x)

    def record(self, names: Sequence[str], /, **values: int) -> list[int]:
        """A record's words in the order that `calls` states."""
        assert set(names) == set(values), set(names) ^ set(values)
        return [values[name] for name in names]

    def slots(self, kind: type, sample: Any, without: Sequence[str] = ()) -> int:
        """(offset, object) pairs that make a new object of `kind` look like `sample`, but for its dynamic slots."""
        pairs: list[int] = []
        for name in layout.slots_of(kind):
            if name not in _DYNAMIC[kind] and name not in without:
                offset = self.offsets[f"{kind.__name__}_{name.lstrip('_')}".upper()]
                pairs += [offset, self.reference(getattr(sample, name))]
        return self.words([*pairs, 0])

    def output(self, slot: int, dtype: DType, shape: Sequence[int], strides: Sequence[int]) -> list[int]:
        """An OUTPUT record of a value whose place is `slot`."""
        nbytes = math.prod(shape) * dtype.itemsize
        sample = wrap(np.empty((), dtype.numpy), dtype)
        return self.record(
            calls.OUTPUT,
            slot=slot,
            slots=self.slots(Tensor, sample),
            descr=self.reference(dtype.numpy),
            rank=len(shape),
            sizes=self.words(shape),
            strides=self.words(strides),
            stack=self.reference(stack_for(nbytes).addresses) if nbytes >= LARGE_NBYTES else 0,
            shape=self.reference(tuple(shape)),
        )


def learned(
    function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], offsets: Offsets
) -> tuple[Any, Recipe | None]:
    """The result of a call run by Python, and a recipe for calls like it if there is one."""
    given = tensors_in((*args, *kwargs.values()))
    before = [_state(x) for x in given]
    notes = _Notes()
    readers = modes.readers
    modes.readers = (*readers, notes.note_read)
    try:
        with running(notes):
            result = function(*args, **kwargs)
    except Exception:  # operators may have taken another way than they usually take: the usual way says what is wrong
        modes.readers = readers
        return function(*args, **kwargs), None
    finally:
        modes.readers = readers
    changed = [x for x, state in zip(given, before, strict=True) if _state(x) != state]
    try:
        if notes.read or not all(_is_plain(x) for x in given):
            raise Unservable
        writer = _Writer(given, notes.steps, offsets)
        if function.__name__ == "__getitem__" and type(args[1]) is int and type(args[0]) is Tensor:
            if not (modes.grad and args[0]._requires_grad):
                writer.row = args[1] % args[0]._array.shape[0]
        return result, writer.written(result, changed, before)
    except (Unservable, KeyError):
        return result, None


def _state(x: Tensor) -> tuple[Any, ...]:
    return x._storage.version, id(x._array), x._array.shape, x._requires_grad, id(x._grad_fn), id(x._storage)


def _is_plain(x: Any) -> bool:
    return type(x._array) is np.ndarray and x._array.dtype is x.dtype.numpy and bool(x._array.flags.aligned)


class _Writer:
    """Writes one call's steps down."""

    def __init__(self, given: Sequence[Tensor], noted: Sequence[_Noted], offsets: Offsets) -> None:
        self.recipe = Recipe(offsets)
        self.given, self.noted = given, noted
        self.places: dict[int, int] = {}  # of tensors by identity: their place among the values
        for i, x in enumerate(given):
            self.places.setdefault(id(x), i)
        self.constants: list[Tensor | None] = []
        self.made_by: dict[int, _Noted] = {}
        self.steps: list[list[int]] = []
        self.next_place = 0
        self.row: int | None = None  # of a call of ``__getitem__`` whose key leaves the number out
        self.hidden: list[Tensor] = []  # copies of operands

    def written(self, result: Any, changed: Sequence[Tensor], before: Sequence[tuple[Any, ...]]) -> Recipe:
        """The recipe.  Raises Unservable where the steps do not account for the result."""
        kind, wrapper, results = self.result_of(result)
        if self.row is not None and (self.noted or kind != calls.ONE):
            raise Unservable
        is_constant = [self.is_constant(step, results) for step in self.noted]
        self.constants = [y for step, constant in zip(self.noted, is_constant, strict=True) if constant for y in step.outputs]
        self.constants += [None] * any(y is None for y in results)
        for i, y in enumerate(self.constants):
            self.places[id(y)] = len(self.given) + i
        self.next_place = len(self.given) + len(self.constants)
        left = [step for step, constant in zip(self.noted, is_constant, strict=True) if not constant]
        if changed:
            self.write_in_place(left, result, changed, before)
        else:
            for step in left:
                self.step(step)
        for y in results:
            if y is not None:
                self.result_on(y)
        if self.next_place >= calls.MOST_VALUES or any(id(y) not in self.places for y in results):
            raise Unservable
        shared = {id(x._storage) for x in self.constants if x is not None}
        if any(y is not None and id(y._storage) in shared for y in results):
            raise Unservable  # a write to it would change the constant
        recipe = self.recipe
        recipe.address = recipe.words(recipe.record(
            calls.RECIPE,
            tensors=len(self.given),
            constants=recipe.words([recipe.reference(x) for x in self.constants]),
            constant_count=len(self.constants),
            steps=recipe.words([word for step in self.steps for word in step]),
            step_count=len(self.steps),
            values=self.next_place,
            result_kind=kind,
            result_type=recipe.reference(wrapper),
            results=recipe.words([self.places[id(y)] for y in results]),
            result_count=len(results),
        ))  # fmt: skip
        return recipe

    def result_of(self, result: Any) -> tuple[int, Any, list[Any]]:
        """How the result is put together, and the tensors in it."""
        if isinstance(result, Tensor):
            return calls.ONE, None, [result]
        if not isinstance(result, tuple | list) or not all(y is None or isinstance(y, Tensor) for y in result):
            raise Unservable
        kinds = {tuple: calls.TUPLE, list: calls.LIST}
        return kinds.get(type(result), calls.CALLED), type(result), list(result)

    def is_constant(self, step: _Noted, results: Sequence[Any]) -> bool:
        """Whether a step gives the same every time: it reads nothing but constants, and its outputs stay inside."""
        for y in step.outputs:
            self.made_by[id(y)] = step
        inner = not any(y is r for y in step.outputs for r in results)
        fixed = all(id(x) in self.made_by and self.made_by[id(x)] is None for x in step.inputs)
        if inner and fixed and step.node is None and step.op.name in ("full", "cast", "iota", "expand", "reshape"):
            for y in step.outputs:
                self.made_by[id(y)] = None  # type: ignore[assignment]
            return True
        return False

    # ---- steps

    def step(self, step: _Noted, target: int = -1) -> None:
        """Write one operator down; with a target, its result replaces that tensor's elements."""
        inputs = [self.place_of(x) for x in step.inputs]
        if not all(_is_plain(x) for x in (*step.inputs, *step.outputs)):
            raise Unservable
        if step.op in VIEWS and step.outputs[0]._storage is step.inputs[0]._storage:
            (x,), (y,) = step.inputs, step.outputs
            words = self.view(x, y, self.node(step))
        elif isinstance(step.op.lowering, Host):
            words = self.on_host(step, inputs)
        else:
            words = self.kernel(step, inputs, target)
        self.steps.append(words)

    def result_on(self, y: Tensor) -> None:
        """A result that no operator gave: a view of an argument, made directly."""
        x = next((x for x in self.given if x._storage is y._storage), None)
        if id(y) in self.places or x is None or y._grad_fn is not None or y._requires_grad:
            return
        whole = next((x for x in self.given if x._chain == y._chain[: len(x._chain)] and x._storage is y._storage), None)
        if whole is not None and y._chain != whole._chain:
            step = self.view(whole, y, 0)
            self.steps.append(step if self.row is None else self.any_row(whole, y, step))

    def place_of(self, x: Any) -> int:
        place = self.places.get(id(x))
        if place is None:
            raise Unservable  # a tensor from elsewhere
        return place

    def output(self, y: Tensor) -> list[int]:
        """An OUTPUT record; gives `y` its place among the values."""
        self.places[id(y)] = self.next_place
        self.next_place += 1
        return self.recipe.output(self.next_place - 1, y.dtype, y._array.shape, y._array.strides)

    def kernel(self, step: _Noted, inputs: list[int], target: int) -> list[int]:
        """The launch of a one-node program, after copies in tiles of operands that are read transposed."""
        for y in step.outputs:
            if y._array.strides != np.empty(y._array.shape, y.dtype.numpy).strides or not y._array.size:
                raise Unservable  # sizes of 0 and 1 may have other strides
            if y._base is not None or y._chain or y._storage.array is not y._array:
                raise Unservable
        node = 0 if target >= 0 else self.node(step)
        if step.op.name == "cat" and step.outputs[0]._array.nbytes <= LARGEST_JOINED_NBYTES:
            if all(x._array.flags.c_contiguous for x in step.inputs) and len(inputs) < calls.MOST_TENSORS:
                return self.join(step, inputs, node)
        op, attrs, arrays = step.op, step.attrs, [x._array for x in step.inputs]
        for i, x in enumerate(step.inputs):
            found = kernels.permuted(x._array) if not x._array.flags.c_contiguous else None
            if found is None:
                continue
            arrays[i], dims = found
            if op.name == "clone":
                op, attrs = Op.table["permute"], {"dims": dims}
                continue
            copy = wrap(np.empty(x._array.shape, x.dtype.numpy), x.dtype)
            self.hidden.append(copy)
            self.steps.append(self.launch(Op.table["permute"], [arrays[i]], {"dims": dims}, [inputs[i]], [copy], 0, -1))
            arrays[i], inputs[i] = copy._array, self.places[id(copy)]
        return self.launch(op, arrays, attrs, inputs, step.outputs, node, target)

    def launch(
        self,
        op: Op,
        arrays: Sequence[Any],
        attrs: dict[str, Any],
        inputs: list[int],
        results: Sequence[Tensor],
        node: int,
        target: int,
    ) -> list[int]:
        """A KERNEL step."""
        types = tuple(TensorType(y.dtype, tuple(y._array.shape)) for y in results)
        try:
            call = kernels.bound(op, arrays, attrs, types)
        except RuntimeError:
            raise Unservable from None
        program, plan = call.program, call.program.plan
        if plan.host_calls or plan.slots > calls.MOST_SLOTS or len(inputs) >= calls.MOST_TENSORS:
            raise Unservable
        if len(plan.inputs) != len(inputs) or len(plan.outputs) != len(types):
            raise Unservable
        offsets = self.scratch(program, call.sizes)
        table = [0] * plan.slots
        table[plan.sizes_at : plan.sizes_at + len(call.sizes)] = call.sizes
        nbytes = sum(a.nbytes for a in arrays) + sum(y._array.nbytes for y in results)
        copied = [int(not a.flags.c_contiguous) for a in arrays]
        recipe = self.recipe
        outputs = [] if target >= 0 else [word for y in results for word in self.output(y)]
        recipe.kept.append(program)
        return recipe.record(
            calls.STEP,
            kind=calls.KERNEL,
            inputs=recipe.words(inputs),
            input_count=len(inputs),
            copied=recipe.words(copied) if any(copied) else 0,
            outputs=recipe.words(outputs),
            output_count=len(types),
            entry=program.address,
            table=recipe.words(table),
            table_nbytes=8 * plan.slots,
            long=int(Program.is_long(nbytes)),
            arena=recipe.words(offsets),
            arena_count=len(offsets),
            arena_slot=8 * (FIRST_SLOT + len(plan.inputs) + len(plan.outputs)),
            node=node,
            offset=results[0]._array.nbytes,
            flags=0,
            link=0,
            target=target,
        )

    def on_host(self, step: _Noted, inputs: list[int]) -> list[int]:
        """An operator that its reference runs."""
        op, attrs = step.op, step.attrs
        if op.name in ("sort_places", "top_places"):
            x, y = step.inputs[0], step.outputs[0]
            if x.dtype in SORTED and attrs["dim"] == x._array.ndim - 1 and x._array.flags.c_contiguous and y._array.size:
                return self.sort(x, y, attrs["largest" if "largest" in attrs else "descending"], inputs)

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            return dispatch.on_host_tensors(op, tensors, attrs)

        recipe = self.recipe
        return recipe.record(
            calls.STEP,
            kind=calls.HOST,
            inputs=recipe.words(inputs),
            input_count=len(inputs),
            copied=0,
            outputs=recipe.words([word for y in step.outputs for word in self.output(y)]),
            output_count=len(step.outputs),
            entry=recipe.reference(run),
            table=0, table_nbytes=0, long=0, arena=0, arena_count=0, arena_slot=0,
            node=self.node(step),
            offset=0, flags=0, link=0, target=-1,
        )  # fmt: skip

    def join(self, step: _Noted, inputs: list[int], node: int) -> list[int]:
        """Tensors one after the other along a dim."""
        recipe, (y,), dim = self.recipe, step.outputs, step.attrs["dim"]
        lengths = [math.prod(x._array.shape[dim:]) * x._array.itemsize for x in step.inputs]
        return recipe.record(
            calls.STEP,
            kind=calls.JOIN,
            inputs=recipe.words(inputs),
            input_count=len(inputs),
            copied=0,
            outputs=recipe.words(self.output(y)),
            output_count=1,
            entry=0,
            table=recipe.words(lengths),
            table_nbytes=0,
            long=int(Program.is_long(2 * y._array.nbytes)),
            arena=0, arena_count=0, arena_slot=0,
            node=node,
            offset=math.prod(y._array.shape[:dim]),
            flags=0, link=0, target=-1,
        )  # fmt: skip

    def sort(self, x: Tensor, y: Tensor, descending: bool, inputs: list[int]) -> list[int]:
        """The places of the elements of rows in order."""
        recipe, size = self.recipe, x._array.shape[-1]
        recipe.scratch_nbytes = max(recipe.scratch_nbytes, 2 * y.dtype.itemsize * size * calls.SORT_CHUNKS)
        return recipe.record(
            calls.STEP,
            kind=calls.SORT,
            inputs=recipe.words(inputs),
            input_count=1,
            copied=0,
            outputs=recipe.words(self.output(y)),
            output_count=1,
            entry=0, table=0,
            table_nbytes=x._array.size // size,  # how many rows
            long=int(x._array.nbytes > SHORT_SORT_NBYTES),
            arena=0, arena_count=0, arena_slot=0, node=0,
            offset=size,
            flags=y._array.shape[-1],
            link=int(x.dtype.kind == "f"),
            target=int(descending),
        )  # fmt: skip

    def scratch(self, program: Program, sizes: Sequence[int]) -> list[int]:
        """Offsets in the scratch memory of the program's arena values and temporaries."""
        offsets, nbytes = program.plan.scratch(dict(zip(program.plan.sizes, sizes, strict=True)))
        self.recipe.scratch_nbytes = max(self.recipe.scratch_nbytes, nbytes)
        return offsets

    def view(self, x: Tensor, y: Tensor, node: int) -> list[int]:
        """A tensor on the memory of another."""
        whole, part = x._array, y._array
        link = y._chain[len(x._chain) :]
        base = x if x._base is None else x._base
        if y._chain[: len(x._chain)] != x._chain or not link or y._base is not base or part.dtype is not whole.dtype:
            raise Unservable
        recipe = self.recipe
        flags = layout.ALIGNED | (layout.WRITEABLE if part.flags.writeable else 0)
        if part.flags.writeable and not whole.flags.writeable:
            raise Unservable
        return recipe.record(
            calls.STEP,
            kind=calls.VIEW,
            inputs=recipe.words([self.place_of(x)]),
            input_count=1,
            copied=0,
            outputs=recipe.words(self.output(y)),
            output_count=1,
            entry=0, table=0, table_nbytes=0, long=0, arena=0, arena_count=0, arena_slot=0,
            node=node,
            offset=_address(part) - _address(whole),
            flags=flags,
            link=recipe.reference(link),
            target=-1,
        )  # fmt: skip

    def any_row(self, x: Tensor, y: Tensor, view: list[int]) -> list[int]:
        """The step of a view of one row, made fit for every row."""
        sizes, row, size = x._array.shape, self.row, x._array.shape[0]

        def link(i: int) -> Any:
            first = {"starts": (i, *(0 for _ in sizes[1:])), "stops": (i + 1, *sizes[1:]), "steps": (1,) * len(sizes)}
            return ((Op.table["slice"], first), (Op.table["reshape"], {"shape": tuple(sizes[1:])}))

        at = _address(y._array) - _address(x._array)
        fits = y._array.shape == sizes[1:] and y._array.strides == x._array.strides[1:] and at == row * x._array.strides[0]  # type: ignore[operator]
        if not fits or size > MOST_ROWS or link(row) != y._chain[len(x._chain) :]:  # type: ignore[arg-type]
            raise Unservable
        step = dict(zip(calls.STEP, view, strict=True))
        step |= {
            "kind": calls.ROW,
            "entry": self.recipe.reference(link),
            "offset": size,
            "table_nbytes": x._array.strides[0],
            "link": self.recipe.reference([None] * size),
        }
        return [step[name] for name in calls.STEP]

    def write_in_place(
        self, left: Sequence[_Noted], result: Any, changed: Sequence[Tensor], before: Sequence[tuple[Any, ...]]
    ) -> None:
        """The steps of an in-place operator: the last one's result replaces the first argument's elements."""
        x = self.given[0]
        version, *rest = before[0]
        y = left[-1].outputs[0] if left and len(left[-1].outputs) == 1 else None
        if not left and len(self.given) == 2:
            y = self.given[1]  # what is copied
        same_memory = [t for t in changed if t._storage is not x._storage]
        fits = (
            result is x and not same_memory and x._storage.version == version + 1 and list(_state(x)[1:]) == rest
            and y is not None and not any(step.node for step in left) and y._storage is not x._storage
            and y.dtype is x.dtype and y._array.shape == x._array.shape and _is_plain(x)
            and x._array.flags.c_contiguous and x._array.flags.writeable and y._array.flags.c_contiguous
            and y._array.tobytes() == x._array.tobytes()
        )  # fmt: skip
        if not fits or y is None:
            raise Unservable
        for step in left[:-1]:
            self.step(step)
        if left and isinstance(left[-1].op.lowering, Scalar) and left[-1].op not in VIEWS:
            self.step(left[-1], target=self.places[id(x)])
            return
        for step in left[-1:]:
            self.step(step)
        recipe = self.recipe
        self.steps.append(recipe.record(
            calls.STEP,
            kind=calls.ASSIGN,
            inputs=recipe.words([self.places[id(x)], self.places[id(y)]]),
            input_count=2,
            copied=0, outputs=0, output_count=0, entry=0, table=0, table_nbytes=0, long=0, arena=0, arena_count=0, arena_slot=0,
            node=0, offset=x._array.nbytes, flags=0, link=0, target=-1,
        ))  # fmt: skip

    # ---- the tape

    def node(self, step: _Noted) -> int:
        """A TAPE record of what was recorded of a step, or 0.  Raises Unservable where it is not of the usual form."""
        node = step.node
        if node is None:
            return 0
        if type(node) is not Node or node.op is not step.op or node.saved is None or node.attrs is not step.attrs:
            raise Unservable
        if node.hooks is not None or node.retained is not None or node.extras is not None:
            raise Unservable
        for x, edge, saved in zip(step.inputs, node.edges, node.saved, strict=True):
            wanted = None if not x._requires_grad else (x, 0) if x._grad_fn is None else (x._grad_fn, x._index)
            if edge != wanted or saved is not None and (type(saved) is not tuple or saved[0] is not x):
                raise Unservable
        kept = []
        for y, saved in zip(step.outputs, node.saved_outputs, strict=True):
            kept.append(0 if saved is None else self.kept_output(y, saved))
        floating = [y._grad_fn is node for y in step.outputs]
        recipe = self.recipe
        return recipe.words(recipe.record(
            calls.TAPE,
            slots=recipe.slots(Node, node),
            inputs=recipe.words([self.places[id(x)] for x in step.inputs]),
            input_count=len(step.inputs),
            wanted=recipe.words([int(e is not None) for e in node.edges]),
            saved_inputs=recipe.words([int(s is not None) for s in node.saved]),
            kept_outputs=recipe.words(kept),
            floating=recipe.words([int(f) for f in floating]),
        ))  # fmt: skip

    def kept_output(self, y: Tensor, saved: Any) -> int:
        """The slots of a saved output."""
        if type(saved) is not tuple or type(saved[0]) is not Tensor:
            raise Unservable
        if saved[0]._array is not y._array or saved[0]._base is not None:
            raise Unservable
        return self.recipe.slots(Tensor, wrap(y._array, y.dtype))


def _address(array: np.ndarray[Any, Any]) -> int:
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]
