"""Sequences of different lengths: padded to one length, or packed without padding.

Enters: tensors of sequences, lengths.  Leaves: tensors, `PackedSequence`s.  Never here: what a layer does with them
(`nn.recurrent`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc.eager.creation import from_numpy
from graphc.eager.failures import guarded
from graphc.eager.recurrence import Rows
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op

__all__ = [
    "PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence", "pad_sequence",
    "unpack_sequence", "unpad_sequence",
]  # fmt: skip


class _Fields(NamedTuple):
    data: Any
    batch_sizes: Any
    sorted_indices: Any
    unsorted_indices: Any


class PackedSequence(_Fields):
    """Sequences without padding: all first elements, then all second ones, and so on, the longest sequence first.

    data [N, ...]; batch_sizes int64 [T]: how many sequences have an element at each time; sorted_indices and unsorted_indices:
    how the batch was sorted and how it goes back, or None.  One read inside a compiled function needs its sizes in Python: pack
    inside the function, from lengths in a list.
    """

    _sizes: tuple[int, ...] | None

    def __new__(
        cls, data: Any, batch_sizes: Any = None, sorted_indices: Any = None, unsorted_indices: Any = None
    ) -> PackedSequence:
        if batch_sizes is None:
            if not isinstance(data, tuple | list) or len(data) != 2:
                raise AssertionError(at_user_line("Expected data to be a list or tuple of length 2"))
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        made = super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)
        made._sizes = None
        return made

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes as numbers."""
        if self._sizes is None:
            self._sizes = tuple(self.batch_sizes.tolist())
        return self._sizes

    def _with(self, data: Any, indices: Any = None, order: Any = None) -> PackedSequence:
        """Other data, and perhaps another place for the indices, of the same sizes."""
        made = PackedSequence(
            data,
            self.batch_sizes,
            self.sorted_indices if indices is None else indices,
            self.unsorted_indices if order is None else order,
        )
        made._sizes = self._sizes
        return made

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """With the data as `Tensor.to` makes it; itself where that changes nothing."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else self._with(data)

    def pin_memory(self) -> PackedSequence:
        return self._with(self.data.pin_memory())

    def cpu(self, *args: Any, **kwargs: Any) -> PackedSequence:
        return self

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """Raises what `Tensor.cuda` raises: there is only the CPU."""
        return self._with(self.data.cuda(*args, **kwargs))

    def double(self) -> PackedSequence:
        return self._with(self.data.double())

    def float(self) -> PackedSequence:
        return self._with(self.data.float())

    def half(self) -> PackedSequence:
        return self._with(self.data.half())

    def long(self) -> PackedSequence:
        return self._with(self.data.long())

    def int(self) -> PackedSequence:
        return self._with(self.data.int())

    def short(self) -> PackedSequence:
        return self._with(self.data.short())

    def char(self) -> PackedSequence:
        return self._with(self.data.char())

    def byte(self) -> PackedSequence:
        return self._with(self.data.byte())

    @property
    def is_cuda(self) -> bool:
        return False

    def is_pinned(self) -> bool:
        return bool(self.data.is_pinned())

    def rows(self) -> Rows:
        """Where its elements are in a padded tensor."""
        return Rows.of(self.sizes)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes another one.  int64 [n] -> int64 [n]; None stays None."""
    if permutation is None:
        return None
    places = from_numpy(np.arange(permutation.numel()))
    result: Tensor = Op.table["scatter"](permutation, 0, permutation, places)
    return result


def _swapped(x: Any) -> Any:
    return Op.table["transpose"](x, 0, 1)


