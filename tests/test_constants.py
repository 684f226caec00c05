"""What compiled programs make of parameters once: which work that is, and that it is done again after every kind of write."""

from __future__ import annotations

import ctypes
import gc
import json
import pickle
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, saving
from graphc.artifact import container, load
from graphc.artifact.program import CONSTANTS, NATIVE_CONSTANTS
from graphc.constants import Constants
from graphc.errors import ArtifactError
from graphc.ir.interp import interpret
from graphc.ir.text import parse_graph, print_graph
from graphc.ir.verify import verify
from graphc.leases import is_out, lend
from graphc.native.sites import made
from graphc.passes.prepare import prepare

CALLS = 11  # enough for machine code to serve the last of them

# ---- the pass ----------------------------------------------------------------------------------------------------------

PRODUCT = """graph @f(%x: f32[4, 64], state %w: f32[96, 64], state %b: f32[96]) {
  %0 = permute(%w, dims=(1, 0)) : f32[64, 96]
  %1 = matmul(%x, %0) : f32[4, 96]
  %2 = add(%1, %b) : f32[4, 96]
  return %2
}
"""
PRODUCT_MAIN = """graph @f(%x: f32[4, 64], state %w: f32[96, 64], state %b: f32[96], %prepared0: f32[3, 64, 32]) {
  %0 = matmul_panels(%x, %prepared0, columns=96) : f32[4, 96]
  %1 = add(%0, %b) : f32[4, 96]
  return %1
}
"""
PRODUCT_CONSTANTS = """graph @f_constants(%w: f32[96, 64]) {
  %0 = permute(%w, dims=(1, 0)) : f32[64, 96]
  %1 = panels(%0, width=32) : f32[3, 64, 32]
  return %1
}
"""
CHANNELS = """graph @f(%x: f32[2, 8, 6], state %v: f32[8], state %w: f32[8]) {
  %0 = reshape(%v, shape=(8, 1)) : f32[8, 1]
  %1 = full(value=0.5, shape=(), dtype=f32) : f32[]
  %2 = add(%0, %1) : f32[8, 1]
  %3 = rsqrt(%2) : f32[8, 1]
  %4 = reshape(%w, shape=(8, 1)) : f32[8, 1]
  %5 = mul(%3, %4) : f32[8, 1]
  %6 = mul(%x, %5) : f32[2, 8, 6]
  return %6
}
"""
CHANNELS_MAIN = """graph @f(%x: f32[2, 8, 6], state %v: f32[8], state %w: f32[8], %prepared0: f32[8, 1]) {
  %0 = mul(%x, %prepared0) : f32[2, 8, 6]
  return %0
}
"""
# Nothing to gain: movement is free where it is read, a mask is larger than what it is made from, a cast back is as cheap as a read.
NOT_WORTH_IT = {
    "movement": """graph @f(%x: f32[4, 8], state %w: f32[8]) {
  %0 = expand(%w, shape=(4, 8)) : f32[4, 8]
  %1 = mul(%x, %0) : f32[4, 8]
  return %1
}
""",
    "grown": """graph @f(%x: f32[64, 64], state %v: f32[64, 1], state %w: f32[1, 64]) {
  %0 = mul(%v, %w) : f32[64, 64]
  %1 = mul(%x, %0) : f32[64, 64]
  return %1
}
""",
    "literals": """graph @f(%x: f32[4, 4], state %w: f32[4]) {
  %0 = full(value=0.5, shape=(4, 4), dtype=f32) : f32[4, 4]
  %1 = exp(%0) : f32[4, 4]
  %2 = mul(%x, %1) : f32[4, 4]
  %3 = mul(%2, %w) : f32[4, 4]
  return %3
}
""",
    "widened": """graph @f(%x: f32[4, 8], state %w: bf16[8]) {
  %0 = cast(%w, dtype=f32) : f32[8]
  %1 = mul(%x, %0) : f32[4, 8]
  return %1
}
""",
    "written": """graph @f(%x: f32[4, 8], state %w: f32[8]) {
  %0 = exp(%w) : f32[8]
  %1 = mul(%x, %0) : f32[4, 8]
  return %1; update %w = %0
}
""",
    "tiny": """graph @f(%x: f32[4, 8], state %w: f32[8, 8]) {
  %0 = matmul(%x, %w) : f32[4, 8]
  return %0
}
""",
}


