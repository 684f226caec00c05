"""PyTorch's place of these pipes; no mechanism of its own (`graphc.data.datapipes.map`)."""

# ruff: noqa: F403  re-exported
from __future__ import annotations

from graphc.data.datapipes.map import *
