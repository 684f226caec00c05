"""The settings of PyTorch's compiler, which programs write: kept, and read by nobody.  Never here: compilation."""

from __future__ import annotations

import sys

from graphc._dynamo import Settings

config = sys.modules[f"{__name__}.config"] = Settings(f"{__name__}.config")

__all__ = ["config"]
