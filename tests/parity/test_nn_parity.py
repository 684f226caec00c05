"""Layers, losses, modules: PyTorch's names, state, printing, values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

Make = Callable[[Any], Any]  # a library's `nn` -> a module

LAYERS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "linear": (lambda nn: nn.Linear(6, 4), (3, 6)),
    "linear no bias": (lambda nn: nn.Linear(6, 4, bias=False), (2, 3, 6)),
    "layer norm": (lambda nn: nn.LayerNorm(6), (3, 6)),
    "layer norm two dims": (lambda nn: nn.LayerNorm((5, 6), eps=1e-3), (3, 5, 6)),
    "layer norm no bias": (lambda nn: nn.LayerNorm(6, bias=False), (3, 6)),
    "layer norm plain": (lambda nn: nn.LayerNorm(6, elementwise_affine=False), (3, 6)),
    "rms norm": (lambda nn: nn.RMSNorm(6), (3, 6)),
    "rms norm eps": (lambda nn: nn.RMSNorm([6], eps=1e-2), (3, 6)),
    "relu": (lambda nn: nn.ReLU(), (3, 6)),
    "gelu": (lambda nn: nn.GELU(), (3, 6)),
    "gelu tanh": (lambda nn: nn.GELU(approximate="tanh"), (3, 6)),
    "silu": (lambda nn: nn.SiLU(), (3, 6)),
    "tanh": (lambda nn: nn.Tanh(), (3, 6)),
    "sigmoid": (lambda nn: nn.Sigmoid(), (3, 6)),
    "softmax": (lambda nn: nn.Softmax(dim=1), (3, 6)),
    "log softmax": (lambda nn: nn.LogSoftmax(dim=-1), (3, 6)),
    "flatten": (lambda nn: nn.Flatten(), (3, 2, 6)),
    "dropout": (lambda nn: nn.Dropout(0.3).eval(), (3, 6)),
    "identity": (lambda nn: nn.Identity(), (3, 6)),
    "sequential": (
        lambda nn: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Sequential(nn.Dropout(0.0), nn.Linear(8, 2))),
        (5, 6),
    ),
    "module dict": (lambda nn: nn.Sequential(nn.ModuleDict({"a": nn.Linear(6, 2), "b": nn.ReLU()})["a"]), (2, 6)),
}


def values(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def near(mine: Any, theirs: Any, rtol: float = 2e-5, atol: float = 2e-6) -> None:
    np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str) -> None:
    make, shape = LAYERS[name]
    mine, theirs = make(graphc.nn), make(torch.nn)
    assert repr(mine) == repr(theirs)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in mine.named_modules()] == [n for n, _ in theirs.named_modules()]
    state = {n: values(tuple(v.shape), i) for i, (n, v) in enumerate(theirs.state_dict().items())}
    theirs.load_state_dict({n: torch.from_numpy(v) for n, v in state.items()})
    mine.load_state_dict(theirs.state_dict())
    x, y = graphc.tensor(values(shape, 9), requires_grad=True), torch.tensor(values(shape, 9), requires_grad=True)
    out, expected = mine(x), theirs(y)
    near(out, expected)
    g = values(tuple(expected.shape), 10)
    out.backward(graphc.tensor(g))
    expected.backward(torch.tensor(g))
    near(x.grad, y.grad)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        near(p.grad, q.grad)


@pytest.mark.parametrize("padding", [None, 1])
def test_embedding(padding: int | None) -> None:
    mine, theirs = graphc.nn.Embedding(5, 3, padding_idx=padding), torch.nn.Embedding(5, 3, padding_idx=padding)
    assert repr(mine) == repr(theirs)
    mine.load_state_dict(theirs.state_dict())
    index = np.array([[0, 1, 1], [4, 0, 2]])
    out, expected = mine(graphc.tensor(index)), theirs(torch.tensor(index))
    near(out, expected)
    out.sum().backward()
    expected.sum().backward()
    near(mine.weight.grad, theirs.weight.grad)


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "MSELoss": lambda nn, t: nn.MSELoss(),
    "MSELoss sum": lambda nn, t: nn.MSELoss(reduction="sum"),
    "L1Loss": lambda nn, t: nn.L1Loss(),
    "L1Loss none": lambda nn, t: nn.L1Loss(reduction="none"),
    "BCEWithLogitsLoss": lambda nn, t: nn.BCEWithLogitsLoss(),
    "BCEWithLogitsLoss weights": lambda nn, t: nn.BCEWithLogitsLoss(pos_weight=t([1.0, 2.0, 3.0, 0.5]), reduction="sum"),
    "CrossEntropyLoss": lambda nn, t: nn.CrossEntropyLoss(),
    "CrossEntropyLoss smooth": lambda nn, t: nn.CrossEntropyLoss(weight=t([1.0, 2.0, 3.0, 0.5]), label_smoothing=0.1),
    "CrossEntropyLoss ignore": lambda nn, t: nn.CrossEntropyLoss(ignore_index=2, reduction="none"),
    "NLLLoss": lambda nn, t: nn.NLLLoss(),
    "NLLLoss weights": lambda nn, t: nn.NLLLoss(weight=t([1.0, 2.0, 3.0, 0.5]), ignore_index=1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name: str) -> None:
    mine, theirs = LOSSES[name](graphc.nn, graphc.tensor), LOSSES[name](torch.nn, torch.tensor)
    assert repr(mine) == repr(theirs) and list(mine.state_dict()) == list(theirs.state_dict())
    classes = name.startswith(("Cross", "NLL"))
    target = np.array([0, 3, 2, 1, 2]) if classes else np.abs(np.tanh(values((5, 4), 1)))
    x, y = graphc.tensor(values((5, 4)), requires_grad=True), torch.tensor(values((5, 4)), requires_grad=True)
    out, expected = mine(x, graphc.tensor(target)), theirs(y, torch.tensor(target))
    near(out, expected)
    out.sum().backward()
    expected.sum().backward()
    near(x.grad, y.grad)


@pytest.mark.parametrize("how", [{}, {"is_causal": True}, {"scale": 0.5}])
def test_attention(how: dict[str, Any]) -> None:
    parts = [values((2, 3, 5, 4), i) for i in range(3)]
    mine = [graphc.tensor(p, requires_grad=True) for p in parts]
    theirs = [torch.tensor(p, requires_grad=True) for p in parts]
    out = graphc.nn.functional.scaled_dot_product_attention(*mine, **how)
    expected = torch.nn.functional.scaled_dot_product_attention(*theirs, **how)
    near(out, expected)
    out.sum().backward()
    expected.sum().backward()
    for p, q in zip(mine, theirs, strict=True):
        near(p.grad, q.grad, atol=5e-6)


def test_load_state_dict_complains_in_torchs_words() -> None:
    messages = []
    for library in (graphc, torch):
        model = library.nn.Sequential(library.nn.Linear(2, 3), library.nn.Linear(3, 1))
        state = dict(model.state_dict())
        state["0.weight"] = library.zeros(3, 3)
        state["extra.weight"] = state.pop("1.bias")
        with pytest.raises(RuntimeError) as caught:
            model.load_state_dict(state)
        messages.append(str(caught.value).replace("graphc.Size", "torch.Size"))
    assert messages[0] == messages[1]


def test_containers_and_printing() -> None:
    texts = []
    for library in (graphc, torch):
        nn = library.nn
        blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU(inplace=True)])
        named = nn.ModuleDict({"norm": nn.RMSNorm(2), "blocks": blocks, "drop": nn.Dropout(0.5, inplace=True)})
        sliced = nn.Sequential(nn.Linear(1, 2), nn.SiLU(), nn.Linear(2, 1))[1:]
        texts.append(
            (repr(blocks), repr(named), repr(sliced), list(named.state_dict()), repr(nn.ModuleList()), repr(nn.Sequential()))
        )
    assert texts[0] == texts[1]


@pytest.mark.parametrize(("norm_type", "limit"), [(2.0, 1.0), (1.0, 5.0), (3.0, 2.0), (float("inf"), 0.5), (2.0, 1e4)])
def test_clip_grad_norm(norm_type: float, limit: float) -> None:
    shapes = [(3, 4), (5,), ()]
    mine, theirs = [], []
    for i, shape in enumerate(shapes):
        p, q = graphc.nn.Parameter(graphc.zeros(shape)), torch.nn.Parameter(torch.zeros(shape))
        p.grad, q.grad = graphc.tensor(values(shape, i)), torch.tensor(values(shape, i))
        mine.append(p)
        theirs.append(q)
    near(
        graphc.nn.utils.clip_grad_norm_(mine, limit, norm_type=norm_type),
        torch.nn.utils.clip_grad_norm_(theirs, limit, norm_type=norm_type),
    )
    for p, q in zip(mine, theirs, strict=True):
        near(p.grad, q.grad)


def test_initial_distributions_have_torchs_bounds() -> None:
    graphc.manual_seed(0)
    torch.manual_seed(0)
    pairs = [(graphc.nn.Linear(300, 200), torch.nn.Linear(300, 200)), (graphc.nn.Embedding(300, 200), torch.nn.Embedding(300, 200))]
    for mine, theirs in pairs:
        for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
            a, b = p.detach().numpy(), q.detach().numpy()
            assert abs(a.std() / b.std() - 1) < 0.1 and abs(a.mean() - b.mean()) < 0.1 * b.std() + 1e-3 * b.std() + 5e-3
    for name in (
        "kaiming_uniform_",
        "kaiming_normal_",
        "xavier_uniform_",
        "xavier_normal_",
        "trunc_normal_",
        "normal_",
        "uniform_",
    ):
        a = getattr(graphc.nn.init, name)(graphc.empty(300, 200)).numpy()
        b = getattr(torch.nn.init, name)(torch.empty(300, 200)).numpy()
        assert abs(a.std() / b.std() - 1) < 0.03, name
        assert abs(a.max() / b.max() - 1) < (0.2 if "normal_" in name and "trunc" not in name else 0.01), name
    for name in ("linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu"):
        assert graphc.nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
