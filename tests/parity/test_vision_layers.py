"""Convolution, pooling, padding, normalisation and resizing layers: PyTorch's state, printing, values, gradients, both modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

Make = Callable[[Any], Any]  # a library's `nn` -> a module

IMAGE = (2, 4, 7, 6)
LINE, VOLUME = (2, 4, 9), (2, 4, 5, 4, 6)
LAYERS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "conv1d": (lambda nn: nn.Conv1d(4, 6, 3, padding=1), LINE),
    "conv1d causal": (lambda nn: nn.Conv1d(4, 4, 4, groups=4, padding=3), LINE),
    "conv2d": (lambda nn: nn.Conv2d(4, 6, 3, stride=2, padding=1), IMAGE),
    "conv2d one": (lambda nn: nn.Conv2d(4, 5, 1, bias=False), IMAGE),
    "conv2d same": (lambda nn: nn.Conv2d(4, 6, (3, 2), padding="same", dilation=2, groups=2), IMAGE),
    "conv2d depthwise": (lambda nn: nn.Conv2d(4, 8, 3, padding=(1, 0), groups=4), IMAGE),
    "conv2d reflect": (lambda nn: nn.Conv2d(4, 2, 3, padding=2, padding_mode="reflect"), IMAGE),
    "conv2d circular same": (lambda nn: nn.Conv2d(4, 2, 2, padding="same", padding_mode="circular"), IMAGE),
    "conv2d whole": (lambda nn: nn.Conv2d(4, 5, (7, 6)), IMAGE),
    "conv3d": (lambda nn: nn.Conv3d(4, 3, 3, padding=1, stride=(1, 2, 2)), VOLUME),
    "conv transpose 1d": (lambda nn: nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1), LINE),
    "conv transpose 2d": (lambda nn: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), IMAGE),
    "conv transpose groups": (lambda nn: nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2, bias=False), IMAGE),
    "conv transpose depthwise": (lambda nn: nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1, groups=4), IMAGE),
    "conv transpose 3d": (lambda nn: nn.ConvTranspose3d(4, 3, 2, stride=2), VOLUME),
    "group norm": (lambda nn: nn.GroupNorm(2, 4), IMAGE),
    "group norm plain": (lambda nn: nn.GroupNorm(4, 4, eps=1e-2, affine=False), LINE),
    "local response norm": (lambda nn: nn.LocalResponseNorm(3, alpha=0.1), IMAGE),
    "max pool 1d": (lambda nn: nn.MaxPool1d(3, 2), LINE),
    "max pool 2d": (lambda nn: nn.MaxPool2d(3, stride=2, padding=1), IMAGE),
    "max pool 2d ceil": (lambda nn: nn.MaxPool2d((2, 3), dilation=(2, 1), ceil_mode=True), IMAGE),
    "max pool 3d": (lambda nn: nn.MaxPool3d(2), VOLUME),
    "avg pool 1d": (lambda nn: nn.AvgPool1d(3, 2, 1), LINE),
    "avg pool 2d": (lambda nn: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), IMAGE),
    "avg pool 2d divisor": (lambda nn: nn.AvgPool2d(2, ceil_mode=True, divisor_override=3), IMAGE),
    "avg pool 3d": (lambda nn: nn.AvgPool3d((2, 2, 3)), VOLUME),
    "lp pool 2d": (lambda nn: nn.LPPool2d(2, 2), IMAGE),
    "adaptive avg 1d": (lambda nn: nn.AdaptiveAvgPool1d(4), LINE),
    "adaptive avg 2d": (lambda nn: nn.AdaptiveAvgPool2d((3, None)), IMAGE),
    "adaptive avg 2d one": (lambda nn: nn.AdaptiveAvgPool2d(1), IMAGE),
    "adaptive avg 3d": (lambda nn: nn.AdaptiveAvgPool3d(2), VOLUME),
    "adaptive max 1d": (lambda nn: nn.AdaptiveMaxPool1d(3), LINE),
    "adaptive max 2d": (lambda nn: nn.AdaptiveMaxPool2d((4, 5)), IMAGE),
    "adaptive max 3d": (lambda nn: nn.AdaptiveMaxPool3d((None, 2, 3)), VOLUME),
    "upsample": (lambda nn: nn.Upsample(scale_factor=2), IMAGE),
    "upsample bilinear": (lambda nn: nn.Upsample(size=(9, 11), mode="bilinear", align_corners=True), IMAGE),
    "upsampling nearest": (lambda nn: nn.UpsamplingNearest2d(scale_factor=2), IMAGE),
    "upsampling bilinear": (lambda nn: nn.UpsamplingBilinear2d(size=(3, 4)), IMAGE),
    "unfold": (lambda nn: nn.Unfold(3, padding=1, stride=2), IMAGE),
    "fold": (lambda nn: nn.Fold((7, 6), (2, 3)), (2, 24, 24)),
    "pixel shuffle": (lambda nn: nn.PixelShuffle(2), IMAGE),
    "pixel unshuffle": (lambda nn: nn.PixelUnshuffle(3), (2, 2, 6, 9)),
    "channel shuffle": (lambda nn: nn.ChannelShuffle(2), IMAGE),
    "zero pad": (lambda nn: nn.ZeroPad2d((1, 2, -1, 3)), IMAGE),
    "constant pad 1d": (lambda nn: nn.ConstantPad1d(2, 3.5), LINE),
    "constant pad 3d": (lambda nn: nn.ConstantPad3d(1, -1.0), VOLUME),
    "reflection pad 1d": (lambda nn: nn.ReflectionPad1d((3, 1)), LINE),
    "reflection pad 2d": (lambda nn: nn.ReflectionPad2d(2), IMAGE),
    "replication pad 2d": (lambda nn: nn.ReplicationPad2d((1, 3, 0, 2)), IMAGE),
    "replication pad 3d": (lambda nn: nn.ReplicationPad3d(1), VOLUME),
    "circular pad 2d": (lambda nn: nn.CircularPad2d((1, 2, 3, 0)), IMAGE),
    "flatten": (lambda nn: nn.Flatten(1, 2), IMAGE),
    "unflatten": (lambda nn: nn.Unflatten(1, (2, 2)), IMAGE),
}
RUNNING: dict[str, tuple[Make, tuple[int, ...]]] = {
    "batch norm 1d": (lambda nn: nn.BatchNorm1d(4), (5, 4)),
    "batch norm 1d line": (lambda nn: nn.BatchNorm1d(4, momentum=0.3), LINE),
    "batch norm 2d": (lambda nn: nn.BatchNorm2d(4), IMAGE),
    "batch norm 2d average": (lambda nn: nn.BatchNorm2d(4, momentum=None), IMAGE),
    "batch norm 2d plain": (lambda nn: nn.BatchNorm2d(4, affine=False, eps=1e-3), IMAGE),
    "batch norm 2d untracked": (lambda nn: nn.BatchNorm2d(4, track_running_stats=False), IMAGE),
    "batch norm 3d": (lambda nn: nn.BatchNorm3d(4), VOLUME),
    "instance norm 1d": (lambda nn: nn.InstanceNorm1d(4), LINE),
    "instance norm 2d": (lambda nn: nn.InstanceNorm2d(4, affine=True), IMAGE),
    "instance norm 2d tracked": (lambda nn: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGE),
    "instance norm 3d": (lambda nn: nn.InstanceNorm3d(4), VOLUME),
    "instance norm unbatched": (lambda nn: nn.InstanceNorm2d(4, affine=True), IMAGE[1:]),
}


def values(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def near(mine: Any, theirs: Any, rtol: float = 1e-4, atol: float = 2e-5) -> None:
    np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=rtol, atol=atol)


def pair(make: Make) -> tuple[Any, Any]:
    """The module of both libraries with one state, which has PyTorch's names and dtypes."""
    mine, theirs = make(graphc.nn), make(torch.nn)
    assert repr(mine) == repr(theirs)
    assert [(n, tuple(v.shape), str(v.dtype).split(".")[-1]) for n, v in mine.state_dict().items()] == [
        (n, tuple(v.shape), str(v.dtype).split(".")[-1]) for n, v in theirs.state_dict().items()
    ]
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    with torch.no_grad():
        for i, p in enumerate(theirs.parameters()):
            p.copy_(torch.from_numpy(values(tuple(p.shape), i)))
    mine.load_state_dict(theirs.state_dict())
    return mine, theirs


