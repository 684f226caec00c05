"""Functions and modules against PyTorch where its operator samples do not reach: equations, modules, older arguments."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as GF

torch = pytest.importorskip("torch")
TF = torch.nn.functional

RNG = np.random.default_rng(2)


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray[Any, Any]]:
    return [RNG.standard_normal(s).astype(np.float32) for s in shapes]


def both(*given: np.ndarray[Any, Any]) -> tuple[list[Any], list[Any]]:
    return [torch.from_numpy(a.copy()) for a in given], [graphc.from_numpy(a.copy()) for a in given]


def close(ours: Any, theirs: Any) -> None:
    wanted = theirs.detach().numpy()
    np.testing.assert_allclose(ours.detach().numpy(), wanted, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(wanted).max(initial=0)))


# ---- einsum ----------------------------------------------------------------------------------------------------------

EQUATIONS = [
    ("ij,jk->ik", (3, 4), (4, 5)), ("ij,jk", (3, 4), (4, 5)), ("ii->i", (4, 4)), ("ii", (4, 4)), ("iij->ij", (3, 3, 2)),
    ("...i,...i->...", (2, 3, 4), (3, 4)), ("i...->...i", (2, 3, 4)), ("...ij,...jk->...ik", (5, 1, 2, 3), (4, 3, 2)),
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)), ("abc,bad,d->ca", (2, 3, 4), (3, 2, 5), (5,)),
    ("i,j,k->kji", (2,), (3,), (4,)), ("ab,bc,cd,de->ae", (2, 30), (30, 3), (3, 40), (40, 2)),
    ("ij,ij->", (3, 4), (3, 4)), ("ij->ji", (3, 4)),
    ("ij->j", (3, 4)), ("ab,ab->ba", (1, 4), (3, 4)), ("iij,jk->ik", (3, 3, 4), (4, 2)), ("... ,...->...", (3, 1), (4,)),
    ("aB,Bc->ac", (2, 3), (3, 2)),
    ("nchw,nc->nhw", (2, 3, 4, 5), (2, 3)), ("i,i,i->i", (4,), (4,), (4,)), ("...,ij->ij...", (2,), (3, 4)),
]  # fmt: skip


@pytest.mark.parametrize(("equation", "shapes"), [(e, s) for e, *s in EQUATIONS])
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    theirs, ours = both(*arrays(*shapes))
    for x in (*theirs, *ours):
        x.requires_grad_()
    a, b = torch.einsum(equation, *theirs), graphc.einsum(equation, *ours)
    close(b, a)
    a.sin().sum().backward()
    b.sin().sum().backward()
    for x, y in zip(theirs, ours, strict=True):
        close(y.grad, x.grad)


def test_einsum_of_lists() -> None:
    theirs, ours = both(*arrays((2, 3, 4), (2, 4, 5)))
    form = [0, Ellipsis, 1], [0, 1, 2], [2, Ellipsis, 0]
    close(
        graphc.einsum(ours[0], form[0], ours[1], form[1], form[2]),
        torch.einsum(theirs[0], form[0], theirs[1], form[1], form[2]),
    )
    close(graphc.einsum("bij,bjk", ours), torch.einsum("bij,bjk", theirs))


def test_einsum_compiles_to_eagers_bits() -> None:
    _, ours = both(*arrays((2, 3, 4), (2, 4, 5), (5, 6)))

    def program(a: Any, b: Any, c: Any) -> Any:
        return graphc.einsum("bij,bjk,kl->bil", a, b, c)

    np.testing.assert_array_equal(graphc.compile(program)(*ours).numpy(), program(*ours).numpy())


@pytest.mark.parametrize("equation", ["ij,jk->il", "ij->iij", "i", "i....->i", "ij,jk,kl", "i1->i", "ij,kj->ik->"])
def test_einsum_refuses_what_pytorch_refuses(equation: str) -> None:
    theirs, ours = both(*arrays((3, 4), (4, 5)))
    with pytest.raises(RuntimeError):
        torch.einsum(equation, *theirs)
    with pytest.raises(RuntimeError, match="einsum"):
        graphc.einsum(equation, *ours)


# ---- modules ---------------------------------------------------------------------------------------------------------

MODULES: list[tuple[str, tuple[Any, ...], dict[str, Any], list[tuple[int, ...]]]] = [
    ("ELU", (), {}, [(3, 4)]), ("ELU", (0.5,), {"inplace": True}, [(3, 4)]), ("SELU", (), {}, [(3, 4)]), ("Mish", (), {}, [(3, 4)]),
    ("LeakyReLU", (0.2,), {}, [(3, 4)]), ("LeakyReLU", (0.2, True), {}, [(3, 4)]), ("ReLU6", (), {}, [(3, 4)]),
    ("PReLU", (), {}, [(3, 4)]), ("PReLU", (4,), {"init": 0.1}, [(3, 4)]), ("Hardswish", (), {}, [(3, 4)]),
    ("Hardsigmoid", (), {}, [(3, 4)]), ("Softplus", (2.0,), {}, [(3, 4)]), ("GLU", (), {}, [(3, 4)]), ("GLU", (0,), {}, [(4, 3)]),
    ("ReLU", (True,), {}, [(3, 4)]), ("SiLU", (True,), {}, [(3, 4)]), ("Bilinear", (3, 4, 2), {}, [(5, 3), (5, 4)]),
    ("Bilinear", (3, 4, 2, False), {}, [(3,), (4,)]), ("CosineSimilarity", (0,), {}, [(5,), (5,)]),
    ("Dropout2d", (0.5,), {}, [(2, 3, 4, 4)]),
    ("SmoothL1Loss", (), {"beta": 0.5}, [(3, 4), (3, 4)]),
    ("KLDivLoss", (), {"reduction": "batchmean", "log_target": True}, [(3, 4), (3, 4)]),
    ("MSELoss", (None, None, "sum"), {}, [(3, 4), (3, 4)]), ("L1Loss", (False,), {}, [(3, 4), (3, 4)]),
    ("Softmax", (1,), {}, [(3, 4)]),
]  # fmt: skip


def pair(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """PyTorch's module and ours with its weights, in evaluation mode."""
    theirs, ours = getattr(torch.nn, name)(*args, **kwargs), getattr(graphc.nn, name)(*args, **kwargs)
    weights = theirs.state_dict()
    assert list(weights) == list(ours.state_dict())
    ours.load_state_dict({k: graphc.from_numpy(v.numpy()) for k, v in weights.items()})
    assert repr(ours) == repr(theirs)
    return theirs.eval(), ours.eval()


