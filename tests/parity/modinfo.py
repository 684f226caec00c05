"""Runs graphc's modules on PyTorch's own samples of every module: printing, state, values, gradients, buffers, compiled code.

The samples are those that PyTorch tests itself with (`torch.testing._internal.common_modules.module_db`) and, for modules that it
has no samples of, those of `MORE`.  ``python tests/parity/modinfo.py NAME...`` shows what fails; ``--all`` takes every sample.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib
import inspect
import sys
import traceback
import warnings
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from opinfo import array_of, compare, leaves, same_bits, to_graphc
from torch.testing._internal.common_modules import FunctionInput, ModuleInput, module_db

import graphc

INFOS = {info.name.removeprefix("nn."): info for info in module_db}
# modules that hold other modules and do not compute, or have no forward of their own
NOT_CALLED = {"Container", "DataParallel", "Module", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList"}
NOT_CALLED |= {"RNNBase", "RNNCellBase"}
# what they draw is another generator's: values are compared in eval mode, and by statistics in test_random_layers
DRAW_IN_TRAINING = {"AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout", "RReLU"}
# PyTorch's samples of these are float64 whatever is asked for
DOUBLE = {"FractionalMaxPool2d", "FractionalMaxPool3d"}
# attributes of objects that PyTorch keeps for its own mechanisms
INNER = {"training", "call_super_init", "dump_patches", "T_destination", "activation_relu_or_gelu", "use_nested_tensor"}
# wider tolerances: sums over many steps in another order
SCALES = {"CTCLoss": 4.0, "Transformer": 4.0, "TransformerDecoderLayer": 4.0, "TransformerDecoder": 4.0, "MultiheadAttention": 4.0}


def _call(*args: Any, **kwargs: Any) -> FunctionInput:
    return FunctionInput(*args, **kwargs)


def _randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, requires_grad=True)


def _unpooled(n: int) -> ModuleInput:
    """What a max pool of n dims gives, as arguments."""
    pool = getattr(torch.nn, f"MaxPool{n}d")(2, return_indices=True)
    values, indices = pool(torch.randn(2, 3, *(6,) * n))
    return ModuleInput(_call(2), _call(values.detach().requires_grad_(), indices))


def _bags(mode: str, **how: Any) -> ModuleInput:
    return ModuleInput(
        _call(7, 3, mode=mode, **how),
        _call(torch.tensor([1, 2, 4, 5, 4, 3, 2, 6]), torch.tensor([0, 3, 3, 8 if how.get("include_last_offset") else 5])),
    )


@functools.cache
def more() -> dict[str, list[ModuleInput]]:
    """Samples of modules that PyTorch's table has none of."""
    image, rows, flat = (2, 4, 4, 6), (3, 6), (2, 4, 5)
    found = {
        "AdaptiveLogSoftmaxWithLoss": [
            ModuleInput(_call(16, 20, [4, 10, 15], div_value=2.0), _call(_randn(5, 16), torch.tensor([0, 5, 19, 12, 3]))),
            ModuleInput(_call(16, 20, [5], head_bias=True), _call(_randn(16), torch.tensor(7))),
        ],
        "ChannelShuffle": [ModuleInput(_call(2), _call(_randn(*image)))],
        "CosineSimilarity": [ModuleInput(_call(dim=d), _call(_randn(*flat), _randn(*flat))) for d in (1, 2)],
        "EmbeddingBag": [
            _bags("sum", include_last_offset=True),
            _bags("mean", padding_idx=2),
            _bags("max"),
            ModuleInput(_call(7, 3, mode="sum"), _call(torch.tensor([[1, 2], [3, 3]]), per_sample_weights=_randn(2, 2))),
            ModuleInput(_call(7, 3, max_norm=1.0, scale_grad_by_freq=True), _call(torch.tensor([[1, 2, 5], [4, 3, 5]]))),
        ],
        "Embedding": [
            ModuleInput(_call(7, 3, padding_idx=-2, max_norm=1.0, norm_type=1.0), _call(torch.tensor([[1, 2], [5, 5]]))),
            ModuleInput(_call(7, 3, scale_grad_by_freq=True), _call(torch.tensor([1, 5, 5, 6, 5]))),
        ],
        "Flatten": [ModuleInput(_call(), _call(_randn(*image))), ModuleInput(_call(0, 2), _call(_randn(*image)))],
        "Fold": [ModuleInput(_call((4, 5), (2, 2), padding=1), _call(_randn(2, 12, 30)))],
        "Hardsigmoid": [ModuleInput(_call(), _call(_randn(*rows)))],
        "Identity": [ModuleInput(_call(54, unused=True), _call(_randn(*rows)))],
        "LazyLinear": [ModuleInput(_call(3), _call(_randn(*rows)))],
        "NLLLoss2d": [ModuleInput(_call(), _call(_randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))))],
        "PairwiseDistance": [ModuleInput(_call(), _call(_randn(*rows), _randn(*rows))),
                             ModuleInput(_call(1.0, keepdim=True), _call(_randn(*rows), _randn(*rows)))],
        "PixelShuffle": [ModuleInput(_call(2), _call(_randn(*image)))],
        "PixelUnshuffle": [ModuleInput(_call(2), _call(_randn(*image)))],
        "Sequential": [ModuleInput(_call(), _call(_randn(*rows)))],
        "SyncBatchNorm": [ModuleInput(_call(4), _call(_randn(*flat))), ModuleInput(_call(4, momentum=None), _call(_randn(*image)))],
        "TripletMarginLoss": [ModuleInput(_call(), _call(*(_randn(*rows) for _ in range(3)))),
                              ModuleInput(_call(2.0, 1.0, swap=True, reduction="none"), _call(*(_randn(*rows) for _ in range(3))))],
        "TripletMarginWithDistanceLoss": [ModuleInput(_call(), _call(*(_randn(*rows) for _ in range(3)))),
                                          ModuleInput(_call(margin=2.0, swap=True), _call(*(_randn(*rows) for _ in range(3))))],
        "Unflatten": [ModuleInput(_call(1, (2, 3)), _call(_randn(*rows)))],
        "Unfold": [ModuleInput(_call((2, 3), padding=1, stride=2), _call(_randn(*image)))],
        "Upsample": [
            ModuleInput(_call(scale_factor=2.0, mode=m), _call(_randn(*image))) for m in ("nearest", "bilinear", "bicubic")
        ],
        "UpsamplingBilinear2d": [ModuleInput(_call(scale_factor=2), _call(_randn(*image)))],
        "UpsamplingNearest2d": [ModuleInput(_call(size=(7, 8)), _call(_randn(*image)))],
        "ReLU6": [ModuleInput(_call(inplace=True), _call(torch.randn(rows)))],
        "RReLU": [ModuleInput(_call(0.1, 0.4), _call(_randn(*rows)))],
    }  # fmt: skip
    for name in DRAW_IN_TRAINING - {"RReLU"}:
        found[name] = [ModuleInput(_call(0.4), _call(_randn(2, 4, *(3,) * (int(name[-2]) if name.endswith("d") else 1))))]
    for n in (1, 2, 3):
        found[f"MaxUnpool{n}d"] = [_unpooled(n)]
        batch = _call(_randn(3, 4, *(5, 4, 3)[:n]))
        found[f"LazyBatchNorm{n}d"] = [ModuleInput(_call(), batch)]
        found[f"LazyInstanceNorm{n}d"] = [ModuleInput(_call(affine=True), batch)]
    layer = torch.nn.TransformerDecoderLayer(4, 2, 8, 0.0, batch_first=True)
    found["TransformerDecoder"] = [ModuleInput(_call(layer, 2), _call(_randn(2, 3, 4), _randn(2, 5, 4)))]
    return found


