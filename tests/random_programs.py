"""Random graph programs: elementwise chains, movement, reductions, products, softmax, from a seed.

Values stay near 1 in size, and no operator jumps, so that a last-bit difference never grows into another result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graph_cases import Array, random_array
from graphc.dtypes import DType, bfloat16, bool_, complex64, complex128, float16, float32, float64, int32
from graphc.ir.graph import Builder, Graph, Value
from graphc.ir.op import Op, TensorType

SIZES = (1, 2, 3, 5, 8, 17, 33)
LONG = (70, 257, 4100)
UNARY = ("sin", "tanh", "sigmoid", "exp", "abs", "neg", "square", "relu", "gelu", "silu")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
FLOATS: tuple[DType, ...] = (float32, float32, float32, float64, float16, bfloat16)


class RandomProgram:
    """Grows a graph by one operator at a time; every step is a method called ``step_...``."""

    def __init__(
        self, seed: int, steps: int = 12, sizes: tuple[int, ...] = SIZES, rank: int = 3, without: tuple[str, ...] = ()
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.sizes, self.rank = sizes, rank
        self.builder = Builder()
        self.inputs: list[Value] = []
        self.values: list[Value] = []
        self.limits: dict[Value, int] = {}  # index inputs: what they must stay below
        names = [name for name in sorted(dir(self)) if name.startswith("step_") and name.removeprefix("step_") not in without]
        kinds: list[Callable[[], Value]] = [getattr(self, name) for name in names]
        with self.builder.running():
            for _ in range(2):
                self.new_input()
            while len(self.values) < steps + 2:
                self.values.append(kinds[self.rng.integers(len(kinds))]())
        outputs = [v for v in self.values[-3:] if v.node is not None] or self.values[-1:]
        self.graph: Graph = self.builder.graph(f"random{seed}", self.inputs, dict.fromkeys(outputs))

    def arrays(self) -> list[Array]:
        """Inputs for the graph: indices in range, everything else small."""
        return [self.array(v) for v in self.inputs]

    def array(self, value: Value) -> Array:
        shape = [int(n) for n in value.shape]  # type: ignore[arg-type]
        if value in self.limits:
            return self.rng.integers(0, self.limits[value], shape).astype(value.dtype.numpy)
        array = random_array(self.rng, value.dtype, shape)
        return (array / 2).astype(value.dtype.numpy) if value.dtype.kind == "f" else array

    # ---- choices

    def one(self, *choices: object) -> object:
        return choices[self.rng.integers(len(choices))]

    def new_input(self, shape: tuple[int, ...] | None = None, dtype: DType | None = None) -> Value:
        if shape is None:
            shape = tuple(int(n) for n in self.rng.choice(self.sizes, self.rng.integers(0, self.rank + 1)))
        dtype = dtype or FLOATS[self.rng.integers(len(FLOATS))]
        value = Value(TensorType(dtype, shape), name=f"x{len(self.inputs)}")
        self.inputs.append(value)
        self.values.append(value)
        return value

    def value(self) -> Value:
        """A recent value more often than an old one."""
        back = min(int(self.rng.geometric(0.4)), len(self.values))
        return self.values[-back]

    def tame(self, x: Value) -> Value:
        """Back to size 1."""
        return self.run("tanh", x)

    def run(self, name: str, *inputs: Value, **attrs: object) -> Value:
        result: Value = Op.table[name].run(*inputs, **attrs)
        return result

    # ---- steps

    def step_unary(self) -> Value:
        name = str(self.one(*UNARY))
        x = self.value()
        return self.tame(self.public(name, x)) if name in ("exp", "square") else self.public(name, x)

    def public(self, name: str, *arguments: object, **keywords: object) -> Value:
        result: Value = Op.table[name](*arguments, **keywords)
        return result

    def step_binary(self) -> Value:
        x = self.value()
        y = self.partner(x)
        return self.tame(self.public(str(self.one(*BINARY)), x, y))

    def partner(self, x: Value) -> Value:
        """A value that broadcasts with x: an old one, or a new input of some of its dims."""
        fitting = [v for v in self.values if v is not x and v.shape == x.shape]
        if fitting and self.rng.random() < 0.6:
            return fitting[self.rng.integers(len(fitting))]
        lead = int(self.rng.integers(0, len(x.shape) + 1))
        shape = tuple(1 if self.rng.random() < 0.3 else int(n) for n in x.shape[lead:])  # type: ignore[arg-type]
        return self.new_input(shape, x.dtype)

    def step_number(self) -> Value:
        return self.tame(self.public(str(self.one("add", "mul", "sub")), self.value(), float(self.rng.uniform(0.5, 1.5))))

    def step_cast(self) -> Value:
        return self.run("cast", self.value(), dtype=FLOATS[self.rng.integers(len(FLOATS))])

    def step_where(self) -> Value:
        x = self.value()
        mask = self.new_input(tuple(int(n) for n in x.shape), bool_)  # type: ignore[arg-type]
        self.values.pop()  # not for arithmetic
        return self.run("where", mask, x, self.run("neg", x))

    def step_permute(self) -> Value:
        x = self.value()
        return self.run("permute", x, dims=tuple(int(d) for d in self.rng.permutation(x.ndim)))

    def step_reshape(self) -> Value:
        x = self.value()
        shape = [int(n) for n in x.shape]  # type: ignore[arg-type]
        at = int(self.rng.integers(0, len(shape) + 1))
        if len(shape) >= 2 and self.rng.random() < 0.7:
            at = min(at, len(shape) - 2)
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        else:
            shape.insert(at, 1)
        return self.run("reshape", x, shape=tuple(shape))

    def step_expand(self) -> Value:
        x = self.value()
        shape = tuple(3 if n == 1 else int(n) for n in x.shape)  # type: ignore[arg-type]
        return self.run("expand", x, shape=(2, *shape) if len(shape) < self.rank else shape)

    def step_slice(self) -> Value:
        x = self.value()
        starts = tuple(int(self.rng.integers(0, (int(n) + 1) // 2)) for n in x.shape)  # type: ignore[arg-type]
        steps = tuple(int(self.rng.integers(1, 3)) for _ in x.shape)
        return self.run("slice", x, starts=starts, stops=x.shape, steps=steps)

    def step_flip(self) -> Value:
        x = self.value()
        return self.run("flip", x, dims=(int(self.rng.integers(x.ndim)),)) if x.ndim else self.run("neg", x)

    def step_cat(self) -> Value:
        x = self.value()
        if not x.ndim or self.size(x) > 4000:
            return self.tame(x)
        return self.public("cat", [x, self.run("neg", x)], int(self.rng.integers(x.ndim)))

    @staticmethod
    def size(x: Value) -> int:
        return int(np.prod([int(n) for n in x.shape]))  # type: ignore[arg-type]

    def step_reduce(self) -> Value:
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        keepdim, dim = bool(self.rng.integers(2)), int(self.rng.integers(x.ndim))
        name = str(self.one("mean", "sum", "amax", "amin"))
        return self.tame(self.public(name, x, dim, keepdim))

    def step_normalise(self) -> Value:
        """A reduction whose result meets its operand again."""
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        dim = int(self.rng.integers(x.ndim))
        if self.rng.random() < 0.5:
            return self.public("softmax", x, dim)
        return self.tame(self.public("sub", x, self.public("mean", x, dim, True)))

    def step_matmul(self) -> Value:
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        inner = int(x.shape[-1])  # type: ignore[arg-type]
        y = self.new_input((inner, int(self.rng.choice(self.sizes[:7]))), x.dtype)
        factor = 1.0 / max(inner, 1)
        return self.public("mul", self.public("matmul", x, y), factor)

    def step_index(self) -> Value:
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        dim = int(self.rng.integers(x.ndim))
        index = self.new_input((int(self.rng.choice((1, 3, 5))),), int32)
        self.values.pop()  # not for arithmetic
        self.limits[index] = int(x.shape[dim])  # type: ignore[arg-type]
        return self.public("index_select", x, dim, index)

    def step_host(self) -> Value:
        """A transform of complex numbers, which the host runs."""
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        numbers = self.run("cast", x, dtype=complex128 if x.dtype is float64 else complex64)
        return self.tame(self.public("abs", self.run("fft_c2c", numbers, dims=(x.ndim - 1,), scale="ortho", forward=True)))

    def step_cumsum(self) -> Value:
        x = self.value()
        return self.tame(self.public("cumsum", x, int(self.rng.integers(x.ndim)))) if x.ndim else self.tame(x)
