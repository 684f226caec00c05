"""Control flow as functions: PyTorch's namespace of that name, and `graphc.cond` and `graphc.while_loop`.

Enters: tensors that decide, functions.  Leaves: what Python's own control flow would give; in traced code, regions of the graph.
Never here: how a region is traced (`capture.regions`).

Eagerly these are Python's ``if``, ``while`` and ``for``.  In traced code every function is called once and becomes a graph, so one
program holds all ways.  Where that cannot be (gradients flow through it, results differ in shape or dtype, a function asks for
elements), the code is compiled path by path like any other, and `explain()` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dtypes import bool_
from graphc.eager.creation import full
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.trees import Tree, flatten


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def _is_leaf(x: Any) -> bool:
    return not isinstance(x, tuple | list | dict)


def _tracer() -> Any:
    """Whose graph a region would be in; None where nothing is traced."""
    tracer = modes.tracer
    return tracer if tracer is not None and tracer.collects and not tracer.batches else None


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Sequence[Any] = ()) -> Any:
    """``true_fn(*operands)`` where `pred` is true, else ``false_fn(*operands)``.

    pred: a number, or a tensor of one element.   operands: a tuple or list of nested tensors.   The results of both functions have
    the same structure, and their tensors the same shapes and dtypes, where this is to be a region of a compiled graph.
    Raises RuntimeError for other arguments.
    """
    if not (callable(true_fn) and callable(false_fn)):
        raise RuntimeError(at_user_line("cond: expected both branches to be callable"))
    if not isinstance(operands, tuple | list):
        raise RuntimeError(at_user_line(f"cond: operands must be a tuple or list, got {type(operands).__name__}"))
    if not isinstance(pred, Tensor | bool | int | float):
        raise RuntimeError(at_user_line(f"cond: pred must be a number or a tensor, got {type(pred).__name__}"))
    if not isinstance(pred, Tensor):
        return true_fn(*operands) if pred else false_fn(*operands)
    if pred.numel() != 1:
        raise RuntimeError(at_user_line(f"cond: pred must have one element, got shape {list(pred.shape)}"))
    tracer = _tracer()
    if tracer is not None:
        from graphc.capture.regions import NoRegion

        try:
            return _branches(tracer, pred, lambda: true_fn(*operands), lambda: false_fn(*operands))
        except NoRegion as reason:
            tracer.notes.append(at_user_line(f"cond is no region: {reason}"))
    return true_fn(*operands) if bool(pred) else false_fn(*operands)


def _branches(tracer: Any, pred: Tensor, true: Callable[[], Any], false: Callable[[], Any]) -> Any:
    from graphc.capture.regions import Branch, NoRegion, joined, truth

    asked = truth(pred)
    branches = Branch(tracer, true), Branch(tracer, false)
    (first, tree), (second, other) = (flatten(branch.result, _is_tensor) for branch in branches)
    if tree != other:
        raise NoRegion("its branches give results of different structure, or different numbers")
    return tree.unflatten(joined(tracer, asked, branches, list(zip(first, second, strict=True))))


def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried_inputs: Sequence[Any]) -> Any:
    """What ``carried = body_fn(*carried)`` makes of `carried_inputs` while ``cond_fn(*carried)`` is true: a tuple.

    cond_fn: gives a bool or a tensor of one bool.   body_fn: gives a tuple like `carried_inputs`, nested tensors and ints; its
    tensors have the same shapes and dtypes where this is to be a region of a compiled graph.   Gradients flow as through the
    operators one by one: compiled, there is a program for each number of rounds.   Raises RuntimeError for other arguments.
    """
    if not (callable(cond_fn) and callable(body_fn)):
        raise RuntimeError(at_user_line("while_loop: expected cond_fn and body_fn to be callable"))
    if not isinstance(carried_inputs, tuple | list):
        raise RuntimeError(at_user_line(f"while_loop: carried_inputs must be a tuple or list, got {type(carried_inputs).__name__}"))
    leaves, tree = flatten(tuple(carried_inputs), _is_leaf)
    if wrong := next((x for x in leaves if not isinstance(x, Tensor | int)), None):
        raise RuntimeError(at_user_line(f"while_loop: carried_inputs must hold tensors and ints, got {type(wrong).__name__}"))
    tracer = _tracer()
    if tracer is not None and all(isinstance(x, Tensor) for x in leaves):
        from graphc.capture.regions import NoRegion, repeated

        def test(given: list[Tensor]) -> Tensor:
            return _expected_truth(cond_fn(*tree.unflatten(given)))

        def body(given: list[Tensor]) -> list[Tensor]:
            return _same_structure(body_fn(*tree.unflatten(given)), tree)

        try:
            return tree.unflatten(repeated(tracer, leaves, test, body))
        except NoRegion as reason:
            tracer.notes.append(at_user_line(f"while_loop is no region: {reason}"))
    carried = tuple(carried_inputs)
    while _truth(cond_fn(*carried)):
        carried = body_fn(*carried)
        _same_structure(carried, tree)
    return carried


def _truth(asked: Any) -> bool:
    """Raises RuntimeError for what is no bool."""
    if isinstance(asked, bool) or (isinstance(asked, Tensor) and asked.dtype is bool_ and asked.numel() == 1):
        return bool(asked)
    raise RuntimeError(at_user_line(f"while_loop: cond_fn must give a bool or a tensor of one bool, got {asked!r}"))


def _expected_truth(asked: Any) -> Tensor:
    if isinstance(asked, bool):
        return full((), asked, dtype=bool_)
    if isinstance(asked, Tensor) and asked.dtype is bool_ and asked.numel() == 1:
        return asked
    raise RuntimeError("cond_fn must give a bool or a tensor of one bool")


def _same_structure(result: Any, tree: Tree) -> list[Any]:
    """The leaves of a body's result.  Raises RuntimeError for one that is not like what is carried."""
    leaves, found = flatten(result, _is_leaf)
    if not isinstance(result, tuple) or found != tree:
        raise RuntimeError(at_user_line(f"while_loop: body_fn must give a tuple like carried_inputs, {tree}, got {found}"))
    return leaves


