"""Optimizers and learning rate schedules under PyTorch's names; no mechanism of its own."""

from __future__ import annotations

import sys

import graphc.namespace  # noqa: F401  tensors get their methods there
from graphc.optim import adagrad, adam, lr_scheduler, swa_utils
from graphc.optim.adafactor import Adafactor
from graphc.optim.adagrad import Adadelta, Adagrad, RMSprop
from graphc.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
from graphc.optim.asgd import ASGD
from graphc.optim.lbfgs import LBFGS
from graphc.optim.muon import Muon
from graphc.optim.optimizer import Optimizer
from graphc.optim.rprop import Rprop
from graphc.optim.sgd import SGD
from graphc.optim.sparse_adam import SparseAdam

__all__ = [
    "ASGD", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "Optimizer", "RAdam",
    "RMSprop", "Rprop", "SparseAdam", "lr_scheduler", "swa_utils",
]  # fmt: skip

# PyTorch's files that are not files here: one file holds optimizers of a kind
_HOMES = {"adadelta": adagrad, "adamax": adam, "adamw": adam, "nadam": adam, "radam": adam, "rmsprop": adagrad}
for _name, _home in _HOMES.items():
    globals()[_name] = sys.modules[f"{__name__}.{_name}"] = _home
