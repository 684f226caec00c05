"""Sizes that change from call to call: one program serves them, eager bits, and every answer about a size holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import _dynamo, nn
from graphc.capture.sizes import Pattern, Questions, Symbol
from graphc.dim_answers import answering
from graphc.dims import Dim

SIZES = (5, 8, 17, 2, 3, 33, 1, 64, 0, 100, 7, 31, 32, 9, 63, 65, 4, 127, 6, 12, 15, 16, 48, 50, 96, 11, 13, 10, 77, 128)
Shapes = Callable[[int], Sequence[tuple[int, ...]]]


def bits(x: Any) -> Any:
    """What must be the same: bytes, but for the payload and sign of NaN."""
    array = x.detach().numpy()
    return array.shape, np.where(np.isnan(array), np.float32(0), array).tobytes() if array.dtype.kind == "f" else array.tobytes()


def programs(compiled: Any) -> int:
    stats = compiled.stats()
    return int(stats["compiles"] + stats["cache_hits"])


def compared(function: Callable[..., Any], shapes: Shapes, sizes: Sequence[int] = SIZES, **options: Any) -> Any:
    """The compiled function, after it gave eager's bits for every size."""
    graphc.manual_seed(0)
    compiled = graphc.compile(function, **options)
    for size in sizes:
        arguments = [graphc.randn(*shape) for shape in shapes(size)]
        assert bits(compiled(*arguments)) == bits(function(*arguments)), size
    return compiled


@pytest.fixture(scope="module")
def network() -> nn.Module:
    graphc.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 10)).eval()


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x * 2 + 1, id="elementwise"),
        pytest.param(lambda x: F.softmax(x, -1), id="softmax"),
        pytest.param(lambda x: F.softmax(x, 0), id="softmax over the batch"),
        pytest.param(lambda x: x.mean(0), id="mean over the batch"),
        pytest.param(lambda x: x.std(0), id="standard deviation"),
        pytest.param(lambda x: x.sum() / x.shape[0] + x.numel(), id="sizes as numbers of tensors"),
        pytest.param(lambda x: x.view(x.size(0), 4, 5) * x.size(0), id="view"),
        pytest.param(lambda x: x.reshape(-1, 2).flip(0).reshape(x.shape), id="reshape"),
        pytest.param(lambda x: graphc.zeros(x.shape[0], 20) + graphc.arange(x.shape[0]).unsqueeze(1) * x, id="creation"),
        pytest.param(lambda x: x.t() @ x, id="product over the batch"),
        pytest.param(lambda x: graphc.cat([x, x.cumsum(0)]), id="joined"),
        pytest.param(lambda x: F.layer_norm(x, x.shape[1:]).clone().mul_(2), id="norm"),
    ],
)
def test_one_program_serves_all_sizes_from_2_on(function: Callable[..., Any]) -> None:
    compiled = compared(function, lambda b: [(b, 20)])
    assert programs(compiled) <= 4  # the first size, all others, 1 and 0
    assert not compiled.stats()["fallbacks"] and not compiled.stats()["numbers"]


def test_a_network_at_30_sizes(network: nn.Module) -> None:
    with graphc.no_grad():
        compiled = compared(network, lambda b: [(b, 20)])
        assert programs(compiled) == 4
        assert programs(compared(network, lambda b: [(b, 20)], sizes=SIZES[:5], dynamic=False)) == 5
        at_once = compared(network, lambda b: [(b, 20)], sizes=[b for b in SIZES if b > 1], dynamic=True)
        assert programs(at_once) == 1


@pytest.mark.parametrize(("channels", "places"), [(64, 4), (256, 2)])
def test_squares_of_few_images(channels: int, places: int) -> None:
    """Winograd's form: tiles of just so many patches as there are, and what does not depend on the images beside an image."""
    graphc.manual_seed(0)
    convolution = nn.Conv2d(channels, 32, 3, padding=1, bias=False)
    compiled = graphc.compile(convolution, dynamic=True)
    x = graphc.randn(41, channels, places, places)
    with graphc.no_grad():
        whole = compiled(x).numpy()
        for size in (2, 3, 5, 7, 8, 9, 13, 31, 32, 33):
            assert compiled(x[:size].contiguous()).numpy().tobytes() == whole[:size].tobytes(), size
        assert convolution(x[:3]).numpy().tobytes() == whole[:3].tobytes()
    assert "Winograd's convolution" in str(compiled.explain())


