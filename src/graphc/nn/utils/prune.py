"""Pruning: parameters times masks of zeros and ones, which stay through training.

Enters: modules, amounts.  Leaves: the same with ``<name>_orig`` and ``<name>_mask``, and ``<name>`` made of both before every call.
Never here: smaller tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.eager.modes import no_grad
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.nn.utils.derived import DerivedWeight
from graphc.ops.distances import vector_norm


class PruningMethod(DerivedWeight):
    """A way to choose what is pruned: subclasses say `PRUNING_TYPE` and `compute_mask`.  `apply` is how it is used."""

    what = "prune"
    PRUNING_TYPE = "unstructured"
    _tensor_name = ""

    def __init__(self) -> None:
        super().__init__("")

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The mask for a tensor of which `default_mask` is left.  [...], [...] -> [...] of zeros and ones."""
        raise NotImplementedError

    def apply_mask(self, module: Any) -> Any:
        """What is left of the parameter."""
        mask, orig = getattr(module, self.name + "_mask"), getattr(module, self.name + "_orig")
        return mask.to(orig.dtype) * orig

    compute_weight = apply_mask

    def prune(self, t: Any, default_mask: Any = None, importance_scores: Any = None) -> Any:
        """`t` with what the mask leaves out as zeros."""
        scores = t if importance_scores is None else importance_scores
        mask = Op.table["ones_like"](t) if default_mask is None else default_mask
        return t * self.compute_mask(scores, mask)

    @classmethod
    def apply(cls, module: Any, name: str, *args: Any, importance_scores: Any = None, **kwargs: Any) -> Any:
        """Prune a module's parameter, on top of what is pruned already.  The method that is now at work.

        importance_scores: what to choose by, instead of the parameter.
        """
        method = cls(*args, **kwargs)
        method.name = method._tensor_name = name
        old = next((h for h in module._forward_pre_hooks.values() if isinstance(h, PruningMethod) and h.name == name), None)
        tensor = getattr(module, name)
        like = Op.table["ones_like"]
        before = like(tensor.detach()) if old is None else getattr(module, name + "_mask")
        scores = tensor if importance_scores is None else importance_scores
        if scores.shape != tensor.shape:
            text = f"importance_scores must have the shape {list(tensor.shape)} of parameter {name}, not {list(scores.shape)}"
            raise AssertionError(at_user_line(text))
        with no_grad():
            mask = _combined(method, scores.detach(), before)
        if old is not None:
            old.take_out(module)
            container = PruningContainer(*(old if isinstance(old, PruningContainer) else [old]), method)
            container.name = container._tensor_name = name
            method = container
        else:
            original = module._parameters[name]
            del module._parameters[name]
            module.register_parameter(name + "_orig", original)
        module.register_buffer(name + "_mask", mask)
        method.hook_in(module)
        module.__dict__[name] = method.apply_mask(module)
        return method

    def remove(self, module: Any) -> None:
        """Make the pruned parameter an ordinary one, with its zeros."""
        weight = self.apply_mask(module).detach()
        original = module._parameters[self.name + "_orig"]
        self.take_out(module)
        delattr(module, self.name + "_orig")
        delattr(module, self.name + "_mask")
        original.data = weight
        setattr(module, self.name, original)


BasePruningMethod = PruningMethod  # PyTorch's name


def _combined(method: PruningMethod, t: Any, before: Any) -> Any:
    """The mask of a method that chooses among what is left."""
    if method.PRUNING_TYPE == "unstructured":
        left = before.reshape(-1) == 1
        chosen = method.compute_mask(t.reshape(-1)[left], before.reshape(-1)[left])
        whole = before.clone().reshape(-1)
        whole[left] = chosen.to(whole.dtype)
        return whole.reshape(before.shape)
    if method.PRUNING_TYPE == "structured":
        dim = method.dim % t.ndim  # type: ignore[attr-defined]
        left = before.sum([d for d in range(t.ndim) if d != dim]) != 0
        index = left.nonzero().reshape(-1)
        chosen = method.compute_mask(t.index_select(dim, index), before.index_select(dim, index))
        return before.index_copy(dim, index, chosen.to(before.dtype))
    if method.PRUNING_TYPE == "global":
        return method.compute_mask(t, before)
    raise ValueError(at_user_line(f"Unrecognized PRUNING_TYPE {method.PRUNING_TYPE}"))


