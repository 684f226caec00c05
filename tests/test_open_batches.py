"""Convolution nets, recurrent layers and rounded weights with batches of every size: one program, and eager's bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn
from graphc.dims import Dim, evaluate
from graphc.ir.op import TensorType
from graphc.ops.convolution_weight_last import LARGE, parts_of
from test_dynamic_sizes import bits, programs

Made = Callable[[], nn.Module]


def residual() -> nn.Module:
    """Winograd's form, a stride, a pool, and normalisation over the batch."""
    first, second = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.Conv2d(16, 17, 3, padding=1)
    return nn.Sequential(
        first, nn.BatchNorm2d(16), nn.ReLU(), second, nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(17, 4)
    )


def separable() -> nn.Module:
    """Depthwise and pointwise convolutions, and back up."""
    parts = [nn.Conv2d(4, 8, 3, groups=4, padding=1), nn.Conv2d(8, 6, 1), nn.GroupNorm(2, 6), nn.Conv2d(6, 6, 5, 2, 2, groups=6)]
    return nn.Sequential(*parts, nn.ReLU6(), nn.ConvTranspose2d(6, 4, 2, 2), nn.InstanceNorm2d(4), nn.Flatten(), nn.Linear(256, 4))


def lines() -> nn.Module:
    """One dim: dilated, in groups, with pools of other sizes."""
    parts = [nn.Conv1d(3, 8, 3, padding=2, dilation=2), nn.BatchNorm1d(8), nn.AvgPool1d(2), nn.Conv1d(8, 8, 4, 2, groups=2)]
    return nn.Sequential(*parts, nn.AdaptiveMaxPool1d(3), nn.Flatten(), nn.Linear(24, 4))


NETS = [
    pytest.param(residual, (3, 15, 15), id="residual"),
    pytest.param(separable, (4, 8, 8), id="separable"),
    pytest.param(lines, (3, 20), id="lines"),
]


def test_inference() -> None:
    graphc.manual_seed(0)
    model = residual().eval()
    compiled = graphc.compile(model)
    with graphc.no_grad():
        for size in (3, 5, 2, 1):
            x = graphc.randn(size, 3, 15, 15)
            assert bits(compiled(x)) == bits(model(x)), size
    assert programs(compiled) == 3 and compiled.stats()["sizes"] == ["2 <= dim0"]  # the first size, all others, 1


@pytest.mark.parametrize(("made", "shape"), NETS)
def test_training_steps(made: Made, shape: tuple[int, ...]) -> None:
    def prepared() -> tuple[nn.Module, Callable[..., Any]]:
        graphc.manual_seed(1)
        model = made()
        optimizer = graphc.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)

        def step(x: Any, wanted: Any) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), wanted)
            loss.backward()
            optimizer.step()
            return loss

        return model, step

    (model, step), (other, eager) = prepared(), prepared()
    compiled = graphc.compile(step)
    for size in (4, 7, 3):  # 3 and 4 are channels of some layers too
        x, wanted = graphc.randn(size, *shape), graphc.arange(size) % 4
        assert bits(compiled(x, wanted)) == bits(eager(x, wanted)), size
    assert list(map(bits, model.state_dict().values())) == list(map(bits, other.state_dict().values()))
    assert programs(compiled) == 2 and compiled.stats()["sizes"] == ["2 <= dim0"]


def test_recurrent_layer() -> None:
    graphc.manual_seed(0)
    layer = nn.LSTM(6, 8)

    def step(x: Any) -> Any:
        layer.zero_grad()
        out = layer(x)[0]
        out.sum().backward()
        return out

    compiled = graphc.compile(step)
    for steps, size in ((3, 4), (5, 2), (2, 7), (9, 9)):
        x = graphc.randn(steps, size, 6)
        found = []
        for function in (compiled, step):
            out = function(x)
            found.append([bits(out), *(bits(p.grad) for p in layer.parameters())])
        assert found[0] == found[1], (steps, size)
    assert programs(compiled) <= 3  # the first time there are no gradients


def test_rounded_weights() -> None:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 33), nn.GELU(), nn.LayerNorm(33), nn.Linear(33, 40)).eval()
    compiled, fixed = (graphc.compile(model, weights="int8", dynamic=dynamic) for dynamic in (None, False))
    with graphc.no_grad():
        for size in (4, 9, 2):
            x = graphc.randn(size, 20)
            assert bits(compiled(x)) == bits(fixed(x)), size
    assert programs(compiled) == 2 and not compiled.stats()["numbers"]


@pytest.mark.parametrize(("channels", "size"), [(2, 4), (64, 20), (64, 90), (300, 9)])
def test_parts_of_a_batch_of_any_size_are_those_of_its_size(channels: int, size: int) -> None:
    """A batch is cut where that of its very size is; parts beyond the last are empty."""

    def parts(batch: Any) -> tuple[int, Any]:
        g = TensorType(graphc.float32, (batch, size, size, channels))
        return parts_of(g, g, (3, 3))

    symbol = Dim.symbol("n", 2)
    (many, images), per_image = parts(symbol), 2 * size * size * channels
    around = [LARGE // per_image + k for k in (-1, 0, 1, 2)]
    for batch in [b for b in (*range(2, 40), *around, 1000) if b > 1]:
        count, each = parts(batch)
        assert evaluate(images, {"n": batch}) == each and count <= many and (count - 1) * each < batch <= count * each


def test_the_last_unit_of_images_may_have_fewer() -> None:
    graphc.manual_seed(0)
    layer = nn.Conv2d(16, 16, 3, padding=1)
    compiled = graphc.compile(layer, dynamic=True)
    with graphc.no_grad():
        for batch in (2, 8, 17):
            x = graphc.randn(batch, 16, 4, 4)
            assert bits(compiled(x)) == bits(layer(x)), batch
    assert programs(compiled) == 1