def test_gradients_of_a_network(network: nn.Module) -> None:
    graphc.manual_seed(0)
    compiled = graphc.compile(network)
    for size in SIZES:
        x, found = graphc.randn(size, 20), []
        for model in (compiled, network):
            network.zero_grad()
            given = x.clone().requires_grad_()
            F.cross_entropy(model(given), graphc.arange(size) % 10, reduction="sum").backward()
            found.append([bits(t) for t in (given.grad, *(p.grad for p in network.parameters()))])
        assert found[0] == found[1], size
    assert programs(compiled) == 8  # forward and backward


def test_training_steps() -> None:
    def made() -> tuple[nn.Module, Callable[..., Any]]:
        graphc.manual_seed(1)
        model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 10))
        optimizer = graphc.optim.AdamW(model.parameters(), lr=1e-2)

        def step(x: Any, t: Any) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), t)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return loss

        return model, step

    (first, step), (second, eager) = made(), made()
    compiled = graphc.compile(step)
    for size in (5, 8, 17, 1, 33, 2, 100, 8):
        x, t = graphc.randn(size, 20), graphc.arange(size) % 10
        assert bits(compiled(x, t)) == bits(eager(x, t)), size
    assert [bits(p) for p in first.parameters()] == [bits(p) for p in second.parameters()]
    assert programs(compiled) == 3


def test_an_output_that_holds_a_row_meanwhile_is_stored_when_the_row_was_read() -> None:
    """Rows of no known size are kept between passes where an output will be, one that is stored after they were read."""

    def function(x: Any) -> Any:
        leaf = x.detach().requires_grad_()
        y = leaf / (leaf.abs().sum(0, keepdim=True) + 1)
        y.sum().backward()
        return y, leaf.grad

    compiled = graphc.compile(function)
    for size in SIZES:
        x = graphc.randn(size, 2)
        assert [bits(y) for y in compiled(x)] == [bits(y) for y in function(x)], size


def test_second_derivatives() -> None:
    def function(x: Any) -> Any:
        return (x**3).mean(0).sum()

    compiled = graphc.compile(function)
    for size in (4, 6, 9):
        found = []
        for f in (compiled, function):
            graphc.manual_seed(size)
            x = graphc.randn(size, 3, requires_grad=True)
            (g,) = graphc.autograd.grad(f(x), x, create_graph=True)
            found.append((bits(g), bits(graphc.autograd.grad(g.sum(), x)[0])))
        assert found[0] == found[1]
    assert programs(compiled) == 4


def test_attention_over_a_changing_length() -> None:
    compiled = compared(lambda x: F.scaled_dot_product_attention(x, x, x), lambda t: [(2, t, 16)], sizes=(5, 9, 3, 40, 1))
    assert programs(compiled) == 3