class PruningContainer(PruningMethod):
    """Several methods that pruned the same parameter, one after the other."""

    PRUNING_TYPE = "combination"

    def __init__(self, *methods: PruningMethod) -> None:
        super().__init__()
        self._pruning_methods = tuple(methods)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Any:
        return iter(self._pruning_methods)

    def __getitem__(self, index: int) -> PruningMethod:
        return self._pruning_methods[index]

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The mask of the last method, among what is left."""
        return _combined(self._pruning_methods[-1], t, default_mask)


def _count(amount: Any, size: int) -> int:
    """How many of `size` a fraction or a count is.  Raises TypeError, ValueError."""
    if not isinstance(amount, int | float) or isinstance(amount, bool):
        raise TypeError(at_user_line(f"Invalid type for amount: {amount}. Must be int or float."))
    if amount < 0 or (isinstance(amount, float) and amount > 1.0):
        raise ValueError(at_user_line(f"amount={amount} should either be a float in the range [0, 1] or a non-negative integer"))
    if isinstance(amount, float):
        return round(amount * size)
    if amount > size:
        raise ValueError(at_user_line(f"amount={amount} should be smaller than the number of parameters to prune={size}"))
    return amount


class Identity(PruningMethod):
    """Prunes nothing."""

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """What is left already."""
        return default_mask


class RandomUnstructured(PruningMethod):
    """Prunes elements at random.   amount: a fraction, or how many."""

    def __init__(self, amount: Any) -> None:
        super().__init__()
        _count(amount, 1 << 62)
        self.amount = amount

    def _scores(self, t: Any) -> Any:
        return Op.table["zeros_like"](t).uniform_()

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """Zeros for the elements of least score."""
        count = _count(self.amount, t.numel())
        mask = default_mask.clone()
        if count:
            least = Op.table["topk"](self._scores(t).reshape(-1), count, largest=False)[1]
            mask.view(-1)[least] = 0
        return mask


class L1Unstructured(RandomUnstructured):
    """Prunes the elements nearest to 0.   amount: a fraction, or how many."""

    def _scores(self, t: Any) -> Any:
        return t.abs()


class RandomStructured(PruningMethod):
    """Prunes whole slices along `dim` at random.   amount: a fraction, or how many slices."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: Any, dim: int = -1) -> None:
        super().__init__()
        _count(amount, 1 << 62)
        self.amount, self.dim = amount, dim

    def _scores(self, t: Any, dim: int) -> Any:
        return t.new_zeros(t.shape[dim]).uniform_()

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """Zeros for the slices of least score."""
        dim = self.dim % t.ndim
        count = _count(self.amount, t.shape[dim])
        if not count:
            return default_mask
        kept = t.new_ones(t.shape[dim])
        kept[Op.table["topk"](self._scores(t, dim), count, largest=False)[1]] = 0
        return default_mask * kept.reshape([-1 if d == dim else 1 for d in range(t.ndim)])


class LnStructured(RandomStructured):
    """Prunes the slices along `dim` of the least n-norm.   amount: a fraction, or how many slices."""

    def __init__(self, amount: Any, n: Any, dim: int = -1) -> None:
        super().__init__(amount, dim)
        self.n = n

    def _scores(self, t: Any, dim: int) -> Any:
        return vector_norm(t, float(self.n), [d for d in range(t.ndim) if d != dim])


class CustomFromMask(PruningMethod):
    """Prunes what a mask says."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Any) -> None:
        super().__init__()
        self.mask = mask

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The mask, where something is left."""
        return default_mask * self.mask.to(default_mask.dtype)


# ---- as functions --------------------------------------------------------------------------------------------------------------


def identity(module: Any, name: str) -> Any:
    """Prepare a parameter for pruning, and prune nothing.  The module."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Any, name: str, amount: Any) -> Any:
    """Prune elements at random.  The module."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Any, name: str, amount: Any, importance_scores: Any = None) -> Any:
    """Prune the elements nearest to 0.  The module."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: Any, name: str, amount: Any, dim: int) -> Any:
    """Prune slices along `dim` at random.  The module."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(module: Any, name: str, amount: Any, n: Any, dim: int, importance_scores: Any = None) -> Any:
    """Prune the slices along `dim` of the least n-norm.  The module."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Any, name: str, mask: Any) -> Any:
    """Prune what a mask says.  The module."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Any, str]], pruning_method: type[Any], importance_scores: Any = None, **kwargs: Any
) -> None:
    """Prune elements of several parameters as if they were one.   parameters: (module, name) of each.

    importance_scores: by (module, name), what to choose by.   Raises TypeError for a method that is not unstructured.
    """
    listed = list(parameters)
    given = importance_scores or {}
    method = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        text = f'Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. Found method {pruning_method}'
        raise TypeError(at_user_line(text))
    cat = Op.table["cat"]
    with no_grad():
        tensors = [getattr(module, name).detach() for module, name in listed]
        scores = cat([given.get(key, t).detach().reshape(-1) for key, t in zip(listed, tensors, strict=True)])
        ones = Op.table["ones_like"]
        masks = [getattr(m, n + "_mask", ones(t)).reshape(-1) for (m, n), t in zip(listed, tensors, strict=True)]
        whole = _combined(method, scores, cat(masks))
    start = 0
    for (module, name), t in zip(listed, tensors, strict=True):
        custom_from_mask(module, name, whole[start : start + t.numel()].reshape(t.shape))
        start += t.numel()


def remove(module: Any, name: str) -> Any:
    """Make a pruned parameter an ordinary one, with its zeros.  The module.  Raises ValueError where it is not pruned."""
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, PruningMethod) and hook.name == name:
            hook.remove(module)
            return module
    raise ValueError(at_user_line(f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed"))


def is_pruned(module: Any) -> bool:
    """Whether anything in a module is pruned."""
    return any(isinstance(hook, PruningMethod) for m in module.modules() for hook in m._forward_pre_hooks.values())


__all__ = [
    "BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured", "PruningContainer",
    "RandomStructured", "RandomUnstructured", "custom_from_mask", "global_unstructured", "identity", "is_pruned",
    "l1_unstructured", "ln_structured", "random_structured", "random_unstructured", "remove",
]  # fmt: skip
