"""`graphc.compile`: a function or module that traces itself when called and runs as one native program.

Enters: Python callables, tensors.  Leaves: tensors, as the callable itself would give them, bit for bit.
Never here: how code is traced (trace) or made (pipeline).

A call is keyed by the structure of its arguments, every tensor's dtype, shape and requires_grad, the grad mode, autocast, the epoch
that any module attribute change bumps, and the plain values in globals and closures that the code names.  A new key traces again,
unless a program of symbolic sizes serves it; a trace whose text was compiled before costs no compilation.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from graphc import dtypes
from graphc.backwards import Backwards
from graphc.capture.effects import Effects
from graphc.capture.guards import NamedValue, guarded_values
from graphc.capture.layouts import layout_of
from graphc.capture.questions import Call, Found
from graphc.capture.reads import Reads
from graphc.capture.sizes import Pattern, Questions
from graphc.capture.stages import resumed
from graphc.capture.traced import Traced
from graphc.capture.tracer import Tracer, trace_joint
from graphc.changes import Changes
from graphc.constants import Constants, may_hold
from graphc.dim_answers import answering, current_answerer
from graphc.dims import Size
from graphc.dynamic import MOST_REVISIONS, Sizes
from graphc.eager import dispatch
from graphc.eager.epoch import may_return
from graphc.eager.modes import modes
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line, warn
from graphc.ir.graph import Graph
from graphc.ir.text import print_graph
from graphc.logs import tell
from graphc.native.entered import Entered
from graphc.passes.decompose import decompose
from graphc.passes.narrow import KINDS, Weights, narrow
from graphc.passes.split_joint import split_joint
from graphc.paths import Chosen, Paths
from graphc.pipeline import Built, Options, build, uncollected
from graphc.quick import Records, enter_through
from graphc.runtime.program import Program
from graphc.trees import Tree, flatten
from graphc.variant import Forward, SharedMemory, Variant


def is_tensor(x: Any) -> bool:
    """Leaves of arguments and results."""
    return isinstance(x, Tensor)


def _opened(graph: Graph) -> Graph:
    """`graph` without composites, where somebody answers what they ask of sizes; else as it is."""
    questions = current_answerer()
    if questions is None:
        return graph
    graph = decompose(graph)
    if questions.must_be_revised:
        raise TraceError("the code is traced again with a size as a number")
    return graph


class Sought(NamedTuple):
    """What to trace: sizes that are symbols (None: none are), the paths that are known, who answers for sizes, and what sizes that
    depend on elements must be (`Questions.revise`)."""

    pattern: Pattern | None
    paths: Paths
    questions: Questions
    revisions: Mapping[str, Size]


def _type_of(x: Tensor) -> tuple[Any, ...]:
    """What a call's key holds of a tensor: dtype, shape, whether it requires grad, and the layout if that is not row-major."""
    array = x._array
    layout = layout_of(array)
    return (x.dtype, array.shape, x.requires_grad) if layout is None else (x.dtype, array.shape, x.requires_grad, layout)


MOST_VARIANTS = 1024  # of one compiled function, those of one program at several sizes included


