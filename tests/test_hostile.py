"""Calls that cannot succeed: every operator answers with PyTorch's exception class and its own name, and nothing is harmed.

The calls are the operators' own samples with one argument replaced by something it should not be; which ones is fixed by the
operator's name.  Huge sizes are asked for in a process of its own that may not have much memory.
"""

from __future__ import annotations

import json
import operator
import random
import re
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc.artifact import container
from graphc.errors import ArtifactError
from graphc.ir.op import Fill, Op, Sample
from graphc.ops.arguments import is_tensor
from op_checks import filled, mapped

ACCEPTED = (RuntimeError, TypeError, ValueError, IndexError, OverflowError, ZeroDivisionError)
NOT_ACCEPTED = (RecursionError, UnicodeError)  # classes of Python's that are kinds of those
LEAKS = re.compile(
    r"object has no attribute|not supported between|unsupported operand|is not iterable|not subscriptable|ufunc|lambda>"
)
SLICES, CALLS_EACH = 8, 6
HUGE = (2**62, -(2**63), 2**63, 10**30)
MEMORY = 6 << 30  # bytes of address space of the process that asks for huge sizes


def public(op: Op) -> Callable[..., Any] | None:
    """The operator's public function, or else its method; None where it has neither."""
    for dotted in op.functions:
        return operator.attrgetter(dotted)(graphc)  # type: ignore[no-any-return]
    return getattr(graphc.Tensor, op.methods[0]) if op.methods else None


def instead_of(x: Any) -> list[Any]:
    """What stands for an argument of a sample: never a size that could be allocated."""
    if is_tensor(x):
        shape = tuple(x.shape)
        tensors = [
            graphc.zeros((0, *shape[1:]), dtype=x.dtype),
            graphc.zeros((*shape[:-1], 0), dtype=x.dtype),
            graphc.zeros((), dtype=x.dtype),
            graphc.ones((2, *shape), dtype=x.dtype),
            graphc.ones([n + 1 for n in shape], dtype=x.dtype),
            graphc.broadcast_to(graphc.zeros((1,) * len(shape), dtype=x.dtype), shape),
            x.to(graphc.bool),
            x.to(graphc.int32),
            x.to(graphc.complex64),
        ]
        if x.dtype.kind in "iu":
            tensors += [graphc.full(shape, v, dtype=x.dtype) for v in (-1, 2**62, -(2**63), 10**6)]
        return [*tensors, None, "x", 3, 2.5, [1, 2], (), np.zeros(3), object()]
    if isinstance(x, bool):
        return [None, 2, "x"]
    if isinstance(x, int):
        return [-1, -7, 0, *HUGE, 1.5, float("nan"), "x", None, [1], ()]
    if isinstance(x, float):
        return [float("nan"), float("inf"), -1.0, 2**62, 10**400, "x", None, 1j, [1.0]]
    if isinstance(x, tuple | list):
        kind = type(x)
        return [
            kind(()),
            kind([*x, *x[-1:]]),
            kind(x[:-1]),
            None,
            "x",
            *(kind([v] * len(x)) for v in (-1, 0, 2**62, 1.5, None, "x")),
        ]
    return [-1, 2**62, "x", 1.5, (), (2**62, 2**62)]


def replaced(value: Any) -> Iterator[Any]:
    """`value`, an argument list, with one thing in it replaced, in every way."""
    for at, x in value.items() if isinstance(value, dict) else enumerate(value):
        for other in (*instead_of(x), *(replaced(x) if isinstance(x, tuple | list) else ())):
            if isinstance(value, dict):
                yield {**value, at: other}
            else:
                yield type(value)([*value[:at], other, *value[at + 1 :]])


def hostile_calls(op: Op, sample: Sample) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The sample's call, spoiled in every way."""
    rng = np.random.default_rng(3)

    def value_of(fill: Fill) -> Any:
        return graphc.from_numpy(filled(fill, next(d for d in op.dtypes or (graphc.float32,)), rng))

    args, kwargs = mapped(sample.args, value_of), mapped(sample.kwargs, value_of)
    calls = [(spoiled, kwargs) for spoiled in replaced(args)] + [(args, spoiled) for spoiled in replaced(kwargs)]
    return [*calls, (args[:-1], kwargs), ((*args, 1, 2, 3, 4, 5), kwargs), (args, {**kwargs, "nonsense": 1})]