# ---- what the code asks of sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "most"),
    [
        pytest.param(lambda x: x + 1 if x.shape[0] > 8 else x - 1, 3, id="less"),
        pytest.param(lambda x: x + 1 if x.shape[0] == 17 else x - 1, 3, id="equal"),
        pytest.param(lambda x: x.view(-1, 4, 3).sum(1) if x.shape[0] % 4 == 0 else x - 1, 4, id="multiple"),
        pytest.param(lambda x: x[: x.shape[0] // 2] * x[-1], 4, id="half"),
        pytest.param(lambda x: x.unsqueeze(1).reshape(x.size(0), -1) + 1, 2, id="minus one"),
        pytest.param(lambda x: x[:10], 3, id="head"),
        pytest.param(lambda x: x[-3:].sum(0), 4, id="tail"),
        pytest.param(lambda x: x[1::3], 6, id="steps"),
        pytest.param(lambda x: x * min(x.shape[0], 20) + max(x.shape[0], 3), 5, id="min and max"),
        pytest.param(lambda x: x if not isinstance(x.shape[0], int) else x * 2, 2, id="isinstance"),
    ],
)
def test_branches_on_sizes(function: Callable[..., Any], most: int) -> None:
    assert programs(compared(function, lambda b: [(b, 3)], sizes=[b for b in SIZES[:16] if b > 1])) <= most


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x * sum(range(x.shape[0])), id="range"),
        pytest.param(lambda x: x * len(f"{x.shape[0]}"), id="text"),
        pytest.param(lambda x: x * {5: 1.0, 8: 2.0}.get(x.shape[0], 3.0), id="key"),
        pytest.param(lambda x: x / x.shape[0] ** 0.5, id="float"),
        pytest.param(lambda x: x * len(x), id="len"),
        pytest.param(lambda x: sum(row for row in x), id="rows"),
    ],
)
def test_what_needs_a_number_is_compiled_for_it(function: Callable[..., Any]) -> None:
    sizes = (5, 8, 17, 5, 8)
    compiled = compared(function, lambda b: [(b, 3)], sizes=sizes)
    assert programs(compiled) == len(set(sizes)) and "test_dynamic_sizes.py" in compiled.stats()["numbers"][0]


def test_equal_sizes_may_part() -> None:
    compiled = graphc.compile(lambda x, y: x.sum() + y.sum())
    for a, b in ((4, 4), (6, 6), (9, 9), (9, 7), (3, 8)):
        x, y = graphc.ones(a), graphc.ones(b)
        assert compiled(x, y).item() == a + b
    assert programs(compiled) == 3


def test_sizes_among_results_are_numbers() -> None:
    compiled = graphc.compile(lambda x: (x + 1, x.shape[0], (x.shape[0] * 2, "text"), x.shape))
    for size in (4, 6, 9):
        _, *rest = compiled(graphc.ones(size, 3))
        assert rest == [size, (2 * size, "text"), (size, 3)] and type(rest[0]) is int and type(rest[2]) is graphc.Size
    assert programs(compiled) == 2


def test_results_are_views_at_every_size() -> None:
    compiled = graphc.compile(lambda x: x[: x.shape[0] - 1])
    for size in (4, 6, 9):
        x = graphc.zeros(size, 2)
        compiled(x).fill_(1)
        assert x.sum().item() == 2 * (size - 1)


def test_a_size_that_is_kept_in_a_list_is_a_number() -> None:
    seen: list[int] = []

    def function(x: Any) -> Any:
        seen.append(x.shape[0])
        return x + 1

    compiled = graphc.compile(function)
    for size in (4, 6, 9):
        compiled(graphc.ones(size))
    assert seen == [4, 6, 9] and all(type(n) is int for n in seen)


@pytest.mark.parametrize("size", [9, 0, 1])
def test_errors_are_those_of_eager_code(size: int) -> None:
    def function(x: Any, y: Any) -> Any:
        return x[:, 2] + y[3]

    compiled = graphc.compile(function)
    for n in (4, 5):
        compiled(graphc.ones(n, 3), graphc.ones(n, n))
    given = graphc.ones(size, 3), graphc.ones(size, 2 * size)
    with pytest.raises((RuntimeError, IndexError)) as eager:
        function(*given)
    with pytest.raises(type(eager.value)) as raised:
        compiled(*given)
    assert str(raised.value).partition(" (test_")[0] == str(eager.value).partition(" (test_")[0]


# ---- marks and names ---------------------------------------------------------------------------------------------------


def test_marked_sizes_are_open_at_once() -> None:
    compiled = graphc.compile(lambda x, y: x * 2 + y)
    batch = graphc.Dim("batch", 1, 512)
    for size in (32, 7, 512):
        x, y = graphc.ones(size, 3), graphc.ones(size, 3)
        for t in (x, y):
            _dynamo.mark_dynamic(t, 0, batch)
        compiled(x, y)
    assert programs(compiled) == 1 and compiled.stats()["sizes"] == ["2 <= dim0_batch <= 512"]
    x, y = graphc.ones(4, 3), graphc.ones(3)
    _dynamo.mark_dynamic(x, 0, batch)
    _dynamo.mark_dynamic(y, 0, batch)
    with pytest.raises(RuntimeError, match="called 'batch' must be equal in one call, got 4 and 3"):
        compiled(x, y)


