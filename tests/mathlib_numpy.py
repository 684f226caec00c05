"""Straight-line Lets of primitive functions over whole NumPy arrays: an evaluator of its own for the tests of mathlib."""

from __future__ import annotations

import numpy as np

from graphc.codegen.mathlib import expand
from graphc.ir.loops import Call, Const, Kernel, Let, Load, Param, Store, Var

INFIX = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "not": np.invert, "shl": np.left_shift, "shr": np.right_shift, "neg": np.negative, "abs": np.abs,
    "sqrt": np.sqrt, "floor": np.floor, "trunc": np.trunc, "round": np.rint,
    "copysign": np.copysign, "eq": np.equal, "ne": np.not_equal,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "select": np.where,
}  # fmt: skip


def kernel_of(fn, dtypes, result, *constants):
    """out[0] = fn(x0[0], x1[0], ..., constants), not yet expanded."""
    loads = tuple(Load(f"x{i}", 0, dtype) for i, dtype in enumerate(dtypes))
    params = tuple(Param(f"x{i}", "in", dtype) for i, dtype in enumerate(dtypes))
    body = (Store("out", 0, Call(fn, loads + constants, result)),)
    return Kernel("k", (*params, Param("out", "out", result)), body)


def apply(fn, *arrays, result=None, constants=()):
    """fn of equal-length arrays, element by element, through `expand` and the primitives."""
    from graphc.dtypes import from_numpy

    dtypes = [from_numpy(a.dtype) for a in arrays]
    values = {f"x{i}": a for i, a in enumerate(arrays)}
    with np.errstate(all="ignore"):
        for statement in expand(kernel_of(fn, dtypes, result or dtypes[0], *constants)).body:
            value = np.broadcast_to(evaluated(statement.value, values), arrays[0].shape)
            values[statement.name if isinstance(statement, Let) else statement.buffer] = value
    return values["out"]


def evaluated(expr, values):
    match expr:
        case Const(value, dtype):
            return np.asarray(value, dtype.numpy)
        case Var(name, _) | Load(name, _, _):
            return values[name]
        case Call("cast", (x,), dtype):
            array = evaluated(x, values)
            assert dtype.kind == "f" or array.dtype.kind != "f", "no definition casts floats to integers"
            return array.astype(dtype.numpy)
        case Call("bitcast", (x,), dtype):
            return evaluated(x, values).view(dtype.numpy)
        case Call("fma", args, dtype):
            return (fma32 if dtype.itemsize == 4 else fma64)(*np.broadcast_arrays(*(evaluated(a, values) for a in args)))
        case Call("scale", args, _):
            x, n = (evaluated(a, values) for a in args)
            return np.ldexp(x, np.where(np.isnan(n), 0, n).astype(np.int32))
        case Call("idiv", args, _):
            return truncated_quotient(*(evaluated(a, values) for a in args))
        case Call(fn, args, dtype):
            result = INFIX[fn](*(evaluated(a, values) for a in args))
            assert result.dtype == dtype.numpy, (fn, result.dtype, dtype)
            return result
    raise AssertionError(expr)


def truncated_quotient(x, y):
    quotient = x // y
    if x.dtype.kind == "i":
        quotient = quotient + ((quotient * y != x) & ((x < 0) != (y < 0)))
    return quotient.astype(x.dtype)


# ---- fused multiply-add, rounded once (Boldo and Melquiond 2008: the last sum but one is rounded to odd) ------------


def two_sum(x, y):
    total = x + y
    part = total - x
    return total, (x - (total - part)) + (y - part)


def sum_to_odd(x, y):
    """x + y in float64; where that is inexact, the neighbour of the sum with an odd last bit."""
    total, rest = two_sum(x, y)
    bits = total.view(np.int64)
    move = (rest != 0) & np.isfinite(rest) & (bits & 1 == 0)
    return (bits + np.where(move, np.where((rest > 0) == (total > 0), 1, -1), 0)).view(np.float64)


def fma32(x, y, z):
    return sum_to_odd(x.astype(np.float64) * y, z.astype(np.float64)).astype(np.float32)


def two_product(x, y):
    """x * y and its rounding error, for mantissas (Dekker 1971)."""
    x_head, y_head = ((v * 134217729.0) - ((v * 134217729.0) - v) for v in (x, y))
    x_tail, y_tail = x - x_head, y - y_head
    total = x * y
    return total, ((x_head * y_head - total) + x_head * y_tail + x_tail * y_head) + x_tail * y_tail


def fma64(x, y, z):
    """Rounded once where the result is a normal number.  Works on mantissas, so nothing overflows on the way."""
    special = ~(np.isfinite(x) & np.isfinite(y) & np.isfinite(z)) | (x == 0) | (y == 0) | (z == 0)
    (x_mantissa, x_exponent), (y_mantissa, y_exponent), (z_mantissa, z_exponent) = (
        np.frexp(np.where(special, 1.0, v)) for v in (x, y, z)
    )
    exponent = x_exponent + y_exponent
    apart = z_exponent - exponent
    high, low = two_product(x_mantissa, y_mantissa)
    addend = np.ldexp(z_mantissa, np.clip(apart, -200, 200))
    sum_high, sum_low = two_sum(addend, low)
    total, rest = two_sum(high, sum_high)
    result = np.ldexp(total + sum_to_odd(sum_low, rest), exponent)
    return np.where(special, x * y + z, np.where(apart > 200, z, result))
