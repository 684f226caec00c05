"""Modules: names, state, attributes and the epoch they change, layers against NumPy, initial values, clipping."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.eager import dispatch
from graphc.nn import functional as F


class Block(nn.Module):
    """Two layers, a buffer of each kind."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(3, width)
        self.second = nn.Linear(width, 2, bias=False)
        self.register_buffer("scale", graphc.ones(2))
        self.register_buffer("scratch", graphc.zeros(1), persistent=False)
        self.factor = 1.0

    def forward(self, x: Any) -> Any:
        return self.second(F.relu(self.first(x))) * self.scale * self.factor


STATE_NAMES = ["scale", "first.weight", "first.bias", "second.weight"]


def array(x: Any) -> np.ndarray:
    return x.detach().numpy()


# ---- names ---------------------------------------------------------------------------------------------------------------


def test_names_follow_registration() -> None:
    block = Block()
    assert [name for name, _ in block.named_parameters()] == STATE_NAMES[1:]
    assert [name for name, _ in block.named_buffers()] == ["scale", "scratch"]
    assert [name for name, _ in block.named_children()] == ["first", "second"]
    assert [name for name, _ in block.named_modules()] == ["", "first", "second"]
    assert len(list(block.parameters(recurse=False))) == 0
    assert block.get_submodule("first") is block.first
    with pytest.raises(AttributeError, match="Block has no attribute `third`"):
        block.get_submodule("third")


def test_a_shared_parameter_is_listed_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    both = nn.Sequential(first, second)
    assert [name for name, _ in both.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert len(list(both.named_parameters(remove_duplicate=False))) == 4
    assert list(both.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_parameters_are_leaves_that_require_grad() -> None:
    weight = nn.Parameter(graphc.ones(2))
    assert isinstance(weight, graphc.Tensor) and weight.requires_grad and weight.is_leaf
    assert type(weight * 2) is graphc.Tensor
    assert not nn.Parameter(graphc.ones(2), requires_grad=False).requires_grad
    assert repr(weight).startswith("Parameter containing:\ntensor([1., 1.], requires_grad=True)")
    with pytest.raises(RuntimeError, match="floating"):
        nn.Parameter(graphc.arange(3))
    with pytest.raises(TypeError, match="data must be a Tensor, not list"):
        nn.Parameter([1.0])  # type: ignore[arg-type]


def test_deepcopy_shares_nothing() -> None:
    block = Block()
    twin = copy.deepcopy(block)
    assert array(twin.first.weight).tobytes() == array(block.first.weight).tobytes()
    with graphc.no_grad():
        twin.first.weight.zero_()
    assert array(block.first.weight).any()
    assert [type(p) for p in twin.parameters()] == [nn.Parameter] * 3


# ---- attributes ----------------------------------------------------------------------------------------------------------


def test_assignment_moves_a_name_between_kinds() -> None:
    block = Block()
    block.factor = nn.Parameter(graphc.ones(1))
    assert "factor" in dict(block.named_parameters()) and "factor" not in vars(block)
    block.scale = graphc.zeros(2)
    assert block.scale is dict(block.named_buffers())["scale"]
    block.first = None
    assert [name for name, _ in block.named_children()] == ["second"]
    del block.second
    assert not hasattr(block, "second")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("first", 3, "cannot assign 'int' as child module 'first'"),
        ("scale", 3, "cannot assign 'int' as buffer 'scale'"),
        ("weight", 3, "cannot assign 'int' as parameter 'weight'"),
    ],
)
def test_registered_names_refuse_other_kinds(name: str, value: object, message: str) -> None:
    block = Block()
    block.weight = nn.Parameter(graphc.ones(1))
    with pytest.raises(TypeError, match=message):
        setattr(block, name, value)


