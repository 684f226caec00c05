"""Passes: text in, text out, and both texts give the same bits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graph_cases import (
    TOLERANCE,
    assert_same_bits,
    bits,
    check_pass,
    parse_graph,
    print_graph,
    random_inputs,
    run_compiled,
    run_interpreted,
    special_values,
)
from graphc import dtypes, pipeline
from graphc.dtypes import REAL, DType, bool_, complex64, complex128, float32, float64
from graphc.errors import IRError
from graphc.ir.graph import Builder, Graph, Value, rewrite
from graphc.ir.op import Composite, Op, TensorType
from graphc.ir.verify import verify
from graphc.passes import PASSES
from graphc.passes.algebra import (
    IDENTITIES,
    Identity,
    Term,
    letters,
    parse_identities,
    parse_identity,
    rules_of,
    simplify,
)
from graphc.passes.decompose import decompose
from graphc.passes.hoist_reshape import hoist_reshape
from graphc.passes.movement import holds

TABLE = parse_identities(IDENTITIES)
BITWISE_DTYPES = REAL


# ---- identities, each by itself -----------------------------------------------------------------------------------------


def built(term: Term, values: dict[str, Value], builder: Builder, constant: DType) -> Value:
    """A term of an identity as nodes; its numbers become 0-d constants of a dtype."""
    if isinstance(term, str):
        return values[term]
    if isinstance(term, tuple):
        return builder.emit(term[0], [built(t, values, builder, constant) for t in term[1]], {})[0]
    return builder.emit(Op.table["full"], (), {"value": term, "shape": (), "dtype": constant})[0]


def sides(identity: Identity, types: dict[str, DType]) -> tuple[Graph, Graph] | None:
    """The two sides as graphs over 1-d letters; None where an operator is not defined for these dtypes."""
    size = len(grid(types)[0]) if types else 0
    constant = next(d for name, d in types.items() if name != "c" or len(types) == 1)
    graphs = []
    for side in (identity.pattern, identity.replacement):
        builder = Builder()
        values = {name: Value(TensorType(dtype, (size,)), name=name) for name, dtype in types.items()}
        try:
            out = built(side, values, builder, constant)
        except RuntimeError:
            return None
        graphs.append(builder.graph("side", tuple(values.values()), (out,)))
    return graphs[0], graphs[1]


def values_of(dtype: DType) -> np.ndarray:
    rng = np.random.default_rng(7)
    if dtype is bool_:
        return np.array([False, True])
    some = rng.uniform(-5, 5, 8) if dtype.kind == "f" else rng.integers(0, 100, 8)
    return np.concatenate([special_values(dtype), some.astype(dtype.compute.numpy).astype(dtype.numpy)])


def grid(types: dict[str, DType]) -> list[np.ndarray]:
    """Every combination of edge and random values, one array a letter."""
    axes = [range(len(values_of(d))) for d in types.values()]
    picks = np.array(list(itertools.product(*axes))).reshape(-1, len(types))
    return [values_of(d)[picks[:, k]] for k, d in enumerate(types.values())]


def combinations(identity: Identity) -> list[dict[str, DType]]:
    """Dtypes of the letters: one for all, but conditions (the letter c) may be bool beside another."""
    names = sorted(letters(identity.pattern))
    found = []
    for dtype in BITWISE_DTYPES:
        for condition in {dtype, bool_} if "c" in names else {dtype}:
            types = {name: condition if name == "c" else dtype for name in names}
            if all(types[name].kind in kinds for name, kinds in identity.kinds):
                found.append(types)
    return found


def comparable(identity: Identity) -> list[tuple[dict[str, DType], tuple[Graph, Graph]]]:
    """Every choice of dtypes for which both sides are defined and have one type."""
    found = []
    for types in combinations(identity):
        pair = sides(identity, types)
        if pair is not None and pair[0].outputs[0].type == pair[1].outputs[0].type:
            found.append((types, pair))
    assert found, f"no dtype fits {identity.text}"
    return found


def counterexample(identity: Identity) -> str | None:
    """Operands on which the references of the two sides differ, as text; None where there are none."""
    for types, pair in comparable(identity):
        arrays = grid(types)
        left, right = (run_interpreted(graph, arrays)[0] for graph in pair)
        different = np.flatnonzero(bits(left) != bits(right))
        if len(different):
            at = different[0]
            operands = ", ".join(f"{name} = {a[at]!r}" for name, a in zip(types, arrays, strict=True))
            return f"{operands}: {left[at]!r} is not {right[at]!r}"
    return None


@pytest.mark.parametrize("identity", [i for i in TABLE if i.exact], ids=lambda i: i.text)
def test_an_exact_identity_keeps_every_bit(identity: Identity) -> None:
    assert counterexample(identity) is None


@pytest.mark.parametrize("dtype", BITWISE_DTYPES, ids=lambda d: d.short)
def test_exact_identities_keep_every_bit_of_native_code(dtype: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides of all identities as one program, compiled without the pass that would make them equal."""
    monkeypatch.setattr(pipeline, "PASSES", (decompose,))
    texts, inputs, nodes, outputs, arrays = [], [], [], [], []
    for identity in TABLE:
        for types, pair in comparable(identity) if identity.exact else ():
            if dtype not in types.values():
                continue
            for side in pair:
                inputs += side.inputs
                nodes += side.nodes
                outputs += side.outputs
                arrays += grid(types)
            texts.append(identity.text)
    results = run_compiled(Graph("sides", tuple(inputs), tuple(nodes), tuple(outputs)), arrays)
    assert texts
    for k, text in enumerate(texts):
        assert_same_bits(results[2 * k : 2 * k + 1], results[2 * k + 1 : 2 * k + 2], text)


