"""Programs in Python as data: statements, and inputs that are made from a seed.  `random_growth` makes random ones."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc
from graph_cases import random_array
from graphc import nn
from graphc.dtypes import DType
from graphc.ir.op import Op


@dataclass(frozen=True)
class Statement:
    """A line of code; with a body, the header of a block (without text, statements that belong together).
    other: what stands under its ``else``."""

    text: str
    body: tuple[Statement, ...] = ()
    other: tuple[Statement, ...] = ()

    def lines(self, depth: int = 0) -> Iterator[str]:
        """The code, indented."""
        if self.text:
            yield "    " * depth + self.text
        for statement in self.body:
            yield from statement.lines(depth + bool(self.text))
        if self.other:
            yield "    " * depth + "else:"
            for statement in self.other:
                yield from statement.lines(depth + 1)


@dataclass(frozen=True)
class Input:
    """A tensor that a program is given, or finds outside (`state`).  `batch`: dims that differ between calls of other sizes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str = "plain"
    requires_grad: bool = False
    state: bool = False
    low: float = -2.0
    high: float = 2.0
    special: bool = False
    batch: tuple[int, ...] = ()

    def make(self, seed: Sequence[int], batch: int | None = None) -> graphc.Tensor:
        """The tensor of one call."""
        shape = tuple(batch if batch is not None and i in self.batch else n for i, n in enumerate(self.shape))
        rng = np.random.default_rng([*seed, *self.name.encode()])
        dtype: DType = getattr(graphc, self.dtype)
        if dtype.kind == "f" and self.special:
            array = random_array(rng, dtype, shape, special=True)
        elif dtype.kind in "fc":
            array = rng.uniform(self.low, self.high, shape).astype(np.float32).astype(dtype.numpy)
        elif dtype.kind == "b":
            array = rng.integers(0, 2, shape).astype(bool)
        else:
            low = max(math.ceil(self.low), 0) if dtype.kind == "u" else math.ceil(self.low)
            array = rng.integers(low, max(math.ceil(self.high), low + 1), shape).astype(dtype.numpy)
        return self.laid_out(graphc.tensor(np.asarray(array, dtype.numpy), dtype=dtype)).requires_grad_(self.requires_grad)

    def laid_out(self, x: graphc.Tensor) -> graphc.Tensor:
        """The same elements in memory of the layout that is asked for."""
        if self.layout == "turned" and x.ndim > 1:
            return x.transpose(0, -1).contiguous().transpose(0, -1)
        if self.layout == "strided" and x.ndim:
            return graphc.stack([x, x], -1)[..., 1]
        if self.layout == "offset" and x.ndim:
            return graphc.cat([x[:1], x])[1:] if len(x) else x
        if self.layout == "expanded" and x.ndim and len(x):
            return x[:1].clone().expand(x.shape)
        return x


class Holder(nn.Module):
    """The module that programs find outside: a parameter, a buffer, and attributes that they set."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.weight = nn.Parameter(graphc.tensor(rng.uniform(-1, 1, 3).astype(np.float32)))
        self.register_buffer("total", graphc.zeros(3))
        self.calls, self.kept = 0, None


@dataclass(frozen=True)
class Code:
    """A program.   gradients: who runs backward ("none", "outside", "inside", "twice"), or "off" for calls under `no_grad`.
    batches: of each call, the size of dims that may differ; None is the size that the program was grown with."""

    seed: int
    inputs: tuple[Input, ...]
    statements: tuple[Statement, ...]
    results: tuple[str, ...]
    gradients: str = "none"
    batches: tuple[int | None, ...] = (None, None, None)

    def text(self) -> str:
        """The function ``program``."""
        names = ", ".join(i.name for i in self.inputs if not i.state)
        lines = [line for statement in self.statements for line in statement.lines(1)]
        if self.gradients == "inside":
            lines += [f"    loss = loss_of([{', '.join(self.results)}])", "    if loss.requires_grad:", "        loss.backward()"]
        members = ", ".join(f"{name!r}: {name}" for name in (*self.results, *["loss"] * (self.gradients == "inside")))
        return "\n".join([f"def program({names}):", *lines, f"    return {{{members}}}"]) + "\n"

    def all_results(self) -> tuple[str, ...]:
        """All variables that every path defines: an error in what nobody needs is not raised by compiled code."""
        return tuple(dict.fromkeys(s.text.split(" = ")[0] for s in self.statements if re.match(r"[vx]\d+ = ", s.text)))

    def __str__(self) -> str:
        inputs = "\n".join(f"# {i}" for i in self.inputs)
        return f"# seed {self.seed}, gradients {self.gradients}, batches {self.batches}\n{inputs}\n{self.text()}"


def loss_of(values: Sequence[Any]) -> graphc.Tensor:
    """One number of all results that gradients may flow through."""
    total = graphc.zeros(())
    for x in values:
        if isinstance(x, graphc.Tensor) and x.dtype.kind == "f":
            total = total + (x.to(graphc.float32) * 0.75).sum()
    return total


def fitted(x: graphc.Tensor, shape: Sequence[int], low: float, high: float, squash: bool) -> graphc.Tensor:
    """A tensor of another shape and range, made of the elements of `x`."""
    count = math.prod(shape)
    row = x.reshape(-1)
    if row.numel() < count:
        row = row.repeat(-(-count // max(row.numel(), 1)))
    row = row[:count].reshape(tuple(shape))
    return graphc.sigmoid(row) * (high - low) + low if squash else row


def names_for_code() -> dict[str, Any]:
    """The globals of a program."""
    return {"graphc": graphc, "op": Op.table.__getitem__, "loss_of": loss_of, "fitted": fitted, "inf": math.inf, "nan": math.nan}
