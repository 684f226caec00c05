"""EfficientNet-Lite0: what a picture of 224 x 224 pixels shows, as scores of ImageNet's 1000 classes.

Parameters are named as in the published ``.pth``, which ``graphc.load`` reads.  The weights were trained where a convolution pads
so that its output has ceil(size / stride) pixels, with the odd pixel of padding to the right and below.
"""

from __future__ import annotations

import graphc
from graphc import nn

SIZE, CLASSES, STEM, HEAD = 224, 1000, 32, 1280
EPSILON = 1e-3  # of every batch norm
# blocks, kernel, stride of the first block, expansion, channels out
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """A convolution without bias whose output has ceil(size / stride) pixels.  [N, C, H, W] -> [N, C', H', W']."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        high, wide = (
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size, stride, kernel in zip(x.shape[2:], self.stride, self.kernel_size, strict=True)
        )
        return super().forward(nn.functional.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2)))


def norm(channels: int) -> nn.BatchNorm2d:
    """The batch norm after every convolution."""
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=0.01)


class Block(nn.Module):
    """Widen, filter each channel on its own, narrow; plus what went in, where the shapes agree."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.widens, self.adds = expansion > 1, stride == 1 and channels == out
        if self.widens:
            self._expand_conv = SameConv2d(channels, inner, 1)
            self._bn0 = norm(inner)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self._bn1 = norm(inner)
        self._project_conv = SameConv2d(inner, out, 1)
        self._bn2 = norm(out)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        inner = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        inner = nn.functional.relu6(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        return inner + x if self.adds else inner


def blocks() -> list[Block]:
    """All blocks in order; only the first of a stage changes the channels and takes the stride."""
    made, channels = [], STEM
    for count, kernel, stride, expansion, out in STAGES:
        for i in range(count):
            made.append(Block(channels, out, kernel, stride if i == 0 else 1, expansion))
            channels = out
    return made


class EfficientNetLite0(nn.Module):
    """Pictures, float32 [N, 3, SIZE, SIZE], to logits, float32 [N, CLASSES]."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, STEM, 3, stride=2)
        self._bn0 = norm(STEM)
        self._blocks = nn.ModuleList(blocks())
        self._conv_head = SameConv2d(STAGES[-1][-1], HEAD, 1)
        self._bn1 = norm(HEAD)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(HEAD, CLASSES)

    def forward(self, pictures: graphc.Tensor) -> graphc.Tensor:
        x = nn.functional.relu6(self._bn0(self._conv_stem(pictures)))
        for block in self._blocks:
            x = block(x)
        x = nn.functional.relu6(self._bn1(self._conv_head(x)))
        return self._fc(self._dropout(x.mean(dim=(2, 3))))
