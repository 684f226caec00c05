"""Modules as programs use them: direct writes, loading as a whole, lazy modules, parametrizations, summaries; compiled too."""

from __future__ import annotations

import copy
import importlib
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.eager import dispatch
from graphc.nn.modules import module as paths
from graphc.nn.utils import parametrize
from graphc.nn.utils.summary import summary


class Block(nn.Module):
    """Two layers and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)
        self.register_buffer("scale", graphc.ones(4))

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x).relu()) * self.scale


def bits(x: Any) -> bytes:
    return x.detach().numpy().tobytes()  # type: ignore[no-any-return]


def doubled(module: nn.Module, args: Any, output: Any) -> Any:
    return output * 2


# ---- what compiled code notices ------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Any], Any]] = {
    "parameter in its dict": lambda m: m.first._parameters.__setitem__("bias", nn.Parameter(graphc.ones(4) * 9)),
    "parameter taken out": lambda m: m.second._parameters.update(bias=None),
    "buffer in its dict": lambda m: m._buffers.update(scale=graphc.ones(4) * 5),
    "module in its dict": lambda m: m._modules.__setitem__("second", nn.Identity()),
    "module out of its dict": lambda m: m._modules.pop("second") and setattr(m, "second", nn.Identity()),
    "set_submodule": lambda m: m.set_submodule("second", nn.Identity()),
    "load": lambda m: m.load_state_dict({k: v * 2 for k, v in m.state_dict().items()}),
    "load, assigning": lambda m: m.load_state_dict({k: v * 3 for k, v in m.state_dict().items()}, assign=True),
    "hook": lambda m: m.first.register_forward_hook(doubled),
    "hooks cleared": lambda m: m._forward_hooks.clear(),
    "hook of every module": lambda m: paths.register_module_forward_hook(doubled),
    "double": lambda m: m.double() and m.float(),
    "class": lambda m: setattr(m, "__class__", type("Other", (Block,), {"forward": lambda self, x: self.first(x)})),
    "parametrization": lambda m: parametrize.register_parametrization(m.first, "weight", nn.Tanh()),
    "weight_norm": lambda m: nn.utils.parametrizations.weight_norm(m.first).parametrizations.weight.original0.data.mul_(2),
    "vector": lambda m: nn.utils.vector_to_parameters(graphc.ones(36), m.parameters()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_compiled_code_notices(change: str) -> None:
    graphc.manual_seed(1)
    block = Block()
    block.register_forward_hook(doubled)
    compiled, x = graphc.compile(block), graphc.randn(2, 3)
    before = bits(compiled(x))
    handle = CHANGES[change](block)
    try:
        after = compiled(x)
        assert bits(after) == bits(block(x))
        assert bits(after) != before or change == "double"
    finally:
        if change == "hook of every module":
            handle.remove()
    assert compiled.stats()["fallbacks"] == []


def test_functional_call_leaves_code_compiled_before_as_it_is() -> None:
    block, x = Block(), graphc.ones(1, 3)
    other = graphc.compile(nn.Linear(3, 3))
    other(x)
    state = {name: p.detach() * 0 for name, p in block.named_parameters()}
    epoch = dispatch.epoch[0]
    assert graphc.func.functional_call(block, state, x).tolist() == [[0.0] * 4]
    assert dispatch.epoch[0] == epoch
    inner = graphc.compile(block.first)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = block.first

        def forward(self, x: Any) -> Any:
            return inner(x)

    plain = inner(x)
    for factor in (0.0, 2.0):
        state = {name: p.detach() * factor for name, p in Outer().named_parameters()}
        np.testing.assert_allclose(
            graphc.func.functional_call(Outer(), state, x).tolist(), (plain.detach() * factor).tolist(), 1e-5
        )
    assert bits(inner(x)) == bits(plain)


def test_compile_of_a_module_in_place() -> None:
    block, x = Block(), graphc.ones(2, 3)
    wanted = bits(block(x))
    block.compile()
    assert bits(block(x)) == wanted and block._compiled_call_impl.stats()["traces"] == 1
    block.register_forward_hook(doubled)
    assert bits(block(x)) == bits(block._call_impl(x)) != wanted
    twin = pickle.loads(pickle.dumps(nn.Sequential(block)[0].second))
    assert twin._compiled_call_impl is None and copy.deepcopy(block)._compiled_call_impl is None


# ---- loading -------------------------------------------------------------------------------------------------------------------


class Watching(nn.Linear):
    """Looks at what it loaded at once."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.seen = self.weight.tolist()


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_that_does_not_fit_changes_nothing(assign: bool) -> None:
    """Even where a module, or a hook, has to see its part before the rest is known to fit."""
    model = nn.Sequential(Watching(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].register_load_state_dict_post_hook(lambda m, keys: model.__dict__.update(looked=m.weight.tolist()))
    before = {name: bits(x) for name, x in model.state_dict().items()}
    tensors = dict(model.named_parameters())
    state = OrderedDict((name, graphc.full(tuple(x.shape), 7.0)) for name, x in model.state_dict().items())
    state["2.bias"] = graphc.ones(3)
    with pytest.raises(RuntimeError, match=r"size mismatch for 2\.bias: .*\[3\].*\[2\]"):
        model.load_state_dict(state, assign=assign)
    assert model[0].seen == model.looked == [[7.0, 7.0], [7.0, 7.0]]
    assert {name: bits(x) for name, x in model.state_dict().items()} == before
    assert all(p is tensors[name] for name, p in model.named_parameters())
    state["2.bias"] = graphc.ones(2)
    model.load_state_dict(state, assign=assign)
    assert model[2].weight.tolist() == [[7.0, 7.0], [7.0, 7.0]] and model[2].weight.requires_grad


def test_a_parameter_that_cannot_be_written_to_keeps_the_others() -> None:
    model = nn.Module()
    model.first, model.second = nn.Parameter(graphc.zeros(2)), nn.Parameter(graphc.zeros(1).expand(2))
    with pytest.raises(RuntimeError, match=r'parameter named "second".*single memory location'):
        model.load_state_dict({"first": graphc.ones(2), "second": graphc.ones(2)})
    assert model.first.tolist() == model.second.tolist() == [0.0, 0.0]


def test_whether_gradients_are_wanted_is_a_bool() -> None:
    for call in (graphc.ones(2).requires_grad_, nn.Linear(2, 2).requires_grad_, lambda x: nn.Parameter(graphc.ones(2), x)):
        for value in ("yes", 1, None):
            with pytest.raises(TypeError, match=r"argument 'requires_grad' .* must be bool, not"):
                call(value)
    with pytest.raises(RuntimeError, match="requires_grad must be a bool"):
        graphc.ones(2).requires_grad = 1


def test_a_hook_that_raises_while_loading_leaves_the_module() -> None:
    model = nn.Sequential(Watching(2, 2), nn.Linear(2, 2))

    def fail(*_: Any) -> None:
        raise KeyError("no")

    model[1].register_load_state_dict_pre_hook(fail)
    before = {name: bits(x) for name, x in model.state_dict().items()}
    with pytest.raises(KeyError, match="no"):
        model.load_state_dict({name: x * 0 for name, x in model.state_dict().items()})
    assert {name: bits(x) for name, x in model.state_dict().items()} == before


# ---- lazy modules --------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_modules_are_initialized_while_traced() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    x = graphc.randn(2, 3, 5, 5)
    compiled = graphc.compile(model)
    compiled(x)
    assert [type(m) for m in model] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Flatten, nn.Linear]
    assert not any(isinstance(p, nn.UninitializedParameter) for p in model.parameters())
    model.eval()
    assert bits(compiled(x)) == bits(model(x)) and compiled.stats()["fallbacks"] == []


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_state_gives_lazy_modules_their_shapes() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyInstanceNorm1d())
    known = nn.Sequential(nn.Linear(3, 4), nn.InstanceNorm1d(2, affine=True, track_running_stats=True))
    x = graphc.randn(5, 2, 3)
    known(x)
    twin = pickle.loads(pickle.dumps(model))
    twin.load_state_dict(known.state_dict())
    assert bits(twin.eval()(x)) == bits(known.eval()(x)) and repr(twin) == repr(known)
    with pytest.raises(RuntimeError, match=r"size mismatch for 0\.weight: an uninitialized tensor"):
        known.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="uninitialized"):
        graphc.optim.SGD(list(model.parameters()), lr=0.1) and model[0].weight.sum()


