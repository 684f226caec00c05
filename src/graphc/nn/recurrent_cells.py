"""Recurrent cells as modules: one step of RNN, LSTM or GRU.

Enters: an input [N, I] or [I], states [N, H] or [H].  Leaves: the next states.  Never here: sequences (`recurrent`).
"""

from __future__ import annotations

import math
from typing import Any

from graphc.dtypes import DType
from graphc.eager.creation import empty, zeros
from graphc.eager.recurrence import Weights, cell_step
from graphc.errors import at_user_line
from graphc.nn import init
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter


class RecurrentCell(Module):
    """What RNNCell, LSTMCell and GRUCell are: PyTorch's ``RNNCellBase``.  num_chunks: blocks of hidden_size rows in a weight."""

    bias_ih: Any
    bias_hh: Any

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows, how = num_chunks * hidden_size, {"device": device, "dtype": dtype}
        self.weight_ih = Parameter(empty(rows, input_size, **how))
        self.weight_hh = Parameter(empty(rows, hidden_size, **how))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(rows, **how)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All uniform in ±1/sqrt(hidden_size)."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0.0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _step(self, kind: str, input: Any, states: tuple[Any, ...] | None, shown: tuple[str, ...]) -> tuple[Any, ...]:
        """The next states; checks what PyTorch checks.  Raises ValueError for wrong ranks, RuntimeError for wrong sizes."""
        name = type(self).__name__
        _check_rank(name, "input", input)
        for h, what in zip(states or (), shown, strict=False):
            _check_rank(name, what, h)
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)
        if states is None:
            states = tuple(zeros((x.shape[0], self.hidden_size), dtype=input.dtype) for _ in shown)
        else:
            states = tuple(h if batched else h.unsqueeze(0) for h in states)
        self._check_sizes(x, states)
        weights = Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        h, c = cell_step(kind, x, states[0], states[1] if len(shown) == 2 else None, weights)
        made = (h,) if c is None else (h, c)
        return made if batched else tuple(y.squeeze(0) for y in made)

    def _check_sizes(self, x: Any, states: tuple[Any, ...]) -> None:
        problem = None
        if x.shape[1] != self.input_size:
            problem = f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}"
        for k, h in enumerate(states):
            if problem is None and h.shape[0] != x.shape[0]:
                problem = f"Input batch size {x.shape[0]} doesn't match hidden{k} batch size {h.shape[0]}"
            if problem is None and h.shape[1] != self.hidden_size:
                problem = f"hidden{k} has inconsistent hidden_size: got {h.shape[1]}, expected {self.hidden_size}"
        if problem is not None:
            raise RuntimeError(at_user_line(problem))

    def extra_repr(self) -> str:
        """What `repr` shows between the brackets: the sizes, then what is not the default."""
        shown = f"{self.input_size}, {self.hidden_size}"
        if not self.bias:
            shown += f", bias={self.bias}"
        nonlinearity = getattr(self, "nonlinearity", "tanh")
        return shown if nonlinearity == "tanh" else f"{shown}, nonlinearity={nonlinearity}"


def _check_rank(name: str, what: str, x: Any) -> None:
    if x.dim() not in (1, 2):
        raise ValueError(at_user_line(f"{name}: Expected {what} to be 1D or 2D, got {x.dim()}D instead"))


class RNNCell(RecurrentCell):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu.  [N, I], [N, H] -> [N, H].  Raises RuntimeError for another
    nonlinearity when it is called."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=1, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Any = None) -> Any:
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(at_user_line(f"Unknown nonlinearity: {self.nonlinearity}"))
        return self._step(f"rnn_{self.nonlinearity}", input, None if hx is None else (hx,), ("hidden",))[0]


class LSTMCell(RecurrentCell):
    """One step of an LSTM.  [N, I], ([N, H], [N, H]) -> [N, H], [N, H]."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: DType | None = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=4, device=device, dtype=dtype)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        h, c = self._step("lstm", input, None if hx is None else tuple(hx), ("hx[0]", "hx[1]"))
        return h, c


class GRUCell(RecurrentCell):
    """One step of a GRU.  [N, I], [N, H] -> [N, H]."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: DType | None = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype)

    def forward(self, input: Any, hx: Any = None) -> Any:
        return self._step("gru", input, None if hx is None else (hx,), ("hidden",))[0]


RNNCellBase = RecurrentCell
