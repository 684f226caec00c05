"""Every module of torch.nn beside graphc's: arguments, printing, state, values, gradients, buffers, compiled code."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # PyTorch's samples need it
sys.path.insert(0, str(Path(__file__).parent))
import modinfo  # noqa: E402

NAMES = modinfo.module_names()
# constructors that take the same arguments under other declarations
OTHER_SIGNATURES = {"NLLLoss2d": "PyTorch's takes any arguments and hands them to NLLLoss"}
# modules whose gradients are not PyTorch's
OWN_TEST = {"CrossMapLRN2d": "PyTorch's gradient is not that of its values: test_cross_map_norm"}


@pytest.mark.parametrize("name", NAMES)
def test_module(name: str) -> None:
    """A spread of PyTorch's samples in train and eval mode, and compiled code beside eager."""
    assert name in OWN_TEST or modinfo.samples(name, True, None)
    failed = modinfo.failures(name) + modinfo.refused(name)
    assert not failed, "\n".join(failed)


def _declared(function: Any) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, getattr(p.default, "__name__", p.default)) for p in parameters]


def test_arguments_are_torchs() -> None:
    """Names, order, kinds and defaults of constructors' and forwards' arguments."""
    for name in NAMES:
        theirs, ours = getattr(torch.nn, name), getattr(graphc.nn, name)
        if name not in OTHER_SIGNATURES:
            assert _declared(ours) == _declared(theirs), name
        if not name.startswith("Lazy"):
            assert _declared(ours.forward) == _declared(theirs.forward), name


# ---- random layers -----------------------------------------------------------------------------------------------------

RANDOM = {
    "Dropout": (0.3, (100, 400)),
    "Dropout1d": (0.3, (50, 400, 3)),
    "Dropout2d": (0.3, (50, 400, 2, 2)),
    "Dropout3d": (0.3, (50, 400, 2, 1, 2)),
    "AlphaDropout": (0.3, (100, 400)),
    "FeatureAlphaDropout": (0.3, (50, 400, 3)),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_layers(name: str) -> None:
    """What is dropped, how often, and what is left of the rest are PyTorch's; whole channels where PyTorch drops those."""
    p, shape = RANDOM[name]
    graphc.manual_seed(1)
    torch.manual_seed(1)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = []
    for library in (graphc, torch):
        out = getattr(library.nn, name)(p)(library.tensor(x)).numpy()
        changed = out / x if "Alpha" not in name else out
        values, counts = np.unique(np.round(changed, 4), return_counts=True)
        dropped = counts.max() / out.size  # zeros, or selu's floor
        channel = np.broadcast_to(changed.reshape(shape[0], shape[1], -1)[..., :1], (*shape[:2], x[0, 0].size))
        whole = np.isclose(changed.reshape(channel.shape), channel).all(2).mean() if x[0, 0].size > 1 else 1.0
        found.append((values[counts.argmax()] if "Alpha" in name else values.max(), out.mean(), out.std(), dropped, whole))
    np.testing.assert_allclose(found[0], found[1], rtol=0.02, atol=0.02)


def test_rrelu_draws_slopes() -> None:
    graphc.manual_seed(1)
    x = -graphc.ones(20000)
    slopes = -graphc.nn.RReLU(0.1, 0.4)(x).numpy()
    assert 0.1 <= slopes.min() < 0.101 and 0.399 < slopes.max() < 0.4
    assert abs(slopes.mean() - 0.25) < 0.003 and abs(slopes.std() - 0.3 / 12**0.5) < 0.003


def test_fractional_pools_draw_places() -> None:
    """Windows begin at PyTorch's places: their average over many draws is the same."""
    means = []
    for library in (graphc, torch):
        library.manual_seed(0)
        pool = library.nn.FractionalMaxPool2d(2, output_size=(3, 4), return_indices=True)
        image = library.arange(63.0).reshape(1, 1, 7, 9).expand(4000, 1, 7, 9)
        means.append(pool(image)[1].double().mean(0).numpy())
    np.testing.assert_allclose(means[0], means[1], atol=0.6)


# ---- values of one's own -----------------------------------------------------------------------------------------------


def test_cross_map_norm() -> None:
    x = np.random.default_rng(0).standard_normal((2, 7, 3, 3)).astype(np.float32)
    for size in (2, 3, 5):
        ours, theirs = graphc.nn.CrossMapLRN2d(size, 0.5, k=2), torch.nn.CrossMapLRN2d(size, 0.5, k=2)
        assert repr(ours) == repr(theirs)
        np.testing.assert_allclose(ours(graphc.tensor(x)).numpy(), theirs(torch.tensor(x)).numpy(), rtol=1e-5)


def test_adaptive_softmax_predicts() -> None:
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(16, 20, [4, 10, 15], div_value=2.0)
    ours = graphc.nn.AdaptiveLogSoftmaxWithLoss(16, 20, [4, 10, 15], div_value=2.0)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32) * 4
    np.testing.assert_allclose(
        ours.log_prob(graphc.tensor(x)).detach().numpy(), theirs.log_prob(torch.tensor(x)).detach().numpy(), atol=1e-4
    )
    assert ours.predict(graphc.tensor(x)).tolist() == theirs.predict(torch.tensor(x)).tolist()
    for target in ([0, 20], [0, -1]):
        with pytest.raises(RuntimeError, match=r"Target values should be in \[0, 19\]"):
            ours(graphc.tensor(x[:2]), graphc.tensor(target))


