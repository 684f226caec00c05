"""Recurrent layers: RNN, LSTM, GRU, of any number of layers, in one or both directions.

Enters: sequences [T, N, I], [N, T, I] (`batch_first`), [T, I], or packed; first states.  Leaves: outputs, last states.
Never here: single steps (`recurrent_cells`), what is computed (`eager.recurrence`).
"""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any

from graphc.dtypes import DType
from graphc.eager.creation import empty, zeros
from graphc.eager.modes import modes
from graphc.eager.recurrence import Rows, Stack
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.nn import init
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter
from graphc.nn.utils.rnn import PackedSequence
from graphc.ops.recurrent_cells import CELLS

_KINDS = {cell.name.upper(): cell for cell in CELLS}


def _require(condition: bool, error: type[Exception], message: str) -> None:
    if not condition:
        raise error(at_user_line(message))


class Recurrent(Module):
    """What RNN, LSTM and GRU are: PyTorch's ``RNNBase``.  mode: LSTM, GRU, RNN_TANH or RNN_RELU.

    Its parameters are those of layer 0, forward and then backward, of layer 1, and so on: weight_ih, weight_hh, bias_ih, bias_hh,
    weight_hr.  Raises TypeError and ValueError for sizes that make no layer.
    """

    _all_weights: list[list[str]]

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        is_share = isinstance(dropout, numbers.Number) and not isinstance(dropout, bool) and 0 <= dropout <= 1  # type: ignore[operator]
        limits = "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
        _require(is_share, ValueError, limits)
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects num_layers greater "
                f"than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=3,
            )
        for name, value, wanted in (("hidden_size", hidden_size, int), ("bias", bias, bool), ("batch_first", batch_first, bool)):
            shown = f"{name} should be of type {wanted.__name__}, got: {type(value).__name__}"
            _require(isinstance(value, wanted), TypeError, shown)
        _require(input_size > 0, ValueError, "input_size must be greater than zero")
        _require(hidden_size > 0, ValueError, "hidden_size must be greater than zero")
        _require(num_layers > 0, ValueError, "num_layers must be greater than zero")
        _require(proj_size >= 0, ValueError, "proj_size should be a positive integer or zero to disable projections")
        _require(proj_size < hidden_size, ValueError, "proj_size has to be smaller than hidden_size")
        _require(mode in _KINDS, ValueError, f"Unrecognized RNN mode: {mode}")
        self.mode, self.input_size, self.hidden_size, self.num_layers = mode, input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self._all_weights = []
        for layer in range(num_layers):
            for direction in range(1 + bidirectional):
                self._all_weights.append(self._register(layer, direction, {"device": device, "dtype": dtype}))
        self.reset_parameters()

    def _register(self, layer: int, direction: int, how: dict[str, Any]) -> list[str]:
        """The parameters of one layer in one direction; their names."""
        rows, outputs = _KINDS[self.mode].weights * self.hidden_size, self.proj_size or self.hidden_size
        inputs = self.input_size if layer == 0 else outputs * (1 + self.bidirectional)
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, outputs)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        names = []
        for part, shape in shapes.items():
            names.append(f"{part}_l{layer}{'_reverse' if direction else ''}")
            self.register_parameter(names[-1], Parameter(empty(shape, **how)))
        return names

    def reset_parameters(self) -> None:
        """All uniform in ±1/sqrt(hidden_size)."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    # ---- weights

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Any]:
        return [getattr(self, name) for name in self._flat_weights_names]

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters, a list for each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def flatten_parameters(self) -> None:
        """Does nothing: weights need not lie side by side."""

    # ---- checks

    def check_input(self, input: Any, batch_sizes: Any) -> None:
        """Raises ValueError for another dtype than the weights', RuntimeError for a wrong number of dims or features."""
        dtype = self._flat_weights[0].dtype
        _require(
            modes.autocast is not None or input.dtype is dtype,
            ValueError,
            f"RNN input dtype ({input.dtype}) does not match weight dtype ({dtype}). "
            f"Convert input: input.to({dtype}), or convert model: model.to({input.dtype})",
        )
        wanted = 2 if batch_sizes is not None else 3
        _require(input.ndim == wanted, RuntimeError, f"input must have {wanted} dimensions, got {input.ndim}")
        _require(
            self.input_size == input.shape[-1],
            RuntimeError,
            f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}",
        )

    def get_expected_hidden_size(self, input: Any, batch_sizes: Any) -> tuple[Any, Any, Any]:
        """[layers * directions, N, outputs]."""
        batch = int(batch_sizes[0]) if batch_sizes is not None else input.shape[0 if self.batch_first else 1]
        return self.num_layers * (1 + self.bidirectional), batch, self.proj_size or self.hidden_size

    def get_expected_cell_size(self, input: Any, batch_sizes: Any) -> tuple[Any, Any, Any]:
        """[layers * directions, N, hidden_size]."""
        return *self.get_expected_hidden_size(input, batch_sizes)[:2], self.hidden_size

    def check_hidden_size(self, hx: Any, expected: tuple[Any, ...], msg: str = "Expected hidden size {}, got {}") -> None:
        """Raises RuntimeError for a state of another shape."""
        _require(tuple(hx.shape) == tuple(expected), RuntimeError, msg.format(expected, list(hx.shape)))

    def check_forward_args(self, input: Any, hidden: Any, batch_sizes: Any) -> None:
        """Raises for an input or first states that do not fit."""
        self.check_input(input, batch_sizes)
        expected = self.get_expected_hidden_size(input, batch_sizes)
        if self.mode != "LSTM":
            self.check_hidden_size(hidden, expected)
            return
        self.check_hidden_size(hidden[0], expected, "Expected hidden[0] size {}, got {}")
        cells = self.get_expected_cell_size(input, batch_sizes)
        self.check_hidden_size(hidden[1], cells, "Expected hidden[1] size {}, got {}")

    def permute_hidden(self, hx: Any, permutation: Any) -> Any:
        """States of the batch in another order."""
        if permutation is None or hx is None:
            return hx
        if isinstance(hx, tuple | list):
            return tuple(self.permute_hidden(h, permutation) for h in hx)
        return Op.table["index_select"](hx, 1, permutation)

    # ---- calling

    def forward(self, input: Any, hx: Any = None) -> Any:
        """(outputs, last state or states).  A packed sequence gives packed outputs; an input without a batch, results without."""
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        kind, has_cells = ("RNN" if self.mode.startswith("RNN") else self.mode), self.mode == "LSTM"
        tensor = " tensor" if kind == "RNN" else ""
        _require(input.dim() in (2, 3), ValueError, f"{kind}: Expected input to be 2D or 3D, got {input.dim()}D{tensor} instead")
        batched = input.dim() == 3
        states = _states(hx, has_cells)
        if states is not None:
            self._check_dims(states, batched)
        if not batched:
            input = input.unsqueeze(0 if self.batch_first else 1)
            states = None if states is None else tuple(h.unsqueeze(1) for h in states)
        states = self._started(input, None) if states is None else states
        self.check_forward_args(input, states if has_cells else states[0], None)
        x = Op.table["transpose"](input, 0, 1) if self.batch_first else input
        _require(x.shape[0] > 0, RuntimeError, "Expected sequence length to be larger than 0 in RNN")
        y, *last = self._run(x, states, None)
        y = Op.table["transpose"](y, 0, 1) if self.batch_first else y
        if not batched:
            y, last = y.squeeze(0 if self.batch_first else 1), [h.squeeze(1) for h in last]
        return y, tuple(last) if has_cells else last[0]

    def _forward_packed(self, input: PackedSequence, hx: Any) -> Any:
        has_cells, sizes = self.mode == "LSTM", input.sizes
        states = _states(self.permute_hidden(hx, input.sorted_indices), has_cells)
        states = self._started(input.data, sizes) if states is None else states
        self.check_forward_args(input.data, states if has_cells else states[0], sizes)
        y, *last = self._run(input.data, states, input.rows())
        last = [self.permute_hidden(h, input.unsorted_indices) for h in last]
        return input._with(y), tuple(last) if has_cells else last[0]

    def _run(self, x: Any, states: tuple[Any, ...], rows: Rows | None) -> tuple[Any, ...]:
        stack = Stack(self.mode.lower(), self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        h0, c0 = states if self.mode == "LSTM" else (states[0], None)
        return stack(x, h0, c0, self._flat_weights, rows, bool(self.proj_size))

    def _started(self, input: Any, batch_sizes: Any) -> tuple[Tensor, ...]:
        """States of zeros."""
        shapes = [self.get_expected_hidden_size(input, batch_sizes)]
        if self.mode == "LSTM":
            shapes.append(self.get_expected_cell_size(input, batch_sizes))
        return tuple(zeros(shape, dtype=input.dtype) for shape in shapes)

    def _check_dims(self, states: tuple[Any, ...], batched: bool) -> None:
        wanted = 3 if batched else 2
        shown = f"For {'batched' if batched else 'unbatched'} {wanted}-D input, "
        got = [f"{h.dim()}-D" for h in states]
        if self.mode == "LSTM":
            shown += f"hx and cx should also be {wanted}-D but got ({', '.join(got)}) tensors"
        else:
            shown += f"hx should also be {wanted}-D but got {got[0]} tensor"
        _require(all(h.dim() == wanted for h in states), RuntimeError, shown)

    def extra_repr(self) -> str:
        """What `repr` shows between the brackets: the sizes, then what is not the default."""
        shown = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size:
            shown += f", proj_size={self.proj_size}"
        for name, default in (("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0), ("bidirectional", False)):
            value = getattr(self, name)
            if value != default:
                shown += f", {name}={value}"
        return shown


def _states(hx: Any, has_cells: bool) -> tuple[Any, ...] | None:
    """First states as a tuple."""
    return None if hx is None else tuple(hx) if has_cells else (hx,)


class RNN(Recurrent):
    """Elman's layers: h = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu.

    input [T, N, input_size], h_0 [layers * directions, N, hidden_size] -> [T, N, directions * hidden_size], h_n.
    Raises ValueError for another nonlinearity, or a projection.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if len(args) > 3:
            nonlinearity, args = args[3], args[:3] + args[4:]
        _check_no_projection(kwargs)
        modes = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}
        shown = f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
        _require(nonlinearity in modes, ValueError, shown)
        super().__init__(modes[nonlinearity], *args, **kwargs)
        self.nonlinearity = nonlinearity


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with projected outputs if `proj_size` (Sak and others 2014).

    input [T, N, input_size], (h_0 [layers * directions, N, outputs], c_0 [.., N, hidden_size]) -> [T, N, directions * outputs],
    (h_n, c_n).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(Recurrent):
    """Gated recurrent units (Cho and others 2014), the reset gate behind the product with W_hh.

    input [T, N, input_size], h_0 [layers * directions, N, hidden_size] -> [T, N, directions * hidden_size], h_n.
    Raises ValueError for a projection.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _check_no_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)


def _check_no_projection(kwargs: dict[str, Any]) -> None:
    _require("proj_size" not in kwargs, ValueError, "proj_size argument is only supported for LSTM, not RNN or GRU")


RNNBase = Recurrent
