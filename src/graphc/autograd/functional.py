"""Jacobians, Hessians and products with them, by backward, under the names and shapes of ``torch.autograd.functional``.

Enters: a function of tensors and a tensor or tuple of tensors.  Leaves: results nested as the outputs and inputs are.
Never here: transforms that nest (`graphc.func`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.eager.autograd import grad
from graphc.eager.modes import enable_grad
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.ops.arguments import constant, zeros_like

Tensors = tuple[Tensor, ...]


def _as_tuple(given: Any, argument: str, name: str) -> tuple[bool, Tensors]:
    """(whether it was a tuple, as a tuple).  Raises TypeError for what is not tensors."""
    several = isinstance(given, tuple | list)
    found = tuple(given) if several else (given,)
    for i, x in enumerate(found):
        if not isinstance(x, Tensor):
            where = f"value {i} of the {argument}" if several else f"the {argument}"
            raise TypeError(at_user_line(f"The {name} of {where} must be Tensors, got {type(x).__name__}"))
    return several, found


class _Call:
    """One call of the function on inputs that require grad."""

    def __init__(self, func: Callable[..., Any], inputs: Any, name: str, create_graph: bool, strict: bool) -> None:
        self.name, self.create_graph, self.strict = name, create_graph, strict
        self.several_in, given = _as_tuple(inputs, "inputs given to the function", "types")
        with enable_grad():
            self.inputs = tuple(
                Op.table["view_as"](x, x) if create_graph and x.requires_grad else x.detach().requires_grad_() for x in given
            )
            result = func(*self.inputs)
        self.several_out, self.outputs = _as_tuple(result, "outputs of the function", "types")
        if strict:
            for i, y in enumerate(self.outputs):
                if not y.requires_grad:
                    raise RuntimeError(at_user_line(
                        f"Output {i} of the user-provided function does not require gradients. The outputs must be computed in a "
                        f"differentiable manner from the input when running in strict mode."
                    ))  # fmt: skip

    def seeds(self, v: Any, tensors: Tensors, several: bool, what: str) -> Tensors:
        """`v` checked against the tensors it is paired with; ones for a single element where it is not given."""
        if v is None:
            if len(tensors) != 1 or tensors[0].numel() != 1:
                text = f"The vector v can only be None if the {what} a single Tensor with a single element"
                raise RuntimeError(at_user_line(text))
            return (constant(1, tensors[0].dtype, tuple(tensors[0].shape)),)
        given = _as_tuple(v, "vector v", "types")[1]
        if len(given) != len(tensors):
            raise RuntimeError(at_user_line(f"v is a tuple of invalid length: should be {len(tensors)} but got {len(given)}."))
        for i, (a, b) in enumerate(zip(given, tensors, strict=True)):
            if a.shape != b.shape:
                raise RuntimeError(at_user_line(f"Entry {i} in v has invalid size: should be {b.shape} but got {a.shape}."))
        return given

    def pulled(
        self, outputs: Sequence[Tensor], inputs: Tensors, seeds: Sequence[Any], create_graph: bool, batched: bool = False
    ) -> Tensors:
        """The gradients of the inputs; zeros (in strict mode: an error) where an output does not depend on one."""
        pairs = [(y, s) for y, s in zip(outputs, seeds, strict=True) if y.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(inputs)
        if pairs:
            with enable_grad():
                found = grad(
                    [y for y, _ in pairs], inputs, [s for _, s in pairs], retain_graph=True, create_graph=create_graph,
                    allow_unused=True, is_grads_batched=batched,
                )  # fmt: skip
        results = []
        for i, (x, g) in enumerate(zip(inputs, found, strict=True)):
            if g is None and self.strict:
                text = f"The output of the user-provided function is independent of input {i}. This is not allowed in strict mode."
                raise RuntimeError(at_user_line(text))
            if g is None:
                lead = (seeds[0].shape[0],) if batched else ()
                g = constant(0, x.dtype, (*lead, *x.shape))
            results.append(g)
        return tuple(results)

    def finished(self, tensors: Any) -> Any:
        """Off the tape unless the caller wants to differentiate further."""
        if isinstance(tensors, tuple):
            return tuple(self.finished(x) for x in tensors)
        return tensors if self.create_graph else tensors.detach()

    def like_inputs(self, found: Tensors) -> Any:
        return self.finished(found if self.several_in else found[0])

    def like_outputs(self, found: Tensors) -> Any:
        return self.finished(found if self.several_out else found[0])


def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """(outputs, v times the Jacobian): v as the outputs are, the product as the inputs.

    Raises RuntimeError where v does not fit, and in strict mode where an output does not depend on an input.
    """
    call = _Call(func, inputs, "vjp", create_graph, strict)
    seeds = call.seeds(v, call.outputs, call.several_out, "user-provided function returns")
    found = call.pulled(call.outputs, call.inputs, seeds, create_graph)
    return call.like_outputs(call.outputs), call.like_inputs(found)


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """(outputs, the Jacobian times v): v as the inputs are, the product as the outputs.

    The product with the transpose is linear in its vector; its own transpose is the product wanted.  Raises as `vjp`.
    """
    call = _Call(func, inputs, "jvp", create_graph, strict)
    directions = call.seeds(v, call.inputs, call.several_in, "input to the user-provided function is")
    duals = tuple(zeros_like(y).requires_grad_() for y in call.outputs)
    transposed = call.pulled(call.outputs, call.inputs, duals, True)
    found = _unstrict(call).pulled(transposed, duals, directions, create_graph)
    return call.like_outputs(call.outputs), call.like_outputs(found)


def _unstrict(call: _Call) -> _Call:
    call.strict = False
    return call


def vhp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """(the output, v times the Hessian) of a function of one element; v and the product as the inputs.  Raises as `vjp`."""
    call, gradient = _gradient(func, inputs, "vhp", create_graph, strict)
    vector = call.seeds(v, call.inputs, call.several_in, "input to the user-provided function is")
    found = call.pulled(gradient, call.inputs, vector, create_graph)
    return call.like_outputs(call.outputs), call.like_inputs(found)


def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """(the output, the Hessian times v) of a function of one element; v and the product as the inputs.  Raises as `vjp`."""
    call, gradient = _gradient(func, inputs, "hvp", create_graph, strict)
    vector = call.seeds(v, call.inputs, call.several_in, "input to the user-provided function is")
    duals = tuple(zeros_like(x).requires_grad_() for x in call.inputs)
    product = call.pulled(gradient, call.inputs, duals, True)
    found = _unstrict(call).pulled(product, duals, vector, create_graph)
    return call.like_outputs(call.outputs), call.like_inputs(found)


def _gradient(func: Callable[..., Any], inputs: Any, name: str, create_graph: bool, strict: bool) -> tuple[_Call, Tensors]:
    """A call of a function of one element, and its gradient on the tape."""
    call = _Call(func, inputs, name, create_graph, strict)
    if call.several_out or len(call.outputs) != 1 or call.outputs[0].numel() != 1:
        raise RuntimeError(
            at_user_line("The output of the user-provided function should be a single Tensor with a single element.")
        )
    one = constant(1, call.outputs[0].dtype, tuple(call.outputs[0].shape))
    return call, call.pulled(call.outputs, call.inputs, (one,), True)


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian: for each output and each input a tensor of shape ``(*output.shape, *input.shape)``, nested as they are.

    vectorize: all rows in one backward over a batch.   strategy: rows (``reverse-mode``) or columns (``forward-mode``, which needs
    `vectorize`).  Raises AssertionError for another strategy, RuntimeError as `vjp`.
    """
    if strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError(at_user_line(f'Expected strategy to be either "forward-mode" or "reverse-mode", got {strategy!r}'))
    if strategy == "forward-mode":
        return _forward_jacobian(func, inputs, create_graph, strict, vectorize)
    if vectorize and strict:
        raise RuntimeError(
            at_user_line("torch.autograd.functional.jacobian: `strict=True` and `vectorized=True` are not supported together.")
        )
    call = _Call(func, inputs, "jacobian", create_graph, strict)
    rows = [_rows(call, y, vectorize) for y in call.outputs]
    nested = tuple(row if call.several_in else row[0] for row in rows)
    return call.finished(nested if call.several_out else nested[0])


