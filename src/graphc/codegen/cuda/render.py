"""Kernels of the loop IR as CUDA C++.

Enters: a `Kernel`.  Leaves: the text of one ``extern "C" __global__`` function, to be put after `prelude.PRELUDE` (one
prelude serves any number of kernels of one source) and compiled with `prelude.NVRTC_OPTIONS`.  Which threads do what
is decided in `mapping`. Never here: a driver, sizes, launch geometry.

Parameters: the kernel's own in their order (buffers as pointers, sizes as i64), then ``i64* status`` and the parallel
``i64 extent``. Pointers are not ``__restrict__``: the IR lets an output be the very same buffer as an input.
Reductions follow the tree of `graphc.ir.loops` exactly: a virtual lane is a lane of a warp.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from graphc.codegen.cuda.accesses import Hazards
from graphc.codegen.cuda.expressions import Expressions, Names, literal, own_count, type_name
from graphc.codegen.cuda.mapping import Mapping, Scratch, map_kernel, parallel_body, scratch_of
from graphc.codegen.cuda.prelude import PRELUDE
from graphc.codegen.cuda.wide import Wide, wide
from graphc.codegen.mathlib import expand
from graphc.dims import Dim, Size, substitute
from graphc.dtypes import int64
from graphc.errors import IRError
from graphc.ir.loops import BLOCK, LANES, Acc, Alloc, Check, For, Kernel, Let, Prefetch, Stmt, Store, Update, identity, plain, walk


def render(kernel: Kernel) -> str:
    """The CUDA C++ function of `kernel`.

    Raises IRError for a kernel that breaks the loop IR's rules, NotImplementedError where its scratch does not fit.
    """
    kernel = expand(replace(kernel, body=plain(kernel.body)))
    return _Renderer(kernel, map_kernel(kernel)).text()


def source(kernels: list[Kernel]) -> str:
    """One compilable source of `kernels`, whose names must differ."""
    return "\n".join([PRELUDE, *(render(kernel) for kernel in kernels)])


def _bound_names(kernel: Kernel) -> Iterator[str]:
    """Every name that a parameter or statement gives to something."""
    yield from (param.name for param in kernel.params)
    for statement in walk(kernel.body):
        match statement:
            case Let(name) | Acc(name) | Alloc(name) | For(name):
                yield name


class _Renderer:
    """Writes one kernel.

    A statement is written for a thread on its own (`_own`), or, in warp shape outside of spread loops, for a whole
    warp whose lanes all hold the same values (`_shared`).
    """

    def __init__(self, kernel: Kernel, mapping: Mapping) -> None:
        self.kernel, self.mapping = kernel, mapping
        self.names = Names()
        self.expressions = Expressions(self.names)
        self.status, self.extent = self.names.fresh("gpu_status"), self.names.fresh("gpu_extent")
        self.lane, self.warp = self.names.fresh("lane"), self.names.fresh("warp")
        self.column, self.columns = self.names.fresh("column"), self.names.fresh("columns")
        self.names.claim(_bound_names(kernel))
        self.lines: list[str] = []
        self.depth = 0
        self.inputs = frozenset(p.name for p in kernel.params if p.role == "in")
        self.accumulators: dict[str, Acc] = {}  # declared, their loop yet to come
        self.partial: dict[str, tuple[str, str]] = {}  # of the lanes loop being written: a lane's own value, fold
        _, body = parallel_body(kernel)
        buffers = frozenset(p.name for p in kernel.params if p.role != "size")
        self.scratch = scratch_of(body) if mapping.shape == "warp" else Scratch((), (), {})
        self.expressions.private = {alloc.buffer: self.scratch.owned[alloc.buffer] for alloc in self.scratch.private}
        contested = frozenset(alloc.buffer for alloc in self.scratch.shared) - self.scratch.owned.keys()
        self.hazards = Hazards(contested, buffers)

    # ---- the function

    def text(self) -> str:
        """The whole function."""
        var, body = parallel_body(self.kernel)
        params = [self._param(p.name, p.role, type_name(p.dtype)) for p in self.kernel.params]
        params += [f"i64* {self.status}", f"i64 {self.extent}"]
        bounds = f"__launch_bounds__({self.mapping.threads})"
        with self._block(f'extern "C" __global__ void {bounds} {self.kernel.name}({", ".join(params)})'):
            getattr(self, f"_{self.mapping.shape}")(self.names[var] if var else self.names.fresh("once"), body)
        return "\n".join(self.lines) + "\n"

    def _param(self, name: str, role: str, type_text: str) -> str:
        if role == "size":
            return f"i64 {self.names[name]}"
        return f"{'const ' if role == 'in' else ''}{type_text}* {self.names[name]}"

    def _thread(self, var: str, body: tuple[Stmt, ...]) -> None:
        stride = f"(i64)gridDim.x * {self.mapping.threads}"
        with self._strided(var, f"blockIdx.x * (i64){self.mapping.threads} + threadIdx.x", self.extent, stride):
            self._own_body(body)

    def _rectangle(self, var: str, body: tuple[Stmt, ...]) -> None:
        self._line(f"const i64 {self.column} = blockIdx.y * (i64)blockDim.x + threadIdx.x;")
        self._line(f"const i64 {self.columns} = (i64)gridDim.y * blockDim.x;")
        start, stride = "blockIdx.x * (i64)blockDim.y + threadIdx.y", "(i64)gridDim.x * blockDim.y"
        with self._strided(var, start, self.extent, stride):
            self._rectangle_body(body)

    def _rectangle_body(self, body: tuple[Stmt, ...]) -> None:
        for statement in body:
            if isinstance(statement, For) and statement.kind in ("vector", "tile"):
                self._spread(statement, self.column, self.columns, wide(statement))
            elif isinstance(statement, For):
                with self._counted(statement):
                    self._rectangle_body(statement.body)
            else:
                self._own(statement)

    def _warp(self, var: str, body: tuple[Stmt, ...]) -> None:
        warps = self.mapping.threads // LANES
        self._line(f"const int {self.lane} = threadIdx.x % {LANES}, {self.warp} = threadIdx.x / {LANES};")
        for alloc in self.scratch.shared:
            of_block, name = self.names.fresh(f"{alloc.buffer}_of_block"), self.names[alloc.buffer]
            self._line(f"__shared__ {type_name(alloc.dtype)} {of_block}[{warps}][{max(alloc.size, 1)}];")
            self._line(f"{type_name(alloc.dtype)}* const {name} = {of_block}[{self.warp}];")
        with self._strided(var, f"blockIdx.x * (i64){warps} + {self.warp}", self.extent, f"(i64)gridDim.x * {warps}"):
            self.hazards.enter_loop(body, parallel=True)
            self._shared_body(body)

    # ---- statements of a warp whose lanes agree

    def _shared_body(self, body: tuple[Stmt, ...]) -> None:
        for statement in body:
            if isinstance(statement, For) and statement.kind in ("serial", "unroll"):
                before = self.hazards.pending()
                self.hazards.enter_loop(statement.body)
                with self._counted(statement):
                    self._shared_body(statement.body)
                self.hazards.leave_loop(before)
                continue
            if self.hazards.barrier_before(statement):
                self._line("warp_barrier();")
            self._shared(statement)

    def _shared(self, statement: Stmt) -> None:
        match statement:
            case For(kind="vector" | "tile" | "lanes"):
                self.expressions.spread = statement.var
                if statement.kind == "lanes":
                    self._lanes(statement)
                else:
                    self._spread(statement, self.lane, str(LANES), None)
                self.expressions.spread = None
            case Store() | Check():
                with self._block(f"if ({self.lane} == 0)"):
                    self._own(statement)
            case Acc():
                self.accumulators[statement.name] = statement
            case Alloc(buffer, dtype, size, _):
                modulus = self.expressions.private.get(buffer)
                if modulus is not None:  # the rest is declared for the block
                    self._line(f"{type_name(dtype)} {self.names[buffer]}[{own_count(size, modulus)}];")
            case _:
                self._own(statement)

    def _lanes(self, loop: For) -> None:
        """Every lane ends with the result: blocks in order, each the fold of 32 lanes that took each 32nd element."""
        accumulators = list(self.accumulators.values())
        self.accumulators.clear()
        for acc in accumulators:
            if acc.dtype.kind == "f" and acc.dtype.itemsize == 2:
                raise IRError(f"cuda: accumulator {acc.name} is {acc.dtype.short}; 16-bit floats are not accumulated")
            self._line(f"{type_name(acc.dtype)} {self.names[acc.name]} = {self._identity(acc)};")
        block, end = self.names.fresh(f"{loop.var}_block"), self.names.fresh(f"{loop.var}_end")
        extent = self.expressions.size(loop.extent)
        self.partial = {acc.name: (self.names.fresh(f"{acc.name}_lane"), f"fold_{acc.fn}") for acc in accumulators}
        with self._strided(block, "0", extent, str(BLOCK)):
            self._line(f"const i64 {end} = minimum<i64>({block} + {BLOCK}, {extent});")
            for acc in accumulators:
                self._line(f"{type_name(acc.dtype)} {self.partial[acc.name][0]} = {self._identity(acc)};")
            with self._strided(self.names[loop.var], f"{block} + {self.lane}", end, str(LANES)):
                self._own_body(loop.body)
            for acc in accumulators:
                name, (partial, fold) = self.names[acc.name], self.partial[acc.name]
                self._line(f"{name} = {fold}::of({name}, fold_lanes<{fold}>({partial}));")
        self.partial = {}

    def _identity(self, acc: Acc) -> str:
        return literal(identity(acc.fn, acc.dtype).value, acc.dtype)

    # ---- statements of one thread

    def _own_body(self, body: tuple[Stmt, ...]) -> None:
        for statement in body:
            self._own(statement)

    def _own(self, statement: Stmt) -> None:
        match statement:
            case Let(name, value):
                if value.dtype is not int64:
                    self.expressions.narrow.add(name)
                self._line(f"const {type_name(value.dtype)} {self.names[name]} = {self.expressions.value(value)};")
            case Store(buffer, offset, value):
                if buffer in self.inputs:
                    raise IRError(f"cuda: kernel {self.kernel.name} stores to {buffer}, which is an input")
                self._line(f"{self.expressions.place(buffer, offset)} = {self.expressions.value(value)};")
            case Check(condition, code):
                self._line(f"if (!({self.expressions.value(condition)})) record_failure({self.status}, (i64){code});")
            case Alloc(buffer, dtype, size, _):
                self._line(f"{type_name(dtype)} {self.names[buffer]}[{max(size, 1)}];")
            case Update(name, value):
                if name not in self.partial:
                    raise IRError(f"cuda: kernel {self.kernel.name}: {name} is not an accumulator of a lanes loop around")
                partial, fold = self.partial[name]
                self._line(f"{partial} = {fold}::of({partial}, {self.expressions.value(value)});")
            case Prefetch():
                pass  # many threads hide what the memory takes
            case For(kind="serial" | "unroll" | "vector" | "tile"):
                with self._counted(statement):
                    self._own_body(statement.body)
            case _:
                what = type(statement).__name__
                raise IRError(f"cuda: kernel {self.kernel.name}: no place for {what} inside a loop of single lanes")

    # ---- loops

    def _spread(self, loop: For, start: str, stride: str, plan: Wide | None) -> None:
        """A vector loop dealt out: thread `start` takes each `stride`-th element, or group of `plan.step` elements."""
        var, extent = self.names[loop.var], self.expressions.size(loop.extent)
        if plan is not None:
            begin = self.names.fresh(f"{loop.var}_begin")
            self._wide(loop, start, stride, plan, begin)
            start = f"{begin} + {start}"
        with self._strided(var, start, extent, stride):
            self._own_body(loop.body)

    def _wide(self, loop: For, start: str, stride: str, plan: Wide, begin: str) -> None:
        """Whole groups of elements, where all their addresses are aligned; `begin`: the first element left over."""
        extent = self.expressions.size(loop.extent)
        first: list[tuple[str, Size]] = [(access.buffer, access.offset) for access in plan.loads]
        first += [(access.buffer, access.offset) for access in plan.stores]
        places = [self.expressions.place(buffer, substitute(offset, {loop.var: 0})) for buffer, offset in first]
        tests = [f"is_aligned<{plan.step}>(&{place})" for place in places]
        self._line(f"i64 {begin} = 0;")
        with self._block(f"if ({' && '.join(dict.fromkeys(tests))})"):
            self._line(f"{begin} = ({extent}) / {plan.step} * {plan.step};")
            group = self.names.symbol(f"{loop.var}_group")
            with self._strided(group, f"{plan.step} * {start}", begin, f"{plan.step} * {stride}"):
                self._group(loop, group, plan)

    def _group(self, loop: For, group: str, plan: Wide) -> None:
        """One thread's group, from iteration `group` on: wide loads, the body for each element, wide stores."""
        step, index = plan.step, self.names.fresh("i")
        first = {loop.var: Dim.symbol(group)}
        replaced = self.expressions.replaced
        for load in plan.loads:
            name = self.names.fresh(f"{load.buffer}_group")
            address = self.expressions.place(load.buffer, substitute(load.offset, first))
            self._line(f"const Wide<{type_name(load.dtype)}, {step}> {name} = load_wide<{step}>(&{address});")
            replaced[load.buffer, load.offset] = f"{name}.at[{index}]"
        results = {s: self.names.fresh(f"{s.buffer}_result") for s in plan.stores}
        for store, name in results.items():
            self._line(f"Wide<{type_name(store.value.dtype)}, {step}> {name};")
        self._line("#pragma unroll")
        with self._block(f"for (int {index} = 0; {index} < {step}; {index}++)"):
            self._line(f"const i64 {self.names[loop.var]} = {group} + {index};")
            for statement in loop.body:
                if isinstance(statement, Store) and statement in results:
                    self._line(f"{results[statement]}.at[{index}] = {self.expressions.value(statement.value)};")
                else:
                    self._own(statement)
        for store, name in results.items():
            self._line(f"store_wide(&{self.expressions.place(store.buffer, substitute(store.offset, first))}, {name});")
        replaced.clear()

    @contextmanager
    def _counted(self, loop: For) -> Iterator[None]:
        if loop.kind in ("unroll", "tile"):
            self._line("#pragma unroll")
        with self._strided(self.names[loop.var], "0", self.expressions.size(loop.extent), "1"):
            yield

    @contextmanager
    def _strided(self, var: str, start: str, end: str, stride: str) -> Iterator[None]:
        step = f"{var}++" if stride == "1" else f"{var} += {stride}"
        with self._block(f"for (i64 {var} = {start}; {var} < {end}; {step})"):
            yield

    # ---- lines

    @contextmanager
    def _block(self, head: str) -> Iterator[None]:
        self._line(head + " {")
        self.depth += 1
        yield
        self.depth -= 1
        self._line("}")

    def _line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)
