"""Programs that train models, written once for any library with PyTorch's names.

Enters: the library's `torch`, `nn`, `F` and `optim`.  Leaves: a step to call and the arguments of every call.
Never here: comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Program = tuple[Callable[..., Any], list[tuple[Any, ...]]]  # the step, the arguments of each of its calls


def numbers(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """Normal numbers, the same for every library."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def integers(high: int, *shape: int, seed: int = 0) -> np.ndarray:
    """int64 in [0, high)."""
    return np.random.default_rng([seed, *shape]).integers(0, high, shape)


def filled(torch: Any, module: Any) -> Any:
    """The module with parameters that every library can make."""
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(torch.from_numpy(numbers(*p.shape, seed=100 + i) / max(1.0, float(p.shape[-1])) ** 0.5))
    return module


def batches(torch: Any, count: int, *make: Callable[[int], np.ndarray]) -> list[tuple[Any, ...]]:
    """Arguments of `count` calls."""
    return [tuple(torch.from_numpy(m(seed)) for m in make) for seed in range(count)]


def mlp_regression(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    model = filled(torch, nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1)))
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        prediction = model(x).squeeze(-1)
        loss = F.mse_loss(prediction, y)
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach(), "prediction": prediction.detach(), "first": model[0].weight.detach().clone()}

    return step, batches(torch, 3, lambda s: numbers(12, 5, seed=s), lambda s: numbers(12, seed=s))


def logistic_regression(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    weight = torch.zeros(4, requires_grad=True)
    bias = torch.zeros((), requires_grad=True)

    def step(x: Any, y: Any) -> Any:
        logits = x @ weight + bias
        loss = F.binary_cross_entropy_with_logits(logits, y) + 0.01 * (weight**2).sum()
        loss.backward()
        with torch.no_grad():
            for p in (weight, bias):
                p -= 0.5 * p.grad
                p.grad = None
        accuracy = ((logits > 0) == (y > 0.5)).float().mean()
        return loss.detach(), accuracy, weight.detach().clone(), bias.detach().clone()

    return step, batches(torch, 3, lambda s: numbers(20, 4, seed=s), lambda s: integers(2, 20, seed=s).astype(np.float32))


def transformer(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    class Block(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

        def forward(self, x: Any) -> Any:
            b, n, c = x.shape
            q, k, v = self.qkv(self.first(x)).split(c, dim=2)
            q, k, v = (t.view(b, n, self.heads, c // self.heads).transpose(1, 2) for t in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).contiguous().view(b, n, c))
            return x + self.mlp(self.second(x))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(11, 8), nn.Embedding(6, 8)
            self.blocks = nn.ModuleList([Block(8, 2) for _ in range(2)])
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)

        def forward(self, ids: Any) -> Any:
            x = self.tokens(ids) + self.positions(torch.arange(ids.size(1)))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    model = filled(torch, Model())
    optimizer = optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)

    def step(ids: Any) -> Any:
        optimizer.zero_grad(set_to_none=True)
        logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, 11), ids[:, 1:].reshape(-1))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach(), norm, logits.detach(), logits.argmax(-1)

    return step, batches(torch, 3, lambda s: integers(11, 3, 7, seed=s))


def autoencoder(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(12, 8), nn.SiLU(), nn.Linear(8, 3))
            self.decoder = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 12), nn.Sigmoid())

        def forward(self, x: Any) -> Any:
            code = self.encoder(x)
            return self.decoder(code), code

    model = filled(torch, Autoencoder())
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    def step(x: Any) -> Any:
        picture, code = model(x)
        loss = ((picture - x) ** 2).mean() + 1e-3 * code.abs().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach(), picture.detach(), code.detach()

    return step, batches(torch, 3, lambda s: np.abs(numbers(6, 12, seed=s)).clip(0, 1))


