"""Products, perceptrons, transformers, convolution and recurrent nets for inference.

Enters: a namespace.  Leaves: modules whose names of parameters are the same in every library.  Never here: training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.workloads.workload import Array, Workload, normal

WIDTH, HEADS, TOKENS, WORDS, LAYERS = 768, 12, 128, 50257, 12  # GPT-2 small
LSTM_SHAPE, LSTM_HIDDEN = (32, 64, 128), 256


def linear(inputs: int, outputs: int) -> Any:
    """A function of a namespace: a product with a parameter (outputs, inputs)."""
    return lambda t: t.nn.Linear(inputs, outputs, bias=False)


def perceptron(t: Any, sizes: Sequence[int]) -> Any:
    """Linear layers with ReLU between them."""
    parts: list[Any] = []
    for i in range(len(sizes) - 1):
        parts += [t.nn.Linear(sizes[i], sizes[i + 1]), t.nn.ReLU()]
    return t.nn.Sequential(*parts[:-1])


def attention(t: Any) -> Any:
    """Causal attention alone."""
    return lambda q, k, v: t.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def block_of(t: Any, width: int, heads: int, dropout: float = 0.0) -> Any:
    """A GPT-2 block, with dropout of attention and of what it adds.

    Called with a cache of keys and values it attends to those too, and gives the longer ones as well.
    """

    class Block(t.nn.Module):  # type: ignore[misc]  # the base is of any library
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = t.nn.LayerNorm(width), t.nn.LayerNorm(width)
            self.qkv, self.project = t.nn.Linear(width, 3 * width), t.nn.Linear(width, width)
            self.widen, self.narrow = t.nn.Linear(width, 4 * width), t.nn.Linear(4 * width, width)
            self.drop = t.nn.Dropout(dropout) if dropout else t.nn.Identity()
            self.chance = {"dropout_p": dropout} if dropout else {}

        def forward(self, x: Any, keys: Any = None, values: Any = None) -> Any:
            batch, length, _ = x.shape
            split = lambda y: t.transpose(y.reshape(batch, length, heads, width // heads), 1, 2)
            query, key, value = map(split, t.split(self.qkv(self.before(x)), width, -1))
            if keys is not None:
                key, value = t.cat([keys, key], 2), t.cat([values, value], 2)
            mixed = t.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=keys is None, **self.chance)
            x = x + self.drop(self.project(t.transpose(mixed, 1, 2).reshape(batch, length, width)))
            x = x + self.drop(self.narrow(t.nn.functional.gelu(self.widen(self.between(x)), approximate="tanh")))
            return x if keys is None else (x, key, value)

    return Block()


def gpt2_decode(t: Any, layers: int = LAYERS) -> Any:
    """The next token's scores with the keys and values of the tokens before it, and those with the token's own behind them."""

    class Decode(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = t.nn.Embedding(WORDS, WIDTH), t.nn.Embedding(1024, WIDTH)
            self.blocks = t.nn.ModuleList([block_of(t, WIDTH, HEADS) for _ in range(layers)])
            self.norm, self.head = t.nn.LayerNorm(WIDTH), t.nn.Linear(WIDTH, WORDS, bias=False)

        def forward(self, token: Any, place: Any, *caches: Any) -> Any:
            x = self.words(token) + self.places(place)
            longer = []
            for i, block in enumerate(self.blocks):
                x, key, value = block(x, caches[2 * i], caches[2 * i + 1])
                longer += [key, value]
            return self.head(self.norm(x)), *longer

    return Decode()


def _decode_inputs(layers: int) -> Any:
    def make(random: np.random.Generator) -> tuple[Array, ...]:
        caches = [random.standard_normal((1, HEADS, TOKENS, WIDTH // HEADS), np.float32) for _ in range(2 * layers)]
        return np.array([[1234]]), np.array([[TOKENS]]), *caches

    return make


def basic_block(t: Any, channels: int, out: int, stride: int) -> Any:
    """Two convolutions and a shortcut."""

    class Basic(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            nn = t.nn
            self.first, self.first_norm = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
            self.second, self.second_norm = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
            self.short = nn.Identity()
            if stride != 1 or channels != out:
                self.short = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

        def forward(self, x: Any) -> Any:
            relu = t.nn.functional.relu
            y = relu(self.first_norm(self.first(x)))
            return relu(self.second_norm(self.second(y)) + self.short(x))

    return Basic()


def resnet18(t: Any, classes: int = 1000, small: bool = False) -> Any:
    """ResNet-18, for 224 x 224 or (`small`) 32 x 32 pixels."""
    nn = t.nn
    parts = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    if small:
        parts = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    channels = 64
    for out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        parts += [basic_block(t, channels, out, stride), basic_block(t, out, out, 1)]
        channels = out
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def mobilenet_v2(t: Any) -> Any:
    """MobileNetV2 for 224 x 224 pixels."""
    nn = t.nn

    def conv(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
        return [nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out)]

    class Inverted(nn.Module):  # type: ignore[misc]
        def __init__(self, channels: int, out: int, stride: int, growth: int) -> None:
            super().__init__()
            wide = channels * growth
            parts = [*conv(channels, wide, 1), nn.ReLU6()] if growth > 1 else []
            self.parts = nn.Sequential(*parts, *conv(wide, wide, 3, stride, wide), nn.ReLU6(), *conv(wide, out, 1))
            self.adds = stride == 1 and channels == out

        def forward(self, x: Any) -> Any:
            return x + self.parts(x) if self.adds else self.parts(x)

    parts, channels = [*conv(3, 32, 3, 2), nn.ReLU6()], 32
    for growth, out, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for i in range(count):
            parts.append(Inverted(channels, out, stride if i == 0 else 1, growth))
            channels = out
    parts += [*conv(320, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*parts)


def unet(t: Any, widths: Sequence[int] = (16, 32, 64, 128)) -> Any:
    """Two convolutions a level, pooling down, transposed convolutions up, one channel out."""
    nn = t.nn

    def double(channels: int, out: int) -> Any:
        one = [nn.Conv2d(channels, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        return nn.Sequential(*one, nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())

    class UNet(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.ModuleList([double(a, b) for a, b in zip((3, *widths), widths, strict=False)])
            pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
            self.grow = nn.ModuleList([nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs])
            self.up = nn.ModuleList([double(2 * b, b) for _, b in pairs])
            self.pool, self.last = nn.MaxPool2d(2), nn.Conv2d(widths[0], 1, 1)

        def forward(self, x: Any) -> Any:
            kept: list[Any] = []
            for i, level in enumerate(self.down):
                x = level(self.pool(x) if i else x)
                kept.append(x)
            for grow, level, beside in zip(self.grow, self.up, kept[-2::-1], strict=True):
                x = level(t.cat([grow(x), beside], 1))
            return self.last(x)

    return UNet()


def lstm(t: Any) -> Any:
    """One LSTM layer, all its states."""

    class Layer(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = t.nn.LSTM(LSTM_SHAPE[2], LSTM_HIDDEN, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.layer(x)[0]

    return Layer()


def gpt_stack(layers: int) -> Any:
    """A function of a namespace: GPT-2 blocks of width 256 one after another, to see what layers cost to compile."""
    return lambda t: t.nn.Sequential(*[block_of(t, 256, 4) for _ in range(layers)])


def _square(size: int) -> Workload:
    group = "small" if size <= 256 else "square" if size >= 1024 else "square512"
    product = lambda a, b: a @ b
    return Workload(
        f"gemm_{size}", group, lambda t: product, normal((size, size), (size, size)), flops=2.0 * size**3, numpy=product,
        samples=(0,),
    )  # fmt: skip


def _skinny(rows: int, inputs: int, outputs: int) -> Workload:
    return Workload(
        f"gemm_{rows}x{inputs}x{outputs}", "small", linear(inputs, outputs), normal((rows, inputs)),
        flops=2.0 * rows * inputs * outputs, numpy=lambda x, weight: x @ weight.T, samples=(0,),
    )  # fmt: skip


MLP, WIDE = (784, 512, 512, 10), (1024, 4096, 1024)
PRODUCTS = [
    *map(_square, (64, 128, 256, 512, 1024, 2048)),
    _skinny(1, 4096, 4096),
    *(_skinny(rows, 1024, 4096) for rows in (4, 8, 32)),
]
PERCEPTRONS = [
    *(
        Workload(f"mlp_784_512_512_10_b{b}", "mlp", lambda t: perceptron(t, MLP), normal((b, 784)), None, samples=(0,))
        for b in (1, 32, 512)
    ),
    Workload("mlp_wide_1024_4096_b256", "mlp", lambda t: perceptron(t, WIDE), normal((256, 1024)), None, samples=(0,)),
]
TRANSFORMERS = [
    Workload(
        "sdpa_causal", "attention", attention, normal(*[(4, 8, 256, 64)] * 3), flops=2.0 * 4 * 8 * 256 * 256 * 64,
        samples=(0, 1, 2),
    ),
    *(
        Workload(
            f"gpt2_block_b{b}", "transformer", lambda t: block_of(t, WIDTH, HEADS), normal((b, TOKENS, WIDTH)), None, samples=(0,)
        )
        for b in (1, 8)
    ),
    Workload(
        "gpt2_decode", "decode", gpt2_decode, _decode_inputs(LAYERS), None, samples=tuple(range(2 + 2 * LAYERS)), cold_target_s=2.0
    ),
]  # fmt: skip
NETS = [
    *(
        Workload(f"resnet18_b{b}", "resnet", resnet18, normal((b, 3, 224, 224)), None, samples=(0,), images=True)
        for b in (1, 8)
    ),
    Workload("mobilenet_v2_b1", "mobilenet", mobilenet_v2, normal((1, 3, 224, 224)), None, samples=(0,), images=True),
    Workload("unet_small", "unet", unet, normal((1, 3, 128, 128)), None, samples=(0,), images=True, cold_target_s=2.0),
    Workload(
        "lstm_b32_t64_h256", "lstm", lstm, normal(LSTM_SHAPE),
        flops=2.0 * 32 * 64 * 4 * LSTM_HIDDEN * (LSTM_HIDDEN + LSTM_SHAPE[2]), samples=(0,),
    ),
    *(
        Workload(
            f"gpt_{n}_layers", "layers", gpt_stack(n), normal((1, 64, 256)), None, samples=(0,), cold_target_s=9.0, ours_only=True
        )
        for n in (12, 48)
    ),
]  # fmt: skip
