"""Runs graphc on PyTorch's own samples of every operator and compares: values, dtypes, forms, gradients, compiled code, errors.

The samples are those that PyTorch tests itself with (`torch.testing._internal.common_methods_invocations.op_db`), so shapes,
dtypes, keyword arguments, non-contiguous, 0-dim and empty inputs are theirs.  ``python tests/parity/opinfo.py NAME...`` shows
what fails; ``--dtype float32``, ``--check eager`` and ``--all`` (every sample, not a spread of them) narrow or widen it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import ml_dtypes
import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db

import graphc
import graphc.nn.functional

FEW = 4  # samples
CHECKS = ("eager", "forms", "grad", "gradgrad", "compiled", "errors")
DTYPES = {
    d: getattr(torch, d)
    for d in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64",
              "complex128")
}  # fmt: skip
# relative and absolute tolerance against PyTorch, which accumulates in other orders and uses other polynomials
TOLERANCE = {
    "float16": (4e-3, 4e-3), "bfloat16": (3.2e-2, 3.2e-2), "float32": (2e-5, 2e-5), "complex64": (2e-5, 2e-5),
    "float64": (1e-7, 1e-7), "complex128": (1e-7, 1e-7),
}  # fmt: skip
# other generators, or memory nobody wrote to: types are compared, values are not
UNSPECIFIED = {
    "bernoulli", "cauchy", "empty", "empty_like", "empty_permuted", "empty_strided", "exponential", "geometric", "log_normal",
    "multinomial", "new_empty", "new_empty_strided", "nn.functional.alpha_dropout", "nn.functional.dropout",
    "nn.functional.dropout2d", "nn.functional.dropout3d", "nn.functional.feature_alpha_dropout",
    "nn.functional.fractional_max_pool2d", "nn.functional.fractional_max_pool3d", "nn.functional.rrelu", "normal",
    "rand_like", "randint", "randint_like", "randn", "randn_like", "uniform", "resize_", "resize_as_",
}  # fmt: skip
# operators that find one of several equal elements: which one is not specified; the position of `dim` among their arguments
TIES = {"sort": 0, "argsort": 0, "topk": 1, "kthvalue": 1, "median": 0, "nanmedian": 0, "mode": 0}
# operators that read what lies between a tensor's elements: memory nobody wrote to, where those have gaps
READS_GAPS = {"as_strided", "as_strided_copy", "as_strided_scatter"}
# what they give, or how large it is, depends on elements, for some samples: `graphc.compile` runs those eagerly and says so
READ_ELEMENTS = {
    "equal", "index_put", "item", "linspace", "masked_select", "nn.functional.one_hot", "nonzero", "tensor_split", "unique",
    "unique_consecutive",
}  # fmt: skip
# operators whose samples come in another order than the function takes them
ORDERS: dict[str, Callable[..., Any]] = {
    "where": lambda f: lambda x, condition, other, **how: f(condition, x, other, **how),
    "zero_": lambda f: lambda x: f(x.clone()),
    "normal": lambda f: (
        lambda x, *args, **how: (graphc.Tensor.normal_ if len(args) == 2 and isinstance(x, graphc.Tensor) else f)(x, *args, **how)
    ),
    "einsum": lambda f: lambda operands, equation, **how: f(equation, operands, **how),
    "nn.functional.embedding": lambda f: lambda weight, index, **how: f(index, weight, **how),
    "nn.functional.embedding_bag": lambda f: lambda weight, index, **how: f(index, weight, **how),
    **{name: lambda f: f.fget for name in ("T", "H", "mT", "mH")},  # properties
}
# operators whose results are unique up to signs or units: compared as PyTorch's own samples do for gradients
UP_TO_UNITS = {"linalg.svd", "svd", "linalg.eigh", "linalg.eig"}
# wider tolerances: PyTorch sums a Taylor series in float32 there
SCALES = {"matrix_exp": 50.0, "polygamma": 2.0, "special.polygamma": 2.0}
# at poles PyTorch divides by a sine that is not quite 0
POLES = {"polygamma", "special.polygamma"}
INFOS: dict[str, list[Any]] = {}
for _info in op_db:
    INFOS.setdefault(_info.name, []).append(_info)


@dataclass
class Outcome:
    """What one check of one operator came to: how many comparisons were made, and what failed."""

    tried: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.failures


# ---- PyTorch's values as graphc's --------------------------------------------------------------------------------------


def array_of(x: torch.Tensor) -> np.ndarray[Any, Any]:
    """The elements of a tensor with its strides."""
    x = x.detach().resolve_conj().resolve_neg()
    x = x.clone() if x._is_zerotensor() else x
    if x.dtype is torch.bfloat16:
        return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def to_graphc(value: Any, memo: dict[Any, Any]) -> Any:
    """Tensors, dtypes and what holds them; one tensor becomes one tensor."""
    if isinstance(value, torch.Tensor):
        if id(value) not in memo:
            array = array_of(value)
            memory = _memory(value, array, memo)
            copy = np.lib.stride_tricks.as_strided(memory, array.shape, array.strides) if array.size else array.copy()
            made = graphc.from_numpy(copy)
            memo[id(value)] = made.requires_grad_() if value.requires_grad else made
        return memo[id(value)]
    if isinstance(value, torch.dtype):
        return getattr(graphc, str(value).removeprefix("torch."))
    if isinstance(value, torch.device):
        return graphc.device("cpu")
    if isinstance(value, torch.memory_format | torch.layout):
        return getattr(graphc, str(value).removeprefix("torch."))
    if isinstance(value, torch.Size):
        return graphc.Size(value)
    if isinstance(value, torch.nn.PairwiseDistance):
        return graphc.nn.functional.pairwise_distance
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_graphc(v, memo) for v in value))
    if isinstance(value, tuple | list):
        return type(value)(to_graphc(v, memo) for v in value)
    if isinstance(value, dict):
        return {k: to_graphc(v, memo) for k, v in value.items()}
    return value


def _memory(value: torch.Tensor, array: np.ndarray[Any, Any], memo: dict[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy of the memory behind `array`, from its first element on; one copy for all tensors of one storage."""
    first = value.untyped_storage().data_ptr()
    at = array.__array_interface__["data"][0] - first
    span = 1 + sum((n - 1) * s // array.itemsize for n, s in zip(array.shape, array.strides, strict=True))
    if value.is_conj() or value.is_neg() or value._is_zerotensor() or at % array.itemsize:
        return np.lib.stride_tricks.as_strided(array, (span,), (array.itemsize,)).copy()
    key = (first, array.dtype)
    if key not in memo:
        whole = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage())  # type: ignore[call-overload]
        memo[key] = array_of(whole).copy()
    return memo[key][at // array.itemsize :]  # type: ignore[no-any-return]


def draws(sample: Any) -> bool:
    """Whether a call of attention drops weights: PyTorch's generator is another."""
    dropout_p = sample.kwargs.get("dropout_p", sample.args[9] if len(sample.args) > 9 else 0)
    return isinstance(dropout_p, float) and dropout_p > 0 and sample.kwargs.get("training", True)


def leaves(value: Any) -> list[Any]:
    """What nested tuples, lists and dicts hold, in order."""
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size | graphc.Size):
        return [x for v in value for x in leaves(v)]
    if isinstance(value, dict):
        return [x for v in value.values() for x in leaves(v)]
    return [value]