def rnn_by_hand(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs, self.hidden = nn.Linear(3, 5), nn.Linear(5, 5, bias=False)

        def forward(self, x: Any, h: Any) -> Any:
            return torch.tanh(self.inputs(x) + self.hidden(h))

    cell, head = filled(torch, Cell()), filled(torch, nn.Linear(5, 1))
    parameters = list(cell.parameters()) + list(head.parameters())
    optimizer = optim.SGD(parameters, lr=0.1)

    def step(x: Any, y: Any) -> Any:
        h = torch.zeros(x.shape[0], 5)
        states = []
        for t in range(x.shape[1]):
            h = cell(x[:, t], h)
            states.append(h)
        loss = F.mse_loss(head(torch.stack(states, dim=1)).squeeze(-1), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(parameters, 0.05)
        optimizer.step()
        return loss.detach(), h.detach(), [p.grad.clone() for p in parameters]

    return step, batches(torch, 3, lambda s: numbers(4, 6, 3, seed=s), lambda s: numbers(4, 6, seed=s))


def lstm_by_hand(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    gates = filled(torch, nn.Linear(3 + 4, 16))

    def step(x: Any) -> Any:
        h = c = x.new_zeros(x.shape[0], 4)
        for row in x.unbind(1):
            i, f, g, o = gates(torch.cat([row, h], dim=-1)).chunk(4, dim=-1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        gradients = torch.autograd.grad(h.sum(), list(gates.parameters()))
        return h.detach(), c.detach(), gradients

    return step, batches(torch, 3, lambda s: numbers(2, 5, 3, seed=s))


def gradient_accumulation(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    model = filled(torch, nn.Linear(4, 3))
    optimizer = optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        total = 0.0
        for part, target in zip(x.chunk(4), y.chunk(4), strict=True):
            loss = F.cross_entropy(model(part), target, label_smoothing=0.1) / 4
            loss.backward()
            total = total + loss.detach()
        optimizer.step()
        return total, model.weight.grad.clone(), model.bias.detach().clone()

    return step, batches(torch, 3, lambda s: numbers(8, 4, seed=s), lambda s: integers(3, 8, seed=s))


def frozen_parameters(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    model = filled(torch, nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)))
    for p in model[0].parameters():
        p.requires_grad_(False)
    optimizer = optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)

    def step(x: Any) -> Any:
        loss = model(x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach(), [p.detach().clone() for p in model.parameters()], [p.grad is None for p in model.parameters()]

    return step, batches(torch, 3, lambda s: numbers(5, 4, seed=s))


def scheduled_rate(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    model = filled(torch, nn.Linear(3, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.5, nesterov=True)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(x) ** 2).sum()
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss.detach(), model.weight.detach().clone()

    return step, batches(torch, 4, lambda s: numbers(4, 3, seed=s))


def tied_weights(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids: Any) -> Any:
            return self.head(self.embedding(ids).mean(dim=1))

    model = filled(torch, Tied())
    optimizer = optim.SGD(model.parameters(), lr=0.3)

    def step(ids: Any, target: Any) -> Any:
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(model(ids), target)
        loss.backward()
        optimizer.step()
        return loss.detach(), model.embedding.weight.detach().clone(), len(list(model.parameters()))

    return step, batches(torch, 3, lambda s: integers(7, 4, 3, seed=s), lambda s: integers(7, 4, seed=s))


def running_statistics(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    class Standardise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("count", torch.tensor(0))
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: Any) -> Any:
            if self.training:
                with torch.no_grad():
                    self.mean.lerp_(x.mean(0), 0.1)
                    self.count += 1
            return (x - self.mean) * self.scale

    model = Standardise()

    def step(x: Any) -> Any:
        y = model(x)
        y.square().sum().backward()
        gradient = model.scale.grad.clone()
        model.zero_grad()
        return y.detach(), gradient, model.mean.clone(), model.count.clone()

    return step, batches(torch, 3, lambda s: numbers(5, 3, seed=s))


def mixture_of_losses(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    model = filled(torch, nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(approximate="tanh"), nn.Linear(8, 5)))
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])

    def step(x: Any, y: Any) -> Any:
        logits = model(x)
        losses = [
            F.cross_entropy(logits, y, weight=weights, ignore_index=2),
            F.nll_loss(logits.log_softmax(1), y, reduction="sum"),
            F.l1_loss(logits.softmax(-1), F.one_hot(y, 5).float()),
            F.cross_entropy(logits, y, reduction="none").max(),
        ]
        return [loss.detach() for loss in losses], torch.autograd.grad(sum(losses), list(model.parameters()))

    return step, batches(torch, 3, lambda s: numbers(6, 4, seed=s), lambda s: integers(5, 6, seed=s))


def adversarial(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    model = filled(torch, nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))

    def step(x: Any, y: Any) -> Any:
        attacked = x.clone().requires_grad_(True)
        loss = F.cross_entropy(model(attacked), y)
        (gradient,) = torch.autograd.grad(loss, attacked)
        with torch.no_grad():
            attacked = (x + 0.1 * gradient.sign()).clamp(-1, 1)
            return attacked, F.softmax(model(attacked), dim=1), loss

    return step, batches(torch, 3, lambda s: numbers(4, 4, seed=s), lambda s: integers(3, 4, seed=s))


def gradient_penalty(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    model = filled(torch, nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1)))
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(x: Any) -> Any:
        x = x.detach().requires_grad_()
        score = model(x)
        (gradient,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        penalty = ((gradient.pow(2).sum(1) + 1e-6).sqrt() - 1).pow(2).mean()
        optimizer.zero_grad()
        (score.mean() + 10 * penalty).backward()
        optimizer.step()
        return penalty.detach(), [p.detach().clone() for p in model.parameters()]

    return step, batches(torch, 3, lambda s: numbers(4, 3, seed=s))


def maml(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    w = torch.from_numpy(numbers(3, 1)).requires_grad_()

    def step(x: Any, y: Any) -> Any:
        inner = F.mse_loss((x @ w).squeeze(1), y)
        (g,) = torch.autograd.grad(inner, w, create_graph=True)
        outer = F.mse_loss((x @ (w - 0.1 * g)).squeeze(1), y)
        (meta,) = torch.autograd.grad(outer, w)
        with torch.no_grad():
            w.sub_(meta, alpha=0.1)
        return inner.detach(), outer.detach(), meta

    return step, batches(torch, 3, lambda s: numbers(6, 3, seed=s), lambda s: numbers(6, seed=s))


def half_storage(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    model = filled(torch, nn.Sequential(nn.Linear(8, 16), nn.RMSNorm(16), nn.SiLU(), nn.Linear(16, 4))).to(torch.bfloat16)
    optimizer = optim.SGD(model.parameters(), lr=0.0625)

    def step(x: Any) -> Any:
        y = model(x.to(torch.bfloat16))
        loss = y.float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return y.detach(), loss.detach(), model[0].weight.grad.clone()

    return step, batches(torch, 3, lambda s: numbers(4, 8, seed=s))


def greedy_decoding(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    embedding, head = filled(torch, nn.Embedding(9, 6)), filled(torch, nn.Linear(6, 9))

    @torch.no_grad()
    def step(ids: Any) -> Any:
        for _ in range(4):
            logits = head(embedding(ids).mean(dim=1)) / 0.7
            best, token = logits.max(dim=-1, keepdim=True)
            ids = torch.cat((ids, token), dim=1)
        return ids, best, logits.exp().sum(-1).log() - logits.logsumexp(-1)

    return step, batches(torch, 3, lambda s: integers(9, 2, 3, seed=s))


def key_value_cache(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    qkv = filled(torch, nn.Linear(4, 12))
    keys, values = torch.zeros(1, 5, 4), torch.zeros(1, 5, 4)

    def step(x: Any, at: int) -> Any:
        with torch.inference_mode():
            q, k, v = qkv(x).chunk(3, -1)
            keys[:, at : at + 1] = k
            values[:, at : at + 1] = v
            mask = torch.arange(5) <= at
            scores = (q @ keys.transpose(-2, -1)) * (1 / math.sqrt(4))
            scores = scores.masked_fill(~mask, float("-inf"))
            return scores.softmax(-1) @ values, keys.clone()

    return step, [(torch.from_numpy(numbers(1, 1, 4, seed=s)), s) for s in range(3)]
