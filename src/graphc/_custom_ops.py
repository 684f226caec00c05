"""An old name of `graphc.library`."""

from __future__ import annotations

from graphc.library import custom_op

__all__ = ["custom_op"]
