"""``python -m bench eager [names] [--seconds S] [--threads N]``: single eager operator calls beside PyTorch's, in one process.

Enters: names of calls.  Leaves: microseconds per call, their ratios (PyTorch's time over graphc's: above 1 is faster than PyTorch),
the geometric mean of each size, and the calls that take more than twice PyTorch's time.  Never here: compiled code.

Results are compared before anything is timed.  The two libraries take turns; a time is the least of its
samples.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

SIZES = {"small": (8, 8), "medium": (256, 256), "large": (4096, 1024)}
WARMUP_CALLS = 400
FEWEST_WARMUPS, MOST_WARMUPS = 30, 200
TURNS, FEWEST_SAMPLES = 3, 3
TOLERANCE = 1e-4  # of the greatest element
SLOWEST = 0.5  # a call below this ratio is listed
Call = Callable[[Any, Any, dict[str, Any]], Any]


def arrays(rows: int, columns: int) -> dict[str, Any]:
    """The operands by name; every library gets tensors of these."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return random.standard_normal(shape, np.float32)

    inner = min(columns, 256)
    return {
        "x": normal(rows, columns),
        "y": normal(rows, columns),
        "positive": np.abs(normal(rows, columns)) + 0.5,
        "row": normal(columns),
        "column": normal(rows, 1),
        "square": normal(columns, columns),
        "weight": normal(columns, columns),
        "bias": normal(columns),
        "left": normal(4, rows // 4, inner),
        "right": normal(4, inner, inner),
        "mask": normal(rows, columns) > 0,
        "integers": random.integers(-9, 9, (rows, columns)),
        "some": random.integers(0, rows, rows // 2),
        "places": random.integers(0, columns, (rows, columns)),
        "classes": random.integers(0, columns, rows),
    }


def _mlp_backward(lib: Any, F: Any, t: dict[str, Any]) -> Any:
    """Forward and backward of a two-layer perceptron; gives one gradient."""
    weight, bias, last = t["weight_grad"], t["bias_grad"], t["square_grad"]
    weight.grad = bias.grad = last.grad = None
    hidden = F.relu(F.linear(t["rows"], weight, bias))
    F.cross_entropy(F.linear(hidden, last), t["row_classes"]).backward()
    return weight.grad


CALLS: dict[str, Call] = {
    "add": lambda lib, F, t: t["x"] + t["y"],
    "add with grad": lambda lib, F, t: t["x_grad"] + t["y"],
    "add a number": lambda lib, F, t: t["x"] + 2.5,
    "add a row": lambda lib, F, t: t["x"] + t["row"],
    "add a column": lambda lib, F, t: t["x"] + t["column"],
    "mul": lambda lib, F, t: t["x"] * t["y"],
    "div": lambda lib, F, t: t["x"] / t["positive"],
    "pow": lambda lib, F, t: t["positive"] ** 1.7,
    "neg": lambda lib, F, t: -t["x"],
    "abs": lambda lib, F, t: t["x"].abs(),
    "exp": lambda lib, F, t: t["x"].exp(),
    "log": lambda lib, F, t: t["positive"].log(),
    "sqrt": lambda lib, F, t: t["positive"].sqrt(),
    "rsqrt": lambda lib, F, t: t["positive"].rsqrt(),
    "sin": lambda lib, F, t: t["x"].sin(),
    "cos": lambda lib, F, t: t["x"].cos(),
    "tanh": lambda lib, F, t: t["x"].tanh(),
    "sigmoid": lambda lib, F, t: t["x"].sigmoid(),
    "relu": lambda lib, F, t: F.relu(t["x"]),
    "gelu": lambda lib, F, t: F.gelu(t["x"]),
    "silu": lambda lib, F, t: F.silu(t["x"]),
    "softmax": lambda lib, F, t: F.softmax(t["x"], dim=-1),
    "log_softmax": lambda lib, F, t: F.log_softmax(t["x"], dim=-1),
    "sum": lambda lib, F, t: t["x"].sum(),
    "sum over a dim": lambda lib, F, t: t["x"].sum(dim=1),
    "mean over rows": lambda lib, F, t: t["x"].mean(dim=0),
    "max over a dim": lambda lib, F, t: t["x"].max(dim=1).values,
    "min": lambda lib, F, t: t["x"].min(),
    "argmax": lambda lib, F, t: t["x"].argmax(dim=1),
    "std": lambda lib, F, t: t["x"].std(dim=1),
    "var": lambda lib, F, t: t["x"].var(),
    "cumsum": lambda lib, F, t: t["x"].cumsum(dim=1),
    "matmul": lambda lib, F, t: t["x"] @ t["square"],
    "linear": lambda lib, F, t: F.linear(t["x"], t["weight"], t["bias"]),
    "bmm": lambda lib, F, t: lib.bmm(t["left"], t["right"]),
    "addmm": lambda lib, F, t: lib.addmm(t["bias"], t["x"], t["square"]),
    "cat": lambda lib, F, t: lib.cat([t["x"], t["y"]], dim=1),
    "stack": lambda lib, F, t: lib.stack([t["x"], t["y"]]),
    "chunk": lambda lib, F, t: t["x"].chunk(2, dim=1)[1],
    "t": lambda lib, F, t: t["x"].t(),
    "transpose, contiguous": lambda lib, F, t: t["x"].transpose(0, 1).contiguous(),
    "permute": lambda lib, F, t: t["left"].permute(2, 0, 1),
    "reshape": lambda lib, F, t: t["x"].reshape(-1),
    "view": lambda lib, F, t: t["x"].view(-1, 4),
    "one row": lambda lib, F, t: t["x"][0],
    "slice": lambda lib, F, t: t["x"][1:5, ::2],
    "rows by index": lambda lib, F, t: t["x"][t["some"]],
    "index_select": lambda lib, F, t: t["x"].index_select(0, t["some"]),
    "gather": lambda lib, F, t: t["x"].gather(1, t["places"]),
    "scatter_add": lambda lib, F, t: t["x"].scatter_add(1, t["places"], t["y"]),
    "where": lambda lib, F, t: lib.where(t["mask"], t["x"], t["y"]),
    "masked_fill": lambda lib, F, t: t["x"].masked_fill(t["mask"], 0.0),
    "clamp": lambda lib, F, t: t["x"].clamp(-1.0, 1.0),
    "less": lambda lib, F, t: t["x"] < t["y"],
    "eq": lambda lib, F, t: t["integers"] == 3,
    "isnan": lambda lib, F, t: t["x"].isnan(),
    "sort": lambda lib, F, t: t["x"].sort(dim=1).values,
    "topk": lambda lib, F, t: t["x"].topk(5, dim=1).values,
    "layer_norm": lambda lib, F, t: F.layer_norm(t["x"], t["bias"].shape, t["row"], t["bias"]),
    "embedding": lambda lib, F, t: F.embedding(t["some"], t["x"]),
    "cross_entropy": lambda lib, F, t: F.cross_entropy(t["x"], t["classes"]),
    "mse_loss": lambda lib, F, t: F.mse_loss(t["x"], t["y"]),
    "clone": lambda lib, F, t: t["x"].clone(),
    "cast": lambda lib, F, t: t["x"].to(lib.float64),
    "add in place": lambda lib, F, t: t["buffer"].add_(t["zero"]),
    "tril": lambda lib, F, t: t["square"].tril(),
    "mlp backward": _mlp_backward,
}


def operands(lib: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Tensors of one library."""
    tensors = {name: lib.tensor(array) for name, array in given.items()}
    for name in ("x", "weight", "bias", "square"):
        tensors[f"{name}_grad"] = lib.tensor(given[name]).requires_grad_()
    rows = min(len(given["x"]), 64)
    tensors["rows"], tensors["row_classes"] = lib.tensor(given["x"][:rows]), lib.tensor(given["classes"][:rows])
    tensors["buffer"], tensors["zero"] = lib.tensor(given["x"]), lib.tensor(np.zeros_like(given["x"]))
    return tensors


def wrong(ours: Any, theirs: Any) -> str:
    """How far a result is from PyTorch's, if too far."""
    a, b = np.asarray(ours.detach()), np.asarray(theirs.detach())
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype}{a.shape} for {b.dtype}{b.shape}"
    difference = np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0.0)
    scale = max(1.0, float(np.max(np.abs(b.astype(np.float64)), initial=0.0)))
    return "" if difference <= TOLERANCE * scale else f"off by {difference:.1e}"


def measure(runs: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """Microseconds of a call of each: the least of many samples, as other work on the machine only adds.

    The libraries take turns of many samples.  The first third of a turn is not counted: it falls into the time that the threads of
    the library before go on spinning.
    """
    counts = []
    for run in runs:
        begin = time.perf_counter()
        for repeat in range(MOST_WARMUPS):  # also what is made once: kernels, recipes
            if repeat >= FEWEST_WARMUPS and time.perf_counter() > begin + seconds:
                break
            run()
        start = time.perf_counter()
        run()
        counts.append(max(1, min(1000, int(1e-3 / (time.perf_counter() - start + 1e-7)))))
    samples: list[list[float]] = [[] for _ in runs]
    for _ in range(TURNS):
        for run, count, times in zip(runs, counts, samples, strict=True):
            begin, kept = time.perf_counter(), 0
            while kept < FEWEST_SAMPLES or time.perf_counter() < begin + seconds / TURNS:
                start = time.perf_counter()
                for _ in range(count):
                    run()
                if start > begin + seconds / TURNS / 3:
                    times.append(1e6 * (time.perf_counter() - start) / count)
                    kept += 1
    return [min(times) for times in samples]


def compare(size: str, names: Sequence[str], seconds: float) -> dict[str, float]:
    """Prints and gives the ratios of one size."""
    import torch

    import graphc

    given = arrays(*SIZES[size])
    libraries = [(graphc, graphc.nn.functional, operands(graphc, given)), (torch, torch.nn.functional, operands(torch, given))]
    ratios = {}
    for name in names:
        call = CALLS[name]
        runs = [lambda call=call, rest=rest: call(*rest) for rest in libraries]
        try:
            problem = wrong(*(run() for run in runs))
        except Exception as error:
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if problem:
            print(f"{size:7} {name:22} {problem}")
            continue
        ours, theirs = measure(runs, seconds)
        ratios[name] = theirs / ours
        mark = "  slower than twice" if ratios[name] < SLOWEST else ""
        print(f"{size:7} {name:22} {ours:10.2f} {theirs:10.2f} {ratios[name]:6.2f}{mark}", flush=True)
    return ratios


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 where every size is at least as fast as PyTorch in the mean and no call takes twice as long."""
    parser = argparse.ArgumentParser(prog="python -m bench eager", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="calls; all without any")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each library and call (1)")
    parser.add_argument("--threads", type=int, default=2, help="threads of both libraries (2)")
    parser.add_argument("--sizes", default=",".join(SIZES), help="among small,medium,large")
    given = parser.parse_args(arguments)
    import torch

    import graphc
    from graphc.runtime.threads import set_num_threads

    torch.set_num_threads(given.threads)
    set_num_threads(given.threads)
    x = graphc.ones(8)
    for _ in range(WARMUP_CALLS):  # machine code takes over after some hundreds of calls, whatever they are
        x = x + x
    gc.freeze()
    print(f"{'size':7} {'call':22} {'graphc us':>10} {'torch us':>10}  ratio")
    found = {size: compare(size, given.names or list(CALLS), given.seconds) for size in given.sizes.split(",")}
    good = True
    for size, ratios in found.items():
        mean = math.exp(statistics.fmean(map(math.log, ratios.values()))) if ratios else math.nan
        slow = [name for name, ratio in ratios.items() if ratio < SLOWEST]
        good = good and mean >= 1 and not slow and len(ratios) == len(given.names or CALLS)
        print(f"{size}: geometric mean {mean:.2f} of {len(ratios)} calls; below {SLOWEST}: {', '.join(slow) or 'none'}")
    return 0 if good else 1