def test_bad_registrations() -> None:
    block = Block()
    with pytest.raises(KeyError, match="t contain"):
        block.add_module("a.b", nn.Identity())
    with pytest.raises(KeyError, match="t be empty"):
        block.register_parameter("", None)
    with pytest.raises(KeyError, match="attribute 'factor' already exists"):
        block.register_buffer("factor", graphc.ones(1))
    with pytest.raises(TypeError, match=r"cannot assign 'graphc\.FloatTensor' object to parameter 'w'"):
        block.register_parameter("w", graphc.ones(1))  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="'Block' object has no attribute 'missing'"):
        _ = block.missing

    class Early(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter(graphc.ones(1))

    with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
        Early()


CHANGES: dict[str, Any] = {
    "attribute": lambda m: setattr(m, "factor", 2.0),
    "new attribute": lambda m: setattr(m, "other", None),
    "parameter": lambda m: setattr(m.first, "weight", nn.Parameter(graphc.ones(4, 3))),
    "buffer": lambda m: setattr(m, "scale", graphc.zeros(2)),
    "module": lambda m: setattr(m, "first", nn.Linear(3, 4)),
    "deletion": lambda m: delattr(m, "factor"),
    "eval": lambda m: m.eval(),
    "dtype": lambda m: m.double(),
    "requires_grad_": lambda m: m.requires_grad_(False),
    "hook": lambda m: m.register_forward_hook(lambda *_: None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_change_the_epoch(change: str) -> None:
    block = Block()
    before = dispatch.epoch[0]
    CHANGES[change](block)
    assert dispatch.epoch[0] != before


def test_what_changes_nothing_leaves_the_epoch() -> None:
    block = Block()
    before = dispatch.epoch[0]
    block.train()
    block.first = block.first
    block.first.weight = block.first.weight
    block.factor = block.factor
    block.load_state_dict(block.state_dict())
    block(graphc.ones(1, 3)).sum().backward()
    block.zero_grad()
    assert dispatch.epoch[0] == before


def test_compiled_modules_see_changes() -> None:
    block = Block().requires_grad_(False)
    compiled = graphc.compile(block)
    x = graphc.ones(2, 3)
    assert array(compiled(x)).tobytes() == array(block(x)).tobytes()
    block.factor = 3.0
    assert array(compiled(x)).tobytes() == array(block(x)).tobytes()
    with graphc.no_grad():
        block.first.weight.mul_(2.0)
    assert array(compiled(x)).tobytes() == array(block(x)).tobytes()


# ---- state ---------------------------------------------------------------------------------------------------------------


def test_state_dict_names_share_memory_off_the_tape() -> None:
    block = Block()
    state = block.state_dict()
    assert list(state) == STATE_NAMES
    assert not any(x.requires_grad for x in state.values())
    state["scale"].fill_(5.0)
    assert block.scale.tolist() == [5.0, 5.0]
    assert block.state_dict(keep_vars=True)["first.weight"] is block.first.weight


def test_load_state_dict_copies() -> None:
    source, target = Block(), Block()
    result = target.load_state_dict(source.state_dict())
    assert repr(result) == "<All keys matched successfully>"
    for name, value in source.state_dict().items():
        assert array(target.state_dict()[name]).tobytes() == array(value).tobytes()
    as_arrays = {name: array(x) + 1 for name, x in source.state_dict().items()}
    target.load_state_dict(as_arrays)
    assert np.array_equal(array(target.first.bias), array(source.first.bias) + 1)


def test_a_bad_state_dict_changes_nothing() -> None:
    block = Block()
    before = {name: array(x).copy() for name, x in block.state_dict().items()}
    state = {name: x.clone() + 1 for name, x in block.state_dict().items()}
    del state["first.bias"]
    state["third"] = graphc.ones(1)
    state["scale"] = graphc.ones(3)
    with pytest.raises(RuntimeError) as caught:
        block.load_state_dict(state)
    assert str(caught.value).splitlines() == [
        "Error(s) in loading state_dict for Block:",
        '\tMissing key(s) in state_dict: "first.bias". ',
        '\tUnexpected key(s) in state_dict: "third". ',
        "\tsize mismatch for scale: copying a param with shape graphc.Size([3]) from checkpoint, "
        "the shape in current model is graphc.Size([2]).",
    ]
    assert all(np.array_equal(array(x), before[name]) for name, x in block.state_dict().items())
    state["scale"] = graphc.ones(2)
    result = block.load_state_dict(state, strict=False)
    assert result == (["first.bias"], ["third"])
    with pytest.raises(TypeError, match="dict-like"):
        block.load_state_dict([1])  # type: ignore[arg-type]


# ---- modes, dtypes, hooks -----------------------------------------------------------------------------------------------


def test_train_eval_zero_grad_requires_grad_apply() -> None:
    block = Block()
    assert not block.eval().first.training and block.train().first.training
    with pytest.raises(ValueError, match="boolean"):
        block.train(1)  # type: ignore[arg-type]
    block(graphc.ones(1, 3)).sum().backward()
    assert all(p.grad is not None for p in block.parameters())
    block.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not array(p.grad).any() for p in block.parameters())
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())
    block.requires_grad_(False)
    assert not any(p.requires_grad for p in block.parameters())
    seen: list[nn.Module] = []
    assert block.apply(seen.append) is block
    assert seen == [block.first, block.second, block]


def test_to_converts_in_place() -> None:
    block = Block()
    weight = block.first.weight
    block(graphc.ones(1, 3)).sum().backward()
    block.register_buffer("count", graphc.zeros(1, dtype=graphc.int64))
    assert block.double() is block and block.first.weight is weight
    assert weight.dtype is graphc.float64 and weight.grad is not None and weight.grad.dtype is graphc.float64
    assert block.scale.dtype is graphc.float64 and block.count.dtype is graphc.int64
    assert block.to(graphc.float16).first.weight.dtype is graphc.float16
    assert block.bfloat16().to("cpu", dtype=graphc.float32).first.weight.dtype is graphc.float32
    with pytest.raises(TypeError, match="floating point"):
        block.to(graphc.int64)


def test_hooks_replace_and_are_removed() -> None:
    layer = nn.Identity()
    pre = layer.register_forward_pre_hook(lambda module, args: args[0] + 1)
    post = layer.register_forward_hook(lambda module, args, output: output * 10)
    assert layer(graphc.ones(1)).tolist() == [20.0]
    pre.remove()
    assert layer(graphc.ones(1)).tolist() == [10.0]
    post.remove()
    assert layer(graphc.ones(1)).tolist() == [1.0]
    with pytest.raises(NotImplementedError, match='missing the required "forward"'):
        nn.Module()(1)


# ---- containers and printing -------------------------------------------------------------------------------------------


def test_sequential() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    assert len(layers) == 3 and isinstance(layers[1], nn.ReLU) and layers[-1] is layers[2]
    assert list(layers[1:].state_dict()) == ["2.weight", "2.bias"]
    x = graphc.ones(1, 2)
    assert layers(x).tolist() == layers[2](layers[1](layers[0](x))).tolist()
    layers.append(nn.Tanh()).insert(0, nn.Identity())
    assert [type(m).__name__ for m in layers] == ["Identity", "Linear", "ReLU", "Linear", "Tanh"]
    del layers[1:3]
    assert [name for name, _ in layers.named_children()] == ["0", "1", "2"]
    layers[0] = nn.Sigmoid()
    assert isinstance(layers[0], nn.Sigmoid)
    with pytest.raises(IndexError):
        layers[3]
    named = nn.Sequential(OrderedDict(a=nn.Linear(1, 1), b=nn.ReLU()))
    assert list(named.state_dict()) == ["a.weight", "a.bias"]


def test_module_list_and_dict() -> None:
    listed = nn.ModuleList(nn.Linear(1, 1) for _ in range(2))
    listed.extend([nn.ReLU()])
    assert len(listed + nn.ModuleList([nn.ReLU()])) == 4 and isinstance(listed[:2], nn.ModuleList)
    named = nn.ModuleDict({"a": nn.ReLU()})
    named["b"] = nn.Linear(1, 2)
    assert list(named) == list(named.keys()) == ["a", "b"] and "a" in named and len(named) == 2
    assert [name for name, _ in named.items()] == ["a", "b"] and named["b"] in list(named.values())
    assert isinstance(named.pop("a"), nn.ReLU)
    named.clear()
    assert not len(named)


def test_repr() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.1)))
    assert repr(model) == (
        "Sequential(\n  (0): Linear(in_features=2, out_features=3, bias=True)\n  (1): Sequential(\n    (0): ReLU(inplace=True)\n"
        "    (1): Dropout(p=0.1, inplace=False)\n  )\n)"
    )
    listed = nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Tanh()])
    assert repr(listed) == "ModuleList(\n  (0-1): 2 x ReLU()\n  (2): Tanh()\n)"
    assert repr(nn.ModuleList()) == "ModuleList()"


