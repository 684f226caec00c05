"""Operators under the names of PyTorch's ``nn.functional``.

Enters: operators' names.  Leaves: their public functions.  Never here: what an operator computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.eager.methods import public_function
from graphc.ir.op import Op


def _operator(name: str) -> Callable[..., Any]:
    return public_function(Op.table[name])


linear = _operator("linear")
embedding = _operator("embedding")
one_hot = _operator("one_hot")

relu = _operator("relu")
gelu = _operator("gelu")
silu = _operator("silu")
tanh = _operator("tanh")
sigmoid = _operator("sigmoid")
softmax = _operator("softmax")
log_softmax = _operator("log_softmax")

layer_norm = _operator("layer_norm")
rms_norm = _operator("rms_norm")
dropout = _operator("dropout")
pad = _operator("pad")
scaled_dot_product_attention = _operator("scaled_dot_product_attention")

cross_entropy = _operator("cross_entropy")
nll_loss = _operator("nll_loss")
mse_loss = _operator("mse_loss")
l1_loss = _operator("l1_loss")
binary_cross_entropy_with_logits = _operator("binary_cross_entropy_with_logits")
