"""Derivatives of functions: gradients, products with Jacobians, Jacobians, Hessians.

Enters: a function of nested tensors.  Leaves: functions and tensors, differentiable again.  Never here: the walk over the tape.

A function is differentiated by calling it on tensors of its own that require grad.  What comes out stays on the tape only where
something outside may differentiate it.  A product with the Jacobian is the transpose of a product with its transpose, which is
linear in its vector; so it needs no rules beside those of backward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphc.eager.autograd import grad as tape_gradients
from graphc.eager.modes import enable_grad, modes
from graphc.eager.tape import Node
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.func.vectorize import is_tensor, vmap
from graphc.ir.op import Op
from graphc.ops.arguments import constant
from graphc.trees import Tree, flatten

Argnums = int | tuple[int, ...]


def _level() -> Any:
    """The level of `vmap` that operators go to now, or None."""
    return modes.tracer if modes.tracer is not None and modes.tracer.batches else None


def _reaches_outside(tensors: Sequence[Tensor], own: Sequence[Tensor]) -> bool:
    """Whether backward from one of the tensors would come to a leaf that is not among `own`."""
    mine = {id(x) for x in own}
    stack: list[Any] = [x if x.grad_fn is None else x.grad_fn for x in tensors if x.requires_grad]
    seen: set[int] = set()
    while stack:
        end = stack.pop()
        if type(end) is not Node:
            if id(end) not in mine:
                return True
        elif id(end) not in seen:
            seen.add(id(end))
            stack.extend(e[0] for e in end.edges if e is not None)
    return False


class _Primals:
    """Arguments replaced with tensors of our own.   recorded: whether the tape was on where the transform was called."""

    def __init__(self, values: Any, name: str) -> None:
        leaves, self.tree = flatten(values, is_tensor)
        self.recorded = modes.grad
        level = _level()
        self.own: list[Tensor] = []
        self.inner: list[Tensor] = []
        for x in leaves:
            if x.dtype.kind not in "fc":
                text = f"{name}: expected floating point tensors to differentiate with respect to, got {x.dtype}"
                raise RuntimeError(at_user_line(text))
            x = x if level is None else level.lift(x)
            if self.recorded and x.requires_grad:
                self.inner.append(x.view_as(x))  # type: ignore[attr-defined]
            else:
                self.own.append(x.detach().requires_grad_())
                self.inner.append(self.own[-1])

    def value(self) -> Any:
        return self.tree.unflatten(self.inner)

    def goes_on(self, tensors: Sequence[Tensor]) -> bool:
        """Whether derivatives of the tensors may be differentiated by somebody outside."""
        level = _level()
        return modes.grad and (
            (self.recorded and _reaches_outside(tensors, self.own)) or (level is not None and level.recorded_outside)
        )

    def finished(self, tensors: Sequence[Tensor], more: Sequence[Tensor] = ()) -> list[Tensor]:
        """The tensors, off the tape where only our own leaves (and `more`) are behind them."""
        own = [*self.own, *more]
        return [x if self.recorded and _reaches_outside([x], own) else x.detach() if x.requires_grad else x for x in tensors]


def _with(args: tuple[Any, ...], positions: tuple[int, ...], values: Sequence[Any]) -> tuple[Any, ...]:
    """`args` with those at `positions` replaced."""
    replaced = list(args)
    for i, value in zip(positions, values, strict=True):
        replaced[i] = value
    return tuple(replaced)


def _positions(argnums: Argnums, args: tuple[Any, ...], name: str) -> tuple[int, ...]:
    """Canonical positions.  Raises RuntimeError for one that no argument has."""
    given = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for i in given:
        if not -len(args) <= i < len(args):
            raise RuntimeError(at_user_line(f"{name}: got argnum={i}, but only {len(args)} positional inputs"))
    positions = tuple(i % len(args) for i in given)
    if not positions or len(set(positions)) != len(positions):
        raise RuntimeError(at_user_line(f"{name}: argnums must be one or more different positions, got {argnums}"))
    return positions


def _split_aux(result: Any, has_aux: bool, name: str) -> tuple[Any, Any]:
    if not has_aux:
        return result, None
    if not (isinstance(result, tuple) and len(result) == 2):
        text = f"{name}(f, has_aux=True): output of function f should be a tuple: (output, aux) if has_aux is True"
        raise RuntimeError(at_user_line(text))
    return result


# ---- gradients -------------------------------------------------------------------------------------------------------------


def grad_and_value(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function giving (the gradient of `func`, its value), or (gradient, (value, aux)) where func gives (value, aux).

    argnums: the argument to differentiate (a tuple: several; the gradient is then a tuple), nested tensors of floating dtype.
    Raises RuntimeError where the value is not a tensor of one element.
    """

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        positions = _positions(argnums, args, "grad")
        primals = _Primals(tuple(args[i] for i in positions), "grad")
        with enable_grad():
            output, aux = _split_aux(func(*_with(args, positions, primals.value()), **kwargs), has_aux, "grad_and_value")
            if not isinstance(output, Tensor):
                text = f"Expected f(*args) to return a tensor for grad_and_value(f)(*args), got {type(output)}"
                raise RuntimeError(at_user_line(text))
            if output.ndim:
                text = "Expected f(*args) to return a scalar tensor, got tensor with"
                raise RuntimeError(at_user_line(f"grad_and_value: {text} {output.ndim} dims. Maybe you wanted to use vmap or vjp"))
            gradients = _pulled(primals, [output], [None], False)
        gradient = primals.tree.unflatten(primals.finished(gradients))
        found = gradient[0] if isinstance(argnums, int) else gradient
        value = primals.finished([output])[0]
        if has_aux:
            leaves, tree = flatten(aux, is_tensor)
            return found, (value, tree.unflatten(primals.finished(leaves)))
        return found, value

    return wrapped


