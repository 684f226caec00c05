"""`FloatFunctional`: the operators that models write as modules so that quantization can watch them.

Enters: tensors.  Leaves: tensors.  Never here: quantization, which there is not.
"""

from __future__ import annotations

from typing import Any

from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.nn.layers import Identity
from graphc.nn.module import Module


class FloatFunctional(Module):
    """Operators as methods; each result goes through `activation_post_process`."""

    def __init__(self) -> None:
        super().__init__()
        self.activation_post_process = Identity()

    def forward(self, x: Any) -> Any:
        """Raises RuntimeError: the operators are called by their names."""
        raise RuntimeError(
            at_user_line("FloatFunctional is not intended to use the 'forward'. Please use the underlying operation")
        )

    def add(self, x: Any, y: Any) -> Any:
        """``x + y``."""
        return self.activation_post_process(x + y)

    def add_scalar(self, x: Any, y: float) -> Any:
        """``x + y`` for a number y; not watched."""
        return x + y

    def mul(self, x: Any, y: Any) -> Any:
        """``x * y``."""
        return self.activation_post_process(x * y)

    def mul_scalar(self, x: Any, y: float) -> Any:
        """``x * y`` for a number y; not watched."""
        return x * y

    def cat(self, x: Any, dim: int = 0) -> Any:
        """Tensors joined along `dim`."""
        return self.activation_post_process(Op.table["cat"](list(x), dim))

    def add_relu(self, x: Any, y: Any) -> Any:
        """``relu(x + y)``."""
        return self.activation_post_process((x + y).relu())

    def matmul(self, x: Any, y: Any) -> Any:
        """``x @ y``."""
        return self.activation_post_process(x @ y)


__all__ = ["FloatFunctional"]
