"""Initialisers beside PyTorch's: statistics, exact patterns, errors, warnings; and what every layer starts from."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

LIBRARIES = (graphc, torch)

# name -> (positional arguments, keywords, shape) of calls that draw
DRAWN: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("uniform_", (), {}, (300, 200)),
    ("uniform_", (-3.0, 1.0), {}, (300, 200)),
    ("normal_", (), {}, (300, 200)),
    ("normal_", (2.0, 0.5), {}, (300, 200)),
    ("trunc_normal_", (), {}, (300, 200)),
    ("trunc_normal_", (0.0, 0.02), {}, (300, 200)),
    ("trunc_normal_", (0.5, 2.0, 0.0, 1.0), {}, (300, 200)),
    ("trunc_normal_", (), {"mean": 1.0, "std": 0.7, "a": 0.5, "b": 3.0}, (300, 200)),
    ("xavier_uniform_", (), {}, (300, 200)),
    ("xavier_uniform_", (2.0,), {}, (40, 50, 5, 6)),
    ("xavier_normal_", (), {"gain": 0.5}, (300, 20, 10)),
    ("kaiming_uniform_", (), {}, (300, 200)),
    ("kaiming_uniform_", (0.2,), {"mode": "fan_out"}, (100, 60, 3, 3)),
    ("kaiming_uniform_", (), {"nonlinearity": "relu", "mode": "FAN_OUT"}, (300, 200)),
    ("kaiming_normal_", (), {"nonlinearity": "tanh"}, (300, 200)),
    ("kaiming_normal_", (), {"mode": "fan_out", "nonlinearity": "conv2d"}, (100, 60, 3, 3)),
    ("orthogonal_", (), {}, (80, 150)),
    ("orthogonal_", (), {"gain": 2.0}, (150, 10, 8)),
    ("sparse_", (0.3,), {}, (300, 200)),
    ("sparse_", (), {"sparsity": 0.9, "std": 2.0}, (300, 200)),
]


@pytest.mark.parametrize("case", range(len(DRAWN)))
def test_statistics(case: int) -> None:
    """Mean, spread, kurtosis, extremes and the share of zeros are PyTorch's; the tensor itself is what comes back."""
    name, args, kwargs, shape = DRAWN[case]
    found = []
    for library in LIBRARIES:
        library.manual_seed(7)
        tensor = library.empty(shape).requires_grad_()
        assert getattr(library.nn.init, name)(tensor, *args, **kwargs) is tensor and tensor.grad_fn is None
        values = tensor.detach().numpy().astype(np.float64)
        found.append(values)
    a, b = found
    spread = b.std()
    assert abs(a.mean() - b.mean()) < 0.02 * spread and abs(a.std() / spread - 1) < 0.02
    kurtosis = [((v - v.mean()) ** 4).mean() / v.std() ** 4 for v in found]
    assert abs(kurtosis[0] / kurtosis[1] - 1) < 0.06
    assert (a == 0).mean() == pytest.approx((b == 0).mean(), abs=1e-4)
    if "uniform" in name or "trunc" in name:
        assert abs(a.max() - b.max()) < 0.02 * spread + 0.01 * abs(b.max()) or kwargs == {} and args == (0.0, 0.02)
        assert abs(a.min() - b.min()) < 0.02 * spread + 0.01 * abs(b.min()) or kwargs == {} and args == (0.0, 0.02)


@pytest.mark.parametrize("name", sorted({name for name, *_ in DRAWN}))
def test_generator(name: str) -> None:
    """Numbers come from the generator that is given, and only from it."""
    case = next(c for c in DRAWN if c[0] == name)
    graphc.manual_seed(3)
    before = graphc.get_rng_state()
    drawn = []
    for _ in range(2):
        generator = graphc.Generator().manual_seed(11)
        drawn.append(getattr(graphc.nn.init, name)(graphc.empty(6, 7), *case[1], **case[2], generator=generator).numpy())
    assert (drawn[0] == drawn[1]).all() and (graphc.get_rng_state() == before).all()


