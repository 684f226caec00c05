"""Complex numbers: their parts, conjugates, angles, and the pairs of real numbers they are.

Enters: tensors.  Leaves: operators.  Never here: arithmetic, which is the same operators for every dtype.

No kernel knows complex numbers (`ir.op.effective_lowering`), so every operator on them runs on the host.  Gradients follow PyTorch:
that of a real function f of z = x + iy is df/dx + i df/dy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import bool_, complex64, float32, float64
from graphc.ir.op import Bad, Host, Op, TensorType, broadcast_shapes
from graphc.ops.arguments import constant, floating, of_type, tensor
from graphc.ops.arithmetic import mul
from graphc.ops.comparison import clone, eq, isnan, lt, where
from graphc.ops.declare import COMPLEX, EVERY_COMPLEX, FLOATING, Routed, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.joining import stack
from graphc.ops.movement import expand, slice_, squeeze
from graphc.ops.transcendental import atan2, cos, sin

_C = {"dtype": complex64}


def is_complex(x: Any) -> bool:
    """Whether a tensor's elements are complex."""
    return bool(x.dtype.kind == "c")


# ---- conjugates ----------------------------------------------------------------------------------------------------


def _conj_infer(x: TensorType) -> TensorType:
    if x.dtype.kind != "c":
        raise RuntimeError(f"conj: not defined for a tensor that is not complex: {x}")
    return x


conj: Op = Routed(
    "conj",
    doc="The complex conjugate; of real numbers, x itself.  (PyTorch gives a view, this is a tensor of its own.)  [...] -> [...].",
    signature="(x)",
    route=lambda op, x: op.run(x) if is_complex(tensor("conj", "x", x)) else x,
    prepare=lambda x: ((tensor("conj", "x", x),), {}),
    infer=_conj_infer,
    reference=lambda xp, x: xp.conj(x),
    grad=lambda g, out, x: (conj(g),),
    holomorphic=False,
    lowering=Host(),
    dtypes=COMPLEX,
    samples=(call(fill(3, 4)), call(fill()), call(fill(0, 2)), call(fill(3, dtype=float32))),
    bad=(Bad((1.0,), TypeError, "conj: argument 'x'"),),
    methods=("conj", "conj_physical"),
    functions=("conj", "conj_physical"),
)


def _itself(name: str, doc: str) -> Shorthand:
    return Shorthand(
        name,
        doc=f"{doc}  [...] -> [...].",
        rule=lambda input: tensor(name, "input", input),
        reference=lambda xp, x: x,
        dtypes=EVERY_COMPLEX,
        samples=(call(fill(2, 3)), call(fill())),
        bad=(Bad((1.0,), TypeError, f"{name}: argument 'input'"),),
    )


resolve_conj = _itself("resolve_conj", "x itself: a conjugate is never pending here.")
resolve_neg = _itself("resolve_neg", "x itself: a negation is never pending here.")


# ---- as pairs of real numbers --------------------------------------------------------------------------------------


def _as_real_infer(x: TensorType) -> TensorType:
    if x.dtype.kind != "c":
        raise RuntimeError(f"view_as_real is only supported for complex tensors, got {x}")
    return TensorType(x.dtype.real, (*x.shape, 2))


def _as_complex_infer(x: TensorType) -> TensorType:
    if x.dtype not in (float32, float64):
        raise RuntimeError(f"view_as_complex is only supported for float and double tensors, but got {x}")
    if not x.rank:
        raise RuntimeError(f"view_as_complex: Input tensor must have one or more dimensions, got {x}")
    if x.shape[-1] != 2:
        raise RuntimeError(f"view_as_complex: Tensor must have a last dimension of size 2, got {x}")
    return TensorType(x.dtype.to_complex(), x.shape[:-1])


def _as_complex_reference(xp: Any, x: Any) -> Any:
    if x.size and x.strides[-1] != x.itemsize:
        raise RuntimeError("view_as_complex: Tensor must have a last dimension with stride 1")
    return x.view(np.complex64 if x.dtype == np.float32 else np.complex128)[..., 0]


