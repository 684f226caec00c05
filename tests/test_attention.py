"""Attention's nests: values, gradients, the same bits however they are run, and no matrix of scores in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graph_cases import Array, assert_same_bits, run_compiled, run_in_python
from graphc import nn
from graphc.dims import Dim
from graphc.dtypes import float32, from_numpy
from graphc.ir.graph import Builder, Graph, Value
from graphc.ir.op import Op, TensorType
from graphc.nn import functional as F
from graphc.ops.attention import keys_of_block, keys_of_gradient
from graphc.pipeline import build

MASK = np.random.default_rng(1).standard_normal((50, 70)) > -1
# (query, key, value, arguments): one and several blocks of keys, rows and features that do not fill tiles, shared keys, one query
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 40, 16), (2, 3, 40, 16), (2, 3, 40, 16), {}),
    "causal": ((2, 41, 16), (2, 77, 16), (2, 77, 20), {"is_causal": True}),
    "fewer keys": ((2, 100, 16), (2, 37, 16), (2, 37, 40), {"is_causal": True}),
    "blocks": ((2, 70, 64), (2, 700, 64), (2, 700, 72), {}),
    "causal blocks": ((1, 600, 64), (1, 1100, 64), (1, 1100, 64), {"is_causal": True}),
    "wide": ((2, 9, 200), (2, 300, 200), (2, 300, 130), {}),
    "shared": ((2, 4, 33, 16), (2, 1, 50, 16), (50, 16), {}),
    "one": ((2, 4, 1, 64), (2, 4, 129, 64), (2, 4, 129, 64), {}),
    "one, shared": ((2, 6, 1, 16), (2, 1, 700, 16), (2, 1, 700, 16), {}),
    "one, causal": ((2, 1, 8), (2, 40, 8), (2, 40, 8), {"is_causal": True}),
    "chosen": ((2, 50, 3), (2, 70, 3), (2, 70, 3), {"attn_mask": MASK}),
    "added": ((2, 50, 3), (2, 70, 3), (2, 70, 3), {"attn_mask": MASK * 2.0 - 1.0}),
    "one, chosen": ((2, 1, 3), (2, 70, 3), (2, 70, 3), {"attn_mask": MASK[:1]}),
}


def operands(case: str, dtype: Any = np.float32) -> tuple[list[Array], dict[str, Any]]:
    query, key, value, how = CASES[case]
    rng = np.random.default_rng(0)
    mask = how.get("attn_mask")
    if mask is not None and mask.dtype != bool:
        how = {**how, "attn_mask": mask.astype(dtype)}
    return [rng.standard_normal(shape).astype(dtype) for shape in (query, key, value)], how


def plainly(query: Array, key: Array, value: Array, attn_mask: Array | None = None, is_causal: bool = False) -> Array:
    scores = query @ np.swapaxes(key, -1, -2) / np.sqrt(query.shape[-1])
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    if attn_mask is not None:
        scores = np.where(attn_mask, scores, -np.inf) if attn_mask.dtype == bool else scores + attn_mask
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ value


def attended(arrays: list[Array], how: dict[str, Any]) -> Any:
    given = {k: graphc.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in how.items()}
    return F.scaled_dot_product_attention(*map(graphc.from_numpy, arrays), **given)


def graph_of(arrays: list[Array], how: dict[str, Any], backward: bool, symbolic: bool = False) -> Graph:
    """Attention, or its gradient, as a graph; with symbols for all sizes but those of features."""
    mask = how.get("attn_mask")
    inputs = []
    for i, array in enumerate([*arrays, *(() if mask is None else (mask,))]):
        features = array.ndim - 1 if i < 3 else -1
        named = [n if not symbolic or n == 1 or d == features else Dim.symbol(f"n{n}", 2) for d, n in enumerate(array.shape)]
        inputs.append(Value(TensorType(from_numpy(array.dtype), tuple(named)), name=f"x{i}"))
    attrs = {"is_causal": how.get("is_causal", False), "scale": arrays[0].shape[-1] ** -0.5}
    builder = Builder()
    with builder.running():
        outputs = Op.table["attention"].run(*inputs, **attrs)
        if backward:
            outputs = Op.table["attention_backward"].run(outputs[0], *outputs, *inputs, **attrs)
    return builder.graph("attention", inputs, outputs[: 3 if backward else 1])


@pytest.mark.parametrize("case", CASES)
def test_values_and_bits(case: str) -> None:
    arrays, how = operands(case)
    eager = attended(arrays, how)
    mask = how.get("attn_mask")
    wide = plainly(*(a.astype(np.float64) for a in arrays), mask, how.get("is_causal", False))
    np.testing.assert_allclose(eager.numpy(), wide, rtol=2e-5, atol=2e-6)
    compiled = graphc.compile(
        lambda *x: F.scaled_dot_product_attention(
            *x, **{k: graphc.from_numpy(v) if k == "attn_mask" else v for k, v in how.items()}
        )
    )
    assert_same_bits(compiled(*map(graphc.from_numpy, arrays)).numpy(), eager.numpy(), case)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("case", ["causal blocks", "one, shared", "added"])
def test_bits_do_not_depend_on_vectors_or_on_known_sizes(case: str, backward: bool) -> None:
    arrays, how = operands(case)
    given = [*arrays, *([how["attn_mask"]] if "attn_mask" in how else [])]
    graph = graph_of(arrays, how, backward)
    wanted = run_compiled(graph, given, lanes=16)
    for lanes in (4, 8):
        for k, (found, one) in enumerate(zip(run_compiled(graph, given, lanes), wanted, strict=True)):
            assert_same_bits(found, one, f"{case}: result {k}, {lanes} lanes")
    sizes = {f"n{n}": n for a in given for n in a.shape}
    symbolic = run_compiled(graph_of(arrays, how, backward, symbolic=True), given, 16, sizes=sizes)
    for k, (found, one) in enumerate(zip(symbolic, wanted, strict=True)):
        assert_same_bits(found, one, f"{case}: result {k}, sizes as symbols")


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("shapes", [((1, 9, 3), (1, 35, 3), (1, 35, 2)), ((1, 1, 3), (1, 35, 3), (1, 35, 2))], ids=["many", "one"])
def test_native_code_is_the_loops(shapes: Any, backward: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    graph = graph_of(arrays, {"is_causal": True}, backward)
    for found, wanted in zip(run_compiled(graph, arrays, 32), run_in_python(graph, arrays), strict=True):
        assert_same_bits(found, wanted, "loops")


@pytest.mark.parametrize("case", CASES)
def test_gradients(case: str) -> None:
    """Those of the operators that attention would be made of, in float64."""
    arrays, how = operands(case, np.float64)
    tensors = [graphc.from_numpy(a).requires_grad_() for a in arrays]
    given = {k: graphc.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in how.items()}
    if "added" in case:
        given["attn_mask"].requires_grad_()
        tensors.append(given["attn_mask"])
    out = F.scaled_dot_product_attention(*tensors[:3], **given)
    weight = graphc.from_numpy(np.random.default_rng(2).standard_normal(tuple(out.shape)))
    found = graphc.autograd.grad((out * weight).sum(), tensors)
    query, key, value = tensors[:3]
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    mask = given.get("attn_mask")
    if how.get("is_causal"):
        mask = graphc.ones(*scores.shape[-2:], dtype=graphc.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -np.inf) if mask.dtype is graphc.bool else scores + mask
    wanted = graphc.autograd.grad((F.softmax(scores, -1) @ value * weight).sum(), tensors)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-9, atol=1e-12)


def test_rows_that_see_nothing_are_zero() -> None:
    arrays, _ = operands("chosen")
    tensors = [graphc.from_numpy(a).requires_grad_() for a in arrays]
    mask = graphc.ones(50, 70, dtype=graphc.bool)
    mask[3] = False
    out = F.scaled_dot_product_attention(*tensors, attn_mask=mask)
    out.sum().backward()
    assert not out[:, 3].any() and not tensors[0].grad[:, 3].any() and out[:, 4].any()
    assert all(graphc.isfinite(t.grad).all() for t in tensors)


def test_rows_do_not_depend_on_their_batch_or_length() -> None:
    arrays, _ = operands("plain")
    whole = attended(arrays, {}).numpy()
    query, key, value = arrays
    assert_same_bits(attended([query[1:, :1, 8:30], key[1:, :1], value[1:, :1]], {}).numpy(), whole[1:, :1, 8:30], "part")


@pytest.mark.parametrize("case", ["causal blocks", "plain"])
def test_narrow_floats_are_rounded_once(case: str) -> None:
    arrays, how = operands(case)
    tensors = [graphc.from_numpy(a).to(graphc.bfloat16).requires_grad_() for a in arrays]
    wide = [t.detach().float().requires_grad_() for t in tensors]
    narrow_out, wide_out = (F.scaled_dot_product_attention(*x, **how) for x in (tensors, wide))
    assert graphc.equal(narrow_out, wide_out.to(graphc.bfloat16))
    narrow_out.sum().backward()
    wide_out.sum().backward()
    for t, w in zip(tensors, wide, strict=True):
        assert t.grad.dtype is graphc.bfloat16
        np.testing.assert_allclose(t.grad.float().numpy(), w.grad.numpy(), rtol=0.05, atol=0.05)


def test_no_scores_in_memory() -> None:
    """Forward and backward of 4096 queries and keys: the arena holds nothing of their product's size."""
    long = Value(TensorType(float32, (4096, 64)), name="x")
    builder = Builder()
    with builder.running():
        attrs = {"is_causal": True, "scale": 0.125}
        found = Op.table["attention"].run(long, long, long, **attrs)
        gradients = Op.table["attention_backward"].run(long, *found, long, long, long, **attrs)
    plan = build(builder.graph("long", [long], [found[0], *gradients])).plan
    assert plan.arena_nbytes < 4096 * 64 * 4