def same_step(mine: Any, theirs: Any, shape: tuple[int, ...], seed: int) -> None:
    """One forward and backward pass give the same values and gradients."""
    x, y = graphc.tensor(values(shape, seed), requires_grad=True), torch.tensor(values(shape, seed), requires_grad=True)
    out, expected = mine(x), theirs(y)
    near(out, expected)
    g = values(tuple(expected.shape), seed + 1)
    out.backward(graphc.tensor(g))
    expected.backward(torch.tensor(g))
    near(x.grad, y.grad)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        near(p.grad, q.grad, atol=1e-4)
        p.grad = q.grad = None


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str) -> None:
    make, shape = LAYERS[name]
    mine, theirs = pair(make)
    same_step(mine, theirs, shape, 20)
    compiled = graphc.compile(mine)
    x = graphc.tensor(values(shape, 20))
    assert np.array_equal(compiled(x).detach().numpy(), mine(x).detach().numpy())


@pytest.mark.parametrize("name", RUNNING)
def test_running_statistics(name: str) -> None:
    make, shape = RUNNING[name]
    mine, theirs = pair(make)
    for seed in (30, 40):
        same_step(mine, theirs, shape, seed)
        for p, q in zip(mine.buffers(), theirs.buffers(), strict=True):
            near(p, q)
    mine.eval(), theirs.eval()
    same_step(mine, theirs, shape, 50)
    for p, q in zip(mine.buffers(), theirs.buffers(), strict=True):
        near(p, q)