class Compiled(Entered):
    """A compiled function or module.  Call it as the original; attributes of a module are reached through it.

    explain() -> str: graphs, kernels, what was fused and why not, bytes moved, time per stage.
    guards() -> str: what it holds under.   save(path): the program of the last call as one file.   stats() -> counts and seconds.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        options: Options,
        use_cache: bool = True,
        fullgraph: bool = False,
        weights: Weights | None = None,
        dynamic: bool | None = None,
        max_compiles: int | None = None,
        check: int | None = None,
    ) -> None:
        self._checks = None if check is None else _checks(check)
        self._weights, self._sizes = weights, Sizes(dynamic)
        self._target, self._options, self._use_cache, self._fullgraph = target, options, use_cache, fullgraph
        self._variants: dict[Any, Variant] = {}
        self._programs: dict[Any, tuple[Built, Program]] = {}
        self._constants: WeakValueDictionary[Any, Constants] = WeakValueDictionary()  # variants share what they do not differ in
        self._stats: dict[str, Any] = {"compiles": 0, "traces": 0, "cache_hits": 0, "fallbacks": [], "compile_seconds": 0.0}
        self._eager: dict[Any, int] = {}  # keys that could not be traced, and the epoch of that
        self._last: Variant | None = None
        self._entry, self._records, self._changes = None, Records(), Changes(max_compiles)
        if not isinstance(target, type):
            functools.update_wrapper(self, target, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if modes.tracer is not None:
            return self._target(*args, **kwargs)
        if self._checks is not None and self._checks.is_due():
            return self._checks.checked(self, args, kwargs)
        leaves, tree = flatten((args, kwargs), is_tensor)
        key = (
            tree,
            modes.grad,
            modes.autocast,
            dtypes.get_default_dtype(),
            *map(_type_of, leaves),
        )
        variant = self._variants.get(key)
        if variant is None and self._eager.get(key) == dispatch.epoch[0]:
            return self._target(*args, **kwargs)
        found: Sequence[Found] = ()
        if variant is not None and variant.paths is not None:
            variant, found = variant.paths.chosen(leaves) or (None, ())
        if variant is None or not variant.holds(leaves):
            other = self._another(key, leaves, variant)
            chosen = (other, ()) if other is not None else self._specialise(key, leaves, args, kwargs)
            if chosen is None:
                return self._target(*args, **kwargs)
            variant, found = chosen
        self._last = variant
        if self._records.drop_outdated(variant):
            self._entry = self._records.entry()
        try:
            result = variant.run(leaves, found)
        except SharedMemory:
            self._fall_back(at_user_line("an argument shares memory with a tensor that the call writes to"))
            return self._target(*args, **kwargs)
        for one in (variant, *variant.stages):
            constants = one.constants
            if constants is not None and constants.unsteady:
                one.forward = self._without(one, constants)
        if self._checks is None and self._records.note_run(variant, leaves):
            self._entry = self._records.entry()
            enter_through(Compiled)
        return result

    def again(self) -> Compiled:
        """The same, before its first call."""
        return Compiled(self._target, self._options, self._use_cache, weights=self._weights, dynamic=self._sizes.dynamic)

    @property
    def _name(self) -> str:
        return getattr(self._target, "__name__", type(self._target).__name__)

    def _last_variant(self) -> Variant | None:
        """The variant of the last call that was compiled."""
        return self._records.last_variant() or self._last

    def _fall_back(self, reason: str) -> None:
        """Record why a call runs eagerly; warn of each reason once.  Raises TraceError where no call may (`fullgraph`)."""
        if self._fullgraph:
            raise TraceError(reason)
        if reason not in self._stats["fallbacks"]:
            self._stats["fallbacks"].append(reason)
            warn(f"{self._name} runs eagerly: {reason}")

    def _another(self, key: Any, leaves: list[Tensor], variant: Variant | None) -> Variant | None:
        """A specialisation made earlier that holds for a call; `variant`, the latest of its key, does not."""
        other = self._changes.other(key, leaves, variant or self._variants.get(key))
        if other is not None:
            self._variants[key] = other
        return other

    def _specialise(self, key: Any, leaves: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Chosen | None:
        start = time.perf_counter()
        count = len(key) - len(leaves)
        kind = *key[:count], *((dtype, len(shape), *rest) for dtype, shape, *rest in key[count:])
        chosen = self._sizes.chosen(kind, leaves)
        if chosen is None:
            try:
                self._changes.note(self._stats["traces"])
                if self._stats["traces"]:
                    tell("recompiles", lambda: f"{self._name} is traced again for a change of {self._changes.latest}")
                chosen = self._new(key, kind, leaves, args, kwargs)
            except TraceError as error:
                self._eager[key] = dispatch.epoch[0]
                self._variants.pop(key, None)
                self._fall_back(str(error))
                return None
        current = {k: v for k, v in self._variants.items() if may_return(v.epoch)}  # the others hold for no call any more
        self._variants = {**dict(list(current.items())[-MOST_VARIANTS:]), key: chosen[0]}
        self._stats["compile_seconds"] += time.perf_counter() - start
        tell("guards", lambda: f"{self._name} holds under\n{self.guards(chosen[0])}")
        return chosen

    def _new(self, key: Any, kind: Any, leaves: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Chosen:
        """A specialisation for this call, with symbols for sizes where those get through; else with numbers.

        Raises RuntimeError where a size that is marked as dynamic must be a number.
        """
        pattern = self._sizes.pattern(kind, leaves)
        shapes = [x._array.shape for x in leaves]
        blamed, left, plain = "", MOST_REVISIONS, self._paths(key)
        revisions: dict[str, Size] = {}
        while True:
            values = pattern.values(shapes) if left and pattern is not None and pattern.symbols else None
            if values is None:
                pattern = None
            paths = plain if pattern is None else self._sizes.paths(kind, pattern)
            questions = Questions(values or {})
            try:
                with answering(None if pattern is None else questions), uncollected():
                    call, variant = self._make(args, kwargs, Sought(pattern, paths, questions, revisions))
            except Exception as error:  # the trace of these very shapes says whether symbols are to blame
                if questions.must_be_revised:
                    pass
                elif pattern is not None:
                    blamed, pattern = f"{type(error).__name__}: {error}", None
                    continue
                elif questions.opened and not paths.numbers:
                    paths.numbers = True
                    continue
                else:
                    paths.numbers = False
                    raise
            if not questions.must_be_revised:
                break
            questions.revise(revisions)
            if pattern is not None:
                self._sizes.learn(kind, pattern, questions, leaves)
                pattern, left = questions.revised(pattern), left - 1
        if blamed:
            self._sizes.give_up(kind, blamed)
        if not variant.traced.path and pattern is None:
            return variant, ()
        if variant.traced.path:
            paths.add(variant)
        if pattern is not None:
            pattern = Pattern(pattern.places, () if variant.traced.path else tuple(questions.facts.values()))
            variant.pattern = pattern
            self._sizes.keep(kind, pattern, variant)
        return (paths.at(variant, call), call.values) if variant.traced.path else (variant.at(questions.values), ())

    def _make(self, args: tuple[Any, ...], kwargs: dict[str, Any], sought: Sought) -> tuple[Call, Variant]:
        """Trace; where results carry gradients, trace those too and cut the graph in two."""
        self._stats["traces"] += 1
        _, arguments = flatten((args, kwargs), is_tensor)
        values, questions = guarded_values(self._target), sought.questions
        probe = functools.partial(self._probe, arguments, values, questions.values)
        effects = Effects(self._target, (args, kwargs))
        shapes = None if sought.pattern is None else sought.pattern.shapes()

        def reads(tracer: Tracer) -> Reads:
            effects.reads.append(Reads(tracer, probe, sought.paths.root, questions, sought.revisions, sought.paths.numbers))
            return effects.reads[-1]

        with answering(current_answerer()):
            traced = effects.traced(lambda: trace_joint(self._target, args, kwargs, shapes=shapes, reads=reads))
            variant = self._compiled(traced, arguments, values, questions.values)
            if traced.path:
                effects.reads[-1].note_facts()
        return effects.reads[-1].end(), variant

    def _compiled(self, traced: Traced, arguments: Tree, values: list[NamedValue], sizes: Mapping[str, int]) -> Variant:
        """A specialisation by what was traced.   sizes: of its symbols, now."""
        fixed = self._fixed(traced)
        graph, traced.found, originals = resumed(traced.program(), traced.known, len(traced.gradient_positions))
        if not traced.gradient_positions:
            return Variant(traced, self._forward(traced, graph, fixed), None, None, arguments, values, sizes)
        count = traced.made_count
        gradients_at = range(count, count + len(traced.differentiated))
        gradient_inputs = graph.inputs[len(graph.inputs) - len(traced.gradient_positions) :]
        others_from = traced.own_count - len(traced.aliases)
        steady = traced.steady_results()
        split = split_joint(graph, gradients_at, gradient_inputs, sizes, traced.saved.others, steady, others_from)
        forward = self._forward(traced, split.forward, fixed)
        backward = Backwards(traced, split, originals, forward.built.plan.written, self._program)
        variant = Variant(traced, forward, backward, split, arguments, values, sizes)
        variant.originals = originals
        return variant

    @staticmethod
    def _fixed(traced: Traced) -> list[int]:
        """The positions of inputs that hardly ever change."""
        return [len(traced.arguments) + i for i in traced.lasting if may_hold(traced.states[i]._storage)]

    def _probe(self, arguments: Tree, values: list[NamedValue], sizes: Mapping[str, int], traced: Traced) -> Variant:
        """What gives elements that the code asks for, and changes nothing."""
        forward = self._forward(traced, traced.graph, self._fixed(traced))
        return Variant(traced, forward, None, None, arguments, values, dict(sizes))

    def _paths(self, key: Any) -> Paths:
        """The paths of a key so far."""
        known = self._variants.get(key)
        return Paths() if known is None or known.paths is None else known.paths

    def _program(self, graph: Graph, fixed: Sequence[int] = ()) -> tuple[Built, Program]:
        if current_answerer() is not None:
            graph = _opened(graph)
            with answering(None):
                return self._program(graph, fixed)
        key = print_graph(graph), tuple(fixed)
        found = self._programs.get(key)
        if found is None:
            tell("graph", lambda: print_graph(graph, locations=True))
            built = build(graph, self._options, fixed=fixed, use_cache=self._use_cache, text=key[0])
            self._stats["cache_hits" if built.from_cache else "compiles"] += 1
            found = self._programs[key] = (built, built.link())
        return found

    def _forward(self, traced: Traced, graph: Graph, fixed: Sequence[int]) -> Forward:
        """The program of `graph`, whose inputs at `fixed` are tensors that hardly ever change."""
        if self._weights is not None and fixed:
            graph = _opened(graph)
            with answering(None):
                graph = narrow(graph, fixed, self._weights)
        built, program = self._program(graph, fixed)
        if built.constants is None:
            return Forward(built, program)
        tensors = [traced.states[i - len(traced.arguments)].tensor for i in built.sources]
        key = built.constants.code, *map(id, tensors)
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = Constants(built.constants.link(), tensors)
        return Forward(built, program, found)

    def _without(self, variant: Variant, constants: Constants) -> Forward:
        """A program that reads at every call what turned out to change all the time."""
        built = variant.built
        changing = {built.sources[i] for i in constants.unsteady}
        return self._forward(variant.traced, built.graph, [i for i in built.fixed if i not in changing])

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        """A compiled method, bound to `owner`: every owner is traced by itself."""
        return self if owner is None else functools.partial(self, owner)

    def __repr__(self) -> str:
        return f"graphc.compile({self._target!r})"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_target" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._target, name)

    def stats(self) -> dict[str, Any]:
        """What happened so far, by name.

        compiles, cache_hits: graphs that became machine code, and those that an earlier process had compiled.   graphs: how many
        there are.   traces: how often the Python code ran to be traced.   compile_seconds: for all that.   fallbacks: why calls ran
        eagerly.   recompiles: how often the code was traced again for each reason.   sizes: what programs of symbolic sizes are
        good for.   numbers: why other sizes are numbers.
        """
        sizes, numbers = self._sizes.guards(), list(self._sizes.reasons)
        recompiles = dict(self._changes.reasons)
        return {**self._stats, "graphs": len(self._programs), "recompiles": recompiles, "sizes": sizes, "numbers": numbers}

    def guards(self, only: Variant | None = None) -> str:
        """What every specialisation holds under (or one), a line for each guard: text to print."""
        from graphc.explain.guards import listed

        held = [one for one in self._held() if only is None or one[1].forward is only.forward]
        return listed(self._target, held)

    def _held(self) -> Iterator[tuple[Any, Variant, list[str]]]:
        """The specialisations, each with the key of its calls; those of symbolic sizes once, with what is known of the sizes."""
        for key, latest in self._variants.items():
            if latest.sizes or (latest.paths is not None and latest.paths.pattern is not None):
                continue
            known = [latest] if latest.paths is None else latest.paths.variants()
            yield from ((key, variant, []) for variant in dict.fromkeys([*known, *self._changes.others(key)]))
        for kind, pattern, latest in self._sizes.served():
            count = len(kind) - len(pattern.places)
            types = [(dtype, shape, flag) for (dtype, _, flag), shape in zip(kind[count:], pattern.shapes(), strict=True)]
            for variant in [latest] if latest.paths is None else latest.paths.variants():
                yield (*kind[:count], *types), variant, pattern.described()

    def explain(self, *, kernels: bool = True, cuda: bool = False) -> str:
        """What the programs of the last call became.  Raises RuntimeError before the first call."""
        from graphc.explain.report import report

        parts = [f"fallback to eager: {reason}" for reason in self._stats["fallbacks"]]
        variant = self._last_variant()
        if variant is not None and variant.paths is not None:
            parts.append(variant.paths.text())
        if variant is not None:
            parts += dict.fromkeys(variant.traced.notes)
            parts += [report(built, kernels=kernels, cuda=cuda) for built in variant.builts()]
        if not parts:
            raise RuntimeError(at_user_line("explain: nothing is compiled before the first call"))
        return "\n\n".join(parts)

    def save(
        self,
        path: str | os.PathLike[str],
        names: Mapping[str, Tensor] | None = None,
        methods: Mapping[str, Compiled] | None = None,
    ) -> None:
        """Write an artifact that `graphc.load` runs: the last call's program and those that calls may come back to (other dtypes
        and shapes, a module's other mode), with all that they read and write, as it is now.  Sizes that are symbols stay open.

        What the code names goes in whole: parameters, buffers, optimizers' state, learning rates, generators.  ``state_dict()`` of
        what is loaded gives a module's as the module's own does, a function's by the names that the code has for them.
        names: what to call tensors instead; then ``state_dict()`` is a flat dict of everything.
        methods: further compiled functions, which are called by these names and share the tensors.

        A loaded program's results carry no gradients.  Raises RuntimeError where no call was compiled yet, or the last one does
        what a file cannot hold; TypeError for arguments that no file holds, ValueError for a method's name; OSError where the file
        cannot be written (an existing one stays whole).
        """
        from graphc.storing import store

        store(self, path, names, methods or {})


def _checks(every: int) -> Any:
    from graphc.explain.checks import Checks

    return Checks(every)


MODES = ("default", "lite", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")  # PyTorch's; there is one way here


def _require(backend: Any, mode: Any, weights: Any, check: Any, budget_s: Any) -> None:
    """Raise what `compile` says of options that there are not."""
    if not isinstance(backend, str):
        raise TypeError(at_user_line(f"compile: graphc is the one backend; backend must be a name, got {type(backend).__name__}"))
    if mode is not None and mode not in MODES:
        raise RuntimeError(at_user_line(f"Unrecognized mode={mode}, should be one of: {', '.join(MODES)}"))
    if weights not in (None, *KINDS):
        raise ValueError(at_user_line(f"compile: weights must be one of {', '.join(KINDS)} or None, got {weights!r}"))
    if check is not None and (type(check) is not int or check < 1):
        raise ValueError(at_user_line(f"compile: check must be an int from 1 on, got {check!r}"))
    if check is not None and weights is not None:
        raise ValueError(at_user_line("compile: check compares bits with those of eager code, and weights changes them"))
    if budget_s is not None and not budget_s >= 0:
        raise ValueError(at_user_line(f"compile: budget_s must be a number of seconds, not below 0, got {budget_s!r}"))


def compile(
    target: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str = "inductor",
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    disable: bool = False,
    lanes: int | None = None,
    use_cache: bool = True,
    weights: Weights | None = None,
    max_compiles: int | None = None,
    check: int | None = None,
    budget_s: float | None = None,
) -> Any:
    """A function or module that runs as native code: same arguments, same results, same bits.

    Traced on the first call and again for every new combination of dtypes, ranks, structure, grad mode or module state.  A size
    that is seen with a second value is a symbol from then on: one program serves all sizes but 0 and 1.  Also a decorator.

    fullgraph: raise TraceError where a call could not be compiled, instead of running it eagerly with a `CompileWarning`.
    disable: give `target` itself.   dynamic: True: all sizes are symbols at once; False: none ever is.   backend, mode, options:
    PyTorch's, which change nothing: there is one compiler.   lanes: vector width of the generated code in elements (the results do
    not depend on it).   use_cache: whether compiled objects are kept on disk.

    weights: ``"bfloat16"`` or ``"int8"`` keeps a copy of the float32 matrices that inference multiplies by in so many bits (int8
    with a factor for each column); what is computed stays float32.  It halves or quarters what small batches read from memory,
    and results are no longer those of eager code.  The parameters themselves stay as they are.

    max_compiles: a call that needs another trace after so many raises RuntimeError and says what changed.

    budget_s: seconds of a program's compilation, tracing apart.  What LLVM has not begun with by then is made in haste: in a
    quarter of the time, to run several times as long, with the same results.  Products and convolutions come first.  `explain`
    says what was made so, and it is not kept on disk.

    check: the first call and every `check`-th from there on also runs the Python code, on everything as it was, and raises
    `errors.CheckError` where results or what the call leaves behind differ in a bit: with the first differences, and the node and
    line where they begin.  So what no guard can see is found, such as a list that was changed in place.  The compiled call's
    effects happen once, and stand when the error is raised; printing and files of the Python code happen once more.

    Raises TypeError for a target that cannot be called or a backend that is a function, RuntimeError for a mode that PyTorch does
    not have, ValueError for other weights, a `check` below 1, or one of results that `weights` rounds, or a negative budget.
    """
    _require(backend, mode, weights, check, budget_s)
    if target is None:
        given: dict[str, Any] = {"lanes": lanes, "use_cache": use_cache, "weights": weights, "dynamic": dynamic, "check": check}
        given["budget_s"] = budget_s
        return functools.partial(compile, fullgraph=fullgraph, disable=disable, max_compiles=max_compiles, **given)
    if not callable(target):
        raise TypeError(at_user_line(f"compile: expected a function or module, got {type(target).__name__}"))
    options_here = Options() if lanes is None else Options(lanes=lanes)
    options_here = options_here if budget_s is None else replace(options_here, budget_s=budget_s)
    return target if disable else Compiled(target, options_here, use_cache, fullgraph, weights, dynamic, max_compiles, check)
