"""Products of gathered rows: the table is multiplied once, in every bit the same."""

from __future__ import annotations

import pytest

import graphc
from graph_cases import assert_same_bits, check_pass
from graphc import nn
from graphc.passes.gather_products import gather_products

WHERE = "padding_idx=none, scale_grad_by_freq=false"
HEAD = """graph @letters(%i: i64[4, 9], %table: f32[5, 3], %w: f32[3, 7]) {
  %0 = full(value=5, shape=(), dtype=i64) : i64[]
  %1 = remainder(%i, %0) : i64[4, 9]"""
LETTERS = f"""
{HEAD}
  %2 = embedding(%1, %table, {WHERE}) : f32[4, 9, 3]
  %3 = permute(%2, dims=(1, 0, 2)) : f32[9, 4, 3]
  %4 = reshape(%3, shape=(36, 3)) : f32[36, 3]
  %5 = matmul(%4, %w) : f32[36, 7]
  return %5
}}
"""


def test_rows_are_gathered_from_the_product() -> None:
    check_pass(
        gather_products,
        LETTERS,
        f"""
        {HEAD}
          %2 = permute(%1, dims=(1, 0)) : i64[9, 4]
          %3 = reshape(%2, shape=(36,)) : i64[36]
          %4 = matmul(%table, %w) : f32[5, 7]
          %5 = embedding(%3, %4, {WHERE}) : f32[36, 7]
          return %5
        }}
        """,
    )


@pytest.mark.parametrize(
    "changed",
    [
        ("f32[5, 3]", "f32[19, 3]"),  # more rows than half of those that are gathered
        ("dims=(1, 0, 2)) : f32[9, 4, 3]", "dims=(1, 2, 0)) : f32[9, 3, 4]"),  # rows are cut
    ],
    ids=["large table", "cut rows"],
)
def test_other_products_stay(changed: tuple[str, str]) -> None:
    text = LETTERS.replace(*changed)
    check_pass(gather_products, text, text)


def test_an_index_out_of_range_is_found() -> None:
    layer, rnn = nn.Embedding(5, 3), nn.LSTM(3, 4)
    step = graphc.compile(lambda i: rnn(layer(i))[0])
    with graphc.no_grad():
        places = graphc.randint(0, 5, (6, 2))
        assert_same_bits(step(places).numpy(), rnn(layer(places))[0].numpy(), "recurrent layer over letters")
        places[3, 1] = 5
        with pytest.raises(IndexError, match="embedding"):
            step(places)
