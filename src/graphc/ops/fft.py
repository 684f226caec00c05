"""Discrete Fourier transforms: three linear maps that the host runs, and PyTorch's functions written with them.

Enters: tensors.  Leaves: operators of ``graphc.fft``.  Never here: how a transform is computed (NumPy's pocketfft, in the precision
of its input).

The maps are complex to complex, real to the first half of a symmetric spectrum, and that half back to real.  Each transforms all of
`dims` (the last one is the halved one) and multiplies by 1, 1 / sqrt(n) or 1 / n.  Their gradients are one another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dtypes import DType, bfloat16, float16, float32, float64, get_default_dtype, int64
from graphc.ir.op import Bad, Host, Op, Shape, TensorType
from graphc.ops.arguments import cast, of_type, one_dim, one_size, tensor
from graphc.ops.complex import conj, is_complex, real
from graphc.ops.create import iota, require_dtype
from graphc.ops.declare import COMPLEX, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.movement import slice_

Dims = tuple[int, ...]
SCALES = ("none", "ortho", "n")  # what a map multiplies by: 1, 1 / sqrt(n), 1 / n
_FORWARD = dict(zip(SCALES, ("backward", "ortho", "forward"), strict=True))  # NumPy's names of these
_INVERSE = dict(zip(SCALES, ("forward", "ortho", "backward"), strict=True))


def _halved(size: Any) -> Any:
    return size // 2 + 1


def _with_size(shape: Shape, dim: int, size: Any) -> Shape:
    return (*shape[:dim], size, *shape[dim + 1 :])


def _cut(x: Any, dim: int, start: int, stop: Any) -> Any:
    """Elements start..stop-1 along `dim`."""
    starts = tuple(start if d == dim else 0 for d in range(x.ndim))
    return slice_.run(x, starts=starts, stops=_with_size(tuple(x.shape), dim, stop), steps=(1,) * x.ndim)


def _fitted(x: Any, dim: int, size: Any) -> Any:
    """x with `size` elements along `dim`: cut off, or zeros after the last."""
    if x.shape[dim] == size:
        return x
    if size < x.shape[dim]:
        return _cut(x, dim, 0, size)
    shape = _with_size(tuple(x.shape), dim, size)
    return Op.table["pad_constant"].run(x, starts=(0,) * x.ndim, shape=shape, value=0)


# ---- the three maps ------------------------------------------------------------------------------------------------


def _given(*names: str) -> Callable[..., Prepared]:
    def prepare(x: Any, **attrs: Any) -> Prepared:
        return (x,), {name: attrs[name] for name in names}

    return prepare


def _of_kind(name: str, kind: str, x: TensorType) -> None:
    if x.dtype.kind != kind or x.dtype in (float16, bfloat16):
        raise RuntimeError(f"{name}: expected a {'complex' if kind == 'c' else 'real'} tensor, got {x}")


def _c2c_infer(x: TensorType, dims: Dims, scale: str, forward: bool) -> TensorType:
    _of_kind("fft_c2c", "c", x)
    return x


def _c2c_reference(xp: Any, x: Any, dims: Dims, scale: str, forward: bool) -> Any:
    if not x.size:
        return x
    function, norm = (xp.fft.fftn, _FORWARD) if forward else (xp.fft.ifftn, _INVERSE)
    return function(x, axes=dims, norm=norm[scale])


c2c: Op = Op(
    "fft_c2c",
    doc="The discrete Fourier transform of complex numbers over `dims`, or with the other sign (`forward` False).  [...] -> [...].",
    signature="(x, *, dims, scale, forward)",
    prepare=_given("dims", "scale", "forward"),
    infer=_c2c_infer,
    reference=_c2c_reference,
    grad=lambda g, out, x, **how: (c2c.run(g, **how),),  # the matrix of the map is symmetric
    lowering=Host(),
    attrs=("dims", "scale", "forward"),
    dtypes=COMPLEX,
    samples=(
        call(fill(5), dims=(0,), scale="none", forward=True),
        call(fill(3, 4), dims=(0, 1), scale="ortho", forward=True),
        call(fill(2, 3, 4), dims=(2, 0), scale="n", forward=False),
    ),
    bad=(Bad((fill(3, dtype=int64),), RuntimeError, "fft_c2c: expected a complex", {"dims": (0,), "scale": "n", "forward": True}),),
    methods=(),
    functions=(),
)


def _r2c_infer(x: TensorType, dims: Dims, scale: str) -> TensorType:
    _of_kind("fft_r2c", "f", x)
    return TensorType(x.dtype.to_complex(), _with_size(x.shape, dims[-1], _halved(x.shape[dims[-1]])))


def _r2c_reference(xp: Any, x: Any, dims: Dims, scale: str) -> Any:
    if not x.size:
        shape = _with_size(x.shape, dims[-1], _halved(x.shape[dims[-1]]))
        return xp.zeros(shape, np.complex64 if x.dtype == np.float32 else np.complex128)
    return xp.fft.rfftn(x, axes=dims, norm=_FORWARD[scale])


def _r2c_grad(g: Any, out: Any, x: Any, dims: Dims, scale: str) -> tuple[Any]:
    whole = _fitted(g, dims[-1], x.shape[dims[-1]])
    return (real(c2c.run(whole, dims=dims, scale=scale, forward=False)),)


r2c: Op = Op(
    "fft_r2c",
    doc="The first half of the discrete Fourier transform of real numbers over `dims`, halved along the last of them.  "
    "[..., n] -> complex [..., n // 2 + 1].",
    signature="(x, *, dims, scale)",
    prepare=_given("dims", "scale"),
    infer=_r2c_infer,
    reference=_r2c_reference,
    grad=_r2c_grad,
    holomorphic=False,
    lowering=Host(),
    attrs=("dims", "scale"),
    dtypes=(float32, float64),
    samples=(
        call(fill(5), dims=(0,), scale="none"),
        call(fill(3, 4), dims=(0, 1), scale="ortho"),
        call(fill(2, 3, 4), dims=(2, 0), scale="n"),
    ),
    bad=(Bad((fill(3, dtype=int64),), RuntimeError, "fft_r2c: expected a real", {"dims": (0,), "scale": "n"}),),
    methods=(),
    functions=(),
)


def _c2r_infer(x: TensorType, dims: Dims, scale: str, size: Any) -> TensorType:
    _of_kind("fft_c2r", "c", x)
    if x.shape[dims[-1]] != _halved(size):
        raise RuntimeError(f"fft_c2r: {size} real numbers come from {_halved(size)} complex ones, got {x}")
    return TensorType(x.dtype.real, _with_size(x.shape, dims[-1], size))


def _c2r_reference(xp: Any, x: Any, dims: Dims, scale: str, size: int) -> Any:
    if not x.size:
        return xp.zeros(_with_size(x.shape, dims[-1], size), x.real.dtype)
    return xp.fft.irfftn(x, s=[*(x.shape[d] for d in dims[:-1]), size], axes=dims, norm=_INVERSE[scale])


def _c2r_grad(g: Any, out: Any, x: Any, dims: Dims, scale: str, size: Any) -> tuple[Any]:
    """Every element of the half but the first, and the middle of an even size, stands for two of the whole."""
    half = r2c.run(g, dims=dims, scale=scale)
    last, count = dims[-1], x.shape[dims[-1]]
    k = iota.run(size=count, dtype=int64)
    twice = Op.table["logical_and"](Op.table["gt"](k, 0), Op.table["lt"](k, size - count + 1))
    weight = cast(Op.table["add"](cast(twice, int64), 1), x.dtype.real)
    shape = tuple(count if d == last else 1 for d in range(x.ndim))
    return (Op.table["mul"](half, Op.table["reshape"](weight, shape)),)


c2r: Op = Op(
    "fft_c2r",
    doc="Real numbers from the first half of their spectrum over `dims`, `size` of them along the last.  "
    "complex [..., size // 2 + 1] -> [..., size].",
    signature="(x, *, dims, scale, size)",
    prepare=_given("dims", "scale", "size"),
    infer=_c2r_infer,
    reference=_c2r_reference,
    grad=_c2r_grad,
    holomorphic=False,
    lowering=Host(),
    attrs=("dims", "scale", "size"),
    dtypes=COMPLEX,
    samples=(
        call(fill(5), dims=(0,), scale="none", size=8),
        call(fill(3, 4), dims=(0, 1), scale="ortho", size=7),
        call(fill(2, 3, 4), dims=(2, 0), scale="n", size=2),
    ),
    bad=(Bad((fill(3),), RuntimeError, "fft_c2r: 8 real numbers come from 5", {"dims": (0,), "scale": "n", "size": 8}),),
    methods=(),
    functions=(),
)


# ---- arguments of the public functions -----------------------------------------------------------------------------


def _scale(name: str, norm: str | None, forward: bool) -> str:
    """The scale that a transform in this direction has by PyTorch's `norm`.  Raises RuntimeError."""
    scales = {None: "none" if forward else "n", "ortho": "ortho", "forward": "n" if forward else "none"}
    scales["backward"] = scales[None]
    if norm not in scales:
        raise RuntimeError(f'{name}: Invalid normalization mode: "{norm}"')
    return scales[norm]