@pytest.mark.parametrize(("name", "args", "kwargs", "shapes"), MODULES, ids=lambda v: v if isinstance(v, str) else "")
def test_module(name: str, args: Any, kwargs: Any, shapes: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, ours = pair(name, args, kwargs)
        a, b = both(*arrays(*shapes))
        close(ours(*b), theirs(*a))


def test_losses_of_probabilities_and_classes() -> None:
    p, t = RNG.uniform(0.1, 0.9, (2, 3, 4)).astype(np.float32)
    (a, b), (c, d) = both(p, t)
    close(graphc.nn.BCELoss()(c, d), torch.nn.BCELoss()(a, b))
    weight = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    close(
        graphc.nn.BCELoss(graphc.from_numpy(weight), reduction="sum")(c, d),
        torch.nn.BCELoss(torch.from_numpy(weight), reduction="sum")(a, b),
    )
    classes = np.array([0, 3, 1])
    for name in ("CrossEntropyLoss", "NLLLoss"):
        ours, theirs = getattr(graphc.nn, name)(None, None, 3, None, "none"), getattr(torch.nn, name)(None, None, 3, None, "none")
        close(ours(c, graphc.from_numpy(classes)), theirs(a, torch.from_numpy(classes)))


ATTENTIONS: list[dict[str, Any]] = [
    {}, {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 5, "vdim": 7}, {"batch_first": True},
    {"dropout": 0.3},
]  # fmt: skip


@pytest.mark.parametrize("how", ATTENTIONS, ids=str)
def test_multihead_attention(how: dict[str, Any]) -> None:
    theirs, ours = pair("MultiheadAttention", (8, 2), how)
    lead = (2, 3), (2, 5)
    if not how.get("batch_first"):
        lead = (3, 2), (5, 2)
    a, b = both(*arrays((*lead[0], 8), (*lead[1], how.get("kdim", 8)), (*lead[1], how.get("vdim", 8))))
    mask = np.array([[False] * 4 + [True], [False] * 5])
    scores = RNG.standard_normal((3, 5)).astype(np.float32)
    masks: list[dict[str, Any]] = [
        {},
        {"key_padding_mask": mask},
        {"attn_mask": scores},
        {"key_padding_mask": mask, "attn_mask": scores > 1},
    ]
    for given in masks:
        for more in ({}, {"need_weights": False}, {"average_attn_weights": False}):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                x, v = theirs(*a, **{k: torch.from_numpy(m) for k, m in given.items()}, **more)
            y, w = ours(*b, **{k: graphc.from_numpy(m) for k, m in given.items()}, **more)
            close(y, x)
            assert (w is None) == (v is None)
            if v is not None:
                close(w, v)


def test_multihead_attention_without_a_batch_and_its_gradients() -> None:
    theirs, ours = pair("MultiheadAttention", (4, 2), {})
    (a,), (b,) = both(*arrays((3, 4)))
    close(ours(b, b, b)[0], theirs(a, a, a)[0])
    theirs(a, a, a)[0].square().sum().backward()
    ours(b, b, b)[0].square().sum().backward()
    for x, y in zip(theirs.parameters(), ours.parameters(), strict=True):
        close(y.grad, x.grad)


@pytest.mark.parametrize(
    "how", [{}, {"mode": "sum"}, {"mode": "max", "padding_idx": 2}, {"include_last_offset": True}, {"max_norm": 1.0}]
)
def test_embedding_bag(how: dict[str, Any]) -> None:
    theirs, ours = pair("EmbeddingBag", (6, 3), how)
    places, offsets = np.array([1, 2, 2, 5, 0, 4]), np.array([0, 2, 2, 6])
    x = theirs(torch.from_numpy(places), torch.from_numpy(offsets))
    y = ours(graphc.from_numpy(places), graphc.from_numpy(offsets))
    close(y, x)
    x.sin().sum().backward()
    y.sin().sum().backward()
    close(ours.weight.grad, theirs.weight.grad)
    close(ours.weight, theirs.weight)


# ---- forms of functions ----------------------------------------------------------------------------------------------

INPLACE: list[tuple[str, tuple[Any, ...]]] = [
    ("relu", ()), ("elu", (0.5,)), ("selu", ()), ("celu", (0.7,)), ("leaky_relu", (0.2,)), ("hardtanh", (-0.5, 0.5)),
    ("threshold", (0.1, 3.0)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args"), INPLACE)
def test_inplace_activations(name: str, args: tuple[Any, ...]) -> None:
    (a,), (b,) = both(*arrays((3, 4)))
    x, y = a.clone(), b.clone()
    assert getattr(GF, f"{name}_")(y, *args) is y
    close(y, getattr(TF, f"{name}_")(x, *args))
    y = b.clone()
    assert getattr(GF, name)(y, *args, True) is y
    close(y, getattr(TF, name)(a.clone(), *args, True))


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "kl_div", "soft_margin_loss"])
@pytest.mark.parametrize("older", [(False, None), (None, False), (True, True), (False, True)])
def test_older_reductions(name: str, older: tuple[Any, Any]) -> None:
    a, b = both(*arrays((3, 4), (3, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        close(getattr(GF, name)(*b, *older), getattr(TF, name)(*a, *older))


def test_attention_without_keys_and_softmax_without_a_dim() -> None:
    q, k = arrays((2, 3, 4), (2, 0, 4))
    a, b = both(q, k)
    close(GF.scaled_dot_product_attention(b[0], b[1], b[1]), TF.scaled_dot_product_attention(a[0], a[1], a[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        close(GF.softmax(b[0]), TF.softmax(a[0]))
        close(GF.log_softmax(b[0][0]), TF.log_softmax(a[0][0]))
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        GF.softmax(b[0])


def test_one_hot_counts_classes_itself() -> None:
    classes = np.array([[0, 2], [1, 0]])
    close(GF.one_hot(graphc.from_numpy(classes)), TF.one_hot(torch.from_numpy(classes)))
    compiled = graphc.compile(lambda x: GF.one_hot(x, 4))
    close(compiled(graphc.from_numpy(classes)), TF.one_hot(torch.from_numpy(classes), 4))


@pytest.mark.parametrize("shapes", [((6, 8), (2, 8, 3), [2, 6]), ((6, 8), (8, 3), [3, 8]), ((2, 4, 8), (8, 6), [1, 6])])
def test_grouped_mm(shapes: Any) -> None:
    (a, b), ends = arrays(*shapes[:2]), shapes[2]
    ours = GF.grouped_mm(graphc.from_numpy(a), graphc.from_numpy(b), offs=graphc.tensor(ends, dtype=graphc.int32)).numpy()
    starts = [0, *ends[:-1]]
    if a.ndim == 2 and b.ndim == 2:
        wanted = np.stack([a[:, s:e] @ b[s:e] for s, e in zip(starts, ends, strict=True)])
    elif a.ndim == 2:
        wanted = np.concatenate([a[s:e] @ b[g] for g, (s, e) in enumerate(zip(starts, ends, strict=True))])
    else:
        wanted = np.concatenate([a[g] @ b[:, s:e] for g, (s, e) in enumerate(zip(starts, ends, strict=True))], 1)
    np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-5)


def test_ctc_gradient_is_the_slope_of_the_loss_of_logits() -> None:
    logits = RNG.standard_normal((6, 2, 4))
    targets, lengths = np.array([[1, 2, 2], [3, 1, 1]]), ((6, 5), (3, 1))

    def loss(array: Any) -> Any:
        x = graphc.from_numpy(array).requires_grad_()
        return x, GF.ctc_loss(GF.log_softmax(x, -1), graphc.from_numpy(targets), *lengths, reduction="sum")

    x, value = loss(logits.copy())
    value.backward()
    for place in [(0, 0, 1), (3, 1, 0), (5, 0, 2), (5, 1, 2)]:
        moved = [logits.copy(), logits.copy()]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        slope = (loss(moved[0])[1].item() - loss(moved[1])[1].item()) / 2e-6
        np.testing.assert_allclose(x.grad.numpy()[place], slope, rtol=1e-4, atol=1e-6)
