"""A compiled program as data: what to put where before calling its entry.

Enters: nothing (a noun).  Leaves: `Plan`, JSON both ways.  Never here: code, addresses, execution.

The entry takes one table of 8-byte slots: 0 the status word's address, 1 the thread count, then one slot each for inputs, outputs,
arena values, temporaries (addresses), and sizes (integers).  The last slot of a plan with host calls is the callback's address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphc import dims, dtypes
from graphc.dims import Size
from graphc.dtypes import DType
from graphc.ir.loops import FIRST_SLOT

ALIGNMENT = 64  # of every value in scratch memory


@dataclass(frozen=True)
class Spec:
    """dtype and shape of one input or output."""

    dtype: DType
    shape: tuple[Size, ...]

    def __str__(self) -> str:
        return f"{self.dtype.short}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class HostCall:
    """An operator run by its reference in the middle of a program: slots and specs of its operands and results.

    attributes: as text.   line: ``messages[line - 1]`` is the user's line.
    """

    op: str
    attributes: str
    inputs: tuple[tuple[int, Spec], ...]
    outputs: tuple[tuple[int, Spec], ...]
    line: int


@dataclass(frozen=True)
class Plan:
    """See the module.  `written`: inputs overwritten by updates.  `messages[c - 1]`: what status c means.
    `arena_offsets`: byte offset of each arena slot.  `temporaries`: bytes of each, over `sizes`."""

    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    arena_offsets: tuple[int, ...]
    arena_nbytes: int
    temporaries: tuple[Size, ...]
    sizes: tuple[str, ...]
    written: tuple[int, ...]
    messages: tuple[str, ...]
    host_calls: tuple[HostCall, ...] = ()

    @property
    def slots(self) -> int:
        """Length of the entry's table."""
        return self.callback_slot + bool(self.host_calls)

    @property
    def callback_slot(self) -> int:
        """Where the callback's address is, if there are host calls."""
        return self.sizes_at + len(self.sizes)

    @property
    def sizes_at(self) -> int:
        """The slot of the first size."""
        return FIRST_SLOT + sum(map(len, (self.inputs, self.outputs, self.arena_offsets, self.temporaries)))

    def nbytes(self, sizes: Mapping[str, int]) -> int:
        """Bytes of inputs, outputs and arena where the symbols are `sizes`."""
        specs = (*self.inputs, *self.outputs)
        return self.arena_nbytes + sum(dims.evaluate(dims.product(s.shape), sizes) * int(s.dtype.itemsize) for s in specs)

    def scratch(self, sizes: Mapping[str, int]) -> tuple[list[int], int]:
        """Offsets of the arena's values and, behind them, of the temporaries, in one piece of memory, and how large that is."""
        offsets, total = list(self.arena_offsets), self.arena_nbytes
        for nbytes in self.temporaries:
            total = -(-total // ALIGNMENT) * ALIGNMENT
            offsets.append(total)
            total += dims.evaluate(nbytes, sizes)
        return offsets, total

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and ints, which `from_json` reads."""
        calls = [
            [c.op, c.attributes, *([[slot, *_written(s)] for slot, s in side] for side in (c.inputs, c.outputs)), c.line]
            for c in self.host_calls
        ]
        return {
            "inputs": [_written(s) for s in self.inputs],
            "outputs": [_written(s) for s in self.outputs],
            "arena_offsets": list(self.arena_offsets),
            "arena_nbytes": self.arena_nbytes,
            "temporaries": [str(t) for t in self.temporaries],
            "sizes": list(self.sizes),
            "written": list(self.written),
            "messages": list(self.messages),
            "host_calls": calls,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Raises KeyError, TypeError or ValueError for data that `to_json` did not make."""

        def placed(side: Any) -> tuple[tuple[int, Spec], ...]:
            return tuple((int(slot), _read(d, shape)) for slot, d, shape in side)

        return cls(
            inputs=tuple(_read(*spec) for spec in data["inputs"]),
            outputs=tuple(_read(*spec) for spec in data["outputs"]),
            arena_offsets=tuple(int(o) for o in data["arena_offsets"]),
            arena_nbytes=int(data["arena_nbytes"]),
            temporaries=tuple(dims.parse(str(t)) for t in data["temporaries"]),
            sizes=tuple(str(s) for s in data["sizes"]),
            written=tuple(int(w) for w in data["written"]),
            messages=tuple(str(m) for m in data["messages"]),
            host_calls=tuple(
                HostCall(str(op), str(attributes), placed(inputs), placed(outputs), int(line))
                for op, attributes, inputs, outputs, line in data["host_calls"]
            ),
        )


def _written(spec: Spec) -> list[Any]:
    return [spec.dtype.short, [str(d) for d in spec.shape]]


def _read(dtype: Any, shape: Any) -> Spec:
    return Spec(dtypes.by_short(dtype), tuple(dims.parse(str(s)) for s in shape))