def states_of(graph: Any) -> list[int]:
    return [i for i, v in enumerate(graph.inputs) if v.role == "state"]


@pytest.mark.parametrize(
    ("text", "main", "constants"),
    [(PRODUCT, PRODUCT_MAIN, PRODUCT_CONSTANTS), (CHANNELS, CHANNELS_MAIN, None)],
    ids=["product", "channels"],
)
def test_work_on_constants_is_cut_out(text: str, main: str, constants: str | None) -> None:
    graph = parse_graph(text)
    found = prepare(graph, states_of(graph))
    assert found is not None
    verify(found.main)
    verify(found.constants)
    assert print_graph(found.main).strip() == main.strip()
    assert constants is None or print_graph(found.constants).strip() == constants.strip()
    rng = np.random.default_rng(0)
    inputs = [rng.random(v.shape, np.float32) for v in graph.inputs]
    once, _ = interpret(found.constants, [inputs[i] for i in found.sources])
    (now,), _ = interpret(found.main, [*inputs, *once])
    np.testing.assert_allclose(now, interpret(graph, inputs)[0][0], rtol=1e-6)


@pytest.mark.parametrize("name", NOT_WORTH_IT)
def test_what_is_not_worth_it_stays(name: str) -> None:
    graph = parse_graph(NOT_WORTH_IT[name])
    assert prepare(graph, states_of(graph)) is None


def test_the_last_costly_result_is_kept_where_the_whole_would_be_too_large() -> None:
    graph = parse_graph("""graph @f(%x: f32[64, 64], state %v: f32[64, 1], state %w: f32[1, 64]) {
  %0 = exp(%v) : f32[64, 1]
  %1 = mul(%0, %w) : f32[64, 64]
  %2 = mul(%x, %1) : f32[64, 64]
  return %2
}
""")
    found = prepare(graph, [1, 2])
    assert found is not None and [n.op.name for n in found.constants.nodes] == ["exp"] and found.sources == (1,)


def test_nothing_is_fixed_unless_said() -> None:
    assert prepare(parse_graph(PRODUCT), []) is None
    assert prepare(parse_graph(PRODUCT), [2]) is None


# ---- every way to write to a parameter ---------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 96), nn.Linear(96, 48)
        self.norm = nn.BatchNorm1d(96)

    def forward(self, x: Any) -> Any:
        return self.second(graphc.relu(self.norm(self.first(x))))


def _by_numpy(model: Model, weight: Any) -> Callable[[], None]:
    array = weight.numpy()
    return lambda: array.__setitem__(0, 3.0)


def _by_dlpack(model: Model, weight: Any) -> Callable[[], None]:
    array = np.from_dlpack(weight)[1:]
    return lambda: array.__setitem__(0, 3.0)


def _by_memoryview(model: Model, weight: Any) -> Callable[[], None]:
    view = memoryview(np.asarray(weight))
    return lambda: view.__setitem__((0, 0), 3.0)


def _by_address(model: Model, weight: Any) -> Callable[[], None]:
    at = (ctypes.c_float * 8).from_address(weight.data_ptr())
    return lambda: at.__setitem__(1, at[1] + 3.0)


def _by_pickle_buffer(model: Model, weight: Any) -> Callable[[], None]:
    buffers: list[Any] = []
    pickle.dumps(weight, protocol=5, buffer_callback=buffers.append)
    array = np.frombuffer(buffers[0].raw(), np.float32)
    return lambda: array.__setitem__(1, 3.0)


def _by_from_numpy(model: Model, weight: Any) -> Callable[[], None]:
    array = np.ones((96, 64), np.float32)
    model.first.weight.data = graphc.from_numpy(array)
    return lambda: array.__setitem__(0, 3.0)


