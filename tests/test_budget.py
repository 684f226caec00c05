"""`compile(budget_s=...)`: machine code made in haste has the bits of all other, is told, and is not kept on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.ir.text import parse_graph
from graphc.pipeline import Options, build

TEXT = "graph @f(%x: f32[9, 40]) {\n  %0 = exp(%x) : f32[9, 40]\n  %1 = reduce_sum(%0, dim=1) : f32[9]\n  return %1\n}"


@graphc.no_grad()
def test_no_time_at_all_gives_the_same_bits() -> None:
    graphc.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(8 * 36, 10), nn.LayerNorm(10)).eval()
    x = graphc.randn(4, 3, 6, 6)
    hasty = graphc.compile(net, budget_s=0, use_cache=False)
    assert np.array_equal(hasty(x).numpy(), net(x).numpy())
    assert "the budget was spent" in hasty.explain()
    ample = graphc.compile(net, budget_s=1e6, use_cache=False)
    assert np.array_equal(ample(x).numpy(), net(x).numpy())
    assert "the budget was spent" not in ample.explain()


def test_hasty_code_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    graph = parse_graph(TEXT)
    assert build(graph, Options(budget_s=0.0)).hasty == 1
    assert not build(graph).from_cache  # it was not there, and is now
    assert build(graph, Options(budget_s=0.0)).from_cache


@pytest.mark.parametrize("budget_s", [-1.0, float("nan")])
def test_a_budget_is_a_time(budget_s: float) -> None:
    with pytest.raises(ValueError, match="budget_s must be a number of seconds"):
        graphc.compile(lambda x: x, budget_s=budget_s)
