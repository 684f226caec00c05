"""Programs from people's own notes on PyTorch run with only their imports changed.

The blocks of code stand in ``tests/seeds``, as they were written; what the notes leave out (a data set, a model, a path) is given
here.  Notes without code name features: each of those has a test at the end.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
import graphc.optim
from graphc.utils.data import DataLoader, Dataset

SEEDS = Path(__file__).parent / "seeds"


def blocks(name: str) -> list[str]:
    """The blocks of one file, with ``torch`` imported from graphc."""
    parts = re.split(r"^# ---- block \d+\n", (SEEDS / f"{name}.txt").read_text(), flags=re.MULTILINE)[1:]
    return [ported(part) for part in parts]


def ported(code: str) -> str:
    """The code with its imports changed."""
    code = re.sub(r"^import torch$", "import graphc as torch", code, flags=re.MULTILINE)
    return re.sub(r"^(from|import) torch\.", r"\1 graphc.", code, flags=re.MULTILINE)


def run(code: str, names: dict[str, Any]) -> str:
    """Run a block where earlier ones ran; what it printed.  The block is a file, so that its source can be found."""
    printed = io.StringIO()
    file = Path(f"block{len(list(Path().glob('block*.py')))}.py").resolve()
    file.write_text(code)
    with redirect_stdout(printed):
        exec(compile(code, str(file), "exec"), names)
    return printed.getvalue()


class Pairs(Dataset):
    """Points and what belongs to them."""

    def __init__(self, xs: graphc.Tensor, ys: graphc.Tensor | None = None) -> None:
        self.xs, self.ys = xs, ys

    def __len__(self) -> int:
        return len(self.xs)

    def __getitem__(self, i: int) -> Any:
        return self.xs[i] if self.ys is None else (self.xs[i], self.ys[i])


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graphc.manual_seed(0)


# ---- with code ---------------------------------------------------------------------------------------------------------


def test_principles() -> None:
    names: dict[str, Any] = {}
    code = blocks("principles")
    assert run(code[0], names) == "tensor([[1, 2, 3],\n        [4, 5, 6]])\n"
    assert run(code[1], names) == "tensor([3.])\n"
    run(code[2], names)
    assert names["device"] == "cpu" and names["tensor"].device == graphc.device("cpu")
    assert run(code[3], names) == "tensor([4.])\n"
    run(code[4], names)
    names["model"] = names["SimpleNN"]()
    run(code[5], names)
    methods = "    __len__ = lambda self: 70\n    __getitem__ = lambda self, i: (torch.ones(1) * i, 0)"
    names["dataset"] = Pairs(graphc.ones(70, 1), graphc.zeros(70, dtype=graphc.long))
    run(code[6].replace("    # ... (methods to define)", methods), names)
    assert len(names["data_loader"]) == 3 and issubclass(names["CustomDataset"], Dataset)
    names["epochs"] = 2
    run(code[7], names)
    assert names["loss"].item() == 0.0  # one class
    before = names["model"].fc.weight.detach().clone()
    run(code[8], names)
    assert Path("model_weights.pth").exists() and graphc.equal(names["model"].fc.weight, before)
    run(code[9], names)
    x = graphc.ones(3, 1)
    assert graphc.equal(graphc.jit.load("model_jit.pt")(x), names["model"](x))


def test_notes() -> None:
    class MyDataset(Pairs):
        def __init__(self, file: str) -> None:
            data = graphc.from_numpy(np.loadtxt(file, dtype=np.float32))
            super().__init__(data[:, :2], data[:, 2:])

    class MyModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x: graphc.Tensor) -> graphc.Tensor:
            return self.layer(x)

    points = np.random.default_rng(0).standard_normal((50, 2))
    np.savetxt("data.txt", np.column_stack([points, points @ [1.0, -2.0]]))
    names: dict[str, Any] = {
        "torch": graphc, "nn": nn, "DataLoader": DataLoader, "MyDataset": MyDataset, "MyModel": MyModel, "file": "data.txt",
        "device": "cpu", "n_epochs": 10, "path": "model.pth", "tt_set": DataLoader(Pairs(graphc.ones(4, 2)), 2),
    }  # fmt: skip
    setup, train, test, save = blocks("notes")
    run(setup, names)
    run(train, names)
    np.testing.assert_allclose(names["model"].layer.weight.detach().numpy(), [[1.0, -2.0]], atol=0.05)
    run(test, names)
    assert [tuple(p.shape) for p in names["preds"]] == [(2, 1), (2, 1)] and not names["preds"][0].requires_grad
    run(save, names)
    assert list(names["ckpt"]) == ["layer.weight", "layer.bias"]


def test_introduction() -> None:
    names: dict[str, Any] = {}
    tensors, gradients, network, training = blocks("introduction")
    assert run(tensors, names) == "graphc.Size([2, 3])\ntensor(1)\n"
    assert run(gradients, names) == "tensor(6.)\n"
    assert re.fullmatch(r"tensor\(\[\[-?\d\.\d{4}\]\], grad_fn=<AddmmBackward0>\)\n", run(network, names))
    lines = run(training, names).splitlines()
    assert len(lines) == 100 and re.fullmatch(r"Epoch: 100, Loss: \d\.\d+", lines[-1])
    first, last = (float(line.split()[-1]) for line in (lines[0], lines[-1]))
    assert last < first


def test_tips() -> None:
    names: dict[str, Any] = {"torch": graphc, "np": np}
    code = blocks("tips")
    for block in code[:3]:
        run(block, names)
    assert tuple(names["z"].shape) == (2, 8)
    run(code[3], names)
    names["a"].add_(1)
    assert names["b"].tolist() == [2.0] * 5  # one memory
    run(code[4], names)
    names["a"] += 1
    assert names["b"].tolist() == [2.0] * 5
    with pytest.raises(AssertionError, match="no CUDA runtime"):  # as PyTorch built for the CPU
        run(code[5], names)
    assert names["a"].cpu().numpy().dtype == np.float16
    run(code[6], names)
    assert str(names["y"].grad_fn).startswith("<AddBackward0") and str(names["out"].grad_fn).startswith("<MeanBackward0")
    np.testing.assert_allclose(names["x"].grad.numpy(), 4 / 3 * names["y"].detach().numpy(), rtol=1e-6)
    run(code[7], names)
    assert names["x"].grad.tolist() == [0.0] * 3


# ---- features that notes name ------------------------------------------------------------------------------------------


def test_tensor_interface() -> None:
    x = graphc.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert x.dtype is graphc.float32 and x.shape == (2, 3)
    assert x.reshape(3, 2).tolist() == x.view(3, 2).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert x.T.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert graphc.equal(x.matmul(x.T), x @ x.T)


def test_operations_of_the_notes() -> None:
    x, y = graphc.tensor([[1.0, 2.0]]), graphc.tensor([[3.0, 5.0]])
    assert x.unsqueeze(1).shape == (1, 1, 2) and x.unsqueeze(1).squeeze(1).shape == (1, 2)
    assert x.transpose(0, 1).shape == (2, 1)
    assert graphc.cat([x, y], dim=0).tolist() == [[1, 2], [3, 5]]
    assert (x + y).tolist() == [[4, 7]] and (x - y).tolist() == [[-2, -3]]
    assert x.pow(2).tolist() == [[1, 4]] and x.sum().item() == 3 and x.mean().item() == 1.5
    assert x.to("cpu") is x


def test_gradient_of_a_loss_two_ways() -> None:
    w = graphc.tensor([1.0, 2.0], requires_grad=True)
    loss = (w * w).sum()
    (found,) = graphc.autograd.grad(loss, w, retain_graph=True)
    loss.backward()
    assert found.tolist() == w.grad.tolist() == [2.0, 4.0]
    w.requires_grad_(False)
    assert not w.requires_grad and not (w * 2).detach().requires_grad
    w.requires_grad_()
    with graphc.no_grad():
        assert not (w * 2).requires_grad


def test_custom_autograd_function() -> None:
    class Double(graphc.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: graphc.Tensor) -> graphc.Tensor:
            (x,) = ctx.saved_tensors
            return g * 2 + 0 * x

    x = graphc.ones(2, requires_grad=True)
    Double.apply(x).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_modules_are_summarized_counted_and_switched() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 10))
    assert "(1): Linear(in_features=48, out_features=5, bias=True)" in str(model)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 48 * 5 + 5 + 5 * 10 + 10
    x = graphc.ones(2, 3, 4, 4)
    model.eval()
    assert not model.training and graphc.equal(model(x), model(x))
    model.train()
    assert model.training and model(x).shape == (2, 10)


def test_weights_are_initialized_and_layers_chained() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 3), nn.Linear(3, 2)
            self.conv1 = nn.Conv2d(1, 2, 3)
            nn.init.kaiming_normal_(self.fc1.weight)
            nn.init.constant_(self.conv1.bias, 0)

        def forward(self, x: graphc.Tensor) -> graphc.Tensor:
            scores = self.fc2(F.relu(self.fc1(x)))
            return scores

    net = Net()
    assert net(graphc.ones(5, 4)).shape == (5, 2) and net.conv1.bias.tolist() == [0.0, 0.0]


def test_loaders_shuffle_and_drop() -> None:
    data = Pairs(graphc.arange(10), graphc.arange(10))
    loader = DataLoader(dataset=data, batch_size=4, shuffle=True, drop_last=True, num_workers=0)
    seen = [x.tolist() for _, (x, _) in enumerate(loader)]
    assert [len(batch) for batch in seen] == [4, 4] and len(loader) == 2
    assert sum(len(x) for x, _ in DataLoader(data, batch_size=4)) == 10


def test_devices_that_are_not_there() -> None:
    assert not graphc.cuda.is_available() and not graphc.backends.mps.is_available()
    for name in ("cuda", "cuda:0", "cuda:1"):
        with pytest.raises(AssertionError, match="no CUDA runtime"):
            graphc.ones(1).to(name)
    assert str(graphc.device("cuda:1")) == "cuda:1"
