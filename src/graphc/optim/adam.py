"""Steps scaled by averages of gradients and of their squares: `Adam`, `AdamW`, `Adamax`, `NAdam` and `RAdam`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphc.dtypes import float64
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.optim.optimizer import ParameterGroup
from graphc.optim.rules import COUNT, ZEROS, Kept, Number, RuleOptimizer, check_betas, check_fused, check_positive, check_rate

Betas = tuple[Any, Any]


def _check(lr: Any, eps: float, betas: Sequence[Any], weight_decay: float) -> None:
    check_rate(lr)
    check_positive(("epsilon value", eps))
    check_betas(betas)
    check_positive(("weight_decay value", weight_decay))


def _counted(state: dict[str, Any]) -> Any:
    """The number of this step, from 1, in float64."""
    state["step"] = state["step"] + 1
    return state["step"].to(float64)


def _decayed(group: Mapping[str, Any], number: Number, p: Any, grad: Any) -> tuple[Any, Any]:
    """Parameter and gradient after weight decay: of the one or added to the other."""
    if not group["weight_decay"]:
        return p, grad
    if group["decoupled_weight_decay"]:
        return p * (1 - number("lr") * number("weight_decay")).to(p.dtype), grad
    return p, grad + p * number("weight_decay").to(p.dtype)


def _averages(number: Number, grad: Any, state: dict[str, Any]) -> tuple[Any, Any]:
    """The moving averages of gradients and of their squares."""
    beta1, beta2, dtype = number("betas", 0), number("betas", 1), grad.dtype
    average, square = state["exp_avg"], state["exp_avg_sq"]
    average = state["exp_avg"] = average + (grad - average) * (1 - beta1).to(dtype)
    square = state["exp_avg_sq"] = square * beta2.to(dtype) + grad * grad * (1 - beta2).to(dtype)
    return average, square


class Adam(RuleOptimizer):
    """Adam in PyTorch's form; weight decay is added to the gradient, or shrinks parameters (`decoupled_weight_decay`).

    Raises ValueError for hyperparameters out of range.
    Source: Kingma and Ba 2015, Adam: a method for stochastic optimization; amsgrad: Reddi et al. 2018.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        if isinstance(lr, Tensor) and foreach and not capturable:
            raise ValueError(at_user_line("lr as a Tensor is not supported for capturable=False and foreach=True"))
        _check(lr, eps, betas, weight_decay)
        if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
            raise ValueError(at_user_line("betas must be either both floats or both Tensors"))
        check_fused(fused, foreach, differentiable)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "maximize": maximize,
            "foreach": foreach, "capturable": capturable, "differentiable": differentiable, "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, defaults)

    def kept(self, group: ParameterGroup) -> dict[str, Kept]:
        """A count, the average of gradients, that of their squares, and with amsgrad the greatest of the latter."""
        names = {"step": COUNT, "exp_avg": ZEROS, "exp_avg_sq": ZEROS}
        return {**names, "max_exp_avg_sq": ZEROS} if group.live("amsgrad") else names

    def rule(self, group: Mapping[str, Any], number: Number, p: Any, grad: Any, state: dict[str, Any]) -> Any:
        """p -= lr / (1 - beta1^t) * average / (sqrt(square / (1 - beta2^t)) + eps)."""
        dtype, count = p.dtype, _counted(state)
        step_size = (number("lr") / (1 - number("betas", 0) ** count)).to(dtype)
        correction = (1 - number("betas", 1) ** count).sqrt().to(dtype)
        p, grad = _decayed(group, number, p, grad)
        average, square = _averages(number, grad, state)
        if group["amsgrad"]:
            square = state["max_exp_avg_sq"] = Op.table["maximum"](state["max_exp_avg_sq"], square)
        return p - average / (square.sqrt() / correction + number("eps").to(dtype)) * step_size


class AdamW(Adam):
    """Adam whose weight decay shrinks parameters instead of being added to gradients.

    Source: Loshchilov and Hutter 2019, Decoupled weight decay regularization.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
        )  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Weight decay is decoupled, whatever was loaded."""
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True


