"""Every public operator gives what PyTorch's of the same name gives: values to rounding, dtypes and shapes exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.dtypes import DType, bool_, float32, float64, int32, int64
from graphc.eager.methods import public_function
from graphc.ir.op import Op
from op_checks import filled, flat, mapped

torch = pytest.importorskip("torch")

import opinfo  # noqa: E402  it needs PyTorch


def public_name(op: Op) -> str:
    """The operator's name in PyTorch; "" for a part of the IR that PyTorch has no operator for."""
    names = [*op.functions, *op.methods]
    return op.name if any(n.rpartition(".")[2] == op.name for n in names) else names[0].rpartition(".")[2] if names else ""


INTERNAL = {name for name, op in Op.table.items() if not public_name(op)}
# Other generators: never the same values.  (gamma_slope is how those of gamma change; PyTorch's is good to four digits.)
RANDOM = {"bernoulli", "dropout", "gamma_slope", "rand", "randint", "randn"}
# Operators with samples that PyTorch refuses and graphc takes.
WIDER = {
    "adaptive_avg_pool1d", "argmax", "argmin", "atan2", "floor_divide", "fmod", "fold_columns", "grouped_mm", "layer_norm",
    "logical_and", "logical_or", "logical_xor", "max_pool1d", "max_unpool1d", "max_unpool2d", "max_unpool3d", "maximum",
    "minimum", "one_hot", "pad", "prod", "remainder", "rms_norm", "round", "scaled_dot_product_attention", "unfold_columns",
}  # fmt: skip
MODERATE_ONLY = {"gelu"}  # PyTorch's vector code overflows
ULPS = {"float32": 1.2e-7, "float64": 2.3e-16}
PLACES = (torch, torch.nn.functional, torch.Tensor, torch.special, torch.linalg, torch.fft)
DTYPES = (float32, float64, int32, int64, bool_)


def in_torch(name: str, args: Any, kwargs: Any, functions: bool) -> Any:
    """What PyTorch gives; None where neither its function (if graphc has `functions` of the name) nor its method takes these."""
    places = [*[place for place in (torch.nn.functional, torch) if functions and hasattr(place, name)][:1], torch.Tensor]
    for place in places:
        try:
            return getattr(place, name)(*as_torch(args), **as_torch(kwargs))
        except (TypeError, RuntimeError, NotImplementedError, AttributeError):
            continue
    return None


def as_torch(value: Any) -> Any:
    """Tensors and dtypes as PyTorch's, through tuples, lists and dicts."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, DType):
        return getattr(torch, value.name)
    if isinstance(value, tuple | list):
        return type(value)(as_torch(v) for v in value)
    if isinstance(value, dict):
        return {k: as_torch(v) for k, v in value.items()}
    return value


def as_graphc(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return graphc.from_numpy(value.copy())
    if isinstance(value, tuple | list):
        return type(value)(as_graphc(v) for v in value)
    if isinstance(value, dict):
        return {k: as_graphc(v) for k, v in value.items()}
    return value


# PyTorch's own samples check these, in test_surface.
SAMPLED = {name for name, op in Op.table.items() if not opinfo.INFOS.keys().isdisjoint(op.functions)}
CASES = [(name, d) for name, op in Op.table.items() if name not in INTERNAL | RANDOM | SAMPLED for d in op.dtypes if d in DTYPES]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "dtype"), CASES, ids=lambda v: v if isinstance(v, str) else v.name)
def test_operator(name: str, dtype: DType) -> None:
    function = public_function(Op.table[name])
    rng = np.random.default_rng(7)
    for sample in Op.table[name].samples:
        args, kwargs = (mapped(v, lambda f: filled(f, dtype, rng)) for v in (sample.args, sample.kwargs))
        expected = in_torch(public_name(Op.table[name]), args, kwargs, bool(Op.table[name].functions))
        if expected is None:
            assert name in WIDER, f"PyTorch refuses {sample}"
            continue
        got = flat(function(*as_graphc(args), **as_graphc(kwargs)))
        assert len(got) == len(flat(expected)), sample
        for mine, other in zip(got, flat(expected), strict=True):
            assert f"{mine.dtype.name}{list(mine.shape)}" == f"{other.dtype}{list(other.shape)}".removeprefix("torch."), sample
            kept = np.abs(args[0]) < 1e6 if name in MODERATE_ONLY else ...
            assert_near(mine.numpy()[kept], other.numpy()[kept], sample)


def assert_near(a: np.ndarray, b: np.ndarray, sample: Any) -> None:
    """Equal, or for floating results equal to a few roundings of the largest."""
    if a.dtype.kind != "f":
        assert np.array_equal(a, b), sample
        return
    unit, scale = ULPS[a.dtype.name], np.abs(b[np.isfinite(b)]).max(initial=1.0)
    np.testing.assert_allclose(a, b, rtol=64 * unit, atol=32 * unit * scale, err_msg=str(sample))


@pytest.mark.parametrize("name", sorted(Op.table.keys() - INTERNAL))
def test_names_are_torchs(name: str) -> None:
    shown = public_name(Op.table[name])
    assert any(hasattr(place, shown) for place in PLACES)