# ---- comparing ---------------------------------------------------------------------------------------------------------


def compare(ours: Any, theirs: Any, values: bool = True, scale: float = 1.0) -> None:
    """Raises AssertionError where structure, dtype, shape or values differ."""
    mine, wanted = leaves(ours), leaves(theirs)
    assert len(mine) == len(wanted), f"{len(mine)} results, PyTorch gives {len(wanted)}"
    for a, b in zip(mine, wanted, strict=True):
        if isinstance(b, torch.Tensor):
            assert isinstance(a, graphc.Tensor), f"{type(a).__name__}, PyTorch gives a tensor"
            assert a.dtype.name == str(b.dtype).removeprefix("torch."), f"{a.dtype}, PyTorch gives {b.dtype}"
            assert tuple(a.shape) == tuple(b.shape), f"shape {tuple(a.shape)}, PyTorch gives {tuple(b.shape)}"
            if values:
                _close(np.asarray(a.detach().numpy()), array_of(b), a.dtype.name, scale)
        elif isinstance(b, torch.dtype | torch.device | torch.Size):
            assert str(a).split(".")[-1] == str(b).split(".")[-1] or tuple(a) == tuple(b)
        elif values:
            same = a == b or (isinstance(b, float) and np.isclose(a, b, rtol=1e-6, equal_nan=True))
            assert type(a) is type(b) and same, f"{a!r}, PyTorch gives {b!r}"