@pytest.mark.parametrize("name", ["batch norm 2d", "batch norm 2d average", "instance norm 2d tracked"])
def test_running_statistics_compiled(name: str) -> None:
    make, shape = RUNNING[name]
    eager, traced = make(graphc.nn), make(graphc.nn)
    compiled = graphc.compile(traced)
    for seed in (1, 2, 3):
        x = graphc.tensor(values(shape, seed))
        assert np.array_equal(compiled(x).detach().numpy(), eager(x).detach().numpy())
        for p, q in zip(traced.buffers(), eager.buffers(), strict=True):
            assert np.array_equal(p.numpy(), q.numpy())


def test_initial_values() -> None:
    """Uniform in ±1/sqrt(fan in), as PyTorch's: the same bound and about the same variance."""
    for make in (lambda nn: nn.Conv2d(16, 32, 3), lambda nn: nn.ConvTranspose2d(16, 32, 3)):
        mine, theirs = make(graphc.nn), make(torch.nn)
        for name in ("weight", "bias"):
            a, b = getattr(mine, name).detach().numpy(), getattr(theirs, name).detach().numpy()
            bound = 1 / np.sqrt(np.prod(tuple(mine.weight.shape)[1:]))
            assert np.abs(a).max() <= bound and np.abs(b).max() <= bound
            assert abs(a.std() - bound / np.sqrt(3)) < 0.25 * bound


def test_conv_transpose_output_size() -> None:
    mine, theirs = pair(lambda nn: nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1))
    x = values(IMAGE)
    near(mine(graphc.tensor(x), output_size=[14, 11]), theirs(torch.tensor(x), output_size=[14, 11]))
    with pytest.raises(ValueError, match="requested an output size"):
        mine(graphc.tensor(x), output_size=[20, 11])


def test_max_unpool() -> None:
    x = values(IMAGE)
    pooled, indices = graphc.nn.MaxPool2d(2, return_indices=True)(graphc.tensor(x))
    theirs, places = torch.nn.MaxPool2d(2, return_indices=True)(torch.tensor(x))
    assert np.array_equal(indices.numpy(), places.numpy())
    near(graphc.nn.MaxUnpool2d(2)(pooled, indices, IMAGE), torch.nn.MaxUnpool2d(2)(theirs, places, IMAGE))


def test_sync_batch_norm() -> None:
    model = graphc.nn.Sequential(graphc.nn.Conv2d(4, 4, 1), graphc.nn.BatchNorm2d(4))
    converted = graphc.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert type(converted[1]) is graphc.nn.SyncBatchNorm
    assert list(converted.state_dict()) == list(torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1), torch.nn.BatchNorm2d(4)).state_dict())


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda nn: nn.Conv2d(3, 4, 3, groups=2), ValueError, "in_channels must be divisible"),
        (lambda nn: nn.Conv2d(4, 4, 3, padding="full"), ValueError, "Invalid padding string"),
        (lambda nn: nn.Conv2d(4, 4, 3, stride=2, padding="same"), ValueError, "not supported for strided"),
        (lambda nn: nn.Conv2d(4, 4, 3, padding_mode="mirror"), ValueError, "padding_mode must be one of"),
        (lambda nn: nn.ConvTranspose2d(4, 4, 3, padding_mode="reflect"), ValueError, 'Only "zeros" padding mode'),
        (lambda nn: nn.GroupNorm(3, 4), ValueError, "must be divisible"),
    ],
)
def test_refused(make: Make, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make(graphc.nn)
    with pytest.raises(error):
        make(torch.nn)


def test_training_step_by_batch_size_one_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        graphc.nn.BatchNorm2d(3)(graphc.zeros(1, 3, 1, 1))
    with pytest.raises(ValueError, match="expected 4D input"):
        graphc.nn.BatchNorm2d(3)(graphc.zeros(2, 3))
