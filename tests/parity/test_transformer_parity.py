"""Attention and transformer layers: PyTorch's names, state, printing, values, gradients and errors."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

S, T, N, E = 5, 4, 3, 8


def values(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


PADDING = np.array([[False] * S, [False] * 3 + [True] * 2, [False] * 4 + [True]])
CAUSAL = np.triu(np.full((S, S), -np.inf, np.float32), 1)
TARGETS = np.triu(np.ones((T, T), bool), 1)


def close(mine: Any, theirs: Any, what: str = "") -> None:
    np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=1e-4, atol=2e-5, err_msg=what)


def pair(make: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The module here and in PyTorch, with PyTorch's weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, theirs = make(graphc.nn), make(torch.nn)
    assert repr(mine) == repr(theirs)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    arrays = {n: values(*v.shape, seed=k) * 0.3 for k, (n, v) in enumerate(theirs.state_dict().items())}
    theirs.load_state_dict({n: torch.from_numpy(a.astype(np.float32)) for n, a in arrays.items()})
    mine.load_state_dict({n: v.numpy() for n, v in theirs.state_dict().items()})
    return mine, theirs


def check(make: Callable[[Any], Any], shapes: list[tuple[int, ...]], masks: dict[str, Any], train: bool = True) -> None:
    """Outputs and gradients, eager and compiled."""
    mine, theirs = pair(make)
    found = []
    for lib, model in ((torch, theirs), (graphc, mine)):
        model.train(train)
        given = {k: lib.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in masks.items()}

        def call(*x: Any, model: Any = model, given: dict[str, Any] = given) -> Any:
            return model(*x, **given)

        for run in (call, graphc.compile(call)) if lib is graphc else (call,):
            model.zero_grad()
            x = [lib.from_numpy(values(*shape, seed=20 + k)).requires_grad_() for k, shape in enumerate(shapes)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                warnings.simplefilter("error", graphc.errors.CompileWarning)
                y = run(*x)
            y.square().sum().backward()
            leaves = (*x, *model.parameters())
            found.append([y.detach().numpy(), *(np.asarray(p.grad.numpy()) for p in leaves)])
    for k, (wanted, here, compiled) in enumerate(zip(*found, strict=True)):
        close(here, wanted, f"result {k}")
        assert here.tobytes() == compiled.tobytes(), f"result {k}: eager and compiled differ"


def batched(length: int, first: bool) -> tuple[int, ...]:
    return (N, length, E) if first else (length, N, E)


ENCODERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"norm_first": True, "activation": "gelu"}, {"src_mask": CAUSAL, "is_causal": True}),
    ({"batch_first": True, "bias": False}, {"src_key_padding_mask": PADDING}),
    ({"batch_first": True, "layer_norm_eps": 1e-2}, {"src_mask": CAUSAL != 0, "src_key_padding_mask": PADDING.astype(np.float32)}),
]


@pytest.mark.parametrize("how, masks", ENCODERS)
def test_encoder_layer(how: dict[str, Any], masks: dict[str, Any]) -> None:
    make = lambda nn: nn.TransformerEncoderLayer(E, 2, 16, dropout=0.0, **how)
    check(make, [batched(S, how.get("batch_first", False))], masks)


@pytest.mark.parametrize("activation", [lambda nn: lambda x: x.tanh() * 2, lambda nn: nn.functional.silu, lambda nn: nn.Mish()])
def test_other_activations(activation: Callable[[Any], Any]) -> None:
    def make(nn: Any) -> Any:
        return nn.TransformerEncoderLayer(E, 2, 16, dropout=0.0, activation=activation(nn))

    check(make, [(S, E)], {})
    copy.deepcopy(make(graphc.nn))(graphc.zeros(S, E))


@pytest.mark.parametrize("norm", [False, True])
def test_encoder(norm: bool) -> None:
    def make(nn: Any) -> Any:
        layer = nn.TransformerEncoderLayer(E, 2, 16, dropout=0.0, norm_first=norm)
        return nn.TransformerEncoder(layer, 2, nn.LayerNorm(E) if norm else None, enable_nested_tensor=False)

    check(make, [(S, N, E)], {"mask": CAUSAL, "src_key_padding_mask": PADDING, "is_causal": norm or None})


DECODERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"tgt_mask": TARGETS}),
    ({"norm_first": True, "activation": "gelu", "batch_first": True}, {"memory_key_padding_mask": PADDING}),
    ({"bias": False}, {"memory_mask": np.tri(T, S, 1, dtype=bool) == 0, "tgt_key_padding_mask": PADDING[:, :T]}),
]


@pytest.mark.parametrize("how, masks", DECODERS)
def test_decoder_layer(how: dict[str, Any], masks: dict[str, Any]) -> None:
    first = how.get("batch_first", False)
    make = lambda nn: nn.TransformerDecoderLayer(E, 2, 16, dropout=0.0, **how)
    check(make, [batched(T, first), batched(S, first)], masks)


@pytest.mark.parametrize("case", ["padded", "batch first", "unbatched", "eval"])
def test_transformer(case: str) -> None:
    first = case == "batch first"
    make = lambda nn: nn.Transformer(E, 2, 1, 1, 16, dropout=0.0, batch_first=first, norm_first=first)
    if case == "unbatched":
        check(make, [(S, E), (T, E)], {"tgt_mask": TARGETS})
        return
    masks: dict[str, Any] = {"tgt_mask": np.where(TARGETS, -np.inf, 0).astype(np.float32), "tgt_is_causal": True}
    if case == "padded":
        masks |= {"src_key_padding_mask": PADDING, "memory_key_padding_mask": PADDING, "src_mask": CAUSAL}
    check(make, [batched(S, first), batched(T, first)], masks, train=case != "eval")


ATTENTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"kdim": 6, "vdim": 7, "add_bias_kv": True}, {"average_attn_weights": False}),
    ({"add_zero_attn": True, "bias": False, "batch_first": True}, {"key_padding_mask": PADDING}),
    ({"add_bias_kv": True, "add_zero_attn": True}, {"attn_mask": values(2 * N, T, S) > 1}),
    ({"batch_first": True}, {"attn_mask": values(T, S), "need_weights": False}),
    ({"add_bias_kv": True}, {"attn_mask": values(T, S), "key_padding_mask": PADDING, "need_weights": False}),
]


@pytest.mark.parametrize("how, given", ATTENTIONS)
def test_gradients_of_attention(how: dict[str, Any], given: dict[str, Any]) -> None:
    first = how.get("batch_first", False)
    k, v = ((N, S, how.get(name, E)) if first else (S, N, how.get(name, E)) for name in ("kdim", "vdim"))

    def make(nn: Any) -> Any:
        class Both(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.attention = nn.MultiheadAttention(E, 2, **how)

            def forward(self, *x: Any, **masks: Any) -> Any:
                out, weights = self.attention(*x, **masks)
                return out if weights is None else out.sum() + weights.square().sum()

        return Both()

    check(make, [batched(T, first), k, v], given)


def test_attention_without_a_batch_takes_a_mask_for_each_head() -> None:
    mine, theirs = pair(lambda nn: nn.MultiheadAttention(E, 2))
    x, mask = values(T, E), values(2, T, T)
    for more in ({}, {"need_weights": False}, {"average_attn_weights": False}):
        here = mine(*[graphc.tensor(x)] * 3, attn_mask=graphc.tensor(mask), **more)
        wanted = theirs(*[torch.tensor(x)] * 3, attn_mask=torch.tensor(mask), **more)
        close(here[0].detach(), wanted[0].detach())
        assert (here[1] is None) == (wanted[1] is None)
        if here[1] is not None:
            close(here[1].detach(), wanted[1].detach())


def test_grouped_queries() -> None:
    arrays = [values(2, 4, T, E), values(2, 2, S, E, seed=1), values(2, 2, S, 6, seed=2)]
    found = []
    for lib in (graphc, torch):
        x = [lib.from_numpy(a.copy()).requires_grad_() for a in arrays]
        y = lib.nn.functional.scaled_dot_product_attention(*x, is_causal=True, scale=0.2, enable_gqa=True)
        y.square().sum().backward()
        found.append([y.detach(), *(v.grad for v in x)])
    for here, wanted in zip(*found, strict=True):
        close(here, wanted)


# ---- the rest of the surface ---------------------------------------------------------------------------------------------


def raised(call: Callable[[], Any]) -> tuple[str, str]:
    """Class and message."""
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error).replace("graphc.", "torch.")
    return "nothing", ""


def wrong_calls(lib: Any) -> dict[str, Callable[[], Any]]:
    nn, q = lib.nn, lib.zeros(3, 2, 8)
    m, e, t = nn.MultiheadAttention(8, 2), nn.TransformerEncoderLayer(8, 2, 16), nn.Transformer(8, 2, 1, 1, 16)

    def z(*shape: int) -> Any:
        return lib.zeros(*shape)

    return {
        "heads": lambda: nn.MultiheadAttention(8, 3),
        "no width": lambda: nn.MultiheadAttention(0, 3),
        "mask": lambda: m(q, q, q, attn_mask=z(2, 2)),
        "mask of heads": lambda: m(q, q, q, attn_mask=z(2, 2, 2)),
        "mask rank": lambda: m(q, q, q, attn_mask=z(2, 2, 2, 2)),
        "padding": lambda: m(q, q, q, key_padding_mask=z(3, 2)),
        "padding kind": lambda: m(q, q, q, key_padding_mask=z(2, 3).long()),
        "key rank": lambda: m(q, q[0], q),
        "unbatched": lambda: m(q[0], q, q),
        "rank": lambda: m(z(2, 2, 2, 8), q, q),
        "value": lambda: m(q, z(4, 2, 8), z(5, 2, 8)),
        "width": lambda: m(z(3, 2, 7), q, q),
        "causal": lambda: m(q, q, q, is_causal=True),
        "unbatched mask": lambda: m(q[0], q[0], q[0], attn_mask=z(3, 2, 2)),
        "unbatched padding": lambda: m(q[0], q[0], q[0], key_padding_mask=z(2, 2)),
        "vector mask": lambda: m(q[0], q[0], q[0], attn_mask=z(2)),
        "separate": lambda: nn.MultiheadAttention(8, 2, kdim=3, vdim=5)(q, z(4, 2, 3), z(5, 2, 5)),
        "activation": lambda: nn.TransformerEncoderLayer(8, 2, activation="x"),
        "layer mask": lambda: e(q, src_mask=z(2, 2)),
        "layer mask kind": lambda: e(q, src_mask=z(3, 3).long()),
        "layer padding": lambda: e(q, src_key_padding_mask=z(2, 2)),
        "layer causal": lambda: e(q, is_causal=True),
        "batches": lambda: t(z(3, 2, 8), z(3, 3, 8)),
        "features": lambda: t(z(3, 2, 7), z(3, 2, 7)),
        "backend": lambda: lib.nn.attention.sdpa_kernel("x").__enter__(),
    }


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_errors() -> None:
    mine, theirs = wrong_calls(graphc), wrong_calls(torch)
    for name in theirs:
        here, wanted = raised(mine[name]), raised(theirs[name])
        assert here[0] == wanted[0] and here[1].startswith(wanted[1]), f"{name}: {here}, PyTorch {wanted}"


def test_masks_of_two_kinds_warn_as_in_pytorch() -> None:
    for lib in (graphc, torch):
        x = lib.zeros(S, N, E)
        with pytest.warns(UserWarning, match="Support for mismatched key_padding_mask and attn_mask is deprecated"):
            lib.nn.MultiheadAttention(E, 2)(x, x, x, key_padding_mask=lib.tensor(PADDING), attn_mask=lib.tensor(CAUSAL))


def test_attributes_and_initial_values() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, theirs = graphc.nn.Transformer(16, 2, 1, 1, 32), torch.nn.Transformer(16, 2, 1, 1, 32)
    for name, p in theirs.named_parameters():
        here = mine.get_parameter(name).detach().numpy()
        assert here.shape == tuple(p.shape)
        if p.dim() > 1:
            assert here.std() == pytest.approx(p.std().item(), rel=0.2), name
        else:
            np.testing.assert_array_equal(here == 0, p.detach().numpy() == 0, err_msg=name)
    for path in ("", "encoder", "encoder.layers.0", "decoder", "decoder.layers.0", "encoder.layers.0.self_attn"):
        ours, others = mine.get_submodule(path), theirs.get_submodule(path)
        public = {k: v for k, v in vars(others).items() if not k.startswith("_") and not callable(v)}
        assert {k: getattr(ours, k) for k in public} == public, path
    mask = graphc.nn.Transformer.generate_square_subsequent_mask
    np.testing.assert_array_equal(mask(3).numpy(), torch.nn.Transformer.generate_square_subsequent_mask(3).numpy())
    assert mask(2, dtype=graphc.float64).dtype is graphc.float64
    x = graphc.tensor(values(S, N, 16))
    mine.eval()
    for other in (copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert graphc.equal(other(x, x), mine(x, x))


def test_backends_of_attention() -> None:
    from graphc.nn.attention import SDPBackend, sdpa_kernel

    theirs = torch.nn.attention.SDPBackend
    assert {k: int(v) for k, v in SDPBackend.__members__.items()} == {k: int(v) for k, v in theirs.__members__.items()}
    assert (repr(SDPBackend.MATH), str(SDPBackend.MATH)) == (repr(theirs.MATH), str(theirs.MATH))
    x = graphc.tensor(values(2, 3, T, E))
    plain = graphc.nn.functional.scaled_dot_product_attention(x, x, x)
    with sdpa_kernel([SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], set_priority=True):
        assert graphc.equal(graphc.nn.functional.scaled_dot_product_attention(x, x, x), plain)

    @sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION)
    def inside() -> Any:
        return graphc.nn.functional.scaled_dot_product_attention(x, x, x)

    assert graphc.equal(graphc.compile(inside)(), plain)