def _numbers(name: str, input: Any, complex_allowed: bool = True) -> Any:
    """A floating or complex tensor; integers become the default floating dtype.  Raises RuntimeError, TypeError."""
    x = tensor(name, "input", input)
    if x.dtype.kind not in "fc":
        x = cast(x, get_default_dtype())
    if x.dtype in (float16, bfloat16):
        raise RuntimeError(f"{name}: Unsupported dtype {x.dtype}")
    if is_complex(x) and not complex_allowed:
        raise RuntimeError(f"{name}: expects a real input tensor, but got {of_type(x)}")
    return x


def _complex_numbers(x: Any) -> Any:
    return cast(x, x.dtype.to_complex())


def _checked_size(name: str, size: Any) -> Any:
    size = one_size(name, "s", size)
    if isinstance(size, int) and size < 1:
        raise RuntimeError(f"{name}: Invalid number of data points ({size}) specified")
    return size


def _line(name: str, x: Any, dim: int) -> int:
    if not x.ndim:
        raise IndexError(f"{name}: Dimension specified as {dim} but tensor has no dimensions")
    return one_dim(name, dim, x.ndim)


def _several(name: str, x: Any, s: Any, dim: Any) -> tuple[Dims, list[Any]]:
    """The dims to transform, and the sizes that they are cut or filled to.  Raises RuntimeError or IndexError."""
    sizes = None if s is None else [s] if isinstance(s, int) else list(s)
    if dim is not None:
        given = (dim,) if isinstance(dim, int) else tuple(dim)
        dims = tuple(_line(name, x, d) for d in given)
        if len(set(dims)) != len(dims):
            raise RuntimeError(f"{name}: FFT dims must be unique, got {given}")
        if sizes is not None and len(sizes) != len(dims):
            raise RuntimeError(f"{name}: When given, dim and shape arguments must have the same length")
    elif sizes is not None:
        if len(sizes) > x.ndim:
            raise RuntimeError(f"{name}: Got shape with {len(sizes)} values but input tensor only has {x.ndim} dimensions.")
        dims = tuple(range(x.ndim - len(sizes), x.ndim))
    else:
        dims = tuple(range(x.ndim))
    sizes = [-1] * len(dims) if sizes is None else sizes
    return dims, [_checked_size(name, x.shape[d] if n == -1 else n) for d, n in zip(dims, sizes, strict=True)]


