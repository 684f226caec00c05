"""Recurrent layers and cells, packed and padded sequences: PyTorch's names, state, printing, values, gradients and errors."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

T, B, I, H = 5, 4, 3, 6
KINDS = ("RNN", "LSTM", "GRU")
SORTED, UNSORTED = [5, 4, 2, 1], [2, 5, 1, 4]
# lengths: None for a padded sequence.
CASES: list[dict[str, Any]] = [
    {},
    {"given": True},
    {"bidirectional": True, "bias": False},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "given": True},
    {"unbatched": True},
    {"unbatched": True, "given": True, "batch_first": True, "bidirectional": True},
    {"lengths": SORTED},
    {"lengths": SORTED, "batch_first": True, "num_layers": 2, "bidirectional": True, "given": True},
    {"lengths": UNSORTED, "given": True, "bias": False, "batch_first": True},
    {"lengths": [3, 3, 3, 3], "given": True},
]
OWN: dict[str, list[dict[str, Any]]] = {
    "LSTM": [
        {"proj_size": 2, "num_layers": 2, "bidirectional": True, "given": True, "bias": False},
        {"proj_size": 2, "lengths": UNSORTED, "bidirectional": True, "given": True},
        {"proj_size": 2, "unbatched": True},
    ],
    "RNN": [{"nonlinearity": "relu"}, {"nonlinearity": "relu", "lengths": UNSORTED, "bidirectional": True, "given": True}],
    "GRU": [],
}
LISTED = [pytest.param(kind, case, id=f"{kind}-{k}") for kind in KINDS for k, case in enumerate([*CASES, *OWN[kind]])]


def values(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(mine: Any, theirs: Any, what: str = "") -> None:
    np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=3e-5, atol=3e-6, err_msg=what)


def pair(kind: str, *args: Any, **how: Any) -> tuple[Any, Any]:
    """The module here and in PyTorch, with PyTorch's weights."""
    mine, theirs = getattr(graphc.nn, kind)(*args, **how), getattr(torch.nn, kind)(*args, **how)
    assert repr(mine) == repr(theirs)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    mine.load_state_dict({n: v.numpy() for n, v in theirs.state_dict().items()})
    return mine, theirs


def states(kind: str, case: dict[str, Any], how: dict[str, Any]) -> list[Any]:
    """Arrays of first states."""
    rows = how.get("num_layers", 1) * (1 + how.get("bidirectional", False))
    batch = () if case.get("unbatched") else (B,)
    sizes = [how.get("proj_size") or H] + ([H] if kind == "LSTM" else [])
    return [values(rows, *batch, size, seed=3 + k) for k, size in enumerate(sizes)]


def results(lib: Any, model: Any, case: dict[str, Any], x: Any, hx: list[Any]) -> tuple[Any, ...]:
    """Every output of a layer, padded."""
    given = (tuple(hx) if len(hx) == 2 else hx[0]) if case.get("given") else None
    first, lengths = model.batch_first, case.get("lengths")
    if lengths is None:
        y, h = model(x, given)
    else:
        rnn = lib.nn.utils.rnn
        y, h = model(rnn.pack_padded_sequence(x, lengths, first, enforce_sorted=lengths == sorted(lengths, reverse=True)), given)
        y, _ = rnn.pad_packed_sequence(y, first, padding_value=0.5)
    return (y, *(h if isinstance(h, tuple) else (h,)))


def backward(outputs: tuple[Any, ...], leaves: list[Any]) -> list[Any]:
    """Gradients of a sum in which every output counts, as arrays."""
    loss = sum(((y * y).sum() * (k + 1) for k, y in enumerate(outputs)), start=outputs[0].sum())
    loss.backward()
    return [np.asarray(leaf.grad.numpy()) for leaf in leaves]


