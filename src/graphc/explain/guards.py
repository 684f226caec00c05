"""What the specialisations of a compiled function hold under, in words: a line for each guard.

Enters: keys of calls and the `Variant`s made for them.  Leaves: text.  Never here: checking guards (`graphc.variant`, `quick`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graphc.capture.attributes import Read
from graphc.capture.guards import NamedValue, reached
from graphc.capture.outside import Target
from graphc.capture.questions import Step
from graphc.eager.generator import default_generator
from graphc.eager.tensor import Tensor
from graphc.ir.op import shape_text
from graphc.trees import Tree
from graphc.variant import Variant

Key = tuple[Any, ...]  # structure, grad mode, autocast, default dtype, then (dtype, shape, requires_grad) of each tensor


def listed(target: Callable[..., Any], held: Sequence[tuple[Key, Variant, Sequence[str]]]) -> str:
    """The guards of variants, each with its key and what is known of its symbolic sizes."""
    names = _names(target)
    parts = []
    for i, (key, variant, sizes) in enumerate(held):
        lines = list(dict.fromkeys((*_of_call(key, variant), *(f"size {s}" for s in sizes), *of_variant(variant, names))))
        parts.append("\n".join([f"variant {i}", *(f"  {line}" for line in lines)]))
    return "\n".join(parts)


def _of_call(key: Key, variant: Variant) -> Iterator[str]:
    """What a call itself must be."""
    tree, grad, autocast, default, *types = key
    places = list(_places(variant.arguments))
    found = iter(types)
    for place, part in places:
        if part.kind == "leaf":
            dtype, shape, requires_grad = next(found)
            yield f"argument {place}: {dtype.short}{shape_text(shape)}, requires_grad={bool(requires_grad)}"
        elif part.kind == "static":
            yield f"argument {place} is {part.value!r}"
        elif not part.children:
            yield f"argument {place}: an empty {part.kind}"
    assert next(found, None) is None and tree is not None
    yield f"grad mode is {'on' if grad else 'off'}, autocast {'off' if autocast is None else autocast.short}"
    yield f"the default dtype is {default.short}"


def _places(arguments: Tree) -> Iterator[tuple[str, Tree]]:
    positional, named = arguments.children
    for i, part in enumerate(positional.children):
        yield from _parts(f"{i}", part)
    for name, part in zip(named.value or (), named.children, strict=True):
        yield from _parts(str(name), part)


def _parts(place: str, tree: Tree) -> Iterator[tuple[str, Tree]]:
    if not tree.children:
        yield place, tree
    keys = tree.value if tree.kind == "dict" else range(len(tree.children))
    for key, child in zip(keys, tree.children, strict=True):
        yield from _parts(f"{place}[{key!r}]", child)


def of_variant(variant: Variant, names: dict[int, str]) -> Iterator[str]:
    """What else must be as it was when the code was traced.   names: of tensors, by id."""
    traced = variant.traced
    yield "no module's attribute, parameter, buffer, hook or mode, and no optimizer's group is another one"
    yield from map(_plain, variant.values)
    for owner, name, number in traced.numbers:
        yield f"hyperparameter {name!r} is {number!r}{_owner(owner)}"
    for state, flag in zip(traced.states, variant.state_flags, strict=True):
        x = state.tensor
        what = f".grad of {_name(x, names)}" if state.of_grad else f"tensor from outside {_name(x, names)}"
        yield f"{what}: {x.dtype.short}{shape_text(tuple(x._array.shape))}, requires_grad={flag}"
    for target, was_none in traced.none_grads:
        yield f".grad of {_target(target, names)} is {'' if was_none else 'not '}None"
    for i in variant.leaf_arguments:
        yield f"argument tensor {i} is a leaf"
    for read in traced.reads:
        yield from _attribute(read)
    yield from map(_asked, traced.path)


def _plain(value: NamedValue) -> str:
    where = f"global of {value.owner.get('__name__', '?')}" if isinstance(value.owner, dict) else "closure"
    return f"{where}: {value.name} is {repr(value.value) if value.is_plain else f'the same {type(value.value).__name__}'}"


def _owner(owner: Any) -> str:
    count = len(owner.get("params", ())) if isinstance(owner, dict) else 0
    return f" (group of {count} parameters)" if count else ""


def _target(target: Target, names: dict[int, str]) -> str:
    return f"argument tensor {target}" if isinstance(target, int) else _name(target, names)


def _name(x: Tensor, names: dict[int, str]) -> str:
    return names.get(id(x)) or names.get(id(x._storage)) or "without a name"


def _attribute(read: Read) -> Iterator[str]:
    """An attribute that code sets, and what this code asked of it."""
    what = f"attribute {read.name!r} of a module"
    if read.answers is None:
        types = ", ".join(f"{dtype.short}{shape_text(shape)}, requires_grad={flag}" for dtype, shape, flag, _ in read.types)
        yield f"{what}: {f'{read.tree!r} of {types}' if read.types else _absent(read.tree)}"
        return
    yield f"{what}: an int"
    for answer in read.answers:
        asked = getattr(answer.question, "__name__", "a question")
        number = f"it after {len(answer.steps)} steps" if answer.steps else "it"
        yield f"{what}: {asked}({', '.join([number, *map(repr, answer.operands)])}) is {answer.answer!r}"


def _absent(tree: Tree) -> str:
    return "is absent" if tree.kind == "static" and type(tree.value) is object else f"is {tree!r}"


def _asked(asked: tuple[Step, str]) -> str:
    step, answer = asked
    return f"path: what is asked{step.line} gives {answer}"


def _names(target: Callable[..., Any]) -> dict[int, str]:
    """Names of the tensors that a function or module reaches: those of modules' state dicts behind the names in the code."""
    found = {id(default_generator.state): "of the default generator"}
    for name, value in reached(target):
        if isinstance(value, Tensor):
            found.setdefault(id(value), name)
            found.setdefault(id(value._storage), name)
        elif hasattr(value, "named_parameters") and hasattr(value, "named_buffers"):
            for part, x in (*value.named_parameters(), *value.named_buffers()):
                for thing in (x, x._storage):
                    found.setdefault(id(thing), f"{name}.{part}" if name else part)
    optimizers = [(name, value) for name, value in reached(target) if hasattr(value, "param_groups")]
    for name, optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for part, x in state.items() if isinstance(state, dict) else ():
                found.setdefault(id(x), f"{name}.state[{found.get(id(parameter), '?')}].{part}")
    return found


__all__ = ["listed", "of_variant"]