def agreeing(name: str, sample: Any, ours: Any, theirs: Any) -> Any:
    """`ours` with PyTorch's places, where the elements there are the same."""
    mine, wanted = leaves(ours), leaves(theirs)
    if name in POLES and isinstance(ours, graphc.Tensor) and ours.shape == theirs.shape:
        return graphc.where(ours.isinf() & (graphc.from_numpy(array_of(theirs.double().abs())) > 1e12), to_graphc(theirs, {}), ours)
    if name not in TIES or len(mine) != len(wanted) or not sample.input.ndim or len(wanted) == 1 and name != "argsort":
        return ours
    x, dim = array_of(sample.input), sample.kwargs.get("dim", sample.args[TIES[name]] if len(sample.args) > TIES[name] else -1)
    if x.shape[dim] == 0 or tuple(mine[-1].shape) != tuple(wanted[-1].shape):
        return ours
    places = [np.asarray(mine[-1].numpy()), wanted[-1].numpy()]
    places = [np.expand_dims(p, dim) if p.ndim < x.ndim else p for p in places]
    a, b = (np.take_along_axis(x, p, dim) for p in places)
    return [*mine[:-1], graphc.from_numpy(wanted[-1].numpy().copy())] if ((a == b) | ((a != a) & (b != b))).all() else ours


def _close(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], dtype: str, scale: float) -> None:
    rtol, atol = TOLERANCE.get(dtype, (0.0, 0.0))
    if dtype in ("bfloat16", "float16"):
        a, b = a.astype(np.float32), b.astype(np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(a, b, rtol=rtol * scale, atol=atol * scale, equal_nan=True)


# ---- the two sides of one call -----------------------------------------------------------------------------------------


def function_of(name: str, variant: str = "") -> Callable[..., Any] | None:
    """graphc's function of PyTorch's name, or its Tensor method; of a variant, as PyTorch's samples call it."""
    if (name, variant) == ("linalg.pinv", "singular"):
        return lambda a, b: graphc.linalg.pinv(a @ b.mT)
    if (name, variant) == ("linalg.lstsq", "grad_oriented"):
        return lambda a, b, driver: graphc.linalg.lstsq(a, b, driver=driver)[:2]
    found: Any = graphc
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            break
    found = found if callable(found) else getattr(graphc.Tensor, name, getattr(graphc.Tensor, f"{name}_", None))
    return ORDERS[name](found) if name in ORDERS and found is not None else found


def samples(info: Any, dtype: torch.dtype, requires_grad: bool, limit: int) -> list[Any]:
    """A spread of at most `limit` of the operator's samples."""
    np.random.seed(0)
    random.seed(0)
    # PyTorch seeds before and after each sample; for devices that are not there it writes down the stack each time
    with mock.patch.object(torch, "manual_seed", torch.default_generator.manual_seed), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("ignore")
        found = list(itertools.islice(info.sample_inputs("cpu", dtype, requires_grad=requires_grad), 400))
        if not requires_grad and limit > 4 and info.name not in READS_GAPS:
            found += [s.noncontiguous() for s in found[:3]]
    if len(found) <= limit:
        return found
    return [found[i] for i in sorted({round(k * (len(found) - 1) / (limit - 1)) for k in range(limit)})]


def taking_turns(found: list[Any], k: int) -> list[Any]:
    """In a run of few samples, one of them for the dtypes after the first (k = 0), another one for each."""
    return found[k % len(found) :: len(found)] if k > 0 and 1 < len(found) <= FEW else found


def few_dtypes(info: Any, names: list[str], limit: int) -> list[str]:
    """In a run of few samples, the first three dtypes and every third of the others, other ones for each operator."""
    return names if limit > FEW else [*names[:3], *names[3 + len(info.name) % 3 :: 3]]


def shown(sample: Any) -> str:
    """A sample in a few words."""

    def word(v: Any) -> str:
        if isinstance(v, torch.Tensor):
            plain = "" if v.is_contiguous() else f" strides {list(v.stride())}"
            return f"{str(v.dtype).removeprefix('torch.')}{list(v.shape)}{plain}"
        if isinstance(v, tuple | list):
            return f"({', '.join(map(word, v))})"
        return repr(v)

    words = [word(sample.input), *map(word, sample.args), *(f"{k}={word(v)}" for k, v in sample.kwargs.items())]
    return f"({', '.join(words)})"


def dtypes_of(info: Any, only: str | None) -> list[str]:
    """The dtypes that PyTorch supports for the operator and graphc has."""
    return [name for name, d in DTYPES.items() if d in info.dtypes and only in (None, name)]


@contextlib.contextmanager
def noted(outcome: Outcome, what: str, sample: Any) -> Iterator[None]:
    """Counts one comparison and notes its failure."""
    outcome.tried += 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:300]
        place = f"{where.filename.rsplit('/', 1)[-1]}:{where.lineno}"
        outcome.failures.append(f"{what} {shown(sample)}: {type(error).__name__}: {text} [{place}]")