@pytest.mark.parametrize("kind, case", LISTED)
def test_layers(kind: str, case: dict[str, Any]) -> None:
    how = {name: value for name, value in case.items() if name not in ("given", "unbatched", "lengths")}
    mine, theirs = pair(kind, I, H, **how)
    shape = (T, I) if case.get("unbatched") else (B, T, I) if how.get("batch_first") else (T, B, I)
    arrays, found = [values(*shape), *states(kind, case, how)], []
    compiled = graphc.compile(lambda x, *hx: results(graphc, mine, case, x, list(hx)))

    def eager(lib: Any, model: Any) -> Callable[..., Any]:
        return lambda x, *hx: results(lib, model, case, x, list(hx))

    for lib, model, run in ((torch, theirs, eager(torch, theirs)), (graphc, mine, eager(graphc, mine)), (graphc, mine, compiled)):
        model.zero_grad()
        leaves = [lib.from_numpy(a.copy()).requires_grad_() for a in arrays]
        outputs = run(*leaves)
        gradients = backward(outputs, [*(leaves if case.get("given") else leaves[:1]), *model.parameters()])
        found.append([*(y.detach().numpy() for y in outputs), *gradients])
    for k, (wanted, here, there) in enumerate(zip(*found, strict=True)):
        close(here, wanted, f"result {k}")
        assert here.tobytes() == there.tobytes(), f"result {k}: eager and compiled differ"


