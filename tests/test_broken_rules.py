"""A deliberately broken rule in each field of a declaration is caught by the property that is about that field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import op_checks
from graphc.dtypes import float32, float64, int32
from graphc.eager import dispatch
from graphc.errors import IRError
from graphc.ir.op import Bad, Composite, Movement, Op, Reduce, Scalar, TensorType
from graphc.ops.declare import fill
from graphc.ops.elementwise import UNARY

FIELDS = (
    "doc", "signature", "infer", "reference", "grad", "lowering", "prepare", "attrs", "dtypes", "samples", "bad", "methods",
    "functions", "inplace",
)  # fmt: skip


@pytest.fixture
def with_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., Op]:
    """A copy of an operator with some fields changed, in its place in the table.

    What was compiled from the right rule must not serve for the broken one, as the text of both graphs is the same.
    """

    def make(name: str, **changes: Any) -> Op:
        monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "objects"))
        op = Op.table[name]
        monkeypatch.delitem(Op.table, name)
        copy = Op(name, **{field: getattr(op, field) for field in FIELDS} | changes)
        monkeypatch.setitem(Op.table, name, copy)
        return copy

    return make


def run(name: str) -> Callable[..., Any]:
    return Op.table[name].run


def wider(x: TensorType) -> TensorType:
    return TensorType(x.dtype, (*x.shape, 1))


def widened(x: TensorType) -> TensorType:
    return TensorType(float64, x.shape)


# Each: the operator, what is wrong with it, the property that finds it, and its arguments after the operator.
BROKEN: dict[str, tuple[str, dict[str, Any], str, tuple[Any, ...], str]] = {
    "no doc": ("exp", {"doc": " "}, "fields", (), "exp: no doc"),
    "no signature": ("exp", {"signature": ""}, "fields", (), "exp: no signature"),
    "no samples": ("exp", {"samples": ()}, "fields", (), "exp: no samples"),
    "no bad calls": ("exp", {"bad": ()}, "fields", (), "exp: no bad calls"),
    "no dtypes": ("exp", {"dtypes": ()}, "fields", (), "exp: no dtypes"),
    "a gradient that is no rule": ("exp", {"grad": "later"}, "fields", (), "exp: no gradient"),
    "infer gives another shape": ("exp", {"infer": wider}, "types", (float32,), "infer states"),
    "infer gives another dtype": ("exp", {"infer": widened}, "types", (float32,), "infer states"),
    "the reference gives another dtype": (
        "exp", {"reference": lambda xp, x: xp.exp(x).astype(xp.float64)}, "types", (float32,), "the reference gives f64",
    ),
    "the reference is off": ("exp", {"reference": lambda xp, x: xp.exp(x) * 1.001}, "compiled", (float64,), "exp"),
    "the reference forgets NaN": ("abs", {"reference": lambda xp, x: xp.nan_to_num(xp.abs(x))}, "compiled", (float32,), "abs"),
    "the scalar rule is another function": ("sin", {"lowering": Scalar("cos")}, "compiled", (float32,), "sin"),
    "the movement reads another element": (
        "flip", {"lowering": Movement(lambda index, *_, dims: index)}, "compiled", (int32,), "flip",
    ),
    "the reduction folds otherwise": ("reduce_max", {"lowering": Reduce("min")}, "compiled", (float32,), "reduce_max"),
    "the decomposition is another function": (
        "softmax", {"lowering": Composite(lambda x, **_: run("exp")(x))}, "decomposition", (float32,), "softmax",
    ),
    "the gradient has the wrong sign": (
        "exp", {"grad": lambda g, out, x: (run("neg")(run("mul")(g, out)),)}, "gradient", (UNARY[0],), "order 1 gradient",
    ),
    "the gradient is missing": ("exp", {"grad": lambda g, out, x: (None,)}, "gradient", (UNARY[0],), "order 1 gradient of input 0"),
    "the gradient is for another input": (
        "sub", {"grad": lambda g, out, x, y: (run("neg")(g), g)}, "gradient", (op_checks.Sample((fill(3), fill(3))),), "input 0",
    ),
    "too few gradients": (
        "sub", {"grad": lambda g, out, x, y: (g,)}, "gradient", (op_checks.Sample((fill(3), fill(3))),), "1 gradients for 2 inputs",
    ),
    "the gradient has another dtype": (
        "exp", {"grad": lambda g, out, x: (run("cast")(g, dtype=float32),)}, "gradient", (UNARY[0],), "a gradient of f32",
    ),
    "the gradient cannot be differentiated": (
        "exp",
        {"grad": lambda g, out, x: (run("mul")(g, run("stopped")(out)),)},
        "gradient",
        (UNARY[0], 2),
        "order 2 gradient",
    ),
    "a bad call has another message": (
        "exp", {"bad": (Bad((1.0,), TypeError, "exp: no such message"),)}, "bad", (), "not 'exp: no such message'",
    ),
    "a bad call has another class": ("exp", {"bad": (Bad((1.0,), IndexError, "exp"),)}, "bad", (), "TypeError, not IndexError"),
    "a bad call succeeds": ("exp", {"bad": (Bad((fill(2),), TypeError, "exp"),)}, "bad", (), "nothing, not TypeError"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_caught(case: str, with_broken: Callable[..., Op], monkeypatch: pytest.MonkeyPatch) -> None:
    name, changes, what, arguments, message = BROKEN[case]
    monkeypatch.setattr(Op, "table", dict(Op.table))
    identity = Op.table["clone"]
    Op(
        "stopped", doc="Test only.", signature="(x)", infer=identity.infer, reference=identity.reference, grad=None,
        lowering=identity.lowering,
    )  # fmt: skip
    check = getattr(op_checks, f"check_{what}")
    right = Op.table[name]
    for one in right.bad[:1] if what == "bad" else (None,):
        check(right, *([one] if one else arguments))
    op = with_broken(name, **changes)
    with pytest.raises(AssertionError, match=message):
        check(op, *(op.bad if what == "bad" else arguments))


def test_a_composite_whose_gradient_goes_through_must_be_one(with_broken: Callable[..., Op]) -> None:
    op = with_broken("exp", grad=op_checks.THROUGH)
    with pytest.raises(AssertionError, match="only a composite has THROUGH"):
        op_checks.check_fields(op)


def test_an_attribute_without_text_is_caught(with_broken: Callable[..., Op]) -> None:
    prepare = Op.table["exp"].prepare
    op = with_broken("exp", attrs=("how",), prepare=lambda x: (prepare(x)[0], {"how": frozenset()}), infer=lambda x, how: x)
    with pytest.raises(IRError, match="an attribute of type frozenset has no text"):
        op_checks.check_text(op, float32)


def test_numpy_that_is_not_exact_is_caught(with_broken: Callable[..., Op], monkeypatch: pytest.MonkeyPatch) -> None:
    op_checks.check_compiled(Op.table["exp"], float32)
    monkeypatch.setattr(dispatch, "NUMPY_EXACT", dispatch.NUMPY_EXACT | {"exp"})
    with pytest.raises(AssertionError, match="eager against compiled"):
        op_checks.check_compiled(with_broken("exp"), float32)
