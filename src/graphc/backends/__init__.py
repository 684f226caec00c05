"""Settings of libraries that PyTorch may run on: kept, and read by nobody, for there are no such libraries here.

Enters: settings.  Leaves: settings.  Never here: anything that changes how an operator runs.
"""

from graphc.backends import cpu, cuda, cudnn, mkl, mkldnn, mps, openmp, opt_einsum, quantized

__all__ = ["cpu", "cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp", "opt_einsum", "quantized"]
