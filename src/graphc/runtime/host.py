"""Operators that the host runs in the middle of a compiled program.

Enters: a `Plan` with host calls, and how to find an operator's function by name.  Leaves: the address of a C function that compiled
code calls; the exception of a call that raised.  Never here: what an operator computes; programs without host calls.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims
from graphc.dtypes import DType
from graphc.ir.loops import HOST_FAILED, STATUS_SLOT
from graphc.runtime.plan import HostCall, Plan, Spec

Array = np.ndarray[Any, Any]
# (operands, values of the plan's sizes, dtypes of the results) -> results
Function = Callable[[Sequence[Array], Mapping[str, int], Sequence[DType]], Sequence[Array]]
# (operator's name, its attributes as text) -> what runs it
Resolve = Callable[[str, str], Function]


class HostCalls:
    """`address`: of ``void callback(i64* table, i64 number)``, which runs one host call of the plan on the buffers in the table.

    A call that raises leaves `HOST_FAILED` in the status word; `failure` hands the exception out.
    """

    def __init__(self, plan: Plan, resolve: Resolve) -> None:
        self._plan = plan
        self._functions = [resolve(call.op, call.attributes) for call in plan.host_calls]
        self._failures: dict[int, BaseException] = {}  # by the table's address: calls may run at once
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(self._called)
        self.address = ctypes.cast(self._callback, ctypes.c_void_p).value

    def failure(self, table_address: int) -> BaseException:
        """The exception of the call that ran with the table at this address."""
        return self._failures.pop(table_address)

    def _called(self, table_address: int, number: int) -> None:
        table = (ctypes.c_int64 * self._plan.slots).from_address(table_address)
        call = self._plan.host_calls[number]
        try:
            self._run(call, self._functions[number], table)
        except BaseException as error:  # nothing may pass through compiled code; the program's caller raises it
            line = self._plan.messages[call.line - 1]
            if error.args and isinstance(error.args[0], str):
                error.args = (error.args[0] + line, *error.args[1:])
            self._failures[table_address] = error
            ctypes.c_int64.from_address(table[STATUS_SLOT]).value = HOST_FAILED

    def _run(self, call: HostCall, function: Function, table: Any) -> None:
        plan = self._plan
        sizes = dict(zip(plan.sizes, table[plan.sizes_at : plan.callback_slot], strict=True))
        inputs = [_array(table[slot], spec, sizes) for slot, spec in call.inputs]
        for array in inputs:
            array.flags.writeable = False
        results = function(inputs, sizes, [spec.dtype for _, spec in call.outputs])
        for (slot, spec), result in zip(call.outputs, results, strict=True):
            out = _array(table[slot], spec, sizes)
            if result.shape != out.shape:
                raise RuntimeError(f"{call.op}: its reference gives shape {list(result.shape)}, its type rule {list(out.shape)}")
            np.copyto(out, result, casting="no")


def _array(address: int, spec: Spec, sizes: Mapping[str, int]) -> Array:
    """The memory at an address as a row-major array."""
    shape = tuple([dims.evaluate(d, sizes) for d in spec.shape])
    nbytes = spec.dtype.itemsize * math.prod(shape)
    if not nbytes:
        return np.empty(shape, spec.dtype.numpy)
    return np.ndarray(shape, spec.dtype.numpy, (ctypes.c_char * nbytes).from_address(address))
