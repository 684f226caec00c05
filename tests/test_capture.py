"""The capture programs: each shows the same to the bit, eagerly and compiled."""

from __future__ import annotations

import importlib

import pytest

from capture.fallbacks import FALLBACKS
from capture.harness import PROGRAMS, Program, check, normal

for _name in ("inference", "steps", "state", "control", "sizes", "memory", "gradients", "errors"):
    importlib.import_module(f"capture.{_name}")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_shows_the_same_compiled(name: str) -> None:
    check(PROGRAMS[name])


def test_there_are_enough_programs() -> None:
    assert len(PROGRAMS) >= 150
    assert FALLBACKS.keys() <= PROGRAMS.keys()
    assert len(FALLBACKS) <= 20


def test_what_differs_and_what_compiles_nothing_is_found() -> None:
    def differing(compile):
        call = compile(lambda x: x * 2)
        for _ in range(2):
            x = normal(3)
            yield call(x), x + (call.__class__.__name__ == "Compiled")

    def idle(compile):
        yield normal(3)
        yield normal(3)

    with pytest.raises(AssertionError, match=r"differing, yield 0: .*3 of 3 elements differ"):
        check(Program("differing", differing, 1))
    with pytest.raises(AssertionError, match="idle: 0 traces, at most 1"):
        check(Program("idle", idle, 1))
