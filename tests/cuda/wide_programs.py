"""Random programs of more operators and larger tensors than `random_programs` makes, for backends that run in pieces."""

from __future__ import annotations

from graphc.dtypes import DType, float32, int64
from graphc.ir.graph import Value
from random_programs import RandomProgram

SHAPES = ((33, 70), (5, 4100), (3, 17, 40), (130,), (8, 2, 33), (64, 64))


class WideProgram(RandomProgram):
    """Random programs of more operators (composites, indices, integers, truth) over larger tensors, nothing left unused."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, steps=16, without=("host",))
        used = {v for value in self.values if value.node is not None for v in value.node.inputs}
        outputs = [v for v in self.values if v.node is not None and v not in used]
        self.graph = self.builder.graph(f"random{seed}", self.inputs, dict.fromkeys(outputs))

    def new_input(self, shape: tuple[int, ...] | None = None, dtype: DType | None = None) -> Value:
        return super().new_input(SHAPES[self.rng.integers(len(SHAPES))] if shape is None else shape, dtype)

    def value(self) -> Value:
        """A recent value that has more than a few elements."""
        large = [v for v in self.values if self.size(v) > 8]
        return large[-min(int(self.rng.geometric(0.3)), len(large))]

    def step_layer_norm(self) -> Value:
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        return self.tame(self.public("layer_norm", x, (x.shape[-1],)))

    def step_linear(self) -> Value:
        """A product with an epilogue."""
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        rows, inner = int(self.rng.choice((3, 17, 40))), int(x.shape[-1])  # type: ignore[arg-type]
        weight, bias = self.new_input((rows, inner), x.dtype), self.new_input((rows,), x.dtype)
        return self.tame(self.public("gelu", self.public("linear", x, weight, bias)))

    def step_embedding(self) -> Value:
        table = self.new_input((9, int(self.rng.choice((5, 33)))), float32)
        return self.public("embedding", self.places((2, 3), 9), table)

    def step_gather(self) -> Value:
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        dim = int(self.rng.integers(x.ndim))
        index = self.places(tuple(int(n) for n in x.shape), int(x.shape[dim]))  # type: ignore[arg-type]
        return self.public("gather", x, dim, index)

    def step_scatter_add(self) -> Value:
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        dim = int(self.rng.integers(x.ndim))
        index = self.places(tuple(int(n) for n in x.shape), int(x.shape[dim]))  # type: ignore[arg-type]
        return self.tame(self.public("scatter_add", x, dim, index, self.run("neg", x)))

    def step_put(self) -> Value:
        """Elements at one index tensor written to another, or added there."""
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        dim, accumulate = int(self.rng.integers(x.ndim)), bool(self.rng.integers(2))
        size = int(x.shape[dim])  # type: ignore[arg-type]
        where = {"dims": (dim,), "at": dim}
        read = self.run("index", x, self.places((2, 3), size), **where)
        return self.tame(self.run("index_put", x, read, self.places((2, 3), size), **where, accumulate=accumulate))

    def step_running(self) -> Value:
        """The greatest so far and where it was."""
        x = self.value()
        if not x.ndim:
            return self.tame(x)
        values, places = self.public("cummax", x, int(self.rng.integers(x.ndim)))
        return self.public("add", values, self.run("cast", places, dtype=x.dtype))

    def step_integers(self) -> Value:
        """Division and remainder of i64, an order between them, back to a float."""
        shape = tuple(int(n) for n in self.value().shape)  # type: ignore[arg-type]
        a, b = self.places(shape, 50), self.public("add", self.places(shape, 6), 1)
        total = self.public("add", self.public("floor_divide", a, b), self.public("remainder", self.run("neg", a), b))
        chosen = self.run("where", self.public("lt", a, total), total, b)
        running = self.public("cumsum", chosen, 0) if shape else chosen
        return self.tame(self.run("cast", running, dtype=float32))

    def places(self, shape: tuple[int, ...], below: int) -> Value:
        """A new input of i64 in range(below), not for arithmetic."""
        index = self.new_input(shape, int64)
        self.values.pop()
        self.limits[index] = below
        return index
