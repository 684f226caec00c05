"""Recurrent layers: what their kernels promise (rows, bits, one program for any length), packing, the loop written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.ir.graph import Builder, Value
from graphc.ir.op import TensorType
from graphc.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence, unpack_sequence
from graphc.ops.recurrent import SEQUENCES, step_by_step

KINDS = {"RNN": 1, "LSTM": 4, "GRU": 3}


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def stepped(kind: str, model: Any, x: Any) -> Any:
    """One layer of outputs [T, B, H] in float64, from the cells' definitions."""
    wi, wh, bi, bh = (p.detach().numpy().astype(np.float64) for p in model.parameters())
    h = c = np.zeros((x.shape[1], wh.shape[1]))
    outputs = []
    for now in x.astype(np.float64):
        u, v = np.split(now @ wi.T + bi, KINDS[kind], 1), np.split(h @ wh.T + bh, KINDS[kind], 1)
        if kind == "RNN":
            h = np.tanh(u[0] + v[0])
        elif kind == "LSTM":
            i, f, o = (sigmoid(u[k] + v[k]) for k in (0, 1, 3))
            c = f * c + i * np.tanh(u[2] + v[2])
            h = o * np.tanh(c)
        else:
            r, z = sigmoid(u[0] + v[0]), sigmoid(u[1] + v[1])
            h = (1 - z) * np.tanh(u[2] + r * v[2]) + z * h
        outputs.append(h)
    return np.stack(outputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(3, 1, 2, 5), (7, 6, 4, 16), (2, 13, 3, 19)], ids=str)
def test_values_are_those_of_the_cells(kind: str, sizes: tuple[int, int, int, int]) -> None:
    steps, batch, inputs, hidden = sizes
    graphc.manual_seed(0)
    model = getattr(nn, kind)(inputs, hidden)
    x = graphc.randn(steps, batch, inputs)
    np.testing.assert_allclose(model(x)[0].detach().numpy(), stepped(kind, model, x.numpy()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_does_not_depend_on_its_batch(kind: str) -> None:
    model = getattr(nn, kind)(3, 18, 2, bidirectional=True)
    x = graphc.randn(4, 11, 3)
    together = model(x)[0]
    for k in (0, 5, 10):
        assert graphc.equal(model(x[:, k : k + 1])[0][:, 0], together[:, k])
        assert graphc.equal(model(x[:, k])[0], together[:, k])


@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences_are_those_of_each_alone(kind: str) -> None:
    model = getattr(nn, kind)(3, 5, 2, bidirectional=True)
    sequences = [graphc.randn(n, 3) for n in (2, 6, 1, 4)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    y, last = model(packed)
    assert isinstance(y, PackedSequence)
    states = last if isinstance(last, tuple) else (last,)
    for k, (sequence, found) in enumerate(zip(sequences, unpack_sequence(y), strict=True)):
        alone, its_last = model(sequence)
        assert graphc.equal(found, alone)
        for state, its in zip(states, its_last if isinstance(its_last, tuple) else (its_last,), strict=True):
            assert graphc.equal(state[:, k], its)


def test_eager_and_compiled_give_the_same_bits_and_one_program_serves_any_length() -> None:
    model = nn.LSTM(5, 7, 2, bidirectional=True, proj_size=3, batch_first=True)
    compiled = graphc.compile(lambda x, lengths=(4, 2, 1): pad_packed_sequence(model(pack_padded_sequence(x, lengths, True))[0])[0])
    x = graphc.randn(3, 4, 5)
    y = compiled(x)
    wanted = pad_packed_sequence(model(pack_padded_sequence(x, [4, 2, 1], True))[0])[0]
    assert y.detach().numpy().tobytes() == wanted.detach().numpy().tobytes()
    kernels = []
    for steps in (8, 100):
        single = nn.LSTM(5, 16)
        graph = graphc.compile(lambda x, single=single: single(x)[0])
        graph(graphc.randn(steps, 2, 5))
        kernels.append(str(graph.explain()).count("rows over time"))
    assert kernels[0] == kernels[1] == 1


def test_a_packed_sequence_given_to_compiled_code() -> None:
    model = nn.GRU(2, 3)
    compiled = graphc.compile(lambda packed: model(packed)[0].data)
    for lengths in ((3, 1), (2, 2), (3, 1)):
        packed = pack_sequence([graphc.randn(n, 2) for n in lengths])
        assert compiled(packed).detach().numpy().tobytes() == model(packed)[0].data.detach().numpy().tobytes()
    assert not compiled.stats()["fallbacks"]


@pytest.mark.parametrize("name", SEQUENCES)
def test_vmap_and_second_derivatives(name: str) -> None:
    """Over a batch of batches, and against differences of gradients."""
    blocks = {"lstm": 4, "gru": 3}.get(name, 1)
    graphc.manual_seed(1)
    x, h = graphc.randn(3, 4, 2, blocks * 3, dtype=graphc.float64), graphc.randn(2, 3, dtype=graphc.float64)
    more = {"lstm": {"c0": h * 0.5}, "gru": {"bias": h[0]}}.get(name, {})
    weight = graphc.randn(blocks * 3, 3, dtype=graphc.float64)

    def run(x: Any, weight: Any = weight) -> Any:
        found = SEQUENCES[name](x, h, weight, **more)
        return found[0] if isinstance(found, tuple) else found

    together = graphc.vmap(run)(x)
    for k in range(3):
        np.testing.assert_allclose(together[k].numpy(), run(x[k]).numpy(), rtol=1e-12)
    if name != "rnn_relu":
        leaves = [x[0].clone().requires_grad_(), weight.clone().requires_grad_()]
        assert graphc.autograd.gradcheck(run, leaves)
        assert graphc.autograd.gradgradcheck(run, leaves)


def test_steps_written_out_are_the_loop() -> None:
    """The rule that vmap and second derivatives run is a product a step, and no loop."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in ((3, 2, 12), (2, 4), (12, 4), (4,))]
    op = SEQUENCES["gru"]
    inputs = [Value(TensorType(graphc.float64, a.shape), None, f"x{k}") for k, a in enumerate(arrays)]
    builder = Builder()
    with builder.running():
        step_by_step(op)(*inputs, reverse=True, projected=False, masked=False)
    assert not any(node.op is op for node in builder.nodes)
    assert sum(node.op.name == "matmul" for node in builder.nodes) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss(kind: str) -> None:
    graphc.manual_seed(0)
    model, head = getattr(nn, kind)(1, 12), nn.Linear(12, 1)
    optimizer = graphc.optim.Adam([*model.parameters(), *head.parameters()], lr=0.02)
    x = graphc.rand(6, 16, 1)
    wanted, losses = x.cumsum(0), []
    for _ in range(40):
        optimizer.zero_grad()
        loss = ((head(model(x)[0]) - wanted) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_damaged_packed_sequences_are_refused() -> None:
    model = nn.LSTM(2, 3)
    with pytest.raises(RuntimeError, match="batch_sizes should be positive and never grow"):
        model(PackedSequence(graphc.zeros(4, 2), graphc.tensor([1, 3])))
    with pytest.raises((RuntimeError, IndexError)):
        model(PackedSequence(graphc.zeros(2, 2), graphc.tensor([3, 2])))
    with pytest.raises(RuntimeError, match="a length is 9"):
        pack_padded_sequence(graphc.zeros(4, 1, 2), [9])
