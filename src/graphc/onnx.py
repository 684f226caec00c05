"""``torch.onnx`` as far as programs ask whether it is at work.  Never here: writing ONNX files."""

from __future__ import annotations

from typing import Any, NoReturn

from graphc.errors import at_user_line


def is_in_onnx_export() -> bool:
    """False."""
    return False


def export(*_: Any, **__: Any) -> NoReturn:
    """Raises NotImplementedError: `graphc.compile` and its ``save`` make what is deployed."""
    raise NotImplementedError(at_user_line("onnx.export: graphc writes no ONNX; save what graphc.compile gives"))


__all__ = ["export", "is_in_onnx_export"]
