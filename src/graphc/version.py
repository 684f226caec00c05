"""Versions under the names of ``torch.version``.

Enters: nothing.  Leaves: versions.  Never here: anything else.
"""

from __future__ import annotations

from graphc import __version__

cuda = hip = xpu = rocm = None  # runtimes that are not there
debug = False

__all__ = ["__version__", "cuda", "debug", "hip", "rocm", "xpu"]