@pytest.mark.parametrize("identity", [i for i in TABLE if not i.exact], ids=lambda i: i.text)
def test_a_fast_identity_is_not_exact_but_near(identity: Identity) -> None:
    """Near on ordinary numbers; and were it exact, it should say so."""
    assert counterexample(identity) is not None
    float32 = dtypes.float32
    graph = sides(identity, dict.fromkeys(sorted(letters(identity.pattern)), float32))
    assert graph is not None
    size = int(graph[0].inputs[0].shape[0])  # type: ignore[arg-type]
    arrays = [np.random.default_rng(k).uniform(0.5, 3, size).astype(np.float32) for k in range(len(graph[0].inputs))]
    left, right = (run_interpreted(g, arrays)[0] for g in graph)
    np.testing.assert_allclose(left, right, rtol=TOLERANCE["float32"])


@pytest.mark.parametrize(
    "text, shown",
    [
        ("add(x, 0) = x", "-0.0"),
        ("mul(x, 0) = sub(x, x)", "0.0"),
        ("sub(x, y) = neg(sub(y, x))", "0.0"),
        ("maximum(x, y) = maximum(y, x)", "0.0"),
        ("logical_not(lt(x, y)) = ge(x, y)", "nan"),
        ("sqrt(square(x)) = abs(x)", "1e-07"),
        ("mul(mul(x, y), z) = mul(x, mul(y, z))", "x = "),
        ("reciprocal(reciprocal(x)) = x", "x = "),
    ],
)
def test_a_false_identity_is_found(text: str, shown: str) -> None:
    found = counterexample(parse_identity(text))
    assert found is not None and shown in found


@pytest.mark.parametrize(
    "text, message",
    [
        ("add(x, y)", "not an identity"),
        ("x = x", "must be an operator"),
        ("add(x, 0) = y", "y does not stand on the left"),
        ("add(x, 0) = x if y is integer", "y does not stand on the left"),
        ("add(x, 0) = x if x is round", "a kind is one of"),
        ("add(x, = x", "not an identity"),
        ("melt(x) = x", "without attributes, not melt"),
        ("cast(x) = x", "without attributes, not cast"),
        ("add(x, 'a') = x", "not a term"),
    ],
)
def test_text_that_is_no_identity_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_identity(text)


