"""What the machine can do: fused multiply-adds a second and bytes a second, measured in the run that they are compared with.

Enters: a number of threads.  Leaves: `Limits`, and from it the least time of a piece of work.  Never here: rows.
"""

from __future__ import annotations

import bisect
import ctypes
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIZES = (512 << 10, 4 << 20, 16 << 20, 64 << 20, 512 << 20)  # bytes that all threads together go over
PEAK_S, BANDWIDTH_S, REPEATS = 0.1, 0.02, 2
CHAINS = 12  # independent multiply-adds: more than latency times units


@dataclass(frozen=True)
class Limits:
    """`gflops`: the peak of float32 multiply-adds.  `gbs`: the best of reading and copying, for each of `SIZES`."""

    gflops: float
    gbs: tuple[float, ...]

    def bound_ms(self, flops: float | None, nbytes: float) -> float | None:
        """The least time of a call; None where its work is not known."""
        if flops is None:
            return None
        return 1e3 * max(flops / (self.gflops * 1e9), nbytes / (self.bandwidth(nbytes) * 1e9))

    def best(self, other: Limits) -> Limits:
        """The greater of both, one by one."""
        return Limits(max(self.gflops, other.gflops), tuple(map(max, self.gbs, other.gbs)))

    def bandwidth(self, nbytes: float) -> float:
        """GB/s at a working set, between the sizes that were measured."""
        right = bisect.bisect_left(SIZES, nbytes)
        if right in (0, len(SIZES)):
            return self.gbs[min(right, len(SIZES) - 1)]
        low, high = SIZES[right - 1], SIZES[right]
        share = math.log(nbytes / low) / math.log(high / low)
        return self.gbs[right - 1] * (1 - share) + self.gbs[right] * share


def _module(lanes: int) -> str:
    """peak(n): n times `CHAINS` multiply-adds.  read(p, q, n), copy(p, q, n): n vectors, 8 at a time."""
    v, w = f"<{lanes} x float>", f"<{lanes} x i32>"
    chains, eight = range(CHAINS), range(8)
    phis = "\n".join(f"  %a{i} = phi {v} [ %start, %entry ], [ %b{i}, %loop ]" for i in chains)
    fmas = "\n".join(f"  %b{i} = call {v} @llvm.fma({v} %a{i}, {v} %by, {v} %by)" for i in chains)
    sums = [f"  %s1 = fadd {v} %b0, %b1", *(f"  %s{i} = fadd {v} %s{i - 1}, %b{i}" for i in chains if i > 1)]
    places = "\n".join(f"  %j{i} = add i64 %i, {i}\n  %p{i} = getelementptr {w}, ptr %p, i64 %j{i}" for i in eight)
    loads = "\n".join(f"  %v{i} = load {w}, ptr %p{i}, align {lanes * 4}" for i in eight)
    folds = "\n".join(f"  %y{i} = xor {w} %x{i}, %v{i}" for i in eight)
    folded = "\n".join(f"  %x{i} = phi {w} [ zeroinitializer, %entry ], [ %y{i}, %loop ]" for i in eight)
    ends = "\n".join(f"  %e{i} = xor {w} {'%y0' if i == 1 else f'%e{i - 1}'}, %y{i}" for i in eight if i)
    stores = "\n".join(
        f"  %q{i} = getelementptr {w}, ptr %q, i64 %j{i}\n  store {w} %v{i}, ptr %q{i}, align {lanes * 4}, !nontemporal !0"
        for i in eight
    )
    plain = stores.replace(", !nontemporal !0", "")
    loop = "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]"
    again = "  %next = add i64 %i, 8\n  %done = icmp uge i64 %next, %n\n  br i1 %done, label %out, label %loop"
    peak = f"""define float @peak(i64 %n) {{
entry:
  %number = sitofp i64 %n to float
  %tiny = fmul float %number, 0x3810000000000000
  %one = insertelement {v} undef, float %tiny, i32 0
  %start = shufflevector {v} %one, {v} undef, <{lanes} x i32> zeroinitializer
  %by = fmul {v} %start, %start
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
{phis}
{fmas}
  %next = add i64 %i, 1
  %done = icmp uge i64 %next, %n
  br i1 %done, label %out, label %loop
out:
{chr(10).join(sums)}
  %r = extractelement {v} %s{CHAINS - 1}, i32 0
  ret float %r
}}"""
    bodies = {
        "read": (folded, folds, f"{ends}\n  %r = extractelement {w} %e7, i32 0\n  ret i32 %r"),
        "copy": ("", plain, "  ret i32 0"),
        "stream": ("", stores, "  ret i32 0"),
    }
    text = [f"declare {v} @llvm.fma({v}, {v}, {v})", "!0 = !{i32 1}", peak]
    for name, (phi, work, end) in bodies.items():
        head = f"define i32 @{name}(ptr %p, ptr %q, i64 %n) {{\nentry:\n  br label %loop\nloop:\n{loop}\n{phi}"
        text.append(f"{head}\n{places}\n{loads}\n{work}\n{again}\nout:\n{end}\n}}")
    return "\n\n".join(text).replace("@llvm.fma", f"@llvm.fma.v{lanes}f32")


def _together(work: list[Callable[[], object]], seconds: float) -> float:
    """Calls of each a second, all at once in threads of their own, summed."""
    barrier, rates = threading.Barrier(len(work)), [0.0] * len(work)

    def run(place: int) -> None:
        barrier.wait()
        calls, start = 0, time.perf_counter()
        while not calls or time.perf_counter() - start < seconds:
            work[place]()
            calls += 1
        rates[place] = calls / (time.perf_counter() - start)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def _aligned(nbytes: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint8]], int]:
    """Memory that is all there, and an address in it at a multiple of 64."""
    memory = np.ones(nbytes + 64, np.uint8)
    return memory, (memory.ctypes.data + 63) // 64 * 64


def measure(threads: int) -> Limits:
    """Measure on this many threads, the cores being those that the libraries get."""
    from graphc.runtime import link

    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if cores:
        os.sched_setaffinity(0, cores[-threads:])
    try:
        lanes = link.vector_nbytes() // 4
        code = link.link(link.assemble(_module(lanes), optimise=0), ["peak", "read", "copy", "stream"])
        peak = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64)(code["peak"])
        count = 100_000
        rate = max(_together([lambda: peak(count)] * threads, PEAK_S) for _ in range(REPEATS))
        return Limits(rate * count * CHAINS * lanes * 2 / 1e9, tuple(_bandwidth(code, lanes, threads, size) for size in SIZES))
    finally:
        if cores:
            os.sched_setaffinity(0, cores)


def _bandwidth(code: dict[str, int], lanes: int, threads: int, size: int) -> float:
    """GB/s, the best of reading `size` bytes, and of copying half of them to the other half."""
    best = 0.0
    memory = [_aligned(size // threads) for _ in range(threads)]

    def work(go: Callable[..., int], at: int, half: int, vectors: int) -> Callable[[], object]:
        return lambda: go(at, at + half, vectors)

    for name, share in (("read", 1), ("copy", 2), ("stream", 2)):
        go = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(code[name])
        vectors = size // threads // share // (lanes * 4) // 8 * 8
        half = vectors * lanes * 4 if share == 2 else 0
        each = [work(go, at, half, vectors) for _, at in memory]
        rate = max(_together(each, BANDWIDTH_S) for _ in range(REPEATS))
        best = max(best, rate * vectors * lanes * 4 * share / 1e9)
    return best
