"""Names and habits of public programs: old places, attributes of one's own on tensors, sizes by keyword, mixed dtypes."""

from __future__ import annotations

import importlib

import pytest

import graphc
import graphc.nn.functional as F
from graphc.profiler import schedule


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("optim.adamw", "AdamW"),
        ("optim.rmsprop", "RMSprop"),
        ("hub", "urlparse"),
        ("hub", "HASH_REGEX"),
        ("_dynamo", "disable"),
    ],
)
def test_a_name_is_where_programs_look_for_it(place: str, name: str) -> None:
    assert hasattr(importlib.import_module(f"graphc.{place}"), name)


def test_settings_of_another_compiler_are_kept() -> None:
    for place in ("_dynamo", "_inductor"):
        config = importlib.import_module(f"graphc.{place}.config")
        assert not config.never_set
        config.suppress_errors = config.triton.cudagraphs = True
        assert config.suppress_errors and config.triton.cudagraphs


def test_a_tensor_takes_attributes_and_code_with_them_compiles() -> None:
    x = graphc.ones(3)
    x.weight_decay = 0.5

    def scaled(x: graphc.Tensor) -> graphc.Tensor:
        y = x * 2
        y.note = "kept"
        assert y.note == "kept"
        return y

    assert graphc.compile(scaled)(x).tolist() == [2.0, 2.0, 2.0] and x.weight_decay == 0.5
    with pytest.raises(AttributeError, match="note"):
        _ = x.note


def test_sizes_by_keyword() -> None:
    for make in (graphc.empty, graphc.zeros, graphc.ones, graphc.rand, graphc.randn):
        assert make(size=(2, 3)).shape == (2, 3)


def test_dtypes_meet_in_einsum_where_nothing_is_summed() -> None:
    wide, narrow = graphc.full((2, 3), 0.1, dtype=graphc.float64), graphc.full((3, 4), 0.2)
    product = graphc.einsum("bd,dn->bdn", wide, narrow)
    assert product.dtype is graphc.float64 and product.equal(wide[:, :, None] * narrow)
    with pytest.raises(RuntimeError, match=r"must have one dtype, got f64\[2, 3\] and f32\[3, 4\]"):
        graphc.einsum("bd,dn->bn", wide, narrow)


def test_a_float32_mask_fits_attention_of_any_dtype() -> None:
    mask = graphc.tensor([[0.0, float("-inf")], [0.0, 0.0]])
    for dtype in (graphc.float64, graphc.bfloat16):
        q = graphc.randn(1, 2, 4).to(dtype)
        found = F.scaled_dot_product_attention(q, q, q, mask)
        assert found.dtype is dtype and found.equal(F.scaled_dot_product_attention(q, q, q, mask.to(dtype)))


def test_spmm_of_dense_tensors_is_their_product() -> None:
    x, y = graphc.rand(2, 3), graphc.rand(3, 4)
    assert graphc.spmm(x, y).equal(x @ y)


def test_tensors_become_one_and_several_again() -> None:
    places = importlib.import_module("graphc._utils")
    given = [graphc.rand(2, 3), graphc.rand(4), graphc.rand(())]
    flat = places._flatten_dense_tensors(given)
    assert flat.shape == (11,)
    back = places._unflatten_dense_tensors(flat, given)
    assert [x.shape for x in back] == [x.shape for x in given] and all(x.equal(y) for x, y in zip(back, given, strict=True))


def test_a_profilers_schedule() -> None:
    plan = schedule(wait=1, warmup=1, active=2, repeat=1, skip_first=1)
    actions = [plan(step).name for step in range(6)]
    assert actions == ["NONE", "NONE", "WARMUP", "RECORD", "RECORD_AND_SAVE", "NONE"]
