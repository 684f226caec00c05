"""Whole training steps as CUDA kernels on the shim: forward, loss, backward and Adam leave the bits that the CPU leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from cuda import shim
from cuda.training import OnDevice, Training, batch
from graph_cases import assert_same_bits


@pytest.fixture(scope="module")
def cache(request: pytest.FixtureRequest) -> Path:
    assert request.config.cache is not None
    return request.config.cache.mkdir("cuda_shim")


@pytest.mark.parametrize("order", shim.SCHEDULES)
def test_a_training_step_has_the_bits_of_the_cpu(cache: Path, order: int) -> None:
    results = []
    for device in (False, True):
        training = Training()
        step: Any = OnDevice(training.step, cache, order) if device else graphc.compile(training.step)
        graphc.manual_seed(7)
        seen = []
        for seed in range(3):
            seen.append(step(*batch(seed)).detach().numpy().copy())
            seen.extend(training.everything())
        results.append(seen)
    assert_same_bits(results[1], results[0])
    assert [device.runs for device in step.devices] == [3]
    assert step.stats()["fallbacks"] == []


def test_gradients_through_a_module_on_the_device(cache: Path) -> None:
    """Forward and backward as two programs, in an eager loop."""
    results = []
    for device in (False, True):
        training = Training()
        call: Any = OnDevice(training.model, cache, 0) if device else training.model
        graphc.manual_seed(7)
        for seed in range(2):
            x, classes = batch(seed)
            training.optimizer.zero_grad()
            graphc.nn.functional.cross_entropy(call(x), classes).backward()
            training.optimizer.step()
        results.append(training.everything())
    assert_same_bits(results[1], results[0])
    assert [device.runs for device in call.devices] == [2, 2]


def test_a_failed_check_leaves_every_state_as_it_was(cache: Path) -> None:
    graphc.manual_seed(0)
    table = graphc.nn.Embedding(4, 3)
    optimizer = graphc.optim.SGD(table.parameters(), lr=0.1, momentum=0.9)

    def step(tokens: Any) -> Any:
        optimizer.zero_grad()
        loss = table(tokens).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    compiled = OnDevice(step, cache, 0)
    compiled(graphc.tensor([1, 1, 2]))
    compiled(graphc.tensor([1, 1, 2]))
    before = table.weight.detach().numpy().copy()
    with pytest.raises(IndexError, match="embedding: index out of range"):
        compiled(graphc.tensor([1, 9, 2]))
    assert_same_bits([table.weight.detach().numpy()], [before])
    compiled(graphc.tensor([3, 3, 3]))
    assert not np.array_equal(table.weight.detach().numpy(), before)
