"""Short-time Fourier transforms: windows of a signal, their spectra, and the signal back.

Enters: signals [length] or [batch, length].  Leaves: stft, istft.  Never here: one transform (`fft`), one window (`windows`).
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import DType, complex64, float32, float64
from graphc.ir.op import Bad, Op
from graphc.ops.arguments import constant, of_type, tensor
from graphc.ops.arithmetic import div, mul
from graphc.ops.complex import is_complex, view_as_real
from graphc.ops.contract import swapped
from graphc.ops.declare import Shorthand, call, fill
from graphc.ops.fft import c2c, c2r, r2c
from graphc.ops.matrices import part
from graphc.ops.movement import reshape, slice_, squeeze, unsqueeze
from graphc.ops.windows import overlap_add


def _sizes(name: str, n_fft: Any, hop_length: Any, win_length: Any) -> tuple[int, int, int]:
    """The three sizes with their defaults.  Raises RuntimeError."""
    hop = n_fft // 4 if hop_length is None else hop_length
    width = n_fft if win_length is None else win_length
    if n_fft <= 0:
        raise RuntimeError(f"{name}: expected 0 < n_fft, but got n_fft={n_fft}")
    if hop <= 0:
        raise RuntimeError(f"{name}: expected hop_length > 0, but got hop_length={hop}")
    if not 0 < width <= n_fft:
        raise RuntimeError(f"{name}: expected 0 < win_length <= n_fft, but got win_length={width}")
    return n_fft, hop, width


def _window(name: str, window: Any, width: int, n_fft: int, dtype: DType) -> Any:
    """The window in the middle of n_fft elements; ones where none is given.  Raises RuntimeError."""
    if window is None:
        window = constant(1, dtype, (width,))
    elif tuple(tensor(name, "window", window).shape) != (width,):
        raise RuntimeError(
            f"{name}: expected a 1D window tensor of size equal to win_length={width}, but got window {of_type(window)}"
        )
    if width == n_fft:
        return window
    return Op.table["pad_constant"].run(window, starts=((n_fft - width) // 2,), shape=(n_fft,), value=0)


def _stft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
) -> Any:
    x = tensor("stft", "input", input)
    if x.dtype.kind not in "fc" or x.ndim not in (1, 2):
        raise RuntimeError(f"stft: expected a 1D or 2D tensor of floating or complex values, got {of_type(x)}")
    n_fft, hop, width = _sizes("stft", n_fft, hop_length, win_length)
    window = _window("stft", window, width, n_fft, x.dtype.real)
    whole = is_complex(x) or is_complex(window)
    if return_complex is None and not whole:
        raise RuntimeError("stft requires the return_complex parameter be given for real inputs.")
    if onesided and whole:
        raise RuntimeError("stft: Cannot have onesided output if window or input is complex")
    is_line = x.ndim == 1
    x = unsqueeze.run(x, dim=0) if is_line else x
    if center:
        x = Op.table["pad"](x, (n_fft // 2, n_fft // 2), mode=pad_mode)
    if isinstance(x.shape[-1], int) and n_fft > x.shape[-1]:
        raise RuntimeError(f"stft: expected 0 < n_fft < {x.shape[-1]}, but got n_fft={n_fft}")
    frames = mul(Op.table["unfold"](x, -1, n_fft, hop), window)
    scale = "ortho" if normalized else "none"
    if whole or onesided is False:
        spectra = c2c.run(Op.table["cast"].run(frames, dtype=frames.dtype.to_complex()), dims=(2,), scale=scale, forward=True)
    else:
        spectra = r2c.run(frames, dims=(2,), scale=scale)
    result = swapped(spectra)
    result = squeeze.run(result, dims=(0,)) if is_line else result
    return result if return_complex or return_complex is None else view_as_real.run(result)


def _joined(frames: Any, hop: int) -> Any:
    """Frames [batch, count, n] added where they overlap."""
    count, n = frames.shape[1:]
    return overlap_add.run(frames, shape=((count - 1) * hop + n,), stride=(hop,), dilation=(1,))


def _istft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Any:
    x = tensor("istft", "input", input)
    if not is_complex(x) or x.ndim not in (2, 3):
        raise RuntimeError(
            f"istft: requires a complex-valued input tensor of 2 or 3 dimensions matching the output of stft, got {of_type(x)}"
        )
    n_fft, hop, width = _sizes("istft", n_fft, hop_length, win_length)
    half = x.shape[-2] != n_fft if onesided is None else bool(onesided)
    if x.shape[-2] != (n_fft // 2 + 1 if half else n_fft) or not x.shape[-1]:
        wanted = f"to match n_fft={n_fft} when onesided={half}"
        raise RuntimeError(
            f"istft: expected the frequency dimension (3rd to the last) of the input tensor {wanted}, got {of_type(x)}"
        )
    if return_complex and half:
        raise RuntimeError("istft: cannot have onesided output if window or input is complex")
    window = _window("istft", window, width, n_fft, x.dtype.real)
    is_line = x.ndim == 2
    frames = swapped(unsqueeze.run(x, dim=0) if is_line else x)
    scale = "ortho" if normalized else "n"
    if return_complex:
        frames = c2c.run(frames, dims=(2,), scale=scale, forward=False)
    else:  # the first half decides, given or not
        frames = part(frames, columns=slice(0, n_fft // 2 + 1))
        frames = c2r.run(frames, dims=(2,), scale=scale, size=n_fft)
    signal = _joined(mul(frames, window), hop)
    count = frames.shape[1]
    envelope = _joined(Op.table["expand"].run(mul(window, window), shape=(1, count, n_fft)), hop)
    total = signal.shape[1]
    start = n_fft // 2 if center else 0
    end = start + length if length is not None else total - start
    inside = min(end, total)
    signal, envelope = (slice_.run(v, starts=(0, start), stops=(v.shape[0], inside), steps=(1, 1)) for v in (signal, envelope))
    result = div(signal, envelope)
    if end > total:
        result = Op.table["pad_constant"].run(result, starts=(0, 0), shape=(result.shape[0], end - start), value=0)
    return reshape.run(result, shape=(result.shape[1],)) if is_line else result


stft = Shorthand(
    "stft",
    doc="Fourier transforms of windows of n_fft elements, hop_length apart (default n_fft // 4), padded by half a window at both "
    "ends if `center`.  [..., length] -> complex [..., frequencies, windows].",
    rule=_stft,
    dtypes=(float32, float64),
    samples=(
        call(fill(32), 8, return_complex=True),
        call(fill(2, 33), 8, 3, 6, fill(6, low=0.5), normalized=True, return_complex=True),
        call(fill(20), 4, center=False, onesided=False, return_complex=False),
    ),
    bad=(
        Bad((fill(8), 4), RuntimeError, "stft requires the return_complex parameter"),
        Bad((fill(8), 4, 0), RuntimeError, "stft: expected hop_length > 0", {"return_complex": True}),
        Bad((fill(2, 2, 8), 4), RuntimeError, "stft: expected a 1D or 2D tensor", {"return_complex": True}),
    ),
    autocast="float32",
)
istft = Shorthand(
    "istft",
    doc="The signal of which stft gave these spectra: windows added and divided by the sum of squared windows.  "
    "complex [..., frequencies, windows] -> [..., length].",
    rule=_istft,
    dtypes=(complex64,),
    samples=(call(fill(5, 9), 8), call(fill(2, 5, 4), 8, 3, 8, fill(8, low=0.5, dtype=float32, grad=False), length=10)),
    bad=(Bad((fill(3, 3, dtype=float32), 4), RuntimeError, "istft: requires a complex-valued input tensor"),),
)
