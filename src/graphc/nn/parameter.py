"""`Parameter`: a tensor that a module owns and an optimizer changes.

Enters: tensors.  Leaves: leaves of the tape on the same memory.  Never here: initial values (`init`).
"""

from __future__ import annotations

from graphc.eager.creation import empty
from graphc.eager.tensor import Tensor, share
from graphc.errors import at_user_line


class Parameter(Tensor):
    """A leaf tensor on the memory of `data`, which modules register when it is assigned to one of their attributes.

    Raises TypeError where `data` is not a tensor, RuntimeError where it is not floating and `requires_grad` is set.
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = empty(0)
        if not isinstance(data, Tensor):
            raise TypeError(at_user_line(f"Parameter: data must be a Tensor, not {type(data).__name__}"))
        parameter = share(data, cls)
        if requires_grad:
            parameter.requires_grad_()
        assert isinstance(parameter, cls)
        return parameter

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()