# ---- parametrizations ------------------------------------------------------------------------------------------------------------


class Scaled(nn.Module):
    """Times a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("by", graphc.ones(()) * 2)

    def forward(self, x: Any) -> Any:
        return x * self.by


def test_parametrized_modules_train_compiled_as_eagerly() -> None:
    def trained(compiled: bool) -> list[bytes]:
        graphc.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        parametrize.register_parametrization(model[0], "weight", Scaled())
        nn.utils.parametrizations.weight_norm(model[2])
        call = graphc.compile(model) if compiled else model
        optimizer = graphc.optim.SGD(model.parameters(), lr=0.1)
        x, losses = graphc.randn(8, 3), []
        for _ in range(4):
            optimizer.zero_grad()
            with parametrize.cached():
                loss = call(x).square().mean()
                loss.backward()
            optimizer.step()
            losses.append(bits(loss))
        model[0].parametrizations.weight[0].by.fill_(3.0)
        return [*losses, bits(call(x)), bits(model[0].weight)]

    assert trained(False) == trained(True)


def test_copies_of_parametrized_modules_are_their_own() -> None:
    layer = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Scaled())
    twin = copy.deepcopy(layer)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear and bits(twin.weight) == bits(layer.weight) and parametrize.is_parametrized(twin)
    assert repr(twin).startswith("ParametrizedLinear(")
    target = nn.Linear(2, 2)
    parametrize.transfer_parametrizations_and_params(twin, target)
    assert bits(target.weight) == bits(twin.weight)
    assert target.parametrizations.weight.original is not twin.parametrizations.weight.original


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_trace_leaves_the_weight_that_a_hook_made() -> None:
    layer = nn.utils.weight_norm(nn.Linear(3, 3))
    x, weight = graphc.randn(2, 3), layer.weight
    compiled = graphc.compile(layer)
    with graphc.no_grad():
        assert bits(compiled(x)) == bits(layer._call_impl(x))
    assert layer.weight is not weight and layer.weight.tolist() == weight.tolist()
    epoch = dispatch.epoch[0]
    layer(x)
    assert dispatch.epoch[0] == epoch  # other compiled code stays as it is


# ---- the rest ------------------------------------------------------------------------------------------------------------------


def test_the_paths_of_pytorchs_modules() -> None:
    """Every path has its classes, and they are the ones of graphc.nn."""
    for path in nn.modules._HOMES:
        home = importlib.import_module(f"graphc.nn.modules.{path}")
        public = [name for name in dir(home) if getattr(nn, name, None) is getattr(home, name, None) is not None]
        assert public or path in ("utils", "linear_cross_entropy_options"), path
    from graphc.nn.modules.batchnorm import _BatchNorm
    from graphc.nn.modules.conv import _ConvNd

    assert isinstance(nn.SyncBatchNorm(2), _BatchNorm) and issubclass(nn.ConvTranspose3d, _ConvNd)
    with pytest.raises(AttributeError, match=r"graphc\.nn\.modules\.conv' has no attribute 'Convolution'"):
        importlib.import_module("graphc.nn.modules.conv").Convolution  # noqa: B018


def test_skip_init_uses_no_random_numbers() -> None:
    graphc.manual_seed(0)
    wanted = graphc.randn(3).tolist()
    graphc.manual_seed(0)
    layer = nn.utils.skip_init(nn.Linear, 2, 3, bias=False)
    assert type(layer) is nn.Linear and layer.weight.shape == (3, 2) and graphc.randn(3).tolist() == wanted
    with pytest.raises(RuntimeError, match="'device' arg"):
        nn.utils.skip_init(nn.ReLU)


def test_summary() -> None:
    shared = nn.Linear(8, 8)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Sequential(nn.ReLU(), nn.AvgPool2d(6)), nn.Flatten(), shared, shared
    )
    model[1].requires_grad_(False)
    statistics = bits(model[1].running_mean)
    hooks = [len(m._forward_hooks) for m in model.modules()]
    side = nn.Module()
    side.model, side.unused = model, nn.Linear(1, 1)
    side.forward = model.forward
    found = summary(side, graphc.ones(2, 3, 8, 8))
    assert str(found).splitlines() == [
        "layer             output shape  parameters",
        "------------------------------------------",
        "Module            [2, 8]                 -",
        "  0: Conv2d       [2, 8, 6, 6]         224",
        "  1: BatchNorm2d  [2, 8, 6, 6]          16",
        "  2: Sequential   [2, 8, 1, 1]           -",
        "    0: ReLU       [2, 8, 6, 6]           -",
        "    1: AvgPool2d  [2, 8, 1, 1]           -",
        "  3: Flatten      [2, 8]                 -",
        "  4: Linear       [2, 8]                72",
        "  4: Linear       [2, 8]                 -",
        "------------------------------------------",
        "parameters: 314 (298 trainable)",
        "buffers: 17",
        "memory: 1.3 KiB",
        "not called: unused",
    ]
    assert (
        model.training and [len(m._forward_hooks) for m in model.modules()] == hooks and bits(model[1].running_mean) == statistics
    )
    assert found.total == 314 and [row.shapes for row in summary(model).layers] == [None] * 8
    with pytest.raises(TypeError, match="expected a Module, got int"):
        summary(3)  # type: ignore[arg-type]
