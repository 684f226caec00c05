"""`graphc.compile`: calls, keys, and the same bits as eager code."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphc
from graph_cases import assert_same_bits
from graphc.errors import CompileWarning, TraceError
from graphc.ir.op import Op
from graphc.trees import flatten

Array = np.ndarray


def is_tensor(x: Any) -> bool:
    return isinstance(x, graphc.Tensor)


def arrays(value: Any) -> list[Array]:
    """The arrays of every tensor in a nested value."""
    return [x.detach().numpy() for x in flatten(value, is_tensor)[0]]


def normal(*shape: int, seed: int = 0, dtype: Any = np.float32) -> graphc.Tensor:
    return graphc.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def op(name: str, *args: Any, **kwargs: Any) -> Any:
    return Op.table[name](*args, **kwargs)


def leaf(x: graphc.Tensor) -> graphc.Tensor:
    return x.detach().clone().requires_grad_()


# ---- arguments and results -------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    first: Any
    second: Any


def test_a_function_gives_what_it_gives_eagerly() -> None:
    def f(x: Any, y: Any) -> Any:
        return (x * y).exp() + x

    compiled = graphc.compile(f)
    x, y = normal(3, 4), normal(4, seed=1)
    assert_same_bits(arrays(compiled(x, y)), arrays(f(x, y)))
    assert compiled.__name__ == "f"
    stats = compiled.stats()
    assert (stats["compiles"] + stats["cache_hits"], stats["traces"], stats["fallbacks"]) == (1, 1, [])


def test_the_decorator_with_and_without_options() -> None:
    @graphc.compile
    def twice(x: Any) -> Any:
        """Two of it."""
        return x + x

    @graphc.compile(lanes=4, use_cache=False)
    def thrice(x: Any) -> Any:
        return x + x + x

    assert twice(graphc.tensor([1.0, 2.0])).tolist() == [2, 4]
    assert thrice(graphc.tensor([1.0, 2.0])).tolist() == [3, 6]
    assert twice.__doc__ == "Two of it."
    assert thrice.stats()["compiles"] == 1


def test_nested_arguments_keywords_and_results() -> None:
    seen: list[Any] = []

    @graphc.compile
    def f(pair: Any, *rest: Any, scale: float = 1.0, table: Any = None, flag: Any = None) -> Any:
        seen.append(flag)
        a, (b, c) = pair
        total = a * scale + b - c
        for x in rest:
            total = total + x
        if table is not None:
            total = total + table["x"] + len(table["names"])
        return {"total": total, "none": None, "number": 3, "list": [a * 2, (b,)], "pair": Pair(c, "text")}

    one = graphc.ones(2)
    got = f((one, (one * 2, one * 3)), one, scale=2.5, table={"x": one * 10, "names": ["p", "q"]})
    assert got["total"].tolist() == [14.5, 14.5]
    assert (got["none"], got["number"]) == (None, 3)
    assert isinstance(got["list"], list)
    assert got["list"][1][0].tolist() == [2, 2]
    assert isinstance(got["pair"], Pair)
    assert (got["pair"].first.tolist(), got["pair"].second) == ([3, 3], "text")
    assert f((one, (one, one)), scale=4.0)["total"].tolist() == [4, 4]
    assert f((one, (one, one)), scale=5.0)["total"].tolist() == [5, 5]
    assert f((one, (one, one)), scale=5)["total"].tolist() == [5, 5]
    assert f.stats()["traces"] == len(seen) == 4
    f((one, (one, one)), scale=5.0)
    assert len(seen) == 4


def test_results_that_are_arguments_or_each_other() -> None:
    @graphc.compile
    def f(x: Any) -> Any:
        y = x * 2
        return x, y, y, x.t(), graphc.ones(2), None

    x = graphc.tensor([[1.0, 2.0], [3.0, 4.0]])
    same, doubled, again, turned, ones, nothing = f(x)
    assert same.tolist() == x.tolist()
    assert doubled.tolist() == again.tolist() == [[2, 4], [6, 8]]
    assert turned.tolist() == [[1, 3], [2, 4]]
    assert ones.tolist() == [1, 1]
    assert nothing is None
    assert f(x * 2)[1].tolist() == [[4, 8], [12, 16]]
    assert doubled.tolist() == [[2, 4], [6, 8]]


def test_results_of_earlier_calls_are_kept() -> None:
    f = graphc.compile(lambda x: (x + 1).exp())
    x = normal(64, 64)
    first = f(x)
    before = first.numpy().copy()
    for seed in range(4):
        f(normal(64, 64, seed=seed))
    assert np.array_equal(first.numpy(), before)


def test_no_tensors_at_all() -> None:
    f = graphc.compile(lambda n: graphc.arange(n) * 2)
    assert f(3).tolist() == [0, 2, 4]
    assert f(4).tolist() == [0, 2, 4, 6]
    assert graphc.compile(lambda: 5)() == 5


# ---- what makes a new trace ------------------------------------------------------------------------------------------


def test_new_shapes_and_dtypes_compile_anew() -> None:
    f = graphc.compile(lambda x: x * 2 + 1, use_cache=False)

    def counts() -> tuple[int, int]:
        return f.stats()["compiles"], f.stats()["traces"]

    f(normal(3))
    f(normal(3, seed=1))
    assert counts() == (1, 1)
    f(normal(4))
    assert counts() == (2, 2)
    assert f(normal(3, dtype=np.float64)).dtype is graphc.float64
    assert counts() == (3, 3)
    assert f(graphc.tensor([1, 2, 3])).tolist() == [3, 5, 7]
    f(normal(1, 3))
    assert counts() == (5, 5)
    f(normal(3)), f(normal(4))
    assert counts() == (5, 5)


def test_a_trace_that_gives_the_same_text_compiles_once() -> None:
    f = graphc.compile(lambda x, label: x * 2, use_cache=False)
    f(normal(3), "a")
    f(normal(3), "b")
    assert (f.stats()["compiles"], f.stats()["traces"]) == (1, 2)


def test_the_grad_mode_is_part_of_the_key() -> None:
    f = graphc.compile(lambda x: (x * x).sum())
    x = leaf(normal(3))
    with_grad = f(x)
    with graphc.no_grad():
        without = f(x)
    assert with_grad.requires_grad
    assert not without.requires_grad
    assert not f(x.detach()).requires_grad
    assert f.stats()["traces"] == 3
    assert with_grad.item() == without.item()


def test_the_default_dtype_is_part_of_the_key() -> None:
    f = graphc.compile(lambda x: x + graphc.ones(2))
    x = graphc.zeros(2)
    assert f(x).dtype is graphc.float32
    graphc.set_default_dtype(graphc.float64)
    try:
        assert f(x).dtype is graphc.float64
    finally:
        graphc.set_default_dtype(graphc.float32)


def test_compiled_inside_compiled_is_one_program() -> None:
    inner = graphc.compile(lambda x: x * 2)
    outer = graphc.compile(lambda x: inner(x) + 1)
    assert outer(graphc.ones(2)).tolist() == [3, 3]
    assert inner.stats()["traces"] == 0


def test_outside_tensors_are_read_at_every_call() -> None:
    weight = graphc.ones(3)
    f = graphc.compile(lambda x: x * weight)
    x = graphc.tensor([1.0, 2.0, 3.0])
    assert f(x).tolist() == [1, 2, 3]
    weight.mul_(10)
    assert f(x).tolist() == [10, 20, 30]
    weight.data = graphc.tensor([0.0, 1.0, 0.0])
    assert f(x).tolist() == [0, 2, 0]
    assert f.stats()["traces"] == 1


def matrices() -> tuple[graphc.Tensor, graphc.Tensor]:
    return graphc.tensor([[1.0, 2.0], [3.0, 4.0]]), graphc.tensor([[5.0, 6.0], [7.0, 8.0]])


def swap(a: Any, b: Any) -> None:
    held = a.clone()
    a.copy_(b)
    b.copy_(held)


def swap_turned(a: Any, b: Any) -> None:
    held = a.t().clone()
    a.copy_(b.t())
    b.copy_(held)


def turn(a: Any, b: Any) -> None:
    a.copy_(a.t().clone())
    b.zero_()


def write_through_views(a: Any, b: Any) -> None:
    a[0].add_(b[1])
    b.t()[0] = a[0]
    a[:, 1] *= 2
    a.add_(b.sum())


@pytest.mark.parametrize("f", [swap, swap_turned, turn, write_through_views])
def test_tensors_written_to_are_as_after_eager_code(f: Callable[..., Any]) -> None:
    wanted, got, outside = matrices(), matrices(), matrices()
    f(*wanted)
    graphc.compile(f)(*got)
    assert_same_bits(arrays(got), arrays(wanted), "arguments")
    graphc.compile(lambda x: (f(*outside), x + 1)[1])(graphc.zeros(2))
    assert_same_bits(arrays(outside), arrays(wanted), "tensors from outside")
    assert got[0]._version > 0


def test_arguments_that_share_written_memory_run_eagerly() -> None:
    outside = graphc.tensor([1.0, 2.0])

    def f(x: Any, y: Any) -> Any:
        x.mul_(2)
        outside.add_(1)
        return y + 1

    compiled = graphc.compile(f)
    x, y = graphc.tensor([1.0, 2.0]), graphc.tensor([5.0, 6.0])
    assert compiled(x, y).tolist() == [6, 7]
    with pytest.warns(CompileWarning, match=r"f runs eagerly: an argument shares memory with a tensor.*\(test_compile.py"):
        assert compiled(x, x.view(2)).tolist() == [5, 9]
    with pytest.warns(CompileWarning, match="shares memory"):
        assert compiled(x, x).tolist() == [9, 17]
    with pytest.warns(CompileWarning, match="shares memory"):
        assert compiled(y, outside).tolist() == [6, 7]
    both = graphc.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert compiled(both[:, 0], both[:, 1]).tolist() == [3, 5]
    assert both.tolist() == [[2, 2], [6, 4]]
    assert (y.tolist(), outside.tolist()) == ([10, 12], [6, 7])


def test_views_as_arguments() -> None:
    base = normal(4, 6)
    f = graphc.compile(lambda x: x.exp().sum(0))
    for view in (base.t(), base[1:3], base[:, ::2], base[2:3].expand(5, 6), base.unsqueeze(0)):
        assert_same_bits(arrays(f(view)), arrays(view.exp().sum(0)))

    def g(x: Any) -> None:
        x.add_(1)

    compiled = graphc.compile(g)
    wanted = base.clone()
    g(wanted[:, ::2])
    compiled(base[:, ::2])
    assert_same_bits(arrays(base), arrays(wanted))
    assert base._version == 1


# ---- what cannot be traced -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "asked"),
    [
        (lambda x: graphc.from_numpy(x.numpy() + 1), "numpy"),
        (lambda x: graphc.from_numpy(x.detach().numpy() * 2), "numpy"),
    ],
)
def test_data_dependent_python_runs_eagerly_and_says_so(f: Callable[..., Any], asked: str) -> None:
    compiled = graphc.compile(f)
    x = graphc.tensor([1.0, 2.0])
    with pytest.warns(CompileWarning, match=r"runs eagerly: .*not known while.*traced.*\(test_compile.py:\d+\)"):
        got = compiled(x)
    assert_same_bits(arrays(got), arrays(f(x)))
    (reason,) = compiled.stats()["fallbacks"]
    assert "test_compile.py" in reason
    assert f"fallback to eager: {reason}" in compiled.explain()


def test_a_fallback_warns_and_traces_once() -> None:
    compiled = graphc.compile(lambda x: x * 2 if x.numpy().sum() > 0 else -x)
    x = graphc.ones(2)
    with pytest.warns(CompileWarning):
        compiled(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled(-x).tolist() == [1, 1]
    assert (compiled.stats()["traces"], len(compiled.stats()["fallbacks"])) == (1, 1)


def test_errors_of_the_function_are_its_own() -> None:
    @graphc.compile
    def f(x: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        f(graphc.ones(2))
    assert graphc.ones(2).add(1).tolist() == [2, 2]  # the trace was left
    with pytest.raises(TypeError, match=r"compile: expected a function or module, got int \(test_compile.py:\d+\)"):
        graphc.compile(3)
    with pytest.raises(RuntimeError, match=r"explain: nothing is compiled .*test_compile.py"):
        graphc.compile(lambda x: x).explain()


# ---- the same bits as eager ------------------------------------------------------------------------------------------


def mlp(x: Any, w1: Any, b1: Any, w2: Any) -> Any:
    return op("gelu", op("linear", x, w1, b1)) @ w2


def attention_block(x: Any, qkv: Any, out: Any, g: Any, b: Any) -> Any:
    batch, time, width = x.shape
    h = op("layer_norm", x, (width,), g, b)
    q, k, v = (h @ qkv).view(batch, time, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
    scores = q @ k.transpose(-1, -2) / (width // 2) ** 0.5
    mask = graphc.ones(time, time).tril() == 0
    weights = scores.masked_fill(mask, float("-inf")).softmax(-1)
    x = x + (weights @ v).transpose(1, 2).reshape(batch, time, width) @ out
    return x + op("scaled_dot_product_attention", q, k, v, is_causal=True).transpose(1, 2).reshape(batch, time, width)


def statistics(x: Any) -> Any:
    low = x.var(dim=1), x.std(), x.mean(0), x.var(0, correction=0), x.logsumexp(1)
    return low, x.prod(1), x.amax(1), x.amin(0), x.softmax(0), x.log_softmax(1), op("rms_norm", x, (x.shape[1],)), x.cumsum(1)


def shapes(x: Any) -> Any:
    a, b = x.chunk(2, dim=0)
    c = graphc.cat([a.t(), b.t() * 2], dim=1)
    d = graphc.stack([a, b], dim=1).flip(0, 2)
    e = op("pad", x, (1, 2, 0, 1), value=3.0)
    return c, d, e, x[1:, ::2], x[:, 1], x[..., None].expand(-1, -1, 3), x.reshape(-1), [p * 2 for p in x.split(3)], x[[1, 0, 1]]


def masks(x: Any) -> Any:
    y = graphc.where(x > 0, x, x * 0.1)
    found = (x > 0) & (x < 1) | ~(x == x)
    return y, found, x.masked_fill(x < -0.5, 7.0), (x > 0).any(1), (x > -9).all(), x.clamp(-1, 1), x.isnan()


def positions(x: Any) -> Any:
    best, where = x.max(dim=1)
    return x.argmax(1), x.argmin(), best, where, x.gather(1, where.unsqueeze(1)), x.index_select(0, where[:2] % 2)


def in_place(x: Any) -> Any:
    y = x * 1
    y.add_(1).mul_(2)
    y[0] = 5
    y[:, 1] -= 3
    z = y[1]
    z.exp_()
    y += x
    return y, z


def integers(x: Any) -> Any:
    n = (x * 10).to(graphc.int64)
    shifted = n.abs().to(graphc.int32) << 2
    return n // 3, n % 3, n & 6, n | 1, n ^ 5, ~n, n.sum(), n.cumsum(1), shifted, (n > 2).sum(0), n / 4, n.max()


def mathematics(x: Any) -> Any:
    y = x.abs() + 0.1
    smooth = x.sin(), x.cos(), x.tan(), x.tanh(), x.sigmoid(), x.erf(), x.exp(), x.expm1(), op("silu", x)
    positive = (
        y.log(),
        y.log1p(),
        y.log2(),
        y.sqrt(),
        y.rsqrt(),
        y**2.5,
        y**x,
        x / y,
        1 / y,
        graphc.atan2(x, y),
        graphc.maximum(x, y),
    )
    return (
        smooth,
        positive,
        x.round(),
        x.floor(),
        x.ceil(),
        x.trunc(),
        x.sign(),
        -x,
        op("relu", x),
        op("gelu", x, approximate="tanh"),
        x.fmod(0.7),
        x.remainder(0.7),
    )


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[graphc.Tensor, ...]]] = {
    "mlp": (mlp, (normal(5, 8), normal(16, 8, seed=1), normal(16, seed=2), normal(16, 3, seed=3))),
    "attention": (
        attention_block,
        (normal(2, 5, 8), normal(8, 24, seed=1), normal(8, 8, seed=2), normal(8, seed=3), normal(8, seed=4)),
    ),
    "statistics": (statistics, (normal(6, 70),)),
    "shapes": (shapes, (normal(6, 10),)),
    "masks": (masks, (normal(6, 10),)),
    "in_place": (in_place, (normal(6, 10),)),
    "mathematics": (mathematics, (normal(3, 11),)),
}
WITHOUT_GRADIENT = {"positions": (positions, (normal(6, 10),)), "integers": (integers, (normal(4, 5),))}


@pytest.mark.parametrize("name", [*PROGRAMS, *WITHOUT_GRADIENT])
def test_compiled_bits_are_eager_bits(name: str) -> None:
    f, args = {**PROGRAMS, **WITHOUT_GRADIENT}[name]
    assert_same_bits(arrays(graphc.compile(f)(*args)), arrays(f(*args)), name)


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_through_compiled_code_are_eager_bits(name: str) -> None:
    f, args = PROGRAMS[name]

    def gradients(function: Callable[..., Any]) -> list[Array]:
        inputs = [leaf(x) for x in args]
        outputs = [y for y in flatten(function(*inputs), is_tensor)[0] if y.requires_grad]
        loss = sum(((y * y).mean() for y in outputs[1:]), (outputs[0] * outputs[0]).mean())
        loss.backward()
        return arrays([loss, *outputs, *(x.grad for x in inputs if x.grad is not None)])

    assert_same_bits(gradients(graphc.compile(f)), gradients(f), name)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["mlp", "attention", "statistics", "mathematics", "in_place"])
def test_other_floating_dtypes(name: str, dtype: str) -> None:
    f, args = PROGRAMS[name]
    converted = [x.to(getattr(graphc, dtype)) for x in args]
    assert_same_bits(arrays(graphc.compile(f)(*converted)), arrays(f(*converted)), name)


def test_embedding_with_repeated_indices_and_cross_entropy() -> None:
    tokens, classes = graphc.tensor([[1, 1, 3], [0, 1, 3]]), graphc.tensor([2, 0])

    def f(table: Any, tokens: Any, classes: Any) -> Any:
        return op("cross_entropy", op("embedding", tokens, table).sum(1), classes)

    results = []
    for function in (f, graphc.compile(f)):
        table = leaf(normal(5, 4))
        loss = function(table, tokens, classes)
        loss.backward()
        results.append(arrays([loss, table.grad]))
    assert_same_bits(results[1], results[0])


def test_a_recycled_result_keeps_nothing_that_was_done_to_its_array() -> None:
    f = graphc.compile(lambda x: x + 1.0)
    x = graphc.zeros(8)
    for spoil in (lambda a: setattr(a, "shape", (2, 4)), lambda a: a.setflags(write=False)):
        for _ in range(6):
            spoil(f(x).numpy())
        results = [f(x) for _ in range(6)]
        assert all(tuple(y.shape) == (8,) and y.numpy().flags.writeable for y in results)


def test_pytorchs_options_are_taken() -> None:
    x = graphc.arange(6.0).reshape(2, 3)

    @graphc.compile(mode="reduce-overhead", dynamic=False, backend="inductor", fullgraph=True)
    def double(x: Any) -> Any:
        return x * 2

    assert double(x).tolist() == (x * 2).tolist() and double.stats()["compiles"] + double.stats()["cache_hits"] == 1

    def by_elements(x: Any) -> Any:
        return x * 2 if x.numpy().sum() > 0 else x

    assert graphc.compile(by_elements, disable=True) is by_elements
    with pytest.raises(TraceError, match="the elements of a tensor are not known while"):
        graphc.compile(by_elements, fullgraph=True)(x)
    with pytest.raises(RuntimeError, match="Unrecognized mode=quick, should be one of: default"):
        graphc.compile(by_elements, mode="quick")
    with pytest.raises(TypeError, match="backend must be a name, got function"):
        graphc.compile(by_elements, backend=by_elements)
