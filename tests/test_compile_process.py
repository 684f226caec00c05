"""Compiled code and the process around it: the cache on disk, threads, fork."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graph_cases import assert_same_bits
from graphc.runtime import threads
from test_compile import arrays, leaf, normal

PROGRAM = """
import json, sys, warnings
import numpy as np
import graphc
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    f = graphc.compile(lambda x, w: (x @ w).softmax(-1).sum(0) * 1.5)
    x = graphc.tensor(np.linspace(-1, 1, 60, dtype=np.float32).reshape(10, 6))
    w = graphc.tensor(np.linspace(0, 2, 24, dtype=np.float32).reshape(6, 4)).requires_grad_()
    y = f(x, w)
    y[1].backward()
stats = f.stats()
digest = y.detach().numpy().tobytes().hex() + w.grad.numpy().tobytes().hex()
names = [(c.category.__name__, str(c.message)) for c in caught]
print(json.dumps({"compiles": stats["compiles"], "cache_hits": stats["cache_hits"], "digest": digest, "warnings": names}))
"""


def run_program(folder: Path) -> dict[str, Any]:
    """What a new process says that compiles with its cache in `folder`."""
    source = str(Path(graphc.__file__).resolve().parents[1])
    environment = {**os.environ, "GRAPHC_CACHE_DIR": str(folder), "PYTHONPATH": source}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


# ---- the cache -------------------------------------------------------------------------------------------------------


def test_a_second_process_compiles_nothing_and_damage_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    first = run_program(folder)
    assert (first["compiles"], first["cache_hits"], first["warnings"]) == (2, 0, [])
    second = run_program(folder)
    assert (second["compiles"], second["cache_hits"], second["warnings"]) == (0, 2, [])
    assert second["digest"] == first["digest"]
    for file in folder.iterdir():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    third = run_program(folder)
    assert (third["compiles"], third["cache_hits"], third["digest"]) == (2, 0, first["digest"])
    assert run_program(folder)["compiles"] == 0


def test_a_cache_folder_that_cannot_be_made_costs_one_warning(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    said = run_program(blocked / "cache")
    assert said["compiles"] == 2
    assert [kind for kind, _ in said["warnings"]] == ["CompileWarning"]
    assert "going on without it" in said["warnings"][0][1]


def test_the_cache_serves_equal_programs_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    x = normal(4)
    counts = []
    for options in ({}, {}, {"use_cache": False}, {"lanes": 4}):
        f = graphc.compile(lambda x: x * 3 - 0.25, **options)
        assert_same_bits(arrays(f(x)), arrays(x * 3 - 0.25))
        counts.append((f.stats()["compiles"], f.stats()["cache_hits"]))
        assert "mul" in f.explain()
    assert counts == [(1, 0), (0, 1), (1, 0), (1, 0)]


# ---- threads ---------------------------------------------------------------------------------------------------------


def network(x: Any, w: Any) -> Any:
    h = (x @ w).tanh()
    return h.softmax(1).sum(0), h.cumsum(0), (h * h).mean(), h.exp().sum()


def test_any_number_of_threads_gives_the_same_bits() -> None:
    compiled = graphc.compile(network)
    before = threads.get_num_threads()
    x, results = normal(300, 64), []
    try:
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            w = leaf(normal(64, 96, seed=1))
            outputs = compiled(x, w)
            (outputs[0].sum() + outputs[2]).backward()
            results.append(arrays([*outputs, w.grad]))
    finally:
        threads.set_num_threads(before)
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])
    with graphc.no_grad():
        assert_same_bits(results[0][:-1], arrays(network(x, normal(64, 96, seed=1))))


def test_any_vector_width_gives_the_same_bits() -> None:
    x, w = normal(37, 19), normal(19, 23, seed=1)
    wanted = arrays(network(x, w))
    for lanes in (4, 8, 16):
        assert_same_bits(arrays(graphc.compile(network, lanes=lanes)(x, w)), wanted, f"{lanes} lanes")


def test_python_threads_may_share_a_compiled_function() -> None:
    several = graphc.compile(network)
    single = graphc.compile(lambda x, w: (x @ w).tanh().sum(1))
    cases = [(normal(40, 16, seed=s), normal(16, 24, seed=s + 50)) for s in range(4)]
    wanted = [(arrays(network(*case)), arrays((case[0] @ case[1]).tanh().sum(1))) for case in cases]
    failures: list[str] = []
    start = threading.Barrier(len(cases))

    def work(k: int) -> None:
        try:
            start.wait()
            kept = []
            for _ in range(40):
                assert_same_bits(arrays(several(*cases[k])), wanted[k][0])
                kept.append(single(*cases[k]))
            assert_same_bits(arrays(kept), wanted[k][1] * len(kept))
        except BaseException as error:
            failures.append(repr(error))

    running = [threading.Thread(target=work, args=(k,)) for k in range(len(cases))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert failures == []


def test_modes_of_one_thread_are_not_another_ones() -> None:
    f = graphc.compile(lambda x: x * 2)
    x = leaf(normal(3))
    seen: list[bool] = []
    with graphc.no_grad():
        thread = threading.Thread(target=lambda: seen.append(f(x).requires_grad))
        thread.start()
        thread.join()
        assert not f(x).requires_grad
    assert seen == [True]


# ---- fork ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_compiled_code_runs_and_compiles_in_a_forked_child() -> None:
    x, w = normal(300, 64), normal(64, 96, seed=1)
    f = graphc.compile(network)
    wanted = arrays(f(x, w))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks while threads run
        child = os.fork()
    if child == 0:
        code = 1
        try:
            assert_same_bits(arrays(f(x, w)), wanted)
            assert graphc.compile(lambda x: x + 41)(graphc.tensor([1])).tolist() == [42]
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert_same_bits(arrays(f(x, w)), wanted)


def test_an_index_error_in_one_call_does_not_disturb_the_next() -> None:
    table = normal(4, 3)
    f = graphc.compile(lambda i: table[i])
    for last in (4, 3, -9, 2, 1):
        index = graphc.tensor([0, last])
        if last in (4, -9):
            with pytest.raises(IndexError, match=r"index.*out of range.*test_compile_process.py:\d+"):
                f(index)
        else:
            assert np.array_equal(f(index).numpy(), table.numpy()[[0, last]])