@pytest.mark.parametrize("identity", TABLE, ids=lambda i: i.text)
def test_an_identity_is_applied_where_types_agree(identity: Identity) -> None:
    """The pattern alone in a graph becomes the replacement alone, for every dtype that has both."""
    for _, (pattern, replacement) in comparable(identity):
        assert print_graph(rewrite(pattern, rules_of([identity]))) == print_graph(replacement)


# ---- simplify -------------------------------------------------------------------------------------------------------------


def graph(parameters: str, *nodes: str, returns: str) -> str:
    return "\n".join((f"graph @g({parameters}) {{", *nodes, f"return {returns}", "}"))


SIMPLIFIED = {
    "identities chain": (
        graph(
            "%x: f32[3], %y: f32[3]",
            "%0 = neg(%y) : f32[3]",
            "%1 = neg(%0) : f32[3]",
            "%2 = neg(%1) : f32[3]",
            "%3 = sub(%x, %2) : f32[3]",
            returns="%3",
        ),
        graph("%x: f32[3], %y: f32[3]", "%0 = add(%x, %y) : f32[3]", returns="%0"),
    ),
    "broadcasting keeps an operand that stretches": (
        graph(
            "%x: f32[3]",
            "%0 = full(value=1.0, shape=(2, 3), dtype=f32) : f32[2, 3]",
            "%1 = mul(%x, %0) : f32[2, 3]",
            returns="%1",
        ),
        graph(
            "%x: f32[3]",
            "%0 = full(value=1.0, shape=(2, 3), dtype=f32) : f32[2, 3]",
            "%1 = mul(%x, %0) : f32[2, 3]",
            returns="%1",
        ),
    ),
    "adding zero stays, subtracting it goes": (
        graph(
            "%x: f32[3]",
            "%0 = full(value=0, shape=(), dtype=f32) : f32[]",
            "%1 = add(%x, %0) : f32[3]",
            "%2 = sub(%1, %0) : f32[3]",
            returns="%2",
        ),
        graph("%x: f32[3]", "%0 = full(value=0.0, shape=(), dtype=f32) : f32[]", "%1 = add(%x, %0) : f32[3]", returns="%1"),
    ),
    "integers add zero": (
        graph("%x: i32[3]", "%0 = full(value=0, shape=(), dtype=i32) : i32[]", "%1 = add(%x, %0) : i32[3]", returns="%1"),
        graph("%x: i32[3]", returns="%x"),
    ),
    "permutations multiply": (
        graph(
            "%x: f32[2, 3, 4]",
            "%0 = permute(%x, dims=(1, 2, 0)) : f32[3, 4, 2]",
            "%1 = permute(%0, dims=(1, 2, 0)) : f32[4, 2, 3]",
            returns="%1",
        ),
        graph("%x: f32[2, 3, 4]", "%0 = permute(%x, dims=(2, 0, 1)) : f32[4, 2, 3]", returns="%0"),
    ),
    "and vanish": (
        graph(
            "%x: f32[2, 3]",
            "%0 = permute(%x, dims=(1, 0)) : f32[3, 2]",
            "%1 = permute(%0, dims=(1, 0)) : f32[2, 3]",
            returns="%1",
        ),
        graph("%x: f32[2, 3]", returns="%x"),
    ),
    "a permutation of dims of size 1 is a reshape": (
        graph("%x: f32[2, 1, 3]", "%0 = permute(%x, dims=(1, 0, 2)) : f32[1, 2, 3]", returns="%0"),
        graph("%x: f32[2, 1, 3]", "%0 = reshape(%x, shape=(1, 2, 3)) : f32[1, 2, 3]", returns="%0"),
    ),
    "reshapes, squeezes and unsqueezes are one reshape": (
        graph(
            "%x: f32[N, 1, 6]",
            "%0 = squeeze(%x, dims=(1,)) : f32[N, 6]",
            "%1 = unsqueeze(%0, dim=0) : f32[1, N, 6]",
            "%2 = reshape(%1, shape=(`N`, 2, 3)) : f32[N, 2, 3]",
            returns="%2",
        ),
        graph("%x: f32[N, 1, 6]", "%0 = reshape(%x, shape=(`N`, 2, 3)) : f32[N, 2, 3]", returns="%0"),
    ),
    "a reshape back": (
        graph(
            "%x: f32[2, 6]",
            "%0 = reshape(%x, shape=(12,)) : f32[12]",
            "%1 = reshape(%0, shape=(2, 6)) : f32[2, 6]",
            returns="%1",
        ),
        graph("%x: f32[2, 6]", returns="%x"),
    ),
    "expansions": (
        graph(
            "%x: f32[3, 1]",
            "%0 = expand(%x, shape=(3, 4)) : f32[3, 4]",
            "%1 = expand(%0, shape=(2, 3, 4)) : f32[2, 3, 4]",
            "%2 = expand(%1, shape=(2, 3, 4)) : f32[2, 3, 4]",
            returns="%2",
        ),
        graph("%x: f32[3, 1]", "%0 = expand(%x, shape=(2, 3, 4)) : f32[2, 3, 4]", returns="%0"),
    ),
    "an expansion by a dim of size 1 is a reshape": (
        graph("%x: f32[3]", "%0 = expand(%x, shape=(1, 3)) : f32[1, 3]", returns="%0"),
        graph("%x: f32[3]", "%0 = reshape(%x, shape=(1, 3)) : f32[1, 3]", returns="%0"),
    ),
    "flips": (
        graph(
            "%x: f32[3, 1, 4]",
            "%0 = flip(%x, dims=(0, 1)) : f32[3, 1, 4]",
            "%1 = flip(%0, dims=(0, 2)) : f32[3, 1, 4]",
            returns="%1",
        ),
        graph("%x: f32[3, 1, 4]", "%0 = flip(%x, dims=(2,)) : f32[3, 1, 4]", returns="%0"),
    ),
    "slices": (
        graph(
            "%x: f32[9, 4]",
            "%0 = slice(%x, starts=(2, 0), stops=(8, 4), steps=(1, 1)) : f32[6, 4]",
            "%1 = slice(%0, starts=(1, 1), stops=(6, 4), steps=(1, 1)) : f32[5, 3]",
            "%2 = slice(%1, starts=(0, 0), stops=(5, 3), steps=(1, 1)) : f32[5, 3]",
            returns="%2",
        ),
        graph("%x: f32[9, 4]", "%0 = slice(%x, starts=(3, 1), stops=(8, 4), steps=(1, 1)) : f32[5, 3]", returns="%0"),
    ),
    "stepped slices stay two": (
        graph(
            "%x: f32[9]",
            "%0 = slice(%x, starts=(0,), stops=(9,), steps=(2,)) : f32[5]",
            "%1 = slice(%0, starts=(1,), stops=(5,), steps=(1,)) : f32[4]",
            returns="%1",
        ),
        graph(
            "%x: f32[9]",
            "%0 = slice(%x, starts=(0,), stops=(9,), steps=(2,)) : f32[5]",
            "%1 = slice(%0, starts=(1,), stops=(5,), steps=(1,)) : f32[4]",
            returns="%1",
        ),
    ),
    "a cast that loses nothing": (
        graph(
            "%x: f16[3]",
            "%0 = cast(%x, dtype=f32) : f32[3]",
            "%1 = cast(%0, dtype=f64) : f64[3]",
            "%2 = cast(%1, dtype=f16) : f16[3]",
            returns="%1, %2",
        ),
        graph("%x: f16[3]", "%0 = cast(%x, dtype=f64) : f64[3]", returns="%0, %x"),
    ),
    "a cast that rounds stays": (
        graph("%x: f32[9]", "%0 = cast(%x, dtype=bf16) : bf16[9]", "%1 = cast(%0, dtype=f32) : f32[9]", returns="%1"),
        graph("%x: f32[9]", "%0 = cast(%x, dtype=bf16) : bf16[9]", "%1 = cast(%0, dtype=f32) : f32[9]", returns="%1"),
    ),
    "16-bit floats are reached through float32 anyway": (
        graph("%x: f64[9]", "%0 = cast(%x, dtype=f32) : f32[9]", "%1 = cast(%0, dtype=f16) : f16[9]", returns="%1"),
        graph("%x: f64[9]", "%0 = cast(%x, dtype=f16) : f16[9]", returns="%0"),
    ),
    "constants are computed": (
        graph(
            "%x: f32[2]",
            "%0 = full(value=3, shape=(2,), dtype=i64) : i64[2]",
            "%1 = cast(%0, dtype=f32) : f32[2]",
            "%2 = full(value=0.1, shape=(), dtype=f32) : f32[]",
            "%3 = mul(%1, %2) : f32[2]",
            "%4 = reshape(%3, shape=(2, 1)) : f32[2, 1]",
            "%5 = add(%x, %4) : f32[2, 2]",
            returns="%5",
        ),
        graph(
            "%x: f32[2]",
            "%0 = full(value=0.30000001192092896, shape=(2, 1), dtype=f32) : f32[2, 1]",
            "%1 = add(%x, %0) : f32[2, 2]",
            returns="%1",
        ),
    ),
    "a division by a power of two is a product": (
        graph(
            "%x: f32[5]",
            "%0 = full(value=8, shape=(), dtype=f32) : f32[]",
            "%1 = div(%x, %0) : f32[5]",
            "%2 = full(value=10, shape=(), dtype=f32) : f32[]",
            "%3 = div(%1, %2) : f32[5]",
            returns="%3",
        ),
        graph(
            "%x: f32[5]",
            "%0 = full(value=0.125, shape=(), dtype=f32) : f32[]",
            "%1 = mul(%x, %0) : f32[5]",
            "%2 = full(value=10.0, shape=(), dtype=f32) : f32[]",
            "%3 = div(%1, %2) : f32[5]",
            returns="%3",
        ),
    ),
    "equal nodes are one, whatever they were": (
        graph(
            "%x: f32[3], state %s: f32[3]",
            "%0 = unsqueeze(%x, dim=0) : f32[1, 3]",
            "%1 = reshape(%x, shape=(1, 3)) : f32[1, 3]",
            "%2 = add(%0, %1) : f32[1, 3]",
            "%3 = squeeze(%2, dims=(0,)) : f32[3]",
            "%4 = exp(%s) : f32[3]",
            returns="%2; update %s = %3",
        ),
        graph(
            "%x: f32[3], state %s: f32[3]",
            "%0 = reshape(%x, shape=(1, 3)) : f32[1, 3]",
            "%1 = add(%0, %0) : f32[1, 3]",
            "%2 = reshape(%1, shape=(3,)) : f32[3]",
            returns="%1; update %s = %2",
        ),
    ),
}


