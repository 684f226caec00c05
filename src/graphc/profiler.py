"""PyTorch's newer place of the profiler; no mechanism of its own (`graphc.autograd.profiler`)."""

from __future__ import annotations

from graphc.autograd.profiler import ProfilerActivity, profile, record_function

__all__ = ["ProfilerActivity", "profile", "record_function"]
