"""A compiled program as data: what to put where before calling its entry.

Enters: nothing (a noun).  Leaves: `Plan`, JSON both ways.  Never here: code, addresses, execution.

The entry takes one table of 8-byte slots: 0 the status word's address, 1 the thread count, then one slot each for inputs, outputs,
arena values, temporaries (addresses), and sizes (integers).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from graphc import dims, dtypes
from graphc.dims import Size
from graphc.dtypes import DType
from graphc.ir.loops import FIRST_SLOT


@dataclass(frozen=True)
class Spec:
    """dtype and shape of one input or output."""

    dtype: DType
    shape: tuple[Size, ...]

    def __str__(self) -> str:
        return f"{self.dtype.short}[{', '.join(map(str, self.shape))}]"


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

    @property
    def slots(self) -> int:
        """Length of the entry's table."""
        return FIRST_SLOT + sum(map(len, (self.inputs, self.outputs, self.arena_offsets, self.temporaries, self.sizes)))

    @property
    def nbytes(self) -> int:
        """Bytes of inputs, outputs and arena; sizes must be static."""
        specs = (*self.inputs, *self.outputs)
        return self.arena_nbytes + sum(int(dims.product(s.shape)) * s.dtype.itemsize for s in specs)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and ints, which `from_json` reads."""
        data = asdict(self)
        for side in ("inputs", "outputs"):
            data[side] = [[s.dtype.short, [str(d) for d in s.shape]] for s in getattr(self, side)]
        data["temporaries"] = [str(t) for t in self.temporaries]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Raises KeyError, TypeError or ValueError for data that `to_json` did not make."""

        def specs(side: str) -> tuple[Spec, ...]:
            return tuple(Spec(dtypes.by_short(d), tuple(dims.parse(str(s)) for s in shape)) for d, shape in data[side])

        return cls(
            inputs=specs("inputs"),
            outputs=specs("outputs"),
            arena_offsets=tuple(int(o) for o in data["arena_offsets"]),
            arena_nbytes=int(data["arena_nbytes"]),
            temporaries=tuple(dims.parse(str(t)) for t in data["temporaries"]),
            sizes=tuple(str(s) for s in data["sizes"]),
            written=tuple(int(w) for w in data["written"]),
            messages=tuple(str(m) for m in data["messages"]),
        )
