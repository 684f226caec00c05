"""Attributes of modules that compiled code sets: what they are after every call is what they are in eager code."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.errors import CompileWarning


class Remembering(nn.Module):
    """Sets a tensor with a gradient, one without that it reads again, a buffer, a count and plain values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.calls = 0
        self.hidden = None
        self.register_buffer("average", graphc.zeros(4))

    def forward(self, x: Any) -> Any:
        self.calls += 1
        if self.hidden is None:
            self.hidden = graphc.zeros(4)
        h = graphc.tanh(self.linear(x) + self.hidden)
        self.hidden = h.detach().mean(0)
        self.average = self.average * 0.5 + self.hidden
        self.last = h
        self.parts = {"h": (h, h.detach()), "rows": x.shape[0]}
        return h.sum()


def seeded(make: Callable[[], Any]) -> Any:
    graphc.manual_seed(0)
    return make()


def history(module: Any, call: Callable[[Any], Any]) -> list[Any]:
    """All that twelve calls show."""
    graphc.manual_seed(1)
    seen: list[Any] = []
    for i in range(12):
        y = call(graphc.randn(3 if i % 4 else 5, 4))
        tensors = [y, module.hidden, module.average, module.last, *module.parts["h"]]
        seen += [(x.detach().numpy().tobytes(), x.requires_grad) for x in tensors]
        seen += [module.calls, type(module.calls), module.parts["rows"], module.parts["h"][0] is module.last]
        (y + module.last.mean()).backward()
        seen += [p.grad.numpy().tobytes() for p in module.parameters()]
        if i % 3 == 2:
            module.zero_grad()
        if i == 7:
            module.hidden = None
    return seen


def test_attributes_are_what_eager_code_leaves() -> None:
    eager, other = seeded(Remembering), seeded(Remembering)
    compiled = graphc.compile(other, dynamic=False)
    assert history(eager, eager) == history(other, compiled)
    assert compiled.stats()["traces"] <= 7 and not compiled.stats()["fallbacks"]
    assert other.state_dict().keys() == eager.state_dict().keys()


def test_copies_and_pickles_have_ordinary_attributes() -> None:
    module = seeded(Remembering)
    graphc.compile(module)(graphc.ones(2, 4))
    module.last = None
    module.parts = {}
    assert {"calls", "hidden", "last"} <= set(dir(module))
    for other in (copy.deepcopy(module), copy.copy(module), pickle.loads(pickle.dumps(module))):
        assert other.__dict__["calls"] == 1 and other.hidden.tolist() == module.hidden.tolist()
        other.calls = 5
        assert module.calls == 1
    del module.calls
    assert not hasattr(module, "calls")


class Counting(nn.Module):
    """Counts its calls, and asks `question` of the count."""

    def __init__(self, question: Callable[[int], float]) -> None:
        super().__init__()
        self.calls, self.question = 0, question

    def forward(self, x: Any) -> Any:
        self.calls += 1
        return x * self.question(self.calls)


@pytest.mark.parametrize(
    ("question", "most"), [(lambda n: 2.0, 2), (lambda n: 3.0 if n % 4 == 0 else 1.0, 3), (lambda n: 3.0 if n > 5 else 1.0, 3)]
)
def test_a_count_is_traced_again_only_where_it_matters(question: Callable[[int], float], most: int) -> None:
    module = Counting(question)
    compiled = graphc.compile(module)
    for i in range(1, 13):
        assert compiled(graphc.ones(1)).item() == question(i)
        assert module.calls == i
    assert compiled.stats()["traces"] <= most


def test_a_count_that_decides_everything_ends_in_eager_code() -> None:
    module = Counting(float)
    compiled = graphc.compile(module)
    with pytest.warns(CompileWarning, match=r"attribute 'calls' of a module changes from call to call.*test_compile_state.py:\d+"):
        values = [compiled(graphc.ones(1)).item() for _ in range(24)]
    assert values == [*range(1, 25)] and module.calls == 24
    assert compiled.stats()["recompiles"]["attribute 'calls' of a module"] == 17
    limited = graphc.compile(Counting(float), max_compiles=3)
    with pytest.raises(RuntimeError, match="max_compiles=3: the code must be traced again for a change of attribute 'calls'"):
        print([limited(graphc.ones(1)) for _ in range(4)])


