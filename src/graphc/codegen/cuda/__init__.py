"""Kernels as CUDA C++ text.

Enters: a `Kernel` of the loop IR.  Leaves: source and launch geometry.  Never here: a driver, a device.
"""
