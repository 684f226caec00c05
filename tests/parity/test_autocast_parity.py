"""Autocast gives the dtypes that PyTorch's gives on the CPU, operator by operator on PyTorch's own samples; training follows it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.ir.op import Op

torch = pytest.importorskip("torch")
opinfo = pytest.importorskip("opinfo")

# what no policy speaks of, and autocast must leave alone
UNTOUCHED = (
    "add", "mul", "sum", "mean", "exp", "log", "softmax", "log_softmax", "nn.functional.relu", "nn.functional.gelu", "cat", "stack",
    "nn.functional.layer_norm", "nn.functional.group_norm", "nn.functional.batch_norm", "nn.functional.embedding", "cumsum", "norm",
    "nn.functional.avg_pool2d", "nn.functional.max_pool2d", "nn.functional.gaussian_nll_loss", "pow",
    "nn.functional.multilabel_soft_margin_loss", "nn.functional.softplus", "nn.functional.pad", "where", "masked_fill", "var", "mv",
)  # fmt: skip


def with_a_policy() -> set[str]:
    ops = [op for op in Op.table.values() if op.autocast is not None]
    return {name for op in ops for name in (op.name, *op.functions) if name in opinfo.INFOS}


# PyTorch's max_pool3d is in float32 only where it gives no indices; here both forms are.  Its products whose sums are over
# nothing, or over everything, are no matrix products and stay in float32.
OWN = {"nn.functional.max_pool3d", "tensordot", "einsum"}
# bfloat16 is refused by an operator inside, which PyTorch does not ask where there is nothing to compute
REFUSED = {"linalg.matrix_power", "linalg.lu_solve"}
SAME_RULE = {name for name in opinfo.INFOS if name.startswith("fft.") and name not in ("fft.fft", "fft.irfft2")}
SAME_RULE |= {"nn.functional.max_unpool1d", "nn.functional.max_unpool2d"}


def dtypes_of(result: Any) -> list[str]:
    return [str(x.dtype).rpartition(".")[2] for x in opinfo.leaves(result) if hasattr(x, "dtype")]


def of_dtype(x: Any, dtype: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x.detach().to(dtype) if x.is_floating_point() else x.detach()
    if isinstance(x, list | tuple) and not hasattr(x, "_fields"):
        return type(x)([of_dtype(member, dtype) for member in x])
    return {name: of_dtype(value, dtype) for name, value in x.items()} if isinstance(x, dict) else x


@pytest.mark.parametrize("name", sorted((with_a_policy() | set(UNTOUCHED)) - OWN - REFUSED - SAME_RULE))
def test_dtypes(name: str) -> None:
    compared = 0
    for info in opinfo.INFOS[name]:
        function = opinfo.function_of(info.name, info.variant_test_name)
        if function is None or torch.float32 not in info.supported_dtypes("cpu"):
            continue
        for sample in opinfo.samples(info, torch.float32, False, 2)[-1:]:
            for dtype in (torch.float32, torch.bfloat16):
                given = of_dtype([sample.input, sample.args, sample.kwargs], dtype)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        with torch.autocast("cpu", dtype=torch.float16 if dtype is torch.float32 else torch.bfloat16):
                            wanted = dtypes_of(info.op(given[0], *given[1], **given[2]))
                    except RuntimeError:
                        continue  # PyTorch has no such kernel
                    mine = opinfo.to_graphc(given, {})
                    with graphc.autocast("cpu", dtype=graphc.float16 if dtype is torch.float32 else graphc.bfloat16):
                        assert dtypes_of(function(mine[0], *mine[1], **mine[2])) == wanted, (dtype, opinfo.shown(sample))
                compared += 1
    assert compared or name in ("polar", "view_as_complex")


def pair_of_models() -> tuple[Any, Any]:
    torch.manual_seed(0)
    models = []
    for library in (torch, graphc):
        n = library.nn
        first = (n.Conv2d(1, 4, 3), n.BatchNorm2d(4), n.ReLU(), n.Flatten())
        models.append(n.Sequential(*first, n.Linear(64, 8), n.LayerNorm(8), n.GELU(), n.Linear(8, 3)))
    models[1].load_state_dict({key: graphc.tensor(value.numpy()) for key, value in models[0].state_dict().items()})
    return models[0], models[1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_training(dtype: str) -> None:
    """Losses, the dtypes of gradients, and scales follow PyTorch's; one step overflows."""
    theirs, mine = pair_of_models()
    found: list[list[Any]] = []
    for library, model in ((torch, theirs), (graphc, mine)):
        optimizer = library.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        scaler = library.amp.GradScaler("cpu", init_scale=256.0, growth_interval=3)
        seen: list[Any] = []
        for t in range(8):
            rng = np.random.default_rng(t)
            x = library.tensor(rng.normal(size=(6, 1, 6, 6)).astype(np.float32))
            y = library.tensor(rng.integers(0, 3, 6))
            optimizer.zero_grad()
            with library.autocast("cpu", dtype=getattr(library, dtype)):
                logits = model(x)
                loss = library.nn.functional.cross_entropy(logits, y)
            scaler.scale(loss).backward()
            if t == 4:
                model[0].weight.grad[0, 0, 0, 0] = float("inf")
            if t % 2:
                scaler.unscale_(optimizer)
                library.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            seen += [loss.item(), scaler.get_scale(), scaler._get_growth_tracker()]
            assert str(logits.dtype).endswith(dtype) and str(loss.dtype).endswith("float32")
            assert all(str(p.grad.dtype).endswith("float32") for p in model.parameters())
        found.append([seen, scaler.state_dict()])
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=0.03)
    assert found[1][1] == found[0][1]


