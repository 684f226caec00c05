"""PyTorch's place of data sets and loaders; no mechanism of its own (`graphc.data`)."""

# ruff: noqa: F403  re-exported
from __future__ import annotations

from graphc.data import *
from graphc.data import __all__ as __all__
from graphc.utils.data import _utils, dataloader, datapipes, dataset, distributed, sampler  # noqa: F401
