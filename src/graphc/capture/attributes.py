"""What traced code reads and sets of attributes of modules that move.

Enters: reads and writes while a function is traced.  Leaves: `Read`s, which say what must be there for a call, and `Write`s, which
say what a call puts there.  Never here: the modules (a `place` is where one holds such attributes), compilation.

Tensors that are read are arguments of the graph that no caller writes down; those that are set are results that no caller gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.capture.live import Answer, Live, Step, applied, is_live, same_number
from graphc.dims import Dim
from graphc.eager.tensor import Tensor
from graphc.trees import Tree, flatten

_ABSENT: Any = object()
_NOTHING = Tree("static", _ABSENT)
MOST_RESTARTS = 8  # of one trace: every one found another attribute that moves


class Read:
    """What an attribute was when it was traced.

    tree: its structure; plain values in it are part of that.   types: of each tensor in it the dtype, shape, class and whether it
    requires grad.   answers: of a number that is counted up, what the code asked of it; None where it is part of `tree`.
    """

    __slots__ = ("answers", "name", "place", "tree", "types")

    def __init__(self, place: Any, name: str, value: Any, counts: bool) -> None:
        self.place, self.name = place, name
        self.answers: list[Answer] | None = [] if counts else None
        leaves, self.tree = _parts(value)
        self.types = list(map(_type, leaves))

    def number(self) -> Any:
        """The number that is there now."""
        return self.place.held(self.name, _ABSENT)

    def ask(self, steps: Any, question: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
        """What a live number asks for."""
        answer = question(applied(steps, self.number()), *operands)
        assert self.answers is not None
        self.answers.append(Answer(steps, question, operands, answer))
        return answer

    def change(self) -> str | None:
        """What is not as it was, in words; None where everything is."""
        value = self.number()
        if self.answers is not None:
            if type(value) is int and all(answer.holds(value) for answer in self.answers):
                return None
        else:
            leaves, tree = _parts(value)
            if tree == self.tree and _same_statics(tree, self.tree) and list(map(_type, leaves)) == self.types:
                return None
        return f"attribute '{self.name}' of a module"

    def tensors(self) -> list[Tensor]:
        """The tensors that are there now."""
        return _parts(self.number())[0] if self.types else []


def _type(x: Tensor) -> tuple[Any, ...]:
    return x.dtype, x._array.shape, bool(x.requires_grad), type(x)


def _moves(x: Any) -> bool:
    """Whether a tensor in an attribute is another one at the next call; a leaf that requires grad is itself."""
    return isinstance(x, Tensor) and not (x.requires_grad and x.is_leaf)


def _parts(value: Any) -> tuple[list[Tensor], Tree]:
    return ([], _NOTHING) if value is _ABSENT else flatten(value, _moves)


def _same_statics(a: Tree, b: Tree) -> bool:
    """Whether plain numbers in two equal structures are the same: 0.0 is not -0.0."""
    if a.kind == "static" and type(a.value) is float:
        return same_number(a.value, b.value)
    return all(map(_same_statics, a.children, b.children))


Item = tuple[int | Read, tuple[Step, ...] | None]


def _item(source: int | Read, steps: tuple[Step, ...] | None, results: Sequence[Any]) -> Any:
    if isinstance(source, Read):
        return applied(steps or (), source.number())
    return results[source] if steps is None else applied(steps, results[source].item())


class Write:
    """What a call sets an attribute to.   items: for each leaf, the position of a result or a number's attribute, and what a live
    number makes of it (None for a tensor)."""

    __slots__ = ("items", "name", "place", "tree")

    def __init__(self, place: Any, name: str, tree: Tree, items: list[Item]) -> None:
        self.place, self.name, self.tree, self.items = place, name, tree, items

    def value(self, results: Sequence[Any]) -> Any:
        """What it is set to by a call with these results, before anything is set."""
        if self.tree is _NOTHING:
            return _ABSENT
        return self.tree.unflatten([_item(source, steps, results) for source, steps in self.items])

    def put(self, value: Any) -> None:
        """Set it."""
        if value is _ABSENT:
            self.place.drop(self.name)
        else:
            self.place.hold(self.name, value)


class ModeWrite:
    """Whether a call leaves a module in training or evaluation, where that is not what it was before."""

    __slots__ = ("mode", "module")

    def __init__(self, module: Any, mode: bool) -> None:
        self.module, self.mode = module, mode

    def value(self, results: Sequence[Any]) -> bool:
        """As `Write.value`."""
        return self.mode

    def put(self, value: bool) -> None:
        """Set it."""
        self.module.training = value


def _is_made(x: Any) -> bool:
    """Whether a value that is set is another one at the next call."""
    return is_live(x) or (isinstance(x, Tensor) and (x._storage.cell is not None or x._base is not None or bool(x._chain)))


def _is_number(x: Any) -> bool:
    """Whether x is a number that may be another one at the next call."""
    return is_live(x) or isinstance(x, Dim)


class Attributes:
    """Reads and writes of one trace.

    restart: whether an attribute turned out to move after the code may have read it: what was traced must be traced again.
    counts: whether a number may be handed out live.
    """

    def __init__(self, tracer: Any, counts: bool = True) -> None:
        self.tracer, self.counts, self.restart = tracer, counts, False
        self.reads: dict[tuple[int, str], Read] = {}
        self.now: dict[tuple[int, str], Any] = {}  # what was read or set
        self.found: dict[tuple[int, str], Any] = {}  # what was read
        self.set: dict[tuple[int, str], Any] = {}  # the place of what was set
        self.made: dict[int, Any] = {}  # modules that were made while tracing, which are nobody else's
        self.modes: dict[int, tuple[Any, bool]] = {}  # modules that were set to training or evaluation, and what they were in

    def has(self, place: Any, name: str) -> bool:
        """Whether there is such an attribute: a guard."""
        return self._current(place, name) is not _ABSENT

    def read(self, place: Any, name: str) -> Any:
        """What the attribute is, with tensors that stand for those of the call: a guard.  Raises KeyError."""
        value = self._current(place, name)
        if value is _ABSENT:
            raise KeyError(name)
        return value

    def write(self, place: Any, name: str, value: Any) -> None:
        """The attribute is to be set at every call.  A symbolic size in it must be a number."""
        key = id(place), name
        numbers, tree = flatten(value, _is_number)
        self.now[key] = tree.unflatten([x if is_live(x) else int(x) for x in numbers]) if numbers else value
        self.set[key] = place

    def delete(self, place: Any, name: str) -> None:
        """The attribute is to be taken away at every call.  Raises KeyError."""
        self.read(place, name)
        self.write(place, name, _ABSENT)

    def _current(self, place: Any, name: str) -> Any:
        key = id(place), name
        if key not in self.now:
            value = place.held(name, _ABSENT)
            counts = self.counts and type(value) is int
            read = self.reads[key] = Read(place, name, value, counts)
            if counts:
                self.now[key] = Live(read, int)
            else:
                leaves, tree = _parts(value)
                self.now[key] = value if not leaves else tree.unflatten([self.tracer.hidden_argument(x) for x in leaves])
            self.found[key] = self.now[key]
        return self.now[key]

    def state(self) -> tuple[dict[tuple[int, str], Any], dict[tuple[int, str], Any]]:
        """What is set now, for `restore`."""
        return dict(self.set), {key: self.now[key] for key in self.set}

    def restore(self, state: tuple[dict[tuple[int, str], Any], dict[tuple[int, str], Any]]) -> bool:
        """Forget what was set since then; whether anything was."""
        places, values = state
        changed = self.set.keys() != places.keys() or any(self.now[key] is not value for key, value in values.items())
        for key in self.set:
            if key in values or key in self.found:
                self.now[key] = values.get(key, self.found.get(key))
            else:
                del self.now[key]
        self.set = places
        return changed

    @staticmethod
    def owns(number: Live) -> bool:
        """Whether a live number is an attribute's."""
        return isinstance(number.source, Read)

    @property
    def hands_out_numbers(self) -> bool:
        """Whether the code was given a number that may be another one at the next call."""
        return any(read.answers is not None for read in self.reads.values())

    def note_mode(self, module: Any) -> None:
        """A module is about to be set to training or evaluation."""
        if id(module) not in self.made:
            self.modes.setdefault(id(module), (module, module.training))

    def restore_modes(self) -> None:
        """Put modules back into what they were in; a call of what was traced sets them."""
        for module, mode in self.modes.values():
            if module.training is not mode:
                module.training = mode

    def writes(self, results: list[Tensor]) -> list[Write | ModeWrite]:
        """What every call sets; tensors that are not among `results` yet are added to them."""
        found: list[Write | ModeWrite] = [ModeWrite(m, m.training) for m, mode in self.modes.values() if m.training is not mode]
        positions = {id(x): i for i, x in enumerate(results)}
        for key, place in self.set.items():
            value = self.now[key]
            leaves, tree = ([], _NOTHING) if value is _ABSENT else flatten(value, _is_made)
            items: list[Item] = []
            for leaf in leaves:
                steps = leaf.steps if is_live(leaf) else None
                if steps is not None and isinstance(leaf.source, Read):
                    items.append((leaf.source, steps))
                    continue
                x = leaf if steps is None else leaf.source.value
                if id(x) not in positions:
                    positions[id(x)] = len(results)
                    results.append(x)
                items.append((positions[id(x)], steps))
            found.append(Write(place, key[1], tree, items))
        return found