def test_extreme_truncation() -> None:
    """Far from the mean too, every value lies between the bounds and they are not all at one."""
    values = graphc.nn.init.trunc_normal_(graphc.empty(2000), a=5.0, b=6.0).numpy()
    assert values.min() >= 5 and values.max() <= 6 and abs(values.mean() - 5.18) < 0.02 and len(np.unique(values)) > 1500


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3), (2, 3, 4)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    q = graphc.nn.init.orthogonal_(graphc.empty(shape), gain=2.0).numpy().reshape(shape[0], -1).astype(np.float64)
    product = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


def test_orthogonal_matrices_are_equally_likely() -> None:
    """The first entry of a random rotation is as often negative, and its mean square is one part in n."""
    graphc.manual_seed(0)
    first = [float(graphc.nn.init.orthogonal_(graphc.empty(3, 3))[0, 0]) for _ in range(300)]
    assert abs(np.mean(first)) < 0.1 and abs(np.mean(np.square(first)) - 1 / 3) < 0.05


EXACT: list[tuple[str, tuple[Any, ...], tuple[int, ...]]] = [
    ("zeros_", (), (2, 3)),
    ("ones_", (), (2, 3)),
    ("constant_", (0.3,), (2, 3)),
    ("eye_", (), (3, 5)),
    ("eye_", (), (5, 3)),
    *(("dirac_", (), shape) for shape in ((4, 3, 3), (3, 4, 4), (4, 4, 3, 5), (6, 2, 2, 3, 3))),
    *(("dirac_", (groups,), (6, 2, 3, 3)) for groups in (2, 3, 6)),
]


@pytest.mark.parametrize("case", range(len(EXACT)))
def test_patterns(case: int) -> None:
    name, args, shape = EXACT[case]
    found = [getattr(library.nn.init, name)(library.full(shape, 7.0), *args).numpy() for library in LIBRARIES]
    assert (found[0] == found[1]).all()


def test_gains_and_fans() -> None:
    for name in ("linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu", "conv1d", "conv_transpose3d"):
        assert graphc.nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    for slope in (0, 0.3, -1.0):
        assert graphc.nn.init.calculate_gain("leaky_relu", slope) == torch.nn.init.calculate_gain("leaky_relu", slope)
    for shape in ((3, 4), (3, 4, 5), (6, 2, 3, 3), (0, 3)):
        theirs = torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
        assert graphc.nn.init._calculate_fan_in_and_fan_out(graphc.empty(shape)) == theirs
        for mode in ("fan_in", "FAN_OUT"):
            fans = [library.nn.init._calculate_correct_fan(library.empty(shape), mode) for library in LIBRARIES]
            assert fans[0] == fans[1]


