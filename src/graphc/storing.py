"""A compiled function -> a file: which of its programs a file holds, and what the tensors and numbers in it are called.

Enters: a `Compiled` that was called.  Leaves: a file that `graphc.load` runs.  Never here: the file's format (`artifact`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from graphc.artifact.load import Loaded
from graphc.artifact.program import Description, Step
from graphc.artifact.save import Written, save
from graphc.capture.traced import Traced
from graphc.eager import dispatch
from graphc.eager.epoch import may_return
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.graph import Builder
from graphc.ir.text import print_graph
from graphc.nn.module import Module
from graphc.pipeline import Built, build
from graphc.saving import parts_of
from graphc.stored import Contents, module_of
from graphc.variant import Variant

if TYPE_CHECKING:
    from graphc.compiled import Compiled


class Chosen(NamedTuple):
    """A specialisation to write.   training: the mode of the module that it is for."""

    variant: Variant
    training: bool | None = None
    method: str = ""


def store(
    compiled: Compiled, path: str | os.PathLike[str], names: Mapping[str, Tensor] | None, methods: Mapping[str, Compiled]
) -> None:
    """`Compiled.save`."""
    chosen: list[Chosen] = []
    for method, one in {"": compiled, **methods}.items():
        taken = hasattr(Loaded, method) or method in ("name", "training")
        if method and (taken or not method.isidentifier() or method.startswith("_")):
            raise ValueError(at_user_line(f"save: a method of an artifact cannot be called {method!r}"))
        if not isinstance(one, type(compiled)):
            raise TypeError(at_user_line(f"save: method {method!r} is a {type(one).__name__}, not a compiled function"))
        chosen += [found._replace(method=method) for found in _chosen(one)]
    contents = Contents([compiled._target, *(one._target for one in methods.values())], [one.variant for one in chosen], names)
    programs = [_written(one, contents, compiled) for one in chosen]
    save(path, name=compiled._name, programs=programs, arrays=contents.arrays, structure=contents.structure)


def refusal(variant: Variant) -> str | None:
    """Why no file can hold a specialisation; None where one can."""
    traced = variant.traced
    if variant.backward is not None and traced.grad_effects:
        return "the compiled code sets gradients and gives results that carry others; call it once under no_grad() first"
    if traced.reads:
        names = ", ".join(read.name for read in traced.reads)
        return f"the compiled code sets attributes that it reads, which a file cannot hold: {names}"
    if variant.paths is not None or traced.path or traced.found:
        return "the compiled code reads tensors into Python, which a file cannot do"
    if traced.deferred:
        return "the compiled code steps a schedule, which a file cannot hold; step it outside"
    left = {id(target): position is None for target, position in traced.grad_effects}
    if any(left.get(id(target), was_none) is not was_none for target, was_none in traced.none_grads):
        return "the last call found other gradients than it left behind; call it once more, or clear them in the compiled code"
    return None


def _chosen(compiled: Compiled) -> list[Chosen]:
    """The last call's specialisation, and those that calls may come back to: in both modes of the module, with open sizes first.

    Raises RuntimeError where there was no call, or no file can hold the last one's.
    """
    latest = compiled._last_variant()
    if latest is None:
        raise RuntimeError(at_user_line("save: call the compiled function once first, so that there is a program to save"))
    last = latest.whole
    reason = refusal(last)
    if reason is not None:
        raise RuntimeError(at_user_line(f"save: {reason}"))
    held = list(_held(compiled))
    conditions = next((head for head, variant in held if variant is last), None)  # autocast and the default dtype
    module, now = module_of(compiled._target, [last]), dispatch.epoch[0]
    epochs = {now: None if module is None else module.training}  # the modes that these were or are the epochs of
    if module is not None and any(variant.epoch != now and may_return(variant.epoch) for _, variant in held):
        with _other_mode(module) as other:
            epochs.setdefault(dispatch.epoch[0], other)
    training = epochs.get(last.epoch, epochs[now])
    found = [Chosen(last, training)]
    for head, variant in held:
        if head != conditions or variant.epoch not in epochs or refusal(variant) is not None or not _holds(variant):
            continue
        one = Chosen(variant, epochs[variant.epoch])
        if not any(_serves(other, one) for other in found):
            found.append(one)
    return found


def _held(compiled: Compiled) -> Iterator[tuple[Any, Variant]]:
    """Autocast and default dtype, and specialisation, of every one that is a program of its own."""
    for kind, _, variant in compiled._sizes.served():
        yield kind[2:4], variant
    for key, latest in reversed(compiled._variants.items()):
        for variant in dict.fromkeys((latest, *compiled._changes.others(key))):
            if variant.whole is variant:
                yield key[2:4], variant


@contextmanager
def _other_mode(module: Module) -> Iterator[bool]:
    """The module in the mode that it is not in, and which that is; afterwards everything is as it was."""
    before = [(one, one.training) for one in module.modules()]
    training = not module.training
    module.train(training)
    try:
        yield training
    finally:
        for one, was in before:
            if one.training is not was:
                one.training = was


def _holds(variant: Variant) -> bool:
    """Whether what it found outside, but for the mode of modules, is still so."""
    traced = variant.traced
    return (
        variant.paths is None
        and all(value.holds() for value in variant.values)
        and all(dict.get(owner, name) == number for owner, name, number in traced.numbers)
    )


def _serves(one: Chosen, other: Chosen) -> bool:
    """Whether calls that `other` is for run `one`."""
    if one.training is not other.training or one.variant.arguments != other.variant.arguments:
        return False
    a, b = (_specs(c.variant) for c in (one, other))
    if any(x.dtype is not y.dtype for x, y in zip(a, b, strict=True)):
        return False
    pattern, shapes = one.variant.pattern, [spec.shape for spec in b]
    if pattern is None or other.variant.pattern is not None:
        return [str(spec) for spec in a] == [str(spec) for spec in b]
    return pattern.values(shapes) is not None


def _numbers(traced: Traced) -> tuple[tuple[int, tuple[Step, ...]], ...]:
    """The results that are Python numbers, and what is made of each."""
    return tuple(
        (i, tuple((function.__name__, operands[0], comes_first) for function, operands, comes_first in steps))
        for i, steps in traced.returned_numbers.items()
    )


def _specs(variant: Variant) -> Sequence[Any]:
    return variant.built.plan.inputs[: len(variant.traced.arguments)]


def _alone(variant: Variant, compiled: Compiled) -> Built:
    """Its program; where that keeps values for backward, or leaves out results that share memory, another with results alone."""
    built, traced = variant.built, variant.traced
    if variant.backward is None and not traced.aliases:
        return built
    builder = Builder()
    builder.nodes.extend(built.graph.nodes)
    results = traced.values(built.graph, builder)
    left = built.graph.outputs[traced.made_count :] if variant.backward is None else ()
    graph = builder.graph(built.graph.name, built.graph.inputs, (*results, *left), built.graph.updates)
    return build(graph, compiled._options, fixed=built.fixed, use_cache=compiled._use_cache)


def _written(one: Chosen, contents: Contents, compiled: Compiled) -> Written:
    """What a file holds of a specialisation."""
    variant, traced, built = one.variant, one.variant.traced, _alone(one.variant, compiled)
    states = [contents.name_of(state) for state in traced.states]
    states += [contents.name_of_number(getter, dtype) for getter, dtype in traced.scalars]
    sources = {id(target): position for target, position in traced.grad_effects}
    carried = [
        (position, name)
        for state, name in zip(traced.states, states, strict=False)
        if state.of_grad and (position := sources.get(id(state.tensor))) is not None
    ]
    held, numbers = tuple(states), _numbers(traced)
    description = Description(
        variant.arguments, traced.output_tree, traced.returned, held, tuple(carried), numbers, one.training, one.method
    )
    return Written(print_graph(built.graph), parts_of(built, variant.pattern, variant.sizes), description)