def _by_frombuffer(model: Model, weight: Any) -> Callable[[], None]:
    memory = bytearray(np.ones(96 * 64, np.float32).tobytes())
    model.first.weight.data = graphc.frombuffer(memory, dtype=graphc.float32).view(96, 64)
    return lambda: memory.__setitem__(3, 65)


def _by_shared_memory(model: Model, weight: Any) -> Callable[[], None]:
    model.first.weight.share_memory_()
    memory = np.frombuffer(model.first.weight._storage.array.base, np.float32)
    return lambda: memory.__setitem__(0, 3.0)


def _by_storage_slice(model: Model, weight: Any) -> Callable[[], None]:
    part = weight.untyped_storage()[:4]
    return lambda: part.__setitem__(3, 65)


def _by_view(model: Model, weight: Any) -> Callable[[], None]:
    view = weight[3:5]
    return lambda: view.mul_(2)


def _by_strides(model: Model, weight: Any) -> Callable[[], None]:
    view = weight[4:].as_strided((2, 2), (1, 2), 0)
    return lambda: view.fill_(2)


def _by_set(model: Model, weight: Any) -> Callable[[], None]:
    other = nn.Parameter(graphc.ones(96, 64))
    other.set_(weight.untyped_storage(), 0, (10,))
    return lambda: other.detach().fill_(2)


def _by_a_compiled_call(model: Model, weight: Any) -> Callable[[], None]:
    step = graphc.compile(lambda: weight.mul_(2))
    return step


def _by_a_compiled_argument(model: Model, weight: Any) -> Callable[[], None]:
    step = graphc.compile(lambda x: x.mul_(2))
    return lambda: step(weight)


def _by_an_optimizer(model: Model, weight: Any) -> Callable[[], None]:
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.5)

    def step() -> None:
        for p in model.parameters():
            p.grad = graphc.ones_like(p)
        optimizer.step()

    return step


def _by_loading(model: Model, weight: Any) -> Callable[[], None]:
    state = {name: value.clone() + 1 for name, value in model.state_dict().items()}
    return lambda: model.load_state_dict(state)


def _by_machine_code(model: Model, weight: Any) -> Callable[[], None]:
    def write() -> None:
        for _ in range(300):  # machine code serves the last of them
            weight.add_(0.25)

    return write


def _by_a_running_mean(model: Model, weight: Any) -> Callable[[], None]:
    def train() -> None:
        model.train()
        model(graphc.ones(4, 64))
        model.eval()

    return train


ROUTES: dict[str, Callable[[Model, Any], Callable[[], Any]]] = {
    "add_": lambda m, w: lambda: w.add_(1),
    "item": lambda m, w: lambda: w.__setitem__(3, 1.5),
    "index": lambda m, w: lambda: w.__setitem__(graphc.tensor([3, 5]), 1.5),
    "index_fill_": lambda m, w: lambda: w.index_fill_(0, graphc.tensor([3]), 2.0),
    "copy_": lambda m, w: lambda: w.copy_(graphc.ones(96, 64)),
    "out": lambda m, w: lambda: graphc.add(w, 1, out=w),
    "init": lambda m, w: lambda: nn.init.normal_(m.first.weight),
    "data": lambda m, w: lambda: setattr(m.first.weight, "data", graphc.ones(96, 64)),
    "attribute": lambda m, w: lambda: setattr(m.first, "weight", nn.Parameter(graphc.ones(96, 64))),
    "foreach": lambda m, w: lambda: graphc._foreach_mul_([w], 2.0),
    "storage item": lambda m, w: lambda: w.untyped_storage().__setitem__(3, 65),
    "typed storage": lambda m, w: lambda: w.storage().__setitem__(3, 65.0),
    "numpy": _by_numpy,
    "dlpack": _by_dlpack,
    "memoryview": _by_memoryview,
    "address": _by_address,
    "pickle buffer": _by_pickle_buffer,
    "from_numpy": _by_from_numpy,
    "frombuffer": _by_frombuffer,
    "shared memory": _by_shared_memory,
    "storage slice": _by_storage_slice,
    "view": _by_view,
    "strides": _by_strides,
    "set_": _by_set,
    "compiled": _by_a_compiled_call,
    "compiled argument": _by_a_compiled_argument,
    "optimizer": _by_an_optimizer,
    "load_state_dict": _by_loading,
    "machine code": _by_machine_code,
    "running mean": _by_a_running_mean,
}