def test_a_marked_size_that_must_be_a_number_is_an_error() -> None:
    compiled = graphc.compile(lambda x: x * x.shape[0] ** 0.5)
    x = graphc.ones(4, 3)
    _dynamo.maybe_mark_dynamic(x, 0)
    compiled(x)
    y = graphc.ones(5, 3)
    _dynamo.mark_dynamic(y, 0)
    with pytest.raises(RuntimeError, match=r"size 5 of argument 0, dim 0, is marked as dynamic.*test_dynamic_sizes"):
        graphc.compile(lambda x: x * x.shape[0] ** 0.5)(y)
    with pytest.raises(IndexError, match="mark_dynamic"):
        _dynamo.mark_dynamic(x, 2)


@pytest.mark.parametrize(("arguments", "message"), [(("a b",), "must be an identifier"), (("n", 5, 4), "no size from 5 to 4")])
def test_bad_names_and_ranges(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graphc.Dim(*arguments)


def test_a_file_leaves_sizes_open(tmp_path: Path) -> None:
    model = nn.Linear(3, 4)
    with graphc.no_grad():
        compiled = compared(model, lambda b: [(b, 3)], sizes=(4, 10))
        compiled.save(tmp_path / "model.gct")
        loaded = graphc.load(tmp_path / "model.gct")
        for x in (graphc.randn(10, 3), graphc.randn(7, 3)):
            assert bits(loaded(x)) == bits(model(x))
    assert "kernel" in compiled.explain()


def test_many_calls_of_many_sizes() -> None:
    compiled = graphc.compile(lambda x: (x * 2).softmax(-1) @ x.t())
    for _ in range(12):  # the last ones by records
        for size in range(2, 40):
            x = graphc.full((size, 5), float(size))
            assert compiled(x).shape == (size, size)
    assert programs(compiled) == 2
    x = graphc.randn(37, 5)
    assert bits(compiled(x)) == bits((x * 2).softmax(-1) @ x.t())


# ---- the parts -----------------------------------------------------------------------------------------------------------


def test_questions_are_answered_and_noted() -> None:
    pattern = Pattern([[Symbol("n"), 3], [Symbol("n")]])
    questions = Questions({"n": 12})
    n: Any = pattern.shapes()[0][0]
    with answering(questions):
        assert n > 1 and n != 0 and not questions.facts  # known of every size
        assert n > 10 and n < 20 and n != 11 and n + 1 == 1 + n and 30 - n > n
        assert divmod(n, 5) == (2, 2) and questions.needed
    facts = [str(f).partition(" (")[0] for f in questions.facts.values()]
    assert facts == ["n - 10 > 0", "-n + 20 > 0", "n - 11 != 0", "-n*2 + 30 > 0"]
    learnt = Pattern(pattern.places, tuple(questions.facts.values()))
    assert learnt.values([(12, 3), (12,)]) == {"n": 12} and learnt.values([(14, 3), (14,)]) == {"n": 14}
    assert [learnt.values(s) for s in ([(15, 3), (15,)], [(11, 3), (11,)], [(12, 3), (13,)], [(12, 4), (12,)])] == [None] * 4


def test_multiples_are_learnt() -> None:
    pattern, questions = Pattern([[Symbol("n")]]), Questions({"n": 12})
    n: Any = pattern.shapes()[0][0]
    with answering(questions):
        assert n * 5 == (n // 4) * 20
    assert questions.factors == {"n": 4} and not questions.needed
    revised = questions.revised(pattern)
    assert str(revised.shapes()[0][0]) == "n*4" and revised.values([(16,)]) == {"n": 4} and revised.values([(18,)]) is None


def test_without_an_answer_sizes_are_no_numbers() -> None:
    n = Dim.symbol("n", 2)
    for ask in (lambda: n > 3, lambda: int(n), lambda: n / 2, lambda: range(n)):
        with pytest.raises(TypeError):
            ask()
    assert n != 3 and bool(n) and str(n + 1) == "n + 1" and not isinstance(n, int)
