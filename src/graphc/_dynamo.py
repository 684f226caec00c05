"""What public programs tell PyTorch's tracer: `graphc.compiler`'s functions, and settings that are kept and read by nobody.

Enters: functions, settings.  Leaves: functions, settings.  Never here: tracing.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from graphc.compiler import allow_in_graph, disable, is_compiling, reset
from graphc.dynamic import mark_dynamic, maybe_mark_dynamic


class Settings(ModuleType):
    """Attributes as they were set.  What was not set is false and may be set in parts: ``config.triton.cudagraphs = True``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        below = self.__dict__[name] = Settings(f"{self.__name__}.{name}")
        return below

    def __bool__(self) -> bool:
        return False


config = sys.modules[f"{__name__}.config"] = Settings(f"{__name__}.config")

__all__ = ["allow_in_graph", "config", "disable", "is_compiling", "mark_dynamic", "maybe_mark_dynamic", "reset"]
