"""Transforms of functions under the names of ``torch.func``: derivatives and `vmap`, nested in any order, over nested tensors.

Enters: nothing.  Leaves: names.  Never here: mechanism (the other files of the package, `eager.levels`).
"""

from __future__ import annotations

import graphc.namespace  # noqa: F401  tensors get their methods there
from graphc.func.derivatives import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, linearize, vjp
from graphc.func.modules import functional_call, stack_module_state
from graphc.func.vectorize import vmap

__all__ = [
    "functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize", "stack_module_state", "vjp",
    "vmap",
]  # fmt: skip
