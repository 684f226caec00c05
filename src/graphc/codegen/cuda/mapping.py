"""How the iterations of a kernel's parallel loop are spread over blocks and threads.

Enters: a `Kernel`.  Leaves: its `Mapping`, decided from the loop nest alone (never from sizes, so one text serves
all), and the launch geometry for given sizes.  Never here: text, a driver.

Three shapes, the first that fits:

- ``thread``: no loop below the parallel one may be spread: one thread an iteration.
- ``rectangle``: everything stored is stored inside ``vector``/``tile`` loops that nothing else in the kernel waits for
  (pointwise
  kernels): threads form a rectangle, the parallel loop down, the vector loops across, so neighbours read neighbours.
- ``warp``: any other nest: one warp an iteration.  ``lanes`` loops give virtual lane l to lane l, ``vector``/``tile``
  loops are dealt
  out to the lanes, everything else is done by all lanes alike; see `Scratch` for where scratch lives.

Every loop over the grid is a stride loop, so any geometry gives the same results and the launch is a matter of speed
only.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as Table
from dataclasses import dataclass
from typing import Literal

from graphc.codegen.cuda.accesses import accesses, lane_owned, loads, stores
from graphc.codegen.cuda.wide import wide
from graphc.dims import Size, evaluate, free
from graphc.ir.loops import LANES, Alloc, For, Kernel, Let, Prefetch, Stmt, plain, walk

SHARED_BYTES = 48 * 1024  # static shared memory of a block
MOST_THREADS = 256
_MOST_WARPS = 8
_LARGE_SCRATCH = SHARED_BYTES // 4
_WAVES = 16  # blocks of pointwise kernels per processor: beyond that, threads take several elements each
_GRID_LIMIT = (1 << 31) - 1, (1 << 16) - 1

SPREAD = ("vector", "tile")


@dataclass(frozen=True, slots=True)
class Mapping:
    """One of three shapes.

    `threads` of a block.  For a rectangle: `widths`, the extents of the spread loops; `var`, the parallel loop's
    variable in them; `step`, how many elements of a spread loop a thread takes at once.
    """

    shape: Literal["thread", "rectangle", "warp"]
    threads: int
    var: str | None = None
    widths: tuple[Size, ...] = ()
    step: int = 1

    def launch(self, extent: int, sizes: Table[str, int], processors: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(grid, block), each (x, y), for `extent` parallel iterations on a device of so many `processors`."""
        if self.shape == "warp":
            return (_limited(extent, self.threads // LANES, _GRID_LIMIT[0]), 1), (self.threads, 1)
        most = processors * _WAVES
        if self.shape == "thread":
            return (_limited(extent, self.threads, most), 1), (self.threads, 1)
        across = -(-self._width(sizes) // self.step)
        x = min(self.threads, 1 << max(across - 1, 0).bit_length())
        y = self.threads // x
        down = _limited(extent, y, most)
        return (down, _limited(across, x, min(max(most // down, 1), _GRID_LIMIT[1]))), (x, y)

    def _width(self, sizes: Table[str, int]) -> int:
        """The widest spread loop of the first parallel iteration; one block's width where only the kernel knows it."""
        values = dict(sizes) if self.var is None else {**sizes, self.var: 0}
        known = [evaluate(width, values) for width in self.widths if free(width) <= values.keys()]
        return max(known, default=self.threads * self.step)


def _limited(count: int, per: int, most: int) -> int:
    return max(min(-(-count // per), most), 1)


def parallel_body(kernel: Kernel) -> tuple[str | None, tuple[Stmt, ...]]:
    """(variable, body) of the parallel loop; a kernel without one is a single iteration."""
    if len(kernel.body) == 1:
        (loop,) = kernel.body
        if isinstance(loop, For) and loop.kind == "parallel":
            return loop.var, loop.body
    return None, kernel.body


def parallel_extent(kernel: Kernel) -> Size:
    """How many iterations the parallel loop has; 1 for a kernel without one."""
    if len(kernel.body) == 1:
        (loop,) = kernel.body
        if isinstance(loop, For) and loop.kind == "parallel":
            return loop.extent
    return 1


def map_kernel(kernel: Kernel) -> Mapping:
    """The mapping of `kernel`.

    Raises NotImplementedError where the scratch that a warp's lanes share does not fit in shared memory.
    """
    var, body = parallel_body(kernel)
    body = plain(body)
    loops = [s for s in walk(body) if isinstance(s, For)]
    if not any(loop.kind in (*SPREAD, "lanes") for loop in loops):
        return Mapping("thread", MOST_THREADS)
    spread = [loop for loop in loops if loop.kind in SPREAD]
    if _is_rectangle(body) and not _has_hazards(body):
        plans = [wide(loop) for loop in spread]
        step = max((plan.step for plan in plans if plan is not None), default=1)
        return Mapping("rectangle", MOST_THREADS, var, tuple(loop.extent for loop in spread), step)
    nbytes = sum(scratch_nbytes(alloc) for alloc in scratch_of(body).shared)
    if nbytes > SHARED_BYTES:
        raise NotImplementedError(f"cuda: kernel {kernel.name} needs {nbytes} bytes of scratch a warp, a block has {SHARED_BYTES}")
    warps = _MOST_WARPS if nbytes == 0 else min(_MOST_WARPS, SHARED_BYTES // nbytes)
    return Mapping("warp", LANES * warps)


def _is_rectangle(body: tuple[Stmt, ...]) -> bool:
    """Whether threads may all do everything but the spread loops: nothing is stored or checked elsewhere."""
    for statement in body:
        match statement:
            case Let() | Prefetch():
                pass
            case For(kind="vector" | "tile", body=inner):
                if any(isinstance(s, For | Alloc) for s in inner):
                    return False
            case For(kind="serial" | "unroll", body=inner):
                if not _is_rectangle(inner):
                    return False
            case _:
                return False
    return True


def _has_hazards(body: tuple[Stmt, ...]) -> bool:
    """Whether a buffer is both read and stored, unless each thread touches its own element: one loop, one offset."""
    for buffer in {store.buffer for store in stores(body)} & {load.buffer for load in loads(body)}:
        users = [s for s in body if buffer in _touched(s)]
        offsets = {access.offset for access in accesses(body) if access.buffer == buffer}
        if len(users) > 1 or len(offsets) > 1 or not (isinstance(users[0], For) and users[0].kind in SPREAD):
            return True
    return False


def _touched(statement: Stmt) -> set[str]:
    return {access.buffer for access in accesses((statement,))}


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where a warp's scratch lives: in shared memory, or, each lane its own elements, in registers or local memory.

    `owned`: the modulus of every scratch whose elements belong to one lane (see `lane_owned`), wherever it lives.
    """

    shared: tuple[Alloc, ...]
    private: tuple[Alloc, ...]
    owned: dict[str, int]


def scratch_of(body: tuple[Stmt, ...]) -> Scratch:
    """The scratch of a warp-shaped `body`.

    Private is what belongs to one lane and is asked to be in registers, or would leave room for few warps in shared
    memory.
    """
    owned = lane_owned(body)
    shared: list[Alloc] = []
    private: list[Alloc] = []
    for alloc in _declared(body):
        is_private = alloc.buffer in owned and (alloc.kind == "registers" or scratch_nbytes(alloc) > _LARGE_SCRATCH)
        (private if is_private else shared).append(alloc)
    return Scratch(tuple(shared), tuple(private), owned)


def _declared(body: tuple[Stmt, ...]) -> Iterator[Alloc]:
    """Scratch of the whole warp: all that is not declared inside a loop of single lanes."""
    for statement in body:
        if isinstance(statement, Alloc):
            yield statement
        elif isinstance(statement, For) and statement.kind in ("serial", "unroll"):
            yield from _declared(statement.body)


def scratch_nbytes(alloc: Alloc) -> int:
    """Bytes of `alloc` in shared memory, each scratch starting at a multiple of 16."""
    nbytes: int = alloc.size * alloc.dtype.itemsize
    return -(-nbytes // 16) * 16