def test_another_compiled_function_sees_what_one_sets() -> None:
    module = Remembering()
    forward = graphc.compile(module)
    read = graphc.compile(lambda x: x + module.hidden if module.hidden is not None else x)
    with graphc.no_grad():
        assert read(graphc.ones(4)).tolist() == [1, 1, 1, 1]
        for i in range(4):
            forward(graphc.full((2, 4), float(i)))
            assert read(graphc.ones(4)).tolist() == (module.hidden + 1).tolist()
        module.hidden = graphc.zeros(4)
        assert read(graphc.ones(4)).tolist() == [1, 1, 1, 1]
    assert read.stats()["traces"] <= 4


def test_gradients_flow_through_an_attribute_from_call_to_call() -> None:
    class Carrying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(graphc.full((3,), 0.5))
            self.state = graphc.ones(3)

        def forward(self, x: Any) -> Any:
            self.state = graphc.tanh(self.state * self.weight + x)
            return self.state

    def run(wrap: Callable[[Any], Any]) -> list[bytes]:
        module = Carrying()
        call = wrap(module)
        found = []
        for _ in range(2):
            for i in range(3):
                y = call(graphc.full((3,), i / 4))
            y.sum().backward()
            found += [y.detach().numpy().tobytes(), module.weight.grad.numpy().tobytes()]
            module.state = module.state.detach()
        return found

    assert run(lambda module: module) == run(graphc.compile)


def test_views_and_deleted_attributes() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.old = 1

        def forward(self, x: Any) -> Any:
            if hasattr(self, "old"):
                del self.old
            self.view = x[0]
            return x * 2

    module = Keeping()
    compiled = graphc.compile(module)
    for _ in range(3):
        x = graphc.ones(2, 2)
        compiled(x)
        x[0, 1] = 7
        assert module.view.tolist() == [1, 7] and not hasattr(module, "old")


def test_what_a_class_has_and_what_properties_set() -> None:
    class Shared(nn.Module):
        count = 0

        @property
        def value(self) -> Any:
            return self._value

        @value.setter
        def value(self, value: Any) -> None:
            self._value = value * 2

        def forward(self, x: Any, which: bool) -> Any:
            if which:
                self.count += 1
            self.value = x
            return x + 1

    module = Shared()
    compiled = graphc.compile(module)
    for i in range(3):
        compiled(graphc.full((1,), float(i)), False)
        assert module.value.item() == 2 * i
    with pytest.warns(CompileWarning, match="attribute 'count' of a module, which its class has too"):
        compiled(graphc.ones(1), True)
    assert module.count == 1


def test_an_error_leaves_attributes_as_they_were() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n = 0

        def forward(self, x: Any, index: Any) -> Any:
            self.n += 1
            self.last = x[index]
            return self.last

    module = Failing()
    compiled = graphc.compile(module)
    compiled(graphc.arange(3.0), graphc.tensor([1]))
    kept = module.last
    with pytest.raises(IndexError):
        compiled(graphc.arange(3.0), graphc.tensor([5]))
    assert module.n == 1 and module.last is kept


def test_saving_what_only_sets(tmp_path: Path) -> None:
    class Setting(nn.Module):
        def forward(self, x: Any) -> Any:
            self.seen = x * 2
            return x + 1

    compiled = graphc.compile(Setting())
    with graphc.no_grad():
        compiled(graphc.ones(2))
        compiled(graphc.ones(2))
        compiled.save(tmp_path / "setting.gc")
        assert graphc.load(tmp_path / "setting.gc")(graphc.ones(2)).tolist() == [2, 2]
        reading = graphc.compile(Remembering())
        reading(graphc.ones(2, 4))
        with pytest.raises(RuntimeError, match="sets attributes that it reads, which a file cannot hold: calls, hidden, average"):
            reading.save(tmp_path / "reading.gc")