@pytest.mark.parametrize("case", SIMPLIFIED)
def test_simplify(case: str) -> None:
    before, after = SIMPLIFIED[case]
    if "N" in before:
        before, after = (text.replace("`N`", "5").replace("N", "5") for text in (before, after))
    check_pass(simplify, before, after)


@pytest.mark.parametrize("case", SIMPLIFIED)
def test_simplify_is_done_in_one_sweep(case: str) -> None:
    once = simplify(parse_graph(SIMPLIFIED[case][0]))
    assert print_graph(simplify(once)) == print_graph(once)


FAST = graph(
    "%x: f32[3], %y: f32[3]",
    "%0 = exp(%x) : f32[3]",
    "%1 = exp(%y) : f32[3]",
    "%2 = mul(%0, %1) : f32[3]",
    returns="%2",
)
FASTER = graph("%x: f32[3], %y: f32[3]", "%0 = add(%x, %y) : f32[3]", "%1 = exp(%0) : f32[3]", returns="%1")


def test_inexact_identities_wait_for_fast_mode() -> None:
    before = parse_graph(FAST)
    assert print_graph(simplify(before)) == print_graph(before)
    after = simplify(before, "fast")
    assert print_graph(after) == print_graph(parse_graph(FASTER))
    inputs = random_inputs(before)
    np.testing.assert_allclose(run_interpreted(after, inputs)[0], run_interpreted(before, inputs)[0], rtol=1e-6)


