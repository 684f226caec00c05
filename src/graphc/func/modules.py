"""Modules as functions of their parameters.

Enters: a module and tensors by name.  Leaves: what it computes with them; the parameters of several modules in one.
Never here: how modules work (`graphc.nn`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.errors import at_user_line
from graphc.nn.module import Module
from graphc.nn.watched import exchanged
from graphc.ops.joining import stack

State = Mapping[str, Any]


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: State | Sequence[State],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """``module(*args, **kwargs)`` with some of its parameters and buffers replaced for this call.

    parameter_and_buffer_dicts: tensors by name, or several such dicts.   args: a tuple, or the one argument.   tie_weights: what
    has the same tensor under another name is replaced too.   strict: every name must be given,
    and no other; otherwise other names are passed over.
    Raises ValueError for a name given twice or other dicts, RuntimeError (where `strict`) for missing or unexpected names.
    """
    tensors = _merged(parameter_and_buffer_dicts)
    own = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers(remove_duplicate=False))}
    if strict and set(tensors) != set(own):
        found = (("Unexpected", sorted(set(tensors) - set(own))), ("Missing", sorted(set(own) - set(tensors))))
        parts = [f"\n\t{kind} key(s): {', '.join(map(repr, names))}." for kind, names in found if names]
        raise RuntimeError(at_user_line(f"Error(s) in reparametrizing for {type(module).__name__}:{''.join(parts)}"))
    tensors = {name: given for name, given in tensors.items() if name in own}
    replaced = dict(tensors)
    if tie_weights:
        for name, given in tensors.items():
            replaced.update({other: given for other, x in own.items() if x is own[name] and other not in tensors})
    places = []
    for name, given in replaced.items():
        path, _, last = name.rpartition(".")
        holder = module.get_submodule(path)
        place: Any = holder._parameters if last in holder._parameters else holder._buffers
        places.append((place, last, given))
    positional = () if args is None else args if isinstance(args, tuple) else (args,)
    with exchanged(places):
        return module(*positional, **(kwargs or {}))


def _merged(dicts: Any) -> dict[str, Any]:
    """One dict of several.  Raises ValueError."""
    if isinstance(dicts, Mapping):
        return dict(dicts)
    if not isinstance(dicts, Sequence) or not all(isinstance(d, Mapping) for d in dicts):
        text = f"Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got {type(dicts)}"
        raise ValueError(at_user_line(text))
    merged: dict[str, Any] = {}
    for one in dicts:
        twice = set(merged) & set(one)
        if twice:
            raise ValueError(
                at_user_line(f"{sorted(twice)} appeared in multiple dictionaries; behavior of functional call is ambiguous")
            )
        merged.update(one)
    return merged


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(parameters, buffers) of several modules of one class, each stacked in front, as leaves: for `vmap` of `functional_call`.

    Raises RuntimeError for no modules, and for modules of different classes or modes.
    """
    if not models:
        raise RuntimeError(at_user_line("stack_module_state: Expected at least one model, got 0."))
    if len({m.training for m in models}) > 1:
        raise RuntimeError(at_user_line("stack_module_state: Expected all models to have the same training/eval mode."))
    if len({type(m) for m in models}) > 1:
        raise RuntimeError(at_user_line("stack_module_state: Expected all models to be of the same class."))

    def stacked(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        found = {}
        for name, first in states[0].items():
            leaf = stack([state[name].detach() for state in states], 0)
            found[name] = leaf.requires_grad_(first.requires_grad)
        return found

    return stacked([dict(m.named_parameters()) for m in models]), stacked([dict(m.named_buffers()) for m in models])


__all__ = ["functional_call", "stack_module_state"]
