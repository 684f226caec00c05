"""``torch.backends.cpu``: the vector unit that kernels are compiled for."""

from __future__ import annotations


def get_cpu_capability() -> str:
    """``AVX512``, ``AVX2`` or ``DEFAULT``."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return "AVX512"
    return "AVX2" if features.get("avx2") else "DEFAULT"