def scan(combine_fn: Callable[..., Any], init: Any, xs: Any, *, dim: int = 0, reverse: bool = False) -> tuple[Any, Any]:
    """``carry, y = combine_fn(carry, x)`` for the slices x of `xs` along `dim`, from the last one if `reverse`.

    The last carry, and the outputs stacked along dim 0 in the order of their slices.   init, xs: nested tensors; those of `xs`
    have the same size along `dim`, at least 1.   Raises RuntimeError for other arguments.
    """
    slices, tree = flatten(xs, _is_tensor)
    if not slices or any(not -x.ndim <= dim < x.ndim for x in slices):
        raise RuntimeError(at_user_line(f"scan: xs must hold tensors with a dim {dim}"))
    lengths = {x.shape[dim] for x in slices}
    if len(lengths) != 1 or 0 in lengths:
        raise RuntimeError(at_user_line(f"scan: xs must have one size along dim {dim}, not 0, got {sorted(lengths)}"))
    length = lengths.pop()

    def step(carry: Any, index: Any) -> tuple[Any, Any]:
        result = combine_fn(carry, tree.unflatten([x.select(dim, index) for x in slices]))
        if not isinstance(result, tuple) or len(result) != 2:
            raise RuntimeError(at_user_line("scan: combine_fn must give a carry and an output"))
        return result

    carry, outputs = init, []
    for i in reversed(range(length)) if reverse else range(length):
        carry, y = step(carry, i)
        outputs.append(y)
    return carry, _stacked(outputs[::-1] if reverse else outputs)


def _stacked(outputs: list[Any]) -> Any:
    from graphc.namespace import stack  # type: ignore[attr-defined]

    leaves, tree = flatten(outputs[0], _is_tensor)
    columns = [flatten(y, _is_tensor)[0] for y in outputs]
    return tree.unflatten([stack([column[i] for column in columns]) for i in range(len(leaves))])


__all__ = ["cond", "scan", "while_loop"]