# ---- PyTorch's values as graphc's ----------------------------------------------------------------------------------------


def _layer(module: torch.nn.Module) -> Any:
    """graphc's layer of a Transformer with the arguments of PyTorch's and its weights."""
    attention = module.self_attn
    how = {
        "dropout": module.dropout.p, "layer_norm_eps": module.norm1.eps, "batch_first": attention.batch_first,
        "norm_first": module.norm_first, "bias": module.linear1.bias is not None,
        "activation": _plain(module.activation, {}),
    }  # fmt: skip
    made = getattr(graphc.nn, type(module).__name__)(attention.embed_dim, attention.num_heads, module.linear1.out_features, **how)
    made.load_state_dict({k: array_of(v) for k, v in module.state_dict().items()})
    return made


def _plain(value: Any, memo: dict[Any, Any]) -> Any:
    """`to_graphc`, and PyTorch's functions and layers as graphc's."""
    if isinstance(value, torch.nn.Module):
        return _layer(value)
    if isinstance(value, torch.nn.LinearCrossEntropyOptions):
        return graphc.nn.LinearCrossEntropyOptions(**{f.name: _plain(getattr(value, f.name), memo) for f in fields(value)})
    if callable(value) and not isinstance(value, type) and hasattr(torch.nn.functional, getattr(value, "__name__", "")):
        return getattr(graphc.nn.functional, value.__name__)
    return to_graphc(value, memo)


