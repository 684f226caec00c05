"""Data pipes: data sets made of others by methods, ``pipe.map(f).batch(4)``, under the names of ``torch.utils.data.datapipes``."""

from __future__ import annotations

from graphc.data.datapipes import functional, iter, map

__all__ = ["functional", "iter", "map"]