@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
def test_tables_from_pretrained(name: str) -> None:
    rows = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    made = [
        getattr(library.nn, name).from_pretrained(library.tensor(rows), freeze=freeze, padding_idx=1, max_norm=2)
        for freeze in (True, False)
        for library in (graphc, torch)
    ]
    assert repr(made[0]) == repr(made[1]) and [m.weight.requires_grad for m in made] == [False, False, True, True]
    index = [[0, 1], [5, 5]]
    np.testing.assert_allclose(made[0](graphc.tensor(index)).numpy(), made[1](torch.tensor(index)).numpy(), rtol=1e-5)
    for library in (graphc, torch):
        for arguments in ({"_weight": library.ones(3, 3)}, {"padding_idx": 7}):
            with pytest.raises(AssertionError):
                getattr(library.nn, name)(6, 3, **arguments)
        with pytest.raises(AssertionError):
            getattr(library.nn, name).from_pretrained(library.ones(3))


def test_batch_norm_state_without_count_loads() -> None:
    """States from before `num_batches_tracked`, or without metadata, load strictly, as in PyTorch."""
    arrays = {k: v.numpy() for k, v in torch.nn.BatchNorm1d(3).state_dict().items() if k != "num_batches_tracked"}
    module = graphc.nn.BatchNorm1d(3)
    module.num_batches_tracked += 4
    assert str(module.load_state_dict(arrays)) == "<All keys matched successfully>" and int(module.num_batches_tracked) == 4
    state = module.state_dict()
    del state["num_batches_tracked"]
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        module.load_state_dict(state)


# ---- legacy arguments of losses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in NAMES if "size_average" in inspect.signature(getattr(torch.nn, n)).parameters])
def test_losses_take_older_arguments(name: str) -> None:
    for size_average in (None, True, False):
        for reduce in (None, True, False):
            if size_average is reduce is None:
                continue
            seen = []
            for library in (graphc, torch):
                with pytest.warns(UserWarning, match="please use reduction"):
                    seen.append(getattr(library.nn, name)(size_average=size_average, reduce=reduce).reduction)
            assert seen[0] == seen[1], (size_average, reduce)


# ---- what programs build on --------------------------------------------------------------------------------------------

INPLACE = [n for n in NAMES if "inplace" in inspect.signature(getattr(torch.nn, n)).parameters]


@pytest.mark.filterwarnings("ignore:dropout")  # of the input's rank
@pytest.mark.parametrize("name", INPLACE)
def test_inplace(name: str) -> None:
    """`inplace=True` gives the very tensor back, changed, where PyTorch's does."""
    x = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)
    same = []
    for library in (graphc, torch):
        arguments = {"threshold": 0.1, "value": 20.0} if name == "Threshold" else {}
        module = getattr(library.nn, name)(inplace=True, **arguments)
        assert "inplace=True" in repr(module) or name in ("Hardswish", "Hardsigmoid")
        given = library.tensor(x.copy())
        out = module(given)
        assert np.array_equal(given.numpy(), out.numpy()) == (out is given)
        same.append((out is given, bool((given.numpy() != x).any())))
    assert same[0] == same[1]


def _own_convolution(library: Any) -> Any:
    conv = __import__(f"{library.__name__}.nn.modules.conv", fromlist=["_ConvNd"])

    class Standardised(conv._ConvNd):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__(2, 4, (3, 3), (1, 1), (1, 1), (1, 1), False, (0, 0), 1, True, "circular")

        def forward(self, x: Any) -> Any:
            weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
            padded = library.nn.functional.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            return library.nn.functional.conv2d(padded, weight, self.bias, self.stride, 0, self.dilation, self.groups)

    return Standardised()


def _own_norm(library: Any) -> Any:
    norm = __import__(f"{library.__name__}.nn.modules.batchnorm", fromlist=["_BatchNorm"])

    class AnyRank(norm._BatchNorm):  # type: ignore[name-defined,misc]
        def _check_input_dim(self, input: Any) -> None:
            if input.ndim < 2:
                raise ValueError("expected a batch")

    return AnyRank(2, momentum=None)


def _own_loss(library: Any) -> Any:
    loss = __import__(f"{library.__name__}.nn.modules.loss", fromlist=["_WeightedLoss"])

    class Focal(loss._WeightedLoss):  # type: ignore[name-defined,misc]
        def forward(self, x: Any) -> Any:
            target = (x > 0).to(x.dtype)
            how = {"weight": self.weight, "reduction": "none"}
            entropy = library.nn.functional.binary_cross_entropy_with_logits(x, target, **how)
            return ((1 - library.exp(-entropy)) ** 2 * entropy).sum()

    return Focal(library.full((6,), 2.0), reduction="sum")


@pytest.mark.parametrize("make", [_own_convolution, _own_norm, _own_loss])
def test_private_classes_can_be_subclassed(make: Any) -> None:
    ours, theirs = make(graphc), make(torch)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    assert repr(ours) == repr(theirs)
    x = np.random.default_rng(0).standard_normal((3, 2, 5, 6)).astype(np.float32)
    for _ in range(2):
        found = ours(graphc.tensor(x))
        np.testing.assert_allclose(found.detach().numpy(), theirs(torch.tensor(x)).detach().numpy(), rtol=2e-5, atol=2e-5)
    assert [v.shape for v in ours.state_dict().values()] == [v.shape for v in theirs.state_dict().values()]
    compiled = graphc.compile(ours)
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    eager = ours(graphc.tensor(x))
    ours.load_state_dict(before)
    assert compiled(graphc.tensor(x)).detach().numpy().tobytes() == eager.detach().numpy().tobytes()
