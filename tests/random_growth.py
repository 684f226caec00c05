"""Random programs in Python: operators of the whole table, views, writes in place, branches, loops, reads, state, gradients.

A program is grown statement by statement: each is run as it is found, and one that fails is not taken.  So sizes and types need
no rules here, and every program is code that eager graphc runs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import graphc
import random_lines as lines
from graphc import nn
from graphc.dtypes import DType
from graphc.ir.op import Fill, Op, Sample
from random_code import Code, Holder, Input, Statement, names_for_code

SIZES = (1, 2, 3, 3, 4, 5, 7)
DTYPES = ("float32",) * 14 + ("float64", "float64", "float16", "bfloat16", "int64", "int32", "bool")
UNARY = ("sin", "tanh", "sigmoid", "exp", "abs", "neg", "square", "relu", "floor", "sign", "cos", "log1p", "rsqrt", "sqrt", "round")
BINARY = ("add", "sub", "mul", "maximum", "minimum", "div", "atan2")
REUSED = 0.4  # operands of table calls: what is computed before
UNLIKELY = 0.08  # inputs with infinities, NaN and the like
SIZED = 0.1  # of indexing steps: results sized by elements
# operators of the table that programs do not call: what compiled code makes of others, and what lies apart
LEFT_OUT = frozenset({"panels", "matmul_panels", "advance_state", "random_bits", "seed"})
OPERATORS = [op for op in Op.table.values() if (op.functions or op.methods) and op.samples and op.name not in LEFT_OUT]


def literal(value: Any) -> str:
    """An attribute of a sample as code.  Raises TypeError for what has none."""
    if isinstance(value, tuple | list):
        inner = ", ".join(map(literal, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, DType):
        return f"graphc.{value.name}"
    if isinstance(value, Raw):
        return value.text
    if value is None or isinstance(value, int | float | str):
        return repr(value)
    raise TypeError(type(value))


@dataclass
class Raw:
    """Code in the place of a literal."""

    text: str


@dataclass
class Scope:
    """What is defined where a statement stands."""

    names: dict[str, Any]
    variables: list[str] = field(default_factory=list)

    def forked(self) -> Scope:
        """The same values in other memory, to try the branch that is not taken."""
        kept = {k: v for k, v in self.names.items() if isinstance(v, graphc.Tensor | nn.Module | list | int | float)}
        return Scope({**self.names, **copy.deepcopy(kept)}, list(self.variables))


class Growing:
    """Grows a `Code` from a seed.  Every way to add a statement is a method called ``step_...``; weights stand in `WEIGHTS`."""

    WEIGHTS = {"table": 8, "unary": 4, "binary": 4, "view": 4, "write": 4, "write_view": 2, "branch": 2, "loop": 1, "repeat": 1,
               "read": 1, "state": 2, "module": 1, "matmul": 1, "reduce": 3, "random": 0.5, "leave": 0.4, "cast": 1, "check": 0.4,
               "parts": 0.7, "detach": 0.5, "outside": 0.5, "index": 1, "size": 0.5}  # fmt: skip

    def __init__(self, seed: int, most: int = 6) -> None:
        self.seed, self.rng = seed, np.random.default_rng([7, seed])
        self.count = 0
        self.inputs: list[Input] = []
        self.batch = int(self.rng.choice((2, 4, 6)))
        self.several_sizes = self.chance(0.12)
        self.scope = Scope({**names_for_code(), "module": Holder(seed)})
        self.holding = [self.scope]
        self.gradients = str(self.rng.choice(("none", "none", "outside", "outside", "inside", "off", "twice"),
                                             p=(0.28, 0.14, 0.14, 0.13, 0.18, 0.08, 0.05)))  # fmt: skip
        self.statements: list[Statement] = []
        for _ in range(int(self.rng.integers(1, 3))):
            self.new_input(batched=True)
        if self.chance(0.3):
            self.new_input(state=True)
        wanted = int(self.rng.integers(2, most + 1))
        for _ in range(wanted * 4):
            if len(self.statements) < wanted and (made := self.step()) is not None:
                self.statements.append(made)

    def code(self) -> Code:
        """What has grown."""
        given = [i.name for i in self.inputs]
        made = [v for v in self.scope.variables if v not in given and isinstance(self.scope.names.get(v), graphc.Tensor)]
        lines = [line.strip() for statement in self.statements for line in statement.lines()]
        changed = [name for name in given if any(line.startswith(f"{name} = ") for line in lines)]
        results = list(dict.fromkeys([*made[-3:], *changed, *([self.pick()] if self.chance(0.2) else [])]))
        batches: tuple[int | None, ...] = (None, None, None)
        if self.several_sizes:
            batches = (None, int(self.rng.choice((1, 3, 5, 8))), None, int(self.rng.choice((0, 2, 7, 9))))
        return Code(self.seed, tuple(self.inputs), tuple(self.statements), tuple(results), self.gradients, batches)

    # ---- choices

    def chance(self, probability: float) -> bool:
        """Whether something of that probability happens."""
        return bool(self.rng.random() < probability)

    def line(self, lines: Sequence[str], **chosen: Any) -> str:
        """One of some lines, filled in."""
        return str(self.one(*lines)).format(**chosen)

    def one(self, *choices: Any) -> Any:
        """One of them."""
        return choices[int(self.rng.integers(len(choices)))]

    def pick(self, fits: Callable[[graphc.Tensor], bool] = lambda x: True) -> str:
        """A variable, more often a recent one.  Raises LookupError where none fits."""
        found = self.fitting(fits)
        if not found:
            raise LookupError
        return self.recent(found)

    def fitting(self, fits: Callable[[graphc.Tensor], bool]) -> list[str]:
        """The variables that fit."""
        return [v for v in self.scope.variables if isinstance(self.scope.names.get(v), graphc.Tensor) and fits(self.value(v))]

    def recent(self, names: list[str]) -> str:
        """One of some variables, more often a recent one."""
        return names[-min(int(self.rng.geometric(0.4)), len(names))]

    def value(self, name: str) -> Any:
        """What a variable holds now."""
        return self.scope.names[name]

    def fresh(self) -> str:
        """A name that is not used."""
        self.count += 1
        return f"v{self.count}"

    def shape(self) -> tuple[int, ...]:
        """Of a new input."""
        rank = int(self.rng.choice((0, 1, 2, 3), p=(0.05, 0.3, 0.45, 0.2)))
        sizes = [int(n) for n in self.rng.choice(SIZES, rank)]
        if rank and self.chance(0.03):
            sizes[int(self.rng.integers(rank))] = int(self.one(0, 33, 70))
        return tuple(sizes)

    def new_input(self, shape: tuple[int, ...] | None = None, dtype: str | None = None, batched: bool = False, **how: Any) -> str:
        """Another argument (or outside tensor), visible at once."""
        shape = self.shape() if shape is None else shape
        batch: tuple[int, ...] = ()
        if batched and self.several_sizes and shape:
            shape, batch = (self.batch, *shape[1:]), (0,)
        dtype = dtype or str(self.rng.choice(DTYPES))
        layout = "plain" if self.chance(0.7) else str(self.one("turned", "strided", "offset", "expanded"))
        floating = getattr(graphc, dtype).kind == "f"
        needs = floating and self.gradients in ("outside", "inside", "twice") and self.chance(0.6) and not how.get("state")
        made = Input(f"x{len(self.inputs)}", dtype, shape, layout, needs, special=self.chance(UNLIKELY) and "low" not in how,
                     batch=batch, **how)  # fmt: skip
        self.inputs.append(made)
        tensor = replace(made, requires_grad=False).make([self.seed, 0])
        for scope in self.holding:
            scope.names[made.name] = tensor if scope is self.scope else tensor.clone()
            scope.variables.append(made.name)
        return made.name

    # ---- running what is grown

    def attempt(self, statement: Statement, *defines: str) -> Statement | None:
        """Run it here.  None where it fails, or makes what later statements cannot take."""
        names = dict(self.scope.names)
        try:
            with graphc.no_grad(), np.errstate(all="ignore"):
                exec("\n".join(statement.lines()), names)
        except Exception:
            return None
        for name in defines:
            made = names.get(name)
            if isinstance(made, graphc.Tensor) and made.numel() > 3000:
                return None
            self.scope.variables.append(name)
        self.scope.names.update(names)
        return statement

    def assigned(self, text: str) -> Statement | None:
        """``name = text``."""
        name = self.fresh()
        return self.attempt(Statement(f"{name} = {text}"), name)

    def step(self) -> Statement | None:
        """One of the ways to add a statement; None where it failed."""
        kinds = list(self.WEIGHTS)
        weights = np.array([self.WEIGHTS[k] for k in kinds])
        kind = str(self.rng.choice(kinds, p=weights / weights.sum()))
        try:
            made: Statement | None = getattr(self, f"step_{kind}")()
        except (LookupError, TypeError, ValueError):
            return None
        return made

    def block(self, depth: int, last: str | None = None) -> tuple[Statement, ...]:
        """One to two statements that leave every variable with the type it has."""
        made = []
        for _ in range(int(self.rng.integers(1, 3))):
            statement = self.keeping()
            if statement is not None:
                made.append(statement)
        if not made:
            raise LookupError
        return tuple(made)

    def keeping(self) -> Statement | None:
        """A statement after which every variable has the type it had: a write, or a new value of the same type."""
        if self.chance(0.4):
            return self.step_write() if self.chance(0.6) else self.step_state()
        x = self.pick(lambda x: x.dtype.kind == "f")
        before = self.value(x)
        made = self.attempt(Statement(f"{x} = {self.line(lines.KEPT, x=x, number=self.number())}"))
        if made is not None and (self.value(x).shape, self.value(x).dtype) != (before.shape, before.dtype):
            self.scope.names[x] = before
            return None
        return made

    def number(self) -> float:
        """A plain number."""
        return float(self.one(0.5, 2.0, -1.0, 1.5, 0.25, 3))

    # ---- operators

    def step_table(self) -> Statement | None:
        """A call of any operator, as one of its samples calls it."""
        op = OPERATORS[int(self.rng.integers(len(OPERATORS)))]
        sample: Sample = op.samples[int(self.rng.integers(len(op.samples)))]
        dtype = str(self.one(*[d.name for d in op.dtypes])) if self.chance(0.2) else op.dtypes[0].name
        args = [literal(self.arguments(a, dtype)) for a in sample.args]
        keywords = [f"{k}={literal(self.arguments(a, dtype))}" for k, a in sample.kwargs.items()]
        return self.several(f"op({op.name!r})({', '.join([*args, *keywords])})")

    def several(self, text: str) -> Statement | None:
        """Assign one result, or some of several."""
        name = self.fresh()
        made = self.attempt(Statement(f"{name} = {text}"))
        if made is None:
            return None
        result = self.value(name)
        if isinstance(result, graphc.Tensor):
            return made if self.visible(name) else None
        members = [i for i, x in enumerate(result) if isinstance(x, graphc.Tensor)] if isinstance(result, tuple | list) else []
        if not members:
            return None
        chosen = self.one(*members)
        text = f"{name} = {text}[{chosen}]"
        made = self.attempt(Statement(text))
        return made if made is not None and self.visible(name) else None

    def visible(self, name: str) -> bool:
        """Let later statements use a variable; False where it is too large."""
        if self.value(name).numel() > 3000 or self.value(name).dtype.kind == "c":
            return False
        self.scope.variables.append(name)
        return True

    def arguments(self, value: Any, dtype: str) -> Any:
        """A sample's argument with tensors in the place of its fills."""
        if isinstance(value, Fill):
            return Raw(self.operand(value, dtype))
        if isinstance(value, tuple | list):
            return type(value)(self.arguments(v, dtype) for v in value)
        return value

    def operand(self, fill: Fill, dtype: str) -> str:
        """Code for a tensor of a shape and range: a variable that fits, what is made of one, or a new input."""
        if math.prod(fill.shape) > 400:
            raise ValueError
        wanted = dtype if fill.dtype is None else fill.dtype.name
        if getattr(graphc, wanted).kind == "f" and self.chance(REUSED):
            bounded = fill.low > -2.0 or fill.high < 2.0
            same = self.fitting(lambda x: tuple(x.shape) == fill.shape and x.dtype.name == wanted)
            if same and not bounded:
                return self.recent(same)
            x = self.pick(lambda x: x.dtype.name == wanted and x.numel() > 0)
            return f"fitted({x}, {fill.shape}, {fill.low}, {fill.high}, {bounded})"
        return self.new_input(fill.shape, wanted, low=fill.low, high=fill.high)

    def step_unary(self) -> Statement | None:
        """An elementwise function."""
        x, name = self.pick(), str(self.one(*UNARY))
        return self.assigned(self.one(f"graphc.{name}({x})", f"{x}.{name}()") if name != "relu" else f"graphc.relu({x})")

    def step_binary(self) -> Statement | None:
        """Two operands that may need broadcasting."""
        x = self.pick()
        y = self.pick() if self.chance(0.5) else self.partner(x)
        if self.chance(0.3):
            y = str(self.number())
        name = str(self.one(*BINARY))
        signs = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
        if name in signs:
            return self.assigned(f"{x} {signs[name]} {y}" if self.chance(0.8) else f"{y} {signs[name]} {x}")
        return self.assigned(f"graphc.{name}({x}, {y})")

    def partner(self, name: str) -> str:
        """A new input that broadcasts with a variable."""
        x = self.value(name)
        lead = int(self.rng.integers(0, x.ndim + 1))
        shape = tuple(1 if self.chance(0.3) else int(n) for n in x.shape[lead:])
        return self.new_input(shape, x.dtype.name if self.chance(0.8) else None)

    def step_matmul(self) -> Statement | None:
        """A product."""
        x = self.pick(lambda x: x.ndim > 0 and x.dtype.kind == "f")
        inner = int(self.value(x).shape[-1])
        y = self.new_input((inner, int(self.one(1, 2, 3, 8))), self.value(x).dtype.name)
        return self.assigned(f"{x} @ {y}")

    def step_reduce(self) -> Statement | None:
        """A reduction, alone or meeting its operand again."""
        x = self.pick(lambda x: x.ndim > 0)
        name = self.one("sum", "mean", "amax", "amin", "prod", "std", "argmax", "any")
        dim, which = int(self.rng.integers(-1, self.value(x).ndim)), self.one(0, 1)
        return self.assigned(self.line(lines.REDUCED, x=x, name=name, dim=dim, keep=self.chance(0.5), which=which))

    def step_cast(self) -> Statement | None:
        """Another dtype."""
        dtype = self.one("float32", "float32", "float64", "float16", "bfloat16", "int64", "bool")
        return self.assigned(f"{self.pick()}.to(graphc.{dtype})")

    def step_random(self) -> Statement | None:
        """Random numbers of the default generator."""
        return self.assigned(self.line(lines.RANDOM, x=self.pick(lambda x: x.dtype.kind == "f")))

    def step_index(self) -> Statement | None:
        """Elements at index tensors, and masks."""
        x = self.pick(lambda x: x.ndim > 0 and x.shape[0] > 0)
        if self.chance(SIZED):
            return self.assigned(self.line(lines.SIZED, x=x))
        rows = int(self.value(x).shape[0])
        index = self.new_input((int(self.one(1, 2, 4)),), "int64", low=-rows if self.chance(0.3) else 0, high=rows)
        return self.assigned(self.line(lines.INDEXED, x=x, i=index, rows=rows))

    def step_size(self) -> Statement | None:
        """Arithmetic with sizes."""
        x = self.pick(lambda x: x.ndim > 0)
        return self.assigned(self.line(lines.OF_SIZES, x=x, n=f"{x}.shape[0]"))

    # ---- views and writes

    def view(self) -> str:
        """Code for a view of a variable."""
        x = self.pick()
        shape = self.value(x).shape
        rank = len(shape)
        if not rank:
            return self.line(lines.VIEWS, x=x)
        start = int(self.rng.integers(0, int(shape[0]) // 2 + 1))
        order = [int(d) for d in self.rng.permutation(rank)]
        return self.line((*lines.VIEWS, *lines.VIEWS_OF_DIMS), x=x, dim=int(self.rng.integers(rank)), start=start, order=order)

    def step_view(self) -> Statement | None:
        """A view with a name."""
        return self.assigned(self.view())

    def is_free(self, x: graphc.Tensor) -> bool:
        """Whether a tensor may be written to: neither a leaf that requires grad nor a view of one shares its memory."""
        guarded = [self.scope.names[i.name]._storage for i in self.inputs if i.requires_grad and i.name in self.scope.names]
        guarded.append(self.scope.names["module"].weight._storage)
        return all(x._storage is not s for s in guarded)

    def step_write(self) -> Statement | None:
        """A write in place."""
        x = self.pick(self.is_free)
        y = self.one(str(self.number()), self.pick(), f"{x} * 0.5")
        return self.attempt(Statement(self.line(lines.WRITES, x=x, y=y, number=self.number())))

    def step_write_view(self) -> Statement | None:
        """A write to a part."""
        x = self.pick(lambda x: self.is_free(x) and x.ndim > 0 and x.shape[0] > 0)
        start = int(self.rng.integers(0, int(self.value(x).shape[0])))
        return self.attempt(Statement(self.line(lines.WRITES_TO_PARTS, x=x, start=start, number=self.number())))

    def step_detach(self) -> Statement | None:
        """What cuts the tape, or copies."""
        return self.assigned(self.line(lines.COPIES, x=self.pick()))

    # ---- state

    def step_state(self) -> Statement | None:
        """A tensor outside that is written to."""
        states = [i.name for i in self.inputs if i.state]
        if not states:
            return None
        return self.attempt(Statement(self.line(lines.WRITES_OF_STATE, s=self.one(*states), y=self.pick())))

    def step_module(self) -> Statement | None:
        """Attributes, parameters and buffers of a module."""
        x = self.pick(lambda x: x.dtype.kind == "f")
        if self.chance(0.4):
            return self.assigned(self.line(lines.OF_MODULE, x=x))
        return self.attempt(Statement(self.line(lines.WRITES_OF_MODULE, x=x)))

    def step_outside(self) -> Statement | None:
        """A tensor outside that is read."""
        states = [i.name for i in self.inputs if i.state]
        s = str(self.one(*states)) if states else self.new_input(state=True)
        return self.assigned(f"{s} * {self.number()}")

    # ---- control flow

    def condition(self) -> str:
        """A question about elements whose answer differs between calls, often."""
        x = self.pick(lambda x: x.numel() > 0 and x.dtype.kind == "f")
        with graphc.no_grad():
            near = float(self.value(x).double().mean())
        if not math.isfinite(near):
            raise LookupError
        limit = round(near + float(self.rng.normal(0, 0.3)), 2)
        return self.line(lines.CONDITIONS, x=x, limit=limit)

    def within(self, make: Callable[[], tuple[Statement, ...]]) -> tuple[Statement, ...]:
        """Grow a block in memory of its own."""
        outer, self.scope = self.scope, self.scope.forked()
        self.holding.append(self.scope)
        try:
            return make()
        finally:
            self.scope = outer
            self.holding.pop()

    def step_branch(self) -> Statement | None:
        """An ``if``, with or without ``else``."""
        if len(self.holding) > 2:
            return None
        condition = self.condition()
        body = self.within(lambda: self.block(1))
        other = self.within(lambda: self.block(1)) if self.chance(0.5) else ()
        return self.attempt(Statement(f"if {condition}:", body, other))

    def step_leave(self) -> Statement | None:
        """An early return."""
        if len(self.holding) > 1:
            return None
        return Statement(f"if {self.condition()}:", (Statement(f"return {{'early': {self.pick()}}}"),))

    def step_check(self) -> Statement | None:
        """An assertion, or an error that is caught."""
        if self.chance(0.5):
            return Statement(f"assert {self.condition()}, 'too much'")
        x = self.pick(lambda x: x.dtype.kind == "f")
        body = Statement(f"if {self.condition()}:", (Statement("raise ValueError"),)), Statement(f"{x} = {x} + 1")
        return self.attempt(Statement("", (Statement("try:", body), Statement("except ValueError:", (Statement(f"{x} = -{x}"),)))))

    def step_loop(self) -> Statement | None:
        """A ``while`` over elements that ends."""
        x = self.pick(lambda x: x.dtype.kind == "f" and x.numel() > 0)
        n = self.fresh()
        limit = round(float(self.rng.uniform(1, 6)), 2)
        body = (Statement(f"{x} = {x} * 1.5 + 0.5"), Statement(f"{n} += 1"))
        header = Statement("", (Statement(f"{n} = 0"), Statement(f"while {n} < 3 and {x}.abs().max() < {limit}:", body)))
        return self.attempt(header)

    def step_repeat(self) -> Statement | None:
        """A ``for`` over numbers, with a ``break`` sometimes."""
        body = self.within(lambda: self.block(1))
        if self.chance(0.4):
            body = (*body, Statement(f"if {self.condition()}:", (Statement("break"),)))
        return self.attempt(Statement(f"for i in range({int(self.rng.integers(1, 4))}):", body))

    def step_read(self) -> Statement | None:
        """A number that is read, and used."""
        x, y = self.pick(lambda x: x.dtype.kind == "f" and x.numel() > 0), self.pick(lambda x: x.ndim > 0)
        return self.assigned(self.line(lines.READ, x=x, y=y))

    def step_parts(self) -> Statement | None:
        """Several tensors in a list."""
        x = self.pick()
        return self.assigned(self.line(lines.PARTS, x=x, y=self.pick(lambda y: y.shape == self.value(x).shape)))