class Adamax(RuleOptimizer):
    """Adam with the greatest gradient instead of the average of squares.

    Raises ValueError for hyperparameters out of range.
    Source: Kingma and Ba 2015, Adam: a method for stochastic optimization, section 7.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        _check(lr, eps, betas, weight_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def kept(self, group: ParameterGroup) -> dict[str, Kept]:
        """A count, the average of gradients, and the greatest of them, which decays."""
        return {"step": COUNT, "exp_avg": ZEROS, "exp_inf": ZEROS}

    def rule(self, group: Mapping[str, Any], number: Number, p: Any, grad: Any, state: dict[str, Any]) -> Any:
        """p -= lr / (1 - beta1^t) * average / greatest."""
        dtype, count = p.dtype, _counted(state)
        if group["weight_decay"]:
            grad = grad + p * number("weight_decay").to(dtype)
        average = state["exp_avg"] + (grad - state["exp_avg"]) * (1 - number("betas", 0)).to(dtype)
        greatest = Op.table["maximum"](state["exp_inf"] * number("betas", 1).to(dtype), grad.abs() + number("eps").to(dtype))
        state["exp_avg"], state["exp_inf"] = average, greatest
        return p - average / greatest * (number("lr") / (1 - number("betas", 0) ** count)).to(dtype)


class NAdam(RuleOptimizer):
    """Adam with Nesterov's momentum.

    Raises ValueError for hyperparameters out of range.
    Source: Dozat 2016, Incorporating Nesterov momentum into Adam.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        _check(lr, eps, betas, weight_decay)
        check_positive(("momentum_decay value", momentum_decay))
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def kept(self, group: ParameterGroup) -> dict[str, Kept]:
        """A count, the product of momenta so far, and the averages of gradients and of their squares."""
        return {"step": COUNT, "mu_product": Kept(whole=False, value=1.0), "exp_avg": ZEROS, "exp_avg_sq": ZEROS}

    def rule(self, group: Mapping[str, Any], number: Number, p: Any, grad: Any, state: dict[str, Any]) -> Any:
        """p -= (a * grad + b * average) / (sqrt(square / (1 - beta2^t)) + eps), where momenta give a and b."""
        dtype, count = p.dtype, _counted(state)
        lr, beta1, fall = number("lr"), number("betas", 0), number("momentum_decay")
        now, after = (beta1 * (1 - 0.5 * 0.96 ** (t * fall)) for t in (count, count + 1))
        state["mu_product"] = state["mu_product"] * now.to(state["mu_product"].dtype)
        product = state["mu_product"].to(float64)
        p, grad = _decayed(group, number, p, grad)
        average, square = _averages(number, grad, state)
        scale = (square / (1 - number("betas", 1) ** count).to(dtype)).sqrt() + number("eps").to(dtype)
        p = p - grad / scale * (lr * (1 - now) / (1 - product)).to(dtype)
        return p - average / scale * (lr * after / (1 - product * after)).to(dtype)


class RAdam(RuleOptimizer):
    """Adam whose first steps, while the variance of their scale is not known, are not scaled.

    Raises ValueError for hyperparameters out of range.
    Source: Liu et al. 2020, On the variance of the adaptive learning rate and beyond.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        _check(lr, eps, betas, weight_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    def kept(self, group: ParameterGroup) -> dict[str, Kept]:
        """A count, and the averages of gradients and of their squares."""
        return {"step": COUNT, "exp_avg": ZEROS, "exp_avg_sq": ZEROS}

    def rule(self, group: Mapping[str, Any], number: Number, p: Any, grad: Any, state: dict[str, Any]) -> Any:
        """p -= lr * average / (1 - beta1^t) * (r * sqrt(1 - beta2^t) / (sqrt(square) + eps), or 1 in the first steps)."""
        dtype, count = p.dtype, _counted(state)
        beta2, where = number("betas", 1), Op.table["where"]
        power = beta2**count
        most = 2 / (1 - beta2) - 1
        length = most - 2 * count * power / (1 - power)
        known = length > 5
        length = where(known, length, 6.0)  # any length that has a root
        root = ((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)).sqrt()
        step_size = (number("lr") / (1 - number("betas", 0) ** count)).to(dtype)
        p, grad = _decayed(group, number, p, grad)
        average, square = _averages(number, grad, state)
        scaled = (root * (1 - power).sqrt()).to(dtype) / (square.sqrt() + number("eps").to(dtype))
        return p - average * step_size * where(known, scaled, 1.0)
