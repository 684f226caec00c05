"""`LBFGS`: Newton's method with a curvature guessed from the last steps.

Enters: a closure that computes the loss and gradients anew.  Leaves: parameters, changed in place.
Never here: a compiled step; what to do next depends on the loss, so the steps run eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from graphc.eager.modes import enable_grad, modes, no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line
from graphc.ir.op import Op
from graphc.optim.optimizer import Optimizer, ParameterGroup
from graphc.optim.rules import check_rate

Closure = Callable[[], Any]
_LEAST_CURVATURE = 1e-10


class LBFGS(Optimizer):
    """Limited-memory BFGS, in PyTorch's form: one group of parameters, several evaluations of the closure a step.

    line_search_fn: None, for steps of length `lr`, or ``"strong_wolfe"``.   max_eval: 1.25 times `max_iter` if None.
    Raises ValueError for a negative rate and for more than one group.
    Source: Nocedal and Wright 2006, Numerical optimization, algorithms 7.4, 7.5, 3.5 and 3.6.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        check_rate(lr)
        defaults = {
            "lr": lr, "max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change, "history_size": history_size,
            "line_search_fn": line_search_fn,
        }  # fmt: skip
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError(at_user_line("LBFGS doesn't support per-parameter options (parameter groups)"))

    @property
    def _params(self) -> list[Any]:
        return self.param_groups[0]["params"]  # type: ignore[no-any-return]

    @no_grad()
    def step(self, closure: Closure) -> Any:  # type: ignore[override]  # a step without a closure has no meaning
        """Up to `max_iter` iterations.  Gives what the first call of `closure` returned.

        Raises RuntimeError for an unknown line search, TraceError in a trace: its state is kept in Python.
        """
        if modes.tracer is not None:
            raise TraceError(at_user_line("LBFGS keeps state in Python, which cannot be traced"))
        evaluate = enable_grad()(closure)
        group, state = self.param_groups[0], self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first = evaluate()
        state["func_evals"] += 1
        gradient = self._gradient()
        if _largest(gradient) > group["tolerance_grad"]:
            self._iterate(group, state, evaluate, float(first), gradient)
        return first

    def _iterate(self, group: ParameterGroup, state: dict[str, Any], evaluate: Closure, loss: float, gradient: Any) -> None:
        """Iterations until one of the limits or tolerances of `group` is reached."""
        lr, tolerance = float(group["lr"]), group["tolerance_change"]
        evaluations, ends = 1, False
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = _direction(state, gradient, group["history_size"])
            length = lr
            if state["n_iter"] == 1:
                length *= min(1.0, 1.0 / gradient.abs().sum().item())
            state.update(d=direction, t=length, prev_flat_grad=gradient, prev_loss=loss)
            before, slope = loss, _dot(gradient, direction)
            if slope > -tolerance:
                break
            if group["line_search_fn"] is not None:
                if group["line_search_fn"] != "strong_wolfe":
                    raise RuntimeError(at_user_line("only 'strong_wolfe' is supported"))
                search = _Search(self._along(evaluate, direction), direction, _Point(0.0, loss, gradient, slope))
                found = search.run(length)
                length, loss, gradient, evaluated = found.length, found.loss, found.gradient, search.evaluations
                self._move(length, direction)
            else:
                self._move(length, direction)
                evaluated = 0
                if iteration < group["max_iter"]:
                    loss, gradient, evaluated = float(evaluate()), self._gradient(), 1
            ends = _largest(gradient) <= group["tolerance_grad"]
            state["t"] = length
            evaluations += evaluated
            state["func_evals"] += evaluated
            ends = ends or evaluations >= group["max_eval"] or _largest(direction * length) <= tolerance
            if ends or abs(loss - before) < tolerance:
                break

    # ---- parameters and gradients as one vector

    def _gradient(self) -> Any:
        parts = [Op.table["zeros_like"](p) if p.grad is None else p.grad for p in self._params]
        return Op.table["cat"]([_as_real(x).reshape(-1) for x in parts], 0)

    def _move(self, length: float, direction: Any) -> None:
        at = 0
        for p in self._params:
            real = _as_real(p)
            real.add_(direction[at : at + real.numel()].reshape(real.shape), alpha=length)
            at += real.numel()

    def _along(self, evaluate: Closure, direction: Any) -> Callable[[float], _Point]:
        """The loss and gradient at a length along `direction`; the parameters stay where they are now."""
        held = [p.clone() for p in self._params]

        def at(length: float) -> _Point:
            self._move(length, direction)
            loss, gradient = float(evaluate()), self._gradient()
            for p, value in zip(self._params, held, strict=True):
                p.copy_(value)
            return _Point(length, loss, gradient, _dot(gradient, direction))

        return at


def _as_real(x: Any) -> Any:
    return Op.table["view_as_real"](x) if x.dtype.kind == "c" else x


