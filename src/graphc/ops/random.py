"""Random numbers from an explicit generator state, and dropout.

Enters: a state, uint64 [2] = (seed, offset), and shapes.  Leaves: operators giving (values, new state).
Never here: whose state it is (the eager layer's generator).

Element k of the bits is word k % 4 of Philox4x32-10 with the seed as key and offset + k // 4 as counter, so values
depend on the state and the position alone.
Source: Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3 (2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dims import product
from graphc.dtypes import DType, float16, float32, float64, get_default_dtype, int64, uint32, uint64
from graphc.ir.loops import Call, Expr, Index, Size
from graphc.ir.op import THROUGH, Bad, Composite, Element, Op, Shape, TensorType
from graphc.ops.arguments import cast, constant, in_compute_dtype, number, of_type, one_size, require_floating, shape_of, tensor
from graphc.ops.arithmetic import add, mul, remainder, sub
from graphc.ops.comparison import bitwise_left_shift, bitwise_or, bitwise_right_shift, lt, where
from graphc.ops.create import require_dtype
from graphc.ops.declare import call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.expressions import call as fn
from graphc.ops.expressions import constant as literal
from graphc.ops.expressions import converted, select
from graphc.ops.expressions import size as size_value
from graphc.ops.movement import reshape, slice_
from graphc.ops.transcendental import cos, log, sqrt

BLOCK_WORDS = 4  # that one counter gives
STATE = fill(2, low=0, high=99, dtype=uint64, grad=False)


def check_state(name: str, state: TensorType) -> None:
    """Raise RuntimeError for what is not the type of a generator's state."""
    if state.dtype is not uint64 or state.shape != (2,):
        raise RuntimeError(f"{name}: the generator's state must be u64[2], got {state}")


def state_of(name: str, state: Any) -> Any:
    """A generator's state.  Raises TypeError or RuntimeError."""
    state = tensor(name, "state", state)
    check_state(name, of_type(state))
    return state


# ---- bits ----------------------------------------------------------------------------------------------------------


def philox_words(xp: Any, seed: Any, counter: Any) -> tuple[Any, Any, Any, Any]:
    """The four words of Philox4x32-10 for a 64-bit seed and an array of 64-bit counters, as a reference."""
    mask = xp.uint64(0xFFFFFFFF)
    shift = xp.uint64(32)
    key0, key1 = int(seed) & 0xFFFFFFFF, int(seed) >> 32
    c0, c1 = counter & mask, counter >> shift
    c2 = c3 = xp.zeros_like(c0)
    for _ in range(10):
        low, high = c0 * xp.uint64(0xD2511F53), c2 * xp.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (high >> shift) ^ c1 ^ xp.uint64(key0),
            high & mask,
            (low >> shift) ^ c3 ^ xp.uint64(key1),
            low & mask,
        )
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def block_words(load: Any, block: Size) -> list[Expr]:
    """The words that the block of that number gives, of the state at operand 0."""
    seed, offset = load.let(load(0, (0,))), load.let(load(0, (1,)))
    key0 = load.let(converted(seed, uint32))
    key1 = load.let(converted(fn("shr", seed, literal(32, uint64)), uint32))
    counter = load.let(fn("add", offset, converted(size_value(block), uint64)))
    return [Call("philox", (key0, key1, counter, literal(k, uint32)), uint32) for k in range(BLOCK_WORDS)]


