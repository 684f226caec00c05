"""Optimizers and learning rate schedules under PyTorch's names; no mechanism of its own."""

from __future__ import annotations

import graphc.namespace  # noqa: F401  tensors get their methods there
from graphc.optim import lr_scheduler
from graphc.optim.adam import Adam, AdamW
from graphc.optim.optimizer import Optimizer
from graphc.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]