def _one(name: str) -> Any:
    def prepare(input: Any) -> Prepared:
        return (tensor(name, "input", input),), {}

    return prepare


view_as_real: Op = Op(
    "view_as_real",
    doc="Real and imaginary parts side by side, a view of the same memory.  complex [...] -> [..., 2].",
    signature="(input)",
    prepare=_one("view_as_real"),
    infer=_as_real_infer,
    reference=lambda xp, x: x[..., None].view(x.real.dtype),
    grad=lambda g, out, x: (view_as_complex.run(clone.run(g)),),
    holomorphic=False,
    lowering=Host(),
    dtypes=COMPLEX,
    samples=(call(fill(3, 4)), call(fill()), call(fill(0, 2))),
    bad=(
        Bad((fill(2, dtype=float32),), RuntimeError, "view_as_real is only supported for complex tensors"),
        Bad((1.0,), TypeError, "view_as_real: argument 'input'"),
    ),
    methods=(),
)

view_as_complex: Op = Op(
    "view_as_complex",
    doc="Pairs of real numbers as complex numbers, a view of the same memory; the last dim must lie together.  [..., 2] -> complex "
    "[...].",
    signature="(input)",
    prepare=_one("view_as_complex"),
    infer=_as_complex_infer,
    reference=_as_complex_reference,
    grad=lambda g, out, x: (view_as_real.run(g),),
    holomorphic=False,
    lowering=Host(),
    dtypes=(float32, float64),
    samples=(call(fill(3, 4, 2)), call(fill(2)), call(fill(0, 2))),
    bad=(
        Bad((fill(3),), RuntimeError, "view_as_complex: Tensor must have a last dimension of size 2"),
        Bad((fill(),), RuntimeError, "view_as_complex: Input tensor must have one or more dimensions"),
        Bad((fill(2, dtype=bool_),), RuntimeError, "view_as_complex is only supported for float and double tensors"),
    ),
    methods=(),
    autocast="float32",
)


def _part(x: Any, at: int) -> Any:
    """A view of the real (0) or imaginary (1) parts."""
    pairs = view_as_real.run(x)
    last = pairs.ndim - 1
    starts, stops = (0,) * last, tuple(x.shape)
    chosen = slice_.run(pairs, starts=(*starts, at), stops=(*stops, at + 1), steps=(1,) * pairs.ndim)
    return squeeze.run(chosen, dims=(last,))


def _real(input: Any) -> Any:
    x = tensor("real", "input", input)
    return _part(x, 0) if is_complex(x) else x


def _imag(input: Any) -> Any:
    x = tensor("imag", "input", input)
    if not is_complex(x):
        raise RuntimeError(f"imag is not implemented for tensors with non-complex dtypes, got {of_type(x)}")
    return _part(x, 1)


real = Shorthand(
    "real",
    doc="Real parts, a view of the same memory; of real numbers, x itself.  [...] -> [...].",
    rule=_real,
    reference=lambda xp, x: xp.real(x),
    dtypes=EVERY_COMPLEX,
    samples=(call(fill(3, 4)), call(fill()), call(fill(0, 2))),
    bad=(Bad((1.0,), TypeError, "real: argument 'input'"),),
    methods=(),
)
imag = Shorthand(
    "imag",
    doc="Imaginary parts, a view of the same memory.  complex [...] -> [...].",
    rule=_imag,
    reference=lambda xp, x: xp.imag(x),
    dtypes=COMPLEX,
    samples=(call(fill(3, 4)), call(fill()), call(fill(0, 2))),
    bad=(Bad((fill(2, dtype=float32),), RuntimeError, "imag is not implemented for tensors with non-complex dtypes"),),
    methods=(),
)


def _parts(name: str, arguments: tuple[str, str], x: Any, y: Any) -> tuple[Any, Any]:
    """Two real tensors of one dtype that complex numbers can be made of.  Raises RuntimeError."""
    x, y = tensor(name, arguments[0], x), tensor(name, arguments[1], y)
    for part in (x, y):
        if part.dtype not in (float32, float64):
            raise RuntimeError(f"{name}: Expected both inputs to be Float or Double tensors but got {of_type(x)} and {of_type(y)}")
    if x.dtype is not y.dtype:
        raise RuntimeError(f"{name}: Expected object of scalar type {x.dtype} but got {y.dtype} for second argument")
    return x, y