def test_a_cast_through_a_wider_dtype_keeps_every_value() -> None:
    assert holds(complex64, float32) and holds(complex128, complex64)
    assert not holds(float64, complex64) and not holds(complex64, float64)
    for wide, narrow in itertools.product(REAL, REAL):
        values = special_values(narrow)
        if narrow.itemsize == 1 and narrow.kind != "b":
            values = np.arange(256).astype(np.uint8).view(narrow.numpy)
        elif narrow.itemsize == 2:
            values = np.arange(65536).astype(np.uint16).view(narrow.numpy)
        cast = Op.table["cast"].reference
        there_and_back = cast(np, cast(np, values, dtype=wide), dtype=narrow)
        if holds(wide, narrow):
            assert_same_bits([there_and_back], [values], f"{narrow} in {wide}")
        else:
            with np.errstate(all="ignore"):
                kept_sign = (cast(np, values, dtype=wide) < 0) == (values < 0)
            with pytest.raises(AssertionError):
                assert_same_bits([there_and_back, kept_sign], [values, np.ones_like(kept_sign)])


def test_every_symbolic_size_is_kept() -> None:
    before, after = SIMPLIFIED["reshapes, squeezes and unsqueezes are one reshape"]
    assert print_graph(simplify(parse_graph(before))) == print_graph(parse_graph(after))