def raised(library: Any, make: Callable[[Any], Any]) -> tuple[str, str]:
    with pytest.raises((RuntimeError, ValueError, AssertionError)) as info:
        make(library)
    return type(info.value).__name__, str(info.value).split(" (test_autocast")[0].split(".  This")[0][:60]


def optimizer_of(library: Any, dtype: str = "float32") -> Any:
    p = library.nn.Parameter(library.ones(2, dtype=getattr(library, dtype)))
    p.grad = library.ones(2, dtype=getattr(library, dtype))
    return library.optim.SGD([p], lr=0.1)


def twice(library: Any, *calls: str) -> None:
    scaler, optimizer = library.amp.GradScaler("cpu"), optimizer_of(library)
    scaler.scale(library.ones(1))
    for call in calls:
        getattr(scaler, call)(*(() if call == "update" else (optimizer,)))


def without_gradients(library: Any) -> None:
    scaler = library.amp.GradScaler("cpu")
    scaler.scale(library.ones(1))
    scaler.step(library.optim.SGD([library.nn.Parameter(library.ones(1))], lr=0.1))


def half_gradients(library: Any) -> None:
    scaler = library.amp.GradScaler("cpu")
    scaler.scale(library.ones(1))
    scaler.unscale_(optimizer_of(library, "float16"))


