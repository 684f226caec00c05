"""einsum, and products of tensors along chosen dims: tensordot, inner, kron, bilinear, chain_matmul.

Enters: tensors and an equation.  Leaves: operators, opened into permute, reshape, sums and matmul.
Never here: how a matrix product is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

from graphc.dims import product
from graphc.dtypes import promote_types
from graphc.ir.op import Autocast, Bad, Op, Size
from graphc.ops.arguments import cast, is_tensor, of_type, one_dim, tensor, tensors
from graphc.ops.arithmetic import add, mul
from graphc.ops.contract import matmul, matrices
from graphc.ops.declare import FLOATING, NUMERIC, Shorthand, call, fill
from graphc.ops.elementwise import Prepared
from graphc.ops.movement import permute, reshape, slice_, unsqueeze

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Named:
    """A tensor whose dims have labels, each one once."""

    x: Any
    labels: Labels

    def size(self, label: str) -> Size:
        size: Size = self.x.shape[self.labels.index(label)]
        return size


# ---- the equation --------------------------------------------------------------------------------------------------


def _term(text: str, what: str) -> list[str]:
    """The labels of one operand; an ellipsis is the label '...'."""
    head, dots, tail = text.partition("...")
    if dots:
        if "..." in tail:
            _refuse(f"{what} has two ellipses")
        return [*_term(head, what), "...", *_term(tail, what)]
    if not all(c.isalpha() and c.isascii() for c in text):
        _refuse(f"{what} must be letters and '...', got {text!r}")
    return list(text)


def _refuse(message: str) -> NoReturn:
    raise RuntimeError(f"einsum: {message}")


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """(labels of the operands' dims, labels of the result's).  Dims under an ellipsis are numbered from the last."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = [_term(t, f"the subscripts of operand {k}") for k, t in enumerate(left.split(","))]
    if len(terms) != len(ranks):
        _refuse(f"the equation {equation!r} has {len(terms)} operands, {len(ranks)} were given")
    named: list[Labels] = []
    broadcast = 0
    for k, (labels, rank) in enumerate(zip(terms, ranks, strict=True)):
        rest = rank - len(labels) + ("..." in labels)
        if rest < 0 or (rest and "..." not in labels):
            _refuse(f"operand {k} has {rank} dims, its subscripts name {len(labels) - ('...' in labels)}")
        broadcast = max(broadcast, rest)
        named.append(_numbered(labels, rest))
    if arrow:
        output = _numbered(_term(right, "the output"), broadcast)
        known = {label for labels in named for label in labels}
        for label in output:
            if label not in known or output.count(label) > 1:
                _refuse(f"the output subscript {label!r} of {equation!r} must stand in an operand and once in the output")
        return named, output
    letters = sorted(label for labels in terms for label in labels if label != "...")
    once = [label for label in letters if letters.count(label) == 1]
    return named, (*_numbered(["..."], broadcast), *once)


def _numbered(labels: Sequence[str], rest: int) -> Labels:
    """The ellipsis opened into labels '-1', ..., the last dim '-1'."""
    return tuple(label for name in labels for label in ([str(k) for k in range(-rest, 0)] if name == "..." else [name]))


def _letter(index: Any) -> str:
    """The label of a number or Ellipsis in the sublist format."""
    if index is Ellipsis:
        return "..."
    if not isinstance(index, int) or not 0 <= index < 52:
        _refuse(f"a subscript must be an int in [0, 52) or Ellipsis, got {index!r}")
    return chr(ord("A") + index) if index < 26 else chr(ord("a") + index - 26)