def torch_result(call: Callable[..., Any], sample: Any) -> Any:
    """PyTorch's result, or the exception it raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(sample.input, *sample.args, **sample.kwargs)
    except Exception as error:
        return error


def ours_of(sample: Any) -> tuple[Any, Any, Any, dict[int, Any]]:
    """The sample's arguments for graphc, and what each tensor became."""
    memo: dict[int, Any] = {}
    return to_graphc(sample.input, memo), to_graphc(sample.args, memo), to_graphc(sample.kwargs, memo), memo


# ---- the checks --------------------------------------------------------------------------------------------------------


def check_eager(info: Any, only: str | None, limit: int) -> Outcome:
    """The function gives PyTorch's values for every dtype PyTorch supports."""
    outcome, function = Outcome(), function_of(info.name, info.variant_test_name)
    values = info.name not in UNSPECIFIED
    for k, dtype in enumerate(few_dtypes(info, dtypes_of(info, only), limit)):
        for sample in taking_turns(samples(info, DTYPES[dtype], False, limit), k):
            theirs = torch_result(info.op, clone(sample))
            if isinstance(theirs, Exception) or is_half_complex(theirs):
                continue
            with noted(outcome, dtype, sample):
                assert function is not None, f"graphc has no {info.name}"
                x, args, kwargs, _ = ours_of(sample)
                ours = agreeing(info.name, sample, function(x, *args, **kwargs), theirs)
                if info.name in UP_TO_UNITS:
                    ours, theirs = without_signs(sample, ours), without_signs(sample, theirs)
                try:
                    compare(ours, theirs, values and not draws(sample), SCALES.get(info.name, 1.0))
                except AssertionError:
                    if dtype not in ("float16", "bfloat16") or not no_worse(info.op, sample, ours, theirs):
                        raise
    return outcome


def no_worse(op: Callable[..., Any], sample: Any, ours: Any, theirs: Any) -> bool:
    """Whether results of 16 bits are as near to PyTorch's in float64 as its own of 16 bits are: it rounds at other places."""
    wide = sample.transform(lambda v: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v)
    exact = torch_result(op, wide.transform(lambda v: torch.float64 if v in (torch.float16, torch.bfloat16) else v))
    mine, wanted, right = leaves(ours), leaves(theirs), leaves(exact)
    if isinstance(exact, Exception) or not len(mine) == len(wanted) == len(right):
        return False
    for a, b, c in zip(mine, wanted, right, strict=True):
        if not isinstance(b, torch.Tensor) or a.dtype.name != str(b.dtype).removeprefix("torch.") or a.shape != b.shape:
            return False
        p, q, r = (array_of(t).astype(np.float64) for t in (torch.from_numpy(a.float().numpy()), b, c))
        with np.errstate(all="ignore"):
            off, allowed = np.abs(p - r), np.abs(q - r).max(initial=0) + TOLERANCE[a.dtype.name][0] * np.abs(r)
            if not ((off <= allowed) | (p == r) | (np.isnan(p) & np.isnan(r))).all():
                return False
    return True