def _several_fitted(x: Any, dims: Dims, sizes: list[Any]) -> Any:
    for d, n in zip(dims, sizes, strict=True):
        x = _fitted(x, d, n)
    return x


# ---- over dims: what every public function comes to ----------------------------------------------------------------


def _to_complex(name: str, input: Any, s: Any, dim: Any, norm: str | None, forward: bool) -> Any:
    """fftn, ifftn."""
    x = _complex_numbers(_numbers(name, input))
    dims, sizes = _several(name, x, s, dim)
    scale = _scale(name, norm, forward)
    return c2c.run(_several_fitted(x, dims, sizes), dims=dims, scale=scale, forward=forward) if dims else x


def _to_half(name: str, input: Any, s: Any, dim: Any, norm: str | None, forward: bool) -> Any:
    """rfftn; ihfftn is its conjugate, scaled as an inverse."""
    x = _numbers(name, input, complex_allowed=False)
    dims, sizes = _several(name, x, s, dim)
    if not dims:
        raise RuntimeError(f"{name}: must transform at least one axis")
    half = r2c.run(_several_fitted(x, dims, sizes), dims=dims, scale=_scale(name, norm, forward))
    return half if forward else conj(half)


def _to_real(name: str, input: Any, s: Any, dim: Any, norm: str | None, forward: bool) -> Any:
    """irfftn; hfftn is that of the conjugate, scaled as a forward transform."""
    x = _complex_numbers(_numbers(name, input))
    given = [s] if isinstance(s, int) else s
    if given is not None and not given:
        raise RuntimeError(f"{name}: must transform at least one axis")
    if given is not None and given[-1] == -1:
        given = [*given[:-1], None]
    if given is None:
        dims, sizes = _several(name, x, None, dim)
        size: Any = 2 * (x.shape[dims[-1]] - 1) if dims else 0
    else:
        size = given[-1]
        dims, sizes = _several(name, x, [*given[:-1], 1], dim)
        size = 2 * (x.shape[dims[-1]] - 1) if size is None else size
    if not dims:
        raise RuntimeError(f"{name}: must transform at least one axis")
    sizes[-1] = _halved(_checked_size(name, size))
    x = _several_fitted(x, dims, sizes)
    return c2r.run(conj(x) if forward else x, dims=dims, scale=_scale(name, norm, forward), size=size)