@pytest.fixture(scope="module")
def x() -> Any:
    graphc.manual_seed(1)
    return graphc.randn(4, 64)


def model_of() -> Model:
    graphc.manual_seed(2)
    return Model().eval()


def same(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a.numpy(), b.numpy()))


@pytest.mark.parametrize("early", [True, False], ids=["exported before", "exported after"])
@pytest.mark.parametrize("route", ROUTES)
def test_a_changed_weight_shows_in_the_next_call(route: str, early: bool, x: Any) -> None:
    model = model_of()
    with graphc.no_grad():
        if early:
            write = ROUTES[route](model, model.first.weight.detach())
        compiled = graphc.compile(model)
        for _ in range(CALLS):
            before = compiled(x)
        assert same(before, model(x))
        if not early:
            write = ROUTES[route](model, model.first.weight.detach())
            assert same(compiled(x), model(x))
        for _ in range(2):
            write()
            expected = model(x)
            assert same(compiled(x), expected), route
            assert same(compiled(x), expected)
        assert not same(before, expected)


def test_memory_that_was_given_back_is_trusted_again(x: Any) -> None:
    model = model_of()
    compiled = graphc.compile(model)
    with graphc.no_grad():
        compiled(x)
        constants = compiled._last.constants
        array = model.first.weight.detach().numpy()
        part = array[1:]
        compiled(x), compiled(x)
        assert not constants.now.steady
        del array
        compiled(x)
        assert not constants.now.steady
        part[:] = 2.0
        del part
        expected = model(x)
        assert same(compiled(x), expected)
        assert constants.now.steady
        runs = constants._runs
        for _ in range(CALLS):
            assert same(compiled(x), expected)
        assert constants._runs == runs


def test_lent_memory_is_the_same_memory() -> None:
    owner = graphc.zeros(1)._storage
    for array in (
        np.zeros((4, 5), np.float32),
        np.zeros((4, 5)).T[1:],
        np.zeros((0, 3)),
        np.zeros(3, bool),
        np.array(3.0),
        graphc.zeros(3, dtype=graphc.bfloat16)._array,
    ):
        owner.lent = None
        out = lend(owner, array)
        assert out.dtype == array.dtype and out.shape == array.shape and (out.strides == array.strides or not out.size)
        assert np.shares_memory(out, array) or not out.size
        assert is_out(owner.lent)
        view = memoryview(out.view(np.uint8) if out.size and out.ndim and out.flags.c_contiguous else np.zeros(1))
        kept = out[None]
        del out
        assert is_out(owner.lent)
        del kept, view
        assert not is_out(owner.lent)


def test_memory_is_used_again(x: Any) -> None:
    model = model_of()
    compiled = graphc.compile(model)
    with graphc.no_grad():
        for _ in range(CALLS):
            compiled(x)
        address = compiled._last.constants.now.addresses[0]
        for _ in range(3):
            model.first.weight.add_(1)
            for _ in range(CALLS):
                assert same(compiled(x), model(x))
        assert compiled._last.constants.now.addresses[0] == address
        assert len(compiled._records.records) == (made() is not None)  # machine code serves the calls
        kept = weakref.ref(compiled._last.constants)
        model.first.weight = nn.Parameter(graphc.ones(96, 64))
        assert same(compiled(x), model(x))
        for _ in range(CALLS):
            compiled(x)
        gc.collect()
        assert kept() is None


def test_nothing_is_kept_of_what_gradients_flow_to(x: Any) -> None:
    model = model_of()
    compiled = graphc.compile(model)
    compiled(x).sum().backward()
    assert compiled._last.constants is None or not compiled._last.constants.tensors[0].requires_grad
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    trained = graphc.compile(step)
    trained(x)
    kept = trained._last.constants
    assert kept is None or not any(t.requires_grad for t in kept.tensors)