def clone(sample: Any) -> Any:
    """The sample with tensors of its own (strides as they are), for operators that write."""

    def cloned(v: Any) -> Any:
        if not isinstance(v, torch.Tensor):
            return v
        copy = v.detach().clone()
        if v.numel() and 0 not in v.stride() and copy.stride() != v.stride():
            copy = torch.empty_strided(v.shape, v.stride(), dtype=v.dtype).copy_(v.detach())
        return copy.requires_grad_(v.requires_grad)

    return sample.transform(cloned)


def without_signs(sample: Any, results: Any) -> Any:
    """Factors as PyTorch's own tests compare them, and nothing whose columns have free signs."""
    processed = sample.output_process_fn_grad(results)
    return leaves(processed) if processed is not results else [abs(x) for x in leaves(results)]


def is_half_complex(theirs: Any) -> bool:
    """Whether a result of PyTorch's has a dtype that graphc lacks: complex numbers of float16."""
    return any(isinstance(x, torch.Tensor) and x.dtype is torch.complex32 for x in leaves(theirs))


def check_forms(info: Any, only: str | None, limit: int) -> Outcome:
    """The method, the in-place method, the operator and ``out=`` give what the function gives."""
    outcome = Outcome()
    values = info.name not in UNSPECIFIED
    short = info.name.rsplit(".", 1)[-1]
    for k, dtype in enumerate([d for d in dtypes_of(info, only) if d in ("float32", "int64", "bool")][:2]):
        for sample in taking_turns(samples(info, DTYPES[dtype], False, min(limit, FEW)), k):
            for form, call in forms_of(info):
                theirs = torch_result(call, clone(sample))
                if isinstance(theirs, Exception):
                    continue
                with noted(outcome, f"{form} {dtype}", sample):
                    x, args, kwargs, _ = ours_of(sample)
                    ours = form_of(info, form, call, short, type(x))
                    ours = agreeing(info.name, sample, ours(x, *args, **kwargs), theirs)
                    if info.name in UP_TO_UNITS:
                        ours, theirs = without_signs(sample, ours), without_signs(sample, theirs)
                    compare(ours, theirs, values, SCALES.get(info.name, 1.0))
            theirs = torch_result(info.op, sample) if info.supports_out and values else None
            if isinstance(theirs, torch.Tensor):
                with noted(outcome, f"out= {dtype}", sample):
                    x, args, kwargs, _ = ours_of(sample)
                    out = to_graphc(torch.empty_like(theirs), {})
                    function = function_of(info.name, info.variant_test_name)
                    assert function is not None, f"graphc has no {info.name}"
                    assert function(x, *args, **kwargs, out=out) is out
                    compare(out, theirs, scale=SCALES.get(info.name, 1.0))
    return outcome


def form_of(info: Any, form: str, call: Callable[..., Any], short: str, tensor: type) -> Callable[..., Any]:
    """graphc's counterpart of a form.  An in-place form without a name is the function's ``inplace=True``."""
    if "operator" in form:
        return call
    if form != "in-place":
        return getattr(tensor, short)  # type: ignore[no-any-return]
    if call.__name__ == "<lambda>":
        inplace: Callable[..., Any] = functools.partial(function_of(info.name, info.variant_test_name) or call, inplace=True)
        return getattr(tensor, f"{short}_", inplace)
    return getattr(tensor, call.__name__)  # type: ignore[no-any-return]


def forms_of(info: Any) -> list[tuple[str, Callable[..., Any]]]:
    """The method, in-place method and operator functions PyTorch has for it."""
    found = [("method", info.method_variant), ("in-place", info.inplace_variant), ("operator", info.operator_variant)]
    found.append(("in-place operator", info.inplace_operator_variant))
    return [(form, call) for form, call in found if callable(call) and hasattr(call, "__name__")]


