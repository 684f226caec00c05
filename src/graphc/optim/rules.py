"""`RuleOptimizer`: a step whose rule is a function of one parameter's elements, its gradient's and its state's.

`WholeOptimizer`: a step whose rule is of other kinds.

Enters: a rule, written once in public operators.  Leaves: parameters and state, changed in place.
Never here: a particular rule; how a rule runs over many parameters at once (`batches`).

An eager step compiles the rule and runs it over all parameters; a traced step, and one that is differentiated, runs its operators.
Both give the same bits.  Numbers that may change between steps enter as tensors (`Number`), counts and averages are state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc.dtypes import DType, float64
from graphc.eager.creation import host_scalar
from graphc.eager.modes import modes, no_grad, set_grad_enabled
from graphc.eager.tensor import Tensor, wrap
from graphc.errors import at_user_line
from graphc.ir.op import Op, casting
from graphc.optim.batches import Batches
from graphc.optim.optimizer import Optimizer, ParameterGroup, evaluated, step_dtype

Number = Callable[..., Any]  # number("lr"), number("betas", 0): a hyperparameter as a float64 tensor without dims


class Kept(NamedTuple):
    """A tensor of the state when it is new.   whole: with the parameter's shape and dtype, else without dims."""

    whole: bool = True
    value: float = 0.0


COUNT = Kept(whole=False)
ZEROS = Kept()