def _complex(real: Any, imag: Any) -> Any:
    parts = _parts("complex", ("real", "imag"), real, imag)
    shape = broadcast_shapes("complex", [tuple(x.shape) for x in parts])
    return view_as_complex.run(stack([expand.run(x, shape=shape) for x in parts], -1))


complex_ = Shorthand(
    "complex",
    doc="real + i imag.  [...] , [...] -> complex broadcast.",
    rule=_complex,
    reference=lambda xp, real, imag: (real + 0j * imag) + xp.asarray(imag).astype(real.dtype) * xp.asarray(1j, (real + 0j).dtype),
    dtypes=(float32, float64),
    samples=(call(fill(3, 4), fill(3, 4)), call(fill(2, 1), fill(3)), call(fill(), fill())),
    bad=(
        Bad((fill(2), fill(2, dtype=bool_)), RuntimeError, "complex: Expected both inputs to be Float or Double"),
        Bad((fill(2, dtype=float32), fill(2, dtype=float64)), RuntimeError, "complex: Expected object of scalar type"),
    ),
    methods=(),
)


def _polar(abs: Any, angle: Any) -> Any:
    size, angle = _parts("polar", ("abs", "angle"), abs, angle)
    return _complex(mul(size, cos(angle)), mul(size, sin(angle)))


polar = Shorthand(
    "polar",
    doc="abs * (cos(angle) + i sin(angle)).  [...] , [...] -> complex broadcast.",
    rule=_polar,
    reference=lambda xp, abs, angle: (abs * xp.cos(angle) + 1j * (abs * xp.sin(angle))).astype((abs + 0j).dtype),
    dtypes=(float32, float64),
    samples=(call(fill(3, 4, low=0.1), fill(3, 4)), call(fill(2, 1, low=0.1), fill(3)), call(fill(low=0.1), fill())),
    bad=(Bad((fill(2), fill(2, dtype=bool_)), RuntimeError, "polar: Expected both inputs to be Float or Double"),),
    methods=(),
    autocast="float32",
)


# ---- angles and tests ----------------------------------------------------------------------------------------------


def _angle(input: Any) -> Any:
    x = floating("angle", "input", input)
    if is_complex(x):
        return atan2(_part(x, 1), _part(x, 0))
    turned = where(lt(x, 0), constant(math.pi, x.dtype), constant(0, x.dtype))
    return where(isnan(x), x, turned)


def _angle_reference(xp: Any, x: Any) -> Any:
    x = x if x.dtype.kind not in "biu" else x.astype(np.float32)
    return xp.where(xp.isnan(x), x.real, xp.angle(x)).astype(x.real.dtype)


angle = Shorthand(
    "angle",
    doc="The angle of complex numbers in (-pi, pi]; of real ones 0, or pi if negative.  [...] -> [...].",
    rule=_angle,
    reference=_angle_reference,
    dtypes=(*FLOATING[:2], *COMPLEX),
    samples=(call(fill(3, 4)), call(fill()), call(fill(0, 2))),
    bad=(Bad((1.0,), TypeError, "angle: argument 'input'"),),
)


def _isreal(input: Any) -> Any:
    x = tensor("isreal", "input", input)
    return eq(_part(x, 1), 0) if is_complex(x) else constant(True, bool_, tuple(x.shape))


isreal = Shorthand(
    "isreal",
    doc="Whether the imaginary part is 0.  [...] -> bool [...].",
    rule=_isreal,
    reference=lambda xp, x: xp.isreal(x),
    grad=None,
    dtypes=EVERY_COMPLEX,
    samples=(call(fill(3, 4)), call(fill()), call(fill(0, 2))),
    bad=(Bad((1.0,), TypeError, "isreal: argument 'input'"),),
)
