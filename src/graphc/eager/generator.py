"""Random numbers: generators and the functions that draw from them.

Enters: seeds and sizes.  Leaves: tensors.  Never here: how bits become values (`ops.random`).

A generator is a tensor, uint64 [2] = (seed, offset), that every draw overwrites; so it is traced and restored as any state is.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphc.dtypes import DType, get_default_dtype, int64, uint64
from graphc.eager.devices import CPU, check_device
from graphc.eager.devices import device as Device
from graphc.eager.dispatch import assign
from graphc.eager.factory import creation
from graphc.eager.failures import ERRORS, guarded, located
from graphc.eager.methods import attached
from graphc.eager.modes import modes, no_grad
from graphc.eager.tensor import Tensor, wrap_array
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.ops.arguments import cast, one_size, sizes
from graphc.ops.random import BLOCK_WORDS, normal_from, word_count

_MASK = (1 << 64) - 1
PIECE = 1 << 20  # elements of a larger tensor that are made at once: a model's weights leave no temporaries of their size behind


class Generator:
    """A source of random numbers.  state: uint64 [2] = (seed, offset), written to by every draw."""

    __slots__ = ("_seed", "state")

    def __init__(self, device: Any = "cpu", seed: int = 0) -> None:
        check_device(device)
        self._seed = seed & _MASK
        self.state = wrap_array(np.array([self._seed, 0], np.uint64))

    @property
    def device(self) -> Device:
        """The CPU."""
        return CPU

    def manual_seed(self, seed: int) -> Generator:
        """Start the numbers of `seed` from the beginning.  Raises TypeError if it is not an int."""
        if not isinstance(seed, int | np.integer):
            raise TypeError(at_user_line(f"manual_seed: seed must be an int, not {type(seed).__name__}"))
        self._seed = int(seed) & _MASK
        return self.set_state(wrap_array(np.array([self._seed, 0], np.uint64)))

    def seed(self) -> int:
        """Seed from the operating system's randomness.  Gives the seed."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)
        return self._seed

    def initial_seed(self) -> int:
        return self._seed

    def get_state(self) -> Tensor:
        """A copy of the state."""
        return Op.table["clone"].run(self.state)  # type: ignore[no-any-return]

    def set_state(self, state: Tensor) -> Generator:
        """Go on from a state that `get_state` gave.  Raises RuntimeError for another tensor."""
        if not isinstance(state, Tensor) or state.dtype is not uint64 or tuple(state._array.shape) != (2,):
            raise RuntimeError(at_user_line("set_state: expected a state that get_state gave (uint64 of 2 elements)"))
        with no_grad():
            assign(self.state, state, "set_state", fresh=False)
        return self

    def draw(self, op: str, *args: Any, **kwargs: Any) -> Tensor:
        """The values of a random operator, and the state moved past them.

        Complex numbers of ``rand`` and ``randn`` are pairs of real ones, normal ones of variance 1 together.
        """
        value: Tensor
        if op in ("rand", "randn") and args[1].kind == "c":
            shape, dtype = args
            value = self.draw(op, (*shape, 2), dtype.real)
            if op == "randn":
                value = Op.table["mul"](value, math.sqrt(0.5))
            return Op.table["view_as_complex"].run(value)  # type: ignore[no-any-return]
        value, state = Op.table[op](self.state, *args, **kwargs)
        with no_grad():
            assign(self.state, state, op)
        return value

    def ahead(self, words: int) -> Generator:
        """A generator of the numbers that come after so many words of this one; they must be whole blocks."""
        made = Generator(seed=self._seed)
        return made.set_state(Op.table["advance_state"](self.state, words // BLOCK_WORDS))

    def __repr__(self) -> str:
        return f"<graphc.Generator of seed {self._seed}>"


default_generator = Generator(seed=int.from_bytes(os.urandom(8), "little") >> 1)


def draw(generator: Generator | None, op: str, *args: Any, **kwargs: Any) -> Tensor:
    """`Generator.draw` of the given generator or of the default one."""
    return (default_generator if generator is None else generator).draw(op, *args, **kwargs)


def manual_seed(seed: int) -> Generator:
    """Seed the default generator."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the operating system's randomness.  Gives the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """A copy of the default generator's state."""
    return default_generator.get_state()


def set_rng_state(state: Tensor) -> None:
    """Put the default generator back to a state."""
    default_generator.set_state(state)


@contextlib.contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """Put the default generator back at the end to what it was at the start."""
    state, first = default_generator.get_state(), default_generator._seed
    try:
        yield
    finally:
        if enabled:
            default_generator.set_state(state)
            default_generator._seed = first


# ---- by size ---------------------------------------------------------------------------------------------------------


def _size(name: str, size: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return sizes(name, (kwargs.pop("size"),) if "size" in kwargs else size, "size")


@creation
def rand(*size: Any, generator: Generator | None = None, dtype: DType | None = None, **kwargs: Any) -> Tensor:
    """Uniform in [0, 1)."""
    return draw(generator, "rand", _size("rand", size, kwargs), dtype or get_default_dtype(), **kwargs)


@creation
def randn(*size: Any, generator: Generator | None = None, dtype: DType | None = None, **kwargs: Any) -> Tensor:
    """Normal of mean 0 and variance 1."""
    return draw(generator, "randn", _size("randn", size, kwargs), dtype or get_default_dtype(), **kwargs)


@creation
def randint(
    low: Any = None, high: Any = None, size: Any = None, *, generator: Generator | None = None, dtype: DType = int64
) -> Tensor:
    """Integers in [low, high): ``randint(high, size)`` or ``randint(low, high, size)``; low is 0 where it is not given."""
    if size is None and high is not None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if size is None:
        raise TypeError("randint: missing argument 'size'")
    return draw(generator, "randint", 0 if low is None else low, high, size, dtype)


@creation
def randperm(n: int, *, generator: Generator | None = None, dtype: DType = int64) -> Tensor:
    """0..n-1 in random order: by the order of n random numbers of 62 bits."""
    keys = draw(generator, "randint", 0, 2**62, one_size("randperm", "n", n), int64)
    return cast(Op.table["argsort"](keys), dtype)  # type: ignore[no-any-return]


@creation
def rand_like(x: Tensor, *, generator: Generator | None = None, dtype: DType | None = None) -> Tensor:
    """`rand` in the shape (and dtype) of x."""
    return draw(generator, "rand", tuple(x.shape), dtype or x.dtype)


@creation
def randn_like(x: Tensor, *, generator: Generator | None = None, dtype: DType | None = None) -> Tensor:
    """`randn` in the shape (and dtype) of x."""
    return draw(generator, "randn", tuple(x.shape), dtype or x.dtype)


@creation
def randint_like(
    x: Tensor, low: int, high: int | None = None, *, generator: Generator | None = None, dtype: DType | None = None
) -> Tensor:
    """`randint` in the shape (and dtype) of x."""
    low, high = (0, low) if high is None else (low, high)
    return draw(generator, "randint", low, high, tuple(x.shape), dtype or x.dtype)


@creation
def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, dtype: DType | None = None
) -> Tensor:
    """Normal with a mean and standard deviation that are numbers (with `size`) or tensors."""
    if not isinstance(std, Tensor) and std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    given = [v for v in (mean, std) if isinstance(v, Tensor)]
    if given:
        sample = given[0] if len(given) == 1 else given[0] + given[1]  # type: ignore[operator]
        z = draw(generator, "randn", tuple(sample.shape), dtype or sample.dtype)
    elif size is None:
        raise TypeError("normal: missing argument 'size'")
    else:
        z = draw(generator, "randn", size, dtype or get_default_dtype())
    return z * std + mean  # type: ignore[operator,no-any-return]


# ---- in place --------------------------------------------------------------------------------------------------------


def _overwritten(self: Tensor, value: Tensor, name: str) -> Tensor:
    try:
        return assign(self, cast(value, self.dtype), name)
    except ERRORS as error:
        raise located(error) from None


def _comes_in_pieces(x: Tensor) -> bool:
    """Whether pieces that are drawn one after the other give the same numbers and mean the same as all of them at once."""
    array = x._array
    if modes.tracer is not None or array.size <= PIECE or array.size % BLOCK_WORDS:
        return False
    alone = array.flags.c_contiguous and array.flags.writeable and not (modes.grad and x.requires_grad)
    return alone and x.dtype.kind == "f" and word_count(x.dtype) == 1


def _overwritten_by(self: Tensor, values: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
    """`self` after piece by piece of it was overwritten with the values for a shape."""
    flat = self._array.reshape(-1)
    for start in range(0, flat.size, PIECE):
        part = flat[start : start + PIECE]
        np.copyto(part, cast(values(part.shape), self.dtype)._array)
    self._storage.version += 1
    return self


@attached
@guarded
def uniform_(self: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with values uniform in [a, b).  Raises RuntimeError where a > b."""
    if a > b:
        raise RuntimeError(at_user_line(f"uniform_ expects to return a [from, to) range, but found from={a} > to={b}"))

    def values(shape: tuple[int, ...]) -> Tensor:
        u: Any = draw(generator, "rand", shape, self.dtype)
        u = u * (b - a)  # one name, so that two temporaries at most are alive
        return u + a  # type: ignore[no-any-return]

    if _comes_in_pieces(self):
        return _overwritten_by(self, values)
    return _overwritten(self, values(tuple(self._array.shape)), "uniform_")


@attached
@guarded
def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with values normal of this mean and standard deviation.  Raises RuntimeError for a negative one."""
    if std < 0:
        raise RuntimeError(at_user_line(f"normal expects std >= 0.0, but found std {std}"))

    def scaled(z: Any) -> Tensor:
        return z * std + mean  # type: ignore[no-any-return]

    if not _comes_in_pieces(self):
        return _overwritten(self, scaled(draw(generator, "randn", tuple(self._array.shape), self.dtype)), "normal_")
    wide = self.dtype.compute
    radii = default_generator if generator is None else generator
    angles = radii.ahead(self._array.size)  # `randn` makes all words of the first kind before those of the second

    def values(shape: tuple[int, ...]) -> Tensor:
        return scaled(cast(normal_from(radii.draw("rand", shape, wide), angles.draw("rand", shape, wide)), self.dtype))

    _overwritten_by(self, values)
    radii.set_state(angles.state)
    return self


@attached
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with 1 with probability p, else 0."""
    wide = self.dtype if self.dtype.kind == "f" else get_default_dtype()
    chance = (
        Op.table["expand"](cast(p, wide), tuple(self.shape))
        if isinstance(p, Tensor)
        else Op.table["full"](tuple(self.shape), p, wide)
    )
    return _overwritten(self, draw(generator, "bernoulli", chance), "bernoulli_")


@attached
def random_(self: Tensor, low: int = 0, high: int | None = None, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with integers in [low, high): all that the dtype holds exactly where no bound is given."""
    if high is None:
        low, high = (0, low) if low else (0, _exact_integers(self.dtype))
    return _overwritten(self, draw(generator, "randint", low, high, tuple(self._array.shape), int64), "random_")


def _exact_integers(dtype: DType) -> int:
    if dtype.kind == "f":
        return 1 << {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}[dtype.name]
    return 2 if dtype.kind == "b" else int(np.iinfo(dtype.numpy).max) + (dtype.itemsize < 8)


__all__ = [
    "Generator", "default_generator", "draw", "fork_rng", "get_rng_state", "initial_seed", "manual_seed",
    "normal", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "seed", "set_rng_state",
]  # fmt: skip