_KINDS = {"fft": _to_complex, "ifft": _to_complex, "rfft": _to_half, "ihfft": _to_half, "irfft": _to_real, "hfft": _to_real}
_FORWARDS = {"fft", "rfft", "hfft"}
_DOCS = {
    "fft": "Discrete Fourier transform",
    "ifft": "Inverse discrete Fourier transform",
    "rfft": "First half of the discrete Fourier transform of real numbers",
    "irfft": "Inverse of rfft: real numbers from half of a spectrum",
    "hfft": "Discrete Fourier transform, which is real, of numbers of which the first half is given and the rest is its conjugate",
    "ihfft": "Inverse of hfft: half of the inverse transform of real numbers",
}
_NORM = "norm: 'backward' (inverse transforms divide by the number of points), 'forward' (the others do) or 'ortho' (by its root)."
_BOTH = (float32, float64, *COMPLEX)


def _transform(kind: str, suffix: str) -> Op:
    run, forward, name = _KINDS[kind], kind in _FORWARDS, f"fft_{kind}{suffix}"
    public = f"fft.{kind}{suffix}"

    def one(input: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
        _line(public, tensor(public, "input", input), dim)
        return run(public, input, None if n is None else [n], [dim], norm, forward)

    def two(input: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Any:
        return run(public, input, s, dim, norm, forward)

    def many(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
        return run(public, input, s, dim, norm, forward)

    more = {"": "n", "2": "s", "n": "s"}[suffix]
    size: Any = 6 if more == "n" else (4, 6)
    dims: Any = 0 if suffix == "" else (0, 1)
    return Shorthand(
        name,
        doc=f"{_DOCS[kind]} over {'dim' if suffix == '' else 'dims'}, cut or filled with zeros to `{more}` points.  {_NORM}  "
        "[...] -> [...].",
        rule={"": one, "2": two, "n": many}[suffix],
        dtypes=(float32, float64) if kind in ("rfft", "ihfft") else _BOTH,
        samples=(
            call(fill(4, 5)),
            call(fill(3, 4), size),
            call(fill(4, 3, 2), dim=dims, norm="ortho"),
            call(fill(4, 5), norm="forward"),
        ),
        bad=(
            Bad((fill(3, 4),), RuntimeError, "Invalid normalization mode", {"norm": "half"}),
            Bad((fill(3, 4),), RuntimeError, "Invalid number of data points", {more: 0 if more == "n" else (3, 0)}),
            Bad((1.0,), TypeError, "argument 'input' must be a Tensor"),
        ),
        methods=(),
        functions=(public,),
        autocast="float32",
    )


TRANSFORMS = tuple(_transform(kind, suffix) for kind in _KINDS for suffix in ("", "2", "n"))


# ---- order and frequencies -----------------------------------------------------------------------------------------


def _shift(name: str, doc: str, by: Callable[[Any], Any]) -> Op:
    def rule(input: Any, dim: Any = None) -> Any:
        x = tensor(name, "input", input)
        dims = tuple(range(x.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
        dims = tuple(one_dim(name, d, x.ndim) for d in dims)
        return Op.table["roll"](x, tuple(by(x.shape[d]) for d in dims), dims) if dims else x

    return Shorthand(
        name.replace(".", "_"),
        doc=f"{doc}  [...] -> [...].",
        rule=rule,
        dtypes=(float32, int64, *COMPLEX),
        samples=(call(fill(5)), call(fill(3, 4)), call(fill(3, 4), 1), call(fill(3, 4), (0, 1))),
        bad=(Bad((fill(3), 1), IndexError, f"{name}: Dimension out of range"),),
        methods=(),
        functions=(name,),
    )


fftshift = _shift("fft.fftshift", "The zero frequency moved to the middle.", lambda n: n // 2)
ifftshift = _shift("fft.ifftshift", "The inverse of fftshift.", lambda n: (n + 1) // 2)


def _frequencies(name: str, doc: str, half: bool) -> Op:
    def rule(n: Any, d: float = 1.0, *, dtype: DType | None = None) -> Any:
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"fft.{name}: argument 'n' must be an int, not {type(n).__name__}")
        if n < 0:
            raise RuntimeError(f"fft.{name}: n must not be negative, got {n}")
        dtype = get_default_dtype() if dtype is None else require_dtype(f"fft.{name}", dtype)
        k = iota.run(size=_halved(n) if half else n, dtype=int64)
        if not half:
            behind = Op.table["ge"](k, (n + 1) // 2)
            k = Op.table["sub"](k, Op.table["mul"](cast(behind, int64), n))
        return Op.table["mul"](cast(k, dtype), 1.0 / (n * d) if n * d else float("inf"))

    return Shorthand(
        f"fft_{name}",
        doc=f"{doc}, for samples d apart.  () -> [{'n // 2 + 1' if half else 'n'}].",
        rule=rule,
        prepare=lambda n, d=1.0, *, dtype=None: ((), {"n": n, "d": d, "dtype": dtype}),
        attrs=("n", "d", "dtype"),
        grad=None,
        dtypes=(float32,),
        samples=(call(5), call(8, 0.5), call(4, dtype=float64)),
        bad=(
            Bad((2.5,), TypeError, f"fft.{name}: argument 'n' must be an int"),
            Bad((-1,), RuntimeError, f"fft.{name}: n must not be negative"),
        ),
        methods=(),
        functions=(),
    )


fftfreq = _frequencies("fftfreq", "The frequencies of fft", half=False)
rfftfreq = _frequencies("rfftfreq", "The frequencies of rfft", half=True)
