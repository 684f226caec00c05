"""Modules, losses and initial values under PyTorch's names; no mechanism of its own."""

from __future__ import annotations

import sys

import graphc.namespace  # noqa: F401  tensors get their methods there
from graphc.nn import functional, gradients, init
from graphc.nn.activations import GELU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Tanh
from graphc.nn.containers import ModuleDict, ModuleList, Sequential
from graphc.nn.layers import Dropout, Embedding, Flatten, Identity, LayerNorm, Linear, RMSNorm
from graphc.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, L1Loss, MSELoss, NLLLoss
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter

utils = gradients
sys.modules[f"{__name__}.utils"] = gradients  # PyTorch's name of the module

__all__ = [
    "BCEWithLogitsLoss", "CrossEntropyLoss", "Dropout", "Embedding", "Flatten", "GELU", "Identity", "L1Loss", "LayerNorm", "Linear",
    "LogSoftmax", "MSELoss", "Module", "ModuleDict", "ModuleList", "NLLLoss", "Parameter", "RMSNorm", "ReLU", "Sequential", "SiLU",
    "Sigmoid", "Softmax", "Tanh", "functional", "init", "utils",
]  # fmt: skip