@pytest.mark.parametrize("kind", KINDS)
def test_double_backward(kind: str) -> None:
    mine, theirs = pair(kind, I, H, bidirectional=True, **({"proj_size": 2} if kind == "LSTM" else {}))
    found = []
    for lib, model in ((graphc, mine), (torch, theirs)):
        x = lib.from_numpy(values(T, B, I)).requires_grad_()
        y, _ = model(x)
        (g,) = lib.autograd.grad((y * y).sum(), x, create_graph=True)
        (g * g).sum().backward()
        found.append([np.asarray(p.grad.numpy()) for p in (x, *model.parameters())])
    for here, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(here, wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_cells(kind: str, unbatched: bool, bias: bool) -> None:
    mine, theirs = pair(f"{kind}Cell", I, H, bias=bias)
    batch, found = (() if unbatched else (B,)), []
    for lib, model in ((torch, theirs), (graphc, mine)):
        x = lib.from_numpy(values(2, *batch, I)).requires_grad_()

        def steps(x: Any, model: Any = model) -> Any:
            h = model(x[1], model(x[0]))
            return h if isinstance(h, tuple) else (h,)

        for run in (steps, graphc.compile(steps)) if lib is graphc else (steps,):
            model.zero_grad()
            x.grad = None
            outputs = run(x)
            gradients = backward(outputs, [x, *model.parameters()])
            found.append([*(y.detach().numpy() for y in outputs), *gradients])
    for wanted, here, compiled in zip(*found, strict=True):
        close(here, wanted)
        close(compiled, here)


def test_relu_cell_and_functional_forms() -> None:
    mine, theirs = pair("RNNCell", I, H, nonlinearity="relu")
    close(mine(graphc.tensor(values(B, I))).detach(), theirs(torch.tensor(values(B, I))).detach())
    for name, blocks, count in (("lstm", 4, 2), ("gru", 3, 1), ("rnn_tanh", 1, 1), ("rnn_relu", 1, 1)):
        arrays = [values(blocks * H, *more, seed=1 + k) for k, more in enumerate(((I,), (H,), (), ()))]
        found = []
        for lib in (graphc, torch):
            h = [lib.tensor(values(1, B, H, seed=5 + k)) for k in range(count)]
            hx, params, x = (h if count == 2 else h[0]), [lib.tensor(a) for a in arrays], lib.tensor(values(T, B, I))
            packed = lib.nn.utils.rnn.pack_padded_sequence(x, SORTED)
            cell = getattr(lib, f"{name}_cell")(x[0], [v[0] for v in h] if count == 2 else h[0][0], *params)
            found.append(
                [
                    *getattr(lib, name)(x, hx, params, True, 1, 0.0, False, False, False),
                    *getattr(lib, name)(packed.data, packed.batch_sizes, hx, params, True, 1, 0.0, False, False),
                    *(cell if count == 2 else (cell,)),
                ]
            )
        for here, wanted in zip(*found, strict=True):
            close(here, wanted, name)


def test_dropout_between_layers() -> None:
    model = graphc.nn.GRU(I, H, 2, dropout=0.5)
    x = graphc.tensor(values(T, B, I))
    graphc.manual_seed(0)
    first, again = model(x)[0], model(x)[0]
    assert not graphc.equal(first, again)
    model.eval()
    theirs = torch.nn.GRU(I, H, 2, dropout=0.5).eval()
    theirs.load_state_dict({n: torch.from_numpy(v.numpy()) for n, v in model.state_dict().items()})
    close(model(x)[0].detach(), theirs(torch.tensor(values(T, B, I)))[0].detach())
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last recurrent layer"):
        graphc.nn.GRU(I, H, dropout=0.5)


def test_autocast() -> None:
    found = []
    for lib in (graphc, torch):
        x, dtypes = lib.zeros(T, B, I), []
        with lib.autocast("cpu", dtype=lib.bfloat16):
            for kind in KINDS:
                cell = getattr(lib.nn, f"{kind}Cell")(I, H)(x[0])
                dtypes += [getattr(lib.nn, kind)(I, H, 2)(x)[0].dtype, (cell[0] if isinstance(cell, tuple) else cell).dtype]
            dtypes.append(lib.nn.LSTM(I, H)(lib.nn.utils.rnn.pack_padded_sequence(x, SORTED))[0].data.dtype)
        found.append([str(dtype).split(".")[-1] for dtype in dtypes])
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_attributes(kind: str) -> None:
    mine, theirs = pair(kind, I, H, 2, bidirectional=True)
    assert mine._flat_weights_names == theirs._flat_weights_names
    assert mine._all_weights == theirs._all_weights
    assert [[tuple(w.shape) for w in ws] for ws in mine.all_weights] == [[tuple(w.shape) for w in ws] for ws in theirs.all_weights]
    assert mine.flatten_parameters() is None
    assert isinstance(mine, graphc.nn.RNNBase) and isinstance(graphc.nn.LSTMCell(1, 1), graphc.nn.RNNCellBase)
    bound = 1 / H**0.5
    fresh = np.concatenate([p.detach().numpy().ravel() for p in getattr(graphc.nn, kind)(I, H, 4).parameters()])
    assert abs(fresh).max() <= bound and fresh.std() == pytest.approx(bound / 3**0.5, rel=0.1)
    x = graphc.tensor(values(T, B, I))
    for other in (copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert graphc.equal(other(x)[0], mine(x)[0])
    assert mine.double()(x.double())[0].dtype is graphc.float64


# ---- errors --------------------------------------------------------------------------------------------------------------


def raised(call: Callable[[], Any]) -> tuple[str, str]:
    """Class and message, without the user's line and the library's name."""
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error).replace("graphc.", "torch.")
    return "nothing", ""


def wrong_calls(lib: Any, kind: str) -> dict[str, Callable[[], Any]]:
    module = getattr(lib.nn, kind)
    model = module(I, H)

    def z(*shape: int) -> Any:
        return lib.zeros(*shape)

    def h(*shape: int) -> Any:
        return (z(*shape), z(*shape)) if kind == "LSTM" else z(*shape)

    calls: dict[str, Callable[[], Any]] = {
        "rank": lambda: model(z(2, 2, 2, I)),
        "features": lambda: model(z(T, B, 7)),
        "features unbatched": lambda: model(z(T, 7)),
        "batched state": lambda: model(z(T, B, I), h(1, H)),
        "unbatched state": lambda: model(z(T, I), h(1, 1, H)),
        "layers of state": lambda: model(z(T, B, I), h(2, B, H)),
        "size of state": lambda: model(z(T, B, I), h(1, B, 5)),
        "unbatched size": lambda: model(z(T, I), h(2, H)),
        "dtype": lambda: model(z(T, B, I).double()),
        "no steps": lambda: model(z(0, B, I)),
        "no hidden": lambda: module(I, 0),
        "float hidden": lambda: module(I, 4.0),
        "no layers": lambda: module(I, H, 0),
        "dropout": lambda: module(I, H, dropout=2),
        "bool dropout": lambda: module(I, H, dropout=True),
        "projection": lambda: module(I, H, proj_size=H if kind == "LSTM" else 2),
        "negative projection": lambda: module(I, H, proj_size=-1),
    }
    if kind == "RNN":
        calls["nonlinearity"] = lambda: module(I, H, nonlinearity="x")
    if kind != "LSTM":
        calls["packed state"] = lambda: model(lib.nn.utils.rnn.pack_sequence([z(3, I), z(2, I)]), h(1, 3, H))
        calls["packed features"] = lambda: model(lib.nn.utils.rnn.pack_sequence([z(3, 5), z(2, 5)]))
    cell = getattr(lib.nn, f"{kind}Cell")(I, H)
    return calls | {
        "cell rank": lambda: cell(z(2, 2, I)),
        "cell features": lambda: cell(z(2, 5)),
        "cell state rank": lambda: cell(z(2, I), h(2, 1, H)),
        "cell state size": lambda: cell(z(2, I), h(2, 5)),
        "cell batch": lambda: cell(z(2, I), h(3, H)),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_errors(kind: str) -> None:
    mine, theirs = wrong_calls(graphc, kind), wrong_calls(torch, kind)
    for name in theirs:
        here, wanted = raised(mine[name]), raised(theirs[name])
        assert here[0] == wanted[0] and here[1].startswith(wanted[1]), f"{name}: {here}, PyTorch {wanted}"


# ---- packing -------------------------------------------------------------------------------------------------------------


def packings(lib: Any) -> dict[str, Callable[[], Any]]:
    rnn = lib.nn.utils.rnn
    x = lib.from_numpy(values(T, B, 2))
    sequences = [lib.from_numpy(values(n, 2, seed=n)) for n in UNSORTED]
    ordered = [lib.from_numpy(values(n, 2, seed=n)) for n in SORTED]
    packed = rnn.pack_sequence(sequences, enforce_sorted=False)
    return {
        "pack": lambda: rnn.pack_padded_sequence(x, SORTED),
        "pack tensor": lambda: rnn.pack_padded_sequence(x, lib.tensor(UNSORTED), enforce_sorted=False),
        "pack batch first": lambda: rnn.pack_padded_sequence(x.transpose(0, 1), UNSORTED, True, False),
        "pack vectors": lambda: rnn.pack_padded_sequence(x[:, :, 0], SORTED),
        "pack sequence": lambda: rnn.pack_sequence(ordered),
        "pack unsorted": lambda: packed,
        "pad": lambda: rnn.pad_packed_sequence(packed),
        "pad longer": lambda: rnn.pad_packed_sequence(packed, True, -1.0, 7),
        "pad sequence": lambda: rnn.pad_sequence(sequences),
        "pad left": lambda: rnn.pad_sequence(sequences, True, 9.0, "left"),
        "pad tensor": lambda: rnn.pad_sequence(x),
        "unpad": lambda: rnn.unpad_sequence(x.clone(), lib.tensor(UNSORTED)),
        "unpack": lambda: rnn.unpack_sequence(packed),
        "invert": lambda: rnn.invert_permutation(lib.tensor([2, 0, 1])),
        "packed": lambda: rnn.PackedSequence(x[0], lib.tensor([3, 1]), lib.tensor([1, 2, 0])),
        "double": lambda: packed.double(),
        "to": lambda: packed.to(lib.float16),
        "int": lambda: packed.int(),
        "fields": lambda: [lib.tensor([packed.is_pinned(), packed.is_cuda, packed.to("cpu") is packed, len(packed)])],
        "unsorted lengths": lambda: rnn.pack_padded_sequence(x, UNSORTED),
        "zero length": lambda: rnn.pack_padded_sequence(x, [3, 2, 1, 0]),
        "few lengths": lambda: rnn.pack_padded_sequence(x, [3, 2]),
        "short total": lambda: rnn.pad_packed_sequence(packed, total_length=2),
        "no sequences": lambda: rnn.pad_sequence([]),
        "no list": lambda: rnn.pad_sequence(5),
        "side": lambda: rnn.pad_sequence(sequences, padding_side="middle"),
        "half of it": lambda: rnn.PackedSequence(x),
    }


@pytest.mark.parametrize("name", packings(torch))
def test_packing(name: str) -> None:
    mine, theirs = packings(graphc)[name], packings(torch)[name]
    wanted = raised(theirs)
    if wanted[0] != "nothing":
        here = raised(mine)
        assert here[0] == wanted[0] and here[1].startswith(wanted[1]), f"{here}, PyTorch {wanted}"
        return
    here, there = mine(), theirs()
    flat = [(here, there)] if not isinstance(there, tuple | list) else list(zip(here, there, strict=True))
    for a, b in flat:
        assert (a is None) == (b is None)
        if b is not None:
            assert str(a.dtype).split(".")[-1] == str(b.dtype).split(".")[-1]
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_gradients_of_packing() -> None:
    found = []
    for lib, sides in itertools.product((graphc, torch), ("left", "right")):
        rnn = lib.nn.utils.rnn
        x = lib.from_numpy(values(T, B, 2)).requires_grad_()
        y, _ = rnn.pad_packed_sequence(rnn.pack_padded_sequence(x, UNSORTED, enforce_sorted=False), padding_value=3.0)
        z = rnn.pad_sequence(rnn.unpad_sequence(x.clone(), lib.tensor(UNSORTED)), padding_side=sides)
        ((y * y).sum() + (z**3).sum()).backward()
        found.append(x.grad.numpy())
    close(found[0], found[2])
    close(found[1], found[3])