def _arguments(call: FunctionInput, memo: dict[Any, Any]) -> tuple[list[Any], dict[str, Any]]:
    return [_plain(a, memo) for a in call.args], {k: _plain(v, memo) for k, v in call.kwargs.items()}


def _fresh(call: FunctionInput) -> FunctionInput:
    """The arguments as leaves of their own."""

    def copied(v: Any) -> Any:
        if isinstance(v, torch.Tensor):
            return v.detach().clone().requires_grad_(v.requires_grad)
        if isinstance(v, tuple | list) and not isinstance(v, torch.Size):
            return type(v)(copied(x) for x in v)
        return v

    return FunctionInput(*(copied(a) for a in call.args), **{k: copied(v) for k, v in call.kwargs.items()})


def _arrays(module: torch.nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    return {k: array_of(v).copy() for k, v in module.state_dict().items()}


def _settings(module: Any) -> dict[str, Any]:
    """Plain attributes."""
    kinds = bool | int | float | str | tuple | list | None
    return {k: v for k, v in vars(module).items() if isinstance(v, kinds) and not k.startswith("_") and k not in INNER}


# ---- one sample ----------------------------------------------------------------------------------------------------------


def _gradients(out: Any, inputs: list[Any], parameters: list[Any], seeds: list[Any], library: Any) -> list[Any]:
    """Gradients of floating results that have them, towards inputs and parameters."""
    results = [x for x in leaves(out) if isinstance(x, library.Tensor) and x.requires_grad]
    wanted = [x for x in [*leaves(inputs), *parameters] if isinstance(x, library.Tensor) and x.requires_grad and x.is_leaf]
    if not results or not wanted:
        return []
    return list(library.autograd.grad(results, wanted, seeds[: len(results)], allow_unused=True))


def _same_gradients(ours: list[Any], theirs: list[Any], scale: float) -> None:
    assert len(ours) == len(theirs), f"{len(ours)} gradients, PyTorch gives {len(theirs)}"
    for a, b in zip(ours, theirs, strict=True):
        b = b.to_dense() if b is not None and b.layout is not torch.strided else b
        if a is None or b is None:  # what does not depend on it at all may be None in one, zeros in the other
            assert all(x is None or not x.any() for x in (a, b)), f"gradient {a}, PyTorch gives {b}"
        else:
            compare(a, b, scale=scale)


class Pair:
    """A module of PyTorch's and graphc's of the same name, arguments and weights."""

    def __init__(self, name: str, sample: ModuleInput, training: bool) -> None:
        made = _arguments(sample.constructor_input, {})
        self.theirs = getattr(torch.nn, name)(*sample.constructor_input.args, **sample.constructor_input.kwargs)
        self.ours = getattr(graphc.nn, name)(*made[0], **made[1])
        self.sample, self.scale = sample, SCALES.get(name, 1.0)
        if name.startswith("Lazy"):
            assert repr(self.ours) == repr(self.theirs), f"{self.ours!r}, PyTorch shows {self.theirs!r}"
            self.theirs(*_fresh(sample.forward_input).args)
            self.ours(*_arguments(_fresh(sample.forward_input), {})[0])
        self.theirs.train(training)
        self.ours.train(training)
        self.start = _arrays(self.theirs)
        self.draws = training and name in DRAW_IN_TRAINING

    def check_state(self) -> None:
        """Printing, attributes, and the names, order, shapes and dtypes of the state."""
        ours, theirs = self.ours, self.theirs
        shown = repr(theirs).replace("torch.", "graphc.")
        assert repr(ours).replace("torch.", "graphc.") == shown, f"{ours!r}, PyTorch shows {theirs!r}"
        state = ours.state_dict()
        assert list(state) == list(self.start), f"state {list(state)}, PyTorch has {list(self.start)}"
        for key, value in self.start.items():
            assert tuple(state[key].shape) == value.shape and state[key].dtype.name == value.dtype.name, key
        for kind in type(theirs).__mro__[:-1]:
            home = importlib.import_module(kind.__module__.replace("torch", "graphc", 1))
            assert isinstance(ours, getattr(home, kind.__name__)), f"PyTorch's is a {kind.__name__}"
        for kind in ("named_parameters", "named_buffers", "named_modules"):
            names = [[n for n, _ in getattr(m, kind)()] for m in (ours, theirs)]
            assert names[0] == names[1], f"{kind} {names[0]}, PyTorch has {names[1]}"
        for key, value in _settings(theirs).items():
            own = getattr(ours, key, "missing")
            assert type(own) is type(value) and own == value, f"{key} = {own!r}, PyTorch has {value!r}"
        ours.load_state_dict(self.start)

    def check_values(self) -> None:
        """Results, gradients and buffers after a call."""
        call = _fresh(self.sample.forward_input)
        args, kwargs = _arguments(call, {})
        torch.manual_seed(1)
        expected = self.theirs(*call.args, **call.kwargs)
        found = self.ours(*args, **kwargs)
        compare(found, expected, values=not self.draws, scale=self.scale)
        seeds = [torch.randn(x.shape, dtype=x.dtype) for x in leaves(expected) if isinstance(x, torch.Tensor) and x.requires_grad]
        theirs = _gradients(expected, [*call.args, *call.kwargs.values()], list(self.theirs.parameters()), seeds, torch)
        self.seeds = [to_graphc(s, {}) for s in seeds]
        ours = _gradients(found, [*args, *kwargs.values()], list(self.ours.parameters()), self.seeds, graphc)
        if not self.draws:
            _same_gradients(ours, theirs, self.scale)
        for (key, a), b in zip(self.ours.state_dict().items(), _arrays(self.theirs).values(), strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=2e-5, atol=2e-6, err_msg=f"{key} after the call")

    def check_compiled(self) -> None:
        """Compiled code gives the same bits as eager code, in results, gradients and state."""
        seen = []
        compiled = graphc.compile(lambda a, k: self.ours(*a, **k))
        for function in (lambda a, k: self.ours(*a, **k), compiled):
            self.ours.load_state_dict(self.start)
            graphc.manual_seed(3)
            args, kwargs = _arguments(_fresh(self.sample.forward_input), {})
            out = function(args, kwargs)
            gradients = _gradients(out, [*args, *kwargs.values()], list(self.ours.parameters()), self.seeds, graphc)
            state = [v.clone() for v in self.ours.state_dict().values()]
            seen.append([out, [g for g in gradients if g is not None], state])
        same_bits(seen[1], seen[0])
        fallbacks = compiled.stats()["fallbacks"]
        assert not fallbacks, f"ran eagerly: {fallbacks}"


def refused(name: str) -> list[str]:
    """Calls that PyTorch refuses and graphc does not, or with another class of error."""
    info, failed = INFOS.get(name), []
    if info is None or info.module_error_inputs_func is None:
        return []
    for error in info.module_error_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=True, training=True):
        sample = error.module_error_input
        try:
            args, kwargs = _arguments(sample.constructor_input, {})
            module = getattr(graphc.nn, name)(*args, **kwargs)
            if sample.forward_input is not None:
                args, kwargs = _arguments(sample.forward_input, {})
                module(*args, **kwargs)
        except error.error_type:
            continue
        except Exception as other:
            failed.append(f"{shown(sample)}: {type(other).__name__}: {other}; PyTorch: {error.error_type.__name__}")
            continue
        failed.append(f"{shown(sample)}: no error; PyTorch: {error.error_type.__name__} {error.error_regex}")
    return failed