class RuleOptimizer(Optimizer):
    """An optimizer that changes every parameter by the same rule, element by element."""

    _batches: Batches | None = None

    # ---- what a rule says

    def kept(self, group: ParameterGroup) -> dict[str, Kept]:
        """The tensors kept for each parameter, by name."""
        return {}

    def rule(self, group: Mapping[str, Any], number: Number, p: Any, grad: Any, state: dict[str, Any]) -> Any:
        """The new value of `p`; entries of `state` are replaced by new ones.  All are real, 16-bit floats are float32 here.

        Which operators run depends on the group's hyperparameters only through their truth.
        Raises NotImplementedError where a subclass does not say.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update rule")

    # ---- steps

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient.  Gives what `closure`, which computes gradients anew, returned."""
        loss = evaluated(closure)
        with set_grad_enabled(bool(self.defaults.get("differentiable"))):
            for group in self.param_groups:
                if modes.tracer is not None or modes.readers or modes.grad or not self._batched().step(self, group):
                    self.step_plainly(group)
        return loss

    def _batched(self) -> Batches:
        if self._batches is None:
            self._batches = Batches()
        return self._batches

    def step_plainly(self, group: ParameterGroup) -> None:
        """One step of a group, operator by operator: what a batch of its parameters compiles."""
        number = Numbers(group)
        for p in group["params"]:
            grad = p.grad
            if grad is not None:
                kept = self.state_of(group, p)
                self.apply(group, number, tuple(kept), [_as_real(x) for x in (p, grad, *kept.values())])

    def apply(self, group: ParameterGroup, number: Number, names: Sequence[str], tensors: Sequence[Any]) -> None:
        """The rule on a parameter, its gradient and its state (called `names`), which are written to."""
        p, grad, *kept = tensors
        was = [x.to(x.dtype.compute) for x in kept]
        state = dict(zip(names, was, strict=True))
        change = grad.to(grad.dtype.compute)
        if group.get("maximize"):
            change = -change
        with casting(None):  # a step is what it is, whatever autocast says
            p.copy_(self.rule(dict(group), number, p.to(p.dtype.compute), change, state))
        for x, before, after in zip(kept, was, state.values(), strict=True):
            if after is not before:
                x.copy_(after)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._batches = None

    # ---- state

    def places(self, group: ParameterGroup, p: Any) -> list[tuple[dict[str, Any], str, Kept]]:
        """For each tensor that the rule keeps for `p`: the dict it is in, its name there, and what it is when it is new."""
        kept = self.kept(group)
        return [(self.state[p], name, how) for name, how in kept.items()]

    def state_of(self, group: ParameterGroup, p: Any) -> dict[str, Any]:
        """The tensors that the rule reads and writes for `p`; those that are not there yet are made."""
        found = {}
        for holder, name, kept in self.places(group, p):
            if holder.get(name) is None:
                holder[name] = filled(kept, p)
            found[name] = holder[name]
        return found

    def initialize_state(self) -> None:
        """Create now the state that the first step would create."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.requires_grad:
                    self.state_of(group, p)

    def loaded(self, p: Any, group: Mapping[str, Any], name: str, value: Any) -> Any:
        """As `Optimizer.loaded`.  Raises ValueError for another shape than none and that of `p`."""
        made = super().loaded(p, group, name, value)
        if isinstance(made, Tensor) and tuple(made.shape) not in ((), tuple(p.shape)):
            shapes = f"has shape {list(made.shape)}, the parameter needs {list(p.shape)}"
            raise ValueError(at_user_line(f"loaded state '{name}' {shapes}"))
        return made


def filled(kept: Kept, p: Any) -> Tensor:
    """A new part of the state of `p`, in memory also while a step is traced: state outlives the trace."""
    dtype: DType = p.dtype if kept.whole else step_dtype()
    value = complex(kept.value, kept.value) if dtype.kind == "c" else kept.value
    return wrap(np.full(tuple(p.shape) if kept.whole else (), value, dtype.numpy), dtype)


def _as_real(x: Any) -> Any:
    """Complex numbers as pairs."""
    return Op.table["view_as_real"](x) if x.dtype.kind == "c" else x


def hyperparameter(group: ParameterGroup, name: str, index: int | None = None) -> Any:
    """A number or tensor of a group, as it is now."""
    value = group.live(name)
    return value if index is None else value[index]


class Hyperparameter:
    """A number of a group, asked for at every call."""

    __slots__ = ("group", "index", "name")

    def __init__(self, group: ParameterGroup, name: str, index: int | None) -> None:
        self.group, self.name, self.index = group, name, index

    def __call__(self) -> float:
        return float(hyperparameter(self.group, self.name, self.index))


class Numbers:
    """Hyperparameters as tensors: a compiled step reads numbers anew at every call; a tensor stays one."""

    def __init__(self, group: ParameterGroup) -> None:
        self.group = group
        self.made: dict[tuple[str, int | None], Any] = {}

    def __call__(self, name: str, index: int | None = None) -> Any:
        if (name, index) not in self.made:
            value = hyperparameter(self.group, name, index)
            if isinstance(value, Tensor):
                number = value.to(float64).reshape(())  # type: ignore[attr-defined]
            else:
                number = host_scalar(Hyperparameter(self.group, name, index), float64)
            self.made[name, index] = number
        return self.made[name, index]


class WholeOptimizer(Optimizer):
    """An optimizer whose rule looks at all elements of a parameter at once: it runs operator by operator."""

    def change(self, group: ParameterGroup, number: Numbers, p: Any, grad: Any) -> None:
        """Write to a real parameter and its state.  Raises NotImplementedError where a subclass does not say how."""
        raise NotImplementedError(f"{type(self).__name__} has no update rule")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient.  Raises RuntimeError for complex parameters, before anything is changed."""
        loss = evaluated(closure)
        if any(p.grad is not None and p.dtype.kind == "c" for group in self.param_groups for p in group["params"]):
            raise RuntimeError(at_user_line(f"{type(self).__name__} does not support complex parameters"))
        with no_grad(), casting(None):
            for group in self.param_groups:
                number = Numbers(group)
                for p in group["params"]:
                    grad = p.grad
                    if grad is not None:
                        self.change(group, number, p, grad)
        return loss


# ---- what the checks of several optimizers share -----------------------------------------------------------------------


def check_rate(lr: Any) -> None:
    """Raise ValueError for a rate below 0 or a tensor of several."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(at_user_line("Tensor lr must be 1-element"))
    check_positive(("learning rate", lr))


def check_positive(*named: tuple[str, Any]) -> None:
    """Raise ValueError for a value below 0."""
    for name, value in named:
        if not value >= 0.0:
            raise ValueError(at_user_line(f"Invalid {name}: {value}"))


def check_betas(betas: Sequence[Any]) -> None:
    """Raise ValueError for a beta outside [0, 1)."""
    for i, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise ValueError(at_user_line(f"Invalid beta parameter at index {i}: {beta}"))


def check_fused(fused: Any, foreach: Any, differentiable: bool) -> None:
    """Raise RuntimeError for ways to run that exclude each other.  Every eager step is fused, whatever is asked for."""
    if fused and differentiable:
        raise RuntimeError(at_user_line("`fused` does not support `differentiable`"))
    if fused and foreach:
        raise RuntimeError(at_user_line("`fused` and `foreach` cannot be `True` together."))
