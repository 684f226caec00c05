"""Programs whose control flow depends on data, scripted here and run where there is only graphc and the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import jit

COUNT = 1000  # random inputs of each
LIMIT, WORDS, END = 8, 11, 1

# What runs in the other process: every input through the file's script, with no source to be found.
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, graphc, warnings
warnings.simplefilter("error")
given = np.load(sys.argv[3])
names = sorted(given.files)
script = graphc.jit.load(sys.argv[2])
results = []
with graphc.no_grad():
    for inputs in zip(*(given[name] for name in names)):
        results.append([np.asarray(r) for r in script(*map(graphc.tensor, inputs))])
np.savez(sys.argv[4], *(np.stack(column) for column in zip(*results)))
compiled = script._programs["forward"]
print(compiled.stats()["traces"], compiled.stats()["fallbacks"], "path by path" in compiled.explain(kernels=False))
"""


class Reader(nn.Module):
    """A recurrent network that reads until it is sure, or has read what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 6)
        self.cell = nn.GRUCell(6, 10)
        self.judge = nn.Linear(10, 3)

    def forward(self, words: Any, length: Any, patience: Any) -> Any:
        h = graphc.zeros(1, 10)
        seen = graphc.zeros(LIMIT, 3)
        sure, steps = False, 0
        while steps < length and not sure:
            h = self.cell(self.embed(words[steps]).unsqueeze(0), h)
            p = F.softmax(self.judge(h), dim=1)[0]
            seen[steps] = p
            if p.max() > patience:
                sure = True
            else:
                h = h * 0.9
            steps += 1
        total = graphc.zeros(3)
        for t in range(int(length)):
            total = total + seen[t]
        return h, seen, total, int(sure), steps


class Translator(nn.Module):
    """A beam search: the best sentences so far, until all have ended or are too long."""

    def __init__(self, beams: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 8)
        self.cell = nn.LSTMCell(8, 8)
        self.out = nn.Linear(8, WORDS)
        self.beams = beams

    def step(self, words: Any, state: Any) -> Any:
        h, c = self.cell(self.embed(words), state)
        return F.log_softmax(self.out(h), dim=1), (h, c)

    def forward(self, context: Any, likes_short: Any) -> Any:
        k = self.beams
        state = (context.expand(k, 8).contiguous(), graphc.zeros(k, 8))
        words = graphc.zeros(k, LIMIT + 1, dtype=graphc.int64)
        scores = graphc.full((k,), -1e9)
        scores[0] = 0.0
        ended = graphc.zeros(k, dtype=graphc.bool)
        stay = graphc.full((WORDS,), -1e9)
        stay[END] = 0.0
        i = 0
        while i < LIMIT and not bool(ended.all()):
            log_p, state = self.step(words[:, i], state)
            log_p = graphc.where(ended.unsqueeze(1), stay, log_p)
            scores, flat = (scores.unsqueeze(1) + log_p).reshape(-1).topk(k)
            beam, word = flat // WORDS, flat % WORDS
            state = (state[0][beam], state[1][beam])
            words = words[beam]
            i += 1
            words[:, i] = word
            ended = ended[beam] | (word == END)
        lengths = (words != END).sum(1)
        ranked = scores / lengths.to(graphc.float32) if likes_short.item() > 0 else scores * 1.0
        best = ranked.argmax()
        return words[best], scores, lengths, i


def reader_inputs(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, LIMIT + 1, count)
    return [rng.integers(0, WORDS, (count, LIMIT)), lengths, rng.uniform(0.3, 0.6, count).astype(np.float32)]


def translator_inputs(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [3 * rng.standard_normal((count, 1, 8)).astype(np.float32), rng.integers(0, 2, count)]


def run_elsewhere(path: Path, inputs: list[np.ndarray]) -> tuple[list[np.ndarray], str]:
    """The results for all inputs, stacked, and what the other process says."""
    given, made = path.with_suffix(".in.npz"), path.with_suffix(".out.npz")
    np.savez(given, **{f"x{i}": x for i, x in enumerate(inputs)})
    source = os.path.dirname(os.path.dirname(graphc.__file__))
    command = [sys.executable, "-I", "-c", CHILD, source, str(path), str(given), str(made)]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(made) as results:
        return [results[name] for name in results.files], done.stdout


def check(model: nn.Module, inputs: list[np.ndarray], path: Path) -> None:
    jit.script(model).save(path)
    found, said = run_elsewhere(path, inputs)
    with graphc.no_grad():
        results = [model(*map(graphc.tensor, given)) for given in zip(*inputs, strict=True)]
    expected = [np.stack([np.asarray(r) for r in column]) for column in zip(*results, strict=True)]
    assert len({r[-1] for r in results}) > 4  # numbers of rounds
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
    assert said.split() == ["1", "[]", "False"]  # one trace, nothing eager, every loop and branch a region


def test_a_reader_stops_where_it_is_sure(tmp_path: Path) -> None:
    graphc.manual_seed(3)
    check(Reader(), reader_inputs(COUNT), tmp_path / "reader.pt")


def test_a_beam_search_ends_with_its_sentences(tmp_path: Path) -> None:
    graphc.manual_seed(4)
    check(Translator(), translator_inputs(COUNT), tmp_path / "translator.pt")