def wrong(name: str, error: BaseException) -> str | None:
    """What is wrong with an exception that a call of `name` raised; None where nothing is."""
    message = str(error)
    names = {name, name.rpartition(".")[2], name.replace("linalg_", "linalg.").replace("fft_", "fft.")}
    asserted = isinstance(error, AssertionError) and message.startswith("embedding")  # as PyTorch asserts its padding_idx
    if not isinstance(error, ACCEPTED) and not asserted or isinstance(error, NOT_ACCEPTED):
        return f"raised {type(error).__name__}"
    if LEAKS.search(message):
        return "a message from inside"
    return None if any(n in message for n in names) or re.match(r"[\w. ]+(\(\))?:? ", message) else "a message without a name"


@pytest.mark.parametrize("part", range(SLICES))
def test_arguments_that_should_not_be(part: int) -> None:
    found: list[str] = []
    for op in sorted(Op.table.values(), key=lambda op: op.name)[part::SLICES]:
        function = public(op)
        if function is None or not op.samples:
            continue
        draw = random.Random(zlib.crc32(op.name.encode()))
        calls = hostile_calls(op, op.samples[0]) + hostile_calls(op, op.samples[-1])
        for args, kwargs in draw.sample(calls, min(CALLS_EACH, len(calls))):
            try:
                function(*args, **kwargs)
            except BaseException as error:
                reason = wrong(op.name, error)
                if reason is not None:
                    shown = [getattr(a, "shape", a) for a in args]
                    found.append(f"{op.name}{shown} {kwargs}: {reason}: {type(error).__name__}: {str(error)[:150]}")
    assert not found, "\n".join(found)


# ---- sizes that nothing could hold -----------------------------------------------------------------------------------

HUGE_CALLS: dict[str, Callable[[Any, int], Any]] = {
    "zeros": lambda x, n: graphc.zeros(n, n),
    "empty": lambda x, n: graphc.empty(n),
    "full": lambda x, n: graphc.full((n,), 1.0),
    "arange": lambda x, n: graphc.arange(n),
    "linspace": lambda x, n: graphc.linspace(0, 1, n),
    "eye": lambda x, n: graphc.eye(n),
    "rand": lambda x, n: graphc.rand(n),
    "randperm": lambda x, n: graphc.randperm(n),
    "repeat": lambda x, n: x.repeat(n, 2),
    "tile": lambda x, n: x.tile(n),
    "repeat_interleave": lambda x, n: x.repeat_interleave(n),
    "expand and add": lambda x, n: x[0].expand(n, 4) + 1,
    "reshape": lambda x, n: x.reshape(n, 2),
    "narrow": lambda x, n: x.narrow(0, n, n),
    "as_strided": lambda x, n: x.as_strided((n, n), (1, 1)),
    "resize_": lambda x, n: x.clone().resize_(n),
    "unfold": lambda x, n: x.unfold(0, n, 1),
    "pad": lambda x, n: F.pad(x, (n, n)),
    "one_hot": lambda x, n: F.one_hot(graphc.tensor([1]), n),
    "interpolate": lambda x, n: F.interpolate(x[None], size=n),
    "adaptive_avg_pool1d": lambda x, n: F.adaptive_avg_pool1d(x, n),
    "max_pool1d": lambda x, n: F.max_pool1d(x, n),
    "conv1d": lambda x, n: F.conv1d(x[None], graphc.ones(1, 3, 2), padding=n),
    "fft": lambda x, n: graphc.fft.fft(x, n),
    "topk": lambda x, n: x.topk(n),
    "roll of a wrong dim": lambda x, n: x.roll(1, n),
    "bincount": lambda x, n: graphc.bincount(graphc.tensor([1]), minlength=n),
    "combinations": lambda x, n: graphc.combinations(x[0], n, True),
    "getitem": lambda x, n: x[n],
    "stft": lambda x, n: graphc.stft(x, n, return_complex=True),
}


