"""Random bits of a flat elementwise group: a block of Philox gives four of them, so blocks are made first, then elements.

Enters: a `Region` whose members walk every buffer in one order.  Leaves: its `Launch`.  Never here: which words a block gives
(`ops.random`).

An element alone would make its whole block and keep a quarter of it.  Here a piece of the result is drawn into scratch, word by
word with a vector of blocks at a time; the words are put in order by a transposition, and the elements read them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graphc.dims import Dim, minimum
from graphc.dtypes import uint32
from graphc.ir.graph import Node
from graphc.ir.loops import Alloc, Expr, For, Load, Size, Stmt, Store, Transpose
from graphc.ops.random import BLOCK_WORDS, block_words
from graphc.schedule.lower import CHUNK, Launch, finish
from graphc.schedule.pull import Block, Loader, Position

if TYPE_CHECKING:
    from graphc.schedule.lower import Region

PIECE = 1024  # elements whose words are in the nearest cache at once


def drawn_first(region: Region, total: Size) -> Launch:
    """The launch of a flat region of `total` elements."""
    chunks = (total + CHUNK - 1) // CHUNK
    p = Dim.symbol("p", 0, below=chunks)
    length = minimum(CHUNK, total - p * CHUNK)
    pieces = (length + PIECE - 1) // PIECE
    start = p * CHUNK + Dim.symbol("s", 0, below=pieces) * PIECE
    count = minimum(PIECE, total - start)
    place = Dim.symbol("v", 0, below=count)
    allocs: list[Stmt] = []
    drawn: list[Stmt] = []
    for i, node in enumerate(filter(is_draw, region.group.members)):
        allocs += [Alloc(f"{name}{i}", uint32, PIECE) for name in ("words", "bits")]
        drawn += _drawn(region, node, i, start // BLOCK_WORDS, (count + BLOCK_WORDS - 1) // BLOCK_WORDS)
        region.puller.reload[node.outputs[0]] = _read(f"bits{i}", place)
    elements = For("v", count, "vector", region.stores(region.flat_index(start + place)))
    body = For("s", pieces, "serial", (*drawn, elements))
    nest = For("p", chunks, "parallel", (*allocs, body))
    return finish(region.puller, nest, chunks, region.work_per_element * CHUNK, region.group, "pointwise, random bits first")


def _read(name: str, place: Size) -> Callable[[Position], Expr]:
    return lambda _: Load(name, place, uint32)


def is_draw(node: Node) -> bool:
    """Whether a node gives random bits."""
    return node.op.name == "random_bits"


def _drawn(region: Region, node: Node, number: int, first: Size, blocks: Size) -> list[Stmt]:
    """The words of so many blocks, in order, in scratch."""
    puller, apart = region.puller, PIECE // BLOCK_WORDS
    c, block = Dim.symbol("c", 0, below=blocks), Block(region.puller.names)
    for k, word in enumerate(block_words(Loader(puller, node, block), first + c)):
        block.add(Store(f"words{number}", k * apart + c, block.let(word)))
    made = For("c", blocks, "vector", tuple(block.statements))
    words, bits = f"words{number}", f"bits{number}"
    return [made, Transpose(f"x{number}", bits, 0, BLOCK_WORDS, words, 0, apart, BLOCK_WORDS, blocks, uint32, uint32)]