# ---- hoist_reshape -----------------------------------------------------------------------------------------------------------

HOISTED = {
    "a loss that flattens": (
        graph(
            "%x: f32[2, 3], %y: f32[2, 3]",
            "%0 = sub(%x, %y) : f32[2, 3]",
            "%1 = mul(%0, %0) : f32[2, 3]",
            "%2 = reshape(%1, shape=(6,)) : f32[6]",
            "%3 = neg(%2) : f32[6]",
            returns="%3",
        ),
        graph(
            "%x: f32[2, 3], %y: f32[2, 3]",
            "%0 = reshape(%x, shape=(6,)) : f32[6]",
            "%1 = reshape(%y, shape=(6,)) : f32[6]",
            "%2 = sub(%0, %1) : f32[6]",
            "%3 = mul(%2, %2) : f32[6]",
            "%4 = neg(%3) : f32[6]",
            returns="%4",
        ),
    ),
    "0-d operands stay": (
        graph(
            "%x: f32[2, 3], %s: f32[]",
            "%0 = mul(%x, %s) : f32[2, 3]",
            "%1 = reshape(%0, shape=(3, 2)) : f32[3, 2]",
            "%2 = exp(%1) : f32[3, 2]",
            returns="%2",
        ),
        graph(
            "%x: f32[2, 3], %s: f32[]",
            "%0 = reshape(%x, shape=(3, 2)) : f32[3, 2]",
            "%1 = mul(%0, %s) : f32[3, 2]",
            "%2 = exp(%1) : f32[3, 2]",
            returns="%2",
        ),
    ),
    "and cancel what they meet": (
        graph(
            "%x: f32[6]",
            "%0 = reshape(%x, shape=(2, 3)) : f32[2, 3]",
            "%1 = neg(%0) : f32[2, 3]",
            "%2 = cast(%1, dtype=f64) : f64[2, 3]",
            "%3 = reshape(%2, shape=(6,)) : f64[6]",
            "%4 = exp(%3) : f64[6]",
            returns="%4",
        ),
        graph(
            "%x: f32[6]",
            "%0 = neg(%x) : f32[6]",
            "%1 = cast(%0, dtype=f64) : f64[6]",
            "%2 = exp(%1) : f64[6]",
            returns="%2",
        ),
    ),
}
UNHOISTED = {
    "another reader": graph(
        "%x: f32[2, 3]",
        "%0 = exp(%x) : f32[2, 3]",
        "%1 = reshape(%0, shape=(6,)) : f32[6]",
        "%2 = neg(%1) : f32[6]",
        returns="%2, %0",
    ),
    "a broadcast operand": graph(
        "%x: f32[2, 3], %y: f32[3]",
        "%0 = add(%x, %y) : f32[2, 3]",
        "%1 = reshape(%0, shape=(6,)) : f32[6]",
        "%2 = neg(%1) : f32[6]",
        returns="%2",
    ),
    "no loop reads it": graph("%x: f32[2, 3]", "%0 = exp(%x) : f32[2, 3]", "%1 = reshape(%0, shape=(6,)) : f32[6]", returns="%1"),
    "0-d": graph(
        "%x: f32[]",
        "%0 = exp(%x) : f32[]",
        "%1 = reshape(%0, shape=(1,)) : f32[1]",
        "%2 = neg(%1) : f32[1]",
        returns="%2",
    ),
    "two shapes": graph(
        "%x: f32[2, 3]",
        "%0 = exp(%x) : f32[2, 3]",
        "%1 = reshape(%0, shape=(6,)) : f32[6]",
        "%2 = reshape(%0, shape=(3, 2)) : f32[3, 2]",
        "%3 = neg(%1) : f32[6]",
        "%4 = neg(%2) : f32[3, 2]",
        returns="%3, %4",
    ),
}