def _prepare(equation: Any, *operands: Any) -> Prepared:
    """``einsum("ij,jk->ik", a, b)``, ``einsum("...", [a, b])`` or ``einsum(a, [0, 1], b, [1, 2], [0, 2])``."""
    if is_tensor(equation):
        given = (equation, *operands)
        pairs = [(given[k], given[k + 1]) for k in range(0, len(given) - 1, 2)]
        equation = ",".join("".join(map(_letter, labels)) for _, labels in pairs)
        if len(given) % 2:
            equation += "->" + "".join(map(_letter, given[-1]))
        operands = tuple(x for x, _ in pairs)
    elif len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    if not isinstance(equation, str):
        raise TypeError(f"einsum: argument 'equation' must be a str, not {type(equation).__name__}")
    if not operands:
        _refuse("must provide at least one operand")
    return tensors("einsum", "operands", operands), {"equation": equation}


# ---- contracting ---------------------------------------------------------------------------------------------------


def _without_repeats(x: Any, labels: Labels) -> Named:
    """The diagonal of dims with one label."""
    for label in labels:
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            n = x.shape[i]
            if n != x.shape[j]:
                _refuse(f"subscript {label!r} stands for sizes {n} and {x.shape[j]} in one operand")
            rest = [k for k in range(x.ndim) if k not in (i, j)]
            others = tuple(x.shape[k] for k in rest)
            x = reshape.run(permute.run(x, dims=(i, j, *rest)), shape=(n * n, *others))
            x = slice_.run(x, starts=(0,) * x.ndim, stops=(n * n, *others), steps=(n + 1, *(1 for _ in others)))
            labels = (label, *(labels[k] for k in rest))
    return Named(x, labels)


def _summed(term: Named, wanted: set[str]) -> Named:
    """Without the dims that nobody wants; sums of integers are int64, as in PyTorch."""
    drop = tuple(k for k, label in enumerate(term.labels) if label not in wanted)
    return Named(Op.table["sum"](term.x, drop), tuple(n for n in term.labels if n in wanted)) if drop else term


def _arranged(term: Named, order: Sequence[str]) -> Any:
    """The tensor with its dims in `order`; labels it lacks have size 1."""
    present = [label for label in order if label in term.labels]
    x = permute.run(term.x, dims=tuple(map(term.labels.index, present)))
    for k, label in enumerate(order):
        if label not in term.labels:
            x = unsqueeze.run(x, dim=k)
    return x


def _is_one(term: Named, label: str) -> bool:
    size = term.size(label)
    return isinstance(size, int) and size == 1


def _squeezed(term: Named, other: Named) -> Named:
    """Without dims of size 1 that broadcast against the other operand's."""
    keep = [n for n in term.labels if not (n in other.labels and _is_one(term, n) and not _is_one(other, n))]
    return term if len(keep) == len(term.labels) else Named(reshape.run(term.x, shape=tuple(map(term.size, keep))), tuple(keep))


def _pair(a: Named, b: Named, wanted: set[str]) -> Named:
    """The product of two terms, summed over labels that nobody else wants: a batched matrix product."""
    a, b = _squeezed(a, b), _squeezed(b, a)
    for label in set(a.labels) & set(b.labels):
        if a.size(label) != b.size(label):
            _refuse(f"subscript {label!r} stands for size {a.size(label)} in one operand and {b.size(label)} in another")
    a, b = _summed(a, wanted | set(b.labels)), _summed(b, wanted | set(a.labels))
    shared = [n for n in a.labels if n in b.labels]
    batch, inner = [n for n in shared if n in wanted], [n for n in shared if n not in wanted]
    rows, columns = [n for n in a.labels if n not in shared], [n for n in b.labels if n not in shared]
    labels = (*batch, *rows, *columns)
    if not inner:
        return Named(mul(_arranged(a, labels), _arranged(b, labels)), labels)
    batch_shape = tuple(map(a.size, batch))
    row_shape, column_shape = tuple(map(a.size, rows)), tuple(map(b.size, columns))
    depth = product(map(a.size, inner))
    left = reshape.run(_arranged(a, (*batch, *rows, *inner)), shape=(product(batch_shape), product(row_shape), depth))
    right = reshape.run(_arranged(b, (*batch, *inner, *columns)), shape=(product(batch_shape), depth, product(column_shape)))
    element = promote_types(left.dtype, right.dtype)
    if element.kind not in "iu" and left.dtype is not right.dtype:
        _refuse(f"operands that are summed over must have one dtype, got {of_type(a.x)} and {of_type(b.x)}")
    left, right = cast(left, element), cast(right, element)
    return Named(reshape.run(matmul.run(left, right), shape=(*batch_shape, *row_shape, *column_shape)), labels)