def _pulled(primals: _Primals, outputs: Sequence[Tensor], seeds: Sequence[Any], keep: bool) -> list[Tensor]:
    """Gradients of our tensors; zeros where the outputs do not depend on one."""
    pairs = [(y, s) for y, s in zip(outputs, seeds, strict=True) if y.requires_grad]
    found: Sequence[Any] = [None] * len(primals.inner)
    if pairs:
        roots, given = [y for y, _ in pairs], [s for _, s in pairs]
        again = primals.goes_on([*roots, *(s for s in given if s is not None)])
        found = tape_gradients(roots, primals.inner, given, keep or again, again, allow_unused=True)
    return [constant(0, x.dtype, tuple(x.shape)) if g is None else g for x, g in zip(primals.inner, found, strict=True)]


def grad(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function giving the gradient of `func`, or (gradient, aux) where func gives (value, aux).  As `grad_and_value`."""
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return wrapped


# ---- products --------------------------------------------------------------------------------------------------------------


class _Outputs:
    """The outputs of a function on our tensors."""

    def __init__(self, func: Callable[..., Any], primals: _Primals, has_aux: bool, name: str) -> None:
        self.primals = primals
        with enable_grad():
            result, aux = _split_aux(func(*primals.value()), has_aux, name)
        self.inner, self.tree = flatten(result, is_tensor)
        if not self.inner:
            raise RuntimeError(at_user_line(f"{name}: expected f(*primals) to return tensors, got {type(result)}"))
        leaves, aux_tree = flatten(aux, is_tensor)
        self.aux = aux_tree.unflatten(primals.finished(leaves))
        self.value = self.tree.unflatten(primals.finished(self.inner))

    def cotangents(self, given: Any) -> list[Tensor]:
        """Vectors for the outputs.  Raises RuntimeError for others."""
        leaves, tree = flatten(given, is_tensor)
        return _fitting(leaves, tree, self.inner, self.tree, "cotangents", "the output of f")


def _fitting(leaves: list[Tensor], tree: Tree, like: Sequence[Tensor], wanted: Tree, what: str, of: str) -> list[Tensor]:
    """Tensors nested and shaped as others.  Raises RuntimeError."""
    if tree != wanted:
        raise RuntimeError(at_user_line(f"Expected {what} to have the same structure as {of}: got {tree}, expected {wanted}"))
    for x, y in zip(leaves, like, strict=True):
        if tuple(x.shape) != tuple(y.shape):
            raise RuntimeError(at_user_line(f"Expected {what} of shape {tuple(y.shape)} as {of}, got {tuple(x.shape)}"))
    return leaves


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """(func(*primals), f) where f gives the product of a vector, nested as the output, with the Jacobian: as the primals are.

    With `has_aux`: (output, f, aux) of a function giving (output, aux).
    """
    own = _Primals(primals, "vjp")
    outputs = _Outputs(func, own, has_aux, "vjp")

    def product(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        seeds = outputs.cotangents(cotangents)
        found = own.tree.unflatten(own.finished(_pulled(own, outputs.inner, seeds, True)))
        return found[0] if len(primals) == 1 else found

    return (outputs.value, product, outputs.aux) if has_aux else (outputs.value, product)


class _Linear:
    """A function near a point: its outputs there, and products of its Jacobian with vectors."""

    def __init__(self, func: Callable[..., Any], primals: Any, has_aux: bool, name: str) -> None:
        self.primals = _Primals(primals, name)
        self.outputs = _Outputs(func, self.primals, has_aux, name)
        level = _level()
        with enable_grad():
            zeros = [constant(0, y.dtype, tuple(y.shape)) for y in self.outputs.inner]
            self.duals = [(z if level is None else level.lift(z)).detach().requires_grad_() for z in zeros]
            pairs = [(y, u) for y, u in zip(self.outputs.inner, self.duals, strict=True) if y.requires_grad]
            inner = self.primals.inner
            found: Sequence[Any] = [None] * len(inner)
            if pairs:
                found = tape_gradients([y for y, _ in pairs], inner, [u for _, u in pairs], True, True, allow_unused=True)
        self.transposed = [(i, g) for i, g in enumerate(found) if g is not None and g.requires_grad]

    def product(self, tangents: Any) -> Any:
        """The Jacobian times `tangents`, nested as the primals."""
        leaves, tree = flatten(tangents, is_tensor)
        given = _fitting(leaves, tree, self.primals.inner, self.primals.tree, "tangents", "the primals")
        found: Sequence[Any] = [None] * len(self.duals)
        with enable_grad():
            if self.transposed:
                roots, seeds = [g for _, g in self.transposed], [given[i] for i, _ in self.transposed]
                own = self.primals
                again = own.goes_on(self.outputs.inner) or (own.recorded and _reaches_outside(seeds, ()))
                found = tape_gradients(roots, self.duals, seeds, True, again, allow_unused=True)
            results = [constant(0, u.dtype, tuple(u.shape)) if t is None else t for u, t in zip(self.duals, found, strict=True)]
        return self.outputs.tree.unflatten(self.primals.finished(results, self.duals))


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """(func(*primals), the Jacobian times `tangents`), and aux where func gives (output, aux).

    primals and tangents: tuples of nested tensors of the same shapes.
    """
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple) or not primals:
        raise RuntimeError(at_user_line("jvp: expected primals and tangents to be tuples of at least one value"))
    linear = _Linear(func, primals, has_aux, "jvp")
    product = linear.product(tangents)
    return (linear.outputs.value, product, linear.outputs.aux) if has_aux else (linear.outputs.value, product)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """(func(*primals), f) where ``f(*tangents)`` is the Jacobian there times a vector; func runs once."""
    linear = _Linear(func, primals, False, "linearize")
    return linear.outputs.value, lambda *tangents: linear.product(tangents)


# ---- Jacobians -------------------------------------------------------------------------------------------------------------


def _basis(like: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """(unit vectors of the space of all tensors of `like` together, their parts in each; how many elements each has)."""
    counts = [int(x.numel()) for x in like]
    total = sum(counts)
    parts, start = [], 0
    for x, count in zip(like, counts, strict=True):
        eye = Op.table["eye"](total, dtype=x.dtype)
        parts.append(eye.narrow(1, start, count).reshape(total, *x.shape))
        start += count
    return parts, counts


def jacrev(
    func: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable[..., Any]:
    """A function giving the Jacobian of `func`, by rows: a batch of products with unit vectors of the output.

    For each tensor of the output a value nested as the argument (a tuple of them for a tuple of `argnums`) of tensors of shape
    ``(*output, *argument)``; with `has_aux` also aux.   chunk_size: how many rows are computed together.
    """

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        positions = _positions(argnums, args, "jacrev")
        primals = _Primals(tuple(args[i] for i in positions), "jacrev")
        outputs = _Outputs(lambda *inner: func(*_with(args, positions, inner), **kwargs), primals, has_aux, "jacrev")

        def rows(*seeds: Tensor) -> tuple[Tensor, ...]:
            return tuple(_pulled(primals, outputs.inner, seeds, True))

        parts, counts = _basis(outputs.inner)
        found = vmap(rows, chunk_size=chunk_size)(*parts)
        results, start = [], 0
        for y, count in zip(outputs.inner, counts, strict=True):
            blocks = [g.narrow(0, start, count).reshape(*y.shape, *x.shape) for g, x in zip(found, primals.inner, strict=True)]
            nested = primals.tree.unflatten(primals.finished(blocks))
            results.append(nested[0] if isinstance(argnums, int) else nested)
            start += count
        jacobian = outputs.tree.unflatten(results)
        return (jacobian, outputs.aux) if has_aux else jacobian

    return wrapped


def jacfwd(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable[..., Any]:
    """As `jacrev`, by columns: a batch of products with unit vectors of the arguments."""

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        positions = _positions(argnums, args, "jacfwd")
        chosen = tuple(args[i] for i in positions)
        linear = _Linear(lambda *inner: func(*_with(args, positions, inner), **kwargs), chosen, has_aux, "jacfwd")
        primals, outputs = linear.primals, linear.outputs
        parts, counts = _basis(primals.inner)

        def columns(*tangents: Tensor) -> tuple[Tensor, ...]:
            return tuple(flatten(linear.product(primals.tree.unflatten(tangents)), is_tensor)[0])

        found = vmap(columns, randomness=randomness)(*parts)
        results = []
        for y, columns_of_y in zip(outputs.inner, found, strict=True):
            blocks, start = [], 0
            for x, count in zip(primals.inner, counts, strict=True):
                block = columns_of_y.narrow(0, start, count).movedim(0, -1)
                blocks.append(block.reshape(*y.shape, *x.shape))
                start += count
            nested = primals.tree.unflatten(blocks)
            results.append(nested[0] if isinstance(argnums, int) else nested)
        jacobian = outputs.tree.unflatten(results)
        return (jacobian, outputs.aux) if has_aux else jacobian

    return wrapped


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function giving the Hessian of `func`: the Jacobian by columns of the Jacobian by rows."""
    return jacfwd(jacrev(func, argnums), argnums)


__all__ = ["grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize", "vjp"]
