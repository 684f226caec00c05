"""What compiled functions hold, and give back; `tests/soak_calls.py` does the same for long."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import graphc
from graphc.native import sites
from graphc.runtime import link, memory
from soak_calls import held, run_calls, run_functions


def libraries() -> int:
    """How much code is linked."""
    gc.collect()
    return sum(linker.alive for linker in link._linkers)


def test_a_dropped_function_gives_its_code_back() -> None:
    run_functions(2, size=8)
    before, linkers = libraries(), len(link._linkers)
    run_functions(2, size=8)
    assert libraries() == before
    assert len(link._linkers) <= linkers + 1


def test_a_linker_is_closed_with_its_last_library() -> None:
    code = link.assemble("define i64 @f(i64 %x) {\n  %y = add i64 %x, 1\n  ret i64 %y\n}")
    one = link.linked(code, ["f"])
    many = [link.linked(code, ["f"]) for _ in range(3 * link._LIBRARIES)]
    assert len({c.addresses["f"] for c in (*many, one)}) == len(many) + 1
    before = len(link._linkers)
    del many
    assert libraries() >= 1
    assert len(link._linkers) <= before - 2
    assert one.addresses["f"]


def test_code_that_runs_stays() -> None:
    compiled = graphc.compile(lambda x: (x @ x).sum(0), use_cache=False)
    x = graphc.randn(700, 700)
    wanted = compiled(x).tolist()
    program = weakref.ref(compiled._last_variant().program)
    results: list[Any] = []
    worker = threading.Thread(target=lambda f=compiled: results.append(f(x)))
    worker.start()
    del compiled
    worker.join()
    del worker
    gc.collect()
    assert results[0].tolist() == wanted
    assert program() is None


def test_an_arena_that_nobody_needs_is_given_back() -> None:
    def f(x: Any) -> Any:
        return ((x @ x).softmax(-1) @ x).sum(0)

    small, large = graphc.compile(f, dynamic=False), graphc.compile(f, dynamic=False)
    a, b = graphc.randn(64, 64), graphc.rand(1400, 1400)
    wanted = small(a).tolist()
    with graphc.no_grad():
        for _ in range(10):
            large(b)
            small(a)
    need = large._last_variant().program.plan.arena_nbytes
    assert need == memory.largest_need() >= 4 << 20  # of all that this process runs
    del large
    gc.collect()
    most = memory.largest_need()
    assert most < need
    assert all(arena.nbytes <= most + memory.HUGE_PAGE for arena in memory._idle_arenas)
    made = sites.made()
    assert made is None or made.arena.nbytes <= most + memory.HUGE_PAGE
    for _ in range(20):
        assert small(a).tolist() == wanted


def test_calls_that_differ_hold_no_more_and_more() -> None:
    run = run_calls(3)
    run(30)
    before = held()
    run(30)
    after = held()
    assert after.libraries <= before.libraries + 8
    assert after.regions <= before.regions + 60
