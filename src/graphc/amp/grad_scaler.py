"""`GradScaler`: losses times a number that keeps 16-bit gradients from vanishing, and steps left out where gradients overflow.

Enters: losses, optimizers.  Leaves: scaled losses, steps.  Never here: dtypes of operators (`autocast_mode`).

In traced code nothing is known of gradients, so a step is taken and taken back where one was not finite.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import numpy as np

from graphc.dtypes import DType, float16, float32, float64, int32
from graphc.eager.modes import modes, no_grad
from graphc.eager.tensor import Tensor, wrap
from graphc.errors import at_user_line, warn
from graphc.ir.op import Op


class OptState(Enum):
    """What has been done for an optimizer since the last `update`."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


def _fresh_state() -> dict[str, Any]:
    return {"stage": OptState.READY, "found_inf_per_device": {}}


def _number(value: float, dtype: DType) -> Any:
    """A 0-d tensor in memory, also while a step is traced: it outlives the trace."""
    return wrap(np.asarray(value, dtype.numpy), dtype)


class GradScaler:
    """Scales losses, and optimizers' gradients back; leaves out steps whose gradients are not finite, and then scales less.

    device: ``cuda`` warns and switches off, for there is none.   init_scale: the first scale.   growth_factor, growth_interval:
    after so many steps in a row the scale is multiplied.   backoff_factor: by which it is after a step left out.
    Raises AssertionError for a growth factor of 1 or less and a backoff factor of 1 or more.
    Source: Micikevicius et al. 2018, Mixed precision training.
    """

    _scale: Any
    _growth_tracker: Any

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._device, self._enabled = device, enabled
        if device == "cuda" and enabled:
            warn("graphc.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling.", UserWarning)
            self._enabled = False
        if not self._enabled:
            return
        if not growth_factor > 1.0:
            raise AssertionError("The growth factor must be > 1.0.")
        if not backoff_factor < 1.0:
            raise AssertionError("The backoff factor must be < 1.0.")
        self._init_scale, self._scale = init_scale, None
        self._growth_factor, self._backoff_factor, self._growth_interval = growth_factor, backoff_factor, growth_interval
        self._init_growth_tracker, self._growth_tracker = 0, None
        self._per_optimizer_states: defaultdict[int, dict[str, Any]] = defaultdict(_fresh_state)

    def _begin(self) -> None:
        if self._scale is None:
            self._scale = _number(self._init_scale, float32)
            self._growth_tracker = _number(self._init_growth_tracker, int32)

    def _begun(self, name: str) -> Any:
        """The scale.  Raises AssertionError before the first `scale`."""
        if self._scale is None:
            tail = "This may indicate your script did not use scaler.scale(loss or outputs) earlier in the iteration."
            raise AssertionError(f"Attempted {name} but _scale is None.  {tail}")
        return self._scale

    # ---- a step

    def scale(self, outputs: Any) -> Any:
        """A tensor, or tensors in lists and tuples, times the scale.  Raises ValueError for anything else."""
        if not self._enabled:
            return outputs
        self._begin()
        if isinstance(outputs, Tensor):
            return outputs * self._scale  # type: ignore[operator]
        if not isinstance(outputs, Iterable):
            raise ValueError(at_user_line("outputs must be a Tensor or an iterable of Tensors"))
        scaled = map(self.scale, outputs)
        return type(outputs)(scaled) if isinstance(outputs, list | tuple) else scaled  # type: ignore[call-arg]

    def unscale_(self, optimizer: Any) -> None:
        """Divide an optimizer's gradients by the scale, so that they can be clipped before `step`.

        Raises RuntimeError where that was done since the last `update`, ValueError for float16 gradients.
        """
        if not self._enabled:
            return
        scale = self._begun("unscale_")
        state = self._per_optimizer_states[id(optimizer)]
        if state["stage"] is OptState.UNSCALED:
            raise RuntimeError(at_user_line("unscale_() has already been called on this optimizer since the last update()."))
        if state["stage"] is OptState.STEPPED:
            raise RuntimeError(at_user_line("unscale_() is being called after step()."))
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if any(g.dtype is float16 for g in gradients):
            raise ValueError(at_user_line("Attempting to unscale FP16 gradients."))
        with no_grad():
            inverse = scale.to(float64).reciprocal().to(float32)
            if gradients:
                # x - x is 0, or NaN where x is not finite, and so is the sum
                checks = [(g - g).sum().to(float32) for g in gradients]
                state["found_inf_per_device"] = {"cpu": Op.table["stack"](checks).sum().isnan().to(float32)}
            for g in gradients:
                g.mul_(inverse.to(g.dtype))
        state["stage"] = OptState.UNSCALED

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """The optimizer's step, or nothing where a gradient is not finite; gives what the step returns.

        Raises RuntimeError for a second call since the last `update` and for a closure, AssertionError without gradients.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError(at_user_line("Closure use is not currently supported if GradScaler is enabled."))
        self._begun("step")
        state = self._per_optimizer_states[id(optimizer)]
        if state["stage"] is OptState.STEPPED:
            raise RuntimeError(at_user_line("step() has already been called since the last update()."))
        if state["stage"] is OptState.READY:
            self.unscale_(optimizer)
        found = list(state["found_inf_per_device"].values())
        if not found:
            raise AssertionError("No inf checks were recorded for this optimizer.")
        result = None
        if modes.tracer is not None:
            _step_or_not(optimizer, found[0] != 0, args, kwargs)
        elif not sum(value.item() for value in found):
            result = optimizer.step(*args, **kwargs)
        state["stage"] = OptState.STEPPED
        return result

    def update(self, new_scale: Any = None) -> None:
        """Less scale where a step was left out, more after many steps in a row, or `new_scale`; call it once after every step.

        Raises AssertionError where no step came before.
        """
        if not self._enabled:
            return
        scale = self._begun("update")
        with no_grad():
            if new_scale is not None:
                scale.copy_(new_scale) if isinstance(new_scale, Tensor) else scale.fill_(new_scale)
            else:
                found = [x for state in self._per_optimizer_states.values() for x in state["found_inf_per_device"].values()]
                if not found:
                    raise AssertionError("No inf checks were recorded prior to update.")
                self._move(Op.table["stack"](found).sum() != 0)
        self._per_optimizer_states = defaultdict(_fresh_state)

    def _move(self, found: Any) -> None:
        """The next scale and count."""
        where, scale, count = Op.table["where"], self._scale, self._growth_tracker
        grown, counted = scale * self._growth_factor, count + 1
        grows = counted == self._growth_interval
        next_scale = where(grows & grown.isfinite(), grown, scale)
        scale.copy_(where(found, scale * self._backoff_factor, next_scale))
        count.copy_(where(found | grows, 0, counted))

    # ---- what it holds

    def _get_scale_async(self) -> Any:
        return self._scale

    def get_scale(self) -> float:
        """The scale now; 1 of a scaler that is switched off."""
        if not self._enabled:
            return 1.0
        return self._init_scale if self._scale is None else self._scale.item()

    def get_growth_factor(self) -> float:
        """By what the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Change by what the scale grows."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """By what the scale is multiplied after a step left out."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Change by what the scale is multiplied after a step left out."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many steps in a row the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Change after how many steps in a row the scale grows."""
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        if not self._enabled:
            return 0
        return self._init_growth_tracker if self._growth_tracker is None else self._growth_tracker.item()

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """The scale, its factors and the count of steps, as numbers; nothing of a scaler that is switched off."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, here or in PyTorch.  Raises RuntimeError for an empty one."""
        if not self._enabled:
            return
        if not state_dict:
            message = "The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler."
            raise RuntimeError(at_user_line(message))
        self._init_scale, self._init_growth_tracker = state_dict["scale"], state_dict["_growth_tracker"]
        self._growth_factor, self._backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        if self._scale is not None:
            self._scale.fill_(self._init_scale)
            self._growth_tracker.fill_(self._init_growth_tracker)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if self._enabled:
            if self._per_optimizer_states:
                message = "A GradScaler instance may only be pickled at the beginning of an iteration, or at the end after"
                raise AssertionError(f"{message} scaler.update().")
            state["_init_scale"], state["_init_growth_tracker"] = self.get_scale(), self._get_growth_tracker()
            state["_scale"] = state["_growth_tracker"] = None
        return state


def _step_or_not(optimizer: Any, found: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """In traced code: the step, and back to what was where `found`."""
    optimizer.initialize_state()
    members = [p for group in optimizer.param_groups for p in group["params"]]
    held = [*members, *(x for p in members for x in optimizer.state.get(p, {}).values() if isinstance(x, Tensor))]
    with no_grad():
        before = [x.clone() for x in held]  # type: ignore[attr-defined]
        optimizer.step(*args, **kwargs)
        for x, old in zip(held, before, strict=True):
            x.copy_(Op.table["where"](found, old, x))  # type: ignore[attr-defined]


__all__ = ["GradScaler", "OptState"]
