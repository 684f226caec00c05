"""What the renderer has to know of the machine: how wide its vectors are.

Enters: LLVM's description of this machine.  Leaves: a lane count.
Never here: making objects or linking (runtime.link).
"""

from __future__ import annotations

import functools


@functools.cache
def host_lanes() -> int:
    """Elements of 4 bytes in one vector register of this machine: 16 (AVX-512), 8 (AVX2) or 4."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return 16 if features.get("avx512vl") else 8 if features.get("avx2") else 4
