"""`SparseAdam`: PyTorch's name for Adam on sparse gradients, which do not exist here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from graphc.errors import at_user_line
from graphc.optim.optimizer import Optimizer, evaluated
from graphc.optim.rules import check_betas, check_rate


class SparseAdam(Optimizer):
    """Refuses dense gradients as PyTorch's does; as all gradients here are dense, its steps do nothing or raise.

    Raises ValueError for hyperparameters out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        check_rate(lr)
        for name, value in (("learning rate", lr), ("epsilon value", eps)):
            if not value > 0.0:
                raise ValueError(at_user_line(f"Invalid {name}: {value}"))
        check_betas(betas)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """What `closure` returned.  Raises RuntimeError for a parameter with a gradient, which is dense."""
        loss = evaluated(closure)
        if any(p.grad is not None for group in self.param_groups for p in group["params"]):
            raise RuntimeError(at_user_line("SparseAdam does not support dense gradients, please consider Adam instead"))
        return loss