@pytest.mark.parametrize("case", [*HOISTED, *UNHOISTED])
def test_hoist_reshape(case: str) -> None:
    before, after = HOISTED[case] if case in HOISTED else (UNHOISTED[case], UNHOISTED[case])
    check_pass(hoist_reshape, before, after)


# ---- decompose, and all of them -------------------------------------------------------------------------------------------------


def test_decompose_leaves_no_composite() -> None:
    before = parse_graph(
        graph(
            "%x: f32[3, 5]",
            "%0 = linspace(start=0.0, end=1.0, size=5, dtype=f32) : f32[5]",
            "%1 = add(%x, %0) : f32[3, 5]",
            returns="%1",
        )
    )
    made = decompose(before)
    verify(made)
    assert not any(isinstance(n.op.lowering, Composite) for n in made.nodes)
    inputs = random_inputs(before)
    np.testing.assert_allclose(run_interpreted(made, inputs)[0], run_interpreted(before, inputs)[0], rtol=1e-6)


def test_passes_do_not_change_the_signature() -> None:
    before = parse_graph(SIMPLIFIED["equal nodes are one, whatever they were"][0])
    for one in PASSES:
        made = one(before)
        verify(made)
        assert made.inputs == before.inputs
        assert [v.type for v in made.outputs] == [v.type for v in before.outputs]
        assert [s for s, _ in made.updates] == [s for s, _ in before.updates]


def test_the_pass_check_finds_a_wrong_pass() -> None:
    x = "%x: f32[3]"
    before = graph(x, "%0 = exp(%x) : f32[3]", returns="%0")
    wrong = graph(x, "%0 = sin(%x) : f32[3]", returns="%0")
    with pytest.raises(AssertionError, match="differ"):
        check_pass(lambda _: parse_graph(wrong), before, wrong)
    with pytest.raises(AssertionError):
        check_pass(simplify, before, wrong)

    def undefined(graph: Graph) -> Graph:
        return Graph("g", graph.inputs, (), graph.outputs)

    with pytest.raises(IRError, match="not defined"):
        check_pass(undefined, before, before)
