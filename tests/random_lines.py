"""Lines of random programs with places for what is chosen: ``{x}`` and ``{y}`` are variables, the others numbers."""

from __future__ import annotations

VIEWS = ("{x}[None]", "{x}.reshape(-1)", "{x}.view(-1)")
VIEWS_OF_DIMS = (
    "{x}[{start}:]", "{x}[::2]", "{x}[..., 0]", "{x}[-1]", "{x}.permute({order})", "{x}.transpose(0, {dim})",
    "{x}.narrow(0, {start}, 1)", "{x}.unsqueeze({dim})", "{x}.squeeze()", "{x}.expand(2, *{x}.shape)", "{x}.unbind({dim})[0]",
    "{x}.chunk(2, {dim})[-1]", "{x}.flatten()", "{x}[..., 1:]", "{x}.unfold({dim}, 2, 1)", "{x}.flip(0)", "{x}.split(2)[0]",
    "{x}.diagonal()", "{x}.T",
)  # fmt: skip
WRITES = (
    "{x}.add_({y})", "{x}.mul_({y})", "{x} += {y}", "{x} *= {number}", "{x}.copy_({y})", "{x}.sin_()", "{x}.zero_()",
    "{x}.fill_({number})", "{x}.clamp_(-1, 1)", "{x}.sub_({x}.sum())", "{x}.abs_()", "graphc.add({x}, {y}, out={x})",
    "{x}.masked_fill_({x} > 0, 2)", "{x}.lerp_({x} * 2, 0.25)", "{x}.uniform_()",
)  # fmt: skip
WRITES_TO_PARTS = (
    "{x}[{start}] = {number}", "{x}[{start}:] *= 2", "{x}[::2].add_(1)", "{x}[..., 0] = {x}[..., -1]", "{x}.reshape(-1)[0] = 3",
    "{x}[{x} > 0] = 0", "{x}.T.mul_(0.5)", "{x}[{start}].copy_({x}[0])", "{x}[0] += {x}[-1]",
    "{x}.index_fill_(0, graphc.tensor([{start}]), 0.5)", "{x}.view(-1)[1:].sub_({x}.view(-1)[:-1].clone())",
)  # fmt: skip
WRITES_OF_STATE = ("{s}.add_(1)", "{s}.mul_(0.5)", "{s}.copy_({s}.flip(0))", "{s}.add_({y}.detach())")
COPIES = ("{x}.detach()", "{x}.clone()", "{x}.contiguous()", "{x}.detach().clone()", "{x}.data")
KEPT = (
    "graphc.sin({x})", "graphc.tanh({x})", "-{x}", "{x}.abs()", "graphc.relu({x})", "{x} * {number}", "{x} + {number}",
    "{x} - {x}.mean()", "{x}.flip(0)", "graphc.softmax({x}, -1)", "{x}.clone()",
)  # fmt: skip
REDUCED = (
    "{x}.{name}({dim}, keepdim={keep})", "{x}.{name}({dim}, keepdim={keep})", "{x}.{name}()", "{x} - {x}.mean({dim}, keepdim=True)",
    "graphc.softmax({x}, {dim})", "{x}.cumsum({dim})", "{x} / ({x}.abs().sum({dim}, keepdim=True) + 1)", "{x}.max({dim})[{which}]",
    "{x}.sort({dim})[{which}]",
)  # fmt: skip
RANDOM = (
    "{x} + graphc.rand({x}.shape)", "graphc.nn.functional.dropout({x}, 0.5)", "{x} * graphc.randn(3, 1)",
    "graphc.randint(0, 5, (4,))", "graphc.randperm(5)", "graphc.bernoulli(graphc.sigmoid({x}))", "graphc.rand_like({x})",
)  # fmt: skip
INDEXED = (
    "{x}[{i}]", "{x}.index_select(0, {i}.abs() % {rows})", "graphc.where({x} > 0, {x}, {x} * 0.5)", "{x}.masked_fill({x} > 0.5, 1)",
    "{x}.index_add(0, {i} % {rows}, {x}[{i}])", "{x}.gather(0, graphc.zeros_like({x}[:1], dtype=graphc.int64))",
)  # fmt: skip
SIZED = ("{x}[{x} > 0]", "graphc.nonzero({x})", "graphc.unique({x})", "{x}.masked_select({x} < 0.5)")
OF_SIZES = (
    "{x} / {n}", "{x}.reshape({n}, -1)", "graphc.arange({n})", "{x}[: {n} // 2]", "{x}[{n} - 1]", "graphc.ones({n}, 2) * {n}",
    "{x} * ({n} > 3)", "graphc.cat([{x}, {x}[1:]])", "{x}.new_zeros({n} + 1)",
)  # fmt: skip
OF_MODULE = ("{x}.mean() * module.weight", "module.weight * 2", "module.total + {x}.sum()")
WRITES_OF_MODULE = (
    "module.calls += 1", "module.kept = {x}.detach()", "module.total.add_(1)", "module.total = module.total + {x}.detach().mean()",
    "module.total.mul_({x}.detach().sum())",
)  # fmt: skip
CONDITIONS = (
    "{x}.mean() > {limit}", "({x} > {limit}).any()", "{x}.sum().item() < {limit}", "bool(({x} < {limit}).all())",
    "float({x}.mean()) > {limit} and {x}.max() > 0", "int(({x} > {limit}).sum()) % 2 == 0",
)  # fmt: skip
READ = (
    "{y} * {x}.mean().item()", "{y} + float({x}.sum())", "{y}[: int(({x} > 0).sum())]",
    "{y} * sum(({x} > 0).reshape(-1).tolist())", "graphc.full((2,), {x}.max().item())", "graphc.tensor([{x}.min().item(), 1.0])",
    "{y} ** int({x}.abs().max() > 1)", "graphc.zeros(int(({x} > 0).sum()), 2) + 1", "{y} * min({x}.mean().item(), 0.5)",
)  # fmt: skip
PARTS = (
    "graphc.stack([{x}, {y}, {x} + 1])", "graphc.cat([p * 2 for p in [{x}, {y}]])", "sum(p.sum() for p in [{x}, {y}])",
    "graphc.stack([r.sum() for r in {x}])",
)  # fmt: skip
