"""Modules beside PyTorch's: the same programs give the same logs, and norms of weights the same numbers, eager and compiled."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

from module_scenarios import SCENARIOS, plain  # noqa: E402


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
def test_logs(scenario: Callable[..., None]) -> None:
    logs = []
    for library in (torch, graphc):
        entries: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scenario(library, lambda *values, entries=entries: entries.append(plain(values)))
        logs.append(entries)
    for i, (theirs, mine) in enumerate(zip(*logs, strict=False)):
        assert mine == theirs, f"entry {i}"
    assert len(logs[0]) == len(logs[1])


# ---- norms of weights --------------------------------------------------------------------------------------------------------

Build = Callable[[Any], Any]
NORMS: dict[str, tuple[Build, tuple[int, ...]]] = {
    "weight_norm": (lambda t: t.nn.utils.weight_norm(t.nn.Linear(3, 4)), (2, 3)),
    "weight_norm of one length": (lambda t: t.nn.utils.weight_norm(t.nn.Linear(3, 4), dim=None), (2, 3)),
    "weight_norm dim 1": (lambda t: t.nn.utils.weight_norm(t.nn.ConvTranspose1d(3, 4, 3), dim=1), (2, 3, 7)),
    "spectral_norm": (lambda t: t.nn.utils.spectral_norm(t.nn.Linear(3, 4)), (2, 3)),
    "spectral_norm transposed": (
        lambda t: t.nn.utils.spectral_norm(t.nn.ConvTranspose2d(3, 4, 3), n_power_iterations=3),
        (2, 3, 5, 5),
    ),
    "parametrized weight_norm": (lambda t: t.nn.utils.parametrizations.weight_norm(t.nn.Conv1d(3, 4, 3)), (2, 3, 7)),
    "parametrized spectral_norm": (lambda t: t.nn.utils.parametrizations.spectral_norm(t.nn.Conv2d(3, 4, 3)), (2, 3, 5, 5)),
    "orthogonal": (lambda t: t.nn.utils.parametrizations.orthogonal(t.nn.Linear(3, 3)), (2, 3)),
    "orthogonal tall": (lambda t: t.nn.utils.parametrizations.orthogonal(t.nn.Linear(3, 5)), (2, 3)),
    "orthogonal cayley": (
        lambda t: t.nn.utils.parametrizations.orthogonal(t.nn.Linear(5, 3), orthogonal_map="cayley"),
        (2, 5),
    ),
    "orthogonal householder": (
        lambda t: t.nn.utils.parametrizations.orthogonal(t.nn.Linear(5, 3), orthogonal_map="householder", use_trivialization=False),
        (2, 5),
    ),
}


def close(mine: Any, theirs: Any, tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", NORMS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_norms_of_weights(case: str) -> None:
    """The same state gives the same results, gradients and buffers, while training and not, eager and compiled."""
    build, shape = NORMS[case]
    mine, theirs = build(graphc), build(torch)
    assert list(mine.state_dict()) == list(theirs.state_dict()) and repr(mine) == repr(theirs)
    assert mine.state_dict()._metadata == theirs.state_dict()._metadata
    mine.load_state_dict({name: x.numpy() for name, x in theirs.state_dict().items()})
    x = graphc.randn(*shape)
    given = torch.from_numpy(x.numpy().copy())
    compiled = graphc.compile(mine)
    for mode in (True, False) if "spectral" in case else (True,):  # the others do not look
        mine.train(mode)
        theirs.train(mode)
        for call in (mine, compiled, mine, compiled):
            mine.zero_grad()
            theirs.zero_grad()
            y, wanted = call(x), theirs(given)
            close(y, wanted)
            y.square().sum().backward()
            wanted.square().sum().backward()
            for (name, p), (other, q) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
                assert name == other and (p.grad is None) == (q.grad is None)
                if q.grad is not None:
                    close(p.grad, q.grad)
        for (name, a), (other, b) in zip(mine.named_buffers(), theirs.named_buffers(), strict=True):
            assert name == other
            close(a, b)
    close(mine.weight, theirs.weight)  # what a trace wrote there is gone
    assert compiled.stats()["fallbacks"] == []


# ---- other parts of nn.utils ---------------------------------------------------------------------------------------------------


def pair(build: Build) -> tuple[Any, Any]:
    """A module of graphc and one of PyTorch with the same state."""
    mine, theirs = build(graphc), build(torch)
    for b in theirs.buffers():
        if b.is_floating_point():
            b.uniform_(0.5, 1.5)
    mine.load_state_dict({name: x.numpy() for name, x in theirs.state_dict().items()})
    return mine.eval(), theirs.eval()


@pytest.mark.parametrize(
    ("layer", "norm", "shape", "transpose"),
    [
        (lambda t: t.nn.Conv2d(3, 4, 3, bias=False), lambda t: t.nn.BatchNorm2d(4), (2, 3, 6, 6), False),
        (lambda t: t.nn.Conv1d(2, 4, 3, groups=2), lambda t: t.nn.BatchNorm1d(4, affine=False), (2, 2, 6), False),
        (lambda t: t.nn.ConvTranspose2d(3, 4, 3), lambda t: t.nn.BatchNorm2d(4), (2, 3, 6, 6), True),
        (lambda t: t.nn.Linear(3, 4), lambda t: t.nn.BatchNorm1d(4), (5, 3), None),
    ],
)
def test_fusion_with_batch_norms(layer: Build, norm: Build, shape: tuple[int, ...], transpose: bool | None) -> None:
    (mine, theirs), (bn, torch_bn) = pair(layer), pair(norm)
    if transpose is None:
        fused, wanted = (t.nn.utils.fuse_linear_bn_eval(m, b) for t, m, b in ((graphc, mine, bn), (torch, theirs, torch_bn)))
    else:
        fused = graphc.nn.utils.fuse_conv_bn_eval(mine, bn, transpose)
        wanted = torch.nn.utils.fuse_conv_bn_eval(theirs, torch_bn, transpose)
    x = graphc.randn(*shape)
    close(fused.weight, wanted.weight)
    close(fused.bias, wanted.bias)
    close(fused(x), bn(mine(x)))
    close(graphc.compile(fused)(x), fused(x), 0.0)
    with pytest.raises(AssertionError, match="eval"):
        graphc.nn.utils.fuse_conv_bn_eval(mine.train(), bn)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3, float("inf")])
def test_clipping(norm_type: float) -> None:
    def clipped(t: Any, ready: Callable[[Any], Any] = lambda f: f) -> list[Any]:
        parameters = [t.nn.Parameter(t.ones(shape)) for shape in ((3, 4), (2,), (1,), ())]
        for i, p in enumerate(parameters[:3]):
            p.grad = t.arange(float(p.numel())).reshape(p.shape) - i
        utils = t.nn.utils
        total = ready(lambda: utils.clip_grad_norm_(parameters, 0.5, norm_type, foreach=True))()
        again = utils.get_total_norm([p.grad for p in parameters[:3]], norm_type)
        utils.clip_grads_with_norm_(iter(parameters), 0.05, again)
        ready(lambda: utils.clip_grad_value_(parameters, 0.02))()
        return [total, again, *(p.grad for p in parameters[:3])]

    for found in (clipped(graphc), clipped(graphc, graphc.compile)):
        for mine, theirs in zip(found, clipped(torch), strict=True):
            close(mine, theirs, 1e-5)


def test_vectors_of_parameters() -> None:
    mine, theirs = pair(lambda t: t.nn.Sequential(t.nn.Linear(2, 3), t.nn.Linear(3, 1)))
    close(graphc.nn.utils.parameters_to_vector(mine.parameters()), torch.nn.utils.parameters_to_vector(theirs.parameters()), 0.0)
    vector = graphc.arange(13.0)
    graphc.nn.utils.vector_to_parameters(vector, mine.parameters())
    torch.nn.utils.vector_to_parameters(torch.arange(13.0), theirs.parameters())
    x = graphc.ones(1, 2)
    close(mine(x), theirs(torch.ones(1, 2)), 0.0)
    close(graphc.compile(mine)(x), theirs(torch.ones(1, 2)), 0.0)
    vector.mul_(2.0)
    close(mine[0].weight, theirs[0].weight * 2, 0.0)  # the parameters lie in the vector


@pytest.mark.parametrize("name", ["l1", "ln", "custom", "global", "twice", "identity", "random"])
def test_pruning(name: str) -> None:
    """The same weights give the same masks, state, results while pruned (eager and compiled) and when made permanent."""

    def pruned(t: Any) -> Any:
        prune = importlib.import_module(f"{t.__name__}.nn.utils.prune")
        model = t.nn.Sequential(t.nn.Linear(3, 4), t.nn.Tanh(), t.nn.Linear(4, 2))
        model.load_state_dict({k: t.arange(float(x.numel())).sin().reshape(x.shape) for k, x in model.state_dict().items()})
        layer = model[0]
        if name == "l1":
            prune.l1_unstructured(layer, "weight", amount=0.3)
        elif name == "ln":
            prune.ln_structured(layer, "weight", amount=1, n=2, dim=0)
        elif name == "custom":
            prune.custom_from_mask(layer, "bias", t.tensor([1, 0, 1, 1]))
        elif name == "global":
            prune.global_unstructured([(layer, "weight"), (model[2], "weight")], prune.L1Unstructured, amount=7)
        elif name == "twice":
            prune.ln_structured(layer, "weight", amount=1, n=1, dim=1)
            prune.l1_unstructured(layer, "weight", amount=3)
            assert len(next(iter(layer._forward_pre_hooks.values()))) == 2
        elif name == "identity":
            prune.identity(layer, "weight")
        else:
            prune.random_unstructured(layer, "weight", amount=0)
        return model, prune

    (mine, ours), (theirs, reference) = pruned(graphc), pruned(torch)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
        close(a, b, 1e-6)
    x = graphc.ones(2, 3)
    for call in (mine, graphc.compile(mine)) if name in ("ln", "twice") else (mine,):
        mine.zero_grad()
        theirs.zero_grad()
        y, wanted = call(x), theirs(torch.ones(2, 3))
        close(y, wanted)
        y.sum().backward()
        wanted.sum().backward()
        for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
            close(p.grad, q.grad)
    assert ours.is_pruned(mine) and reference.is_pruned(theirs)
    part = "bias" if name == "custom" else "weight"
    ours.remove(mine[0], part)
    reference.remove(theirs[0], part)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    close(getattr(mine[0], part), getattr(theirs[0], part), 1e-6)
    with pytest.raises(ValueError, match="has to be pruned"):
        ours.remove(mine[0], part)