# ---- layers against NumPy ----------------------------------------------------------------------------------------------


def test_linear_embedding_and_norms() -> None:
    graphc.manual_seed(3)
    x = graphc.randn(5, 6)
    data = array(x).astype(np.float64)
    linear = nn.Linear(6, 4)
    expected = data @ array(linear.weight).T + array(linear.bias)
    np.testing.assert_allclose(array(linear(x)), expected, rtol=1e-5, atol=1e-6)
    normed = (data - data.mean(1, keepdims=True)) / np.sqrt(data.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(array(nn.LayerNorm(6)(x)), normed, rtol=1e-5, atol=1e-6)
    rooted = data / np.sqrt((data**2).mean(1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(array(nn.RMSNorm(6, eps=1e-3)(x)), rooted, rtol=1e-5, atol=1e-6)
    table = nn.Embedding(7, 3, padding_idx=-1)
    assert table.padding_idx == 6 and not array(table.weight)[6].any()
    index = graphc.tensor([[0, 6], [2, 2]])
    assert np.array_equal(array(table(index)), array(table.weight)[array(index)])
    table(index).sum().backward()
    assert array(table.weight.grad)[:, 0].tolist() == [1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0]
    assert nn.Flatten()(graphc.zeros(2, 3, 4)).shape == (2, 12)
    with pytest.raises(AssertionError, match="padding_idx 3 must be within num_embeddings 3"):
        nn.Embedding(3, 2, padding_idx=3)
    names = {"weight", "bias"}
    assert set(nn.LayerNorm(3).state_dict()) == names
    assert set(nn.LayerNorm(3, bias=False).state_dict()) == {"weight"}
    assert not nn.LayerNorm(3, elementwise_affine=False).state_dict()


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.ReLU(), lambda x: np.maximum(x, 0)),
        (nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
        (nn.GELU("tanh"), lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        (nn.Tanh(), np.tanh),
        (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        (nn.Softmax(dim=-1), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
        (nn.LogSoftmax(dim=0), lambda x: x - np.log(np.exp(x).sum(0))),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_activations(layer: nn.Module, function: Any) -> None:
    graphc.manual_seed(1)
    x = graphc.randn(3, 5)
    np.testing.assert_allclose(array(layer(x)), function(array(x).astype(np.float64)), rtol=2e-6, atol=1e-6)


def test_softmax_without_a_dim_warns_and_takes_pytorchs_guess() -> None:
    with pytest.warns(UserWarning, match="Implicit dimension choice for softmax"):
        assert nn.Softmax()(graphc.ones(3, 2)).tolist() == [[0.5, 0.5]] * 3


def test_inplace_activations_write_their_input() -> None:
    for layer, expected in ((nn.ReLU(inplace=True), 0.0), (nn.SiLU(inplace=True), -1 / (1 + math.e))):
        x = graphc.full((2,), -1.0)
        assert layer(x) is x
        assert x.tolist() == pytest.approx([expected] * 2)


def test_dropout_scales_what_it_keeps() -> None:
    graphc.manual_seed(0)
    layer, x = nn.Dropout(0.25), graphc.ones(4000)
    kept = array(layer(x))
    assert set(np.unique(kept).tolist()) == {0.0, np.float32(1 / 0.75)}
    assert abs((kept == 0).mean() - 0.25) < 0.03
    assert layer(x).tolist() != kept.tolist()  # the generator moved on
    assert layer.eval()(x) is x
    with pytest.raises(ValueError, match=r"dropout probability has to be between 0 and 1, but got 1\.5"):
        nn.Dropout(1.5)
    with pytest.raises(ValueError, match="dropout probability"):
        F.dropout(x, -0.1)


def test_attention_drops_while_told_to() -> None:
    graphc.manual_seed(0)
    query, key, value = (graphc.randn(2, 4, 8) for _ in range(3))
    plain = F.scaled_dot_product_attention(query, key, value)
    weights = np.exp(array(query) @ array(key).transpose(0, 2, 1) / math.sqrt(8))
    expected = (weights / weights.sum(-1, keepdims=True)) @ array(value)
    np.testing.assert_allclose(array(plain), expected, rtol=1e-5, atol=1e-6)
    first = F.scaled_dot_product_attention(query, key, value, dropout_p=0.5)
    second = F.scaled_dot_product_attention(query, key, value, dropout_p=0.5)
    assert first.shape == plain.shape and first.tolist() != second.tolist()


def test_losses() -> None:
    graphc.manual_seed(2)
    scores, labels = graphc.randn(4, 3), graphc.tensor([0, 2, 1, 1])
    other = graphc.randn(4, 3)
    z, t = array(scores).astype(np.float64), array(other).astype(np.float64)
    logs = z - np.log(np.exp(z).sum(1, keepdims=True))
    rows = -logs[np.arange(4), array(labels)]
    np.testing.assert_allclose(nn.CrossEntropyLoss()(scores, labels).item(), rows.mean(), rtol=1e-6)
    np.testing.assert_allclose(array(nn.CrossEntropyLoss(reduction="none")(scores, labels)), rows, rtol=1e-5)
    logged = F.log_softmax(scores, dim=1)
    np.testing.assert_allclose(nn.NLLLoss(reduction="sum")(logged, labels).item(), rows.sum(), rtol=1e-6)
    np.testing.assert_allclose(nn.MSELoss()(scores, other).item(), ((z - t) ** 2).mean(), rtol=1e-6)
    np.testing.assert_allclose(nn.L1Loss()(scores, other).item(), np.abs(z - t).mean(), rtol=1e-6)
    chance = array(F.sigmoid(other)).astype(np.float64)
    binary = np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0) - z * chance
    np.testing.assert_allclose(nn.BCEWithLogitsLoss()(scores, F.sigmoid(other)).item(), binary.mean(), rtol=1e-6)
    weight = graphc.tensor([1.0, 2.0, 0.5])
    assert list(nn.CrossEntropyLoss(weight=weight).state_dict()) == ["weight"]


def test_errors_of_functions_name_the_users_line() -> None:
    with pytest.raises(RuntimeError, match=r"linear: x has 2 features, weight takes 3.*\(test_nn\.py:\d+\)"):
        F.linear(graphc.ones(1, 2), graphc.ones(4, 3))


# ---- initial values ------------------------------------------------------------------------------------------------------


def test_initial_values_have_their_distribution() -> None:
    graphc.manual_seed(0)
    x = graphc.empty(200, 300)
    for fill, bound in (
        (lambda: nn.init.uniform_(x, -2.0, 2.0), 2.0),
        (lambda: nn.init.kaiming_uniform_(x, nonlinearity="relu"), math.sqrt(6 / 300)),
        (lambda: nn.init.xavier_uniform_(x, gain=2.0), 2 * math.sqrt(6 / 500)),
    ):
        assert fill() is x
        assert 0.99 * bound < np.abs(array(x)).max() <= bound
        assert abs(array(x).std() - bound / math.sqrt(3)) < 0.02 * bound
    for fill, mean, std in (
        (lambda: nn.init.normal_(x, 1.0, 3.0), 1.0, 3.0),
        (lambda: nn.init.kaiming_normal_(x, mode="fan_out"), 0.0, math.sqrt(2 / 200)),
        (lambda: nn.init.xavier_normal_(x), 0.0, math.sqrt(2 / 500)),
    ):
        fill()
        assert abs(array(x).mean() - mean) < 0.03 * std and abs(array(x).std() - std) < 0.02 * std
    assert array(nn.init.ones_(x)).all() and not array(nn.init.zeros_(x)).any()
    assert (array(nn.init.constant_(x, 0.5)) == 0.5).all()


@pytest.mark.parametrize(("mean", "std", "a", "b"), [(0.0, 1.0, -2.0, 2.0), (1.0, 0.5, 1.5, 1.75), (0.0, 0.02, -2.0, 2.0)])
def test_truncated_normal(mean: float, std: float, a: float, b: float) -> None:
    from scipy.stats import kstest, truncnorm

    graphc.manual_seed(5)
    x = array(nn.init.trunc_normal_(graphc.empty(4000), mean, std, a, b))
    assert x.min() >= a and x.max() <= b
    assert kstest(x, truncnorm((a - mean) / std, (b - mean) / std, loc=mean, scale=std).cdf).pvalue > 1e-3


def test_initial_values_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        nn.init.kaiming_uniform_(graphc.empty(3))
    with pytest.raises(ValueError, match="Mode fan_up not supported"):
        nn.init.kaiming_uniform_(graphc.empty(3, 3), mode="fan_up")
    with pytest.raises(ValueError, match="Unsupported nonlinearity step"):
        nn.init.calculate_gain("step")
    with pytest.raises(ValueError, match="nothing of the normal distribution"):
        nn.init.trunc_normal_(graphc.empty(3), a=2.0, b=1.0)
    assert nn.init.calculate_gain("leaky_relu", 0.2) == pytest.approx(math.sqrt(2 / 1.04))


def test_layers_start_as_described() -> None:
    graphc.manual_seed(0)
    linear = nn.Linear(400, 300)
    for values in (array(linear.weight), array(linear.bias)):
        assert 0.9 / 20 < np.abs(values).max() <= 1 / 20
    assert abs(array(nn.Embedding(200, 50).weight).std() - 1) < 0.02
    graphc.manual_seed(0)
    assert array(nn.Linear(400, 300).weight).tobytes() == array(linear.weight).tobytes()


# ---- clipping ------------------------------------------------------------------------------------------------------------


def gradients(*rows: list[float]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(graphc.zeros(len(row))) for row in rows]
    for parameter, row in zip(parameters, rows, strict=True):
        parameter.grad = graphc.tensor(row)
    return parameters


def test_clip_grad_norm() -> None:
    from graphc.nn.utils import clip_grad_norm_, clip_grad_value_

    a, b = gradients([3.0], [0.0, 4.0])
    assert clip_grad_norm_([a, b, nn.Parameter(graphc.ones(1))], 1.0).item() == 5.0
    assert a.grad is not None and b.grad is not None
    assert a.grad.tolist() + b.grad.tolist() == pytest.approx([0.6, 0.0, 0.8])
    assert clip_grad_norm_([a, b], 2.0).item() == pytest.approx(1.0)
    assert a.grad.tolist() == pytest.approx([0.6])  # already short enough
    c, d = gradients([1.0, -7.0], [2.0])
    assert clip_grad_norm_([c, d], 3.5, norm_type=math.inf).item() == 7.0
    assert c.grad is not None and c.grad.tolist() == pytest.approx([0.5, -3.5])
    (e,) = gradients([5.0, -0.5])
    clip_grad_value_(e, 1.0)
    assert e.grad is not None and e.grad.tolist() == [1.0, -0.5]
    (bad,) = gradients([math.inf])
    with pytest.raises(RuntimeError, match="so it cannot be clipped"):
        clip_grad_norm_(bad, 1.0, error_if_nonfinite=True)
    assert clip_grad_norm_([], 1.0).item() == 0.0