@guarded
def pack_padded_sequence(input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True) -> PackedSequence:
    """A padded tensor without its padding.  [T, B, ...] (or [B, T, ...] if `batch_first`), B lengths -> `PackedSequence`.

    Raises RuntimeError for lengths that are not sorted (where `enforce_sorted`), not above 0, above T, or not B.
    """
    counts = np.asarray(lengths.tolist() if isinstance(lengths, Tensor) else list(lengths), np.int64)
    order = None
    if not enforce_sorted:
        order = np.argsort(-counts, kind="stable")
        counts = counts[order]
        sorted_indices, unsorted_indices = from_numpy(order), from_numpy(np.argsort(order, kind="stable"))
        input = Op.table["index_select"](input, 0 if batch_first else 1, sorted_indices)
    x = _swapped(input) if batch_first else input
    steps, batch = x.shape[:2]
    if counts.shape != (batch,):
        raise RuntimeError(f"Expected `len(lengths)` to be equal to batch_size, but got {counts.size} (batch_size={batch})")
    if (counts <= 0).any():
        raise RuntimeError("Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0")
    if (np.diff(counts) > 0).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass `enforce_sorted=False` "
            "to pack_padded_sequence and/or pack_sequence to sidestep this requirement if you do not need ONNX exportability."
        )
    if counts[0] > steps:
        raise RuntimeError(f"pack_padded_sequence: a length is {counts[0]}, the input has {steps} time steps: {list(x.shape)}")
    sizes = (counts[None, :] > np.arange(counts[0])[:, None]).sum(1)
    rows = Rows.of(sizes.tolist())
    flat = x[: rows.steps].reshape(rows.steps * batch, *x.shape[2:])
    data = Op.table["index_select"](flat, 0, rows.packed)
    indices = () if order is None else (sorted_indices, unsorted_indices)
    packed = PackedSequence(data, from_numpy(sizes.astype(np.int64)), *indices)
    packed._sizes = tuple(sizes.tolist())
    return packed


@guarded
def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """A packed sequence padded to the longest, or to `total_length`.  -> ([T, B, ...] or [B, T, ...], int64 lengths [B]).

    Raises ValueError for a total_length below the longest.
    """
    rows = sequence.rows() if isinstance(sequence, PackedSequence) else Rows.of(sequence.batch_sizes.tolist())
    if total_length is not None and total_length < rows.steps:
        raise ValueError(
            "Expected total_length to be at least the length of the longest sequence in input, but got "
            f"total_length={total_length} and max sequence length being {rows.steps}"
        )
    data = sequence.data
    shape = (rows.steps, rows.batch, *data.shape[1:])
    x = Op.table["index_select"](data, 0, rows.padded).reshape(shape)
    if data.shape[0] != rows.steps * rows.batch:
        time: Any = from_numpy(np.arange(rows.steps)[:, None])
        going = (time < rows.lengths).reshape(*shape[:2], *(1 for _ in shape[2:]))
        x = Op.table["where"](going, x, Op.table["full_like"](x, padding_value))
    if total_length is not None and total_length > rows.steps:
        x = Op.table["pad"](x, (*(0 for _ in shape[1:] * 2), 0, total_length - rows.steps), value=padding_value)
    x, lengths = (_swapped(x) if batch_first else x), rows.lengths
    if sequence.unsorted_indices is not None:
        x = Op.table["index_select"](x, 0 if batch_first else 1, sequence.unsorted_indices)
        lengths = Op.table["index_select"](lengths, 0, sequence.unsorted_indices)
    return x, lengths


@guarded
def pad_sequence(sequences: Any, batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right") -> Tensor:
    """Tensors [L, ...] of different L as one.  -> [T, B, ...], or [B, T, ...] if `batch_first`.

    Raises RuntimeError for no sequences, for what is not a sequence of them, and for a side that is not left or right.
    """
    if not isinstance(sequences, Iterable):
        shown = f"Expected iterable for input sequences, but got arg of type: {type(sequences)}"
        raise RuntimeError(f"pad_sequence: {shown}")
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"Expected padding_side to be one of left or right, but got {padding_side}.")
    given: list[Any] = list(sequences)
    if not given:
        raise RuntimeError("received an empty list of sequences")
    longest = max(s.shape[0] for s in given)
    padded = []
    for s in given:
        more = longest - s.shape[0]
        sides = (more, 0) if padding_side == "left" else (0, more)
        padded.append(Op.table["pad"](s, (*(0 for _ in range(2 * s.ndim - 2)), *sides), value=padding_value) if more else s)
    result: Tensor = Op.table["stack"](padded, 0 if batch_first else 1)
    return result


@guarded
def unpad_sequence(padded_sequences: Tensor, lengths: Any, batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded tensor, each without its padding.  [T, B, ...], B lengths -> B tensors [L, ...]."""
    x: Any = padded_sequences if batch_first else _swapped(padded_sequences)
    counts = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    return [x[k, :count] for k, count in enumerate(counts)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Tensors [L, ...] of different L, packed.  Raises RuntimeError as `pack_padded_sequence` does."""
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed one, in the order in which they were given."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, _counts(packed_sequences, lengths), batch_first=True)


def _counts(packed: PackedSequence, lengths: Tensor) -> Any:
    """The lengths as numbers where no elements have to be read for that."""
    return lengths if packed.unsorted_indices is not None else packed.rows().lengths