def samples(name: str, training: bool, limit: int | None) -> list[ModuleInput]:
    """A spread of at most `limit` samples of PyTorch's (by default three where there are many, else two), and all of `more`."""
    torch.manual_seed(0)
    found: list[ModuleInput] = []
    if name in INFOS:
        info = INFOS[name]
        dtype = torch.float64 if name in DOUBLE else torch.float32
        made = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training)
        found = [s for s in made if s.forward_input is not None]
    limit = limit or (3 if len(found) > 8 else 2)
    if len(found) > limit:
        found = [found[i] for i in sorted({round(k * (len(found) - 1) / max(1, limit - 1)) for k in range(limit)})]
    return found + more().get(name, [])


def failures(name: str, limit: int | None = None, compile_limit: int = 1) -> list[str]:
    """What differs in any sample of one module.  In eval mode one sample does where that is no other computation."""
    failed = []
    differs = name not in INFOS or INFOS[name].train_and_eval_differ
    for training in (True, False):
        for i, sample in enumerate(samples(name, training, limit if training or differs else 1)):
            where = f"{name} {'train' if training else 'eval'} {i} {shown(sample)}"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    pair = Pair(name, copy.copy(sample), training)
                    pair.check_state()
                    pair.check_values()
                    if i < compile_limit and (training or differs):
                        pair.check_compiled()
                except Exception as error:
                    line = traceback.extract_tb(error.__traceback__)[-1]
                    text = " ".join(str(error).split())[:400]
                    failed.append(f"{where}: {type(error).__name__}: {text} [{line.filename.rsplit('/', 1)[-1]}:{line.lineno}]")
    return failed


def shown(sample: ModuleInput) -> str:
    """A sample in a few words."""

    def word(v: Any) -> str:
        return f"{str(v.dtype).removeprefix('torch.')}{list(v.shape)}" if isinstance(v, torch.Tensor) else repr(v)[:60]

    texts = []
    for call in filter(None, (sample.constructor_input, sample.forward_input)):
        texts.append(f"({', '.join([*map(word, call.args), *(f'{k}={word(v)}' for k, v in call.kwargs.items())])})")
    return "".join(texts)


def module_names() -> list[str]:
    """Every module class of torch.nn that can be called."""
    found = {
        n for n in dir(torch.nn) if inspect.isclass(getattr(torch.nn, n)) and issubclass(getattr(torch.nn, n), torch.nn.Module)
    }
    return sorted(found - NOT_CALLED)


def main(argv: list[str]) -> int:
    """Print what fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--show", type=int, default=4)
    options = parser.parse_args(argv)
    count = 0
    for name in options.names or module_names():
        failed = failures(name, *((1000, 1000) if options.all else ())) + refused(name)
        count += bool(failed)
        print(f"{name:32} {len(failed) or 'ok'}")
        for line in failed[: options.show]:
            print("    ", line)
    return count


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