def _cheapest(terms: list[Named], output: Labels) -> tuple[int, int]:
    """Which two terms to multiply next: those whose product is smallest beside them.  The first two where sizes are symbolic."""
    if any(not isinstance(s, int) for t in terms for s in t.x.shape):
        return 0, 1
    best, chosen = math.inf, (0, 1)
    for i in range(len(terms)):
        for j in range(i + 1, len(terms)):
            others = {n for k, t in enumerate(terms) if k not in (i, j) for n in t.labels} | set(output)
            sizes = dict(zip(terms[i].labels, terms[i].x.shape, strict=True))
            for label, size in zip(terms[j].labels, terms[j].x.shape, strict=True):
                sizes[label] = max(size, sizes.get(label, 1))
            made = math.prod(size for label, size in sizes.items() if label in others)
            cost = made - math.prod(terms[i].x.shape) - math.prod(terms[j].x.shape)
            if cost < best:
                best, chosen = cost, (i, j)
    return chosen


def _einsum(*operands: Any, equation: str) -> Any:
    named, output = _parse(equation, [x.ndim for x in operands])
    terms = [_without_repeats(x, labels) for x, labels in zip(operands, named, strict=True)]
    while len(terms) > 1:
        i, j = (0, 1) if len(terms) == 2 else _cheapest(terms, output)
        b, a = terms.pop(j), terms.pop(i)
        terms.insert(i, _pair(a, b, {n for t in terms for n in t.labels} | set(output)))
    (last,) = terms
    last = _summed(last, set(output))
    return permute.run(last.x, dims=tuple(map(last.labels.index, output)))


def _products(equation: Any, *operands: Any) -> Autocast:
    """How a call autocasts: sums of one operand have no products."""
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    return "lower" if len(given) > 1 else "keep"


einsum = Shorthand(
    "einsum",
    doc="Sums of products over named dims: an equation such as 'bij,bjk->bik', with '...', repeated letters and an implicit "
    "result, or operands each followed by a list of ints.",
    signature="(equation, *operands)",
    rule=_einsum,
    prepare=_prepare,
    attrs=("equation",),
    dtypes=NUMERIC,
    samples=(
        call("ij,jk->ik", fill(3, 4), fill(4, 5)),
        call("bij,bjk", fill(2, 3, 4), fill(2, 4, 5)),
        call("ii->i", fill(3, 3)),
        call("...ij->...", fill(2, 3, 4)),
        call("i,j,k->kji", fill(2), fill(3), fill(4)),
        call("ab,bc,cd,de->ae", fill(2, 3), fill(3, 4), fill(4, 2), fill(2, 3)),
        call(fill(3, 4), [0, 1], fill(4), [1], [0]),
        call("bhqd,bhkd->bhqk", fill(2, 2, 3, 4), fill(1, 2, 5, 4)),
    ),
    bad=(
        Bad(("ij,jk", fill(3, 4)), RuntimeError, "einsum: the equation .* has 2 operands, 1 were given"),
        Bad(("ij->ijk", fill(3, 4)), RuntimeError, "einsum: the output subscript 'k'"),
        Bad(("ij,jk", fill(3, 4), fill(5, 6)), RuntimeError, "einsum: subscript 'j' stands for size 4"),
        Bad(("ijk", fill(3, 4)), RuntimeError, "einsum: operand 0 has 2 dims, its subscripts name 3"),
        Bad((fill(3), "a"), RuntimeError, "einsum: a subscript must be an int"),
    ),
    methods=(),
    autocast=_products,
)

# ---- products along dims -------------------------------------------------------------------------------------------


