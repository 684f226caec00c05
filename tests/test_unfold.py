"""Tensor.unfold as a view: strides, writes through it, eagerly and traced."""

from __future__ import annotations

from typing import Any

import pytest

import graphc


def test_unfold_is_a_view() -> None:
    x = graphc.arange(24).reshape(2, 12)
    windows = x.unfold(1, 3, 3)
    assert tuple(windows.shape) == (2, 4, 3) and windows.stride() == (12, 3, 1)
    windows[:, 1] = -1
    assert x[:, 3:6].eq(-1).all() and x[:, :3].ge(0).all()
    x[0, 0] = 99
    assert windows[0, 0, 0] == 99


def test_unfold_of_a_view_keeps_its_strides() -> None:
    x = graphc.arange(24).reshape(2, 12)
    windows = x.T.unfold(0, 4, 2)
    assert windows.stride() == (2, 12, 1)
    windows[0, 1, 2] = -5
    assert x[1, 2] == -5


def test_write_through_a_traced_unfold() -> None:
    def step(x: Any) -> Any:
        x.unfold(0, 2, 2).mul_(2)
        return x + 1

    a, b = graphc.arange(6.0), graphc.arange(6.0)
    assert graphc.compile(step)(a).equal(step(b)) and a.equal(b)


def test_unfold_of_one_window_may_step_far() -> None:
    assert tuple(graphc.arange(3).unfold(0, 3, 1 << 62).shape) == (1, 3)
    with pytest.raises(RuntimeError, match="unfold: maximum size"):
        graphc.arange(3).unfold(0, 1 << 62, 1)