def _dot(x: Any, y: Any) -> float:
    return (x * y).sum().item()  # type: ignore[no-any-return]


def _largest(x: Any) -> float:
    return x.abs().max().item()  # type: ignore[no-any-return]


def _direction(state: dict[str, Any], gradient: Any, history: int) -> Any:
    """Where to go: minus the gradient, times the inverse of the curvature that the last steps showed."""
    if state["n_iter"] == 1:
        state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
        return -gradient
    change, step = gradient - state["prev_flat_grad"], state["d"] * float(state["t"])
    curvature = (change * step).sum()
    if curvature.item() > _LEAST_CURVATURE:
        for kept, new in (("old_dirs", change), ("old_stps", step), ("ro", 1.0 / curvature)):
            if len(state[kept]) == history:
                state[kept].pop(0)
            state[kept].append(new)
        state["H_diag"] = curvature / (change * change).sum()
    if state.get("al") is None:
        state["al"] = [None] * history
    pairs = list(zip(state["old_dirs"], state["old_stps"], state["ro"], strict=True))
    q = -gradient
    for i in reversed(range(len(pairs))):
        change, step, ro = pairs[i]
        state["al"][i] = (step * q).sum() * ro
        q = q - change * state["al"][i]
    q = q * state["H_diag"]
    for i, (change, step, ro) in enumerate(pairs):
        q = q + step * (state["al"][i] - (change * q).sum() * ro)
    return q


# ---- the line search ---------------------------------------------------------------------------------------------------


class _Point(NamedTuple):
    """A length along the direction, the loss and gradient there, and the gradient along the direction."""

    length: float
    loss: float
    gradient: Tensor
    slope: float


class _Search:
    """A length that satisfies the strong Wolfe conditions: first two lengths around one, then narrower.

    at: evaluates a length.   start: length 0.   evaluations: how many there were.
    """

    DECREASE, CURVATURE = 1e-4, 0.9
    TOLERANCE, MOST = 1e-9, 25

    def __init__(self, at: Callable[[float], _Point], direction: Any, start: _Point) -> None:
        self.at, self.start, self.scale = at, start, _largest(direction)
        self.evaluations = self.iterations = 0

    def evaluate(self, length: float) -> _Point:
        self.evaluations += 1
        return self.at(length)

    def run(self, length: float) -> _Point:
        """The best point found, starting from a length."""
        around = self.bracket(length)
        return around[0] if len(around) == 1 else self.narrowed(around)

    def too_high(self, point: _Point) -> bool:
        return point.loss > self.start.loss + self.DECREASE * point.length * self.start.slope

    def is_flat(self, point: _Point) -> bool:
        return abs(point.slope) <= -self.CURVATURE * self.start.slope

    def bracket(self, length: float) -> list[_Point]:
        """A point that will do, or two with one between them."""
        before, point = self.start, self.evaluate(length)
        while self.iterations < self.MOST:
            if self.too_high(point) or (self.iterations > 1 and point.loss >= before.loss):
                return [before, point]
            if self.is_flat(point):
                return [point]
            if point.slope >= 0:
                return [before, point]
            least, most = point.length + 0.01 * (point.length - before.length), point.length * 10
            before, point = point, self.evaluate(_lowest(before, point, least, most))
            self.iterations += 1
        return [self.start, point]

    def narrowed(self, around: list[_Point]) -> _Point:
        """The better end of a bracket, made narrower until that will do."""
        low, high = sorted(around, key=lambda point: point.loss)
        stuck = False
        while self.iterations < self.MOST and abs(high.length - low.length) * self.scale >= self.TOLERANCE:
            first, last = sorted((low.length, high.length))
            length = _lowest(low, high, first, last)
            margin = 0.1 * (last - first)
            close = min(last - length, length - first) < margin
            if close and (stuck or length >= last or length <= first):
                length = last - margin if abs(length - last) < abs(length - first) else first + margin
                close = False
            stuck = close
            point = self.evaluate(length)
            self.iterations += 1
            if self.too_high(point) or point.loss >= low.loss:
                low, high = sorted((low, point), key=lambda end: end.loss)
                continue
            if self.is_flat(point):
                return point
            if point.slope * (high.length - low.length) >= 0:
                high = low
            low = point
        return low


def _lowest(a: _Point, b: _Point, least: float, most: float) -> float:
    """The length between `least` and `most` where the cubic through two points, with their slopes, is lowest."""
    if a.length > b.length:
        a, b = b, a
    mean = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.length - b.length)
    square = mean * mean - a.slope * b.slope
    if square < 0:
        return (least + most) / 2
    root = float(square) ** 0.5
    length = b.length - (b.length - a.length) * ((b.slope + root - mean) / (b.slope - a.slope + 2 * root))
    return min(max(length, least), most)