def _rows(call: _Call, y: Tensor, vectorize: bool) -> Tensors:
    """The Jacobians of one output."""
    count = y.numel()
    basis = Op.table["reshape"].run(Op.table["eye"](count, dtype=y.dtype), shape=(count, *y.shape))
    if vectorize:
        parts = call.pulled([y], call.inputs, [basis], call.create_graph, batched=True)
    else:
        each = [call.pulled([y], call.inputs, [basis[i]], call.create_graph) for i in range(count)]  # type: ignore[index]
        stack = Op.table["stack"]
        parts = tuple(
            stack([row[k] for row in each], 0) if each else constant(0, x.dtype, (0, *x.shape)) for k, x in enumerate(call.inputs)
        )
    return tuple(Op.table["reshape"].run(p, shape=(*y.shape, *x.shape)) for p, x in zip(parts, call.inputs, strict=True))


def _forward_jacobian(func: Callable[..., Any], inputs: Any, create_graph: bool, strict: bool, vectorize: bool) -> Any:
    if strict:
        raise RuntimeError(
            at_user_line('torch.autograd.functional.jacobian: `strict=True` and `strategy="forward-mode"` do not go together.')
        )
    if not vectorize:
        raise NotImplementedError(
            at_user_line("Computing Jacobian using forward-AD or forward-over-reverse Hessian is only for `vectorize=True`.")
        )
    from graphc.func import jacfwd

    several, given = _as_tuple(inputs, "inputs given to the function", "types")
    found = jacfwd(func, argnums=tuple(range(len(given))))(*given)
    if not several:
        found = tuple(row[0] for row in found) if isinstance(found[0], tuple) else found[0]
    return found if create_graph else _off(found)


def _off(found: Any) -> Any:
    return tuple(map(_off, found)) if isinstance(found, tuple) else found.detach()


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of a function of one element: for each pair of inputs a tensor of both shapes.  Raises as `jacobian`."""
    several = isinstance(inputs, tuple | list)

    def gradient(*given: Tensor) -> Any:
        _, found = _gradient(func, given if several else given[0], "hessian", True, strict)
        return found if several else found[0]

    return jacobian(gradient, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)


__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]