ERRORS: dict[str, Callable[[Any], Any]] = {
    "device": lambda t: t.autocast(3),
    "unknown device": lambda t: t.autocast("meta"),
    "growth": lambda t: t.amp.GradScaler("cpu", growth_factor=1.0),
    "backoff": lambda t: t.amp.GradScaler("cpu", backoff_factor=1.0),
    "unscaled twice": lambda t: twice(t, "unscale_", "unscale_"),
    "unscaled late": lambda t: twice(t, "step", "unscale_"),
    "stepped twice": lambda t: twice(t, "step", "step"),
    "updated early": lambda t: twice(t, "update"),
    "no scale": lambda t: t.amp.GradScaler("cpu").step(optimizer_of(t)),
    "no gradients": without_gradients,
    "float16 gradients": half_gradients,
    "closure": lambda t: t.amp.GradScaler("cpu").step(optimizer_of(t), closure=None),
    "empty state": lambda t: t.amp.GradScaler("cpu").load_state_dict({}),
    "what cannot be scaled": lambda t: t.amp.GradScaler("cpu").scale(3),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    assert raised(graphc, ERRORS[name]) == raised(torch, ERRORS[name])


SETTINGS: dict[str, Callable[[Any], Any]] = {
    "cuda": lambda t: t.autocast("cuda")._enabled,
    "cuda, off": lambda t: t.autocast("cuda", enabled=False)._enabled,
    "float32": lambda t: t.autocast("cpu", dtype=t.float32)._enabled,
    "mps": lambda t: t.autocast("mps").fast_dtype,
    "old cuda": lambda t: t.cuda.amp.autocast()._enabled,
    "old cpu": lambda t: t.cpu.amp.autocast()._enabled,
    "old cuda scaler": lambda t: t.cuda.amp.GradScaler().is_enabled(),
    "old cpu scaler": lambda t: t.cpu.amp.GradScaler().is_enabled(),
    "cuda scaler": lambda t: [t.amp.GradScaler().is_enabled(), t.amp.GradScaler(enabled=False).state_dict()],
    "questions": lambda t: [t.is_autocast_enabled(), t.is_autocast_enabled("cpu"), t.get_autocast_dtype("cpu")],
    "available": lambda t: [t.amp.is_autocast_available(d) for d in ("cpu", "cuda", "mps")],
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_and_warnings(name: str) -> None:
    told = []
    for library in (graphc, torch):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = str(SETTINGS[name](library)).replace("graphc", "torch")
        told.append((result, [(w.category, str(w.message).replace("graphc", "torch")[:21]) for w in caught]))
    assert told[0] == told[1]


def test_functions_of_ones_own() -> None:
    """`custom_fwd` and `custom_bwd`: what forward and backward are given, and see of autocast."""
    found = []
    for library in (torch, graphc):
        seen: list[Any] = []

        class Product(library.autograd.Function):  # type: ignore[name-defined,misc]
            @staticmethod
            @library.amp.custom_fwd(device_type="cpu", cast_inputs=None)
            def forward(ctx: Any, x: Any, library: Any = library, seen: Any = seen) -> Any:
                ctx.save_for_backward(x)
                seen.append((str(x.dtype), library.is_autocast_enabled("cpu")))
                return x @ x

            @staticmethod
            @library.amp.custom_bwd(device_type="cpu")
            def backward(ctx: Any, g: Any, library: Any = library, seen: Any = seen) -> Any:
                (x,) = ctx.saved_tensors
                seen.append((str(g.dtype), str((x @ x).dtype), library.is_autocast_enabled("cpu")))
                return x

        x = library.ones(2, 2).requires_grad_()
        with library.autocast("cpu"):
            y = Product.apply(x)
        y.sum().backward()
        seen.append((str(y.dtype), str(x.grad.dtype), library.is_autocast_enabled("cpu")))
        found.append([[str(value).replace("graphc", "torch") for value in step] for step in seen])
    assert found[0] == found[1]


def test_modules_of_every_dtype_policy_agree() -> None:
    """Values: the same roundings of operands as PyTorch's."""
    theirs, mine = pair_of_models()
    x = np.random.default_rng(0).normal(size=(2, 1, 6, 6)).astype(np.float32)
    with torch.autocast("cpu"), torch.no_grad():
        wanted = theirs.eval()(torch.tensor(x)).float().numpy()
    with graphc.autocast("cpu"), graphc.no_grad():
        result = mine.eval()(graphc.tensor(x)).float().numpy()
    np.testing.assert_allclose(result, wanted, rtol=0.02, atol=0.01)
    assert nn.Linear(2, 2)(graphc.ones(1, 2)).dtype is graphc.float32