def _tensordot(x: Any, other: Any, dims: Any = 2) -> Any:
    name = "tensordot"
    x, other = tensor(name, "x", x), tensor(name, "other", other)
    if isinstance(dims, int):
        if dims < 0 or dims > min(x.ndim, other.ndim):
            raise RuntimeError(f"{name}: dims must be between 0 and the ranks, got {dims} for {of_type(x)} and {of_type(other)}")
        first, second = list(range(x.ndim - dims, x.ndim)), list(range(dims))
    else:
        given = [dims_.tolist() if hasattr(dims_, "tolist") else dims_ for dims_ in dims]
        first, second = ([d] if isinstance(d, int) else list(d) for d in given)
    first, second = [one_dim(name, d, x.ndim) for d in first], [one_dim(name, d, other.ndim) for d in second]
    if len(first) != len(second):
        raise RuntimeError(f"{name}: both dimension lists should have same length, got {first} and {second}")
    labels, others = [f"x{k}" for k in range(x.ndim)], [f"y{k}" for k in range(other.ndim)]
    for a, b in zip(first, second, strict=True):
        if x.shape[a] != other.shape[b] and 1 not in (x.shape[a], other.shape[b]):
            raise RuntimeError(f"{name}: contracted dims must be of one size: {of_type(x)} and {of_type(other)}, dims {a} and {b}")
        others[b] = labels[a]
    output = [n for k, n in enumerate(labels) if k not in first] + [n for k, n in enumerate(others) if k not in second]
    made = _pair(Named(x, tuple(labels)), Named(other, tuple(others)), set(output))
    narrow = cast(made.x, promote_types(x.dtype, other.dtype))  # a dim of size 1 is summed without it, to int64
    return permute.run(narrow, dims=tuple(map(made.labels.index, output)))


tensordot = Shorthand(
    "tensordot",
    autocast="lower",
    doc="Products summed over `dims`: how many last dims of x and first of other, or a pair of lists of dims.",
    rule=_tensordot,
    dtypes=NUMERIC,
    samples=(
        call(fill(2, 3, 4), fill(3, 4, 5)),
        call(fill(2, 3), fill(4, 2), dims=([0], [1])),
        call(fill(2), fill(3), dims=0),
        call(fill(1, 1), fill(2, 1), dims=([0], [0])),
    ),
    bad=(Bad((fill(2, 3), fill(4, 5), 1), RuntimeError, "tensordot: contracted dims must be of one size"),),
    methods=(),
    renamed={"a": "input", "b": "other"},
)


def _inner(x: Any, other: Any) -> Any:
    x, other = matrices("inner", x, other)
    if x.ndim == 0 or other.ndim == 0:
        return mul(x, other)
    if x.shape[-1] != other.shape[-1]:
        raise RuntimeError(f"inner: the last dims must be of one size: {of_type(x)} and {of_type(other)}")
    return _tensordot(x, other, ([-1], [-1]))


inner = Shorthand(
    "inner",
    doc="Products summed over the last dims.  [..., k], [... , k] -> [..., ...].",
    rule=_inner,
    dtypes=NUMERIC,
    samples=(call(fill(4), fill(4)), call(fill(2, 3), fill(4, 3)), call(fill(), fill(2, 3))),
    bad=(Bad((fill(3), fill(4)), RuntimeError, "inner: the last dims must be of one size"),),
)


def _vdot(x: Any, other: Any) -> Any:
    x, other = matrices("vdot", x, other)
    if x.ndim != 1 or other.ndim != 1:
        raise RuntimeError(f"vdot: 1D tensors expected, got {of_type(x)} and {of_type(other)}")
    if x.shape != other.shape:
        raise RuntimeError(f"vdot: inconsistent tensor size, got {of_type(x)} and {of_type(other)}")
    return matmul(Op.table["conj"](x) if x.dtype.kind == "c" else x, other)


