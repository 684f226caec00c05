"""PyTorch's namespace of that name: what is done to the parameters and gradients of modules."""

from __future__ import annotations

from graphc.nn.utils.clip_grad import clip_grad_norm_, clip_grad_value_

__all__ = ["clip_grad_norm_", "clip_grad_value_"]