def _bits_rule(load: Any, index: tuple[Size, ...], in_types: Sequence[TensorType], out_type: TensorType, shape: Shape) -> Expr:
    linear: Size = 0
    for place, extent in zip(index, shape, strict=True):
        linear = linear * extent + place
    words = block_words(load, linear // BLOCK_WORDS)
    which = linear % BLOCK_WORDS
    if isinstance(which, int):
        return words[which]
    result: Expr = words[3]
    for k in (2, 1, 0):
        result = select(fn("eq", Index(which), literal(k, int64)), words[k], result)
    return result


def _bits_reference(xp: Any, state: Any, shape: tuple[int, ...]) -> Any:
    count = math.prod(shape)
    blocks = xp.arange((count + 3) // 4, dtype=np.uint64) + state[1]
    words = xp.stack(philox_words(xp, state[0], blocks), axis=1).reshape(-1)[:count]
    return words.astype(np.uint32).reshape(shape)


def _bits_infer(state: TensorType, shape: Shape) -> TensorType:
    check_state("random_bits", state)
    return TensorType(uint32, shape)


random_bits = Op(
    "random_bits",
    doc="32 random bits an element.  u64 [2] -> u32 shape.",
    signature="(state, shape)",
    prepare=lambda state, shape: ((state_of("random_bits", state),), {"shape": shape_of("random_bits", shape)}),
    infer=_bits_infer,
    reference=_bits_reference,
    grad=None,
    lowering=Element(_bits_rule),
    attrs=("shape",),
    dtypes=(uint64,),
    samples=(call(STATE, (3, 5)), call(STATE, ()), call(STATE, (0, 2)), call(STATE, (33,)), call(STATE, (1, 2, 4))),
    bad=(
        Bad((fill(2, dtype=float32), (3,)), RuntimeError, r"random_bits: the generator's state must be u64\[2\]"),
        Bad((STATE, (-1,)), RuntimeError, "random_bits: negative size"),
        Bad((3, (2,)), TypeError, "random_bits: argument 'state' must be a Tensor"),
    ),
    methods=(),
    functions=(),
)


def _advance_infer(state: TensorType, count: Size) -> TensorType:
    check_state("advance_state", state)
    return state


def _advance_rule(load: Any, index: tuple[Size, ...], in_types: Any, out_type: TensorType, count: Size) -> Expr:
    value = load(0, index)
    moved = fn("add", value, converted(size_value(count), uint64))
    return select(fn("eq", size_value(index[0]), literal(1, int64)), moved, value)


advance_state = Op(
    "advance_state",
    doc="The state with `count` added to its offset.  u64 [2] -> u64 [2].",
    signature="(state, count)",
    prepare=lambda state, count: (
        (state_of("advance_state", state),),
        {"count": one_size("advance_state", "count", count)},
    ),
    infer=_advance_infer,
    reference=lambda xp, state, count: state + xp.asarray([0, count], np.uint64),
    grad=None,
    lowering=Element(_advance_rule),
    attrs=("count",),
    dtypes=(uint64,),
    samples=(call(STATE, 3), call(STATE, 0), call(STATE, 10**12)),
    bad=(Bad((STATE, 1.5), TypeError, "advance_state: argument 'count' must be ints"),),
    methods=(),
    functions=(),
)


def drawn(state: Any, shape: Shape) -> tuple[Any, Any]:
    """(bits of `shape`, state after them)."""
    blocks = (product(shape) + 3) // 4
    return random_bits.run(state, shape=shape), advance_state.run(state, count=blocks)


# ---- uniform -------------------------------------------------------------------------------------------------------

_UNIFORM_BITS = {float64: 53, float32: 24, float16: 11}  # bfloat16 has 8


def _plane(words: Any, k: int) -> Any:
    """words[k]."""
    rest = tuple(words.shape[1:])
    part = slice_.run(words, starts=(k, *(0 for _ in rest)), stops=(k + 1, *rest), steps=(1,) * words.ndim)
    return reshape.run(part, shape=rest)


def uniform_from(words: Any, dtype: DType) -> Any:
    """Values in [0, 1) from bits [w, ...], w the words an element of `dtype` needs: its precision's leading bits."""
    bits = _UNIFORM_BITS.get(dtype, 8)
    if dtype is not float64:
        whole = bitwise_right_shift(_plane(words, 0), 32 - bits)
        return cast(mul(cast(whole, float32), 2.0**-bits), dtype)
    high, low = (cast(bitwise_right_shift(_plane(words, k), s), float64) for k, s in ((0, 5), (1, 6)))
    return mul(add(mul(high, 2.0**26), low), 2.0**-53)


def word_count(dtype: DType) -> int:
    """32-bit words of one uniform value."""
    return 2 if dtype is float64 else 1


def _rand(state: Any, shape: Shape, dtype: DType) -> tuple[Any, Any]:
    words, state = drawn(state, (word_count(dtype), *shape))
    return uniform_from(words, dtype), state


def _uniform_array(xp: Any, words: Any, dtype: DType) -> Any:
    if dtype is float64:
        high, low = (words[0] >> np.uint32(5)).astype(np.float64), (words[1] >> np.uint32(6)).astype(np.float64)
        return (high * 2.0**26 + low) * 2.0**-53
    bits = _UNIFORM_BITS.get(dtype, 8)
    return ((words[0] >> np.uint32(32 - bits)).astype(np.float32) * np.float32(2.0**-bits)).astype(dtype.numpy)


def rand_array(xp: Any, state: Any, shape: tuple[int, ...], dtype: DType) -> Any:
    """The reference of `rand`: values uniform in [0, 1), and the new state."""
    words = (word_count(dtype), *shape)
    return _uniform_array(xp, _bits_reference(xp, state, words), dtype), _advanced(xp, state, words)


def _advanced(xp: Any, state: Any, shape: tuple[int, ...]) -> Any:
    return state + xp.asarray([0, (math.prod(shape) + 3) // 4], np.uint64)


def _sampler(name: str, doc: str, rule: Callable[..., Any], reference: Callable[..., Any]) -> Op:
    """An operator giving floating values of a shape."""

    def prepare(state: Any, shape: Any, dtype: DType | None = None) -> Prepared:
        dtype = get_default_dtype() if dtype is None else require_dtype(name, dtype)
        if dtype.kind != "f":
            raise RuntimeError(f"{name}: dtype must be floating, got {dtype}")
        return (state_of(name, state),), {"shape": shape_of(name, shape), "dtype": dtype}

    def infer(state: TensorType, shape: Shape, dtype: DType) -> tuple[TensorType, TensorType]:
        check_state(name, state)
        return TensorType(dtype, shape), state

    return Op(
        name,
        doc=f"{doc}  u64 [2] -> shape, u64 [2].",
        signature="(state, shape, dtype=None)",
        prepare=prepare,
        infer=infer,
        reference=reference,
        grad=None,
        lowering=Composite(rule),
        attrs=("shape", "dtype"),
        dtypes=(uint64,),
        samples=(
            call(STATE, (3, 5)),
            call(STATE, ()),
            call(STATE, (0, 2)),
            call(STATE, 33, float64),
            call(STATE, (2, 3), float16),
        ),
        bad=(
            Bad((STATE, (2,), int64), RuntimeError, f"{name}: dtype must be floating"),
            Bad((fill(3, dtype=uint64, low=0), (2,)), RuntimeError, f"{name}: the generator's state must be"),
        ),
        methods=(),
        functions=(),
    )


rand = _sampler("rand", "Uniform in [0, 1).", _rand, rand_array)


# ---- normal --------------------------------------------------------------------------------------------------------


def normal_from(u: Any, v: Any) -> Any:
    """Box and Muller 1958, one value of each pair: sqrt(-2 log(1 - u)) * cos(2 pi v)."""
    return mul(sqrt(mul(log(sub(1, u)), -2)), cos(mul(v, 2 * math.pi)))


def _randn(state: Any, shape: Shape, dtype: DType) -> tuple[Any, Any]:
    """The words of all first numbers of pairs come before those of all second ones."""
    wide = dtype.compute
    count = word_count(wide)
    words, state = drawn(state, (2 * count, *shape))
    half = [
        slice_.run(words, starts=(k, *(0 for _ in shape)), stops=(k + count, *shape), steps=(1,) * words.ndim) for k in (0, count)
    ]
    u, v = (uniform_from(w, wide) for w in half)
    return cast(normal_from(u, v), dtype), state


def _randn_array(xp: Any, state: Any, shape: tuple[int, ...], dtype: DType) -> Any:
    wide = dtype.compute
    count = word_count(wide)
    words = _bits_reference(xp, state, (2 * count, *shape))
    u, v = _uniform_array(xp, words[:count], wide), _uniform_array(xp, words[count:], wide)
    values = xp.sqrt(-2 * xp.log(1 - u)) * xp.cos(v * wide.numpy.type(2 * math.pi))
    return xp.asarray(values).astype(dtype.numpy), _advanced(xp, state, (2 * count, *shape))


randn = _sampler("randn", "Normal of mean 0 and variance 1.", _randn, _randn_array)


# ---- integers ------------------------------------------------------------------------------------------------------


def _randint_prepare(state: Any, low: Any, high: Any, shape: Any, dtype: DType = int64) -> Prepared:
    low, high = one_size("randint", "low", low), one_size("randint", "high", high)
    if isinstance(low, int) and isinstance(high, int) and low >= high:
        raise RuntimeError(f"randint: expects 'low' to be less than 'high', got {low} >= {high}")
    attrs = {"low": low, "high": high, "shape": shape_of("randint", shape), "dtype": require_dtype("randint", dtype)}
    return (state_of("randint", state),), attrs


def _randint_words(low: Size, high: Size) -> int:
    """Two words where the range needs more than 32 bits."""
    return 2 if isinstance(low, int) and isinstance(high, int) and high - low > 2**32 else 1


def _randint(state: Any, low: Size, high: Size, shape: Shape, dtype: DType) -> tuple[Any, Any]:
    count = _randint_words(low, high)
    words, state = drawn(state, (count, *shape))
    value = cast(_plane(words, 0), int64)
    if count == 2:
        top = bitwise_left_shift(cast(bitwise_right_shift(_plane(words, 1), 1), int64), 32)
        value = bitwise_or(top, value)
    return cast(add(remainder(value, constant(high - low, int64)), constant(low, int64)), dtype), state


def _randint_reference(xp: Any, state: Any, low: int, high: int, shape: tuple[int, ...], dtype: DType) -> Any:
    count = _randint_words(low, high)
    words = _bits_reference(xp, state, (count, *shape)).astype(np.int64)
    value = words[0] if count == 1 else (words[1] >> np.int64(1) << np.int64(32)) | words[0]
    return xp.asarray(value % (high - low) + low).astype(dtype.numpy), _advanced(xp, state, (count, *shape))


def _randint_infer(state: TensorType, low: Size, high: Size, shape: Shape, dtype: DType) -> tuple[TensorType, TensorType]:
    check_state("randint", state)
    return TensorType(dtype, shape), state


randint = Op(
    "randint",
    doc="Integers in [low, high), from the remainder of 32 bits (63 where the range needs them).  u64 [2] -> shape, u64 [2].",
    signature="(state, low, high, shape, dtype=int64)",
    prepare=_randint_prepare,
    infer=_randint_infer,
    reference=_randint_reference,
    grad=None,
    lowering=Composite(_randint),
    attrs=("low", "high", "shape", "dtype"),
    dtypes=(uint64,),
    samples=(
        call(STATE, 0, 10, (3, 5)),
        call(STATE, -5, 5, ()),
        call(STATE, 0, 2**40, (33,)),
        call(STATE, 3, 4, (0, 2)),
        call(STATE, 0, 100, (4,), float32),
    ),
    bad=(Bad((STATE, 3, 3, (2,)), RuntimeError, "randint: expects 'low' to be less than 'high'"),),
    methods=(),
    functions=(),
)


# ---- from tensors --------------------------------------------------------------------------------------------------


def _bernoulli(state: Any, p: Any) -> tuple[Any, Any]:
    u, state = _rand(state, tuple(p.shape), p.dtype.compute)
    return cast(lt(u, cast(p, p.dtype.compute)), p.dtype), state


def _bernoulli_reference(xp: Any, state: Any, p: Any) -> Any:
    wide = np.float64 if p.dtype == np.float64 else np.float32
    u, state = rand_array(xp, state, p.shape, float64 if wide is np.float64 else float32)
    return xp.asarray(u < p.astype(wide)).astype(p.dtype), state


def _bernoulli_infer(state: TensorType, p: TensorType) -> tuple[TensorType, TensorType]:
    check_state("bernoulli", state)
    return p, state


bernoulli = Op(
    "bernoulli",
    doc="1 with probability p, else 0.  u64 [2], [...] -> [...], u64 [2].",
    signature="(state, p)",
    prepare=lambda state, p: ((state_of("bernoulli", state), require_floating("bernoulli", "p", p)), {}),
    infer=_bernoulli_infer,
    reference=_bernoulli_reference,
    grad=lambda g, out, state, p: (None, None),
    lowering=Composite(_bernoulli),
    dtypes=(uint64,),
    samples=tuple(
        call(STATE, fill(*shape, dtype=dtype, low=0.0, high=1.0, grad=False))
        for shape, dtype in (((3, 5), float32), ((), float32), ((0, 2), float32), ((33,), float64), ((4,), float16))
    ),
    bad=(Bad((STATE, fill(3, dtype=int64)), RuntimeError, "bernoulli: argument 'p' must be floating"),),
    methods=(),
    functions=(),
)


def _dropout_prepare(state: Any, x: Any, p: Any = 0.5) -> Prepared:
    p = float(number("dropout", "p", p))
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: probability has to be between 0 and 1, got {p}")
    return (state_of("dropout", state), require_floating("dropout", "x", x)), {"p": p}


def dropped(state: Any, x: Any, p: float) -> tuple[Any, Any]:
    """(x with each element 0 with probability p and the rest scaled by 1 / (1 - p), state after)."""
    u, state = _rand(state, tuple(x.shape), float32)
    keep = lt(u, 1.0 - p)
    scaled = mul(x, 1.0 / (1.0 - p)) if p < 1.0 else x
    return where(keep, scaled, constant(0, x.dtype)), state


def _dropout_reference(xp: Any, state: Any, x: Any, p: float) -> Any:
    u, state = rand_array(xp, state, x.shape, float32)
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    scaled = wide * wide.dtype.type(1.0 / (1.0 - p) if p < 1.0 else 1.0)
    return xp.where(u < np.float32(1.0 - p), scaled, 0).astype(x.dtype), state


def _dropout_infer(state: TensorType, x: TensorType, p: float) -> tuple[TensorType, TensorType]:
    check_state("dropout", state)
    return x, state


dropout = Op(
    "dropout",
    doc="Elements set to 0 with probability p, the rest divided by 1 - p.  u64 [2], [...] -> [...], u64 [2].",
    signature="(state, x, p=0.5)",
    prepare=_dropout_prepare,
    infer=_dropout_infer,
    reference=_dropout_reference,
    grad=THROUGH,
    lowering=Composite(in_compute_dtype(dropped)),
    attrs=("p",),
    dtypes=(uint64,),
    samples=(
        call(STATE, fill(3, 5, dtype=float32)),
        call(STATE, fill(33, dtype=float64), 0.2),
        call(STATE, fill(0, 2, dtype=float32)),
        call(STATE, fill(dtype=float32), 0.0),
        call(STATE, fill(4, dtype=float32), 1.0),
        call(STATE, fill(9, dtype=float16), 0.3),
    ),
    bad=(
        Bad((STATE, fill(3, dtype=float32), 1.5), ValueError, "dropout: probability has to be between 0 and 1"),
        Bad((STATE, fill(3, dtype=int64)), RuntimeError, "dropout: argument 'x' must be floating"),
    ),
    methods=(),
    functions=(),
)