vdot = Shorthand(
    "vdot",
    autocast="keep",
    doc="Inner product of two vectors, the first conjugated.  [k], [k] -> [].",
    rule=_vdot,
    dtypes=NUMERIC,
    samples=(call(fill(4), fill(4)), call(fill(33), fill(33))),
    bad=(Bad((fill(4), fill(3)), RuntimeError, "vdot: inconsistent tensor size"),),
)


def _kron(x: Any, other: Any) -> Any:
    x, other = tensor("kron", "x", x), tensor("kron", "other", other)
    rank = max(x.ndim, other.ndim)
    shapes = [(1,) * (rank - y.ndim) + tuple(y.shape) for y in (x, other)]
    left = reshape.run(x, shape=tuple(s for n in shapes[0] for s in (n, 1)))
    right = reshape.run(other, shape=tuple(s for n in shapes[1] for s in (1, n)))
    return reshape.run(mul(left, right), shape=tuple(a * b for a, b in zip(*shapes, strict=True)))


kron = Shorthand(
    "kron",
    doc="Kronecker product: every element of x times the whole of other.  [n, ...], [m, ...] -> [n * m, ...].",
    rule=_kron,
    dtypes=NUMERIC,
    samples=(call(fill(2, 3), fill(4, 5)), call(fill(3), fill(2, 2)), call(fill(), fill(3))),
    bad=(Bad((fill(3), 2.0), TypeError, "kron: argument 'other' must be a Tensor"),),
)


def _chain_matmul(*matrices_: Any) -> Any:
    given = tensors("chain_matmul", "matrices", matrices_)
    for x in given:
        if x.ndim != 2:
            raise RuntimeError(f"chain_matmul: expected 2-D tensors, got {of_type(x)}")
    names = [chr(ord("a") + k) for k in range(len(given) + 1)]
    equation = ",".join(f"{a}{b}" for a, b in pairwise(names))
    return given[0] if len(given) == 1 else _einsum(*given, equation=f"{equation}->{names[0]}{names[-1]}")


chain_matmul = Shorthand(
    "chain_matmul",
    doc="The product of several matrices, in a cheap order.  [a, b], [b, c], ... -> [a, z].",
    rule=_chain_matmul,
    prepare=lambda *given: (given, {}),
    attrs=(),
    dtypes=FLOATING,
    samples=(call(fill(2, 3), fill(3, 4), fill(4, 5)), call(fill(2, 3))),
    bad=(Bad((fill(2), fill(2, 3)), RuntimeError, "chain_matmul: expected 2-D tensors"),),
    methods=(),
)


def _bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    name = "bilinear"
    input1, input2 = tensor(name, "input1", input1), tensor(name, "input2", input2)
    weight = tensor(name, "weight", weight)
    if input1.ndim != input2.ndim or tuple(input1.shape[:-1]) != tuple(input2.shape[:-1]):
        raise RuntimeError(f"{name}: input1 and input2 must agree in all but the last dim: {of_type(input1)}, {of_type(input2)}")
    if tuple(weight.shape[1:]) != (input1.shape[-1], input2.shape[-1]):
        raise RuntimeError(f"{name}: weight must be [out, {input1.shape[-1]}, {input2.shape[-1]}], got {of_type(weight)}")
    out = _einsum(input1, input2, weight, equation="...i,...j,oij->...o")
    return out if bias is None else add(out, bias)


bilinear = Shorthand(
    "bilinear",
    doc="input1 @ weight[o] @ input2 + bias[o] for every o.  [..., i], [..., j], [out, i, j] (, [out]) -> [..., out].",
    rule=_bilinear,
    dtypes=FLOATING,
    samples=(call(fill(3, 4), fill(3, 5), fill(2, 4, 5), fill(2)), call(fill(2, 3, 4), fill(2, 3, 5), fill(2, 4, 5))),
    bad=(Bad((fill(3, 4), fill(3, 5), fill(2, 5, 4)), RuntimeError, "bilinear: weight must be"),),
    methods=(),
    functions=("nn.functional.bilinear", "bilinear"),
    autocast="keep",
)
