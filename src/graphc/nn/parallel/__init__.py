"""PyTorch's namespace of that name: one module on several devices, where there is one device.

Enters: nothing.  Leaves: names.  Never here: mechanism.
"""

from __future__ import annotations

from graphc.nn.parallel.data_parallel import DataParallel, data_parallel
from graphc.nn.parallel.distributed import DistributedDataParallel
from graphc.nn.parallel.parallel_apply import parallel_apply
from graphc.nn.parallel.replicate import replicate
from graphc.nn.parallel.scatter_gather import gather, scatter

__all__ = ["DataParallel", "DistributedDataParallel", "data_parallel", "gather", "parallel_apply", "replicate", "scatter"]
