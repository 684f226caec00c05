"""Scripts whose control flow depends on elements: what becomes a region, what is compiled path by path; both are Python's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
from graphc import jit
from graphc.ir.graph import every_node

# ---- regions -------------------------------------------------------------------------------------------------------------


def branches(x: Any, t: Any) -> Any:
    y, k = x * 2, 0
    if t.sum() > 0:
        y = y + 1
        k = 3
    elif t[0] < 0 and x.mean() < 0:
        unused = y[:2]
        y = -unused.repeat(2)
        k = 4
    y = y - 1 if k == 3 else y.exp()
    return y, k


def loops(x: Any, n: Any) -> Any:
    i, h, total = 0, x, graphc.zeros(4)
    while i < n and h.abs().sum() < 100:
        h = graphc.tanh(h) * 1.7 + i
        total += h
        i += 1
    return h, total, i


def ranges(x: Any, n: Any) -> Any:
    out = graphc.zeros(8, 4)
    for i in range(1, int(n), 2):
        out[i] = x * i
    last = 100
    for j in range(int(n), 0, -1):
        out = out * 1.5 + j
        last = j
    return out, last


def jumps(x: Any, n: Any) -> Any:
    skipped = 0
    for i in range(10):
        if i < n:
            skipped += 1
            continue
        x = x * 2
        if x.sum() > 20:
            break
    else:
        x = x - 1
    while True:
        skipped += 1
        if skipped > n * 2:
            break
    return x, skipped


def returns_early(x: Any, t: Any) -> Any:
    if t.sum() > 1:
        return x + 1, 1
    if x.shape[0] == 4:
        if t.sum() > 0:
            return x - 1, 2
        x = x * 3
    return x, int(t.sum() * 10 > -3)


def nests(x: Any, n: Any) -> Any:
    i, s, c = 0, graphc.zeros(4), 0
    while i < n:
        j = 0
        while j < i:
            if (x * j).sum() > i:
                s = s + x
            elif x[0] > 0:
                s, c = s - 1, c + 1
            else:
                s = s * 0.5
            j += 1
        i += 1
    return s, c


def counts(x: Any, n: Any) -> Any:
    a = int(n)
    b, s = a * 3 - 1, 0.1
    c = b // 2 + b % 3
    for i in range(a):
        s = s * 1.1 + float(x[i % 3])
    return a, b, c, -a, a / 4, float(a), s, x * s, float(c < 4)


def guards(x: Any, n: Any) -> Any:
    i = 0
    while i < x.shape[0] and x[i] < n:
        i += 1
    return i


def swaps(x: Any, n: Any) -> Any:
    pair, older = (x, x + 1), x * 0
    for _ in range(n):
        older = pair[0]
        pair = (pair[1], pair[0])
    return pair, older + 1


def writes_in_place(x: Any, t: Any) -> Any:
    x = x * 1
    row = x[1:]
    if t.sum() > 0:
        x[1:] = 0
    else:
        row.mul_(2)
    if t[0] > 0:
        x += graphc.rand(4)
    return x, row


def rounds_of_nan(x: Any, n: Any) -> Any:
    v = float(x[0]) * float("inf")
    w = v - v
    if w < 1.0:
        x = x + 1
    elif w == w:
        x = x + 2
    return x.half() * 1.1


# ---- what is none ----------------------------------------------------------------------------------------------------------


def writes_to_a_choice(x: Any, t: Any) -> Any:
    x = x * 1
    y = x if t.sum() > 0 else x * 2
    y += 1
    return x, y


def writes_to_what_was_carried(x: Any, n: Any) -> Any:
    y = x * 1
    h, i = y, 0
    while i < n:
        h = h * 2
        i += 1
    h += 1
    return y, h


def changes_a_list(x: Any, t: Any) -> Any:
    xs = [x]
    if t.sum() > 0:
        xs.append(x * 2)
    return xs


def changes_its_type(x: Any, t: Any) -> Any:
    y = None
    if t.sum() > 0:
        y = x[:2]
    return x if y is None else y


def sums_as_another_kind(x: Any, n: Any) -> Any:
    i, s = 0, 0
    while i < n:
        s = s + x[0].item()
        i += 1
    return s


def binds_at_times(x: Any, t: Any) -> Any:
    if t.sum() > 0:
        z = x + 1
    if t.sum() > 0:
        x = z
    return x


def fails_elsewhere(x: Any, t: Any) -> Any:
    if t.sum() > 1000:
        x = x @ graphc.ones(77, 3)
    return x


def gives_what_is_there(x: Any, t: Any) -> Any:
    return x[x > 0].sum() if t.sum() > 0 else x.sum()


REGIONS = {
    branches: 3, loops: 1, ranges: 2, jumps: 2, returns_early: 2, nests: 4, counts: 1, guards: 2, swaps: 1, writes_in_place: 2,
    rounds_of_nan: 2,
}  # fmt: skip
PATHS = {
    writes_to_a_choice: "its result is written to in place",
    writes_to_what_was_carried: "its results are written to in place",
    changes_a_list: "it changes a list",
    changes_its_type: "'y' is not of one type, or not always bound",
    sums_as_another_kind: "'s' is not of one type from round to round",
    binds_at_times: "'z' is not of one type, or not always bound",
    fails_elsewhere: "matmul",
    gives_what_is_there: "depend on the elements",
}


def calls_of(function: Callable[..., Any]) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(1)
    whole = function.__code__.co_varnames[1] == "n"
    seconds = [np.int64(rng.integers(0, 7)) if whole else rng.standard_normal(5).astype(np.float32) for _ in range(12)]
    return [(rng.standard_normal(4).astype(np.float32), second) for second in seconds]


def expect_equal(function: Callable[..., Any], script: Any) -> None:
    for seed, call in enumerate(calls_of(function)):
        results = []
        for f in (function, script):
            graphc.manual_seed(seed)
            results.append(f(*map(graphc.tensor, call)))
        assert bits(results[0]) == bits(results[1])


def bits(result: Any) -> Any:
    if isinstance(result, tuple | list):
        return type(result), [bits(r) for r in result]
    return (str(result.dtype), np.asarray(result).tobytes()) if isinstance(result, graphc.Tensor) else repr(result)


@pytest.mark.parametrize("function", REGIONS, ids=lambda f: f.__name__)
def test_both_ways_are_in_one_program(function: Callable[..., Any]) -> None:
    script = jit.script(function)
    expect_equal(function, script)
    names = [node.op.name for node in every_node(script.graph)]
    assert names.count("cond") + names.count("while_loop") >= REGIONS[function] and "not as a region" not in script.explain()
    assert script._compiled.stats()["traces"] - ("break" in script.code) <= 2 and not script._compiled.stats()["fallbacks"]


@pytest.mark.parametrize("function", PATHS, ids=lambda f: f.__name__)
def test_what_is_no_region_is_compiled_path_by_path(function: Callable[..., Any]) -> None:
    script = jit.script(function)
    expect_equal(function, script)
    found = [line for line in script.explain(kernels=False).splitlines() if "compiled path by path, not as a region" in line]
    assert PATHS[function] in found[0] and "(test_script_regions.py:" in found[0]


def test_gradients_take_the_path() -> None:
    script, grads = jit.script(branches), []
    for f in (branches, script):
        x = graphc.tensor([1.0, 2, 3, 4], requires_grad=True)
        f(x, graphc.ones(2))[0].sum().backward()
        grads.append(np.asarray(x.grad).tobytes())
    assert grads[0] == grads[1] and "gradients flow through it" in script.explain(kernels=False)
    with graphc.no_grad():
        script(graphc.ones(4), graphc.ones(2))
    assert "cond" in [node.op.name for node in every_node(script.graph)]


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.register_buffer("last", graphc.zeros(3))

    def forward(self, x: Any, n: Any) -> Any:
        if n > 2:
            self.count = self.count + 1
            self.last = x * 2
        return self.last + x


def test_attributes_that_are_set_in_a_branch_are_as_they_were_elsewhere() -> None:
    model, script = Remembers(), jit.script(Remembers())
    with graphc.no_grad():
        calls = [(graphc.full((3,), float(n)), graphc.tensor(n)) for n in (0, 5, 5, 1, 3, 0, 4)]
        results = [[bits(f(*call)) for call in calls] for f in (model, script)]
    assert results[0] == results[1]
    assert script.count == model.count == 4 and bits(script.last) == bits(model.last)
    assert script._programs["forward"].stats()["traces"] < 7 and "it sets an attribute of a module" in script.explain(kernels=False)


def test_sizes_in_a_region_are_numbers() -> None:
    halved = jit.script(halves)
    for size in (3, 5, 8):
        x = graphc.full((size,), 20.0)
        assert bits(halved(x)) == bits(halves(x))
    assert "a region has sizes that are numbers" in halved._compiled.stats()["numbers"][0]
    assert "while_loop" in [node.op.name for node in every_node(halved.graph)]


def halves(x: Any) -> Any:
    while x.sum() > 1:
        x = x / 2
    return x


# ---- the namespace -----------------------------------------------------------------------------------------------------------


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    @jit.export
    def halves(self, x: Any) -> Any:
        n = 0
        while x.abs().sum() > 1:
            x = x / 2
            n += 1
        return n

    def forward(self, x: Any) -> Any:
        return self.fc(x) if x.sum() > 0 else x


class Ignoring(nn.Module):
    @jit.ignore
    def python(self, x: Any) -> Any:
        return (lambda y: y + 1)(x)

    @jit.unused
    def never(self, x: Any) -> Any:
        return {float(y) for y in x}

    def forward(self, x: Any, flag: bool = False) -> Any:
        return self.never(x) if flag else self.python(x)


def test_a_file_holds_every_exported_method(tmp_path: Path) -> None:
    model, x = Counter(), graphc.full((4,), 3.0)
    made = [jit.script(model), jit.trace_module(model, {"forward": x, "halves": (x,)})]
    made[0].save(tmp_path / "counter.pt")
    with graphc.no_grad():
        for scripted in (*made, jit.load(tmp_path / "counter.pt")):
            assert scripted.halves(x) == model.halves(x) == 4 and scripted.halves(x * 4) == 6
            assert bits(scripted(x)) == bits(model(x)) and bits(scripted(-x)) == bits(-x)
            assert [n.op.name for n in every_node(scripted._programs["halves"]._last_variant().built.graph)].count(
                "while_loop"
            ) == 1
            assert "graph @Counter" in str(scripted.graph) and "def forward" in scripted.code


def test_ignored_code_is_called_and_not_saved(tmp_path: Path) -> None:
    script = jit.script(Ignoring())
    assert script(graphc.zeros(2)).tolist() == [1.0, 1.0]
    with pytest.raises(RuntimeError, match="never is marked as unused"):
        script(graphc.zeros(2), True)
    with pytest.raises(TypeError, match="of Ignoring is Python code"):
        script.save(tmp_path / "no.pt")


def test_a_traced_function_follows_the_data_and_saves_its_program(tmp_path: Path) -> None:
    model = Counter().eval()
    traced = jit.trace(model, graphc.ones(4))
    assert bits(traced(-graphc.ones(4))) == bits(-graphc.ones(4)) and "graph @" in traced.code
    straight = jit.trace(lambda x, y: x * 2 + y, (graphc.ones(3), graphc.ones(3)))
    straight.save(tmp_path / "traced.pt")
    assert jit.load(tmp_path / "traced.pt")(graphc.ones(3), graphc.ones(3)).tolist() == [3.0] * 3
    with pytest.raises(TypeError, match="trace: expected a function or a Module, got int"):
        jit.trace(3, graphc.ones(3))
    with pytest.raises(RuntimeError, match="graph: graphs are made for the arguments of a call"):
        str(jit.script(branches).graph)
