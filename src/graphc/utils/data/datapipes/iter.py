"""PyTorch's place of these pipes; no mechanism of its own (`graphc.data.datapipes.iter`)."""

# ruff: noqa: F403  re-exported
from __future__ import annotations

from graphc.data.datapipes.iter import *
