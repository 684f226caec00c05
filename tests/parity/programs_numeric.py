"""Numeric programs, written once for any library with PyTorch's names.

Enters: the library's `torch`, `nn`, `F` and `optim`.  Leaves: a step to call and the arguments of every call.
Never here: comparisons.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from parity.programs_models import Program, batches, integers, numbers


def k_means(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    points = torch.from_numpy(numbers(40, 2))

    def step(centres: Any) -> Any:
        for _ in range(2):
            distance = ((points[:, None, :] - centres[None]) ** 2).sum(-1)
            nearest = distance.argmin(dim=1)
            member = F.one_hot(nearest, 4).to(points.dtype)
            centres = (member.T @ points) / member.sum(0).clamp(min=1).unsqueeze(1)
        sums = torch.zeros(4, 2).scatter_add(0, nearest[:, None].expand(-1, 2), points)
        return centres, nearest, sums, distance.min(dim=1).values.sum()

    return step, batches(torch, 3, lambda s: numbers(4, 2, seed=s + 1))


def n_body(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    mass = torch.tensor([1.0, 2.0, 3.0, 0.5, 4.0], dtype=torch.float64)

    def force(x: Any) -> Any:
        d = x.unsqueeze(0) - x.unsqueeze(1)
        r = (d.pow(2).sum(-1) + 1e-2).rsqrt()
        return (d * (r**3 * mass).unsqueeze(-1)).sum(1)

    def step(x: Any, v: Any) -> Any:
        for _ in range(3):
            v = v + 0.005 * force(x)
            x = x + 0.01 * v
            v = v + 0.005 * force(x)
        energy = 0.5 * (mass * v.square().sum(-1)).sum()
        return x, v, energy

    return step, batches(
        torch, 3, lambda s: numbers(5, 3, seed=s, dtype=np.float64), lambda s: numbers(5, 3, seed=s + 9, dtype=np.float64)
    )


def black_scholes(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def normal(x: Any) -> Any:
        return 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    def step(s: Any, k: Any) -> Any:
        s, k = s.abs() + 1, k.abs() + 1
        s.requires_grad_()
        sigma = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        r, t = 0.05, 1.5
        d1 = (torch.log(s / k) + (r + sigma**2 / 2) * t) / (sigma * t**0.5)
        call = s * normal(d1) - k * math.exp(-r * t) * normal(d1 - sigma * t**0.5)
        delta, vega = torch.autograd.grad(call.sum(), (s, sigma), create_graph=True)
        (gamma,) = torch.autograd.grad(delta.sum(), s)
        return call.detach(), delta.detach(), vega.detach(), gamma

    return step, batches(
        torch, 3, lambda s: numbers(7, seed=s, dtype=np.float64), lambda s: numbers(7, seed=s + 1, dtype=np.float64)
    )


def heat_equation(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(u: Any) -> Any:
        u = u.clone()
        for _ in range(4):
            u[1:-1, 1:-1] += 0.1 * (u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1])
            u[0] = 0
            u[:, -1] = 1.0
        return u, F.pad(u, (1, 2, 0, 1), value=-1.0)

    return step, batches(torch, 3, lambda s: numbers(6, 7, seed=s))


def newton(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(x: Any) -> Any:
        x = x.clone().requires_grad_()
        for _ in range(3):
            f = (x**4 - 3 * x**2 + x).sum()
            (g,) = torch.autograd.grad(f, x, create_graph=True)
            (h,) = torch.autograd.grad(g.sum(), x)
            x = (x - g / (h.abs() + 1)).detach().requires_grad_()
        return x.detach(), g.detach(), h

    return step, batches(torch, 3, lambda s: numbers(6, seed=s, dtype=np.float64))


def hessian_product(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(x: Any, v: Any) -> Any:
        x.requires_grad_()
        f = torch.sin(x).prod() + (x.cumsum(0) ** 2).mean() + torch.logsumexp(x, 0)
        (g,) = torch.autograd.grad(f, x, create_graph=True)
        (product,) = torch.autograd.grad((g * v).sum(), x)
        return f.detach(), g.detach(), product

    return step, batches(
        torch, 3, lambda s: numbers(5, seed=s, dtype=np.float64), lambda s: numbers(5, seed=s + 3, dtype=np.float64)
    )


def views_and_writes(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(x: Any) -> Any:
        base = x.clone()
        row, column, block = base[1], base[:, 0], base[2:, 1:3]
        row.mul_(2)
        column += 10
        block.zero_()
        base.view(-1)[3] = -1.0
        base.t()[1].add_(row[0])
        other = base.reshape(2, 2, 4).permute(2, 0, 1)
        other[0] = 7
        base[..., -1].copy_(torch.arange(4, dtype=x.dtype))
        left, right = base.split([1, 3], dim=1)
        left.neg_()
        right[:, 1:].clamp_(max=2.0)
        return base, row, other.contiguous(), base.flip(0, 1), base[::2, ::3]

    return step, batches(torch, 3, lambda s: numbers(4, 4, seed=s))


def in_place_gradients(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(x: Any) -> Any:
        x = x.clone().requires_grad_()
        y = x * 2
        y[0] = y[1] * 3
        y[:, 1].mul_(x[:, 0])
        y.relu_()
        z = torch.zeros(3, 4)
        z[:, :3] = y.exp()
        z += 1
        z.sum().backward()
        return z.detach(), x.grad

    return step, batches(torch, 3, lambda s: numbers(3, 3, seed=s))


def masks(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(x: Any, y: Any) -> Any:
        m = (x > 0) & ~(y < -0.5) | (x == y)
        chosen = torch.where(m, x, y * 2)
        limited = torch.where(x.isnan() | x.isinf(), 0.0, x).masked_fill(m, 1)
        lower = torch.tril(x[:3, :3]) + torch.triu(torch.ones(3, 3), diagonal=1)
        both = torch.logical_xor(m, x.bool())
        return chosen, limited, lower, both, m.any(0), m.all(), m.sum(), m.sum(1).to(torch.int32), (m.int() - 1).abs()

    return step, batches(torch, 3, lambda s: numbers(4, 5, seed=s), lambda s: numbers(4, 5, seed=s + 1))


def promotion(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(i: Any, f: Any) -> Any:
        h, d, b, n = f.half(), f.double(), f > 0, i.to(torch.int32)
        zero = torch.tensor(2.5, dtype=torch.float64)
        return [
            i + 1, i * 2.5, i / 2, i // 2, i % 3, -i // 4, i**2, 2**n, n + i, f + i, h + f, h * i, d + f, b + b, b * 2, b +
            1.5, f * zero, n * zero, i.float() + zero, h + h.bfloat16(), torch.add(i, 2, alpha=3), i.sum(), n.sum(), b.sum(),
            i.float().mean(), n.prod(), True + i, 3 - i, 1 / f, i & 1, i | 4, i ^ 2, ~i, n << 2, n >> 1, b ^ True, i == f,
            torch.maximum(i, n), b.float() - f, i.abs(), f.to(torch.int64), abs(f), +f, f.round(), f.floor().long(), divmod(7,
            2)[0] + i,
        ]  # fmt: skip

    return step, batches(torch, 3, lambda s: integers(9, 2, 3, seed=s), lambda s: numbers(2, 3, seed=s))


def zero_rank(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(x: Any) -> Any:
        a, b = x[0], x.sum()
        c = torch.stack([a, b, torch.tensor(3.0)])
        return a, b * a, c, c.max(), a.unsqueeze(0), b.reshape(1, 1), a.expand(3), a.sum(), b.softmax(0), a > b, a.ndim, a.argmax()

    return step, batches(torch, 3, lambda s: numbers(4, seed=s))


def empty_tensors(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.fill_(0.5)
        linear.bias.fill_(1)

    def step(x: Any) -> Any:
        e = x[:0]
        return [
            e, e.sum(), e.sum(0), e.sum(1), e.prod(), e.mean(), e.any(), e.all(), linear(e).detach(), torch.cat([e, x]), e @
            x.T, x.T[:, :0] @ x[:0], e.softmax(1), torch.zeros(0, 4), torch.arange(0), e.reshape(0, 3, 1), e.transpose(0, 1),
            torch.stack([e, e]), e.cumsum(0), F.mse_loss(e, e),
        ]  # fmt: skip

    return step, batches(torch, 3, lambda s: numbers(4, 3, seed=s))


def reductions(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(x: Any) -> Any:
        value, where = x.max(dim=1)
        low = torch.min(x, 0, keepdim=True)
        return [
            value, where, low.values, low.indices, x.amax((0, 2)), x.std(), x.var(dim=1), x.var(0, unbiased=False),
            x.std(dim=(0, 1), correction=0), x.mean((1, 2), keepdim=True), x.logsumexp((0, 1)), x.argmax(), x.argmin(-1,
            keepdim=True), x.prod(2), x.cumsum(1), x.all(0), (x > 0).any(dim=1), x.sum(dim=[0, 2], dtype=torch.float64),
            torch.sum(x, -1), torch.mean(x, dim=0), x.abs().max().sqrt(),
        ]  # fmt: skip

    return step, batches(torch, 3, lambda s: numbers(3, 4, 5, seed=s))


def products(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(a: Any, b: Any, v: Any) -> Any:
        return [
            a @ b, a[0] @ v, v @ a[0].T, v @ v, a @ v, torch.matmul(a[:, None], b), torch.bmm(a, b), torch.mm(a[0], b[0]),
            a.mT @ a, F.linear(v, a[0]), F.linear(a, a[0], v[:3]), torch.outer(v, v), torch.addmm(b[0, :3, :3], a[0], a[1].T),
            a[0].mv(v), v.dot(v),
        ]  # fmt: skip

    return step, batches(
        torch, 3, lambda s: numbers(2, 3, 4, seed=s), lambda s: numbers(2, 4, 5, seed=s), lambda s: numbers(4, seed=s)
    )


def indexing(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(x: Any, i: Any) -> Any:
        return [
            x[i], x[:, i], x[i, i], x[..., None, 1], x[-1, ::2], x[1:3, [0, 2]], x[None].shape, x.gather(1, i[:, None]),
            torch.gather(x, 0, i.reshape(1, -1).expand(1, 4)), x.index_select(1, i), x.take_along_dim(i[None], 0),
            F.embedding(i, x), torch.zeros(5, 4).index_add(0, i, x), torch.zeros(4, 4).scatter_add(0, i[None].expand(2, 4),
            x[:2]), x.narrow(1, 1, 2), x.select(0, -1), x.roll(1, 0), x.repeat(2, 1), x.tile(2), x.flatten(), torch.movedim(x,
            0, 1), x.swapaxes(0, 1), x.unflatten(1, (2, 2)), torch.repeat_interleave(x, 2, dim=0), x.size(-1), len(x),
        ]  # fmt: skip

    return step, batches(torch, 3, lambda s: numbers(4, 4, seed=s), lambda s: integers(4, 4, seed=s))


def elementwise(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(x: Any) -> Any:
        p = x.abs() + 0.1
        return [
            x.exp(), x.expm1(), p.log(), p.log1p(), p.log2(), p.sqrt(), p.rsqrt(), x.sin(), x.cos(), x.tan(), x.tanh(),
            x.sigmoid(), x.erf(), p.pow(0.3), p**x, 2**x, x.pow(3), x.sign(), x.floor(), x.ceil(), x.round(), x.trunc(),
            x.clamp(-0.5, 0.5), x.clip(min=0), torch.minimum(x, p), x.neg(), x.reciprocal(), x.square(), F.gelu(x), F.silu(x),
            F.relu(x), torch.fmod(x, 0.3), x.remainder(0.3), x.atan2(p), x.lerp(p, 0.3), torch.addcmul(x, p, p, value=0.5),
            x.addcdiv(p, p), x.isfinite(),
        ]  # fmt: skip

    return step, batches(torch, 3, lambda s: numbers(4, 9, seed=s))


def control_of_gradients(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    w = torch.from_numpy(numbers(3)).requires_grad_()

    def step(x: Any) -> Any:
        with torch.no_grad():
            a = w * 2
        b = (w.detach() * x).sum()
        c = (w * x).sum()
        with torch.set_grad_enabled(False):
            d = w + 1
        with torch.enable_grad():
            e = (w * w).sum()
        c.backward(retain_graph=True)
        c.backward()
        e.backward(torch.tensor(0.5))
        gradient = w.grad.clone()
        w.grad.zero_()
        return a, b, gradient, [t.requires_grad for t in (a, b, c, d, e)], [t.is_leaf for t in (a, w, c)]

    return step, batches(torch, 3, lambda s: numbers(3, seed=s))


def hooks_and_retained(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(x: Any) -> Any:
        x = x.clone().requires_grad_()
        y = x * 3
        y.retain_grad()
        y.register_hook(lambda g: g * 2)
        (y**2).sum().backward()
        return x.grad, y.grad

    return step, batches(torch, 3, lambda s: numbers(3, seed=s))


def pairs_of_structures(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(batch: Any, *, scale: float = 2.0) -> Any:
        x, (y, z) = batch["x"], batch["rest"]
        return {"sum": x + y * scale, "list": [z, (x - z,)], "none": None, "number": scale, "shape": tuple(x.shape)}

    def pack(s: int) -> tuple[Any, ...]:
        x, y, z = (torch.from_numpy(numbers(2, 3, seed=s + k)) for k in range(3))
        return ({"x": x, "rest": (y, z)},)

    return step, [pack(s) for s in range(3)]


def creation(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(x: Any) -> Any:
        return [
            torch.zeros(2, 3), torch.ones((2,), dtype=torch.int32), torch.full((2, 2), 7), torch.full((2,), 1.5),
            torch.full((1,), True), torch.arange(5), torch.arange(1.0, 2.0, 0.25), torch.arange(5, 0, -2), torch.linspace(0,
            1, 5), torch.eye(3), torch.eye(2, 3), torch.zeros_like(x), torch.ones_like(x, dtype=torch.bool),
            torch.full_like(x, 3), x.new_ones(2), x.new_full((2,), 2), x.new_tensor([1, 2]), torch.tensor([[1, 2], [3, 4]]),
            torch.tensor([1.0, 2]), torch.tensor([True, False]), torch.tensor(3), torch.as_tensor([1, 2.5]), x +
            torch.tensor([[1.0], [2.0]]), torch.tensor(x.shape), torch.meshgrid(torch.arange(2), torch.arange(3),
            indexing="ij"),
        ]  # fmt: skip

    return step, batches(torch, 3, lambda s: numbers(2, 3, seed=s))


def ring_buffer(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    memory = torch.zeros(4, 2)
    count = torch.zeros((), dtype=torch.int64)

    def step(x: Any) -> Any:
        rolled = memory.roll(-1, 0)
        rolled[-1] = x
        memory.copy_(rolled)
        count.add_(1)
        return memory.mean(0), count.clone(), memory.clone()

    return step, batches(torch, 4, lambda s: numbers(2, seed=s))


def power_iteration(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    def step(a: Any, v: Any) -> Any:
        a = a @ a.T
        for _ in range(5):
            v = a @ v
            v = v / (v * v).sum().sqrt()
        return v, v @ a @ v

    return step, batches(
        torch, 3, lambda s: numbers(4, 4, seed=s, dtype=np.float64), lambda s: numbers(4, seed=s, dtype=np.float64)
    )


def numpy_interop(torch: Any, nn: Any, F: Any, optim: Any) -> Program:
    table = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)

    def step(x: Any) -> Any:
        shared = torch.from_numpy(table)
        return x * shared, x + np.float32(2), x * float(np.float64(0.5)), x[np.array([1, 0])], x.reshape(np.prod([3, 2]).item())

    return step, batches(torch, 3, lambda s: numbers(2, 3, seed=s))