def check_grad(info: Any, only: str | None, limit: int, second: bool = False) -> Outcome:
    """Gradients (and, with `second`, gradients of gradients) of a weighted sum of the results are PyTorch's."""
    outcome, function = Outcome(), function_of(info.name, info.variant_test_name)
    if not info.supports_autograd or (second and not info.supports_gradgrad) or info.name in UNSPECIFIED:
        return outcome
    for dtype in [d for d in dtypes_of(info, only) if d in ("float64", "complex128")]:
        if DTYPES[dtype] not in info.supported_backward_dtypes("cpu"):
            continue
        for sample in samples(info, DTYPES[dtype], True, min(limit, 6 if second else 10)):
            theirs = None if draws(sample) else torch_gradients(info, sample, second)
            if theirs is None:
                continue
            with noted(outcome, dtype, sample):
                assert function is not None, f"graphc has no {info.name}"
                x, args, kwargs, memo = ours_of(sample)
                wanted = [v for v in leaves((sample.input, sample.args, sample.kwargs)) if isinstance(v, torch.Tensor)]
                inputs = [memo[id(v)] for v in wanted if v.requires_grad]
                ours = function(x, *args, **kwargs)
                ours = sample.output_process_fn_grad(ours) if info.name.startswith("linalg.") or info.name in UP_TO_UNITS else ours
                compare(gradients(graphc, ours, inputs, second), theirs, scale=10.0)
    return outcome


def torch_gradients(info: Any, sample: Any, second: bool) -> list[Any] | None:
    """PyTorch's gradients of a sample; None where it has none."""
    result = torch_result(info.op, sample)
    if not isinstance(result, Exception) and (info.name.startswith("linalg.") or info.name in UP_TO_UNITS):
        result = sample.output_process_fn_grad(result)
    inputs = [v for v in leaves((sample.input, sample.args, sample.kwargs)) if isinstance(v, torch.Tensor) and v.requires_grad]
    if isinstance(result, Exception) or not inputs:
        return None
    try:
        return gradients(torch, result, inputs, second)
    except RuntimeError:
        return None


def gradients(library: Any, result: Any, inputs: list[Any], second: bool) -> list[Any]:
    """Gradients of the sum of results times fixed weights; zeros for inputs that do not take part."""
    results = [r for r in leaves(result) if isinstance(r, library.Tensor) and r.requires_grad]
    if not results:
        raise RuntimeError("no result requires grad")
    weights = [weights_for(library, r, k) for k, r in enumerate(results)]
    firsts = library.autograd.grad(results, inputs, weights, create_graph=second, allow_unused=True)
    if not second:
        return [library.zeros_like(x) if g is None else g for x, g in zip(inputs, firsts, strict=True)]
    firsts = [g for g in firsts if g is not None and g.requires_grad]
    if not firsts:
        return [library.zeros_like(x) for x in inputs]
    weights = [weights_for(library, g, k + 7) for k, g in enumerate(firsts)]
    seconds = library.autograd.grad(firsts, inputs, weights, allow_unused=True)
    return [library.zeros_like(x) if g is None else g for x, g in zip(inputs, seconds, strict=True)]


def weights_for(library: Any, like: Any, seed: int) -> Any:
    """The same weights in either library."""
    rng = np.random.default_rng(seed)
    shape, name = tuple(like.shape), str(like.dtype).split(".")[-1]
    array = rng.uniform(0.5, 1.5, shape) + (1j * rng.uniform(0.5, 1.5, shape) if "complex" in name else 0)
    return library.from_numpy(np.asarray(array)).to(like.dtype)