def ask_for_huge_sizes() -> None:
    """In the process of its own: every call must raise, or give a tensor that takes no memory.  Prints what did not."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name, call in HUGE_CALLS.items():
        for size in (2**31 + 1, *HUGE):
            try:
                call(graphc.ones(3, 4), size)
            except BaseException as error:
                if not isinstance(error, ACCEPTED) or isinstance(error, NOT_ACCEPTED) or LEAKS.search(str(error)):
                    print(f"{name} of {size}: {type(error).__name__}: {error}", flush=True)
            else:
                print(f"{name} of {size}: no error", flush=True)


def test_huge_sizes() -> None:
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == ""


# ---- places outside, in compiled code too ----------------------------------------------------------------------------

N = 6
PLACES: dict[str, tuple[int, Callable[[Any, Any], Any]]] = {  # one more than the largest place, and the call
    "getitem": (N, lambda x, i: x[i]),
    "gather": (N, lambda x, i: x.gather(0, i[:, None])),
    "index_select": (N, lambda x, i: x.index_select(0, i)),
    "take": (N * 4, lambda x, i: x.take(i)),
    "embedding": (N, lambda x, i: F.embedding(i, x)),
    "scatter": (N, lambda x, i: x.scatter(0, i[:, None], 1.0)),
    "scatter_add": (N, lambda x, i: x.scatter_add(0, i[:, None], x[:2, :1])),
    "index_add": (N, lambda x, i: x.index_add(0, i, x[:2])),
    "index_put_": (N, lambda x, i: x.index_put_((i,), x[0])),
    "setitem": (N, lambda x, i: x.__setitem__(i, 5.0)),
    "put_": (N * 4, lambda x, i: x.put_(i, x[0, :2])),
    "nll_loss": (4, lambda x, i: F.nll_loss(x[:2], i)),
    "cross_entropy": (4, lambda x, i: F.cross_entropy(x[:2], i)),
    "one_hot": (N, lambda x, i: F.one_hot(i, N)),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", PLACES)
def test_places_outside(name: str, threads: int) -> None:
    limit, call = PLACES[name]
    before = graphc.get_num_threads()
    graphc.set_num_threads(threads)
    try:
        for function in (call, graphc.compile(call)):
            for place in (limit, -limit - 1, 2**62, -(2**63)):
                x: Any = graphc.arange(N * 4.0)
                x = x.reshape(N, 4)
                with pytest.raises((IndexError, RuntimeError)):
                    function(x, graphc.tensor([1, place]))
                assert x.flatten().tolist() == list(range(N * 4))
    finally:
        graphc.set_num_threads(before)


# ---- writes over what is read ----------------------------------------------------------------------------------------

OVERLAPPING: list[tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = [  # the write; the same in NumPy from a copy b of a
    (lambda x: x[1:].copy_(x[:-1]), lambda a, b: np.copyto(a[1:], b[:-1])),
    (lambda x: x[:-1].copy_(x[1:]), lambda a, b: np.copyto(a[:-1], b[1:])),
    (lambda x: x[1:].add_(x[:-1]), lambda a, b: np.copyto(a[1:], b[1:] + b[:-1])),
    (lambda x: x.T.copy_(x), lambda a, b: np.copyto(a, b.T)),
    (lambda x: x.T.add_(x), lambda a, b: np.copyto(a, b + b.T)),
    (lambda x: x.sub_(x.T), lambda a, b: np.copyto(a, b - b.T)),
    (lambda x: x.div_(x[1, 1]), lambda a, b: np.copyto(a, b / b[1, 1])),
    (lambda x: x.sub_(x[0]), lambda a, b: np.copyto(a, b - b[0])),
    (lambda x: x.__setitem__((slice(None), 0), x[0]), lambda a, b: np.copyto(a[:, 0], b[0])),
    (lambda x: x.index_copy_(0, graphc.tensor([2, 1, 0]), x), lambda a, b: np.copyto(a, b[::-1])),
    (lambda x: x.masked_fill_(x > 3, x[2, 2]), lambda a, b: np.copyto(a, b[2, 2], where=b > 3)),
]


@pytest.mark.parametrize("case", range(len(OVERLAPPING)))
def test_what_is_read_is_read_first(case: int) -> None:
    write, by_numpy = OVERLAPPING[case]
    start = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
    wanted = start.copy()
    by_numpy(wanted, start)
    for function in (write, graphc.compile(write)):
        x: Any = graphc.tensor(start)
        function(x)
        assert np.array_equal(x.numpy(), wanted)


@pytest.mark.parametrize("view", [lambda x: x.expand(3, 4), lambda x: x.as_strided((2, 3), (1, 1)), lambda x: x.unfold(0, 3, 1)])
def test_elements_that_share_memory_are_not_written_to(view: Callable[[Any], Any]) -> None:
    x: Any = graphc.arange(4.0)
    for write in (lambda v: v.add_(1), lambda v: v.copy_(graphc.ones(v.shape)), lambda v: v.fill_(2)):
        with pytest.raises(RuntimeError, match="single memory location"):
            write(view(x))
        with pytest.raises(RuntimeError, match="single memory location"):
            graphc.compile(lambda x, write=write: write(view(x)))(x)
    assert x.tolist() == [0, 1, 2, 3]


# ---- files whose parts say something else, with right hashes -----------------------------------------------------------

STRANGE: list[Any] = [
    None, True, -1, 0, 1, 2**70, 0.5, "", "w", "dim0", "dim0 // 0", "../x", [], [[]], {}, ["leaf", None, []], ["size", "dim0", []],
    ["size", "other", []], ["named", ["t", "a"], [["leaf", None, []]]], ["named", ["t", "import"], [["leaf", None, []]]], [0, "w"],
]  # fmt: skip


def altered(data: Any, draw: random.Random) -> Any:
    """`data` with one thing in it replaced, left out or doubled."""
    if isinstance(data, dict | list) and data and draw.random() < 0.85:
        keys = list(data) if isinstance(data, dict) else range(len(data))
        at = draw.choice(keys)
        if isinstance(data, dict):
            return {key: altered(value, draw) if key == at else value for key, value in data.items()}
        return [altered(value, draw) if i == at else value for i, value in enumerate(data)]
    if isinstance(data, list) and data and draw.random() < 0.5:
        return data[:-1] if draw.random() < 0.5 else [*data, data[-1]]
    return draw.choice(STRANGE)


@pytest.mark.parametrize(("entry", "count"), [("signature.json", 120), ("programs/0/sizes.json", 60)])
def test_artifacts_that_say_something_else(entry: str, count: int, tmp_path: Path) -> None:
    """They are refused, or run as what they say; what is called with what they do not serve is refused."""
    w = graphc.ones(3)

    def add(x: Any, *, by: Any) -> Any:
        w.add_(by.sum(0))
        return {"sum": (x * w).sum(), "number": w.sum().item(), "size": x.shape[0] + 1}, x + by

    compiled = graphc.compile(add)
    for size in (4, 6):
        compiled(graphc.ones(size, 3), by=graphc.ones(size, 3))
    compiled.save(tmp_path / "x.gc")
    entries = container.read(tmp_path / "x.gc")
    data, draw, served, x = json.loads(entries[entry]), random.Random(3), 0, np.ones((5, 3), np.float32)
    for _ in range(count):
        container.write(tmp_path / "y.gc", {**entries, entry: json.dumps(altered(data, draw)).encode()})
        try:
            loaded = graphc.load(tmp_path / "y.gc")
            loaded.load_state_dict(loaded.state_dict())
            loaded(x, by=x)
            served += 1
        except ArtifactError:
            continue
        except TypeError as error:
            if "the artifact was made for" not in str(error):
                raise
    assert 0 < served < count


if __name__ == "__main__":
    ask_for_huge_sizes()