REFUSED: dict[str, Callable[[Any], Any]] = {
    "unknown nonlinearity": lambda t: t.nn.init.calculate_gain("swish"),
    "slope of no number": lambda t: t.nn.init.calculate_gain("leaky_relu", True),
    "slope of text": lambda t: t.nn.init.calculate_gain("leaky_relu", "0.1"),
    "one dim": lambda t: t.nn.init.xavier_uniform_(t.empty(3)),
    "one dim, kaiming": lambda t: t.nn.init.kaiming_normal_(t.empty(3)),
    "unknown mode": lambda t: t.nn.init.kaiming_uniform_(t.empty(3, 3), mode="fan"),
    "eye of a cube": lambda t: t.nn.init.eye_(t.empty(3, 3, 3)),
    "dirac of a matrix": lambda t: t.nn.init.dirac_(t.empty(3, 3)),
    "dirac, odd groups": lambda t: t.nn.init.dirac_(t.empty(5, 3, 3), 2),
    "orthogonal vector": lambda t: t.nn.init.orthogonal_(t.empty(3)),
    "sparse cube": lambda t: t.nn.init.sparse_(t.empty(3, 3, 3), 0.1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises((ValueError, RuntimeError, TypeError)) as theirs:
        REFUSED[name](torch)
    with pytest.raises(theirs.type) as ours:
        REFUSED[name](graphc)
    assert type(ours.value) is theirs.type and len(str(ours.value)) > 10


def test_nothing_to_write() -> None:
    """Tensors without elements stay, with PyTorch's warning where it gives one."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "xavier_normal_", "orthogonal_", "uniform_", "zeros_"):
        warned = []
        for library in LIBRARIES:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                assert getattr(library.nn.init, name)(library.empty(0, 3)).shape == (0, 3)
            warned.append([str(w.message) for w in seen])
        assert warned[0] == warned[1], name


def test_older_names() -> None:
    """The names without underscores do the same and warn in PyTorch's words."""
    older = [n for n in dir(torch.nn.init) if hasattr(torch.nn.init, n + "_") and not n.startswith("_")]
    assert len(older) == 11
    calls = {"constant": (2.0,), "sparse": (0.5,)}
    for name in older:
        texts = []
        for library in LIBRARIES:
            shape = (4, 4, 3) if name == "dirac" else (4, 4)
            with pytest.warns(FutureWarning) as seen:
                getattr(library.nn.init, name)(library.empty(shape), *calls.get(name, ()))
            texts.append(str(seen[0].message))
        assert texts[0] == texts[1]


def test_arguments_are_torchs() -> None:
    for name in dir(torch.nn.init):
        theirs = getattr(torch.nn.init, name)
        if inspect.isfunction(theirs) and name.endswith("_") and not name.startswith("_"):
            declared = [
                [(p.name, p.default) for p in inspect.signature(f).parameters.values()]
                for f in (getattr(graphc.nn.init, name), theirs)
            ]
            assert declared[0] == declared[1], name


# ---- what layers start from --------------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[Any, ...]] = {
    "Linear": (300, 200),
    "Bilinear": (60, 30, 40),
    "Conv1d": (60, 80, 5),
    "Conv2d": (40, 60, 3, 1, 0, 1, 2),
    "Conv3d": (20, 30, (3, 2, 3)),
    "ConvTranspose1d": (60, 80, 5),
    "ConvTranspose2d": (40, 60, 3, 1, 0, 0, 4),
    "ConvTranspose3d": (20, 30, (3, 2, 3)),
    "Embedding": (300, 50, 7),
    "EmbeddingBag": (300, 50),
    "PReLU": (5,),
    "BatchNorm1d": (5,),
    "InstanceNorm2d": (5, 1e-5, 0.1, True, True),
    "GroupNorm": (2, 6),
    "LayerNorm": ((3, 4),),
    "RMSNorm": (6,),
    "AdaptiveLogSoftmaxWithLoss": (256, 900, [100, 300, 600], 2.0, True),
    "LinearCrossEntropyLoss": (200, 300),
    "MultiheadAttention": (64, 4, 0.0, True, True),
    "RNN": (100, 64, 2),
    "LSTM": (100, 64, 1, True, False, 0.0, True, 20),
    "GRUCell": (100, 64),
    "TransformerEncoderLayer": (64, 4, 256),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_start_from_torchs_distributions(name: str) -> None:
    """Every parameter's mean, spread, kurtosis and bounds."""
    for library in LIBRARIES:
        library.manual_seed(5)
    ours, theirs = (getattr(library.nn, name)(*LAYERS[name]) for library in LIBRARIES)
    for (key, p), q in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        a, b = p.numpy().astype(np.float64), q.numpy().astype(np.float64)
        spread = b.std()
        if spread == 0:
            assert (a == b).all(), key
            continue
        few = 1 / np.sqrt(a.size)
        assert abs(a.mean() - b.mean()) < 6 * few * spread and abs(a.std() / spread - 1) < 4 * few, key
        assert abs(np.abs(a).max() / np.abs(b).max() - 1) < (0.4 if "Embedding" in name or "bias_" in key else 5 / a.size + 0.05), (
            key
        )
