"""`vmap`: a function of one example as a function of a batch.

Enters: a function, and where the batch is in its arguments and results.  Leaves: the function of batches.
Never here: how operators run over a batch (`eager.levels`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from graphc.eager.levels import Level
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.ops.batching import Example
from graphc.trees import children, flatten

Dims = Any  # an int, None, or nested as the value is


def is_tensor(x: Any) -> bool:
    """Whether x is a leaf of nested tensors."""
    return isinstance(x, Tensor)


def vmap(
    func: Callable[..., Any],
    in_dims: Dims = 0,
    out_dims: Dims = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """`func` over a batch: every operator in it runs once, on all examples together.

    in_dims: the batch dim of each argument (None: the same for all examples), an int for all or nested as the arguments are;
    keyword arguments have theirs in front.   out_dims: the same of the results.   randomness: whether random operators raise
    (``error``), give all examples the ``same`` numbers or each ``different`` ones.   chunk_size: how many examples run together.

    Raises ValueError for dims that do not fit or batches of different sizes, RuntimeError in `func` where examples would go
    different ways (`item()`, `if`).
    """
    if randomness not in ("error", "different", "same"):
        allowed = "Only allowed values for randomness are 'error', 'different', or 'same'."
        raise RuntimeError(at_user_line(f"{allowed} Got {randomness}"))
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(at_user_line(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})"))

    @functools.wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        return _Mapping(func, in_dims, out_dims, randomness).run(args, kwargs, chunk_size)

    return mapped


class _Mapping:
    """One call of a mapped function."""

    def __init__(self, func: Callable[..., Any], in_dims: Dims, out_dims: Dims, randomness: str) -> None:
        self.func, self.in_dims, self.out_dims, self.randomness = func, in_dims, out_dims, randomness
        self.name = getattr(func, "__name__", type(func).__name__)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any], chunk_size: int | None) -> Any:
        """The results for all examples."""
        leaves, tree = flatten((args, kwargs), is_tensor)
        dims = self.checked_dims(args, kwargs)
        sizes = {x.shape[d] for x, d in zip(leaves, dims, strict=True) if d is not None}
        if not sizes:
            reason = "got no inputs" if not leaves else "at least one of in_dims must not be None"
            raise ValueError(at_user_line(f"vmap({self.name}, in_dims={self.in_dims}, ...)(<inputs>): {reason}"))
        if len(sizes) > 1:
            found = [x.shape[d] for x, d in zip(leaves, dims, strict=True) if d is not None]
            text = "Expected all tensors to have the same size in the mapped dimension, got sizes"
            raise ValueError(at_user_line(f"vmap: {text} {found} for the mapped dimension"))
        size = sizes.pop()
        if chunk_size is None or not isinstance(size, int) or size <= chunk_size:
            return self.once(leaves, dims, tree, size)
        parts = []
        for start in range(0, size, chunk_size):
            length = min(chunk_size, size - start)
            narrowed = [x if d is None else x.narrow(d, start, length) for x, d in zip(leaves, dims, strict=True)]
            parts.append(self.once(narrowed, dims, tree, length))
        return self.joined(parts)

    def joined(self, parts: list[Any]) -> Any:
        """The results of all chunks, one behind the other."""
        lists = [flatten(part, is_tensor)[0] for part in parts]
        tree = flatten(parts[0], is_tensor)[1]
        dims = self.result_dims(parts[0], len(lists[0]))
        cat = Op.table["cat"]
        return tree.unflatten([x[0] if d is None else cat(list(x), d) for x, d in zip(zip(*lists, strict=True), dims, strict=True)])

    def once(self, leaves: list[Tensor], dims: list[int | None], tree: Any, size: Any) -> Any:
        """All examples together."""
        level = Level(size, self.randomness)
        fronts = [None if d is None else Op.table["movedim"](x, d, 0) if d else x for x, d in zip(leaves, dims, strict=True)]
        inner = [x if f is None else level.wrap(Example(f, True)) for x, f in zip(leaves, fronts, strict=True)]
        given, keywords = tree.unflatten(inner)
        with level.inside():
            result = self.func(*given, **keywords)
        for x, front, d, example in zip(leaves, fronts, dims, inner, strict=True):
            if front is not None and example._storage.cell.example.value is not front:  # written to
                x.copy_(level.batch.whole(example._storage.cell.example).movedim(0, d))  # type: ignore[attr-defined]
        return self.outputs(level, result)

    def outputs(self, level: Level, result: Any) -> Any:
        """The results with the batch where `out_dims` says."""
        found, tree = flatten(result, is_tensor)
        self.refuse_others(tree)
        outputs = []
        for x, dim in zip(found, self.result_dims(result, len(found)), strict=True):
            example = level.example(x)
            if dim is None:
                if example.batched:
                    raise ValueError(
                        at_user_line(f"vmap({self.name}): out_dims is None for a result that differs between examples")
                    )
                outputs.append(example.value)
                continue
            if not -example.ndim - 1 <= dim <= example.ndim:
                raise IndexError(
                    at_user_line(f"vmap({self.name}): out_dim {dim} of a result of {example.ndim} dims is out of range")
                )
            whole = level.batch.whole(example)
            outputs.append(whole.movedim(0, dim) if dim else whole)
        return tree.unflatten(outputs)

    def refuse_others(self, tree: Any) -> None:
        """Raise ValueError for a result that is no tensor."""
        stack = [tree]
        while stack:
            part = stack.pop()
            stack.extend(part.children)
            if part.kind == "static":
                text = f"vmap({self.name}, ...): `{self.name}` must only return Tensors, got type {type(part.value)}."
                raise ValueError(at_user_line(text))

    # ---- dims

    def checked_dims(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int | None]:
        """The batch dim of every tensor among the arguments, counted from the front."""
        if not isinstance(self.in_dims, int | tuple | list) or isinstance(self.in_dims, bool):
            text = "expected `in_dims` to be int or a (potentially nested) tuple matching the structure of inputs, got:"
            raise ValueError(
                at_user_line(f"vmap({self.name}, in_dims={self.in_dims}, ...)(<inputs>): {text} {type(self.in_dims)}.")
            )
        pairs: list[tuple[Any, int | None]] = []
        whole = tuple(self.in_dims) if isinstance(self.in_dims, list) else self.in_dims
        if isinstance(whole, tuple) and len(whole) != len(args):
            text = f"in_dims is not compatible with the structure of inputs: {len(whole)} dims for {len(args)} arguments"
            raise ValueError(at_user_line(f"vmap({self.name}, in_dims={self.in_dims}, ...)(<inputs>): {text}"))
        self.pair(args, whole, pairs, "in_dims")
        self.pair(kwargs, 0, pairs, "in_dims")
        dims: list[int | None] = []
        for x, dim in pairs:
            if not is_tensor(x):
                if dim is not None:
                    text = f"Got in_dim={dim} for an input but the input is of type {type(x)}. We cannot vmap over non-Tensor"
                    raise ValueError(at_user_line(f"vmap({self.name}): {text} arguments, please use None as the respective in_dim"))
                continue
            if dim is not None and not -x.ndim <= dim < x.ndim:
                text = f"Got in_dim={dim} for some input, but that input is a Tensor of dimensionality {x.ndim} so expected"
                raise ValueError(at_user_line(f"vmap({self.name}): {text} in_dim to satisfy -{x.ndim} <= in_dim < {x.ndim}."))
            dims.append(None if dim is None else dim % x.ndim)
        return dims

    def result_dims(self, result: Any, count: int) -> list[int | None]:
        """The batch dim of every tensor among the results."""
        pairs: list[tuple[Any, int | None]] = []
        dims = self.out_dims
        if isinstance(dims, tuple) and len(dims) == 1 and is_tensor(result):
            (dims,) = dims
        self.pair(result, dims, pairs, "out_dims")
        return [dim for x, dim in pairs if is_tensor(x)]

    def pair(self, value: Any, dims: Dims, into: list[tuple[Any, int | None]], what: str) -> None:
        """Every leaf of `value` with its dim; a dim above nested values is that of all of them.  Raises ValueError."""
        registered = children(value)
        if registered is not None:
            value = registered
        if isinstance(value, tuple | list | dict) and not is_tensor(value):
            keys: Any = value if isinstance(value, dict) else range(len(value))
            if dims is not None and not isinstance(dims, int):
                same = isinstance(dims, dict) if isinstance(value, dict) else isinstance(dims, tuple | list)
                if not same or len(dims) != len(value) or (isinstance(value, dict) and set(dims) != set(value)):
                    text = f"{what} is not compatible with the structure of"
                    raise ValueError(
                        at_user_line(f"vmap({self.name}): {text} {'inputs' if what == 'in_dims' else 'outputs'}: {dims}")
                    )
            for key in keys:
                self.pair(value[key], dims if dims is None or isinstance(dims, int) else dims[key], into, what)
            return
        if dims is not None and (not isinstance(dims, int) or isinstance(dims, bool)):
            raise ValueError(at_user_line(f"vmap({self.name}): {what} must be ints or None where there is a tensor, got {dims!r}"))
        into.append((value, dims))


__all__ = ["is_tensor", "vmap"]
