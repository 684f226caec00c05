"""PyTorch's place of what a worker knows of itself; no mechanism of its own (`graphc.data.worker`)."""

from __future__ import annotations

from graphc.data.worker import WorkerInfo, get_worker_info

__all__ = ["WorkerInfo", "get_worker_info"]