def check_compiled(info: Any, only: str | None, limit: int) -> Outcome:
    """Compiled code gives eager's results in every bit."""
    outcome, function = Outcome(), function_of(info.name, info.variant_test_name)
    for k, dtype in enumerate([d for d in dtypes_of(info, only) if d in ("float32", "int64", "bool", "complex64")][:2]):
        for sample in taking_turns(samples(info, DTYPES[dtype], False, min(limit, 3)), k):
            if isinstance(torch_result(info.op, clone(sample)), Exception):
                continue
            with noted(outcome, dtype, sample):
                assert function is not None, f"graphc has no {info.name}"
                graphc.manual_seed(3)
                x, args, kwargs, _ = ours_of(sample)
                expected = function(x, *args, **kwargs)
                graphc.manual_seed(3)
                x, args, kwargs, _ = ours_of(sample)
                compiled = graphc.compile(lambda x, a, k: function(x, *a, **k))
                found = compiled(x, args, kwargs)
                fallbacks = compiled.stats()["fallbacks"]
                assert not fallbacks or info.name in READ_ELEMENTS, f"ran eagerly: {fallbacks}"
                if info.name not in UNSPECIFIED or "empty" not in info.name:
                    same_bits(found, expected)
    return outcome


def same_bits(a: Any, b: Any) -> None:
    """Raises AssertionError unless the results are the same in every bit (any NaN for a NaN)."""
    for x, y in zip(leaves(a), leaves(b), strict=True):
        if isinstance(x, graphc.Tensor):
            assert x.dtype is y.dtype and tuple(x.shape) == tuple(y.shape), f"{x.dtype}{x.shape} compiled, {y.dtype}{y.shape}"
            p, q = np.ascontiguousarray(x.detach().numpy()), np.ascontiguousarray(y.detach().numpy())
            bits = f"u{p.itemsize}" if p.itemsize <= 8 else "u8"
            same = (p.view(bits) == q.view(bits)).all() or ((p == q) | (np.isnan(p) & np.isnan(q))).all()
            assert same, "compiled and eager differ"
        else:
            assert x == y or x != x


def check_errors(info: Any, only: str | None, limit: int) -> Outcome:
    """Calls that PyTorch refuses fail with the same class of error."""
    outcome, function = Outcome(), function_of(info.name, info.variant_test_name)
    if info.error_inputs_func is None or only not in (None, "float32"):
        return outcome
    for error in itertools.islice(info.error_inputs("cpu"), limit):
        sample = error.sample_input
        if isinstance(sample.input, torch.Tensor) and sample.input.ndim > 64:
            continue  # NumPy has no such array
        ours = torch_result(lambda *_, sample=sample, **__: ours_of(sample), sample)  # before PyTorch writes to out=
        theirs = torch_result(info.op, sample)
        if not isinstance(theirs, Exception):
            continue
        with noted(outcome, "error", sample):
            assert function is not None, f"graphc has no {info.name}"
            try:
                if isinstance(ours, Exception):
                    raise ours
                x, args, kwargs, _ = ours
                function(x, *args, **kwargs)
            except error.error_type:
                continue
            except type(theirs):
                continue
            raise AssertionError(f"no error; PyTorch: {type(theirs).__name__}: {str(theirs)[:120]}")
    return outcome


def check(name: str, what: str, only: str | None = None, limit: int = 12) -> Outcome:
    """One check over all of an operator's variants."""
    total = Outcome()
    for info in INFOS[name]:
        if what in ("grad", "gradgrad"):
            part = check_grad(info, only, limit, second=what == "gradgrad")
        else:
            part = {"eager": check_eager, "forms": check_forms, "compiled": check_compiled, "errors": check_errors}[what](
                info, only, limit
            )
        total.tried += part.tried
        variant = f"[{info.variant_test_name}] " if info.variant_test_name else ""
        total.failures += [variant + f for f in part.failures]
    return total


def main(argv: list[str]) -> int:
    """Print what fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--check", choices=CHECKS, action="append")
    parser.add_argument("--dtype")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--show", type=int, default=6)
    options = parser.parse_args(argv)
    failed = 0
    for name in options.names:
        for what in options.check or CHECKS:
            outcome = check(name, what, options.dtype, 400 if options.all else 12)
            failed += not outcome.passed
            print(f"{name:40} {what:9} {outcome.tried - len(outcome.failures)}/{outcome.tried}")
            for line in outcome.failures[: options.show]:
                print("    ", line)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
