"""conv1d .. conv3d and conv_transpose1d .. conv_transpose3d: PyTorch's arguments made strict.

Enters: tensors with or without a batch, and PyTorch's arguments.  Leaves: operators written with `convolution`.
Never here: what a convolution computes.
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import float32
from graphc.ir.op import Bad, Size
from graphc.ops.arguments import of_type, one_size, tensor
from graphc.ops.arithmetic import add
from graphc.ops.convolution import convolution, convolution_input, output_sizes
from graphc.ops.declare import FLOATING, Shorthand, call, fill
from graphc.ops.movement import reshape, squeeze, unsqueeze
from graphc.ops.windows import Ints, fixed, per_dim


def _operands(name: str, input: Any, weight: Any, bias: Any, n: int) -> tuple[Any, bool]:
    """The input with its batch, and whether it came with one.  Raises TypeError or RuntimeError as PyTorch does."""
    x, weight = tensor(name, "input", input), tensor(name, "weight", weight)
    given = [x, weight] if bias is None else [x, weight, tensor(name, "bias", bias)]
    shown = ", ".join(str(of_type(t)) for t in given)
    if any(t.dtype is not x.dtype for t in given):
        raise RuntimeError(f"{name}: input, weight and bias must have one dtype: {shown}")
    if weight.ndim != n + 2 or x.ndim not in (n + 1, n + 2):
        raise RuntimeError(f"{name}: expected a {n + 1}D (unbatched) or {n + 2}D input and a {n + 2}D weight, got {shown}")
    if any(s == 0 for s in weight.shape[2:]):
        raise RuntimeError(f"{name}: kernel sizes must be greater than zero: {shown}")
    fixed(name, (*x.shape[x.ndim - n - 1 :], *weight.shape))
    batched = x.ndim == n + 2
    return x if batched else unsqueeze.run(x, dim=0), batched


def _groups(name: str, groups: Any, channels: Size, weight: Any, transposed: bool) -> int:
    groups = one_size(name, "groups", groups)
    if not isinstance(groups, int) or groups < 1:
        raise RuntimeError(f"{name}: non-positive groups is not supported: {groups}")
    wanted = weight.shape[0] if transposed else weight.shape[1] * groups
    if channels != wanted or weight.shape[0] % groups:
        raise RuntimeError(
            f"{name}: given groups={groups} and weight {of_type(weight)}, expected input with {wanted} channels and "
            f"output channels divisible by groups, got {channels} channels"
        )
    return groups


def _bias(name: str, bias: Any, channels: Size) -> tuple[Any, ...]:
    """() or (bias,).  Raises RuntimeError unless it is one number an output channel."""
    if bias is None:
        return ()
    if tuple(bias.shape) != (channels,):
        raise RuntimeError(f"{name}: bias must be of shape [{channels}], got {of_type(bias)}")
    return (bias,)


def _padding(name: str, padding: Any, kernel: Any, stride: Ints, dilation: Ints) -> tuple[Ints, Ints]:
    """(before, after): the same on both sides, but for 'same', which puts an odd one after."""
    n = len(stride)
    if not isinstance(padding, str):
        sides = per_dim(name, "padding", padding, n)
        return sides, sides
    if padding == "valid":
        return (0,) * n, (0,) * n
    if padding != "same":
        raise RuntimeError(f"{name}: invalid padding string {padding!r}; expected 'same' or 'valid'")
    if any(s != 1 for s in stride):
        raise RuntimeError(f"{name}: padding='same' is not supported for strided convolutions")
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)


def _conv(name: str, n: int) -> Any:
    def rule(
        input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: Any = 1
    ) -> Any:
        x, batched = _operands(name, input, weight, bias, n)
        stride, dilation = per_dim(name, "stride", stride, n, 1), per_dim(name, "dilation", dilation, n, 1)
        before, after = _padding(name, padding, weight.shape[2:], stride, dilation)
        groups = _groups(name, groups, x.shape[1], weight, False)
        places = output_sizes(x.shape[2:], weight.shape[2:], stride, before, after, dilation)
        if any(p < 1 for p in places):
            raise RuntimeError(
                f"{name}: kernel {of_type(weight)} can't be greater than the padded input {of_type(x)} "
                f"(padding {list(before)}, dilation {list(dilation)})"
            )
        how = {"stride": stride, "before": before, "after": after, "dilation": dilation, "groups": groups}
        out = convolution.run(x, weight, *_bias(name, bias, weight.shape[0]), **how)
        return out if batched else squeeze.run(out, dims=(0,))

    return rule


def _conv_transpose(name: str, n: int) -> Any:
    def rule(
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: Any = 1,
        dilation: Any = 1,
    ) -> Any:
        x, batched = _operands(name, input, weight, bias, n)
        stride, dilation = per_dim(name, "stride", stride, n, 1), per_dim(name, "dilation", dilation, n, 1)
        sides, extra = per_dim(name, "padding", padding, n), per_dim(name, "output_padding", output_padding, n)
        groups = _groups(name, groups, x.shape[1], weight, True)
        if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
            raise RuntimeError(
                f"{name}: output padding must be smaller than either stride or dilation, but got output_padding {list(extra)}, "
                f"stride {list(stride)} and dilation {list(dilation)}"
            )
        shape = tuple(
            (size - 1) * s - 2 * p + d * (k - 1) + e + 1
            for size, s, p, d, k, e in zip(x.shape[2:], stride, sides, dilation, weight.shape[2:], extra, strict=True)
        )
        if any(size < 1 for size in shape):
            raise RuntimeError(f"{name}: calculated output size {list(shape)} is too small for input {of_type(x)}")
        # what the result's size leaves over after its last window is no padding of its convolution
        how = {"stride": stride, "before": sides, "after": sides, "dilation": dilation, "groups": groups}
        after = tuple(
            (size - 1) * s + d * (k - 1) + 1 - p - out
            for size, s, d, k, p, out in zip(x.shape[2:], stride, dilation, weight.shape[2:], sides, shape, strict=True)
        )
        out = convolution_input.run(x, weight, shape=shape, **{**how, "after": after})
        for numbers in _bias(name, bias, out.shape[1]):
            out = add.run(out, reshape.run(numbers, shape=(out.shape[1], *(1,) * n)))
        return out if batched else squeeze.run(out, dims=(0,))

    return rule


def _declared(n: int, transposed: bool) -> Shorthand:
    name = f"conv_transpose{n}d" if transposed else f"conv{n}d"
    ones = (3,) * n
    weight = fill(2, 3, *ones)
    return Shorthand(
        name,
        doc=(
            f"{'Transposed convolution, the gradient of a convolution,' if transposed else 'Cross-correlation'} over {n} dims.  "
            + ("[N, C, ...], [C, O / groups, *kernel]" if transposed else "[N, C, ...], [O, C / groups, *kernel]")
            + " (, [O]) -> [N, O, ...]; also without N."
        ),
        rule=(_conv_transpose if transposed else _conv)(name, n),
        reference=None,
        dtypes=FLOATING,
        samples=(
            call(fill(1, 2 if transposed else 3, *(4,) * n), weight, fill(3 if transposed else 2)),
            call(fill(2 if transposed else 3, *(5,) * n), weight, None, 2, 1),
        ),
        bad=(
            Bad((fill(1, 5, *(4,) * n), weight), RuntimeError, f"{name}: given groups=1 and weight .* channels"),
            Bad((fill(4), weight), RuntimeError, f"{name}: expected a {n + 1}D"),
            Bad((fill(1, 3, *(4,) * n), weight, fill(2, dtype=float32), 0), RuntimeError, f"{name}: "),
        ),
        methods=(),
        functions=(name, f"nn.functional.{name}"),
        autocast="lower",
    )


conv1d, conv2d, conv3d = (_declared(n, False) for n in (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = (_declared(n, True) for n in (1, 2, 3))