def test_layers_use_it() -> None:
    graphc.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    x = graphc.randn(2, 5, 16)
    step = graphc.compile(lambda x: layer(x).sum().backward())
    step(x)
    assert "attention: gradient" in step.explain(kernels=False)


def test_blocks_of_keys() -> None:
    assert [keys_of_block(n) for n in (1, 64, 128, 256, 1024)] == [512, 512, 512, 256, 64]
    assert [keys_of_gradient(n) for n in (1, 128, 256, 1024)] == [256, 256, 128, 64]


def test_derivatives_of_gradients() -> None:
    arrays, how = operands("causal", np.float64)
    q, k, v = (graphc.from_numpy(a[:, :6]).requires_grad_() for a in arrays)
    assert graphc.autograd.gradgradcheck(lambda *x: F.scaled_dot_product_attention(*x, **how), (q, k, v), fast_mode=True)


def test_vmap_gives_the_bits_of_the_examples() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (graphc.from_numpy(rng.standard_normal(s).astype(np.float32)) for s in ((3, 2, 9, 8), (3, 2, 11, 8), (2, 11, 8)))

    def gradient(q: Any, k: Any) -> Any:
        return graphc.func.grad(lambda q, k: F.scaled_dot_product_attention(q, k, v).sum(), argnums=(0, 1))(q, k)

    found = graphc.func.vmap(gradient)(q, k)
    for i in range(3):
        for one, other in zip(gradient(q[i], k[i]), found, strict=True):
            assert graphc.equal(one, other[i])