def test_variants_share_what_is_kept(x: Any) -> None:
    model = model_of()
    compiled = graphc.compile(model)
    with graphc.no_grad():
        compiled(x)
        first = compiled._last
        compiled(graphc.randn(9, 64))
        assert compiled._last is not first and compiled._last.constants is first.constants is not None


def test_what_changes_all_the_time_is_no_constant(x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.constants.LARGEST_SHARE", 0.0)
    model = model_of()
    compiled = graphc.compile(model)
    with graphc.no_grad():
        for _ in range(12):
            model.first.weight.mul_(0.5)
            assert same(compiled(x), model(x))
        kept = compiled._last.constants
        assert kept is not None and all(t is not model.first.weight for t in kept.tensors)
        assert any(t is model.second.weight for t in kept.tensors)
        assert len(compiled._last.built.fixed) == 7


def test_a_failing_check_is_raised_at_every_call() -> None:
    table, index = graphc.ones(8), graphc.tensor([9])

    @graphc.compile
    def pick(x: Any) -> Any:
        return x * graphc.exp(table[index])

    for _ in range(3):
        with pytest.raises(IndexError):
            pick(graphc.ones(1))
    index.fill_(2)
    assert pick(graphc.ones(1)).item() == pytest.approx(np.e, rel=1e-6)


def test_threads_that_call_while_one_writes(x: Any) -> None:
    """Every result is that of some state of the weights; the last is that of the last."""
    model = model_of()
    compiled = graphc.compile(model)
    states = [graphc.full((96, 64), float(k)) for k in range(4)]
    with graphc.no_grad():
        expected = []
        for state in states:
            model.first.weight.copy_(state)
            expected.append(model(x).numpy().copy())
        compiled(x)
    wrong: list[Any] = []
    over = threading.Event()

    def call() -> None:
        with graphc.no_grad():
            while not over.is_set():
                result = compiled(x).numpy()
                if not any(np.array_equal(result, e) for e in expected):
                    wrong.append(result)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for k in range(60):
        model.first.weight.data = states[k % 4]
    over.set()
    for thread in threads:
        thread.join()
    with graphc.no_grad():
        assert same(compiled(x), model(x))
    assert not wrong


# ---- weights of fewer bits ---------------------------------------------------------------------------------------------


def _rounded(w: Any, kind: str) -> Any:
    """A weight [out, in] as the program reads it."""
    if kind == "bfloat16":
        return w.astype(graphc.bfloat16.numpy).astype(np.float32)
    factor = np.abs(w).max(1, keepdims=True) / np.float32(127)
    return np.round(w / np.where(factor == 0, 1, factor)) * factor


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_weights_of_fewer_bits(kind: Any, x: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphc.manual_seed(3)
    model = nn.Sequential(nn.Linear(64, 130), nn.ReLU(), nn.Linear(130, 257)).eval()
    with graphc.no_grad():
        model[0].weight[5] = 0.0
    compiled = graphc.compile(model, weights=kind)

    def expected() -> Any:
        first, second = (_rounded(model[i].weight.detach().numpy(), kind) for i in (0, 2))
        hidden = np.maximum(x.numpy() @ first.T + model[0].bias.detach().numpy(), 0)
        return hidden @ second.T + model[2].bias.detach().numpy()

    with graphc.no_grad():
        result = compiled(x)
        np.testing.assert_allclose(result.numpy(), expected(), atol=1e-5)
        assert not same(result, model(x))
        assert same(compiled(x[:1]), result[:1])
        assert same(compiled(x), result)
        for lanes in (4, 8, 32):
            assert same(graphc.compile(model, weights=kind, lanes=lanes)(x), result)
        compiled.save(tmp_path / "x.gc")
        assert same(saving.load(tmp_path / "x.gc")(x), result)
        monkeypatch.setenv("GRAPHC_SIGNING_KEY", "ab" * 32)
        assert same(saving.load(tmp_path / "x.gc")(x), result)
        model[2].weight.mul_(3.0)
        np.testing.assert_allclose(compiled(x).numpy(), expected(), atol=1e-5)
        narrow_bytes = sum(np.dtype(s.dtype.numpy).itemsize for s in compiled._last.constants.program.plan.outputs)
        assert narrow_bytes == (4 if kind == "bfloat16" else 10)


def test_weights_stay_where_gradients_flow(x: Any) -> None:
    model = model_of()
    compiled = graphc.compile(model, weights="int8")
    assert np.array_equal(compiled(x).detach().numpy(), model(x).detach().numpy())
    with pytest.raises(ValueError, match="weights must be one of bfloat16, int8 or None, got 'int4'"):
        graphc.compile(model, weights="int4")  # type: ignore[call-overload,unused-ignore]


# ---- what people see ---------------------------------------------------------------------------------------------------


def test_explain_tells_what_is_kept(x: Any) -> None:
    compiled = graphc.compile(model_of())
    with graphc.no_grad():
        compiled(x)
    text = compiled.explain(kernels=False)
    assert "prepared once, and again when a parameter or buffer changed: 4 tensors in" in text
    assert "prepared0: " in text and "panels f32[3, 64, 32]" in text
    compiled._last.built.schedule = None  # as it is from the cache
    assert "prepared1: " in compiled.explain()


# ---- files -------------------------------------------------------------------------------------------------------------

FOLDER = "programs/0/"  # of a file's one program


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, x: Any) -> tuple[Path, Any]:
    model = model_of()
    compiled = graphc.compile(model)
    path = tmp_path_factory.mktemp("constants") / "x.gc"
    with graphc.no_grad():
        compiled(x)
        compiled.save(path)
        return path, compiled(x).numpy()


@pytest.mark.parametrize("signed", [True, False])
def test_a_file_holds_the_weights_as_they_were(
    program: tuple[Path, Any], x: Any, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, expected = program
    assert FOLDER + NATIVE_CONSTANTS in container.read(path)
    if not signed:
        monkeypatch.setenv("GRAPHC_SIGNING_KEY", "ab" * 32)
    loaded = saving.load(path)
    for _ in range(2):
        assert np.array_equal(loaded(x).numpy(), expected)
    (inner,) = loaded._programs
    memory = inner._prepared[0]
    loaded(x)
    assert inner._prepared[0] is memory
    weights = loaded.state_dict()
    weights["second.weight"][:] = 0.0
    bias = loaded.state_dict()["second.bias"].copy()
    assert np.array_equal(loaded(x).numpy(), np.broadcast_to(bias, (4, 48)))
    weights["second.bias"][:] = 7.0
    del weights
    assert np.array_equal(loaded(x).numpy(), np.full((4, 48), 7.0, np.float32))


def _changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def apply(content: bytes) -> bytes:
        data = json.loads(content)
        change(data)
        return json.dumps(data).encode()

    return apply


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(sources=[0, *c["sources"][1:]]),
        lambda c: c.update(sources=c["sources"][1:]),
        lambda c: c.update(sources=[99, *c["sources"][1:]]),
        lambda c: c.update(sources="no"),
        lambda c: c["plan"]["outputs"].pop(),
        lambda c: c["plan"].update(written=[0]),
        lambda c: c.pop("plan"),
    ],
)
def test_plans_that_do_not_fit(program: tuple[Path, Any], tmp_path: Path, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where whoever wrote them had the key."""
    entries = container.read(program[0])
    entries[FOLDER + CONSTANTS] = _changed(change)(entries[FOLDER + CONSTANTS])
    container.write(tmp_path / "x.gc", entries)
    monkeypatch.setattr(load, "_is_trusted", lambda entries: True)
    with pytest.raises(ArtifactError, match=r"x\.gc: "):
        saving.load(tmp_path / "x.gc")


def test_the_cache_gives_both_programs(x: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path))
    results = []
    for hits in (0, 1):
        compiled = graphc.compile(model_of())
        with graphc.no_grad():
            results.append(compiled(x))
        assert compiled.stats()["cache_hits"] == hits
        assert isinstance(compiled._last.constants, Constants)
    assert same(*results)
