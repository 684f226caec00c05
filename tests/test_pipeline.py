"""What a compilation tells, and what it leaves alone."""

from __future__ import annotations

import gc
import io
import sys

import pytest

import graphc
from graphc import pipeline
from graphc.capture.tracer import trace


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_compilation_is_told_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = trace(lambda x: x.softmax(0) + 1, (graphc.zeros(7),)).graph
    for terminal, long_s, told in ((Terminal(), 0.0, True), (Terminal(), 60.0, False), (io.StringIO(), 0.0, False)):
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(pipeline, "LONG_S", long_s)
        pipeline.build(graph, use_cache=False)
        text = terminal.getvalue()
        assert text.startswith(f"graphc: compiling {graph.name}, {len(graph.nodes)} operators ... ") == told
        assert text.endswith(" s\n") == told and text.count("\n") == told


def test_garbage_is_searched_for_again_after_a_compilation() -> None:
    graph = trace(lambda x: x + 1, (graphc.zeros(7),)).graph
    assert gc.isenabled()
    pipeline.build(graph, use_cache=False)
    assert gc.isenabled()
    gc.disable()
    try:
        pipeline.build(graph, use_cache=False)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_a_large_compilation_made_is_not_searched_at_once() -> None:
    with pipeline.uncollected():
        made: list[list[int]] = [[] for _ in range(2 * pipeline.MANY_OBJECTS)]
    assert gc.isenabled() and not gc.get_freeze_count()
    old = {id(x) for x in gc.get_objects(2)}
    assert all(id(x) in old for x in made)
